"""The Race tab in headless Chromium: a bet, a race of three seconds on the built-in model, a verdict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Page

from cramdemo import race as racing
from cramdemo.race import KEYS, OURS
from cramdemo.ui.race import NAMES
from tests.browser import NEEDS_CHROMIUM

if TYPE_CHECKING:
    from tests.conftest import Visitor

pytestmark = NEEDS_CHROMIUM
TEXT = "She opened the door."
LONG = "We knocked, and a voice said <b>seven copper lanterns</b> & 4821. " + " ".join(
    str(7919 * i % 10007)
    for i in range(24)  # too much for a vector, so that no lane comes in before it is stopped
)
PASSES = 60  # of the paper's recipe, however fast the machine is
POINTS = "document.querySelector('#race-curves .cd-plot').data[0].x.length"
TOP = "document.querySelector('#race-two').getBoundingClientRect().top + scrollY"


def _budget(monkeypatch: pytest.MonkeyPatch, passes: int) -> None:
    monkeypatch.setattr(
        racing._Race, "_measured", lambda self: passes * self.lm.flops.step(1 + len(self.ids), 1 + len(self.ids))
    )


def _open(page: Page, text: str) -> None:
    page.get_by_role("tab", name="Race").click()
    page.wait_for_selector("#race-start")
    page.fill("#race-text textarea", text)


def test_a_bet_is_won_by_keyboard_and_nothing_moves(visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    _budget(monkeypatch, PASSES)
    page = visitor()
    _open(page, TEXT)
    assert "about 45 seconds" in page.inner_text("#race-status")
    assert "will be drawn here" in page.inner_text("#race-curves")
    before = page.evaluate(TOP)
    page.focus("#race-start")
    page.get_by_label("Ours, encoder start", exact=True).check()
    page.focus("#race-start")
    page.keyboard.press("Enter")
    page.wait_for_selector("#race-status [data-state=done]")
    assert "lossless first" in page.inner_text("#race-verdict .cd-claim")
    assert page.inner_text("#race-verdict .cd-badge") == "YOU WIN"
    lanes = page.inner_text("#race-lanes")
    assert [name in lanes for name in NAMES.values()] == [True] * len(KEYS)
    assert "LOSSLESS, 1st" in lanes
    assert page.inner_text(".race-two > div:last-child .race-text") == TEXT
    page.wait_for_function(f"{POINTS} > 5")
    assert page.inner_text("#race-curves .cd-title").startswith("Ours, encoder start: lossless first, after")
    assert abs(page.evaluate(TOP) - before) < 1
    page.wait_for_function("document.activeElement.id === 'race-start'")
    with page.expect_download() as caught:
        page.click("#race-curves [data-do=csv]")
    assert caught.value.suggested_filename == "cramdemo-race-curves.csv"
    rows = Path(caught.value.path()).read_text(encoding="utf-8").splitlines()
    assert sum(row.startswith(f'"{NAMES[OURS]}"') for row in rows) > 1


def test_on_a_phone_in_the_dark_a_race_is_stopped_and_keeps_what_is_there(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    _budget(monkeypatch, 5000)
    page = visitor(390, True)
    _open(page, LONG)
    page.click("#race-start")
    page.wait_for_function(f"document.querySelector('#race-curves .cd-plot').data && {POINTS} > 3")
    page.evaluate("Plotly.relayout(document.querySelector('#race-curves .cd-plot'), {'xaxis.range': [1, 4]})")
    seen = page.evaluate(POINTS)
    page.wait_for_function(f"{POINTS} > {seen}")
    assert page.evaluate("document.querySelector('#race-curves .cd-plot').layout.xaxis.range") == [1, 4]
    assert "of 5,000" in page.inner_text(".race-lane[data-key=cramming]")
    page.click("#race-stop")
    page.wait_for_selector("#race-status [data-state=done]")
    assert "Stopped for all" in page.inner_text("#race-status")
    lanes = page.inner_text("#race-lanes")
    assert lanes.count("Stopped at ") == len(KEYS) and " of 5,000 steps" in lanes
    assert page.inner_text("#race-verdict .cd-badge") == "NO BET"
    assert page.inner_text(".race-two > div:first-child mark small") == "wrong"
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    background = page.evaluate("getComputedStyle(document.querySelector('.race-panel')).backgroundColor")
    assert background == "rgb(27, 30, 29)"


def test_what_cannot_be_raced_is_said(visitor: Visitor) -> None:
    page = visitor()
    _open(page, "")
    page.click("#race-start")
    page.wait_for_selector("#race-status [data-state=error]")
    assert "The text is empty." in page.inner_text("#race-status")
