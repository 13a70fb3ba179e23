"""Seconds that are reckoned are passes times the seconds of a pass, and rows say what they are made of."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from cramdemo import CramConfig
from cramdemo.bench import duel as module
from cramdemo.bench.duel import Rival, Side, duel, reckoned_seconds, side_row
from cramdemo.bench.ledger import Outcome
from cramdemo.bench.recipes import CRAMMING, PROGRESSIVE, Recipe, run_recipe
from cramdemo.models import FrozenLM

TEXTS = [[number, 2, 3, 4, 5] for number in range(3)]


def _rival(recipe: Recipe, passes: Sequence[dict[int, int]], horizons: Sequence[int] = (5, 5, 5)) -> Rival:
    outcomes = [
        Outcome(5, 1.0, horizon, 1.0, steps=sum(at.values()), flops=10**10 * sum(at.values()), passes_at=at)
        for at, horizon in zip(passes, horizons, strict=True)
    ]
    return Rival(f"{recipe.name} as published", f"{recipe.name}'s loop", recipe, 10**15, outcomes)


CRAMMED = _rival(CRAMMING, [{5: 400}, {5: 600}, {5: 5000}], (5, 5, 4))
GROWN = _rival(PROGRESSIVE, [{1: 10, 2: 0, 3: 0, 4: 0, 5: 90}, {3: 300}, {4: 100}])


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A pass takes as many milliseconds as it has tokens; our runs take 1, 2 and 9 s. Returns what was called."""
    called: list[Any] = []

    def timed(lm: FrozenLM, ids: Tensor, recipe: Recipe, *, num_mem: int, passes: int) -> float:
        called.append(("pass", recipe.name, len(ids), num_mem, str(lm.dtype)))
        return len(ids) / 1000

    def ours(lm: FrozenLM, ids: list[int], config: CramConfig) -> Any:
        called.append(("ours", ids[0], config))
        return SimpleNamespace(lossless=ids[0] != 2, flops=10**11 * (1 + ids[0]), steps=10, seconds=(1, 2, 9)[ids[0]])

    def alone(lm: FrozenLM, ids: Tensor, recipe: Recipe, *, num_mem: int, seed: int, max_flops: int) -> list[Any]:
        called.append(("alone", ids.tolist(), recipe.name, seed, max_flops))
        return [SimpleNamespace(steps=550)]

    monkeypatch.setattr(module, "seconds_a_pass", timed)
    monkeypatch.setattr(module, "run_cram", ours)
    monkeypatch.setattr(module, "run_recipe", alone)
    monkeypatch.setattr(time, "perf_counter", iter([100.0, 103.6]).__next__)
    return called


def test_reckoned_seconds_are_passes_times_seconds_linear_between_the_timed_lengths() -> None:
    clock = {1: 0.1, 3: 0.2, 5: 0.6}
    assert reckoned_seconds({1: 10, 3: 4, 5: 2}, clock) == pytest.approx(1 + 0.8 + 1.2)
    assert reckoned_seconds({2: 100, 4: 10}, clock) == pytest.approx(15 + 4)
    assert reckoned_seconds({5: 7}, {5: 0.6}) == pytest.approx(4.2)
    assert reckoned_seconds({}, clock) == 0


def test_a_published_loop_is_timed_at_the_lengths_it_runs_at(tiny_lm: FrozenLM, faked: list[Any]) -> None:
    rows = {row["figure"]: row for row in duel(tiny_lm, TEXTS, 2, (CRAMMED, GROWN))}
    passes = [call[1:] for call in faked if call[0] == "pass"]
    grown = [("progressive cramming", length, 2, "torch.float32") for length in (1, 3, 5)]
    assert passes == [("cramming", 5, 2, "torch.float32"), *grown]
    side = rows["progressive cramming as published, to lossless at 5 tokens: lossless"]
    assert side["median_seconds"] == pytest.approx(0.46)  # 10 at 1 ms and 90 at 5 ms; 300 at 3 ms; 100 at 4 ms
    assert "reckoned" in side["how"]
    assert "1.0 ms at 1, 3.0 ms at 3, 5.0 ms at 5 tokens" in side["how"]


def test_ours_is_run_alone_after_a_warm_up_with_what_a_user_gets(tiny_lm: FrozenLM, faked: list[Any]) -> None:
    list(duel(tiny_lm, TEXTS, 2, (CRAMMED,)))
    (_, warmed, warm), *runs = [call for call in faked if call[0] == "ours"]
    assert (warmed, warm.steps) == (0, module.WARM_STEPS)
    assert [run[1] for run in runs] == [0, 1, 2]
    assert {run[2] for run in runs} == {CramConfig.for_model(tiny_lm, num_mem=2, init="embedding")}


def test_ratios_are_of_medians_and_say_how_many_values_are_lower_bounds(tiny_lm: FrozenLM, faked: list[Any]) -> None:
    rows = {row["figure"]: row for row in duel(tiny_lm, TEXTS, 1, (CRAMMED,))}
    flops = rows["FLOPs to lossless at 5 tokens, cramming as published over ours"]
    seconds = rows["seconds to lossless at 5 tokens, cramming's loop over ours"]
    assert flops["value"] == 30  # 6,000 GFLOPs over 200
    assert seconds["value"] == 1.5  # 600 passes of 5 ms over 2 s
    for row in (flops, seconds):
        assert (row["lower_bounds"], row["lower_bounds_of_ours"]) == (1, 1)
        assert row["interval"][0] <= row["value"] <= row["interval"][1]
    side = rows["cramming as published, to lossless at 5 tokens: lossless"]
    assert (side["value"], side["lower_bounds"]) == ("2 of 3", 1)
    assert (side["median_gflops"], side["median_steps"], side["median_seconds"]) == (6000, 600, 3)


def test_the_check_runs_the_text_of_the_median_as_it_ran_beside_the_others(tiny_lm: FrozenLM, faked: list[Any]) -> None:
    *_, row = duel(tiny_lm, TEXTS, 1, (CRAMMED, GROWN))
    assert [call[1:] for call in faked if call[0] == "alone"] == [([TEXTS[1]], "cramming", 1, 10**15)]
    assert row["value"] == 1.2  # 3.6 s, and 600 passes of 5 ms were reckoned
    assert row["how"] == "3.6 s; 550 steps alone, 600 beside others"


@pytest.mark.parametrize("passes", [30_000, 0])
def test_the_check_is_left_out_where_it_would_take_too_long(tiny_lm: FrozenLM, faked: list[Any], passes: int) -> None:
    rival = _rival(CRAMMING, [{5: passes}] * 3)
    *_, row = duel(tiny_lm, TEXTS, 1, (rival,))
    assert "alone" not in {call[0] for call in faked}
    assert (row["value"], row["how"]) == (None, f"not run: {passes // 200} s were reckoned")


def test_a_model_with_an_encoder_has_a_row_from_it(built_in: FrozenLM, faked: list[Any]) -> None:
    figures = [row["figure"] for row in duel(built_in, TEXTS, 1, (CRAMMED,))]
    assert figures[:2] == [
        "ours, to lossless at 5 tokens: lossless",
        "ours, from the encoder, to lossless at 5 tokens: lossless",
    ]
    assert [call[2].init for call in faked if call[0] == "ours"] == ["embedding"] * 4 + ["encoder"] * 4


def test_medians_are_over_all_texts() -> None:
    side = Side("a", [True, False, True], [10**9, 3 * 10**9, 2 * 10**9], [1, 9, 2], [0.01234, 5.0, 0.4444], "how")
    row = side_row(side, 7)
    assert (row["median_gflops"], row["median_steps"], row["median_seconds"]) == (2, 2, 0.444)


def test_the_duel_on_a_real_model_finds_its_own_reckoning_about_right(tiny_lm: FrozenLM) -> None:
    """Loose, since the machine may be busy; but off by the number of passes it would be off by more."""
    ids = tiny_lm.tokenize("The old sea, tired.")[:3]
    recipe = Recipe("quick", 0.1, 400, "embedding", hidden_states=True)
    found = run_recipe(tiny_lm, torch.tensor([ids, ids[::-1]]), recipe, num_mem=2)
    outcomes = [Outcome(3, 1.0, f.prefix, 1.0, f.steps, f.flops, f.passes_at) for f in found]
    *_, check = duel(tiny_lm, [ids, ids[::-1]], 2, (Rival("quick", "its loop", recipe, 10**15, outcomes),))
    assert 0.02 < check["value"] < 50
    number = min((0, 1), key=lambda i: outcomes[i].steps)
    assert f"{found[number].steps} steps alone, {found[number].steps} beside" in check["how"]
