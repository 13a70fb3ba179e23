"""How much fits: the compression horizon of a text for K = 1, 2, 4, 8, and decoding capacity by the paper's rule.

The horizon is progressive cramming's (ICML 2026): the longest prefix of a text that comes back exactly. The prefix
grows by stages, each started from the vectors of the one before; where a stage fails, the next ones are shorter. Only
greedy decoding says what is exact. For more than one vector, which is dear, a model with a memory encoder encodes each
longer prefix anew until a stage fails. Knows no widget and no tokenizer.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from cramdemo.config import CramConfig
from cramdemo.cram import CramResult, check_length, cram
from cramdemo.metrics import CAPACITY_ACCURACY, cross_entropy_bits, theoretical_capacity
from cramdemo.models import FrozenLM

NUM_MEM = (1, 2, 4, 8)
STAGE_TOKENS = {1: 16}  # a stage's, in tokens; progressive cramming: 16 to 64 are as good as 1 and cheaper
STAGE_TOKENS_A_VECTOR = 8  # with more vectors
SHORTEST_STAGE = 4  # a stage that fails is halved down to a quarter of the first length for K = 1
HALVINGS = 1  # and so often for more vectors, which are dear
STAGE_STEPS = 50
MOST_STAGES = {1: 8}  # of full length that a growth may take, in steps
MOST_STAGES_WITH_MORE = 3
STAGE_MARGIN = 0.1  # logits: enough to decode, and no more, where the next stage goes on
RULE_LENGTHS = (8, 16, 32, 64, 80, 96, 128, 160, 192, 256, 384, 512, 768, 1024, 1280, 1568, 2048, 2560, 3072)
RULE_STAGES = 2  # a length has as many steps as so many stages
GROWING, RULE, ENDED = "growing", "rule", "ended"


class Point(NamedTuple):
    """A reading of a growing prefix.

    Attributes:
        step: updates so far, over all stages.
        horizon: tokens, the longest prefix decoded exactly so far.
        solved: leading tokens that are right under teacher forcing, in the stage that is running.
        gain_bits: information gain over the horizon.
    """

    step: int
    horizon: int
    solved: int
    gain_bits: float


@dataclass(frozen=True)
class Growth:
    """How far K vectors have come on one text; each state holds all there is to show.

    Attributes:
        num_mem: K.
        num_tokens: N, of the whole text.
        trained: tokens of the prefix that is tried now.
        points: readings in the order they were made, at most ten a second and one after each stage.
        gain_bits: H_LM - H_LM+mem over tokens 1 to horizon - 1, in bits.
        token_gain: right tokens with [mem] less right tokens of the bare LM, over the same tokens.
        theoretical: tokens that K x d 16-bit numbers could hold (`metrics.theoretical_capacity`).
        mem: (K, d), float32, the vectors that the horizon was decoded from; None before there are any.
        ended: it has come to its end, or was stopped.
    """

    num_mem: int
    num_tokens: int
    trained: int
    theoretical: float
    points: tuple[Point, ...] = ()
    horizon: int = 0
    gain_bits: float = 0.0
    token_gain: int = 0
    mem: Tensor | None = None
    ended: bool = False

    @property
    def steps(self) -> int:
        """Updates so far."""
        return self.points[-1].step if self.points else 0

    @property
    def utilisation(self) -> float:
        """Token gain over theoretical capacity (arXiv 2502.13063)."""
        return self.token_gain / self.theoretical

    @property
    def whole(self) -> bool:
        """The text was too short to tell: all of it is held."""
        return self.horizon == self.num_tokens


@dataclass(frozen=True)
class Tried:
    """A length by the paper's rule: the text's first `length` tokens in one vector.

    Attributes:
        accuracy: teacher-forced, best found, over tokens 1..length - 1: the paper's code does not score token 0.
        steps: updates it took; none where it was known to be held.
    """

    length: int
    accuracy: float
    steps: int = 0

    @property
    def holds(self) -> bool:
        """Whether the length counts (arXiv 2502.13063)."""
        return self.accuracy >= CAPACITY_ACCURACY


@dataclass(frozen=True)
class Fit:
    """A straight line of tokens against vectors, by least squares: tokens = base + slope x K."""

    base: float
    slope: float

    def at(self, num_mem: float) -> float:
        """Tokens for K vectors."""
        return self.base + self.slope * num_mem


@dataclass(frozen=True)
class Capacity:
    """The whole experiment at one moment; each state holds all there is to show.

    Attributes:
        model: its name.
        parameters: number of parameters.
        hidden_size: d.
        num_tokens: N, of the whole text.
        num_mems: every K that is asked for.
        cost_bits: cost of the text's first n tokens under the bare LM, tokens 1..n - 1, in bits; N numbers for n = 1
            to N.
        growths: for each K that has begun, in the order of K.
        tried: lengths by the paper's rule, in their order.
        doing: `GROWING`, `RULE` or `ENDED`.
        trying: tokens of the prefix that is tried now. solved: of them right under teacher forcing, best so far.
        stopped: it was, before its end.
        seconds: since it began.
    """

    model: str
    parameters: int
    hidden_size: int
    num_tokens: int
    num_mems: tuple[int, ...]
    cost_bits: tuple[float, ...]
    growths: tuple[Growth, ...] = ()
    tried: tuple[Tried, ...] = ()
    doing: str = GROWING
    trying: int = 0
    solved: int = 0
    stopped: bool = False
    seconds: float = 0.0

    @property
    def decoding_capacity(self) -> int:
        """The longest length that holds by the paper's rule, of this one text; 0 if none does."""
        return max((tried.length for tried in self.tried if tried.holds), default=0)

    @property
    def steps(self) -> int:
        """Updates over all growths and lengths by the rule."""
        return sum(growth.steps for growth in self.growths) + sum(tried.steps for tried in self.tried)

    @property
    def fit(self) -> Fit | None:
        """Through the growths of `fitted`, if there are at least two of them."""
        return linear_fit([(growth.num_mem, growth.horizon) for growth in self.fitted])

    @property
    def fitted(self) -> list[Growth]:
        """Growths that came to their end on a text that was long enough for them."""
        ended = [growth for growth in self.growths if growth.ended and not growth.whole and growth.horizon]
        if self.stopped and ended and ended[-1] is self.growths[-1]:
            ended.pop()  # it had not come to its end
        return ended


def linear_fit(points: Sequence[tuple[float, float]]) -> Fit | None:
    """Least squares through (K, tokens); None for fewer than two different K."""
    if len({x for x, _ in points}) < 2:
        return None
    x, y = torch.tensor(points, dtype=torch.float64).T
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())
    return Fit(float(y.mean()) - slope * float(x.mean()), slope)


def stage_config(config: CramConfig) -> CramConfig:
    """Settings of a stage: its prefix is trained whole, and for a small margin."""
    return dataclasses.replace(config, growth=0, margin=STAGE_MARGIN)


def grow(
    lm: FrozenLM,
    token_ids: Sequence[int],
    config: CramConfig,
    *,
    first: int = 0,
    most_steps: float = math.inf,
    stop: Callable[[], bool] | None = None,
) -> Iterator[Growth]:
    """Grow the prefix of one text that K vectors give back exactly, until nothing more fits or the steps are used.

    Args:
        lm: the frozen model.
        token_ids: the text's N ids.
        config: of each stage (`stage_config`); `num_mem` is K, `steps` are a stage's; a growth has as many steps as 8
            stages with K = 1, as 3 with more.
        first: tokens of the first stage; 0 for as many as later ones add.
        most_steps: updates of the whole growth, where fewer are allowed than it would take.
        stop: asked all the time; what is there stays.

    Yields:
        `Growth`, at most ten times a second and after each stage; the last one has `ended`.

    Raises:
        ModelError: there is not memory for a single step.
    """
    num_mem, asked = config.num_mem, stop or (lambda: False)
    stage = STAGE_TOKENS.get(num_mem, STAGE_TOKENS_A_VECTOR * num_mem)
    shortest = SHORTEST_STAGE if num_mem == 1 else stage // 2**HALVINGS
    theoretical = theoretical_capacity(num_mem, lm.hidden_size, lm.vocab_size)
    now = Growth(num_mem, len(token_ids), min(first or stage, len(token_ids)), theoretical)
    budget = int(min(config.steps * MOST_STAGES.get(num_mem, MOST_STAGES_WITH_MORE), most_steps))
    anew = num_mem > 1 and lm.encoder is not None
    while stage >= shortest and now.steps < budget and not now.whole and not asked():
        start = None if anew else now.mem
        own = dataclasses.replace(config, steps=min(config.steps, budget - now.steps))
        for now in _stage(lm, token_ids, own, now, start=start, stop=asked):  # noqa: B020  # the one before starts it
            yield now
        if now.horizon < now.trained:
            stage, anew = stage // 2, False
        now = dataclasses.replace(now, trained=min(now.horizon + stage, len(token_ids)))
    yield dataclasses.replace(now, ended=True)


def _stage(
    lm: FrozenLM,
    token_ids: Sequence[int],
    config: CramConfig,
    before: Growth,
    *,
    start: Tensor | None,
    stop: Callable[[], bool],
) -> Iterator[Growth]:
    """One prefix, of `before.trained` tokens: the growth as it goes on."""
    points = before.points
    for item in cram(lm, token_ids[: before.trained], stage_config(config), stop=stop, start=start):
        if isinstance(item, CramResult):
            after = _judged(before, item)
            point = Point(before.steps + item.steps, after.horizon, item.verification.correct_prefix, after.gain_bits)
            yield dataclasses.replace(after, points=(*points, point))
        else:
            point = Point(before.steps + item.step, before.horizon, item.solved_prefix, before.gain_bits)
            points = (*points, point)
            yield dataclasses.replace(before, points=points)


def _judged(before: Growth, result: CramResult) -> Growth:
    """The growth with what a stage's vectors give back by greedy decoding, if that is more than before."""
    held = result.verification.correct_prefix
    if held <= before.horizon:
        return before
    gain = float(result.bare_bits[: held - 1].double().sum() - result.token_bits[1:held].double().sum())
    right = int(result.token_correct[1:held].sum()) - int(result.bare_correct[: held - 1].sum())
    return dataclasses.replace(before, horizon=held, gain_bits=gain, token_gain=right, mem=result.vectors.mem)


def by_the_papers_rule(
    lm: FrozenLM,
    token_ids: Sequence[int],
    config: CramConfig,
    grown: Growth,
    *,
    most_steps: float = math.inf,
    stop: Callable[[], bool],
) -> Iterator[Tried]:
    """The paper's lengths from the horizon on, each crammed whole, until one falls short of an accuracy of 0.99.

    A length up to the horizon holds, being exact; the vectors of the horizon are where longer ones start. A length
    that may not have all its steps is not tried: its falling short would say nothing.

    Raises:
        ModelError: there is not memory for a single step.
    """
    yield from (Tried(length, 1.0) for length in RULE_LENGTHS if length <= grown.horizon)
    longer = dataclasses.replace(config, steps=RULE_STAGES * config.steps)
    for length in RULE_LENGTHS:
        if not grown.horizon < length <= len(token_ids):
            continue
        if stop() or longer.steps > most_steps:
            return
        *_, result = cram(lm, token_ids[:length], stage_config(longer), stop=stop, start=grown.mem)
        assert isinstance(result, CramResult)
        if result.reason == "stopped":
            return
        most_steps -= result.steps
        tried = Tried(length, float(result.token_correct[1:].float().mean()), result.steps)
        yield tried
        if not tried.holds:
            return


def measure_capacity(
    lm: FrozenLM,
    token_ids: Sequence[int],
    config: CramConfig,
    num_mems: Sequence[int] = NUM_MEM,
    *,
    most_steps: float = math.inf,
    stop: Callable[[], bool] | None = None,
) -> Iterator[Capacity]:
    """The horizon of a text for each K, and for K = 1 the decoding capacity by the paper's rule.

    Args:
        lm: the frozen model.
        token_ids: the text's N ids.
        config: of each stage; its `num_mem` is not used.
        num_mems: K, in rising order; each but the first starts at the horizon of the one before, where the model has
            a memory encoder to start it from.
        most_steps: updates over all of it; what is there stays.
        stop: asked all the time; what is there stays.

    Yields:
        `Capacity`, at most ten times a second and after each stage; the last one has `doing` = `ENDED`.

    Raises:
        TextError: the text is empty or longer than the model's context.
        ModelError: there is not memory for a single step.
    """
    asked, started = stop or (lambda: False), time.perf_counter()
    check_length(lm, len(token_ids), max(num_mems))
    now = _before(lm, token_ids, num_mems)
    for state in _phases(lm, token_ids, config, num_mems, now, most_steps=most_steps, stop=asked):
        now = dataclasses.replace(state, seconds=time.perf_counter() - started)
        yield now
    cut = asked() or now.steps >= most_steps
    yield dataclasses.replace(now, doing=ENDED, stopped=cut, seconds=time.perf_counter() - started)


def _before(lm: FrozenLM, token_ids: Sequence[int], num_mems: Sequence[int]) -> Capacity:
    ids = torch.tensor([list(token_ids)], device=lm.device)  # (1, N)
    costs = cross_entropy_bits(lm.bare_logits(ids), ids[:, 1:])[0]  # (N - 1,)
    parameters = sum(weight.numel() for weight in lm.model.parameters())
    cost_bits = (0.0, *costs.double().cumsum(0).tolist())
    return Capacity(lm.name, parameters, lm.hidden_size, len(token_ids), tuple(num_mems), cost_bits)


def _phases(
    lm: FrozenLM,
    token_ids: Sequence[int],
    config: CramConfig,
    num_mems: Sequence[int],
    now: Capacity,
    *,
    most_steps: float,
    stop: Callable[[], bool],
) -> Iterator[Capacity]:
    """The phases in turn, in states without a clock."""
    for num_mem in num_mems:
        if stop() or now.steps >= most_steps:
            return
        own = dataclasses.replace(config, num_mem=num_mem)
        before = now.growths
        first = before[-1].horizon if before and lm.encoder is not None else 0
        for growth in grow(lm, token_ids, own, first=first, most_steps=most_steps - now.steps, stop=stop):
            solved = growth.points[-1].solved if growth.points else 0
            now = dataclasses.replace(
                now, growths=(*before, growth), doing=GROWING, trying=growth.trained, solved=solved
            )
            yield now
        if num_mem == 1 and not stop():
            now = dataclasses.replace(now, doing=RULE)
            yield now
            grown, left = now.growths[-1], most_steps - now.steps
            for tried in by_the_papers_rule(lm, token_ids, own, grown, most_steps=left, stop=stop):
                now = dataclasses.replace(now, tried=(*now.tried, tried))
                yield now
