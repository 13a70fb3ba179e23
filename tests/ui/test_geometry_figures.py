"""Titles say what the data say, whatever they say; numbers stand beside their definitions."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from cramdemo.geometry import Attention, Findings, Landscape, Line, Neighbours, Path
from cramdemo.ui import geometry_figures as figures
from cramdemo.ui.chart import BLANK

KNOWN = Findings(
    stage="done",
    seeds=(4, 5, 6),
    num_tokens=20,
    num_mem=1,
    step=9,
    most_steps=400,
    solved=(20, 20, 20),
    training="solved",
    path=Path(((-1.0, 0.0), (0.0, -0.5), (1.0, 0.2)), (0, 11, 20), (0.9, 0.095, 0.005)),
    decoded=(20, 20, 20),
    cosines=((1.0, -0.02, 0.05), (-0.02, 1.0, 0.01), (0.05, 0.01, 1.0)),
    start_cosines=((1.0, 0.0, 0.01), (0.0, 1.0, 0.02), (0.01, 0.02, 1.0)),
    lines=(Line(0, 1, (1.0, 0.35, 1.0), 3), Line(0, 2, (1.0, 1.0, 1.0), 20), Line(1, 2, (1.0, 0.5, 1.0), 0)),
    landscape=Landscape((0.0, 1.0), (0.0, 1.0), ((1.0, 0.5), (0.25, 1.0)), ((0.0, 0.0), (1.0, 0.0), (0.5, 1.0))),
    neighbours=Neighbours((" <b>", "\n"), (7, 9), (0.21, -0.04), 0.16, 300),
    attention=Attention((0.1, 0.4), (0.02, 0.03), 0.09),
)


def _made(value: dict[str, str]) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(value["f"])
    return made


def _with(**changes: Any) -> Findings:
    return dataclasses.replace(KNOWN, **changes)


def test_nothing_known_is_an_empty_chart() -> None:
    nothing = Findings("training", (0, 1, 2), 20, 1, 0, 400, (0, 0, 0))
    makers = [maker for name, maker in vars(figures).items() if name.endswith("_chart")]
    assert len(makers) == 7
    assert all(make(nothing) == BLANK for make in makers)


def test_the_path_is_shaded_by_tokens_and_its_ends_are_told_by_shape_and_word() -> None:
    made = _made(figures.path_chart(KNOWN))
    walked, ends = made["traces"]
    assert made["title"] == "From a random start to 20 of 20 tokens in 2 steps"
    assert walked["marker"]["color"] == [0, 11, 20] and walked["marker"]["colorbar"]["title"]["text"] == "tokens solved"
    assert walked["text"][1] == "step 1: 11 of 20 tokens solved"
    assert ends["text"] == ["start", "end"] and len(set(ends["marker"]["symbol"])) == 2
    assert "90 %" in made["layout"]["xaxis"]["title"]["text"] and "10 %" in made["layout"]["yaxis"]["title"]["text"]
    assert _made(figures.path_chart(_with(training="")))["traces"][1]["text"] == ["start", "now"]


def test_the_variance_says_how_many_components_hold_99_percent() -> None:
    made = _made(figures.variance_chart(KNOWN))
    assert made["title"] == "2 components of the path hold 99 % of its variance"
    assert made["traces"][0]["y"] == pytest.approx([0.9, 0.995, 1.0])
    straight = dataclasses.replace(KNOWN.path, variance=(0.995, 0.005)) if KNOWN.path else None
    assert _made(figures.variance_chart(_with(path=straight)))["title"].startswith("1 component of the path holds 99 %")


@pytest.mark.parametrize(
    ("cosines", "title"),
    [
        ((-0.02, 0.05, 0.01), "Three solutions, far apart: cosines −0.02 to 0.05"),
        ((0.42, 0.8, 0.1), "Three solutions, alike in part: cosines 0.10 to 0.80"),
        ((0.9, 0.9, 0.9), "Three solutions, close together: cosines 0.90"),
    ],
)
def test_how_far_apart_solutions_are_is_read_from_the_cosines(cosines: tuple[float, ...], title: str) -> None:
    a, b, c = cosines
    assert _made(figures.cosines_chart(_with(cosines=((1, a, b), (a, 1, c), (b, c, 1)))))["title"] == title


def test_ends_that_are_no_solutions_are_not_called_so() -> None:
    title = _made(figures.cosines_chart(_with(solved=(20, 19, 20))))["title"]
    assert title.startswith("Three ends (2 of 3 solved), far apart")
    assert "solution" not in _made(figures.plane_chart(_with(solved=(20, 19, 20))))["aside"]
    assert "ends" in _made(figures.line_chart(_with(solved=(20, 19, 20))))["title"]


def test_why_it_may_be_otherwise_is_said_only_of_a_model_that_was_trained_for_it() -> None:
    close = ((1.0, 0.9, 0.9), (0.9, 1.0, 0.9), (0.9, 0.9, 1.0))
    assert "unlike this one" in _made(figures.cosines_chart(_with(cosines=close, reads_mem=True)))["aside"]
    assert "unlike this one" not in _made(figures.cosines_chart(_with(cosines=close)))["aside"]
    assert "unlike this one" not in _made(figures.cosines_chart(_with(reads_mem=True)))["aside"]


def test_the_line_says_how_many_middles_decode_and_the_worst() -> None:
    made = _made(figures.line_chart(KNOWN))
    assert made["title"] == "2 of 3 middles do not decode: 35 % right at worst"
    assert "3, 20 and 0 of 20 tokens" in made["aside"]
    assert [trace["name"] for trace in made["traces"]] == ["seed 4 to 5", "seed 4 to 6", "seed 5 to 6"]
    assert made["traces"][0]["x"] == [0, 0.5, 1]
    whole = (Line(0, 1, (1.0, 1.0, 1.0), 20),)
    assert _made(figures.line_chart(_with(lines=whole)))["title"] == "Every token is right all along the straight lines"
    dented = (Line(0, 1, (1.0, 0.95, 1.0, 1.0, 1.0), 20),)
    assert _made(figures.line_chart(_with(lines=dented)))["title"] == "The middle decodes: 95 % right at worst"


def test_the_plane_shows_rows_as_they_come_and_marks_what_is_right() -> None:
    made = _made(figures.plane_chart(KNOWN))
    assert made["title"] == "All tokens right at 2 of the plane’s 4 points"
    heat, right, three = made["traces"]
    assert heat["z"] == [[1.0, 0.5], [0.25, 1.0]] and heat["zmin"] == 0.25
    assert (right["x"], right["y"]) == ([0.0, 1.0], [0.0, 1.0]) and three["x"] == [0.0, 1.0, 0.5]
    assert [flag["text"] for flag in made["layout"]["annotations"]] == ["seed 4", "seed 5", "seed 6"]
    half = dataclasses.replace(KNOWN.landscape, accuracy=((1.0, 0.5),)) if KNOWN.landscape else None
    made = _made(figures.plane_chart(_with(landscape=half)))
    assert made["title"] == "The plane through three solutions: row 1 of 2"
    assert made["traces"][0]["z"] == [[1.0, 0.5], [None, None]]


def test_tokens_are_shown_as_characters() -> None:
    made = _made(figures.tokens_chart(KNOWN))
    assert made["title"] == "The nearest token, “ <b>”, is far: cosine 0.21"  # set as text
    assert made["layout"]["yaxis"]["ticktext"] == ["“ &lt;b&gt;”", "“⏎”"]  # plotly reads tags
    assert "<b>" not in json.dumps([made["traces"], made["layout"]])
    assert made["layout"]["xaxis"]["range"][0] < -0.04
    near = dataclasses.replace(KNOWN.neighbours, cosines=(0.8, 0.1)) if KNOWN.neighbours else None
    assert "far" not in _made(figures.tokens_chart(_with(neighbours=near)))["title"]


def test_attention_is_shown_by_layer_or_said_not_to_be_there() -> None:
    made = _made(figures.attention_chart(KNOWN))
    assert made["title"] == "10 to 40 % of the text’s attention goes to [mem]"
    assert made["traces"][0]["x"] == [1, 2] and made["traces"][2]["y"] == [0.09, 0.09]
    made = _made(figures.attention_chart(_with(attention=None, without_attention=True)))
    assert made["title"] == "This model has no attention" and "state" in made["aside"]


@pytest.mark.parametrize(
    ("share", "words"), [(0.0, "0 %"), (0.001, "under 1 %"), (0.5, "50 %"), (0.999, "99 %"), (1.0, "100 %")]
)
def test_hundred_percent_is_all_and_nothing_is_none(share: float, words: str) -> None:
    assert figures.percent(share) == words


def test_numbers_keep_their_place_until_they_are_known() -> None:
    before, after = figures.numbers_html(None), figures.numbers_html(KNOWN)
    assert before.count("<dt>") == after.count("<dt>") == 6
    assert before.count(f"<dd>{figures.UNKNOWN}</dd>") == 6 and figures.UNKNOWN not in after
    for words in (
        "tokens solved, of 20",
        "<dd>20, 20, 20</dd>",
        "<dd>2</dd>",
        "−0.02 to 0.05",
        "<dd>35 %</dd>",
        "25 %",
    ):
        assert words in after


def test_every_figure_has_words_for_a_screen_reader() -> None:
    makers = [maker for name, maker in vars(figures).items() if name.endswith("_chart")]
    assert all(make(KNOWN)["a"] for make in makers)
