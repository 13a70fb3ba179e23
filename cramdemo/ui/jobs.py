"""The job runner: one thread that owns the model, streams of what a run says, and Stop flags.

All model work of the page goes through one `Worker`, so its thread is the compute mutex and every run keeps
its torch state on one thread, while gradio resumes a handler on whatever thread is free. On ZeroGPU the work on a
GPU goes through `zero.Zero` in its place. Knows no widget.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from cramdemo.errors import CramError
from cramdemo.placement import ran_out_of_memory

T = TypeVar("T")
PERIOD_SECONDS = 0.08  # at least so long between two messages; a run that speaks ten times a second loses none
WAIT_SECONDS = 0.5  # how often a run that waits for its turn looks whether it has been stopped
NO_MEMORY = "There is not enough memory for this. Shorten the text, take fewer memory tokens, or pick a smaller model."
END = object()  # what comes out of a box when nothing more will
_log = logging.getLogger(__name__)
_lock = threading.Lock()
_watched: list[threading.Event] = []  # the flags of all runs that somebody reads now


class Flag(Protocol):
    """What tells a run to stop: a `threading.Event`, or a `zero.SharedFlag` where threads cannot reach."""

    def is_set(self) -> bool:
        """Whether it should."""


@contextmanager
def watched(stop: threading.Event) -> Iterator[None]:
    """While a run is read, `stop_all` can stop it."""
    with _lock:
        _watched.append(stop)
    try:
        yield
    finally:
        with _lock:
            _watched[:] = [flag for flag in _watched if flag is not stop]


def stop_all() -> None:
    """Ask every run to end with its best so far, and those that wait for their turn not to begin."""
    with _lock:
        for stop in _watched:
            stop.set()


def all_ended() -> bool:
    """Whether nobody reads a run any more."""
    return not _watched


class Worker:
    """The one thread on which models run."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="cramdemo-model")
        self._lock = threading.Lock()
        self._unfinished = 0

    @property
    def idle(self) -> bool:
        """Nothing runs and nothing waits."""
        return self._unfinished == 0

    def submit(self, work: Callable[..., T], *arguments: Any) -> Future[T]:
        """Run `work` on the thread when its turn comes."""
        with self._lock:
            self._unfinished += 1
        future = self._pool.submit(work, *arguments)
        future.add_done_callback(self._finished)
        return future

    def _finished(self, _: Future[Any]) -> None:
        with self._lock:
            self._unfinished -= 1

    def ask(self, work: Callable[..., T], *arguments: Any, seconds: float) -> T | None:
        """The answer of a short piece of work, or None if the thread is busy or does not answer in time."""
        if not self.idle:
            return None
        future = self.submit(work, *arguments)
        try:
            return future.result(timeout=seconds)
        except TimeoutError:
            future.cancel()
            return None

    def stream(
        self,
        task: Callable[..., Iterator[T]],
        *arguments: Any,
        stop: threading.Event,
        period: float = PERIOD_SECONDS,
        seconds: float = 0.0,
    ) -> Iterator[T]:
        """What `task(*arguments, stop)` yields on the worker's thread, as far as the reader keeps up.

        Each item must tell the whole state so far: an item that was not fetched before the next one came is
        dropped. The last one is never dropped.

        Args:
            task: a generator function, which must end soon after `stop` is set.
            stop: set from outside to stop the run, and by this function when its reader goes away.
            period: at least so many seconds between two items.
            seconds: ignored, since nobody lends this machine (`zero.Zero.stream` has to say how long it needs a GPU).

        Raises:
            CramError: as the task raised it; any other exception becomes one plain sentence.
        """
        box: queue.Queue[Any] = queue.Queue(maxsize=1)
        future = self.submit(pump, partial(task, *arguments, stop), box, period)
        sent: Any = None
        try:
            with watched(stop):
                while (item := _next_item(box, future, stop)) is not END:
                    sent = item
                    yield item
                if not future.cancelled():
                    yield from unseen(future, sent)
        finally:  # may run on the server's event loop, when a tab is closed: nothing slow here
            stop.set()
            future.cancel()


def pump(produce: Callable[[], Iterator[T]], box: queue.Queue[Any], period: float) -> tuple[T | None, Exception | None]:
    """On the thread that works: keep the newest item in the box, then `END`.

    Returns:
        The last item, since `END` may have pushed it out of the box, and the error that came after it.
    """
    last, shown = None, -period
    try:
        for last in produce():
            now = time.monotonic()
            if now - shown >= period:
                shown = now
                _replace(box, last)
        return last, None
    except Exception as error:
        return last, error
    finally:
        _replace(box, END)


def _replace(box: queue.Queue[Any], item: Any) -> None:
    """Only one thread puts, so once a stale item is out there is room."""
    with suppress(queue.Empty):
        box.get_nowait()
    box.put_nowait(item)


def _next_item(box: queue.Queue[Any], future: Future[Any], stop: threading.Event) -> Any:
    while True:
        try:
            return box.get(timeout=WAIT_SECONDS)
        except queue.Empty:
            if future.cancelled() or (stop.is_set() and future.cancel()):
                return END


def unseen(future: Future[tuple[T | None, Exception | None]], sent: T | None) -> Iterator[T]:
    """The end of what was pumped: the last item if it was not sent, then the error if there was one.

    Raises:
        CramError: as the work raised it; any other exception becomes one plain sentence.
    """
    last, error = future.result()
    if last is not None and last is not sent:
        yield last
    if isinstance(error, CramError):
        raise error
    if error is not None:
        raise CramError(plain_sentence(error)) from None


def plain_sentence(error: BaseException) -> str:
    """What a visitor is told of a fault in the program. The log gets its type and place, never its text,
    which could quote the visitor's own."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "unknown place"
    kind = type(error).__name__
    _log.error("unexpected %s at %s", kind, place)
    if ran_out_of_memory(error):
        return NO_MEMORY
    return f"Something went wrong inside the program ({kind}). Your text is still here: try again, or reload the page."


class StopFlags:
    """Stop flags of the runs that each browser session has begun, by task ("compress", "decode")."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flags: dict[tuple[str, str], threading.Event] = {}

    def begin(self, session: str, task: str) -> threading.Event:
        """A new flag; a run of that task that is still going is told to stop."""
        with self._lock:
            self._set(session, task)
            flag = self._flags[session, task] = threading.Event()
        return flag

    def current(self, session: str, task: str) -> threading.Event:
        """The flag of the run begun last, or a new one."""
        with self._lock:
            return self._flags.setdefault((session, task), threading.Event())

    def stop(self, session: str, task: str) -> None:
        """Ask the run to stop; the best so far is kept."""
        with self._lock:
            self._set(session, task)

    def going(self, session: str, task: str) -> bool:
        """Whether a run of that task has begun and not ended."""
        with self._lock:
            return (session, task) in self._flags

    def end(self, session: str, task: str, flag: threading.Event) -> None:
        """Forget a run's flag, unless a newer run has taken its place."""
        with self._lock:
            if self._flags.get((session, task)) is flag:
                del self._flags[session, task]

    def forget(self, session: str) -> None:
        """Stop everything of a session that has gone."""
        with self._lock:
            for key in [key for key in self._flags if key[0] == session]:
                self._flags.pop(key).set()

    def _set(self, session: str, task: str) -> None:
        if flag := self._flags.get((session, task)):
            flag.set()
