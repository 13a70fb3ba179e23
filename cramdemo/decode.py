"""From [mem] vectors back to text: greedy reconstruction, and `verify`, the only judge of "lossless".

The model is fed the vectors alone and then its own tokens, one at a time, with a cache of what it has read: keys and
values, or the state of a model without attention.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cramdemo.errors import ModelError, ModelMismatch
from cramdemo.metrics import margins
from cramdemo.models import FrozenLM
from cramdemo.vectors import MemVectors, dtype_name, from_bytes, to_bytes, token_digest

GIVEN_UP = "Stopped before the vectors were decoded to their end."
_CACHES = ("past_key_values", "cache_params")  # a model that is handed the other one's name reads on without a past


@dataclass(frozen=True)
class Decoded:
    """What greedy reconstruction wrote.

    Attributes:
        text: the decoded text.
        token_ids: its N ids.
        matches: whether the ids have the digest in the vector file, which proves the text identical.
    """

    text: str
    token_ids: list[int]
    matches: bool


@dataclass(frozen=True)
class Verification:
    """One check of vectors against the text they were made for, by decoding.

    Attributes:
        device, dtype: where and in what the model ran.
        lossless: all N ids were equal.
        num_tokens: N.
        correct_prefix: leading tokens that were right before the first wrong one.
        min_margin: smallest logit margin over the tokens decoded up to there.
    """

    device: str
    dtype: str
    lossless: bool
    num_tokens: int
    correct_prefix: int
    min_margin: float

    def as_dict(self) -> dict[str, Any]:
        """As it stands in the vector file's `verified` list."""
        return dataclasses.asdict(self)


def check_model(lm: FrozenLM, vectors: MemVectors) -> None:
    """Refuse vectors that this model would read as nonsense.

    Raises:
        ModelMismatch: other width, other weights, or other tokenizer.
    """
    made_for = vectors.model_id or "another model"
    if vectors.hidden_size != lm.hidden_size:
        raise ModelMismatch(
            f"The file holds [mem] vectors of width {vectors.hidden_size}, but {lm.name} reads width "
            f"{lm.hidden_size}. They were made for {made_for}; pick that model to decode them."
        )
    if vectors.model_fingerprint != lm.fingerprint:
        same_name = " of that name, but with other weights" if made_for == lm.name else ""
        raise ModelMismatch(
            f"The vectors were made for {made_for}{same_name or ', not ' + lm.name}. "
            f"{'Get the version of the model that made them.' if same_name else 'Pick that model to decode them.'}"
        )
    if vectors.tokenizer_fingerprint != lm.tokenizer_fingerprint:
        raise ModelMismatch(f"The vectors were made with another tokenizer than the one of {lm.name} on this machine.")
    if vectors.num_tokens > lm.max_tokens(vectors.num_mem):
        raise ModelMismatch(
            f"The file says {vectors.num_tokens} tokens, but {lm.name} holds at most {lm.max_tokens(vectors.num_mem)}."
        )


def decode_tokens(lm: FrozenLM, vectors: MemVectors) -> Iterator[int]:
    """The N token ids of the greedy reconstruction, one by one.

    Raises:
        ModelMismatch: the vectors were made for another model.
    """
    check_model(lm, vectors)
    for logits in _greedy(lm, vectors.mem[None], vectors.num_tokens):
        yield int(logits[0].argmax())


def decode(lm: FrozenLM, vectors: MemVectors) -> Decoded:
    """The text that the model writes from the vectors alone.

    Raises:
        ModelMismatch: the vectors were made for another model.
    """
    token_ids = list(decode_tokens(lm, vectors))
    return Decoded(lm.detokenize(token_ids), token_ids, token_digest(token_ids) == vectors.token_sha256)


def verify(
    lm: FrozenLM, vectors: MemVectors, token_ids: Sequence[int], *, give_up: Callable[[], bool] = lambda: False
) -> Verification:
    """Decode the vectors as their file will hold them, and compare every id with the text's.

    The vectors are written to bytes and read back first, so what is judged is what is downloaded. Decoding
    stops at the first wrong token.

    Args:
        give_up: asked at each token; when it says True, nothing is known.

    Raises:
        ModelError: it was given up, as `GIVEN_UP` says.
        ModelMismatch: the vectors were made for another model.
        VectorFileError: the vectors cannot be written.
    """
    stored = from_bytes(to_bytes(vectors))
    check_model(lm, stored)
    correct, smallest = greedy_prefix(lm, stored.mem, token_ids, give_up)
    return Verification(
        device=lm.device.type,
        dtype=dtype_name(lm.dtype),
        lossless=correct == len(token_ids) == stored.num_tokens and token_digest(token_ids) == stored.token_sha256,
        num_tokens=len(token_ids),
        correct_prefix=correct,
        min_margin=smallest,
    )


def greedy_prefix(
    lm: FrozenLM, mem: Tensor, token_ids: Sequence[int], give_up: Callable[[], bool] = lambda: False
) -> tuple[int, float]:
    """How many leading tokens greedy reconstruction gets right, and the smallest logit margin among them.

    Args:
        mem: (K, d).
        token_ids: the text's N ids; decoding stops at the first wrong one.
        give_up: asked at each token.

    Returns:
        0 to N, and 0.0 if it is 0.

    Raises:
        ModelError: it was given up, as `GIVEN_UP` says.
    """
    (found,) = greedy_side_by_side(lm, mem[None], [token_ids], give_up=give_up)
    return found


def greedy_prefixes(lm: FrozenLM, mem: Tensor, token_ids: Sequence[int]) -> list[int]:
    """How many leading tokens the greedy reconstruction from each of many vectors of one text gets right.

    They are decoded side by side, which may differ from one at a time in the last bits of the logits.

    Args:
        mem: (B, K, d).
        token_ids: the text's N ids; decoding stops when all B have gone wrong.

    Returns:
        B numbers from 0 to N.
    """
    return [count for count, _ in greedy_side_by_side(lm, mem, [token_ids] * len(mem))]


def greedy_side_by_side(
    lm: FrozenLM,
    mem: Tensor,
    texts: Sequence[Sequence[int]],
    *,
    least_margin: float = 0.0,
    give_up: Callable[[], bool] = lambda: False,
) -> list[tuple[int, float]]:
    """`greedy_prefix` of many vectors, each with a text of its own, decoded together.

    That may differ from one at a time in the last bits of the logits, so that a margin can be asked for.

    Args:
        mem: (B, K, d).
        texts: B texts of ids; decoding stops when all have gone wrong.
        least_margin: logits; a token that is right by less counts as wrong.
        give_up: asked at each token.

    Returns:
        For each how many leading tokens are right, and the smallest logit margin among them, 0.0 if there is none.

    Raises:
        ModelError: it was given up, as `GIVEN_UP` says.
    """
    longest = max(map(len, texts), default=0)
    ids = torch.tensor([[*text, *[0] * (longest - len(text))] for text in texts], device=lm.device)  # (B, longest)
    found = [(0, float("inf"))] * len(texts)
    for position, logits in enumerate(_greedy(lm, mem, longest)):
        right = (logits.argmax(-1) == ids[:, position]).tolist()
        by = margins(logits[:, None], ids[:, position, None])[:, 0].tolist()
        going = [
            row
            for row, (count, _) in enumerate(found)
            if count == position < len(texts[row]) and right[row] and not by[row] < least_margin
        ]
        if not going:
            break
        if give_up():
            raise ModelError(GIVEN_UP)
        for row in going:
            found[row] = (position + 1, min(found[row][1], by[row]))
    return [(count, margin if count else 0.0) for count, margin in found]


def decode_side_by_side(lm: FrozenLM, mem: Tensor, num_tokens: int) -> Iterator[list[int]]:
    """The ids that greedy reconstruction writes from each of many sets of vectors, a position at a time.

    They are decoded together, which may differ from one at a time in the last bits of the logits.

    Args:
        mem: (B, K, d).

    Yields:
        B ids, `num_tokens` times.
    """
    for logits in _greedy(lm, mem, num_tokens):
        yield [int(token) for token in logits.argmax(-1)]


def _greedy(lm: FrozenLM, mem: Tensor, num_tokens: int) -> Iterator[Tensor]:
    """Logits (B, V), float32, that choose each of `num_tokens` tokens; the argmax is fed back."""
    inputs = mem.to(lm.device, lm.dtype)  # (B, K, d)
    cache: dict[str, Any] = {}
    for _ in range(num_tokens):
        logits, cache = _next_logits(lm, inputs, cache)
        yield logits
        inputs = lm.embed(logits.argmax(-1)[:, None])  # (B, 1, d)


@torch.no_grad()
def _next_logits(lm: FrozenLM, inputs: Tensor, cache: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
    """One decoding step. Gradients are off in here only: a generator may be resumed on another thread."""
    output = lm.model(inputs_embeds=inputs, use_cache=True, logits_to_keep=1, **cache)
    return output.logits[:, -1].float(), {name: output[name] for name in _CACHES if name in output}
