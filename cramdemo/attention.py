"""Attention for the optimiser's steps: the fewest passes over the scores that forward and backward can do with.

The models of transformers call it through its attention interface under the name `NAME`. On a CPU a step's scores
are small and every pass over them costs as much as arithmetic: scale and mask ride on the product, the softmax is
one pass in the scores' own dtype (summed in float32), and what the backward pass needs is saved once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, eager_mask

NAME = "cramdemo"


class _Attention(torch.autograd.Function):
    """softmax(scaling * q k^T + mask) v, for query heads that share key heads in groups."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        """Query (B, H, n, h), key and value (B, G, m, h), mask (1 or B, 1, n, m), scaling -> (B, n, H, h)."""
        query, key, value, mask, scaling = inputs
        batch, heads, length, width = query.shape
        groups, seen = key.shape[1], key.shape[2]
        q = query.reshape(batch * groups, -1, width)  # (B * G, H / G * n, h)
        k, v = (x.reshape(batch * groups, seen, width) for x in (key, value))
        bias = mask.expand(batch, heads, length, seen).reshape(batch * groups, -1, seen)
        share = torch.softmax(torch.baddbmm(bias, q, k.transpose(1, 2), alpha=scaling), -1)
        ctx.save_for_backward(q, k, v, share)
        ctx.scaling = scaling
        out: Tensor = torch.bmm(share, v).view(batch, heads, length, width).transpose(1, 2)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of query, key and value."""
        (gradient,) = gradients  # (B, n, H, h)
        q, k, v, share = ctx.saved_tensors
        batch, length, heads, width = gradient.shape
        groups = q.shape[0] // batch
        down = gradient.transpose(1, 2).reshape(q.shape)
        by_share = torch.bmm(down, v.transpose(1, 2))
        by_scores = torch._softmax_backward_data(by_share, share, -1, share.dtype)
        zero = q.new_zeros(())
        by_query = torch.baddbmm(zero, by_scores, k, beta=0, alpha=ctx.scaling)
        by_key = torch.baddbmm(zero, by_scores.transpose(1, 2), q, beta=0, alpha=ctx.scaling)
        by_value = torch.bmm(share.transpose(1, 2), down)
        return (
            by_query.view(batch, heads, length, width),
            by_key.view(batch, groups, -1, width),
            by_value.view(batch, groups, -1, width),
            None,
            None,
        )


def attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **settings: Any
) -> tuple[Tensor, None]:
    """In the form that transformers asks for; no dropout, since the model is frozen.

    Args:
        query: (B, H, n, h). key, value: (B, G, m, h), G a divisor of H.
        attention_mask: (1 or B, 1, n, m), added to the scores.

    Returns:
        (B, n, H, h), and no weights.
    """
    scaling = settings.get("scaling") or query.shape[-1] ** -0.5
    mask = query.new_zeros(1, 1, 1, 1) if attention_mask is None else attention_mask
    apply: Any = _Attention.apply
    return apply(query, key, value, mask, scaling), None


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, eager_mask)
