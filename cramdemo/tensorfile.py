"""Safetensors files as bytes: metadata in a fixed order, a header that is bounded before it is trusted, and the one way
a file is written: whole or not at all. Knows nothing of what the tensors are.
"""

from __future__ import annotations

import json
import os
import struct
import tempfile
from pathlib import Path
from typing import Any

MAX_HEADER_BYTES = 1024 * 1024
LARGEST_HEADER = 16 * 1024 * 1024  # a number beyond that is no header's size, but another kind of file
_SUFFIX = ".partial"


class CutShort(ValueError):  # noqa: N818 (it says what happened)
    """The bytes end within the header."""


class TooLong(ValueError):  # noqa: N818 (it says what is wrong)
    """The header is longer than whoever reads it allows; `size` is in bytes."""

    def __init__(self, size: int) -> None:
        super().__init__(f"a header of {size} bytes")
        self.size = size


def with_metadata(data: bytes, metadata: dict[str, str]) -> bytes:
    """A safetensors file with metadata in the order of their names; safetensors itself would write them in any."""
    (size,) = struct.unpack("<Q", data[:8])
    header = {"__metadata__": dict(sorted(metadata.items())), **json.loads(data[8 : 8 + size])}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data[8 + size :]


def read_header(data: bytes, most: int = MAX_HEADER_BYTES) -> dict[str, Any]:
    """The header, parsed by us so that its size is bounded before anything is trusted.

    Args:
        most: bytes that it may have.

    Raises:
        CutShort: the bytes end within it.
        TooLong: it has more than that.
        ValueError: these are no safetensors.
    """
    if len(data) < 10:
        raise ValueError("too short for a safetensors file")
    (size,) = struct.unpack("<Q", data[:8])
    if not 2 <= size <= LARGEST_HEADER or data[8:9] != b"{":
        raise ValueError("no safetensors header")
    if 8 + size > len(data):
        raise CutShort("ends within its header")
    if size > most:
        raise TooLong(size)
    try:
        header: dict[str, Any] = json.loads(data[8 : 8 + size].decode("utf-8"), object_pairs_hook=_no_duplicates)
    except RecursionError as error:
        raise ValueError("a header deeper than any stack") from error
    return header


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file; the old one or the new one is there at every moment.

    A process that is killed in between leaves a hidden file beside it, which `partials` finds.

    Raises:
        OSError: the folder cannot be written, or the disk is full; its `filename` is `path`.
    """
    try:
        _write(path, data)
    except OSError as error:
        error.filename = str(path)  # a full disk has none, and nobody knows the temporary one
        raise


def _write(path: Path, data: bytes) -> None:
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=_prefix(path), suffix=_SUFFIX)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(partial, 0o666 & ~_umask())
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def partials(path: Path) -> list[Path]:
    """What writers of this file that were killed have left beside it."""
    found = path.parent.iterdir()
    return [near for near in found if near.name.startswith(_prefix(path)) and near.name.endswith(_SUFFIX)]


def _prefix(path: Path) -> str:
    return f".{path.name[:40]}."  # a name has at most 255 bytes


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
