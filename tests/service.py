"""The real program, `python app.py`, in a process of its own: for tests of the whole server, and soaks by hand."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 90.0  # a busy machine
ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+")


@contextmanager
def running_app(*before: str, **environment: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The server's address and its process, which is ended on the way out.

    Args:
        before: words of a command in place of `app.py`.
        environment: variables besides those of this process.
    """
    with tempfile.TemporaryDirectory(prefix="cramdemo-service-") as folder:
        own = {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", "GRADIO_TEMP_DIR": f"{folder}/gradio", "TMPDIR": folder}
        command = [sys.executable, *(before or ("app.py",))]
        yield from _running(command, os.environ | own | environment)


def _running(command: list[str], environment: dict[str, str]) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        said: list[str] = []
        reader = threading.Thread(target=_read, args=(process, said), daemon=True)
        reader.start()
        try:
            yield _address(process, said), process
        finally:
            process.kill()
            process.wait()
            reader.join()


def _read(process: subprocess.Popen[str], said: list[str]) -> None:
    assert process.stdout
    said.extend(iter(process.stdout.readline, ""))


def _address(process: subprocess.Popen[str], said: list[str]) -> str:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if found := ADDRESS.search("".join(said)):
            return found.group()
        assert process.poll() is None, "".join(said)
        time.sleep(0.05)
    raise AssertionError(f"the server does not start: {''.join(said)}")


def vectors_of(report: dict[str, Any]) -> bytes:
    """The file that a report of `compress` carries."""
    return base64.b64decode(report["vectors_base64"])
