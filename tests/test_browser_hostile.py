"""Text, names and metadata that would be code, markup or commands elsewhere: on every tab they are characters."""

from __future__ import annotations

import dataclasses
from urllib.parse import quote

from playwright.sync_api import Browser, Page

from cramdemo import CramResult, MemVectors
from cramdemo.vectors import to_bytes
from tests.browser import NEEDS_CHROMIUM, PANEL, START, STOP, Watch, open_page, open_tab

pytestmark = NEEDS_CHROMIUM
TAG = "<img src=x onerror=alert(1)>"
LINK = "[b](javascript:alert(2))"
EVIL = f"{TAG}**x**{LINK}<b>y</b>\x1b[31m\x00\x07\u202eabc\u202c𝕏🦜"
SEEN = EVIL.replace("\x1b", "␛").replace("\x00", "␀").replace("\x07", "␇")
SEEN = SEEN.replace("\u202e", "[U+202E]").replace("\u202c", "[U+202C]")
NAME = "<img src=x onerror=alert(3)>\u202e🦜.safetensors"
INJECTED = """() => [...document.querySelectorAll(
  'img[src="x"], [onerror], a[href^="javascript:"], :is(b, strong, em, i, h1, code)')]
  .filter(node => !node.matches('b, strong, em, i, h1, code') || /^[xy]$/.test(node.textContent))
  .map(node => node.outerHTML.slice(0, 120))"""
TURNED = "() => [...document.querySelectorAll('.cd-flat')].some(part => part.textContent.includes('\\u202e'))"


def _harmless(page: Page) -> None:
    """Nothing became an element, and nothing turns the page's text around; a dialog would have failed `watch`."""
    assert page.evaluate(INJECTED) == []
    assert not page.evaluate(TURNED)


def _shows(page: Page, place: str, words: str) -> None:
    """Whatever line ends and spaces a browser lays out."""
    page.wait_for_function(
        "([place, words]) => document.querySelector(place)?.textContent.replace(/[\\s\u25cc⏎⇥]/g, '').includes(words)",
        arg=[place, "".join(words.split())],
    )
    _harmless(page)


def _file(vectors: MemVectors, name: str = NAME) -> dict[str, object]:
    """An upload as a browser hands it over."""
    return {"name": name, "mimeType": "application/octet-stream", "buffer": to_bytes(vectors)}


def test_on_compress_bytes_and_decode(url: str, browser: Browser, watch: Watch) -> None:
    page = open_page(browser, url, watch)
    page.fill("#text textarea", EVIL)
    page.fill("#num-mem input[type=number]", "24")
    page.click("#compress")
    page.wait_for_selector(".cd-card[data-kind=lossless]")
    _shows(page, ".cd-tokens", SEEN)
    page.focus(".cd-tokens")
    for key in ("Home", "ArrowRight", "End"):
        page.keyboard.press(key)
        page.wait_for_function("document.querySelector('.cd-tip').textContent.startsWith('token ')")
        _harmless(page)
    page.wait_for_selector("#runs li")
    _harmless(page)

    page.click("#decode-it")
    page.wait_for_selector("#verdict .cd-card[data-kind=lossless]")
    _shows(page, "#decoded .cd-text", SEEN)
    page.locator("#edit-view input[type=range]").first.evaluate(
        "node => { node.value = 0.95; node.dispatchEvent(new Event('change')); }"
    )
    _shows(page, "#edit-view .cd-edit-text", TAG[:4])

    open_tab(page, "Bytes")
    page.click("#bytes-start")
    _shows(page, "#bytes-view", TAG)
    page.click("#bytes-stop")
    page.wait_for_selector("#bytes-status [data-state=done]")
    _shows(page, "#bytes-view", TAG)


def test_in_the_experiments(url: str, browser: Browser) -> None:
    watch = Watch(url)  # of what it may complain: plotly, of a figure that it cannot lay out yet
    page = open_page(browser, url, watch)
    for tab in ("Capacity", "Race", "Laws", "Geometry"):
        open_tab(page, tab)
        page.locator(f"{PANEL} textarea").first.fill("\n\n".join([EVIL] * 3 if tab == "Laws" else [EVIL]))
        page.click(START)
        page.wait_for_selector(f"{PANEL} .cd-status:is([data-state=running], [data-state=done], [data-state=error])")
        page.wait_for_timeout(1000)
        _harmless(page)
        if page.is_enabled(STOP):
            page.click(STOP)
        page.wait_for_selector(f"{PANEL} .cd-status:is([data-state=done], [data-state=error])")
        _harmless(page)
    assert watch.outside == [] and not any(words.startswith("dialog") for words in watch.complaints)


def test_in_a_vector_file_and_its_name(url: str, browser: Browser, watch: Watch, crammed: CramResult) -> None:
    evil = dataclasses.replace(
        crammed.vectors,
        model_id=EVIL,
        model_revision=EVIL,
        created_with=EVIL,
        verified=[{"device": EVIL, "dtype": EVIL, "lossless": EVIL, "correct_prefix": EVIL, "num_tokens": EVIL}],
        metrics={EVIL: EVIL},
        config={EVIL: EVIL},
    )
    page = open_page(browser, url, watch)
    open_tab(page, "Decode")
    page.set_input_files("#vector-file input[type=file]", _file(evil))
    page.wait_for_selector("#verdict [data-state=error]")
    _shows(page, "#facts", SEEN)
    assert page.inner_text("#facts").count(TAG) >= 4
    _shows(page, "#verdict", TAG)
    _shows(page, "#edit-source", "onerror")  # gradio has taken the signs out that a file's name need not have
    page.set_input_files("#edit-file input[type=file]", _file(evil) | {"buffer": b"no vectors"})
    _shows(page, "#edit-source", "is not a safetensors file")
    open_tab(page, "Bytes")
    page.set_input_files("#bytes-file input[type=file]", _file(evil))
    page.wait_for_function("document.querySelector('#bytes-source').innerText.includes('The file below')")
    page.click("#bytes-start")
    _shows(page, "#bytes-status", TAG)


def test_in_a_link(url: str, browser: Browser, watch: Watch) -> None:
    page = open_page(browser, f"{url}?model={quote(EVIL)}&k={quote(TAG)}&seed={quote(TAG)}#text={quote(EVIL)}", watch)
    page.wait_for_function("document.querySelector('.toast-body, [data-testid=toast-body]')")
    assert TAG[:20] in page.inner_text(".toast-body, [data-testid=toast-body]")
    _harmless(page)
    assert page.input_value("#text textarea").startswith(TAG)
