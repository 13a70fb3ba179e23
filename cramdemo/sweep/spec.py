"""What a sweep is asked to run: a TOML file, read and checked as a whole before anything runs.

models = ["cram-mini"]
lengths = [16, 32]                  # tokens from the beginning of each text; 0 takes all of it
num_mem = [1, 2]
seeds = [0]
recipes = ["fast", "cramming"]      # presets, published recipes, and those defined below

[[texts]]
folder = "books"                    # .txt files, passages of which are drawn
passages = 10

[recipe.patient]
like = "most"
steps = 8000
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cramdemo.bench.recipes import CRAMMING, PROGRESSIVE, Recipe
from cramdemo.catalogue import BUILT_IN, MODELS
from cramdemo.config import MAX_NUM_MEM, MAX_SEED, PRESETS, CramConfig
from cramdemo.errors import ConfigError
from cramdemo.sweep.texts import SOURCES, Source

PUBLISHED: dict[str, Recipe] = {"cramming": CRAMMING, "progressive": PROGRESSIVE}
NOT_OURS_TO_SET = ("num_mem", "seed", "seconds")  # axes of the sweep; and a result must not depend on a clock
NOT_OF_A_RECIPE = ("name", "hidden_states")
MAX_LENGTH = 1_000_000
MAX_THREADS = 256
TOP = {"models", "lengths", "num_mem", "seeds", "recipes", "threads", "texts", "recipe"}


@dataclass(frozen=True)
class SweepRecipe:
    """How a job's vectors are optimised.

    Attributes:
        name: as in the rows.
        like: a preset of ours, or a key of `PUBLISHED`.
        settings: what it changes, of `CramConfig` or of `bench.recipes.Recipe`.
    """

    name: str
    like: str
    settings: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """What a job's key holds of it: not its name."""
        return {"like": self.like, **self.settings}


@dataclass(frozen=True)
class Spec:
    """A sweep: every text with every model, length, K, seed and recipe; nothing stands twice.

    Attributes:
        models: names, folders or hub ids.
        lengths: tokens from the beginning of each text; 0 for all of it.
        sources: where the texts come from.
        threads: of torch, for each process, so that the arithmetic is the same however many there are.
        dropped: what stood twice, a sentence each.
    """

    models: tuple[str, ...]
    lengths: tuple[int, ...]
    num_mem: tuple[int, ...]
    seeds: tuple[int, ...]
    recipes: tuple[SweepRecipe, ...]
    sources: tuple[Source, ...]
    threads: int = 1
    dropped: tuple[str, ...] = ()


def read_spec(path: Path) -> Spec:
    """A spec file; folders and files in it are looked up from where it lies.

    Raises:
        ConfigError: not TOML, or a key is missing, unknown or out of its range; with the line and the key.
        OSError: the file cannot be read.
    """
    try:
        text = path.read_bytes().decode("utf-8")
        found = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path.name} is not UTF-8. Save it as UTF-8 and try again.") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path.name} is not TOML: {error}. Mend that line and try again.") from error
    return _Reader(path, text).spec(found)


class _Reader:
    """Checks of one file, with its lines for messages."""

    def __init__(self, path: Path, text: str) -> None:
        self.path, self.lines = path, text.splitlines()
        self.dropped: list[str] = []

    def spec(self, found: dict[str, Any]) -> Spec:
        for key in found:
            if key not in TOP:
                raise self.wrong(key, f"there is no key {key}; there are {', '.join(sorted(TOP))}")
        recipes = self._recipes(found)
        return Spec(
            models=self._list(found, "models", _word, [BUILT_IN]),
            lengths=self._list(found, "lengths", _whole(0, MAX_LENGTH), [0]),
            num_mem=self._list(found, "num_mem", _whole(1, MAX_NUM_MEM), [1]),
            seeds=self._list(found, "seeds", _whole(0, MAX_SEED), [0]),
            recipes=recipes,
            sources=self._sources(found),
            threads=self._value("threads", found.get("threads", 1), _whole(1, MAX_THREADS)),
            dropped=tuple(self.dropped),
        )

    def wrong(self, key: str, problem: str, after: str = "") -> ConfigError:
        """The error for a key, with its line; `after` names the table that it stands in."""
        starts = [n for n, line in enumerate(self.lines) if re.match(rf"\s*\[+\s*{re.escape(after)}\s*\]+", line)]
        begin = starts[0] if after and starts else 0
        pattern = re.compile(rf"\s*(\[+\s*(recipe\.)?)?[\"']?{re.escape(key)}[\"']?\s*[\]=.]")
        line = next((n for n in range(begin, len(self.lines)) if pattern.match(self.lines[n])), begin)
        return ConfigError(f"{self.path.name}, line {line + 1}, {key}: {problem}.")

    def _value(self, key: str, value: Any, check: Callable[[Any], str], after: str = "") -> Any:
        if problem := check(value):
            raise self.wrong(key, problem, after)
        return value

    def _list(
        self, found: dict[str, Any], key: str, check: Callable[[Any], str], default: list[Any]
    ) -> tuple[Any, ...]:
        values = found.get(key, default)
        if not isinstance(values, list) or not values:
            raise self.wrong(key, f"it is {values!r:.60}; give a list of at least one value, as [{default[0]!r}]")
        for value in values:
            self._value(key, value, check)
        kept = list(dict.fromkeys(values))
        if len(kept) < len(values):
            self.dropped.append(f"{key} has values that stand twice; each is run once.")
        return tuple(kept)

    def _recipes(self, found: dict[str, Any]) -> tuple[SweepRecipe, ...]:
        own = found.get("recipe", {})
        if not isinstance(own, dict) or not all(isinstance(table, dict) for table in own.values()):
            raise self.wrong("recipe", "give a table for each recipe, as [recipe.patient]")
        known = {name: SweepRecipe(name, name, {}) for name in (*PRESETS, *PUBLISHED)}
        for name, table in own.items():
            if name in known:
                raise self.wrong(name, f"{name} is the name of a recipe that is there already; give another name")
            known[name] = self._recipe(name, table)
        names = self._list(found, "recipes", _word, [PRESETS[0]])
        for name in names:
            if name not in known:
                raise self.wrong("recipes", f"there is no recipe {name!r:.60}; there are {', '.join(known)}")
        kept = {tuple(sorted(known[name].as_dict().items())): known[name] for name in reversed(names)}
        if len(kept) < len(names):
            self.dropped.append("recipes has two of the same settings; they are run once.")
        return tuple(sorted(kept.values(), key=lambda recipe: names.index(recipe.name)))

    def _recipe(self, name: str, table: dict[str, Any]) -> SweepRecipe:
        place = f"recipe.{name}"
        like = table.get("like")
        if like not in (*PRESETS, *PUBLISHED):
            raise self.wrong("like" if "like" in table else name, f"give like = one of {_all_likes()}", place)
        settings = {key: value for key, value in table.items() if key != "like"}
        for key, value in settings.items():
            self._value(key, value, lambda v, key=key: _setting(like, key, v), place)  # type: ignore[misc]
        return SweepRecipe(name, like, settings)

    def _sources(self, found: dict[str, Any]) -> tuple[Source, ...]:
        tables = found.get("texts")
        if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
            raise self.wrong("texts", f"give at least one table [[texts]] with one of {', '.join(SOURCES)}")
        return tuple(self._source(table) for table in tables)

    def _source(self, table: dict[str, Any]) -> Source:
        kinds = [kind for kind in SOURCES if kind in table]
        if len(kinds) != 1:
            raise self.wrong("texts", f"each table [[texts]] has one of {', '.join(SOURCES)}; one has {len(kinds)}")
        kind = SOURCES[kinds[0]]
        fields = {f.name: f for f in dataclasses.fields(kind)}
        for key, value in table.items():
            if key not in fields or key == "base":
                allowed = ", ".join(name for name in fields if name != "base")
                raise self.wrong(key, f"texts with {kinds[0]} have {allowed}", "texts")
            wanted = {"str": _word, "int": _whole(0, MAX_SEED)}[str(fields[key].type)]
            self._value(key, value, wanted, "texts")
        return kind(**table, base=self.path.parent)


def _all_likes() -> str:
    return ", ".join((*PRESETS, *PUBLISHED))


def _setting(like: str, key: str, value: Any) -> str:
    """What is wrong with a setting of a recipe, or ""."""
    if like in PUBLISHED:
        allowed = {f.name for f in dataclasses.fields(Recipe)} - set(NOT_OF_A_RECIPE)
        if key not in allowed:
            return f"recipes like {like} have {', '.join(sorted(allowed))}"
        old = getattr(PUBLISHED[like], key)
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0
        fits = value in ("embedding", "uniform") if key == "init" else number
        return "" if fits else f"it is {value!r:.60}; it was {old!r}"
    allowed = {f.name for f in dataclasses.fields(CramConfig)} - set(NOT_OURS_TO_SET)
    if key not in allowed:
        return f"recipes like {like} have {', '.join(sorted(allowed))}"
    try:
        CramConfig.for_model(MODELS[BUILT_IN], preset=like, **{key: value})
    except ConfigError as error:
        return str(error).rstrip(".")
    return ""


def _word(value: Any) -> str:
    return "" if isinstance(value, str) and value.strip() else f"it is {value!r:.60}; give a word in quotes"


def _whole(low: int, high: int) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        fits = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        return "" if fits else f"it is {value!r:.60}; give a whole number from {low:,} to {high:,}"

    return check
