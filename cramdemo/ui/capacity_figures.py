"""What the Capacity tab draws and says of a `Capacity`: values of charts, and a card. Knows no widget but the chart."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import pairwise

from cramdemo.capacity import RULE_LENGTHS, Capacity, Growth
from cramdemo.catalogue import PAPER_LINE, PAPER_LINE_MODEL, PublishedPoint, published_points
from cramdemo.errors import plural
from cramdemo.metrics import CAPACITY_ACCURACY
from cramdemo.ui.chart import BLANK, axis, dots, figure, line

STEPS_TITLE = "Tokens held against steps"
BITS_TITLE = "Tokens held against bits"
VECTORS_TITLE = "Tokens held against vectors"
STANDING_TITLE = "Published: larger models hold more in one vector"
STEPS_EMPTY = (
    "One curve for each K will climb here: the longest beginning of the text that comes back exactly, against the "
    "steps spent. Drag to zoom, double-click to go back."
)
BITS_EMPTY = (
    "The same horizon will be drawn here against the bits that the vectors hold, beside what the same tokens cost the "
    "bare model."
)
VECTORS_EMPTY = (
    "One dot for each K will stand here, with a straight line fitted through them, beside the paper’s line for "
    f"{PAPER_LINE_MODEL}."
)
NO_CARD = (
    '<div class="cd-panel capacity-card"><h3>Result</h3><p class="cd-empty">Compression horizon, decoding capacity by '
    "the paper’s rule, information gain, theoretical capacity and utilisation of one vector will stand here, each with "
    "its definition.</p></div>"
)
STRAIGHT = 0.25  # of the tokens that a point may be off the line that is named in the title
_FIT_POINTS = (1, 2, 4, 8, 16)
_COST_POINTS = 150


def steps_value(state: Capacity) -> dict[str, str]:
    """Horizon against steps, live: a fed trace for each K, and one for what is only right under teacher forcing."""
    traces = [
        line(_vectors(k), i, line_shape="hv", hovertemplate=f"{_vectors(k)}: %{{y}} tokens exact at step %{{x:,}}")
        for i, k in enumerate(state.num_mems)
    ]
    tried = {"color": "--cd-muted", "symbol": "circle", "size": 3, "opacity": 0.6}
    hover = "%{y} leading tokens right, teacher-forced"
    traces.append(dots("tried now, teacher-forced", marker=tried, hovertemplate=hover))
    layout = {
        "xaxis": axis("steps, counted anew for each K", rangemode="tozero"),
        "yaxis": axis("tokens exact", rangemode="tozero"),
    }
    aside = "Lines: decoded exactly, by greedy decoding. Dots: leading tokens of the prefix in training that are right."
    points = "".join(_steps_rows(state, i, growth) for i, growth in enumerate(state.growths))
    if not points:
        return dict(BLANK)
    made = figure(_steps_finding(state), traces, layout, fed=range(len(traces)), aside=aside)
    return {"f": made, "d": points, "a": _said(state)}


def _steps_rows(state: Capacity, number: int, growth: Growth) -> str:
    before, after = "," * number, "," * (len(state.num_mems) - number)
    return "".join(f"{point.step},{before}{point.horizon}{after}{point.solved};" for point in growth.points)


def _steps_finding(state: Capacity) -> str:
    first = state.growths[0]
    if len(state.growths) > 1 and (last := state.growths[-1]).horizon > first.horizon:
        return f"One vector holds {plural(first.horizon, 'token')}, {last.num_mem} hold {last.horizon:,}"
    if not first.ended:
        return f"One vector holds {first.horizon:,} so far" if first.horizon else STEPS_TITLE
    return f"One vector holds {plural(first.horizon, 'token')}, and no more in these steps"


def bits_value(state: Capacity) -> dict[str, str]:
    """Horizon against information gain, live, beside what the same tokens cost the bare LM."""
    rows = [row for i, growth in enumerate(state.growths) for row in _bits_rows(state, i, growth)]
    if not rows:
        return dict(BLANK)
    traces = [
        line(
            _vectors(k),
            i,
            mode="lines+markers",
            hovertemplate=f"{_vectors(k)}: %{{y}} tokens exact, %{{x:,.0f}} bits gained",
        )
        for i, k in enumerate(state.num_mems)
    ]
    x, y = _cost_curve(state)
    cost = {"color": "--cd-muted", "dash": "dashdot", "width": 1.5}
    hover = "the first %{y} tokens cost the bare model %{x:,.0f} bits"
    traces.append(line("cost under the bare model", line=cost, x=x, y=y, hovertemplate=hover))
    layout = {
        "xaxis": axis("information gain, bits", rangemode="tozero"),
        "yaxis": axis("tokens exact", rangemode="tozero"),
    }
    aside = (
        "Gain: H_LM − H_LM+mem of the tokens held, tokens 2 on. Exact tokens give back nearly all they cost the bare "
        "model, so the curves lie close to the cost."
    )
    made = figure(_bits_finding(state), traces, layout, fed=range(len(state.num_mems)), aside=aside)
    return {"f": made, "d": "".join(rows), "a": _said(state)}


def _bits_rows(state: Capacity, number: int, growth: Growth) -> list[str]:
    """A row each time that the horizon moved."""
    before, after = "," * number, "," * (len(state.num_mems) - 1 - number)
    readings = [(point.horizon, point.gain_bits) for point in growth.points]
    moved = [new for old, new in pairwise([(0, 0.0), *readings]) if new[0] > old[0]]
    return [f"{gain:.1f},{before}{horizon}{after};" for horizon, gain in moved]


def _cost_curve(state: Capacity) -> tuple[list[float], list[int]]:
    """What the leading tokens cost, some way beyond the longest horizon."""
    held = max(growth.horizon for growth in state.growths)
    last = min(state.num_tokens, int(1.2 * held) + 1)
    tokens = sorted({round(1 + (last - 1) * i / _COST_POINTS) for i in range(_COST_POINTS + 1)})
    return [round(state.cost_bits[n - 1], 1) for n in tokens], tokens


def _bits_finding(state: Capacity) -> str:
    first = state.growths[0]
    return f"One vector holds {plural(first.horizon, 'token')}: {first.gain_bits:,.0f} bits"


def _said(state: Capacity) -> str:
    return "; ".join(f"{_vectors(g.num_mem)}: {plural(g.horizon, 'token')} exact" for g in state.growths)


def vectors_value(state: Capacity) -> dict[str, str]:
    """Horizon against K with the straight line through it, beside the paper's."""
    growths = [growth for growth in state.growths if growth.horizon]
    if not growths:
        return dict(BLANK)
    own = dots(
        f"{escape(_label(state))}, this text",
        x=[growth.num_mem for growth in growths],
        y=[growth.horizon for growth in growths],
        text=["all of the text, so at least" if growth.whole else "" for growth in growths],
        hovertemplate="K = %{x}: %{text} %{y:,} tokens",
    )
    paper = dots(
        f"{PAPER_LINE_MODEL}, the paper",
        1,
        mode="lines+markers",
        line={"color": "--cd-warm", "dash": "dot", "width": 2},
        x=[k for k, _ in PAPER_LINE],
        y=[tokens for _, tokens in PAPER_LINE],
        hovertemplate="K = %{x}: about %{y:,} tokens",
    )
    fit = state.fit
    traces = [own, paper]
    if fit is not None:
        x = [k for k in _FIT_POINTS if fit.at(k) > 0]
        style = {"x": x, "y": [round(fit.at(k), 1) for k in x], "hovertemplate": "fit, K = %{x}: %{y:,.0f} tokens"}
        traces.insert(1, line("straight line through them", 0, line={"color": "--cd-accent", "width": 1.5}, **style))
    layout = {
        "xaxis": axis("vectors, K", type="log", tickmode="array", tickvals=list(_FIT_POINTS)),
        "yaxis": axis("tokens exact", type="log", dtick=1),
    }
    made = figure(_vectors_finding(state), traces, layout, aside=_vectors_aside(state))
    return {"f": made, "d": "", "a": _said(state)}


def _vectors_finding(state: Capacity) -> str:
    fit = state.fit
    if fit is None:
        return f"One vector holds {plural(state.growths[0].horizon, 'token')}"
    if any(abs(fit.at(growth.num_mem) - growth.horizon) > STRAIGHT * growth.horizon for growth in state.fitted):
        return "Here tokens do not grow in a straight line with vectors"
    return f"Each further vector holds about {plural(round(fit.slope), 'token')} more"


def _vectors_aside(state: Capacity) -> str:
    fit = state.fit
    own = f"Fit by least squares: tokens = {fit.base:,.0f} + {fit.slope:,.1f} × K. " if fit else ""
    (k, tokens), (more, many) = PAPER_LINE
    return (
        f"{own}Paper (arXiv 2502.13063): {PAPER_LINE_MODEL}, K = {k}: {tokens} tokens, K = {more}: about {many:,}. "
        "Both axes are logarithmic, where a straight line is bent."
    )


def standing_value(state: Capacity | None, against: str) -> dict[str, str]:
    """Tokens in one vector against the model's size: all published figures, and this run's.

    Args:
        state: None before a run.
        against: "width" or "parameters".
    """
    points = published_points()
    cramming = [point for point in points if point.paper == "cramming"]
    plain = [point for point in points if point.paper == "progressive" and not point.variant]
    variants = [point for point in points if point.variant]
    traces = [
        _published("cramming: accuracy ≥ 0.99", 1, cramming, against),
        _published("progressive: exact prefix", 2, plain, against),
        _published("progressive, variants", 3, variants, against),
    ]
    if state is not None and state.growths and (held := state.growths[0].horizon):
        size = state.hidden_size if against == "width" else state.parameters
        marker = {"color": "--cd-accent", "symbol": "star", "size": 15, "line": {"color": "--cd-ink", "width": 1}}
        hover = "%{text}: %{y:,} tokens exact"
        own = dots(
            "this run: exact prefix", marker=marker, x=[size], y=[held], text=[_label(state)], hovertemplate=hover
        )
        traces.append(own)
    words = "width, numbers a vector" if against == "width" else "parameters"
    layout = {
        "xaxis": axis(words, type="log", **_TICKS[against]),
        "yaxis": axis("tokens in one vector", type="log", dtick=1),
    }
    made = figure(_standing_finding(state, against), traces, layout, aside=_STANDING_ASIDE)
    return {"f": made, "d": "", "a": f"{len(points)} published figures"}


_STANDING_ASIDE = (
    "Cramming: arXiv 2502.13063, Table 1, PG-19, teacher-forced accuracy of at least 0.99. Progressive: ICML 2026, "
    "mean exact prefix on PG-19. Steps, texts and training differ from this run’s."
)
_TICKS = {
    "width": {"tickmode": "array", "tickvals": [640, 1024, 2048, 4096]},
    "parameters": {"tickmode": "array", "tickvals": [1e7, 1e8, 1e9, 1e10], "ticktext": ["10M", "100M", "1B", "10B"]},
}


def _published(name: str, number: int, points: Sequence[PublishedPoint], against: str) -> dict[str, object]:
    return dots(
        name,
        number,
        x=[point.hidden_size if against == "width" else point.parameters for point in points],
        y=[point.tokens for point in points],
        text=[f"{point.label}, {point.variant}" if point.variant else point.label for point in points],
        hovertemplate="%{text}: %{y:,.0f} tokens",
    )


def _standing_finding(state: Capacity | None, against: str) -> str:
    if state is None or not state.growths or not state.growths[0].horizon:
        return STANDING_TITLE
    size = f"width {state.hidden_size:,}" if against == "width" else f"{_millions(state.parameters)} parameters"
    return f"{_label(state)}: {plural(state.growths[0].horizon, 'token')} at {size}"


def _millions(parameters: int) -> str:
    return f"{parameters / 1e9:.1f} billion" if parameters >= 1e9 else f"{parameters / 1e6:.1f} million"


def card_html(state: Capacity | None) -> str:
    """The result: figures of one vector, each with its unit and definition."""
    if state is None or not state.growths or not state.growths[0].horizon:
        return NO_CARD
    one = state.growths[0]
    claim = f"{plural(one.horizon, 'token')} in one vector" + (", all of the text." if one.whole else ".")
    kind = "lossless" if one.ended and not one.whole else "partial"
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd><dd class='cd-why'>{escape(why)}</dd></div>"
        for name, value, why in _figures(state, one)
    )
    return (
        f'<section class="cd-card capacity-card" data-kind="{kind}" aria-label="Result"><header>'
        f'<span class="cd-badge">{_badge(state, one)}</span><p class="cd-claim" role="status">{claim}</p></header>'
        f'<p class="cd-proof">{escape(_beside_the_table(state, one))}</p><dl class="cd-figures">{cells}</dl></section>'
    )


def _badge(state: Capacity, one: Growth) -> str:
    if one.whole:
        return "AT LEAST"
    if not one.ended:
        return "SO FAR"
    return "AT LEAST" if state.stopped and len(state.growths) == 1 else "HORIZON"


def _beside_the_table(state: Capacity, one: Growth) -> str:
    """Where this stands among the exact prefixes that progressive cramming gives."""
    known = sorted(
        (p for p in published_points() if p.paper == "progressive" and not p.variant), key=lambda p: p.tokens
    )
    below = [point for point in known if point.tokens <= one.horizon]
    if one.whole:
        return "The text was too short to find the limit. Give a longer one."
    words = f"Models in progressive cramming’s table that hold as many or fewer: {len(below)} of {len(known)}"
    words += f", up to {below[-1].label} with {below[-1].tokens:,.0f} tokens." if below else "."
    trained = " cram-mini was trained to read memory vectors, the models of the papers were not."
    return words + (trained if state.model == "cram-mini" else "")


def _figures(state: Capacity, one: Growth) -> list[tuple[str, str, str]]:
    grid = ", ".join(f"{length}" for length in RULE_LENGTHS[:5])
    cost = state.cost_bits[one.horizon - 1]
    figures = [
        (
            "compression horizon",
            plural(one.horizon, "token"),
            "longest beginning of this text that greedy decoding gives back from one vector, every token compared",
        ),
        (
            "decoding capacity",
            _rule_words(state),
            f"by the paper’s rule: largest length of its grid ({grid}, …) with a teacher-forced accuracy of at least "
            f"{CAPACITY_ACCURACY}, token 1 not scored. Of this one text; the paper takes the mean of 50",
        ),
        (
            "information gain",
            f"{one.gain_bits:,.0f} bits",
            f"H_LM − H_LM+mem over the horizon, of its {cost:,.0f} bits under the bare model; tokens 2 to N",
        ),
        (
            "theoretical capacity",
            f"{one.theoretical:,.0f} tokens",
            "d × 16 / log2(V): if every bit of one 16-bit vector held text",
        ),
        (
            "utilisation",
            f"{one.utilisation:.1%}",
            f"token gain ({one.token_gain:+,}: right tokens with [mem] less without, over the horizon) over "
            "theoretical capacity. The paper: 5 to 28 %",
        ),
    ]
    last = state.growths[-1]
    if last.num_mem > 1 and last.horizon:
        more = f"longest exact beginning with K = {last.num_mem}: {last.horizon / last.num_mem:.1f} tokens a vector"
        figures.append((f"horizon of {last.num_mem} vectors", plural(last.horizon, "token"), more))
    return figures


def _rule_words(state: Capacity) -> str:
    if not state.decoding_capacity:
        return "below 8 tokens" if state.tried else "not yet"
    return f"{'' if not state.tried[-1].holds else 'at least '}{plural(state.decoding_capacity, 'token')}"


def _vectors(num_mem: int) -> str:
    return f"K = {num_mem}"


def _label(state: Capacity) -> str:
    return state.model.rpartition("/")[2]
