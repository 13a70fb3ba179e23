"""The published recipes are what was published, and each text runs as if it were alone."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from cramdemo.bench import recipes
from cramdemo.bench.recipes import (
    BETAS,
    CRAMMING,
    PROGRESSIVE,
    WARM_PASSES,
    WEIGHT_DECAY,
    Found,
    Recipe,
    progressive_for,
    recipe_passes,
    run_recipe,
    seconds_a_pass,
)
from cramdemo.flops import FlopCount
from cramdemo.models import FrozenLM

LOW_RANK = dataclasses.replace(PROGRESSIVE, rank=16)


def _ids(lm: FrozenLM, count: int, num_tokens: int) -> Tensor:
    return torch.randint(lm.vocab_size, (count, num_tokens), generator=torch.Generator().manual_seed(1))


def _solved(lm: FrozenLM, mem: Tensor, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return lm.text_logits(mem[None], ids[None])[0].argmax(-1) == ids


def test_the_hyperparameters_are_the_published_ones() -> None:
    """arXiv 2502.13063 and its train.py; progressive cramming's paper and its quick start."""
    assert (BETAS, WEIGHT_DECAY) == ((0.9, 0.9), 0.01)
    assert Recipe("cramming", 0.01, 5000, "embedding", patience=2000, hidden_states=True) == CRAMMING
    assert (
        Recipe(
            "progressive cramming",
            0.1,
            10_000,
            "uniform",
            growth=1,
            steps_a_stage=1000,
            warmup_steps=100,
            last_learning_rate=1e-3,
        )
        == PROGRESSIVE
    )


def test_the_learning_rate_is_constant_or_warms_up_and_falls() -> None:
    assert {CRAMMING.learning_rate_at(step) for step in (0, 1, 4999)} == {0.01}
    rates = [PROGRESSIVE.learning_rate_at(step) for step in (0, 50, 100, 5050, 10_000)]
    assert rates == pytest.approx([0, 0.05, 0.1, (0.1 + 1e-3) / 2, 1e-3])


@pytest.mark.parametrize("recipe", [CRAMMING, PROGRESSIVE, LOW_RANK], ids=["cramming", "progressive", "low rank"])
def test_what_is_said_to_be_solved_is_solved_by_the_vectors_kept(tiny_lm: FrozenLM, recipe: Recipe) -> None:
    ids = _ids(tiny_lm, 2, 3)
    quick = dataclasses.replace(recipe, learning_rate=0.1, steps=600)
    for found, row in zip(run_recipe(tiny_lm, ids, quick, num_mem=2), ids, strict=True):
        assert found.prefix > 0
        assert _solved(tiny_lm, found.mem, row)[: found.prefix].all()
        assert found.prefix == 3 or found.steps == 600


@pytest.mark.parametrize("recipe", [CRAMMING, PROGRESSIVE, LOW_RANK], ids=["cramming", "progressive", "low rank"])
def test_a_text_runs_beside_others_as_if_alone(tiny_lm: FrozenLM, recipe: Recipe) -> None:
    ids = _ids(tiny_lm, 3, 6)
    quick = dataclasses.replace(recipe, learning_rate=0.05, steps=25, warmup_steps=0)
    together = run_recipe(tiny_lm, ids, quick, seed=7)
    for number, found in enumerate(together):
        (alone,) = run_recipe(tiny_lm, ids[number : number + 1], quick, seed=7 + number)
        assert (alone.prefix, alone.steps, alone.flops) == (found.prefix, found.steps, found.flops)
        assert alone.passes_at == found.passes_at
        torch.testing.assert_close(alone.mem, found.mem, atol=1e-3, rtol=1e-3)
    assert len({found.mem.sum().item() for found in together}) == 3


@pytest.mark.parametrize("recipe", [CRAMMING, PROGRESSIVE], ids=["cramming", "progressive"])
def test_pass_by_pass_it_is_the_same_run(tiny_lm: FrozenLM, recipe: Recipe) -> None:
    ids = _ids(tiny_lm, 2, 4)
    quick = dataclasses.replace(recipe, learning_rate=0.1, steps=60, warmup_steps=0)
    first, *passes = recipe_passes(tiny_lm, ids, quick, num_mem=2, seed=5)
    whole = run_recipe(tiny_lm, ids, quick, num_mem=2, seed=5)
    assert [(found.steps, found.flops, found.passes_at, found.solved) for found in first] == [(0, 0, {}, 0)] * 2
    for number, found in enumerate(whole):
        assert torch.equal(passes[-1][number].mem, found.mem)
        assert dataclasses.replace(passes[-1][number], mem=found.mem) == found
        spent = [states[number].flops for states in passes]
        assert spent == sorted(spent)
        assert sum(found.passes_at.values()) == len(set(spent))
        solved = [states[number].solved for states in passes]
        assert max(solved) == _solved(tiny_lm, found.mem, ids[number]).sum() if not recipe.growth else found.prefix


def test_progressive_cramming_has_the_step_size_of_the_model_s_family(tiny_lm: FrozenLM) -> None:
    assert progressive_for(tiny_lm) == PROGRESSIVE
    pythia = SimpleNamespace(model=SimpleNamespace(config=SimpleNamespace(model_type="gpt_neox")))
    assert progressive_for(pythia) == dataclasses.replace(PROGRESSIVE, learning_rate=0.5)  # type: ignore[arg-type]


def test_without_growth_the_vectors_with_most_tokens_are_kept(tiny_lm: FrozenLM) -> None:
    ids = _ids(tiny_lm, 1, 30)
    (short,) = run_recipe(tiny_lm, ids, dataclasses.replace(CRAMMING, steps=5))
    (long,) = run_recipe(tiny_lm, ids, dataclasses.replace(CRAMMING, steps=200, learning_rate=0.1))
    assert _solved(tiny_lm, long.mem, ids[0]).sum() > _solved(tiny_lm, short.mem, ids[0]).sum()
    assert (short.steps, long.steps, short.prefix) == (5, 200, 0)


def test_a_run_ends_when_it_has_no_patience_left(tiny_lm: FrozenLM) -> None:
    ids = _ids(tiny_lm, 1, 30)
    impatient = dataclasses.replace(CRAMMING, learning_rate=0.0, patience=7)
    (found,) = run_recipe(tiny_lm, ids, impatient)
    assert found.steps == 8  # the first step is the best, seven follow
    stuck = dataclasses.replace(PROGRESSIVE, learning_rate=0.0, last_learning_rate=0.0, steps_a_stage=9)
    (found,) = run_recipe(tiny_lm, ids, stuck)
    assert found.steps == 9


def test_no_more_flops_are_spent_than_allowed(tiny_lm: FrozenLM) -> None:
    step = FlopCount.of(tiny_lm.model).step(31, 31)  # K + N, logits for all: the published loops compute them
    found = _run_with_budget(tiny_lm, 3.5 * step)
    assert (found.steps, found.flops) == (3, 3 * step)
    assert _run_with_budget(tiny_lm, 0.5 * step).flops == 0
    assert math.isfinite(_run_with_budget(tiny_lm, 0.5 * step).mem.sum().item())


def _run_with_budget(lm: FrozenLM, max_flops: float) -> Found:
    (found,) = run_recipe(lm, _ids(lm, 1, 30), CRAMMING, max_flops=max_flops)
    return found


@pytest.mark.parametrize("recipe", [CRAMMING, PROGRESSIVE], ids=["cramming", "progressive"])
def test_passes_are_counted_at_the_length_they_were_run_at(tiny_lm: FrozenLM, recipe: Recipe) -> None:
    """FLOPs are counted from the same lengths, by another hand: a pass put down a stage too late would show."""
    quick = dataclasses.replace(recipe, learning_rate=0.1, steps=600, warmup_steps=0)
    for found in run_recipe(tiny_lm, _ids(tiny_lm, 2, 4), quick, num_mem=2):
        assert sum(n * tiny_lm.flops.step(2 + k, 2 + k) for k, n in found.passes_at.items()) == found.flops
        assert list(found.passes_at) == ([1, 2, 3, 4][: found.prefix + 1] if recipe.growth else [4])
        exact = found.prefix if recipe.growth else found.prefix // 4
        assert sum(found.passes_at.values()) == found.steps + exact  # a pass that finds a prefix exact updates nothing
        assert found.steps > exact > 0


def test_a_pass_is_timed_alone_at_its_length_and_after_some_that_are_not(
    tiny_lm: FrozenLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = []
    real = recipes._scored

    def scored(lm: FrozenLM, rows: list[recipes._Row], recipe: Recipe) -> Tensor:
        lengths.append([row.length for row in rows])
        return real(lm, rows, recipe)

    monkeypatch.setattr(recipes, "_scored", scored)
    monkeypatch.setattr(time, "perf_counter", _clock(slow=WARM_PASSES).__next__)
    (ids,) = _ids(tiny_lm, 1, 7)
    assert seconds_a_pass(tiny_lm, ids, PROGRESSIVE, passes=9) == 2
    assert lengths == [[7]] * (WARM_PASSES + 9)


def _clock(slow: int) -> Iterator[float]:
    """Two looks a pass: the first `slow` passes take 100 s, then some take 2 s and every third one 3 s."""
    now = 0.0
    for number in itertools.count():
        yield now
        now += 100 if number < slow else 3 if number % 3 == 0 else 2
        yield now


@pytest.mark.parametrize("recipe", [CRAMMING, PROGRESSIVE, LOW_RANK], ids=["cramming", "progressive", "low rank"])
def test_no_timed_pass_is_spared_its_update(tiny_lm: FrozenLM, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """A single token is solved within a few steps, and passes of a solved text have no update to do."""
    updates = []
    real = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: (updates.append(1), real(self)))
    (ids,) = _ids(tiny_lm, 1, 1)
    assert seconds_a_pass(tiny_lm, ids, dataclasses.replace(recipe, learning_rate=0.5), num_mem=2) > 0
    assert len(updates) == WARM_PASSES + 30
