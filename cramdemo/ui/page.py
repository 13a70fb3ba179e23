"""The whole page, and how it is launched.

python app.py
"""

from __future__ import annotations

import os
from typing import Any

import gradio as gr

from cramdemo.settings import server_settings
from cramdemo.ui import capacity, compress, decode
from cramdemo.ui.api import MAX_UPLOAD_BYTES, add_api
from cramdemo.ui.chart import allow_plotly, head
from cramdemo.ui.experiment import QUEUE
from cramdemo.ui.links import FRAGMENT_SCRIPT
from cramdemo.ui.login import login_is_on
from cramdemo.ui.offer import offered
from cramdemo.ui.shelf import STOPS, warm_up
from cramdemo.ui.theme import CSS, HEADER, NOTES, theme
from cramdemo.ui.zero import ON_ZERO

TITLE = "cramdemo: cram a text into the input vectors of a frozen language model"
AT_A_TIME = None if ON_ZERO else 1  # runs; on ZeroGPU each has a GPU of its own, elsewhere all share the model
CACHE_SECONDS = (3600, 24 * 3600)  # look each hour, remove what is a day old
LAUNCH: dict[str, Any] = {
    "theme": theme(),
    "css": CSS + capacity.CSS,
    "head": head(),
    "max_file_size": MAX_UPLOAD_BYTES,
    "show_error": False,  # unexpected errors would show paths; expected ones have sentences of their own
    "run_history": False,  # it would keep visitors' texts in their browsers
    "ssr_mode": False,
    "footer_links": ["api", "gradio", "settings"],
}


def build() -> gr.Blocks:
    """The page, with the built-in model loading in the background.

    Raises:
        ConfigError: a setting of the server makes no sense.
    """
    offered()
    allow_plotly()
    warm_up()
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=CACHE_SECONDS) as page:
        gr.HTML(HEADER, apply_default_css=False, elem_classes="cd-flat")
        _space_buttons()
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Compress", id="compress"):
                first = compress.tab(AT_A_TIME)
            with gr.Tab("Capacity", id="capacity"):
                capacity.tab(AT_A_TIME)
            with gr.Tab("Decode", id="decode"):
                file, decode_on = decode.tab(AT_A_TIME, QUEUE)
        gr.HTML(NOTES, apply_default_css=False, elem_classes="cd-flat")
        _connect_decode_it(first, tabs, file, decode_on)
        _connect_load(page, first)
        page.unload(_forget)
        add_api(AT_A_TIME, QUEUE)
    page.queue(max_size=server_settings().queue)
    built: gr.Blocks = page
    return built


def _connect_decode_it(first: compress.Tab, tabs: gr.Tabs, file: gr.File, decode_on: Any) -> None:
    """From a finished run to its file on the Decode tab, decoded."""
    carried = first.decode_it.click(
        lambda path: (gr.Tabs(selected="decode"), path),
        first.download,
        [tabs, file],
        show_progress="hidden",
        api_visibility="private",
    )
    decode_on(carried.then)


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
    private: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    form = [first.model, first.num_mem, first.preset, *first.settings, first.note]
    page.load(None, first.text, first.text, js=FRAGMENT_SCRIPT, **private)
    followed = page.load(compress.follow_link, [first.model, first.num_mem], form, **private)
    asked = [first.text, first.model, first.num_mem, first.settings[0]]
    followed.then(compress.first_about, asked, first.facts, **private)


def _forget(request: gr.Request) -> None:
    """A closed tab stops its runs."""
    STOPS.forget(request.session_hash or "")
