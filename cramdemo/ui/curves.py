"""The live curves: one gr.HTML in which plotly.js draws what an append-only string says.

plotly.js is served from the plotly package, so no network is needed. The string is "step,loss,accuracy;" a
point; gradio sends only what was appended, and `Plotly.extendTraces` keeps the visitor's zoom.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import gradio as gr
import plotly

PLOTLY_FOLDER = Path(plotly.__file__).resolve().parent / "package_data"

_TEMPLATE = """
<div class="cd-panel cd-curves">
  <h3>Loss and accuracy <span class="cd-aside">loss of the leading tokens in training, accuracy of all</span></h3>
  <div class="cd-plot" role="img" aria-label="Loss and accuracy curves: no run yet"></div>
  <p class="cd-empty">The curves appear here as the vectors are trained: loss in bits a token, and the share of
  tokens that the model gets right. Drag to zoom, double-click to go back.</p>
</div>
"""

_SCRIPT = """
const POINTS = 2000;
const root = element.querySelector('.cd-curves');
const plot = element.querySelector('.cd-plot');
const empty = element.querySelector('.cd-empty');
let seen = '', steps = [], losses = [], accuracies = [];
let stride = 1, drawn = 0, run = 0, made = false, asked = false, dotted = false;

const colour = name => getComputedStyle(root).getPropertyValue(name).trim();

function layout() {
  const axis = {gridcolor: colour('--cd-line'), linecolor: colour('--cd-line'), zeroline: false, ticks: ''};
  return {
    uirevision: run, autosize: true, hovermode: 'x unified', dragmode: 'zoom',
    margin: {l: 48, r: 52, t: 34, b: 38}, paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)',
    font: {family: 'system-ui, sans-serif', size: 12, color: colour('--cd-muted')},
    hoverlabel: {bgcolor: colour('--cd-surface'), bordercolor: colour('--cd-line'), font: {color: colour('--cd-ink')}},
    legend: {orientation: 'h', x: 0, y: 1.02, yanchor: 'bottom', font: {color: colour('--cd-ink')}},
    xaxis: {...axis, title: {text: 'step', standoff: 6}, rangemode: 'tozero'},
    yaxis: {...axis, title: {text: 'bits a token', standoff: 6}, rangemode: 'tozero'},
    yaxis2: {...axis, overlaying: 'y', side: 'right', range: [0, 1.03], tickmode: 'array',
             tickvals: [0, 0.25, 0.5, 0.75, 1], tickformat: '.0%', showgrid: false, fixedrange: true},
  };
}

function traces() {
  return [
    {name: 'loss', x: [], y: [], type: 'scatter', mode: 'lines', line: {color: colour('--cd-warm'), width: 2},
     hovertemplate: '%{y:.3f} bits a token'},
    {name: 'accuracy, teacher-forced', x: [], y: [], yaxis: 'y2', type: 'scatter', mode: 'lines',
     line: {color: colour('--cd-accent'), width: 2, dash: 'dot'}, hovertemplate: '%{y:.1%}'},
  ];
}

function thinned(from) {
  const x = [], loss = [], accuracy = [];
  for (let i = Math.ceil(from / stride) * stride; i < steps.length; i += stride) {
    x.push(steps[i]); loss.push(losses[i]); accuracy.push(accuracies[i]);
  }
  return {x: [x, x.slice()], y: [loss, accuracy]};
}

function read() {
  const value = props.value || '';
  if (!value.startsWith(seen)) {
    seen = ''; steps = []; losses = []; accuracies = []; stride = 1; drawn = 0; run += 1; made = false;
  }
  for (const point of value.slice(seen.length).split(';')) {
    const [step, loss, accuracy] = point.split(',').map(Number);
    if (point) { steps.push(step); losses.push(loss); accuracies.push(accuracy); }
  }
  seen = value;
  empty.hidden = steps.length > 0;
  root.classList.toggle('cd-has-curve', steps.length > 0);
  const last = steps.length - 1;
  plot.setAttribute('aria-label', last < 0 ? 'Loss and accuracy curves: no run yet'
    : `Step ${steps[last]}: loss ${losses[last].toFixed(2)} bits a token, `
      + `teacher-forced accuracy ${(100 * accuracies[last]).toFixed(0)} percent`);
}

async function draw() {
  asked = false;
  if (!window.Plotly) { later(); return; }
  if (!steps.length) { if (plot.data) { window.Plotly.purge(plot); plot.replaceChildren(); } made = false; return; }
  if (!made) {
    made = true; drawn = 0; dotted = false;
    await window.Plotly.newPlot(plot, traces(), layout(), {
      responsive: true, displaylogo: false, doubleClick: 'reset+autosize',
      modeBarButtonsToRemove: ['select2d', 'lasso2d', 'autoScale2d'],
      toImageButtonOptions: {filename: 'cramdemo-curves', scale: 2},
    });
  }
  if (steps.length / stride > POINTS) {
    while (steps.length / stride > POINTS / 2) { stride *= 2; }
    const all = thinned(0);
    window.Plotly.restyle(plot, all, [0, 1]);
  } else if (drawn < steps.length) {
    window.Plotly.extendTraces(plot, thinned(drawn), [0, 1]);
  }
  drawn = steps.length;
  if (dotted !== steps.length < 3) {  // a line needs two points; a run can end with one
    dotted = !dotted;
    window.Plotly.restyle(plot, {mode: dotted ? 'lines+markers' : 'lines'});
  }
}

function later() {
  if (!asked) { asked = true; window.Plotly ? requestAnimationFrame(draw) : setTimeout(draw, 100); }
}

function recolour() {
  if (!made || !window.Plotly || !plot.data) { return; }
  const fresh = layout(), change = {};
  for (const part of ['font', 'hoverlabel', 'legend']) { change[part] = fresh[part]; }
  for (const axis of ['xaxis', 'yaxis', 'yaxis2']) {
    change[axis + '.gridcolor'] = fresh[axis].gridcolor; change[axis + '.linecolor'] = fresh[axis].linecolor;
  }
  window.Plotly.update(plot, {'line.color': [colour('--cd-warm'), colour('--cd-accent')]}, change);
}

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


def allow_plotly() -> None:
    """Let gradio serve plotly.js from its package."""
    gr.set_static_paths([PLOTLY_FOLDER])


def head() -> str:
    """The script tag that loads plotly.js from this server."""
    return f'<script defer src="gradio_api/file={quote(str(PLOTLY_FOLDER / "plotly.min.js"))}"></script>'


def curves() -> gr.HTML:
    """The component; its value is the append-only string."""
    return gr.HTML(
        "",
        html_template=_TEMPLATE,
        js_on_load=_SCRIPT,
        apply_default_css=False,
        elem_id="curves",
        elem_classes="cd-flat",
    )
