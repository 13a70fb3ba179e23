"""The report as a table, ratios with their intervals, and what may be asked."""

from __future__ import annotations

import pytest

from cramdemo import ConfigError
from cramdemo.bench import Asked, markdown
from cramdemo.bench.report import interval, ratio_row


def test_the_table_has_every_column_of_every_row() -> None:
    rows = [{"figure": "a", "value": 1}, {"figure": "b", "share": 0.5}]
    lines = markdown({"rows": rows}).splitlines()
    assert lines == ["| figure | value | share |", "| --- | --- | --- |", "| a | 1 |  |", "| b |  | 0.5 |"]


def test_a_ratio_has_an_interval_around_it_and_none_where_nothing_was_held() -> None:
    row = ratio_row("a over b", [20, 22, 24, 26] * 5, [10, 11, 12, 13] * 5)
    low, high = row["interval"]
    assert row["value"] == 2.0
    assert 1.5 < low <= 2 <= high < 2.7
    nothing = ratio_row("a over b", [1, 2, 3], [0, 0, 0])
    assert (nothing["value"], nothing["interval"]) == (None, None)
    at_times = ratio_row("a over b", [1, 2, 3], [0, 1, 1])
    assert (at_times["value"], at_times["interval"]) == (2, None)


def test_an_interval_draws_texts_and_keeps_both_sides_of_a_text_together() -> None:
    assert ratio_row("a over b", [2, 20, 200, 2000, 20000], [1, 10, 100, 1000, 10000])["interval"] == [2, 2]
    low, high = interval(lambda chosen: float(sum(chosen)), 100) or [0, 0]  # 100 numbers from 0..99
    assert 4300 < low < 4450
    assert 5450 < high < 5600


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"passages": 0}, "passages is 0; give a whole number from 1"),
        ({"passages": -3}, "passages is -3"),
        ({"num_mem": (1, 0)}, "num_mem is 0; give whole numbers from 1 to 128"),
        ({"num_mem": (129,)}, "num_mem is 129"),
    ],
)
def test_what_cannot_be_run_is_refused_when_it_is_asked(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Asked([], **changes)  # type: ignore[arg-type]
