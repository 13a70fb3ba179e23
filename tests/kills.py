"""Runs of the command line that are killed for good (SIGKILL), for tests, and by hand: python -m tests.kills N.

By hand it kills one command at N random moments, each time starting it again, and then compares what the last one left
with what a run left that nobody touched. It prints what it saw as one JSON object.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEXT = "Seventeen purple 9931 zebras quietly vote on Thursdays. "
SETTINGS = ("--init", "embedding", "--num-mem", "2", "--margin", "50", "--json")  # a margin that is never reached
EVERY_STEP = """
import math, os, runpy, signal, sys
from cramdemo import resume

resume.LEAST_SECONDS, resume.SHARE = 0.0, math.inf
name, left = sys.argv[1], int(sys.argv[2])
real = getattr(os, name)


def dying(*arguments, **settings):
    global left
    left -= 1
    if left < 0:
        if name == "fdopen":
            os.write(arguments[0], b"half of it")
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **settings)


setattr(os, name, dying)
sys.argv = ["cramdemo", *sys.argv[3:]]
runpy.run_module("cramdemo", run_name="__main__")
"""  # a checkpoint after each step; the process kills itself at the given call of a function of `os`


@dataclass(frozen=True)
class Place:
    """Where one command reads and writes."""

    folder: Path
    steps: int

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def vectors(self) -> Path:
        return self.folder / "v.safetensors"

    def command(self, *, checkpoint: bool = True) -> list[str]:
        """Arguments of `python -m cramdemo`."""
        self.folder.mkdir(exist_ok=True)
        (self.folder / "t.txt").write_text(TEXT)
        kept = ("--checkpoint", str(self.checkpoints)) if checkpoint else ()
        names = ("cram", str(self.folder / "t.txt"), "-o", str(self.vectors))
        return [*names, "--steps", str(self.steps), *SETTINGS, *kept]


def finished(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """A command that is left alone."""
    program = [sys.executable, "-m", "cramdemo", *arguments]
    return subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)


def killed_in_a_write(arguments: Sequence[str], function: str, call: int) -> int:
    """A command that writes a checkpoint after each step and kills itself at a call of `os.function`; its status."""
    program = [sys.executable, "-c", EVERY_STEP, function, str(call), *arguments]
    return subprocess.run(program, cwd=ROOT, capture_output=True, check=False, timeout=300).returncode


def killed_after_checkpoints(arguments: Sequence[str], folder: Path, count: int) -> int:
    """A command that is killed as soon as it has written so many checkpoints; its status."""
    with subprocess.Popen(
        [sys.executable, "-m", "cramdemo", *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        known, seen = _stamps(folder), 0
        while process.poll() is None and seen < count:
            time.sleep(0.005)
            now = _stamps(folder)
            seen, known = seen + len(now - known), now
        process.kill()
        process.communicate()
        return process.returncode


def _stamps(folder: Path) -> set[tuple[str, int]]:
    """Name and inode of each checkpoint; a file that is replaced has another one."""
    return {(path.name, path.stat().st_ino) for path in folder.glob("cram-*.safetensors")}


def _killed_after_seconds(arguments: Sequence[str], seconds: float) -> bool:
    """A command with a checkpoint after each step, killed after a while; whether it was still there."""
    program = [sys.executable, "-c", EVERY_STEP, "umask", str(10**9), *arguments]
    with subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()
            return True
        return False


def _by_hand(kills: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        alone, place = Place(Path(name), 120), Place(Path(name) / "killed", 120)
        began = time.monotonic()
        expected = json.loads(finished(alone.command(checkpoint=False)).stdout)
        whole, draw, counts = time.monotonic() - began, random.Random(0), {"killed": 0, "finished": 0, "identical": 0}
        while counts["killed"] < kills:
            if _killed_after_seconds(place.command(), draw.uniform(0.3, 1.2) * whole):
                counts["killed"] += 1
                continue
            counts["finished"] += 1
            counts["identical"] += place.vectors.read_bytes() == alone.vectors.read_bytes()
        report = json.loads(finished(place.command()).stdout)
        counts["finished"] += 1
        same = {key: value for key, value in report.items() if key != "seconds"}
        counts["identical"] += place.vectors.read_bytes() == alone.vectors.read_bytes() and same == {
            key: value for key, value in expected.items() if key != "seconds"
        }
        print(json.dumps(counts | {"seconds_of_a_run": round(whole, 1), "steps": report["steps"]}))


if __name__ == "__main__":
    _by_hand(int(sys.argv[1]))
