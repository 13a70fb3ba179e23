"""The About tab in headless Chromium: what a visitor sees and can take along."""

from __future__ import annotations

from cramdemo.ui.about import BIBTEX, GLOSSARY, PYTHON
from tests.browser import NEEDS_CHROMIUM, open_tab

pytestmark = NEEDS_CHROMIUM
BRIGHTNESS = """name => {
  const found = getComputedStyle(document.querySelector(name)).fill.match(/[0-9]+/g).map(Number);
  return (found[0] + found[1] + found[2]) / 3;
}"""


def test_one_picture_the_words_and_code_to_copy(url, visitor):
    page = visitor()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    open_tab(page, "About")
    assert page.get_by_role("img", name="How a text is crammed and decoded").is_visible()
    assert page.evaluate(BRIGHTNESS, ".cd-p-head") < 100
    assert page.locator(".cd-words dt").count() == len(GLOSSARY)
    for label, code in (("Copy the BibTeX", BIBTEX), ("Copy the Python", PYTHON)):
        button = page.get_by_role("button", name=label)
        button.click()
        page.wait_for_function("button => button.textContent === 'Copied'", arg=button.element_handle())
        assert page.evaluate("navigator.clipboard.readText()") == code
    assert f"{url.rstrip('/')}/gradio_api/" in page.inner_text("#about")


def test_it_fits_a_phone_in_the_dark(visitor):
    page = visitor()
    page.set_viewport_size({"width": 390, "height": 900})
    page.emulate_media(color_scheme="dark")
    open_tab(page, "About")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate(BRIGHTNESS, ".cd-p-head") > 150
    box = page.get_by_role("img", name="How a text is crammed and decoded").bounding_box()
    assert box is not None and box["width"] > 280
