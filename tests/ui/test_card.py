"""The result card: what it claims follows from the verification, and its bytes are honest."""

import dataclasses
import re
import zlib

import pytest
import torch

from cramdemo import CramConfig, run_cram
from cramdemo.errors import plural
from cramdemo.ui.card import Suggestions, blank_html, byte_sizes, card_html, suggestions

TEXT = "The old sea, tired."


@pytest.fixture(scope="module")
def failed(tiny_lm):
    result = run_cram(tiny_lm, "bad thinking, reader", CramConfig(steps=1))
    assert not result.lossless
    return result


def test_lossless_is_said_with_what_was_verified(crammed):
    html = card_html(TEXT, crammed, Suggestions())
    n = crammed.num_tokens
    assert "LOSSLESS" in html
    assert f"Decoded {n} of {n} tokens from the file’s bytes" in html
    assert "CPU in float32" in html and f"{crammed.verification.min_margin:.2f}" in html


def test_lossless_is_not_said_when_only_teacher_forcing_is_exact(crammed):
    check = dataclasses.replace(crammed.verification, lossless=False, correct_prefix=3)
    result = dataclasses.replace(crammed, verifications=[*crammed.verifications, check])
    assert result.accuracy == 1.0
    html = card_html(TEXT, result, Suggestions())
    assert "lossless" not in html.lower()
    assert f"3 of {result.num_tokens} tokens decoded" in html
    assert f"teacher-forced, {result.num_tokens} of {result.num_tokens} are right" in html


def test_tokens_a_vector_counts_only_what_decodes(crammed, failed):
    assert f"<dd>{crammed.num_tokens / 4:.1f}</dd>" in card_html(TEXT, crammed, Suggestions())
    assert f"<dd>{failed.verification.correct_prefix:.1f}</dd>" in card_html(TEXT, failed, Suggestions())


def test_bytes_are_those_of_text_zlib_and_vectors(crammed):
    sizes = [size for _, size in byte_sizes("é" * 100, crammed)]
    assert sizes == [200, len(zlib.compress("é".encode() * 100, 9)), 4 * 64 * 4]


def test_card_shows_what_the_encoder_alone_would_give_where_there_is_one(crammed):
    assert "the encoder alone" not in card_html(TEXT, crammed, Suggestions())
    right = torch.tensor([True, True, False, True])
    html = card_html(TEXT, dataclasses.replace(crammed, encoder_correct=right), Suggestions())
    assert f"<dt>the encoder alone</dt><dd>3 of {plural(crammed.num_tokens, 'token')}</dd>" in html
    assert "the first 2 in a row" in html


def test_card_says_that_the_text_is_smaller_only_where_it_is(crammed):
    assert "no compression" in card_html(TEXT, crammed, Suggestions())
    noise = "".join(chr(0x4E00 + 7919 * i % 20000) for i in range(4000))
    assert "no compression" not in card_html(noise, crammed, Suggestions())


def test_lossless_run_suggests_nothing(crammed):
    assert suggestions(crammed, CramConfig(), "") == Suggestions()


def test_failed_run_suggests_to_go_on_with_more_and_a_shorter_text(failed):
    found = suggestions(failed, CramConfig(num_mem=3, steps=100), "bad")
    assert found == Suggestions(num_mem=4, steps=100, shorter="bad")


def test_suggestions_stay_inside_the_limits_of_the_page(failed):
    assert suggestions(failed, CramConfig(num_mem=32), "").num_mem is None
    assert suggestions(failed, CramConfig(num_mem=31), "").num_mem == 32


def test_the_card_of_a_fresh_page_names_every_figure_of_the_card_to_come_and_claims_nothing(crammed):
    html = card_html(TEXT, dataclasses.replace(crammed, encoder_correct=torch.tensor([True])), Suggestions())
    names = re.findall("<dt>(.*?)</dt>", html)[:6]
    assert re.findall("<dt>(.*?)</dt>", blank_html())[:6] == names
    assert "lossless" not in blank_html().lower() and "cd-card" not in blank_html()


@pytest.mark.parametrize(("count", "words"), [(0, "0 tokens"), (1, "1 token"), (1000, "1,000 tokens")])
def test_plural(count, words):
    assert plural(count, "token") == words


@pytest.mark.parametrize(
    ("model", "shown"),
    [
        ("EleutherAI/pythia-160m", ["<dt>cramming paper</dt><dd>80 tokens", "<dt>progressive paper</dt><dd>11 tokens"]),
        ("Qwen/Qwen3-4B-Base", []),
        ("tiny", []),
    ],
)
def test_a_model_of_the_papers_is_set_beside_their_figures(crammed, model, shown):
    vectors = dataclasses.replace(crammed.vectors, model_id=model)
    html = card_html(TEXT, dataclasses.replace(crammed, vectors=vectors), Suggestions())
    assert [words for words in shown if words not in html] == []
    assert html.count(" paper</dt>") == len(shown)
    if shown:
        assert f"here {crammed.num_tokens} tokens decoded from 4 vectors" in html
