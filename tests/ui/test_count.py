"""The count line: right while idle, harmless while a run is going, and it says what does not fit."""

import threading

import pytest

from cramdemo.config import MAX_CHARACTERS_PAGE
from cramdemo.ui.count import bare_bits, count_html, count_text
from cramdemo.ui.shelf import WORKER


def test_counts_are_those_of_the_model(tiny, tiny_lm):
    text = "the sea, the men"
    count = count_text(text, tiny, 3)
    ids = tiny_lm.tokenize(text)
    assert (count.characters, count.tokens, count.limit) == (16, len(ids), 128 - 3)
    assert count.h_lm_bits == pytest.approx(bare_bits(tiny_lm, ids))


def test_tokens_are_counted_without_the_model_while_a_run_is_going(tiny):
    count_text("warm", tiny, 1)
    busy = threading.Event()
    WORKER.submit(busy.wait)
    try:
        count = count_text("the sea", tiny, 1)
    finally:
        busy.set()
    assert count.tokens and count.h_lm_bits is None


def test_too_long_a_text_is_said_before_the_run(tiny):
    html = count_html(count_text("sea " * 200, tiny, 1))
    assert 'data-over="1"' in html and "Too long: at most 127 tokens with K = 1" in html


def test_huge_text_is_not_even_tokenised(tiny):
    assert "Shorten" in count_html(count_text("a" * (MAX_CHARACTERS_PAGE + 1), tiny, 1))


def test_empty_text_is_counted_and_not_scolded(tiny):
    html = count_html(count_text("", tiny, 1))
    assert "0 characters" in html and 'data-over="0"' in html


def test_one_token_has_no_bits_under_the_bare_model(tiny_lm):
    assert bare_bits(tiny_lm, [5]) == 0.0


def test_unknown_model_is_a_sentence_that_is_escaped():
    html = count_html(count_text("x", "<b>", 1))
    assert "There is no model" in html and "<b>" not in html
