"""The grid of jobs: every cell once, and a key that says all that a result depends on."""

from __future__ import annotations

import dataclasses

import pytest

from cramdemo.sweep.jobs import Jobs
from cramdemo.sweep.spec import Spec, SweepRecipe

RECIPES = (SweepRecipe("fast", "fast", {}), SweepRecipe("mine", "most", {"steps": 3}))
SPEC = Spec(("a", "b"), (4, 8), (1, 2, 4), (0, 7), RECIPES, (), threads=1)
TEXTS = [("one", "first text"), ("two", "second text")]


def test_every_cell_is_there_once_models_first_recipes_last():
    jobs = Jobs(SPEC, TEXTS)
    assert len(jobs) == 2 * 2 * 2 * 3 * 2 * 2
    cells = [(j.model, j.source, j.length, j.num_mem, j.seed, j.recipe.name) for j in jobs]
    assert len(set(cells)) == len(jobs) == len({j.key for j in jobs})
    assert cells[:3] == [("a", "one", 4, 1, 0, "fast"), ("a", "one", 4, 1, 0, "mine"), ("a", "one", 4, 1, 7, "fast")]
    assert [cell[0] for cell in cells] == ["a"] * 48 + ["b"] * 48
    assert jobs[95] == list(jobs)[95]
    with pytest.raises(IndexError):
        jobs[96]


def test_the_key_is_the_same_wherever_the_job_stands_and_changes_with_what_it_runs():
    spec = dataclasses.replace(SPEC, models=("b",), lengths=(8,), recipes=RECIPES[1:])
    assert {j.key for j in Jobs(spec, TEXTS[1:])} < {j.key for j in Jobs(SPEC, TEXTS)}
    renamed = dataclasses.replace(SPEC, recipes=(SweepRecipe("swift", "fast", {}), RECIPES[1]))
    assert [j.key for j in Jobs(renamed, TEXTS)] == [j.key for j in Jobs(SPEC, TEXTS)]
    for changed in (
        dataclasses.replace(SPEC, threads=2),
        dataclasses.replace(SPEC, recipes=(SweepRecipe("fast", "most", {}), SweepRecipe("mine", "most", {"steps": 4}))),
    ):
        assert not {j.key for j in Jobs(changed, TEXTS)} & {j.key for j in Jobs(SPEC, TEXTS)}
    assert not {j.key for j in Jobs(SPEC, [("one", "other text")])} & {j.key for j in Jobs(SPEC, TEXTS)}


def test_the_grid_takes_no_memory_of_its_own():
    spec = dataclasses.replace(SPEC, seeds=tuple(range(10_000)))
    assert len(Jobs(spec, TEXTS)) == 48 * 10_000 and Jobs(spec, TEXTS)[479_999].seed == 9999
