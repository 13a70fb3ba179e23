"""Settings of one cramming run and their limits: the one source of command-line and slider defaults.

Knows nothing of torch, so that `--help` and the page's widgets cost nothing to build.
"""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from cramdemo.errors import ConfigError

MAX_NUM_MEM = 128
MAX_NUM_MEM_PAGE = 32
MAX_CHARACTERS = 1_000_000  # of a text: no vectors hold more, and counting the tokens of more takes seconds
MAX_CHARACTERS_PAGE = 100_000
MAX_STEPS = 100_000
MAX_RESTARTS = 64
MAX_SECONDS = 86_400.0
MAX_SEED = 2**31 - 1
INITS = ("auto", "encoder", "embedding")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
OPTIMIZERS = ("adam", "whitened")
PRESETS = ("fast", "most")


def _most_tokens() -> dict[str, Any]:
    return {"steps": 4000, "margin": 0.3, "optimizer": "whitened", "init": "embedding"}


@dataclass(frozen=True)
class CramDefaults:
    """What suits a model: the settings that `CramConfig` takes from its table entry where it says None.

    They are those of the preset "fast", which is soonest lossless where a text is well within what the vectors hold.

    Attributes:
        most: settings that the preset "most" changes, which holds the most tokens and takes its time.
    """

    learning_rate: float = 0.1
    growth: int = 16
    temperature: float = 1.0
    margin: float = 1.0
    optimizer: str = "adam"
    boost: float = 0.02
    most: Mapping[str, Any] = field(default_factory=_most_tokens)


class ModelDefaults(Protocol):
    """A model, or its table entry: what says how it is best crammed."""

    @property
    def defaults(self) -> CramDefaults:
        """The settings that suit it."""


@dataclass(frozen=True)
class CramConfig:
    """Settings of one run; frozen, checked once when made.

    Attributes:
        num_mem: K, the number of memory tokens.
        steps: most optimiser updates.
        seconds: time budget of the optimisation, or None for no limit.
        learning_rate: peak step size; None takes the model's table entry, as of the next three.
        margin: logit margin trained for and asked of every token before the run ends as solved. Progressive
            cramming (ICML 2026) found 0.5 to 2 to bring greedy decoding from 70 % to 91 to 100 %.
        temperature: the loss divides the logits by it (progressive cramming, T = 0.25); 1 is plain cross-entropy.
        boost: rate at which tokens that miss the margin gain weight in the loss, by step (`objective.boosted`);
            0 weighs all alike; None takes the model's table entry too.
        optimizer: "adam"; or "whitened", which also straightens out directions that are no single number's
            (`optimiser.Whitened`); None takes the model's table entry too.
        growth: tokens added to the trained prefix each time it is solved; 0 trains the whole text at once; None takes
            the model's table entry too.
        warmup_steps: linear warm-up of the learning rate; a cosine decay over `steps` follows.
        patience: the run ends after so many steps in which no more tokens came right, nor the margin grew of a text
            that is all right; None for no such end. The published recipe of the cramming paper has 2,000.
        restarts: initial vectors tried side by side as one batch; the first to be solved ends the run.
        seed: of the initial vectors and nothing else.
        init: "encoder" starts from the memory encoder's vectors, "embedding" from N(0, std of the embedding
            matrix) as the cramming paper does, "auto" from the encoder where the model has one.
        precision: dtype the model runs in; the vectors and the loss are float32 always.

    Raises:
        ConfigError: a value is out of its range.
    """

    num_mem: int = 1
    steps: int = 2000
    seconds: float | None = None
    learning_rate: float | None = None
    margin: float | None = None
    temperature: float | None = None
    boost: float | None = None
    optimizer: str | None = None
    growth: int | None = None
    warmup_steps: int = 10
    patience: int | None = None
    restarts: int = 1
    seed: int = 0
    init: str = "auto"
    precision: str = "auto"

    def __post_init__(self) -> None:
        _check_whole("num_mem", self.num_mem, 1, MAX_NUM_MEM)
        _check_whole("steps", self.steps, 1, MAX_STEPS)
        _check_whole("warmup_steps", self.warmup_steps, 0, MAX_STEPS)
        if self.patience is not None:
            _check_whole("patience", self.patience, 1, MAX_STEPS)
        _check_whole("restarts", self.restarts, 1, MAX_RESTARTS)
        _check_whole("seed", self.seed, 0, MAX_SEED)
        if self.margin is not None:
            _check_number("margin", self.margin, 0.0, 100.0)
        if self.temperature is not None:
            _check_number("temperature", self.temperature, 0.01, 100.0)
        if self.boost is not None:
            _check_number("boost", self.boost, 0.0, 1.0)
        if self.growth is not None:
            _check_whole("growth", self.growth, 0, 1_000_000)
        if self.learning_rate is not None:
            _check_number("learning_rate", self.learning_rate, 1e-6, 100.0)
        if self.seconds is not None:
            _check_number("seconds", self.seconds, 0.1, MAX_SECONDS)
        _check_choice("init", self.init, INITS)
        if self.optimizer is not None:
            _check_choice("optimizer", self.optimizer, OPTIMIZERS)
        _check_choice("precision", self.precision, PRECISIONS)

    @classmethod
    def for_model(cls, entry: ModelDefaults, *, preset: str | None = None, **given: Any) -> CramConfig:
        """A config with what is not given (or given as None) taken from the model's table entry.

        Args:
            preset: "fast" (also where None), or "most" for as many tokens as possible; what is given goes before it.

        Raises:
            ConfigError: a value is out of its range, or a setting has no such name.
        """
        _check_choice("preset", "fast" if preset is None else preset, PRESETS)
        names = {f.name for f in dataclasses.fields(cls)}
        for name in given:
            if name not in names:
                raise ConfigError(f"There is no setting {name!r}. Choose from {', '.join(sorted(names))}.")
        changed = entry.defaults.most if preset == "most" else {}
        return cls(**{**changed, **{name: value for name, value in given.items() if value is not None}}).filled(entry)

    def filled(self, entry: ModelDefaults) -> CramConfig:
        """The same config with every setting that is None for "the model's own" taken from the model's entry."""
        missing = [name for name in _MODEL_S_OWN if getattr(self, name) is None]
        return dataclasses.replace(self, **{name: getattr(entry.defaults, name) for name in missing})


_MODEL_S_OWN = ("learning_rate", "growth", "temperature", "margin", "boost", "optimizer")


def _check_whole(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ConfigError(f"{name} is {reprlib.repr(value)}; give a whole number from {low} to {high}.")


def _check_number(name: str, value: object, low: float, high: float) -> None:
    # NaN is in no range, and a comparison takes whole numbers that no float can hold
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ConfigError(f"{name} is {reprlib.repr(value)}; give a number from {low:g} to {high:g}.")


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} is {reprlib.repr(value)}; choose from {', '.join(choices)}.")
