"""Measures of how well [mem] vectors hold a text: pure functions of tensors, in bits and tokens.

Logits here are always the N predictions of a text's N tokens, (B, N, V): row n predicts token n, and row 0
comes from the last [mem] position. All N tokens count, token 0 too; where a bare LM is the other side,
both sides score tokens 1..N-1, since a bare LM cannot price token 0.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from cramdemo.errors import ConfigError

CAPACITY_ACCURACY = 0.99  # arXiv 2502.13063: a length is held whose teacher-forced accuracy is at least this
CAPACITY_BITS_A_NUMBER = 16  # theoretical capacity is quoted for 16-bit vectors wherever it is shown


def cross_entropy_bits(logits: Tensor, token_ids: Tensor) -> Tensor:
    """Cost of each text token given the [mem] vectors and the text before it.

    Args:
        logits: (B, N, V), any float dtype.
        token_ids: (B, N), int64.

    Returns:
        (B, N), float32, bits.

    Raises:
        ConfigError: `logits` does not have one row for each token.
    """
    _check_rows(logits, token_ids)
    nats = F.cross_entropy(logits.float().flatten(0, 1), token_ids.flatten(), reduction="none")
    return nats.view_as(token_ids) / math.log(2)


def correct_tokens(logits: Tensor, token_ids: Tensor) -> Tensor:
    """Whether the argmax is the right token at each position: (B, N), bool. Its mean is the teacher-forced accuracy.

    Raises:
        ConfigError: `logits` does not have one row for each token.
    """
    _check_rows(logits, token_ids)
    return logits.argmax(-1) == token_ids


def margins(logits: Tensor, token_ids: Tensor) -> Tensor:
    """Float32 logit of the right token minus the largest other one: (B, N); above 0 the token is solved.

    Raises:
        ConfigError: `logits` does not have one row for each token.
    """
    _check_rows(logits, token_ids)
    wide = logits.float()
    right = wide.gather(-1, token_ids[..., None])[..., 0]
    others = wide.scatter(-1, token_ids[..., None], -math.inf)
    return right - others.amax(-1)


def solved_prefix(correct: Tensor) -> Tensor:
    """Number of leading tokens that are all correct: (B, N) bool -> (B,), int64."""
    return correct.long().cumprod(-1).sum(-1)


def information_gain_bits(bare_bits: Tensor, mem_bits: Tensor) -> float:
    """H_LM - H_LM+mem over tokens 1..N-1, in bits (arXiv 2502.13063 gives it in nats).

    Args:
        bare_bits: (N - 1,), cost of tokens 1..N-1 under the bare LM.
        mem_bits: (N,), cost of tokens 0..N-1 with [mem] in front.
    """
    return float(bare_bits.double().sum() - mem_bits[1:].double().sum())


def token_gain(bare_correct: Tensor, mem_correct: Tensor) -> int:
    """Correct tokens with [mem] minus correct tokens of the bare LM, both over tokens 1..N-1.

    Args:
        bare_correct: (N - 1,), bool.
        mem_correct: (N,), bool.
    """
    return int(mem_correct[1:].sum()) - int(bare_correct.sum())


def theoretical_capacity(num_mem: int, hidden_size: int, vocab_size: int) -> float:
    """Tokens that K x d 16-bit numbers could hold at log2(V) bits each (arXiv 2502.13063)."""
    return num_mem * hidden_size * CAPACITY_BITS_A_NUMBER / math.log2(vocab_size)


def _check_rows(logits: Tensor, token_ids: Tensor) -> None:
    if logits.shape[:-1] != token_ids.shape:
        raise ConfigError(
            f"logits have shape {tuple(logits.shape)}; {tuple(token_ids.shape)} tokens need one row for each. "
            "Pass the predictions of the text tokens only (FrozenLM.text_logits gives them)."
        )
