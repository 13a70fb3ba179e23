"""A real page in a real browser, for the browser tests, for looking at every tab, and for the README's pictures.

python -m tests.browser FOLDER                                every tab: light, dark, at 390 px, before and after a run
python -m tests.browser Compress=assets/screenshot.png ...    the README's: the named tabs after a run
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, TimeoutError, sync_playwright

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
HARMLESS = ("net::ERR_ABORTED", "Method not implemented")  # a stream that ends; a headless page that is reloaded
PATIENCE_MS = 90_000  # a busy machine of two cores; whoever passes waits no longer for it
ATTEMPTS = 3
COUNTED = """([characters, k]) => {
  const line = document.querySelector('#count').innerText;
  return line.startsWith(`${characters} character`) && line.includes(`K = ${k}`);
}"""
EASY_TEXT, EASY_NUM_MEM = "Once upon a time", 8
SHOT_WIDTH, SHOT_HEIGHT, SHOT_BYTES = 1280, 1500, 300_000
LOOKS = {"light": (1280, False), "dark": (1280, True), "phone": (390, False)}  # width, dark
COLOURS = 255  # of a picture; the page has fewer that matter
RUN_SECONDS = 120  # for a tab's run before it is stopped; an idle machine needs less than 60
PANEL = "#tabs [role=tabpanel]:visible"
START, STOP = f"{PANEL} :is(button[id$='-start'], #compress)", f"{PANEL} :is(button[id$='-stop'], #stop)"
DONE = f"{PANEL} .cd-status:is([data-state=done], [data-state=error])"
WORST = ("serious", "critical")  # of axe-core's four degrees
STILL = """() => document.getAnimations().every(
  a => a.playState !== 'running' || a.effect.getTiming().iterations === Infinity)"""


def chromium_path() -> str | None:
    """Debian's chromium, or None."""
    return shutil.which("chromium")


NEEDS_CHROMIUM = pytest.mark.skipif(chromium_path() is None, reason="needs Debian's chromium: make test installs it")


@dataclass
class Watch:
    """What a page must not do: complain, or ask anybody but its own server."""

    url: str
    complaints: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    pages: list[Page] = field(default_factory=list)

    def on(self, page: Page) -> None:
        """Listen to a page."""
        self.pages.append(page)
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(f"dialog {dialog.message}"))
        page.on("request", self._request)

    def found_nothing(self) -> None:
        """Fails if a page did it."""
        assert self.complaints == []
        assert self.outside == []

    def close(self) -> None:
        """Close the pages, which take the processor's time as long as they are open."""
        for page in self.pages:
            page.close()

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not any(words in message.text for words in HARMLESS):
            self.complaints.append(message.text)

    def _request(self, request: Request) -> None:
        if not request.url.startswith((self.url, "data:", "blob:")):
            self.outside.append(request.url)


@contextmanager
def served(*, mcp: bool = False) -> Iterator[str]:
    """The page on a free port, with the MCP server if asked for; gives the address."""
    from cramdemo.ui.page import LAUNCH, build

    page = build()
    _, url, _ = page.launch(**LAUNCH, mcp_server=mcp, prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    try:
        yield url
    finally:
        page.close(verbose=False)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


def open_page(browser: Browser, url: str, watch: Watch, *, width: int = 1280, dark: bool = False) -> Page:
    """A fresh visitor's page, ready to be used."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light")
    page.set_default_timeout(PATIENCE_MS)
    watch.on(page)
    page.goto(url)
    page.wait_for_selector("#compress")
    page.wait_for_function("() => window.Plotly && document.querySelector('#count').innerText.includes('bits')")
    return page


def fill_form(page: Page, text: str, num_mem: int) -> None:
    """Put values into the Compress form, and again where a page that was still waking up let them fall."""
    for attempt in range(1, ATTEMPTS + 1):
        page.fill("#text textarea", text)
        page.fill("#num-mem input[type=number]", str(num_mem))
        page.keyboard.press("Tab")
        try:
            page.wait_for_function(COUNTED, arg=[len(text), num_mem], timeout=PATIENCE_MS / ATTEMPTS)
            return
        except TimeoutError:
            if attempt == ATTEMPTS:
                raise


def tab_names(page: Page) -> list[str]:
    """Names of the page's tabs, from left to right."""
    return page.get_by_role("tab").all_inner_texts()


def open_tab(page: Page, name: str) -> None:
    """Choose a tab, and wait until what it shows is there."""
    page.get_by_role("tab", name=name, exact=True).click()
    page.wait_for_function(
        """name => [...document.querySelectorAll('#tabs [role=tab]')].some(
          tab => tab.innerText === name && tab.ariaSelected === 'true')
          && [...document.querySelectorAll('#tabs [role=tabpanel]')].some(
          panel => panel.offsetParent && panel.innerText.trim().length > 20)""",
        arg=name,
    )
    page.evaluate("() => document.fonts.ready.then(() => new Promise(requestAnimationFrame))")


def run_open_tab(page: Page, seconds: float = RUN_SECONDS) -> bool:
    """Start what the open tab can, for the first time, and wait until its status says done; Stop after `seconds`.

    Returns:
        Whether there is a start button.
    """
    if not page.locator(START).count():
        return False
    page.click(START)
    try:
        page.wait_for_selector(DONE, timeout=seconds * 1000)
    except TimeoutError:
        page.click(STOP)
        page.wait_for_selector(DONE)
    page.wait_for_timeout(1000)  # buttons come back, figures are drawn
    return True


def findings(page: Page) -> list[str]:
    """What axe-core finds serious or critical on the page as it is: "rule: element", one a line.

    Waits for what is still changing: a button that is just being enabled has a colour between two.
    """
    from axe_playwright_python.sync_playwright import Axe

    page.wait_for_function(STILL)
    violations = Axe().run(page).response["violations"]
    return [
        f"{found['id']}: {node['target'][0]}: {'; '.join(check['message'] for check in node['any'] + node['all'])}"
        for found in violations
        if found["impact"] in WORST
        for node in found["nodes"]
    ]


@contextmanager
def pages() -> Iterator[tuple[Browser, str]]:
    """A browser and the address of a page whose server's files are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="cramdemo-shot-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        with served() as url, chromium() as browser:
            yield browser, url


def pictures(folder: Path) -> None:
    """Pictures of every tab, for looking at: NAME-LOOK-empty.png, and NAME-LOOK-done.png where it can be started."""
    folder.mkdir(parents=True, exist_ok=True)
    with pages() as (browser, url):
        for look, (width, dark) in LOOKS.items():
            page = open_page(browser, url, Watch(url), width=width, dark=dark)
            for name in tab_names(page):
                open_tab(page, name)
                page.screenshot(path=folder / f"{name.lower()}-{look}-empty.png", full_page=True)
                if run_open_tab(page):
                    page.screenshot(path=folder / f"{name.lower()}-{look}-done.png", full_page=True)
            page.close()


def readme_pictures(targets: dict[str, Path]) -> None:
    """The README's pictures: the named tabs, each after a run, without the foot of the page."""
    with pages() as (browser, url):
        page = open_page(browser, url, Watch(url), width=SHOT_WIDTH)
        for name, target in targets.items():
            open_tab(page, name)
            run_open_tab(page)
            page.set_viewport_size({"width": SHOT_WIDTH, "height": SHOT_HEIGHT})
            page.evaluate("scrollTo(0, 0)")
            page.wait_for_timeout(500)
            height = min(SHOT_HEIGHT, page.evaluate("document.querySelector('.cd-foot').getBoundingClientRect().top"))
            page.screenshot(path=target, clip={"x": 0, "y": 0, "width": SHOT_WIDTH, "height": height})
            Image.open(target).quantize(COLOURS).save(target, optimize=True)
            size = target.stat().st_size
            assert size < SHOT_BYTES, f"{target.name} has {size:,} bytes; the README allows {SHOT_BYTES:,}"


if __name__ == "__main__":
    if not sys.argv[1:]:
        sys.exit(__doc__)
    elif "=" in sys.argv[1]:
        pairs = (argument.split("=", 1) for argument in sys.argv[1:])
        readme_pictures({name: Path(target) for name, target in pairs})
    else:
        pictures(Path(sys.argv[1]))
