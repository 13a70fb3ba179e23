"""The Gallery tab's handlers, called as plain functions."""

from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest

from cramdemo import VectorFileError, load
from cramdemo.gallery import exhibit, exhibits
from cramdemo.ui.decode import CHIPS, lend
from cramdemo.ui.gallery import cards_html, choose, decode_exhibit, what_html
from cramdemo.ui.shelf import STOPS


def test_every_exhibit_has_a_card_with_its_figures():
    html = cards_html(list(exhibits().values()))
    for name, held in exhibits().items():
        card = html.partition(f'data-name="{name}"')[2].partition("</button>")[0]
        assert held.piece.title.replace("'", "&#x27;") in card and held.piece.kind in card
        assert f"{held.vectors.num_tokens} tokens in {held.vectors.num_mem} vector" in card
        assert f"{held.file_bytes:,} bytes" in card
    assert html.count("<button") == html.count("<li>") == len(exhibits())


def test_a_card_is_decoded_and_proven(request_of):
    held = exhibit("haiku")
    name, what = choose(SimpleNamespace(name="haiku"))
    assert "Ferry in fog" in what and f"<dd>{held.tokens_a_vector:.1f}</dd>" in what
    *_, (text, verdict) = decode_exhibit(name, request_of)
    assert text == held.piece.text
    assert "Identical to the original." in verdict


@pytest.mark.parametrize("event", [{"name": "../texts"}, {"name": "<img>"}, {"name": None}, {}])
def test_a_name_that_is_not_in_the_gallery_is_refused(event):
    with pytest.raises(gr.Error, match=r"in the gallery\. Choose from haiku"):
        choose(SimpleNamespace(**event))
    with pytest.raises(VectorFileError):
        lend(event.get("name"))


def test_stop_keeps_what_is_written_and_gives_no_verdict(request_of):
    shown = decode_exhibit("page", request_of)
    next(shown)
    STOPS.stop("a-session", "gallery")
    *_, (text, verdict) = shown
    assert exhibit("page").piece.text.startswith(text)
    assert "Stopped" in verdict and "cd-badge" not in verdict
    assert not STOPS.going("a-session", "gallery")


def test_the_file_that_is_lent_is_the_gallery_s():
    for name in CHIPS:
        path = lend(name)
        assert Path(path).name == f"{name}.safetensors"
        assert load(path).token_sha256 == exhibit(name).vectors.token_sha256


def test_before_a_card_is_chosen_the_same_rows_stand_there():
    assert what_html(None).count("<dt>") == what_html(exhibit("haiku")).count("<dt>") == 4
