"""A link that brings back the settings: they stand in its query; the text only if asked for, and in the fragment,
which browsers do not send to a server.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from cramdemo.config import CramConfig
from cramdemo.errors import CramError
from cramdemo.ui.offer import entry_of

MOST_CHARACTERS = 20_000  # of a text in a link; programs that pass links on cut longer ones
_NAMES = {  # in the query, by the setting
    "steps": "steps",
    "seconds": "seconds",
    "learning_rate": "rate",
    "margin": "margin",
    "seed": "seed",
    "precision": "precision",
    "init": "start",
}
FEWEST = "auto"  # in the place of K
_WHOLE = ("steps", "seed")
_WORDS = ("precision", "init")

FRAGMENT_SCRIPT = """text => {
  const given = new URLSearchParams(location.hash.slice(1)).get('text');
  return given === null ? text : given;
}"""
COPY_SCRIPT = f"""async (query, withText, text) => {{
  const tail = withText && text.length <= {MOST_CHARACTERS} ? '#' + new URLSearchParams({{text}}) : '';
  const link = location.origin + location.pathname + query + tail;
  try {{ await navigator.clipboard.writeText(link); }} catch (error) {{ /* the box has it */ }}
  return link;
}}"""


@dataclass(frozen=True)
class Linked:
    """What a link asks for.

    Attributes:
        model, num_mem, preset: of the form.
        search: find the fewest memory tokens; `num_mem` is then the page's own.
        settings: of the Advanced panel, by name, all of them.
        problem: why the link was not followed; "" if it was, or if it asks for nothing.
    """

    model: str
    num_mem: int
    preset: str
    settings: Mapping[str, Any]
    search: bool = False
    problem: str = ""


def query_of(model: str, preset: str, config: CramConfig, *, search: bool = False) -> str:
    """The query of a link to these settings: those of the Advanced panel only where they are not the preset's."""
    usual = CramConfig.for_model(entry_of(model), preset=preset)
    found: dict[str, Any] = {"model": model, "k": FEWEST if search else config.num_mem, "aim": preset}
    for name, short in _NAMES.items():
        value = getattr(config, name)
        if value != getattr(usual, name):
            found[short] = f"{value:g}" if isinstance(value, float) else value
    return "?" + urlencode(found, safe="/")


def linked(query: Mapping[str, str], model: str, num_mem: int) -> Linked:
    """The settings that a query asks for, checked as those of a run are; defaults where it asks for nothing.

    Args:
        model, num_mem: of the page as it is.
    """
    try:
        return _linked(query, model, num_mem)
    except CramError as error:
        usual = _linked({}, model, num_mem)
        return dataclasses.replace(usual, problem=f"The link was not followed. {error}")


def _linked(query: Mapping[str, str], model: str, num_mem: int) -> Linked:
    entry = entry_of(query.get("model", model))
    preset = query.get("aim", "fast")[:60]
    given = {name: _value(name, query[short]) for name, short in _NAMES.items() if query.get(short)}
    search = query.get("k") == FEWEST
    given["num_mem"] = _value("num_mem", query["k"]) if query.get("k") and not search else num_mem
    config = CramConfig.for_model(entry, preset=preset, **given)
    return Linked(entry.name, config.num_mem, preset, {name: getattr(config, name) for name in _NAMES}, search)


def _value(name: str, value: str) -> Any:
    """As the config wants it; what is no number stays a word, which the config refuses by name."""
    if name in _WORDS:
        return value[:60]
    try:
        return int(value) if name in _WHOLE or name == "num_mem" else float(value)
    except ValueError:
        return value[:60]
