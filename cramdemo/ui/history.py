"""The runs that a visitor has made, kept by the visitor's browser and nowhere else: settings, verdict and loss curve.

No text is in it, and no vectors. What a browser brings back may be anything, so it is read as a stranger's words are.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from cramdemo.errors import plural
from cramdemo.ui.chart import BLANK, axis, chart, figure, line
from cramdemo.ui.experiment import QUICK
from cramdemo.ui.live import LiveState
from cramdemo.ui.offer import entry_of

MOST_RUNS = 20
MOST_POINTS = 200  # of a curve
MOST_WORDS = 120  # characters of anything that is shown
STORAGE = "cramdemo-runs-1"
SECRET = "cramdemo"  # the same after a restart; what a browser keeps is no secret from its owner
COMPARED = 2

_TEMPLATE = """
<section class="cd-panel cd-runs" aria-label="Runs kept in this browser">
  <h3>Your runs, kept in this browser only
    <button type="button" class="cd-clear" aria-label="Clear the list of runs" hidden>Clear</button></h3>
  <p class="cd-empty">Each run that ends will have a line here: settings, verdict and loss curve, without its text.
  Tick two to lay their curves over each other.</p>
  <ul class="cd-runlist"></ul>
</section>
"""

_SCRIPT = """
const list = element.querySelector('.cd-runlist'), empty = element.querySelector('.cd-empty');
const clear = element.querySelector('.cd-clear');
let lines = null, picked = [];

function part(name, text) {
  const node = document.createElement('span');
  node.className = name; node.textContent = text;
  return node;
}

function row(run) {
  const item = document.createElement('li'), label = document.createElement('label');
  const box = document.createElement('input');
  Object.assign(box, {type: 'checkbox', value: run.number, checked: picked.includes(run.number)});
  label.dataset.kind = run.kind;
  label.append(box, part('cd-run-number', `#${run.number}`), part('cd-run-what', run.what),
    part('cd-run-verdict', run.verdict));
  item.append(label);
  return item;
}

function update() {
  const text = (props.value || {}).r || '[]';
  if (text === lines) { return; }
  lines = text;
  const runs = JSON.parse(text), numbers = runs.map(run => run.number);
  picked = picked.filter(number => numbers.includes(number));
  list.replaceChildren(...runs.map(row));
  empty.hidden = runs.length > 0; clear.hidden = !runs.length;
}

list.addEventListener('change', event => {
  const number = +event.target.value;
  picked = event.target.checked ? [...picked, number].slice(-2) : picked.filter(one => one !== number);
  for (const box of list.querySelectorAll('input')) { box.checked = picked.includes(+box.value); }
  trigger('select', {picked});
});
clear.addEventListener('click', () => { picked = []; trigger('clear'); });
watch('value', update);
update();
"""

CSS = """
.cd-runs h3 { flex-wrap: nowrap; }
.cd-clear { font-size: 12px; font-weight: 500; padding: 2px 8px; border: 1px solid var(--cd-line); border-radius: 6px;
  color: var(--cd-ink); background: var(--cd-sunk); cursor: pointer; }
.cd-clear[hidden] { display: none; }
.cd-runlist { list-style: none; margin: 6px 0 0 !important; padding: 0 !important; max-height: 246px;
  overflow-y: auto; }
.cd-runlist:empty { display: none; }
.cd-runlist li { margin: 0; }
.cd-runlist label { display: grid; grid-template-columns: auto 34px 1fr auto; gap: 2px 8px; align-items: baseline;
  padding: 6px 4px; border-top: 1px solid var(--cd-line); font-size: 13.5px; color: var(--cd-ink); cursor: pointer;
  font-variant-numeric: tabular-nums; }
.cd-runlist label:hover { background: var(--cd-sunk); }
.cd-runlist input { appearance: none; width: 16px; height: 16px; margin: 0; align-self: center; position: relative;
  border: 1.5px solid var(--cd-muted); border-radius: 4px !important; background: none !important; }
.cd-runlist input:checked { border-color: var(--cd-accent); background: var(--cd-accent) !important; }
.cd-runlist input:checked::after { content: ""; position: absolute; left: 4px; top: 0; width: 5px; height: 9px;
  border: solid var(--cd-surface); border-width: 0 2px 2px 0; transform: rotate(45deg); }
.cd-run-number { color: var(--cd-muted); }
.cd-run-what { overflow-wrap: anywhere; }
.cd-run-verdict { font-weight: 600; color: var(--cd-warm); text-align: right; }
[data-kind="lossless"] > .cd-run-verdict { color: var(--cd-accent); }
@media (max-width: 640px) {
  .cd-runlist label { grid-template-columns: auto 34px 1fr; }
  .cd-run-verdict { grid-column: 3; text-align: left; }
}
"""


@dataclass(frozen=True)
class Run:
    """What is kept of one run.

    Attributes:
        number: in the order they were made, from 1.
        model: its label. num_mem: K. num_tokens: N.
        decoded: leading tokens that greedy decoding gave; -1 if nobody decoded the vectors.
        lossless: all of them.
        steps, seconds: of the optimisation.
        settings: in words.
        curve: (step, loss in bits a token), `MOST_POINTS` at most.
    """

    number: int
    model: str
    num_mem: int
    num_tokens: int
    decoded: int
    lossless: bool
    steps: int
    seconds: float
    settings: str
    curve: tuple[tuple[float, float], ...]


def run_of(state: LiveState, model: str, preset: str) -> Run:
    """What is kept of a run, from its last state; its number comes with `remembered`."""
    result, progress = state.result, state.progress
    vectors = result.vectors if result else state.best
    assert vectors is not None
    return Run(
        number=0,
        model=entry_of(model).label,
        num_mem=vectors.num_mem,
        num_tokens=progress.num_tokens,
        decoded=result.verification.correct_prefix if result else -1,
        lossless=result is not None and result.lossless,
        steps=result.steps if result else progress.step,
        seconds=round(result.seconds if result else progress.seconds, 1),
        settings=_settings_words(state, preset),
        curve=thinned(state.curve),
    )


def _settings_words(state: LiveState, preset: str) -> str:
    config = state.config
    words = [preset, f"seed {config.seed}"]
    if state.search is not None:
        words.append("fewest sought")
    if state.result is not None and state.result.vectors.config.get("init") == "given":
        words.append("continued" if state.search is None else "warm start")
    elif config.init != "auto":
        words.append(f"from {config.init}")
    return ", ".join(words)


def thinned(curve: str, most: int = MOST_POINTS) -> tuple[tuple[float, float], ...]:
    """Step and loss of evenly chosen points, the first and the last among them.

    Args:
        curve: "step,loss,accuracy;" for each point.
    """
    rows = [row.split(",") for row in curve.split(";") if row]
    points = [(float(step), float(loss)) for step, loss, _ in rows if math.isfinite(float(loss))]
    count = min(most, len(points))
    return tuple(points[round(i * (len(points) - 1) / max(1, count - 1))] for i in range(count))


def remembered(kept: Any, run: Run) -> list[dict[str, Any]]:
    """The list that the browser keeps, with one more run: the newest first.

    Args:
        kept: what the browser has.
    """
    runs = read(kept)
    number = 1 + max((one.number for one in runs), default=0)
    newest = dataclasses.replace(run, number=number)
    return [dataclasses.asdict(one) for one in [newest, *runs][:MOST_RUNS]]


def read(kept: Any) -> list[Run]:
    """The runs that a browser brings back; what is not one of ours is left out."""
    items = kept if isinstance(kept, list) else []
    return [run for run in map(_read_one, items[:MOST_RUNS]) if run is not None]


def _read_one(item: Any) -> Run | None:
    if not isinstance(item, dict):
        return None
    try:
        run = Run(
            number=int(item["number"]),
            model=str(item["model"])[:MOST_WORDS],
            num_mem=int(item["num_mem"]),
            num_tokens=int(item["num_tokens"]),
            decoded=int(item["decoded"]),
            lossless=item["lossless"] is True,
            steps=int(item["steps"]),
            seconds=float(item["seconds"]),
            settings=str(item["settings"])[:MOST_WORDS],
            curve=tuple((float(step), float(loss)) for step, loss in item["curve"][:MOST_POINTS]),
        )
        json.dumps(dataclasses.asdict(run), allow_nan=False)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return run


def rows_of(runs: Iterable[Run]) -> dict[str, str]:
    """What the list shows."""
    rows = [
        {
            "number": run.number,
            "what": f"{run.model}, {plural(run.num_tokens, 'token')}, K = {run.num_mem} · {run.settings} · "
            f"{plural(run.steps, 'step')}, {run.seconds:.1f} s",
            "verdict": _verdict(run),
            "kind": "lossless" if run.lossless else "partial",
        }
        for run in runs
    ]
    return {"r": json.dumps(rows)}


def _verdict(run: Run) -> str:
    if run.lossless:
        return "lossless"
    return f"{run.decoded} of {run.num_tokens:,} decoded" if run.decoded >= 0 else "not verified"


def comparison(runs: Sequence[Run], picked: Sequence[Any]) -> dict[str, str]:
    """The figure of two runs' loss, the one picked first first; blank unless two were picked."""
    known = {run.number: run for run in runs}
    chosen = [known[number] for number in picked if isinstance(number, int) and number in known][:COMPARED]
    if len(chosen) < COMPARED:
        return dict(BLANK)
    traces = [
        line(
            f"#{run.number}: K = {run.num_mem}, {plural(run.num_tokens, 'token')}, {_verdict(run)}",
            number,
            x=[step for step, _ in run.curve],
            y=[loss for _, loss in run.curve],
            mode="lines" if len(run.curve) > 2 else "lines+markers",
            hovertemplate="step %{x}: %{y:.3f} bits a token",
        )
        for number, run in enumerate(chosen)
    ]
    layout = {
        "xaxis": axis("step", rangemode="tozero"),
        "yaxis": axis("loss, bits a token", rangemode="tozero"),
        "legend": {"orientation": "v", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "margin": {"l": 52, "r": 18, "t": 50, "b": 42},
    }
    title = finding(chosen[0], chosen[1])
    return {
        "f": figure(title, traces, layout, aside="Loss of the tokens in training, bits a token."),
        "d": "",
        "a": title,
    }


def finding(one: Run, other: Run) -> str:
    """What two runs beside each other show, in a sentence."""
    if one.lossless and other.lossless:
        return f"Both are lossless: #{one.number} took {_steps(one)}, #{other.number} {_steps(other)}"
    if one.lossless or other.lossless:
        won, lost = (one, other) if one.lossless else (other, one)
        return f"#{won.number} is lossless after {_steps(won)}, #{lost.number} is not after {_steps(lost)}"
    return f"Neither is lossless: #{one.number} took {_steps(one)}, #{other.number} {_steps(other)}"


def _steps(run: Run) -> str:
    return plural(run.steps, "step")


@dataclass(frozen=True)
class History:
    """The components: what the browser keeps, the list of it, and two of its curves in one figure."""

    kept: gr.BrowserState
    runs: gr.HTML
    chart: gr.HTML


def history() -> History:
    """Lay out and connect the list, and below it the figure, which is there once two runs are picked."""
    kept = gr.BrowserState([], storage_key=STORAGE, secret=SECRET)
    runs = gr.HTML(
        rows_of([]),
        html_template=_TEMPLATE,
        js_on_load=_SCRIPT,
        apply_default_css=False,
        elem_id="runs",
        elem_classes="cd-flat",
    )
    with gr.Column(visible=False, elem_id="compared") as place:
        compared = chart(
            "compare", "Two runs", "Tick two runs, and their loss curves will be laid over each other here."
        )
    kept.change(lambda found: rows_of(read(found)), kept, runs, **QUICK)
    runs.select(_compare, kept, [compared, place], **QUICK)
    runs.clear(
        lambda: ([], rows_of([]), dict(BLANK), gr.update(visible=False)), None, [kept, runs, compared, place], **QUICK
    )
    return History(kept, runs, compared)


def _compare(kept: Any, event: gr.EventData) -> tuple[dict[str, str], Any]:
    """The figure of the runs that the list's event names."""
    picked = event.picked if isinstance(event.picked, list) else []
    value = comparison(read(kept), picked)
    return value, gr.update(visible=bool(value["f"]))
