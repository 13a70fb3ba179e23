"""Edit and watch, on the Decode tab: scale vectors or blend two sets of them, and see the text break."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from cramdemo.edit import MAX_SCALE, Edit, Edited, check_pair, decode_edited
from cramdemo.errors import CramError, plural
from cramdemo.gallery import exhibit, exhibits
from cramdemo.models import FrozenLM
from cramdemo.ui.decode import bring_for, model_for
from cramdemo.ui.experiment import QUEUE, QUICK, STREAMED
from cramdemo.ui.jobs import PERIOD_SECONDS, Flag
from cramdemo.ui.login import visitor_token
from cramdemo.ui.pace import PACE
from cramdemo.ui.shelf import RUNNER, STOPS, Loading
from cramdemo.ui.tokens import visible, visible_texts
from cramdemo.vectors import MemVectors, load

TASK = "edit"
EXAMPLE = "poem"  # what is edited while no file has been given
NOBODY = ""
LOOK_SHARE = 5.0  # of the time between two looks, looking may take a fifth
View = dict[str, str]
BLANK: View = {"t": "", "m": "", "s": "", "b": "", "r": ""}

_VIEW = """
<section class="cd-panel cd-edit" aria-label="Edit and watch">
  <div class="cd-edit-sliders">
    <label><span>Scale all numbers by <b class="cd-edit-scale">1.00</b></span>
      <input type="range" min="0" max="@most@" step="0.05" value="1"></label>
    <label><span>Share of the second <b class="cd-edit-share">0 %</b></span>
      <input type="range" min="0" max="1" step="0.05" value="0" disabled></label>
    <button type="button" class="cd-copy">Put back</button>
  </div>
  <p class="cd-edit-said" role="status"></p>
  <div class="cd-edit-text" tabindex="0" role="group"
    aria-label="What the model writes from the edited vectors; a changed token is underlined with a wave"></div>
  <p class="cd-empty">Move a slider: the text is written again from the edited vectors, in a second or two, with a wavy
  line under every token that is not the one from before.</p>
</section>
"""
_VIEW_SCRIPT = """
const find = name => element.querySelector(name);
const [scale, share] = element.querySelectorAll('input');
const said = find('.cd-edit-said'), box = find('.cd-edit-text'), empty = find('.cd-empty');
let lines = null, marks = null, about = '';

function words() {
  find('.cd-edit-scale').textContent = (+scale.value).toFixed(2);
  find('.cd-edit-share').textContent = `${Math.round(100 * share.value)} %`;
  scale.setAttribute('aria-valuetext', `times ${(+scale.value).toFixed(2)}`);
  const percent = `${Math.round(100 * share.value)} percent`;
  share.setAttribute('aria-valuetext', share.disabled ? 'no second vectors' : percent);
}

function draw(value) {
  lines = value.t; marks = value.m;
  const first = marks.indexOf('0');
  box.replaceChildren(...lines.split('\\n').filter(line => line).map((line, i) => {
    const [text, before] = JSON.parse(line), span = document.createElement('span');
    span.className = {1: 'cd-token cd-right', 0: 'cd-token cd-wrong'}[marks[i]] || 'cd-token';
    if (i === first) { span.classList.add('cd-edit-first'); }
    if (marks[i] === '0') { span.title = `token ${i + 1}: before, \\u201c${before}\\u201d`; }
    span.textContent = text === '' ? '\\u25cc' : text;
    return span;
  }));
}

function update() {
  const value = props.value || {};
  if ((value.r || '') !== about) { about = value.r || ''; scale.value = 1; share.value = 0; }
  share.disabled = !value.b;
  if (share.disabled) { share.value = 0; }
  if ((value.t || '') !== lines || (value.m || '') !== marks) { draw({t: value.t || '', m: value.m || ''}); }
  if (said.textContent !== (value.s || '')) { said.textContent = value.s || ''; }
  empty.hidden = !!value.t || !!value.s; box.hidden = !value.t;
  words();
}

for (const slider of [scale, share]) {
  slider.addEventListener('input', words);
  slider.addEventListener('change', () => trigger('release', {scale: +scale.value, share: +share.value}));
}
find('button').addEventListener('click', () => {
  scale.value = 1; share.value = 0; words();
  trigger('release', {scale: 1, share: 0});
});
watch('value', update);
update();
"""

CSS = """
.cd-edit-lead h2 { font: 600 22px/1.2 var(--cd-serif); color: var(--cd-ink); margin: 0; }
.cd-edit-lead p { margin-top: 6px; max-width: 80ch; font-size: 14.5px; line-height: 1.5; color: var(--cd-muted); }
.cd-edit-lead { border-top: 1px solid var(--cd-line); padding-top: 22px; margin-top: 12px; }
.cd-edit-source { min-height: 118px; box-sizing: border-box; }
.cd-edit-source p { margin-top: 6px; font-size: 14px; line-height: 1.5; color: var(--cd-ink); overflow-wrap: anywhere; }
.cd-edit-source p.cd-edit-bad { color: var(--cd-warm); font-weight: 600; }
.cd-edit { min-height: 330px; box-sizing: border-box; }
.cd-edit-sliders { display: grid; grid-template-columns: 1fr 1fr auto; gap: 8px 24px; align-items: center; }
.cd-edit-sliders button { padding: 5px 12px; justify-self: start; white-space: nowrap; }
.cd-edit-sliders label { font-size: 14px; color: var(--cd-ink); }
.cd-edit-sliders span { display: flex; justify-content: space-between; gap: 10px; }
.cd-edit-sliders b { font-weight: 600; font-variant-numeric: tabular-nums; white-space: nowrap; }
.cd-edit-sliders input { width: 100%; height: 24px; margin-top: 4px; accent-color: var(--cd-accent); cursor: pointer; }
.cd-edit-sliders input:disabled { cursor: not-allowed; opacity: .5; }
.cd-edit-said { margin-top: 10px !important; min-height: 3em; font-size: 14.5px; line-height: 1.5; font-weight: 600;
  color: var(--cd-ink); white-space: pre-wrap; overflow-wrap: anywhere; }
.cd-edit-said:empty { min-height: 0; }
.cd-edit-text { max-height: 340px; overflow-y: auto; font: 16px/1.8 var(--cd-serif); color: var(--cd-ink);
  white-space: pre-wrap; overflow-wrap: anywhere; border-radius: 4px; padding: 2px; }
.cd-edit-text[hidden] { display: none; }
.cd-edit-first { border-left: 3px solid var(--cd-warm); padding-left: 2px; }
@media (max-width: 640px) {
  .cd-edit-sliders { grid-template-columns: 1fr; }
  .cd-edit { min-height: 430px; }
}
"""
_LEAD = """
<section class="cd-edit-lead"><h2>Edit and watch it break</h2><p>Scale the vectors, or walk from one set of them to
another, and see how far they can be moved before the model writes something else. What is proven of the file above is
not proven of edited vectors.</p></section>
"""


@dataclass(frozen=True)
class Written:
    """What the panel shows at one moment.

    Attributes:
        edited: what is written so far.
        lines: a JSON list `[text, text before]` a token, one a line, control characters as pictures.
        changed: the first token that is not as before: its number from 1, its text, the text before; or None.
    """

    edited: Edited
    lines: str
    changed: tuple[int, str, str] | None


def first_of(path: str | None) -> tuple[str, MemVectors]:
    """What is edited: the file above, or the example where there is none; its name and the vectors.

    Raises:
        VectorFileError: the file cannot be read.
    """
    if path:
        return Path(path).name, load(path)
    held = exhibit(EXAMPLE)
    return f"“{held.piece.title}” from the gallery", held.vectors


def second_of(other: str, path: str | None) -> tuple[str, MemVectors | None]:
    """What is blended in: the second file, or else the exhibit chosen; its name, and None where there is neither.

    Raises:
        VectorFileError: the file cannot be read, or there is no such exhibit.
    """
    if path:
        return Path(path).name, load(path)
    if not other:
        return "", None
    held = exhibit(other)
    return f"“{held.piece.title}”", held.vectors


def partners(path: str | None) -> list[tuple[str, str]]:
    """Exhibits that can be blended with what is edited, as a dropdown takes them; the first stands for none."""
    try:
        _, first = first_of(path)
    except CramError:
        return [("None", NOBODY)]
    fitting = [
        (f"{held.piece.title} ({held.piece.kind})", held.piece.name)
        for held in exhibits().values()
        if (held.vectors.num_mem, held.vectors.model_fingerprint) == (first.num_mem, first.model_fingerprint)
        and held.vectors.token_sha256 != first.token_sha256
    ]
    return [("None", NOBODY), *fitting]


def renew(path: str | None, second_path: str | None) -> tuple[Any, str, View]:
    """After another file was given above: what fits it, what is said of it, and a panel with nothing in it."""
    choices = gr.update(choices=partners(path), value=NOBODY)
    return choices, *prepare(path, NOBODY, second_path)


def prepare(path: str | None, other: str, second_path: str | None) -> tuple[str, View]:
    """What is said of the vectors to be edited, and a panel with nothing in it, before anything is decoded."""
    try:
        (name, first), (second_name, second) = first_of(path), second_of(other, second_path)
        if second:
            check_pair(first, second)
    except CramError as error:
        return source_html(str(error), bad=True), dict(BLANK)
    words = f"{name}: {plural(first.num_tokens, 'token')} in {plural(first.num_mem, 'vector')}"
    blend = f", to be blended with {second_name}, {plural(second.num_tokens, 'token')}." if second else "."
    return source_html(words + blend), _fresh(first, second)


def source_html(words: str, *, bad: bool = False) -> str:
    """What is edited, in a sentence."""
    mark = ' class="cd-edit-bad" role="alert"' if bad else ""
    return (
        '<section class="cd-panel cd-edit-source" aria-label="What is edited"><h3>What is edited</h3>'
        f"<p{mark}>{escape(visible(words[:400]))}</p></section>"
    )


def write(
    first: MemVectors, second: MemVectors | None, edit: Edit, token: str | None, stop: Flag
) -> Iterator[Written | Loading]:
    """Decode edited vectors, on the worker's thread or in a child.

    Raises:
        ModelMismatch: the vectors are for a model that is not on offer here, or cannot be blended.
        ModelError: the model cannot be had, or cannot run here.
    """
    lm = yield from bring_for(first, token, stop)
    next_look = 0.0
    for state in decode_edited(lm, first, second, edit, stop.is_set):
        began = time.monotonic()
        if state.ended or stop.is_set() or began >= next_look:
            written = _written(lm, state)
            took = time.monotonic() - began  # the longer the text, the less often it is shown
            next_look = began + max(PERIOD_SECONDS, LOOK_SHARE * took)
            yield written


def watch_edit(
    path: str | None, other: str, second_path: str | None, request: gr.Request, event: gr.EventData
) -> Iterator[View]:
    """Decode what the sliders make of the vectors; streamed."""
    session = request.session_hash or ""
    flag = STOPS.begin(session, TASK)
    view = dict(BLANK)
    try:
        edit = Edit(getattr(event, "scale", None), getattr(event, "share", None))  # type: ignore[arg-type]
        (_, first), (second_name, second) = first_of(path), second_of(other, second_path)
        view = _fresh(first, second)
        yield view | {"s": "Waiting for the model"}
        longest = max(first.num_tokens, second.num_tokens if second else 0)
        seconds = PACE.decoding(model_for(first), longest)
        for state in RUNNER.stream(write, first, second, edit, visitor_token(request), stop=flag, seconds=seconds):
            if isinstance(state, Loading):
                yield view | {"s": f"Getting {state.model}"}
                continue
            view |= {"t": state.lines, "m": state.edited.marks, "s": sentence(state, second_name)}
            yield dict(view)
    except CramError as error:
        gr.Warning(escape(str(error)), title="Not decoded")
        yield view | {"s": str(error)}
    finally:
        STOPS.end(session, TASK, flag)


def sentence(state: Written, second_name: str = "") -> str:
    """How much of the text is as before; no verdict, since the file's digest is not of edited vectors."""
    edited = state.edited
    if not edited.ended:
        return f"Writing: {len(edited.token_ids)} of {plural(edited.num_tokens, 'token')}"
    words = f"{edited.as_first} of {plural(edited.first_tokens, 'token')} as before"
    if edited.second_tokens:
        words += f", {edited.as_second} of {edited.second_tokens} as in {second_name}"
    if state.changed:
        number, now, before = state.changed
        words += f". The first to change is token {number}: “{now}” in place of “{before}”"
    return f"{words}."


def panel(queue_limit: int | None, file: gr.File) -> None:
    """Lay out the panel and connect it.

    Args:
        file: of the Decode tab: what is edited.
    """
    words, fresh = prepare(None, NOBODY, None)
    gr.HTML(_LEAD, apply_default_css=False, elem_classes="cd-flat")
    with gr.Row(elem_classes="cd-columns"):
        with gr.Column(scale=5, min_width=320, elem_classes="cd-left"):
            source = gr.HTML(words, apply_default_css=False, elem_id="edit-source", elem_classes="cd-flat")
            other = gr.Dropdown(
                partners(None),
                value=NOBODY,
                label="Blend with",
                info="Ready vectors of the gallery, as many as there are above.",
                elem_id="edit-other",
            )
            second = gr.File(
                label="Or a second vector file (.safetensors)",
                file_types=[".safetensors"],
                height=140,
                elem_id="edit-file",
            )
        with gr.Column(scale=7, min_width=320, elem_classes="cd-right"):
            view = _view(fresh)
    file.change(renew, [file, second], [other, source, view], trigger_mode="always_last", **QUICK)
    for changed in (other.input, second.upload, second.clear):
        changed(prepare, [file, other, second], [source, view], **QUICK)
    view.release(
        watch_edit,
        [file, other, second],
        view,
        concurrency_limit=queue_limit,
        concurrency_id=QUEUE,
        trigger_mode="always_last",
        **STREAMED,
    )


def _view(value: View) -> gr.HTML:
    """Value: {"t": lines of `Written`, "m": marks, "s": sentence, "b": "1" if a blend is possible, "r": of what}.

    Its `release` event carries `scale` and `share`, where the sliders stand.
    """
    return gr.HTML(
        value,
        html_template=_VIEW.replace("@most@", f"{MAX_SCALE:g}"),
        js_on_load=_VIEW_SCRIPT,
        apply_default_css=False,
        elem_id="edit-view",
        elem_classes="cd-flat",
    )


def _fresh(first: MemVectors, second: MemVectors | None) -> View:
    """Nothing written yet; the sliders go back where another pair is edited."""
    pair = first.token_sha256[:16] + (second.token_sha256[:16] if second else "")
    return BLANK | {"b": "1" if second else "", "r": pair}


def _written(lm: FrozenLM, edited: Edited) -> Written:
    ours, theirs = visible_texts(lm, edited.token_ids), visible_texts(lm, edited.first_ids)
    before = theirs + [""] * (len(ours) - len(theirs))
    lines = "".join(json.dumps(pair) + "\n" for pair in zip(ours, before, strict=True))
    at = edited.marks.find("0")
    return Written(edited, lines, None if at < 0 else (at + 1, ours[at], before[at]))
