"""The published recipes are what was published, and each text runs as if it were alone."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from cramdemo.bench.recipes import BETAS, CRAMMING, PROGRESSIVE, WEIGHT_DECAY, Found, Recipe, run_recipe
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
        torch.testing.assert_close(alone.mem, found.mem, atol=1e-3, rtol=1e-3)
    assert len({found.mem.sum().item() for found in together}) == 3


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
