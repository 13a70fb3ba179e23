"""The sweep behind the settings that a model has by default: one setting changed at a time, from random vectors.

It is run on passages of a length that the defaults solve about half of, so that better and worse both show.
"""

from __future__ import annotations

from statistics import median
from typing import Any

from cramdemo.bench.report import Asked, Tell, holding_row, keep_quiet, noting
from cramdemo.config import CramConfig
from cramdemo.cram import CramResult, run_cram
from cramdemo.models import FrozenLM, load_model
from cramdemo.passages import draw_passages

TUNE_STEPS = 400
LENGTHS = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)  # tokens a vector
ENOUGH_LOSSLESS = 0.6  # a length is long enough when a smaller share of its passages is solved
WANTED_LOSSLESS = 0.5
TIMES_DEFAULT = "learning_rate_times"  # the only change that is not a setting's value
GRID: tuple[dict[str, Any], ...] = (
    {},
    {TIMES_DEFAULT: 0.3},
    {TIMES_DEFAULT: 1.0},
    {TIMES_DEFAULT: 3.0},
    {"temperature": 0.5},
    {"temperature": 0.25},
    {"growth": 0},
    {"growth": 16},
    {"boost": 0.0},
    {"boost": 0.02},
    {"boost": 0.05},
    {"margin": 0.5},
    {"margin": 2.0},
    {"optimizer": "adam"},
    {"optimizer": "whitened"},
)
TUNED = ("optimizer", "learning_rate", "temperature", "boost", "growth", "margin")

Settings = tuple[tuple[str, Any], ...]  # name and value of each in TUNED


def bench_tune(asked: Asked, tell: Tell = keep_quiet) -> dict[str, Any]:
    """Passages solved within `TUNE_STEPS` under each setting, for each model and K, and the best settings of a model.

    Raises:
        TextError: the books are too short.
        ModelError: there is no such model.
    """
    rows: list[dict[str, Any]] = []
    note = noting(rows, tell)
    for name in asked.models:
        lm = load_model(name)
        results: dict[Settings, list[CramResult]] = {}
        for num_mem in asked.num_mem:
            for settings, found in Sweep(lm, num_mem, asked, note).run().items():
                results.setdefault(settings, []).extend(found)
        note(winner_row(lm.name, results))
    return {"benchmark": "tune", "models": list(asked.models), "passages": asked.passages, "rows": rows}


class Sweep:
    """All settings of the grid on one model and K, with a row for each."""

    def __init__(self, lm: FrozenLM, num_mem: int, asked: Asked, note: Tell) -> None:
        self.lm, self.num_mem, self.asked, self.note = lm, num_mem, asked, note

    def run(self) -> dict[Settings, list[CramResult]]:
        """Results by settings; those that come to the same are run once."""
        length, defaults = self.half_solved_length()
        results: dict[Settings, list[CramResult]] = {}
        for config in configs(self.lm, self.num_mem):
            found = self._results(config, length) if results else defaults
            results[settings_of(config)] = found
            changes = _changes(settings_of(config), next(iter(results)))
            self.note(self._row(found, f"{length} tokens, {changes}"))
        return results

    def half_solved_length(self) -> tuple[int, list[CramResult]]:
        """The length whose share of solved passages comes nearest to half under the defaults, and its results."""
        config = next(iter(configs(self.lm, self.num_mem)))
        tried: dict[int, list[CramResult]] = {}
        for length in self._lengths():
            tried[length] = self._results(config, length)
            self.note(self._row(tried[length], f"{length} tokens, looking for a length"))
            if _share(tried[length]) < ENOUGH_LOSSLESS:
                break
        if not any(result.lossless for results in tried.values() for result in results):
            figure = f"{self.lm.name}, K = {self.num_mem}: shortest passages"
            self.note(
                {"figure": figure, "value": "none lossless with the defaults; the sweep is run on them all the same"}
            )
        best = min(tried, key=lambda length: (abs(_share(tried[length]) - WANTED_LOSSLESS), -length))
        return best, tried[best]

    def _lengths(self) -> list[int]:
        """Those that fit the model, in tokens; where none does, all that fits."""
        most = self.lm.max_tokens(self.num_mem)
        return [a_vector * self.num_mem for a_vector in LENGTHS if a_vector * self.num_mem <= most] or [most]

    def _results(self, config: CramConfig, length: int) -> list[CramResult]:
        passages = draw_passages(self.lm, self.asked.books, self.asked.passages, length)
        return [run_cram(self.lm, text, config) for text in passages]

    def _row(self, results: list[CramResult], name: str) -> dict[str, Any]:
        accuracy = round(median(result.accuracy for result in results), 4)
        return holding_row(results, f"{self.lm.name}, K = {self.num_mem}, {name}") | {"median_accuracy": accuracy}


def configs(lm: FrozenLM, num_mem: int) -> list[CramConfig]:
    """The grid's settings in its order, each once."""
    found = []
    for changes in GRID:
        given = dict(changes)
        if TIMES_DEFAULT in given:
            given["learning_rate"] = lm.defaults.learning_rate * given.pop(TIMES_DEFAULT)
        found.append(CramConfig.for_model(lm, num_mem=num_mem, steps=TUNE_STEPS, init="embedding", **given))
    return list(dict.fromkeys(found))


def settings_of(config: CramConfig) -> Settings:
    """The settings that are tuned."""
    return tuple((name, getattr(config, name)) for name in TUNED)


def winner_row(name: str, results: dict[Settings, list[CramResult]]) -> dict[str, Any]:
    """The settings with most lossless passages over all K, then fewest median steps; the first of equals."""
    best = min(results, key=lambda settings: (-_lossless(results[settings]), _median_steps(results[settings])))
    found = results[best]
    return {
        "figure": f"{name}: best settings",
        "value": _words(best),
        "lossless": f"{_lossless(found)} of {len(found)}",
        "median_steps": _median_steps(found) if _lossless(found) else None,
    }


def _lossless(results: list[CramResult]) -> int:
    return sum(result.lossless for result in results)


def _share(results: list[CramResult]) -> float:
    return _lossless(results) / len(results)


def _median_steps(results: list[CramResult]) -> float:
    """Of the lossless ones."""
    return median([result.steps for result in results if result.lossless] or [TUNE_STEPS])


def _changes(settings: Settings, defaults: Settings) -> str:
    return _words(tuple(pair for pair in settings if pair not in defaults)) or "defaults"


def _words(settings: Settings) -> str:
    return ", ".join(f"{name}={value}" if isinstance(value, str) else f"{name}={value:g}" for name, value in settings)
