"""What the margin buys: of vectors that decode in one dtype, how many decode in another too.

Logits of two dtypes differ by rounding, so that a token won by less than that may be lost elsewhere. The default margin
of a model is chosen by this table.
"""

from __future__ import annotations

from typing import Any

import torch

from cramdemo.bench.report import Asked, Tell, keep_quiet, noting
from cramdemo.config import CramConfig
from cramdemo.cram import CramResult, run_cram
from cramdemo.decode import greedy_prefix
from cramdemo.models import FrozenLM, load_model
from cramdemo.passages import draw_passages
from cramdemo.vectors import dtype_name

MARGINS = (0.0, 0.25, 0.5, 1.0, 2.0)  # logits
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
TOKENS = 48  # a passage and vector: near what cram-mini holds, where margins are slim


def bench_margin(asked: Asked, tell: Tell = keep_quiet) -> dict[str, Any]:
    """For each model and margin: runs that are lossless as verified here, and of these the share in each other dtype.

    Raises:
        TextError: the books are too short.
        ModelError: a model cannot be loaded.
    """
    rows: list[dict[str, Any]] = []
    for model in asked.models:
        lm = load_model(model)
        for num_mem in asked.num_mem:
            passages = draw_passages(lm, asked.books, asked.passages, TOKENS * num_mem)
            note = noting(rows, tell, {"model": lm.name, "num_mem": num_mem})
            for margin in MARGINS:
                config = CramConfig.for_model(lm, num_mem=num_mem, margin=margin)
                results = [run_cram(lm, text, config) for text in passages]
                note(_row(lm, margin, [result for result in results if result.lossless], len(results)))
    return {"benchmark": "margin", "passages": asked.passages, "rows": rows}


def _row(lm: FrozenLM, margin: float, lossless: list[CramResult], count: int) -> dict[str, Any]:
    smallest = min((check.min_margin for result in lossless for check in result.verifications), default=None)
    row: dict[str, Any] = {
        "figure": f"margin {margin:g}: lossless where verified",
        "value": f"{len(lossless)} of {count}",
        "smallest_margin": None if smallest is None else round(smallest, 3),
    }
    verified = {check.dtype for result in lossless for check in result.verifications}
    for dtype in DTYPES:
        if dtype_name(dtype) not in verified:
            row[dtype_name(dtype)] = f"{survivors(lm.in_dtype(dtype), lossless)} of {len(lossless)}"
    return row


def survivors(judge: FrozenLM, results: list[CramResult]) -> int:
    """How many of the results greedy decoding gives back on this model."""
    return sum(
        greedy_prefix(judge, result.vectors.mem.to(judge.device), result.token_ids)[0] == result.num_tokens
        for result in results
    )
