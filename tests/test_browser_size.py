"""The Bytes tab in headless Chromium: one click weighs the example, the slider breaks it, the smallest is a file."""

from __future__ import annotations

import pytest

from cramdemo import decode, load
from cramdemo.ui.samples import read_samples
from tests.browser import NEEDS_CHROMIUM, open_page

pytestmark = NEEDS_CHROMIUM
HEIGHT = "document.querySelector('#bytes-start').closest('.cd-columns').offsetHeight"


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)], ids=["light", "phone, dark"])
def test_weigh_the_example_break_it_download_and_decode_the_smallest(visitor, built_in, tmp_path, width, dark):
    page = visitor(width, dark)
    page.get_by_role("tab", name="Bytes").click()
    assert "will stand here" in page.inner_text("#bytes-sizes")
    height = page.evaluate(HEIGHT)
    page.focus("#bytes-start")
    page.keyboard.press("Enter")
    page.wait_for_selector("#bytes-download:not([disabled])")
    text = read_samples()[0].text
    count = len(built_in.tokenize(text))

    assert "18 of 18" in page.inner_text("#bytes-status")
    assert f"{len(text.encode())} B" in page.inner_text("#bytes-sizes")
    assert f"{count} times fewer positions" in page.inner_text("#bytes-positions")
    assert page.locator("#bytes-sizes tr[data-kind=survives]").count() >= 4
    page.wait_for_function("document.querySelectorAll('#bytes-bits .main-svg, #bytes-noise .main-svg').length >= 2")
    assert abs(page.evaluate(HEIGHT) - height) <= (4 if width == 1280 else 48), "the results moved the page"

    slider = page.get_by_role("slider", name="Bits per number")
    slider.press("End")
    assert page.inner_text(".cd-size-said") == f"All {count} tokens come back."
    assert page.inner_text(".cd-size-text") == text
    slider.press("Home")
    assert "breaks" in page.inner_text(".cd-size-said")
    lost = page.locator(".cd-size-text .cd-wrong")
    assert f"{lost.count()} lost in all" in page.inner_text(".cd-size-said")
    assert "wavy" in lost.first.evaluate("node => getComputedStyle(node).textDecoration")
    assert slider.get_attribute("aria-valuetext").startswith("2 bits. ")
    assert page.evaluate("document.documentElement.scrollWidth") <= width

    with page.expect_download() as caught:
        page.click("#bytes-download")
    file = tmp_path / caught.value.suggested_filename
    caught.value.save_as(file)
    vectors = load(file)
    assert vectors.quantised and decode(built_in, vectors).text == text
    page.get_by_role("tab", name="Decode").click()
    page.set_input_files("#vector-file input[type=file]", file)
    page.wait_for_selector("#verdict .cd-card[data-kind=lossless]")
    assert vectors.number_format in page.inner_text("#facts")


def test_the_file_of_a_visitor_is_weighed_and_stop_keeps_what_is_there(url, browser, watch, tmp_path):
    page = open_page(browser, url, watch)
    page.get_by_role("tab", name="Bytes").click()
    wrong = tmp_path / "wrong.safetensors"
    wrong.write_bytes(b"these are not vectors at all")
    page.set_input_files("#bytes-file input[type=file]", wrong)
    page.wait_for_function("document.querySelector('#bytes-source').innerText.includes('The file below')")
    page.click("#bytes-start")
    page.wait_for_selector("#bytes-status [data-state=error]")
    assert "is not a safetensors file" in page.inner_text("#bytes-status")
    page.get_by_role("button", name="Clear").or_(page.get_by_label("Remove")).first.click()
    page.wait_for_function("document.querySelector('#bytes-source').innerText.includes('example')")
    page.click("#bytes-start")
    page.wait_for_selector("#bytes-sizes tr[data-kind=survives]")
    page.click("#bytes-stop")
    page.wait_for_function("/kept|Weighed/.test(document.querySelector('#bytes-status').innerText)")
    assert "survives" in page.inner_text("#bytes-sizes")
