"""Whoever cannot see well, uses no mouse or wants no motion can use every tab, whatever tabs the page has.

What axe-core, the browser's own accessibility tree and the Tab key say of the real page.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.browser import (
    EASY_NUM_MEM,
    EASY_TEXT,
    NEEDS_CHROMIUM,
    fill_form,
    findings,
    open_tab,
    run_open_tab,
    tab_names,
)

pytestmark = NEEDS_CHROMIUM
CONTROLS = {
    *("button", "link", "tab", "textbox", "searchbox", "spinbutton", "slider", "combobox", "listbox", "radio"),
    *("checkbox", "switch", "menuitem", "DisclosureTriangle"),
}
MOST_STOPS = 200
OPEN_ALL = """() => {
  for (const node of document.querySelectorAll('#tabs details')) { node.open = true; }
  for (const node of document.querySelectorAll('#tabs button.label-wrap:not(.open)')) {
    if (node.offsetParent) { node.click(); }
  }
}"""
STOP_AT = """() => {
  const at = document.activeElement, box = at.getBoundingClientRect(), look = getComputedStyle(at);
  const name = at.id || at.getAttribute('aria-label') || at.innerText || at.className;
  return {
    name: `${at.tagName.toLowerCase()} ${name.slice(0, 40)}`, inside: !!at.closest('#tabs [role=tabpanel]'),
    top: box.top + scrollY, bottom: box.bottom + scrollY, left: box.left, right: box.right,
    ring: look.outlineStyle !== 'none' && parseFloat(look.outlineWidth) > 0,
  };
}"""
MOVING = """() => [...document.querySelectorAll('*')].flatMap(node => [null, '::before', '::after'].map(part => {
  const look = getComputedStyle(node, part);
  const lasts = look.transitionDuration + ',' + (look.animationName === 'none' ? '' : look.animationDuration);
  return Math.max(...lasts.split(',').map(t => parseFloat(t) || 0)) > 0.02 ? `${node.className}${part || ''}` : '';
})).filter(name => name)"""
Stop = dict[str, Any]


@pytest.fixture
def page(visitor) -> Page:
    return visitor()


def test_skip_links_lead_to_the_tabs_and_to_what_the_open_tab_shows(page) -> None:
    """The first of all: the Tab key starts where the page begins only as long as nothing was used."""
    address = page.url
    page.keyboard.press("Tab")
    first = page.locator(".cd-skip a").first
    assert first.evaluate("node => node === document.activeElement && node.offsetHeight > 20")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.getAttribute('role')") == "tab"
    page.locator(".cd-skip a").last.focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.getAttribute('role')") == "tabpanel"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.matches('#text textarea')")
    assert page.url == address


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)], ids=["light", "dark-phone"])
def test_axe_finds_nothing_serious_on_any_tab_and_nothing_overflows(visitor, width, dark) -> None:
    page = visitor(width, dark)
    found, overflow = {}, {}
    for name in tab_names(page):
        open_tab(page, name)
        page.evaluate(OPEN_ALL)
        page.wait_for_timeout(300)  # accordions open
        found[name] = findings(page)
        overflow[name] = page.evaluate("document.documentElement.scrollWidth") - width
    assert len(found) > 2
    assert {name: lines for name, lines in found.items() if lines} == {}
    assert {name: pixels for name, pixels in overflow.items() if pixels > 0} == {}


def test_every_visible_control_has_a_name(page) -> None:
    session = page.context.new_cdp_session(page)
    nameless = {}
    for name in tab_names(page):
        open_tab(page, name)
        page.evaluate(OPEN_ALL)
        controls = list(_controls(session.send("Accessibility.getFullAXTree")["nodes"]))
        assert len(controls) > len(tab_names(page))
        nameless[name] = [
            node["role"]["value"] for node in controls if not node.get("name", {}).get("value", "").strip()
        ]
    assert {name: roles for name, roles in nameless.items() if roles} == {}


def _controls(nodes: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return (node for node in nodes if not node["ignored"] and node.get("role", {}).get("value") in CONTROLS)


def test_the_tab_key_goes_through_every_tab_in_reading_order_and_is_seen(page) -> None:
    wrong = {}
    for name in tab_names(page):
        open_tab(page, name)
        page.evaluate(OPEN_ALL)
        page.wait_for_timeout(300)
        stops = _stops(page, name)
        backward = [f"{b['name']} after {a['name']}" for a, b in itertools.pairwise(stops) if _back(a, b)]
        wrong[name] = backward + [f"{stop['name']}: no focus ring" for stop in stops if not stop["ring"]]
    assert {name: lines for name, lines in wrong.items() if lines} == {}
    assert page.locator("[tabindex]:not([tabindex='0']):not([tabindex='-1'])").count() == 0


def _stops(page: Page, name: str) -> list[Stop]:
    """Where the Tab key stops in the open tab, from the tab's button on until it leaves what the tab shows."""
    page.get_by_role("tab", name=name, exact=True).focus()
    found: list[Stop] = []
    for _ in range(MOST_STOPS):
        page.keyboard.press("Tab")
        stop = page.evaluate(STOP_AT)
        if found and not stop["inside"]:
            break
        if stop["inside"]:
            found.append(stop)
    return found


def _back(a: Stop, b: Stop) -> bool:
    """Whether b, the stop after a, stands before it: above it and not in a column to its right, or to its left."""
    above = b["bottom"] <= a["top"] + 1 and b["left"] < a["right"] - 1
    beside = min(a["bottom"], b["bottom"]) - max(a["top"], b["top"]) > 1
    return above or (beside and b["right"] <= a["left"] + 1)


def test_nothing_moves_for_whoever_wants_no_motion(page) -> None:
    assert page.evaluate(MOVING), "the test looks where nothing ever moves"
    page.emulate_media(reduced_motion="reduce")
    moving = {}
    for name in tab_names(page):
        open_tab(page, name)
        moving[name] = page.evaluate(MOVING)
    page.emulate_media(reduced_motion="no-preference")
    assert {name: found for name, found in moving.items() if found} == {}


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)], ids=["light", "dark"])
def test_axe_finds_nothing_serious_after_a_run(visitor, width, dark) -> None:
    page = visitor(width, dark)
    page.set_viewport_size({"width": 1280, "height": 900})
    open_tab(page, "Compress")
    fill_form(page, EASY_TEXT, EASY_NUM_MEM)
    assert run_open_tab(page)
    assert page.locator("#card .cd-card").count() == 1
    assert findings(page) == []
    page.click("#decode-it")
    page.wait_for_selector("#verdict .cd-card")
    assert findings(page) == []
