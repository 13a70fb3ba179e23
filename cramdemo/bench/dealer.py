"""How busy a sweep keeps many workers: the dealer of `sweep.deal` simulated, with the time that a number really takes.

Each worker takes the next job when it is done with one. Takes are served one after the other, as the store does; what a
take costs is measured here, over loopback. Job times are log-normal, as those of crammed texts are: most are short, a
few are long. Beside it the jobs shared out beforehand, evenly by number, as without a dealer.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from cramdemo.bench.report import Asked, Tell, keep_quiet, noting

WORKERS = 512
JOBS_A_WORKER = (20, 100, 500, 1953)  # the last: a million jobs
MEAN_SECONDS = 10.0  # of a job
SPREAD = 1.0  # standard deviation of a job time's logarithm: the slowest of a thousand takes 13 times the mean
TAKES = 2000


def bench_dealer(asked: Asked, tell: Tell = keep_quiet) -> dict[str, Any]:
    """What a take costs, and the share of the time that the workers of a sweep are busy."""
    rows: list[dict[str, Any]] = []
    note = noting(rows, tell)
    seconds = take_seconds()
    note({"figure": "a number from the store, over loopback, microseconds", "value": round(seconds * 1e6)})
    for each in JOBS_A_WORKER:
        times = job_times(WORKERS * each)
        note(
            {
                "figure": f"{WORKERS} workers, {each:,} jobs each of {MEAN_SECONDS:g} s: share of the time busy",
                "value": round(utilisation(times, WORKERS, seconds), 3),
                "shared_out_beforehand": round(shared_out(times, WORKERS), 3),
            }
        )
    return {"benchmark": "dealer", "rows": rows}


def take_seconds(takes: int = TAKES) -> float:
    """What one process waits for a number from the store of another, in the mean."""
    server = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    client = TCPStore("127.0.0.1", server.port, is_master=False, timeout=timedelta(seconds=30))
    began = time.perf_counter()
    for _ in range(takes):
        client.add("next job", 1)
    return (time.perf_counter() - began) / takes


def job_times(count: int, seed: int = 0) -> list[float]:
    """Log-normal times of `count` jobs, in seconds, whose expected mean is `MEAN_SECONDS`."""
    normal = torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    times: list[float] = (MEAN_SECONDS * torch.exp(SPREAD * normal - SPREAD**2 / 2)).tolist()
    return times


def utilisation(times: Sequence[float], workers: int, seconds: float) -> float:
    """Share of the time from the first take to the last job's end in which workers are at a job.

    Args:
        times: of the jobs, in the order in which they are dealt, in seconds.
        seconds: that the dealer needs for each take; whoever comes meanwhile waits.
    """
    free = [0.0] * workers  # when each worker asks for its next job
    dealer = end = 0.0
    for duration in times:
        asked = heapq.heappop(free)
        dealer = max(dealer, asked) + seconds
        heapq.heappush(free, dealer + duration)
        end = max(end, dealer + duration)
    return sum(times) / (workers * end)


def shared_out(times: Sequence[float], workers: int) -> float:
    """The same if worker w has jobs w, w + workers, ... from the beginning, and nothing is dealt."""
    return sum(times) / (workers * max(sum(times[worker::workers]) for worker in range(workers)))
