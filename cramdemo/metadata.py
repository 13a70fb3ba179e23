"""The string metadata of the files that strangers may give us: every value is checked before it is used.

Whatever is wrong is a `VectorFileError` that names the file, what was found and what to do. Knows nothing of what the
values mean.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any

from cramdemo.errors import VectorFileError
from cramdemo.tensorfile import CutShort, TooLong, read_header

MAX_WORD, MAX_JSON, MAX_DEPTH = 500, 6000, 16  # characters and levels in the metadata: whatever is read, a header holds
MAX_HEADER_BYTES = 64 * 1024  # ours take 1.4 kB; one of a megabyte can take half a second to read
_PROGRAM = re.compile(r"cramdemo [0-9][0-9a-z.]{0,19}")
_HEX = set("0123456789abcdef")


def read_file_header(data: bytes, name: str, most_bytes: int) -> dict[str, Any]:
    """The safetensors header of a file that is not too large.

    Args:
        name: how error messages call the file.
        most_bytes: that the whole file may have.

    Raises:
        VectorFileError: it is larger, or no safetensors, or cut short.
    """
    if len(data) > most_bytes:
        raise VectorFileError(f"{name} is larger than {most_bytes // 2**20} MB, the most a vector file can be.")
    try:
        return read_header(data, MAX_HEADER_BYTES)
    except TooLong as error:
        raise VectorFileError(
            f"{name} has a header of {error.size:,} bytes; that of a vector file has at most {MAX_HEADER_BYTES:,}. "
            "Give a file downloaded from the Compress tab or written by `cramdemo cram`."
        ) from error
    except CutShort as error:
        raise VectorFileError(f"{name} is damaged: it ends too early. Ask for the file again.") from error
    except ValueError as error:
        raise VectorFileError(
            f"{name} is not a safetensors file. "
            "Give a .safetensors file made by cramdemo (Download on the Compress tab)."
        ) from error


class Metadata:
    """The metadata of one file's header.

    Args:
        header: of a safetensors file.
        name: how error messages call the file.
    """

    def __init__(self, header: dict[str, Any], name: str) -> None:
        found = header.get("__metadata__", {})
        self.values: dict[str, Any] = found if isinstance(found, dict) else {}
        self.name = name

    def __contains__(self, key: str) -> bool:
        return key in self.values

    @property
    def format(self) -> Any:
        """Which kind of file it says it is, as it stands there."""
        return self.values.get("format")

    def check_version(self, wanted: str) -> None:
        """See that this program reads the file's version of its format.

        Raises:
            VectorFileError: it does not; says which program does, if the file tells.
        """
        version = self.values.get("format_version")
        if version == wanted:
            return
        found = f"format version {version[:20]!r}" if isinstance(version, str) else "no format version"
        raise VectorFileError(
            f"{self.name} has {found}; this program reads version {wanted}. {_update(self.values.get('created_with'))}"
        )

    def word(self, key: str) -> str:
        """A value of at most `MAX_WORD` characters.

        Raises:
            VectorFileError: missing or longer.
        """
        value = self._required(key)
        self._check_length(value, MAX_WORD, key)
        return value

    def digest(self, key: str) -> str:
        """A SHA-256 in hexadecimal.

        Raises:
            VectorFileError: missing, or something else.
        """
        value = self.word(key)
        if len(value) != 64 or set(value) - _HEX:
            raise VectorFileError(f"{self.name} is damaged: {key} is not a SHA-256. Ask for the file again.")
        return value

    def whole_number(self, key: str) -> int:
        """A whole number from 0 on, of at most nine digits.

        Raises:
            VectorFileError: missing, or something else.
        """
        text = self._required(key)
        if not (text.isascii() and text.isdigit() and len(text) <= 9):
            raise VectorFileError(f"{self.name} is damaged: {key} is not a whole number. Ask for the file again.")
        return int(text)

    def json_part(self, key: str, wanted: type[list[Any]] | type[dict[str, Any]]) -> Any:
        """A value that is JSON: an object, or a list of objects.

        Raises:
            VectorFileError: missing, something else, too long or too deep.
        """
        try:
            value = json.loads(self._required(key))
            _check_json(value)
        except (ValueError, RecursionError) as error:
            raise VectorFileError(f"{self.name} is damaged: {key} is not JSON. Ask for the file again.") from error
        if not isinstance(value, wanted) or (wanted is list and not all(isinstance(item, dict) for item in value)):
            kind = wanted.__name__
            raise VectorFileError(f"{self.name} is damaged: {key} is not a JSON {kind}. Ask for the file again.")
        self._check_length(json.dumps(value), MAX_JSON, key)
        return value

    def _required(self, key: str) -> str:
        value = self.values.get(key)
        if not isinstance(value, str):
            raise VectorFileError(f"{self.name} is damaged: {key} is missing. Ask for the file again.")
        return value

    def _check_length(self, text: str, most: int, key: str) -> None:
        if len(text) > most:
            raise VectorFileError(
                f"{self.name} is damaged: {key} has {len(text):,} characters, at most {most:,} can be read. "
                "Ask for the file again."
            )


def as_metadata(owner: Any, words: Sequence[str], parts: Sequence[str]) -> dict[str, str]:
    """Attributes as they stand in a file: words and numbers as they are written, the others as JSON.

    Raises:
        VectorFileError: a figure is not a finite number.
    """
    found = {name: str(getattr(owner, name)) for name in words}
    try:
        return found | {name: json.dumps(getattr(owner, name), sort_keys=True, allow_nan=False) for name in parts}
    except (ValueError, TypeError) as error:
        raise VectorFileError("The figures of these vectors are not finite numbers; no file can hold them.") from error


def is_tensor(entry: Any, dtypes: set[str], dimensions: int) -> bool:
    """Whether an entry of the header is a tensor of one of these dtypes with so many dimensions, none of them empty.

    A count of 64 bits or more, which could have thousands of digits, is not put into a sentence.
    """
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str) or entry["dtype"] not in dtypes:
        return False
    shape = entry.get("shape")
    return (
        isinstance(shape, list) and len(shape) == dimensions and all(type(n) is int and 1 <= n < 2**63 for n in shape)
    )


def _update(maker: Any) -> str:
    """Which version of the program reads a file of another format: the one that wrote it, if the file says so."""
    if isinstance(maker, str) and _PROGRAM.fullmatch(maker):
        return f"It was written by {maker}: install that version or a later one."
    return "Update cramdemo to the version that wrote it."


def _check_json(value: Any, depth: int = 1) -> None:
    """Refuse what Python reads as JSON but other programs, or whoever goes through it, cannot: NaN and 1e999, whole
    numbers beyond 64 bits, half a surrogate pair, and more levels than any file of ours has.

    Raises:
        ValueError: there is such a thing in it.
    """
    if depth > MAX_DEPTH:
        raise ValueError("too deep")
    if isinstance(value, str):
        value.encode("utf-8")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("not finite")
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError("beyond 64 bits")
    elif isinstance(value, list | dict):
        for item in (*value, *value.values()) if isinstance(value, dict) else value:
            _check_json(item, depth + 1)
