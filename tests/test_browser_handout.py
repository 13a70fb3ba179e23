"""A server whose disk is full, in headless Chromium: the vectors are downloaded from the page itself."""

from __future__ import annotations

import errno
import os
from typing import Any

from cramdemo import decode, load
from tests.browser import EASY_NUM_MEM, EASY_TEXT, NEEDS_CHROMIUM, fill_form, open_page

pytestmark = NEEDS_CHROMIUM


def test_on_a_full_disk_vectors_are_downloaded_without_one(  # noqa: PLR0917
    url, browser, watch, built_in, tmp_path, monkeypatch
):
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    page = open_page(browser, url, watch)
    fill_form(page, EASY_TEXT, EASY_NUM_MEM)
    with monkeypatch.context() as disk:
        disk.setattr("cramdemo.ui.results.Path.write_bytes", full)
        page.click("#compress")
        page.wait_for_selector(".cd-rescue a")
    page.wait_for_selector("#compress:not([disabled])")
    assert page.is_disabled("#download")
    with page.expect_download() as caught:
        page.click(".cd-rescue a")
    assert caught.value.suggested_filename.endswith(f"-k{EASY_NUM_MEM}.safetensors")
    caught.value.save_as(tmp_path / "v.safetensors")
    decoded = decode(built_in, load(tmp_path / "v.safetensors"))
    assert decoded.text == EASY_TEXT and decoded.matches

    page.click("#compress")
    page.wait_for_selector("#download:not([disabled])")
    assert page.query_selector(".cd-rescue a") is None
