"""The shelf with a model of the hub: its download is told and can be stopped, and the hub is asked once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cramdemo.catalogue import MODELS
from cramdemo.config import CramConfig
from cramdemo.errors import ModelError
from cramdemo.ui.live import LiveState, loading_html, run_live
from cramdemo.ui.offer import _unknown
from cramdemo.ui.shelf import SHELF, Loading
from tests.fake_hub import FakeHub, Repository, files_of
from tests.ui.conftest import SOLVABLE, empty_shelf

ID = "someone/tiny"
CONFIG = CramConfig(num_mem=4, steps=500)


@pytest.fixture
def repository(hub: FakeHub, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    """The tiny model on the hub, slow enough to be watched, and on offer here by its id alone."""
    monkeypatch.setitem(MODELS, ID, _unknown(ID, source=ID))
    hub.wait = 0.04
    empty_shelf()
    yield hub.add(ID, files_of(tiny_folder))
    empty_shelf()


def test_a_run_tells_the_download_and_asks_the_hub_once(hub: FakeHub, repository: Repository) -> None:
    states = list(run_live(SOLVABLE, ID, CONFIG, threading.Event()))
    loading = [state for state in states if isinstance(state, Loading)]
    done = [state.download.done for state in loading]
    assert len(set(done)) > 2 and done == sorted(done)
    assert f"Downloading {ID}" in loading_html(loading[-1])
    last = states[-1]
    assert isinstance(last, LiveState) and last.result is not None and last.result.lossless
    assert last.result.vectors.model_revision == repository.sha
    assert hub.asked.count(f"GET /api/models/{ID}") == 1, "which commit is the newest"


def test_a_model_in_memory_asks_the_hub_nothing(hub: FakeHub, repository: Repository) -> None:
    list(run_live(SOLVABLE, ID, CONFIG, threading.Event()))
    asked = len(hub.asked)
    assert not any(isinstance(s, Loading) for s in run_live(SOLVABLE, ID, CONFIG, threading.Event()))
    assert len(hub.asked) == asked
    assert SHELF.peek(ID) is not None


def test_stop_ends_a_download_and_leaves_the_shelf_empty(hub: FakeHub, repository: Repository) -> None:
    hub.stall = 1000
    stop = threading.Event()
    run = run_live(SOLVABLE, ID, CONFIG, stop)
    assert isinstance(next(run), Loading)
    stop.set()
    with pytest.raises(ModelError, match="stopped"):
        list(run)
    assert SHELF.peek(ID) is None


def test_a_visitor_s_token_reaches_the_hub(hub: FakeHub, repository: Repository) -> None:
    list(run_live(SOLVABLE, ID, CONFIG, threading.Event(), token="hf_theirs"))
    assert hub.authorized and all("hf_theirs" in token for token in hub.authorized.values())


def test_a_model_that_came_by_a_token_is_not_for_those_without_one(hub: FakeHub, repository: Repository) -> None:
    repository.gated, repository.granted = True, ("hf_theirs",)
    list(run_live(SOLVABLE, ID, CONFIG, threading.Event(), token="hf_theirs"))
    assert SHELF.peek(ID) is not None
    for token in (None, "hf_other"):
        with pytest.raises(ModelError, match="gated"):
            list(run_live(SOLVABLE, ID, CONFIG, threading.Event(), token=token))
    last = list(run_live(SOLVABLE, ID, CONFIG, threading.Event(), token="hf_theirs"))[-1]
    assert isinstance(last, LiveState) and last.result is not None, "it goes on for who may have it"


def test_a_name_that_is_not_on_offer_brings_nothing() -> None:
    with pytest.raises(ModelError, match="There is no model"):
        next(SHELF.bring("../tiny", "auto", None, threading.Event()))
