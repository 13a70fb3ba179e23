"""A file for the visitor, and what is handed out when the server's disk is full. In a browser: test_browser_handout."""

from __future__ import annotations

import errno
import os
import re
from base64 import b64decode
from pathlib import Path

import gradio as gr
import pytest

from cramdemo.ui.compress import NOTHING, Outcome
from cramdemo.ui.decode import lend
from cramdemo.ui.handout import lend_file, offer, offer_in_page

FILE = Outcome(b"\x00data", 'a"<name>.safetensors')


@pytest.fixture(params=[errno.ENOSPC, errno.EROFS])
def full(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A disk that takes no file; gives its reason."""

    def write(path: Path, data: bytes) -> None:
        raise OSError(request.param, os.strerror(request.param), str(path))

    monkeypatch.setattr(Path, "write_bytes", write)
    return os.strerror(request.param)


def test_a_file_is_behind_the_button() -> None:
    button, link = offer(FILE)
    path = Path(button["value"])
    assert path.read_bytes() == FILE.data and path.name == FILE.name and button["interactive"] and link == ""


def test_without_a_file_the_button_and_the_link_are_empty() -> None:
    assert offer(NOTHING) == (gr.update(value=None, interactive=False), "")


def test_a_run_that_the_server_has_forgotten_has_no_file() -> None:
    with pytest.raises(gr.Error, match="has forgotten this run"):
        lend_file(NOTHING)


def test_a_full_disk_is_one_sentence_without_a_path(full: str, tmp_path: Path) -> None:
    for handing_out in (lambda: offer(FILE), lambda: lend("haiku")):
        with pytest.raises(gr.Error, match=f"cannot write the file: {full}. Nothing is lost") as told:
            handing_out()
        assert "/" not in told.value.message and not told.value.print_exception


def test_the_link_has_the_file_in_it_and_its_name_is_escaped() -> None:
    button, html = offer_in_page(FILE)
    assert button == gr.update(value=None, interactive=False)
    data, name = re.findall(r'<a href="data:application/octet-stream;base64,([^"]*)" download="([^"]*)">', html)[0]
    assert b64decode(data, validate=True) == FILE.data
    assert name == "a&quot;&lt;name&gt;.safetensors"
