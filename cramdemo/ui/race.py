"""The Race tab: the published recipes and ours on one text, and a bet on who is lossless first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import Any

import gradio as gr

from cramdemo.catalogue import BUILT_IN
from cramdemo.config import MAX_SEED, CramConfig
from cramdemo.cram import check_length
from cramdemo.errors import plural
from cramdemo.race import (
    ENCODER,
    KEYS,
    NUM_MEM,
    OURS,
    PAPER,
    PROGRESSIVE,
    RACE_SECONDS,
    Lane,
    Race,
    Written,
    race,
)
from cramdemo.ui.chart import BLANK, axis, chart, dots, figure, line
from cramdemo.ui.count import check_characters
from cramdemo.ui.experiment import QUICK, Experiment, Values, connect, controls
from cramdemo.ui.jobs import Flag
from cramdemo.ui.live import clock, status_line
from cramdemo.ui.offer import check_can_run, entry_of
from cramdemo.ui.picker import guessed_tokens, model_choice
from cramdemo.ui.shelf import SHELF, Loading
from cramdemo.ui.theme import PAPER as PAPER_LINK
from cramdemo.ui.tokens import visible

TASK = "race"
EXAMPLE = (
    "It was late when we came to the village. The lamps were out, the dogs were asleep, and only the river was still "
    "talking to itself. Nobody had told us where the inn was, and nobody would. We sat down by the bridge and waited "
    "for the day."
)
PAPER_CODE = "https://github.com/yurakuratov/hidden_capacity"
PROGRESSIVE_CODE = "https://github.com/FusionBrainLab/progressive_cramming"
NAMES = {
    PAPER: "Cramming, as published",
    PROGRESSIVE: "Progressive, as published",
    OURS: "Ours, random start",
    ENCODER: "Ours, encoder start",
}
ABOUT = {
    PAPER: "the whole text at once, from a random vector",
    PROGRESSIVE: "one more token at each exact match, from a random vector",
    OURS: "this program’s default, from a random vector",
    ENCODER: "the same, from the memory encoder’s vector",
}
NO_BET, NOBODY = "", "nobody"
PLACES = ("1st", "2nd", "3rd", "4th")
GIGA = 1e9
IDLE = (
    f"Ready. The race takes at most about {RACE_SECONDS:.0f} seconds, and is over sooner if all are lossless. Stop "
    "ends it for all and keeps what is there."
)
CHART_HEIGHT = 330
CHART_TITLE = "Tokens right against FLOPs spent"
CHART_EMPTY = (
    "One curve a recipe will be drawn here: the share of the text’s tokens that the model gets right, against the "
    "floating-point operations spent. Drag to zoom, double-click to go back."
)
DEFINITIONS = (
    "Solved: right when the true tokens before it are given (teacher-forced), with the best vector so far; for "
    "progressive the longest prefix that was exact. GFLOP: a billion floating-point operations, counted alike for all, "
    "with the encoder and the final decoding. Lossless: greedy decoding from the vector alone gave back all N tokens."
)
HONEST = f"""
<section class="cd-panel race-fair" aria-label="How fair it is"><h3>How fair it is</h3><ul>
<li>Published recipes run with their published settings:
<a href="{PAPER_LINK}" target="_blank" rel="noopener noreferrer">cramming, arXiv 2502.13063</a>
(<a href="{PAPER_CODE}" target="_blank" rel="noopener noreferrer">code</a>), and
<a href="{PROGRESSIVE_CODE}" target="_blank" rel="noopener noreferrer">progressive cramming, ICML 2026</a>. Both are
written anew here; their schedules are meant for 5,000 and 10,000 steps, and the budget ends sooner.</li>
<li>All have one memory token, the same seed, the same number format and the same budget of FLOPs. Whoever has spent
least goes next.</li>
<li>The cramming paper’s code does not train token 0. Here all N tokens count, for all.</li>
<li>cram-mini was trained to read memory vectors, which helps every recipe; an ordinary model of its size holds far
fewer tokens.</li>
</ul></section>
"""
CSS = """
.race-lanes { display: grid; gap: 14px; margin-top: 10px !important; }
.race-lane { display: grid; grid-template-columns: 1fr auto; gap: 2px 12px; align-items: baseline;
  font-variant-numeric: tabular-nums; }
.race-name { font-size: 15px; font-weight: 600; color: var(--cd-ink); }
.race-count { font-size: 15px; font-weight: 600; color: var(--cd-ink); text-align: right; }
.race-track { grid-column: 1 / -1; height: 14px; border-radius: 4px; overflow: hidden; background: var(--cd-sunk);
  border: 1px solid var(--cd-line); }
.race-track i { display: block; height: 100%; background: var(--race-colour); }
.race-lane[data-key="progressive"] .race-track i, .race-lane[data-key="encoder"] .race-track i {
  background-image: repeating-linear-gradient(115deg, transparent 0 7px, rgb(255 255 255 / .28) 7px 10px); }
.race-lane[data-key="cramming"] { --race-colour: var(--cd-warm); }
.race-lane[data-key="progressive"] { --race-colour: var(--cd-violet); }
.race-lane[data-key="ours"] { --race-colour: var(--cd-blue); }
.race-lane[data-key="encoder"] { --race-colour: var(--cd-accent); }
.race-line { grid-column: 1 / -1; font-size: 12.5px; line-height: 1.5; color: var(--cd-muted); min-height: 19px; }
.race-line b { color: var(--cd-ink); font-weight: 600; }
.race-panel .cd-aside { margin-top: 10px; }
#race-status .cd-status { min-height: 118px; }
.race-verdict { min-height: 204px; }
.race-verdict ul { margin: 8px 0 0; padding: 0; list-style: none; font-size: 13.5px; line-height: 1.6;
  color: var(--cd-muted); font-variant-numeric: tabular-nums; }
.race-verdict li b { color: var(--cd-ink); font-weight: 600; }
#race-curves .cd-aside { min-height: 18px; }
#race-curves h3 { min-height: 25px; }
.race-fair ul { margin: 8px 0 0; padding-left: 18px; display: grid; gap: 6px; font-size: 13px; line-height: 1.5;
  color: var(--cd-muted); list-style: disc; }
.race-fair a { color: var(--cd-accent); text-decoration: underline; text-underline-offset: 2px; }
.race-seed { min-height: 322px; }
.race-seed .cd-title { font-size: 14px; color: var(--cd-ink); }
.race-two { display: grid; grid-template-columns: repeat(auto-fit, minmax(230px, 1fr)); gap: 14px 22px;
  margin-top: 10px; }
.race-two h4 { margin: 0; font-size: 13.5px; font-weight: 600; color: var(--cd-ink); }
.race-text { margin: 4px 0 0 !important; font: 16px/1.8 var(--cd-serif); color: var(--cd-ink); white-space: pre-wrap;
  overflow-wrap: anywhere; }
.race-text mark { background: none; color: var(--cd-muted); text-decoration: underline wavy var(--cd-warm) 1.5px;
  text-underline-offset: 4px; text-decoration-skip-ink: none; }
.race-text mark small { display: inline-block; margin-right: 3px; padding: 0 4px; border-radius: 4px;
  font: 600 10.5px/1.5 ui-sans-serif, system-ui, sans-serif; letter-spacing: .03em; text-decoration: none;
  background: var(--cd-warm-soft); color: var(--cd-warm); }
@media (max-width: 720px) {
  #race-status .cd-status { min-height: 168px; }
  .race-name, .race-count { font-size: 13.5px; }
  .race-line { min-height: 38px; }
  .race-about, .race-unit { display: none; }
  .race-verdict { min-height: 330px; }
  #race-curves .cd-aside { min-height: 36px; }
  #race-curves h3 { min-height: 60px; }
  .race-seed { min-height: 600px; }
}
"""


@dataclass(frozen=True)
class Watched:
    """A race and the bet of who watches it: one of `KEYS`, `NOBODY` or `NO_BET`."""

    race: Race
    bet: str


def check(text: str, model: str, bet: str, seed: float | None, token: str | None) -> None:
    """Refuse what cannot be raced.

    Raises:
        CramError: the text is empty or too long, the seed is none, or the model cannot run here.
    """
    check_characters(text)
    CramConfig(seed=_whole(seed))
    lm = SHELF.peek(model)
    num_tokens = len(lm.tokenize(text)) if lm else guessed_tokens(len(text))
    check_can_run(entry_of(model), num_tokens, NUM_MEM, token)
    if lm:  # not in memory yet: the race itself will check
        check_length(lm, num_tokens, NUM_MEM)


def run(  # noqa: PLR0917  # in the order of the widgets
    text: str, model: str, bet: str, seed: float | None, token: str | None, stop: Flag
) -> Iterator[Watched | Loading]:
    """Race, on the worker's thread or in a child.

    Raises:
        CramError: see `race` and `load_model`.
    """
    lm = yield from SHELF.bring(model, "auto", token, stop)
    for state in race(lm, text, seed=_whole(seed), stop=stop.is_set):
        yield Watched(state, bet)


def _whole(seed: float | None) -> int:
    return int(seed or 0)


def show(watched: Watched) -> tuple[str, Values]:
    """The status line; lanes, verdict, curves and the two texts."""
    state = watched.race
    return _status(state), (lanes_html(state), verdict_html(watched), curves_value(state), seed_html(state))


def _status(state: Race) -> str:
    if not state.budget:
        return status_line("waiting", "Measuring for two seconds how fast each recipe runs here")
    done = [lane for lane in state.lanes if lane.lossless]
    cells = [
        ("spent by each, at most", f"{_giga(max(lane.flops for lane in state.lanes))} of {_giga(state.budget)} GFLOPs"),
        ("lossless", f"{len(done)} of {len(state.lanes)}"),
        ("seconds", f"{state.seconds:.0f}"),
    ]
    share = sum(1.0 if lane.ended else min(1.0, lane.flops / state.budget) for lane in state.lanes) / len(state.lanes)
    if state.ended:
        return status_line("done", _ENDINGS[state.ended], cells, share)
    return status_line("running", _leading(state), [*cells, ("at most left", clock(_seconds_left(state)))], share)


_ENDINGS = {
    "finished": "The race is over",
    "stopped": "Stopped for all at about the same FLOPs; what they have found is kept",
    "seconds": "The time was used up; all were stopped at about the same FLOPs",
}


def _leading(state: Race) -> str:
    if state.winner is None:
        return "Racing: nobody is lossless yet"
    return f"{NAMES[state.winner.key]}: lossless first. The others go on"


def _seconds_left(state: Race) -> float | None:
    """As if FLOPs went on to take as long, and nobody else was lossless."""
    spent = sum(lane.flops for lane in state.lanes)
    left = sum(max(0, state.budget - lane.flops) for lane in state.lanes if not lane.ended)
    return state.seconds * left / spent if spent else None


def _giga(flops: float) -> str:
    return f"{flops / GIGA:,.0f}"


def lanes_html(state: Race | None) -> str:
    """One bar a recipe; before any race too, so that nothing moves when one starts."""
    lanes = state.lanes if state else tuple(Lane(key) for key in KEYS)
    num_tokens = state.num_tokens if state else 0
    order = sorted((lane.flops, lane.key) for lane in lanes if lane.lossless)
    places = {key: place for (_, key), place in zip(order, PLACES, strict=False)}
    rows = "".join(_lane_html(lane, num_tokens, places.get(lane.key, "")) for lane in lanes)
    return (
        f'<section class="cd-panel race-panel" aria-label="The lanes"><h3>Tokens of your text solved, by recipe</h3>'
        f'<div class="race-lanes">{rows}</div><p class="cd-aside">{DEFINITIONS}</p></section>'
    )


def _lane_html(lane: Lane, num_tokens: int, place: str) -> str:
    name, share = NAMES[lane.key], 100 * lane.solved / num_tokens if num_tokens else 0
    unit = "in a row" if lane.key == PROGRESSIVE else "solved"
    count = f'{lane.solved} of {num_tokens} <span class="race-unit">{unit}</span>' if num_tokens else ""
    return (
        f'<div class="race-lane" data-key="{lane.key}"><span class="race-name">{name}</span>'
        f'<span class="race-count">{count}</span>'
        f'<div class="race-track" role="progressbar" aria-label="{name}: tokens {unit}" aria-valuemin="0" '
        f'aria-valuemax="{num_tokens or 1}" aria-valuenow="{lane.solved}"><i style="width:{share:.1f}%"></i></div>'
        f'<span class="race-line">{_lane_words(lane, num_tokens, place)}</span></div>'
    )


def _lane_words(lane: Lane, num_tokens: int, place: str) -> str:
    spent = f"{_giga(lane.flops)} GFLOPs"
    if lane.lossless:
        return f"<b>LOSSLESS, {place}</b> · {spent} · {plural(lane.steps, 'step')}"
    if lane.ended:
        decoded = f"decodes to {lane.decoded} of {num_tokens}"
        return f"<b>Stopped at {lane.steps:,} of {plural(lane.most_steps, 'step')}</b> · {spent} · {decoded}"
    if not lane.flops:
        return ABOUT[lane.key]
    about = f'<span class="race-about">{ABOUT[lane.key]} · </span>'
    return f"{about}step {lane.steps:,} of {lane.most_steps:,} · {spent}"


def verdict_html(watched: Watched | None) -> str:
    """Who was lossless first, and whether the bet was right; before that, what will stand here."""
    state = watched.race if watched else None
    if watched is None or state is None or not (state.winner or state.ended):
        bet = f"Your bet: {_bet_words(watched.bet)}. " if watched and watched.bet else ""
        return (
            f'<div class="cd-panel race-verdict"><h3>Verdict</h3><p class="cd-empty">{bet}Who is lossless first will '
            "stand here, what the others needed for it, and whether you have won your bet.</p></div>"
        )
    winner = state.winner
    kind = "lossless" if winner else "partial"
    if winner:
        claim = f"{NAMES[winner.key]}: lossless first, after {_giga(winner.flops)} GFLOPs."
    else:
        claim = f"Nobody was lossless within {_giga(max(lane.flops for lane in state.lanes))} GFLOPs."
    others = "".join(_beside(lane, winner, state.num_tokens) for lane in state.lanes if lane is not winner)
    return (
        f'<section class="cd-card race-verdict" data-kind="{kind}" aria-label="Verdict"><header>'
        f'<span class="cd-badge">{_bet_badge(watched)}</span><p class="cd-claim" role="status">{claim}</p></header>'
        f'<p class="cd-proof">{_bet_sentence(watched)}</p><ul>{others}</ul></section>'
    )


def _bet_words(bet: str) -> str:
    return "nobody within the budget" if bet == NOBODY else NAMES[bet]


def _bet_won(watched: Watched) -> bool | None:
    """None where there was no bet, or the race was stopped before it was decided."""
    state, winner = watched.race, watched.race.winner
    if not watched.bet or (winner is None and state.ended == "stopped"):
        return None
    return watched.bet == (winner.key if winner else NOBODY)


def _bet_badge(watched: Watched) -> str:
    return {True: "YOU WIN", False: "YOU LOSE", None: "NO BET"}[_bet_won(watched)]


def _bet_sentence(watched: Watched) -> str:
    if not watched.bet:
        return "Next time, bet on one before the start."
    ends = {True: "and you were right", False: "and you were wrong", None: "and it was stopped before that was decided"}
    return f"You bet on “{_bet_words(watched.bet)}”, {ends[_bet_won(watched)]}."


def _beside(lane: Lane, winner: Lane | None, num_tokens: int) -> str:
    """A line on a recipe that did not win."""
    if lane.lossless and winner:
        words = f"lossless too, for {lane.flops / winner.flops:.1f} times the FLOPs"
    elif lane.ended:
        words = f"stopped at {lane.steps:,} of {lane.most_steps:,} steps, {lane.decoded} of {num_tokens} decoded"
    else:
        words = "still running"
    return f"<li><b>{NAMES[lane.key]}</b>: {words}</li>"


def curves_value(state: Race) -> dict[str, str]:
    """What the chart shows."""
    if not state.curve:
        return dict(BLANK)
    said = "; ".join(f"{NAMES[lane.key]}: {lane.solved} of {state.num_tokens} solved" for lane in state.lanes)
    return {"f": _figure(state), "d": state.curve, "a": said}


def _figure(state: Race) -> str:
    numbers = {PAPER: 1, PROGRESSIVE: 3, OURS: 2, ENCODER: 0}  # of colour and dash
    hover = "%{y:.0%} right after %{x:,.1f} GFLOPs"
    traces = [
        line(NAMES[lane.key], numbers[lane.key], hovertemplate=f"{NAMES[lane.key]}: {hover}<extra></extra>")
        for lane in state.lanes
    ]
    done = [lane for lane in state.lanes if lane.lossless]
    traces.append(
        dots(
            "lossless",
            marker={"color": "--cd-ink", "symbol": "star", "size": 12},
            x=[round(lane.flops / GIGA, 3) for lane in done],
            y=[1.0 for _ in done],
            text=[NAMES[lane.key] for lane in done],
            hovertemplate="%{text}: lossless after %{x:,.1f} GFLOPs<extra></extra>",
            showlegend=bool(done),
        )
    )
    layout = {
        "xaxis": axis("GFLOPs spent by each recipe", rangemode="tozero"),
        "yaxis": axis("tokens right, teacher-forced", range=[0, 1.06], dtick=0.25, tickformat=".0%"),
    }
    aside = (
        f"Accuracy at each step, of all {plural(state.num_tokens, 'token')}; what is not trained yet counts as wrong."
    )
    return figure(_finding(state), traces, layout, fed=range(len(state.lanes)), aside=aside)


def _finding(state: Race) -> str:
    """The chart's title."""
    winner = state.winner
    return f"{NAMES[winner.key]}: lossless first, after {_giga(winner.flops)} GFLOPs" if winner else CHART_TITLE


def seed_html(state: Race | None) -> str:
    """What the encoder's vector decodes to beside the optimised one, or what will stand here."""
    if state is None or state.alone is None or state.optimised is None:
        return (
            f'<div class="cd-panel race-seed"><h3>×10 against ×1500</h3><p class="cd-empty">{_no_seed(state)}</p></div>'
        )
    alone, optimised = state.alone, state.optimised
    count = state.num_tokens
    title = (
        f"The encoder’s vector gives back {_leading_tokens(alone.prefix, count)} of {plural(count, 'token')}; "
        f"optimised, {_leading_tokens(optimised.prefix, count)}"
    )
    return (
        f'<section class="cd-panel race-seed" aria-label="Encoder against optimiser"><h3><span class="cd-title">{title}'
        f"</span></h3><p class='cd-aside'>{_SEED_ASIDE}</p><div class='race-two'>"
        f"{_written_html('The encoder’s vector, as it comes', alone)}"
        f"{_written_html('The same vector, optimised', optimised)}</div></section>"
    )


def _leading_tokens(prefix: int, count: int) -> str:
    return "all" if prefix == count else f"the first {prefix}" if prefix else "none"


_SEED_ASIDE = (
    "What the model writes by greedy decoding from one vector; after a wrong token it goes on from its own words. An "
    "encoder makes its vector in one pass, and such methods reach about 10 tokens a vector (×10). Optimising the "
    "vector for the one text reached about ×1500 with Llama-3.1-8B (arXiv 2502.13063): the room is there, the encoder "
    "does not find it."
)


def _no_seed(state: Race | None) -> str:
    if state is not None and state.ended and ENCODER not in {lane.key for lane in state.lanes}:
        return "This model has no memory encoder to set beside the optimised vector. cram-mini has one."
    return (
        "After a race on cram-mini two texts stand here side by side: what the model writes from its memory encoder’s "
        "vector alone, and from the same vector once it has been optimised for your text."
    )


def _written_html(title: str, found: Written) -> str:
    right = sum(found.right)
    pieces = [
        _piece("".join(text for _, text in group), right=is_right)
        for is_right, group in groupby(zip(found.right, found.texts, strict=True), key=lambda pair: pair[0])
    ]
    return (
        f'<div><h4>{title}</h4><p class="cd-aside">{right} of {plural(len(found.right), "token")} right, '
        f'the first {found.prefix} in a row</p><p class="race-text">{"".join(pieces)}</p></div>'
    )


def _piece(text: str, *, right: bool) -> str:
    shown = escape(visible(text))  # a wrong token may be any byte
    return shown if right else f"<mark><small>wrong</small>{shown}</mark>"


def bets(model: str) -> Any:
    """The choices of a bet: a model without an encoder has a lane less."""
    keys: Sequence[str] = KEYS if entry_of(model).local else KEYS[:-1]
    choices = [("No bet", NO_BET), *((NAMES[key], key) for key in keys), ("Nobody within the budget", NOBODY)]
    return gr.update(choices=choices, value=NO_BET)


def tab(queue_limit: int | None) -> None:
    """Lay out the tab and connect it."""
    with gr.Row(elem_classes="cd-columns"):
        with gr.Column(scale=5, min_width=320, elem_classes="cd-left"):
            text = gr.Textbox(
                EXAMPLE,
                label="The text to race for",
                lines=5,
                max_lines=10,
                elem_id="race-text",
                placeholder="Paste or type a text",
            )
            bet = gr.Radio(
                bets(BUILT_IN)["choices"],
                value=NO_BET,
                label="Who will be lossless first?",
                info="Bet before you start. All get the same budget of FLOPs.",
                elem_id="race-bet",
            )
            parts = controls(TASK, "Start the race", IDLE)
            with gr.Row():
                model = model_choice("race-model", min_width=180)
                seed = gr.Number(
                    0, label="Seed", precision=0, minimum=0, maximum=MAX_SEED, min_width=100, elem_id="race-seed-number"
                )
            gr.HTML(HONEST, apply_default_css=False, elem_classes="cd-flat")
        with gr.Column(scale=7, min_width=320, elem_classes="cd-right"):
            parts.status.render()  # type: ignore[no-untyped-call]
            lanes = _html(lanes_html(None), "race-lanes")
            verdict = _html(verdict_html(None), "race-verdict")
            curves = chart("race-curves", CHART_TITLE, CHART_EMPTY, height=CHART_HEIGHT)
            two = _html(seed_html(None), "race-two")
    experiment = Experiment(
        TASK,
        inputs=[text, model, bet, seed],
        outputs=[lanes, verdict, curves, two],
        check=check,
        run=run,
        show=show,
        blank=(lanes_html(None), verdict_html(None), dict(BLANK), seed_html(None)),
    )
    connect(experiment, parts, queue_limit)
    model.change(bets, model, bet, **QUICK)


def _html(value: str, elem_id: str) -> gr.HTML:
    return gr.HTML(value, apply_default_css=False, elem_id=elem_id, elem_classes="cd-flat")
