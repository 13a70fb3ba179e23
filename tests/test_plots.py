"""Pictures hold the data they were given, whatever its names."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

import pytest

from cramdemo.plots import capacity_figure, curves_svg, training_svg

SVG = "{http://www.w3.org/2000/svg}"


def test_a_chart_has_one_line_for_each_curve_with_all_its_points() -> None:
    picture = ET.fromstring(curves_svg([("Loss", [("a", [(0, 1), (1, 3), (2, 2)]), ("b", [(0, 0), (2, 4)])])], "step"))
    lines = picture.findall(f".//{SVG}polyline")
    points = [[tuple(map(float, p.split(","))) for p in line.attrib["points"].split()] for line in lines]
    assert [len(p) for p in points] == [3, 2]
    assert points[0][0][0] < points[0][1][0] < points[0][2][0]  # x grows to the right
    assert points[0][1][1] < points[0][2][1] < points[0][0][1]  # y grows upwards
    assert points[1][1][1] < points[0][1][1]


def test_names_are_data_and_one_point_is_enough() -> None:
    picture = ET.fromstring(curves_svg([("<b>&", [("<script>", [(3, 5)])])], "a & b"))
    assert "<b>&" in [t.text for t in picture.iter(f"{SVG}text")]


def test_training_records_become_a_chart_each_for_what_was_recorded() -> None:
    records: list[dict[str, float]] = [{"step": 1, "lm_loss": 8.0}, {"step": 2, "lm_loss": 7.5}]
    assert len(ET.fromstring(training_svg(records)).findall(f".//{SVG}polyline")) == 1
    records += [{"step": 3, "loss": 5.0, "accuracy": 0.2, "num_mem": 1, "num_tokens": 4}]
    records += [{"step": 4, "loss": 4.0, "accuracy": 0.3, "num_mem": 8, "num_tokens": 9}]
    assert len(ET.fromstring(training_svg(records)).findall(f".//{SVG}polyline")) == 5


def _held(model: str, num_mem: int, column: str, value: float, interval: list[float] | None) -> dict[str, Any]:
    row = {"model": model, "num_mem": num_mem, "figure": f"{column}: verified tokens, median", "value": value}
    return row | {"column": column, "interval": interval}


def test_capacity_is_a_bar_for_each_column_in_each_group_with_its_value_and_interval() -> None:
    rows = [
        {"model": "a", "figure": "bits per byte of the bare LM on the books", "value": 2.1},
        _held("a", 1, "cramming", 12.5, [10, 14]),
        {"model": "a", "num_mem": 1, "figure": "ours over cramming: verified tokens", "value": 2, "interval": [1, 3]},
        _held("a", 1, "ours", 24, None),
        _held("b", 8, "ours", 0, [0, 0]),
    ]
    figure = capacity_figure({"rows": rows})
    cramming, ours = figure.data
    assert (cramming.name, list(cramming.x), list(cramming.y)) == ("cramming", ["a, K = 1"], [12.5])
    assert (ours.name, list(ours.x), list(ours.y)) == ("ours", ["a, K = 1", "b, K = 8"], [24, 0])
    assert list(ours.text) == ["24", "0"]
    assert (list(cramming.error_y.array), list(cramming.error_y.arrayminus)) == ([1.5], [2.5])
    assert list(ours.error_y.array) == [0, 0]  # an unknown one has no length
    assert figure.layout.barmode == "group"
    assert "tokens" in figure.layout.yaxis.title.text
    assert {figure.layout.paper_bgcolor, figure.layout.plot_bgcolor} == {"rgba(0, 0, 0, 0)"}
    assert len({bars.marker.color for bars in figure.data}) == 2


@pytest.mark.parametrize(
    "report",
    [
        {},
        {"rows": []},
        {"rows": None},
        {"rows": 3},
        {"rows": [None, {"figure": "a", "value": 1}, {"column": 3, "value": 1}]},
        {"rows": [{"column": "ours", "value": "2 of 3"}, {"column": "ours", "value": None}, {"column": "ours"}]},
    ],
)
def test_a_report_with_nothing_to_draw_is_a_figure_that_says_so(report: dict[str, Any]) -> None:
    figure = capacity_figure(report)
    assert len(figure.data) == 0
    assert [note.text for note in figure.layout.annotations] == ["This report holds nothing to draw."]
