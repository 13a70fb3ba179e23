"""The jobs of a sweep, each by its number: a grid whose cells are reckoned, not kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

from cramdemo.sweep.spec import Spec, SweepRecipe

KEY_VERSION = 1  # of what a key is made of
KEY_LETTERS = 32


@dataclass(frozen=True)
class Job:
    """One text, one model, one recipe.

    Attributes:
        model: name, folder or hub id.
        source: name of the text. text: the text itself.
        length: tokens from its beginning; 0 for all of it.
        num_mem: K.
        seed: of the initial vectors.
        key: SHA-256 of all that the result depends on, shortened.
    """

    model: str
    source: str
    text: str
    length: int
    num_mem: int
    seed: int
    recipe: SweepRecipe
    key: str


class Jobs(Sequence[Job]):
    """All jobs of a spec: models one after the other, and of each the texts, lengths, K, seeds and recipes.

    The recipe changes fastest, so that a sweep that was stopped has compared them on the texts it came to.
    """

    def __init__(self, spec: Spec, texts: list[tuple[str, str]]) -> None:
        self._spec, self._texts = spec, texts
        self._digests = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() for _, text in texts]
        self._sizes = tuple(map(len, (spec.models, texts, spec.lengths, spec.num_mem, spec.seeds, spec.recipes)))

    def __len__(self) -> int:
        return prod(self._sizes)

    def __iter__(self) -> Iterator[Job]:
        return (self._job(number) for number in range(len(self)))

    def __getitem__(self, number: int) -> Job:  # type: ignore[override]  # no slices
        if not 0 <= number < len(self):
            raise IndexError(number)
        return self._job(number)

    def _job(self, number: int) -> Job:
        places = []
        for size in reversed(self._sizes):
            number, place = divmod(number, size)
            places.append(place)
        recipe, seed, num_mem, length, text, model = places
        spec = self._spec
        name, words = self._texts[text]
        values = {
            "version": KEY_VERSION,
            "model": spec.models[model],
            "text": self._digests[text],
            "length": spec.lengths[length],
            "num_mem": spec.num_mem[num_mem],
            "seed": spec.seeds[seed],
            "recipe": spec.recipes[recipe].as_dict(),
            "threads": spec.threads,
        }
        key = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:KEY_LETTERS]
        return Job(
            model=spec.models[model],
            source=name,
            text=words,
            length=spec.lengths[length],
            num_mem=spec.num_mem[num_mem],
            seed=spec.seeds[seed],
            recipe=spec.recipes[recipe],
            key=key,
        )
