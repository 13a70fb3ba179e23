"""The figures of the Geometry tab, and its numbers, from what is known so far. Titles say what the data say.

Pure functions of `Findings`; knows no widget. A chart's value is that of `chart.chart`.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from cramdemo.errors import plural
from cramdemo.geometry import EXPLAINED, Findings, Landscape
from cramdemo.ui.chart import BLANK, axis, dots, figure, line

APART, ALIKE = 0.2, 0.7  # cosines below the one are far apart, above the other close
FAR_TOKEN = 0.5  # a nearest token below this cosine is not near
MORE_COMPONENTS = 3  # drawn beyond those needed
SHADES = [[0, "--cd-sunk"], [1, "--cd-accent"]]  # in grey too, one goes from light to dark or back
COUNTS = {2: "two", 3: "three", 4: "four"}
MANY_STEPS = 80  # of a path, whose points would hide one another
UNKNOWN = "–"
Chart = dict[str, str]
_OUTLINE = {"color": "--cd-muted"}
_BAR = {
    "orientation": "h",
    "y": 1.02,
    "yanchor": "bottom",
    "thickness": 10,
    "outlinewidth": 0,
    "tickfont": {"size": 11},
}


def percent(share: float) -> str:
    """A share in whole percent, where 100 % is all and 0 % nothing."""
    if 0 < share < 0.01:
        return "under 1 %"
    return "100 %" if share >= 1 else f"{min(round(100 * share), 99)} %"


def number(value: float, form: str = "{:.2f}") -> str:
    """A number with a minus sign that is one."""
    return form.format(value).replace("-", "−")


def spread(low: float, high: float, form: str = "{:.2f}") -> str:
    """ "0.10 to 0.25", or the one number if both are the same as shown."""
    first, last = number(low, form), number(high, form)
    return first if first == last else f"{first} to {last}"


def shares_spread(shares: Sequence[float]) -> str:
    """ "84 to 100 %"."""
    low, high = percent(min(shares)), percent(max(shares))
    return low if low == high else f"{low.removesuffix(' %')} to {high}"


def listed(words: Sequence[object]) -> str:
    """ "1, 2 and 3"."""
    texts = [str(word) for word in words]
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)


def pairs(matrix: Sequence[Sequence[float]]) -> list[float]:
    """The numbers of a symmetric matrix above its diagonal."""
    return [row[j] for i, row in enumerate(matrix) for j in range(i + 1, len(row))]


def all_solved(known: Findings) -> bool:
    """Every seed's vectors have all tokens right, teacher-forced."""
    return min(known.solved) == known.num_tokens


def ends(known: Findings) -> str:
    """What the three are: "three solutions", or what they are as long as they do not solve the text."""
    if all_solved(known):
        return f"{COUNTS[len(known.seeds)]} solutions"
    solved = sum(count == known.num_tokens for count in known.solved)
    return f"{COUNTS[len(known.seeds)]} ends ({solved} of {len(known.seeds)} solved)"


def path_chart(known: Findings) -> Chart:
    """The first seed's path in two principal components."""
    path = known.path
    if path is None:
        return dict(BLANK)
    x, y = zip(*path.points, strict=True)
    most, n = max(path.solved), known.num_tokens
    shades = {
        "color": list(path.solved),
        "colorscale": SHADES,
        "cmin": 0,
        "cmax": n,
        "size": 9 if path.steps <= MANY_STEPS else 6,
        "line": _OUTLINE | {"width": 1 if path.steps <= MANY_STEPS else 0.3},
        "colorbar": {**_BAR, "title": {"text": "tokens solved", "side": "top"}},
    }
    words = [f"step {step}: {count} of {n} tokens solved" for step, count in enumerate(path.solved)]
    marks: dict[str, Any] = {
        "color": "--cd-warm",
        "symbol": ["diamond-open", "star"],
        "size": [15, 16],
        "line": {"width": 2},
    }
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": f"seed {known.seeds[0]}",
            "x": x,
            "y": y,
            "text": words,
            "hovertemplate": "%{text}<extra></extra>",
            "line": {"color": "--cd-muted", "width": 1},
            "marker": shades,
        },
        {
            "type": "scatter",
            "mode": "markers+text",
            "name": "start and end",
            "x": [x[0], x[-1]],
            "y": [y[0], y[-1]],
            "text": ["start", "end" if known.training else "now"],
            "textposition": "top center",
            "textfont": {"color": "--cd-ink", "size": 13},
            "hoverinfo": "skip",
            "marker": marks,
            "cliponaxis": False,
        },
    ]
    first, second = (*path.variance, 0.0, 0.0)[:2]
    title = f"From a random start to {most} of {plural(n, 'token')} in {plural(path.steps, 'step')}"
    aside = (
        f"The vectors of seed {known.seeds[0]} at every step, in the two directions along which they vary most. "
        "Distances are in the unit of the embeddings."
    )
    layout = {
        "xaxis": axis(f"1st component ({percent(first)} of variance)"),
        "yaxis": axis(f"2nd component ({percent(second)})"),
        "showlegend": False,
    }
    said = f"{plural(len(path.points), 'point')}, the last with {path.solved[-1]} of {n} tokens solved"
    return _value(figure(title, traces, layout, aside=aside), said)


def variance_chart(known: Findings) -> Chart:
    """How many components the path needs."""
    path = known.path
    if path is None or not path.variance:
        return dict(BLANK)
    count = min(len(path.variance), path.needed + MORE_COMPONENTS)
    numbers = list(range(1, count + 1))
    traces = [
        line("cumulative share", x=numbers, y=list(path.cumulative[:count]), hovertemplate="%{x}: %{y:.1%}")
        | {"mode": "lines+markers"},
        line("99 %", 1, x=[1, count], y=[EXPLAINED, EXPLAINED], hoverinfo="skip"),
    ]
    aside = (
        f"Of a path of {plural(path.steps, 'step')}{'' if known.training else ' so far'}. The progressive paper saw 30 "
        "to 100 components on its own, much longer ones."
    )
    layout = {
        "xaxis": axis("principal components", dtick=1 if count <= 15 else None),
        "yaxis": axis("share of the path’s variance", tickformat=".0%", range=[0, 1.05]),
    }
    title = f"{plural(path.needed, 'component')} of the path hold{'s' * (path.needed == 1)} 99 % of its variance"
    return _value(figure(title, traces, layout, aside=aside), title)


def cosines_chart(known: Findings) -> Chart:
    """How far apart the seeds' vectors lie."""
    if not known.cosines:
        return dict(BLANK)
    low, high = min(pairs(known.cosines)), max(pairs(known.cosines))
    how = "far apart" if high < APART else "close together" if low > ALIKE else "alike in part"
    title = f"{ends(known).capitalize()}, {how}: cosines {spread(low, high)}"
    places = list(range(len(known.seeds)))
    names = [f"seed {seed}" for seed in known.seeds]
    ticks = {"tickmode": "array", "tickvals": places, "ticktext": names, "showgrid": False}
    cells = {
        "type": "heatmap",
        "name": "cosine",
        "x": places,
        "y": places,
        "z": known.cosines,
        "zmin": 0,
        "zmax": 2.5,  # so that ink is legible on the darkest
        "showscale": False,
        "colorscale": [[0, "--cd-surface"], [1, "--cd-accent"]],
        "texttemplate": "%{z:.2f}",
        "textfont": {"size": 16, "color": "--cd-ink"},
        "xgap": 3,
        "ygap": 3,
        "hovertemplate": "cosine %{z:.3f}<extra></extra>",
    }
    starts = pairs(known.start_cosines)
    aside = (
        f"0 is unrelated, as the random starts are ({spread(min(starts), max(starts))}). The paper’s are near 0"
        f"{_trained_words(known) if high >= APART else '.'}"
    )
    layout = {
        "xaxis": axis("solution", **ticks),
        "yaxis": axis("solution", **ticks, autorange="reversed"),
    }
    return _value(figure(title, [cells], layout, aside=aside), title)


def _trained_words(known: Findings) -> str:
    """Why it may be otherwise here."""
    return "; its models, unlike this one, were not trained to read memory vectors." if known.reads_mem else "."


def line_chart(known: Findings) -> Chart:
    """Accuracy on the straight lines between solutions."""
    if not known.lines:
        return dict(BLANK)
    traces = [
        line(
            f"seed {known.seeds[found.first]} to {known.seeds[found.second]}",
            number,
            x=[at / (len(found.accuracy) - 1) for at in range(len(found.accuracy))],
            y=list(found.accuracy),
            hovertemplate="%{y:.0%} at %{x:.2f}",
        )
        for number, found in enumerate(known.lines)
    ]
    whole = [found for found in known.lines if found.middle_prefix == known.num_tokens]
    middles = listed([found.middle_prefix for found in known.lines])
    aside = (
        f"Decoded from half-way, {middles} of {plural(known.num_tokens, 'token')} come before the first wrong one. "
        "The paper’s middles do not decode."
    )
    layout = {
        "xaxis": axis("share of the way"),
        "yaxis": axis("accuracy, teacher-forced", tickformat=".0%", range=[0, 1.05]),
    }
    return _value(figure(_line_title(known, len(whole)), traces, layout, aside=aside), aside)


def _line_title(known: Findings, whole: int) -> str:
    lowest = min(min(found.accuracy) for found in known.lines)
    if not all_solved(known):
        return f"On the straight lines between the ends {percent(lowest)} are right at worst"
    if lowest == 1:
        return "Every token is right all along the straight lines"
    count = len(known.lines)
    if whole == count:
        middles = "The middle decodes" if count == 1 else f"All {count} middles decode"
    else:
        middles = "The middle does not decode" if count == 1 else f"{count - whole} of {count} middles do not decode"
    return f"{middles}: {percent(lowest)} right at worst"


def plane_chart(known: Findings) -> Chart:
    """Accuracy on the plane through the three."""
    land = known.landscape
    if land is None:
        return dict(BLANK)
    empty = [[None] * len(land.x)] * (len(land.y) - len(land.accuracy))
    right = _all_right(land)
    traces = [
        {
            "type": "heatmap",
            "name": "accuracy",
            "x": land.x,
            "y": land.y,
            "z": [*land.accuracy, *empty],
            "zmin": min(min(row) for row in land.accuracy) if land.accuracy else 0,
            "zmax": 1,
            "colorscale": SHADES,
            "hovertemplate": "%{z:.0%} of the tokens right<extra></extra>",
            "colorbar": {**_BAR, "tickformat": ".0%", "title": {"text": "accuracy, teacher-forced", "side": "top"}},
        },
        dots("every token right", x=[x for x, _ in right], y=[y for _, y in right], hoverinfo="skip")
        | {"marker": {"color": "--cd-surface", "size": 4, "symbol": "circle"}},
        dots("the three", x=[x for x, _ in land.corners], y=[y for _, y in land.corners], hoverinfo="skip")
        | {
            "marker": {
                "color": "--cd-surface",
                "size": 11,
                "symbol": "diamond",
                "line": {"color": "--cd-ink", "width": 2},
            }
        },
    ]
    layout = {
        "xaxis": axis("embedding units", constrain="domain", showgrid=False),
        "yaxis": axis("embedding units", scaleanchor="x", constrain="domain", showgrid=False),
        "showlegend": False,
        "annotations": [_flag(f"seed {s}", place) for s, place in zip(known.seeds, land.corners, strict=True)],
    }
    aside = (
        f"Teacher-forced accuracy at {len(land.x)} × {len(land.y)} points. Dots: every token is right. Diamonds: "
        f"{ends(known)}. Distances are true."
    )
    title = _plane_title(known, land, len(right))
    return _value(figure(title, traces, layout, aside=aside), title)


def _all_right(land: Landscape) -> list[tuple[float, float]]:
    """The points done at which every token is right."""
    done = zip(land.y[: len(land.accuracy)], land.accuracy, strict=True)
    return [(x, y) for y, row in done for x, accuracy in zip(land.x, row, strict=True) if accuracy == 1]


def _flag(text: str, place: tuple[float, float]) -> dict[str, Any]:
    """A label beside a point, legible on any shade."""
    return {
        "text": text,
        "x": place[0],
        "y": place[1],
        "ax": 0,
        "ay": -24,
        "arrowhead": 0,
        "arrowcolor": "--cd-ink",
        "bgcolor": "--cd-surface",
        "bordercolor": "--cd-line",
        "borderpad": 2,
        "font": {"color": "--cd-ink", "size": 12},
    }


def _plane_title(known: Findings, land: Landscape, right: int) -> str:
    if not land.done:
        return f"The plane through {ends(known)}: row {len(land.accuracy)} of {len(land.y)}"
    return f"All tokens right at {right} of the plane’s {len(land.x) * len(land.y)} points"


def tokens_chart(known: Findings) -> Chart:
    """The vocabulary's nearest to a [mem] vector."""
    near = known.neighbours
    if near is None:
        return dict(BLANK)
    names = [f"“{_visible(text)}”" for text in near.tokens]
    ranks = list(range(1, len(names) + 1))
    which = "the [mem] vector" if known.num_mem == 1 else f"[mem] vector {known.num_mem}"
    bars = {
        "type": "bar",
        "orientation": "h",
        "name": "this vector",
        "x": near.cosines,
        "y": ranks,
        "text": [escape(name, quote=False) for name in names],
        "textposition": "none",
        "marker": {"color": "--cd-accent"},
        "width": 0.62,
        "hovertemplate": "%{text}: cosine %{x:.3f}<extra></extra>",
    }
    start = line(
        "nearest before training", 1, x=[near.start] * 2, y=[0.4, len(names) + 0.6], hovertemplate="cosine %{x:.3f}"
    )
    best = near.cosines[0]
    far = f"is far: cosine {number(best)}" if best < FAR_TOKEN else f"has a cosine of {number(best)}"
    aside = (
        f"Of {near.vocab_size:,} input embeddings the nearest {len(names)} to {which} of seed {known.seeds[0]}. "
        "They usually mean nothing: the vector is no word."
    )
    layout = {
        "xaxis": axis("cosine", range=[min(0.0, best * 1.3, near.cosines[-1] * 1.3), max(0.3, best * 1.15)]),
        "yaxis": axis(
            "",
            tickmode="array",
            tickvals=ranks,
            ticktext=[escape(name, quote=False) for name in names],
            range=[len(names) + 0.6, 0.4],
            showgrid=False,
        ),
    }
    said = f"{listed(names)}, from {number(near.cosines[0])} down to {number(near.cosines[-1])}"
    return _value(figure(f"The nearest token, {names[0]}, {far}", [bars, start], layout, aside=aside), said)


def _visible(text: str) -> str:
    """A token's text with its line ends and tabs to be seen."""
    return text.replace("\n", "⏎").replace("\t", "⇥").replace("\r", "␍") or "nothing"


def attention_chart(known: Findings) -> Chart:
    """How much the text looks at [mem], layer by layer."""
    found = known.attention
    if known.without_attention:
        words = {"text": "no attention to measure", "xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5}
        layout = {
            "xaxis": axis("layer", visible=False),
            "yaxis": axis("share of attention", visible=False),
            "annotations": [{**words, "showarrow": False}],
        }
        aside = "It reads the text through a state that every position passes on, so that there is nothing to show."
        return _value(figure("This model has no attention", [dots("none", x=[], y=[])], layout, aside=aside), aside)
    if found is None:
        return dict(BLANK)
    layers = list(range(1, len(found.trained) + 1))
    traces = [
        line("[mem], trained", 0, x=layers, y=found.trained, hovertemplate="%{y:.1%}") | {"mode": "lines+markers"},
        line("the same, before", 1, x=layers, y=found.start, hovertemplate="%{y:.1%}")
        | {"mode": "lines+markers", "marker": {"symbol": "diamond-open", "size": 8}},
        line("spread evenly", 2, x=[layers[0], layers[-1]], y=[found.even] * 2, hovertemplate="%{y:.1%}"),
    ]
    title = f"{shares_spread(found.trained)} of the text’s attention goes to [mem]"
    aside = (
        f"Mean over heads and the text’s positions. Spread evenly it would be {percent(found.even)}; the same vectors "
        f"before they were trained got {shares_spread(found.start)}."
    )
    layout = {
        "xaxis": axis("layer", dtick=1 if len(layers) <= 16 else None),
        "yaxis": axis("share of attention", tickformat=".0%", rangemode="tozero"),
    }
    return _value(figure(title, traces, layout, aside=aside), title)


def numbers_html(known: Findings | None) -> str:
    """The numbers beside their definitions; those not known yet keep their place."""
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd><dd class='cd-why'>{escape(why)}</dd></div>"
        for name, value, why in _numbers(known)
    )
    return (
        '<section class="cd-panel cd-shape" aria-label="Numbers"><h3>In numbers</h3>'
        f'<dl class="cd-figures">{cells}</dl></section>'
    )


def _numbers(known: Findings | None) -> list[tuple[str, str, str]]:
    path, cosines, starts = (known.path, known.cosines, known.start_cosines) if known else (None, (), ())
    lines, attention = (known.lines, known.attention) if known else ((), None)
    of_n = f", of {known.num_tokens}" if known else ""
    return [
        (
            f"tokens solved{of_n}",
            _row(known.solved) if known else UNKNOWN,
            "right under teacher forcing, by each seed’s best vectors",
        ),
        (
            f"tokens decoded{of_n}",
            _row(known.decoded) if known and known.decoded else UNKNOWN,
            "that greedy reconstruction from each seed’s vectors alone gives before its first wrong one",
        ),
        (
            "components for 99 %",
            str(path.needed) if path and path.variance else UNKNOWN,
            "principal components that hold so much of the variance of the first seed’s path",
        ),
        (
            "cosine between seeds",
            spread(min(pairs(cosines)), max(pairs(cosines))) if cosines else UNKNOWN,
            "of all their K × d numbers; random starts: "
            + (spread(min(pairs(starts)), max(pairs(starts))) if starts else "near 0"),
        ),
        (
            "lowest between seeds",
            percent(min(min(found.accuracy) for found in lines)) if lines else UNKNOWN,
            "teacher-forced accuracy on the straight lines between them",
        ),
        (
            "attention to [mem]",
            percent(sum(attention.trained) / len(attention.trained)) if attention else UNKNOWN,
            "mean over layers, heads and text positions"
            + (f"; spread evenly: {percent(attention.even)}" if attention else ""),
        ),
    ]


def _row(counts: Sequence[int]) -> str:
    return ", ".join(str(count) for count in counts)


def _value(made: str, said: str) -> Chart:
    return {"f": made, "d": "", "a": said}
