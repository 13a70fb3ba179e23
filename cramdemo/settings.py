"""Settings of a server, read from the environment once: what it offers and what it allows. README has the table.

Knows nothing of torch or Gradio.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from cramdemo.config import MAX_NUM_MEM_PAGE, MAX_SECONDS, MAX_STEPS, CramConfig
from cramdemo.errors import ConfigError

PREFIX = "CRAMDEMO_"
_YES, _NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def _setting(default: Any, means: str, read: Callable[[str], Any]) -> Any:
    return field(default=default, metadata={"means": means, "read": read})


def _names(value: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))


def _flag(value: str) -> bool:
    if value.lower() not in _YES + _NO:
        raise ValueError("1 or 0")
    return value.lower() in _YES


def _number(low: float, high: float) -> Callable[[str], float]:
    def read(value: str) -> float:
        words = f"a number from {low:,g} to {high:,g}"
        try:
            number = float(value)
        except ValueError:
            raise ValueError(words) from None
        if not (math.isfinite(number) and low <= number <= high):
            raise ValueError(words)
        return number

    return read


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(value: str) -> int:
        words = f"a whole number from {low:,} to {high:,}"
        if not value.isascii() or not value.isdigit() or not low <= int(value) <= high:
            raise ValueError(words)
        return int(value)

    return read


@dataclass(frozen=True)
class Settings:
    """What the owner of a server may set; each by CRAMDEMO_ and its name in capitals.

    Limits hold for the page and its API alike; the command line has those of `CramConfig`.
    """

    models: tuple[str, ...] = _setting(
        (),
        "Models offered besides cram-mini, comma list: names from `models`, hub ids, folders. Empty: all of `models`.",
        _names,
    )
    any_model: bool = _setting(
        False, "1 lets visitors type any id of the hub. Ignored on a Space, where strangers could fill the disk.", _flag
    )
    memory_gb: float = _setting(
        0.0,
        "Memory that a model and its run may take together, in GB. 0: what the machine has.",
        _number(0, 100_000),
    )
    max_mem: int = _setting(MAX_NUM_MEM_PAGE, "Most memory tokens of a run.", _whole(1, MAX_NUM_MEM_PAGE))
    max_steps: int = _setting(MAX_STEPS, "Most steps of a run.", _whole(1, MAX_STEPS))
    max_seconds: float = _setting(
        0.0, "Most seconds of a run; the best so far is then kept. 0: no limit.", _number(0, MAX_SECONDS)
    )
    queue: int = _setting(20, "Runs that may wait; more are told to come back later.", _whole(1, 10_000))
    mcp: bool = _setting(False, "1 offers the API as tools to MCP clients too.", _flag)


@cache
def server_settings() -> Settings:
    """Those of this process.

    Raises:
        ConfigError: see `read_settings`.
    """
    return read_settings(os.environ)


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Settings from CRAMDEMO_* variables; one that is not there or empty has its default.

    Raises:
        ConfigError: a value makes no sense, or a name that begins with CRAMDEMO_ is none of ours.
    """
    known = {PREFIX + f.name.upper(): f for f in dataclasses.fields(Settings)}
    for name in sorted(environment):
        if name.startswith(PREFIX) and name not in known:
            raise ConfigError(f"There is no setting {name}. Choose from {', '.join(known)}.")
    given = {f.name: _read(name, environment[name], f) for name, f in known.items() if environment.get(name)}
    if "SPACE_ID" in environment:
        given["any_model"] = False
    return Settings(**given)


def _read(name: str, value: str, setting: dataclasses.Field[Any]) -> Any:
    try:
        return setting.metadata["read"](value.strip())
    except ValueError as error:
        raise ConfigError(f"{name} is {value[:60]!r}; give {error}.") from None


def limited(config: CramConfig, settings: Settings) -> CramConfig:
    """The config as this server allows it: within its time limit if it has none of its own.

    Raises:
        ConfigError: it asks for more than is allowed here.
    """
    most = {"num_mem": settings.max_mem, "steps": settings.max_steps, "seconds": settings.max_seconds or MAX_SECONDS}
    for name, limit in most.items():
        asked = getattr(config, name)
        if asked is not None and asked > limit:
            raise ConfigError(f"{name} is {asked:,g}; this server allows at most {limit:,g}. Give less.")
    if config.seconds is None and settings.max_seconds:
        return dataclasses.replace(config, seconds=settings.max_seconds)
    return config


def table() -> list[tuple[str, str, str]]:
    """Name, default and meaning of every setting, for the README."""
    return [(PREFIX + f.name.upper(), _shown(f.default), f.metadata["means"]) for f in dataclasses.fields(Settings)]


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return str(int(default))
    return f"{default:g}" if isinstance(default, (int, float)) else ""
