"""The model picker: what each model is, what it would take here for the text at hand, and why some cannot run.

A group of radio buttons in one custom component; a browser shows those that cannot run as disabled. What the
component shows is made here from plain values, so that it is tested without a page.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import gradio as gr

from cramdemo.catalogue import BUILT_IN, ModelEntry, published
from cramdemo.errors import plural
from cramdemo.placement import Machine, gigabytes, need, refusal, seconds, this_machine
from cramdemo.ui.offer import HubState, hub_state, offered, too_long

CHARACTERS_A_TOKEN = 4  # of English text; only sizes are estimated from it

_TEMPLATE = """
<div class="cd-picker">
  <span class="cd-label" id="cd-model-label">Model</span>
  <details>
    <summary><b class="cd-picked"></b> <span class="cd-picked-facts"></span></summary>
    <div class="cd-models" role="radiogroup" aria-labelledby="cd-model-label"></div>
    <form class="cd-other" hidden>
      <label>Another model of the hub <input type="text" placeholder="owner/name" maxlength="140" spellcheck="false"
      autocapitalize="off"></label> <button type="submit">Use it</button>
    </form>
    <p class="cd-models-note"></p>
  </details>
</div>
"""

_SCRIPT = """
const find = name => element.querySelector(name);
const box = find('.cd-models'), details = find('details'), other = find('.cd-other');
let lines = null;

function part(name, text) {
  const span = document.createElement('span');
  span.className = name; span.textContent = text;
  return span;
}

function build(value) {
  lines = value.r;
  const rows = JSON.parse(value.r || '[]'), at = document.activeElement?.value;
  box.replaceChildren(...rows.map(row => {
    const label = document.createElement('label'), input = document.createElement('input');
    Object.assign(input, {type: 'radio', name: 'cd-model', value: row.name, disabled: !!row.reason});
    label.className = 'cd-model';
    const head = part('cd-model-head', '');
    head.append(part('cd-model-name', row.label), part('cd-model-size', row.size));
    label.append(input, head, part('cd-model-facts', row.facts));
    if (row.reason) { label.append(part('cd-model-reason', row.reason)); }
    return label;
  }));
  if (details.open && at) { box.querySelector(`input[value="${CSS.escape(at)}"]`)?.focus(); }
  other.hidden = !value.o;
  find('.cd-models-note').textContent = value.n || '';
}

function update() {
  const value = props.value || {};
  if (value.r !== lines) { build(value); }
  let row = null;
  for (const input of box.querySelectorAll('input')) {
    input.checked = input.value === value.m;
    if (input.checked) { row = JSON.parse(lines).find(row => row.name === value.m); }
  }
  find('.cd-picked').textContent = row ? row.label : value.m;
  find('.cd-picked-facts').textContent = row ? row.size : '';
}

box.addEventListener('change', event => trigger('select', {model: event.target.value}));
box.addEventListener('click', event => {  // by pointer one choice is enough; by keyboard the arrows go on choosing
  if (event.target.matches('input:checked') && event.detail) { details.open = false; }
});
box.addEventListener('keydown', event => {
  if (event.key === 'Enter' || event.key === 'Escape') {
    event.preventDefault(); details.open = false; find('summary').focus();
  }
});
other.addEventListener('submit', event => {
  event.preventDefault();
  const name = other.querySelector('input').value.trim();
  if (name) { trigger('select', {model: name}); details.open = false; }
});
watch('value', update);
update();
"""


def picker(value: dict[str, Any]) -> gr.HTML:
    """The component. Its value is made by `picker_value`; its `select` event carries `model`, the name chosen."""
    return gr.HTML(
        value,
        html_template=_TEMPLATE,
        js_on_load=_SCRIPT,
        apply_default_css=False,
        elem_id="model",
        elem_classes="cd-flat",
    )


def picker_value(model: str, characters: int, num_mem: int, steps: int, others: bool = False) -> dict[str, Any]:
    """What the picker shows.

    Args:
        model: name of the chosen one.
        characters: length of the text; its tokens are guessed from it, whatever the model.
        num_mem: K.
        steps: most steps of the run.
        others: whether any id of the hub may be typed.
    """
    machine = this_machine()
    num_tokens = guessed_tokens(characters)
    rows = [row(entry, num_tokens, num_mem, steps, machine) for entry in offered().values()]
    note = (
        f"On {machine.name} with {gigabytes(machine.memory)}; reckoned for {plural(num_tokens, 'token')} "
        f"(a guess from the text’s length), K = {num_mem}, at most {plural(steps, 'step')}."
    )
    return {"m": model, "r": json.dumps(rows), "o": others, "n": note}


def row(entry: ModelEntry, num_tokens: int, num_mem: int, steps: int, machine: Machine) -> dict[str, str]:
    """One model, in words: name, label, size, facts, and the reason why it cannot run here, or ""."""
    state = hub_state(entry)
    reason = too_long(entry, num_tokens, num_mem) or refusal(entry, num_tokens, num_mem, machine) or state.reason
    costs = _costs(entry, num_tokens, num_mem, steps, machine) if entry.parameters else ()
    return {
        "name": entry.name,
        "label": entry.label,
        "size": size_words(entry),
        "facts": " · ".join((*costs, *_facts(entry, state))),
        "reason": reason,
    }


def model_choice(elem_id: str, **more: Any) -> gr.Dropdown:
    """A plain list of the models on offer, for tabs that have other things to show: the built-in one is chosen."""
    names = [(entry.label, name) for name, entry in offered().items()]
    return gr.Dropdown(names, value=BUILT_IN, label="Model", elem_id=elem_id, **more)


def guessed_tokens(characters: int) -> int:
    """Tokens of a text of so many characters, whatever the model."""
    return max(1, round(characters / CHARACTERS_A_TOKEN))


def size_words(entry: ModelEntry) -> str:
    """ "162M", "1.4B"; "" where it is not known yet."""
    count = entry.parameters
    if not count:
        return "size not known yet"
    return f"{count / 1e9:.1f}B" if count >= 1e9 else f"{count / 1e6:.3g}M"


def _costs(entry: ModelEntry, num_tokens: int, num_mem: int, steps: int, machine: Machine) -> tuple[str, str]:
    """Memory and time that a run would take."""
    needed = need(entry, num_tokens, num_mem, machine).total
    lasting = seconds(entry, num_tokens, num_mem, steps, machine)
    return f"needs {gigabytes(needed)}", f"up to {duration_words(lasting)}"


def _facts(entry: ModelEntry, state: HubState) -> Iterable[str]:
    """Where it is, what the papers reached with it, its licence."""
    if state.words:
        yield state.words
    yield from paper_words(entry)
    if entry.licence and not entry.local:
        yield entry.licence


def paper_words(entry: ModelEntry) -> Iterable[str]:
    """What the papers reached with it and one vector."""
    figures = published(entry)
    if figures.cramming:
        yield f"paper: {figures.cramming:,} tokens"
    elif figures.progressive:
        yield f"progressive paper: {figures.progressive:,.0f} tokens"


def duration_words(seconds: float) -> str:
    """ "8 s", "3 min", "2 h", "4 days": a rough figure, roughly said."""
    for limit, unit, name in ((90, 1, "s"), (90 * 60, 60, "min"), (48 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{max(1, round(seconds / unit))} {name}"
    return f"{round(seconds / 86400):,} days"
