"""A real page in a real browser, for the browser tests and the README's screenshot.

python -m tests.browser assets/screenshot.png
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
PATIENCE_MS = 45_000  # a busy machine of two cores
ATTEMPTS = 3
COUNTED = """([characters, k]) => {
  const line = document.querySelector('#count').innerText;
  return line.startsWith(`${characters} character`) && line.includes(`K = ${k}`);
}"""
EASY_TEXT, EASY_NUM_MEM = "Once upon a time", 8
SHOT_WIDTH, SHOT_HEIGHT, SHOT_BYTES = 1280, 1500, 300_000


def chromium_path() -> str | None:
    """Debian's chromium, or None."""
    return shutil.which("chromium")


@dataclass
class Watch:
    """What a page must not do: complain, or ask anybody but its own server."""

    url: str
    complaints: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)

    def on(self, page: Page) -> None:
        """Listen to a page."""
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(f"dialog {dialog.message}"))
        page.on("request", self._request)

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
    page.fill("#text textarea", text)
    for attempt in range(1, ATTEMPTS + 1):
        page.fill("#num-mem input[type=number]", str(num_mem))
        page.keyboard.press("Tab")
        try:
            page.wait_for_function(COUNTED, arg=[len(text), num_mem], timeout=PATIENCE_MS / ATTEMPTS)
            return
        except TimeoutError:
            if attempt == ATTEMPTS:
                raise


def screenshot(target: Path) -> None:
    """The README's picture: a finished run on the real page."""
    with tempfile.TemporaryDirectory(prefix="cramdemo-shot-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        with served() as url, chromium() as browser:
            page = open_page(browser, url, Watch(url))
            if len(sys.argv) > 2:  # a text that is already easy for the weights at hand
                fill_form(page, sys.argv[2], int(sys.argv[3]))
            page.click("#compress")
            page.wait_for_selector("#card .cd-card")
            page.wait_for_selector("#download")
            page.wait_for_timeout(1000)
            page.set_viewport_size({"width": SHOT_WIDTH, "height": SHOT_HEIGHT})
            page.wait_for_timeout(500)
            height = min(SHOT_HEIGHT, page.evaluate("document.querySelector('.cd-notes').getBoundingClientRect().top"))
            page.screenshot(path=target, clip={"x": 0, "y": 0, "width": SHOT_WIDTH, "height": height})
    assert target.stat().st_size < SHOT_BYTES, f"{target.stat().st_size:,} bytes; the README allows {SHOT_BYTES:,}"


if __name__ == "__main__":
    screenshot(Path(sys.argv[1] if len(sys.argv) > 1 else "assets/screenshot.png"))
