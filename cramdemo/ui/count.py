"""The line under the text box: how long the text is for this model, and what fits. Knows no widget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import torch

from cramdemo.catalogue import UNLIMITED, ModelEntry
from cramdemo.config import MAX_CHARACTERS_PAGE
from cramdemo.cram import check_characters as check_at_most
from cramdemo.errors import CramError, plural
from cramdemo.metrics import cross_entropy_bits
from cramdemo.models import FrozenLM
from cramdemo.ui.offer import entry_of, is_here
from cramdemo.ui.shelf import SHELF, WORKER

ANSWER_SECONDS = 3.0
SOON_LOADED_PARAMETERS = 50_000_000
_H_LM = "cost of the text under the bare model, tokens 2 to N"


@dataclass(frozen=True)
class Count:
    """Size of a text for one model; None where it is not known (yet)."""

    characters: int
    limit: int
    num_mem: int
    tokens: int | None = None
    h_lm_bits: float | None = None
    problem: str = ""


def count_text(text: str, model: str, num_mem: int) -> Count:
    """Count a text without disturbing a run: while the model is busy, only what its tokenizer can say."""
    try:
        limit = entry_of(model).context - num_mem
        check_characters(text)
        found = WORKER.ask(_measure, text, model, limit, seconds=ANSWER_SECONDS)
        tokens, bits = found or (_tokens_only(text, model), None)
    except CramError as error:
        problem = "" if not text else str(error)
        return Count(len(text), limit=0, num_mem=num_mem, problem=problem)
    return Count(len(text), limit, num_mem, tokens, bits)


def check_characters(text: str) -> None:
    """Refuse what is too long even to count here.

    Raises:
        TextError: more characters than the page takes.
    """
    check_at_most(text, MAX_CHARACTERS_PAGE)


def bare_bits(lm: FrozenLM, ids: Sequence[int]) -> float:
    """H_LM: cost of tokens 1..N-1 under the bare model, in bits."""
    return sum(surprisal(lm, ids))


def surprisal(lm: FrozenLM, ids: Sequence[int]) -> list[float]:
    """Cost of each of the tokens 1..N-1 under the bare model, in bits."""
    if len(ids) < 2:
        return []
    tensor = torch.tensor([list(ids)], device=lm.device)
    found: list[float] = cross_entropy_bits(lm.bare_logits(tensor), tensor[:, 1:])[0].tolist()
    return found


def _measure(text: str, model: str, limit: int) -> tuple[int | None, float | None]:
    lm = SHELF.here(model) if SHELF.peek(model) or _soon_loaded(entry_of(model)) else None
    if lm is None:
        return _tokens_only(text, model), None
    ids = lm.tokenize(text)
    return len(ids), bare_bits(lm, ids) if len(ids) <= limit else None


def _soon_loaded(entry: ModelEntry) -> bool:
    """Counting is no reason to download a model, nor to load a large one."""
    return 0 < entry.parameters <= SOON_LOADED_PARAMETERS and is_here(entry)


def _tokens_only(text: str, model: str) -> int | None:
    lm = SHELF.peek(model)
    return len(lm.tokenize(text)) if lm else None


def count_html(count: Count) -> str:
    """The count line."""
    parts = [plural(count.characters, "character")]
    if count.problem:
        return f'<p class="cd-count" data-over="1">{escape(parts[0])}<br><strong>{escape(count.problem)}</strong></p>'
    if count.tokens is not None:
        parts.append(plural(count.tokens, "token"))
    if count.h_lm_bits is not None:
        parts.append(f'<abbr title="{_H_LM}">H_LM</abbr> {count.h_lm_bits:,.0f} bits')
    over = count.tokens is not None and count.tokens > count.limit
    bounded = 0 < count.limit < UNLIMITED - count.num_mem
    limit = f"at most {count.limit:,} tokens with K = {count.num_mem}" if bounded else ""
    words = " · ".join(f"<span>{part}</span>" for part in parts)
    tail = f'<span class="cd-limit">{"Too long: " if over else ""}{limit}</span>'
    return f'<p class="cd-count" data-over="{int(over)}">{words}{" · " + tail if limit else ""}</p>'
