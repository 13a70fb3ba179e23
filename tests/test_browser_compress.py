"""The Compress tab in headless Chromium: the text told live, the fewest sought, a run continued, runs compared."""

from __future__ import annotations

import threading

from playwright.sync_api import Browser, BrowserContext, Page

from cramdemo.ui.shelf import WORKER
from tests.browser import EASY_NUM_MEM, EASY_TEXT, NEEDS_CHROMIUM, PATIENCE_MS, Watch, fill_form, open_page

pytestmark = NEEDS_CHROMIUM
# no vector of the built-in model holds this, so a run goes on until it is stopped
HARD_TEXT = "Seventeen\ncopper lanterns, marble Qx; " + " ".join(str(7919 * i % 10007) for i in range(20))
SENTENCE = "A sentence"
PLACES = """() => ['status', 'tokens', 'curves', 'card', 'runs'].map(
  id => Math.round(document.getElementById(id).getBoundingClientRect().top + window.scrollY))"""
BITS = "document.querySelector('#count')?.innerText.includes('bits')"


def _stopped(page: Page) -> None:
    page.click("#stop")
    page.wait_for_selector("#card .cd-card")
    page.wait_for_selector("#compress:not([disabled])")


def _page(context: BrowserContext, url: str, watch: Watch) -> Page:
    """A page with what the browser keeps; a reload would cut off what is under way."""
    found = context.new_page()
    found.set_default_timeout(PATIENCE_MS)
    watch.on(found)
    found.goto(url)
    found.wait_for_function(f"window.Plotly && {BITS}")
    return found


def test_a_run_moves_nothing_and_every_token_says_what_is_known_of_it(url: str, browser: Browser, watch: Watch) -> None:
    page = open_page(browser, url, watch)
    fill_form(page, EASY_TEXT, EASY_NUM_MEM)
    assert "at most about" in page.inner_text("#expected")
    before = page.evaluate(PLACES)
    page.click("#compress")
    page.wait_for_selector(".cd-card[data-kind=lossless]")
    page.wait_for_selector("#runs li")
    assert page.evaluate(PLACES) == before, "the page moved when the result came"
    tokens = page.locator(".cd-token").count()
    assert page.locator(".cd-token.cd-prefix").count() == page.locator(".cd-bit.cd-right").count() == tokens
    page.hover(f".cd-bit >> nth={tokens - 1}")
    tip = page.inner_text(".cd-tip")
    assert tip.startswith(f"token {tokens} of {tokens} · id ") and " logits" in tip
    assert "· surprisal " in tip and " bits ·" in tip and "solved since step " in tip
    assert page.locator(".cd-token.cd-active").count() == 1
    page.focus(".cd-bars")
    page.keyboard.press("Home")
    assert "no surprisal: nothing before it" in page.inner_text(".cd-tip")


def test_the_fewest_memory_tokens_are_sought_and_the_search_is_shown(url: str, browser: Browser, watch: Watch) -> None:
    page = open_page(browser, f"{url}?k=auto", watch)
    assert page.is_checked("#search-fewest input"), "the link was not followed"
    page.wait_for_selector("#num-mem input[type=range]:disabled")
    page.get_by_role("button", name=SENTENCE, exact=True).click()
    page.wait_for_function("document.querySelector('#count').innerText.startsWith('54 characters')")
    assert "each K tried takes" in page.inner_text("#expected")
    page.click("#compress")
    page.wait_for_selector(".cd-card[data-kind=lossless]")
    assert "K = 1 is the fewest found" in page.inner_text("#status")
    assert page.inner_text(".cd-search") == "K = 1: lossless"
    page.click("#copy-link")
    page.wait_for_function("document.querySelector('#link textarea, #link input')?.value.includes('k=auto')")


def test_on_a_phone_a_run_is_continued_and_two_are_compared(url: str, browser: Browser, watch: Watch) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 900}, color_scheme="dark")
    page = _page(context, url, watch)
    fill_form(page, HARD_TEXT, 1)
    page.click("#compress")
    page.wait_for_selector(".cd-token.cd-wrong[data-says]")
    page.wait_for_function("document.querySelector('.cd-plot').data?.[0].x.length > 3")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    _stopped(page)
    page.click("#try-mem")
    page.wait_for_function("document.querySelector('#num-mem input[type=number]').value === '2'")
    page.wait_for_selector("#status [data-state=running]")
    _stopped(page)
    page.wait_for_selector("#runs li:nth-child(2)")
    assert "K = 2 · fast, seed 0, continued" in page.inner_text("#runs li:nth-child(1)")

    for box in page.query_selector_all("#runs input"):
        box.check()
    page.wait_for_function("document.querySelectorAll('#compared .cd-plot .scatterlayer .trace').length === 2")
    assert page.inner_text("#compared .cd-title").startswith("Neither is lossless: #2 took ")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390

    again = _page(context, url, watch)
    again.wait_for_selector("#runs li:nth-child(2)")
    again.click(".cd-clear")
    again.wait_for_function("!document.querySelector('#runs li')")
    third = _page(context, url, watch)
    assert third.locator("#runs li").count() == 0


def test_a_page_opened_while_the_model_is_busy_counts_when_it_is_free(url: str, browser: Browser, watch: Watch) -> None:
    release = threading.Event()
    WORKER.submit(release.wait)
    try:
        page = browser.new_page()
        page.set_default_timeout(PATIENCE_MS)
        watch.on(page)
        page.goto(url)
        page.wait_for_function("document.querySelector('#count')?.innerText.includes('47 tokens')")
        assert not page.evaluate(BITS)
    finally:
        release.set()
    page.wait_for_function(BITS, timeout=PATIENCE_MS)
