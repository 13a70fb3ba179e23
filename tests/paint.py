"""How the page feels, measured in headless Chromium; by hand, since it says most on an idle machine.

python -m tests.paint

First paint on loopback; how busy a curve of 5,000 points keeps the browser's main thread while it is streamed (what
share of the time it is in a task, and what share it computes); whether a zoom stays meanwhile; and how much the
Compress tab's layout shifts during a run.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import gradio as gr
from playwright.sync_api import Browser, Page

from cramdemo.ui.chart import allow_plotly
from cramdemo.ui.curves import curves, curves_value
from cramdemo.ui.page import LAUNCH
from tests.browser import LOOKS, PATIENCE_MS, Watch, open_page, pages, run_open_tab

VISITS = 5
POINTS, HZ = 5000, 9
SECONDS = 12.0  # in which they come
LATE_POINTS, LATE_SECONDS = 100, 4.0  # and the last of a long run, as an optimiser of 25 steps a second gives them
ZOOM = [1000.0, 2000.0]
PLOT = "document.querySelector('.cd-plot')"
PAINTS = "performance.getEntriesByType('paint').map(entry => [entry.name, entry.startTime])"
SHIFTS = """() => {
  window.shifts = [];
  new PerformanceObserver(list => {
    for (const entry of list.getEntries()) {
      window.shifts.push([entry.value, entry.hadRecentInput,
        entry.sources.map(source => source.node?.id || source.node?.className || source.node?.nodeName || '?')]);
    }
  }).observe({type: 'layout-shift'});
}"""
Row = tuple[str, str, str]


@dataclass(frozen=True)
class Load:
    """What a stream cost: seconds that it lasted, that the main thread was in a task, and that it had a core meanwhile.

    Where others want the cores too, a task lasts longer than it computes; on an idle machine the two are the same.
    """

    seconds: float
    busy: float
    computing: float
    zoom: list[float]
    points: int


def first_paint(browser: Browser, url: str) -> tuple[float, float]:
    """Seconds to the first contentful paint and until the form can be used; medians of visits with an empty cache."""
    painted, usable = [], []
    for _ in range(VISITS):
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        begun = time.monotonic()
        page.goto(url)
        page.wait_for_selector("#compress")
        usable.append(time.monotonic() - begun)
        painted.append(dict(page.evaluate(PAINTS))["first-contentful-paint"] / 1000)
        context.close()
    return median(painted), median(usable)


def _points(count: int) -> Iterator[str]:
    return (f"{i},{8 / (1 + i / 300) + (i % 7) / 50:.4f},{min(1.0, i / count):.4f};" for i in range(count))


@contextmanager
def streaming_page(start: int, seconds: float) -> Iterator[str]:
    """A page whose one button streams the curve from `start` points to `POINTS`; gives its address."""
    allow_plotly()
    made = list(_points(POINTS))

    def stream() -> Iterator[dict[str, str]]:
        begun = time.monotonic()
        share = 0.0
        while share < 1:
            share = min(1.0, (time.monotonic() - begun) / seconds)
            yield curves_value("".join(made[: start + round(share * (POINTS - start))]))
            time.sleep(1 / HZ)

    with gr.Blocks(analytics_enabled=False) as page:
        button, figure = gr.Button("Go", elem_id="go"), curves()
        button.click(stream, None, figure, show_progress="hidden")
    _, url, _ = page.launch(**LAUNCH, prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    try:
        yield url
    finally:
        page.close(verbose=False)


def stream_load(browser: Browser, start: int, seconds: float) -> Load:
    """Watch the stream once, zoomed in from its first second on."""
    with streaming_page(start, seconds) as url:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(PATIENCE_MS)
        page.goto(url)
        page.wait_for_function("() => window.Plotly")
        page.click("#go")
        page.wait_for_function(f"() => {PLOT}.data && {PLOT}.data[0].x.length > 50")
        page.evaluate(f"range => Plotly.relayout({PLOT}, {{'xaxis.range': range}})", ZOOM)
        clocks = [_task_seconds(page, domain) for domain in ("timeTicks", "threadTicks")]
        before, begun = [clock() for clock in clocks], time.monotonic()
        page.wait_for_function(f"() => {PLOT}.getAttribute('aria-label').includes('step {POINTS - 1}:')")
        spent = [clock() - start for clock, start in zip(clocks, before, strict=True)]
        found = Load(
            time.monotonic() - begun,
            *spent,
            page.evaluate(f"{PLOT}.layout.xaxis.range"),
            page.evaluate(f"{PLOT}.data[0].x.length"),
        )
        page.close()
    return found


def _task_seconds(page: Page, domain: str) -> Callable[[], float]:
    """Reads how long the page's main thread has been in tasks, by one of Chromium's clocks."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": domain})

    def read() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return float(next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration"))

    return read


def layout_shift(page: Page) -> tuple[float, float, str]:
    """Shift scores of a run on the open tab: as browsers count it, with what follows input at once; what moved most."""
    page.evaluate(SHIFTS)
    assert run_open_tab(page)
    found = page.evaluate("window.shifts")
    moved = max(found, key=lambda shift: shift[0], default=[0, False, []])
    words = ", ".join(dict.fromkeys(str(name).split(" ")[0] for name in moved[2])) or "nothing"
    return sum(value for value, recent, _ in found if not recent), sum(value for value, _, _ in found), words


def measure() -> list[Row]:
    """All figures as rows: what, measured, wanted."""
    rows: list[Row] = []
    with pages() as (browser, url):
        painted, usable = first_paint(browser, url)
        rows.append(("first contentful paint on loopback, median", f"{painted:.2f} s", "under 2 s"))
        rows.append(("until the form can be used, median", f"{usable:.2f} s", ""))
        for look, (width, dark) in LOOKS.items():
            page = open_page(browser, url, Watch(url), width=width, dark=dark)
            page.wait_for_timeout(1000)
            counted, all_of_it, moved = layout_shift(page)
            words = f"{counted:.3f} (with what follows a click at once {all_of_it:.3f}; most: {moved})"
            rows.append((f"layout shift of a Compress run, {look}", words, "under 0.1; 0 is best"))
            page.close()
        for what, start, seconds in (
            (f"0 to {POINTS:,} points", 0, SECONDS),
            (f"the last {LATE_POINTS} of {POINTS:,} points", POINTS - LATE_POINTS, LATE_SECONDS),
        ):
            load = stream_load(browser, start, seconds)
            busy, computing = load.busy / load.seconds, load.computing / load.seconds
            share = f"{busy:.0%} (computing {computing:.0%}) of {load.seconds:.1f} s"
            rows.append((f"main thread busy, {what}, {HZ} Hz, {load.points:,} drawn", share, "under 30 %"))
            rows.append((f"zoom kept, {what}", "yes" if load.zoom == ZOOM else f"no: {load.zoom}", "yes"))
    return rows


if __name__ == "__main__":
    for row in (("figure", "measured", "wanted"), *measure()):
        sys.stdout.write(f"| {' | '.join(row)} |\n")
