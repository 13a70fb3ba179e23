"""The Gallery tab: ready vectors for texts of many kinds, each decoded with one click."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from cramdemo.errors import VectorFileError, plural
from cramdemo.gallery import Exhibit, exhibit, exhibits
from cramdemo.ui.decode import Given, connect_decoding, connect_stop, lend, stop_button, watch_decoding
from cramdemo.ui.experiment import NARROW_PX, QUICK
from cramdemo.ui.live import status_line
from cramdemo.ui.tokens import text_view

TASK = "gallery"
IDLE = (
    "Choose a card: the text will be written from its vectors alone, in about a second for a paragraph and in about "
    "ten for the whole page."
)
_FIGURES = (
    ("vectors, K", "input vectors, each of {width} numbers: all that the model is given"),
    ("tokens, N", "pieces of text that the model writes, one after the other"),
    ("tokens a vector", "N over K: what one input position carries"),
    ("bytes", "the file: vectors in {form}, and what it says of itself"),
)

_CARDS_SCRIPT = """
const list = element.querySelector('.cd-gallery-cards');
list.addEventListener('click', event => {
  const card = event.target.closest('button');
  if (!card) { return; }
  for (const each of list.querySelectorAll('button')) { each.setAttribute('aria-pressed', String(each === card)); }
  trigger('select', {name: card.dataset.name});
  if (window.innerWidth < @narrow@) {
    const motion = matchMedia('(prefers-reduced-motion: reduce)').matches ? 'auto' : 'smooth';
    document.getElementById('gallery-what')?.scrollIntoView({block: 'start', behavior: motion});
  }
});
""".replace("@narrow@", str(NARROW_PX))

CSS = """
.cd-gallery-lead { font-size: 14.5px; line-height: 1.5; color: var(--cd-muted); margin: 2px 0 12px !important; }
.cd-gallery-cards { list-style: none; margin: 0 !important; padding: 0 !important; display: grid; gap: 10px;
  grid-template-columns: repeat(auto-fill, minmax(205px, 1fr)); }
.cd-gallery-cards li { display: flex; margin: 0; }
.cd-gallery-cards li:last-child:nth-child(odd) { grid-column: 1 / -1; }
.cd-gallery-card { flex: 1; display: flex; flex-direction: column; gap: 3px; text-align: left; cursor: pointer;
  padding: 12px 14px; border: 1px solid var(--cd-line); border-left: 4px solid var(--cd-line); border-radius: 10px;
  background: var(--cd-surface); color: var(--cd-ink); }
.cd-gallery-card:hover { border-color: var(--cd-accent); }
.cd-gallery-card[aria-pressed="true"] { border-color: var(--cd-accent); background: var(--cd-accent-soft); }
.cd-gallery-kind { font-size: 12.5px; color: var(--cd-muted); }
.cd-gallery-kind::first-letter { text-transform: uppercase; }
.cd-gallery-name { font: 600 17px/1.25 var(--cd-serif); color: var(--cd-ink); margin-bottom: auto; }
.cd-gallery-held { font-size: 13px; line-height: 1.45; color: var(--cd-ink); font-variant-numeric: tabular-nums;
  margin-top: 5px; }
.cd-gallery-card small { display: flex; flex-wrap: wrap; gap: 0 12px; font-size: 12.5px; color: var(--cd-muted); }
.cd-gallery-card[aria-pressed="true"] :is(small, .cd-gallery-kind) { color: var(--cd-ink); }
.cd-gallery-what { min-height: 172px; box-sizing: border-box; }
.cd-gallery-what h2 { font: 600 22px/1.2 var(--cd-serif); color: var(--cd-ink); }
.cd-gallery-what .cd-figures { grid-template-columns: repeat(4, minmax(0, 1fr)); margin-top: 10px !important;
  padding-top: 10px; }
#tab-gallery .cd-right { position: sticky; top: 12px; align-self: flex-start; }
#gallery-verdict > * { min-height: 117px; }
#gallery-decoded .cd-decoded { min-height: 260px; }
@media (max-width: 767px) {
  #tab-gallery .cd-right { position: static; }
  .cd-gallery-cards { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .cd-gallery-card { padding: 10px 11px; }
  .cd-gallery-what .cd-figures { grid-template-columns: 1fr 1fr; }
  .cd-gallery-what { min-height: 262px; }
}
"""


@dataclass(frozen=True)
class Tab:
    """What the page connects to other tabs.

    Attributes:
        chosen: state, the name of the exhibit that is shown; "" before one is.
        open_in_decode: the button.
    """

    chosen: gr.State
    open_in_decode: gr.Button


def choose(event: gr.EventData) -> tuple[str, str]:
    """The exhibit that a card's event names: its name, and what is said of it.

    Raises:
        gr.Error: there is no such exhibit.
    """
    try:
        held = exhibit(str(getattr(event, "name", "")))
    except VectorFileError as error:
        raise gr.Error(escape(str(error)), title="Not in the gallery", print_exception=False) from None
    return held.piece.name, what_html(held)


def decode_exhibit(name: str, request: gr.Request) -> Iterator[tuple[str, str]]:
    """The text and the verdict, streamed."""

    def read() -> Given:
        held = exhibit(name)
        return Given(held.vectors, held.file_bytes)

    for _, text, verdict in watch_decoding(read, TASK, request):
        yield text, verdict


def cards_html(held: Sequence[Exhibit]) -> str:
    """A list of cards, each a button."""
    cards = "".join(f"<li>{_card_html(each)}</li>" for each in held)
    vectors = sum(each.vectors.num_mem for each in held)
    tokens = sum(each.vectors.num_tokens for each in held)
    return (
        f'<p class="cd-gallery-lead">{len(held)} texts, {tokens:,} tokens in {vectors} vectors of cram-mini. The '
        "model is given the vectors and nothing else, and writes each text as you watch.</p>"
        f'<ul class="cd-gallery-cards" aria-label="Texts that are decoded with one click">{cards}</ul>'
    )


def _card_html(held: Exhibit) -> str:
    piece, vectors = held.piece, held.vectors
    return (
        f'<button type="button" class="cd-gallery-card" aria-pressed="false" data-name="{escape(piece.name)}">'
        f'<span class="cd-gallery-kind">{escape(piece.kind)}</span>'
        f'<span class="cd-gallery-name">{escape(piece.title)}</span>'
        f'<span class="cd-gallery-held">{plural(vectors.num_tokens, "token")} in '
        f"{plural(vectors.num_mem, 'vector')}<small><span>{held.tokens_a_vector:.1f} tokens a vector</span> "
        f"<span>{held.file_bytes:,} bytes</span></small></span></button>"
    )


def what_html(held: Exhibit | None) -> str:
    """The heading of what is decoded, with its figures; with None the same rows, empty."""
    title, kind, values = "What a card holds", "", ("…",) * len(_FIGURES)
    vectors = (held or next(iter(exhibits().values()))).vectors  # width and number format are the same in all
    if held:
        title, kind = held.piece.title, held.piece.kind
        values = (
            str(vectors.num_mem),
            f"{vectors.num_tokens:,}",
            f"{held.tokens_a_vector:.1f}",
            f"{held.file_bytes:,}",
        )
    width, form = vectors.hidden_size, vectors.number_format
    figures = "".join(
        f'<div><dt>{name}</dt><dd>{value}</dd><dd class="cd-why">{why.format(width=width, form=form)}</dd></div>'
        for (name, why), value in zip(_FIGURES, values, strict=True)
    )
    return (
        f'<section class="cd-panel cd-gallery-what" aria-label="The card chosen"><h2>{escape(title)}</h2>'
        f'<p class="cd-gallery-kind">{escape(kind) or "Its figures will stand here."}</p>'
        f'<dl class="cd-figures">{figures}</dl></section>'
    )


def tab(queue_limit: int | None) -> Tab:
    """Lay out the tab and connect it."""
    chosen = gr.State("")
    with gr.Row(elem_classes="cd-columns"):
        with gr.Column(scale=6, min_width=320, elem_classes="cd-left"):
            cards = gr.HTML(
                cards_html(list(exhibits().values())),
                js_on_load=_CARDS_SCRIPT,
                apply_default_css=False,
                elem_id="gallery-cards",
                elem_classes="cd-flat",
            )
        with gr.Column(scale=6, min_width=320, elem_classes="cd-right"):
            what = gr.HTML(what_html(None), apply_default_css=False, elem_id="gallery-what", elem_classes="cd-flat")
            verdict = gr.HTML(
                status_line("idle", IDLE), apply_default_css=False, elem_id="gallery-verdict", elem_classes="cd-flat"
            )
            with gr.Row(elem_classes="cd-actions"):
                stop = stop_button(TASK)
                download = gr.DownloadButton("Download", interactive=False, size="md", elem_id="gallery-download")
                open_it = gr.Button("Open in Decode", interactive=False, size="md", elem_id="gallery-open")
            text = text_view("gallery-decoded")
    picked = cards.select(choose, None, [chosen, what], trigger_mode="multiple", **QUICK)
    connect_decoding(picked.success, decode_exhibit, chosen, [text, verdict], stop, task=TASK, queue_limit=queue_limit)
    picked.success(_offer, chosen, [download, open_it], trigger_mode="multiple", **QUICK)
    connect_stop(stop, TASK)
    return Tab(chosen, open_it)


def _offer(name: str) -> tuple[Any, Any]:
    """The file of the exhibit shown, ready to be taken."""
    return gr.update(value=lend(name), interactive=True), gr.update(interactive=True)
