"""How soon a text is lossless at a length that the cramming paper's recipe holds: FLOPs, steps and seconds.

Ours is run alone, one text at a time with its default settings, and timed from start to proof. The published loops,
run so in float32 as published, would take hours, so their seconds are reckoned: how many passes each text needs at
each prefix length is known from the run of all texts side by side, which gives each its own course, and a pass of
the loop alone, batch of one, float32, hidden states kept where the recipe keeps them, is timed here at that length.
One text is really run alone as a check. A run that is not lossless within its budget counts with what it spent, which
is less than it would have needed.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch

from cramdemo.bench.ledger import Outcome
from cramdemo.bench.proof import Proof
from cramdemo.bench.recipes import Recipe, run_recipe, seconds_a_pass
from cramdemo.bench.report import ratio_row
from cramdemo.config import CramConfig
from cramdemo.cram import run_cram
from cramdemo.models import FrozenLM
from cramdemo.vectors import dtype_name

TIMED_PASSES = 30
WARM_STEPS = 5  # of ours, before it is timed
CHECK_MOST_SECONDS = 120


@dataclass(frozen=True)
class Rival:
    """A published recipe in the duel.

    Attributes:
        name: of the recipe. loop: of its loop run alone, both as they stand in titles.
        recipe: as published.
        max_flops: given for each text.
        outcomes: of each text, from a run of all side by side.
    """

    name: str
    loop: str
    recipe: Recipe
    max_flops: int
    outcomes: Sequence[Outcome]


@dataclass(frozen=True)
class Side:
    """What one side spent on each text.

    Attributes:
        name: as in the table.
        lossless, flops, steps, seconds: one value for each text.
        how: how the seconds came about.
    """

    name: str
    lossless: Sequence[bool]
    flops: Sequence[int]
    steps: Sequence[int]
    seconds: Sequence[float]
    how: str

    @property
    def lower_bounds(self) -> int:
        """Texts that were not lossless in the end, so that what was spent is less than was needed."""
        return len(self.lossless) - sum(self.lossless)


def duel(
    lm: FrozenLM, texts: list[list[int]], num_mem: int, rivals: Sequence[Rival], proof: Proof | None = None
) -> Iterator[dict[str, Any]]:
    """Rows of ours and the rivals on the same texts, then ratios, then the check of the first rival's seconds.

    Args:
        texts: ids of B texts of one length.
        rivals: with outcomes of these texts.
        proof: is given our results, if there is one.
    """
    ours = _ours(lm, texts, "ours", CramConfig.for_model(lm, num_mem=num_mem, init="embedding"), proof)
    yield side_row(ours, len(texts[0]))
    if lm.encoder is not None:
        config = CramConfig.for_model(lm, num_mem=num_mem, init="encoder")
        yield side_row(_ours(lm, texts, "ours, from the encoder", config, proof), len(texts[0]))
    clocks = [_clock(lm, texts[0], num_mem, rival.recipe) for rival in rivals]
    for rival, clock in zip(rivals, clocks, strict=True):
        side = _published(lm, rival, clock)
        yield side_row(side, len(texts[0]))
        yield from _ratio_rows(rival, side, ours, len(texts[0]))
    yield _check_row(lm, texts, num_mem, rivals[0], clocks[0])


def side_row(side: Side, num_tokens: int) -> dict[str, Any]:
    """Medians of one side over all texts, those that are lower bounds included."""
    return {
        "figure": f"{side.name}, to lossless at {num_tokens} tokens: lossless",
        "value": f"{sum(side.lossless)} of {len(side.lossless)}",
        "median_gflops": round(median(side.flops) / 1e9, 1),
        "median_steps": median(side.steps),
        "median_seconds": float(f"{median(side.seconds):.3g}"),
        "lower_bounds": side.lower_bounds,
        "how": side.how,
    }


def _ratio_rows(rival: Rival, side: Side, ours: Side, num_tokens: int) -> Iterator[dict[str, Any]]:
    """FLOPs and seconds of a rival over ours; with how many values of either side are lower bounds."""
    bounds = {"lower_bounds": side.lower_bounds, "lower_bounds_of_ours": ours.lower_bounds}
    flops = f"FLOPs to lossless at {num_tokens} tokens, {rival.name} over ours"
    yield ratio_row(flops, side.flops, ours.flops) | bounds
    seconds = f"seconds to lossless at {num_tokens} tokens, {rival.loop} over ours"
    yield ratio_row(seconds, side.seconds, ours.seconds) | bounds | {"how": side.how}


def _ours(lm: FrozenLM, texts: list[list[int]], name: str, config: CramConfig, proof: Proof | None) -> Side:
    run_cram(lm, texts[0], dataclasses.replace(config, steps=WARM_STEPS))
    results = [run_cram(lm, ids, config) for ids in texts]
    if proof:
        proof.keep(results, [lm.detokenize(ids) for ids in texts])
    return Side(
        name,
        lossless=[result.lossless for result in results],
        flops=[result.flops for result in results],
        steps=[result.steps for result in results],
        seconds=[result.seconds for result in results],
        how="run alone and timed, verification included",
    )


def _published(lm: FrozenLM, rival: Rival, clock: Mapping[int, float]) -> Side:
    timed = ", ".join(f"{1000 * seconds:.1f} ms at {length}" for length, seconds in clock.items())
    return Side(
        rival.name,
        lossless=[outcome.lossless for outcome in rival.outcomes],
        flops=[outcome.flops for outcome in rival.outcomes],
        steps=[outcome.steps for outcome in rival.outcomes],
        seconds=[reckoned_seconds(outcome.passes_at, clock) for outcome in rival.outcomes],
        how=f"reckoned: passes of the run side by side in {dtype_name(lm.for_steps().dtype)}, times the seconds of a "
        f"pass of the loop alone in {dtype_name(lm.dtype)}: {timed} tokens",
    )


def _clock(lm: FrozenLM, ids: list[int], num_mem: int, recipe: Recipe) -> dict[int, float]:
    """Seconds of a pass of the loop alone by prefix length: the whole text; of a growing prefix also 1 and half."""
    lengths = {1, (len(ids) + 1) // 2, len(ids)} if recipe.growth else {len(ids)}
    return {
        length: seconds_a_pass(lm, torch.tensor(ids[:length]), recipe, num_mem=num_mem, passes=TIMED_PASSES)
        for length in sorted(lengths)
    }


def reckoned_seconds(passes_at: Mapping[int, int], clock: Mapping[int, float]) -> float:
    """Seconds of a run from its passes at each prefix length.

    Args:
        clock: seconds of a pass by prefix length, ascending; linear between them.
    """
    lengths = list(passes_at)
    return float(np.dot(list(passes_at.values()), np.interp(lengths, list(clock), list(clock.values()))))


def _check_row(
    lm: FrozenLM, texts: list[list[int]], num_mem: int, rival: Rival, clock: Mapping[int, float]
) -> dict[str, Any]:
    """The text of the median seconds, really run alone: what it took over what was reckoned."""
    reckoned = [reckoned_seconds(outcome.passes_at, clock) for outcome in rival.outcomes]
    number = sorted(range(len(texts)), key=lambda i: reckoned[i])[(len(texts) - 1) // 2]
    row = {"figure": f"check: seconds of {rival.loop} on one text run alone, over those reckoned", "value": None}
    if not 0 < reckoned[number] <= CHECK_MOST_SECONDS:
        return row | {"how": f"not run: {reckoned[number]:.0f} s were reckoned"}
    begun = time.perf_counter()
    ids = torch.tensor([texts[number]])
    (found,) = run_recipe(lm, ids, rival.recipe, num_mem=num_mem, seed=number, max_flops=rival.max_flops)
    seconds = time.perf_counter() - begun
    steps = f"{found.steps} steps alone, {rival.outcomes[number].steps} beside others"
    return row | {"value": round(seconds / reckoned[number], 3), "how": f"{seconds:.1f} s; {steps}"}
