"""What cramming segments side by side is worth: tokens a second of a document in a batch, over one segment at a time.

Both sides are the same engine with the same settings on the same stretches of text; only the rows of the batch differ.
They take turns, so that whatever else the machine does falls on both.
"""

from __future__ import annotations

from statistics import median
from typing import Any

from cramdemo.bench.report import Asked, Tell, keep_quiet, noting, ratio_row
from cramdemo.config import CramConfig
from cramdemo.document import ROWS, DocumentState, cram_document
from cramdemo.errors import plural
from cramdemo.models import FrozenLM, load_model
from cramdemo.passages import draw_passages

TOKENS = 640  # of a passage and vector: some more than the rows of the batch take at once
ALONE = 1


def bench_document(asked: Asked, tell: Tell = keep_quiet) -> dict[str, Any]:
    """For each model and K: both sides' pace, fill and work, and the ratio of their paces.

    Raises:
        TextError: the books are too short.
        ModelError: a model cannot be loaded.
    """
    rows: list[dict[str, Any]] = []
    for model in asked.models:
        lm = load_model(model)
        for num_mem in asked.num_mem:
            note = noting(rows, tell, {"model": lm.name, "num_mem": num_mem})
            config = CramConfig.for_model(lm, num_mem=num_mem)
            sides: dict[int, list[DocumentState]] = {ROWS: [], ALONE: []}
            for text in draw_passages(lm, asked.books, asked.passages, TOKENS * num_mem):
                for count, states in sides.items():
                    states.append(_crammed(lm, text, config, count))
            for count, states in sides.items():
                note(_row("one segment at a time" if count == ALONE else f"{count} segments at once", states))
            paces = [[pace(state) for state in sides[count]] for count in (ROWS, ALONE)]
            note(ratio_row(f"tokens a second, {ROWS} at once over one at a time", *paces))
    return {"benchmark": "document", "passages": asked.passages, "rows": rows}


def pace(state: DocumentState) -> float:
    """Tokens a second that decode exactly."""
    return state.lossless_tokens / state.seconds


def _crammed(lm: FrozenLM, text: str, config: CramConfig, rows: int) -> DocumentState:
    *_, last = cram_document(lm, lm.tokenize(text), config, rows=rows)
    return last


def _row(name: str, states: list[DocumentState]) -> dict[str, Any]:
    tokens = sum(state.num_tokens for state in states)
    exact = sum(state.lossless_tokens for state in states)
    return {
        "figure": f"{name}: tokens that decode exactly",
        "value": f"{exact:,} of {plural(tokens, 'token')}",
        "tokens_a_second": round(median(pace(state) for state in states), 1),
        "tokens_a_vector": round(median(state.tokens_a_vector for state in states), 1),
        "gflop_a_token": round(sum(state.flops for state in states) / tokens / 1e9, 2),
    }
