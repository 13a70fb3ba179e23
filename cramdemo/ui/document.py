"""The Document tab: a text of any length as segments, a live map of them, one file, and the text read back from it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from cramdemo.config import CramConfig
from cramdemo.document import (
    DONE,
    LONGEST,
    MEMORY,
    ROWS,
    DocumentState,
    Segment,
    cram_document,
    decode_document,
    finished,
    pack,
)
from cramdemo.errors import CramError, TextError, VectorFileError, plural
from cramdemo.models import FrozenLM
from cramdemo.packing import FIRST_TOKENS
from cramdemo.segments import DocumentVectors, from_bytes, load, to_bytes
from cramdemo.settings import limited, server_settings
from cramdemo.ui.capacity import read_samples
from cramdemo.ui.decode import bring_for, check_vectors
from cramdemo.ui.experiment import Experiment, connect, controls, in_time
from cramdemo.ui.handout import connect_offer, rescue
from cramdemo.ui.jobs import Flag
from cramdemo.ui.live import clock, status_line
from cramdemo.ui.offer import check_can_run, entry_of
from cramdemo.ui.picker import guessed_tokens, model_choice
from cramdemo.ui.shelf import SHELF, Loading
from cramdemo.ui.tokens import text_view

TASK, BACK = "document", "document-back"
MOST_BYTES = 200_000  # of a text
MOST_K = 16
SHOW_SECONDS = 0.25  # a map of a thousand segments is no small thing to draw
QUICKLY, FULLY = "quickly", "fully"
SECONDS_A_KILOBYTE = 5  # on cram-mini and two idle cores
IDLE = (
    f"Ready. Takes about {SECONDS_A_KILOBYTE} seconds for each 1,000 characters with cram-mini on two idle cores. Stop "
    "keeps the segments that are done."
)
BACK_IDLE = "Ready. Reads the document above back, or a document’s file, in about a second for each 1,000 characters."
NO_MAP = {"n": 0, "s": ""}
LOSSLESS, PARTIAL, RUNNING = "lossless", "partial", "running"
_MAP = """
<section class="cd-panel cd-map"><h3>The text, segment by segment</h3>
  <p class="cd-map-key" aria-hidden="true"><span><i data-kind="lossless"></i>decodes exactly</span>
    <span><i data-kind="running"></i>in work</span> <span><i data-kind="partial"></i>not exact</span>
    <span><i></i>waiting</span></p>
  <div class="cd-map-strip" role="img" aria-label="No segments yet"></div>
  <p class="cd-empty">Each segment of your text will stand here, as wide as it is long: where its vectors hold no more,
  the next one begins.</p>
</section>
"""
_MAP_SCRIPT = """
const strip = element.querySelector('.cd-map-strip'), empty = element.querySelector('.cd-empty');
const WORDS = {lossless: 'decodes exactly', running: 'in work', partial: 'not exact', '': 'waiting'};
function part(kind, start, end, solved) {
  const node = document.createElement('i');
  node.style.flexGrow = end - start; node.style.flexBasis = `${Math.max(4, (end - start) / 3)}px`;
  if (kind) { node.dataset.kind = kind; }
  if (kind === 'running') { node.style.setProperty('--cd-share', solved / (end - start)); }
  node.title = `tokens ${start + 1} to ${end}: ${WORDS[kind]}` + (kind === 'running' ? `, ${solved} right` : '');
  return node;
}
function update() {
  const value = props.value || {}, parts = [], count = {};
  let at = 0;
  for (const row of (value.s || '').split(';')) {
    if (!row) { continue; }
    const [kind, start, end, solved] = row.split(',');
    if (+start > at) { parts.push(part('', at, +start, 0)); }
    parts.push(part(kind, +start, +end, +solved)); at = +end;
    count[kind] = (count[kind] || 0) + 1;
  }
  if (value.n > at) { parts.push(part('', at, value.n, 0)); }
  strip.replaceChildren(...parts);
  empty.hidden = parts.length > 0; strip.hidden = !parts.length;
  const said = Object.keys(WORDS).filter(kind => count[kind]).map(kind => `${count[kind]} ${WORDS[kind]}`);
  strip.setAttribute('aria-label', said.length ? `Segments: ${said.join(', ')}` : 'No segments yet');
}
watch('value', update);
update();
"""
NO_CARD = (
    '<section class="cd-panel cd-await cd-document-card"><h3>Result</h3><p class="cd-empty">How many segments it took, '
    "how full they are, and whether the whole text decodes exactly will stand here.</p></section>"
)
CSS = """
.cd-map-strip { display: flex; flex-wrap: wrap; gap: 2px; margin-top: 10px; max-height: 320px; overflow-y: auto; }
.cd-map-strip[hidden] { display: none; }
.cd-map-strip i, .cd-map-key i { height: 18px; border-radius: 3px; border: 1px solid var(--cd-line);
  background: var(--cd-sunk); box-sizing: border-box; }
.cd-map-key i { display: inline-block; width: 22px; height: 12px; margin-right: 6px; vertical-align: -1px; }
.cd-map i[data-kind="lossless"] { background: var(--cd-accent); border-color: var(--cd-accent); }
.cd-map i[data-kind="running"] { border-color: var(--cd-accent); background: linear-gradient(90deg,
  var(--cd-accent-soft) calc(100% * var(--cd-share, .5)), transparent 0); }
.cd-map i[data-kind="partial"] { border-color: var(--cd-warm); background: repeating-linear-gradient(135deg,
  var(--cd-warm) 0 3px, transparent 3px 6px); }
.cd-map-key { display: flex; flex-wrap: wrap; gap: 4px 16px; margin-top: 8px !important; font-size: 13px;
  color: var(--cd-muted); }
.cd-map { min-height: 160px; }
.cd-document-card { min-height: 132px; }
.cd-card.cd-document-card h3 { font-size: 16.5px; font-weight: 600; color: var(--cd-ink); }
.cd-document-card dl { display: flex; flex-wrap: wrap; gap: 8px 26px; margin-top: 10px; }
.cd-document-card dt { font-size: 12.5px; color: var(--cd-muted); }
.cd-document-card dd { font-size: 17px; font-weight: 600; color: var(--cd-ink); font-variant-numeric: tabular-nums; }
.cd-document-card p { margin-top: 8px; font-size: 14px; line-height: 1.5; color: var(--cd-ink); }
#document-status .cd-status, #document-back-status .cd-status { min-height: 118px; }
@media (max-width: 720px) {
  #document-status .cd-status, #document-back-status .cd-status { min-height: 200px; }
  .cd-document-card { min-height: 210px; }
}
"""


@dataclass(frozen=True)
class Outcome:
    """What a run leaves: the document's file, and its name; no bytes where there is none."""

    data: bytes = b""
    name: str = ""


@dataclass(frozen=True)
class Moment:
    """A run at one moment, and at its end its file."""

    state: DocumentState
    outcome: Outcome


@dataclass(frozen=True)
class Reading:
    """A document that is read back: what is written so far, segments done and their number, those that are not right.

    Attributes:
        gaps: stretches of the text that no segment holds.
        ended: nothing more comes. stopped: though there is more.
    """

    text: str
    done: int
    count: int
    wrong: tuple[int, ...]
    gaps: int
    ended: bool = False
    stopped: bool = False


NOTHING = Outcome()


def text_of(text: str, path: str | None) -> str:
    """The text of a file, if one is given, or else of the box.

    Raises:
        TextError: no text, more than the page takes, or a file that is not UTF-8.
    """
    data = Path(path).read_bytes()[: MOST_BYTES + 1] if path else text.encode("utf-8", "surrogatepass")
    if len(data) > MOST_BYTES:
        raise TextError(f"The text is longer than {MOST_BYTES // 1000} kB. Shorten it, or use the command line.")
    if not data:
        raise TextError("The text is empty. Paste or type one, or give a text file.")
    try:
        return data.decode("utf-8") if path else text
    except UnicodeDecodeError:
        raise TextError("The file is not UTF-8 text. Save it as UTF-8 and try again.") from None


def check(  # noqa: PLR0917  # in the order of the widgets
    text: str, path: str | None, model: str, num_mem: float, fill: str, before: Outcome, token: str | None
) -> None:
    """Refuse what cannot be crammed.

    Raises:
        CramError: no text or too long a one, or the model cannot run here.
    """
    tokens = guessed_tokens(len(text_of(text, path)))
    config = _config(model, num_mem)
    at_once = min(tokens, ROWS * LONGEST * FIRST_TOKENS * config.num_mem, entry_of(model).context - config.num_mem)
    check_can_run(entry_of(model), at_once, config.num_mem, token)


def _config(model: str, num_mem: float) -> CramConfig:
    return limited(CramConfig.for_model(entry_of(model), num_mem=int(num_mem)), server_settings())


def run(  # noqa: PLR0917  # in the order of the widgets
    text: str, path: str | None, model: str, num_mem: float, fill: str, before: Outcome, token: str | None, stop: Flag
) -> Iterator[Moment | Loading]:
    """Cram, on the worker's thread or in a child; from where the last run of the same text was stopped.

    Raises:
        CramError: see `cram_document` and `load_model`.
    """
    lm = yield from SHELF.bring(model, "auto", token, stop)
    ids, config = lm.tokenize(text_of(text, path)), _config(model, num_mem)
    done = _done_before(lm, ids, config, before)
    states = cram_document(lm, ids, config, thorough=fill == FULLY, done=done, stop=in_time(stop, config))
    due = 0.0
    for state in states:
        if state.reason or time.monotonic() >= due:
            due = time.monotonic() + SHOW_SECONDS
            data = to_bytes(pack(lm, ids, state.segments, config)) if state.reason and state.segments else b""
            name = f"{entry_of(model).label}-{state.num_tokens}tok-document.safetensors"
            yield Moment(state, Outcome(data, name if data else ""))


def _done_before(lm: FrozenLM, ids: list[int], config: CramConfig, before: Outcome) -> Sequence[Segment]:
    """Segments of the last run, if it was of this text, model and K, and stopped."""
    if not before.data:
        return ()
    document = from_bytes(before.data)
    if document.complete:
        return ()
    try:
        return finished(lm, document, ids, config.num_mem)
    except CramError:
        return ()


def show(moment: Moment) -> tuple[str, tuple[Any, ...]]:
    """The status line; map, card and what is left of the run."""
    state = moment.state
    return _status(state), (map_value(state), card_html(state, len(moment.outcome.data)), moment.outcome)


def map_value(state: DocumentState) -> dict[str, Any]:
    """The map's value: N, and a row "kind,start,end,solved" for each segment that is done or in work."""
    rows = [(segment.start, segment.end, LOSSLESS if segment.lossless else PARTIAL, 0) for segment in state.segments]
    if not state.reason:
        rows += [(each.start, each.start + each.trained, RUNNING, each.solved) for each in state.running]
    return {
        "n": state.num_tokens,
        "s": "".join(f"{kind},{start},{end},{solved};" for start, end, kind, solved in sorted(rows)),
    }


def card_html(state: DocumentState, file_bytes: int) -> str:
    """What has come of it; the same place is kept before the end."""
    if not state.reason:
        return NO_CARD
    count, missing = len(state.segments), state.num_tokens - state.lossless_tokens
    if state.lossless:
        kind, head = "lossless", f"Every one of {plural(state.num_tokens, 'token')} comes back"
        words = "Each segment was decoded, token by token, and compared with your text."
    else:
        kind, head = "partial", f"{state.lossless_tokens:,} of {plural(state.num_tokens, 'token')} come back"
        words = f"{plural(missing, 'token')} are not in a segment that decodes exactly."
    cells = [
        ("segments", f"{count:,}"),
        ("vectors", f"{count * state.num_mem:,}"),
        ("tokens a vector", f"{state.tokens_a_vector:.1f}"),
        ("file", f"{file_bytes / 1000:,.0f} kB" if file_bytes else "none"),
    ]
    figures = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in cells)
    return (
        f'<section class="cd-card cd-document-card" data-kind="{kind}"><h3>{escape(head)}</h3>'
        f"<dl>{figures}</dl><p>{escape(words)}</p></section>"
    )


def _status(state: DocumentState) -> str:
    left = state.num_tokens - state.tokens_done
    known = bool(state.tokens_done and state.seconds and len(state.segments) > 1)
    cells = [
        ("tokens done", f"{state.tokens_done:,} of {state.num_tokens:,}"),
        ("segments", f"{len(state.segments):,}"),
        ("tokens a vector", f"{state.tokens_a_vector:.1f}" if state.segments else "…"),
        ("time left", clock(left * state.seconds / state.tokens_done if known else None)),
    ]
    share = state.tokens_done / state.num_tokens
    if not state.reason:
        return status_line("running", f"{plural(len(state.running), 'segment')} in work at once", cells, share)
    cells[3] = ("time", clock(state.seconds))
    return status_line("done", _ending(state), cells, share)


def _ending(state: DocumentState) -> str:
    if state.reason == DONE:
        return "Done: lossless." if state.lossless else "Done, but not every segment decodes exactly."
    if not state.segments:
        return "Stopped before the first segment was done."
    why = "Out of memory" if state.reason == MEMORY else "Stopped"
    return f"{why}; finished segments are kept. Press “Cram the document” again to go on."


def check_back(before: Outcome, path: str | None, token: str | None) -> None:
    """Refuse what cannot be read back.

    Raises:
        CramError: no document, not one of ours, or its model is not on offer or cannot run here.
    """
    document = _given(before, path)
    check_vectors(document.segment(document.longest), token)


def _given(before: Outcome, path: str | None) -> DocumentVectors:
    if path:
        return load(path)
    if not before.data:
        raise VectorFileError("There is no document yet. Cram one above, or give a document’s file.")
    return from_bytes(before.data)


def run_back(before: Outcome, path: str | None, token: str | None, stop: Flag) -> Iterator[Reading | Loading]:
    """Read a document back, on the worker's thread or in a child.

    Raises:
        CramError: see `check_back`, `decode_document` and `load_model`.
    """
    document = _given(before, path)
    lm = yield from bring_for(document.segment(document.longest), token, stop)
    count, gaps = len(document.entries), len(document.gaps)
    text, done, due = "", 0, 0.0
    wrong: tuple[int, ...] = ()
    for part in decode_document(lm, document):
        text, done = text + part.text, done + 1
        wrong = wrong if part.matches else (*wrong, part.number)
        if stop.is_set() and done < count:
            yield Reading(text, done, count, wrong, gaps, ended=True, stopped=True)
            return
        if time.monotonic() >= due:
            due = time.monotonic() + SHOW_SECONDS
            yield Reading(text, done, count, wrong, gaps)
    yield Reading(text, done, count, wrong, gaps, ended=True)


def show_back(reading: Reading) -> tuple[str, tuple[Any, ...]]:
    """The status line, and the text."""
    cells = [("segments", f"{reading.done:,} of {reading.count:,}"), ("not the original", f"{len(reading.wrong):,}")]
    share = reading.done / reading.count
    if not reading.ended:
        return status_line("running", "Reading the document back", cells, share), (reading.text,)
    if reading.stopped:
        head = "Stopped; what was read stands below."
    elif reading.wrong:
        which = ", ".join(f"{number + 1:,}" for number in reading.wrong[:8])
        head = f"Read. Not the original text by its digest: segment {which}{' …' if len(reading.wrong) > 8 else ''}."
    elif reading.gaps:
        head = "Read. Every segment is the original text, but some of the text is missing."
    else:
        head = "Read: every segment is the original text, by its digest."
    return status_line("done", head, cells, share), (reading.text,)


def tab(queue_limit: int | None) -> None:
    """Lay out the tab and connect it."""
    with gr.Row(elem_classes="cd-columns"):
        with gr.Column(scale=5, min_width=320, elem_classes="cd-left"):
            left = _left_column()
        with gr.Column(scale=7, min_width=320, elem_classes="cd-right"):
            left["parts"].status.render()
            strip = gr.HTML(
                dict(NO_MAP),
                html_template=_MAP,
                js_on_load=_MAP_SCRIPT,
                apply_default_css=False,
                elem_id="document-map",
                elem_classes="cd-flat",
            )
            card = gr.HTML(NO_CARD, apply_default_css=False, elem_id="document-card", elem_classes="cd-flat")
            download = gr.DownloadButton(
                "Download the document’s vectors", interactive=False, size="md", elem_id="document-download"
            )
            place = rescue()
            back = controls(BACK, "Read it back", BACK_IDLE)
            file = gr.File(
                label="Or a document’s file (.safetensors)",
                file_types=[".safetensors"],
                height=120,
                elem_id="document-file",
            )
            back.status.render()  # type: ignore[no-untyped-call]
            read = text_view("document-text-back")
    outcome = gr.State(NOTHING)
    inputs = [left[name] for name in ("text", "file", "model", "num_mem", "fill")]
    cram = Experiment(
        TASK, [*inputs, outcome], [strip, card, outcome], check, run, show, (dict(NO_MAP), NO_CARD, NOTHING)
    )
    connect_offer(connect(cram, left["parts"], queue_limit), outcome, download, place)
    connect(Experiment(BACK, [outcome, file], [read], check_back, run_back, show_back, ("",)), back, queue_limit)


def _left_column() -> dict[str, Any]:
    left: dict[str, Any] = {}
    left["text"] = gr.Textbox(
        next(iter(read_samples().values())),
        label="Your document",
        info=f"A page, a chapter, a book’s part: up to {MOST_BYTES // 1000} kB.",
        lines=9,
        max_lines=14,
        elem_id="document-text",
        placeholder="Paste or type a long text",
    )
    left["file"] = gr.File(
        label="Or a text file (UTF-8)", file_types=[".txt", ".md"], height=120, elem_id="document-upload"
    )
    left["num_mem"] = gr.Slider(
        1,
        min(MOST_K, server_settings().max_mem),
        1,
        step=1,
        label="Memory tokens of each segment, K",
        info="With more of them there are fewer and longer segments.",
        elem_id="document-k",
    )
    left["fill"] = gr.Radio(
        [("Quickly", QUICKLY), ("As full as they go", FULLY)],
        value=QUICKLY,
        label="Fill the segments",
        info="The second holds about a third more tokens a vector, for several times the work.",
        elem_id="document-fill",
    )
    left["parts"] = controls(TASK, "Cram the document", IDLE)
    left["model"] = model_choice("document-model")
    return left
