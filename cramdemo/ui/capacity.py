"""The Capacity tab: how much of a text fits into one vector, and into two, four and eight."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import gradio as gr

from cramdemo.capacity import ENDED, NUM_MEM, RULE, STAGE_STEPS, Capacity, measure_capacity
from cramdemo.catalogue import ASSETS
from cramdemo.config import MAX_SEED, CramConfig
from cramdemo.errors import ConfigError, TextError, plural
from cramdemo.models import FrozenLM
from cramdemo.settings import limited, server_settings
from cramdemo.ui.capacity_figures import (
    BITS_EMPTY,
    BITS_TITLE,
    NO_CARD,
    STANDING_TITLE,
    STEPS_EMPTY,
    STEPS_TITLE,
    VECTORS_EMPTY,
    VECTORS_TITLE,
    bits_value,
    card_html,
    standing_value,
    steps_value,
    vectors_value,
)
from cramdemo.ui.chart import BLANK, chart
from cramdemo.ui.count import check_characters
from cramdemo.ui.experiment import QUICK, STREAMED, Experiment, Values, connect, controls, in_time
from cramdemo.ui.jobs import Flag
from cramdemo.ui.live import status_line
from cramdemo.ui.offer import check_can_run, entry_of
from cramdemo.ui.picker import guessed_tokens, model_choice
from cramdemo.ui.shelf import SHELF, Loading
from cramdemo.words import random_words

TASK = "capacity"
SAMPLES = ASSETS / "samples" / "capacity.json"
RANDOM_WORDS = 150
MOST_TOKENS = 4096  # of a text that are looked at: one pass of the bare model prices them all
MOST_STAGE_STEPS = 2000
SECONDS = {"one": 10, "all": 45}  # of the example on cram-mini and two idle cores
IDLE = (
    f"Ready. Takes about {SECONDS['all']} seconds with cram-mini on two idle cores, {SECONDS['one']} with one vector "
    "only. Stop keeps what is there."
)
CSS = """
#capacity-status .cd-status { min-height: 118px; }
.capacity-card { min-height: 476px; }
.capacity-figure { gap: 6px !important; }
.capacity-figure .cd-aside { min-height: 36px; }
.capacity-figure h3 { min-height: 25px; }
.capacity-figure { position: relative; }
.capacity-figure:has(input[value="steps"]:checked) #capacity-bits,
.capacity-figure:has(input[value="bits"]:checked) #capacity-steps,
.capacity-figure:has(input[value="width"]:checked) #capacity-parameters,
.capacity-figure:has(input[value="parameters"]:checked) #capacity-width {
  position: absolute; inset: 0 0 auto; height: 0; overflow: hidden !important; visibility: hidden; }
.capacity-figure:has(input[value="steps"]:checked) #capacity-bits .cd-plot,
.capacity-figure:has(input[value="bits"]:checked) #capacity-steps .cd-plot,
.capacity-figure:has(input[value="width"]:checked) #capacity-parameters .cd-plot,
.capacity-figure:has(input[value="parameters"]:checked) #capacity-width .cd-plot { visibility: hidden; }
.capacity-figure > .form { border: 0; background: none; box-shadow: none; overflow: visible; }
.capacity-switch { border: 0 !important; background: none !important; padding: 0 !important; overflow: visible; }
@media (max-width: 720px) {
  #capacity-status .cd-status { min-height: 200px; }
  .capacity-card { min-height: 900px; }
  .capacity-figure .cd-aside { min-height: 72px; }
  .capacity-figure h3 { min-height: 60px; }
}
"""


def check(  # noqa: PLR0917  # in the order of the widgets
    text: str, model: str, vectors: str, steps: float, seed: float | None, token: str | None
) -> None:
    """Refuse what cannot be measured.

    Raises:
        CramError: no text or far too long a one, a setting out of its range, or the model cannot run here.
    """
    check_characters(text)
    if not text:
        raise TextError("The text is empty. Paste or type something, or pick a sample.")
    _config(model, steps, seed)
    num_tokens = min(guessed_tokens(len(text)), MOST_TOKENS, entry_of(model).context - max(_num_mems(vectors)))
    check_can_run(entry_of(model), num_tokens, max(_num_mems(vectors)), token)


def _config(model: str, steps: float, seed: float | None) -> CramConfig:
    if not 1 <= steps <= MOST_STAGE_STEPS:
        raise ConfigError(f"steps is {steps:g}; give a whole number from 1 to {MOST_STAGE_STEPS:,}.")
    config = CramConfig.for_model(entry_of(model), steps=int(steps), seed=int(seed or 0))
    return limited(config, server_settings())


def _num_mems(vectors: str) -> tuple[int, ...]:
    asked = NUM_MEM if vectors == "all" else NUM_MEM[:1]
    return tuple(k for k in asked if k <= server_settings().max_mem)


def run(  # noqa: PLR0917  # in the order of the widgets
    text: str, model: str, vectors: str, steps: float, seed: float | None, token: str | None, stop: Flag
) -> Iterator[Capacity | Loading]:
    """Measure, on the worker's thread or in a child.

    Raises:
        CramError: see `measure_capacity` and `load_model`.
    """
    lm = yield from SHELF.bring(model, "auto", token, stop)
    num_mems = _num_mems(vectors)
    ids, config = _leading(lm, text, max(num_mems)), _config(model, steps, seed)
    most_steps = server_settings().max_steps
    yield from measure_capacity(lm, ids, config, num_mems, most_steps=most_steps, stop=in_time(stop, config))


def _leading(lm: FrozenLM, text: str, num_mem: int) -> list[int]:
    """The text's ids, as many as the model reads: how long a text is does not matter here."""
    return lm.tokenize(text)[: min(MOST_TOKENS, lm.max_tokens(num_mem))]


def show(state: Capacity) -> tuple[str, Values]:
    """The status line; the two live figures, card, tokens against vectors, and the two of where the model stands."""
    return _status(state), (
        steps_value(state),
        bits_value(state),
        card_html(state),
        vectors_value(state),
        standing_value(state, "width"),
        standing_value(state, "parameters"),
    )


def blank() -> Values:
    """Values of the same before a run: what is published stands there already."""
    none = dict(BLANK)
    return none, none, NO_CARD, none, standing_value(None, "width"), standing_value(None, "parameters")


def _status(state: Capacity) -> str:
    growth = state.growths[-1] if state.growths else None
    cells = [
        ("vectors, K", f"{growth.num_mem} of {state.num_mems[-1]}" if growth else "…"),
        ("tokens exact", f"{growth.horizon:,}" if growth else "…"),
        ("tried now", f"{state.solved:,} of {state.trying:,} right"),
        ("steps", f"{state.steps:,}"),
        ("seconds", f"{state.seconds:.0f}"),
    ]
    done = sum(growth.ended for growth in state.growths) / len(state.num_mems)
    if state.doing == ENDED:
        del cells[2]
        return status_line("done", _ending(state), cells, 1.0 if not state.stopped else done)
    return status_line("running", _heading(state), cells, done)


def _ending(state: Capacity) -> str:
    if state.stopped:
        return "Stopped; what was found is kept."
    if any(growth.whole for growth in state.growths):
        return f"Done. All of the {plural(state.num_tokens, 'token')} fit: a longer text would tell more."
    return "Done: nothing more fits in these steps."


def _heading(state: Capacity) -> str:
    k = state.growths[-1].num_mem if state.growths else state.num_mems[0]
    if state.doing == RULE:
        return "Looking for the decoding capacity by the paper’s rule"
    return f"Growing the text in {plural(k, 'vector')}"


def read_samples() -> dict[str, str]:
    """Sample texts by their labels."""
    return {item["label"]: item["text"] for item in json.loads(SAMPLES.read_text(encoding="utf-8"))}


def draw_words(seed: float | None) -> str:
    """Random words for the text box."""
    return random_words(RANDOM_WORDS, min(max(int(seed or 0), 0), MAX_SEED))


def tab(queue_limit: int | None) -> None:
    """Lay out the tab and connect it."""
    with gr.Row(elem_classes="cd-columns"):
        with gr.Column(scale=5, min_width=320, elem_classes="cd-left"):
            left = _left_column()
        with gr.Column(scale=7, min_width=320, elem_classes="cd-right"):
            left["parts"].status.render()
            outputs = _right_column()
    experiment = Experiment(
        TASK,
        inputs=[left[name] for name in ("text", "model", "vectors", "steps", "seed")],
        outputs=outputs,
        check=check,
        run=run,
        show=show,
        blank=blank(),
    )
    connect(experiment, left["parts"], queue_limit)


def _left_column() -> dict[str, Any]:
    samples = read_samples()
    left: dict[str, Any] = {}
    left["text"] = gr.Textbox(
        next(iter(samples.values())),
        label="The text that grows",
        info="From its first token on, as far as it fits. Longer than the model reads is fine.",
        lines=7,
        max_lines=14,
        elem_id="capacity-text",
        placeholder="Paste or type a long text",
    )
    with gr.Row(elem_classes="cd-chips"):
        gr.HTML('<span class="cd-chips-label">Samples</span>', apply_default_css=False, elem_classes="cd-flat")
        chips = {label: _chip(label) for label in samples}
        words = _chip("Random words")
    left["vectors"] = gr.Radio(
        [("1, 2, 4 and 8 vectors", "all"), ("1 vector only", "one")],
        value="all",
        label="Memory tokens, K",
        info="Input vectors that the text is crammed into, from the fewest on.",
        elem_id="capacity-vectors",
    )
    left["parts"] = controls(TASK, "Find the capacity", IDLE)
    left["model"] = model_choice("capacity-model")
    with gr.Row():
        left["steps"] = gr.Number(
            STAGE_STEPS,
            label="Steps a stage",
            info="At most; a stage adds some tokens. 50 suit cram-mini, other models want 1,000.",
            precision=0,
            minimum=1,
            maximum=MOST_STAGE_STEPS,
            min_width=150,
            elem_id="capacity-stage",
        )
        left["seed"] = gr.Number(
            0,
            label="Seed",
            info="Of the random words, and of vectors where they start at random.",
            precision=0,
            minimum=0,
            maximum=MAX_SEED,
            min_width=150,
            elem_id="capacity-seed",
        )
    for label, chip in chips.items():
        js = f"() => {json.dumps(samples[label])}"
        chip.click(None, None, left["text"], js=js, **STREAMED)
    words.click(draw_words, left["seed"], left["text"], **QUICK)
    return left


def _chip(label: str) -> gr.Button:
    return gr.Button(label, size="sm", min_width=0, scale=0, elem_classes="cd-chip")


def _right_column() -> list[Any]:
    with gr.Column(elem_classes="capacity-figure"):
        _switch("Draw the horizon against", [("steps", "steps"), ("information gain, bits", "bits")], "capacity-x")
        steps = chart("capacity-steps", STEPS_TITLE, STEPS_EMPTY)
        bits = chart("capacity-bits", BITS_TITLE, BITS_EMPTY)
    card = gr.HTML(NO_CARD, apply_default_css=False, elem_id="capacity-card", elem_classes="cd-flat")
    with gr.Column(elem_classes="capacity-figure"):
        by_vectors = chart("capacity-by-vectors", VECTORS_TITLE, VECTORS_EMPTY)
    _, _, _, _, by_width, by_parameters = blank()
    with gr.Column(elem_classes="capacity-figure"):
        choices = [("width", "width"), ("parameters", "parameters")]
        _switch("Where this model stands, against its", choices, "capacity-size")
        width = chart("capacity-width", STANDING_TITLE, "", by_width, height=340)
        parameters = chart("capacity-parameters", STANDING_TITLE, "", by_parameters, height=340)
    return [steps, bits, card, by_vectors, width, parameters]


def _switch(label: str, choices: list[tuple[str, str]], elem_id: str) -> None:
    """Lay out what shows one of the two figures below it, by the style sheet, so that it works during a run."""
    gr.Radio(
        choices, value=choices[0][1], label=label, interactive=True, elem_id=elem_id, elem_classes="capacity-switch"
    )
