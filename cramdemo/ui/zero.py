"""The job runner of a Space on ZeroGPU, where a GPU is lent for some seconds to a forked child of this process.

`spaces.GPU` makes the loan; on other machines it does nothing. What the child sets stays in the child, and what it
takes and says is pickled. A Stop flag crosses by a byte of shared memory, so that a stopped run ends in good order,
on the GPU. Knows no widget.
"""

from __future__ import annotations

import itertools
import math
import mmap
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from multiprocessing.reduction import ForkingPickler
from typing import Any, TypeVar

import gradio as gr
import spaces
import torch
from torch import Tensor

from cramdemo.errors import CramError, ModelError
from cramdemo.placement import on_zero_gpu
from cramdemo.ui.jobs import END, PERIOD_SECONDS, WAIT_SECONDS, plain_sentence, pump, unseen, watched

T = TypeVar("T")
ON_ZERO = on_zero_gpu()
SHORT_SECONDS = 20.0
MOST_READERS = 64  # threads that wait for children; the page's queue is shorter
_FLAGS = mmap.mmap(-1, 4096)  # shared with every child, since all are forked from here
_numbers = itertools.count()


class SharedFlag:
    """A flag that a child sees when this process sets it, unlike a `threading.Event`. It pickles as its number."""

    def __init__(self) -> None:
        self.number = next(_numbers) % len(_FLAGS)
        _FLAGS[self.number] = 0

    def is_set(self) -> bool:
        """Whether it was set, in whatever process."""
        return _FLAGS[self.number] != 0

    def set(self) -> None:
        """Set it for all processes."""
        _FLAGS[self.number] = 1


def _in_child(
    seconds: int, task: Callable[..., Iterator[Any]], arguments: tuple[Any, ...], flag: SharedFlag
) -> Iterator[Any]:
    """In the child that has the GPU: what the task says; an error is its last item.

    Errors are caught here, because `spaces` prints the traceback of those that leave, and it may quote the text.
    """
    torch.set_num_threads(1)  # the threads that computed before the fork are not in the child, and it has a GPU
    try:
        yield from task(*arguments, flag)
    except CramError as error:
        yield error
    except Exception as error:
        yield CramError(plain_sentence(error))


def _asked(seconds: int, *_: Any) -> int:
    """What a loan is asked for is the first argument of what runs on it."""
    return seconds


_on_lent_gpu: Callable[..., Any] = spaces.GPU(duration=_asked)(_in_child)


class Zero:
    """Runs tasks in children, each with a GPU of its own, so that none waits for another here."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=MOST_READERS, thread_name_prefix="cramdemo-loan")
        ForkingPickler.register(Tensor, _by_value)

    def stream(
        self,
        task: Callable[..., Iterator[T]],
        *arguments: Any,
        stop: threading.Event,
        period: float = PERIOD_SECONDS,
        seconds: float = SHORT_SECONDS,
    ) -> Iterator[T]:
        """What `task(*arguments, flag)` yields in a child, as `Worker.stream` gives it from a thread.

        If `stop` is set before the first item came, there is none.

        Args:
            task: a generator function at the top of a module, which must end soon after its flag is set, and yield
                no more than some ten times a second: in the child nobody holds it back.
            arguments: pickled on their way, as what it yields is.
            stop: set from outside to stop the run.
            period: ignored; whatever left the child is good to have, should it be the last.
            seconds: how long the GPU is asked for.

        Raises:
            CramError: as the task raised it; any other exception becomes one plain sentence.
            ModelError: no GPU was lent, or it was taken back too early.
        """
        if stop.is_set():
            return
        flag, gone = SharedFlag(), threading.Event()
        box: queue.Queue[Any] = queue.Queue(maxsize=1)
        work = partial(_items, gone, math.ceil(seconds), task, arguments, flag)
        # the visitor, whose quota it is, is in the context
        future: Future[Any] = self._pool.submit(copy_context().run, pump, work, box, 0.0)
        sent: Any = None
        try:
            with watched(stop):
                while (item := _next_item(box, stop, flag, begun=sent is not None)) is not END:
                    sent = item
                    yield item
                if sent is None and stop.is_set():
                    return
                yield from unseen(future, sent)
        finally:  # may run on the server's event loop, when a tab is closed: nothing slow here
            gone.set()
            future.cancel()


def _next_item(box: queue.Queue[Any], stop: threading.Event, flag: SharedFlag, *, begun: bool) -> Any:
    """Who stops while still waiting for a GPU is not kept waiting."""
    while True:
        if stop.is_set():
            flag.set()
            if not begun:
                return END
        try:
            return box.get(timeout=WAIT_SECONDS)
        except queue.Empty:
            continue


def _items(gone: threading.Event, *loan: Any) -> Iterator[Any]:
    """In this process: what the child says. It is closed at its next word when its reader has gone."""
    items = _on_lent_gpu(*loan)
    try:
        for item in items:
            if isinstance(item, CramError):
                raise item
            yield item
            if gone.is_set():
                return
    except gr.Error as error:
        raise ModelError(loan_sentence(error)) from None
    finally:
        items.close()


def loan_sentence(error: gr.Error) -> str:
    """What a visitor is told when `spaces` gives no GPU, or takes it back."""
    title, message = str(error.title), str(error.message).strip().rstrip(".")
    if "worker" not in title:  # these words are the platform's, with the visitor's figures
        advice = " A smaller time budget asks for less." if "quota" in title or "duration" in title else ""
        return f"No GPU was lent: {message}.{advice}"
    if message == "GPU task aborted":
        return "The GPU was taken back before the work was done."
    return f"Something went wrong on the GPU ({message})."


def _by_value(tensor: Tensor) -> tuple[Any, ...]:
    """torch's own way hands over a piece of shared memory, and to read it would fail once the child has been killed."""
    plain = tensor.detach().cpu().contiguous()
    return _tensor_of, (plain.reshape(-1).view(torch.uint8).numpy().tobytes(), plain.dtype, tuple(plain.shape))


def _tensor_of(data: bytes, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    if not data:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).view(dtype).reshape(shape)
