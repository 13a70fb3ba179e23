"""Edit and watch, called as plain functions: what is edited, what is said of it, and what is never claimed."""

import dataclasses
import json
import threading
from types import SimpleNamespace

import pytest

from cramdemo import save
from cramdemo.edit import Edit
from cramdemo.ui import edit
from cramdemo.ui.edit import BLANK, partners, prepare, renew, sentence, source_html, watch_edit, write

EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture
def vectors(tiny, states):
    return dataclasses.replace(states[-1].result.vectors, model_id=tiny)


@pytest.fixture
def path(vectors, tmp_path):
    return str(save(vectors, tmp_path / "a.safetensors"))


def moved(**sliders):
    return SimpleNamespace(**sliders)


def test_unmoved_sliders_give_all_tokens_and_no_verdict(path, vectors, request_of):
    shown = list(watch_edit(path, "", None, request_of, moved(scale=1, share=0)))
    last = shown[-1]
    assert last["s"] == f"{vectors.num_tokens} of {vectors.num_tokens} tokens as before."
    assert last["m"] == "1" * vectors.num_tokens
    assert "".join(json.loads(line)[0] for line in last["t"].splitlines()) == "The old sea, tired."
    assert not any(word in json.dumps(shown).lower() for word in ("identical", "lossless", "original"))


def test_what_breaks_is_marked_and_named(path, vectors, request_of):
    *_, last = watch_edit(path, "", None, request_of, moved(scale=0, share=0))
    assert "0" in last["m"]
    at = last["m"].index("0")
    now, before = json.loads(last["t"].splitlines()[at])
    assert f"The first to change is token {at + 1}: “{now}” in place of “{before}”." in last["s"]
    assert last["s"].startswith(f"{last['m'].count('1')} of {vectors.num_tokens} tokens as before")


def test_two_files_are_blended(path, vectors, tmp_path, request_of):
    second = save(dataclasses.replace(vectors, mem=-vectors.mem), tmp_path / "b.safetensors")
    *_, last = watch_edit(path, "", str(second), request_of, moved(scale=1, share=0))
    assert (
        f"{vectors.num_tokens} of {vectors.num_tokens} tokens as before, " in last["s"] and "b.safetensors" in last["s"]
    )
    assert last["b"] == "1"


@pytest.mark.parametrize(
    "sliders", [{"scale": 3, "share": 0}, {"scale": "1", "share": 0}, {}, {"scale": 1, "share": -1}]
)
def test_sliders_that_no_slider_can_reach_are_a_sentence(path, sliders, request_of, warnings_shown):
    *_, last = watch_edit(path, "", None, request_of, moved(**sliders))
    assert "give a number from 0 to" in last["s"] and last["t"] == "" and len(warnings_shown) == 1


def test_a_wrong_file_or_an_unknown_name_is_a_sentence_without_a_path(tmp_path, request_of, warnings_shown):
    wrong = tmp_path / "wrong.safetensors"
    wrong.write_bytes(b"hello, not safetensors at all")
    *_, last = watch_edit(str(wrong), "", None, request_of, moved(scale=1, share=0))
    assert "is not a safetensors file" in last["s"]
    words, view = prepare(str(wrong), "", None)
    assert "is not a safetensors file" in words and 'role="alert"' in words and view == BLANK
    *_, last = watch_edit(None, "../texts", None, request_of, moved(scale=1, share=0))
    assert "There is no &#x27;" not in last["s"] and "in the gallery. Choose from" in last["s"]
    assert str(tmp_path) not in words + last["s"] + "".join(warnings_shown)


def test_what_does_not_fit_is_told_before_anything_is_decoded(path):
    words, view = prepare(path, "haiku", None)
    assert "made for different models" in words and view["b"] == ""


def test_without_a_file_the_example_is_edited_and_its_peers_are_offered():
    words, view = prepare(None, "", None)
    assert "The lamp keeper” from the gallery" in words and view["b"] == "" and view["r"]
    names = [name for _, name in partners(None)]
    assert names[0] == "" and len(names) >= 3 and edit.EXAMPLE not in names
    words, blended = prepare(None, names[1], None)
    assert "to be blended with" in words and blended["b"] == "1" and blended["r"] != view["r"]


def test_another_file_takes_back_the_choice_of_the_second(path):
    choices, words, _ = renew(path, None)
    assert choices["value"] == "" and choices["choices"] == [("None", "")]
    assert "a.safetensors" in words


def test_words_of_others_are_escaped():
    assert "<img" not in source_html(EVIL)


def test_progress_is_said_while_it_writes(vectors, tiny):
    *_, last = write(vectors, None, Edit(), None, threading.Event())
    going = dataclasses.replace(last, edited=dataclasses.replace(last.edited, token_ids=last.edited.token_ids[:2]))
    assert sentence(going) == f"Writing: 2 of {vectors.num_tokens} tokens"
