"""A run from its reader's side: what cuts it off takes no vectors away, and nothing is called verified that is not."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from cramdemo import CramConfig, FrozenLM, decode
from cramdemo.errors import CramError, ModelError
from cramdemo.ui import follow as module
from cramdemo.ui import shelf
from cramdemo.ui.api import last_dict
from cramdemo.ui.compress import NOT_BEGUN, NOTHING, begin, run, shown
from cramdemo.ui.follow import CUT_OFF, cut_off, follow
from cramdemo.ui.live import LiveState, run_live, status_html
from cramdemo.ui.offer import entry_of
from cramdemo.vectors import from_bytes
from tests.ui.conftest import SOLVABLE, TINY

WHY = "The GPU was taken back before the work was done."
CONFIG = CramConfig(num_mem=4, steps=500)


@pytest.fixture
def cut(states: list[LiveState]) -> LiveState:
    """The last state before the result: its vectors are solved."""
    return states[-2]


@pytest.fixture
def taken_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[LiveState]], None]:
    """A runner that says so much and is then cut off."""

    def prepare(states: list[LiveState]) -> None:
        def stream(*_: Any, **__: Any) -> Iterator[LiveState]:
            yield from states
            raise ModelError(WHY)

        monkeypatch.setattr(shelf.WORKER, "stream", stream)

    return prepare


def states_of(text: str = SOLVABLE) -> list[LiveState]:
    return list(follow(text, TINY, CONFIG, threading.Event()))


def test_run_that_ends_itself_comes_as_it_is(tiny: str, states: list[LiveState]) -> None:
    found = states_of()
    assert found[-1].result.vectors.token_sha256 == states[-1].result.vectors.token_sha256
    assert torch.equal(found[-1].result.vectors.mem, states[-1].result.vectors.mem)
    assert [state.ended for state in found] == [False] * (len(found) - 1) + [True]


def test_every_state_before_the_result_has_vectors(states: list[LiveState]) -> None:
    assert all(state.best is not None and state.best.verified == [] for state in states[:-1])


def test_cut_off_run_is_verified_where_the_model_can_run(
    tiny_lm: FrozenLM, cut: LiveState, taken_after: Callable[..., None]
) -> None:
    taken_after([cut])
    last = states_of()[-1]
    assert last.cut_off == WHY and last.result.reason == CUT_OFF
    assert last.result.lossless and decode(tiny_lm, last.result.vectors).text == SOLVABLE
    assert last.result.steps == cut.progress.step
    status, _, _, card, outcome = shown(last, SOLVABLE, TINY)
    assert f"{WHY} The best vectors are kept." in status and "LOSSLESS" in card
    assert from_bytes(outcome.data).verified[0]["lossless"]
    assert last_dict(last)["lossless"] is True


@pytest.mark.parametrize("fault", ["nowhere to run it", "a second fault"])
def test_where_nothing_can_be_verified_nothing_is_called_lossless(
    cut: LiveState, taken_after: Callable[..., None], monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    def fail(_: str) -> None:
        if fault != "nowhere to run it":
            raise RuntimeError

    monkeypatch.setattr(shelf.SHELF, "here", fail)
    taken_after([cut])
    last = states_of()[-1]
    assert last.ended and last.result is None
    status, _, _, card, outcome = shown(last, SOLVABLE, TINY)
    assert WHY in status and WHY in card and "NOT VERIFIED" in card
    n = cut.progress.num_tokens
    assert f"{n} of {n} tokens right under teacher forcing" in card
    assert "lossless" not in (status + card).lower()
    assert torch.equal(from_bytes(outcome.data).mem, cut.best.mem)
    summary = last_dict(last)
    assert (summary["done"], summary["lossless"], summary["verified"]) == (True, False, [])
    assert (summary["reason"], summary["cut_off"]) == (CUT_OFF, WHY)


def test_run_cut_off_before_it_had_vectors_is_an_error(cut: LiveState, taken_after: Callable[..., None]) -> None:
    taken_after([])
    with pytest.raises(CramError, match=WHY):
        states_of()
    taken_after([dataclasses.replace(cut, best=None)])
    with pytest.raises(CramError, match=WHY):
        states_of()


def test_gpu_lost_after_the_result_changes_nothing(states: list[LiveState], taken_after: Callable[..., None]) -> None:
    taken_after(states)
    assert states_of()[-1] is states[-1]


def test_run_stopped_before_it_began_says_so(tiny: str, request_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf.WORKER, "stream", lambda *_, **__: iter(()))
    begin(request_of)
    *_, last = run(request_of, SOLVABLE, tiny, 4, False, "fast", 500, 0, 0.1, 1.0, 0, "auto", "auto")
    assert last[0] == NOT_BEGUN and last[4] is NOTHING


def test_state_that_is_cut_off_without_a_result_shows_no_verdict(cut: LiveState) -> None:
    html = status_html(dataclasses.replace(cut, cut_off=WHY))
    assert 'data-state="done"' in html and "decoded" not in html


def test_text_of_a_cut_off_run_is_offered_shorter(tiny: str) -> None:
    text = "bad thinking, reader"
    first = next(run_live(text, tiny, CramConfig(steps=500), threading.Event()))
    last = cut_off(first, WHY, text, tiny)
    assert not last.result.lossless and text.startswith(last.shorter) and last.shorter


def test_on_zero_a_run_ends_before_its_gpu_is_taken_back(
    tiny: str, monkeypatch: pytest.MonkeyPatch, states: list[LiveState]
) -> None:
    asked: list[Any] = []

    def stream(*arguments: Any, seconds: float, **_: Any) -> Iterator[LiveState]:
        asked.append((arguments[3], seconds))
        yield states[-1]

    monkeypatch.setattr(module, "ON_ZERO", True)
    monkeypatch.setattr(module, "PACE", module.PACE.__class__())
    monkeypatch.setattr(shelf.WORKER, "stream", stream)
    before = module.PACE.share(entry_of(tiny), CONFIG, 11)
    states_of()
    ((config, seconds),) = asked
    assert config == dataclasses.replace(CONFIG, seconds=before.steps) and seconds == before.asked > before.steps
    assert module.PACE.share(entry_of(tiny), CONFIG, 11) != before, "nothing was learnt"
