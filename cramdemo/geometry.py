"""The shape of solutions: how the optimiser gets to one, how far apart several lie, what is between and around them.

Several seeds are trained for the same text, side by side as one batch and by the same steps as `cram`'s. `explore`
is a generator of all that is known so far. Everything in a state is plain numbers and words.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from cramdemo.config import CramConfig
from cramdemo.cram import check_characters, check_length, initial_vectors, learning_rate
from cramdemo.decode import greedy_prefix
from cramdemo.errors import TextError
from cramdemo.metrics import correct_tokens
from cramdemo.models import FrozenLM
from cramdemo.objective import LOGIT_BYTES, boosted
from cramdemo.optimiser import OPTIMISERS
from cramdemo.placement import loop_device, memory_or
from cramdemo.step import Scored, score

NUM_SEEDS = 3  # as many as span a plane
MIN_TOKENS, MAX_TOKENS = 2, 128  # the plane alone takes hundreds of forward passes of the text
EXPLAINED = 0.99  # share of a path's variance that its principal components are counted for
LINE_POINTS = 21  # an odd number, so that the middle is one of them
GRID = 21
GRID_MARGIN = 0.35  # of the triangle's larger side, around it
NEIGHBOURS = 8
YIELD_SECONDS = 0.1
PATH_SECONDS = 0.5  # principal components of a path that grows, so often,
PATH_SHARE = 9  # and with at least so many times as long between as they take
_EMBEDDING_ROWS = 8192  # compared at once
_NO_MEMORY = "There is not enough memory for {model} here. Shorten the text, or pick a smaller model."
Shares = tuple[float, ...]


@dataclass(frozen=True)
class Path:
    """The first seed's [mem] at each step, in the first two principal components of all of them.

    Attributes:
        points: one a step, the start first; in the unit of the embeddings, from their mean.
        solved: right tokens at each step, teacher-forced.
        variance: share of the variance along each component, largest first; empty if nothing moved.
    """

    points: tuple[tuple[float, float], ...]
    solved: tuple[int, ...]
    variance: Shares

    @property
    def steps(self) -> int:
        """Updates between the first point and the last one."""
        return len(self.points) - 1

    @property
    def cumulative(self) -> Shares:
        """Share of the variance that the first c components hold, for c = 1, 2, ..."""
        total, found = 0.0, []
        for share in self.variance:
            total += share
            found.append(total)
        return tuple(found)

    @property
    def needed(self) -> int:
        """Components that hold `EXPLAINED` of the variance; 0 if nothing moved."""
        return next((count for count, share in enumerate(self.cumulative, 1) if share >= EXPLAINED), len(self.variance))


@dataclass(frozen=True)
class Line:
    """What the vectors on the straight line between two seeds' vectors hold.

    Attributes:
        first, second: indices of the two.
        accuracy: teacher-forced, at `LINE_POINTS` evenly spaced points from the first to the second.
        middle_prefix: leading tokens that greedy reconstruction gives from half-way.
    """

    first: int
    second: int
    accuracy: Shares
    middle_prefix: int


@dataclass(frozen=True)
class Landscape:
    """Teacher-forced accuracy on the plane through three seeds' vectors.

    Attributes:
        x, y: the grid, in the unit of the embeddings; (0, 0) is the first seed's vectors, (x, 0) the second's.
        accuracy: one row for each y that is done, of one number for each x.
        corners: where the three lie.
    """

    x: Shares
    y: Shares
    accuracy: tuple[Shares, ...]
    corners: tuple[tuple[float, float], ...]

    @property
    def done(self) -> bool:
        """Whether every row is there."""
        return len(self.accuracy) == len(self.y)


@dataclass(frozen=True)
class Neighbours:
    """The input embeddings nearest to the first seed's last [mem] vector, by cosine, nearest first.

    Attributes:
        tokens: text of each. token_ids: their ids.
        cosines: with the vector.
        start: the highest cosine that the same vector had before it was trained.
        vocab_size: how many embeddings were looked at.
    """

    tokens: tuple[str, ...]
    token_ids: tuple[int, ...]
    cosines: Shares
    start: float
    vocab_size: int


@dataclass(frozen=True)
class Attention:
    """Share of the text positions' attention that goes to the [mem] positions, by layer, mean over heads and positions.

    Attributes:
        trained: of the first seed's vectors. start: of the same vectors before they were trained.
        even: what it would be if every position attended evenly to all it sees.
    """

    trained: Shares
    start: Shares
    even: float


@dataclass(frozen=True)
class Findings:
    """All that is known so far; what is not is None or empty.

    Attributes:
        stage: what is being done: "training", "vectors", "lines", "landscape"; or "done", "stopped".
        seeds: of the random starts.
        num_tokens: N. num_mem: K.
        step: updates done. most_steps: the budget.
        solved: most tokens that each seed's vectors have had right, teacher-forced: those of the vectors kept.
        training: why it ended: "solved", "steps" or "seconds"; "" before.
        reads_mem: the model was trained to read memory vectors, for it has an encoder of them.
        path: the first seed's.
        decoded: leading tokens that greedy reconstruction gives from each seed's vectors.
        cosines: between the seeds' vectors, all K x d numbers as one, a row a seed.
        start_cosines: the same of the random starts.
        lines: between each two seeds' vectors.
        landscape: on the plane through all three.
        neighbours: of a vector among the input embeddings.
        attention: to [mem]; None also for a model without attention.
        without_attention: the model has none.
    """

    stage: str
    seeds: tuple[int, ...]
    num_tokens: int
    num_mem: int
    step: int
    most_steps: int
    solved: tuple[int, ...]
    training: str = ""
    reads_mem: bool = False
    path: Path | None = None
    decoded: tuple[int, ...] = ()
    cosines: tuple[Shares, ...] = ()
    start_cosines: tuple[Shares, ...] = ()
    lines: tuple[Line, ...] = ()
    landscape: Landscape | None = None
    neighbours: Neighbours | None = None
    attention: Attention | None = None
    without_attention: bool = False


def explore(
    lm: FrozenLM,
    text_or_ids: str | Sequence[int],
    config: CramConfig | None = None,
    *,
    stop: Callable[[], bool] | None = None,
) -> Iterator[Findings]:
    """Train `NUM_SEEDS` random starts for one text and look at where they end.

    Args:
        lm: the frozen model.
        text_or_ids: the text, or its N ids.
        config: settings of the training; its seed is the first one, the others follow it. `init` is "embedding" and
            the whole text is trained at once, whatever it says. None takes the defaults for this model.
        stop: asked between all pieces of work; when it says True, the last state has what is known by then.

    Yields:
        `Findings`, at most ten times a second while training, then one for each thing found; the last one's stage is
        "done" or "stopped".

    Raises:
        TextError: at once, if the text is too short or too long, or not given back by the tokenizer.
        ModelError: while running, if there is not enough memory.
    """
    if isinstance(text_or_ids, str):
        check_characters(text_or_ids)
    token_ids = lm.tokenize(text_or_ids) if isinstance(text_or_ids, str) else list(text_or_ids)
    config = dataclasses.replace((config or CramConfig()).filled(lm), init="embedding", restarts=1)
    check_size(len(token_ids))
    check_length(lm, len(token_ids), config.num_mem)
    return _explore(_Descent(lm, token_ids, config), stop or (lambda: False))


def check_size(num_tokens: int) -> None:
    """Refuse a text of which there would be nothing to see, or which would take too long.

    Raises:
        TextError: less than `MIN_TOKENS` or more than `MAX_TOKENS`.
    """
    if not MIN_TOKENS <= num_tokens <= MAX_TOKENS:
        advice = "Shorten it." if num_tokens else "Type something."
        raise TextError(
            f"The text has {num_tokens:,} tokens; geometry takes {MIN_TOKENS} to {MAX_TOKENS}, since it reads it "
            f"hundreds of times. {advice if num_tokens != 1 else 'Make it longer.'}"
        )


def principal_components(points: Tensor) -> tuple[Tensor, Tensor]:
    """Principal components of a cloud of points, by singular values.

    Args:
        points: (T, D), any float dtype.

    Returns:
        The points' coordinates (T, C), from their mean, and each component's share of the variance (C,), largest
        first, both float64, C the smaller of T and D; no share is NaN, and what is rounding only is 0. Signs are such
        that the last point lies on the positive side of the first one.
    """
    centred = points.double() - points.double().mean(0)
    left, values, _ = torch.linalg.svd(centred, full_matrices=False)
    rounding = torch.finfo(torch.float64).eps * max(centred.shape) * values[:1]
    values = torch.where(values > rounding, values, 0.0)  # two points, say, have no second direction
    coordinates = left * values
    way = torch.where(coordinates[-1] < coordinates[0], -1.0, 1.0)
    variance = values.square()
    return coordinates * way, variance / variance.sum().clamp(min=torch.finfo(torch.float64).tiny)


def cosine_matrix(vectors: Tensor) -> Tensor:
    """Cosines between all K x d numbers of each two of S [mem]: (S, K, d) -> (S, S), float32."""
    unit = F.normalize(vectors.float().flatten(1), dim=1)
    return (unit @ unit.T).clamp(-1, 1)


def between(first: Tensor, second: Tensor, count: int) -> Tensor:
    """Evenly spaced points of the straight line from one [mem] to another: two of (K, d) -> (count, K, d)."""
    share = torch.linspace(0, 1, count, device=first.device)[:, None, None]
    return first + share * (second - first)


@torch.no_grad()
def accuracies(lm: FrozenLM, mem: Tensor, token_ids: Tensor) -> Tensor:
    """Teacher-forced accuracy over all N tokens of B candidate [mem], in batches whose logits are bounded.

    Args:
        mem: (B, K, d), float32.
        token_ids: (1, N), int64, on the model's device.

    Returns:
        (B,), float32, on the CPU.
    """
    rows = max(1, LOGIT_BYTES // (4 * lm.vocab_size * token_ids.shape[1]))
    found = []
    for part in torch.split(mem.to(lm.device), rows):
        ids = token_ids.expand(len(part), -1)
        found.append(correct_tokens(lm.text_logits(part, ids), ids).float().mean(-1).cpu())
    return torch.cat(found)


class Plane:
    """The plane through three [mem], as points of a K x d dimensional space.

    Attributes:
        corners: (3, 2), float32, where the three lie: the first at (0, 0), the second at (x, 0) with x >= 0, the
            third at y >= 0; distances are those of the space.
    """

    def __init__(self, three: Tensor) -> None:
        """Takes (3, K, d)."""
        self._shape = three.shape[1:]
        flat = three.flatten(1)  # (3, K d)
        self._origin = flat[0]
        along = F.normalize(flat[1] - flat[0], dim=0)
        rest = flat[2] - flat[0]
        up = F.normalize(rest - (rest @ along) * along, dim=0)
        self._axes = torch.stack([along, up])  # (2, K d)
        self.corners = ((flat - flat[0]) @ self._axes.T).cpu()

    def at(self, places: Tensor) -> Tensor:
        """[mem] at places of the plane: (P, 2) -> (P, K, d)."""
        flat = self._origin + places.to(self._origin) @ self._axes
        return flat.view(-1, *self._shape)

    def grid(self, count: int) -> tuple[Tensor, Tensor]:
        """x and y of a grid around the three with a margin, (count,) each."""
        low, high = self.corners.amin(0), self.corners.amax(0)
        edge = GRID_MARGIN * (high - low).max()
        x, y = (torch.linspace(float(a), float(b), count) for a, b in zip(low - edge, high + edge, strict=True))
        return x, y


@torch.no_grad()
def nearest_tokens(lm: FrozenLM, vector: Tensor, count: int = NEIGHBOURS) -> tuple[Tensor, Tensor]:
    """The input embeddings of the largest cosine with a vector.

    Args:
        vector: (d,).

    Returns:
        Token ids (count,), int64, and cosines (count,), float32, largest first, on the CPU.
    """
    unit = F.normalize(vector.to(lm.device).float(), dim=0)
    parts = torch.split(torch.arange(lm.vocab_size, device=lm.device), _EMBEDDING_ROWS)
    cosines = torch.cat([F.normalize(lm.embed(ids).float(), dim=1) @ unit for ids in parts])
    values, ids = cosines.topk(min(count, lm.vocab_size))
    return ids.cpu(), values.cpu()


@torch.no_grad()
def attention_to_mem(lm: FrozenLM, mem: Tensor, token_ids: Tensor) -> Tensor | None:
    """Share of the text positions' attention on the [mem] positions, by layer, mean over heads and text positions.

    The model runs with the attention of transformers that gives its weights, and gets its own back. Those who are
    asked are the positions of tokens 0..N-2; the last token is only predicted.

    Args:
        mem: (B, K, d). token_ids: (1, N), int64, N at least 2.

    Returns:
        (B, layers with attention), float32, on the CPU; None for a model that has no attention.
    """
    model, num_mem = lm.model, mem.shape[1]
    text = lm.embed(token_ids[:, :-1].expand(len(mem), -1))
    inputs = torch.cat([mem.to(text), text], dim=1)  # (B, K + N - 1, d)
    usual = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        output = model(inputs_embeds=inputs, use_cache=False, logits_to_keep=1, output_attentions=True)
    finally:
        model.set_attn_implementation(usual)
    weights = [layer for layer in getattr(output, "attentions", None) or () if layer is not None]
    if not weights:
        return None
    shares = [layer[:, :, num_mem:, :num_mem].float().sum(-1).mean((1, 2)).cpu() for layer in weights]
    return torch.stack(shares, dim=1)


def even_attention(num_mem: int, num_tokens: int) -> float:
    """What `attention_to_mem` would be if every position attended evenly to itself and all before it."""
    seen = range(num_mem + 1, num_mem + num_tokens)
    return sum(num_mem / count for count in seen) / len(seen)


class _Descent:
    """Runs of the same text as one batch, one a seed; each stands still once it is solved by the margin."""

    def __init__(self, lm: FrozenLM, token_ids: list[int], config: CramConfig) -> None:
        assert config.margin is not None and config.temperature is not None and config.boost is not None
        assert config.optimizer is not None
        self.margin, self.temperature, self.boost = config.margin, config.temperature, config.boost
        self.lm, self.config, self.token_ids = lm, config, token_ids
        self.stepper = lm.for_steps()
        self.seeds = tuple(range(config.seed, config.seed + NUM_SEEDS))
        self.ids = torch.tensor([token_ids], device=lm.device)  # (1, N)
        place = loop_device(lm.device)
        starts = [initial_vectors(lm, self.ids, dataclasses.replace(config, seed=seed)) for seed in self.seeds]
        self.start = torch.cat(starts).to(place)  # (S, K, d)
        self.mem, self.best = self.start, self.start
        self.best_solved = torch.full((NUM_SEEDS,), -1, device=place)
        self.done = torch.zeros(NUM_SEEDS, dtype=torch.bool, device=place)
        self.weights = torch.ones(NUM_SEEDS, len(token_ids), device=place)  # of tokens in the loss
        self.optimiser = OPTIMISERS[config.optimizer](self.mem)
        self.path: list[Tensor] = []  # of the first seed, (K, d) a step
        self.path_solved: list[int] = []
        self.step = 0
        self._started = time.perf_counter()

    @torch.no_grad()
    def advance(self) -> str:
        """Score, keep, then update. Says why there is no more to do: "solved", "steps", "seconds"; "" if there is."""
        found = score(
            self.stepper,
            self.mem,
            self.ids.expand(NUM_SEEDS, -1),
            temperature=self.temperature,
            margin=self.margin,
            weights=self.weights,
        )
        self._keep(found)
        reason = self._reason()
        if reason:
            return reason
        self.weights = boosted(self.weights, found.margins, margin=self.margin, rate=self.boost)
        size = learning_rate(self.config, self.step) * ~self.done[:, None, None]
        self.mem = self.mem - size * self.optimiser.direction(found.gradient)
        self.step += 1
        return ""

    def _keep(self, found: Scored) -> None:
        """Of the vectors with most tokens solved the newest, whose margins are the larger ones."""
        solved = (found.margins > 0).sum(-1)  # (S,)
        if not self.done[0]:
            self.path.append(self.mem[0])
            self.path_solved.append(int(solved[0]))
        better = solved >= self.best_solved
        self.best = torch.where(better[:, None, None], self.mem, self.best)
        self.best_solved = torch.where(better, solved, self.best_solved)
        self.done |= found.margins.amin(-1) >= self.margin

    def _reason(self) -> str:
        if bool(self.done.all()):
            return "solved"
        limit = self.config.seconds
        if limit is not None and time.perf_counter() - self._started >= limit:
            return "seconds"
        return "steps" if self.step >= self.config.steps else ""

    def told(self, known: Findings, reason: str) -> Findings:
        """How far the training is."""
        solved = tuple(self.best_solved.tolist())
        return dataclasses.replace(known, step=self.step, solved=solved, training=reason)

    def path_so_far(self) -> Path:
        """Principal components of what has been walked."""
        points, variance = principal_components(torch.stack(self.path).flatten(1).cpu())
        two = F.pad(points, (0, max(0, 2 - points.shape[1])))[:, :2]
        moved = variance.sum() > 0
        return Path(
            points=tuple((x, y) for x, y in two.tolist()),
            solved=tuple(self.path_solved),
            variance=tuple(variance.tolist()) if moved else (),
        )


def _explore(runs: _Descent, stop: Callable[[], bool]) -> Iterator[Findings]:
    """`explore`, behind its checks. What is found comes in an order: soonest seen first."""
    known = Findings(
        stage="training",
        seeds=runs.seeds,
        num_tokens=len(runs.token_ids),
        num_mem=runs.config.num_mem,
        step=0,
        most_steps=runs.config.steps,
        solved=(0,) * NUM_SEEDS,
        reads_mem=runs.lm.encoder is not None,
    )
    with memory_or(_NO_MEMORY.format(model=runs.lm.name)):
        for look in (_train, _look_at_vectors, _walk_lines, _survey):
            known = yield from _told(look(runs, known, stop), known)
            if stop():
                break
    yield dataclasses.replace(known, stage="stopped" if stop() and not _is_whole(known) else "done")


def _told(states: Iterator[Findings], known: Findings) -> Generator[Findings, None, Findings]:
    """Passes all states on; gives the last one, or what was known before if there is none."""
    for state in states:
        known = state
        yield known
    return known


def _is_whole(known: Findings) -> bool:
    return known.landscape is not None and known.landscape.done


def _train(runs: _Descent, known: Findings, stop: Callable[[], bool]) -> Iterator[Findings]:
    reason, shown, draw_at = "", -math.inf, 0.0
    while not reason and not stop():
        reason = runs.advance()
        now = time.perf_counter()
        if not reason and now - shown < YIELD_SECONDS:
            continue
        shown = now
        known = runs.told(known, reason)
        if now >= draw_at and not reason:
            known = dataclasses.replace(known, path=runs.path_so_far())
            after = time.perf_counter()
            draw_at = after + max(PATH_SECONDS, PATH_SHARE * (after - now))
        yield known
    if runs.path:
        yield dataclasses.replace(runs.told(known, reason), path=runs.path_so_far())


def _look_at_vectors(runs: _Descent, known: Findings, stop: Callable[[], bool]) -> Iterator[Findings]:
    """What can be said of the vectors themselves."""
    known = dataclasses.replace(
        known,
        stage="vectors",
        cosines=_rows(cosine_matrix(runs.best)),
        start_cosines=_rows(cosine_matrix(runs.start)),
        neighbours=_neighbours(runs),
    )
    yield known
    attention = _attention(runs)
    known = dataclasses.replace(known, attention=attention, without_attention=attention is None)
    yield known
    for mem in runs.best:
        if stop():
            return
        prefix, _ = greedy_prefix(runs.lm, mem, runs.token_ids)
        known = dataclasses.replace(known, decoded=(*known.decoded, prefix))
        yield known


def _neighbours(runs: _Descent) -> Neighbours:
    ids, cosines = nearest_tokens(runs.lm, runs.best[0, -1])
    _, before = nearest_tokens(runs.lm, runs.start[0, -1], 1)
    return Neighbours(
        tokens=tuple(runs.lm.detokenize([token]) for token in ids.tolist()),
        token_ids=tuple(ids.tolist()),
        cosines=tuple(cosines.tolist()),
        start=float(before[0]),
        vocab_size=runs.lm.vocab_size,
    )


def _attention(runs: _Descent) -> Attention | None:
    shares = attention_to_mem(runs.lm, torch.stack([runs.best[0], runs.start[0]]), runs.ids)
    if shares is None:
        return None
    trained, start = _rows(shares)
    return Attention(trained, start, even_attention(runs.config.num_mem, len(runs.token_ids)))


def _walk_lines(runs: _Descent, known: Findings, stop: Callable[[], bool]) -> Iterator[Findings]:
    for first, second in combinations(range(NUM_SEEDS), 2):
        if stop():
            return
        points = between(runs.best[first], runs.best[second], LINE_POINTS)
        accuracy = accuracies(runs.lm, points, runs.ids)
        prefix, _ = greedy_prefix(runs.lm, points[LINE_POINTS // 2], runs.token_ids)
        line = Line(first, second, tuple(accuracy.tolist()), prefix)
        known = dataclasses.replace(known, stage="lines", lines=(*known.lines, line))
        yield known


def _survey(runs: _Descent, known: Findings, stop: Callable[[], bool]) -> Iterator[Findings]:
    """The plane, a row of the grid at a time."""
    plane = Plane(runs.best)
    x, y = plane.grid(GRID)
    land = Landscape(tuple(x.tolist()), tuple(y.tolist()), (), tuple((a, b) for a, b in plane.corners.tolist()))
    for height in y:
        if stop():
            return
        row = accuracies(runs.lm, plane.at(torch.stack([x, height.expand(GRID)], dim=1)), runs.ids)
        land = dataclasses.replace(land, accuracy=(*land.accuracy, tuple(row.tolist())))
        yield dataclasses.replace(known, stage="landscape", landscape=land)


def _rows(matrix: Tensor) -> tuple[Shares, ...]:
    return tuple(tuple(row) for row in matrix.tolist())
