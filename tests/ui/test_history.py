"""What a browser keeps of runs: no text, not too much, and nothing it brings back is trusted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cramdemo.ui.history import MOST_POINTS, MOST_RUNS, Run, comparison, read, remembered, rows_of, run_of, thinned
from cramdemo.ui.live import LiveState
from tests.ui.conftest import SOLVABLE, TINY

RUN = Run(0, "tiny", 2, 11, 11, True, 40, 1.5, "fast, seed 0", ((0.0, 5.0), (40.0, 0.1)))


def _kept(count: int) -> list[dict[str, Any]]:
    kept: list[dict[str, Any]] = []
    for _ in range(count):
        kept = remembered(kept, RUN)
    return kept


def test_a_run_is_kept_with_its_figures_and_without_its_text(states: list[LiveState]) -> None:
    last = states[-1]
    assert last.result is not None
    run = run_of(last, TINY, "fast")
    assert (run.num_mem, run.num_tokens, run.decoded, run.lossless) == (4, 11, 11, True)
    assert (run.steps, run.settings) == (last.result.steps, "fast, seed 0")
    assert run.curve[0][0] == 0 and run.curve[-1][0] == last.result.steps
    kept = json.dumps(remembered([], run))
    assert not any(word in kept for word in SOLVABLE.replace(",", "").rstrip(".").split())


def test_what_is_kept_comes_back_from_json() -> None:
    kept = json.loads(json.dumps(_kept(2)))
    assert [run.number for run in read(kept)] == [2, 1]
    assert read(kept)[0].curve == RUN.curve


def test_no_more_than_the_newest_runs_are_kept_and_their_numbers_go_on() -> None:
    kept = _kept(MOST_RUNS + 3)
    assert [run["number"] for run in kept] == list(range(MOST_RUNS + 3, 3, -1))


@pytest.mark.parametrize("points", [1, 2, MOST_POINTS, 5000])
def test_a_curve_is_thinned_between_its_ends(points: int) -> None:
    found = thinned("".join(f"{step},{step / 2},0.5;" for step in range(points)))
    assert len(found) == min(points, MOST_POINTS)
    assert found[0] == (0, 0) and found[-1] == (points - 1, (points - 1) / 2)
    assert len(set(found)) == len(found)


def test_a_run_whose_numbers_overflowed_is_kept_without_them() -> None:
    assert thinned("0,5.0,0.5;1,nan,0.0;2,inf,0.0;") == ((0.0, 5.0),)


@pytest.mark.parametrize(
    "brought",
    [
        None,
        "x",
        {"number": 1},
        [None, 3, "x", [], {}],
        [{**_kept(1)[0], "curve": [[1]]}],
        [{**_kept(1)[0], "curve": 7}],
        [{**_kept(1)[0], "steps": "many"}],
        [{**_kept(1)[0], "seconds": float("nan")}],
        [{**_kept(1)[0], "number": 1e400}],
    ],
    ids=repr,
)
def test_what_is_none_of_ours_is_left_out(brought: Any) -> None:
    assert read(brought) == []
    assert remembered(brought, RUN)[0]["number"] == 1


def test_a_stranger_s_words_are_cut_and_stay_data() -> None:
    (run,) = read([{**_kept(1)[0], "model": "<img src=x>" * 1000, "curve": [[0, 1]] * 5000}])
    assert len(run.model) < 200 and len(run.curve) == MOST_POINTS
    assert json.loads(rows_of([run])["r"])[0]["what"].startswith("<img")  # the page shows it by textContent


def test_rows_say_what_was_reached() -> None:
    runs = [
        RUN,
        Run(1, "tiny", 1, 11, 3, False, 40, 1.5, "", ()),
        Run(2, "tiny", 1, 11, -1, False, 40, 1.5, "", ()),
    ]
    rows = json.loads(rows_of(runs)["r"])
    assert [row["verdict"] for row in rows] == ["lossless", "3 of 11 decoded", "not verified"]
    assert rows[0]["what"] == "tiny, 11 tokens, K = 2 · fast, seed 0 · 40 steps, 1.5 s"


def test_two_runs_are_laid_over_each_other_and_the_title_says_who_won() -> None:
    lost = Run(2, "tiny", 1, 11, 3, False, 90, 1.5, "", ((0.0, 6.0), (90.0, 3.0), (91.0, 2.0)))
    won = Run(1, "tiny", 2, 11, 11, True, 40, 1.5, "", RUN.curve)
    figure = json.loads(comparison([lost, won], [1, 2])["f"])
    assert figure["title"] == "#1 is lossless after 40 steps, #2 is not after 90 steps"
    assert [trace["y"] for trace in figure["traces"]] == [[5.0, 0.1], [6.0, 3.0, 2.0]]
    assert figure["traces"][0]["name"].startswith("#1: K = 2") and "bits" in figure["layout"]["yaxis"]["title"]["text"]


@pytest.mark.parametrize("picked", [[], [1], [1, 9], [1, "2"], [None, {}]], ids=repr)
def test_fewer_than_two_known_runs_make_no_figure(picked: list[Any]) -> None:
    assert comparison(read(_kept(3)), picked)["f"] == ""
