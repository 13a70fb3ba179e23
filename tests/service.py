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


class Service(subprocess.Popen[str]):
    """The program's process; `said` are the lines that it has printed, `folder` is all that it may write to."""

    folder: Path

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        self.said: list[str] = []
        super().__init__(*arguments, **settings)


@contextmanager
def running_app(*before: str, **environment: str) -> Iterator[tuple[str, Service]]:
    """The server's address and its process, which is ended on the way out.

    Args:
        before: words of a command in place of `app.py`.
        environment: variables besides those of this process.
    """
    with tempfile.TemporaryDirectory(prefix="cramdemo-service-") as folder:
        own = {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", "GRADIO_TEMP_DIR": f"{folder}/gradio", "TMPDIR": folder}
        command = [sys.executable, *(before or ("app.py",))]
        yield from _running(command, os.environ | own | environment, Path(folder))


def _running(command: list[str], environment: dict[str, str], folder: Path) -> Iterator[tuple[str, Service]]:
    with Service(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        process.folder = folder
        reader = threading.Thread(target=_read, args=(process,), daemon=True)
        reader.start()
        try:
            yield _address(process), process
        finally:
            process.kill()
            process.wait()
            reader.join()


def _read(process: Service) -> None:
    assert process.stdout
    for line in process.stdout:
        process.said.append(line)


def _address(process: Service) -> str:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if found := ADDRESS.search("".join(process.said)):
            return found.group()
        assert process.poll() is None, "".join(process.said)
        time.sleep(0.05)
    raise AssertionError(f"the server does not start: {''.join(process.said)}")


def vectors_of(report: dict[str, Any]) -> bytes:
    """The file that a report of `compress` carries."""
    return base64.b64decode(report["vectors_base64"])


def memory_of(process: Service) -> int:
    """Its resident memory, in bytes."""
    return int(_status(process)["VmRSS"].split()[0]) * 1024


def threads_of(process: Service) -> int:
    """How many threads it has."""
    return int(_status(process)["Threads"])


def children_of(process: Service) -> list[str]:
    """Process ids of its children."""
    return Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii").split()


def _status(process: Service) -> dict[str, str]:
    lines = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
