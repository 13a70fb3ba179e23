"""The loss that the [mem] vectors are trained on: cross-entropy with a temperature, and a logit margin."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def cram_loss(
    logits: Tensor, token_ids: Tensor, token_margins: Tensor, *, temperature: float, margin: float
) -> tuple[Tensor, Tensor]:
    """Mean over tokens of T * cross-entropy(logits / T), plus the shortfall from the margin.

    The temperature is progressive cramming's (ICML 2026); below 1 it spends the gradient on tokens that are
    still wrong. The hinge keeps pushing a token that is right by less than the margin.

    Args:
        logits: (B, N, V), float32.
        token_ids: (B, N), int64.
        token_margins: (B, N), float32, differentiable (`metrics.margins`).
        temperature: T, above 0.
        margin: logit margin below which a token is still pushed.

    Returns:
        The loss (B,), float32, nats a token; and the plain cross-entropy (B,), nats a token, without gradient.
    """
    nats = _cross_entropy(logits / temperature, token_ids) * temperature
    plain = nats if temperature == 1 else _cross_entropy(logits.detach(), token_ids)
    hinge = F.relu(margin - token_margins)
    return (nats + hinge).mean(-1), plain.detach().mean(-1)


def _cross_entropy(logits: Tensor, token_ids: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), token_ids.flatten(), reduction="none").view_as(token_ids)
