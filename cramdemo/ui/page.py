"""The whole page, and how it is launched.

python app.py
"""

from __future__ import annotations

import os
from typing import Any

import gradio as gr

from cramdemo.settings import server_settings
from cramdemo.ui import about, capacity, compress, decode, document, edit, gallery, geometry, history, laws, race, size
from cramdemo.ui.api import MAX_UPLOAD_BYTES, add_api
from cramdemo.ui.chart import allow_plotly, head
from cramdemo.ui.experiment import QUEUE, STREAMED
from cramdemo.ui.handout import lend_file
from cramdemo.ui.links import FRAGMENT_SCRIPT
from cramdemo.ui.login import login_is_on
from cramdemo.ui.offer import offered
from cramdemo.ui.results import LIFE_SECONDS, LOOK_SECONDS, sweep
from cramdemo.ui.shelf import STOPS, warm_up
from cramdemo.ui.theme import CALM, CSS, FOOT, HEADER, HEADER_SCRIPT, theme
from cramdemo.ui.zero import ON_ZERO

TITLE = "cramdemo: cram a text into the input vectors of a frozen language model"
AT_A_TIME = None if ON_ZERO else 1  # runs; on ZeroGPU each has a GPU of its own, elsewhere all share the model
PARTS = (history, document, capacity, race, laws, size, geometry, decode, edit, gallery, about)  # they have styles
SESSIONS = 64  # visitors whose last vectors the server still has; gradio forgets none by itself, at 0.4 MB of page each
LAUNCH: dict[str, Any] = {
    "theme": theme(),
    "css": CSS + "".join(tab.CSS for tab in PARTS),
    "head": head() + CALM,
    "max_file_size": MAX_UPLOAD_BYTES,
    "show_error": False,  # unexpected errors would show paths; expected ones have sentences of their own
    "run_history": False,  # it would keep visitors' texts in their browsers
    "ssr_mode": False,
    "footer_links": ["api", "gradio", "settings"],
    "state_session_capacity": SESSIONS,
}


def build() -> gr.Blocks:
    """The page, with the built-in model loading in the background.

    Raises:
        ConfigError: a setting of the server makes no sense.
    """
    offered()
    allow_plotly()
    sweep()
    warm_up()
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(LOOK_SECONDS, LIFE_SECONDS)) as page:
        gr.HTML(HEADER, js_on_load=HEADER_SCRIPT, apply_default_css=False, elem_classes="cd-flat")
        _space_buttons()
        with gr.Tabs(elem_id="tabs", overflow_behavior="wrap") as tabs:  # none hides in a menu
            with gr.Tab("Compress", id="compress", elem_id="tab-compress"):
                first = compress.tab(AT_A_TIME)
            with gr.Tab("Document", id="document", elem_id="tab-document"):
                document.tab(AT_A_TIME)
            with gr.Tab("Capacity", id="capacity", elem_id="tab-capacity"):
                capacity.tab(AT_A_TIME)
            with gr.Tab("Race", id="race", elem_id="tab-race"):
                race.tab(AT_A_TIME)
            with gr.Tab("Laws", id="laws", elem_id="tab-laws"):
                laws.tab(AT_A_TIME)
            with gr.Tab("Bytes", id="bytes", elem_id="tab-bytes"):
                size.tab(AT_A_TIME, first.outcome)
            with gr.Tab("Geometry", id="geometry", elem_id="tab-geometry"):
                geometry.tab(AT_A_TIME)
            with gr.Tab("Decode", id="decode", elem_id="tab-decode"):
                file, decode_on = decode.tab(AT_A_TIME)
                edit.panel(AT_A_TIME, file)
            with gr.Tab("Gallery", id="gallery", elem_id="tab-gallery"):
                shown = gallery.tab(AT_A_TIME)
            with gr.Tab("About", id="about", elem_id="tab-about"):
                about.tab(AT_A_TIME, kept_hours=(LIFE_SECONDS + LOOK_SECONDS) // 3600)
        gr.HTML(FOOT, apply_default_css=False, elem_classes="cd-flat")
        for lent in (
            first.decode_it.click(lend_file, first.outcome, file, **STREAMED),
            shown.open_in_decode.click(decode.lend, shown.chosen, file, **STREAMED),
        ):
            _connect_to_decode(lent, tabs, decode_on)
        _connect_load(page, first)
        page.unload(_forget)
        add_api(AT_A_TIME, QUEUE)
    page.queue(max_size=server_settings().queue)
    built: gr.Blocks = page
    return built


def _connect_to_decode(lent: Any, tabs: gr.Tabs, decode_on: Any) -> None:
    """After an event that has put a file on the Decode tab: go there, and decode it."""
    decode_on(lent.then(lambda: gr.Tabs(selected="decode"), None, tabs, **STREAMED).then)


def _space_buttons() -> None:
    """What only a Space can do: duplicate itself, and log a visitor in."""
    if not os.environ.get("SPACE_ID"):
        return
    with gr.Row(elem_classes="cd-space"):
        gr.DuplicateButton("Duplicate this Space")
        if login_is_on():
            gr.LoginButton("Log in for gated models")


def _connect_load(page: gr.Blocks, first: compress.Tab) -> None:
    """A fresh page: what its address asks for, then what can be said of it."""
    form = [first.model, first.num_mem, first.preset, *first.settings, first.note]
    page.load(None, first.text, first.text, js=FRAGMENT_SCRIPT, **STREAMED)
    followed = page.load(compress.follow_link, [first.model, first.num_mem], form, **STREAMED)
    followed.then(compress.first_about, first.asked, first.facts, **compress.COUNTING)


def _forget(request: gr.Request) -> None:
    """A closed tab stops its runs."""
    STOPS.forget(request.session_hash or "")
