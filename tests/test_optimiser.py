"""The whitened direction is what the big matrix would give, at the price of a small one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cramdemo import optimiser
from cramdemo.optimiser import MOMENTUM, OPTIMISERS, WHITENED_SCALE, Adam, Whitened


def _gradients(steps: int, rows: int = 2, num_mem: int = 2, width: int = 6) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    steep = torch.randn(width, width, generator=generator)  # so that directions are no single number's
    return [torch.randn(rows, num_mem, width, generator=generator) @ steep for _ in range(steps)]


def _by_the_big_matrix(gradients: list[Tensor], window: int) -> Tensor:
    """(C + damping)^-1/2 mean, with C made whole."""
    flat = torch.stack([g.flatten(1) for g in gradients]).double()  # (T, R, K d)
    mean = torch.zeros_like(flat[0])
    for gradient in flat:
        mean = MOMENTUM * mean + (1 - MOMENTUM) * gradient
    mean /= 1 - MOMENTUM ** len(flat)
    decay = optimiser.WINDOW_DECAY
    weights = (1 - decay) * decay ** torch.arange(len(flat) - 1, -1, -1).double() / (1 - decay ** len(flat))
    weights[: max(0, len(flat) - window)] = 0
    covariance = torch.einsum("t,tri,trj->rij", weights, flat, flat)
    values, vectors = torch.linalg.eigh(covariance)
    root = (values.clamp(min=0) + optimiser.DAMPING * values[:, -1:]).rsqrt()
    return torch.einsum("rij,rj,rkj,rk->ri", vectors, root, vectors, mean)


@pytest.mark.parametrize("steps", [1, 3, 8, 20])
def test_whitening_agrees_with_the_matrix_it_never_makes(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    monkeypatch.setattr(optimiser, "WINDOW", 8)
    gradients = _gradients(steps)
    ours = Whitened(torch.zeros(2, 2, 6))
    for gradient in gradients:
        found = ours.direction(gradient)
    expected = WHITENED_SCALE * _by_the_big_matrix(gradients, window=8).view(2, 2, 6)
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_a_turn_of_all_numbers_turns_the_whitened_direction_and_not_adam_s() -> None:
    turn = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(1)))[0]
    apart = {}
    for name, make in OPTIMISERS.items():
        straight, turned = make(torch.zeros(2, 2, 6)), make(torch.zeros(2, 2, 6))
        for gradient in _gradients(10):
            plain = straight.direction(gradient).flatten(1) @ turn
            other = turned.direction((gradient.flatten(1) @ turn).view(2, 2, 6)).flatten(1)
        apart[name] = float((plain - other).norm() / plain.norm())
    assert apart["whitened"] < 0.01
    assert apart["adam"] > 0.1


@pytest.mark.parametrize("make", OPTIMISERS.values(), ids=OPTIMISERS)
def test_each_row_goes_its_own_way(make: type[Adam] | type[Whitened]) -> None:
    both, alone = make(torch.zeros(2, 2, 6)), make(torch.zeros(1, 2, 6))
    for gradient in _gradients(10):
        together = both.direction(gradient)
        torch.testing.assert_close(together[:1], alone.direction(gradient[:1]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", OPTIMISERS.values(), ids=OPTIMISERS)
def test_a_row_that_diverged_spoils_no_other(make: type[Adam] | type[Whitened]) -> None:
    spoilt, whole = make(torch.zeros(2, 2, 6)), make(torch.zeros(2, 2, 6))
    for step, gradient in enumerate(_gradients(6)):
        bad = gradient.clone()
        bad[1] = torch.nan if step == 3 else bad[1]
        torch.testing.assert_close(spoilt.direction(bad)[0], whole.direction(gradient)[0], rtol=1e-4, atol=1e-4)


def test_no_gradient_at_all_is_no_direction() -> None:
    for make in OPTIMISERS.values():
        assert bool((make(torch.zeros(1, 2, 6)).direction(torch.zeros(1, 2, 6)) == 0).all())


@pytest.mark.parametrize("make", OPTIMISERS.values(), ids=OPTIMISERS)
@pytest.mark.parametrize("steps", [0, 1, 7, 8, 13])
def test_a_restored_one_goes_the_same_way_bit_by_bit(
    monkeypatch: pytest.MonkeyPatch, make: type[Adam] | type[Whitened], steps: int
) -> None:
    monkeypatch.setattr(optimiser, "WINDOW", 8)
    gradients = _gradients(20)
    whole, other = make(torch.zeros(2, 2, 6)), make(torch.zeros(2, 2, 6))
    for gradient in gradients[:steps]:
        whole.direction(gradient)
    fresh = {name: (tensor.dtype, tensor.shape) for name, tensor in other.state().items()}
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in whole.state().items()} == fresh
    other.restore({name: tensor.clone() for name, tensor in whole.state().items()})
    for gradient in gradients[steps:]:
        assert torch.equal(other.direction(gradient), whole.direction(gradient))
