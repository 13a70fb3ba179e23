"""All run on the same budget side by side, and lossless is what greedy decoding gives back."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from cramdemo import CramConfig, run_cram
from cramdemo import race as module
from cramdemo.bench.recipes import CRAMMING, Found, run_recipe
from cramdemo.bench.recipes import PROGRESSIVE as GROWING
from cramdemo.decode import greedy_prefix
from cramdemo.errors import ModelError, TextError
from cramdemo.models import FrozenLM
from cramdemo.race import ENCODER, KEYS, OURS, PAPER, PROGRESSIVE, Lane, Race, Written, race, written

TEXT = "The old sea, tired."
LONG = "bad thinking, the reader of the word and the other seas " * 2


@pytest.fixture
def steps_of_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """The budget is what so many steps of the cramming paper's recipe cost, however fast the machine is."""
    monkeypatch.setattr(module._Race, "_measured", lambda self: int(self.race_seconds) * _step(self.lm, self.ids))


def _step(lm: FrozenLM, ids: list[int]) -> int:
    return lm.flops.step(1 + len(ids), 1 + len(ids))


def _last(states: Iterator[Race]) -> Race:
    *_, last = states
    return last


def test_lanes_stay_level_in_flops_and_within_the_budget(
    tiny_lm: FrozenLM, steps_of_budget: None, every_step: None
) -> None:
    ids = tiny_lm.tokenize(LONG)
    states = list(race(tiny_lm, LONG, seconds=30))
    for state in states:
        running = [lane.flops for lane in state.lanes if not lane.ended]
        if running:
            assert max(running) - min(running) <= 2 * _step(tiny_lm, ids)
    last = states[-1]
    assert last.ended == "finished" and all(lane.ended for lane in last.lanes)
    assert last.budget == 30 * _step(tiny_lm, ids)
    assert [lane.key for lane in last.lanes] == [PAPER, PROGRESSIVE, OURS]
    assert all(lane.flops <= last.budget for lane in last.lanes)
    assert all(lane.flops > 0.9 * last.budget for lane in last.lanes[:2])
    assert last.lanes[2].steps == last.lanes[2].most_steps == 28  # of a prefix, so that its steps cost less
    assert last.winner is None and last.alone is None


def test_the_paper_s_lane_is_its_recipe_and_nothing_else(tiny_lm: FrozenLM, steps_of_budget: None) -> None:
    ids = tiny_lm.tokenize(LONG)
    lane = _last(race(tiny_lm, LONG, seed=3, seconds=20)).lanes[0]
    (found,) = run_recipe(tiny_lm, torch.tensor([ids]), dataclasses.replace(CRAMMING, steps=lane.steps), seed=3)
    assert lane.decoded == greedy_prefix(tiny_lm, found.mem, ids)[0]
    assert lane.steps == found.steps and lane.most_steps == 5000
    assert 0 < found.solved <= lane.solved < len(ids)


def test_our_lane_ends_as_a_run_alone_does(tiny_lm: FrozenLM, steps_of_budget: None) -> None:
    state = _last(race(tiny_lm, "The", seconds=400))
    lane = state.lanes[2]
    config = CramConfig.for_model(tiny_lm, steps=lane.most_steps, init="embedding")
    result = run_cram(tiny_lm, "The", config)
    assert (lane.steps, lane.flops, lane.lossless) == (result.steps, result.flops, result.lossless)


def test_lossless_lanes_are_done_and_the_cheapest_has_won(tiny_lm: FrozenLM, steps_of_budget: None) -> None:
    states = list(race(tiny_lm, "The", seconds=2000))
    done = [lane for lane in states[-1].lanes if lane.lossless]
    assert done and all(lane.decoded == lane.solved == states[-1].num_tokens for lane in done)
    assert states[-1].winner == min(done, key=lambda lane: lane.flops)
    first = next(state for state in states if state.winner)
    assert first.winner == states[-1].winner


def test_exact_under_teacher_forcing_is_not_lossless(
    tiny_lm: FrozenLM, steps_of_budget: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "greedy_prefix", lambda lm, mem, ids: (1, 0.1))
    lane = _last(race(tiny_lm, "The", seconds=2000)).lanes[0]
    assert lane.solved == len(tiny_lm.tokenize("The")) > lane.decoded == 1
    assert not lane.lossless


@pytest.mark.parametrize(("loaded", "steps"), [(41, 0), (7, 9), (9, 7)])
def test_the_published_recipes_are_judged_by_the_kinder_dtype(
    tiny_lm: FrozenLM, steps_of_budget: None, monkeypatch: pytest.MonkeyPatch, loaded: int, steps: int
) -> None:
    monkeypatch.setattr(FrozenLM, "for_steps", FrozenLM.in_float32)  # another model than the loaded one
    monkeypatch.setattr(module, "greedy_prefix", lambda lm, mem, ids: (loaded if lm is tiny_lm else steps, 0.1))
    lane = _last(race(tiny_lm, LONG, seconds=3)).lanes[0]
    assert len(tiny_lm.tokenize(LONG)) == 41
    assert (lane.decoded, lane.lossless) == (max(loaded, steps), loaded == 41)


def test_a_bar_shows_the_most_that_was_solved_or_the_exact_prefix() -> None:
    found = Found(torch.zeros(1, 4), prefix=2, steps=9, flops=90, passes_at={3: 9}, solved=3)
    assert module._at_pass(Lane(PAPER, solved=5), found, CRAMMING, 6).solved == 5
    assert module._at_pass(Lane(PAPER, solved=1), found, CRAMMING, 6).solved == 3
    growing = module._at_pass(Lane(PROGRESSIVE), found, GROWING, 6)
    assert (growing.solved, growing.accuracy, growing.most_steps) == (2, 0.5, 10_000)


def test_stop_ends_all_lanes_where_they_are_and_decodes_them(tiny_lm: FrozenLM, steps_of_budget: None) -> None:
    looks = iter(range(10**6))
    last = _last(race(tiny_lm, LONG, seconds=4000, stop=lambda: next(looks) > 12))
    assert last.ended == "stopped" and all(lane.ended for lane in last.lanes)
    assert max(lane.flops for lane in last.lanes) < last.budget / 20
    assert all(lane.solved >= lane.decoded for lane in last.lanes)


def test_a_machine_that_has_become_slow_ends_the_race(
    tiny_lm: FrozenLM, steps_of_budget: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_SECONDS", 0.0)
    assert _last(race(tiny_lm, LONG, seconds=4000)).ended == "seconds"


def test_the_budget_follows_from_the_seconds_a_flop_takes_in_each_lane(
    tiny_lm: FrozenLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module._Race, "_pace_of_recipe", lambda self, recipe, length: 2e-9 if recipe.growth else 1e-9)
    monkeypatch.setattr(module._Race, "_our_pace", lambda self: 1e-9)
    measured = module._Race(tiny_lm, tiny_lm.tokenize(LONG), 0, 4.0)
    assert measured._measured() == pytest.approx(10**9)  # 1 + 2 + 1 nanoseconds
    most = module._Race(tiny_lm, tiny_lm.tokenize(LONG), 0, 1e6)
    assert most._measured() == 5000 * _step(tiny_lm, most.ids)
    slow = module._Race(tiny_lm, tiny_lm.tokenize(LONG), 0, 1e-3)
    with pytest.raises(TextError, match=r"too slow to race \d+ tokens"):
        slow._measured()


def test_what_is_measured_is_what_passes_take(tiny_lm: FrozenLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "seconds_a_pass", lambda lm, ids, recipe, *, num_mem, passes: len(ids) / 10)
    runner = module._Race(tiny_lm, tiny_lm.tokenize(LONG), 0, 4.0)
    assert runner._pace_of_recipe(CRAMMING, 5) == 0.5 / tiny_lm.flops.step(6, 6)
    assert 0 < runner._our_pace() < 1e-5


def test_the_curve_only_grows_and_each_point_is_of_one_lane(tiny_lm: FrozenLM, steps_of_budget: None) -> None:
    states = list(race(tiny_lm, LONG, seconds=10))
    for before, after in itertools.pairwise(states):
        assert after.curve.startswith(before.curve)
    points = [point.split(",") for point in states[-1].curve[:-1].split(";")]
    assert all(len(point) == 4 and sum(bool(y) for y in point[1:]) == 1 for point in points)
    assert all(0 <= float(next(filter(None, point[1:]))) <= 1 and float(point[0]) > 0 for point in points)


def test_a_model_with_an_encoder_has_four_lanes_and_shows_what_it_decodes(
    built_in: FrozenLM, steps_of_budget: None
) -> None:
    text = "It was late when we came to the village."
    last = _last(race(built_in, text, seconds=6))
    assert [lane.key for lane in last.lanes] == list(KEYS)
    assert last.alone is not None and last.optimised is not None
    encoded = built_in.encode(torch.tensor([built_in.tokenize(text)]), 1)[0]
    assert last.alone.prefix == greedy_prefix(built_in, encoded, built_in.tokenize(text))[0]
    assert last.optimised.prefix == last.lanes[-1].decoded
    assert "".join(last.optimised.texts).startswith("It was")


def test_what_is_written_is_marked_token_by_token(crammed: Any, tiny_lm: FrozenLM) -> None:
    wrong = list(crammed.token_ids)
    wrong[3] = (wrong[3] + 1) % tiny_lm.vocab_size
    found = written(tiny_lm, crammed.vectors, wrong)
    assert [n for n, right in enumerate(found.right) if not right] == [3]
    assert found.prefix == 3 and "".join(found.texts) == TEXT
    assert Written(("a",), (True,)).prefix == 1


def test_nobody_has_won_while_a_cheaper_lane_still_runs() -> None:
    done = Lane(PAPER, flops=10, ended=True, lossless=True)
    assert Race(3, (done, Lane(OURS, flops=9))).winner is None
    assert Race(3, (done, Lane(OURS, flops=10))).winner == done
    cheaper = Lane(ENCODER, flops=9, ended=True, lossless=True)
    assert Race(3, (done, cheaper)).winner == cheaper


def test_without_memory_for_a_step_a_sentence_says_so(tiny_lm: FrozenLM, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> float:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(module, "seconds_a_pass", full)
    with pytest.raises(ModelError, match="not enough memory for one step of a race"):
        list(race(tiny_lm, TEXT))


@pytest.mark.parametrize("text", ["", "The old sea, tired. " * 40])
def test_what_cannot_be_raced_is_refused_at_once(tiny_lm: FrozenLM, text: str) -> None:
    with pytest.raises(TextError):
        race(tiny_lm, text)
