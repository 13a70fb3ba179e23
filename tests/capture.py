"""A short moving picture of a real run on the real page, for the top of the README: nothing is played faster.

python -m tests.capture assets/capture.webp
"""

from __future__ import annotations

import io
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page

from tests.browser import Watch, fill_form, open_page, pages

TEXT = (  # about as much as one vector of cram-mini holds, so that there is something to watch
    "It was late when we came to the village. The lamps were out, the dogs were asleep, and only the river was still "
    "talking to itself. Nobody had told us where the inn was, and nobody would.\n\nWe knocked at the first door and "
    "waited."
)
NUM_MEM = 1
WIDTH, HEIGHT, SHOWN_WIDTH = 1180, 1400, 885  # of the page, and of the picture
FRAME_SECONDS = 0.125
BEFORE_SECONDS, AFTER_SECONDS, MOST_SECONDS = 1.0, 3.0, 60.0
FIGURES_END = "document.querySelector('#card .cd-figures').getBoundingClientRect().bottom"
MARGIN = 14  # pixels below it
BYTES = 1_500_000
QUALITIES = (80, 65, 50, 35)
Frame = tuple[float, bytes]  # seconds, PNG


def record(page: Page) -> list[Frame]:
    """Frames of a run of the Compress tab, from before the click until the card stands; the last one as it stays."""
    frames = [(time.monotonic(), page.screenshot())]
    page.click("#compress")
    ended = False
    while not ended and time.monotonic() - frames[0][0] < MOST_SECONDS:
        begun = time.monotonic()
        ended = page.locator("#card .cd-card").count() > 0
        frames.append((begun, page.screenshot()))
        page.wait_for_timeout(max(0.0, 1000 * (FRAME_SECONDS - (time.monotonic() - begun))))
    assert ended, f"the run took more than {MOST_SECONDS:.0f} seconds; try again on a machine that is less busy"
    page.wait_for_selector("#download")
    page.wait_for_timeout(500)
    return [*frames, (time.monotonic(), page.screenshot())]


def film(frames: Sequence[Frame], height: int) -> tuple[list[Image.Image], list[int]]:
    """Pictures, and for each how many milliseconds it stays; equal ones that follow each other are one.

    Args:
        frames: of the whole page.
        height: pixels of the page to be shown, from its top.
    """
    pictures: list[Image.Image] = []
    starts: list[float] = []
    last = b""
    for seconds, data in frames:
        if data != last:
            whole = Image.open(io.BytesIO(data)).convert("RGB").crop((0, 0, WIDTH, height))
            shown = SHOWN_WIDTH, round(height * SHOWN_WIDTH / WIDTH)
            pictures.append(whole.resize(shown, Image.Resampling.LANCZOS))
            starts.append(seconds)
            last = data
    starts[0] = starts[1] - BEFORE_SECONDS
    ends = [*starts[1:], starts[-1] + AFTER_SECONDS]
    return pictures, [round(1000 * (end - start)) for start, end in zip(starts, ends, strict=True)]


def write(target: Path, pictures: Sequence[Image.Image], milliseconds: Sequence[int]) -> int:
    """An endless WebP of the best quality that has no more than `BYTES`; gives its size in bytes."""
    size = 0
    for quality in QUALITIES:
        pictures[0].save(
            target,
            save_all=True,
            append_images=pictures[1:],
            duration=list(milliseconds),
            loop=0,
            quality=quality,
            method=4,
        )
        size = target.stat().st_size
        if size <= BYTES:
            break
    return size


def capture(target: Path) -> str:
    """Make the capture; gives what it is in words."""
    with pages() as (browser, url):
        page = open_page(browser, url, Watch(url), width=WIDTH)
        page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
        fill_form(page, TEXT, NUM_MEM)
        page.evaluate("() => { document.activeElement.blur(); scrollTo(0, 0); }")
        page.wait_for_timeout(500)
        frames = record(page)
        badge, status = page.inner_text("#card .cd-badge"), page.inner_text("#status .cd-head")
        height = min(HEIGHT, math.ceil(page.evaluate(FIGURES_END)) + MARGIN)
    pictures, milliseconds = film(frames, height)
    size = write(target, pictures, milliseconds)
    return f"{badge}, {status}: {len(pictures)} frames, {sum(milliseconds) / 1000:.1f} seconds, {size:,} bytes"


if __name__ == "__main__":
    sys.stdout.write(capture(Path(sys.argv[1])) + "\n")
