"""The app is waited for until its page answers, and no longer than it lives."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from cramdemo import CramError
from cramdemo.bench import view


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Quiet."""


@pytest.fixture
def address() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def _saying(sentence: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", f"print({sentence!r})"], stdout=subprocess.PIPE, text=True)


def test_the_address_is_the_one_the_app_prints(address: str) -> None:
    with _saying(f"* Running on local URL:  {address}") as process:
        assert view._address(process, time.monotonic()) == address


def test_an_app_that_ends_without_an_address_is_told_with_what_to_run() -> None:
    with _saying("something went wrong") as process, pytest.raises(CramError, match=r"Run `python app.py`"):
        view._address(process, time.monotonic())
