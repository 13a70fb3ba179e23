"""The Geometry tab in headless Chromium, on the built-in model."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Page

from tests.browser import NEEDS_CHROMIUM

if TYPE_CHECKING:
    from tests.conftest import Visitor

pytestmark = NEEDS_CHROMIUM
CHARTS = ("path", "variance", "cosines", "line", "plane", "tokens", "attention")
EASY = "She opened the door, and there was nobody in the room."
HARD = "3 1 4 1 5 9 2 6 5 3 5 8 9 7 9 3 2 3 8 4 6 2 6 4 3 3 8 3 2 7 9 5 0 2 8 8 4 1 9 7"  # takes hundreds of steps
STEPS_WALKED = "() => (document.querySelector('#geometry-path .cd-plot').data?.[0].x.length || 0)"
TOPS = (
    "() => [...document.querySelectorAll('.cd-geometry .cd-stage')].map(e => e.getBoundingClientRect().top + scrollY)"
)


def _geometry(page: Page) -> Page:
    page.get_by_role("tab", name="Geometry").click()
    page.wait_for_selector("#geometry-start")
    return page


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)], ids=["wide and light", "phone and dark"])
def test_one_click_fills_every_figure_where_it_was_announced(
    visitor: Visitor, tmp_path: Path, width: int, dark: bool
) -> None:
    page = _geometry(visitor(width, dark))
    assert "about 10 seconds" in page.inner_text("#geometry-status")
    assert page.locator(".cd-geometry .cd-empty:visible").count() == len(CHARTS)
    before = page.evaluate(TOPS)
    page.fill("#geometry-text textarea", EASY)
    page.focus("#geometry-start")
    page.keyboard.press("Enter")
    page.wait_for_selector("#geometry-status [data-state=done]")
    page.wait_for_function(
        "names => names.every(name => document.querySelector(`#geometry-${name} .cd-plot`).data?.length)", arg=CHARTS
    )

    assert page.evaluate(TOPS) == pytest.approx(before, abs=24), "the figures moved when the results came"
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert "hold 99 % of its variance" in page.inner_text("#geometry-variance .cd-title")
    assert page.inner_text("#geometry-cosines .cd-title").startswith("Three solutions, ")
    assert "of the plane’s 441 points" in page.inner_text("#geometry-plane .cd-title")
    assert re.fullmatch(r"(\d\d), \1, \1", page.inner_text("#geometry-numbers dd >> nth=0"))
    shades = page.evaluate("document.querySelector('#geometry-plane .cd-plot').data[0].colorscale")
    accent = "#4fcfb4" if dark else "#0b6b5c"
    assert shades[-1] == [1, accent], "a colour of the style sheet was not looked up"
    rows = page.evaluate("document.querySelector('#geometry-plane .cd-plot').data[0].z.length")
    assert rows == 21
    assert page.inner_text("#geometry-path .cd-plot").count("start") == 1

    with page.expect_download() as caught:
        page.get_by_role("button", name="Save the figure’s data as CSV").nth(CHARTS.index("path")).click()
    assert caught.value.suggested_filename == "cramdemo-geometry-path.csv"
    caught.value.save_as(tmp_path / "path.csv")
    lines = list(csv.reader((tmp_path / "path.csv").read_text(encoding="utf-8").splitlines()))
    assert lines[1][0] == "seed 0" and lines[1][3].startswith("step 0: ")


def test_the_path_grows_while_it_is_walked_and_stop_keeps_it(visitor: Visitor) -> None:
    page = _geometry(visitor())
    page.fill("#geometry-text textarea", HARD)
    page.click("#geometry-start")
    page.wait_for_function(f"({STEPS_WALKED})() > 2")
    before = page.evaluate(STEPS_WALKED)
    page.wait_for_function(f"({STEPS_WALKED})() > {before}")
    page.wait_for_function("document.activeElement.id === 'geometry-stop'")
    page.keyboard.press("Enter")
    page.wait_for_selector("#geometry-status [data-state=done]")
    assert "Stopped; what was found is kept." in page.inner_text("#geometry-status")
    assert page.evaluate(STEPS_WALKED) > before
    assert page.locator(".cd-geometry .cd-empty:visible").count() == len(CHARTS) - 2  # all but path and variance
    page.wait_for_selector("#geometry-start:not([disabled])")


def test_an_example_fills_the_box_and_a_text_that_is_too_short_is_refused_in_words(visitor: Visitor) -> None:
    page = _geometry(visitor())
    page.get_by_role("button", name="A plain sentence").click()
    page.wait_for_function("document.querySelector('#geometry-text textarea').value.startsWith('She opened')")
    page.fill("#geometry-text textarea", "a")
    page.click("#geometry-start")
    page.wait_for_selector("#geometry-status [data-state=error]")
    assert "Make it longer." in page.inner_text("#geometry-status")
