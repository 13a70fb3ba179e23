"""How much text one set of [mem] vectors holds: ours against the published recipes, at equal FLOPs.

Every recipe gets, for each text, what the cramming paper's recipe would spend in its full 5,000 steps on a text of
that length. All run on the model in the dtype of our own steps, so that arithmetic decides nothing: the progressive
paper ran bfloat16 models with float32 vectors, the cramming paper bfloat16 for Llama. Horizons are verified by greedy
decoding whoever found the vectors, in that dtype and in the one the model was loaded in, and the better of the two
counts, which is kind to recipes that train for no margin.

For each column the longest length is searched for at which at least half of the texts are lossless. What was run is
kept in a folder (`ledger`), so that a benchmark of hours can be stopped and gone on with.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

import torch

from cramdemo.bench.duel import Rival, duel
from cramdemo.bench.ledger import Ledger, Outcome
from cramdemo.bench.proof import Proof
from cramdemo.bench.recipes import CRAMMING, Recipe, progressive_for, run_recipe
from cramdemo.bench.report import Asked, Tell, interval, keep_quiet, noting, ratio_row
from cramdemo.config import CramConfig
from cramdemo.cram import run_cram
from cramdemo.decode import greedy_prefix
from cramdemo.errors import ConfigError
from cramdemo.metrics import CAPACITY_ACCURACY, correct_tokens, cross_entropy_bits, information_gain_bits
from cramdemo.models import FrozenLM, load_model
from cramdemo.passages import bits_per_byte, draw_passages
from cramdemo.vectors import token_digest

LENGTHS = (  # tokens a vector
    *(2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32),
    *(36, 40, 44, 48, 52, 56, 60, 64, 72, 80, 88, 96, 112, 128),
)
FIRST_LENGTH = 8  # of the first column's search, tokens a vector
LONGEST_LEAP = 4  # upwards in `LENGTHS`: a length that is too long costs every text its whole budget
HELD_SHARE = 0.5  # of the texts, lossless at a length that counts as held
GROWING_FACTOR = 2  # a recipe that grows its prefix is run on texts so much longer than the best other one held
OUR_MOST_STEPS = 2000  # a schedule that falls within them holds more than one stretched over all that is allowed
OURS = "ours"
SWEEP_PASSAGES = 4  # others than those of the comparison
SWEEP_FACTOR = 1.5  # their length over what the recipe as published held
SWEEP_SHARE = 0.25  # of the budget
CRAMMING_RATES = (0.03, 0.1, 0.3, 1.0)
PROGRESSIVE_CHANGES: tuple[dict[str, Any], ...] = (  # what its paper found to pay
    {},
    {"temperature": 0.25},
    {"rank": 64},
    {"rank": 256},
    {"rank": 256, "temperature": 0.25},
    {"learning_rate": 0.3},
    {"learning_rate": 1.0},
)


@dataclass(frozen=True)
class Column:
    """One side of the comparison.

    Attributes:
        name: as in the table.
        settings: all that it runs with.
        run: model, ids of B texts of one length, K and FLOPs for each text -> an outcome for each.
        grows: one run on long texts gives the horizon, so that shorter ones need not be run.
    """

    name: str
    settings: str
    run: Callable[[FrozenLM, list[list[int]], int, int], list[Outcome]]
    grows: bool = False


def bench_capacity(asked: Asked, tell: Tell = keep_quiet) -> dict[str, Any]:
    """Tokens held by each recipe at equal FLOPs, and the duel, for each model and K, with ratios of ours to others.

    All models are loaded and all passages drawn before anything is run, so that bad input is refused at once.

    Raises:
        TextError: the books are too short.
        ModelError: there is no such model.
        ConfigError: K is too large for a model.
    """
    rows: list[dict[str, Any]] = []
    ledger = Ledger(asked.out)
    drawn = [_drawn(load_model(name), asked) for name in asked.models]
    for name, texts in zip(asked.models, drawn, strict=True):
        lm = load_model(name)
        note = noting(rows, tell, {"model": lm.name})
        note({"figure": "bits per byte of the bare LM on the books", "value": round(bits_per_byte(lm, asked.books), 3)})
        for num_mem, ids in texts.items():
            note = noting(rows, tell, {"model": lm.name, "num_mem": num_mem})
            sweep = Comparison(lm, ids[asked.passages :], num_mem, ledger, note)
            with Proof(name) as proof:
                _compare(Comparison(lm, ids[: asked.passages], num_mem, ledger, note), sweep, proof)
                for row in proof.rows():  # of what was run now: the ledger keeps no vectors
                    note(row)
    return {"benchmark": "capacity", "models": list(asked.models), "passages": asked.passages, "rows": rows}


def _drawn(lm: FrozenLM, asked: Asked) -> dict[int, list[list[int]]]:
    """Ids of the texts of each K, those of the sweeps last, as long as the longest length that fits the model."""
    found = {}
    for num_mem in asked.num_mem:
        fitting = [n * num_mem for n in LENGTHS if n * num_mem <= lm.max_tokens(num_mem)]
        if not fitting:
            raise ConfigError(
                f"num_mem is {num_mem}; with the shortest texts, of {num_mem * min(LENGTHS)} tokens, that is more than "
                f"the {lm.context} positions of {lm.name}. Give less."
            )
        passages = draw_passages(lm, asked.books, asked.passages + SWEEP_PASSAGES, max(fitting))
        found[num_mem] = [lm.tokenize(text) for text in passages]
    return found


def _compare(comparison: Comparison, sweep: Comparison, proof: Proof) -> None:
    """The rows of one model and K: each column's lengths and horizon, the ratios, the duel.

    Args:
        proof: is given our results.
    """
    lm, num_mem, note = comparison.lm, comparison.num_mem, comparison.tell
    held: dict[str, list[int]] = {}

    def run(column: Column, start: float) -> list[list[Outcome]]:
        by_length = comparison.by_length(column, start)
        held[column.name] = horizons(by_length)
        capacity = None if column.grows else decoding_capacity(by_length)
        note(horizon_row(column.name, held[column.name], capacity, by_length[0][0].num_tokens))
        return by_length

    def longest() -> float:
        return max(median(tokens) for tokens in held.values())

    as_published = run(published(CRAMMING, "cramming, as published"), FIRST_LENGTH * num_mem)
    rates = [{"learning_rate": rate} for rate in CRAMMING_RATES]
    best_cramming = best(sweep, CRAMMING, rates, SWEEP_FACTOR * longest())
    run(published(best_cramming, "cramming, best learning rate"), longest())

    growing = progressive_for(lm)
    slow = published(growing, "progressive, as published")
    run(slow, GROWING_FACTOR * longest())
    best_growing = best(sweep, growing, PROGRESSIVE_CHANGES, SWEEP_FACTOR * median(held[slow.name]))
    run(published(best_growing, "progressive, best setting"), GROWING_FACTOR * longest())

    others = list(held)
    run(ours(OURS, _our_config(lm, "embedding"), proof), longest())
    if lm.encoder is not None:
        run(ours(f"{OURS}, from the encoder", _our_config(lm, "encoder"), proof), longest())
    for name in others:
        note(ratio_row(f"{OURS} over {name}: verified tokens", held[OURS], held[name]))
    _duel(comparison, as_published, slow, growing, proof)


def _duel(
    comparison: Comparison, as_published: list[list[Outcome]], slow: Column, growing: Recipe, proof: Proof
) -> None:
    """Ours against the published loops at the lengths that the cramming paper's recipe holds.

    By the paper's rule, which on some models is met by texts of a few tokens only that take any recipe a few steps,
    and by half of the texts being lossless.
    """
    lengths = {decoding_capacity(as_published), longest_held(as_published)} - {0}
    if not lengths:
        comparison.tell({"figure": "the duel", "value": "none: cramming, as published, holds no length that was run"})
    for length in sorted(lengths):
        (reached,) = [outcomes for outcomes in as_published if outcomes[0].num_tokens == length]
        given, grown = budget(comparison.lm, length, comparison.num_mem), comparison.at(slow, length)
        rivals = (
            Rival("cramming as published", "the published loop", CRAMMING, given, reached),
            Rival("progressive as published", "progressive's published loop", growing, given, grown),
        )
        texts = [text[:length] for text in comparison.texts]
        for row in duel(comparison.lm, texts, comparison.num_mem, rivals, proof):
            comparison.tell(row)


def best(sweep: Comparison, recipe: Recipe, changes: Sequence[Mapping[str, Any]], length: float) -> Recipe:
    """The recipe with those changes that hold most on the sweep's texts at one length and a part of the budget.

    By the mean verified horizon, then by the mean accuracy, then by the fewest FLOPs; the first of equals.

    Args:
        length: in tokens; the nearest of `sweep.lengths` is run.
    """
    nearest = min(sweep.lengths, key=lambda tokens: abs(tokens - length))

    def reached(changed: Mapping[str, Any]) -> tuple[float, float, int]:
        column = published(dataclasses.replace(recipe, **changed), f"sweep, {recipe.name}, {_words(changed)}")
        outcomes = sweep.at(column, nearest, SWEEP_SHARE)
        return mean(o.horizon for o in outcomes), mean(o.accuracy for o in outcomes), -sum(o.flops for o in outcomes)

    chosen = max(changes, key=reached)
    sweep.tell({"figure": f"{recipe.name}: best of the sweep at {nearest} tokens", "value": _words(chosen)})
    return dataclasses.replace(recipe, **chosen)


def _words(changes: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in changes.items()) or "as published"


def published(recipe: Recipe, name: str = "") -> Column:
    """A published recipe as a column; texts run side by side."""

    def run(lm: FrozenLM, texts: list[list[int]], num_mem: int, max_flops: int) -> list[Outcome]:
        found = run_recipe(lm.for_steps(), torch.tensor(texts), recipe, num_mem=num_mem, max_flops=max_flops)
        return [
            _outcome(lm, f.mem, ids, steps=f.steps, flops=f.flops, passes_at=f.passes_at)
            for f, ids in zip(found, texts, strict=True)
        ]

    return Column(name or recipe.name, repr(recipe), run, grows=bool(recipe.growth))


def ours(name: str, config: CramConfig, proof: Proof | None = None) -> Column:
    """This project's engine within the same FLOPs, verification and encoder included.

    Args:
        config: its settings; `num_mem` and, where the FLOPs end sooner, `steps` are set for each run.
        proof: is given the results, if there is one.
    """

    def run(lm: FrozenLM, texts: list[list[int]], num_mem: int, max_flops: int) -> list[Outcome]:
        outcomes = []
        for ids in texts:
            steps = min(config.steps, affordable_steps(lm, len(ids), num_mem, max_flops))
            result = run_cram(lm, ids, dataclasses.replace(config, num_mem=num_mem, steps=max(1, steps)))
            if proof:
                proof.keep([result], [lm.detokenize(ids)])
            mem = result.vectors.mem.to(lm.device)
            outcomes.append(_outcome(lm, mem, ids, steps=result.steps, flops=result.flops))
        return outcomes

    return Column(name, repr(config), run)


def _our_config(lm: FrozenLM, init: str) -> CramConfig:
    return CramConfig.for_model(lm, preset="most", init=init, steps=OUR_MOST_STEPS)


def affordable_steps(lm: FrozenLM, num_tokens: int, num_mem: int, max_flops: int) -> int:
    """Steps of our engine on the whole text that leave enough for the encoder and for decoding twice."""
    positions = num_mem + num_tokens - 1
    fixed = lm.encode_flops(num_tokens, num_mem) + 2 * lm.flops.forward(positions, num_tokens)
    return max(0, max_flops - fixed) // lm.flops.step(positions, num_tokens) - 1  # the last step is scored as well


def budget(lm: FrozenLM, num_tokens: int, num_mem: int) -> int:
    """FLOPs of the cramming paper's full number of steps, with logits at all positions as it computes them."""
    positions = num_mem + num_tokens
    return CRAMMING.steps * lm.flops.step(positions, positions)


def _outcome(lm: FrozenLM, mem: torch.Tensor, ids: list[int], **spent: Any) -> Outcome:
    """What the vectors (K, d) reach in the dtype that is kinder to them."""
    judges = dict.fromkeys((lm, lm.for_steps()))
    horizon, accuracy, gain = max(_judged(judge, mem, ids) for judge in judges)
    return Outcome(len(ids), accuracy, horizon, gain, **spent)


def _judged(lm: FrozenLM, mem: torch.Tensor, ids: list[int]) -> tuple[int, float, float]:
    """Tokens that greedy decoding gives, teacher-forced accuracy, information gain in bits."""
    tokens = torch.tensor([ids], device=lm.device)
    with torch.no_grad():
        logits = lm.text_logits(mem[None], tokens)
        accuracy = float(correct_tokens(logits, tokens).float().mean())
        bare = cross_entropy_bits(lm.bare_logits(tokens), tokens[:, 1:])[0]
        gain = information_gain_bits(bare, cross_entropy_bits(logits, tokens)[0])
    return greedy_prefix(lm, mem, ids)[0], accuracy, gain


@dataclass(frozen=True)
class Comparison:
    """Texts of one model and K, run by column and length.

    Attributes:
        texts: ids of B texts of one length; shorter lengths run their prefixes.
        ledger: what is known already.
        tell: is given a row for each length of each column.
    """

    lm: FrozenLM
    texts: list[list[int]]
    num_mem: int
    ledger: Ledger
    tell: Tell

    @property
    def lengths(self) -> list[int]:
        """Lengths that can be run, in tokens, in their order."""
        return [n * self.num_mem for n in LENGTHS if n * self.num_mem <= len(self.texts[0])]

    def by_length(self, column: Column, start: float) -> list[list[Outcome]]:
        """Outcomes of all texts at each length that was run, in their order.

        Args:
            start: where the search begins, or of a column that grows the length, in tokens.
        """
        return self._grown(column, start) if column.grows else self._searched(column, start)

    def _searched(self, column: Column, start: float) -> list[list[Outcome]]:
        """Two searches over the same runs: half of the texts lossless, and the paper's rule.

        The length after the one found has been run each time, if there is one.
        """
        lengths = self.lengths
        runs: dict[int, list[Outcome]] = {}

        def at(number: int) -> list[Outcome]:
            runs[number] = runs.get(number) or self.at(column, lengths[number])
            return runs[number]

        begin = max(0, sum(length <= start for length in lengths) - 1)
        last_held(lambda number: half_lossless(at(number)), len(lengths), begin)
        last_held(lambda number: accurate(at(number)), len(lengths), begin)
        return [runs[number] for number in sorted(runs)]

    def _grown(self, column: Column, least: float) -> list[list[Outcome]]:
        """One run at the first length from `least` on, and at longer ones while more than half come to the end."""
        found: list[list[Outcome]] = []
        while True:
            length = next((length for length in self.lengths if length >= least), self.lengths[-1])
            found.append(self.at(column, length))
            ended = sum(outcome.lossless or outcome.accuracy == 1 for outcome in found[-1])
            if ended <= len(found[-1]) / 2 or length == self.lengths[-1]:
                return found
            least = GROWING_FACTOR * length

    def at(self, column: Column, length: int, share: float = 1.0) -> list[Outcome]:
        """Outcomes of all texts at one length, each with a share of the budget."""
        prefixes = [text[:length] for text in self.texts]
        max_flops = int(share * budget(self.lm, length, self.num_mem))
        digest = token_digest([token for ids in prefixes for token in ids])
        key = (
            f"{self.lm.fingerprint[:16]}, steps in {self.lm.step_dtype}, K = {self.num_mem}, "
            f"{len(prefixes)} x {length} tokens {digest[:16]}, {max_flops} FLOPs, {column.settings}"
        )
        outcomes = self.ledger.get(key, lambda: column.run(self.lm, prefixes, self.num_mem, max_flops))
        self.tell(length_row(column.name, outcomes))
        return outcomes


def last_held(holds: Callable[[int], bool], count: int, start: int) -> int | None:
    """The last of `count` numbers that holds, where the ones before it do too; None if none does.

    Leaps that double, from `start` up or down, until one holds and one does not; then bisection. The number after
    the one found has been asked, unless there is none.
    """
    low, high, leap = -1, count, 1
    while high - low > 1:
        if low < 0 and high == count:
            number = start
        elif low >= 0 and high < count:
            number = (low + high) // 2
        else:
            number = min(low + min(leap, LONGEST_LEAP), count - 1) if high == count else max(high - leap, 0)
            leap *= 2
        low, high = (number, high) if holds(number) else (low, number)
    return low if low >= 0 else None


def half_lossless(outcomes: Sequence[Outcome]) -> bool:
    """Whether at least half of the texts are lossless."""
    return sum(outcome.lossless for outcome in outcomes) >= HELD_SHARE * len(outcomes)


def accurate(outcomes: Sequence[Outcome]) -> bool:
    """The paper's rule: whether the mean teacher-forced accuracy is at least 0.99."""
    return mean(outcome.accuracy for outcome in outcomes) >= CAPACITY_ACCURACY


def horizons(by_length: Iterable[list[Outcome]]) -> list[int]:
    """For each text the longest prefix that any of its runs decodes to."""
    return [max(outcome.horizon for outcome in runs) for runs in zip(*by_length, strict=True)]


def decoding_capacity(by_length: Iterable[list[Outcome]]) -> int:
    """The paper's: largest length at which the mean teacher-forced accuracy is at least 0.99; 0 if none is."""
    return max((outcomes[0].num_tokens for outcomes in by_length if accurate(outcomes)), default=0)


def longest_held(by_length: Iterable[list[Outcome]]) -> int:
    """Largest length at which at least half of the texts are lossless; 0 if there is none."""
    return max((outcomes[0].num_tokens for outcomes in by_length if half_lossless(outcomes)), default=0)


def length_row(name: str, outcomes: list[Outcome]) -> dict[str, Any]:
    """A column at one length."""
    lossless = [outcome for outcome in outcomes if outcome.lossless]
    return {
        "figure": f"{name}, {outcomes[0].num_tokens} tokens: lossless",
        "value": f"{len(lossless)} of {len(outcomes)}",
        "accuracy": round(mean(o.accuracy for o in outcomes), 4),
        "horizon": median(o.horizon for o in outcomes),
        "gain_bits": round(mean(o.gain_bits for o in outcomes), 1),
        "median_steps_to_lossless": median(o.steps for o in lossless) if lossless else None,
        "median_gflops_to_lossless": round(median(o.flops for o in lossless) / 1e9, 1) if lossless else None,
    }


def horizon_row(name: str, held: list[int], capacity: int | None, shortest: int) -> dict[str, Any]:
    """What a column holds: the median over texts with its interval, and the paper's capacity where it has a meaning.

    Args:
        shortest: length that was run, in tokens.
    """
    nothing = "" if any(held) else f" (not one token of one text, not even of texts of {shortest})"
    return {
        "figure": f"{name}: verified tokens, median{nothing}",
        "value": median(held),
        "interval": interval(lambda chosen: median(held[i] for i in chosen), len(held)),
        "capacity": capacity,
        "column": name,
    }
