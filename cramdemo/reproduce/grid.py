"""What each experiment of the cramming paper runs: texts, lengths and K, as sweeps in the order of their lengths.

Lengths, texts a length and the rule that ends a grid are the paper's (arXiv 2502.13063, section 4): lengths of
`PAPER_LENGTHS`, 50 texts each. A longer length is run only while a shorter one is held, and then `BEYOND` more, since
the plateau of information gain is measured on texts that are not held.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cramdemo.bench.recipes import CRAMMING
from cramdemo.capacity import RULE_LENGTHS
from cramdemo.catalogue import BUILT_IN, MODELS, ModelEntry, published
from cramdemo.config import MAX_NUM_MEM, PRESETS, CramConfig
from cramdemo.errors import ConfigError
from cramdemo.metrics import CAPACITY_ACCURACY
from cramdemo.placement import Machine, seconds
from cramdemo.sweep.rows import Row
from cramdemo.sweep.run import OneModel, rows_of, run_sweep
from cramdemo.sweep.spec import PUBLISHED, Spec, SweepRecipe
from cramdemo.sweep.texts import Folder, RandomWords, Source

EXPERIMENTS = {
    "table1": "decoding capacity, token gain and information gain, on prose and on random words",
    "scaling": "tokens against vectors",
    "entropy": "cost with [mem] in front against cost without, prose and random words",
    "unseen": "books the model was trained on against books it was not",
}
PROSE, WORDS, SEEN, UNSEEN = "prose", "random words", "seen", "unseen"
PAPER_LENGTHS = RULE_LENGTHS
SAMPLES = 50
SCALING_NUM_MEM = (1, 2, 4, 8, 16)
BEYOND = 2  # lengths after the last that is held
CHARACTERS_A_TOKEN = 8  # more than any tokenizer's on prose
WORDS_A_TOKEN = 1.2
LEAST_CHARACTERS = 400
H100_FLOPS = 3e14  # a second: what a step is taken to reach on that GPU, assumed and not measured
DOLLARS_AN_HOUR = 3.0


@dataclass(frozen=True)
class Asked:
    """What is to be reproduced.

    Attributes:
        experiment: a key of `EXPERIMENTS`.
        texts: folder of .txt books; for "unseen" those that the models were not trained on.
        seen: for "unseen": folder of those they were trained on.
        models: names, folders or hub ids.
        samples: texts of each length.
        lengths: of the grid, ascending, for K = 1; with more vectors as many times as long.
        num_mem: K of "scaling"; the others take its first.
        recipe: a preset of ours, or "cramming" for the paper's own.

    Raises:
        ConfigError: one of these makes no sense.
    """

    experiment: str
    texts: Path
    seen: Path | None = None
    models: tuple[str, ...] = (BUILT_IN,)
    samples: int = SAMPLES
    lengths: tuple[int, ...] = PAPER_LENGTHS
    num_mem: tuple[int, ...] = ()
    recipe: str = PRESETS[0]

    def __post_init__(self) -> None:
        if self.experiment not in EXPERIMENTS:
            raise ConfigError(f"There is no experiment {self.experiment!r}. Choose from {', '.join(EXPERIMENTS)}.")
        if self.recipe not in (*PRESETS, *PUBLISHED):
            raise ConfigError(f"recipe is {self.recipe!r}; choose from {', '.join((*PRESETS, *PUBLISHED))}.")
        if self.samples < 1:
            raise ConfigError(f"samples is {self.samples}; give a whole number from 1.")
        if not self.lengths or any(length < 2 for length in self.lengths):
            raise ConfigError("A length has at least 2 tokens, since the paper scores all but the first. Give others.")
        if any(not 1 <= k <= MAX_NUM_MEM for k in self.num_mem):
            raise ConfigError(f"num_mem has {max(self.num_mem)}; give whole numbers from 1 to {MAX_NUM_MEM}.")
        if (self.seen is not None) != (self.experiment == "unseen"):
            raise ConfigError(
                "unseen compares two folders: give --seen DIR with the books that the models were trained on."
                if self.seen is None
                else f"Only unseen reads --seen; {self.experiment} reads --texts. Leave --seen out."
            )
        for folder in filter(None, (self.texts, self.seen)):
            if not folder.is_dir():
                raise ConfigError(f"There is no folder {folder.name!r}. Give a folder of UTF-8 .txt books.")

    @property
    def vectors(self) -> tuple[int, ...]:
        """Each K that is run."""
        if self.experiment == "scaling":
            return tuple(sorted(set(self.num_mem or SCALING_NUM_MEM)))
        return (self.num_mem or (1,))[:1]

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of text that are run."""
        return {"scaling": (PROSE,), "unseen": (SEEN, UNSEEN)}.get(self.experiment, (PROSE, WORDS))


@dataclass(frozen=True)
class Cell:
    """One length of one model, K and kind of text; its rows once it has been run."""

    model: str
    kind: str
    num_mem: int
    length: int


@dataclass(frozen=True)
class Progress:
    """A cell in work: jobs done of it, of so many.

    Attributes:
        rows: all that are there of the cell, each with its `kind`, when it has ended or was stopped; else none.
    """

    cell: Cell
    done: int
    total: int
    rows: tuple[Row, ...] = ()


def run(asked: Asked, folder: Path, *, threads: int, stop: Callable[[], bool] = lambda: False) -> Iterator[Progress]:
    """Run what is missing, cell by cell; a model's lengths end once they are no longer held.

    Args:
        folder: for the rows, which are not run again.
        threads: of torch.

    Raises:
        CramError: see `sweep.run_sweep`.
    """
    model = OneModel()
    for cells in _ladders(asked):
        missed = 0
        for cell in cells:
            spec, at = _spec(asked, cell, threads), Progress(cell, 0, 0)
            for done in run_sweep(spec, folder, stop=stop, model=model):
                at = Progress(cell, done.before + done.here, done.total)
                yield at
            found = rows_of(spec, folder)
            yield dataclasses.replace(at, rows=tuple({**row, "kind": cell.kind} for row in found))
            if stop():
                return
            missed = 0 if held(found) else missed + 1
            if missed >= BEYOND:
                break


def held(found: Sequence[Mapping[str, Any]]) -> bool:
    """Whether texts of a length are held by the paper's rule: their mean accuracy is at least 0.99."""
    accuracies = [row["accuracy"] for row in found if "error" not in row]
    return bool(accuracies) and sum(accuracies) / len(accuracies) >= CAPACITY_ACCURACY


def _ladders(asked: Asked) -> Iterator[list[Cell]]:
    for model in asked.models:
        for kind in asked.kinds:
            for num_mem in asked.vectors:
                yield [Cell(model, kind, num_mem, length * num_mem) for length in sorted(set(asked.lengths))]


def _spec(asked: Asked, cell: Cell, threads: int) -> Spec:
    whole = {"growth": 0} if asked.recipe in PRESETS else {}  # of a prefix that grows, accuracy over the text is none
    recipe = SweepRecipe(asked.recipe, asked.recipe, whole)
    return Spec((cell.model,), (cell.length,), (cell.num_mem,), (0,), (recipe,), (_source(asked, cell),), threads)


def _source(asked: Asked, cell: Cell) -> Source:
    """Texts of a cell: the same for every model, and longer ones of the same places for longer lengths."""
    if cell.kind == WORDS:
        return RandomWords(asked.samples, words=int(cell.length * WORDS_A_TOKEN) + 1)
    folder = asked.seen if cell.kind == SEEN else asked.texts
    assert folder is not None
    characters = max(LEAST_CHARACTERS, CHARACTERS_A_TOKEN * cell.length)
    return Folder(str(folder.absolute()), passages=asked.samples, characters=characters)


def plan(asked: Asked, flops: float = H100_FLOPS, dollars_an_hour: float = DOLLARS_AN_HOUR) -> list[dict[str, Any]]:
    """What an experiment would take at most on a GPU, for each model of the table that is asked for.

    Every text takes all of its steps, and lengths go on to `BEYOND` after the published capacity. Rates are assumed.

    Args:
        flops: a second, of a step.

    Raises:
        ConfigError: a model is not in the table.
    """
    return [_planned(asked, _entry(model), flops, dollars_an_hour) for model in asked.models]


def _entry(model: str) -> ModelEntry:
    if model not in MODELS:
        raise ConfigError(f"{model!r} is not in the table of `models`, so its cost cannot be planned.")
    return MODELS[model]


def _planned(asked: Asked, entry: ModelEntry, flops: float, dollars_an_hour: float) -> dict[str, Any]:
    machine = Machine("cuda", "GPU", 1 << 40, flops, bfloat16=True)
    steps = CRAMMING.steps if asked.recipe in PUBLISHED else CramConfig.for_model(entry, preset=asked.recipe).steps
    known = published(entry).cramming or asked.lengths[-1]
    total = 0.0
    for num_mem in asked.vectors:
        lengths = [length for length in sorted(set(asked.lengths)) if length * num_mem <= entry.context - num_mem]
        reached = [n for n, length in enumerate(lengths) if length <= known]
        for length in lengths[: (reached[-1] if reached else 0) + 1 + BEYOND]:
            total += seconds(entry, length * num_mem, num_mem, steps, machine)
    hours = total * asked.samples * len(asked.kinds) / 3600
    return {
        "model": entry.name,
        "published_capacity": published(entry).cramming,
        "gpu_hours_at_most": round(hours, 1),
        "dollars_at_most": round(hours * dollars_an_hour),
    }
