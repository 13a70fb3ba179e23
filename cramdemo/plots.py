"""Figures made from results: data in, picture or plotly-ready data out. Knows nothing of Gradio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import accumulate

WIDTH, HEIGHT, EDGE = 640, 220, 44
COLOURS = ("#4f46e5", "#0f9d6b", "#d9622b", "#8b5cf6", "#64748b")

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
