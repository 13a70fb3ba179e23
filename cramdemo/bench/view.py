"""What the page costs, start and live view, against the command line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from cramdemo.bench.built_in import SHAPES
from cramdemo.bench.report import ROOT, Asked, Tell, keep_quiet
from cramdemo.catalogue import BUILT_IN
from cramdemo.errors import CramError
from cramdemo.models import load_model
from cramdemo.passages import draw_passages

VIEW_STEPS = 600
VIEW_PAIRS = 5
VIEW_TOKENS = 96  # more than one vector of the built-in model holds, so that all steps are run
START_TIMEOUT_SECONDS = 60


def bench_view(asked: Asked, tell: Tell = keep_quiet) -> dict[str, Any]:
    """Seconds to a usable page and to LOSSLESS through it, and the live view's cost in steps a second.

    Raises:
        TextError: the books are too short.
        CramError: the app does not start.
    """
    lm = load_model(BUILT_IN)
    (long_text,) = draw_passages(lm, asked.books, 1, VIEW_TOKENS)
    short_texts = draw_passages(lm, asked.books, asked.passages, SHAPES[0][0])
    with _app() as (url, start_seconds):
        from gradio_client import Client

        client = Client(url, verbose=False)
        _watched(client, short_texts[0])  # warm
        waits = [_watched(client, text) for text in short_texts]
        ratios = [_speed_pair(client, long_text) for _ in range(VIEW_PAIRS)]
    lossless = [seconds for seconds, summary in waits if summary["lossless"]]
    rows = [
        {"figure": "seconds from `python app.py` to a usable page", "value": round(start_seconds, 1)},
        {
            "figure": f"median seconds from Compress to LOSSLESS, {SHAPES[0][0]} tokens, K = 1, by the API",
            "value": round(median(lossless), 2) if lossless else None,
            "lossless": f"{len(lossless)} of {len(waits)}",
        },
        {
            "figure": f"steps/s read by gradio_client over steps/s by command line, median of {VIEW_PAIRS}",
            "value": round(median(a / b for a, b in ratios), 3),
            "steps_per_second": [[round(a, 1), round(b, 1)] for a, b in ratios],
        },
    ]
    return {"benchmark": "view", "model": lm.name, "passages": asked.passages, "rows": rows}


@contextmanager
def _app() -> Iterator[tuple[str, float]]:
    """The real app in a process of its own: its address, and the seconds until its page answered."""
    environment = os.environ | {"GRADIO_ANALYTICS_ENABLED": "False", "PYTHONUNBUFFERED": "1"}
    begun = time.monotonic()
    command = [sys.executable, "app.py"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        yield _address(process, begun), time.monotonic() - begun
    finally:
        process.terminate()
        process.wait(timeout=30)


def _address(process: subprocess.Popen[str], begun: float) -> str:
    """Where the app says that it listens, once its page has answered."""
    import httpx

    assert process.stdout is not None
    for line in process.stdout:
        found = re.search(r"http://\S+", line)
        if found:
            httpx.get(found[0], timeout=START_TIMEOUT_SECONDS).raise_for_status()
            return found[0]
        if time.monotonic() - begun > START_TIMEOUT_SECONDS:
            break
    raise CramError("The app did not start. Run `python app.py` to see why.")


def _watched(client: Any, text: str, **settings: Any) -> tuple[float, dict[str, Any]]:
    """Seconds that a client waits for a run it watches, and the run's summary."""
    begun = time.monotonic()
    job = client.submit(text=text, api_name="/compress", **settings)
    for _ in job:
        pass
    summary, _ = job.outputs()[-1]
    return time.monotonic() - begun, summary


def _speed_pair(client: Any, text: str) -> tuple[float, float]:
    """Steps a second of the same run, watched by a client and by command line, one after the other."""
    _, watched = _watched(client, text, steps=VIEW_STEPS)
    command = [sys.executable, "-m", "cramdemo", "cram", "-", "--steps", str(VIEW_STEPS), "--json", "-o"]
    with tempfile.TemporaryDirectory() as folder:
        run = subprocess.run(
            [*command, str(Path(folder) / "out.safetensors")],
            input=text.encode(),
            cwd=ROOT,
            capture_output=True,
            check=False,
        )
    alone = json.loads(run.stdout)
    return watched["steps"] / watched["seconds"], alone["steps"] / alone["seconds"]
