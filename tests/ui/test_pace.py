"""How long a GPU is asked for: enough, never too long for a visitor, and nearer to the truth after each run."""

import dataclasses

import pytest

from cramdemo.catalogue import MODELS
from cramdemo.config import CramConfig
from cramdemo.cram import Progress
from cramdemo.ui.pace import END_SECONDS, LEAST_SECONDS, MAX_SECONDS, Pace

SMALL, LARGE = MODELS["cram-mini"], MODELS["meta-llama/Llama-3.1-8B"]
LAST = Progress(0, 0.0, 1.0, 0.5, 1, 2, 4, 4, -1.0, "1010", 2, 3, ())


@pytest.mark.parametrize("entry", MODELS.values(), ids=lambda entry: entry.label)
@pytest.mark.parametrize("steps", [1, 2000, 100_000])
@pytest.mark.parametrize("num_tokens", [1, 100, 2000])
def test_no_run_asks_for_more_than_anyone_may_have(entry, steps, num_tokens):
    share = Pace().share(entry, CramConfig(steps=steps), num_tokens)
    assert LEAST_SECONDS <= share.steps < share.asked <= MAX_SECONDS


def test_run_leaves_time_to_load_and_to_verify():
    share = Pace().share(SMALL, CramConfig(steps=100_000), 100)
    assert share.steps + Pace().decoding(SMALL, 100) == pytest.approx(MAX_SECONDS)
    assert share.asked - share.steps > END_SECONDS


@pytest.mark.parametrize(
    ("more", "less"),
    [
        ({"steps": 2000}, {"steps": 500}),
        ({"steps": 2000}, {"steps": 2000, "seconds": 9.0}),
        ({"steps": 2000, "num_tokens": 2000}, {"steps": 2000, "num_tokens": 10}),
        ({"steps": 20, "entry": LARGE}, {"steps": 20}),
    ],
    ids=["fewer steps", "a time budget", "a shorter text", "a smaller model"],
)
def test_less_work_asks_for_less(more, less):
    def asked(*, entry=SMALL, num_tokens=100, **settings):
        return Pace().share(entry, CramConfig(**settings), num_tokens).asked

    assert asked(**less) < asked(**more)


def test_next_run_is_planned_by_what_the_last_one_took(crammed):
    pace, config = Pace(), CramConfig(steps=1000)
    last = dataclasses.replace(LAST, step=100, seconds=2.0)  # 0.02 s a step
    n = crammed.num_tokens
    result = dataclasses.replace(crammed, seconds=2.0 + 0.1 * n)  # 0.1 s a token
    before = pace.share(LARGE, config, n), pace.share(SMALL, config, n)
    pace.learn(SMALL, config, last, result)
    share = pace.share(SMALL, config, n)
    assert share.steps == pytest.approx(1.25 * 1000 * 0.02)
    assert pace.decoding(SMALL, 2 * n) - pace.decoding(SMALL, n) == pytest.approx(1.25 * n * 0.1)
    assert pace.share(LARGE, config, n) == before[0] and share != before[1]


def test_few_steps_teach_nothing_of_steps(crammed):
    pace, config = Pace(), CramConfig(steps=500)
    before = pace.share(SMALL, config, 10).steps
    pace.learn(SMALL, config, dataclasses.replace(LAST, step=0, seconds=3.0), dataclasses.replace(crammed, seconds=3.1))
    assert pace.share(SMALL, config, 10).steps == pytest.approx(before)
