"""Who does which job: the next number, shared by all processes in torch.distributed's store.

Each process takes the next job when it is done with one, so that slow jobs hold nobody up. Without a launcher there is
one process, and the counter is its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from itertools import count

import torch
from torch.distributed import DistNetworkError, DistStoreError, PrefixStore, rendezvous  # type: ignore[attr-defined]

from cramdemo.errors import ModelError

LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what `accelerate launch` and torchrun set
NUMBER = "next job"
CONNECT_SECONDS = 120.0  # processes on many machines do not start at once


@dataclass(frozen=True)
class Worker:
    """This process among those of the sweep.

    Attributes:
        rank: from 0 to `count` - 1.
        count: of processes.
        device: for `load_model`; None takes what there is.
        take: gives the next job's number, each number to one process only.
    """

    rank: int
    count: int
    device: str | None
    take: Callable[[], int]


def join() -> Worker:
    """Take one's place among the processes that a launcher started, or be the only one.

    Raises:
        ModelError: the others cannot be reached.
    """
    if not all(name in os.environ for name in LAUNCHED):
        return Worker(0, 1, None, count().__next__)
    try:
        store, rank, size = next(rendezvous("env://", timeout=timedelta(seconds=CONNECT_SECONDS)))
    except (DistNetworkError, DistStoreError, ValueError, OSError) as error:
        raise ModelError("The other processes of this sweep cannot be reached. Start them anew.") from error
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    shared = PrefixStore(f"cramdemo sweep, attempt {attempt}", store)

    def take() -> int:
        try:
            return int(shared.add(NUMBER, 1)) - 1
        except (DistNetworkError, DistStoreError, RuntimeError) as error:
            raise ModelError(
                "The process that deals the jobs is gone. What is done is kept; start the same command again."
            ) from error

    return Worker(rank, size, _device(), take)


def _device() -> str | None:
    """The GPU that accelerate gives this process, if there is one."""
    if not torch.cuda.is_available():
        return None
    from accelerate import PartialState

    return str(PartialState().device)
