"""What the tabs share, with an experiment that counts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gradio as gr
import pytest

from cramdemo.errors import TextError
from cramdemo.hub import Download
from cramdemo.ui.experiment import Experiment, _beginning, _checking, _running, _stopping, connect, controls
from cramdemo.ui.jobs import Flag
from cramdemo.ui.shelf import Loading


def _check(upto: int, token: str | None) -> None:
    if upto < 0:
        raise TextError("Nobody counts to <that>.")


def _count(upto: int, token: str | None, stop: Flag) -> Iterator[int | Loading]:
    yield Loading("numbers", Download(1, 2))
    for number in range(upto):
        if number == 7:
            raise TextError("Seven is odd.")
        yield number
        if stop.is_set():
            return


def _wait(upto: int, token: str | None, stop: Flag) -> Iterator[int]:
    while not stop.is_set():
        yield upto


def _show(number: int) -> tuple[str, tuple[Any, ...]]:
    return f"at {number}", (str(number),)


COUNTING = Experiment("count", [], [], _check, _count, _show, ("",))


@pytest.fixture
def every_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """No state is left out because it came too soon after another."""

    def stream(run: Any, *values: Any, stop: threading.Event, seconds: float) -> Iterator[Any]:
        yield from run(*values, stop)

    monkeypatch.setattr("cramdemo.ui.experiment.RUNNER.stream", stream)


def test_states_are_shown_and_the_last_one_stays(request_of: gr.Request) -> None:
    shown = list(_running(COUNTING)(request_of, 3))
    assert shown[0][1] == "" and shown[-1] == ("at 2", "2")


def test_an_error_on_the_way_is_a_sentence_and_keeps_what_was_there(
    request_of: gr.Request, warnings_shown: list[str], every_state: None
) -> None:
    last = list(_running(COUNTING)(request_of, 9))[-1]
    assert 'data-state="error"' in last[0] and "Seven is odd." in last[0]
    assert last[1] == "6" and warnings_shown == ["Seven is odd."]


def test_what_cannot_be_run_is_refused_before_anybody_waits(request_of: gr.Request) -> None:
    refused = _checking(COUNTING)(request_of, -1)
    assert "Nobody counts to &lt;that&gt;." in next(refused)
    with pytest.raises(gr.Error, match="&lt;that&gt;"):
        next(refused)
    (waiting,) = _checking(COUNTING)(request_of, 1)
    assert 'data-state="waiting"' in waiting


def test_who_comes_to_a_run_past_its_check_is_refused_there(
    request_of: gr.Request, warnings_shown: list[str], every_state: None
) -> None:
    *_, last = _running(COUNTING)(request_of, -1)
    assert 'data-state="error"' in last[0] and "Nobody counts to &lt;that&gt;." in last[0]


def test_stop_ends_a_run_which_then_keeps_its_last_state(request_of: gr.Request) -> None:
    _beginning("count")(request_of)
    run = _running(replace(COUNTING, run=_wait))(request_of, 5)
    next(run)
    assert next(run) == ("at 5", "5")
    _stopping("count")(request_of)
    assert set(run) <= {("at 5", "5")}


def test_a_run_stopped_before_its_first_state_says_so(request_of: gr.Request) -> None:
    _beginning("count")(request_of)
    _stopping("count")(request_of)
    last = list(_running(replace(COUNTING, run=_wait))(request_of, 5))[-1]
    assert "Stopped before anything had begun." in last[0] or last == ("at 5", "5")


def test_a_download_is_told_in_the_status_line(request_of: gr.Request, every_state: None) -> None:
    shown = list(_running(COUNTING)(request_of, 1))
    assert "Downloading numbers" in shown[1][0] and shown[1][1] == ""


def test_connected_buttons_share_the_models_queue() -> None:
    with gr.Blocks() as page:
        number = gr.Number(1)
        parts = controls("count", "Count", "Counts.")
        parts.status.render()
        connect(replace(COUNTING, inputs=[number], outputs=[gr.HTML()]), parts, 1)
    (run,) = [f for f in page.fns.values() if f.concurrency_id == "model"]
    assert run.concurrency_limit == 1
    assert all(f.api_visibility == "private" for f in page.fns.values())
