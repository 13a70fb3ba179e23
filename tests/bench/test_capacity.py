"""Equal FLOPs for every recipe, verified horizons, few lengths run, and outcomes known by all they depend on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch

from cramdemo import ConfigError, CramConfig, ModelError, TextError
from cramdemo.bench import Asked, capacity
from cramdemo.bench.capacity import Column, Comparison, last_held
from cramdemo.bench.ledger import Ledger, Outcome
from cramdemo.bench.proof import Proof
from cramdemo.bench.recipes import CRAMMING, PROGRESSIVE, Recipe
from cramdemo.flops import FlopCount
from cramdemo.models import FrozenLM

BOOK = "It was a bright cold day in the valley, and nobody came to the old mill by the river. " * 60


def _texts(lm: FrozenLM, count: int, num_tokens: int, seed: int = 2) -> list[list[int]]:
    drawn = torch.randint(lm.vocab_size, (count, num_tokens), generator=torch.Generator().manual_seed(seed))
    return [[int(token) for token in row] for row in drawn]


def _outcome(num_tokens: int, horizon: int, **changes: Any) -> Outcome:
    known = {"accuracy": horizon / num_tokens, "gain_bits": 1.0, "steps": 3, "flops": 5}
    return Outcome(num_tokens=num_tokens, horizon=horizon, **(known | changes))


def _holding(*limits: int, grows: bool = False, accuracy: float | None = None) -> tuple[Column, list[int]]:
    """A column that holds as many tokens of each text as `limits` say, and the lengths it was run at."""
    lengths: list[int] = []

    def run(lm: FrozenLM, texts: list[list[int]], num_mem: int, max_flops: int) -> list[Outcome]:
        lengths.append(len(texts[0]))
        given = {} if accuracy is None else {"accuracy": accuracy}
        return [_outcome(len(text), min(len(text), limit), **given) for text, limit in zip(texts, limits, strict=True)]

    return Column("fake", "settings", run, grows), lengths


def _comparison(lm: FrozenLM, texts: list[list[int]], folder: Path | None = None) -> Comparison:
    return Comparison(lm, texts, 1, Ledger(folder), lambda row: None)


def _config(lm: FrozenLM, init: str = "embedding") -> CramConfig:
    return CramConfig.for_model(lm, init=init)


def _in_bfloat16(lm: FrozenLM) -> FrozenLM:
    """The same model as if its steps ran in bfloat16."""
    return FrozenLM("tiny", lm.model, lm.tokenizer, fingerprint=lm.fingerprint, step_dtype=torch.bfloat16)


def test_the_budget_is_the_paper_s_full_number_of_steps(tiny_lm: FrozenLM) -> None:
    assert capacity.budget(tiny_lm, 10, 2) == 5000 * FlopCount.of(tiny_lm.model).step(12, 12)


def test_no_column_spends_more_than_it_is_given(tiny_lm: FrozenLM) -> None:
    texts = _texts(tiny_lm, 2, 24)
    limit = 20 * tiny_lm.flops.step(25, 25)
    ours = capacity.ours("ours", _config(tiny_lm))
    for column in (capacity.published(CRAMMING), capacity.published(PROGRESSIVE), ours):
        for outcome in column.run(tiny_lm, texts, 1, limit):
            assert 0.5 * limit < outcome.flops <= limit
            assert outcome.num_tokens == 24


def test_our_encoder_counts_within_the_budget(built_in: FrozenLM) -> None:
    ids = built_in.tokenize("It was a bright cold day in the valley, and nobody came.")
    limit = 12 * built_in.flops.step(1 + len(ids), len(ids))
    (outcome,) = capacity.ours("ours", _config(built_in, "encoder")).run(built_in, [ids], 1, limit)
    assert built_in.encode_flops(len(ids), 1) < outcome.flops <= limit


def test_what_a_column_reports_is_decoded(tiny_lm: FrozenLM) -> None:
    texts = _texts(tiny_lm, 2, 3)
    quick = dataclasses.replace(CRAMMING, learning_rate=0.1, steps=800)
    for outcome, ids in zip(capacity.published(quick).run(tiny_lm, texts, 2, 10**15), texts, strict=True):
        assert outcome.lossless == (outcome.horizon == len(ids))
        assert outcome.horizon <= outcome.accuracy * 3 + 1e-6
        assert sum(n * tiny_lm.flops.step(2 + k, 2 + k) for k, n in outcome.passes_at.items()) == outcome.flops


def test_published_recipes_run_in_the_dtype_of_our_steps(tiny_lm: FrozenLM, monkeypatch: pytest.MonkeyPatch) -> None:
    dtypes = []
    real = capacity.run_recipe
    monkeypatch.setattr(
        capacity, "run_recipe", lambda lm, *given, **named: dtypes.append(lm.dtype) or real(lm, *given, **named)
    )
    column = capacity.published(dataclasses.replace(CRAMMING, steps=2))
    column.run(_in_bfloat16(tiny_lm), _texts(tiny_lm, 1, 3), 1, 10**15)
    column.run(tiny_lm, _texts(tiny_lm, 1, 3), 1, 10**15)
    assert dtypes == [torch.bfloat16, torch.float32]


@pytest.mark.parametrize("kinder", [torch.bfloat16, torch.float32])
def test_the_dtype_that_is_kinder_to_the_vectors_counts(
    tiny_lm: FrozenLM, kinder: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity, "greedy_prefix", lambda lm, mem, ids: (3 if lm.dtype == kinder else 1, 0.0))
    lm, texts = _in_bfloat16(tiny_lm), _texts(tiny_lm, 1, 3)
    for column in (
        capacity.published(dataclasses.replace(CRAMMING, steps=2)),
        capacity.ours("ours", dataclasses.replace(_config(lm), steps=2)),
    ):
        assert [outcome.horizon for outcome in column.run(lm, texts, 1, 10**15)] == [3]


COUNT = len(capacity.LENGTHS)


def _asked(limit: int, start: int) -> tuple[int | None, list[int]]:
    """What `last_held` finds where the numbers before `limit` hold, and what it asks for."""
    asked: list[int] = []
    return last_held(lambda number: asked.append(number) or number < limit, COUNT, start), asked


@pytest.mark.parametrize("limit", range(COUNT + 1))
def test_the_search_finds_the_last_that_holds_and_has_asked_for_the_next(limit: int) -> None:
    for start in range(COUNT):
        found, asked = _asked(limit, start)
        assert found == (limit - 1 if limit else None)
        assert {limit - 1, limit} & set(range(COUNT)) <= set(asked)
        assert len(asked) == len(set(asked)) <= 13
        if abs(limit - 1 - start) <= 2:
            assert len(asked) <= 4
        if start < limit:
            assert max(asked) < limit + capacity.LONGEST_LEAP  # each failing text costs its whole budget


def test_half_of_the_texts_must_be_lossless(tiny_lm: FrozenLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "LENGTHS", (2, 4, 6, 8, 10, 12))
    column, lengths = _holding(9, 9, 3, 1)
    by_length = _comparison(tiny_lm, _texts(tiny_lm, 4, 12)).by_length(column, 7)
    assert capacity.longest_held(by_length) == 8
    assert lengths[:3] == [6, 8, 12]  # from the longest that is no longer than 7
    assert {8, 10} <= set(lengths)
    assert [outcomes[0].num_tokens for outcomes in by_length] == sorted(lengths)
    assert capacity.horizons(by_length) == [9, 9, 3, 1]


def test_the_paper_s_capacity_has_the_length_above_it_run(tiny_lm: FrozenLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the texts are lossless up to 10 tokens, but accuracy falls below 0.99 much sooner."""
    monkeypatch.setattr(capacity, "LENGTHS", (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12))
    column, lengths = _holding(10, 3)
    by_length = _comparison(tiny_lm, _texts(tiny_lm, 2, 12)).by_length(column, 9)
    assert capacity.longest_held(by_length) == 10
    assert capacity.decoding_capacity(by_length) == 3
    assert {3, 4, 10, 11} <= set(lengths)
    assert len(lengths) == len(set(lengths))


def test_a_recipe_that_grows_its_prefix_is_run_once(tiny_lm: FrozenLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "LENGTHS", (2, 4, 6, 8, 10, 12, 20))
    column, lengths = _holding(9, 3, grows=True)
    by_length = _comparison(tiny_lm, _texts(tiny_lm, 2, 20)).by_length(column, 9)
    assert lengths == [10]
    assert capacity.horizons(by_length) == [9, 3]
    half, lengths = _holding(9, 3, grows=True)
    _comparison(tiny_lm, _texts(tiny_lm, 2, 20)).by_length(half, 8)
    assert lengths == [8]


def test_it_is_run_longer_where_more_than_half_come_to_the_end(
    tiny_lm: FrozenLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where they end under teacher forcing only: nothing was left to be absorbed."""
    monkeypatch.setattr(capacity, "LENGTHS", (2, 4, 6, 8, 10, 12, 20))
    for column, lengths in (_holding(9, 9, grows=True), _holding(1, 1, grows=True, accuracy=1.0)):
        _comparison(tiny_lm, _texts(tiny_lm, 2, 20)).by_length(column, 3)
        assert lengths[:2] == [4, 8]
        assert lengths[-1] == 20


def test_outcomes_are_known_by_all_that_they_depend_on(
    tiny_lm: FrozenLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity, "LENGTHS", (2, 4))
    texts = _texts(tiny_lm, 2, 4)
    column, lengths = _holding(4, 4)

    def comparison(**changes: Any) -> Comparison:
        return dataclasses.replace(_comparison(tiny_lm, texts, tmp_path), **changes)

    first = comparison().at(column, 4)
    assert comparison().at(column, 4) == first
    assert comparison().at(dataclasses.replace(column, name="other"), 4) == first  # a name decides nothing
    assert lengths == [4]
    other_texts = [texts[0], [*texts[1][:3], (texts[1][3] + 1) % tiny_lm.vocab_size]]
    for run in (
        lambda: comparison().at(column, 2),
        lambda: comparison().at(column, 4, share=0.5),
        lambda: comparison().at(dataclasses.replace(column, settings="others"), 4),
        lambda: comparison(texts=other_texts).at(column, 4),
        lambda: comparison(num_mem=2).at(column, 4),
        lambda: comparison(lm=_in_bfloat16(tiny_lm)).at(column, 4),
        lambda: comparison(lm=FrozenLM("tiny", tiny_lm.model, tiny_lm.tokenizer, fingerprint="x")).at(column, 4),
    ):
        lengths.clear()
        run()
        assert len(lengths) == 1


def test_a_column_s_settings_tell_recipes_and_configs_apart(tiny_lm: FrozenLM) -> None:
    faster = dataclasses.replace(CRAMMING, learning_rate=0.1)
    assert capacity.published(CRAMMING, "a").settings == capacity.published(CRAMMING, "b").settings
    assert capacity.published(CRAMMING).settings != capacity.published(faster).settings
    config = _config(tiny_lm)
    for changes in ({"margin": 0.5}, {"init": "auto"}, {"steps": 7}, {"learning_rate": 0.3}):
        assert capacity.ours("ours", config).settings != capacity.ours("ours", config.__class__(**changes)).settings
    assert (
        f"learning_rate={tiny_lm.defaults.learning_rate}" in capacity.ours("ours", config).settings
    )  # the model's own


def _reaching(
    reached: Callable[[Recipe], tuple[int, float, int]], monkeypatch: pytest.MonkeyPatch
) -> list[tuple[int, int]]:
    """Published columns are faked: horizon, accuracy and FLOPs by recipe. Returns lengths and limits of each run."""
    given = []

    def run_of(recipe: Recipe) -> Callable[..., list[Outcome]]:
        def run(lm: FrozenLM, texts: list[list[int]], num_mem: int, max_flops: int) -> list[Outcome]:
            given.append((len(texts[0]), max_flops))
            horizon, accuracy, flops = reached(recipe)
            return [_outcome(len(text), horizon, accuracy=accuracy, flops=flops) for text in texts]

        return run

    monkeypatch.setattr(
        capacity, "published", lambda recipe, name="": Column(name, repr(recipe), run_of(recipe), bool(recipe.growth))
    )
    return given


def test_the_best_setting_holds_most_at_one_length_and_a_quarter_of_the_budget(
    tiny_lm: FrozenLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity, "LENGTHS", (2, 4, 6, 8))
    reach = {0.01: (2, 0.9, 5), 0.03: (4, 0.7, 5), 0.1: (4, 0.8, 7), 0.3: (4, 0.8, 6), 1.0: (4, 0.8, 6)}
    given = _reaching(lambda recipe: reach[recipe.learning_rate], monkeypatch)
    sweep = _comparison(tiny_lm, _texts(tiny_lm, 1, 8))
    rates = [{"learning_rate": rate} for rate in reach]
    assert capacity.best(sweep, CRAMMING, rates, 6.9).learning_rate == 0.3  # tokens, accuracy, FLOPs, first
    assert given == [(6, capacity.budget(tiny_lm, 6, 1) // 4)] * 5


def test_a_column_that_holds_nothing_is_a_row_that_says_so(tiny_lm: FrozenLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "LENGTHS", (2, 4, 6, 8))
    monkeypatch.setattr(capacity, "ours", lambda name, config, proof: dataclasses.replace(_holding(3, 8)[0], name=name))
    _reaching(lambda recipe: (0, 0.0, 5), monkeypatch)
    rows: list[dict[str, Any]] = []
    texts = _texts(tiny_lm, 2, 8)
    ledger = Ledger(None)
    with Proof() as proof:
        sweep = Comparison(tiny_lm, texts, 1, ledger, print)
        capacity._compare(Comparison(tiny_lm, texts, 1, ledger, rows.append), sweep, proof)
    figures = {row["figure"]: row["value"] for row in rows}
    nothing = "verified tokens, median (not one token of one text, not even of texts of 2)"
    assert figures[f"cramming, as published: {nothing}"] == 0
    assert figures[f"progressive, as published: {nothing}"] == 0
    assert figures["ours over cramming, as published: verified tokens"] is None
    assert figures["the duel"].startswith("none:")


def test_the_duel_is_fought_at_the_paper_s_capacity_and_where_half_are_lossless(
    tiny_lm: FrozenLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    fought: list[Any] = []
    monkeypatch.setattr(capacity, "duel", lambda *given: fought.append(given) or [{"figure": "a duel"}])
    texts, (slow, lengths) = _texts(tiny_lm, 2, 8), _holding(8, 8)
    as_published = [
        [_outcome(2, 2), _outcome(2, 2)],
        [_outcome(4, 4), _outcome(4, 2)],  # half of them, at an accuracy of 0.75
        [_outcome(8, 4), _outcome(8, 2)],
    ]
    told: list[dict[str, Any]] = []
    comparison = dataclasses.replace(_comparison(tiny_lm, texts), tell=told.append)
    with Proof() as proof:
        capacity._duel(comparison, as_published, slow, PROGRESSIVE, proof)
    assert [len(prefix) for _, prefixes, *_ in fought for prefix in prefixes] == [2, 2, 4, 4] and lengths == [2, 4]
    assert [rival.outcomes[0].num_tokens for *_, rivals, _ in fought for rival in rivals] == [2, 2, 4, 4]
    assert [rivals[0].outcomes for *_, rivals, _ in fought] == as_published[:2]
    assert told.count({"figure": "a duel"}) == 2


def test_a_row_of_what_is_held_has_the_interval_of_its_median() -> None:
    held = [10, 12, 14, 16, 18] * 4
    row = capacity.horizon_row("a", held, 12, 2)
    low, high = row["interval"]
    assert (row["figure"], row["value"], row["column"]) == ("a: verified tokens, median", median(held), "a")
    assert 10 < low < 14 < high < 18


@pytest.mark.usefixtures("in_this_process")
def test_the_report_has_every_column_the_ratios_and_the_duel(
    tiny_lm: FrozenLM, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity, "load_model", lambda name: tiny_lm)
    monkeypatch.setattr(capacity, "LENGTHS", (1, 2))
    monkeypatch.setattr(capacity, "SWEEP_PASSAGES", 1)
    monkeypatch.setattr(capacity, "CRAMMING", dataclasses.replace(CRAMMING, steps=400, learning_rate=0.1))
    quick = dataclasses.replace(PROGRESSIVE, steps=40, warmup_steps=0)
    monkeypatch.setattr(capacity, "progressive_for", lambda lm: quick)
    asked = Asked([BOOK], 2, (str(tiny_folder),), (4,), tmp_path)
    told: list[dict[str, Any]] = []
    report = capacity.bench_capacity(asked, told.append)
    assert report["rows"] == told
    figures = {row["figure"]: row for row in report["rows"]}
    columns = [row["column"] for row in report["rows"] if "column" in row]
    assert columns == [
        "cramming, as published",
        "cramming, best learning rate",
        "progressive, as published",
        "progressive, best setting",
        "ours",
    ]
    assert len([figure for figure in figures if figure.startswith("ours over ")]) == 4
    assert 4 <= figures["ours: verified tokens, median"]["value"] <= 8
    assert {row["model"] for row in report["rows"]} == {"tiny"}
    assert figures["bits per byte of the bare LM on the books"]["value"] > 0
    chosen = [row["value"] for figure, row in figures.items() if "best of the sweep" in figure]
    assert chosen[0].startswith("learning rate ")
    assert "seconds to lossless at 8 tokens, the published loop over ours" in figures
    elsewhere = [row for figure, row in figures.items() if "exact in a new process" in figure]
    lossless = sum(int(row["value"].split()[0]) for figure, row in figures.items() if figure.startswith("ours, "))
    assert [row["value"] for row in elsewhere] == [f"{lossless} of {lossless}"] * 2  # the duel's are among them
    text = (tmp_path / "capacity.jsonl").read_text()
    assert "mill" not in text
    monkeypatch.setattr(capacity, "run_recipe", None)  # nothing is run again
    monkeypatch.setattr(capacity, "run_cram", None)
    again = {row["figure"]: row for row in capacity.bench_capacity(asked)["rows"]}
    assert again["ours: verified tokens, median"] == figures["ours: verified tokens, median"]
    assert json.dumps(report)
    assert (tmp_path / "capacity.jsonl").read_text() == text


def test_bad_input_is_refused_before_anything_is_run(tiny_lm: FrozenLM, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> FrozenLM:
        if name != "tiny":
            raise ModelError("no such model")
        return tiny_lm

    monkeypatch.setattr(capacity, "load_model", load)
    monkeypatch.setattr(capacity, "run_recipe", None)
    with pytest.raises(ModelError):
        capacity.bench_capacity(Asked([BOOK], 1, ("tiny", "gpt-17"), (1,)))
    with pytest.raises(TextError, match="too short"):
        capacity.bench_capacity(Asked(["All is well. " * 9], 1, ("tiny",), (1,)))
    with pytest.raises(ConfigError, match=r"num_mem is 64; .* of 128 tokens, .* the 128 positions of tiny"):
        capacity.bench_capacity(Asked([BOOK], 1, ("tiny",), (1, 64)))
