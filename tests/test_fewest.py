"""The search for the fewest memory tokens: which K are tried, from where, and what is kept when it ends early."""

from __future__ import annotations

import importlib
from dataclasses import replace
from itertools import count, pairwise
from typing import Any

import pytest
import torch

from cramdemo import CramConfig, CramResult, FrozenLM, ModelError, TextError, decode
from cramdemo.cram import initial_vectors
from cramdemo.fewest import Search, best_start, fewest, next_num_mem, widened

MODULE: Any = importlib.import_module("cramdemo.fewest")
TEXT = "The old sea, tired."
HARD = list(range(5, 295, 7))
CONFIG = CramConfig(steps=300)


def _path(answer: int, most: int) -> list[int]:
    """The K that are tried where all from `answer` on are lossless."""
    tried: list[int] = []
    failed, lossless = 0, None
    while (num_mem := next_num_mem(failed, lossless, most)) is not None:
        tried.append(num_mem)
        if num_mem >= answer:
            lossless = num_mem
        else:
            failed = num_mem
    return tried


@pytest.mark.parametrize("answer", range(1, 33))
def test_the_search_ends_at_the_fewest_by_doubling_and_then_bisection(answer: int) -> None:
    tried = _path(answer, 32)
    assert min(k for k in tried if k >= answer) == answer
    assert answer == 1 or answer - 1 in tried
    assert len(tried) == len(set(tried)) <= 10
    assert tried[: answer.bit_length()] == [2**i for i in range(answer.bit_length())]


@pytest.mark.parametrize(("most", "tried"), [(1, [1]), (6, [1, 2, 4, 6]), (32, [1, 2, 4, 8, 16, 32])])
def test_where_nothing_is_enough_the_most_is_the_last_that_is_tried(most: int, tried: list[int]) -> None:
    assert _path(99, most) == tried


@pytest.fixture(scope="module")
def search(tiny_lm: FrozenLM) -> list[Search]:
    return list(fewest(tiny_lm, TEXT, CONFIG, most=16))


def test_what_is_found_is_lossless_and_one_less_was_not(tiny_lm: FrozenLM, search: list[Search]) -> None:
    last = search[-1]
    assert last.ended == "found" and last.result is not None and last.result.lossless
    found = last.result.vectors.num_mem
    verdicts = {trial.num_mem: trial.lossless for trial in last.trials}
    assert found > 1 and verdicts[found] and not verdicts[found - 1]
    assert decode(tiny_lm, last.result.vectors).text == TEXT
    assert last.config.num_mem == found
    assert all(state.result is None and not state.ended for state in search[:-1])


def test_trials_only_grow_and_each_is_of_the_k_that_was_tried(search: list[Search]) -> None:
    for before, after in pairwise(search):
        assert after.trials[: len(before.trials)] == before.trials
    tried = [state.config.num_mem for state in search[:-1]]
    assert [trial.num_mem for trial in search[-1].trials] == list(dict.fromkeys(tried))


def test_vectors_that_were_lossless_are_kept_while_fewer_are_tried(search: list[Search]) -> None:
    for state in search[:-1]:
        lossless = [trial.num_mem for trial in state.trials if trial.lossless]
        assert (state.kept.num_mem if state.kept else None) == min(lossless, default=None)
    assert any(state.kept for state in search)


def test_a_k_that_gains_nothing_is_given_up(tiny_lm: FrozenLM) -> None:
    *_, last = fewest(tiny_lm, HARD, CramConfig(steps=5000, patience=20), most=1)
    assert last.ended == "most" and last.trials[0].reason == "patience" and last.trials[0].steps < 1000
    assert last.result is not None and not last.result.lossless


def test_each_k_starts_from_the_run_before(tiny_lm: FrozenLM, monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[Any] = []
    real = MODULE.cram

    def watched(*arguments: Any, start: Any, **more: Any) -> Any:
        starts.append(start)
        return real(*arguments, start=start, **more)

    monkeypatch.setattr(MODULE, "cram", watched)
    *_, last = fewest(tiny_lm, HARD, CramConfig(steps=15), most=4)
    assert [None if start is None else tuple(start.shape) for start in starts] == [None, (2, 64), (4, 64)]
    assert [trial.num_mem for trial in last.trials] == [1, 2, 4]


def test_the_cheaper_of_two_starts_is_taken(tiny_lm: FrozenLM) -> None:
    """From vectors that hold half of the text, or from draws."""
    ids, config = torch.tensor([HARD]), CramConfig(num_mem=3)
    drawn = initial_vectors(tiny_lm, ids, config)[0]
    good = MODULE.cram(tiny_lm, HARD, CramConfig(num_mem=2, steps=60))
    *_, half = good
    mem, flops = best_start(tiny_lm, ids, config, half.vectors.mem)
    assert torch.equal(mem, widened(tiny_lm, half.vectors.mem, 3)) and flops == 2 * tiny_lm.flops.forward(44, 42)
    *_, other = MODULE.cram(tiny_lm, HARD[::-1], CramConfig(num_mem=2, steps=60))
    bad, _ = best_start(tiny_lm, ids, config, other.vectors.mem)
    assert torch.equal(bad, drawn)


def test_widened_vectors_end_with_those_given_and_a_seed_says_the_others(tiny_lm: FrozenLM) -> None:
    mem = torch.ones(2, 64)
    wide = widened(tiny_lm, mem, 5, seed=3)
    assert torch.equal(wide[3:], mem) and wide.shape == (5, 64)
    assert torch.equal(wide, widened(tiny_lm, mem, 5, seed=3))
    assert not torch.equal(wide, widened(tiny_lm, mem, 5, seed=4))
    assert float(wide[:3].std()) == pytest.approx(tiny_lm.embedding_std, rel=0.3)


@pytest.mark.usefixtures("every_step")
def test_a_search_stopped_while_it_tries_fewer_gives_what_was_lossless(tiny_lm: FrozenLM) -> None:
    seen: list[Search] = []
    for state in fewest(tiny_lm, HARD, CONFIG, most=32, stop=lambda: bool(seen and seen[-1].kept)):
        seen.append(state)
    assert state.ended == "stopped" and state.result is not None and state.result.lossless
    assert state.trials[-1].reason == "stopped" and state.result.vectors.num_mem > state.trials[-1].num_mem


def test_a_search_stopped_at_its_first_look_has_a_result(tiny_lm: FrozenLM) -> None:
    *_, last = fewest(tiny_lm, HARD, stop=lambda: True)
    assert last.ended == "stopped" and len(last.trials) == 1 and last.result is not None


def test_the_time_budget_is_for_the_whole_search(tiny_lm: FrozenLM, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = count()
    monkeypatch.setattr(MODULE.time, "perf_counter", lambda: float(next(ticks)))
    *_, last = fewest(tiny_lm, HARD, CramConfig(steps=100_000, seconds=5.0), most=16)
    assert last.ended == "seconds" and last.result is not None
    assert {trial.reason for trial in last.trials} == {"seconds"}


def test_of_several_that_are_lossless_the_fewest_is_the_result(
    tiny_lm: FrozenLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = MODULE.cram

    def judged(lm: FrozenLM, ids: list[int], config: CramConfig, **more: Any) -> Any:
        for item in real(lm, ids, config, **more):
            if isinstance(item, CramResult):
                check = replace(item.verification, lossless=config.num_mem >= 5)
                yield replace(item, verifications=[check])
            else:
                yield item

    monkeypatch.setattr(MODULE, "cram", judged)
    *_, last = fewest(tiny_lm, HARD, CramConfig(steps=2), most=32)
    assert [trial.num_mem for trial in last.trials] == [1, 2, 4, 8, 6, 5]
    assert last.result is not None and last.result.vectors.num_mem == 5 and last.ended == "found"


def test_no_memory_for_more_vectors_loses_nothing(tiny_lm: FrozenLM, monkeypatch: pytest.MonkeyPatch) -> None:
    real = MODULE.cram

    def tight(lm: FrozenLM, ids: list[int], config: CramConfig, **more: Any) -> Any:
        if config.num_mem > 2:
            raise ModelError("There is not enough memory.")
        return real(lm, ids, config, **more)

    monkeypatch.setattr(MODULE, "cram", tight)
    *_, last = fewest(tiny_lm, HARD, CramConfig(steps=5), most=16)
    assert last.ended == "memory" and last.result is not None and len(last.trials) == 2


@pytest.mark.parametrize("text", ["", "sea " * 200], ids=["empty", "too long"])
def test_a_text_that_cannot_be_crammed_is_refused(tiny_lm: FrozenLM, text: str) -> None:
    with pytest.raises(TextError):
        next(fewest(tiny_lm, text))


def test_k_and_text_share_the_context(tiny_lm: FrozenLM) -> None:
    *_, last = fewest(tiny_lm, list(range(125)), CramConfig(steps=1), most=16)
    assert [trial.num_mem for trial in last.trials] == [1, 2, 3]
