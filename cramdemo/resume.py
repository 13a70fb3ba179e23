"""A run's state in a folder, so that a run that is killed at any moment goes on as if it had not been.

Two safetensors files are written in turn, each atomically, so that one whole file is there whatever happens to the
other. A file is data: its digest, its run and the shape of everything in it are checked before the run takes it up.
It holds vectors, which the model can decode, but of the text itself no more than a digest. Knows nothing of what the
state means. (What `checkpoint.py` calls a checkpoint is a model's.)
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from cramdemo.config import MAX_STEPS
from cramdemo.errors import ConfigError
from cramdemo.tensorfile import MAX_HEADER_BYTES, partials, read_header, with_metadata, write_atomically

FORMAT = "cramdemo.run"
FORMAT_VERSION = "1"
NAMES = ("cram-a.safetensors", "cram-b.safetensors")
LEAST_SECONDS = 1.0  # between two checkpoints; a run that is killed loses hardly more
SHARE = 0.01  # of a run's time that writing may take
MAX_CURVE = 2 * (MAX_STEPS + 1)  # of a tensor that grows; a step whose proof fails is taken again
DIGESTS = {
    "text": "another text",
    "model": "another model",
    "tokenizer": "another tokenizer",
    "start": "other vectors to start from",
}
_DTYPES = {torch.float32: "F32", torch.float64: "F64", torch.int64: "I64", torch.bool: "BOOL"}
_MARK = b'"content_sha256":"'
_NO_DIGEST = "0" * 64  # what stands in the digest's place while it is worked out


@dataclass(frozen=True)
class State:
    """All that the steps to come depend on.

    Attributes:
        tensors: by name: float32, float64, int64 or bool. Those of one dimension that are empty in a fresh run grow;
            the others always have the same shapes.
        numbers: by name, finite.
    """

    tensors: Mapping[str, Tensor]
    numbers: Mapping[str, float]


class Resumable(Protocol):
    """A run that checkpoints are made of."""

    def state(self) -> State:
        """The state after the step just taken; `numbers` has the next `step`."""

    def restore(self, state: State) -> None:
        """Go on from a state that has the names, dtypes and shapes of this run's.

        Raises:
            ValueError: it cannot be a state of this run, which is as it was.
        """


class Checkpoints:
    """The checkpoints of one run, in a folder of its own.

    Args:
        folder: made if it is not there.
        identity: of the run: digests under the names of `DIGESTS`, and whatever settings its future depends on.

    Raises:
        ConfigError: the folder cannot be written.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        check_folder(folder)
        self._folder, self._identity = folder, dict(identity)
        self._serial = 0  # of the newest
        self._place = 0  # of `NAMES`, where the next one goes
        self._due = time.perf_counter() + LEAST_SECONDS
        self._notices: list[str] = []
        self._failing = False

    def resume(self, run: Resumable) -> None:
        """Have the run go on from the newest checkpoint that is whole; without any it starts at its beginning.

        Raises:
            ConfigError: that checkpoint is of another run.
        """
        self._clear_partials()
        like, damaged = run.state(), []
        for place, found in self._newest_first(_most_bytes(like)):
            if isinstance(found, str):
                damaged.append(found)
                continue
            self._check_identity(found)
            try:
                state = found.state(like)
                run.restore(state)
            except ValueError as error:
                damaged.append(f"{NAMES[place]}: {error}")
                continue
            self._serial, self._place = found.serial, 1 - place
            self._say(damaged, int(state.numbers["step"]))
            return
        self._say(damaged, None)

    def offer(self, run: Resumable, *, now: bool = False) -> None:
        """Write a checkpoint if it is time, or in any case.

        What cannot be written is told, and the run goes on.
        """
        began = time.perf_counter()
        if not now and began < self._due:
            return
        try:
            self._write(run.state())
            self._failing = False
        except OSError as error:
            if not self._failing:
                self._notices.append(
                    f"No checkpoint could be written to the folder {self._folder.name!r}: {error.strerror or error}. "
                    "The run goes on; those written before are still there."
                )
            self._failing = True
        ended = time.perf_counter()
        self._due = ended + max(LEAST_SECONDS, (ended - began) / SHARE)

    def news(self) -> str:
        """What there is to tell since the last time, in sentences; mostly nothing."""
        told, self._notices = self._notices, []
        return " ".join(told)

    def remove(self) -> None:
        """Take the files away, if they can be; the folder stays."""
        with suppress(OSError):
            for name in NAMES:
                (self._folder / name).unlink(missing_ok=True)
        self._clear_partials()

    def _clear_partials(self) -> None:
        with suppress(OSError):
            for left in (left for name in NAMES for left in partials(self._folder / name)):
                left.unlink(missing_ok=True)

    def _write(self, state: State) -> None:
        data = to_bytes(state, self._identity, self._serial + 1)
        write_atomically(self._folder / NAMES[self._place], data)
        self._serial, self._place = self._serial + 1, 1 - self._place

    def _newest_first(self, most_bytes: int) -> list[tuple[int, Checkpoint | str]]:
        """Each file's place among `NAMES`, and what it holds; before them those that are damaged, and how."""
        found: list[tuple[int, Checkpoint | str]] = []
        for place, name in enumerate(NAMES):
            path = self._folder / name
            if path.exists():
                try:
                    found.append((place, Checkpoint(_read(path, most_bytes))))
                except ValueError as error:
                    found.append((place, f"{name}: {error}"))
                except OSError as error:
                    found.append((place, f"{name}: {error.strerror}"))
        return sorted(found, key=lambda each: -math.inf if isinstance(each[1], str) else -each[1].serial)

    def _check_identity(self, found: Checkpoint) -> None:
        if found.version != FORMAT_VERSION:
            raise ConfigError(
                f"The checkpoint in the folder {self._folder.name!r} has format version {_short(found.version)}; this "
                f"program reads version {FORMAT_VERSION}. Use the cramdemo that wrote it, or give another folder."
            )
        begun, wanted = found.identity, self._identity
        other = [name for name in wanted | begun if begun.get(name) != wanted.get(name)]
        if not other:
            return
        words = [DIGESTS[name] for name in other if name in DIGESTS] or [
            f"{_short(name)} {_short(begun.get(name))} instead of {_short(wanted.get(name))}" for name in other
        ]
        raise ConfigError(
            f"The checkpoint in the folder {self._folder.name!r} is of a run with {', '.join(words)}. Repeat what it "
            "was begun with and it goes on; or give another folder, or delete the files in this one."
        )

    def _say(self, damaged: list[str], step: int | None) -> None:
        if damaged:
            self._notices.append(f"Damaged in the folder {self._folder.name!r}: {'; '.join(damaged)}.")
        if step is not None:
            which = "the other checkpoint" if damaged else "the checkpoint"
            self._notices.append(f"The run goes on from {which}, at step {step:,}.")
        elif damaged:
            self._notices.append("No other checkpoint is there, so the run starts anew.")


class Checkpoint:
    """One file's bytes, whole by its digest; its metadata is read, its tensors are not yet.

    Attributes:
        version: of its format.
        serial: which checkpoint of its run it is, from 1.
        identity: of its run.

    Raises:
        ValueError: damaged, or no checkpoint; says what is wrong.
    """

    def __init__(self, data: bytes) -> None:
        header = read_header(data)
        metadata = header.pop("__metadata__", None)
        if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
            raise ValueError("no checkpoint of cramdemo")
        if _digest(data) != metadata.get("content_sha256"):
            raise ValueError("its bytes are not those that were written")
        self._data, self._header = data, header
        self.version = metadata.get("format_version")
        self.identity = _mapping(metadata, "run")
        self._numbers = _mapping(metadata, "numbers")
        serial = metadata.get("serial", "")
        if not (isinstance(serial, str) and serial.isascii() and serial.isdigit() and len(serial) <= 9):
            raise ValueError("its serial is no number")
        self.serial = int(serial)

    def state(self, like: State) -> State:
        """What it holds.

        Args:
            like: state of a fresh run, which says what must be there.

        Raises:
            ValueError: a name, a dtype or a shape is another, or a number is not finite.
        """
        if set(self._numbers) != set(like.numbers) or not all(map(_is_finite, self._numbers.values())):
            raise ValueError("its numbers are not those of a run")
        if set(self._header) != set(like.tensors):
            raise ValueError("its tensors are not those of a run")
        for name, tensor in like.tensors.items():
            if not _fits(self._header[name], tensor):
                raise ValueError(f"its tensor {name} is not one of this run's")
        try:
            return State(load_tensors(self._data), self._numbers)
        except (SafetensorError, KeyError, RuntimeError, TypeError) as error:
            raise ValueError("its tensors cannot be read") from error


def _read(path: Path, most_bytes: int) -> bytes:
    if not path.is_file():
        raise ValueError("not a file")
    with path.open("rb") as file:
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise ValueError("larger than a checkpoint of this run can be")
    return data


def check_folder(folder: Path) -> None:
    """Make the folder if it is not there, and see that files can be written to it.

    Raises:
        ConfigError: they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        reason = getattr(error, "strerror", None) or "no folder has such a name"
        raise ConfigError(
            f"No checkpoint can be written to the folder {folder.name!r}: {reason}. Give a folder of yours."
        ) from error


def to_bytes(state: State, identity: Mapping[str, Any], serial: int) -> bytes:
    """A checkpoint's file, version 1: safetensors whose metadata has the SHA-256 of all its bytes but the digest's."""
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "serial": str(serial),
        "run": json.dumps(identity, sort_keys=True, allow_nan=False),
        "numbers": json.dumps(state.numbers, sort_keys=True, allow_nan=False),
        "content_sha256": _NO_DIGEST,
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.tensors.items()}
    data = with_metadata(save_tensors(tensors), metadata)
    start = data.index(_MARK) + len(_MARK)
    return b"".join((data[:start], _digest(data).encode(), memoryview(data)[start + len(_NO_DIGEST) :]))


def _digest(data: bytes) -> str:
    """SHA-256 of the bytes with zeros in the place of their digest; "" if there is no such place."""
    place = data.find(_MARK, 0, MAX_HEADER_BYTES)
    start = place + len(_MARK)
    digest = hashlib.sha256(data[:start])
    digest.update(_NO_DIGEST.encode())
    digest.update(memoryview(data)[start + len(_NO_DIGEST) :])
    return digest.hexdigest() if place >= 0 else ""


def _mapping(metadata: dict[str, Any], key: str) -> dict[str, Any]:
    try:
        value = json.loads(metadata.get(key, ""))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"its {key} cannot be read") from error
    if not isinstance(value, dict):
        raise ValueError(f"its {key} cannot be read")
    return value


def _most_bytes(like: State) -> int:
    """Of a file that holds a state like this one."""
    sizes = (MAX_CURVE if tensor.shape == (0,) else tensor.numel() for tensor in like.tensors.values())
    widths = (tensor.element_size() for tensor in like.tensors.values())
    return 8 + MAX_HEADER_BYTES + sum(size * width for size, width in zip(sizes, widths, strict=True))


def _fits(entry: Any, like: Tensor) -> bool:
    """Whether an entry of the header is a tensor of this dtype and shape, of any length if that one is empty."""
    if not isinstance(entry, dict) or entry.get("dtype") != _DTYPES[like.dtype]:
        return False
    shape = entry.get("shape")
    if like.shape == (0,):
        return isinstance(shape, list) and len(shape) == 1 and type(shape[0]) is int and 0 <= shape[0] <= MAX_CURVE
    return bool(shape == list(like.shape))


def _is_finite(value: object) -> bool:
    return type(value) is int or (type(value) is float and math.isfinite(value))


def _short(value: object) -> str:
    """A value of a file, fit for a sentence."""
    return value[:40] if isinstance(value, str) and value.isidentifier() else json.dumps(value)[:40]
