"""Benchmarks of this program on this machine: python -m cramdemo bench NAME.

`built-in`: short passages on the built-in model with the default settings, and whether what was called
lossless decodes in a new process. `horizon`: how many tokens it holds for each K. `view`: what the page costs,
start and live view, against the command line.
Ratios come from one run with both sides in it; times are only those a user waits for.
"""

from __future__ import annotations

import gzip
import json
import lzma
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
from cramdemo.errors import CramError, plural
from cramdemo.models import BUILT_IN, FrozenLM, load_model
from cramdemo.passages import bits_per_byte, draw_passages
from cramdemo.vectors import load, save

ROOT = Path(__file__).resolve().parent.parent
SHAPES = ((8, 1), (32, 8))  # tokens, K
THREAD_COUNTS = (1, 2)
HORIZON_NUM_MEM = (1, 2, 4, 8)
HORIZON_LEVELS = range(4, 66, 2)  # tokens a vector
HORIZON_ONE_FAILURE_IN = 10  # passages: a length counts as reached when nine of ten hold
HORIZON_SEARCH_PASSAGES = 10  # the length is looked for on so many, and then proven on all
HORIZON_STEPS = 400  # the schedule falls within them; a run that needs more has failed, and would cost hours
HORIZON_BOUNDS = {1: 16, 8: 8}  # K: tokens a vector that are run in any case, for their times
RANDOM_START_STEPS = 400
VIEW_STEPS = 600
VIEW_PAIRS = 5
VIEW_TOKENS = 96  # more than one vector of the built-in model holds, so that all steps are run
START_TIMEOUT_SECONDS = 60


Tell = Callable[[dict[str, Any]], object]


@dataclass(frozen=True)
class Benchmark:
    """A benchmark: what it tells, and the function that makes its report.

    `run` takes books, the number of passages, and a function that is told of each row as it comes.
    """

    help: str
    run: Callable[[list[str], int, Tell], dict[str, Any]]


def _keep_quiet(row: dict[str, Any]) -> None:
    """Nobody watches."""


def bench_built_in(books: list[str], count: int, tell: Tell = _keep_quiet) -> dict[str, Any]:
    """Passages held by the built-in model at default settings, decoded again in new processes.

    Raises:
        TextError: the books are too short.
    """
    lm = load_model(BUILT_IN)
    rows = []
    with _Proof() as proof:
        for num_tokens, num_mem in SHAPES:
            passages = draw_passages(lm, books, count, num_tokens)
            results = [run_cram(lm, text, CramConfig.for_model(lm, num_mem=num_mem)) for text in passages]
            proof.keep(results, passages)
            rows.append(_holding_row(results, f"{num_tokens} tokens, K = {num_mem}"))
            tell(rows[-1])
            rows.append(_random_start_row(lm, passages, num_tokens, num_mem))
            tell(rows[-1])
        rows += proof.rows()
    return {"benchmark": "built-in", "model": lm.name, "passages": count, "rows": rows}


def bench_horizon(books: list[str], count: int, tell: Tell = _keep_quiet) -> dict[str, Any]:
    """Tokens that nine of ten passages reach on the built-in model, for each K, within `HORIZON_STEPS`.

    The longest length is found by bisection over `HORIZON_LEVELS` on a few passages, taking shorter ones to be
    easier, and then proven on all of them, shortened as long as more than a tenth fail. Also the LM's own cost
    of the books in bits per byte, beside gzip's and xz's.

    Raises:
        TextError: the books are too short.
    """
    lm = load_model(BUILT_IN)
    rows: list[dict[str, Any]] = []
    horizons = {}
    with _Proof() as proof:
        for num_mem in HORIZON_NUM_MEM:
            search = _HorizonSearch(lm, books, count, num_mem, tell)
            horizons[num_mem] = search.horizon()
            rows += search.rows()
            for a_vector, results in search.results.items():
                proof.keep(results, search.passages(a_vector))
        rows += proof.rows()
    for num_mem, horizon in horizons.items():
        rows.append(
            {
                "figure": f"K = {num_mem}: tokens that nine of ten passages reach",
                "value": horizon,
                "over_one_vector": round(horizon / horizons[1], 2) if horizons[1] else None,
            }
        )
    rows += _bits_per_byte_rows(lm, books)
    return {"benchmark": "horizon", "model": lm.name, "passages": count, "rows": rows}


class _HorizonSearch:
    """The longest passages held for one K, and what was run to find them; levels are tokens a vector."""

    def __init__(self, lm: FrozenLM, books: list[str], count: int, num_mem: int, tell: Tell = _keep_quiet) -> None:
        self.lm, self.books, self.count, self.num_mem, self.tell = lm, books, count, num_mem, tell
        self.results: dict[int, list[CramResult]] = {}

    def horizon(self) -> int:
        """Tokens that nine of ten of all passages reach; 0 if not even the first level holds."""
        bound = HORIZON_BOUNDS.get(self.num_mem)
        if bound is not None:
            self._holds(bound, self.count)
        low, high = 0, len(HORIZON_LEVELS)  # the levels before `low` hold, those from `high` on do not
        while low < high:
            middle = min((low + high) // 2, low + 4)  # long passages cost most, so that large leaps do not pay
            holds = self._holds(HORIZON_LEVELS[middle], min(self.count, HORIZON_SEARCH_PASSAGES))
            low, high = (middle + 1, high) if holds else (low, middle)
        while low and not self._holds(HORIZON_LEVELS[low - 1], self.count):
            low -= 1
        return HORIZON_LEVELS[low - 1] * self.num_mem if low else 0

    def passages(self, a_vector: int) -> list[str]:
        """The same ones whatever K is at hand and however many are run."""
        return draw_passages(self.lm, self.books, self.count, a_vector * self.num_mem)

    def rows(self) -> list[dict[str, Any]]:
        """A row for each length that was tried, in the order of lengths."""
        return [self._row(a_vector) for a_vector in sorted(self.results)]

    def _holds(self, a_vector: int, count: int) -> bool:
        """Whether at most a tenth of the first `count` passages fail; ends at the first failure too many."""
        results = self.results.setdefault(a_vector, [])
        most = count // HORIZON_ONE_FAILURE_IN
        for text in self.passages(a_vector)[len(results) : count]:
            if _failures(results) > most:
                break
            config = CramConfig.for_model(self.lm, num_mem=self.num_mem, steps=HORIZON_STEPS)
            results.append(run_cram(self.lm, text, config))
        self.tell(self._row(a_vector))
        return _failures(results[:count]) <= most

    def _row(self, a_vector: int) -> dict[str, Any]:
        results = self.results[a_vector]
        return _holding_row(results, f"K = {self.num_mem}, {a_vector * self.num_mem} tokens") | _prefixes(results)


def _failures(results: list[CramResult]) -> int:
    return sum(not result.lossless for result in results)


def _prefixes(results: list[CramResult]) -> dict[str, Any]:
    """Leading tokens exact, from the encoder alone and optimised, medians over the passages."""
    alone = [result.encoder_prefix for result in results if result.encoder_prefix is not None]
    return {
        "encoder_alone_tokens": median(alone) if alone else None,
        "optimised_tokens": median(result.verification.correct_prefix for result in results),
    }


def _bits_per_byte_rows(lm: FrozenLM, books: list[str]) -> list[dict[str, Any]]:
    data = [book.encode("utf-8") for book in books]
    size = sum(len(book) for book in data)
    costs = {
        f"{lm.name}, K = 0": bits_per_byte(lm, books),
        "gzip": 8 * sum(len(gzip.compress(book, 9)) for book in data) / size,
        "xz": 8 * sum(len(lzma.compress(book)) for book in data) / size,
    }
    return [{"figure": f"bits per byte: {name}", "value": round(cost, 3)} for name, cost in costs.items()]


class _Proof:
    """Vector files of results called lossless, and their texts, for decoding in new processes."""

    def __enter__(self) -> _Proof:
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
        return [_new_process_row(Path(self._folder.name), self.texts, threads) for threads in THREAD_COUNTS]


def bench_view(books: list[str], count: int, tell: Tell = _keep_quiet) -> dict[str, Any]:
    """Seconds to a usable page and to LOSSLESS through it, and the live view's cost in steps a second.

    Raises:
        TextError: the books are too short.
        CramError: the app does not start.
    """
    lm = load_model(BUILT_IN)
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
    "built-in": Benchmark("short passages on the built-in model", bench_built_in),
    "horizon": Benchmark("how many tokens the built-in model holds", bench_horizon),
    "view": Benchmark("what the page costs", bench_view),
}

if __name__ == "__main__":
    print(json.dumps(decode_folder(Path(sys.argv[1]))))
