"""The sweep runs every setting once, at a length that tells them apart, and names the best."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from cramdemo.bench import Asked, tune
from cramdemo.config import CramConfig
from cramdemo.cram import CramResult
from cramdemo.models import FrozenLM

BOOK = "It was a bright cold day in the valley, and nobody came to the old mill by the river. " * 60

Judge = Callable[[int, int, CramConfig], int | None]  # passage number, tokens, settings -> steps to lossless, if so


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch, tiny_lm: FrozenLM) -> None:
    monkeypatch.setattr(tune, "load_model", lambda name: tiny_lm)
    monkeypatch.setattr(tune, "LENGTHS", (2, 4, 6, 8))


def _judged(monkeypatch: pytest.MonkeyPatch, real: CramResult, judge: Judge) -> list[tuple[int, CramConfig]]:
    """Runs are faked: `judge` says which are lossless. Returns the list of lengths and settings that gets filled."""
    ran: list[tuple[int, CramConfig]] = []
    failed = dataclasses.replace(real.verification, lossless=False, correct_prefix=0)

    def fake(lm: FrozenLM, text: str, config: CramConfig) -> CramResult:
        ran.append((len(lm.tokenize(text)), config))
        steps = judge(ran.count(ran[-1]) - 1, *ran[-1])
        if steps is None:
            return dataclasses.replace(real, verifications=[failed], steps=tune.TUNE_STEPS)
        return dataclasses.replace(real, steps=steps)

    monkeypatch.setattr(tune, "run_cram", fake)
    return ran


def _rows(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["figure"].removesuffix(": lossless passages"): row for row in report["rows"]}


def test_the_settings_are_the_defaults_and_one_change_each_from_random_vectors(tiny_lm: FrozenLM) -> None:
    first, *others = tune.configs(tiny_lm, 2)
    defaults = {"num_mem": 2, "steps": tune.TUNE_STEPS, "init": "embedding"}
    assert first == CramConfig.for_model(tiny_lm, **defaults)
    changes = []
    for config in others:
        (pair,) = set(tune.settings_of(config)) - set(tune.settings_of(first))
        assert dataclasses.replace(first, **dict([pair])) == config  # nothing else differs
        changes.append(pair)
    assert tiny_lm.defaults.learning_rate == 0.1
    assert changes == [
        ("learning_rate", pytest.approx(0.03)),
        ("learning_rate", pytest.approx(0.3)),
        ("temperature", 0.5),
        ("temperature", 0.25),
        ("growth", 0),  # 16 is this model's default
        ("boost", 0.0),  # 0.02 is the default
        ("boost", 0.05),
        ("margin", 0.5),
        ("margin", 2.0),
        ("optimizer", "whitened"),  # this model's default is Adam
    ]


@pytest.mark.usefixtures("_short")
def test_the_length_is_the_one_that_the_defaults_solve_about_half_of(
    monkeypatch: pytest.MonkeyPatch, crammed: CramResult
) -> None:
    limits = (3, 5, 7, 9)  # tokens that each passage is solved up to
    ran = _judged(monkeypatch, crammed, lambda number, tokens, config: 10 if tokens <= limits[number] else None)
    rows = _rows(tune.bench_tune(Asked([BOOK], 4, ("tiny",), (1,))))
    assert rows["tiny, K = 1, 2 tokens, looking for a length"]["value"] == "4 of 4"
    assert rows["tiny, K = 1, 4 tokens, looking for a length"]["value"] == "3 of 4"
    assert rows["tiny, K = 1, 6 tokens, looking for a length"]["value"] == "2 of 4"
    assert rows["tiny, K = 1, 6 tokens, defaults"]["value"] == "2 of 4"
    assert {tokens for tokens, config in ran if config.margin == 2.0} == {6}
    assert len(ran) == 4 * (3 + 10)  # the defaults are not run again, nor what comes to the same


@pytest.mark.usefixtures("_short")
def test_a_length_that_overshoots_far_is_not_taken(monkeypatch: pytest.MonkeyPatch, crammed: CramResult) -> None:
    limits = (5, 5, 3, 5, 3)  # 100 %, 60 %, 0 %
    _judged(monkeypatch, crammed, lambda number, tokens, config: 10 if tokens <= limits[number] else None)
    assert "tiny, K = 1, 4 tokens, defaults" in _rows(tune.bench_tune(Asked([BOOK], 5, ("tiny",), (1,))))


@pytest.mark.usefixtures("_short")
def test_where_the_defaults_solve_nothing_a_row_says_so_and_the_sweep_is_run(
    monkeypatch: pytest.MonkeyPatch, crammed: CramResult
) -> None:
    _judged(monkeypatch, crammed, lambda number, tokens, config: 30 if config.temperature == 0.25 else None)
    report = tune.bench_tune(Asked([BOOK], 2, ("tiny",), (2,)))
    rows = _rows(report)
    assert rows["tiny, K = 2: shortest passages"]["value"].startswith("none lossless with the defaults")
    assert rows["tiny, K = 2, 4 tokens, temperature=0.25"]["value"] == "2 of 2"
    assert rows["tiny, K = 2, 4 tokens, defaults"]["median_steps"] is None
    assert (
        report["rows"][-1]["value"]
        == "optimizer=adam, learning_rate=0.1, temperature=0.25, boost=0.02, growth=16, margin=1"
    )


@pytest.mark.usefixtures("_short")
def test_the_winner_has_most_lossless_passages_over_all_k_and_then_fewest_steps(
    monkeypatch: pytest.MonkeyPatch, crammed: CramResult
) -> None:
    def judge(number: int, tokens: int, config: CramConfig) -> int | None:
        if config.growth == 0:
            return 1 if number == 0 else None  # quick, where it gets there
        if config.temperature == 0.5:
            return 40 if number < 2 else None
        if config.margin == 0.5:
            return 20 if number < (3 if config.num_mem == 1 else 1) else None  # as many, in fewer steps
        return 30 if number == 0 else None

    _judged(monkeypatch, crammed, judge)
    told: list[dict[str, Any]] = []
    report = tune.bench_tune(Asked([BOOK], 3, ("tiny",), (1, 2)), told.append)
    assert report["rows"] == told
    assert told[-1] == {
        "figure": "tiny: best settings",
        "value": "optimizer=adam, learning_rate=0.1, temperature=1, boost=0.02, growth=16, margin=0.5",
        "lossless": "4 of 6",
        "median_steps": 20,
    }


@pytest.mark.usefixtures("_short")
def test_real_runs_fill_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "LENGTHS", (1,))
    monkeypatch.setattr(tune, "TUNE_STEPS", 100)
    monkeypatch.setattr(tune, "GRID", ({}, {tune.TIMES_DEFAULT: 1e-5}))
    report = tune.bench_tune(Asked([BOOK], 2, ("tiny",), (4,)))
    rows = _rows(report)
    held, still = rows["tiny, K = 4, 4 tokens, defaults"], rows["tiny, K = 4, 4 tokens, learning_rate=1e-06"]
    assert held["value"] == "2 of 2"
    assert 0 < held["median_steps"] <= 100
    assert held["median_accuracy"] == 1
    assert still["value"] == "0 of 2"
    assert still["median_accuracy"] < 0.5
    assert report["rows"][-1]["value"].startswith("optimizer=adam, learning_rate=0.1, ")
