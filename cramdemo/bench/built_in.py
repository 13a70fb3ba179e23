"""Short passages on the built-in model with the default settings, and whether they decode in a new process."""

from __future__ import annotations

from typing import Any

from cramdemo.bench.proof import Proof
from cramdemo.bench.report import Asked, Tell, holding_row, keep_quiet
from cramdemo.catalogue import BUILT_IN
from cramdemo.config import CramConfig
from cramdemo.cram import run_cram
from cramdemo.models import FrozenLM, load_model
from cramdemo.passages import draw_passages

SHAPES = ((16, 1), (64, 8))  # tokens, K
RANDOM_START_STEPS = 400


def bench_built_in(asked: Asked, tell: Tell = keep_quiet) -> dict[str, Any]:
    """Passages held by the built-in model at default settings, decoded again in new processes.

    Raises:
        TextError: the books are too short.
    """
    lm = load_model(BUILT_IN)
    rows = []
    with Proof() as proof:
        for num_tokens, num_mem in SHAPES:
            passages = draw_passages(lm, asked.books, asked.passages, num_tokens)
            results = [run_cram(lm, text, CramConfig.for_model(lm, num_mem=num_mem)) for text in passages]
            proof.keep(results, passages)
            rows.append(holding_row(results, f"{num_tokens} tokens, K = {num_mem}"))
            tell(rows[-1])
            rows.append(_random_start_row(lm, passages, num_tokens, num_mem))
            tell(rows[-1])
        rows += proof.rows()
    return {"benchmark": "built-in", "model": lm.name, "passages": asked.passages, "rows": rows}


def _random_start_row(lm: FrozenLM, passages: list[str], num_tokens: int, num_mem: int) -> dict[str, Any]:
    """The same passages without the encoder's help, on a smaller budget of steps since many runs use it up."""
    config = CramConfig.for_model(lm, num_mem=num_mem, init="embedding", steps=RANDOM_START_STEPS)
    results = [run_cram(lm, text, config) for text in passages]
    return holding_row(results, f"{num_tokens} tokens, K = {num_mem}, random start, {RANDOM_START_STEPS} steps")
