"""A visitor's file: in a folder that nobody can guess, and not for ever."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

from cramdemo.ui.results import LIFE_SECONDS, put, sweep


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where gradio serves files from."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    return tmp_path / "gradio"


def _age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_the_same_file_lies_twice_in_folders_with_128_random_bits(folder: Path) -> None:
    paths = [Path(put("a.safetensors", b"the same")) for _ in range(40)]
    assert all(path.read_bytes() == b"the same" and path.parent.parent == folder for path in paths)
    names = {re.fullmatch(r"cramdemo-result-([0-9a-f]{32})", path.parent.name)[1] for path in paths}
    bits = [sum(int(name, 16) >> bit & 1 for name in names) for bit in range(128)]
    assert len(names) == 40 and min(bits) > 0 and max(bits) < 40, "some bit is always the same"
    assert all(path.parent.stat().st_mode & 0o077 == 0 for path in paths), "another user of the machine may look"


def test_what_is_too_old_goes_and_nothing_else(folder: Path) -> None:
    old, young = Path(put("a", b"1")), Path(put("a", b"2"))
    others = [folder / name for name in ("cramdemo-result-mine", "cramdemo-work", "0" * 64)]
    for other in others:
        other.mkdir()
        _age(other, 10 * LIFE_SECONDS)
    _age(old.parent, LIFE_SECONDS + 60)
    _age(young.parent, LIFE_SECONDS - 60)
    new = Path(put("a", b"3"))
    assert not old.parent.exists(), "of a program that is gone, or of a visitor whom gradio never told of it"
    assert young.exists() and new.exists() and all(other.exists() for other in others)


def test_without_a_folder_there_is_nothing_to_sweep(folder: Path) -> None:
    sweep()
    assert not folder.exists()
