"""Figures as the chart component takes them; what a browser does with them is tested in test_browser.py."""

from __future__ import annotations

import json

import pytest

from cramdemo.ui.chart import COLOURS, DASHES, SYMBOLS, axis, chart, dots, figure, line
from cramdemo.ui.theme import CSS


def test_a_figure_names_its_fed_traces_and_keeps_what_plotly_needs() -> None:
    made = json.loads(figure("It grows", [line("a"), dots("b", 1, x=[1], y=[2])], {"xaxis": axis("step")}, fed=[0]))
    assert made["fed"] == [0] and made["title"] == "It grows"
    assert made["layout"]["xaxis"]["title"]["text"] == "step"
    assert made["traces"][1]["x"] == [1]


def test_a_figure_with_a_number_that_json_has_not_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        figure("x", [line("a", y=[float("nan")])], {})


def test_traces_differ_in_more_than_their_colour() -> None:
    assert len({line("a", i)["line"]["dash"] for i in range(len(COLOURS))}) == len(DASHES) == len(COLOURS)
    assert len({dots("a", i)["marker"]["symbol"] for i in range(len(COLOURS))}) == len(SYMBOLS) == len(COLOURS)


def test_every_colour_has_a_value_in_both_modes() -> None:
    for name in COLOURS:
        assert CSS.count(f"{name}: #") == 2


def test_words_of_an_empty_chart_are_text() -> None:
    made = chart("c", "O'Brien <b>", "nothing & <i>")
    assert "<b>" not in made.html_template and "&lt;b&gt;" in made.html_template and "&lt;i&gt;" in made.html_template
    assert r"TITLE = 'O\'Brien <b>'" in made.js_on_load
    assert "@" not in made.html_template
