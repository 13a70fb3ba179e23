"""The Compress tab: text in, vectors being trained before one's eyes, a verified result out."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from cramdemo.catalogue import BUILT_IN, MODELS
from cramdemo.config import INITS, MAX_NUM_MEM_PAGE, MAX_SEED, MAX_STEPS, PRECISIONS, PRESETS, CramConfig
from cramdemo.cram import check_length
from cramdemo.errors import CramError, plural
from cramdemo.settings import limited, server_settings
from cramdemo.ui.card import Suggestions, card_html, suggestions, unverified_html
from cramdemo.ui.chart import BLANK
from cramdemo.ui.count import Count, check_characters, count_html, count_text
from cramdemo.ui.curves import curves, curves_value
from cramdemo.ui.experiment import QUEUE, QUICK, move_focus
from cramdemo.ui.follow import follow
from cramdemo.ui.links import COPY_SCRIPT, MOST_CHARACTERS, linked, query_of
from cramdemo.ui.live import LOADING, LiveState, loading_html, status_html, status_line
from cramdemo.ui.login import visitor_token
from cramdemo.ui.offer import check_can_run, entry_of
from cramdemo.ui.pace import MAX_SECONDS
from cramdemo.ui.picker import guessed_tokens, picker, picker_value, size_words
from cramdemo.ui.samples import Sample, read_samples
from cramdemo.ui.shelf import SHELF, STOPS, Loading, wait_until_warm
from cramdemo.ui.tokens import EMPTY, token_view
from cramdemo.ui.zero import ON_ZERO
from cramdemo.vectors import to_bytes

TASK = "compress"
COUNT_WAIT_MS = 250
PRESET_WORDS = {"fast": "Fast", "most": "Most tokens"}
START_WORDS = {
    "auto": "Encoder, if it has one",
    "encoder": "Encoder",
    "embedding": "Random, as in the paper",
}
WIDGETS = ("steps", "seconds", "learning_rate", "margin", "seed", "precision", "init")  # of the Advanced panel
COUNTING: dict[str, Any] = {  # one at a time: answers in the order of the questions, so that the last one stays
    "concurrency_limit": 1,
    "show_progress": "hidden",
    "api_visibility": "private",
}
WARM_SECONDS = 30.0
IDLE = status_line("idle", "Ready. Press Compress: progress, speed and the time left will be shown here.")
NOT_BEGUN = status_line("idle", "Stopped before the run had begun.")
LOAN_NOTE = (
    f'<p class="cd-note">On this page a run gets a GPU for at most {MAX_SECONDS:.0f} seconds; '
    "the best vectors that it has found by then are kept.</p>"
)
NO_CARD = (
    '<div class="cd-panel cd-await"><h3>Result</h3><p class="cd-empty">When a run ends, the vectors are written to a '
    "file’s bytes, read back and decoded. The verdict stands here, with the file to download.</p></div>"
)


@dataclass(frozen=True)
class Outcome:
    """What a finished run leaves behind for the buttons: the file, and what to try next."""

    data: bytes = b""
    name: str = ""
    tries: Suggestions = field(default_factory=Suggestions)


NOTHING = Outcome()
Shown = tuple[str, dict[str, str], dict[str, str], str, Outcome]  # status, curves, tokens, card, outcome


@dataclass
class Tab:
    """The components that other parts of the page need."""

    text: gr.Textbox
    model: gr.Textbox
    num_mem: gr.Slider
    preset: gr.Radio
    settings: list[Any]
    facts: list[Any]
    note: gr.HTML
    download: gr.DownloadButton
    decode_it: gr.Button
    outcome: gr.State


def config_of(  # noqa: PLR0917  # in the order of the widgets
    model: str,
    num_mem: float,
    preset: str | None = None,
    steps: float | None = None,
    seconds: float | None = None,
    learning_rate: float | None = None,
    margin: float | None = None,
    seed: float | None = None,
    precision: str | None = None,
    init: str | None = None,
) -> CramConfig:
    """Settings as the widgets or the API give them: None takes the default, 0 seconds is no limit.

    Raises:
        ModelError: no such model.
        ConfigError: a value is out of its range.
    """
    config = CramConfig.for_model(
        entry_of(model),
        preset=preset,
        num_mem=whole(num_mem),
        steps=whole(steps),
        seconds=unless_zero(seconds),
        learning_rate=learning_rate,
        margin=margin,
        seed=whole(seed),
        precision=precision,
        init=init,
    )
    return limited(config, server_settings())


def whole(value: float | None) -> float | None:
    """A whole number as int: widgets and JSON may give 8.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def unless_zero(value: float | None) -> float | None:
    """None for the 0 that stands for it; what is not a number stays, for the config to refuse."""
    return None if not isinstance(value, bool) and value == 0 else value


def file_name(state: LiveState, model: str) -> str:
    """Name of the vector file: nothing of the text is in it."""
    return f"{entry_of(model).label}-{state.progress.num_tokens}tok-k{state.config.num_mem}.safetensors"


def shown(state: LiveState, text: str, model: str) -> Shown:
    """Values of the streamed components for one state of the run."""
    result, lines = state.result, curves_value(state.curve)
    if not state.ended:
        return status_html(state), lines, state.token_view, NO_CARD, NOTHING
    if result is None:
        assert state.best is not None
        kept = Outcome(to_bytes(state.best), file_name(state, model))
        return status_html(state), lines, state.token_view, unverified_html(state.best, state.cut_off), kept
    tries = suggestions(result, state.config, state.shorter)
    outcome = Outcome(to_bytes(result.vectors), file_name(state, model), tries)
    return status_html(state), lines, state.token_view, card_html(text, result, tries), outcome


def check(request: gr.Request, text: str, model: str, num_mem: float, preset: str, *advanced: Any) -> Iterator[str]:
    """Before a run: refuse what cannot be run, in the status line and as a toast, and leave all else as it is.

    Args:
        advanced: values of `WIDGETS`, which gradio passes by place.
    """
    try:
        check_characters(text)
        config = config_of(model, num_mem, preset, *advanced)
        lm = SHELF.peek(model)
        num_tokens = len(lm.tokenize(text)) if lm else guessed_tokens(len(text))
        check_can_run(entry_of(model), num_tokens, config.num_mem, visitor_token(request))
        if lm:  # not in memory yet: the run itself will check
            check_length(lm, num_tokens, config.num_mem)
    except CramError as error:
        yield status_line("error", str(error))
        raise gr.Error(escape(str(error)), title="Not compressed", print_exception=False) from None
    yield status_line("waiting", "Waiting for the model")


def begin(request: gr.Request) -> tuple[Any, ...]:
    """At the start of a run: a fresh Stop flag, buttons switched, the last result's put away."""
    STOPS.begin(request.session_hash or "", TASK)
    hidden = gr.update(visible=False)
    return gr.update(interactive=False), gr.update(interactive=True), hidden, hidden


def run(request: gr.Request, text: str, model: str, num_mem: float, preset: str, *advanced: Any) -> Iterator[Shown]:
    """One run, streamed. Every channel carries a plain value each time, so that only what is new is sent."""
    session = request.session_hash or ""
    flag = STOPS.current(session, TASK)
    head = "Starting" if SHELF.peek(model) else LOADING
    last: Shown = (status_line("waiting", head), dict(BLANK), dict(EMPTY), NO_CARD, NOTHING)
    yield last
    try:
        check_characters(text)
        config = config_of(model, num_mem, preset, *advanced)
        for state in follow(text, model, config, flag, token=visitor_token(request)):
            if isinstance(state, Loading):
                yield loading_html(state), *last[1:]
                continue
            last = shown(state, text, model)
            yield last
        if not last[1]["d"]:
            yield NOT_BEGUN, *last[1:]
    except CramError as error:
        gr.Warning(escape(str(error)), title="Not compressed")
        yield status_line("error", str(error)), *last[1:]
    finally:
        STOPS.end(session, TASK, flag)


def finish(outcome: Outcome) -> Iterator[tuple[Any, ...]]:
    """After a run: buttons back, the file offered, and what to try. gradio copies the file before it is removed."""
    tries = outcome.tries
    buttons = [
        gr.update(interactive=True),
        gr.update(interactive=False),
        gr.update(visible=bool(outcome.data)),
        gr.update(visible=tries != Suggestions()),
        gr.update(visible=tries.num_mem is not None, value=f"Use {plural(tries.num_mem or 0, 'memory token')}"),
        gr.update(visible=tries.steps is not None, value=f"Use {plural(tries.steps or 0, 'step')}"),
        gr.update(visible=bool(tries.shorter), value="Shorten the text"),
    ]
    if not outcome.data:
        yield gr.update(value=None), *buttons
        return
    with tempfile.TemporaryDirectory(prefix="cramdemo-") as folder:
        path = Path(folder) / outcome.name
        path.write_bytes(outcome.data)
        yield gr.update(value=str(path)), *buttons


def stop(request: gr.Request) -> None:
    """Ask this visitor's run to end; it then shows its best vectors."""
    STOPS.stop(request.session_hash or "", TASK)


def about(text: str, model: str, num_mem: float, steps: float) -> tuple[str, dict[str, Any]]:
    """The count line and the picker for what stands in the widgets."""
    known = int(num_mem), int(steps or CramConfig().steps)
    value = picker_value(model, len(text), *known, others=server_settings().any_model)
    return count_html(count_text(text, model, known[0])), value


def first_about(text: str, model: str, num_mem: float, steps: float) -> tuple[str, dict[str, Any]]:
    """The same for a fresh page, which may be there before the model is."""
    wait_until_warm(WARM_SECONDS)
    return about(text, model, num_mem, steps)


def choose(model: str, event: gr.EventData) -> str:
    """The model that the picker's event names; the old one if it is not on offer."""
    try:
        return entry_of(event.model).name
    except CramError as error:
        gr.Warning(escape(str(error)), title="Not chosen")
        return model


def link(model: str, num_mem: float, preset: str, *advanced: Any) -> Any:
    """The box for the link, with its query in it."""
    try:
        config = config_of(model, num_mem, preset, *advanced)
    except CramError as error:
        raise gr.Error(escape(str(error)), title="No link", print_exception=False) from None
    return gr.update(value=query_of(model, preset, config), visible=True)


def follow_link(model: str, num_mem: float, request: gr.Request) -> tuple[Any, ...]:
    """Values of the form and of the Advanced panel that the page's address asks for."""
    found = linked(dict(request.query_params), model, int(num_mem))
    if found.problem:
        gr.Warning(escape(found.problem), title="Link not followed")
    settings = [found.settings[name] for name in WIDGETS]
    return found.model, found.num_mem, found.preset, *settings, _note_html(found.model)


def preset_settings(model: str, preset: str) -> tuple[int, float, float, str]:
    """What a preset means for a model, for the widgets of the Advanced panel that show it."""
    config = CramConfig.for_model(entry_of(model), preset=preset)
    assert config.learning_rate is not None and config.margin is not None
    return config.steps, config.learning_rate, config.margin, config.init


def _note_html(model: str) -> str:
    entry = entry_of(model)
    if not entry.parameters:
        return f'<p class="cd-note">{escape(entry.name)}: what it is will be known once it is loaded.</p>'
    size = (
        f"{size_words(entry)} parameters, {entry.layers} layers, width {entry.hidden_size}, "
        f"vocabulary {entry.vocab_size:,}"
    )
    return f'<p class="cd-note">{escape(entry.note)} <span>{escape(size)}.</span></p>'


def tab(queue_limit: int | None) -> Tab:
    """Lay out the tab and connect it."""
    samples = read_samples()
    with gr.Row(elem_classes="cd-columns"):
        with gr.Column(scale=5, min_width=320, elem_classes="cd-left"):
            left = _left_column(samples)
        with gr.Column(scale=7, min_width=320, elem_classes="cd-right"):
            right = _right_column()
    _connect_form(left)
    _connect_runs(left, right, queue_limit)
    return Tab(
        left["text"],
        left["model"],
        left["num_mem"],
        left["preset"],
        [left[name] for name in WIDGETS],
        [left["count"], left["picker"]],
        left["note"],
        right["download"],
        right["decode_it"],
        right["outcome"],
    )


def _left_column(samples: list[Sample]) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    first = samples[0]
    parts["text"] = gr.Textbox(
        first.text, label="Your text", lines=5, max_lines=14, elem_id="text", placeholder="Paste or type a text"
    )
    blank = Count(len(first.text), limit=MODELS[BUILT_IN].context - first.num_mem, num_mem=first.num_mem)
    parts["count"] = gr.HTML(count_html(blank), apply_default_css=False, elem_id="count", elem_classes="cd-flat")
    with gr.Row(elem_classes="cd-chips"):
        gr.HTML('<span class="cd-chips-label">Samples</span>', apply_default_css=False, elem_classes="cd-flat")
        parts["chips"] = [
            (gr.Button(sample.label, size="sm", min_width=0, scale=0, elem_classes="cd-chip"), sample)
            for sample in samples
        ]
    parts["num_mem"] = gr.Slider(
        1,
        MAX_NUM_MEM_PAGE,
        first.num_mem,
        step=1,
        label="Memory tokens, K",
        info="Input vectors that the text is crammed into. One is the boldest.",
        elem_id="num-mem",
    )
    parts["preset"] = gr.Radio(
        [(PRESET_WORDS[name], name) for name in PRESETS],
        value=PRESETS[0],
        label="Aim",
        info="Fast is soonest done with a text well within reach. Most tokens takes its time and aims at more.",
        elem_id="preset",
    )
    with gr.Row(elem_classes="cd-run"):
        parts["compress"] = gr.Button("Compress", variant="primary", scale=3, min_width=120, elem_id="compress")
        parts["stop"] = gr.Button("Stop", variant="stop", scale=1, min_width=90, interactive=False, elem_id="stop")
    if ON_ZERO:
        gr.HTML(LOAN_NOTE, apply_default_css=False, elem_classes="cd-flat")
    parts["model"] = gr.Textbox(BUILT_IN, visible="hidden", elem_id="model-name")
    default = CramConfig.for_model(MODELS[BUILT_IN])
    value = picker_value(BUILT_IN, len(first.text), first.num_mem, default.steps, server_settings().any_model)
    parts["picker"] = picker(value)
    parts["note"] = gr.HTML(_note_html(BUILT_IN), apply_default_css=False, elem_classes="cd-flat")
    with gr.Accordion("Advanced", open=False, elem_id="advanced"):
        parts |= _advanced()
    with gr.Row(elem_classes="cd-link"):
        parts["copy"] = gr.Button("Copy link", size="sm", min_width=0, scale=0, elem_id="copy-link")
        parts["with_text"] = gr.Checkbox(False, label="with the text", min_width=140, elem_id="link-text")
    parts["link"] = gr.Textbox(
        label=f"Link to these settings (a text of up to {MOST_CHARACTERS:,} characters, if ticked)",
        visible=False,
        interactive=False,
        buttons=["copy"],
        elem_id="link",
    )
    return parts


def _advanced() -> dict[str, Any]:
    default = CramConfig.for_model(MODELS[BUILT_IN])
    with gr.Row():
        steps = gr.Number(
            default.steps, label="Steps, at most", precision=0, minimum=1, maximum=MAX_STEPS, min_width=130
        )
        seconds = gr.Number(default.seconds or 0, label="Time budget, s (0: none)", minimum=0, min_width=130)
    with gr.Row():
        rate = gr.Number(default.learning_rate, label="Learning rate", step=0.01, min_width=130)
        margin = gr.Number(default.margin, label="Margin, logits", minimum=0, step=0.1, min_width=130)
    with gr.Row():
        seed = gr.Number(default.seed, label="Seed", precision=0, minimum=0, maximum=MAX_SEED, min_width=130)
        precision = gr.Dropdown(
            list(PRECISIONS), value=default.precision, label="Precision", filterable=False, min_width=130
        )
    init = gr.Dropdown(
        [(START_WORDS[name], name) for name in INITS], value=default.init, label="Start from", filterable=False
    )
    return {
        "init": init,
        "steps": steps,
        "seconds": seconds,
        "learning_rate": rate,
        "margin": margin,
        "seed": seed,
        "precision": precision,
    }


def _right_column() -> dict[str, Any]:
    parts: dict[str, Any] = {}
    parts["status"] = gr.HTML(IDLE, apply_default_css=False, elem_id="status", elem_classes="cd-flat")
    parts["tokens"] = token_view()
    parts["curve"] = curves()
    parts["card"] = gr.HTML(NO_CARD, apply_default_css=False, elem_id="card", elem_classes="cd-flat")
    with gr.Row(visible=False, elem_classes="cd-tries") as parts["tries"]:
        parts["try_mem"] = gr.Button("Use more memory tokens", size="sm", min_width=0, elem_id="try-mem")
        parts["try_steps"] = gr.Button("Use more steps", size="sm", min_width=0, elem_id="try-steps")
        parts["try_short"] = gr.Button("Shorten the text", size="sm", min_width=0, elem_id="try-short")
    with gr.Row(visible=False, elem_classes="cd-actions") as parts["actions"]:
        parts["download"] = gr.DownloadButton(
            "Download the vectors", variant="primary", size="md", min_width=160, elem_id="download"
        )
        parts["decode_it"] = gr.Button("Decode it", size="md", min_width=120, elem_id="decode-it")
    parts["outcome"] = gr.State(NOTHING)
    return parts


def _connect_form(left: dict[str, Any]) -> None:
    text, model, num_mem, preset = left["text"], left["model"], left["num_mem"], left["preset"]
    wait = f"async (...values) => {{ await new Promise(done => setTimeout(done, {COUNT_WAIT_MS})); return values; }}"
    gr.on(
        [text.change, num_mem.change, left["steps"].change],
        about,
        [text, model, num_mem, left["steps"]],
        [left["count"], left["picker"]],
        js=wait,
        trigger_mode="always_last",
        **COUNTING,
    )
    chosen = left["picker"].select(choose, model, model, **QUICK).then(_note_html, model, left["note"], **QUICK)
    shown = [left[name] for name in ("steps", "learning_rate", "margin", "init")]
    chosen.then(preset_settings, [model, preset], shown, **QUICK).then(
        about, [text, model, num_mem, left["steps"]], [left["count"], left["picker"]], **COUNTING
    )
    preset.input(preset_settings, [model, preset], shown, **QUICK)
    for chip, sample in left["chips"]:
        values = json.dumps([sample.text, sample.num_mem])
        chip.click(None, None, [text, num_mem], js=f"() => {values}", show_progress="hidden", api_visibility="private")
    settings = [model, num_mem, preset, *(left[name] for name in WIDGETS)]
    left["copy"].click(link, settings, left["link"], **QUICK).success(
        None, [left["link"], left["with_text"], text], left["link"], js=COPY_SCRIPT, api_visibility="private"
    )


def _connect_runs(left: dict[str, Any], right: dict[str, Any], queue_limit: int | None) -> None:
    outcome = right["outcome"]
    changes = [
        right["try_mem"].click(lambda found: found.tries.num_mem, outcome, left["num_mem"], **QUICK),
        right["try_steps"].click(lambda found: found.tries.steps, outcome, left["steps"], **QUICK),
        right["try_short"].click(lambda found: found.tries.shorter, outcome, left["text"], **QUICK),
    ]
    for start in (left["compress"].click, *(change.then for change in changes)):
        _connect_run(start, left, right, queue_limit)
    left["stop"].click(stop, None, None, **QUICK)


def _connect_run(start: Any, left: dict[str, Any], right: dict[str, Any], queue_limit: int | None) -> None:
    names = ("text", "model", "num_mem", "preset", *WIDGETS)
    switches = [left["compress"], left["stop"], right["actions"], right["tries"]]
    settings = [left[name] for name in names]
    checked = start(
        check,
        settings,
        right["status"],
        concurrency_limit=None,
        show_progress="hidden",
        api_visibility="private",
    )
    begun = checked.success(begin, None, switches, **QUICK)
    begun.then(None, None, None, js=move_focus("compress", "stop", show="status"), api_visibility="private")
    ended = begun.then(
        run,
        settings,
        [right[name] for name in ("status", "curve", "tokens", "card", "outcome")],
        concurrency_limit=queue_limit,
        concurrency_id=QUEUE,
        show_progress="hidden",
        api_visibility="private",
    ).then(
        finish,
        right["outcome"],
        [right["download"], *switches, right["try_mem"], right["try_steps"], right["try_short"]],
        concurrency_limit=None,
        show_progress="hidden",
        api_visibility="private",
    )
    ended.then(None, None, None, js=move_focus("stop", "compress"), api_visibility="private")
    ended.then(  # what could not be counted while the model was busy
        about,
        [left["text"], left["model"], left["num_mem"], left["steps"]],
        [left["count"], left["picker"]],
        **COUNTING,
    )
