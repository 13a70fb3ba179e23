"""What the published recipes and ours reached, and a file that keeps it, so that hours of runs can be gone on with.

The file holds figures and digests, no text. It cannot tell whether the program itself has changed since: give
another folder then.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """What one recipe reached on one text of N tokens.

    Attributes:
        num_tokens: N.
        accuracy: teacher-forced, over all N tokens.
        horizon: leading tokens that greedy decoding gives exactly.
        gain_bits: information gain over tokens 1..N-1.
        steps, flops: spent.
        passes_at: of a published recipe, the passes at each prefix length (`recipes.Found`).
    """

    num_tokens: int
    accuracy: float
    horizon: int
    gain_bits: float
    steps: int
    flops: int
    passes_at: dict[int, int] = field(default_factory=dict)

    @property
    def lossless(self) -> bool:
        """All N tokens decode."""
        return self.horizon == self.num_tokens


class Ledger:
    """Outcomes by what was run, kept in a file if there is a folder for it."""

    def __init__(self, folder: Path | None) -> None:
        """Makes the folder, so that one that cannot be written to is refused before the first run."""
        self._path = folder / "capacity.jsonl" if folder else None
        self._known: dict[str, list[Outcome]] = {}
        if self._path:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.touch()
            for line in self._path.read_text(encoding="utf-8").splitlines():
                self._take(line)

    def get(self, key: str, run: Callable[[], list[Outcome]]) -> list[Outcome]:
        """What is known, or else what `run` gives, which is known from then on.

        Args:
            key: all that the outcomes depend on: model, K, texts, settings, FLOPs.
        """
        if key not in self._known:
            self._known[key] = run()
            if self._path:
                values = [dataclasses.asdict(outcome) for outcome in self._known[key]]
                with self._path.open("a", encoding="utf-8") as file:  # the line before may have been cut off
                    file.write("\n" + json.dumps({"key": key, "outcomes": values}))
        return self._known[key]

    def _take(self, line: str) -> None:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:  # the line that was being written when the run was stopped
            return
        self._known[entry["key"]] = [_outcome(values) for values in entry["outcomes"]]


def _outcome(values: dict[str, Any]) -> Outcome:
    passes = {int(length): count for length, count in values.get("passes_at", {}).items()}  # JSON has no whole keys
    return Outcome(**(values | {"passes_at": passes}))
