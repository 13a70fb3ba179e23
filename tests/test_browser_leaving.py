"""Visitors who leave, stop, reload or click twice: the model is free soon, and the next run is right."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import Browser, Page

from cramdemo.ui import shelf
from cramdemo.ui.shelf import SHELF, STOPS, WORKER
from tests.browser import EASY_NUM_MEM, EASY_TEXT, NEEDS_CHROMIUM, Watch, fill_form, open_page, open_tab
from tests.test_browser import HARD_TEXT

if TYPE_CHECKING:
    from tests.conftest import Visitor

pytestmark = NEEDS_CHROMIUM
FREE_SECONDS = 20.0  # 2 are promised; a busy machine may take longer
LOAD_SECONDS = 1.0
PLACE = """words => [...document.querySelectorAll('#status, #status *')].some(
  part => part.checkVisibility() && part.innerText.includes(words))"""


def _free(what: str) -> None:
    """Wait until the model is free; `pytest -s` says how long it took."""
    started = time.monotonic()
    while not WORKER.idle:
        assert time.monotonic() - started < FREE_SECONDS, f"{what}: the model is still busy"
        time.sleep(0.02)
    print(f"{what}: free after {time.monotonic() - started:.2f} s")


def _running(page: Page) -> None:
    page.wait_for_selector("#status [data-state=running]")


def _runs(page: Page) -> int:
    """How many are listed; a page that has had runs still shows the card of the last one."""
    return page.locator("#runs li").count()


def _right(page: Page) -> None:
    """The next run of this page."""
    runs = _runs(page)
    fill_form(page, EASY_TEXT, EASY_NUM_MEM)
    page.click("#compress")
    page.wait_for_selector(f"#runs li:nth-child({runs + 1})")
    page.wait_for_selector(".cd-card[data-kind=lossless]")
    page.wait_for_selector("#compress:not([disabled])")
    _free("the next run")


def _started(page: Page) -> None:
    fill_form(page, HARD_TEXT, 1)
    page.click("#compress")


@pytest.fixture
def slow_load(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A model that takes its time to load; the event is set while it does."""
    real, loading = shelf.load_model, threading.Event()

    def load(*arguments: Any, **settings: Any) -> Any:
        loading.set()
        time.sleep(LOAD_SECONDS)
        return real(*arguments, **settings)

    monkeypatch.setattr(shelf, "load_model", load)
    yield loading
    WORKER.submit(lambda: None).result()


def _empty_shelf() -> None:
    WORKER.submit(lambda: setattr(SHELF, "_lm", None)).result()


def test_who_leaves_frees_the_model(url: str, browser: Browser, visitor: Visitor) -> None:
    page = open_page(browser, url, Watch(url))  # whose stream breaks off, and its page says so
    for leave in (page.reload, page.close):
        _started(page)
        _running(page)
        leave()
        _free(leave.__name__)
        _right(visitor())


@pytest.mark.parametrize("when", ["at step 0", "while it loads"])
def test_stop_frees_the_model(visitor: Visitor, slow_load: threading.Event, when: str) -> None:
    page = visitor()
    fill_form(page, HARD_TEXT, 1)
    if when == "while it loads":
        _empty_shelf()
    slow_load.clear()
    page.click("#compress")
    page.wait_for_selector("#stop:not([disabled])")
    if when == "while it loads":
        assert slow_load.wait(20)
    page.click("#stop")
    page.wait_for_selector("#compress:not([disabled])")
    _free(when)
    assert "Stopped" in page.inner_text("#status")
    assert not STOPS._flags
    _right(page)


def test_a_double_click_makes_one_run(visitor: Visitor) -> None:
    page = visitor()
    runs = _runs(page)
    fill_form(page, HARD_TEXT, 1)
    page.dblclick("#compress")
    _running(page)
    page.wait_for_timeout(500)
    assert WORKER._unfinished == 1
    page.click("#stop")
    _free("double click")
    page.wait_for_selector("#compress:not([disabled])")
    page.wait_for_selector(f"#runs li:nth-child({runs + 1})")
    _right(page)
    assert _runs(page) == runs + 2


def test_other_tabs_and_models_while_it_runs_change_nothing_of_the_run(visitor: Visitor) -> None:
    page = visitor()
    runs = _runs(page)
    _started(page)
    _running(page)
    for name in ("Decode", "Gallery", "Compress"):
        open_tab(page, name)
    page.evaluate("document.querySelector('#model details').open = true")
    others = page.locator("#model input[type=radio]:not([disabled]):not(:checked)")
    if others.count():
        others.first.check()
    page.click("#stop")
    _free("Stop after other tabs")
    page.wait_for_selector(f"#runs li:nth-child({runs + 1})")
    page.wait_for_selector("#card .cd-card")
    page.wait_for_selector("#download")
    assert "cram-mini" in page.inner_text("#runs li:nth-child(1)")


def test_who_waits_is_told_the_place_in_the_queue(url: str, browser: Browser, watch: Watch, visitor: Visitor) -> None:
    pages = [visitor(), *(open_page(browser, url, watch) for _ in range(2))]
    for page in pages:
        fill_form(page, HARD_TEXT, 1)
    for number, page in enumerate(pages):
        page.click("#compress")
        if number:
            page.wait_for_function(PLACE, arg=f"queue: {number}/{number}")
        else:
            _running(page)
    pages[0].click("#stop")
    _running(pages[1])
    pages[2].wait_for_function(PLACE, arg="queue: 1/1")
    assert not pages[1].evaluate(PLACE, "queue")
    pages[2].click("#stop")
    pages[1].click("#stop")
    pages[2].wait_for_function("document.querySelector('#status').innerText.includes('Stopped')")
