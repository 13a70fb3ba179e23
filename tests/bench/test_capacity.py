"""Equal FLOPs for every recipe, verified horizons, and a benchmark that goes on where it was stopped."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from cramdemo.bench import Asked, capacity
from cramdemo.bench.capacity import Column, Comparison, Ledger, Outcome
from cramdemo.bench.recipes import CRAMMING, PROGRESSIVE
from cramdemo.flops import FlopCount
from cramdemo.models import FrozenLM

BOOK = "It was a bright cold day in the valley, and nobody came to the old mill by the river. " * 60


def _texts(lm: FrozenLM, count: int, num_tokens: int) -> list[list[int]]:
    drawn = torch.randint(lm.vocab_size, (count, num_tokens), generator=torch.Generator().manual_seed(2))
    return [[int(token) for token in row] for row in drawn]


def _outcome(num_tokens: int, horizon: int, **changes: Any) -> Outcome:
    known = {"accuracy": horizon / num_tokens, "gain_bits": 1.0, "steps": 3, "flops": 5}
    return Outcome(num_tokens=num_tokens, horizon=horizon, **(known | changes))


def _holding(*limits: int, grows: bool = False) -> tuple[Column, list[int]]:
    """A column that holds as many tokens of each text as `limits` say, and the lengths it was run at."""
    lengths: list[int] = []

    def run(lm: FrozenLM, texts: list[list[int]], num_mem: int, max_flops: int) -> list[Outcome]:
        lengths.append(len(texts[0]))
        return [_outcome(len(text), min(len(text), limit)) for text, limit in zip(texts, limits, strict=True)]

    return Column("fake", run, grows), lengths


def _comparison(lm: FrozenLM, texts: list[list[int]], folder: Path | None = None) -> Comparison:
    return Comparison(lm, texts, 1, Ledger(folder, "test"), lambda row: None)


def test_the_budget_is_the_paper_s_full_number_of_steps(tiny_lm: FrozenLM) -> None:
    assert capacity.budget(tiny_lm, 10, 2) == 5000 * FlopCount.of(tiny_lm.model).step(12, 12)


@pytest.mark.parametrize("init", ["embedding"])
def test_no_column_spends_more_than_it_is_given(tiny_lm: FrozenLM, init: str) -> None:
    texts = _texts(tiny_lm, 2, 24)
    limit = 20 * tiny_lm.flops.step(25, 25)
    for column in (capacity.published(CRAMMING), capacity.published(PROGRESSIVE), capacity.ours("ours", init)):
        for outcome in column.run(tiny_lm, texts, 1, limit):
            assert 0.5 * limit < outcome.flops <= limit
            assert outcome.num_tokens == 24


def test_our_encoder_counts_within_the_budget(built_in: FrozenLM) -> None:
    ids = built_in.tokenize("It was a bright cold day in the valley, and nobody came.")
    limit = 12 * built_in.flops.step(1 + len(ids), len(ids))
    (outcome,) = capacity.ours("ours", "encoder").run(built_in, [ids], 1, limit)
    assert built_in.encode_flops(len(ids), 1) < outcome.flops <= limit


def test_what_a_column_reports_is_decoded(tiny_lm: FrozenLM) -> None:
    texts = _texts(tiny_lm, 2, 3)
    quick = dataclasses.replace(CRAMMING, learning_rate=0.1, steps=800)
    for outcome, ids in zip(capacity.published(quick).run(tiny_lm, texts, 2, 10**15), texts, strict=True):
        assert outcome.lossless == (outcome.horizon == len(ids))
        assert outcome.horizon <= outcome.accuracy * 3 + 1e-6


def test_lengths_grow_until_nothing_is_held_any_more(tiny_lm: FrozenLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "LENGTHS", (2, 4, 6, 8, 10, 12))
    column, lengths = _holding(5, 3)
    by_length = _comparison(tiny_lm, _texts(tiny_lm, 2, 12)).by_length(column)
    assert lengths == [2, 4, 6, 8]  # two lengths without a lossless text
    assert capacity.horizons(by_length) == [5, 3]
    assert capacity.decoding_capacity(by_length) == 2


def test_a_recipe_that_grows_its_prefix_is_run_once(tiny_lm: FrozenLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "LENGTHS", (2, 4, 6))
    column, lengths = _holding(5, 3, grows=True)
    by_length = _comparison(tiny_lm, _texts(tiny_lm, 2, 6)).by_length(column)
    assert lengths == [6]
    assert capacity.horizons(by_length) == [5, 3]


def test_what_was_run_is_not_run_again(tiny_lm: FrozenLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "LENGTHS", (2, 4))
    texts = _texts(tiny_lm, 1, 4)
    column, lengths = _holding(4)
    first = _comparison(tiny_lm, texts, tmp_path / "out").by_length(column)
    again = _comparison(tiny_lm, texts, tmp_path / "out").by_length(column)
    assert lengths == [2, 4]
    assert first == again
    Comparison(tiny_lm, texts, 1, Ledger(tmp_path / "out", "another model"), lambda row: None).by_length(column)
    assert lengths == [2, 4, 2, 4]


def test_the_best_setting_is_the_one_that_holds_most(tiny_lm: FrozenLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "LENGTHS", (2, 4, 6))
    reach = {0.01: 2, 0.1: 6, 1.0: 4}
    monkeypatch.setattr(capacity, "published", lambda recipe, name="": _holding(reach[recipe.learning_rate])[0])
    rates = [dataclasses.replace(CRAMMING, learning_rate=rate) for rate in reach]
    sweep = _comparison(tiny_lm, _texts(tiny_lm, 1, 6))
    monkeypatch.setattr(Ledger, "get", lambda self, column, length, run: run())
    assert capacity.best(sweep, rates).learning_rate == 0.1


def test_a_ratio_has_an_interval_around_it_and_none_where_nothing_was_held() -> None:
    row = capacity.ratio_row("a over b", [20, 22, 24, 26] * 5, [10, 11, 12, 13] * 5)
    low, high = row["interval"]
    assert row["value"] == 2.0
    assert 1.5 < low <= 2 <= high < 2.7
    nothing = capacity.ratio_row("a over b", [1, 2, 3], [0, 0, 0])
    assert (nothing["value"], nothing["interval"]) == (None, None)


def test_the_report_has_every_column_and_the_ratios(
    tiny_lm: FrozenLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity, "load_model", lambda name: tiny_lm)
    monkeypatch.setattr(capacity, "LENGTHS", (1, 2))
    monkeypatch.setattr(capacity, "SWEEP_PASSAGES", 1)
    monkeypatch.setattr(capacity, "CRAMMING", dataclasses.replace(CRAMMING, steps=40, learning_rate=0.1))
    monkeypatch.setattr(capacity, "PROGRESSIVE", dataclasses.replace(PROGRESSIVE, steps=40, warmup_steps=0))
    report = capacity.bench_capacity(Asked([BOOK], 2, ("tiny",), (4,), tmp_path))
    figures = {row["figure"]: row for row in report["rows"]}
    held = [f for f in figures if f.endswith("verified tokens, median")]
    assert len(held) == 5
    ratios = [row for figure, row in figures.items() if figure.startswith("ours over ")]
    assert len(ratios) == 4
    assert 4 <= figures["ours: verified tokens, median"]["value"] <= 8
    assert {row["model"] for row in report["rows"]} == {"tiny"}
    assert "mill" not in (tmp_path / "capacity.jsonl").read_text()
