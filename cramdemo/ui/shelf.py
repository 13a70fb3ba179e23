"""The model in memory, shared by all visitors, and the thread it runs on. Knows no widget."""

from __future__ import annotations

from concurrent.futures import Future, wait
from typing import Any

from cramdemo.catalogue import BUILT_IN
from cramdemo.config import CramConfig
from cramdemo.cram import run_cram
from cramdemo.models import FrozenLM, load_model
from cramdemo.ui.jobs import StopFlags, Worker
from cramdemo.ui.offer import entry_of

WARM_UP_TEXT = "warm"


class Shelf:
    """Holds one model at a time. `get` is for the worker's thread only."""

    def __init__(self) -> None:
        self._key: tuple[str, str] | None = None
        self._lm: FrozenLM | None = None

    def get(self, name: str, precision: str = "auto") -> FrozenLM:
        """The model, loaded if another one (or none) is in memory.

        Raises:
            ModelError: not on offer here, or it cannot be loaded.
        """
        entry_of(name)
        if self._lm is None or self._key != (name, precision):
            self._lm, self._key = None, None  # let go of the old one first: memory for two may not be there
            self._lm = load_model(name, precision=precision)
            self._key = (name, precision)
        return self._lm

    def precision(self, name: str) -> str:
        """The precision in which the model is in memory, so that counting a text never loads it anew."""
        return self._key[1] if self._key is not None and self._key[0] == name else "auto"

    def peek(self, name: str) -> FrozenLM | None:
        """The model if it is in memory in any precision. From other threads use its tokenizer only."""
        lm, key = self._lm, self._key
        return lm if key is not None and key[0] == name else None


WORKER = Worker()
SHELF = Shelf()
STOPS = StopFlags()


_warming: list[Future[Any]] = []


def warm_up() -> None:
    """Load the built-in model in the background and take two steps, so that the first visitor's run is warm."""
    _warming.append(WORKER.submit(lambda: run_cram(SHELF.get(BUILT_IN), WARM_UP_TEXT, CramConfig(steps=2))))


def wait_until_warm(seconds: float) -> None:
    """Let a visitor who came with the very start of the program wait for the model; a failure shows in the run."""
    wait(_warming, timeout=seconds)
