"""The tiny model on offer under a name, so that handlers can be called without the built-in one."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest

from cramdemo.catalogue import MODELS
from cramdemo.config import CramConfig
from cramdemo.placement import entry_from_folder
from cramdemo.ui import shelf
from cramdemo.ui.live import LiveState, run_live

TINY = "tiny"
SOLVABLE = "The old sea, tired."


@pytest.fixture
def tiny(tiny_folder: Path) -> Iterator[str]:
    """Name of the tiny model in the table."""
    with tiny_on_offer(tiny_folder):
        yield TINY


@contextmanager
def tiny_on_offer(folder: Path) -> Iterator[None]:
    """The tiny model in the table; the shelf is emptied before and after."""
    entry = dataclasses.replace(entry_from_folder(TINY, folder), licence="MIT", note="For tests.")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, TINY, entry)
        empty_shelf()
        yield
        shelf.WORKER.submit(empty_shelf).result()


def empty_shelf() -> None:
    shelf.SHELF._key = shelf.SHELF._lm = None


@pytest.fixture
def request_of() -> object:
    """Stands for gr.Request: a browser session."""
    return SimpleNamespace(session_hash="a-session")


@pytest.fixture
def states(tiny: str) -> list[LiveState]:
    """All states of a lossless run."""
    return list(run_live(SOLVABLE, tiny, CramConfig(num_mem=4, steps=500), threading.Event()))


@pytest.fixture
def warnings_shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Texts of the toasts that handlers show."""
    found: list[str] = []
    monkeypatch.setattr(gr, "Warning", lambda message, **_: found.append(message))
    return found
