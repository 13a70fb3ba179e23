"""The Bytes tab: what vectors take beside what compressors make of the text, and how few bits they survive with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import gradio as gr

from cramdemo.catalogue import BUILT_IN, MODELS
from cramdemo.config import CramConfig
from cramdemo.cram import CramResult, cram
from cramdemo.errors import plural
from cramdemo.models import FrozenLM
from cramdemo.storage import (
    ALL_FORMATS,
    FLOATS,
    FORMATS,
    NOISE_LEVELS,
    NOISE_SEEDS,
    Positions,
    Stored,
    Weighed,
    bits_of,
    text_sizes,
    weigh,
)
from cramdemo.ui.chart import BLANK, axis, chart, dots, figure, line
from cramdemo.ui.compress import Outcome
from cramdemo.ui.decode import check_vectors, model_for
from cramdemo.ui.experiment import QUICK, Experiment, connect, controls
from cramdemo.ui.handout import connect_offer, rescue
from cramdemo.ui.jobs import Flag
from cramdemo.ui.live import status_line
from cramdemo.ui.samples import read_samples
from cramdemo.ui.shelf import SHELF, Loading
from cramdemo.ui.tokens import visible_texts
from cramdemo.vectors import MAX_BITS, MIN_BITS, MemVectors, from_bytes, load, to_bytes

TASK = "bytes"
FIRST_BITS = 4  # where the slider stands
IDLE = (
    "Ready. The vectors will be decoded in 18 number formats and with noise added: about 5 seconds for a paragraph, "
    "and 1 more for every 10 tokens beyond it."
)
_COMPRESSORS = {
    "UTF-8": "the text as it is",
    "zlib": "level 9, as in gzip",
    "xz": "LZMA at its strongest",
    "zstd": "level 22",
}
_CODER = "this model + entropy coder"
_CHARTS = {
    "bits": ("Tokens against bits per number", "How many tokens come back at 2 to 16 bits per number will stand here."),
    "noise": (
        "Accuracy against noise",
        f"Noise of {len(NOISE_LEVELS)} strengths will be added to the vectors, {NOISE_SEEDS} draws of each: the share "
        "of tokens still right will stand here.",
    ),
}
_X1500 = """
<section class="cd-panel cd-size-words" aria-labelledby="bytes-x1500"><h3 id="bytes-x1500">What “x1500” means</h3>
<p>It counts tokens of text for each input vector: a single vector of Llama-3.1-8B gives back 1,568 tokens. It does
not count bytes: that vector is 4,096 numbers, 8,192 bytes at 16 bits, for about 7,000 characters of text, and the same
model with an entropy coder needs only 228 bytes for 512 such tokens. The finding is how much one input position can
carry, and what it saves is positions in the model’s context, not space on a disk.</p></section>
"""
_CAVEAT = """
<p class="cd-size-caveat"><strong>Reconstruction is not understanding.</strong> With crammed vectors in front,
multiple-choice accuracy falls toward chance and generative MMLU to about 0, even with the text in the context
(progressive cramming). The saving is real for giving a text back; it buys no prompt that a model can use.</p>
"""

_VIEW = """
<section class="cd-panel cd-size-view" aria-labelledby="bytes-view-title">
  <h3><label for="bytes-slider" id="bytes-view-title">Bits per number</label> <output for="bytes-slider"></output></h3>
  <div class="cd-size-slider"><span aria-hidden="true">@least@</span>
    <input type="range" id="bytes-slider" min="@least@" max="@most@" step="1" value="@first@">
    <span aria-hidden="true">@most@</span></div>
  <p class="cd-size-said" role="status"></p>
  <div class="cd-size-text" tabindex="0" role="group"
    aria-label="What the model writes; a wrong token is underlined with a wave"></div>
  <p class="cd-empty">The text as the model writes it from vectors of so many bits will stand here, with a wavy line
  under every token lost. Move the slider to break it.</p>
</section>
"""
_VIEW_SCRIPT = """
const find = name => element.querySelector(name);
const slider = find('input'), out = find('output'), said = find('.cd-size-said'), box = find('.cd-size-text');
const empty = find('.cd-empty');
let levels = {}, tokens = [], drawn = '';

function read() {
  const value = props.value || {};
  tokens = value.t ? JSON.parse(value.t) : [];
  levels = {};
  for (const row of (value.v || '').split('\\n')) {
    if (row) { const [bits, bytes, marks, texts] = JSON.parse(row); levels[bits] = {bytes, marks, texts}; }
  }
  draw();
}

function sentence(level) {
  const wrong = level.marks.indexOf('0'), count = tokens.length;
  if (wrong < 0) { return `All ${count} tokens come back.`; }
  const lost = level.marks.split('0').length - 1;
  const words = `“${level.texts[wrong]}” in place of “${tokens[wrong]}”`;
  return `${wrong} of ${count} tokens, then token ${wrong + 1} breaks: ${words}. ${lost} lost in all.`;
}

function draw() {
  const bits = slider.value, level = levels[bits], filled = tokens.length > 0;
  empty.hidden = filled; box.hidden = said.hidden = !filled;
  out.textContent = `${bits} bits` + (level ? ` · ${level.bytes.toLocaleString('en')} bytes` : '');
  const words = level ? sentence(level) : filled ? 'Not decoded yet.' : '';
  if (said.textContent !== words) { said.textContent = words; }
  slider.setAttribute('aria-valuetext', `${bits} bits. ${words}`);
  const key = level ? bits + level.marks + tokens.join('') : '';
  if (key === drawn) { return; }
  drawn = key;
  const wrong = level ? level.marks.indexOf('0') : -1;
  box.replaceChildren(...(level ? (level.texts || tokens) : []).map((text, i) => {
    const span = document.createElement('span');
    span.className = level.marks[i] === '1' ? 'cd-token cd-right' : 'cd-token cd-wrong';
    if (i === wrong) { span.classList.add('cd-size-first'); }
    if (level.marks[i] === '0') { span.title = `token ${i + 1}: the text has “${tokens[i]}”`; }
    span.textContent = text === '' ? '\\u25cc' : text;
    return span;
  }));
}

slider.addEventListener('input', draw);
watch('value', read);
read();
"""
NO_VIEW = {"t": "", "v": ""}

CSS = """
.cd-size-table { width: 100%; border-collapse: collapse; margin-top: 10px; font-size: 13.5px;
  font-variant-numeric: tabular-nums; }
.cd-size-table caption { text-align: left; font-size: 16.5px; font-weight: 600; line-height: 1.35; min-height: 2.7em;
  color: var(--cd-ink); padding-bottom: 6px; }
.cd-size-table th, .cd-size-table td { text-align: left; vertical-align: middle; padding: 5px 0;
  border-top: 1px solid var(--cd-line); color: var(--cd-ink); }
.cd-size-table th { font-weight: 500; width: 38%; padding-right: 12px; }
.cd-size-table th small { display: block; font-weight: 400; font-size: 12px; line-height: 1.35;
  color: var(--cd-muted); }
.cd-size-table td b { font-weight: 600; white-space: nowrap; }
.cd-size-table td i { display: block; height: 7px; min-width: 2px; border-radius: 2px; margin-top: 3px;
  background: var(--cd-muted); opacity: .55; }
.cd-size-table tr[data-kind="survives"] td i { background: var(--cd-accent); opacity: 1; }
.cd-size-table tr[data-kind="breaks"] td i { opacity: 1; background: repeating-linear-gradient(135deg,
  var(--cd-warm) 0 3px, transparent 3px 6px); outline: 1px solid var(--cd-warm); }
.cd-size-table td:last-child { width: 29%; padding-left: 12px; color: var(--cd-muted); }
.cd-size-table tr[data-kind="survives"] td:last-child { color: var(--cd-accent); font-weight: 600; }
.cd-size-table tr[data-kind="breaks"] td:last-child { color: var(--cd-warm); font-weight: 600; }
.cd-size-table tr.cd-size-group th { border-top: 0; padding-top: 12px; font-size: 12.5px; font-weight: 600;
  color: var(--cd-muted); }
.cd-size-positions th[scope="row"] { width: 46%; }
.cd-size-positions thead td, .cd-size-positions thead th { font-size: 12.5px; color: var(--cd-muted); border-top: 0; }
.cd-size-positions td:last-child { width: auto; color: var(--cd-ink); padding-left: 0; }
.cd-size-words p, .cd-size-caveat { font-size: 13.5px; line-height: 1.55; color: var(--cd-muted); }
.cd-size-words p { margin-top: 6px; }
.cd-size-caveat { margin-top: 12px !important; padding: 10px 12px; border-left: 4px solid var(--cd-warm);
  background: var(--cd-sunk); color: var(--cd-ink); }
.cd-size-source blockquote { margin: 8px 0 0; padding: 0 0 0 12px; border-left: 3px solid var(--cd-line);
  font: 15px/1.5 var(--cd-serif); color: var(--cd-ink); white-space: pre-wrap; }
.cd-size-source p { margin-top: 6px; font-size: 13.5px; line-height: 1.5; color: var(--cd-ink); }
.cd-size-view label { font-size: 14px; color: var(--cd-ink); }
.cd-size-view output { font-size: 14px; font-weight: 600; color: var(--cd-ink); font-variant-numeric: tabular-nums; }
.cd-size-slider { display: flex; align-items: center; gap: 10px; margin-top: 8px; font-size: 13px;
  color: var(--cd-muted); font-variant-numeric: tabular-nums; }
.cd-size-slider input { flex: 1; min-width: 0; height: 24px; accent-color: var(--cd-accent); cursor: pointer; }
.cd-size-view { min-height: 222px; }
#bytes-status .cd-status { min-height: 116px; }
.cd-size-said { margin-top: 6px !important; min-height: 3em; font-size: 14px; line-height: 1.5; font-weight: 600;
  color: var(--cd-ink); white-space: pre-wrap; overflow-wrap: anywhere; }
.cd-size-text { max-height: 220px; overflow-y: auto; font-size: 15.5px; line-height: 1.8; white-space: pre-wrap;
  overflow-wrap: anywhere; }
.cd-size-first { border-left: 3px solid var(--cd-warm); padding-left: 2px; }
@media (max-width: 640px) {
  .cd-size-table th { width: 35%; }
  .cd-size-table td:last-child { width: 34%; font-size: 13px; }
  .cd-size-table th small { overflow-wrap: anywhere; }
  #bytes-status .cd-status { min-height: 172px; }
  .cd-size-view { min-height: 300px; }
  .cd-size-positions td:last-child { width: auto; font-size: 13.5px; }
}
"""


@dataclass(frozen=True)
class Making:
    """The example's vectors on their way: tokens right under teacher forcing, of N, after so many steps."""

    solved: int
    num_tokens: int
    step: int


@dataclass(frozen=True)
class Measured:
    """What the tab shows at one moment.

    Attributes:
        weighed: what is known so far.
        tokens: the text's tokens, a JSON list, control characters as pictures.
        levels: a JSON line `[bits, bytes, marks, texts]` for each quantised format decoded so far; texts are null
            where they are the text's.
        stopped: it ended before all was known.
    """

    weighed: Weighed
    tokens: str
    levels: str
    stopped: bool = False


@dataclass(frozen=True)
class File:
    """The smallest vectors that survive, as a file to be offered."""

    data: bytes = b""
    name: str = ""


@dataclass(frozen=True)
class _Row:
    """A row of the table of bytes; a size that is not known yet is None."""

    name: str
    size: int | None
    why: str
    verdict: str = ""
    kind: str = "text"


NOTHING = File()


def given(outcome: Outcome, path: str | None) -> MemVectors | None:
    """The vectors to weigh: of the file, else of the last run; None where the example has to be made first.

    Raises:
        VectorFileError: the file cannot be read.
    """
    if path:
        return load(path)
    return from_bytes(outcome.data) if outcome.data else None


def check(outcome: Outcome, path: str | None, token: str | None) -> None:
    """Refuse what cannot be weighed.

    Raises:
        VectorFileError: the file cannot be read.
        ModelMismatch: its model is not on offer here.
        ModelError: its model cannot run here.
    """
    vectors = given(outcome, path)
    if vectors is None:
        return
    check_vectors(vectors, token)


def run(outcome: Outcome, path: str | None, token: str | None, stop: Flag) -> Iterator[Making | Measured | Loading]:
    """Weigh the vectors, on the worker's thread or in a child; make the example's first where there are none.

    Raises:
        CramError: see `check`, `cram` and `weigh`.
    """
    vectors = given(outcome, path)
    if vectors is None:
        vectors = yield from _example(token, stop)
    lm = yield from SHELF.bring(model_for(vectors).name, "auto", token, stop)
    tokens, levels, last = "", "", None
    for weighed in weigh(lm, vectors, stop.is_set):
        tokens = tokens or json.dumps(visible_texts(lm, weighed.token_ids))
        known = len(last.weighed.stored) if last else 0
        levels += "".join(_level(lm, each, weighed.token_ids) for each in weighed.stored[known:])
        last = Measured(weighed, tokens, levels)
        yield last
    if last and not last.weighed.ended:
        yield replace(last, stopped=True)


def show(state: Making | Measured) -> tuple[str, tuple[Any, ...]]:
    """The status line, and the values of the outputs: table, text, both charts, positions, file."""
    if isinstance(state, Making):
        cells = [("step", str(state.step)), ("tokens solved", f"{state.solved} of {state.num_tokens}")]
        return status_line("running", "Cramming the example", cells, state.solved / state.num_tokens), BLANKS
    weighed = state.weighed
    view = {"t": state.tokens, "v": state.levels}
    values = (sizes_html(weighed), view, bits_chart(weighed), noise_chart(weighed), positions_html(weighed))
    return _status(state), (*values, _file(weighed.smallest))


def sizes_html(weighed: Weighed | None) -> str:
    """The table of bytes; with None the same rows, empty."""
    texts = weighed.texts if weighed else [(name, None) for name, _ in text_sizes("")]
    rows = [_Row(name, size, _COMPRESSORS.get(name, "")) for name, size in texts]
    rows.append(_Row(_CODER, weighed.entropy_bytes if weighed else None, _coder_why(weighed), "needs the model too"))
    forms = {each.name: each for each in weighed.stored} if weighed else {}
    ended = bool(weighed and weighed.ended)
    vectors = [_format_row(name, forms.get(name), ended) for name in FORMATS]
    vectors.append(_smallest_row(weighed))
    largest = max([1, *(row.size or 0 for row in (*rows, *vectors))])
    body = "".join(_row_html(row, largest) for row in rows)
    body += '<tr class="cd-size-group"><th colspan="3" scope="rowgroup">The vectors, each decoded</th></tr>'
    body += "".join(_row_html(row, largest) for row in vectors)
    group = '<tr class="cd-size-group"><th colspan="3" scope="rowgroup">The text</th></tr>'
    return (
        '<section class="cd-panel" aria-label="Bytes"><table class="cd-size-table">'
        f"<caption>{escape(_finding(weighed))}</caption><tbody>{group}{body}</tbody></table></section>"
    )


def positions_html(weighed: Weighed | None) -> str:
    """What K positions cost a model in place of N; with None the same rows, empty."""
    title = "Positions: K in place of N"
    if weighed:
        mem, text = weighed.positions
        title = f"{text.count / mem.count:,.0f} times fewer positions" if text.count > mem.count else title
    if weighed and mem.cache_bytes is None:
        body = (
            "<p class='cd-empty'>This model has no attention and no KV cache: its state has one size, so "
            f"{plural(mem.count, 'position')} or {text.count:,} cost it the same to go on from.</p>"
        )
    else:
        body = _positions_table(weighed.positions if weighed else None)
    return f'<section class="cd-panel cd-size-cost"><h3>{title}</h3>{body}{_CAVEAT}</section>'


def bits_chart(weighed: Weighed) -> dict[str, str]:
    """Tokens before the first wrong one, by bits per number."""
    forms = sorted((each for each in weighed.stored if each.name not in FLOATS), key=lambda each: each.bits)
    if not forms:
        return dict(BLANK)
    count = len(weighed.token_ids)
    name = "tokens before the first wrong"
    path = line(name, 4, x=[f.bits for f in forms], y=[f.correct_prefix for f in forms], hoverinfo="skip")
    path |= {"showlegend": False, "line": {"color": "--cd-muted", "width": 1}}
    traces = [path]
    for number, (words, kind) in enumerate((("survives", True), ("breaks", False))):
        group = [each for each in forms if each.survives is kind]
        x, y = [each.bits for each in group], [each.correct_prefix for each in group]
        tip = f"%{{x}} bits: %{{y}} of {count} tokens<extra>{words}</extra>"
        traces.append(dots(words, number, x=x, y=y, hovertemplate=tip))
    layout = {
        "xaxis": axis("bits per number", range=[MIN_BITS - 0.5, MAX_BITS + 0.5], dtick=2),
        "yaxis": axis(name, range=[-0.04 * count, 1.08 * count]),
    }
    title = _bits_finding(forms)
    return {"f": figure(title, traces, layout), "d": "", "a": title}


def noise_chart(weighed: Weighed) -> dict[str, str]:
    """Accuracy and exact decodings, by strength of noise."""
    points = weighed.noise
    if not points:
        return dict(BLANK)
    x = [point.sigma for point in points]
    tip = "σ %{x}: %{y:.1%}"
    accuracy = line("of tokens right, teacher-forced", 0, x=x, y=[point.accuracy for point in points])
    exact = line(f"of {NOISE_SEEDS} draws, decoded exactly", 1, x=x, y=[point.exact / NOISE_SEEDS for point in points])
    traces = [each | {"mode": "lines+markers", "hovertemplate": tip} for each in (accuracy, exact)]
    traces[1]["marker"] = {"symbol": "diamond-open", "size": 8}
    layout = {
        "xaxis": axis("noise: σ over the vector’s RMS", type="log", tickvals=[0.01, 0.03, 0.1, 0.3, 1]),
        "yaxis": axis("share", range=[-0.03, 1.06], tickformat=".0%"),
    }
    title = _noise_finding(weighed)
    return {"f": figure(title, traces, layout), "d": "", "a": title}


def source_html(outcome: Outcome, path: str | None) -> str:
    """What Start will weigh."""
    sample = read_samples()[0]
    if path:
        words, quote = "The file below.", ""
    elif outcome.data:
        words, quote = "The vectors of the last run on the Compress tab.", ""
    else:
        words = (
            f"Nothing has been crammed yet, so an example will be made first, on cram-mini with "
            f"{plural(sample.num_mem, 'memory token')}, in about a second:"
        )
        quote = f"<blockquote>{escape(sample.text)}</blockquote>"
    return (
        f'<section class="cd-panel cd-size-source" aria-label="What will be weighed"><h3>What will be weighed</h3>'
        f"<p>{escape(words)}</p>{quote}</section>"
    )


def tab(queue_limit: int | None, outcome: gr.State) -> None:
    """Lay out the tab and connect it.

    Args:
        outcome: what the last run on the Compress tab left.
    """
    with gr.Row(elem_classes="cd-columns"):
        with gr.Column(scale=5, min_width=320, elem_classes="cd-left"):
            source = _flat(source_html(Outcome(), None), "bytes-source")
            buttons = controls(TASK, "Weigh the bytes", IDLE)
            file = gr.File(
                label="Or a vector file (.safetensors)", file_types=[".safetensors"], height=130, elem_id="bytes-file"
            )
            _flat(_X1500, "bytes-words")
            positions = _flat(positions_html(None), "bytes-positions")
        with gr.Column(scale=7, min_width=320, elem_classes="cd-right"):
            buttons.status.render()  # type: ignore[no-untyped-call]
            sizes = _flat(sizes_html(None), "bytes-sizes")
            download = gr.DownloadButton(
                "Download the smallest that survives", interactive=False, size="md", elem_id="bytes-download"
            )
            place = rescue()
            view = _view()
            charts = [chart(f"bytes-{name}", *words, height=260) for name, words in _CHARTS.items()]
    smallest = gr.State(NOTHING)
    outputs = [sizes, view, *charts, positions, smallest]
    ended = connect(Experiment(TASK, [outcome, file], outputs, check, run, show, BLANKS), buttons, queue_limit)
    connect_offer(ended, smallest, download, place)
    for changed in (outcome.change, file.upload, file.clear):
        changed(source_html, [outcome, file], source, **QUICK)


def _flat(html: str, elem_id: str) -> gr.HTML:
    return gr.HTML(html, apply_default_css=False, elem_id=elem_id, elem_classes="cd-flat")


def _view() -> gr.HTML:
    """The text with a slider: value {"t": tokens, "v": levels} as in `Measured`; moving it asks no server."""
    template = _VIEW.replace("@least@", str(MIN_BITS)).replace("@most@", str(MAX_BITS))
    return gr.HTML(
        dict(NO_VIEW),
        html_template=template.replace("@first@", str(FIRST_BITS)),
        js_on_load=_VIEW_SCRIPT,
        apply_default_css=False,
        elem_id="bytes-view",
        elem_classes="cd-flat",
    )


def _example(token: str | None, stop: Flag) -> Any:
    """Cram the first sample; returns its vectors."""
    sample = read_samples()[0]
    lm = yield from SHELF.bring(BUILT_IN, "auto", token, stop)
    config = CramConfig.for_model(MODELS[BUILT_IN], num_mem=sample.num_mem)
    for item in cram(lm, sample.text, config, stop=stop.is_set):
        if isinstance(item, CramResult):
            return item.vectors
        yield Making(item.solved_total, item.num_tokens, item.step)
    raise AssertionError("a run ends with its result")


def _level(lm: FrozenLM, stored: Stored, token_ids: Sequence[int]) -> str:
    """A line of `Measured.levels`; "" for what is not quantised."""
    if stored.name in FLOATS:
        return ""
    marks = "".join("01"[ours == theirs] for ours, theirs in zip(stored.token_ids, token_ids, strict=True))
    texts = None if stored.survives else visible_texts(lm, stored.token_ids)
    return json.dumps([stored.bits, stored.num_bytes, marks, texts]) + "\n"


def _status(state: Measured) -> str:
    weighed = state.weighed
    decoded, noise = len(weighed.stored), len(weighed.noise)
    cells = [
        ("tokens", f"{len(weighed.token_ids):,}"),
        ("formats decoded", f"{decoded} of {len(ALL_FORMATS)}"),
        ("noise levels", f"{noise} of {len(NOISE_LEVELS)}"),
        ("decoded on", weighed.where),
    ]
    if state.stopped:
        return status_line("done", "Stopped, what is known is kept", cells, _share(weighed))
    if not weighed.ended:
        head = "Decoding in fewer and fewer bits" if not weighed.smallest and not noise else "Adding noise"
        return status_line("running", head, cells, _share(weighed))
    head = "Weighed" if weighed.matches else "Weighed, but the vectors do not hold their original text: see the table"
    return status_line("done", head, cells, 1.0)


def _share(weighed: Weighed) -> float:
    return (len(weighed.stored) + len(weighed.noise)) / (len(ALL_FORMATS) + len(NOISE_LEVELS))


def _finding(weighed: Weighed | None) -> str:
    """The table's caption."""
    if weighed is None:
        return "Bytes of the text, and of the vectors in each number format, will stand here side by side."
    count = f"{plural(len(weighed.token_ids), 'token')} in {plural(weighed.num_mem, 'vector')}"
    if not weighed.matches:
        return f"{count}: not the original text by the file’s digest, so measured against what they decode to."
    text_name, text_bytes = min(weighed.texts, key=lambda size: size[1])
    if not weighed.smallest:
        return f"{count}; the text is {text_bytes:,} bytes in {text_name}."
    vector_bytes = weighed.smallest.num_bytes
    verdict = "less than" if vector_bytes < text_bytes else "more than"
    return f"{count}: at best {vector_bytes:,} bytes, {verdict} the text’s {text_bytes:,} in {text_name}."


def _coder_why(weighed: Weighed | None) -> str:
    if weighed is None:
        return "ideal: H_LM and log2(V) for the first token"
    return f"ideal: {weighed.entropy_bits:,.1f} bits = H_LM of tokens 2 to N, and log2(V) for the first"


def _format_row(name: str, stored: Stored | None, ended: bool) -> _Row:
    why = f"{bits_of(name)} bits a number" + ("" if name in FLOATS else " + scale")
    if stored is None:
        return _Row(name, None, why, "cannot hold them" if ended else "")
    if stored.survives:
        return _Row(name, stored.num_bytes, why, "✓ survives", "survives")
    return _Row(name, stored.num_bytes, why, f"✗ breaks at token {stored.correct_prefix + 1}", "breaks")


def _smallest_row(weighed: Weighed | None) -> _Row:
    """Always there, so that nothing moves when it is known."""
    if not weighed or not weighed.smallest:
        none = "none survives" if weighed and weighed.ended else ""
        return _Row("smallest that survives", None, "of 2 to 16 bits a number", none)
    found = weighed.smallest
    name = f"smallest: {found.number_format}"
    return _Row(name, found.num_bytes, "of 2 to 16 bits a number", "✓ download below", "survives")


def _row_html(row: _Row, largest: int) -> str:
    size = "<b>…</b><i style='visibility:hidden'></i>"
    if row.size is not None:
        size = f"<b>{row.size:,} B</b><i style='width:{100 * row.size / largest:.1f}%'></i>"
    return (
        f'<tr data-kind="{row.kind}"><th scope="row">{escape(row.name)}<small>{escape(row.why)}</small></th>'
        f"<td>{size}</td><td>{escape(row.verdict)}</td></tr>"
    )


def _positions_table(known: tuple[Positions, Positions] | None) -> str:
    """KV cache and attention of K memory tokens and of N tokens of text."""
    counts, cache, attention = ("N", "K"), ("…", "…"), ("…", "…")
    if known:
        few, many = known
        counts = f"N = {many.count:,}", f"K = {few.count}"
        cache = f"{many.cache_bytes:,}", f"{few.cache_bytes:,}"
        attention = f"{many.attention_flops:,}", f"{few.attention_flops:,}"
    rows = (
        ("KV cache, bytes", "2 × layers × key-value heads × head width × bytes × positions", cache),
        ("Attention of one more token, FLOPs", "4 × layers × heads × head width × positions", attention),
    )
    body = "".join(
        f"<tr><th scope='row'>{name}<small>{why}</small></th><td><b>{text}</b></td><td><b>{mem}</b></td></tr>"
        for name, why, (text, mem) in rows
    )
    head = f"<th scope='col'>text, {counts[0]}</th><th scope='col'>[mem], {counts[1]}</th>"
    return (
        f"<table class='cd-size-table cd-size-positions'><thead><tr><td></td>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table>"
    )


def _bits_finding(forms: Sequence[Stored]) -> str:
    broken = [each.bits for each in forms if not each.survives]
    alive = [each.bits for each in forms if each.survives]
    if not broken:
        return f"Nothing is lost down to {min(alive)} bits"
    kept = [bits for bits in alive if bits > max(broken)]
    return f"Nothing is lost from {min(kept)} bits on" if kept else f"It breaks at {max(broken)} bits"


def _noise_finding(weighed: Weighed) -> str:
    unhurt = 0.0
    for point in weighed.noise:
        if point.exact < NOISE_SEEDS:
            break
        unhurt = point.sigma
    if not unhurt:
        return f"Noise of {NOISE_LEVELS[0]:.0%} already breaks it"
    return f"Noise of {unhurt:.0%} does no harm"


def _file(vectors: MemVectors | None) -> File:
    if vectors is None:
        return NOTHING
    name = f"{vectors.model_id}-{vectors.num_tokens}tok-k{vectors.num_mem}-{vectors.number_format}.safetensors"
    return File(to_bytes(vectors), name.replace("/", "-"))


BLANKS = (sizes_html(None), NO_VIEW, BLANK, BLANK, positions_html(None), NOTHING)
