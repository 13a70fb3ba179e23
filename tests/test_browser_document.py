"""The Document tab in Chromium: a text becomes segments, is stopped, goes on, is downloaded and read back."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from cramdemo.segments import load
from tests.browser import NEEDS_CHROMIUM, Watch, open_page, open_tab

pytestmark = NEEDS_CHROMIUM
TEXT = "She opened the window and looked out at the sea. <img src=x onerror=alert(1)> Nobody was there. " * 4
DONE = "#document-map .cd-map-strip i[data-kind=lossless]"


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)], ids=["light", "phone, dark"])
def test_a_document_is_crammed_stopped_goes_on_and_reads_back(  # noqa: PLR0917
    url: str, browser: Browser, watch: Watch, tmp_path: Path, width: int, dark: bool
) -> None:
    page = open_page(browser, url, watch, width=width, dark=dark)
    open_tab(page, "Document")
    upload = {"name": "t.txt", "mimeType": "text/plain", "buffer": TEXT.encode()}
    page.set_input_files("#document-upload input[type=file]", upload)
    page.wait_for_selector("#document-upload .file-preview")
    page.focus("#document-start")
    page.keyboard.press("Enter")
    page.wait_for_selector(DONE)
    page.evaluate("document.querySelector('#document-stop').click()")  # which does nothing if it has ended by then
    page.wait_for_selector("#document-status [data-state=done]")
    page.wait_for_selector("#document-start:not([disabled])")
    if "to go on" in page.inner_text("#document-status"):  # it may have been faster than Stop
        page.click("#document-start")
        page.wait_for_selector("#document-status [data-state=running]")
    page.wait_for_selector("#document-status [data-state=done]:has-text('Done: lossless.')")
    page.wait_for_selector("#document-start:not([disabled])")
    count = page.locator(DONE).count()
    assert page.get_attribute(".cd-map-strip", "aria-label") == f"Segments: {count} decodes exactly"

    page.wait_for_selector("#document-download:not([disabled])")
    with page.expect_download() as caught:
        page.click("#document-download")
    file = tmp_path / caught.value.suggested_filename
    caught.value.save_as(file)
    document = load(file)
    assert document.complete and len(document.entries) == count > 1

    page.set_input_files("#document-file input[type=file]", file)
    page.wait_for_selector("#document-file .file-preview")
    page.click("#document-back-start")
    page.wait_for_selector("#document-back-status [data-state=done]:has-text('the original text')")
    assert page.evaluate("document.querySelector('#document-text-back .cd-text').textContent") == TEXT
    assert page.locator("img[src=x]").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_what_is_no_text_and_what_is_no_document_is_refused_in_words(url: str, browser: Browser, watch: Watch) -> None:
    page = open_page(browser, url, watch)
    open_tab(page, "Document")
    page.fill("#document-text textarea", "")
    page.click("#document-start")
    page.wait_for_selector("#document-status [data-state=error]:has-text('The text is empty')")
    page.click("#document-back-start")
    page.wait_for_selector("#document-back-status [data-state=error]:has-text('There is no document yet')")
