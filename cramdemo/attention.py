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


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float) -> tuple[Tensor, Any]:
    """softmax(scaling * q k^T + mask) v, for query heads that share key heads in groups.

    Args:
        query: (B, H, n, h). key, value: (B, G, m, h). mask: (1 or B, 1, n, m).

    Returns:
        (B, n, H, h), and what `attend_back` needs.
    """
    batch, heads, length, width = query.shape
    groups, seen = key.shape[1], key.shape[2]
    q = query.reshape(batch * groups, -1, width)  # (B * G, H / G * n, h)
    k, v = (x.reshape(batch * groups, seen, width) for x in (key, value))
    bias = mask.expand(batch, heads, length, seen).reshape(batch * groups, -1, seen)
    share = torch.softmax(torch.baddbmm(bias, q, k.transpose(1, 2), alpha=scaling), -1)
    return torch.bmm(share, v).view(batch, heads, length, width).transpose(1, 2), (q, k, v, share)


def attend_back(gradient: Tensor, saved: Any, groups: int, scaling: float) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients by query (B, H, n, h), key and value (B, G, m, h) from that by the output, (B, n, H, h)."""
    q, k, v, share = saved
    batch, _, heads, width = gradient.shape
    down = gradient.transpose(1, 2).reshape(q.shape)
    by_share = torch.bmm(down, v.transpose(1, 2))
    by_scores = torch._softmax_backward_data(by_share, share, -1, share.dtype)
    zero = q.new_zeros(())
    by_query = torch.baddbmm(zero, by_scores, k, beta=0, alpha=scaling)
    by_key = torch.baddbmm(zero, by_scores.transpose(1, 2), q, beta=0, alpha=scaling)
    by_value = torch.bmm(share.transpose(1, 2), down)
    by_key, by_value = (x.view(batch, groups, -1, width) for x in (by_key, by_value))
    return by_query.view(batch, heads, -1, width), by_key, by_value


class _Attention(torch.autograd.Function):
    """`attend` for autograd."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        """Query, key, value, mask and scaling as `attend` takes them -> (B, n, H, h)."""
        out, saved = attend(*inputs)
        ctx.save_for_backward(*saved)
        ctx.groups, ctx.scaling = inputs[1].shape[1], inputs[4]
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients by query, key and value."""
        return *attend_back(gradients[0], ctx.saved_tensors, ctx.groups, ctx.scaling), None, None


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
