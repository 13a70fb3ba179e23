"""A file for the visitor, behind a button; where the server's disk cannot take one, a link that needs no disk."""

from __future__ import annotations

from base64 import b64encode
from html import escape
from typing import Any, Protocol

import gradio as gr

from cramdemo.ui.experiment import QUICK, STREAMED
from cramdemo.ui.results import put


class Offered(Protocol):
    """What a state holds for a button: a file's bytes, none where there is nothing to offer, and its name."""

    @property
    def data(self) -> bytes:
        """The whole file."""

    @property
    def name(self) -> str:
        """Without a folder."""


def lent(data: bytes, name: str) -> str:
    """The path of a file, for a component.

    Raises:
        gr.Error: the disk is full or read-only.
    """
    try:
        return put(name, data)
    except OSError as error:
        words = f"The server cannot write the file: {error.strerror}. Nothing is lost: try again in a while."
        raise gr.Error(words, title="No file", print_exception=False) from error


def lend_file(file: Offered) -> str:
    """The same for what a state holds.

    Raises:
        gr.Error: it holds nothing any more, or as `lent`.
    """
    if not file.data:
        raise gr.Error("The server has forgotten this run. Compress again.", title="No file", print_exception=False)
    return lent(file.data, file.name)


def rescue() -> gr.HTML:
    """Lay out the place of the link."""
    return gr.HTML("", apply_default_css=False, elem_classes="cd-flat cd-rescue")


def connect_offer(ended: Any, state: gr.State, button: gr.DownloadButton, place: gr.HTML) -> None:
    """After an event, put what a state holds behind a button, or into the page itself if that fails: a step of its
    own, because nothing but `failure` follows one that fails.

    Args:
        state: holds an `Offered`.
        place: see `rescue`.
    """
    offered = ended.then(offer, state, [button, place], concurrency_limit=None, **STREAMED)
    offered.failure(offer_in_page, state, [button, place], **QUICK)


def offer(file: Offered) -> tuple[Any, str]:
    """The button's file, and no link."""
    if not file.data:
        return gr.update(value=None, interactive=False), ""
    return gr.update(value=lend_file(file), interactive=True), ""


def offer_in_page(file: Offered) -> tuple[Any, str]:
    """No file, and a link that has its bytes in it."""
    link = f"data:application/octet-stream;base64,{b64encode(file.data).decode('ascii')}"
    html = (
        '<p class="cd-note" role="status">The server has no room for a file now. Your vectors are in this page: '
        f'<a href="{link}" download="{escape(file.name)}">download them from here</a>.</p>'
    )
    return gr.update(value=None, interactive=False), html
