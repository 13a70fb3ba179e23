"""What every benchmark shares: how it tells of its rows, rows about runs and ratios, the report as a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from cramdemo.catalogue import BUILT_IN
from cramdemo.config import MAX_NUM_MEM
from cramdemo.cram import CramResult
from cramdemo.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
BOOTSTRAP_DRAWS = 2000

Tell = Callable[[dict[str, Any]], object]


@dataclass(frozen=True)
class Asked:
    """What a benchmark is run on; each reads what it needs.

    Attributes:
        books: texts that passages are drawn from.
        passages: how many a row.
        models: names or folders.
        num_mem: K, one or several.
        out: folder where a long benchmark keeps what it has run, or None.

    Raises:
        ConfigError: no passages, or a K out of its range.
    """

    books: list[str]
    passages: int = 50
    models: tuple[str, ...] = (BUILT_IN,)
    num_mem: tuple[int, ...] = (1,)
    out: Path | None = None

    def __post_init__(self) -> None:
        if self.passages < 1:
            raise ConfigError(f"passages is {self.passages}; give a whole number from 1.")
        for num_mem in self.num_mem:
            if not 1 <= num_mem <= MAX_NUM_MEM:
                raise ConfigError(f"num_mem is {num_mem}; give whole numbers from 1 to {MAX_NUM_MEM}.")


@dataclass(frozen=True)
class Benchmark:
    """A benchmark: what it tells, and the function that makes its report.

    Attributes:
        help: one line for the command line.
        run: takes what is asked, and a function that is told of each row as it comes.
        reads_corpus: whether it draws passages from books.
    """

    help: str
    run: Callable[[Asked, Tell], dict[str, Any]]
    reads_corpus: bool = True


def noting(rows: list[dict[str, Any]], tell: Tell, about: dict[str, Any] | None = None) -> Tell:
    """What keeps each row in `rows`, with what it is about in front, and tells of it."""

    def note(row: dict[str, Any]) -> None:
        rows.append((about or {}) | row)
        tell(rows[-1])

    return note


def keep_quiet(row: dict[str, Any]) -> None:
    """Nobody watches."""


def holding_row(results: list[CramResult], name: str) -> dict[str, Any]:
    """How many runs were lossless, and the steps and seconds of those."""
    lossless = [result for result in results if result.lossless]
    return {
        "figure": f"{name}: lossless passages",
        "value": f"{len(lossless)} of {len(results)}",
        "share": len(lossless) / len(results),
        "most_steps": max((r.steps for r in lossless), default=None),
        "median_seconds": round(median(r.seconds for r in lossless), 2) if lossless else None,
        "median_steps": median(r.steps for r in lossless) if lossless else None,
    }


def ratio_row(name: str, numerator: Sequence[float], denominator: Sequence[float]) -> dict[str, Any]:
    """Ratio of two medians over the same texts, with a 95 % bootstrap interval; None where a median below is 0."""

    def ratio(chosen: Sequence[int]) -> float | None:
        below = median(denominator[i] for i in chosen)
        return round(median(numerator[i] for i in chosen) / below, 3) if below else None

    return {"figure": name, "value": ratio(range(len(numerator))), "interval": interval(ratio, len(numerator))}


def interval(statistic: Callable[[Sequence[int]], float | None], count: int) -> list[float] | None:
    """2.5 and 97.5 percent of a statistic of texts when they are drawn again with replacement.

    Args:
        statistic: of the texts with these numbers; None where it has no value, and then there is no interval.
        count: of texts.
    """
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randint(count, (BOOTSTRAP_DRAWS, count), generator=generator).tolist()
    draws = [statistic(numbers) for numbers in chosen]
    known = sorted(draw for draw in draws if draw is not None)
    if len(known) < len(draws):
        return None
    return [known[round(share * (len(known) - 1))] for share in (0.025, 0.975)]


def markdown(report: dict[str, Any]) -> str:
    """The report as a Markdown table."""
    rows = report["rows"]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [" | ".join(columns), " | ".join("---" for _ in columns)]
    lines += [" | ".join(str(row.get(key, "")) for key in columns) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)
