"""A figure that can be fed while it is looked at: plotly.js in one gr.HTML, with its PNG and its CSV.

plotly.js is served from the plotly package, so no network is needed. The component's value is a dict of strings, of
which gradio sends only what is new: `f` is the figure as `figure` makes it, `d` an append-only string of points and
`a` what a screen reader says. A point is "x,y;" with one y for each fed trace, empty where there is none. A visitor's
zoom stays while points come, and when `f` changes in the middle of a run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr
import plotly

PLOTLY_FOLDER = Path(plotly.__file__).resolve().parent / "package_data"
HEIGHT = 290  # pixels
COLOURS = ("--cd-accent", "--cd-warm", "--cd-blue", "--cd-violet", "--cd-muted")  # each has its value in both modes
DASHES = ("solid", "dot", "dash", "dashdot", "longdash")
SYMBOLS = ("circle", "diamond-open", "square", "triangle-up-open", "x")  # nothing is told by its colour alone

_TEMPLATE = """
<section class="cd-panel cd-chart" aria-label="@title@">
  <h3><span class="cd-title">@title@</span>
    <span class="cd-tools" hidden>
      <button type="button" data-do="reset" disabled>Reset zoom</button>
      <button type="button" data-do="png" aria-label="Save the figure as PNG">PNG</button>
      <button type="button" data-do="csv" aria-label="Save the figure’s data as CSV">CSV</button>
    </span></h3>
  <p class="cd-aside"></p>
  <div class="cd-stage" style="min-height: @height@px">
    <div class="cd-plot" role="img" aria-label="@title@: nothing yet" style="height: @height@px"></div>
    <p class="cd-empty">@empty@</p>
  </div>
</section>
"""

_SCRIPT = """
const POINTS = 2000, FEW = 3, FILE = '@file@', TITLE = '@title@';
const find = name => element.querySelector(name);
const root = find('.cd-chart'), plot = find('.cd-plot'), empty = find('.cd-empty'), tools = find('.cd-tools');
const title = find('.cd-title'), aside = find('.cd-aside'), reset = find('[data-do=reset]');
let source = '', spec = null, seen = '', series = [], run = 0, made = false, fresh = false, asked = false;

const colour = name => getComputedStyle(root).getPropertyValue(name).trim();

function resolved(part) {  // colours are named by the style sheet's variables, which differ between the modes
  if (typeof part === 'string') { return part.startsWith('--cd-') ? colour(part) : part; }
  if (Array.isArray(part)) { return part.every(Number.isFinite) ? part.slice() : part.map(resolved); }
  if (part === null || typeof part !== 'object') { return part; }
  return Object.fromEntries(Object.entries(part).map(([name, inner]) => [name, resolved(inner)]));
}

function axis(given) {
  return {gridcolor: colour('--cd-line'), linecolor: colour('--cd-line'), zerolinecolor: colour('--cd-line'),
    zeroline: false, ticks: '', automargin: true, ...given};
}

function layout() {
  const given = resolved(spec.layout), axes = {};
  for (const name of Object.keys(given)) { if (/^[xy]axis/.test(name)) { axes[name] = axis(given[name]); } }
  return {
    uirevision: run, autosize: true, hovermode: 'closest', dragmode: 'zoom', margin: {l: 52, r: 18, t: 30, b: 42},
    paper_bgcolor: colour('--cd-surface'), plot_bgcolor: colour('--cd-surface'),
    font: {family: 'system-ui, sans-serif', size: 12, color: colour('--cd-muted')},
    hoverlabel: {bgcolor: colour('--cd-surface'), bordercolor: colour('--cd-line'), font: {color: colour('--cd-ink')}},
    legend: {orientation: 'h', x: 0, y: 1.02, yanchor: 'bottom', font: {color: colour('--cd-ink')}},
    ...given, ...axes,
  };
}

function traces() {
  return spec.traces.map((trace, i) => {
    const found = resolved(trace), at = spec.fed.indexOf(i);
    if (at < 0) { return found; }
    const one = series[at];  // a line of few points may not be seen
    if (one.x.length < FEW && found.mode === 'lines') { found.mode = 'lines+markers'; }
    return {...found, ...thinned(one, 0)};
  });
}

function thinned(one, from) {
  const x = [], y = [];
  for (let i = Math.ceil(from / one.stride) * one.stride; i < one.x.length; i += one.stride) {
    x.push(one.x[i]); y.push(one.y[i]);
  }
  return {x, y};
}

function start() { series = spec.fed.map(() => ({x: [], y: [], stride: 1, drawn: 0})); seen = ''; }

function read() {
  const value = props.value || {}, data = value.d || '';
  if ((value.f || '') !== source) {
    source = value.f || '';
    const old = spec;
    spec = source ? JSON.parse(source) : null;
    fresh = true;
    if (spec && (!old || old.fed.length !== spec.fed.length)) { start(); run += 1; }
  }
  if (spec && !data.startsWith(seen)) { start(); run += 1; fresh = true; }
  if (spec) {
    for (const row of data.slice(seen.length).split(';')) {
      if (!row) { continue; }
      const [x, ...ys] = row.split(',');
      ys.forEach((y, k) => { if (y !== '' && series[k]) { series[k].x.push(+x); series[k].y.push(+y); } });
    }
    seen = data;
  }
  show(value);
}

function show(value) {
  const filled = !!spec && (series.some(one => one.x.length) || spec.traces.some((_, i) => !spec.fed.includes(i)));
  empty.hidden = filled; tools.hidden = !filled; plot.classList.toggle('cd-filled', filled);
  title.textContent = spec ? spec.title : TITLE;
  aside.textContent = spec ? spec.aside : '';
  plot.setAttribute('aria-label', `${title.textContent}: ${value.a || (filled ? 'a figure' : 'nothing yet')}`);
}

async function draw() {
  asked = false;
  if (!window.Plotly) { later(); return; }
  if (!spec || !plot.classList.contains('cd-filled')) {
    if (made) { window.Plotly.purge(plot); plot.replaceChildren(); made = false; }
    return;
  }
  if (!made || fresh || series.some(one => one.drawn < FEW && one.drawn < one.x.length)) {
    const first = !made;
    made = true; fresh = false;
    for (const one of series) { tame(one); one.drawn = one.x.length; }
    await window.Plotly.react(plot, traces(), layout(), {
      responsive: true, displaylogo: false, displayModeBar: false, doubleClick: 'reset+autosize', scrollZoom: false,
    });
    if (first) { plot.on('plotly_relayout', moved); }
    return;
  }
  feed();
}

function tame(one) {  // a long curve keeps a few points a pixel
  const much = one.x.length / one.stride > POINTS;
  while (one.x.length / one.stride > (much ? POINTS / 2 : POINTS)) { one.stride *= 2; }
  return much;
}

function feed() {
  const whole = [], grown = [];
  series.forEach((one, k) => {
    if (one.drawn === one.x.length) { return; }
    (tame(one) ? whole : grown).push(k);
  });
  const parts = list => list.map(k => thinned(series[k], series[k].drawn));
  if (grown.length) {
    const news = parts(grown);
    window.Plotly.extendTraces(plot, {x: news.map(p => p.x), y: news.map(p => p.y)}, grown.map(k => spec.fed[k]));
  }
  for (const k of whole) {
    const all = thinned(series[k], 0);
    window.Plotly.restyle(plot, {x: [all.x], y: [all.y]}, [spec.fed[k]]);
  }
  for (const one of series) { one.drawn = one.x.length; }
}

function later() {
  if (!asked) { asked = true; window.Plotly ? requestAnimationFrame(draw) : setTimeout(draw, 100); }
}

function moved(change) {
  const names = Object.keys(change);
  if (names.some(name => /range\\[/.test(name))) { reset.disabled = false; }
  if (names.some(name => /autorange|range$/.test(name))) { reset.disabled = true; }
}

function unzoom() {
  const given = spec.layout, change = {};
  for (const name of Object.keys(given)) {
    if (!/^[xy]axis/.test(name)) { continue; }
    if (given[name].range) { change[`${name}.range`] = given[name].range.slice(); }
    else { change[`${name}.autorange`] = given[name].autorange || true; }
  }
  window.Plotly.relayout(plot, change);
  find('[data-do=png]').focus();
}

function cell(value) {
  const text = String(value ?? '');
  return /[",\\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function table() {
  const words = at => (spec.layout[at]?.title?.text || at[0]);
  const rows = [['series', words('xaxis'), words('yaxis'), 'text']];
  spec.traces.forEach((trace, i) => {
    const at = spec.fed.indexOf(i), {x = [], y = [], z} = at < 0 ? trace : series[at];
    if (z) { z.forEach((line, r) => line.forEach((v, c) => rows.push([`${trace.name || ''} ${v}`, x[c], y[r], '']))); }
    else { x.forEach((v, n) => rows.push([trace.name || '', v, y[n], trace.text?.[n] ?? ''])); }
  });
  return rows.map(row => row.map(cell).join(',')).join('\\n') + '\\n';
}

function save() {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([table()], {type: 'text/csv'}));
  link.download = `${FILE}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

tools.addEventListener('click', event => {
  const what = event.target.dataset.do;
  if (!made) { return; }
  if (what === 'reset') { unzoom(); }
  if (what === 'csv') { save(); }
  if (what === 'png') {
    window.Plotly.downloadImage(plot, {format: 'png', scale: 2, filename: FILE, width: plot.offsetWidth,
      height: plot.offsetHeight});
  }
});

function recolour() { if (made) { fresh = true; later(); } }
const observer = new MutationObserver(recolour);
for (const node of [document.documentElement, document.body]) {
  observer.observe(node, {attributes: true, attributeFilter: ['class']});
}
const fit = () => { if (made && plot.data && plot.offsetWidth) { window.Plotly.Plots.resize(plot); } };
new ResizeObserver(fit).observe(plot);

function update() { read(); later(); }
watch('value', update);
update();
"""

BLANK = {"f": "", "d": "", "a": ""}


def allow_plotly() -> None:
    """Let gradio serve plotly.js from its package."""
    gr.set_static_paths([PLOTLY_FOLDER])


def head() -> str:
    """The script tag that loads plotly.js from this server."""
    return f'<script defer src="gradio_api/file={quote(str(PLOTLY_FOLDER / "plotly.min.js"))}"></script>'


def chart(
    elem_id: str, title: str, empty: str, value: Mapping[str, str] | None = None, height: int = HEIGHT
) -> gr.HTML:
    """The component.

    Args:
        elem_id: in the page, and the name of its PNG and CSV.
        title: while there is no figure.
        empty: what will appear here, for who has not started anything yet.
        value: {"f", "d", "a"}, all strings; see the module.
        height: of the figure, in pixels; the place is kept free for it.
    """
    words = {"title": escape(title), "empty": escape(empty), "height": str(height), "file": f"cramdemo-{elem_id}"}
    return gr.HTML(
        dict(value or BLANK),
        html_template=_filled(_TEMPLATE, words),
        js_on_load=_filled(_SCRIPT, words | {"title": title.replace("'", "\\'")}),
        apply_default_css=False,
        elem_id=elem_id,
        elem_classes="cd-flat",
    )


def _filled(template: str, words: Mapping[str, str]) -> str:
    for name, word in words.items():
        template = template.replace(f"@{name}@", word)
    return template


def figure(
    title: str,
    traces: Sequence[Mapping[str, Any]],
    layout: Mapping[str, Any],
    *,
    fed: Sequence[int] = (),
    aside: str = "",
) -> str:
    """A figure as the component's `f`.

    Args:
        title: what it shows: a finding, where there is one.
        traces: as plotly takes them; a colour may be the name of a variable of the style sheet, such as those of
            `COLOURS`.
        layout: plotly's, with at least `xaxis` and `yaxis`, whose titles say the unit.
        fed: the traces that get the points of `d`, in the order of a point's numbers; they need no x and y.
        aside: one more sentence below the title.
    """
    spec = {"title": title, "aside": aside, "traces": list(traces), "layout": dict(layout), "fed": list(fed)}
    return json.dumps(spec, ensure_ascii=False, allow_nan=False)


def line(name: str, number: int = 0, **more: Any) -> dict[str, Any]:
    """A line as a trace; lines of different numbers differ in colour and in dash."""
    style = {"color": COLOURS[number % len(COLOURS)], "dash": DASHES[number % len(DASHES)], "width": 2}
    return {"type": "scatter", "mode": "lines", "name": name, "line": style, **more}


def dots(name: str, number: int = 0, **more: Any) -> dict[str, Any]:
    """Points as a trace; those of different numbers differ in colour and in shape."""
    style = {"color": COLOURS[number % len(COLOURS)], "symbol": SYMBOLS[number % len(SYMBOLS)], "size": 8}
    return {"type": "scatter", "mode": "markers", "name": name, "marker": style, **more}


def axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis with a title, which says the unit."""
    return {"title": {"text": title, "standoff": 6}, **more}
