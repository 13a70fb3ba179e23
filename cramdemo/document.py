"""Long texts as segments, each with K vectors of its own, packed as full as they are found to hold.

The text is parted into lanes, one for each row of a batch (`packing`). A lane's segments follow one another: where the
vectors of one hold no more, the next begins. A lane that has come to its end takes over half of what the longest other
one has left. A segment is called lossless only after greedy decoding gave its tokens, side by side with others; that
may differ in the last bits from decoding it alone, so that a smallest margin is asked for that is far beyond them.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cramdemo.config import CramConfig
from cramdemo.cram import YIELD_SECONDS, check_length, provenance
from cramdemo.decode import check_model, decode_side_by_side, greedy_side_by_side
from cramdemo.errors import ConfigError, ModelError, plural
from cramdemo.models import FrozenLM
from cramdemo.packing import FIRST_TOKENS, Batch, Held
from cramdemo.placement import ran_out_of_memory
from cramdemo.segments import DocumentVectors, SegmentEntry, Stretch
from cramdemo.vectors import dtype_name, token_digest

ROWS = 16  # of the batch, on a CPU as on a GPU; more wait longer for the last one
LEAST_LANE = 2  # times a segment's first tokens; shorter stretches are not worth parting
LEAST_MARGIN = 0.01  # logits; decoding alone and side by side differ by less than a hundredth of that in float32
LONGEST = 8  # times its first tokens that a segment may grow to
DONE, STOPPED, MEMORY = "done", "stopped", "memory"
_CONTEXT = 8  # tokens before new ones, behind which what they add to the text is seen


@dataclass(frozen=True)
class Segment(Stretch):
    """A stretch of the text and the vectors that give it back.

    Attributes:
        mem: (K, d), float32, on the CPU.
        lossless: greedy decoding of `mem` gave exactly these tokens; else it is as far as the vectors came.
        min_margin: smallest logit margin while decoding.
    """

    mem: Tensor
    lossless: bool
    min_margin: float


@dataclass(frozen=True)
class Running:
    """A segment that is being optimised: where it begins, tokens it tries now, and how many of them are right."""

    start: int
    trained: int
    solved: int


@dataclass(frozen=True)
class DocumentState:
    """How far a document is; each state holds all there is to show.

    Attributes:
        num_tokens: N, of the whole text.
        num_mem: K, vectors of each segment.
        segments: finished ones, in the order of the text.
        running: those in the batch.
        steps: of the batch. flops: spent. seconds: since it began.
        reason: why it ended: `DONE`, `STOPPED`, `MEMORY`; "" while it goes on.
    """

    num_tokens: int
    num_mem: int
    segments: tuple[Segment, ...]
    running: tuple[Running, ...]
    steps: int
    flops: int
    seconds: float
    reason: str = ""

    @property
    def tokens_done(self) -> int:
        """In finished segments."""
        return sum(segment.num_tokens for segment in self.segments)

    @property
    def lossless_tokens(self) -> int:
        """In lossless segments."""
        return sum(segment.num_tokens for segment in self.segments if segment.lossless)

    @property
    def lossless(self) -> bool:
        """Every token of the text is in a lossless segment."""
        return self.lossless_tokens == self.num_tokens

    @property
    def tokens_a_vector(self) -> float:
        """Of the finished segments; 0 if there is none."""
        return self.tokens_done / (self.num_mem * len(self.segments)) if self.segments else 0.0


def cram_document(
    lm: FrozenLM,
    token_ids: Sequence[int],
    config: CramConfig | None = None,
    *,
    rows: int = ROWS,
    thorough: bool = False,
    segment_tokens: int | None = None,
    done: Sequence[Segment] = (),
    stop: Callable[[], bool] | None = None,
) -> Iterator[DocumentState]:
    """Cram a text of any length, segment by segment, several at once.

    Args:
        lm: the frozen model.
        token_ids: the text's N ids.
        config: settings of each segment (`packing.Batch`); None takes the model's defaults.
        rows: segments in work at once; for the same bits again it must be the same.
        thorough: pack each segment as full as it may be, at several times the work.
        segment_tokens: at which a segment ends though its vectors may hold more; None for as many as they hold.
        done: segments that are there already, which are kept.
        stop: asked after every step; finished segments are kept.

    Yields:
        `DocumentState`, at most ten times a second and one at the end, whose `reason` is not "".

    Raises:
        TextError: the text is empty.
        ConfigError: a segment shall end before its first token.
        ModelError: there is not memory for a single step.
    """
    config = (config or CramConfig.for_model(lm)).filled(lm)
    check_length(lm, min(1, len(token_ids)), config.num_mem)
    if segment_tokens is not None and segment_tokens < 1:
        raise ConfigError(f"A segment of {segment_tokens} tokens cannot be crammed. Give at least 1, or none at all.")
    batch = Batch(lm, config, rows, thorough=thorough)
    return _Document(list(token_ids), batch, list(done), segment_tokens).states(stop or (lambda: False))


def pack(
    lm: FrozenLM, token_ids: Sequence[int], segments: Sequence[Segment], config: CramConfig | None = None
) -> DocumentVectors:
    """Finished segments with what a decoder needs to know.

    Args:
        lm: the model they were made for.
        token_ids: the text's N ids.
        segments: at least one, in the order of the text.
        config: settings of the run, for whoever reads the file.
    """
    settings = {} if config is None else {name: value for name, value in vars(config).items() if value is not None}
    return DocumentVectors(
        mem=torch.stack([segment.mem for segment in segments]),
        entries=tuple(
            SegmentEntry(
                segment.start,
                segment.num_tokens,
                token_digest(token_ids[segment.start : segment.end]),
                segment.lossless,
                segment.min_margin,
            )
            for segment in segments
        ),
        verified=[{"device": lm.device.type, "dtype": dtype_name(lm.dtype)}],
        config=settings,
        **provenance(lm, token_ids),
    )


def finished(lm: FrozenLM, document: DocumentVectors, token_ids: Sequence[int], num_mem: int) -> list[Segment]:
    """The lossless segments of a document, for a run on the same text that goes on from them.

    Args:
        num_mem: K of that run.

    Raises:
        ModelMismatch: the document was made for another model.
        ConfigError: it is of another text, or of another K.
    """
    check_document(lm, document)
    if document.token_sha256 != token_digest(token_ids):
        raise ConfigError(
            f"The document there is of another text, of {plural(document.num_tokens, 'token')}. "
            "Give the text that it was begun with, or another file to write to."
        )
    if document.num_mem != num_mem:
        raise ConfigError(
            f"The document there has {plural(document.num_mem, 'memory token')} a segment, not {num_mem}. "
            "Repeat what it was begun with, or give another file to write to."
        )
    return [
        Segment(entry.start, entry.num_tokens, mem.float(), lossless=True, min_margin=entry.min_margin)
        for entry, mem in zip(document.entries, document.mem, strict=True)
        if entry.lossless and token_digest(token_ids[entry.start : entry.end]) == entry.token_sha256
    ]


def check_document(lm: FrozenLM, document: DocumentVectors) -> None:
    """Refuse a document that this model would read as nonsense.

    Raises:
        ModelMismatch: other width, other weights, other tokenizer, or segments that it cannot hold.
    """
    check_model(lm, document.segment(document.longest))


@dataclass(frozen=True)
class DecodedSegment:
    """What greedy reconstruction wrote from one segment.

    Attributes:
        number: of the segment, from 0.
        start: of its first token in the text.
        token_ids: its ids.
        text: what they add to the text of the segments before. A character that is split between two segments is
            with the second one.
        matches: whether the ids have the segment's digest.
    """

    number: int
    start: int
    token_ids: list[int]
    text: str
    matches: bool


def decode_document(
    lm: FrozenLM, document: DocumentVectors, *, only: int | None = None, rows: int = ROWS
) -> Iterator[DecodedSegment]:
    """The text of a document, segment by segment, some of them decoded side by side.

    Args:
        only: the number of a segment, from 0, that is decoded alone; None for all of them.
        rows: segments decoded at once.

    Raises:
        ModelMismatch: the document was made for another model.
        ConfigError: there is no segment of that number.
    """
    check_document(lm, document)
    if only is not None and not 0 <= only < len(document.entries):
        count = len(document.entries)
        raise ConfigError(f"There is no segment {only + 1:,}. Give a number from 1 to {count:,}.")
    wanted = range(len(document.entries)) if only is None else [only]
    return _decoded(lm, document, list(wanted), rows)


def _decoded(lm: FrozenLM, document: DocumentVectors, wanted: list[int], rows: int) -> Iterator[DecodedSegment]:
    writer, at = _Writer(lm), None
    for first in range(0, len(wanted), rows):
        numbers = wanted[first : first + rows]
        longest = max(document.entries[number].num_tokens for number in numbers)
        columns = list(decode_side_by_side(lm, document.mem[numbers], longest))
        for place, number in enumerate(numbers):
            entry = document.entries[number]
            ids = [column[place] for column in columns[: entry.num_tokens]]
            matches = token_digest(ids) == entry.token_sha256
            last = number == wanted[-1] or document.entries[number + 1].start != entry.end
            if at != entry.start:
                writer = _Writer(lm)
            at = entry.end
            yield DecodedSegment(number, entry.start, ids, writer.add(ids, whole=last), matches)


class _Writer:
    """Text of ids that come bit by bit: each time what the new ones add, without a character that is cut off."""

    def __init__(self, lm: FrozenLM) -> None:
        self.lm = lm
        self.before: list[int] = []  # the last ids, behind which the text of new ones is seen
        self.written = ""  # of the text of `before`

    def add(self, token_ids: list[int], *, whole: bool) -> str:
        """What they add.

        Args:
            whole: nothing follows that could complete a character.
        """
        ids = self.before + token_ids
        text = self.lm.detokenize(ids) if whole else self.lm.detokenize_so_far(ids)
        new = text[len(self.written) :]
        self.before = ids[-_CONTEXT:]
        self.written = self.lm.detokenize_so_far(self.before)
        return new


@dataclass
class _Lane:
    """A stretch of the text that one row works through: what is left of it, from `at` to `end`."""

    at: int
    end: int


class _Document:
    """The text's segments: finished, in the batch, and not begun."""

    def __init__(
        self, token_ids: list[int], batch: Batch, done: list[Segment], segment_tokens: int | None = None
    ) -> None:
        self.token_ids, self.batch, self.num_mem = token_ids, batch, batch.config.num_mem
        self.first = FIRST_TOKENS * self.num_mem
        longest = segment_tokens or LONGEST * self.first
        self.longest = min(batch.lm.max_tokens(self.num_mem), longest)
        self.segments = done
        self.waiting = _parted(_gaps(done, len(token_ids)), len(batch.rows), LEAST_LANE * self.first)
        self.lanes: dict[int, _Lane] = {}  # by their rows
        self.unproved: list[Held] = []
        self.steps = 0

    def states(self, stop: Callable[[], bool]) -> Iterator[DocumentState]:
        """The generator behind `cram_document`."""
        started, shown, reason = time.perf_counter(), float("-inf"), ""
        while not reason:
            try:
                self._fill()
                reason = self._advance(stop)
            except (RuntimeError, MemoryError) as error:
                if not ran_out_of_memory(error):
                    raise
                if not self.segments:
                    raise ModelError(
                        f"There is not enough memory for {self.batch.lm.name} and a batch of segments. "
                        "Take fewer memory tokens, or a smaller model."
                    ) from error
                reason = MEMORY
            seconds = time.perf_counter() - started
            if reason or seconds - shown >= YIELD_SECONDS:
                shown = seconds
                yield self._state(seconds, reason)

    def _advance(self, stop: Callable[[], bool]) -> str:
        """A step of the batch and what follows from it; why the document ends, "" if it goes on."""
        if not self.lanes and not self.unproved:
            return DONE
        if self.lanes:
            for held in self.batch.step():
                self._take(held)
            self.steps += 1
        stopped = stop()
        if stopped or not self.lanes or 2 * len(self.unproved) >= len(self.batch.rows):
            self._prove()
        return STOPPED if stopped else ""

    def _fill(self) -> None:
        """Give every free row a text, as long as there is one."""
        for row in self.batch.free:
            lane = self.waiting.pop(0) if self.waiting else self._part_longest()
            if lane is None:
                return
            self._begin(row, lane)

    def _begin(self, row: int, lane: _Lane) -> None:
        self.lanes[row] = lane
        ids = self.token_ids[lane.at : min(lane.end, lane.at + self.longest)]
        self.batch.put(row, lane.at, ids)

    def _part_longest(self) -> _Lane | None:
        """The second half of what the longest lane has left, if that is long enough for two."""

        def left(row: int) -> int:
            return self.lanes[row].end - self.lanes[row].at - self.batch.trained(row)

        longest = max(self.lanes, key=left, default=None)
        if longest is None or left(longest) < LEAST_LANE * self.first:
            return None
        lane, end = self.lanes[longest], self.lanes[longest].end
        lane.end -= left(longest) // 2
        self.batch.shorten(longest, min(lane.end - lane.at, self.longest))
        return _Lane(lane.end, end)

    def _take(self, held: Held) -> None:
        """Keep what a row gives until it is decoded, and let its lane go on behind it."""
        (row,) = (row for row, lane in self.lanes.items() if lane.at == held.tag)
        lane = self.lanes.pop(row)
        self.unproved.append(held)
        lane.at += max(1, held.num_tokens)
        if lane.at < lane.end:
            self._begin(row, lane)

    @torch.no_grad()
    def _prove(self) -> None:
        """Decode what was held; where that is less than was thought, the rest is still to be done."""
        if not self.unproved:
            return
        mem = torch.stack([held.mem for held in self.unproved])
        texts = [self.token_ids[h.tag : h.tag + max(1, h.num_tokens)] for h in self.unproved]
        for held, text, (correct, margin) in zip(
            self.unproved, texts, greedy_side_by_side(self.batch.lm, mem, texts, least_margin=LEAST_MARGIN), strict=True
        ):
            self.segments.append(Segment(held.tag, max(1, correct), held.mem, correct > 0, margin))
            if correct < len(text) and len(text) > 1:
                self.waiting.append(_Lane(held.tag + max(1, correct), held.tag + len(text)))
        self.unproved = []

    def _state(self, seconds: float, reason: str) -> DocumentState:
        running = [
            Running(lane.at, self.batch.trained(row), self.batch.solved[row]) for row, lane in self.lanes.items()
        ]
        return DocumentState(
            num_tokens=len(self.token_ids),
            num_mem=self.num_mem,
            segments=tuple(sorted(self.segments, key=lambda segment: segment.start)),
            running=tuple(sorted(running, key=lambda each: each.start)),
            steps=self.steps,
            flops=self.batch.flops,
            seconds=seconds,
            reason=reason,
        )


def _gaps(done: Sequence[Segment], num_tokens: int) -> list[_Lane]:
    """What the finished segments leave of the text."""
    gaps, at = [], 0
    for segment in sorted(done, key=lambda segment: segment.start):
        if segment.start > at:
            gaps.append(_Lane(at, segment.start))
        at = max(at, segment.end)
    return gaps + ([_Lane(at, num_tokens)] if at < num_tokens else [])


def _parted(gaps: list[_Lane], count: int, least: int) -> list[_Lane]:
    """The gaps, the longest of them parted evenly until there are `count`, or none is worth parting."""
    lanes = list(gaps)
    while lanes and len(lanes) < count:
        longest = max(lanes, key=lambda lane: lane.end - lane.at)
        length = longest.end - longest.at
        if length < 2 * least:
            break
        share = max(2, -(-count * length // sum(lane.end - lane.at for lane in lanes)))
        share = min(share, count - len(lanes) + 1, length // least)
        lanes.remove(longest)
        cuts = [longest.at + length * part // share for part in range(share + 1)]
        lanes += [_Lane(a, b) for a, b in itertools.pairwise(cuts)]
    return sorted(lanes, key=lambda lane: lane.at)
