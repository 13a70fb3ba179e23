"""What the tabs beside Compress and Decode share: one button starts something that is watched while it goes.

A tab gives an `Experiment`; `connect` makes its buttons work: settings are checked before anybody waits, Stop keeps
what is there, one queue serves all, and an error is a sentence in the status line. Knows nothing of any tab.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from cramdemo.config import CramConfig
from cramdemo.errors import CramError
from cramdemo.ui.jobs import Flag
from cramdemo.ui.live import loading_html, status_line
from cramdemo.ui.login import visitor_token
from cramdemo.ui.pace import END_SECONDS, MAX_SECONDS
from cramdemo.ui.shelf import RUNNER, STOPS, Loading
from cramdemo.ui.zero import ON_ZERO

QUEUE = "model"  # one queue for everything that needs the model, the API's calls too
QUICK: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
STREAMED: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
QUEUED: dict[str, Any] = {"show_progress": "minimal", "api_visibility": "private"}  # with its place in the queue
NARROW_PX = 720
Values = tuple[Any, ...]


@dataclass(frozen=True)
class Experiment:
    """One thing that a tab can start.

    Attributes:
        task: its name among a visitor's runs and in the page: "capacity". Another start of it ends the one before.
        inputs, outputs: components; the status line is not among the outputs.
        check: refuses values of the inputs that cannot be run, by a CramError; takes them and the visitor's token.
        run: a generator function at the top of a module, which runs on the worker's thread or in a child that has a
            GPU: takes the values, the visitor's token and a flag to be looked at, and yields states, the last of them
            when it has ended or was told to stop; `Loading` for models that are still on their way. Of states that
            come fast only the newest is shown, so each holds all there is to show. What it takes and yields must
            pickle.
        show: a state as the status line's HTML and the values of the outputs, all plain.
        blank: values of the outputs before the first state.
        seconds: how long a GPU is asked for, where one is lent.
    """

    task: str
    inputs: Sequence[Any]
    outputs: Sequence[Any]
    check: Callable[..., None]
    run: Callable[..., Iterator[Any]]
    show: Callable[[Any], tuple[str, Values]]
    blank: Values
    seconds: float = MAX_SECONDS


@dataclass(frozen=True)
class Controls:
    """The buttons and the status line of an experiment, as `controls` lays them out."""

    start: gr.Button
    stop: gr.Button
    status: gr.HTML


def controls(task: str, label: str, idle: str) -> Controls:
    """Lay out Start and Stop; the status line is made, and the tab renders it where the results stand.

    Args:
        task: as the experiment's.
        label: of the start button, a verb.
        idle: what the status line says before the first start: what will happen and how long it will take.
    """
    with gr.Row(elem_classes="cd-run"):
        start = gr.Button(label, variant="primary", scale=3, min_width=120, elem_id=f"{task}-start")
        stop = gr.Button("Stop", variant="stop", scale=1, min_width=90, interactive=False, elem_id=f"{task}-stop")
    status = gr.HTML(
        status_line("idle", idle),
        apply_default_css=False,
        elem_id=f"{task}-status",
        elem_classes="cd-flat",
        render=False,
    )
    return Controls(start, stop, status)


def connect(experiment: Experiment, parts: Controls, queue_limit: int | None) -> Any:
    """Make the buttons work; gives the event after the end of a run, for what the tab does then."""
    inputs, switches = list(experiment.inputs), [parts.start, parts.stop]
    checked = parts.start.click(_checking(experiment), inputs, parts.status, concurrency_limit=None, **STREAMED)
    begun = checked.success(_beginning(experiment.task), None, switches, **QUICK)
    start_id, stop_id = f"{experiment.task}-start", f"{experiment.task}-stop"
    focus = move_focus(start_id, stop_id, show=f"{experiment.task}-status")
    begun.then(None, None, None, js=focus, api_visibility="private")
    ran = begun.then(
        _running(experiment),
        inputs,
        [parts.status, *experiment.outputs],
        concurrency_limit=queue_limit,
        concurrency_id=QUEUE,
        show_progress_on=parts.status,
        **QUEUED,
    )
    ended = ran.then(lambda: (gr.update(interactive=True), gr.update(interactive=False)), None, switches, **QUICK)
    ended.then(None, None, None, js=move_focus(stop_id, start_id), api_visibility="private")
    parts.stop.click(_stopping(experiment.task), None, None, **QUICK)
    return ended


def in_time(stop: Flag, config: CramConfig) -> Callable[[], bool]:
    """Stop, or the end of what the server allows the whole run: what is there is then kept."""
    lent = MAX_SECONDS - END_SECONDS if ON_ZERO else math.inf
    end = time.monotonic() + min(lent, config.seconds or math.inf)
    return lambda: stop.is_set() or time.monotonic() >= end


def _checking(experiment: Experiment) -> Callable[..., Iterator[str]]:
    def check(request: gr.Request, *values: Any) -> Iterator[str]:
        try:
            experiment.check(*values, visitor_token(request))
        except CramError as error:
            yield status_line("error", str(error))
            raise gr.Error(escape(str(error)), title="Not started", print_exception=False) from None
        yield status_line("waiting", "Waiting for the model")

    return check


def _beginning(task: str) -> Callable[[gr.Request], Values]:
    def begin(request: gr.Request) -> Values:
        STOPS.begin(request.session_hash or "", task)
        return gr.update(interactive=False), gr.update(interactive=True)

    return begin


def _stopping(task: str) -> Callable[[gr.Request], None]:
    def stop(request: gr.Request) -> None:
        STOPS.stop(request.session_hash or "", task)

    return stop


def _running(experiment: Experiment) -> Callable[..., Iterator[Values]]:
    def run(request: gr.Request, *values: Any) -> Iterator[Values]:
        session = request.session_hash or ""
        flag = STOPS.current(session, experiment.task)
        last: Values = (status_line("waiting", "Starting"), *experiment.blank)
        yield last
        try:
            arguments = (*values, visitor_token(request))
            experiment.check(*arguments)  # again: a program may come here without the check before
            for state in RUNNER.stream(experiment.run, *arguments, stop=flag, seconds=experiment.seconds):
                if isinstance(state, Loading):
                    yield loading_html(state), *last[1:]
                    continue
                status, outputs = experiment.show(state)
                last = (status, *outputs)
                yield last
            if last[1:] == experiment.blank:
                yield status_line("idle", "Stopped before anything had begun."), *last[1:]
        except CramError as error:
            gr.Warning(escape(str(error)), title="Ended early")
            yield status_line("error", str(error)), *last[1:]
        finally:
            STOPS.end(session, experiment.task, flag)

    return run


def move_focus(old: str, new: str, show: str = "") -> str:
    """A button that is switched off loses the keyboard; hand it to the one that is now the next to press.

    On a narrow screen, where the live view lies below the form, also scroll to the element called `show`.
    """
    motion = "matchMedia('(prefers-reduced-motion: reduce)').matches ? 'auto' : 'smooth'"
    scroll = f"document.getElementById('{show}')?.scrollIntoView({{block: 'start', behavior: {motion}}});"
    focus = (  # looked at only then: in between a visitor may have gone elsewhere
        "const at = document.activeElement; "
        f"if (!at || at === document.body || at.disabled || at.id === '{old}') "
        f"{{ document.getElementById('{new}')?.focus({{preventScroll: true}}); }}"
    )
    return (
        f"() => {{ setTimeout(() => {{ {focus} }}, 50); "
        f"{f'if (window.innerWidth < {NARROW_PX}) {{ {scroll} }}' if show else ''} }}"
    )
