"""How many tokens the built-in model holds for each K."""

from __future__ import annotations

import gzip
import lzma
from statistics import median
from typing import Any

from cramdemo.bench.proof import Proof
from cramdemo.bench.report import Asked, Tell, holding_row, keep_quiet
from cramdemo.catalogue import BUILT_IN
from cramdemo.config import CramConfig
from cramdemo.cram import CramResult, run_cram
from cramdemo.models import FrozenLM, load_model
from cramdemo.passages import bits_per_byte, draw_passages

HORIZON_NUM_MEM = (1, 2, 4, 8)
HORIZON_LEVELS = range(4, 66, 2)  # tokens a vector
HORIZON_ONE_FAILURE_IN = 10  # passages: a length counts as reached when nine of ten hold
HORIZON_SEARCH_PASSAGES = 10  # the length is looked for on so many, and then proven on all
HORIZON_STEPS = 400  # the schedule falls within them; a run that needs more has failed, and would cost hours
HORIZON_BOUNDS = {1: 16, 8: 8}  # K: tokens a vector that are run in any case, for their times


def bench_horizon(asked: Asked, tell: Tell = keep_quiet) -> dict[str, Any]:
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
    with Proof() as proof:
        for num_mem in HORIZON_NUM_MEM:
            search = _HorizonSearch(lm, asked.books, asked.passages, num_mem, tell)
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
    rows += _bits_per_byte_rows(lm, asked.books)
    return {"benchmark": "horizon", "model": lm.name, "passages": asked.passages, "rows": rows}


class _HorizonSearch:
    """The longest passages held for one K, and what was run to find them; levels are tokens a vector."""

    def __init__(self, lm: FrozenLM, books: list[str], count: int, num_mem: int, tell: Tell = keep_quiet) -> None:
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
        return holding_row(results, f"K = {self.num_mem}, {a_vector * self.num_mem} tokens") | _prefixes(results)


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
