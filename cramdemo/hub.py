"""A model's files from the Hugging Face hub: fetched by a process of their own (`download.py`), so that Stop ends it.

The hub's address, its offline switch, the cache's place and a token are read from the environment anew each time, as
huggingface_hub reads them: HF_ENDPOINT, HF_HUB_OFFLINE, HF_HOME, HF_TOKEN.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from huggingface_hub.utils import HFValidationError, validate_repo_id

from cramdemo.errors import ModelError

PROGRAM = Path(__file__).with_name("download.py")
POLL_SECONDS = 0.05  # how often Stop is looked at
GRACE_SECONDS = 0.2  # from asking the program to end until it is made to
SILENCE_SECONDS = 90.0  # after which the hub is given up; while files arrive the program says so five times a second
QUIET = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
Lines = queue.SimpleQueue[str]


@dataclass(frozen=True)
class Snapshot:
    """A model's files: their folder, and the SHA of their commit, "" where it is not known."""

    folder: Path
    revision: str


@dataclass(frozen=True)
class Download:
    """How far a download is, in bytes; what was on the disk before counts too."""

    done: int
    total: int


def is_hub_id(name: str) -> bool:
    """Whether a name can be a repository of the hub: owner/name, and no path."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.count("/") == 1


def fetch(
    repo_id: str,
    *,
    token: str | None = None,
    ask_access: bool = False,
    stop: Callable[[], bool] | None = None,
    tell: Callable[[Download], None] | None = None,
) -> Snapshot:
    """The files of a model of the hub that loading it needs, from one commit; safetensors only, and no code.

    Only what is missing in the cache is downloaded. If the hub cannot be reached, the newest commit that is complete
    in the cache is taken.

    Args:
        repo_id: owner/name.
        token: for gated and private models; None for the environment's or the one that is logged in.
        ask_access: let the hub say whether the token may have the files, even if they are in the cache or the hub does
            not answer: for a token that is not the cache owner's.
        stop: asked often; once it says True the download ends within a third of a second.
        tell: is told of progress a few times a second, in the caller's thread; never if all is in the cache.

    Raises:
        ModelError: not found, gated, no safetensors, cut off, no space, stopped, or no network and not in the cache.
    """
    if not is_hub_id(repo_id):
        raise ModelError(f"{repo_id[:100]!r} is no model of the hub. Give its owner and name: EleutherAI/pythia-160m.")
    stopped = stop or (lambda: False)
    if stopped():
        raise ModelError(_stopped(repo_id))
    with _program({"repo_id": repo_id, "token": token, "ask_access": ask_access}) as lines:
        for said in _listen(lines, repo_id, stopped):
            if "sentence" in said:
                raise ModelError(said["sentence"])
            if "folder" in said:
                return Snapshot(Path(said["folder"]), said["revision"])
            if tell and "done" in said:
                tell(Download(said["done"], said["total"]))
    raise AssertionError("the program ends with a folder or a sentence")


@contextmanager
def _program(request: dict[str, Any]) -> Iterator[Lines]:
    """The running program, as the lines that it says, "" when it has ended. On the way out it is made to end.

    It gets a session of its own, since Ctrl-C is for us to understand.
    """
    lines: Lines = queue.SimpleQueue()
    with subprocess.Popen(
        [sys.executable, "-P", str(PROGRAM)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        env=os.environ | QUIET,
        start_new_session=True,
    ) as process:
        assert process.stdin and process.stdout
        reader = threading.Thread(target=_read, args=(process.stdout, lines))
        reader.start()
        try:
            _write(process.stdin, request)
            yield lines
        finally:
            _end(process)
            reader.join()


def _read(output: IO[str], lines: Lines) -> None:
    for line in output:
        lines.put(line)
    lines.put("")


def _write(program: IO[str], request: dict[str, Any]) -> None:
    """The pipe stays open after it: its end tells the program that we are gone."""
    with suppress(BrokenPipeError):  # it has ended already, as its output will tell
        program.write(json.dumps(request) + "\n")
        program.flush()


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _listen(lines: Lines, repo_id: str, stopped: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    """What the program says, until it is to stop."""
    heard = time.monotonic()
    while not stopped():
        with suppress(queue.Empty):
            line = lines.get(timeout=POLL_SECONDS)
            if not line:
                raise ModelError(f"The download of {repo_id} was ended. Try again: it goes on where it stopped.")
            heard = time.monotonic()
            yield json.loads(line)
        if time.monotonic() - heard > SILENCE_SECONDS:
            raise ModelError(f"The hub has stopped answering about {repo_id}. Try again: it goes on where it stopped.")
    raise ModelError(_stopped(repo_id))


def _stopped(repo_id: str) -> str:
    return f"The download of {repo_id} was stopped. What has arrived is kept, and the next try goes on from there."
