"""The entropy law: what limits a vector is not how long a text is, but how much it surprises the model.

Many short texts of several kinds and lengths are crammed side by side, one batch a length. `measure` is a generator of
all that is known so far: for each text what it costs the bare LM and what it costs with [mem] in front, in bits, and
the capacity C_H that fits all of them (arXiv 2502.13063, section on information gain: H_LM+mem is about
max(0, H_LM - C_H)). Nothing is decoded here: all counts are teacher-forced.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby, pairwise

import torch

from cramdemo.catalogue import ASSETS
from cramdemo.config import CramConfig
from cramdemo.cram import initial_vectors, learning_rate
from cramdemo.errors import ModelError, TextError
from cramdemo.metrics import CAPACITY_ACCURACY, cross_entropy_bits
from cramdemo.models import FrozenLM
from cramdemo.optimiser import OPTIMISERS
from cramdemo.placement import loop_device, memory_or
from cramdemo.step import score
from cramdemo.vectors import dtype_name
from cramdemo.words import random_words

PROSE, WORDS, REPEATED, OWN = "prose", "random words", "repeated text", "yours"
KINDS = (PROSE, WORDS, REPEATED, OWN)
LENGTHS = (24, 48, 96)  # tokens
TEXTS_A_LENGTH = 2  # of each kind of ours
MOST_OWN = 4
NUM_MEM = 1
STEPS = 120
SECONDS = 50.0  # a slow machine ends here, with what is there
YIELD_SECONDS = 0.1
PHRASES = (
    "The wheel turned and turned again. ",
    "Year after year, ",
    "She counted them once more. ",
    "Drip, drop, ",
    "Round and round the garden, ",
    "He knocked, and waited, and ",
)
_OVERFLOW = "The numbers of {model} overflow in {dtype}, so that no text has a cost. Pick another model."
_NO_MEMORY = "There is not enough memory for {model} here. Pick a smaller model."


@dataclass(frozen=True)
class Text:
    """A text to be crammed: its kind, one of `KINDS`, and its N ids."""

    kind: str
    token_ids: tuple[int, ...]


@dataclass(frozen=True)
class Point:
    """What is known of one text.

    Attributes:
        kind: one of `KINDS`.
        num_tokens: N.
        h_lm: cost of tokens 1..N-1 under the bare LM, in bits.
        h_mem: the same tokens with the best [mem] so far in front, in bits.
        solved: of all N tokens those that are right with it, teacher-forced.
    """

    kind: str
    num_tokens: int
    h_lm: float
    h_mem: float
    solved: int

    @property
    def gain(self) -> float:
        """Information gain, in bits."""
        return self.h_lm - self.h_mem

    @property
    def held(self) -> bool:
        """By the paper's rule, teacher-forced."""
        return self.solved >= CAPACITY_ACCURACY * self.num_tokens


@dataclass(frozen=True)
class Measured:
    """All that is known at one moment.

    Attributes:
        points: of every text, in the order they were given.
        step, most_steps: updates of each.
        capacity: C_H in bits, fitted to the points; None while no text is too much for its vector. Repeated text has no
            say in it: a small model does not expect a repetition, so H_LM overstates what such a text tells.
        seconds: since the start.
        stage: "training", "done" or "stopped"; "seconds" if the time was up.
    """

    points: tuple[Point, ...]
    step: int
    most_steps: int
    capacity: float | None
    seconds: float
    stage: str = "training"


def measure(
    lm: FrozenLM,
    texts: Sequence[Text],
    *,
    steps: int = STEPS,
    seconds: float = SECONDS,
    seed: int = 0,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Measured]:
    """Cram every text into one vector, from random starts, and fit the law.

    Args:
        texts: as `sample_texts` gives them.
        steps: updates of each text.
        seconds: after which it ends with what is there.
        seed: of the initial vectors.
        stop: asked after every step of all; when it says True, the last state has what is known by then.

    Yields:
        `Measured`, at most ten times a second; the last one's stage is not "training".

    Raises:
        TextError: at once, if there is no text, or one that does not fit the model or has less than two tokens.
        ModelError: while running, if there is not enough memory, or the model's numbers overflow.
    """
    limit = lm.max_tokens(NUM_MEM)
    if not texts or not all(2 <= len(text.token_ids) <= limit for text in texts):
        raise TextError(f"Texts of 2 to {limit:,} tokens are needed to measure {lm.name}.")
    config = CramConfig.for_model(lm, init="embedding", steps=steps, seconds=seconds, seed=seed)
    return _measure(lm, texts, config, stop)


def sample_texts(lm: FrozenLM, own: str = "", seed: int = 0) -> list[Text]:
    """Texts of each kind and length, and a visitor's own: prose of ours, words at random, phrases over and over.

    Args:
        own: one text a paragraph; each is cut to the longest of `LENGTHS` that it fills, at most `MOST_OWN` are taken.
        seed: of the words drawn.

    Raises:
        TextError: a paragraph of `own` is shorter than the least length.
    """
    texts: list[Text] = []
    prose = _prose()
    for row, length in enumerate(length for length in LENGTHS if length <= lm.max_tokens(NUM_MEM)):
        for number in range(TEXTS_A_LENGTH):
            at = row * TEXTS_A_LENGTH + number
            drawn = random_words(length, seed * len(LENGTHS) * TEXTS_A_LENGTH + at)
            again = PHRASES[at % len(PHRASES)] * length
            for kind, text in ((PROSE, prose[at % len(prose)]), (WORDS, drawn), (REPEATED, again)):
                texts.append(Text(kind, tuple(lm.tokenize(text)[:length])))
    return texts + [_own_text(lm, paragraph) for paragraph in paragraphs(own)]


def paragraphs(own: str) -> list[str]:
    """A visitor's texts: paragraphs, which blank lines part."""
    return [part.strip() for part in re.split(r"\n\s*\n", own) if part.strip()][:MOST_OWN]


def _own_text(lm: FrozenLM, paragraph: str) -> Text:
    ids = lm.tokenize(paragraph)
    fitting = [length for length in LENGTHS if length <= min(len(ids), lm.max_tokens(NUM_MEM))]
    if not fitting:
        raise TextError(
            f"One of your paragraphs has {len(ids)} tokens; {LENGTHS[0]} are the least. Make it longer, or join it to "
            "another."
        )
    return Text(OWN, tuple(ids[: fitting[-1]]))


@cache
def _prose() -> list[str]:
    found: list[str] = json.loads((ASSETS / "samples" / "prose.json").read_text(encoding="utf-8"))
    return found


def fit_capacity(h_lm: Sequence[float], h_mem: Sequence[float]) -> float | None:
    """C_H of the law H_LM+mem = max(0, H_LM - C_H), by least squares.

    The squared error is a parabola in C between any two neighbouring values of H_LM, so the best C of each stretch is
    known exactly, and the best of these is the answer.

    Args:
        h_lm, h_mem: of each text, in bits.

    Returns:
        Bits; None if no text costs anything with [mem], so that there is nothing to fit.
    """
    points = sorted(zip(h_lm, h_mem, strict=True))
    if not any(y > 0 for _, y in points):
        return None
    edges = [0.0, *(x for x, _ in points)]
    candidates = []
    for number, (low, high) in enumerate(pairwise(edges)):
        above = points[number:]  # texts that cost more than any C of this stretch
        best = sum(x - y for x, y in above) / len(above)
        candidates.append(min(max(best, low), high))
    return min(candidates, key=lambda c: sum((y - max(0.0, x - c)) ** 2 for x, y in points))


class _Group:
    """Texts of one length, as one batch."""

    def __init__(self, lm: FrozenLM, texts: Sequence[Text], config: CramConfig) -> None:
        assert config.optimizer is not None
        self.lm, self.texts, self.config = lm, texts, config
        self.stepper = lm.for_steps()
        self.ids = torch.tensor([text.token_ids for text in texts], device=lm.device)  # (B, N)
        place = loop_device(lm.device)
        start = initial_vectors(lm, self.ids[:1], config)  # the same for all, so that only the texts differ
        self.mem = start.to(place).repeat(len(texts), 1, 1)  # (B, K, d)
        self.optimiser = OPTIMISERS[config.optimizer](self.mem)
        with torch.no_grad():
            self.h_lm: list[float] = cross_entropy_bits(lm.bare_logits(self.ids), self.ids[:, 1:]).sum(-1).tolist()
        self.h_mem = torch.full((len(texts),), math.inf, device=place)
        self.solved = torch.zeros(len(texts), dtype=torch.int64, device=place)

    @torch.no_grad()
    def advance(self, step: int) -> None:
        """Score, keep, then update."""
        found = score(self.stepper, self.mem, self.ids, temperature=1.0, margin=0.0)
        bits = found.nats[:, 1:].sum(-1) / math.log(2)
        better = bits < self.h_mem
        self.h_mem = torch.where(better, bits, self.h_mem)
        self.solved = torch.where(better, (found.margins > 0).sum(-1), self.solved)
        self.mem = self.mem - learning_rate(self.config, step) * self.optimiser.direction(found.gradient)

    def points(self) -> list[Point]:
        """What is known of its texts.

        Raises:
            ModelError: a text has never had a cost that is a number.
        """
        if not bool(self.h_mem.isfinite().all()):
            raise ModelError(_OVERFLOW.format(model=self.lm.name, dtype=dtype_name(self.stepper.dtype)))
        found = zip(self.texts, self.h_lm, self.h_mem.tolist(), self.solved.tolist(), strict=True)
        return [Point(text.kind, len(text.token_ids), bare, mem, solved) for text, bare, mem, solved in found]


def _measure(lm: FrozenLM, texts: Sequence[Text], config: CramConfig, stop: Callable[[], bool]) -> Iterator[Measured]:
    started = time.perf_counter()
    shown, limit = -math.inf, config.seconds or math.inf
    in_groups = sorted(range(len(texts)), key=lambda i: len(texts[i].token_ids))
    with memory_or(_NO_MEMORY.format(model=lm.name)):
        groups = [
            _Group(lm, [texts[i] for i in numbers], config)
            for _, numbers in groupby(in_groups, key=lambda i: len(texts[i].token_ids))
        ]
        for step in range(config.steps + 1):
            for group in groups:
                group.advance(step)
            seconds = time.perf_counter() - started
            stage = "done" if step == config.steps else "stopped" if stop() else "seconds" if seconds >= limit else ""
            if stage or seconds - shown >= YIELD_SECONDS:
                shown = seconds
                points = _in_order(groups, in_groups)
                yield Measured(points, step, config.steps, _capacity(points), seconds, stage or "training")
            if stage:
                return


def _capacity(points: Sequence[Point]) -> float | None:
    """C_H as `Measured` has it. Texts that are all held tell no more than that it is above what they cost."""
    lawful = [p for p in points if p.kind != REPEATED]
    if all(point.held for point in lawful):
        return None
    return fit_capacity([p.h_lm for p in lawful], [p.h_mem for p in lawful])


def _in_order(groups: Sequence[_Group], numbers: Sequence[int]) -> tuple[Point, ...]:
    """Points of all texts, as the texts were given: `numbers` are the texts' in the order of the groups."""
    found = [point for group in groups for point in group.points()]
    return tuple(point for _, point in sorted(zip(numbers, found, strict=True), key=lambda pair: pair[0]))
