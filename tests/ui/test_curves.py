"""The curves of a run as the chart takes them."""

from __future__ import annotations

import json

from cramdemo.ui.chart import BLANK
from cramdemo.ui.curves import curves_value


def test_no_points_leave_the_chart_empty() -> None:
    assert curves_value("") == BLANK


def test_the_figure_stays_while_points_are_appended() -> None:
    first, second = curves_value("0,5.1,0.25;"), curves_value("0,5.1,0.25;1,4.04,0.5;")
    assert first["f"] == second["f"] and second["d"].startswith(first["d"])
    assert second["a"] == "step 1: loss 4.04 bits a token, teacher-forced accuracy 50%"
    assert json.loads(second["f"])["fed"] == [0, 1]
