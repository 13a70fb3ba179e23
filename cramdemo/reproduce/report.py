"""One HTML file for an experiment: figure, tables, conventions and the command, with plotly inside, so that it opens
without a network. plotly.js is packed (gzip, base64), which every browser since 2023 unpacks by itself.
"""

from __future__ import annotations

import gzip
import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import plotly
from plotly.graph_objects import Figure, Scatter

from cramdemo.catalogue import published_points
from cramdemo.plots import CLEAR, COLOURS, GRID, INK
from cramdemo.reproduce import table
from cramdemo.reproduce.grid import EXPERIMENTS, WORDS

PLOTLY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
CONVENTIONS = (
    "Capacity as published: the longest length of the grid whose mean teacher-forced accuracy over tokens 1..N-1 is at "
    "least 0.99 (arXiv 2502.13063). Capacity: the same over all N tokens. Capacity, lossless: the longest length at "
    "which at least half of the texts come back token for token by greedy decoding. C_H and token gain: means over "
    "texts that are not held (accuracy below 0.99). Utilisation: token gain over K x d x 16 / log2(V) tokens. The "
    "paper's figures are its own, on its own texts; a cell is empty where it gives none, or nothing reached it."
)
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>@title@</title><style>
:root { color-scheme: light dark; --ink: #1d1c19; --paper: #fdfcf9; --line: #d8d2c4; }
@media (prefers-color-scheme: dark) { :root { --ink: #ece9e1; --paper: #151817; --line: #3d433f; } }
body { margin: 0 auto; padding: 24px; max-width: 1080px; color: var(--ink); background: var(--paper);
  font: 16px/1.5 system-ui, sans-serif; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 10px; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } figure { margin: 24px 0; } .plot { height: 460px; }
pre { overflow-x: auto; padding: 10px; border: 1px solid var(--line); } h1 { font-size: 26px; } h2 { font-size: 19px; }
</style></head><body><h1>@title@</h1><p>@words@</p><pre>@command@</pre>
@body@<p>@conventions@</p>
<script type="text/plain" id="plotly">@plotly@</script><script type="application/json" id="figures">@figures@</script>
<script>
(async () => {
  const packed = Uint8Array.from(atob(document.getElementById('plotly').textContent), c => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('gzip'));
  const script = document.createElement('script');
  script.textContent = await new Response(stream).text();
  document.head.append(script);
  const figures = JSON.parse(document.getElementById('figures').textContent);
  for (const [i, figure] of figures.entries()) {
    Plotly.newPlot(`figure-${i}`, figure.data, figure.layout, {responsive: true, displaylogo: false});
  }
})();
</script></body></html>
"""


def html(experiment: str, rows: Sequence[Mapping[str, Any]], command: str) -> str:
    """The whole file.

    Args:
        experiment: a key of `EXPERIMENTS`.
        rows: of it, with their `kind`.
        command: that made it, to be shown.
    """
    capacities = table.capacities(rows)
    title, figure = _FIGURES[experiment](rows, capacities)
    figure.update_layout(
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        font={"family": "system-ui, sans-serif", "size": 13, "color": INK},
        legend={"orientation": "h", "y": -0.2},
        margin={"l": 60, "r": 20, "t": 20, "b": 50},
        colorway=COLOURS,
    )
    figure.update_xaxes(gridcolor=GRID, zerolinecolor=GRID)
    figure.update_yaxes(gridcolor=GRID, zerolinecolor=GRID)
    tables = [("Capacities, with the paper's beside them", capacities), ("By length", table.by_length(rows))]
    if experiment == "unseen":
        tables.insert(0, ("Accuracy on seen less unseen books, with 95 % bootstrap intervals", table.difference(rows)))
    body = f'<figure><div class="plot" id="figure-0" role="img" aria-label="{escape(title)}"></div></figure>'
    body += "".join(f"<h2>{escape(name)}</h2>{_table(lines)}" for name, lines in tables)
    drawn = json.loads(figure.to_json())
    places = {
        "title": escape(title),
        "words": escape(f"{EXPERIMENTS[experiment].capitalize()}."),
        "command": escape(command),
        "body": body,
        "conventions": escape(CONVENTIONS),
        "plotly": _plotly(),
        "figures": json.dumps([{"data": drawn["data"], "layout": drawn["layout"]}]).replace("<", "\\u003c"),
    }
    page = _PAGE
    for name, value in places.items():
        page = page.replace(f"@{name}@", value, -1 if name == "title" else 1)
    return page


@cache
def _plotly() -> str:
    return b64encode(gzip.compress(PLOTLY.read_bytes(), mtime=0)).decode("ascii")


def _table(lines: Sequence[Mapping[str, Any]]) -> str:
    if not lines:
        return "<p>Nothing has been run yet.</p>"
    columns = list(lines[0])
    head = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in columns)
    rows = "".join(f"<tr>{''.join(f'<td>{_cell(line[name])}</td>' for name in columns)}</tr>" for line in lines)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return escape(" to ".join(f"{part:.3f}" for part in value))
    if isinstance(value, float) and abs(value) < 100:
        return f"{value:,.3g}"
    return f"{value:,.0f}" if isinstance(value, int | float) else escape(str(value))


def _table1(rows: Sequence[Mapping[str, Any]], capacities: Sequence[Mapping[str, Any]]) -> tuple[str, Figure]:
    figure = Figure()
    points = [point for point in published_points() if point.paper == "cramming"]
    figure.add_trace(
        Scatter(
            name="the cramming paper, prose",
            mode="markers+text",
            x=[p.hidden_size for p in points],
            y=[p.tokens for p in points],
            text=[p.label for p in points],
            textposition="top center",
            textfont={"size": 10},
        )
    )
    sizes = {row["model"]: row["hidden_size"] for row in rows if "hidden_size" in row}
    for kind in dict.fromkeys(line["kind"] for line in capacities):
        lines = [line for line in capacities if line["kind"] == kind and line["capacity_as_published"]]
        figure.add_trace(
            Scatter(
                name=f"here, {kind}",
                mode="markers",
                marker={"size": 12, "symbol": "diamond" if kind == WORDS else "square"},
                x=[sizes.get(line["model"], 0) for line in lines],
                y=[line["capacity_as_published"] for line in lines],
                text=[line["model"] for line in lines],
            )
        )
    figure.update_xaxes(title="width d", type="log")
    figure.update_yaxes(title="decoding capacity, tokens in one vector", type="log")
    held = [f"{line['model']} {line['capacity_as_published'] or 'none'} ({line['kind']})" for line in capacities]
    return f"Decoding capacity by the paper's rule: {', '.join(held)}", figure


def _scaling(rows: Sequence[Mapping[str, Any]], capacities: Sequence[Mapping[str, Any]]) -> tuple[str, Figure]:
    figure = Figure()
    fits = table.lines(capacities, "capacity_as_published")
    for model in dict.fromkeys(line["model"] for line in capacities):
        lines = [line for line in capacities if line["model"] == model]
        for column, words in (("capacity_as_published", "the paper's rule"), ("capacity_lossless", "lossless")):
            x, y = [line["num_mem"] for line in lines], [line[column] for line in lines]
            figure.add_trace(Scatter(name=f"{model}, {words}", mode="lines+markers", x=x, y=y))
    for model, points in table.PUBLISHED_SCALING.items():
        vectors, tokens = zip(*points, strict=True)
        figure.add_trace(Scatter(name=f"{model}, the cramming paper", mode="lines+markers", x=vectors, y=tokens))
    figure.update_xaxes(title="vectors, K", type="log")
    figure.update_yaxes(title="tokens held", type="log")
    each = [f"{model} holds about {fit.slope:,.0f} more tokens with each vector" for model, fit in fits.items()]
    return "; ".join(each) or "Tokens against vectors", figure


def _entropy(rows: Sequence[Mapping[str, Any]], capacities: Sequence[Mapping[str, Any]]) -> tuple[str, Figure]:
    figure, titles = Figure(), []
    for model in dict.fromkeys(row["model"] for row in rows):
        mine = [row for row in rows if row["model"] == model and "error" not in row]
        for kind in dict.fromkeys(row["kind"] for row in mine):
            group = [row for row in mine if row["kind"] == kind]
            x = [row["h_lm_bits"] for row in group]
            y = [max(0.0, row["h_lm_bits"] - row["information_gain_bits"]) for row in group]
            figure.add_trace(Scatter(name=f"{model}, {kind}", mode="markers", x=x, y=y))
        fit = table.entropy_fit(mine)
        if fit is not None:
            most = max(row["h_lm_bits"] for row in mine)
            name = f"{model}: max(0, H_LM - {fit:,.0f} bits)"
            figure.add_trace(Scatter(name=name, mode="lines", x=[0, fit, most], y=[0, 0, most - fit]))
            titles.append(f"one vector of {model} holds about {fit:,.0f} bits, whatever the text")
    figure.update_xaxes(title="H_LM, bits")
    figure.update_yaxes(title="H_LM+mem, bits")
    return ("; ".join(titles) or "Cost with [mem] against cost without").capitalize(), figure


def _unseen(rows: Sequence[Mapping[str, Any]], capacities: Sequence[Mapping[str, Any]]) -> tuple[str, Figure]:
    figure, lengths = Figure(), table.by_length(rows)
    for model in dict.fromkeys(line["model"] for line in lengths):
        for kind in dict.fromkeys(line["kind"] for line in lengths):
            group = [line for line in lengths if (line["model"], line["kind"]) == (model, kind)]
            x, y = [line["length"] for line in group], [line["accuracy"] for line in group]
            figure.add_trace(Scatter(name=f"{model}, {kind} books", mode="lines+markers", x=x, y=y))
    figure.update_xaxes(title="length, tokens")
    figure.update_yaxes(title="teacher-forced accuracy, mean over texts")
    found = table.difference(rows)
    apart = [line for line in found if line["interval"] and not line["interval"][0] <= 0 <= line["interval"][1]]
    words = "differ" if apart else "are alike"
    return f"Seen and unseen books {words}: at {len(apart)} of {len(found)} lengths the interval leaves 0 out", figure


_FIGURES = {"table1": _table1, "scaling": _scaling, "entropy": _entropy, "unseen": _unseen}
