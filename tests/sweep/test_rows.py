"""Rows: whole or not there, merged however often, one table at the end."""

from __future__ import annotations

import csv
import json

import pytest

from cramdemo.errors import ConfigError
from cramdemo.sweep.rows import RowFile, export, read_rows

ROWS = [{"key": "a", "lossless": True, "steps": 3, "verified": [{"dtype": "float32"}]}, {"key": "b", "error": "short"}]


def _write(folder, worker, *rows):
    with RowFile(folder, worker) as file:
        for row in rows:
            file.add(row)


def test_rows_of_all_processes_are_merged_by_their_keys(tmp_path):
    _write(tmp_path, 0, ROWS[0])
    _write(tmp_path, 1, ROWS[1], {"key": "a", "steps": 99})
    assert read_rows(tmp_path) == {"a": ROWS[0], "b": ROWS[1]}


@pytest.mark.parametrize("length", [1, 5, -2])
def test_a_row_cut_in_half_by_a_crash_is_dropped_and_does_no_harm_to_the_next(tmp_path, length):
    _write(tmp_path, 0, *ROWS)
    path = tmp_path / "rows-00000.jsonl"
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + second[:length])
    assert read_rows(tmp_path) == {"a": ROWS[0]}
    _write(tmp_path, 0, ROWS[1])
    assert read_rows(tmp_path) == {"a": ROWS[0], "b": ROWS[1]}


def test_lines_that_are_no_rows_are_passed_over(tmp_path):
    (tmp_path / "rows-00003.jsonl").write_bytes(b'\xff\n[]\n{"key": 3}\n{}\n' + json.dumps(ROWS[0]).encode())
    assert read_rows(tmp_path) == {"a": ROWS[0]}


def test_a_full_disk_is_an_error_of_the_system(tmp_path):
    with RowFile(tmp_path, 0) as file:
        file._file.close()
        with open("/dev/full", "wb", buffering=0) as full:
            file._file = full
            with pytest.raises(OSError, match="No space left"):
                file.add(ROWS[0])


def test_a_table_in_each_format(tmp_path):
    import pyarrow.parquet

    for name in ("t.parquet", "t.jsonl", "t.csv"):
        assert export(ROWS, tmp_path / name) == 2
    table = pyarrow.parquet.read_table(tmp_path / "t.parquet").to_pylist()
    assert [row["key"] for row in table] == ["a", "b"] and table[0]["lossless"] is True and table[1]["steps"] is None
    assert json.loads(table[0]["verified"]) == ROWS[0]["verified"]
    assert [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()] == ROWS
    with (tmp_path / "t.csv").open(newline="") as file:
        assert [row["error"] for row in csv.DictReader(file)] == ["", "short"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.csv", "t.jsonl", "t.parquet"]


def test_what_cannot_be_exported_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="ends in none of"):
        export(ROWS, tmp_path / "t.xlsx")
    with pytest.raises(ConfigError, match="no folder 'nowhere'"):
        export(ROWS, tmp_path / "nowhere" / "t.csv")
    with pytest.raises(ConfigError, match="no rows to export"):
        export([], tmp_path / "t.csv")
