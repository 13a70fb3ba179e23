"""How much text one set of [mem] vectors holds: ours against the published recipes, at equal FLOPs.

Every recipe gets, for each text, what the cramming paper's recipe would spend in its full 5,000 steps on a text of
that length. Horizons are verified by greedy decoding whoever found the vectors. What was run is kept in a folder,
line by line, so that a benchmark of hours can be stopped and gone on with; it holds figures and no text.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch

from cramdemo.bench.recipes import CRAMMING, PROGRESSIVE, PROGRESSIVE_NEOX_LEARNING_RATE, Recipe, run_recipe
from cramdemo.bench.report import Asked, Tell, keep_quiet
from cramdemo.config import CramConfig
from cramdemo.cram import run_cram
from cramdemo.decode import greedy_prefix
from cramdemo.metrics import correct_tokens, cross_entropy_bits, information_gain_bits
from cramdemo.models import FrozenLM, load_model
from cramdemo.passages import draw_passages

LENGTHS = (8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128)  # tokens a vector
CAPACITY_ACCURACY = 0.99  # arXiv 2502.13063: teacher-forced, mean over the texts of a length
GIVE_UP_AFTER = 2  # lengths in a row without one lossless text
OUR_MOST_STEPS = 2000  # a schedule that falls within them holds more than one stretched over all that is allowed
BOOTSTRAP_DRAWS = 2000
OURS = "ours"
SWEEP_PASSAGES = 4  # others than those of the comparison
CRAMMING_RATES = (0.03, 0.1, 0.3)
PROGRESSIVE_CHANGES: tuple[dict[str, Any], ...] = (  # what its paper found to pay
    {},
    {"temperature": 0.25},
    {"rank": 64},
    {"rank": 256},
    {"rank": 256, "temperature": 0.25},
    {"learning_rate": 0.3},
)


@dataclass(frozen=True)
class Outcome:
    """What one recipe reached on one text of N tokens.

    Attributes:
        num_tokens: N.
        accuracy: teacher-forced, over all N tokens.
        horizon: leading tokens that greedy decoding gives exactly.
        gain_bits: information gain over tokens 1..N-1.
        steps, flops: spent.
    """

    num_tokens: int
    accuracy: float
    horizon: int
    gain_bits: float
    steps: int
    flops: int

    @property
    def lossless(self) -> bool:
        """All N tokens decode."""
        return self.horizon == self.num_tokens


@dataclass(frozen=True)
class Column:
    """One side of the comparison.

    Attributes:
        name: as in the table.
        run: model, ids of B texts of one length, K and FLOPs for each text -> an outcome for each.
        grows: one run on the longest text gives the horizon, so that shorter ones need not be run.
    """

    name: str
    run: Callable[[FrozenLM, list[list[int]], int, int], list[Outcome]]
    grows: bool = False


def bench_capacity(asked: Asked, tell: Tell = keep_quiet) -> dict[str, Any]:
    """Tokens held by each recipe at equal FLOPs, for each model and K, with ratios of ours to the others.

    Raises:
        TextError: the books are too short.
        ModelError: there is no such model.
    """
    rows: list[dict[str, Any]] = []
    for name in asked.models:
        lm = load_model(name)
        for num_mem in asked.num_mem:
            rows += _rows(lm, num_mem, asked, tell)
    return {"benchmark": "capacity", "models": list(asked.models), "passages": asked.passages, "rows": rows}


def _rows(lm: FrozenLM, num_mem: int, asked: Asked, tell: Tell) -> list[dict[str, Any]]:
    """The rows of one model and K: each column at each length, then horizons, then ratios."""
    rows: list[dict[str, Any]] = []

    def note(row: dict[str, Any]) -> None:
        rows.append({"model": lm.name, "num_mem": num_mem} | row)
        tell(rows[-1])

    passages = draw_passages(lm, asked.books, asked.passages + SWEEP_PASSAGES, num_mem * max(LENGTHS))
    texts = [lm.tokenize(text) for text in passages]
    ledger = Ledger(asked.out, f"{lm.fingerprint[:16]}, K = {num_mem}, {asked.passages} passages")
    sweep = Comparison(lm, texts[asked.passages :], num_mem, ledger, keep_quiet)
    comparison = Comparison(lm, texts[: asked.passages], num_mem, ledger, note)
    held: dict[str, list[int]] = {}
    for column in columns(sweep):
        by_length = comparison.by_length(column)
        held[column.name] = horizons(by_length)
        capacity = None if column.grows else decoding_capacity(by_length)
        note(horizon_row(column.name, held[column.name], capacity))
    for name, other in held.items():
        if not name.startswith(OURS):
            note(ratio_row(f"{OURS} over {name}: verified tokens", held[OURS], other))
    return rows


def columns(sweep: Comparison) -> list[Column]:
    """The published recipes, each at its best setting on the sweep's texts, and ours."""
    lm = sweep.lm
    as_published = dataclasses.replace(PROGRESSIVE, learning_rate=_progressive_rate(lm))
    rates = [dataclasses.replace(CRAMMING, learning_rate=rate) for rate in CRAMMING_RATES]
    settings = [dataclasses.replace(as_published, **changes) for changes in PROGRESSIVE_CHANGES]
    found = [
        published(CRAMMING, "cramming, as published"),
        published(best(sweep, rates), "cramming, best learning rate"),
        published(as_published, "progressive, as published"),
        published(best(sweep, settings), "progressive, best setting"),
        ours(OURS, "embedding"),
    ]
    return found + ([ours(f"{OURS}, from the encoder", "encoder")] if lm.encoder is not None else [])


def best(sweep: Comparison, recipes: Sequence[Recipe]) -> Recipe:
    """The recipe with the largest mean verified horizon on the sweep's texts; the first of equals."""
    reached = [mean(horizons(sweep.by_length(published(recipe, repr(recipe))))) for recipe in recipes]
    return recipes[reached.index(max(reached))]


def _progressive_rate(lm: FrozenLM) -> float:
    """As published by family: Pythia is GPT-NeoX, the others are of the Llama type."""
    neox = getattr(lm.model.config, "model_type", "") == "gpt_neox"
    return PROGRESSIVE_NEOX_LEARNING_RATE if neox else PROGRESSIVE.learning_rate


def published(recipe: Recipe, name: str = "") -> Column:
    """A published recipe as a column; texts run side by side."""

    def run(lm: FrozenLM, texts: list[list[int]], num_mem: int, max_flops: int) -> list[Outcome]:
        found = run_recipe(lm, torch.tensor(texts), recipe, num_mem=num_mem, max_flops=max_flops)
        return [_outcome(lm, f.mem, ids, f.steps, f.flops) for f, ids in zip(found, texts, strict=True)]

    return Column(name or recipe.name, run, grows=bool(recipe.growth))


def ours(name: str, init: str) -> Column:
    """This project's engine at its defaults, within the same FLOPs, verification and encoder included."""

    def run(lm: FrozenLM, texts: list[list[int]], num_mem: int, max_flops: int) -> list[Outcome]:
        outcomes = []
        for ids in texts:
            steps = min(OUR_MOST_STEPS, affordable_steps(lm, len(ids), num_mem, max_flops))
            result = run_cram(lm, ids, CramConfig.for_model(lm, num_mem=num_mem, steps=max(1, steps), init=init))
            mem = result.vectors.mem.to(lm.device)
            outcomes.append(_outcome(lm, mem, ids, result.steps, result.flops))
        return outcomes

    return Column(name, run)


def affordable_steps(lm: FrozenLM, num_tokens: int, num_mem: int, max_flops: int) -> int:
    """Steps of our engine on the whole text that leave enough for the encoder and for decoding twice."""
    positions = num_mem + num_tokens - 1
    fixed = lm.encode_flops(num_tokens, num_mem) + 2 * lm.flops.forward(positions, num_tokens)
    return max(0, max_flops - fixed) // lm.flops.step(positions, num_tokens) - 1  # the last step is scored as well


def budget(lm: FrozenLM, num_tokens: int, num_mem: int) -> int:
    """FLOPs of the cramming paper's full number of steps, with logits at all positions as it computes them."""
    positions = num_mem + num_tokens
    return CRAMMING.steps * lm.flops.step(positions, positions)


def _outcome(lm: FrozenLM, mem: torch.Tensor, ids: list[int], steps: int, flops: int) -> Outcome:
    tokens = torch.tensor([ids], device=lm.device)
    with torch.no_grad():
        logits = lm.text_logits(mem[None], tokens)
        accuracy = float(correct_tokens(logits, tokens).float().mean())
        bare = cross_entropy_bits(lm.bare_logits(tokens), tokens[:, 1:])[0]
        gain = information_gain_bits(bare, cross_entropy_bits(logits, tokens)[0])
    return Outcome(len(ids), accuracy, greedy_prefix(lm, mem, ids)[0], gain, steps, flops)


class Ledger:
    """Outcomes by column and length, kept in a file if there is a folder for it."""

    def __init__(self, folder: Path | None, about: str) -> None:
        """`about` says what was run: outcomes of another model, K or set of passages are not taken up."""
        self._path, self._about = (folder / "capacity.jsonl" if folder else None), about
        self._known: dict[str, list[Outcome]] = {}
        if self._path and self._path.exists():
            for line in self._path.read_text(encoding="utf-8").splitlines():
                entry = json.loads(line)
                self._known[entry["key"]] = [Outcome(**values) for values in entry["outcomes"]]

    def get(self, column: str, length: int, run: Callable[[], list[Outcome]]) -> list[Outcome]:
        """What is known, or else what `run` gives, which is known from then on."""
        key = f"{self._about}, {column}, {length}"
        if key not in self._known:
            self._known[key] = run()
            if self._path:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("a", encoding="utf-8") as file:
                    values = [dataclasses.asdict(outcome) for outcome in self._known[key]]
                    file.write(json.dumps({"key": key, "outcomes": values}) + "\n")
        return self._known[key]


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

    def by_length(self, column: Column) -> list[list[Outcome]]:
        """Outcomes of all texts at each length, up to where no text is lossless any more."""
        lengths = [n * self.num_mem for n in LENGTHS if n * self.num_mem <= len(self.texts[0])]
        found: list[list[Outcome]] = []
        idle = 0
        for length in lengths[-1:] if column.grows else lengths:
            found.append(self.at(column, length))
            idle = 0 if any(outcome.lossless for outcome in found[-1]) else idle + 1
            if idle == GIVE_UP_AFTER:
                break
        return found

    def at(self, column: Column, length: int) -> list[Outcome]:
        """Outcomes of all texts at one length."""

        def run() -> list[Outcome]:
            prefixes = [text[:length] for text in self.texts]
            return column.run(self.lm, prefixes, self.num_mem, budget(self.lm, length, self.num_mem))

        outcomes = self.ledger.get(column.name, length, run)
        self.tell(length_row(column.name, outcomes))
        return outcomes


def horizons(by_length: Iterable[list[Outcome]]) -> list[int]:
    """For each text the longest prefix that any of its runs decodes to."""
    return [max(outcome.horizon for outcome in runs) for runs in zip(*by_length, strict=True)]


def decoding_capacity(by_length: Iterable[list[Outcome]]) -> int:
    """The paper's: largest length at which the mean teacher-forced accuracy is at least 0.99; 0 if none is."""
    held = [o[0].num_tokens for o in by_length if mean(x.accuracy for x in o) >= CAPACITY_ACCURACY]
    return max(held, default=0)


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


def horizon_row(name: str, held: list[int], capacity: int | None) -> dict[str, Any]:
    """What a column holds: the median over texts, and the paper's capacity where lengths were run one by one."""
    return {"figure": f"{name}: verified tokens, median", "value": median(held), "capacity": capacity}


def ratio_row(name: str, numerator: Sequence[float], denominator: Sequence[float]) -> dict[str, Any]:
    """Ratio of two medians over the same texts, with a 95 % bootstrap interval; None where nothing was held."""
    return {"figure": name, "value": _ratio(numerator, denominator), "interval": interval(numerator, denominator)}


def interval(numerator: Sequence[float], denominator: Sequence[float]) -> list[float] | None:
    """2.5 and 97.5 percent of the ratio of medians when the texts are drawn again with replacement."""
    generator = torch.Generator().manual_seed(0)
    draws = []
    for _ in range(BOOTSTRAP_DRAWS):
        chosen = torch.randint(len(numerator), (len(numerator),), generator=generator).tolist()
        draws.append(_ratio([numerator[i] for i in chosen], [denominator[i] for i in chosen]))
    known = sorted(draw for draw in draws if draw is not None)
    if len(known) < len(draws):
        return None
    return [known[round(0.025 * (len(known) - 1))], known[round(0.975 * (len(known) - 1))]]


def _ratio(numerator: Sequence[float], denominator: Sequence[float]) -> float | None:
    below = median(denominator)
    return round(median(numerator) / below, 3) if below else None
