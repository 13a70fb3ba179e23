"""The Geometry tab: how a solution is reached, how far apart several lie, and what is between and around them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import gradio as gr

from cramdemo.config import MAX_SEED, CramConfig
from cramdemo.cram import check_length
from cramdemo.errors import plural
from cramdemo.geometry import GRID, MAX_TOKENS, NUM_SEEDS, Findings, check_size, explore
from cramdemo.settings import limited, server_settings
from cramdemo.ui import geometry_figures as figures
from cramdemo.ui.chart import BLANK, chart
from cramdemo.ui.compress import whole
from cramdemo.ui.count import check_characters
from cramdemo.ui.experiment import STREAMED, Experiment, Values, connect, controls
from cramdemo.ui.jobs import Flag
from cramdemo.ui.live import status_line
from cramdemo.ui.offer import check_can_run, entry_of
from cramdemo.ui.picker import guessed_tokens, model_choice
from cramdemo.ui.shelf import SHELF, Loading

TASK = "geometry"
TEXT = "Marble lanterns drank quiet thunder, while seventeen copper ladders argued about yesterday."
EXAMPLES = {  # label: text, from what the vectors hold with ease to what they hardly hold
    "A plain sentence": "She opened the door, and there was nobody in the room.",
    "Odd words": TEXT,
    "Digits, slower": "7919 5831 3743 1655 9574 7486 5398 3310 1222",
}
MOST_MEM = 8
STEPS = 400
SECONDS = 40.0  # of training, so that a slow model leaves time for the rest
LOW, TALL, TALLEST = 280, 360, 420  # pixels
IDLE = (
    "Ready: about 10 seconds with the built-in model on two idle CPU cores. Three random starts are trained, then what "
    "lies between them is read."
)
HEADS = {
    "training": "Training three random starts side by side",
    "vectors": "Looking at the vectors",
    "lines": "Walking the straight lines between them",
    "landscape": "Surveying the plane through them",
    "done": "Done",
    "stopped": "Stopped; what was found is kept",
}
ENDED = {  # when the training did not end by itself
    "steps": "; the training had used all its steps",
    "seconds": "; the training was ended by its time limit",
}
STAGES = tuple(HEADS)[:4]
STARTS = (0.0, 0.4, 0.5, 0.6, 1.0)  # where on the bar a stage begins, about as long as each takes
CHARTS = (  # id, title, what will appear, height, how it is made
    (
        "path",
        "The way to a solution",
        "The optimiser’s path appears here while it is walked: the vectors at every step, seen in the two directions "
        "along which they vary most, shaded by the tokens solved.",
        TALL,
        figures.path_chart,
    ),
    (
        "variance",
        "How many directions the path needs",
        "How much of the path’s variance the first one, two, three … principal components hold.",
        LOW,
        figures.variance_chart,
    ),
    (
        "cosines",
        "How far apart solutions are",
        "The cosine between each two of the three solutions: 1 is the same direction, 0 unrelated.",
        LOW,
        figures.cosines_chart,
    ),
    (
        "line",
        "Between two solutions",
        "The share of right tokens along the straight line from one solution to another.",
        TALLEST,
        figures.line_chart,
    ),
    (
        "plane",
        "The plane through three solutions",
        "A map of the share of right tokens on the plane through the three solutions, row by row.",
        TALLEST,
        figures.plane_chart,
    ),
    (
        "tokens",
        "The nearest words",
        "The tokens whose input embeddings point most nearly the way that a [mem] vector points.",
        LOW,
        figures.tokens_chart,
    ),
    (
        "attention",
        "Who looks at [mem]",
        "The share of the text’s attention that goes to the [mem] positions, layer by layer.",
        LOW,
        figures.attention_chart,
    ),
)
BLANKS: Values = (*(dict(BLANK) for _ in CHARTS), figures.numbers_html(None))
NOTE = (
    '<p class="cd-note">Every start is random, as in the paper, never the encoder’s: only so can solutions differ. '
    f"At most {MAX_TOKENS} tokens, since the plane alone is {GRID * GRID} readings of the text.</p>"
)
CSS = """
.cd-geometry .cd-title { font-variant-numeric: tabular-nums; }
.cd-geometry .cd-chart h3 { min-height: 24px; }
.cd-geometry .cd-aside { min-height: 36px; }
.cd-geometry .cd-stage .cd-empty { display: grid; place-items: center; text-align: center; padding: 0 max(12px, 14%);
  background: var(--cd-sunk); border-radius: 8px; }
.cd-geometry .cd-stage .cd-empty[hidden] { display: none; }
.cd-geometry .cd-status { min-height: 119px; }
.cd-shape .cd-figures { margin-top: 8px !important; padding-top: 10px; }
.cd-shape .cd-figures > div { min-height: 118px; }
@media (max-width: 640px) {
  .cd-geometry .cd-chart h3 { min-height: 60px; }
  .cd-geometry .cd-aside { min-height: 73px; }
  .cd-geometry .cd-status { min-height: 190px; }
  .cd-shape .cd-figures > div { min-height: 158px; }
}
"""


def config_of(model: str, num_mem: float, seed: float) -> CramConfig:
    """Settings as the widgets give them.

    Raises:
        ModelError: no such model.
        ConfigError: a value is out of its range.
    """
    settings = server_settings()
    seconds = min(SECONDS, settings.max_seconds or SECONDS)
    steps = min(STEPS, settings.max_steps)
    config = CramConfig.for_model(
        entry_of(model), num_mem=whole(num_mem), seed=whole(seed), init="embedding", steps=steps, seconds=seconds
    )
    return limited(config, settings)


def check(text: str, model: str, num_mem: float, seed: float, token: str | None) -> None:
    """Refuse what cannot be run, as far as it can be told without loading the model.

    Raises:
        CramError: which says why.
    """
    check_characters(text)
    config = config_of(model, num_mem, seed)
    lm = SHELF.peek(model)
    num_tokens = len(lm.tokenize(text)) if lm else guessed_tokens(len(text))
    positions = NUM_SEEDS * min(num_tokens, MAX_TOKENS)  # side by side they need as much memory as one long text
    check_can_run(entry_of(model), positions, config.num_mem, token)
    if lm:  # not in memory yet: the run itself will check
        check_size(num_tokens)
        check_length(lm, num_tokens, config.num_mem)


def run(  # noqa: PLR0917  # in the order of the widgets
    text: str, model: str, num_mem: float, seed: float, token: str | None, stop: Flag
) -> Iterator[Findings | Loading]:
    """Explore, on the worker's thread or in a child.

    Raises:
        CramError: see `explore` and `load_model`.
    """
    lm = yield from SHELF.bring(model, "auto", token, stop)
    yield from explore(lm, text, config_of(model, num_mem, seed), stop=stop.is_set)


def show(known: Findings) -> tuple[str, Values]:
    """The status line, the charts and the numbers."""
    return status_html(known), (*(make(known) for *_, make in CHARTS), figures.numbers_html(known))


def status_html(known: Findings) -> str:
    """Which stage it is, and how far."""
    solved = f"{figures.listed(known.solved)} of {known.num_tokens}"
    cells = [("step", f"{known.step} of at most {known.most_steps}"), ("tokens solved", solved)]
    if known.stage not in STAGES:
        words = ENDED.get(known.training, "") if known.stage == "done" else ""
        return status_line("done", f"{HEADS[known.stage]}{words}.", cells, 1.0 if known.stage == "done" else 0.0)
    stage = STAGES.index(known.stage)
    low, high = STARTS[stage : stage + 2]
    cells.insert(0, ("stage", f"{stage + 1} of {len(STAGES)}"))
    return status_line("running", HEADS[known.stage], cells, low + (high - low) * _share(known))


def _share(known: Findings) -> float:
    """How much of its stage is done."""
    land = known.landscape
    shares = {
        "training": sum(known.solved) / (known.num_tokens * len(known.seeds)),
        "vectors": len(known.decoded) / len(known.seeds),
        "lines": len(known.lines) / NUM_SEEDS,
        "landscape": len(land.accuracy) / len(land.y) if land else 0.0,
    }
    return shares[known.stage]


def tab(queue_limit: int | None) -> None:
    """Lay out the tab and connect it."""
    with gr.Column(elem_classes="cd-geometry cd-left"):
        with gr.Row(elem_classes="cd-columns"):
            with gr.Column(scale=5, min_width=320, elem_classes="cd-left"):
                inputs, parts = _form()
            with gr.Column(scale=7, min_width=320, elem_classes="cd-right"):
                parts.status.render()
                charts = [_chart(0)]
        numbers = gr.HTML(
            figures.numbers_html(None), apply_default_css=False, elem_id=f"{TASK}-numbers", elem_classes="cd-flat"
        )
        for first in range(1, len(CHARTS), 2):
            with gr.Row(elem_classes="cd-columns"):
                for number in range(first, first + 2):
                    with gr.Column(scale=1, min_width=320):
                        charts.append(_chart(number))
    experiment = Experiment(TASK, inputs, [*charts, numbers], check, run, show, BLANKS)
    connect(experiment, parts, queue_limit)


def _chart(number: int) -> gr.HTML:
    name, title, empty, height, _ = CHARTS[number]
    return chart(f"{TASK}-{name}", title, empty, height=height)


def _form() -> tuple[list[Any], Any]:
    text = gr.Textbox(
        TEXT,
        label="Your text",
        info="A sentence or two. The nearer to what the vectors hold at most, the more there is to see.",
        lines=4,
        max_lines=8,
        elem_id=f"{TASK}-text",
    )
    with gr.Row(elem_classes="cd-chips"):
        gr.HTML('<span class="cd-chips-label">Examples</span>', apply_default_css=False, elem_classes="cd-flat")
        for label, example in EXAMPLES.items():
            chip = gr.Button(label, size="sm", min_width=0, scale=0, elem_classes="cd-chip")
            chip.click(None, None, text, js=f"() => {json.dumps(example)}", **STREAMED)
    most = min(MOST_MEM, server_settings().max_mem)
    num_mem = gr.Slider(
        1,
        max(most, 2),  # a slider needs somewhere to slide to
        1,
        step=1,
        label="Memory tokens, K",
        info="Input vectors that the text is crammed into.",
        elem_id=f"{TASK}-num-mem",
    )
    with gr.Row():
        model = model_choice(f"{TASK}-model", filterable=False, min_width=160)
        seed = gr.Number(
            0,
            label="First of three seeds",
            precision=0,
            minimum=0,
            maximum=MAX_SEED - NUM_SEEDS,
            min_width=120,
            elem_id=f"{TASK}-seed",
        )
    parts = controls(TASK, f"Explore {plural(NUM_SEEDS, 'solution')}", IDLE)
    gr.HTML(NOTE, apply_default_css=False, elem_classes="cd-flat")
    return [text, model, num_mem, seed], parts
