"""What a run remembers comes back from its state, and the text is not in it."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cramdemo.record import Best, Curve, Seen
from cramdemo.step import Scored

PLACE = torch.device("cpu")


def _copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in state.items()}


def _scored(margins: list[float], rivals: list[int]) -> Scored:
    row = torch.tensor([margins])
    return Scored(row.neg().exp(), row, torch.tensor([rivals]), torch.zeros(1, 1, 2))


def _shapes(state: dict[str, Tensor]) -> dict[str, tuple[torch.dtype, torch.Size]]:
    return {name: (tensor.dtype, tensor.shape) for name, tensor in state.items()}


def _kept(best: Best, mem: float, rank: float, total: int, step: int, *, exact: bool = False) -> None:
    counts = torch.tensor([0, total])
    best.keep(torch.full((1, 2), mem), torch.tensor(rank).double(), counts, torch.tensor(exact), step)


def test_the_best_are_a_copy_of_the_highest_rank_and_know_when_tokens_came_right() -> None:
    first = torch.zeros(1, 2)
    best = Best(first)
    _kept(best, 1.0, 3.2, 3, 1)
    _kept(best, 2.0, 3.1, 4, 2)  # not better
    _kept(best, 3.0, 3.3, 3, 3)  # better, but by no token
    _kept(best, 4.0, math.nan, 9, 4)
    assert (best.mem.tolist(), int(best.gained_at), best.counts.tolist()) == ([[3.0, 3.0]], 1, [0, 3])
    _kept(best, 5.0, 3.4, 3, 5, exact=True)
    assert int(best.gained_at) == 5
    best.forget_rank()
    _kept(best, 6.0, 0.0, 0, 6)
    assert best.mem.tolist() == [[6.0, 6.0]] and first.tolist() == [[0.0, 0.0]]


def test_the_best_come_back() -> None:
    best, other = Best(torch.zeros(1, 2)), Best(torch.ones(1, 2))
    _kept(best, 1.0, 3.2, 3, 7)
    assert _shapes(best.state()) == _shapes(other.state())
    other.restore(_copied(best.state()))
    assert all(torch.equal(tensor, other.state()[name]) for name, tensor in best.state().items())
    assert int(other.gained_at) == 7
    _kept(other, 2.0, 3.1, 3, 8)
    assert other.mem.tolist() == [[1.0, 1.0]]


def _fresh(seen: Seen) -> None:
    """Nothing seen."""


def _all(seen: Seen) -> None:
    seen.add(_scored([2.0, -1.0, 3.0], [7, 8, 9]))


def _some(seen: Seen) -> None:
    _all(seen)
    seen.want_unsolved(0.5)


@pytest.mark.parametrize("prepare", [_fresh, _all, _some])
def test_what_was_seen_comes_back_and_goes_on_the_same(prepare: Callable[[Seen], None]) -> None:
    seen, other = Seen(1, 5, PLACE), Seen(1, 5, PLACE)
    shapes = _shapes(other.state())
    prepare(seen)
    assert _shapes(seen.state()) == shapes
    other.restore(_copied(seen.state()))
    for one in (seen, other):
        assert (one.looks is None) is (prepare is _fresh)
        assert (None if one.wanted is None else one.wanted.tolist()) == ([1] if prepare is _some else None)
    news = _scored([0.1], [4]) if prepare is _some else _scored([0.1, 0.2, -0.3], [4, 5, 6])
    for first, second in zip(seen.add(news), other.add(news), strict=True):
        wrong = seen.looks.margins <= 0 if seen.looks else None
        assert torch.equal(first, second) if first.is_floating_point() else torch.equal(first[wrong], second[wrong])


def test_what_a_model_says_where_it_is_right_is_in_no_state() -> None:
    """Some heads name the token itself there, and the text must not stand in a file."""
    seen = Seen(1, 3, PLACE)
    _all(seen)
    assert seen.state()["rivals"].tolist() == [[0, 8, 0]]


def test_the_curve_is_told_once_and_after_a_restart_from_its_beginning() -> None:
    curve = Curve()
    numbers = [(step, torch.tensor(1 / (step + 3)), torch.tensor(step / 7)) for step in range(5)]
    for point in numbers[:2]:
        curve.add(*point)
    expected = [(step, float(nats) / math.log(2), float(accuracy)) for step, nats, accuracy in numbers]
    assert list(curve.news()) == expected[:2]
    assert curve.news() == ()
    for point in numbers[2:4]:
        curve.add(*point)
    other = Curve()
    assert all(tensor.shape == (0,) for tensor in other.state().values())
    other.restore(_copied(curve.state()))
    for one in (curve, other):
        one.add(*numbers[4])
    assert list(curve.news()) == expected[2:]
    assert list(other.news()) == expected
