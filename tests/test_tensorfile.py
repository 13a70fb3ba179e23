"""What vector files and checkpoints share: bytes in a fixed order, a bounded header, and files that are whole."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

from cramdemo.tensorfile import MAX_HEADER_BYTES, CutShort, partials, read_header, with_metadata, write_atomically

LONGEST_NAME = "n" * 255


def test_metadata_stands_in_the_order_of_its_names_and_the_tensors_stay() -> None:
    plain = save({"a": torch.arange(3)})
    data = with_metadata(plain, {"z": "1", "b": "\u00e9"})
    assert data == with_metadata(plain, {"b": "\u00e9", "z": "1"})
    assert list(read_header(data)["__metadata__"].items()) == [("b", "\u00e9"), ("z", "1")]
    assert torch.equal(load(data)["a"], torch.arange(3))
    assert (struct.unpack("<Q", data[:8])[0] + 8) % 8 == 0


@pytest.mark.parametrize(
    "header", [b'{"a":1,"a":2}', b"{" * 100_000, b"{]", b'{"\xff":1}', b" {}", b"{" + b" " * MAX_HEADER_BYTES], ids=len
)
def test_what_is_no_header_is_refused(header: bytes) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 (any of its kind)
        read_header(struct.pack("<Q", len(header)) + header)
    assert not isinstance(refused.value, CutShort)


def test_a_header_that_ends_too_early_is_told_apart() -> None:
    text = json.dumps({"a": 1}).encode()
    with pytest.raises(CutShort):
        read_header(struct.pack("<Q", len(text) + 1) + text)


def test_a_writer_that_was_killed_leaves_what_can_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.bin"
    (tmp_path / "a.bin.partial").write_bytes(b"another's")
    (tmp_path / ".ab.bin.x.partial").write_bytes(b"another's")
    write_atomically(path, b"old")
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)  # as if there were no time left to clean up
    monkeypatch.setattr(os, "replace", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [left.read_bytes() for left in partials(path)] == [b"new"]


def test_a_name_may_be_as_long_as_names_can_be(tmp_path: Path) -> None:
    write_atomically(tmp_path / LONGEST_NAME, b"x")
    assert [path.name for path in tmp_path.iterdir()] == [LONGEST_NAME]
