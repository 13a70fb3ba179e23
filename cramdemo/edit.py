"""Vectors changed by hand, scaled or blended with others, and what the model writes from them then.

The changed vectors are decoded beside the unchanged ones, so that each token can be set against the one that stood in
its place. What a file says of itself is not said of vectors that were changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cramdemo.decode import check_model, decode_side_by_side
from cramdemo.errors import ConfigError, ModelMismatch, plural
from cramdemo.models import FrozenLM
from cramdemo.vectors import MemVectors

MAX_SCALE = 2.0


@dataclass(frozen=True)
class Edit:
    """What is done to vectors.

    Attributes:
        scale: all numbers are multiplied by it, 0 to `MAX_SCALE`; 1 leaves them as they are.
        share: of the second vectors in a blend, 0 to 1; 0 leaves the first ones as they are.
    """

    scale: float = 1.0
    share: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is out of range.

        Raises:
            ConfigError: a value is no number, or out of its range.
        """
        for name, most in (("scale", MAX_SCALE), ("share", 1.0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= most:
                raise ConfigError(f"{name} is {str(value)[:20]}; give a number from 0 to {most:g}.")


@dataclass(frozen=True)
class Edited:
    """What has been written from edited vectors so far.

    Attributes:
        edit: what was done to the vectors.
        token_ids: written from the edited vectors.
        first_ids, second_ids: the unedited ones' at the same places, no more than each has; the second are empty where
            nothing is blended.
        num_tokens: how many will be written.
        first_tokens, second_tokens: N of the first vectors, and of the second.
    """

    edit: Edit
    token_ids: tuple[int, ...]
    first_ids: tuple[int, ...]
    second_ids: tuple[int, ...]
    num_tokens: int
    first_tokens: int
    second_tokens: int = 0

    @property
    def ended(self) -> bool:
        """All tokens are written."""
        return len(self.token_ids) == self.num_tokens

    @property
    def marks(self) -> str:
        """For each token written "1" if it is the first vectors' own, "0" if not, "-" where their text has ended."""
        same = "".join("01"[ours == theirs] for ours, theirs in zip(self.token_ids, self.first_ids, strict=False))
        return same.ljust(len(self.token_ids), "-")

    @property
    def as_first(self) -> int:
        """Tokens as the first vectors have them, each in its place."""
        return _equal(self.token_ids, self.first_ids)

    @property
    def as_second(self) -> int:
        """Tokens as the second vectors have them, each in its place."""
        return _equal(self.token_ids, self.second_ids)


def check_pair(first: MemVectors, second: MemVectors) -> None:
    """Refuse vectors that cannot be blended.

    Raises:
        ModelMismatch: of different models, or of another number of memory tokens.
    """
    if (first.model_fingerprint, first.hidden_size) != (second.model_fingerprint, second.hidden_size):
        raise ModelMismatch("The two sets of vectors were made for different models. Choose one for the same model.")
    if first.num_mem != second.num_mem:
        raise ModelMismatch(
            f"The first has {plural(first.num_mem, 'vector')} and the second {second.num_mem}. "
            "Choose one with as many vectors."
        )


def edited(first: Tensor, second: Tensor | None, edit: Edit) -> Tensor:
    """scale x ((1 - share) x first + share x second).

    Args:
        first, second: (K, d), any float dtype; without a second, `share` does nothing.

    Returns:
        (K, d), float32.
    """
    mem = first.float() if second is None else torch.lerp(first.float(), second.float(), edit.share)
    return mem * edit.scale


def decode_edited(
    lm: FrozenLM, first: MemVectors, second: MemVectors | None, edit: Edit, stop: Callable[[], bool] = lambda: False
) -> Iterator[Edited]:
    """Decode edited vectors beside the unedited ones.

    As many tokens are written as the vectors hold that have the larger share in the blend.

    Args:
        second: what to blend with; None only scales.
        stop: asked after every token.

    Yields:
        What is written so far, after every token.

    Raises:
        ModelMismatch: the vectors are for another model, or cannot be blended.
    """
    check_model(lm, first)
    sets = [edited(first.mem, second.mem if second else None, edit), first.mem.float()]
    if second:
        check_model(lm, second)
        check_pair(first, second)
        sets.append(second.mem.float())
    longest = second if second and edit.share >= 0.5 else first
    written: list[list[int]] = [[] for _ in sets]
    for ids in decode_side_by_side(lm, torch.stack(sets), longest.num_tokens):
        for column, token_id in zip(written, ids, strict=True):
            column.append(token_id)
        yield Edited(
            edit,
            tuple(written[0]),
            tuple(written[1][: first.num_tokens]),
            tuple(written[2][: second.num_tokens]) if second else (),
            longest.num_tokens,
            first.num_tokens,
            second.num_tokens if second else 0,
        )
        if stop():
            return


def _equal(ours: Sequence[int], theirs: Sequence[int]) -> int:
    return sum(a == b for a, b in zip(ours, theirs, strict=False))
