"""A server whose disk is full, in headless Chromium: the vectors are downloaded from the page itself."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from cramdemo import decode, load
from tests.browser import EASY_NUM_MEM, EASY_TEXT, NEEDS_CHROMIUM, fill_form, open_page

pytestmark = NEEDS_CHROMIUM
OURS, GRADIOS = "cramdemo.ui.handout.Path.write_bytes", "gradio.processing_utils.shutil.copy2"


@pytest.mark.parametrize(("writer", "num_mem"), [(OURS, EASY_NUM_MEM), (GRADIOS, EASY_NUM_MEM + 1)])
def test_on_a_full_disk_vectors_are_downloaded_without_one(  # noqa: PLR0917
    url, browser, watch, built_in, tmp_path, monkeypatch, writer, num_mem
):
    """K differs because gradio does not copy again what it has copied before."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    page = open_page(browser, url, watch)
    fill_form(page, EASY_TEXT, num_mem)
    with monkeypatch.context() as disk:
        disk.setattr(writer, full)
        page.click("#compress")
        page.wait_for_selector(".cd-rescue a")
    page.wait_for_selector("#compress:not([disabled])")
    assert page.is_disabled("#download")
    with page.expect_download() as caught:
        page.click(".cd-rescue a")
    assert caught.value.suggested_filename.endswith(f"-k{num_mem}.safetensors")
    caught.value.save_as(tmp_path / "v.safetensors")
    decoded = decode(built_in, load(tmp_path / "v.safetensors"))
    assert decoded.text == EASY_TEXT and decoded.matches

    page.click("#compress")
    page.wait_for_selector("#download:not([disabled])")
    assert page.query_selector(".cd-rescue a") is None
