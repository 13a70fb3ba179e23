"""The loss: plain cross-entropy by default values, more push where a token is wrong or only just right."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cramdemo.metrics import margins
from cramdemo.objective import MOST_WEIGHT, boosted, cram_loss


def _loss(logits: Tensor, ids: Tensor, *, temperature: float = 1.0, margin: float = 0.0) -> tuple[Tensor, Tensor]:
    """The loss of each text, and the mean of its tokens' plain cross-entropy."""
    loss, nats = cram_loss(logits, ids, margins(logits, ids), temperature=temperature, margin=margin)
    return loss, nats.mean(-1)


def _gradient(logits: Tensor, ids: Tensor, **settings: float) -> Tensor:
    leaf = logits.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(_loss(leaf, ids, **settings)[0].sum(), leaf)
    return gradient


@pytest.fixture
def solved() -> tuple[Tensor, Tensor]:
    """Logits that are right everywhere, with margins between 0.5 and 5."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(7, (2, 5), generator=generator)
    logits = torch.randn(2, 5, 7, generator=generator)
    wanted = torch.linspace(0.5, 5, 10).view(2, 5)
    return logits.scatter_add(-1, ids[..., None], (wanted - margins(logits, ids))[..., None]), ids


def test_temperature_1_without_margin_is_plain_cross_entropy_where_all_is_right(solved: tuple[Tensor, Tensor]) -> None:
    logits, ids = solved
    expected = F.cross_entropy(logits.flatten(0, 1), ids.flatten(), reduction="none").view(2, 5).mean(-1)
    loss, nats = _loss(logits, ids)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(nats, expected)


@pytest.mark.parametrize("settings", [{"temperature": 0.25}, {"temperature": 3.0}, {"margin": 4.0}])
def test_the_reported_cross_entropy_is_the_plain_one_whatever_is_trained(
    solved: tuple[Tensor, Tensor], settings: dict[str, float]
) -> None:
    logits, ids = solved
    loss, nats = _loss(logits.requires_grad_(True), ids, **settings)
    torch.testing.assert_close(nats, _loss(logits.detach(), ids)[0])
    assert loss.requires_grad
    assert not nats.requires_grad


def test_every_token_counts_the_same_token_0_too() -> None:
    logits, ids = torch.zeros(1, 4, 8), torch.tensor([[1, 2, 3, 4]])
    gradient = _gradient(logits, ids)
    torch.testing.assert_close(gradient.abs().sum(-1), torch.full((1, 4), 2 * (1 - 1 / 8) / 4))


def test_descent_lifts_the_right_token_and_lowers_every_other(solved: tuple[Tensor, Tensor]) -> None:
    logits, ids = solved
    gradient = _gradient(logits, ids, temperature=0.5, margin=1.0)
    right = F.one_hot(ids, 7).bool()
    assert bool((gradient[right] < 0).all())
    assert bool((gradient[~right] > 0).all())


def test_tokens_below_the_margin_are_pushed_harder_and_the_others_as_without_it(
    solved: tuple[Tensor, Tensor],
) -> None:
    logits, ids = solved
    push = -_gradient(logits, ids, margin=2.0).gather(-1, ids[..., None])[..., 0]
    plain = -_gradient(logits, ids).gather(-1, ids[..., None])[..., 0]
    below = margins(logits, ids) < 2.0
    assert 0 < int(below.sum()) < below.numel()
    assert bool((push[below] > plain[below]).all())
    torch.testing.assert_close(push[~below], plain[~below], rtol=0, atol=0)


def test_a_lower_temperature_spends_the_gradient_on_tokens_that_are_wrong(solved: tuple[Tensor, Tensor]) -> None:
    logits, ids = solved
    ids = ids.clone()
    ids[0, 0] = (ids[0, 0] + 1) % 7  # one wrong token among right ones
    share = {}
    for temperature in (1.0, 0.25):
        size = _gradient(logits, ids, temperature=temperature)[0].norm(dim=-1)
        share[temperature] = float(size[0] / size.sum())
    assert share[0.25] > share[1.0]


def test_a_low_temperature_costs_a_wrong_token_its_logit_gap_and_a_right_one_nothing(
    solved: tuple[Tensor, Tensor],
) -> None:
    """T * cross-entropy(logits / T) keeps the size of the loss, so that one learning rate serves every T.

    The hinge, which asks for a margin of 0 here, adds the gap of a wrong token once more.
    """
    logits, ids = solved
    ids = (ids + torch.tensor([[1, 0, 1, 0, 0], [0, 0, 0, 0, 0]])) % 7
    loss, _ = _loss(logits, ids, temperature=0.01)
    torch.testing.assert_close(loss, 2 * F.relu(-margins(logits, ids)).mean(-1), rtol=0, atol=0.01)


def test_texts_of_a_batch_have_losses_of_their_own(solved: tuple[Tensor, Tensor]) -> None:
    logits, ids = solved
    both = _loss(logits, ids, temperature=0.5, margin=3.0)[0]
    alone = torch.cat([_loss(logits[i : i + 1], ids[i : i + 1], temperature=0.5, margin=3.0)[0] for i in (0, 1)])
    torch.testing.assert_close(both, alone)


def test_weights_share_out_the_mean_over_tokens(solved: tuple[Tensor, Tensor]) -> None:
    logits, ids = solved
    leaf = logits.clone().requires_grad_(True)
    weights = torch.tensor([[1.0, 0, 2, 0.5, 1.5], [1, 1, 1, 1, 1]])
    loss, nats = cram_loss(leaf, ids, margins(leaf, ids), temperature=0.5, margin=3.0, weights=weights)
    (found,) = torch.autograd.grad(loss.sum(), leaf)
    torch.testing.assert_close(found, weights[..., None] * _gradient(logits, ids, temperature=0.5, margin=3.0))
    torch.testing.assert_close(nats.mean(-1), _loss(logits, ids)[1])  # what is reported knows no weights


# ---- weights of tokens


def test_tokens_short_of_the_margin_gain_weight_and_those_beyond_it_lose_it() -> None:
    token_margins = torch.tensor([[-3.0, -0.5, 0.3, 0.5, 4.0]])
    weights = boosted(torch.ones(1, 5), token_margins, margin=0.3, rate=0.1)
    expected = torch.exp(0.1 * torch.tensor([[1.0, 0.8, 0.0, -0.2, -1.0]]))  # a logit or more away is all the same
    torch.testing.assert_close(weights, expected / expected.mean())


def test_each_text_s_weights_have_a_mean_of_one_and_are_its_own() -> None:
    token_margins = torch.randn(3, 7, generator=torch.Generator().manual_seed(0))
    weights = torch.ones(3, 7)
    for _ in range(30):
        weights = boosted(weights, token_margins, margin=0.3, rate=0.1)
    torch.testing.assert_close(weights.mean(-1), torch.ones(3))
    alone = torch.ones(1, 7)
    for _ in range(30):
        alone = boosted(alone, token_margins[1:2], margin=0.3, rate=0.1)
    torch.testing.assert_close(weights[1:2], alone)


def test_weights_stay_within_bounds_however_long_a_token_is_wrong() -> None:
    token_margins = torch.tensor([[-2.0] + 99 * [2.0]])
    weights = torch.ones(1, 100)
    for _ in range(2000):
        weights = boosted(weights, token_margins, margin=0.3, rate=0.1)
    assert float(weights.max() / weights.min()) <= MOST_WEIGHT**2 * 1.001
    assert float(weights[0, 0]) > 10
    for _ in range(100):  # and a token that comes right again is not held up by its past
        weights = boosted(weights, -token_margins, margin=0.3, rate=0.1)
    assert float(weights[0, 0]) < 1


def test_a_rate_of_zero_leaves_the_weights_alone() -> None:
    weights = torch.tensor([[0.5, 1.5]])
    torch.testing.assert_close(boosted(weights, torch.tensor([[-9.0, 9.0]]), margin=0.3, rate=0.0), weights)
