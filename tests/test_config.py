"""Settings: each limit is refused with its own name, nothing can be changed afterwards, defaults are valid."""

from __future__ import annotations

import ast
import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import cramdemo.config
from cramdemo import ConfigError, CramConfig
from cramdemo.catalogue import FAMILY_DEFAULTS, MODELS
from cramdemo.config import (
    MAX_NUM_MEM,
    MAX_NUM_MEM_PAGE,
    MAX_RESTARTS,
    MAX_SECONDS,
    MAX_SEED,
    MAX_STEPS,
    PRESETS,
    CramDefaults,
)

REFUSED: list[tuple[str, Any]] = [
    ("num_mem", 0),
    ("num_mem", MAX_NUM_MEM + 1),
    ("num_mem", 1.0),
    ("num_mem", True),
    ("num_mem", "4"),
    ("num_mem", None),
    ("steps", 0),
    ("steps", MAX_STEPS + 1),
    ("steps", math.inf),
    ("growth", -1),
    ("growth", 10_000_000),
    ("warmup_steps", -1),
    ("warmup_steps", MAX_STEPS + 1),
    ("patience", 0),
    ("patience", MAX_STEPS + 1),
    ("restarts", 0),
    ("restarts", MAX_RESTARTS + 1),
    ("seed", -1),
    ("seed", MAX_SEED + 1),
    ("seed", 0.5),
    ("margin", -0.1),
    ("margin", 101),
    ("margin", math.nan),
    ("margin", False),
    ("temperature", 0),
    ("temperature", 101),
    ("temperature", math.inf),
    ("temperature", "hot"),
    ("boost", -0.01),
    ("boost", 1.5),
    ("boost", math.nan),
    ("boost", True),
    ("learning_rate", 0),
    ("learning_rate", -1.0),
    ("learning_rate", 101),
    ("learning_rate", math.nan),
    ("learning_rate", 10**400),
    ("seconds", 0),
    ("seconds", MAX_SECONDS + 1),
    ("seconds", math.inf),
    ("optimizer", "sgd"),
    ("init", "zeros"),
    ("init", None),
    ("precision", "int8"),
    ("precision", ["float32"]),
]
ALLOWED: list[tuple[str, Any]] = [
    ("num_mem", 1),
    ("num_mem", MAX_NUM_MEM),
    ("steps", 1),
    ("steps", MAX_STEPS),
    ("growth", 0),
    ("growth", None),
    ("warmup_steps", 0),
    ("patience", None),
    ("patience", 1),
    ("restarts", MAX_RESTARTS),
    ("seed", 0),
    ("seed", MAX_SEED),
    ("margin", 0),
    ("temperature", 0.25),
    ("boost", 0),
    ("boost", 1),
    ("boost", None),
    ("learning_rate", None),
    ("seconds", None),
    ("seconds", 0.1),
    ("seconds", MAX_SECONDS),
]


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_a_value_out_of_range_is_refused_by_name_with_what_to_give(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^{name} is .*; (give a (whole )?number from .* to|choose from) .*\.$"):
        CramConfig(**{name: value})


@pytest.mark.parametrize(("name", "value"), ALLOWED)
def test_a_limit_itself_is_allowed(name: str, value: Any) -> None:
    assert getattr(CramConfig(**{name: value}), name) == value


def test_every_setting_has_a_limit_that_is_tested() -> None:
    assert {name for name, _ in REFUSED} == {f.name for f in dataclasses.fields(CramConfig)}


@pytest.mark.parametrize("value", ["a" * 10**6, list(range(10**6)), 10**400], ids=["text", "list", "number"])
@pytest.mark.parametrize("name", ["steps", "margin", "init"])
def test_a_message_does_not_repeat_what_is_endless(name: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        CramConfig(**{name: value})
    assert len(str(caught.value)) < 120


def test_replace_checks_again() -> None:
    with pytest.raises(ConfigError, match=r"^steps is 0"):
        dataclasses.replace(CramConfig(), steps=0)


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(CramConfig)])
def test_a_config_cannot_be_changed(name: str) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(CramConfig(), name, 1)


ENTRY = SimpleNamespace(
    defaults=CramDefaults(
        learning_rate=0.37,
        growth=5,
        temperature=0.5,
        margin=0.7,
        boost=0.3,
        optimizer="whitened",
        most={"steps": 77, "margin": 0.2},
    )
)


def test_for_model_fills_only_what_is_not_given() -> None:
    own = CramConfig.for_model(ENTRY)
    assert (own.learning_rate, own.growth, own.temperature, own.margin, own.boost) == (0.37, 5, 0.5, 0.7, 0.3)
    assert own.optimizer == "whitened"
    assert CramConfig.for_model(ENTRY, learning_rate=None, steps=None) == own
    given = CramConfig.for_model(ENTRY, learning_rate=0.5, growth=0, num_mem=3, margin=0.0)
    assert (given.learning_rate, given.growth, given.num_mem, given.margin) == (0.5, 0, 3, 0.0)
    filled = CramConfig(seed=4, growth=0, temperature=1.0).filled(ENTRY)
    settings = {"learning_rate": 0.37, "temperature": 1.0, "margin": 0.7, "boost": 0.3, "optimizer": "whitened"}
    assert filled == CramConfig(seed=4, growth=0, **settings)


def test_a_preset_goes_before_the_model_s_defaults_and_what_is_given_before_it() -> None:
    fast, most = (CramConfig.for_model(ENTRY, preset=preset) for preset in PRESETS)
    assert fast == CramConfig.for_model(ENTRY) == CramConfig.for_model(ENTRY, preset=None)
    assert most == dataclasses.replace(fast, steps=77, margin=0.2)
    given = CramConfig.for_model(ENTRY, preset="most", margin=0.9, steps=None)
    assert (given.steps, given.margin) == (77, 0.9)


def test_an_unknown_preset_is_refused_with_what_to_choose_from() -> None:
    with pytest.raises(ConfigError, match=r"^preset is 'best'; choose from fast, most\.$"):
        CramConfig.for_model(ENTRY, preset="best")


def test_a_blank_preset_is_refused_too() -> None:
    with pytest.raises(ConfigError, match=r"^preset is ''; choose from fast, most\.$"):
        CramConfig.for_model(ENTRY, preset="")


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_of_every_known_model_are_valid_settings(preset: str) -> None:
    every = [entry.defaults for entry in MODELS.values()] + [CramDefaults(), *FAMILY_DEFAULTS.values()]
    configs = [CramConfig.for_model(SimpleNamespace(defaults=defaults), preset=preset) for defaults in every]
    assert all(config.boost and config.learning_rate and config.margin for config in configs)
    assert all(config.steps == 2000 for config in configs) == (preset == "fast")


def test_for_model_refuses_an_unknown_setting_by_name() -> None:
    with pytest.raises(ConfigError, match=r"no setting 'stepz'.*\bsteps\b"):
        CramConfig.for_model(ENTRY, stepz=3)


def test_the_page_s_limit_is_within_the_command_line_s() -> None:
    assert (MAX_NUM_MEM_PAGE, MAX_NUM_MEM) == (32, 128)


def test_config_is_free_of_torch() -> None:
    """So that `--help` need not import it; the package as a whole does."""
    source = ast.parse(Path(cramdemo.config.__file__).read_text(encoding="utf-8"))
    imported = {n.module for n in ast.walk(source) if isinstance(n, ast.ImportFrom)}
    imported |= {a.name for n in ast.walk(source) if isinstance(n, ast.Import) for a in n.names}
    assert not {str(name).split(".")[0] for name in imported} & {"torch", "transformers", "numpy", "gradio"}
