"""Two views of text as data: every token marked as solved or not, and the decoded text as it is written.

Text reaches the page by `textContent` only, so whatever a text or a file holds is shown as characters.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import gradio as gr

from cramdemo.models import FrozenLM

_TURNS_TEXT = (0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))  # Unicode's Bidi_Control
_PICTURES = (  # of what would be invisible or act on the page
    {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"}
    | {0x7F: "␡"}
    | {code: f"[U+{code:04X}]" for code in (*range(0x80, 0xA0), *_TURNS_TEXT)}
)
_IN_TOKENS = _PICTURES | {10: "⏎\n", 9: "⇥\t"}  # there line ends are seen too
_TOKENS = """
<div class="cd-panel cd-tokenview">
  <h3>Your text, token by token <span class="cd-solved" aria-hidden="true"></span></h3>
  <span class="cd-said" role="status"></span>
  <p class="cd-key" aria-hidden="true"><span class="cd-key-prefix">solved from the start on</span>
    <span class="cd-key-right">solved further on</span> <span class="cd-key-wrong">wrong</span>
    with the model’s own word above the first</p>
  <div class="cd-textstage">
    <div class="cd-tokens" tabindex="0" role="group" aria-label="Tokens; the arrow keys go from one to the next"></div>
    <p class="cd-empty">Each token of your text will stand here, with a wavy line under it until the model
    gets it right.</p>
  </div>
  <div class="cd-strip">
    <div class="cd-scale" aria-hidden="true"><span class="cd-most"></span><span>bits</span><span>0</span></div>
    <div class="cd-bars" tabindex="0" role="group" aria-label="Surprisal of each token: nothing yet"></div>
  </div>
  <p class="cd-aside">Surprisal: what each token costs the model without any vectors, in bits, one bar a token; filled
  once it is solved, hollow until then. Steps to solve follow it. The first token has no bar, since nothing stands
  before it.</p>
  <div class="cd-tip" aria-live="polite" hidden></div>
</div>
"""

_TOKENS_SCRIPT = """
const SAY_MS = 2000;
const find = name => element.querySelector(name);
const root = find('.cd-tokenview'), box = find('.cd-tokens'), bars = find('.cd-bars'), tip = find('.cd-tip');
const solved = find('.cd-solved'), said = find('.cd-said'), empty = find('.cd-empty'), most = find('.cd-most');
let lines = null, marks = '', margins = [], ids = [], spans = [], blocks = [], bits = [], cost = null, kinds = [];
let words = '', says = {}, dates = '', since = [], active = -1, first = -1, timer = 0, sentence = '';
let pointer = '', turned = false;

const pictures = @pictures@;
const shown = text => Array.from(text, c => pictures[c] || c).join('');
const brief = text => (text === '' ? '\\u25cc' : shown(text).replace('\\n', '').trim() || '\\u2423');

function made(kind, i) {
  const node = document.createElement('span');
  node.className = kind; node.dataset.i = i;
  return node;
}

function build(text) {
  lines = text; marks = ''; ids = []; spans = []; blocks = []; kinds = []; cost = null; words = dates = '';
  says = {}; since = []; active = first = -1; tip.hidden = true;
  for (const line of text.split('\\n')) {
    if (!line) { continue; }
    const [piece, id] = JSON.parse(line), span = made('cd-token', spans.length);
    span.textContent = piece === '' ? '\\u25cc' : shown(piece);
    blocks.push(made('cd-bit', spans.length)); ids.push(id); spans.push(span);
  }
  box.replaceChildren(...spans); bars.replaceChildren(...blocks);
  empty.hidden = spans.length > 0; box.hidden = !spans.length;
}

function price(text) {
  cost = text; bits = text ? text.split(',').map(Number) : [];
  const top = Math.max(...bits, 0);
  blocks.forEach((block, i) => block.style.setProperty('--cd-share', i && top ? bits[i - 1] / top : 0));
  most.textContent = bits.length ? top.toFixed(0) : '';
  const mean = bits.reduce((sum, one) => sum + one, 0) / (bits.length || 1), at = bits.indexOf(top) + 2;
  bars.setAttribute('aria-label', bits.length ? `Surprisal of each token under the bare model: ${mean.toFixed(1)} ` +
    `bits on average, at most ${top.toFixed(1)}, at token ${at}; the arrow keys go from one to the next`
    : 'Surprisal of each token: nothing yet');
}

function mark(text) {
  const at = text.indexOf('0'), end = at < 0 ? text.length : at;
  for (let i = 0; i < spans.length; i++) {
    const kind = text[i] === '1' ? (i < end ? ' cd-right cd-prefix' : ' cd-right') : text[i] === '0' ? ' cd-wrong' : '';
    if (kind === kinds[i]) { continue; }
    kinds[i] = kind;
    spans[i].className = 'cd-token' + kind; blocks[i].className = 'cd-bit' + kind;
  }
  marks = text;
}

function tell(text) {
  if (text === words) { return; }
  words = text; says = {};
  for (const line of text.split('\\n')) { if (line) { const [i, word] = JSON.parse(line); says[i] = word; } }
}

function label() {  // above the first wrong token, out of the text's flow: ten times a second nothing may move
  const at = marks.indexOf('0'), span = spans[at];
  if (first !== at && spans[first]) { delete spans[first].dataset.says; }
  first = at;
  if (!span) { return; }
  if (says[at] === undefined) { delete span.dataset.says; return; }
  const word = brief(says[at]);
  if (span.dataset.says !== word) { span.dataset.says = word; }
  span.classList.toggle('cd-late', span.offsetLeft > box.clientWidth / 2);
}

function date(text) {
  if (!text.startsWith(dates)) { dates = ''; since = []; }
  for (const row of text.slice(dates.length).split(';')) { if (row) { const [i, n] = row.split(':'); since[i] = n; } }
  dates = text;
}

function say() { timer = 0; if (said.textContent !== sentence) { said.textContent = sentence; } }

function update() {
  const value = props.value || {};
  if ((value.t || '') !== lines) { build(value.t || ''); }
  if ((value.b || '') !== cost) { price(value.b || ''); }
  mark(value.m || ''); tell(value.w || ''); date(value.s || ''); label();
  margins = value.g ? value.g.split(',') : [];
  const right = (marks.match(/1/g) || []).length;
  sentence = marks ? `${right} of ${spans.length} tokens solved` : '';
  solved.textContent = sentence && sentence + ', teacher-forced';
  if (!timer) { timer = setTimeout(say, SAY_MS); }
  if (active >= 0 && !tip.hidden) { show(active); }
}

function facts(i) {
  const found = [`token ${i + 1} of ${spans.length}`, `id ${ids[i]}`];
  if (bits.length) { found.push(i ? `surprisal ${bits[i - 1].toFixed(2)} bits` : 'no surprisal: nothing before it'); }
  if (marks[i] === '1') { found.push(since[i] === undefined ? 'solved' : `solved since step ${since[i]}`); }
  if (marks[i] === '0') {
    found.push(says[i] === undefined ? 'not solved' : `not solved: the model says \\u201c${brief(says[i])}\\u201d`);
  }
  if (margins.length) { found.push(`margin ${margins[i]} logits`); }
  return found.join(' \\u00b7 ');
}

function fade() { for (const list of [spans, blocks]) { list[active]?.classList.remove('cd-active'); } }

function show(i, at) {
  fade();
  active = i; tip.dataset.bar = at === bars || (!at && tip.dataset.bar === '1') ? '1' : '';
  spans[i].classList.add('cd-active'); blocks[i].classList.add('cd-active');
  tip.textContent = facts(i); tip.hidden = false;
  const node = tip.dataset.bar ? blocks[i] : spans[i];
  const rect = node.getClientRects()[0] || node.getBoundingClientRect(), frame = root.getBoundingClientRect();
  const top = tip.dataset.bar ? bars.getBoundingClientRect().top : rect.top;
  tip.style.top = `${top - frame.top - tip.offsetHeight - 6}px`;
  tip.style.left = `${Math.max(2, Math.min(rect.left - frame.left, frame.width - tip.offsetWidth - 4))}px`;
}

function hide() { tip.hidden = true; fade(); }

function into(node) {  // sideways in the strip, down in the text, without the page moving
  const place = node.parentElement, {scrollLeft, scrollTop} = place;
  if (place === bars) { bars.scrollLeft = node.offsetLeft - bars.clientWidth / 2; }
  else { node.scrollIntoView({block: 'nearest'}); }
  turned = place.scrollLeft !== scrollLeft || place.scrollTop !== scrollTop;
}

for (const place of [box, bars]) {
  place.addEventListener('pointermove', event => {  // a browser also says so when the page moves below a still pointer
    const i = event.target.dataset.i, at = `${event.screenX},${event.screenY}`;
    if (i !== undefined && at !== pointer) { show(+i, place); }
    pointer = at;
  });
  for (const name of ['pointerleave', 'blur']) { place.addEventListener(name, hide); }
  place.addEventListener('scroll', () => {
    if (!turned) { hide(); } else { show(active, place); }
    turned = false;
  });
  place.addEventListener('focus', () => {
    if (spans.length && place.matches(':focus-visible')) { show(Math.max(active, 0), place); }
  });
  place.addEventListener('keydown', event => {
    const last = spans.length - 1;
    const next = Math.min(active + 1, last), previous = Math.max(active - 1, 0);
    const to = {ArrowRight: next, ArrowLeft: previous, Home: 0, End: last}[event.key];
    if (event.key === 'Escape') { hide(); }
    if (to === undefined || last < 0) { return; }
    event.preventDefault(); into((place === box ? spans : blocks)[to]); show(to, place);
  });
}
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
const pictures = @pictures@;
const text = element.querySelector('.cd-text'), copy = element.querySelector('.cd-copy');
const empty = element.querySelector('.cd-empty');
function update() {
  const value = props.value || '';
  text.textContent = Array.from(value, c => pictures[c] || c).join('');
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

EMPTY = {"t": "", "m": "", "g": "", "b": "", "w": "", "s": ""}


def token_view() -> gr.HTML:
    """The component. Its value is a dict of strings, so that only what changed is sent; `live` makes them.

    "t": token lines, "m": marks, "g": margins, "b": bits under the bare model of all tokens but the first, "w": words
    that the model says instead, "s": at which steps tokens were solved. Those that are missing are empty.
    """
    return gr.HTML(
        dict(EMPTY),
        html_template=_TOKENS,
        js_on_load=_TOKENS_SCRIPT.replace("@pictures@", _table(_IN_TOKENS)),
        apply_default_css=False,
        elem_id="tokens",
        elem_classes="cd-flat",
    )


def text_view(elem_id: str = "decoded") -> gr.HTML:
    """Value: the decoded text so far."""
    return gr.HTML(
        "",
        html_template=_TEXT,
        js_on_load=_TEXT_SCRIPT.replace("@pictures@", _table(_PICTURES)),
        apply_default_css=False,
        elem_id=elem_id,
        elem_classes="cd-flat",
    )


def visible_texts(lm: FrozenLM, token_ids: Sequence[int]) -> list[str]:
    """The text that each token adds, control characters as pictures."""
    return [text.translate(_IN_TOKENS) for text in lm.token_texts(token_ids)]


def visible(text: str) -> str:
    """A stranger's words with pictures of what would be invisible or turn the text around; line ends stay."""
    return text.translate(_PICTURES)


def _table(pictures: dict[int, str]) -> str:
    """For a script: character to picture."""
    return json.dumps({chr(code): picture for code, picture in pictures.items()})
