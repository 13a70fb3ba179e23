"""The Compress tab: text in, vectors being trained before one's eyes, a verified result out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from html import escape
from typing import Any

import gradio as gr

from cramdemo.catalogue import BUILT_IN, MODELS
from cramdemo.config import INITS, MAX_NUM_MEM_PAGE, MAX_SEED, MAX_STEPS, PRECISIONS, PRESETS, CramConfig
from cramdemo.cram import check_length
from cramdemo.errors import ConfigError, CramError, plural
from cramdemo.placement import seconds as expected_seconds
from cramdemo.placement import this_machine
from cramdemo.settings import limited, server_settings
from cramdemo.ui.card import Suggestions, blank_html, card_html, suggestions, unverified_html
from cramdemo.ui.chart import BLANK
from cramdemo.ui.count import Count, check_characters, count_html, count_text
from cramdemo.ui.curves import curves, curves_value
from cramdemo.ui.experiment import QUEUE, QUEUED, QUICK, STREAMED, move_focus
from cramdemo.ui.follow import follow
from cramdemo.ui.handout import connect_offer, rescue
from cramdemo.ui.history import Run, history, remembered, run_of
from cramdemo.ui.links import COPY_SCRIPT, MOST_CHARACTERS, linked, query_of
from cramdemo.ui.live import LOADING, LiveState, check_same_text, loading_html, status_html, status_line
from cramdemo.ui.login import visitor_token
from cramdemo.ui.offer import check_can_run, entry_of
from cramdemo.ui.pace import MAX_SECONDS
from cramdemo.ui.picker import duration_words, guessed_tokens, picker, picker_value, size_words
from cramdemo.ui.samples import Sample, read_samples
from cramdemo.ui.shelf import SHELF, STOPS, WORKER, Loading, wait_until_warm
from cramdemo.ui.tokens import EMPTY, token_view
from cramdemo.ui.zero import ON_ZERO
from cramdemo.vectors import MemVectors, from_bytes, to_bytes

TASK = "compress"
COUNT_WAIT_MS = 250
PRESET_WORDS = {"fast": "Fast", "most": "Most tokens"}
START_WORDS = {
    "auto": "Encoder, if it has one",
    "encoder": "Encoder",
    "embedding": "Random, as in the paper",
}
WIDGETS = ("steps", "seconds", "learning_rate", "margin", "seed", "precision", "init")  # of the Advanced panel
SETTINGS = ("text", "model", "num_mem", "search", "preset", *WIDGETS)
PRESET_AT = SETTINGS.index("preset")
ASKED = ("text", "model", "num_mem", "search", "steps")  # by `about`, which answers FACTS
FACTS = ("count", "picker", "expected", "timer", "asks")
COUNTING: dict[str, Any] = {  # one at a time: answers in the order of the questions, so that the last one stays
    "concurrency_limit": 1,
    "concurrency_id": "count",
    "show_progress": "hidden",
    "api_visibility": "private",
}
WARM_SECONDS = 30.0
ASK_SECONDS = 2.0  # between two looks whether a busy model is free to count the text
MOST_ASKS = 150
IDLE = status_line("idle", "Ready. Press Compress: progress, speed and the time left will be shown here.")
NOT_BEGUN = status_line("idle", "Stopped before the run had begun.")
LOAN_NOTE = (
    f'<p class="cd-note">On this page a run gets a GPU for at most {MAX_SECONDS:.0f} seconds; '
    "the best vectors that it has found by then are kept.</p>"
)
NO_CARD = blank_html()


@dataclass(frozen=True)
class Outcome:
    """What a finished run leaves behind for the buttons: the file, what to try next, and what is kept of it."""

    data: bytes = b""
    name: str = ""
    tries: Suggestions = field(default_factory=Suggestions)
    kept: Run | None = None


@dataclass(frozen=True)
class Asked:
    """What a run is asked for.

    Attributes:
        search: find the fewest memory tokens.
        start: vectors to go on from.
    """

    text: str
    model: str
    config: CramConfig
    search: bool = False
    start: MemVectors | None = None


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
    asked: list[Any]
    facts: list[Any]
    note: gr.HTML
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


def asked_of(text: str, model: str, num_mem: float, search: bool, preset: str, *advanced: Any) -> Asked:
    """What the widgets ask for.

    Args:
        advanced: values of `WIDGETS`, which gradio passes by place.

    Raises:
        CramError: the text is too long, or see `config_of`.
    """
    check_characters(text)
    return Asked(text, model, config_of(model, 1 if search else num_mem, preset, *advanced), search=bool(search))


def continued(outcome: Outcome, *settings: Any) -> Asked:
    """What the widgets ask for, from the vectors of the last run on.

    Raises:
        CramError: as `asked_of`, or there are no such vectors, or more of them than K.
    """
    asked = asked_of(*settings)
    if not outcome.data:
        raise ConfigError("There is no run to go on from. Press Compress to start one.")
    start = from_bytes(outcome.data)
    if asked.config.num_mem < start.num_mem:
        raise ConfigError(f"The last run has {plural(start.num_mem, 'vector')}. Take at least as many memory tokens.")
    return dataclasses.replace(asked, start=start, search=False)


def whole(value: float | None) -> float | None:
    """A whole number as int: widgets and JSON may give 8.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def unless_zero(value: float | None) -> float | None:
    """None for the 0 that stands for it; what is not a number stays, for the config to refuse."""
    return None if not isinstance(value, bool) and value == 0 else value


def file_name(state: LiveState, model: str) -> str:
    """Name of the vector file: nothing of the text is in it."""
    vectors = state.result.vectors if state.result else state.best
    assert vectors is not None
    return f"{entry_of(model).label}-{vectors.num_tokens}tok-k{vectors.num_mem}.safetensors"


def shown(state: LiveState, text: str, model: str, preset: str = PRESETS[0]) -> Shown:
    """Values of the streamed components for one state of the run."""
    result, lines = state.result, curves_value(state.curve)
    if not state.ended:
        return status_html(state), lines, state.token_view, NO_CARD, NOTHING
    if result is None:
        assert state.best is not None
        tries = Suggestions(steps=state.config.steps)
        outcome = Outcome(to_bytes(state.best), file_name(state, model), tries, run_of(state, model, preset))
        return status_html(state), lines, state.token_view, unverified_html(state.best, state.cut_off), outcome
    tries = suggestions(result, state.config, state.shorter)
    outcome = Outcome(to_bytes(result.vectors), file_name(state, model), tries, run_of(state, model, preset))
    return status_html(state), lines, state.token_view, card_html(text, result, tries), outcome


def check(request: gr.Request, *settings: Any) -> Iterator[str]:
    """Before a run: refuse what cannot be run, in the status line and as a toast, and leave all else as it is.

    Args:
        settings: as `asked_of` takes them.
    """
    yield from _check(request, partial(asked_of, *settings))


def check_more(request: gr.Request, outcome: Outcome, *settings: Any) -> Iterator[str]:
    """The same before a run that goes on from the last one's vectors."""
    yield from _check(request, partial(continued, outcome, *settings))


def _check(request: gr.Request, ask: Callable[[], Asked]) -> Iterator[str]:
    try:
        _checked(ask, visitor_token(request))
    except CramError as error:
        yield status_line("error", str(error))
        raise gr.Error(escape(str(error)), title="Not compressed", print_exception=False) from None
    yield status_line("waiting", "Waiting for the model")


def _checked(ask: Callable[[], Asked], token: str | None) -> Asked:
    """What is asked for, if it can be run.

    Raises:
        CramError: it cannot.
    """
    asked = ask()
    lm, num_mem = SHELF.peek(asked.model), asked.config.num_mem
    ids = lm.tokenize(asked.text) if lm else []
    num_tokens = len(ids) if lm else guessed_tokens(len(asked.text))
    check_can_run(entry_of(asked.model), num_tokens, num_mem, token)
    if lm:  # not in memory yet: the run itself will check
        check_length(lm, num_tokens, num_mem)
        if asked.start is not None:
            check_same_text(lm, asked.start, ids)
    return asked


def begin(request: gr.Request) -> tuple[Any, ...]:
    """At the start of a run: a fresh Stop flag, buttons switched, the last result's put away."""
    STOPS.begin(request.session_hash or "", TASK)
    hidden = gr.update(visible=False)
    return gr.update(interactive=False), gr.update(interactive=True), hidden, hidden


def run(request: gr.Request, *settings: Any) -> Iterator[Shown]:
    """One run, streamed. Every channel carries a plain value each time, so that only what is new is sent.

    Args:
        settings: as `asked_of` takes them.
    """
    yield from _run(request, partial(asked_of, *settings), settings, NOTHING)


def run_more(request: gr.Request, outcome: Outcome, *settings: Any) -> Iterator[Shown]:
    """A run that goes on from the last one's vectors, which are there still if it cannot be."""
    yield from _run(request, partial(continued, outcome, *settings), settings, outcome)


def _run(request: gr.Request, ask: Callable[[], Asked], settings: Sequence[Any], before: Outcome) -> Iterator[Shown]:
    session = request.session_hash or ""
    flag = STOPS.current(session, TASK)
    head = "Starting" if SHELF.peek(settings[1]) else LOADING
    last: Shown = (status_line("waiting", head), dict(BLANK), dict(EMPTY), NO_CARD, before)
    yield last
    try:
        token = visitor_token(request)
        asked = _checked(ask, token)  # again: a program may come here without the check before
        states = follow(
            asked.text, asked.model, asked.config, flag, token=token, search=asked.search, start=asked.start
        )
        for state in states:
            if isinstance(state, Loading):
                yield loading_html(state), *last[1:]
                continue
            last = shown(state, asked.text, asked.model, settings[PRESET_AT])
            yield last
        if not last[1]["d"]:
            yield NOT_BEGUN, *last[1:]
    except CramError as error:
        gr.Warning(escape(str(error)), title="Not compressed")
        yield status_line("error", str(error)), *last[1:]
    finally:
        STOPS.end(session, TASK, flag)


def finish(outcome: Outcome) -> tuple[Any, ...]:
    """After a run: buttons back, no longer the last run's file, and what to try."""
    tries = outcome.tries
    return (
        gr.update(value=None, interactive=False),
        gr.update(interactive=True),
        gr.update(interactive=False),
        gr.update(visible=bool(outcome.data)),
        gr.update(visible=tries != Suggestions()),
        gr.update(
            visible=tries.num_mem is not None, value=f"Continue with {plural(tries.num_mem or 0, 'memory token')}"
        ),
        gr.update(visible=tries.steps is not None, value=f"Continue for up to {plural(tries.steps or 0, 'step')}"),
        gr.update(visible=bool(tries.shorter), value="Shorten the text"),
    )


def stop(request: gr.Request) -> None:
    """Ask this visitor's run to end; it then shows its best vectors."""
    STOPS.stop(request.session_hash or "", TASK)


def about(text: str, model: str, num_mem: float, search: bool, steps: float) -> tuple[Any, ...]:
    """The count line, the picker, how long a run may take, and whether to ask again, for what stands in the widgets."""
    known = 1 if search else int(num_mem), int(steps or CramConfig().steps)
    value = picker_value(model, len(text), *known, others=server_settings().any_model)
    count = count_text(text, model, known[0])
    expected = expected_html(model, count, search=search, steps=known[1])
    return count_html(count), value, expected, gr.Timer(active=_ask_again(count)), 0


def first_about(*asked: Any) -> tuple[Any, ...]:
    """The same for a fresh page, which may be there before the model is."""
    wait_until_warm(WARM_SECONDS)
    return about(*asked)


def ask_again(text: str, model: str, num_mem: float, search: bool, asks: int) -> tuple[Any, ...]:
    """The count line of a page that met a busy model, and whether to ask once more: not for ever."""
    count = count_text(text, model, 1 if search else int(num_mem))
    return count_html(count), gr.Timer(active=_ask_again(count) and asks < MOST_ASKS), asks + 1


def _ask_again(count: Count) -> bool:
    """H_LM is missing only because a run is going."""
    return count.h_lm_bits is None and not count.problem and count.tokens != 0 and not WORKER.idle


def expected_html(model: str, count: Count, *, search: bool, steps: int) -> str:
    """How long a run may take here, before it is started."""
    entry = entry_of(model)
    if count.problem or not count.characters:
        return '<p class="cd-note cd-expected">How long it may take stands here once there is a text.</p>'
    if not entry.parameters:
        return '<p class="cd-note cd-expected">How long it may take is known once the model is loaded.</p>'
    num_tokens = count.tokens or guessed_tokens(count.characters)
    most = duration_words(expected_seconds(entry, num_tokens, count.num_mem, steps, this_machine()))
    one = "each K tried takes" if search else "a run takes"
    soon = (
        "a K that gains nothing more is given up long before" if search else "it ends as soon as the text is lossless"
    )
    words = f"On this machine {one} <b>at most about {most}</b> ({plural(steps, 'step')}); {soon}."
    return f'<p class="cd-note cd-expected">{words}</p>'


def choose(model: str, event: gr.EventData) -> str:
    """The model that the picker's event names; the old one if it is not on offer."""
    try:
        return entry_of(event.model).name
    except CramError as error:
        gr.Warning(escape(str(error)), title="Not chosen")
        return model


def link(model: str, num_mem: float, search: bool, preset: str, *advanced: Any) -> Any:
    """The box for the link, with its query in it."""
    try:
        config = config_of(model, 1 if search else num_mem, preset, *advanced)
    except CramError as error:
        raise gr.Error(escape(str(error)), title="No link", print_exception=False) from None
    return gr.update(value=query_of(model, preset, config, search=bool(search)), visible=True)


def follow_link(model: str, num_mem: float, request: gr.Request) -> tuple[Any, ...]:
    """Values of the form and of the Advanced panel that the page's address asks for."""
    found = linked(dict(request.query_params), model, int(num_mem))
    if found.problem:
        gr.Warning(escape(found.problem), title="Link not followed")
    settings = [found.settings[name] for name in WIDGETS]
    return found.model, found.num_mem, found.preset, *settings, found.search, _note_html(found.model)


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
        [left[name] for name in (*WIDGETS, "search")],
        [left[name] for name in ASKED],
        [left[name] for name in FACTS],
        left["note"],
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
    parts["search"] = gr.Checkbox(
        False,
        label="Find the fewest memory tokens for me",
        info="Doubles K until the text is lossless, then narrows it down. Each K starts from the one before.",
        elem_id="search-fewest",
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
    parts["expected"] = gr.HTML(
        expected_html(BUILT_IN, blank, search=False, steps=CramConfig.for_model(MODELS[BUILT_IN]).steps),
        apply_default_css=False,
        elem_id="expected",
        elem_classes="cd-flat",
    )
    parts["timer"], parts["asks"] = gr.Timer(ASK_SECONDS, active=False), gr.State(0)
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
    with gr.Column(elem_classes="cd-after"):  # room for the buttons is kept
        with gr.Row(visible=False, elem_classes="cd-tries") as parts["tries"]:
            parts["try_steps"] = gr.Button("Continue for more steps", size="sm", min_width=0, elem_id="try-steps")
            parts["try_mem"] = gr.Button("Continue with one more", size="sm", min_width=0, elem_id="try-mem")
            parts["try_short"] = gr.Button("Shorten the text", size="sm", min_width=0, elem_id="try-short")
        with gr.Row(visible=False, elem_classes="cd-actions") as parts["actions"]:
            parts["download"] = gr.DownloadButton(
                "Download the vectors",
                variant="primary",
                size="md",
                min_width=160,
                interactive=False,
                elem_id="download",
            )
            parts["decode_it"] = gr.Button("Decode it", size="md", min_width=120, elem_id="decode-it")
        parts["rescue"] = rescue()
    parts["history"] = history()
    parts["outcome"] = gr.State(NOTHING)
    return parts


def _connect_form(left: dict[str, Any]) -> None:
    text, model, num_mem, preset, search = (left[name] for name in ("text", "model", "num_mem", "preset", "search"))
    asked, facts = [left[name] for name in ASKED], [left[name] for name in FACTS]
    wait = f"async (...values) => {{ await new Promise(done => setTimeout(done, {COUNT_WAIT_MS})); return values; }}"
    gr.on(
        [text.change, num_mem.change, search.change, left["steps"].change],
        about,
        asked,
        facts,
        js=wait,
        trigger_mode="always_last",
        **COUNTING,
    )
    left["timer"].tick(
        ask_again,
        [text, model, num_mem, search, left["asks"]],
        [left[n] for n in ("count", "timer", "asks")],
        **COUNTING,
    )
    search.change(lambda on: gr.update(interactive=not on), search, num_mem, **QUICK)
    chosen = left["picker"].select(choose, model, model, **QUICK).then(_note_html, model, left["note"], **QUICK)
    shown = [left[name] for name in ("steps", "learning_rate", "margin", "init")]
    chosen.then(preset_settings, [model, preset], shown, **QUICK).then(about, asked, facts, **COUNTING)
    preset.input(preset_settings, [model, preset], shown, **QUICK)
    for chip, sample in left["chips"]:
        values = json.dumps([sample.text, sample.num_mem])
        chip.click(None, None, [text, num_mem], js=f"() => {values}", **STREAMED)
    settings = [left[name] for name in SETTINGS[1:]]
    left["copy"].click(link, settings, left["link"], **QUICK).success(
        None, [left["link"], left["with_text"], text], left["link"], js=COPY_SCRIPT, api_visibility="private"
    )


def _connect_runs(left: dict[str, Any], right: dict[str, Any], queue_limit: int | None) -> None:
    outcome, settings = right["outcome"], [left[name] for name in SETTINGS]
    form = [left["num_mem"], left["search"]]
    shorter = right["try_short"].click(shorter_text, [outcome, left["text"]], left["text"], **QUICK)
    more = [right["try_mem"].click(with_more, [outcome, *form], form, **QUICK)]
    more += [right["try_steps"].click(with_as_many, [outcome, *form], form, **QUICK)]
    for start in (left["compress"].click, shorter.then):
        _connect_run(start, (check, run), settings, left | right, queue_limit)
    for change in more:
        _connect_run(change.then, (check_more, run_more), [outcome, *settings], left | right, queue_limit)
    left["stop"].click(stop, None, None, **QUICK)


def shorter_text(outcome: Outcome, text: str) -> str:
    """What the last run solved of its text; the text as it is where the server has forgotten the run."""
    return outcome.tries.shorter if outcome.data else text


def with_more(outcome: Outcome, num_mem: float | None, search: bool) -> tuple[float | None, bool]:
    """K and the search's checkbox for a run with more memory tokens; as they are where the server has forgotten it."""
    return (outcome.tries.num_mem, False) if outcome.data else (num_mem, search)


def with_as_many(outcome: Outcome, num_mem: float | None, search: bool) -> tuple[float | None, bool]:
    """The same for a run with as many as there are."""
    return (from_bytes(outcome.data).num_mem, False) if outcome.data else (num_mem, search)


def _connect_run(
    start: Any,
    handlers: tuple[Callable[..., Any], Callable[..., Any]],
    inputs: list[Any],
    parts: dict[str, Any],
    queue_limit: int | None,
) -> None:
    """From a trigger to the end of a run; `handlers` are a check and a run."""
    past = parts["history"]
    switches = [parts["compress"], parts["stop"], parts["actions"], parts["tries"]]
    checked = start(handlers[0], inputs, parts["status"], concurrency_limit=None, **STREAMED)
    begun = checked.success(begin, None, switches, **QUICK)
    begun.then(None, None, None, js=move_focus("compress", "stop", show="status"), api_visibility="private")
    ran = begun.then(
        handlers[1],
        inputs,
        [parts[name] for name in ("status", "curve", "tokens", "card", "outcome")],
        concurrency_limit=queue_limit,
        concurrency_id=QUEUE,
        show_progress_on=parts["status"],
        **QUEUED,
    )
    ended = ran.then(
        finish,
        parts["outcome"],
        [parts["download"], *switches, parts["try_mem"], parts["try_steps"], parts["try_short"]],
        concurrency_limit=None,
        **STREAMED,
    )
    connect_offer(ended, parts["outcome"], parts["download"], parts["rescue"])
    ended.then(None, None, None, js=move_focus("stop", "compress"), api_visibility="private")
    ended.then(remember, [past.kept, parts["outcome"]], [past.kept, parts["outcome"]], **QUICK)
    ended.then(  # what could not be counted while the model was busy
        about, [parts[name] for name in ASKED], [parts[name] for name in FACTS], **COUNTING
    )


def remember(kept: Any, outcome: Outcome) -> tuple[Any, Outcome]:
    """What the browser keeps after a run, each run once."""
    if outcome.kept is None:
        return kept, outcome
    return remembered(kept, outcome.kept), dataclasses.replace(outcome, kept=None)
