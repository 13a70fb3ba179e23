"""The Laws tab in headless Chromium: measured by one click, stopped, and a text of the visitor's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cramdemo import entropy
from tests.browser import NEEDS_CHROMIUM, findings

if TYPE_CHECKING:
    from tests.conftest import Visitor

pytestmark = NEEDS_CHROMIUM
POINTS = "document.querySelector('#laws-law .cd-plot').data.filter(t => t.mode === 'markers').flatMap(t => t.y)"
TOP = "document.querySelector('#laws-kinds').getBoundingClientRect().top + scrollY"


@pytest.fixture(scope="module", autouse=True)
def _short_texts() -> Iterator[None]:
    """Since one looks at the page here, not at the law."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entropy, "LENGTHS", (24,))
        yield


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)], ids=["wide", "phone, dark"])
def test_the_law_is_measured_by_one_click(visitor: Visitor, width: int, dark: bool) -> None:
    page = visitor(width, dark)
    page.get_by_role("tab", name="Laws").click()
    page.wait_for_selector("#laws-start")
    top = page.evaluate(TOP)
    page.click("#laws-start")
    page.wait_for_function(f"document.querySelector('#laws-law .cd-plot').data && {POINTS}.length === 6")
    first = page.evaluate(POINTS)
    page.wait_for_function(f"Math.max(...{POINTS}) < {max(first) / 2}")
    page.click("#laws-stop")
    page.wait_for_selector("#laws-status [data-state=done]")
    assert "Stopped; what was reached" in page.inner_text("#laws-status") or "Done" in page.inner_text("#laws-status")
    assert "of cram-mini" in page.inner_text("#laws-law .cd-title")
    assert abs(page.evaluate(TOP) - top) < 20, "results moved the page"
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    with page.expect_download() as caught:
        page.click("#laws-law [data-do=csv]")
    lines = Path(caught.value.path()).read_text(encoding="utf-8").splitlines()
    assert (
        lines[0].startswith("series,") and sum(line.startswith(("prose", "random", "repeated")) for line in lines) == 6
    )
    assert findings(page) == []


def test_a_text_that_is_too_short_is_refused_with_a_sentence(visitor: Visitor) -> None:
    page = visitor()
    page.get_by_role("tab", name="Laws").click()
    page.fill("#laws-own textarea", "Too <b>short</b>.")
    page.click("#laws-start")
    page.wait_for_selector("#laws-status [data-state=error]")
    assert "24 are the least" in page.inner_text("#laws-status")
    assert page.input_value("#laws-own textarea") == "Too <b>short</b>."
