"""The Laws tab: many short texts in one vector each, and the bits that such a vector holds whatever the text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from statistics import mean
from typing import Any

import gradio as gr

from cramdemo.catalogue import published_gains
from cramdemo.entropy import (
    KINDS,
    LENGTHS,
    MOST_OWN,
    NUM_MEM,
    PROSE,
    REPEATED,
    SECONDS,
    STEPS,
    TEXTS_A_LENGTH,
    WORDS,
    Measured,
    Point,
    measure,
    paragraphs,
    sample_texts,
)
from cramdemo.errors import plural
from cramdemo.settings import server_settings
from cramdemo.ui.chart import BLANK, COLOURS, axis, chart, dots, figure, line
from cramdemo.ui.count import check_characters
from cramdemo.ui.experiment import Experiment, Values, connect, controls
from cramdemo.ui.jobs import Flag
from cramdemo.ui.live import clock, status_line
from cramdemo.ui.offer import check_can_run, entry_of
from cramdemo.ui.picker import model_choice
from cramdemo.ui.shelf import SHELF, Loading

TASK = "laws"
OURS = (PROSE, WORDS, REPEATED)
IDLE = (
    f"Ready. {len(OURS) * TEXTS_A_LENGTH * len(LENGTHS)} texts will be crammed side by side, one vector each; on "
    "cram-mini it takes about 20 seconds, on a slow machine at most 50."
)
HEADS = {
    "training": "Cramming all texts",
    "done": "Done",
    "stopped": "Stopped; what was reached by then is shown",
    "seconds": "The time was used up; what was reached by then is shown",
}
LAW_TITLE, KINDS_TITLE = "What a text costs with a vector in front", "Tokens differ, bits agree"
LAW_EMPTY = (
    "Each text will be a point here: to the right what it costs the bare model, upwards what it still costs with its "
    "vector in front. Texts that fit lie on the floor; the others along one line."
)
KINDS_EMPTY = "Texts that are too much for one vector: how many of their tokens are right, how many bits it saved."
NOTE = """
<section class="cd-panel laws-note" aria-label="What the law says"><h3>What the law says</h3>
<p>A text of N tokens costs the bare model H_LM bits: tokens that it could guess cost little, surprising ones much. One
vector takes away at most about C_H bits: H_LM+mem = max(0, H_LM − C_H). So prose fits where as many random words do
not, and a long text that repeats itself fits best. It is not length that limits a vector, but surprise.</p>
<p>All counts are teacher-forced, over tokens 2 to N: nothing is decoded here.</p></section>
"""
BEYOND = 1.15  # times C_H; less is scatter
LAW_HEIGHT, KINDS_HEIGHT = 380, 300
CSS = """
.laws-note p { margin-top: 6px; font-size: 13.5px; line-height: 1.55; color: var(--cd-muted); }
.laws-paper { max-height: 300px; overflow-y: auto; }
.laws-paper table { width: 100%; border-collapse: collapse; margin-top: 6px; font-size: 13.5px; }
.laws-paper th, .laws-paper td { padding: 4px 0; border-top: 1px solid var(--cd-line); text-align: left;
  color: var(--cd-ink); font-weight: 400; font-variant-numeric: tabular-nums; }
.laws-paper td, .laws-paper thead th:last-child { text-align: right; }
.laws-paper thead th { color: var(--cd-muted); border-top: 0; }
#laws-status .cd-status { min-height: 119px; }
#laws-law .cd-aside, #laws-kinds .cd-aside { min-height: 54px; }
#laws-law h3, #laws-kinds h3 { min-height: 40px; }
@media (max-width: 640px) {
  #laws-status .cd-status { min-height: 212px; }
  #laws-law h3, #laws-kinds h3 { min-height: 80px; }
  #laws-law .cd-aside, #laws-kinds .cd-aside { min-height: 91px; }
}
"""


def check(own: str, model: str, seed: float, token: str | None) -> None:
    """Refuse what cannot be run, as far as it can be told without loading the model.

    Raises:
        CramError: which says why.
    """
    check_characters(own)
    count = len(OURS) * TEXTS_A_LENGTH + len(paragraphs(own))
    check_can_run(entry_of(model), count * LENGTHS[-1], NUM_MEM, token)
    if lm := SHELF.peek(model):
        sample_texts(lm, own, int(seed or 0))


def run(own: str, model: str, seed: float, token: str | None, stop: Flag) -> Iterator[tuple[str, Measured] | Loading]:
    """Measure, on the worker's thread or in a child.

    Raises:
        CramError: see `measure`, `sample_texts` and `load_model`.
    """
    lm = yield from SHELF.bring(model, "auto", token, stop)
    texts = sample_texts(lm, own, int(seed or 0))
    settings = server_settings()
    steps, seconds = min(STEPS, settings.max_steps), min(SECONDS, settings.max_seconds or SECONDS)
    for known in measure(lm, texts, steps=steps, seconds=seconds, seed=int(seed or 0), stop=stop.is_set):
        yield entry_of(model).label, known


def show(state: tuple[str, Measured]) -> tuple[str, Values]:
    """The status line and both charts."""
    model, known = state
    return status_html(known), (law_value(model, known), kinds_value(known))


def status_html(known: Measured) -> str:
    """How far it is."""
    held = sum(point.held for point in known.points)
    cells = [
        ("step", f"{known.step} of {known.most_steps}"),
        ("texts that fit", f"{held} of {len(known.points)}"),
        ("C_H, fitted", _bits(known.capacity)),
        ("seconds", f"{known.seconds:.0f}"),
    ]
    if known.stage == "training" and known.step:
        left = known.seconds / known.step * (known.most_steps - known.step)
        cells[-1] = ("about left", clock(left))
    kind = "running" if known.stage == "training" else "done"
    return status_line(kind, HEADS[known.stage], cells, known.step / known.most_steps)


def _bits(bits: float | None) -> str:
    return "…" if bits is None else f"{bits:,.0f} bits"


def law_value(model: str, known: Measured) -> dict[str, str]:
    """The scatter with the fitted law."""
    traces = [_scatter(kind, [p for p in known.points if p.kind == kind]) for kind in _kinds(known.points)]
    right = max(point.h_lm for point in known.points)
    if known.capacity is not None:
        corner = min(known.capacity, right)
        law = {"x": [0, corner, right], "y": [0, 0, max(0.0, right - known.capacity)]}
        traces.append(line("max(0, H_LM − C_H)", 4, hoverinfo="skip", **law))
    traces.append(line("nothing saved", 1, x=[0, right], y=[0, right], hoverinfo="skip") | {"line": _FAINT})
    title = law_title(model, known)
    layout = {
        "xaxis": axis("H_LM: bits under the bare model, tokens 2 to N", rangemode="tozero"),
        "yaxis": axis("bits with [mem], the same tokens", rangemode="tozero"),
    }
    aside = "One point a text. On the floor: all its surprise is in the vector. On the dotted line: none of it."
    aside += _beyond(known)
    return {"f": figure(title, traces, layout, aside=aside), "d": "", "a": title}


_FAINT = {"color": "--cd-muted", "dash": "dot", "width": 1}


def law_title(model: str, known: Measured) -> str:
    """The finding in a sentence."""
    held = sum(point.held for point in known.points)
    if held == len(known.points):
        return f"Every text fits into one vector of {model}"
    if known.capacity is None:
        return f"{held} of {plural(len(known.points), 'text')} fit into one vector of {model}"
    if known.capacity <= 0:
        return "The vectors save no bits yet"
    when = "" if known.stage == "done" else " so far"
    return f"One vector of {model} holds about {known.capacity:,.0f} bits{when}"


def _beyond(known: Measured) -> str:
    """Which kinds gain much more than the law allows, in a sentence; "" if none does."""
    most = BEYOND * (known.capacity or math.inf)
    kinds = [kind for kind in _kinds(known.points) if any(p.gain > most for p in known.points if p.kind == kind)]
    if not kinds:
        return ""
    why = " A repetition is told shortly, but the bare model does not expect it." if REPEATED in kinds else ""
    return f" Beyond the law by more than {100 * (BEYOND - 1):.0f} %: {' and '.join(kinds)}.{why}"


def _kinds(points: Sequence[Point]) -> list[str]:
    return [kind for kind in KINDS if any(point.kind == kind for point in points)]


def _scatter(kind: str, points: Sequence[Point]) -> dict[str, Any]:
    words = [
        f"{kind}, {p.num_tokens} tokens: {p.solved} right<br>{p.h_lm:,.0f} bits bare, {p.h_mem:,.0f} with [mem]"
        for p in points
    ]
    places = {"x": [round(p.h_lm, 2) for p in points], "y": [round(p.h_mem, 2) for p in points]}
    return dots(kind, KINDS.index(kind), text=words, hovertemplate="%{text}<extra></extra>", cliponaxis=False, **places)


def kinds_value(known: Measured) -> dict[str, str]:
    """Of the texts that do not fit: tokens that are right, and bits that the vector saved, by kind."""
    left = [point for point in known.points if not point.held]  # what fits saves what it costs, not what could be held
    traces = []
    for number, (name, measured) in enumerate((("tokens", _solved), ("bits", _gain)), start=1):
        for kind in _kinds(left):
            values = [measured(point) for point in left if point.kind == kind]
            place = {"xaxis": f"x{number}", "yaxis": f"y{number}", "showlegend": False}
            hover = f"{kind}: %{{y:,.0f}} {name}<extra></extra>"
            cloud = {"x": [kind] * len(values), "y": values, "hovertemplate": hover}
            traces.append(dots(f"{kind}, {name}", KINDS.index(kind), **cloud, **place))
            traces.append(_mean_mark(kind, mean(values), name) | place)
    layout = {
        "xaxis": {"domain": [0, 0.44], "type": "category"},
        "yaxis": {"rangemode": "tozero"},
        "xaxis2": {"domain": [0.56, 1], "type": "category", "anchor": "y2"},
        "yaxis2": {"rangemode": "tozero", "anchor": "x2"},
        "annotations": [_heading("tokens right", 0.22), _heading("bits saved", 0.78)],
    }
    title = kinds_title(left)
    aside = "Texts that do not fit: under 99 % of tokens right, teacher-forced. Bits: information gain. Bars are means."
    return {"f": figure(title, traces or [dots("none", x=[], y=[])], layout, aside=aside), "d": "", "a": title}


def _heading(words: str, at: float) -> dict[str, Any]:
    place = {"x": at, "y": 1.02, "xref": "paper", "yref": "paper", "xanchor": "center", "yanchor": "bottom"}
    return {"text": words, "showarrow": False, "font": {"color": "--cd-ink", "size": 13}, **place}


def _solved(point: Point) -> float:
    return point.solved


def _gain(point: Point) -> float:
    return round(point.gain, 1)


def _mean_mark(kind: str, value: float, name: str) -> dict[str, Any]:
    style = {"symbol": "line-ew-open", "size": 26, "color": COLOURS[KINDS.index(kind)], "line": {"width": 3}}
    hover = f"{kind}, mean: %{{y:,.0f}} {name}<extra></extra>"
    return {
        "type": "scatter",
        "mode": "markers",
        "name": f"{kind}, mean {name}",
        "x": [kind],
        "y": [round(value, 1)],
        "marker": style,
        "hovertemplate": hover,
    }


def kinds_title(left: Sequence[Point]) -> str:
    """By how much the means of kinds differ, in tokens and in bits."""
    kinds = _kinds(left)
    if len(kinds) < 2:
        return "Too few kinds of text are too much for one vector to compare them"
    tokens, bits = (
        [mean(measured(p) for p in left if p.kind == kind) for kind in kinds] for measured in (_solved, _gain)
    )
    if min(*tokens, *bits) <= 0:
        return "Some kinds have no tokens right or no bits saved yet"
    times_tokens, times_bits = (max(values) / min(values) for values in (tokens, bits))
    return f"Between kinds, tokens differ {times_tokens:.1f}-fold, bits {times_bits:.1f}-fold"


def paper_html() -> str:
    """C_H of the paper's models."""
    rows = "".join(
        f"<tr><th scope='row'>{escape(name)}</th><td>{bits:,.0f}</td></tr>" for name, bits in published_gains().items()
    )
    return (
        '<section class="cd-panel laws-paper" tabindex="0" aria-label="C_H of the paper’s models">'
        '<h3>C_H of the paper’s models, bits</h3><p class="cd-aside">Mean information gain of one vector on PG-19 '
        "(arXiv 2502.13063, Table 1, there in nats; divided by ln 2).</p>"
        "<table><thead><tr><th scope='col'>model</th><th scope='col'>bits</th></tr>"
        f"</thead><tbody>{rows}</tbody></table></section>"
    )


def tab(queue_limit: int | None) -> None:
    """Lay out the tab and connect it."""
    with gr.Row(elem_classes="cd-columns"):
        with gr.Column(scale=5, min_width=320, elem_classes="cd-left"):
            inputs, parts = _form()
        with gr.Column(scale=7, min_width=320, elem_classes="cd-right"):
            parts.status.render()
            law = chart(f"{TASK}-law", LAW_TITLE, LAW_EMPTY, height=LAW_HEIGHT)
            kinds = chart(f"{TASK}-kinds", KINDS_TITLE, KINDS_EMPTY, height=KINDS_HEIGHT)
    blank = (dict(BLANK), dict(BLANK))
    connect(Experiment(TASK, inputs, [law, kinds], check, run, show, blank), parts, queue_limit)


def _form() -> tuple[list[Any], Any]:
    own = gr.Textbox(
        "",
        label="Texts of your own, if you like",
        info=f"At most {MOST_OWN}, parted by blank lines, each of at least {LENGTHS[0]} tokens; cut to at most "
        f"{LENGTHS[-1]}.",
        lines=4,
        max_lines=10,
        placeholder="Leave it empty for prose, random words and repeated text of ours",
        elem_id=f"{TASK}-own",
    )
    with gr.Row():
        model = model_choice(f"{TASK}-model", filterable=False, min_width=160)
        seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=10**6, min_width=120, elem_id=f"{TASK}-seed")
    parts = controls(TASK, "Measure the law", IDLE)
    gr.HTML(NOTE, apply_default_css=False, elem_classes="cd-flat")
    gr.HTML(paper_html(), apply_default_css=False, elem_classes="cd-flat")
    return [own, model, seed], parts
