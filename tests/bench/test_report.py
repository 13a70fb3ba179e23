"""The report as a table."""

from __future__ import annotations

from cramdemo.bench import markdown


def test_the_table_has_every_column_of_every_row() -> None:
    rows = [{"figure": "a", "value": 1}, {"figure": "b", "share": 0.5}]
    lines = markdown({"rows": rows}).splitlines()
    assert lines == ["| figure | value | share |", "| --- | --- | --- |", "| a | 1 |  |", "| b |  | 0.5 |"]
