"""A race of recipes for one text: the published ones and ours, side by side on the same budget of FLOPs.

Whoever has spent least goes next, so that at every moment all have spent about as much and the race may be stopped
whenever one likes. The published recipes are those of the benchmarks (`bench.recipes`), run on the model in the dtype
of our own steps, so that arithmetic decides nothing. Lossless is what greedy decoding gives back: of ours in every
check that a result must pass, of the published ones in the dtype that is kinder to them, since they train for no
margin.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cramdemo.bench.capacity import affordable_steps, budget
from cramdemo.bench.recipes import CRAMMING, Found, Recipe, progressive_for, recipe_passes, seconds_a_pass
from cramdemo.config import CramConfig
from cramdemo.cram import CramResult, Progress, check_length, cram
from cramdemo.decode import decode_tokens, greedy_prefix
from cramdemo.errors import TextError, plural
from cramdemo.metrics import solved_prefix
from cramdemo.models import FrozenLM
from cramdemo.placement import memory_or
from cramdemo.vectors import MemVectors

NUM_MEM = 1  # the boldest, and what the papers' main tables are about
RACE_SECONDS = 45.0  # of all lanes together, if each spends its whole budget
MOST_SECONDS = 60.0  # a machine that has become slower ends the race here, at equal FLOPs
TIMED_PASSES = 3
TIMED_SECONDS = 0.3  # of ours
LEAST_STEPS = 20  # that a lane can afford; a race of fewer is none
STILL = 1e-6  # a learning rate too small to solve anything while steps are timed
PAPER, PROGRESSIVE, OURS, ENCODER = "cramming", "progressive", "ours", "encoder"
KEYS = (PAPER, PROGRESSIVE, OURS, ENCODER)


@dataclass(frozen=True)
class Lane:
    """One recipe at one moment.

    Attributes:
        key: one of `KEYS`.
        steps: updates done. most_steps: its whole number of steps, as published; of ours as the budget affords.
        flops: spent, by the one count (`FlopCount`), at the end with the encoder and greedy decoding.
        solved: of N tokens those right under teacher forcing with the best vectors so far; where the prefix grows
            (progressive) the longest prefix that was exact.
        accuracy: teacher-forced at the last pass, over all N tokens; those not trained yet count as unsolved.
        ended: nothing more will come.
        decoded: at the end, leading tokens that greedy decoding gives back.
        lossless: at the end, whether these are all N.
    """

    key: str
    steps: int = 0
    most_steps: int = 0
    flops: int = 0
    solved: int = 0
    accuracy: float = 0.0
    ended: bool = False
    decoded: int = 0
    lossless: bool = False


@dataclass(frozen=True)
class Written:
    """What greedy decoding writes from one set of vectors.

    Attributes:
        texts: what each of N tokens adds to the text. right: whether it is the text's own token at its place.
    """

    texts: tuple[str, ...]
    right: tuple[bool, ...]

    @property
    def prefix(self) -> int:
        """Leading tokens that are right."""
        return int(solved_prefix(torch.tensor(self.right)))


@dataclass(frozen=True)
class Race:
    """The state of a race at one moment, all of it.

    Attributes:
        num_tokens: N.
        lanes: in the order of `KEYS`; a model without an encoder has three.
        budget: FLOPs for each lane; 0 while it is being measured.
        curve: "GFLOPs,accuracy,...;" for every pass so far, one accuracy a lane, empty but for the lane that ran;
            each state's string begins with the last one's.
        seconds: since the race began.
        ended: why: "finished", "stopped" or "seconds"; "" while it runs.
        alone, optimised: at the end, where there is an encoder, what its vectors decode to as they come, and after
            they have been optimised.
    """

    num_tokens: int
    lanes: tuple[Lane, ...]
    budget: int = 0
    curve: str = ""
    seconds: float = 0.0
    ended: str = ""
    alone: Written | None = None
    optimised: Written | None = None

    @property
    def winner(self) -> Lane | None:
        """The lossless lane that has spent the fewest FLOPs, once no other can still come in before it."""
        first = min((lane for lane in self.lanes if lane.lossless), key=lambda lane: lane.flops, default=None)
        if first is None or any(lane.flops < first.flops for lane in self.lanes if not lane.ended):
            return None
        return first


def race(
    lm: FrozenLM, text: str, *, seed: int = 0, seconds: float = RACE_SECONDS, stop: Callable[[], bool] = lambda: False
) -> Iterator[Race]:
    """Run every recipe on one text with one memory token, each with the same FLOPs.

    Args:
        seed: of the initial vectors of all.
        seconds: that all lanes take together, about, if none is lossless before; the budget follows from them and
            from the pace of a few passes of each, measured first. No lane gets more than the cramming paper's full
            number of steps costs.
        stop: asked after every slice; when it says True, all lanes end where they are and are decoded.

    Yields:
        The race before the first pass, after every slice and when a lane ends; the last one has `ended`.

    Raises:
        TextError: the text is empty, too long, not given back by the tokenizer, or this machine is too slow for it.
        ModelError: there is not memory for a single step.
    """
    ids = lm.tokenize(text)
    check_length(lm, len(ids), NUM_MEM)
    return _Race(lm, ids, seed, seconds).states(stop)


class _Race:
    """The lanes of one race, and the order in which they run."""

    def __init__(self, lm: FrozenLM, ids: list[int], seed: int, seconds: float) -> None:
        self.lm, self.ids, self.seed, self.race_seconds = lm, ids, seed, seconds
        keys = KEYS if lm.encoder is not None and lm.encoder.max_mem >= NUM_MEM else KEYS[:-1]
        self.lanes = {key: Lane(key) for key in keys}
        self.recipes = {PAPER: CRAMMING, PROGRESSIVE: progressive_for(lm)}
        self.budget, self.curve, self.halted = 0, "", False
        self.vectors: MemVectors | None = None  # of the lane that starts from the encoder, at its end

    def states(self, stop: Callable[[], bool]) -> Iterator[Race]:
        """The generator behind `race`."""
        started = time.perf_counter()
        yield self._state(started)
        with memory_or(_NO_MEMORY.format(model=self.lm.name)):
            self.budget = self._measured()
        running = {key: self._runs(key) for key in self.lanes}
        ended = ""
        while running:
            key = min(running, key=lambda key: self.lanes[key].flops)
            with memory_or(_NO_MEMORY.format(model=self.lm.name)):
                self._advance(key, running)
            if not ended:
                ended = "stopped" if stop() else "seconds" if time.perf_counter() - started >= MOST_SECONDS else ""
                self.halted = bool(ended)
            yield self._state(started)
        alone, optimised = self._seed_of_it()
        last = self._state(started, ended or "finished")
        yield dataclasses.replace(last, alone=alone, optimised=optimised)

    def _state(self, started: float, ended: str = "") -> Race:
        seconds = time.perf_counter() - started
        return Race(len(self.ids), tuple(self.lanes.values()), self.budget, self.curve, seconds, ended)

    def _advance(self, key: str, running: dict[str, Iterator[Lane]]) -> None:
        """One slice of a lane, and its point of the curve."""
        lane = self.lanes[key] = next(running[key])
        if lane.ended:
            del running[key]
        elif lane.flops:
            columns = (f"{lane.accuracy:.4f}" if other == key else "" for other in self.lanes)
            self.curve += f"{lane.flops / 1e9:.3f},{','.join(columns)};"

    def _runs(self, key: str) -> Iterator[Lane]:
        return self._published(key) if key in self.recipes else self._ours(key)

    def _published(self, key: str) -> Iterator[Lane]:
        """A recipe as published, pass by pass, with enough left for decoding twice, as ours has."""
        recipe, lane = self.recipes[key], self.lanes[key]
        passes = recipe_passes(
            self.lm.for_steps(),
            torch.tensor([self.ids]),
            recipe,
            num_mem=NUM_MEM,
            seed=self.seed,
            max_flops=self.budget - 2 * self.lm.flops.forward(NUM_MEM + len(self.ids) - 1, len(self.ids)),
        )
        for (found,) in passes:
            lane = _at_pass(lane, found, recipe, len(self.ids))
            yield lane
            if self.halted:
                break
        yield self._decoded(lane, found.mem)

    def _decoded(self, lane: Lane, mem: Tensor) -> Lane:
        """The end of a published recipe's lane: its best vectors decoded, by the dtype that is kinder to them."""
        count, prefix, flops = len(self.ids), 0, lane.flops
        for judge in dict.fromkeys((self.lm.for_steps(), self.lm)):
            right, _ = greedy_prefix(judge, mem, self.ids)
            decoded = min(right + 1, count)
            flops += self.lm.flops.forward(NUM_MEM + decoded - 1, decoded)
            prefix = max(prefix, right)
            if prefix == count:
                break
        return dataclasses.replace(lane, flops=flops, ended=True, decoded=prefix, lossless=prefix == count)

    def _ours(self, key: str) -> Iterator[Lane]:
        """This project's engine with its default settings, report by report."""
        steps = affordable_steps(self.lm, len(self.ids), NUM_MEM, self.budget)
        config = self._config(key, min(CramConfig.steps, steps))
        lane = dataclasses.replace(self.lanes[key], most_steps=config.steps)
        for item in cram(self.lm, self.ids, config, stop=lambda: self.halted):
            if isinstance(item, Progress):
                lane = dataclasses.replace(
                    lane, steps=item.step, flops=item.flops, solved=item.best_total, accuracy=item.accuracy
                )
                yield lane
            else:
                yield self._judged(lane, item)

    def _judged(self, lane: Lane, result: CramResult) -> Lane:
        if lane.key == ENCODER:
            self.vectors = result.vectors
        return dataclasses.replace(
            lane,
            steps=result.steps,
            flops=result.flops,
            solved=int(result.token_correct.sum()),
            ended=True,
            decoded=result.verification.correct_prefix,
            lossless=result.lossless,
        )

    def _config(self, key: str, steps: int) -> CramConfig:
        init = "encoder" if key == ENCODER else "embedding"
        return CramConfig.for_model(self.lm, num_mem=NUM_MEM, steps=steps, seed=self.seed, init=init)

    def _measured(self) -> int:
        """FLOPs for each lane, from the seconds that a FLOP takes in each.

        Raises:
            TextError: too few steps are affordable.
        """
        paces = {PAPER: self._pace_of_recipe(CRAMMING, len(self.ids))}
        paces[PROGRESSIVE] = self._pace_of_recipe(self.recipes[PROGRESSIVE], (len(self.ids) + 1) // 2)
        paces[OURS] = paces[ENCODER] = self._our_pace()
        whole = self.race_seconds / sum(paces[key] for key in self.lanes)
        affordable = affordable_steps(self.lm, len(self.ids), NUM_MEM, int(whole))
        if affordable < LEAST_STEPS:
            raise TextError(
                f"This machine is too slow to race {plural(len(self.ids), 'token')} on {self.lm.name}: in "
                f"{self.race_seconds:.0f} seconds each recipe could take {plural(max(0, affordable), 'step')}, and "
                f"{LEAST_STEPS} are the least. Shorten the text, or pick a smaller model."
            )
        return min(int(whole), budget(self.lm, len(self.ids), NUM_MEM))

    def _pace_of_recipe(self, recipe: Recipe, length: int) -> float:
        """Seconds a FLOP of a published loop at one prefix length."""
        ids, lm = torch.tensor(self.ids[:length]), self.lm.for_steps()
        seconds = seconds_a_pass(lm, ids, recipe, num_mem=NUM_MEM, passes=TIMED_PASSES)
        return seconds / lm.flops.step(NUM_MEM + length, NUM_MEM + length)

    def _our_pace(self) -> float:
        """Seconds a FLOP of our engine on the whole text, from a run that stands still."""
        config = dataclasses.replace(self._config(OURS, CramConfig.steps), learning_rate=STILL, growth=0)
        reports = []
        for item in cram(self.lm, self.ids, config):
            if isinstance(item, Progress):
                reports.append(item)
            if reports[-1].seconds - reports[0].seconds >= TIMED_SECONDS:
                break
        first, last = reports[0], reports[-1]
        if last.flops == first.flops:  # solved by chance
            return last.seconds / last.flops
        return (last.seconds - first.seconds) / (last.flops - first.flops)

    def _seed_of_it(self) -> tuple[Written | None, Written | None]:
        """What the encoder's vectors decode to as they come, and optimised; None without an encoder."""
        if self.vectors is None:
            return None, None
        with torch.no_grad():
            encoded = self.lm.encode(torch.tensor([self.ids], device=self.lm.device), NUM_MEM)[0].cpu()
        alone = dataclasses.replace(self.vectors, mem=encoded)
        return written(self.lm, alone, self.ids), written(self.lm, self.vectors, self.ids)


_NO_MEMORY = "There is not enough memory for one step of a race on {model}. Shorten the text, or pick a smaller model."


def _at_pass(lane: Lane, found: Found, recipe: Recipe, num_tokens: int) -> Lane:
    return dataclasses.replace(
        lane,
        steps=found.steps,
        most_steps=recipe.steps,
        flops=found.flops,
        solved=found.prefix if recipe.growth else max(lane.solved, found.solved),
        accuracy=found.solved / num_tokens,
    )


def written(lm: FrozenLM, vectors: MemVectors, token_ids: Sequence[int]) -> Written:
    """What greedy decoding writes from vectors, beside the text's N ids.

    Raises:
        ModelMismatch: the vectors were made for another model.
    """
    ids = list(decode_tokens(lm, vectors))
    right = tuple(found == wanted for found, wanted in zip(ids, token_ids, strict=True))
    return Written(tuple(lm.token_texts(ids)), right)
