"""The models in memory, shared by all visitors, and what they run on. Knows no widget."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import Future, wait
from typing import Any

from cramdemo.catalogue import BUILT_IN, MODELS, ModelEntry
from cramdemo.config import CramConfig
from cramdemo.cram import run_cram
from cramdemo.errors import CramError, ModelError
from cramdemo.models import FrozenLM, load_model
from cramdemo.ui.jobs import StopFlags, Worker
from cramdemo.ui.zero import ON_ZERO, Zero

WARM_UP_TEXT = "warm"
_log = logging.getLogger(__name__)


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

    def here(self, name: str) -> FrozenLM | None:
        """The model for work beside the runs, in whatever precision it is in memory, so that it is not loaded anew.

        For the worker's thread too; None where this process cannot run the model.

        Raises:
            ModelError: as `get`.
        """
        return self.get(name, self._key[1] if self._key is not None and self._key[0] == name else "auto")

    def peek(self, name: str) -> FrozenLM | None:
        """The model if it is in memory in any precision. From other threads use its tokenizer only."""
        lm, key = self._lm, self._key
        return lm if key is not None and key[0] == name else None


class Preloaded(Shelf):
    """On ZeroGPU: all models on offer, loaded once by this process for the children that will be forked from it.

    In this process they have no weights that could be used, only tokenizers; the children have them on their GPU.
    The small work of this process is done by a copy of the built-in model on the CPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self._models: dict[str, FrozenLM] = {}

    def fill(self, names: Sequence[str]) -> None:
        """Load the built-in model and those of `names` that can be, on the thread that imported `spaces`.

        Raises:
            ModelError: the built-in model cannot be loaded.
        """
        self._lm, self._key = load_model(BUILT_IN, device="cpu"), (BUILT_IN, "auto")
        self._models[BUILT_IN] = load_model(BUILT_IN)
        for name in names:
            try:
                self._models[name] = load_model(name)
            except CramError as error:
                _log.error("%s is not on offer: %s", name, error)

    def get(self, name: str, precision: str = "auto") -> FrozenLM:
        """The model as children find it, in the precision it is stored in; in this process its tokenizer only.

        Raises:
            ModelError: not on offer here, or it could not be loaded at the start.
        """
        entry_of(name)
        if name not in self._models:
            raise ModelError(f"{name} was not loaded when this Space started. Choose from {', '.join(self._models)}.")
        return self._models[name]

    def here(self, name: str) -> FrozenLM | None:
        """The copy on the CPU, of the built-in model only."""
        return self._lm if name == BUILT_IN else None

    def peek(self, name: str) -> FrozenLM | None:
        """The model for its tokenizer."""
        return self._models.get(name)


def entry_of(name: str) -> ModelEntry:
    """The table entry of a model on offer: a name from a visitor or a file never becomes a path.

    Raises:
        ModelError: the name is not in the table.
    """
    entry = MODELS.get(name)
    if entry is None:
        raise ModelError(f"There is no model {str(name)[:60]!r} on this page. Choose from {', '.join(MODELS)}.")
    return entry


WORKER = Worker()
RUNNER: Worker | Zero = Zero() if ON_ZERO else WORKER  # what may need a GPU runs here
SHELF = Preloaded() if ON_ZERO else Shelf()
STOPS = StopFlags()


def listed_models() -> list[str]:
    """Names that the server's owner lists in `CRAMDEMO_MODELS`, separated by commas."""
    names = (name.strip() for name in os.environ.get("CRAMDEMO_MODELS", "").split(","))
    return [name for name in names if name and name != BUILT_IN]


_warming: list[Future[Any]] = []


def warm_up() -> None:
    """Load the built-in model in the background and take two steps, so that the first visitor's run is warm.

    On ZeroGPU load all models on offer, now: emulated CUDA knows only the thread that imported `spaces`.
    """
    if isinstance(SHELF, Preloaded):
        SHELF.fill(listed_models())
        return
    _warming.append(WORKER.submit(lambda: run_cram(SHELF.get(BUILT_IN), WARM_UP_TEXT, CramConfig(steps=2))))


def wait_until_warm(seconds: float) -> None:
    """Let a visitor who came with the very start of the program wait for the model; a failure shows in the run."""
    wait(_warming, timeout=seconds)
