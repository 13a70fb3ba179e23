"""The proof of "lossless": vector files decoded again in new processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from cramdemo.bench.report import ROOT
from cramdemo.cram import CramResult
from cramdemo.errors import plural
from cramdemo.vectors import save

THREAD_COUNTS = (1, 2)


class Proof:
    """Vector files of results called lossless, and their texts, for decoding in new processes."""

    def __enter__(self) -> Proof:
        self._folder = tempfile.TemporaryDirectory()
        self.texts: dict[str, str] = {}
        return self

    def __exit__(self, *error: object) -> None:
        self._folder.cleanup()

    def keep(self, results: list[CramResult], passages: list[str]) -> None:
        """Save those of `results`, the first of `passages`, that are lossless."""
        for text, result in zip(passages, results, strict=False):
            if result.lossless:
                name = f"{len(self.texts)}.safetensors"
                save(result.vectors, Path(self._folder.name) / name)
                self.texts[name] = text

    def rows(self) -> list[dict[str, Any]]:
        """How many decode exactly elsewhere, one row for each number of threads."""
        return [new_process_row(Path(self._folder.name), self.texts, threads) for threads in THREAD_COUNTS]


def new_process_row(folder: Path, texts: dict[str, str], threads: int) -> dict[str, Any]:
    """How many files of a folder decode to their texts in a new process."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "cramdemo.bench", str(folder)]
    output = subprocess.run(command, env=environment, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    decoded = json.loads(output)
    exact = sum(decoded.get(name) == text for name, text in texts.items())
    return {
        "figure": f"of results called lossless, exact in a new process with {plural(threads, 'thread')}",
        "value": f"{exact} of {len(texts)}",
        "share": exact / len(texts) if texts else None,
    }
