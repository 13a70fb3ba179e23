"""The fewest memory tokens that hold a text: K is doubled until a run is lossless, then bisected.

`fewest` is a generator of runs by `cram`, each warm-started from the run before. That a smaller K failed within its
steps proves nothing of more steps or another seed: what is found is the fewest found.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cramdemo.config import MAX_NUM_MEM, CramConfig
from cramdemo.cram import CramResult, Progress, check_characters, cram, initial_vectors
from cramdemo.errors import ModelError
from cramdemo.metrics import cross_entropy_bits
from cramdemo.models import FrozenLM
from cramdemo.placement import memory_or
from cramdemo.vectors import MemVectors

PATIENCE_SHARE = 1 / 30  # of a run's steps: a K that gains nothing for so long is given up
LEAST_PATIENCE = 40
LEAST_SECONDS = 0.1
_NO_MEMORY = "There is not enough memory for more vectors with {model}. Shorten the text, or pick a smaller model."


@dataclass(frozen=True)
class Trial:
    """One K that was tried.

    Attributes:
        num_mem: K.
        solved: right tokens of its best vectors, under teacher forcing. num_tokens: N.
        lossless: greedy reconstruction gave all N ids.
        reason: why it ended, as a result's.
        steps, seconds: that it took.
        flops: of the run and of choosing its start.
    """

    num_mem: int
    solved: int
    num_tokens: int
    lossless: bool
    reason: str
    steps: int
    seconds: float
    flops: int


@dataclass(frozen=True)
class Search:
    """The state of a search.

    Attributes:
        trials: those that have ended, in their order.
        config: settings of the run that is going, at the end of the one that gave the result.
        progress: its newest.
        kept: vectors of the fewest memory tokens that were lossless so far.
        result: at the end only, of the fewest that were lossless; if none was, of the run that decodes most tokens.
        ended: at the end only, why: "found", "most" if not even the most memory tokens were enough, "stopped",
            "seconds" or "memory".
    """

    trials: tuple[Trial, ...]
    config: CramConfig
    progress: Progress
    kept: MemVectors | None = None
    result: CramResult | None = None
    ended: str = ""


def fewest(
    lm: FrozenLM,
    text_or_ids: str | Sequence[int],
    config: CramConfig | None = None,
    *,
    most: int = MAX_NUM_MEM,
    stop: Callable[[], bool] | None = None,
    give_up: Callable[[], bool] = lambda: False,
) -> Iterator[Search]:
    """Find the fewest memory tokens for one text.

    Args:
        lm: the frozen model.
        text_or_ids: the text, or its N ids.
        config: settings of each run, but for K; its `seconds` are for the whole search. None takes this model's.
        most: K to go up to.
        stop: asked after every look at a run; when it says True, the search ends with what it has.
        give_up: as `cram` has it.

    Yields:
        States, at most some ten a second; the last has a result.

    Raises:
        CramError: when the first state is asked for, as `cram`.
    """
    if isinstance(text_or_ids, str):
        check_characters(text_or_ids)
    ids = lm.tokenize(text_or_ids) if isinstance(text_or_ids, str) else list(text_or_ids)
    config = (config or CramConfig()).filled(lm)
    patience = config.patience or max(LEAST_PATIENCE, round(config.steps * PATIENCE_SHARE))
    most = max(1, min(most, lm.max_tokens(len(ids))))  # K and N share the context
    search = _Search(lm, ids, dataclasses.replace(config, patience=patience), most, give_up)
    yield from search.states(stop or (lambda: False))


def next_num_mem(failed: int, lossless: int | None, most: int) -> int | None:
    """The K to be tried next, or None if there is none.

    Args:
        failed: the largest K that failed, 0 for none.
        lossless: the smallest K that was lossless, None for none.
        most: K to go up to.
    """
    if lossless is None:
        return min(2 * failed or 1, most) if failed < most else None
    return (failed + lossless) // 2 if lossless - failed > 1 else None


def widened(lm: FrozenLM, mem: Tensor, num_mem: int, seed: int = 0) -> Tensor:
    """Vectors with fresh ones in front, since the last one predicts token 0.

    Args:
        mem: (K, d).
        num_mem: at least K.

    Returns:
        (num_mem, d), float32; the fresh ones are N(0, std of the embedding matrix).
    """
    fresh = CramConfig(num_mem=num_mem, seed=seed, init="embedding")
    drawn = initial_vectors(lm, torch.zeros(1, 1, dtype=torch.int64), fresh)[0].cpu()
    return torch.cat([drawn[: num_mem - len(mem)], mem.cpu().float()])


def best_start(lm: FrozenLM, ids: Tensor, config: CramConfig, mem: Tensor) -> tuple[Tensor, int]:
    """What a run had best start from: vectors found for a smaller K, widened, or those it would start from anyway.

    Args:
        ids: (1, N), int64.
        mem: (fewer than K, d).

    Returns:
        (K, d), those under which the text costs less, and the FLOPs of finding out.
    """
    choices = torch.stack([widened(lm, mem, config.num_mem, config.seed), initial_vectors(lm, ids, config)[0].cpu()])
    bits = [_cost(lm, choice, ids) for choice in choices]
    each = lm.flops.forward(config.num_mem + ids.shape[1] - 1, ids.shape[1])
    return choices[bits.index(min(bits))], 2 * each + lm.encode_flops(ids.shape[1], config.num_mem)


@torch.no_grad()
def _cost(lm: FrozenLM, mem: Tensor, ids: Tensor) -> float:
    """Bits of the text with [mem] (K, d)."""
    return float(cross_entropy_bits(lm.text_logits(mem.to(lm.device)[None], ids), ids).sum())


class _Search:
    """What a search knows: the results so far, and between which K the answer lies."""

    def __init__(
        self, lm: FrozenLM, ids: list[int], config: CramConfig, most: int, give_up: Callable[[], bool]
    ) -> None:
        self.lm, self.ids, self.config, self.most, self.give_up = lm, ids, config, most, give_up
        self.trials: list[Trial] = []
        self.results: list[CramResult] = []
        self.failed = 0  # the largest K that was not lossless
        self.lossless: int | None = None  # the smallest that was
        self.started = time.perf_counter()

    def states(self, stop: Callable[[], bool]) -> Iterator[Search]:
        """The generator behind `fewest`."""
        last: Search | None = None
        num_mem: int | None = 1
        ended = ""
        while num_mem is not None and not ended:
            try:
                for last in self._try(num_mem, stop):
                    yield last
            except ModelError:
                if not self.results:
                    raise
                ended = "stopped" if stop() else "memory"  # for so many vectors; what was found before is there
                break
            num_mem = next_num_mem(self.failed, self.lossless, self.most)
            ended = self._why_not_on(stop)
        if num_mem is None:
            ended = "most" if self.lossless is None else "found"
        assert last is not None
        best = max(self.results, key=_merit)
        config = dataclasses.replace(self.config, num_mem=best.vectors.num_mem)
        yield dataclasses.replace(last, trials=tuple(self.trials), config=config, result=best, ended=ended)

    def _try(self, num_mem: int, stop: Callable[[], bool]) -> Iterator[Search]:
        """One run; its result is noted."""
        config, start, flops = self._prepared(num_mem)
        kept = max(self.results, key=_merit).vectors if self.lossless else None
        for item in cram(self.lm, self.ids, config, stop=stop, give_up=self.give_up, start=start):
            if isinstance(item, Progress):
                yield Search(tuple(self.trials), config, item, kept)
            else:
                self._note(item, flops)

    def _prepared(self, num_mem: int) -> tuple[CramConfig, Tensor | None, int]:
        """Settings, start, and what it cost to choose it."""
        config = dataclasses.replace(self.config, num_mem=num_mem)
        if config.seconds is not None:
            left = config.seconds - (time.perf_counter() - self.started)
            config = dataclasses.replace(config, seconds=max(LEAST_SECONDS, left))
        narrower = [result for result in self.results if result.vectors.num_mem < num_mem]
        if not narrower:
            return config, None, 0
        ids = torch.tensor([self.ids], device=self.lm.device)
        with memory_or(_NO_MEMORY.format(model=self.lm.name)):
            return config, *best_start(self.lm, ids, config, narrower[-1].vectors.mem)

    def _note(self, result: CramResult, flops: int) -> None:
        num_mem = result.vectors.num_mem
        self.results.append(result)
        self.trials.append(
            Trial(
                num_mem=num_mem,
                solved=int(result.token_correct.sum()),
                num_tokens=result.num_tokens,
                lossless=result.lossless,
                reason=result.reason,
                steps=result.steps,
                seconds=result.seconds,
                flops=result.flops + flops,
            )
        )
        if result.lossless:
            self.lossless = num_mem
        else:
            self.failed = num_mem

    def _why_not_on(self, stop: Callable[[], bool]) -> str:
        """Why no further K may be tried, "" if one may."""
        if stop():
            return "stopped"
        if self.config.seconds is not None and time.perf_counter() - self.started >= self.config.seconds:
            return "seconds"
        return "memory" if self.trials[-1].reason == "memory" else ""


def _merit(result: CramResult) -> tuple[bool, int, int, int]:
    """Lossless ones first, of these those with fewer vectors; of others those that decode more."""
    num_mem, right = result.vectors.num_mem, int(result.token_correct.sum())
    if result.lossless:
        return True, -num_mem, 0, 0
    return False, result.verification.correct_prefix, right, -num_mem
