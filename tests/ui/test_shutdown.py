"""The end of the server; SIGTERM on the real program is in `tests.test_service`."""

from __future__ import annotations

import threading

import gradio as gr
import pytest

from cramdemo.ui import shutdown
from cramdemo.ui.jobs import Worker, all_ended, stop_all


def test_a_run_that_does_not_listen_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RUN_SECONDS", "DELIVERY_SECONDS", "EXIT_SECONDS"):
        monkeypatch.setattr(shutdown, name, 0.01)
    gone, release = threading.Event(), threading.Event()
    monkeypatch.setattr(shutdown.os, "_exit", lambda code: gone.set())

    def deaf(stop: threading.Event):
        yield 1
        release.wait()

    stream = Worker().stream(deaf, stop=threading.Event())
    assert next(stream) == 1 and not all_ended()
    with gr.Blocks() as page:
        pass
    shutdown._end(page)
    assert gone.wait(10)
    release.set()
    assert list(stream) == []
    assert all_ended()


def test_stop_all_reaches_every_run_that_is_read() -> None:
    flags = [threading.Event(), threading.Event()]

    def listening(stop: threading.Event):
        while not stop.is_set():
            yield 0

    streams = [Worker().stream(listening, stop=flag) for flag in flags]
    for stream in streams:
        next(stream)
    stop_all()
    assert all(flag.is_set() for flag in flags)
    for stream in streams:
        list(stream)
    assert all_ended()
