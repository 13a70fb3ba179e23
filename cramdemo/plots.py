"""Figures made from results: data in, picture or plotly-ready data out. Knows nothing of Gradio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import accumulate
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plotly.graph_objects import Bar, Figure

WIDTH, HEIGHT, EDGE = 640, 220, 44
COLOURS = ("#4f46e5", "#0f9d6b", "#d9622b", "#8b5cf6", "#64748b", "#b7791f")
INK, GRID, CLEAR = "#767676", "rgba(118, 118, 118, 0.3)", "rgba(0, 0, 0, 0)"  # the grey reads on white and on black

Point = tuple[float, float]
Curve = tuple[str, Sequence[Point]]


def curves_svg(panels: Sequence[tuple[str, Sequence[Curve]]], x_title: str) -> str:
    """Line charts under one another as one SVG picture, for model cards and READMEs.

    Args:
        panels: title and curves of each chart; a curve is its name and its (x, y) points.
        x_title: what x is, with its unit.
    """
    drawn = [(title, curves) for title, curves in panels if any(points for _, points in curves)]
    charts = [_panel(title, curves, row * HEIGHT) for row, (title, curves) in enumerate(drawn)]
    height = len(charts) * HEIGHT + 24
    caption = f'<text x="{WIDTH / 2}" y="{height - 8}" text-anchor="middle">{escape(x_title)}</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        f'font-size="11">'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(charts)}{caption}</svg>\n'
    )


def training_svg(records: Sequence[Mapping[str, float]]) -> str:
    """The curves of a training run from the records of `pretrain.pretrain`."""
    sizes = sorted({int(r["num_mem"]) for r in records if "num_mem" in r})
    by_size = {k: [r for r in records if r.get("num_mem") == k] for k in sizes}
    longest = {k: _running_maximum([(r["step"], r["num_tokens"]) for r in rows]) for k, rows in by_size.items()}
    accuracy = {k: _averaged([(r["step"], r["accuracy"]) for r in rows]) for k, rows in by_size.items()}
    plain = _averaged([(r["step"], r["lm_loss"]) for r in records if "lm_loss" in r])
    heldout = [(r["step"], r["heldout_bits_per_byte"]) for r in records if "heldout_bits_per_byte" in r]
    panels = [
        ("Plain LM batches: loss, nats a token", [("training", plain)]),
        ("Memory batches: accuracy of the noisy encoding, all lengths", [(f"K = {k}", accuracy[k]) for k in sizes]),
        ("Memory batches: passage length reached, tokens", [(f"K = {k}", _thinned(longest[k])) for k in sizes]),
        ("Held-out text: bits per byte of the bare LM", [("held-out", heldout)]),
    ]
    return curves_svg(panels, "step")


def capacity_figure(report: Mapping[str, Any]) -> Figure:
    """The report of `bench capacity` as bars: tokens that each column holds, grouped by model and K.

    A report without such rows gives a figure that says so.
    """
    from plotly.graph_objects import Figure  # here, since every command imports this module

    found = report.get("rows")
    rows = [row for row in (found if isinstance(found, Sequence) else ()) if _is_drawable(row)]
    columns = list(dict.fromkeys(row["column"] for row in rows))
    bars = [_bars([r for r in rows if r["column"] == name], name, i) for i, name in enumerate(columns)]
    figure = Figure(bars)
    figure.update_layout(
        title="Tokens that one set of [mem] vectors holds at equal FLOPs",
        yaxis={"title": "tokens decoded exactly, median over texts", "gridcolor": GRID, "zerolinecolor": GRID},
        xaxis={"title": "model and number of vectors K", "type": "category"},
        barmode="group",
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        font={"family": "system-ui, sans-serif", "size": 13, "color": INK},
        legend={"orientation": "h", "y": -0.2},
        colorway=COLOURS,
    )
    if not rows:
        figure.add_annotation(text="This report holds nothing to draw.", showarrow=False)
    return figure


def _is_drawable(row: object) -> bool:
    return isinstance(row, Mapping) and isinstance(row.get("column"), str) and _is_number(row.get("value"))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _bars(rows: Sequence[Mapping[str, Any]], name: str, number: int) -> Bar:
    """One column's bars with their values, and with the interval where a row has one."""
    from plotly.graph_objects import Bar

    values = [row["value"] for row in rows]
    low, high = zip(*(row.get("interval") or (row["value"], row["value"]) for row in rows), strict=True)
    return Bar(
        name=name,
        x=[f"{row.get('model', '')}, K = {row.get('num_mem', '?')}" for row in rows],
        y=values,
        text=[f"{value:g}" for value in values],
        textposition="auto",  # at the foot of a bar, clear of its interval; above one that is too short
        insidetextanchor="start",
        textangle=0,
        insidetextfont={"color": "#fff"},
        outsidetextfont={"color": INK},
        marker={"color": COLOURS[number % len(COLOURS)]},
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [end - value for end, value in zip(high, values, strict=True)],
            "arrayminus": [value - end for end, value in zip(low, values, strict=True)],
            "color": INK,
        },
    )


def _running_maximum(points: Sequence[Point]) -> list[Point]:
    return list(zip((x for x, _ in points), accumulate((y for _, y in points), max), strict=True))


def _averaged(points: Sequence[Point], buckets: int = 120) -> list[Point]:
    size = max(1, len(points) // buckets)
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(group[-1][0], sum(y for _, y in group) / len(group)) for group in groups]


def _thinned(points: Sequence[Point], most: int = 120) -> list[Point]:
    return list(points[:: max(1, len(points) // most)])


def _panel(title: str, curves: Sequence[Curve], top: int) -> str:
    points = [point for _, curve in curves for point in curve]
    (left, right), (low, high) = (_range([p[axis] for p in points]) for axis in (0, 1))
    bottom, roof = top + HEIGHT - EDGE / 2, top + EDGE

    def place(point: tuple[float, float]) -> str:
        x = EDGE + (point[0] - left) / (right - left) * (WIDTH - 2 * EDGE)
        y = bottom - (point[1] - low) / (high - low) * (bottom - roof)
        return f"{x:.1f},{y:.1f}"

    parts = [f'<text x="{EDGE}" y="{top + 18}" font-size="13">{escape(title)}</text>']
    for value, y in ((low, bottom), (high, roof)):
        parts.append(f'<line x1="{EDGE}" x2="{WIDTH - EDGE}" y1="{y}" y2="{y}" stroke="#ddd"/>')
        parts.append(f'<text x="{EDGE - 6}" y="{y + 4}" text-anchor="end">{value:.3g}</text>')
    for value, x in ((left, EDGE), (right, WIDTH - EDGE)):
        parts.append(f'<text x="{x}" y="{bottom + 14}" text-anchor="middle">{value:.5g}</text>')
    for number, (name, curve) in enumerate(curves):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(place(point) for point in curve)
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{path}"/>')
        parts.append(f'<text x="{EDGE + 110 * number}" y="{top + 34}" fill="{colour}">{escape(name)}</text>')
    return "".join(parts)


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)
