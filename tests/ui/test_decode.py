"""Handlers of the Decode tab, called as plain functions: a file is data, and the verdict is the digest's."""

import dataclasses
import threading

import pytest

from cramdemo import save
from cramdemo.errors import ModelMismatch
from cramdemo.ui.decode import checks_words, decode_file, decode_live, facts_html, follow_decoding, verdict_html

EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture
def vectors(tiny, states):
    return states[-1].result.vectors


@pytest.fixture
def named(vectors, tiny):
    return dataclasses.replace(vectors, model_id=tiny)


def test_file_is_described_then_decoded_and_proven(named, tmp_path, request_of):
    path = save(named, tmp_path / "a.safetensors")
    shown = list(decode_file(str(path), request_of))
    facts, text, verdict = shown[-1]
    assert "<td>tiny</td>" in facts and f"{path.stat().st_size:,} bytes" in facts
    assert text == "The old sea, tired."
    assert "Identical to the original." in verdict
    assert facts in shown[0], "the facts come before the text"


def test_wrong_digest_is_not_called_identical(named, tmp_path, request_of):
    path = save(dataclasses.replace(named, token_sha256="0" * 64), tmp_path / "a.safetensors")
    *_, (_, text, verdict) = decode_file(str(path), request_of)
    assert text == "The old sea, tired."
    assert "Not the original text." in verdict and "Identical" not in verdict


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "is not a safetensors file"),
        (b"hello, not safetensors at all", "is not a safetensors file"),
        (b"\x02\0\0\0\0\0\0\0{}", "not one of cramdemo"),
    ],
)
def test_wrong_file_gives_one_sentence(tmp_path, request_of, warnings_shown, data, sentence):
    path = tmp_path / "wrong.safetensors"
    path.write_bytes(data)
    *_, (_, text, verdict) = decode_file(str(path), request_of)
    assert sentence in verdict.replace("&#x27;", "'") and 'data-state="error"' in verdict
    assert text == "" and len(warnings_shown) == 1
    assert str(tmp_path) not in verdict


def test_file_for_a_model_that_is_not_on_offer_loads_no_folder(vectors, tiny_folder):
    """The name in a file must never be taken as the path of a model."""
    with pytest.raises(ModelMismatch, match="which this page does not have"):
        next(decode_live(dataclasses.replace(vectors, model_id=str(tiny_folder)), threading.Event()))


def test_facts_escape_what_stands_in_the_file(vectors):
    evil = dataclasses.replace(
        vectors, model_id=EVIL, created_with=EVIL, verified=[{"device": EVIL, "dtype": 3, "lossless": "yes"}]
    )
    html = facts_html(evil, 10)
    assert "<img" not in html and "&lt;img" in html


@pytest.mark.parametrize("odd", [[{}], [{"device": None}], [{"num_tokens": [1]}], [{"lossless": 1}] * 9])
def test_odd_checks_are_quoted_and_claim_nothing(odd):
    assert "decoded exactly" not in checks_words(odd)


def test_stop_ends_a_decoding_without_a_verdict(named):
    stop = threading.Event()
    stop.set()
    assert all(state.matches is None for state in follow_decoding(named, stop))


def test_no_file_is_no_error(request_of):
    ((_, text, verdict),) = decode_file(None, request_of)
    assert text == "" and 'data-state="idle"' in verdict


def test_progress_is_said_while_it_decodes(named):
    (*_, last) = decode_live(named, threading.Event())
    going = dataclasses.replace(last, matches=None, done=2)
    assert f"2 of {last.num_tokens} tokens" in verdict_html(going)
