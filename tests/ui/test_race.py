"""What the Race tab shows of a race, and what it refuses."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from typing import Any

import gradio as gr
import pytest

from cramdemo import race as racing
from cramdemo.errors import CramError
from cramdemo.race import ENCODER, KEYS, OURS, PAPER, PROGRESSIVE, Lane, Race, Written
from cramdemo.ui import race as module
from cramdemo.ui.chart import BLANK
from cramdemo.ui.race import (
    ABOUT,
    EXAMPLE,
    NAMES,
    NO_BET,
    NOBODY,
    Watched,
    bets,
    check,
    curves_value,
    lanes_html,
    run,
    seed_html,
    show,
    tab,
    verdict_html,
)
from cramdemo.ui.theme import PAPER as PAPER_LINK
from tests.ui.conftest import SOLVABLE

EVIL = "<img src=x>"
GIGA = 10**9
RUNNING = Race(
    50,
    (
        Lane(PAPER, 120, 5000, 300 * GIGA, 31, 0.6),
        Lane(PROGRESSIVE, 200, 10_000, 301 * GIGA, 20, 0.4),
        Lane(OURS, 110, 300, 299 * GIGA, 44, 0.9),
        Lane(ENCODER, 60, 300, 150 * GIGA, 50, 1.0, ended=True, decoded=50, lossless=True),
    ),
    budget=600 * GIGA,
    curve="0.5,0.1,,,;0.6,,,,0.2;",
    seconds=20.0,
)
OVER = replace(
    RUNNING,
    lanes=(
        Lane(PAPER, 231, 5000, 600 * GIGA, 48, 0.96, ended=True, decoded=9),
        Lane(PROGRESSIVE, 390, 10_000, 599 * GIGA, 44, 0.88, ended=True, decoded=44),
        Lane(OURS, 150, 300, 375 * GIGA, 50, 1.0, ended=True, decoded=50, lossless=True),
        RUNNING.lanes[3],
    ),
    ended="finished",
    alone=Written(("Th", EVIL + "\x13", " sea"), (True, False, True)),
    optimised=Written(("Th", "e", " sea"), (True, True, True)),
)
LOST = replace(OVER, lanes=OVER.lanes[:2], alone=None, optimised=None)


def test_before_a_race_all_lanes_stand_there_empty() -> None:
    html = lanes_html(None)
    assert html.count('role="progressbar"') == 4
    assert all(NAMES[key] in html and ABOUT[key] in html for key in KEYS)


def test_a_lane_says_what_is_solved_and_what_it_has_cost() -> None:
    html = lanes_html(RUNNING)
    assert '31 of 50 <span class="race-unit">solved<' in html and '20 of 50 <span class="race-unit">in a row<' in html
    assert "step 120 of 5,000 · 300 GFLOPs" in html
    assert 'style="width:62.0%"' in html and 'aria-valuenow="31"' in html


def test_who_is_lossless_has_a_place_and_who_is_not_says_where_it_stopped() -> None:
    html = lanes_html(OVER)
    assert html.index("LOSSLESS, 2nd") < html.index("LOSSLESS, 1st")
    assert "<b>Stopped at 231 of 5,000 steps</b> · 600 GFLOPs · decodes to 9 of 50" in html
    assert "<b>Stopped at 390 of 10,000 steps</b>" in html


@pytest.mark.parametrize(
    ("state", "bet", "badge", "sentence"),
    [
        (OVER, ENCODER, "YOU WIN", "You bet on “Ours, encoder start”, and you were right."),
        (OVER, PAPER, "YOU LOSE", "You bet on “Cramming, as published”, and you were wrong."),
        (OVER, NOBODY, "YOU LOSE", "You bet on “nobody within the budget”, and you were wrong."),
        (LOST, NOBODY, "YOU WIN", "and you were right."),
        (LOST, PAPER, "YOU LOSE", "and you were wrong."),
        (replace(LOST, ended="stopped"), PAPER, "NO BET", "it was stopped before that was decided"),
        (replace(OVER, ended="stopped"), OURS, "YOU LOSE", "and you were wrong."),
        (OVER, NO_BET, "NO BET", "Next time, bet on one before the start."),
    ],
)
def test_the_verdict_says_who_won_and_whether_the_bet_did(state: Race, bet: str, badge: str, sentence: str) -> None:
    html = verdict_html(Watched(state, bet))
    assert f">{badge}<" in html and sentence in html


def test_the_verdict_sets_the_others_beside_the_winner() -> None:
    html = verdict_html(Watched(OVER, NO_BET))
    assert "Ours, encoder start: lossless first, after 150 GFLOPs." in html
    assert "<b>Ours, random start</b>: lossless too, for 2.5 times the FLOPs" in html
    assert "<b>Cramming, as published</b>: stopped at 231 of 5,000 steps, 9 of 50 decoded" in html
    assert "Nobody was lossless within 600 GFLOPs." in verdict_html(Watched(LOST, NO_BET))


def test_there_is_no_verdict_before_somebody_has_won() -> None:
    early = replace(RUNNING, lanes=RUNNING.lanes[:3])
    assert "Your bet: Ours, random start" in verdict_html(Watched(early, OURS))
    assert "cd-badge" not in verdict_html(Watched(early, OURS))
    assert "still running" in verdict_html(Watched(RUNNING, OURS))


def test_the_curves_are_of_flops_and_mark_who_is_lossless() -> None:
    value = curves_value(OVER)
    made = json.loads(value["f"])
    assert value["d"] == OVER.curve and made["fed"] == [0, 1, 2, 3]
    assert made["title"] == "Ours, encoder start: lossless first, after 150 GFLOPs"
    assert [trace["name"] for trace in made["traces"][:4]] == [NAMES[key] for key in KEYS]
    assert (made["traces"][4]["x"], made["traces"][4]["text"]) == ([375.0, 150.0], [NAMES[OURS], NAMES[ENCODER]])
    assert len({trace["line"]["dash"] for trace in made["traces"][:4]}) == 4
    assert curves_value(replace(OVER, curve="")) == BLANK


def test_the_status_line_tells_measuring_racing_and_the_end() -> None:
    assert "Measuring" in show(Watched(Race(50, RUNNING.lanes), ""))[0]
    running = show(Watched(RUNNING, ""))[0]
    assert "Ours, encoder start: lossless first. The others go on" in running
    assert "301 of 600 GFLOPs" in running and "1 of 4" in running and "at most left" in running
    assert "The race is over" in show(Watched(OVER, ""))[0]
    assert "Stopped for all" in show(Watched(replace(OVER, ended="stopped"), ""))[0]


def test_wrong_tokens_are_marked_in_words_and_text_is_only_text() -> None:
    html = seed_html(OVER)
    assert EVIL not in html
    assert "Th<mark><small>wrong</small>&lt;img src=x&gt;␓</mark> sea</p>" in html
    assert "2 of 3 tokens right, the first 1 in a row" in html
    assert "gives back the first 1 of 50 tokens" in html
    assert "has no memory encoder" in seed_html(replace(LOST, ended="finished"))
    assert "two texts stand here" in seed_html(None)


def test_a_race_on_a_small_model_by_the_handler_s_way(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(racing._Race, "_measured", lambda self: 3 * 10**8)
    states: list[Any] = list(run(SOLVABLE, tiny, NOBODY, 3.0, None, threading.Event()))
    assert states[-1].race.ended and states[-1].bet == NOBODY
    for state in states:
        status, outputs = show(state)
        assert "cd-status" in status and len(outputs) == 4


def test_the_seed_of_the_form_is_the_race_s(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []
    monkeypatch.setattr(module, "race", lambda lm, text, *, seed, stop: seeds.append(seed) or iter(()))
    for seed in (3.0, None):
        list(run(SOLVABLE, tiny, NO_BET, seed, None, threading.Event()))
    assert seeds == [3, 0]


def test_stop_reaches_the_race(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(racing._Race, "_measured", lambda self: 10**12)
    stop = threading.Event()
    stop.set()
    *_, last = run(SOLVABLE, tiny, NO_BET, None, None, stop)
    assert isinstance(last, Watched) and last.race.ended == "stopped"


@pytest.mark.parametrize(("text", "seed"), [("", 0), ("x" * 200_000, 0), (SOLVABLE, -1), (SOLVABLE * 100, 0)])
def test_what_cannot_be_raced_is_refused(tiny: str, text: str, seed: int) -> None:
    module.SHELF.get(tiny)
    with pytest.raises(CramError):
        check(text, tiny, NO_BET, seed, None)


def test_the_example_can_be_raced(tiny: str) -> None:
    check(EXAMPLE, "cram-mini", NO_BET, 0, None)


def test_a_model_without_an_encoder_has_a_bet_less(tiny: str) -> None:
    assert [value for _, value in bets("cram-mini")["choices"]] == [NO_BET, *KEYS, NOBODY]
    assert ENCODER not in dict(map(reversed, bets(tiny)["choices"]))


def test_the_tab_links_to_the_recipes_and_says_the_conventions() -> None:
    with gr.Blocks() as page:
        tab(1)
    html = "".join(str(block.value) for block in page.blocks.values() if isinstance(block, gr.HTML))
    assert PAPER_LINK in html and "github.com/FusionBrainLab/progressive_cramming" in html
    assert "does not train token 0" in html and "trained to read memory vectors" in html
    assert {f.concurrency_id for f in page.fns.values() if f.concurrency_limit == 1} >= {"model"}
