"""Two views of text as data: every token marked as solved or not, and the decoded text as it is written.

Text reaches the page by `textContent` only, so whatever a text or a file holds is shown as characters.
"""

from __future__ import annotations

from collections.abc import Sequence

import gradio as gr

from cramdemo.models import FrozenLM

_PICTURES = {code: chr(0x2400 + code) for code in range(32)} | {10: "⏎\n", 9: "⇥\t", 13: "␍"}  # of control characters
_TOKENS = """
<div class="cd-panel cd-tokenview">
  <h3>Your text, token by token <span class="cd-solved" aria-hidden="true"></span></h3>
  <span class="cd-said" role="status"></span>
  <div class="cd-tokens" tabindex="0" role="group" aria-label="Tokens; the arrow keys go from one to the next"></div>
  <div class="cd-tip" aria-live="polite" hidden></div>
  <p class="cd-empty">Each token of your text will stand here, with a wavy line under it until the model
  gets it right.</p>
</div>
"""

_TOKENS_SCRIPT = """
const SAY_MS = 2000;
const find = name => element.querySelector(name);
const root = find('.cd-tokenview'), box = find('.cd-tokens'), tip = find('.cd-tip');
const solved = find('.cd-solved'), said = find('.cd-said'), empty = find('.cd-empty');
let lines = null, marks = '', margins = [], ids = [], spans = [], active = -1, timer = 0, sentence = '';

const pictures = {'\\n': '\\u23ce\\n', '\\t': '\\u21e5\\t', '\\r': '\\u240d'};
const picture = c => pictures[c] || String.fromCharCode(0x2400 + c.charCodeAt(0));
const shown = text => text.replace(/[\\u0000-\\u001f]/g, picture);

function build(text) {
  lines = text; marks = ''; ids = []; spans = []; active = -1; tip.hidden = true;
  for (const line of text.split('\\n')) {
    if (!line) { continue; }
    const [piece, id] = JSON.parse(line), span = document.createElement('span');
    span.className = 'cd-token'; span.dataset.i = spans.length;
    span.textContent = piece === '' ? '\\u25cc' : shown(piece);
    ids.push(id); spans.push(span);
  }
  box.replaceChildren(...spans);
  empty.hidden = spans.length > 0; box.hidden = !spans.length;
}

function mark(text) {
  for (let i = 0; i < spans.length; i++) {
    if (text[i] !== marks[i]) {
      spans[i].classList.toggle('cd-right', text[i] === '1');
      spans[i].classList.toggle('cd-wrong', text[i] === '0');
    }
  }
  marks = text;
}

function say() { timer = 0; if (said.textContent !== sentence) { said.textContent = sentence; } }

function update() {
  const value = props.value || {};
  if ((value.t || '') !== lines) { build(value.t || ''); }
  mark(value.m || '');
  margins = value.g ? value.g.split(',') : [];
  const right = (marks.match(/1/g) || []).length;
  sentence = marks ? `${right} of ${spans.length} tokens solved` : '';
  solved.textContent = sentence && sentence + ', teacher-forced';
  if (!timer) { timer = setTimeout(say, SAY_MS); }
  if (active >= 0 && !tip.hidden) { show(active); }
}

function show(i) {
  if (active >= 0 && spans[active]) { spans[active].classList.remove('cd-active'); }
  active = i;
  const span = spans[i], words = [`token ${i + 1} of ${spans.length}`, `id ${ids[i]}`];
  if (marks) { words.push(marks[i] === '1' ? 'solved' : 'not solved'); }
  if (margins.length) { words.push(`margin ${margins[i]}`); }
  tip.textContent = words.join(' \\u00b7 ');
  tip.hidden = false; span.classList.add('cd-active');
  const at = span.getClientRects()[0] || span.getBoundingClientRect(), frame = root.getBoundingClientRect();
  tip.style.top = `${at.top - frame.top - tip.offsetHeight - 6}px`;
  tip.style.left = `${Math.max(0, Math.min(at.left - frame.left, frame.width - tip.offsetWidth - 2))}px`;
}

function hide() {
  tip.hidden = true;
  if (active >= 0 && spans[active]) { spans[active].classList.remove('cd-active'); }
}

box.addEventListener('pointerover', event => { const i = event.target.dataset.i; if (i !== undefined) { show(+i); } });
box.addEventListener('pointerleave', hide);
box.addEventListener('blur', hide);
box.addEventListener('scroll', hide);
box.addEventListener('focus', () => {
  if (spans.length && box.matches(':focus-visible')) { show(Math.max(active, 0)); }
});
box.addEventListener('keydown', event => {
  const last = spans.length - 1;
  const next = Math.min(active + 1, last), previous = Math.max(active - 1, 0);
  const to = {ArrowRight: next, ArrowLeft: previous, Home: 0, End: last}[event.key];
  if (event.key === 'Escape') { hide(); }
  if (to === undefined || last < 0) { return; }
  event.preventDefault(); spans[to].scrollIntoView({block: 'nearest'}); show(to);
});
watch('value', update);
update();
"""

_TEXT = """
<div class="cd-panel cd-decoded">
  <h3>The text that the model writes <button type="button" class="cd-copy" hidden>Copy</button></h3>
  <pre class="cd-text" tabindex="0" aria-label="Decoded text"></pre>
  <p class="cd-empty">The model will write the text here, one token after the other, from the vectors alone.</p>
</div>
"""

_TEXT_SCRIPT = """
const text = element.querySelector('.cd-text'), copy = element.querySelector('.cd-copy');
const empty = element.querySelector('.cd-empty');
function update() {
  const value = props.value || '';
  text.textContent = value;
  text.hidden = copy.hidden = !value; empty.hidden = !!value;
  copy.textContent = 'Copy';
}
copy.addEventListener('click', async () => {
  try { await navigator.clipboard.writeText(props.value || ''); copy.textContent = 'Copied'; }
  catch (error) { getSelection().selectAllChildren(text); copy.textContent = 'Selected: press Ctrl+C'; }
});
watch('value', update);
update();
"""

EMPTY = {"t": "", "m": "", "g": ""}


def token_view() -> gr.HTML:
    """Value: {"t": token lines, "m": marks, "g": margins}, all strings, so that only what changed is sent."""
    return gr.HTML(
        dict(EMPTY),
        html_template=_TOKENS,
        js_on_load=_TOKENS_SCRIPT,
        apply_default_css=False,
        elem_id="tokens",
        elem_classes="cd-flat",
    )


def text_view(elem_id: str = "decoded") -> gr.HTML:
    """Value: the decoded text so far."""
    return gr.HTML(
        "",
        html_template=_TEXT,
        js_on_load=_TEXT_SCRIPT,
        apply_default_css=False,
        elem_id=elem_id,
        elem_classes="cd-flat",
    )


def visible_texts(lm: FrozenLM, token_ids: Sequence[int]) -> list[str]:
    """The text that each token adds, control characters as pictures."""
    return [text.translate(_PICTURES) for text in lm.token_texts(token_ids)]
