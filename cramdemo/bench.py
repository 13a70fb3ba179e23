"""Benchmarks of this program on this machine: python -m cramdemo bench NAME.

`built-in`: how much the built-in model holds with the default settings, and whether what was called lossless
decodes in a new process. `view`: what the page costs, start and live view, against the command line.
Ratios come from one run with both sides in it; times are only those a user waits for.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from cramdemo.config import CramConfig
from cramdemo.cram import CramResult, run_cram
from cramdemo.decode import decode
from cramdemo.errors import CramError, TextError, plural
from cramdemo.models import BUILT_IN, FrozenLM, load_model
from cramdemo.passages import draw_passages, read_books
from cramdemo.vectors import load, save

ROOT = Path(__file__).resolve().parent.parent
SHAPES = ((8, 1), (32, 8))  # tokens, K
THREAD_COUNTS = (1, 2)
RANDOM_START_STEPS = 400
VIEW_STEPS = 600
VIEW_PAIRS = 5
VIEW_TOKENS = 24  # more than one vector of the built-in model holds, so that all steps are run
START_TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class Benchmark:
    """A benchmark: what it tells, and the function that makes its report from corpus folder and passage count."""

    help: str
    run: Callable[[Path | None, int], dict[str, Any]]


def bench_built_in(corpus: Path | None, count: int) -> dict[str, Any]:
    """Passages held by the built-in model at default settings, decoded again in new processes.

    Raises:
        TextError: no corpus folder is given, or its books are too short.
    """
    lm, books = load_model(BUILT_IN), _books(corpus)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        texts: dict[str, str] = {}
        for num_tokens, num_mem in SHAPES:
            passages = draw_passages(lm, books, count, num_tokens)
            results = [run_cram(lm, text, CramConfig.for_model(lm, num_mem=num_mem)) for text in passages]
            for number, (text, result) in enumerate(zip(passages, results, strict=True)):
                if result.lossless:
                    name = f"{num_tokens}-{num_mem}-{number}.safetensors"
                    save(result.vectors, Path(folder) / name)
                    texts[name] = text
            rows.append(_holding_row(results, f"{num_tokens} tokens, K = {num_mem}"))
            rows.append(_random_start_row(lm, passages, num_tokens, num_mem))
        rows += [_new_process_row(Path(folder), texts, threads) for threads in THREAD_COUNTS]
    return {"benchmark": "built-in", "model": lm.name, "passages": count, "rows": rows}


def bench_view(corpus: Path | None, count: int) -> dict[str, Any]:
    """Seconds to a usable page and to LOSSLESS through it, and the live view's cost in steps a second.

    Raises:
        TextError: no corpus folder is given, or its books are too short.
        CramError: the app does not start.
    """
    lm, books = load_model(BUILT_IN), _books(corpus)
    (long_text,) = draw_passages(lm, books, 1, VIEW_TOKENS)
    short_texts = draw_passages(lm, books, count, SHAPES[0][0])
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
    return {"benchmark": "view", "model": lm.name, "passages": count, "rows": rows}


def markdown(report: dict[str, Any]) -> str:
    """The report as a Markdown table."""
    rows = report["rows"]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [" | ".join(columns), " | ".join("---" for _ in columns)]
    lines += [" | ".join(str(row.get(key, "")) for key in columns) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def _books(corpus: Path | None) -> list[str]:
    if corpus is None:
        raise TextError("Give a folder of UTF-8 .txt files to draw passages from: --corpus DIR.")
    return read_books(corpus)


def _random_start_row(lm: FrozenLM, passages: list[str], num_tokens: int, num_mem: int) -> dict[str, Any]:
    """The same passages without the encoder's help, on a smaller budget of steps since many runs use it up."""
    config = CramConfig.for_model(lm, num_mem=num_mem, init="embedding", steps=RANDOM_START_STEPS)
    results = [run_cram(lm, text, config) for text in passages]
    return _holding_row(results, f"{num_tokens} tokens, K = {num_mem}, random start, {RANDOM_START_STEPS} steps")


def _holding_row(results: list[CramResult], name: str) -> dict[str, Any]:
    lossless = [result for result in results if result.lossless]
    return {
        "figure": f"{name}: lossless passages",
        "value": f"{len(lossless)} of {len(results)}",
        "share": len(lossless) / len(results),
        "most_steps": max((r.steps for r in lossless), default=None),
        "median_seconds": round(median(r.seconds for r in lossless), 2) if lossless else None,
        "median_steps": median(r.steps for r in lossless) if lossless else None,
    }


def _new_process_row(folder: Path, texts: dict[str, str], threads: int) -> dict[str, Any]:
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


def decode_folder(folder: Path) -> dict[str, str]:
    """The text of every vector file in a folder, by file name."""
    lm: FrozenLM = load_model(BUILT_IN)
    return {path.name: decode(lm, load(path)).text for path in sorted(folder.glob("*.safetensors"))}


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


BENCHMARKS = {
    "built-in": Benchmark("what the built-in model holds", bench_built_in),
    "view": Benchmark("what the page costs", bench_view),
}

if __name__ == "__main__":
    print(json.dumps(decode_folder(Path(sys.argv[1]))))
