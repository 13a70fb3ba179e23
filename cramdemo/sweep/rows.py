"""The rows of a sweep: JSON lines in a file of each process's own, merged by their keys whenever they are read."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from cramdemo.errors import ConfigError
from cramdemo.tensorfile import write_atomically

Row = dict[str, Any]
PATTERN = "rows-*.jsonl"
FORMATS = (".parquet", ".jsonl", ".csv")


class RowFile:
    """The rows that one process writes; a line is whole or it is none.

    Args:
        folder: of the sweep.
        worker: which process, from 0.
    """

    def __init__(self, folder: Path, worker: int) -> None:
        self._path = folder / f"rows-{worker:05d}.jsonl"

    def __enter__(self) -> RowFile:
        self._file = self._path.open("ab", buffering=0)  # each row is with the system before the next job begins
        if self._file.tell() and not _ends_a_line(self._path):
            self._file.write(b"\n")  # the row before was cut in half by a crash
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, row: Row) -> None:
        """Append a row.

        Raises:
            OSError: the disk is full; the rows before are whole.
        """
        data = json.dumps(row, allow_nan=False).encode() + b"\n"
        written = self._file.write(data)
        if written != len(data):
            raise OSError(28, os.strerror(28), str(self._path))


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def read_rows(folder: Path) -> dict[str, Row]:
    """All whole rows by their keys, whoever wrote them; of two with one key the first."""
    found: dict[str, Row] = {}
    for path in sorted(folder.glob(PATTERN)):
        for row in _whole_rows(path):
            found.setdefault(row["key"], row)
    return found


def _whole_rows(path: Path) -> Iterator[Row]:
    with path.open("rb") as lines:
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:  # cut in half by a crash
                continue
            if isinstance(row, dict) and isinstance(row.get("key"), str):
                yield row


def export(rows: Iterable[Row], path: Path) -> int:
    """Write rows as one table; by the name's end Parquet, JSON lines or CSV. Gives how many.

    What is a list in a row is JSON in Parquet and CSV.

    Raises:
        ConfigError: another end, or no rows.
        OSError: it cannot be written; an older file then stays.
    """
    check_export(path)
    listed = list(rows)
    if not listed:
        raise ConfigError("There are no rows to export yet. Run the sweep first.")
    write_atomically(path, _WRITERS[path.suffix](listed))
    return len(listed)


def check_export(path: Path) -> None:
    """Refuse a name that `export` could not write to.

    Raises:
        ConfigError: it ends otherwise than a table does, or its folder is not there.
    """
    if path.suffix not in FORMATS:
        raise ConfigError(f"{path.name} ends in none of {', '.join(FORMATS)}. Name the table so.")
    if not path.parent.is_dir():
        raise ConfigError(f"There is no folder {path.parent.name!r} to write {path.name} to. Create it first.")


def _flat(rows: list[Row]) -> tuple[list[str], list[Row]]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    flat = [
        {name: json.dumps(value) if isinstance(value, (list, dict)) else value for name, value in row.items()}
        for row in rows
    ]
    return names, flat


def _parquet(rows: list[Row]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    names, flat = _flat(rows)
    table = pyarrow.table({name: [row.get(name) for row in flat] for name in names})
    file = io.BytesIO()
    pyarrow.parquet.write_table(table, file)
    return file.getvalue()


def _jsonl(rows: list[Row]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _csv(rows: list[Row]) -> bytes:
    names, flat = _flat(rows)
    file = io.StringIO()
    writer = csv.DictWriter(file, names)
    writer.writeheader()
    writer.writerows(flat)
    return file.getvalue().encode()


_WRITERS: dict[str, Callable[[list[Row]], bytes]] = {".parquet": _parquet, ".jsonl": _jsonl, ".csv": _csv}
