"""Save one vector file over another until killed, twenty times; whatever is then there has to be whole.

    python -m tests.killed_save FILE

Prints the numbers that were found in FILE after the kills: those of either file, in order.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from pathlib import Path
from random import Random
from signal import SIGKILL

import torch

from cramdemo.vectors import load, save

GOLDEN = Path(__file__).parent / "data" / "golden_v1.safetensors"
ROUNDS = 20
SHAPE = (32, 4096)  # half a megabyte, so that a write takes a while


def main(path: Path) -> None:
    """In a process without other threads, which a fork would lose."""
    torch.set_num_threads(1)
    files = [dataclasses.replace(load(GOLDEN), mem=torch.full(SHAPE, value)) for value in (1.0, 2.0)]
    save(files[0], path)
    random, found = Random(0), set()
    for _ in range(ROUNDS):
        child = os.fork()
        while child == 0:
            for vectors in files:
                save(vectors, path)
        time.sleep(random.uniform(0.01, 0.08))
        os.kill(child, SIGKILL)
        os.waitpid(child, 0)
        (number,) = load(path).mem.unique().tolist()
        found.add(number)
    print(*sorted(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
