"""The Laws tab: what it says of what was measured."""

from __future__ import annotations

import json
import threading

import pytest

from cramdemo.catalogue import BUILT_IN, published_gains
from cramdemo.entropy import PROSE, REPEATED, WORDS, Measured, Point
from cramdemo.errors import ModelError, TextError
from cramdemo.settings import Settings
from cramdemo.ui import laws
from cramdemo.ui.laws import check, kinds_value, law_title, law_value, paper_html, run, show

POINTS = (
    Point(PROSE, 48, 250.0, 0.2, 48),
    Point(PROSE, 96, 550.0, 240.0, 60),
    Point(WORDS, 96, 1100.0, 790.0, 20),
    Point(REPEATED, 96, 280.0, 0.0, 96),
)


def _known(stage: str = "done", capacity: float | None = 310.0) -> Measured:
    return Measured(POINTS, 60, 120, capacity, 9.0, stage)


def test_the_law_is_drawn_with_its_capacity_and_a_shape_for_each_kind() -> None:
    made = json.loads(law_value("m", _known())["f"])
    assert made["title"] == "One vector of m holds about 310 bits"
    assert "Beyond the law" not in made["aside"]
    kinds = [trace for trace in made["traces"] if trace["mode"] == "markers"]
    assert [trace["name"] for trace in kinds] == [PROSE, WORDS, REPEATED]
    assert len({trace["marker"]["symbol"] for trace in kinds}) == 3
    (law,) = [trace for trace in made["traces"] if trace["name"].startswith("max(0")]
    assert law["x"] == [0, 310.0, 1100.0] and law["y"] == [0, 0, 790.0]


def test_titles_say_what_was_found_and_no_more() -> None:
    again = Measured((*POINTS, Point(REPEATED, 96, 400.0, 0.0, 96)), 60, 120, 310.0, 9.0, "done")
    assert "more than 15 %: repeated text. A repetition" in json.loads(law_value("m", again)["f"])["aside"]
    words = Measured((*POINTS, Point(WORDS, 96, 900.0, 400.0, 30)), 60, 120, 310.0, 9.0, "done")
    assert json.loads(law_value("m", words)["f"])["aside"].endswith("more than 15 %: random words.")
    assert "so far" in law_title("m", _known("training"))
    fit = Measured((POINTS[0], POINTS[3]), 60, 120, None, 9.0, "done")
    assert law_title("m", fit) == "Every text fits into one vector of m"
    assert law_title("m", _known(capacity=None)) == "2 of 4 texts fit into one vector of m"
    assert law_title("m", _known(capacity=0.0)) == "The vectors save no bits yet"
    assert json.loads(kinds_value(_known())["f"])["title"] == "Between kinds, tokens differ 3.0-fold, bits 1.0-fold"
    few = json.loads(kinds_value(Measured(POINTS[:2], 1, 2, 300.0, 1.0))["f"])["title"]
    assert few.startswith("Too few kinds")
    worse = (Point(PROSE, 96, 550.0, 600.0, 3), Point(WORDS, 96, 1100.0, 1300.0, 2))
    early = json.loads(kinds_value(Measured(worse, 0, 120, 0.0, 1.0))["f"])["title"]
    assert early == "Some kinds have no tokens right or no bits saved yet"


def test_kinds_are_compared_by_texts_that_do_not_fit_whatever_they_cost() -> None:
    held = Point(REPEATED, 96, 580.0, 0.0, 96)  # it costs more than C_H, and saves only what it costs
    made = json.loads(kinds_value(Measured((*POINTS, held), 120, 120, 310.0, 9.0, "done"))["f"])
    assert {x for trace in made["traces"] for x in trace["x"]} == {PROSE, WORDS}


def test_the_limits_of_the_server_hold(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(laws, "sample_texts", lambda lm, own, seed: [laws_text(PROSE)])
    monkeypatch.setattr(laws, "server_settings", lambda: Settings(max_steps=3))
    *_, (_, last) = run("", tiny, 0, None, threading.Event())
    assert last.step == last.most_steps == 3 and last.stage == "done"


def test_a_run_shows_points_and_the_time_left(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(laws, "sample_texts", lambda lm, own, seed: [laws_text(PROSE), laws_text(WORDS)])
    states = list(run("", tiny, 0, None, threading.Event()))
    status, (law, kinds) = show(states[-1])
    assert 'data-state="done"' in status and "2 of" not in law["a"]
    assert law["f"] and kinds["f"]
    assert "about left" in laws.status_html(_known("training")) and "0:09" in laws.status_html(_known("training"))


def laws_text(kind: str):
    from cramdemo.entropy import Text

    return Text(kind, tuple(range(5 if kind == PROSE else 20, 30)))


def test_what_cannot_be_run_is_refused_before_the_start(tiny: str) -> None:
    with pytest.raises(ModelError, match="no model"):
        check("", "../x", 0, None)
    list(run("", BUILT_IN, 0, None, _stopped()))
    with pytest.raises(TextError, match="Make it longer"):
        check("Too short.", BUILT_IN, 0, None)
    check("", BUILT_IN, 0, None)


def _stopped() -> threading.Event:
    stop = threading.Event()
    stop.set()
    return stop


def test_the_papers_figures_are_in_bits() -> None:
    assert published_gains()["pythia-160m"] == pytest.approx(396 / 0.693147, rel=1e-3)
    assert "<td>571</td>" in paper_html()
