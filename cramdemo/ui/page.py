"""The whole page, and how it is launched.

python app.py
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from cramdemo.ui import compress, decode
from cramdemo.ui.api import add_api
from cramdemo.ui.curves import allow_plotly, head
from cramdemo.ui.shelf import STOPS, warm_up
from cramdemo.ui.theme import CSS, HEADER, NOTES, theme
from cramdemo.ui.zero import ON_ZERO

TITLE = "cramdemo: cram a text into the input vectors of a frozen language model"
QUEUE_SIZE = 20
AT_A_TIME = None if ON_ZERO else 1  # runs; on ZeroGPU each has a GPU of its own, elsewhere all share the model
CACHE_SECONDS = (3600, 24 * 3600)  # look each hour, remove what is a day old
LAUNCH: dict[str, Any] = {
    "theme": theme(),
    "css": CSS,
    "head": head(),
    "max_file_size": "8mb",
    "show_error": False,  # unexpected errors would show paths; expected ones have sentences of their own
    "run_history": False,  # it would keep visitors' texts in their browsers
    "ssr_mode": False,
    "footer_links": ["api", "gradio", "settings"],
}


def build() -> gr.Blocks:
    """The page, with the built-in model loading in the background."""
    allow_plotly()
    warm_up()
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=CACHE_SECONDS) as page:
        gr.HTML(HEADER, apply_default_css=False, elem_classes="cd-flat")
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Compress", id="compress"):
                first = compress.tab(AT_A_TIME)
            with gr.Tab("Decode", id="decode"):
                file, decode_on = decode.tab(AT_A_TIME, compress.QUEUE)
        gr.HTML(NOTES, apply_default_css=False, elem_classes="cd-flat")
        _connect_decode_it(first, tabs, file, decode_on)
        page.load(
            compress.first_count_line,
            [first.text, first.model, first.num_mem],
            first.count,
            show_progress="hidden",
            api_visibility="private",
        )
        page.unload(_forget)
        add_api(AT_A_TIME, compress.QUEUE)
    page.queue(max_size=QUEUE_SIZE)
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


def _forget(request: gr.Request) -> None:
    """A closed tab stops its runs."""
    STOPS.forget(request.session_hash or "")
