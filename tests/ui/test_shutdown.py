"""SIGTERM, on the real program with a run going."""

from __future__ import annotations

import signal
import threading
import time

import gradio as gr
import pytest
from gradio_client import Client

from cramdemo.ui import shutdown
from cramdemo.ui.jobs import Worker, all_ended, stop_all
from cramdemo.vectors import from_bytes
from tests.service import running_app, vectors_of

HARD_TEXT = " ".join(str(7919 * i % 10007) for i in range(24))


def test_a_run_s_best_vectors_are_delivered_before_the_server_ends() -> None:
    with running_app() as (url, process):
        job = Client(url, verbose=False).submit(HARD_TEXT, 1, as_base64=True, api_name="/compress")
        while not any(report.get("step", 0) > 2 for report, _ in job.outputs()):
            time.sleep(0.05)
            assert not job.done(), job.result()
        process.send_signal(signal.SIGTERM)
        assert job.exception(timeout=30) is None
        report, _ = job.outputs()[-1]
        assert process.wait(30) == 0
    assert shutdown.RUN_SECONDS + shutdown.DELIVERY_SECONDS + shutdown.EXIT_SECONDS < 5
    assert report["reason"] == "stopped" and not report["lossless"]
    assert from_bytes(vectors_of(report), "its file").num_mem == 1


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
