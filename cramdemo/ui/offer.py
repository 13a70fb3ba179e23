"""Which models this server offers, and what the hub wants before one of them can be had. Knows no widget."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from huggingface_hub import constants, get_token, try_to_load_from_cache

from cramdemo.catalogue import BUILT_IN, MODELS, UNLIMITED, ModelEntry, find
from cramdemo.config import CramDefaults
from cramdemo.errors import ConfigError, ModelError
from cramdemo.hub import is_hub_id
from cramdemo.placement import entry_from_folder, refusal, this_machine
from cramdemo.settings import server_settings
from cramdemo.ui.zero import ON_ZERO

_NAMES_LISTED = 4


@dataclass(frozen=True)
class HubState:
    """Where a model's files are.

    Attributes:
        words: to be shown beside its size.
        reason: why it cannot be had; "" if it can.
    """

    words: str = ""
    reason: str = ""


def offered() -> dict[str, ModelEntry]:
    """The models of this server by name: the built-in one first, then all, or those that its owner lists.

    Raises:
        ConfigError: the owner lists what can be no model.
    """
    names = server_settings().models
    if not names and not ON_ZERO:  # there models are loaded at the start, and the owner says which
        return MODELS
    return {entry.name: entry for entry in (MODELS[BUILT_IN], *map(_listed, names))}


@cache
def _listed(name: str) -> ModelEntry:
    """The entry of a model that the server's owner names, who may name folders too."""
    entry = find(name)
    if entry is not None:
        return entry
    folder = Path(name).resolve()  # a relative one may look like an id of the hub
    if (folder / "config.json").is_file():
        return entry_from_folder(folder.name, folder)
    if not is_hub_id(name):
        raise ConfigError(
            f"CRAMDEMO_MODELS lists {name!r}, which is no name from `models`, no id of the hub (owner/name) and no "
            "folder with a model in it."
        )
    return _unknown(name, source=name)


def where(entry: ModelEntry) -> str:
    """What `load_model` finds the model by."""
    return entry.name if entry.name in MODELS else entry.source


def _unknown(name: str, source: str) -> ModelEntry:
    return ModelEntry(
        name=name,
        source=source,
        parameters=0,
        hidden_size=0,
        vocab_size=0,
        context=UNLIMITED,
        defaults=CramDefaults(),
        licence="",
        note="",
    )


def entry_of(name: str) -> ModelEntry:
    """The entry of a model on offer here: a name from a visitor or a file never becomes a path.

    Raises:
        ModelError: not on offer here.
    """
    models = offered()
    found = models.get(name) or next((e for e in models.values() if e.label.lower() == str(name).lower()), None)
    if found is not None:
        return found
    if server_settings().any_model and isinstance(name, str) and is_hub_id(name):
        return _unknown(name, source=name)
    first = ", ".join(list(models)[:_NAMES_LISTED])
    more = f" and {len(models) - _NAMES_LISTED} others" if len(models) > _NAMES_LISTED else ""
    raise ModelError(f"There is no model {str(name)[:60]!r} on this page. Choose from {first}{more}.")


def is_here(entry: ModelEntry) -> bool:
    """Whether a model's files are on this machine already."""
    folder = Path(entry.source)
    return (folder / "config.json").is_file() or isinstance(try_to_load_from_cache(entry.source, "config.json"), str)


def hub_state(entry: ModelEntry, token: str | None = None) -> HubState:
    """Whether a model is here, or can be had from the hub.

    Args:
        token: of the visitor, if there is one.
    """
    if entry.local:
        return HubState("built in")
    if entry.gated and not (token or get_token()):
        return HubState(
            reason=f"Gated: accept its licence at huggingface.co/{entry.source} and start this program with HF_TOKEN "
            "set, on a Space as a secret."
        )
    if is_here(entry):
        return HubState("on this machine")
    if constants.HF_HUB_OFFLINE:
        return HubState(reason="Not on this machine, and HF_HUB_OFFLINE is set, so it cannot be downloaded.")
    return HubState("to be downloaded")


def too_long(entry: ModelEntry, num_tokens: int, num_mem: int) -> str:
    """Why a text this long is too long for the model, whatever the machine; "" if it is not."""
    if entry.context == UNLIMITED or num_tokens + num_mem <= entry.context:
        return ""
    return f"Holds at most {entry.context - num_mem:,} tokens with K = {num_mem}; the text has about {num_tokens:,}."


def check_can_run(entry: ModelEntry, num_tokens: int, num_mem: int, token: str | None = None) -> None:
    """Refuse a model that cannot run here, before anything is loaded.

    Args:
        num_tokens: of the text, or a guess.
        token: of the visitor, if there is one.

    Raises:
        ModelError: it cannot be had, or does not fit the machine.
    """
    reason = refusal(entry, num_tokens, num_mem, this_machine()) or hub_state(entry, token).reason
    if reason:
        raise ModelError(f"{entry.label} cannot run here. {reason}")
