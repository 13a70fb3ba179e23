"""Which models a server offers, under which names, and what stands in the way of one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from cramdemo.catalogue import BUILT_IN, MODELS
from cramdemo.errors import ConfigError, ModelError
from cramdemo.hub import is_hub_id
from cramdemo.placement import Machine
from cramdemo.settings import Settings
from cramdemo.ui import offer

LARGE = Machine("cuda", "a large GPU", 10**12, 1e15)
SMALL = Machine("cpu", "a small CPU", 10**9, 1e10)


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Gives the server settings."""

    def give(**given: Any) -> None:
        monkeypatch.setattr(offer, "server_settings", lambda: Settings(**given))

    give()
    return give


@pytest.fixture(autouse=True)
def _no_token_and_a_large_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(offer, "get_token", lambda: None)
    monkeypatch.setattr(offer, "this_machine", lambda: LARGE)
    offer._listed.cache_clear()
    yield
    offer._listed.cache_clear()


def test_all_models_of_the_table_are_on_offer_unless_the_owner_lists_some(settings: Any) -> None:
    assert list(offer.offered()) == list(MODELS)
    settings(models=("pythia-410m", "someone/else"))
    assert list(offer.offered()) == [BUILT_IN, "EleutherAI/pythia-410m", "someone/else"]


def test_the_owner_may_list_a_folder_which_is_called_by_its_name_alone(settings: Any, tiny_folder: Path) -> None:
    settings(models=(str(tiny_folder),))
    assert offer.entry_of("tiny").source == str(tiny_folder)
    assert offer.hub_state(offer.entry_of("tiny")).reason == ""


def test_a_relative_folder_is_not_taken_for_an_id_of_the_hub(
    settings: Any, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_folder.parent.parent)
    name = f"{tiny_folder.parent.name}/{tiny_folder.name}"
    assert is_hub_id(name)
    settings(models=(name,))
    assert not is_hub_id(offer.entry_of("tiny").source)


@pytest.mark.parametrize("name", ["no-such-folder", "/no/such/folder", "../up", "a/b/c", "gpt 17"])
def test_an_owner_s_list_with_no_model_in_it_is_refused_at_the_start(settings: Any, name: str) -> None:
    settings(models=("pythia-160m", name))
    with pytest.raises(ConfigError, match=f"CRAMDEMO_MODELS lists '{name}'"):
        offer.offered()


@pytest.mark.parametrize("name", ["Pythia-160M", "pythia-160m", "EleutherAI/pythia-160m"])
def test_a_name_is_found_with_or_without_its_owner(settings: Any, name: str) -> None:
    assert offer.entry_of(name).name == "EleutherAI/pythia-160m"


@pytest.mark.parametrize(
    "name", ["", "gpt-17", "../../etc/passwd", "/etc/passwd", "assets/cram-mini", "a/b/c", "some/model", None, 7]
)
@pytest.mark.parametrize("any_model", [False, True])
def test_a_visitor_s_name_never_becomes_a_path(settings: Any, name: Any, any_model: bool) -> None:
    settings(any_model=any_model)
    if any_model and name in ("some/model", "assets/cram-mini"):  # the form of a hub id: asked for at the hub, only
        assert offer.entry_of(name).source == name
        return
    with pytest.raises(ModelError, match=r"no model .* on this page\. Choose from cram-mini, .* and 21 others"):
        offer.entry_of(name)


def test_a_gated_model_needs_a_token_of_the_server_or_of_the_visitor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    entry = MODELS["meta-llama/Llama-3.2-1B"]
    assert "huggingface.co/meta-llama/Llama-3.2-1B" in offer.hub_state(entry).reason
    assert "HF_TOKEN" in offer.hub_state(entry).reason
    assert offer.hub_state(entry, token="a visitor's").reason == ""
    monkeypatch.setattr(offer, "get_token", lambda: "the server's")
    assert offer.hub_state(entry) == offer.HubState("to be downloaded")


def test_offline_only_what_is_here_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    entry = MODELS["EleutherAI/pythia-160m"]
    assert "HF_HUB_OFFLINE is set" in offer.hub_state(entry).reason
    monkeypatch.setattr(offer, "try_to_load_from_cache", lambda *_: "where/config.json")
    assert offer.hub_state(entry) == offer.HubState("on this machine")
    assert offer.hub_state(MODELS[BUILT_IN]) == offer.HubState("built in")


def test_what_cannot_run_here_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    entry = MODELS["EleutherAI/pythia-2.8b"]
    offer.check_can_run(entry, 100, 1)
    monkeypatch.setattr(offer, "this_machine", lambda: SMALL)
    with pytest.raises(ModelError, match=r"^pythia-2\.8b cannot run here\. Needs about .* GB.*1\.0 GB"):
        offer.check_can_run(entry, 100, 1)


def test_a_text_longer_than_the_context_is_said_to_be_so() -> None:
    assert offer.too_long(MODELS[BUILT_IN], 1023, 1) == ""
    assert "at most 1,022 tokens with K = 2; the text has about 1,023" in offer.too_long(MODELS[BUILT_IN], 1023, 2)
    assert offer.too_long(MODELS["state-spaces/mamba-130m-hf"], 10**6, 1) == ""
