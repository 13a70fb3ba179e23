"""One optimiser step's forward and backward pass: what a frozen LM says of [mem], and the gradient of [mem].

Keeps nothing: no cache, no hidden states but the last ones, no gradient of a weight. Only the predictions that are
asked for pass the head. Knows nothing of schedules and of when to stop.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from cramdemo.metrics import margins
from cramdemo.models import FrozenLM
from cramdemo.objective import cram_loss, head_loss


class Scored(NamedTuple):
    """What one pass says; P predictions of each of R rows.

    Attributes:
        nats: (R, P), float32, plain cross-entropy of each token.
        margins: (R, P), float32, logit of the right token minus the largest other one.
        rivals: (R, P), int64, what the model says instead of a token whose margin is below 0; of others some token.
        gradient: (R, K, d), float32, of each row's loss by its vectors.
    """

    nats: Tensor
    margins: Tensor
    rivals: Tensor
    gradient: Tensor


def score(
    lm: FrozenLM,
    mem: Tensor,
    token_ids: Tensor,
    *,
    temperature: float,
    margin: float,
    weights: Tensor | None = None,
    wanted: Tensor | None = None,
) -> Scored:
    """The loss of R candidate [mem] for a text of n tokens, token by token, and its gradient.

    Args:
        mem: (R, K, d), float32.
        token_ids: (R, n), int64.
        temperature, margin: of the loss (`objective.cram_loss`), which is the mean over the predictions wanted.
        weights: (R, n), float32, of each token in that mean; None for 1 each.
        wanted: (P,), int64, the tokens whose predictions are computed and trained; None for all n.

    Returns:
        Tensors on the device of `mem`, which need not be the model's.
    """
    weights, wanted = (x if x is None else x.to(lm.device) for x in (weights, wanted))
    ids = token_ids if wanted is None else token_ids[:, wanted]  # (R, P)
    if weights is not None and wanted is not None:
        weights = weights[:, wanted]
    with torch.enable_grad():  # in here only: a generator around this may be resumed on another thread
        leaf = mem.detach().to(lm.device).requires_grad_(True)
        if lm.linear_head is None:
            logits = lm.text_logits(leaf, token_ids, wanted)
            token_margins = margins(logits, ids)
            loss, nats = cram_loss(logits, ids, token_margins, temperature=temperature, margin=margin, weights=weights)
            (gradient,) = torch.autograd.grad(loss.sum(), leaf)
            said = logits.detach().argmax(-1)
            return Scored(*(x.to(mem.device) for x in (nats, token_margins.detach(), said, gradient)))
        hidden = lm.text_hidden(leaf, token_ids, wanted)  # (R, P, d)
        weight, bias = lm.linear_head
        found = head_loss(hidden.detach(), weight, bias, ids, temperature=temperature, margin=margin, weights=weights)
        (gradient,) = torch.autograd.grad(hidden, leaf, found.gradient)
    return Scored(*(x.to(mem.device) for x in (found.nats, found.margins, found.rivals, gradient)))
