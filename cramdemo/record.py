"""What a run remembers of its steps: the best vectors, what each token looked like when last predicted, the curve.

Each keeps its tensors on the device until they are asked for, and gives and takes up all of its state, so that a run
can go on from a checkpoint. Knows nothing of models and of when to stop.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cramdemo.step import Scored

WELL_SOLVED = 0.5  # logits above the margin
WORTHWHILE_TOKENS = 0.8  # of the trained ones, if no more than so many are left to predict


class Best:
    """The best vectors scored so far, which are the ones kept.

    Attributes:
        mem: (K, d), float32.
        rank: (), float64, -inf before the first.
        counts: (2,), int64: solved prefix, solved total.
        gained_at: (), int64, the step at which a token came right last, or the margin grew of a text all right.
    """

    def __init__(self, mem: Tensor) -> None:
        self.mem = mem.clone()
        self.rank = torch.full((), -math.inf, dtype=torch.float64, device=mem.device)
        self.counts = torch.zeros(2, dtype=torch.int64, device=mem.device)
        self.gained_at = torch.zeros((), dtype=torch.int64, device=mem.device)

    def keep(self, mem: Tensor, rank: Tensor, counts: Tensor, exact: Tensor, step: int) -> None:
        """Take these vectors if they are better.

        Args:
            mem, rank, counts: as the attributes.
            exact: (), bool, every trained token is right.
        """
        better = rank > self.rank
        gained = better & ((counts[1] > self.counts[1]) | exact)
        self.gained_at = torch.where(gained, step, self.gained_at)
        self.mem = torch.where(better, mem, self.mem)
        self.rank = torch.where(better, rank, self.rank)
        self.counts = torch.where(better, counts, self.counts)

    def forget_rank(self) -> None:
        """The next vectors scored are better, whatever they are."""
        self.rank.fill_(-math.inf)

    def state(self) -> dict[str, Tensor]:
        """The attributes."""
        return {"mem": self.mem, "rank": self.rank, "counts": self.counts, "gained_at": self.gained_at}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `state`."""
        self.mem, self.rank, self.counts = state["mem"], state["rank"], state["counts"]
        self.gained_at = state["gained_at"]


class _Looks(NamedTuple):
    """What each of n tokens looked like when last predicted, in R restarts."""

    nats: Tensor  # (R, n), float32
    margins: Tensor  # (R, n), float32
    rivals: Tensor  # (R, n), int64


class Seen:
    """What each trained token looked like when last predicted, and which ones the next step predicts.

    Attributes:
        looks: `nats`, `margins` and `rivals` of the n tokens seen, as in `step.Scored`; None before the first step.
        wanted: (P,), int64, the tokens that a step predicts; None for all.
    """

    def __init__(self, restarts: int, num_tokens: int, place: torch.device) -> None:
        self._shape, self._place = (restarts, num_tokens), place
        self.looks: _Looks | None = None
        self.wanted: Tensor | None = None

    def add(self, found: Scored) -> _Looks:
        """All trained tokens, with what was predicted just now."""
        news, wanted = _Looks(found.nats, found.margins, found.rivals), self.wanted
        if wanted is None or self.looks is None:
            self.looks = news
        else:
            self.looks = _Looks(*(old.index_copy(1, wanted, new) for old, new in zip(self.looks, news, strict=True)))
        return self.looks

    def want_unsolved(self, margin: float) -> None:
        """From now on predict those that are not well solved, if that leaves out enough; else all."""
        assert self.looks is not None
        trained = self.looks.margins.shape[1]
        left = (self.looks.margins < margin + WELL_SOLVED).any(0).nonzero()[:, 0]
        self.wanted = left if 0 < len(left) <= WORTHWHILE_TOKENS * trained else None

    def want_all(self) -> None:
        """From now on predict every trained token."""
        self.wanted = None

    def state(self) -> dict[str, Tensor]:
        """The looks at n tokens, filled up to all N, n, and (N,) which ones are wanted.

        A right token has no rival here: some models say the token itself, and the text must not stand in a file.
        """
        looks = self.looks or _Looks(*(torch.zeros(self._shape[0], 0, device=self._place) for _ in range(3)))
        seen, num_tokens = looks.margins.shape[1], self._shape[1]
        wanted = torch.full((num_tokens,), self.wanted is None, device=self._place)
        if self.wanted is not None:
            wanted[self.wanted] = True
        missing = (0, num_tokens - seen)
        return {
            "nats": torch.nn.functional.pad(looks.nats, missing),
            "margins": torch.nn.functional.pad(looks.margins, missing),
            "rivals": torch.nn.functional.pad(torch.where(looks.margins > 0, 0, looks.rivals).long(), missing),
            "count": torch.tensor(seen),
            "wanted": wanted,
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `state`, but for the rivals of right tokens, which nobody asks for."""
        seen = int(state["count"])
        looks = _Looks(*(state[name][:, :seen].contiguous() for name in ("nats", "margins", "rivals")))
        self.looks = looks if seen else None
        self.wanted = None if bool(state["wanted"].all()) else state["wanted"].nonzero()[:, 0]


class Curve:
    """Loss and accuracy of every step, read from the device when asked for."""

    def __init__(self) -> None:
        self._steps, self._nats, self._accuracy = array("q"), array("f"), array("f")
        self._unread: list[tuple[int, Tensor, Tensor]] = []
        self._told = 0

    def add(self, step: int, nats: Tensor, accuracy: Tensor) -> None:
        """Note a step, in nats a token; both are (), float32."""
        self._unread.append((step, nats, accuracy))

    def news(self) -> tuple[tuple[int, float, float], ...]:
        """(step, bits a token, accuracy) of the steps not told yet; after `restore` these are all."""
        self._read()
        told, self._told = self._told, len(self._steps)
        new = zip(self._steps[told:], self._nats[told:], self._accuracy[told:], strict=True)
        return tuple((step, nats / math.log(2), accuracy) for step, nats, accuracy in new)

    def _read(self) -> None:
        for step, nats, accuracy in self._unread:
            self._steps.append(step)
            self._nats.append(float(nats))
            self._accuracy.append(float(accuracy))
        self._unread.clear()

    def state(self) -> dict[str, Tensor]:
        """Three tensors of a number for each step, in their order."""
        self._read()
        kept = {"steps": self._steps, "nats": self._nats, "accuracy": self._accuracy}
        return {name: torch.from_numpy(np.array(numbers)) for name, numbers in kept.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `state`; nothing of it counts as told."""
        self._steps, self._nats = array("q", state["steps"].tolist()), array("f", state["nats"].tolist())
        self._accuracy, self._told = array("f", state["accuracy"].tolist()), 0
