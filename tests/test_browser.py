"""The whole path in headless Chromium, on the real page with the built-in model."""

from __future__ import annotations

import dataclasses

import pytest

from cramdemo import decode, load, save
from cramdemo.ui import live
from cramdemo.ui.decode import DecodeState
from cramdemo.ui.experiment import move_focus
from tests.browser import EASY_NUM_MEM, EASY_TEXT, NEEDS_CHROMIUM, fill_form, open_page

pytestmark = NEEDS_CHROMIUM
# no vector of the built-in model holds this, so a run goes on until it is stopped, whatever the weights
HARD_TEXT = "Seventeen\ncopper 4821 lanterns, marble Qx; " + " ".join(str(7919 * i % 10007) for i in range(60))
POINTS = "() => { const plot = document.querySelector('.cd-plot'); return plot.data ? plot.data[0].x.length : 0; }"
ZOOM = "document.querySelector('.cd-plot').layout.xaxis.range"
EVIL = "<img src=x onerror=alert(1)>"


def test_paste_compress_stop_compress_download_upload_decode(url, browser, watch, built_in, tmp_path):
    page = open_page(browser, url, watch)
    fill_form(page, HARD_TEXT, 1)
    page.focus("#compress")
    page.keyboard.press("Enter")

    page.wait_for_function(f"({POINTS})() > 5")
    page.evaluate("() => Plotly.relayout(document.querySelector('.cd-plot'), {'xaxis.range': [1, 4]})")
    before = page.evaluate(POINTS)
    page.wait_for_function(f"({POINTS})() > {before + 5}")
    assert page.evaluate(ZOOM) == [1, 4], "the zoom was lost while the curve grew"
    assert "bits a token" in page.get_attribute(".cd-plot", "aria-label")

    page.wait_for_function("document.activeElement.id === 'stop'")
    page.keyboard.press("Enter")
    page.wait_for_selector("#card .cd-card")
    assert "Stopped, the best vectors are kept" in page.inner_text("#status")
    page.wait_for_selector("#compress:not([disabled])")

    page.wait_for_selector("#download")
    fill_form(page, EASY_TEXT, EASY_NUM_MEM)
    page.click("#compress")
    page.wait_for_selector(".cd-card[data-kind=lossless] .cd-badge")
    tokens = len(built_in.tokenize(EASY_TEXT))
    assert f"Decoded {tokens} of {tokens} tokens" in page.inner_text(".cd-claim")
    page.wait_for_function(f"document.querySelector('.cd-said').textContent === '{tokens} of {tokens} tokens solved'")

    page.wait_for_selector("#download")
    with page.expect_download() as caught:
        page.click("#download")
    assert caught.value.suggested_filename == f"cram-mini-{tokens}tok-k{EASY_NUM_MEM}.safetensors"
    file = tmp_path / caught.value.suggested_filename
    caught.value.save_as(file)
    decoded = decode(built_in, load(file))
    assert decoded.text == EASY_TEXT and decoded.matches

    page.get_by_role("tab", name="Decode").click()
    page.set_input_files("#vector-file input[type=file]", file)
    page.wait_for_selector("#verdict .cd-card[data-kind=lossless]")
    assert "Identical to the original." in page.inner_text("#verdict")
    assert page.inner_text(".cd-text") == EASY_TEXT
    assert "cram-mini" in page.inner_text("#facts")


def test_decode_it_carries_the_file_over(url, browser, watch):
    page = open_page(browser, url, watch)
    fill_form(page, HARD_TEXT, 1)
    page.click("#compress")
    page.click("#stop")
    page.wait_for_selector("#decode-it")
    page.click("#decode-it")
    page.wait_for_selector("#verdict .cd-card")
    assert page.inner_text(".cd-text")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_is_shown_as_characters_on_a_phone_and_nothing_overflows(url, browser, watch, monkeypatch, dark):
    real = live.token_lines  # a tokenizer might have the whole tag as one token
    monkeypatch.setattr(live, "token_lines", lambda texts, ids: real([EVIL, *texts[1:]], ids))
    page = open_page(browser, url, watch, width=390, dark=dark)
    fill_form(page, HARD_TEXT, 1)
    page.click("#compress")
    page.wait_for_selector(".cd-token.cd-wrong, .cd-token.cd-right")
    page.click("#stop")
    page.wait_for_selector("#download")
    assert page.inner_text(".cd-tokens").startswith(EVIL)
    assert "⏎" in page.inner_text(".cd-tokens")
    assert page.locator("img[src=x]").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    background = page.evaluate("getComputedStyle(document.querySelector('.cd-status')).backgroundColor")
    assert background == ("rgb(27, 30, 29)" if dark else "rgb(255, 255, 255)")
    page.focus(".cd-tokens")
    page.keyboard.press("End")
    count = page.locator(".cd-token").count()
    assert page.inner_text(".cd-tip").startswith(f"token {count} of {count} · id ")
    assert "margin" in page.inner_text(".cd-tip")


def test_decoded_text_is_shown_as_characters(url, browser, watch, monkeypatch, crammed, tmp_path):  # noqa: PLR0917
    states = iter([DecodeState(EVIL, 3, 3, matches=True)])
    monkeypatch.setattr("cramdemo.ui.decode.decode_live", lambda vectors, stop: states)
    evil = dataclasses.replace(crammed.vectors, model_id=EVIL, created_with=EVIL)
    page = open_page(browser, url, watch)
    page.get_by_role("tab", name="Decode").click()
    page.set_input_files("#vector-file input[type=file]", save(evil, tmp_path / "evil.safetensors"))
    page.wait_for_selector("#verdict .cd-card")
    assert page.inner_text(".cd-text") == EVIL
    assert page.inner_text("#facts").count(EVIL) == 2
    assert page.locator("img[src=x]").count() == 0


def test_wrong_file_gives_its_sentence_and_empty_text_loses_nothing(url, browser, watch, tmp_path):
    wrong = tmp_path / "wrong.safetensors"
    wrong.write_bytes(b"these are not vectors at all")
    page = open_page(browser, url, watch)
    page.fill("#text textarea", "")
    page.click("#compress")
    page.wait_for_selector("#status [data-state=error]")
    assert "The text is empty." in page.inner_text("#status")
    page.get_by_role("tab", name="Decode").click()
    page.set_input_files("#vector-file input[type=file]", wrong)
    page.wait_for_selector("#verdict [data-state=error]")
    assert "is not a safetensors file" in page.inner_text("#verdict")


def test_sample_chip_fills_text_and_memory_tokens(url, browser, watch):
    page = open_page(browser, url, watch)
    page.get_by_role("button", name="Not English", exact=True).click()
    page.wait_for_function("document.querySelector('#count').innerText.includes('K = 2')")
    assert page.input_value("#text textarea").startswith("La mer est calme")


@pytest.mark.parametrize("taken", [True, False])
def test_the_focus_is_handed_on_unless_the_visitor_has_taken_it_elsewhere(browser, taken):
    page = browser.new_page()
    page.set_content("<button id=stop>Stop</button><button id=start>Start</button><input id=theirs>")
    page.focus("#stop")
    page.evaluate(f"{{ ({move_focus('stop', 'start')})(); if ({str(taken).lower()}) {{ theirs.focus(); }} }}")
    page.wait_for_timeout(200)
    assert page.evaluate("document.activeElement.id") == ("theirs" if taken else "start")
