"""The Gallery tab and the Decode tab's sliders in headless Chromium: one click decodes, a slider breaks the text."""

from __future__ import annotations

import pytest

from cramdemo import decode, load
from cramdemo.gallery import exhibit, exhibits
from tests.browser import NEEDS_CHROMIUM, findings, open_page, open_tab

pytestmark = NEEDS_CHROMIUM
SLIDE = """(slider, value) => {
  slider.value = value;
  slider.dispatchEvent(new Event('input')); slider.dispatchEvent(new Event('change'));
}"""
SAID = "words => document.querySelector('.cd-edit-said').innerText.includes(words)"
HEIGHT = "document.querySelector('#gallery-what').getBoundingClientRect().height"


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)], ids=["light", "phone, dark"])
def test_a_card_is_decoded_downloaded_and_opened_in_decode(visitor, built_in, tmp_path, width, dark):
    page = visitor(width, dark)
    open_tab(page, "Gallery")
    cards = page.locator(".cd-gallery-card")
    assert cards.count() == len(exhibits())
    height = page.evaluate(HEIGHT)
    haiku = exhibit("haiku")
    card = page.get_by_role("button", name=haiku.piece.title)
    card.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#gallery-verdict .cd-card[data-kind=lossless]")
    assert card.get_attribute("aria-pressed") == "true"
    assert page.inner_text("#gallery-decoded .cd-text") == haiku.piece.text
    assert f"{haiku.file_bytes:,}" in page.inner_text("#gallery-what")
    assert abs(page.evaluate(HEIGHT) - height) <= 2, "the card's figures moved the page"
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert findings(page) == []

    page.wait_for_selector("#gallery-download:not([disabled])")
    with page.expect_download() as caught:
        page.click("#gallery-download")
    file = tmp_path / caught.value.suggested_filename
    caught.value.save_as(file)
    assert file.name == "haiku.safetensors" and decode(built_in, load(file)).text == haiku.piece.text

    page.click("#gallery-open")
    page.wait_for_selector("#verdict .cd-card[data-kind=lossless]")
    assert page.inner_text("#decoded .cd-text") == haiku.piece.text
    assert "A vector can make a model say anything" in page.inner_text("#whose-words")
    page.wait_for_function("document.querySelector('#edit-source').innerText.includes('haiku.safetensors')")


def test_the_page_streams_and_stop_keeps_what_is_there(visitor):
    page = visitor()
    open_tab(page, "Gallery")
    page.get_by_role("button", name=exhibit("page").piece.title).click()
    page.wait_for_function(
        "words => document.querySelector('#gallery-decoded .cd-text')?.innerText.startsWith(words)",
        arg=exhibit("page").piece.text[:30],
    )
    page.click("#gallery-stop")
    page.wait_for_selector("#gallery-verdict .cd-status[data-state=done]")
    assert "Stopped" in page.inner_text("#gallery-verdict")
    assert exhibit("page").piece.text.startswith(page.inner_text("#gallery-decoded .cd-text").rstrip())
    page.wait_for_selector("#gallery-stop[disabled]")
    page.get_by_role("button", name=exhibit("haiku").piece.title).click()
    page.wait_for_selector("#gallery-verdict .cd-card[data-kind=lossless]")


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)], ids=["light", "phone, dark"])
def test_a_slider_breaks_the_text_and_a_blend_walks_to_another(url, browser, watch, width, dark):
    page = open_page(browser, url, watch, width=width, dark=dark)
    open_tab(page, "Decode")
    scale, share = page.get_by_role("slider", name="Scale all numbers"), page.get_by_role("slider", name="Share of the")
    assert share.is_disabled()
    scale.focus()
    page.keyboard.press("Home")
    page.wait_for_function(SAID, arg="The first to change is token")
    wrong = page.locator(".cd-edit-text .cd-wrong")
    assert wrong.count() > 0 and "before," in wrong.first.get_attribute("title")
    assert "wavy" in wrong.first.evaluate("node => getComputedStyle(node).textDecoration")
    example = exhibit("poem")
    assert f"of {example.vectors.num_tokens} tokens as before" in page.inner_text(".cd-edit-said")
    scale.evaluate(SLIDE, "1")
    page.wait_for_function(SAID, arg=f"{example.vectors.num_tokens} of {example.vectors.num_tokens} tokens as before.")
    assert page.inner_text(".cd-edit-text").startswith("I lit the lamp")

    page.get_by_role("button", name="German", exact=True).click()
    page.wait_for_selector("#verdict .cd-card[data-kind=lossless]")
    page.wait_for_function("document.querySelector('#edit-source').innerText.includes('german.safetensors')")
    page.get_by_label("Blend with").click()
    page.get_by_role("option", name=example.piece.title).click()
    page.wait_for_function("document.querySelector('#edit-source').innerText.includes('to be blended')")
    share.evaluate(SLIDE, "1")
    count = example.vectors.num_tokens
    page.wait_for_function(SAID, arg=f"{count} of {count} as in “{example.piece.title}”")
    assert page.inner_text(".cd-edit-text").startswith("I lit the lamp")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert findings(page) == []
