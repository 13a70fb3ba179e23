"""What the Capacity tab draws and says, from states made by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from cramdemo.capacity import Capacity, Growth, Point, Tried
from cramdemo.ui.capacity_figures import (
    NO_CARD,
    STANDING_TITLE,
    bits_value,
    card_html,
    standing_value,
    steps_value,
    vectors_value,
)
from cramdemo.ui.chart import BLANK

ONE = Growth(
    1,
    400,
    64,
    853.3,
    points=(Point(0, 0, 9, 0.0), Point(20, 16, 16, 70.5), Point(50, 16, 20, 70.5), Point(70, 61, 61, 260.0)),
    horizon=61,
    gain_bits=260.0,
    token_gain=41,
    ended=True,
)
TWO = replace(ONE, num_mem=2, points=(Point(9, 101, 101, 480.0),), horizon=101, gain_bits=480.0)
STATE = Capacity(
    "owner/<b>mini</b>", 12_517_760, 640, 400, (1, 2), tuple(4.5 * n for n in range(400)), (ONE, TWO), (Tried(32, 1.0),)
)
FIRST = replace(STATE, growths=(replace(ONE, points=ONE.points[:2], horizon=16, ended=False),), tried=())


def _made(value: dict[str, str]) -> dict[str, Any]:
    return dict(json.loads(value["f"]))


def test_steps_feed_one_trace_for_each_k_and_one_for_what_is_tried() -> None:
    value = steps_value(STATE)
    assert value["d"] == "0,0,,9;20,16,,16;50,16,,20;70,61,,61;9,,101,101;"
    made = _made(value)
    assert made["fed"] == [0, 1, 2] and len(made["traces"]) == 3
    assert made["title"] == "One vector holds 61 tokens, 2 hold 101"
    assert value["a"] == "K = 1: 61 tokens exact; K = 2: 101 tokens exact"


@pytest.mark.parametrize("value_of", [steps_value, bits_value])
def test_streamed_points_are_only_appended_to(value_of: Any) -> None:
    assert value_of(STATE)["d"].startswith(value_of(FIRST)["d"])
    assert _made(value_of(STATE))["fed"] == _made(value_of(FIRST))["fed"]


def test_bits_have_a_point_each_time_the_horizon_moved_and_the_bare_cost_beside_them() -> None:
    value = bits_value(STATE)
    assert value["d"] == "70.5,16,;260.0,61,;480.0,,101;"
    cost = _made(value)["traces"][2]
    assert cost["y"][0] == 1 and cost["x"][0] == 0
    assert cost["y"][-1] == 122 and cost["x"][-1] == 4.5 * 121  # 1.2 times the longest horizon, and one more
    assert _made(value)["layout"]["xaxis"]["title"]["text"] == "information gain, bits"


def test_vectors_have_their_fit_and_the_papers_line() -> None:
    made = _made(vectors_value(STATE))
    own, fit, paper = made["traces"]
    assert (own["x"], own["y"]) == ([1, 2], [61, 101])
    assert fit["y"] == [61, 101, 181, 341, 661]
    assert (paper["x"], paper["y"]) == ([1, 16], [512, 7000])
    assert made["title"] == "Each further vector holds about 40 tokens more"
    assert "tokens = 21 + 40.0 × K" in made["aside"] and "arXiv 2502.13063" in made["aside"]


def test_a_line_that_misses_its_points_is_not_made_a_finding() -> None:
    four, eight = (replace(TWO, num_mem=k, horizon=tokens) for k, tokens in ((4, 60), (8, 300)))
    bent = replace(STATE, growths=(ONE, TWO, four, eight))
    assert _made(vectors_value(bent))["title"] == "Here tokens do not grow in a straight line with vectors"


def test_a_text_held_whole_is_a_lower_bound_and_not_fitted() -> None:
    whole = replace(STATE, growths=(ONE, replace(TWO, horizon=400)))
    made = _made(vectors_value(whole))
    assert made["traces"][0]["text"] == ["", "all of the text, so at least"]
    assert len(made["traces"]) == 2
    one = replace(STATE, growths=(replace(ONE, horizon=400),))
    assert "AT LEAST" in card_html(one) and "Give a longer one." in card_html(one)


@pytest.mark.parametrize(("against", "at"), [("width", 640), ("parameters", 12_517_760)])
def test_all_published_points_stand_beside_this_run(against: str, at: int) -> None:
    before, after = _made(standing_value(None, against)), _made(standing_value(STATE, against))
    assert [len(trace["x"]) for trace in before["traces"]] == [14, 12, 6]
    assert before["title"] == STANDING_TITLE
    assert (after["traces"][3]["x"], after["traces"][3]["y"]) == ([at], [61])
    assert before["layout"]["xaxis"]["type"] == before["layout"]["yaxis"]["type"] == "log"
    assert "Llama-3.1-8B, low-dim 256" in after["traces"][2]["text"]
    llama = after["traces"][0]["text"].index("Llama-3.1-8B")
    assert after["traces"][0]["y"][llama] == 1568
    assert after["traces"][0]["x"][llama] == (4096 if against == "width" else 8_030_261_248)


def test_the_card_gives_each_figure_its_unit_and_definition() -> None:
    html = card_html(STATE)
    for words in (
        "61 tokens in one vector.",
        "at least 32 tokens",
        "260 bits",
        "of its 270 bits",
        "853 tokens",
        "4.8%",
    ):
        assert words in html
    assert html.count("<dt>") == html.count("class='cd-why'") == 6
    assert "3 of 12, up to SmolLM2-360M with 61 tokens" in html
    assert "101 tokens" in html and "50.5 tokens a vector" in html


def test_a_rule_whose_limit_was_found_says_no_at_least() -> None:
    html = card_html(replace(STATE, tried=(Tried(32, 1.0), Tried(64, 0.9))))
    assert "<dd>32 tokens</dd>" in html
    assert "below 8 tokens" in card_html(replace(STATE, tried=(Tried(8, 0.5),)))


@pytest.mark.parametrize("stopped", [True, False])
def test_a_horizon_that_was_not_looked_for_to_the_end_is_not_called_one(stopped: bool) -> None:
    state = replace(STATE, growths=(ONE,), stopped=stopped)
    assert ("AT LEAST" in card_html(state)) == stopped
    assert "SO FAR" in card_html(FIRST)


def test_before_anything_is_held_there_is_only_room() -> None:
    nothing = replace(STATE, growths=(Growth(1, 400, 16, 853.3),), tried=())
    assert card_html(None) == card_html(nothing) == NO_CARD
    assert steps_value(nothing) == bits_value(nothing) == vectors_value(nothing) == BLANK
