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
from cramdemo.catalogue import BUILT_IN, MODELS
from cramdemo.cram import CramResult
from cramdemo.decode import decode
from cramdemo.errors import plural
from cramdemo.models import FrozenLM, load_model
from cramdemo.vectors import load, save

THREAD_COUNTS = (1, 2)


class Proof:
    """Vector files of results called lossless, and their texts, for decoding in new processes.

    Args:
        model: name from the table, or folder, of the model that the results are of.
    """

    def __init__(self, model: str = BUILT_IN) -> None:
        self._model = model

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
        """How many decode exactly elsewhere, one row for each number of threads; none where nothing was kept."""
        counts = THREAD_COUNTS if self.texts else ()
        return [new_process_row(Path(self._folder.name), self.texts, threads, self._model) for threads in counts]


def new_process_row(folder: Path, texts: dict[str, str], threads: int, model: str = BUILT_IN) -> dict[str, Any]:
    """How many files of a folder decode to their texts in a new process, in every dtype that a file lists."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    place = str(Path(model).resolve()) if Path(model).is_dir() and model not in MODELS else model
    command = [sys.executable, "-m", "cramdemo.bench", "proof", str(folder), place]
    output = subprocess.run(command, env=environment, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    decoded = json.loads(output)
    exact = sum(decoded.get(name) == text for name, text in texts.items())
    return {
        "figure": f"of results called lossless, exact in a new process with {plural(threads, 'thread')}",
        "value": f"{exact} of {len(texts)}",
        "share": exact / len(texts) if texts else None,
    }


def decoded_texts(folder: Path, model: str) -> dict[str, str | None]:
    """What each vector file of a folder decodes to, by its name: what the new process does.

    None where two of the dtypes that the file was verified in give different texts, or ids other than the file's.
    """
    models: dict[str, FrozenLM] = {}
    found: dict[str, str | None] = {}
    for path in sorted(folder.glob("*.safetensors")):
        vectors = load(path)
        texts = set()
        for dtype in dict.fromkeys(check["dtype"] for check in vectors.verified):
            models[dtype] = models.get(dtype) or load_model(model, precision=dtype)
            decoded = decode(models[dtype], vectors)
            texts.add(decoded.text if decoded.matches else None)
        found[path.name] = texts.pop() if len(texts) == 1 else None
    return found
