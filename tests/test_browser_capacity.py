"""The Capacity tab in headless Chromium: one click, curves that climb, a card, and Stop."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Page

from tests.browser import NEEDS_CHROMIUM, PATIENCE_MS

if TYPE_CHECKING:
    from tests.conftest import Visitor

pytestmark = NEEDS_CHROMIUM
TEXT = "We knocked, and a voice said <b>seven copper lanterns</b> & 4821. " * 12
POINTS = "document.querySelector('#capacity-steps .cd-plot').data[0].x.length"
FIGURES = ("capacity-steps", "capacity-card", "capacity-by-vectors", "capacity-width")
TOPS = f"{list(FIGURES)}.map(id => document.getElementById(id).getBoundingClientRect().top + scrollY)"
SHOWN = """id => { const box = document.getElementById(id).getBoundingClientRect();
  return box.height > 100 && getComputedStyle(document.querySelector(`#${id} .cd-plot`)).visibility === 'visible'; }"""


def _open(page: Page, text: str, steps: int) -> Page:
    page.get_by_role("tab", name="Capacity").click()
    page.wait_for_selector("#capacity-start")
    page.fill("#capacity-text textarea", text)
    page.fill("#capacity-stage input", str(steps))
    return page


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)], ids=["wide and light", "phone and dark"])
def test_one_click_finds_what_fits_and_nothing_moves(visitor: Visitor, tmp_path: Path, width: int, dark: bool) -> None:
    page = _open(visitor(width, dark), TEXT, 3)
    assert "about 45 seconds" in page.inner_text("#capacity-status")
    assert "One curve for each K will climb here" in page.inner_text("#capacity-steps")
    page.wait_for_function("document.querySelector('#capacity-width .cd-plot').data?.length === 3")
    before = page.evaluate(TOPS)

    page.focus("#capacity-start")
    page.keyboard.press("Enter")
    page.wait_for_selector("#capacity-status [data-state=done]", timeout=3 * PATIENCE_MS)
    page.wait_for_function("document.querySelector('#capacity-width .cd-plot').data?.length === 4")
    assert page.evaluate(TOPS) == pytest.approx(before, abs=2), "figures moved when the results came"
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert " in one vector" in page.inner_text("#capacity-card .cd-claim")
    assert page.locator("#capacity-card .cd-why").count() == 6
    assert page.inner_text("#capacity-steps .cd-title").startswith("One vector holds ")
    assert "cram-mini, this text" in page.inner_text("#capacity-by-vectors")
    assert page.locator("#capacity-card b").count() == 0

    page.get_by_label("information gain, bits").check()
    page.get_by_label("parameters", exact=True).check()
    assert page.evaluate(SHOWN, "capacity-bits") and page.evaluate(SHOWN, "capacity-parameters")
    for other in ("capacity-steps", "capacity-width"):
        assert not page.evaluate(SHOWN, other)
        assert page.evaluate("id => document.getElementById(id).offsetHeight", other) == 0, "its place was left empty"
    assert page.evaluate("document.documentElement.scrollWidth") <= width

    with page.expect_download() as caught:
        page.locator("#capacity-parameters [data-do=csv]").click()
    assert caught.value.suggested_filename == "cramdemo-capacity-parameters.csv"
    caught.value.save_as(tmp_path / "points.csv")
    rows = list(csv.reader((tmp_path / "points.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 1 + 14 + 12 + 6 + 1
    assert rows[-1][0] == "this run: exact prefix" and rows[-1][1] == "12517760"


def test_the_curve_climbs_and_stop_keeps_it(visitor: Visitor) -> None:
    page = _open(visitor(), TEXT, 500)
    page.click("#capacity-start")
    page.wait_for_function(f"document.querySelector('#capacity-steps .cd-plot').data && {POINTS} > 3")
    before = page.evaluate(POINTS)
    page.wait_for_function(f"{POINTS} > {before + 3}")
    page.wait_for_function("document.activeElement.id === 'capacity-stop'")
    page.keyboard.press("Enter")
    page.wait_for_selector("#capacity-status [data-state=done]", timeout=3 * PATIENCE_MS)
    assert "Stopped; what was found is kept." in page.inner_text("#capacity-status")
    assert page.evaluate(POINTS) > before
    page.wait_for_selector("#capacity-start:not([disabled])")


def test_samples_fill_the_box_and_an_empty_text_is_refused_in_words(visitor: Visitor) -> None:
    page = _open(visitor(), "", 3)
    page.click("#capacity-start")
    page.wait_for_selector("#capacity-status [data-state=error]")
    assert "The text is empty." in page.inner_text("#capacity-status")
    box = "document.querySelector('#capacity-text textarea').value"
    page.get_by_role("button", name="Code", exact=True).click()
    page.wait_for_function(f"{box}.startsWith('from dataclasses')")
    page.get_by_role("button", name="Random words", exact=True).click()
    page.wait_for_function(f"{box}.split(' ').length === 150")
