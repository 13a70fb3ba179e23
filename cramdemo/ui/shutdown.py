"""How the server ends when it is told to: running runs give their best vectors to whoever waits for them first."""

from __future__ import annotations

import os
import signal
import threading
import time

import gradio as gr

from cramdemo.ui.jobs import all_ended, stop_all

RUN_SECONDS = 3.0  # for runs to end and to be read
DELIVERY_SECONDS = 0.5  # for what they said last to reach the browser
EXIT_SECONDS = 1.0  # for the interpreter to go by itself
POLL_SECONDS = 0.05


def end_in_order(page: gr.Blocks) -> None:
    """Let SIGTERM, by which a Space or a service manager ends a program, stop all runs and then the launched page.

    For the main thread, before `launch`.
    """
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=_end, args=(page,), daemon=True).start())


def _end(page: gr.Blocks) -> None:
    stop_all()
    until = time.monotonic() + RUN_SECONDS
    while not all_ended() and time.monotonic() < until:
        time.sleep(POLL_SECONDS)
        stop_all()  # those that came in between
    time.sleep(DELIVERY_SECONDS)
    last = threading.Timer(EXIT_SECONDS, os._exit, (0,))  # for a run that does not listen, or a browser that holds on
    last.daemon = True
    last.start()
    page.close(verbose=False)  # the main thread, which waits for that, returns
