"""Pictures hold the data they were given, whatever its names."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from cramdemo.plots import curves_svg, training_svg

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
