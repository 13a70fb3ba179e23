"""The loss that the [mem] vectors are trained on: cross-entropy with a temperature, a logit margin, weights of tokens.

Two forms of the same loss: `cram_loss` over logits, which autograd differentiates, and `head_loss` over the hidden
states in front of a linear head, which works out its own gradient block by block and never holds more than a block
of logits in float32: with a vocabulary of 50,000 the usual way spends a third of a step's time on moving logits.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

LOGIT_BYTES = 64 * 2**20  # of logits held at once, in the head's dtype
MOST_WEIGHT = 20.0  # of a token in the loss, and its inverse the least, where the mean is 1


class HeadLoss(NamedTuple):
    """What `head_loss` says of each prediction.

    Attributes:
        nats: (B, N), float32, plain cross-entropy of each token.
        margins: (B, N), float32, logit of the right token minus the largest other one.
        rivals: (B, N), int64, that other token: what the model says instead where the margin is below 0.
        gradient: (B, N, d), of the loss by the hidden states, in their dtype.
    """

    nats: Tensor
    margins: Tensor
    rivals: Tensor
    gradient: Tensor


def cram_loss(
    logits: Tensor,
    token_ids: Tensor,
    token_margins: Tensor,
    *,
    temperature: float,
    margin: float,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Weighted mean over tokens of T * cross-entropy(logits / T), plus the shortfall from the margin.

    The temperature is progressive cramming's (ICML 2026); below 1 it spends the gradient on tokens that are
    still wrong. The hinge keeps pushing a token that is right by less than the margin.

    Args:
        logits: (B, N, V), float32.
        token_ids: (B, N), int64.
        token_margins: (B, N), float32, differentiable (`metrics.margins`).
        temperature: T, above 0.
        margin: logit margin below which a token is still pushed.
        weights: (B, N), float32, of each token, 1 in the mean (`boosted`); None for 1 each.

    Returns:
        The loss (B,), float32, nats a token; and the plain cross-entropy of each token (B, N), nats, without gradient.
    """
    nats = _cross_entropy(logits / temperature, token_ids) * temperature
    plain = nats if temperature == 1 else _cross_entropy(logits.detach(), token_ids)
    hinge = F.relu(margin - token_margins)
    return ((nats + hinge) * (1 if weights is None else weights)).mean(-1), plain.detach()


def boosted(weights: Tensor, token_margins: Tensor, *, margin: float, rate: float) -> Tensor:
    """Weights of tokens for the next step: more for those that miss the margin, less for those beyond it.

    A text is lossless only if its worst token is right, so that what is sought is the largest smallest margin, not
    the least mean loss. Multiplicative weights (Freund and Schapire 1997) are the tokens' side of that game.

    Args:
        weights: (B, N), float32, of this step. token_margins: (B, N), float32.
        rate: of the logarithm's change a step, for a token that is a logit or more away from the margin.

    Returns:
        (B, N), float32, with a mean of 1 for each text.
    """
    short = (margin - token_margins).clamp(-1, 1)
    weights = weights * (rate * short).exp()
    weights = (weights / weights.mean(-1, keepdim=True)).clamp(1 / MOST_WEIGHT, MOST_WEIGHT)
    return weights / weights.mean(-1, keepdim=True)


def _cross_entropy(logits: Tensor, token_ids: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), token_ids.flatten(), reduction="none").view_as(token_ids)


@torch.no_grad()
def head_loss(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    token_ids: Tensor,
    *,
    temperature: float,
    margin: float,
    weights: Tensor | None = None,
) -> HeadLoss:
    """`cram_loss` behind a linear head, with its gradient by the hidden states, in blocks of bounded size.

    Args:
        hidden: (B, N, d), what the head reads for each of the N predictions.
        weight: (V, d). bias: (V,) or None.
        token_ids: (B, N), int64.
        temperature: T, above 0.
        margin: logit margin below which a token is still pushed.
        weights: (B, N), float32, of each token; None for 1 each.
    """
    rows, ids = hidden.flatten(0, 1), token_ids.flatten()  # (B * N, d), (B * N,)
    nats = torch.empty(len(ids), device=hidden.device)
    token_margins, rivals, gradient = torch.empty_like(nats), torch.empty_like(ids), torch.empty_like(rows)
    block = max(1, LOGIT_BYTES // (weight.shape[0] * weight.element_size()))
    for start in range(0, len(ids), block):
        part = slice(start, start + block)
        logits = F.linear(rows[part], weight, bias)  # (n, V)
        nats[part], token_margins[part], rivals[part] = _gradient_in_place(logits, ids[part], temperature, margin)
        torch.mm(logits, weight, out=gradient[part])
    gradient /= token_ids.shape[1]  # the mean over a text's tokens
    if weights is not None:
        gradient *= weights.reshape(-1, 1)
    nats, token_margins, rivals = (x.view_as(token_ids) for x in (nats, token_margins, rivals))
    return HeadLoss(nats, token_margins, rivals, gradient.view_as(hidden))


def _gradient_in_place(logits: Tensor, ids: Tensor, temperature: float, margin: float) -> tuple[Tensor, Tensor, Tensor]:
    """Turns logits (n, V) into the gradient of each row's loss by them; returns nats, margins and rivals, (n,) each.

    Of T * cross-entropy(z / T) that is softmax(z / T) - onehot(right); where the margin is missed, the hinge adds
    onehot(rival) - onehot(right). Softmax sums in float32 whatever the dtype of the logits. Single logits are
    indexed, since on a CPU `scatter_` copies them all.
    """
    rows = torch.arange(len(ids), device=ids.device)
    right = logits[rows, ids]
    logits[rows, ids] = -math.inf
    rival, at = logits.max(-1)
    logits[rows, ids] = right
    right, rival = right.float(), rival.float()
    nats = None
    if temperature != 1:
        nats = torch.logsumexp(logits.float(), -1) - right
        logits /= temperature
    torch.softmax(logits, -1, out=logits)
    if nats is None:  # the largest share is at least 1 / V, so its logarithm keeps its digits in any dtype
        largest = logits[rows, torch.where(right >= rival, ids, at)].float()
        nats = torch.maximum(right, rival) - right - largest.log()
    short = (right - rival < margin).to(logits.dtype)
    logits[rows, ids] -= 1 + short
    logits[rows, at] += short
    return nats, right - rival, at
