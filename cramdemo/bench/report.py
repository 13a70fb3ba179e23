"""What every benchmark shares: how it tells of its rows, a row about runs, the report as a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from cramdemo.cram import CramResult
from cramdemo.models import BUILT_IN

ROOT = Path(__file__).resolve().parents[2]

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
    """

    books: list[str]
    passages: int = 50
    models: tuple[str, ...] = (BUILT_IN,)
    num_mem: tuple[int, ...] = (1,)
    out: Path | None = None


@dataclass(frozen=True)
class Benchmark:
    """A benchmark: what it tells, and the function that makes its report.

    `run` takes what is asked, and a function that is told of each row as it comes.
    """

    help: str
    run: Callable[[Asked, Tell], dict[str, Any]]


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


def markdown(report: dict[str, Any]) -> str:
    """The report as a Markdown table."""
    rows = report["rows"]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [" | ".join(columns), " | ".join("---" for _ in columns)]
    lines += [" | ".join(str(row.get(key, "")) for key in columns) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)
