"""The proof of a report without a new process, which takes seconds to start: `test_proof` has real ones."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cramdemo.bench import proof


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the new process would do is done here; the numbers of threads that it would have had, as they come."""
    threads: list[str] = []

    def run(command: list[str], *, env: dict[str, str], **_: Any) -> subprocess.CompletedProcess[str]:
        threads.append(env["OMP_NUM_THREADS"])
        *_, folder, model = command
        return subprocess.CompletedProcess(command, 0, stdout=json.dumps(proof.decoded_texts(Path(folder), model)))

    monkeypatch.setattr(proof, "subprocess", SimpleNamespace(run=run))
    return threads
