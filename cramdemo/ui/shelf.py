"""The models in memory, shared by all visitors, and what they run on. Knows no widget."""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from cramdemo.catalogue import BUILT_IN, ModelEntry
from cramdemo.config import CramConfig
from cramdemo.cram import run_cram
from cramdemo.errors import CramError, ModelError
from cramdemo.hub import Download, Snapshot, fetch, is_hub_id
from cramdemo.models import FrozenLM, load_files, load_model
from cramdemo.ui.jobs import Flag, StopFlags, Worker
from cramdemo.ui.offer import entry_of, offered, where
from cramdemo.ui.zero import ON_ZERO, Zero

WARM_UP_TEXT = "warm"
LOOK_SECONDS = 0.1
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loading:
    """A run whose model is not there yet.

    Attributes:
        model: its name.
        download: how far its files have come.
    """

    model: str
    download: Download


class Shelf:
    """Holds one model at a time. `get` is for the worker's thread only."""

    def __init__(self) -> None:
        self._key: tuple[str, str] | None = None
        self._lm: FrozenLM | None = None
        self._borrowed = False  # the model in memory came by a visitor's token

    def get(self, name: str, precision: str = "auto") -> FrozenLM:
        """The model, loaded if another one (or none) is in memory.

        Raises:
            ModelError: not on offer here, or it cannot be loaded.
        """
        place = where(entry_of(name))
        return self._put(name, precision, lambda: load_model(place, precision=precision))

    def bring(self, name: str, precision: str, token: str | None, stop: Flag) -> Generator[Loading, None, FrozenLM]:
        """The model, as `get` gives it, told how its files come from the hub if it must be loaded from there.

        The download has a process of its own and computes nothing, so it may be waited for on any thread. A model that
        came by one visitor's token is not for all: each run asks the hub again, with the token of its own visitor.

        Args:
            token: for the hub, of the visitor.

        Raises:
            ModelError: not on offer here, or it cannot be had; stopped too.
        """
        entry = entry_of(name)
        if not is_hub_id(entry.source) or (self._key == (name, precision) and not self._borrowed):
            return self.get(name, precision)
        files = yield from _download(entry, token, stop, ask_access=token is not None or self._borrowed)
        self._borrowed = token is not None
        return self._put(name, precision, lambda: load_files(entry.name, files, precision=precision))

    def _put(self, name: str, precision: str, load: Callable[[], FrozenLM]) -> FrozenLM:
        if self._lm is None or self._key != (name, precision):
            self._lm, self._key = None, None  # let go of the old one first: memory for two may not be there
            self._lm = load()
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

    def fill(self, entries: Sequence[ModelEntry]) -> None:
        """Load the built-in model and those of the others that can be, on the thread that imported `spaces`.

        Raises:
            ModelError: the built-in model cannot be loaded.
        """
        self._lm, self._key = load_model(BUILT_IN, device="cpu"), (BUILT_IN, "auto")
        self._models[BUILT_IN] = load_model(BUILT_IN)
        for entry in entries:
            try:
                self._models[entry.name] = load_model(where(entry))
            except CramError as error:
                _log.error("%s is not on offer: %s", entry.name, error)

    def get(self, name: str, precision: str = "auto") -> FrozenLM:
        """The model as children find it, in the precision it is stored in; in this process its tokenizer only.

        Raises:
            ModelError: not on offer here, or it could not be loaded at the start.
        """
        name = entry_of(name).name
        if name not in self._models:
            raise ModelError(f"{name} was not loaded when this Space started. Choose from {', '.join(self._models)}.")
        return self._models[name]

    def bring(self, name: str, precision: str, token: str | None, stop: Flag) -> Generator[Loading, None, FrozenLM]:
        """As `get`: a child could not keep what it downloads."""
        yield from ()
        return self.get(name, precision)

    def here(self, name: str) -> FrozenLM | None:
        """The copy on the CPU, of the built-in model only."""
        return self._lm if name == BUILT_IN else None

    def peek(self, name: str) -> FrozenLM | None:
        """The model for its tokenizer."""
        return self._models.get(name)


def _download(
    entry: ModelEntry, token: str | None, stop: Flag, *, ask_access: bool
) -> Generator[Loading, None, Snapshot]:
    news: queue.SimpleQueue[Download] = queue.SimpleQueue()
    with ThreadPoolExecutor(max_workers=1) as pool:
        files = pool.submit(fetch, entry.source, token=token, ask_access=ask_access, stop=stop.is_set, tell=news.put)
        while not files.done():
            with suppress(queue.Empty):
                yield Loading(entry.name, news.get(timeout=LOOK_SECONDS))
        return files.result()


WORKER = Worker()
RUNNER: Worker | Zero = Zero() if ON_ZERO else WORKER  # what may need a GPU runs here
SHELF = Preloaded() if ON_ZERO else Shelf()
STOPS = StopFlags()


_warming: list[Future[Any]] = []


def warm_up() -> None:
    """Load the built-in model in the background and take two steps, so that the first visitor's run is warm.

    On ZeroGPU load all models on offer, now: emulated CUDA knows only the thread that imported `spaces`.
    """
    if isinstance(SHELF, Preloaded):
        SHELF.fill([entry for entry in offered().values() if not entry.local])
        return
    _warming.append(WORKER.submit(lambda: run_cram(SHELF.get(BUILT_IN), WARM_UP_TEXT, CramConfig(steps=2))))


def wait_until_warm(seconds: float) -> None:
    """Let a visitor who came with the very start of the program wait for the model; a failure shows in the run."""
    wait(_warming, timeout=seconds)
