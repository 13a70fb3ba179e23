"""Stands for ZeroGPU's scheduler, on loopback: who asks for a GPU and for how long, and who gives it back."""

from __future__ import annotations

import itertools
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


class Scheduler:
    """Lends as many GPUs as are asked for, until `refusal` says what to answer instead.

    Attributes:
        asked: seconds that each loan was asked for.
        lent: which GPU each loan that has not been given back is of.
        children: process id of the child that each GPU was given to last; it keeps it from loan to loan.
        refusal: an answer of "too many requests", or None.
    """

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.lent: dict[str, int] = {}
        self.children: dict[int, int] = {}
        self.refusal: dict[str, Any] | None = None
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str, given: dict[str, str]) -> tuple[int, dict[str, Any]]:
        with self._lock:
            if path == "/schedule":
                return self._lend(int(given["durationSeconds"]))
            if path == "/allow":
                self.children[self.lent[given["allowToken"]]] = int(given["pid"])
            if path == "/release":
                self.lent.pop(given["allowToken"], None)
            return 200, {}

    def _lend(self, seconds: int) -> tuple[int, dict[str, Any]]:
        self.asked.append(seconds)
        if self.refusal is not None:
            return 429, self.refusal
        token = str(next(self._numbers))
        gpu = min(set(range(len(self.lent) + 1)) - set(self.lent.values()))
        self.lent[token] = gpu
        return 200, {"idle": True, "nvidiaIndex": gpu, "nvidiaUUID": f"GPU-{gpu}", "allowToken": token}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        scheduler = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                parts = urlsplit(self.path)
                given = {name: values[0] for name, values in parse_qs(parts.query).items()}
                status, answer = scheduler.answer(parts.path, given)
                body = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Silent."""

        return Handler
