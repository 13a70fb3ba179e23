"""Passages are exactly as long as asked, come from the books, and are the same for the same seed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cramdemo import TextError, load_model
from cramdemo.passages import bits_per_byte, draw_passages, read_books

BOOKS = [
    "It was a bright cold day in the valley, and nobody came. " * 40,
    "Rain fell upon the roof of the old mill. " * 40,
]


@pytest.mark.parametrize("num_tokens", [1, 8, 32])
def test_passages_have_exactly_the_tokens_asked_for_and_stand_in_a_book(num_tokens: int) -> None:
    lm = load_model()
    passages = draw_passages(lm, BOOKS, 5, num_tokens)
    assert [len(lm.tokenize(text)) for text in passages] == [num_tokens] * 5
    assert all(any(text in book for book in BOOKS) for text in passages)


def test_the_seed_decides_which_passages_are_drawn() -> None:
    lm = load_model()
    first, again, other = (draw_passages(lm, BOOKS, 6, 8, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_books_too_short_are_refused() -> None:
    with pytest.raises(TextError, match="too short to draw 2 passages of 50 tokens"):
        draw_passages(load_model(), ["one line only"], 2, 50)


def test_a_folder_without_books_or_with_other_encodings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TextError, match=r"holds no \.txt file"):
        read_books(tmp_path)
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    with pytest.raises(TextError, match="not UTF-8"):
        read_books(tmp_path)


def test_books_are_picked_by_parts_of_their_names(tmp_path: Path) -> None:
    for name in ("b-two", "a-one", "c-three"):
        (tmp_path / f"{name}.txt").write_text(name)
    assert read_books(tmp_path) == ["a-one", "b-two", "c-three"]
    assert read_books(tmp_path, ["three", "one"]) == ["a-one", "c-three"]
    with pytest.raises(TextError, match="'four' in its name"):
        read_books(tmp_path, ["one", "four"])


def test_bits_per_byte_need_a_window_of_text() -> None:
    with pytest.raises(TextError, match="needs 256"):
        bits_per_byte(load_model(), [BOOKS[0], "short"])


def test_bits_per_byte_are_the_models_own_cost_of_the_windows() -> None:
    lm = load_model()
    ids = lm.tokenize(BOOKS[0])[:256]
    bits = -torch.log2_(torch.softmax(lm.model(torch.tensor([ids])).logits[0, :-1].double(), -1))
    expected = sum(float(bits[i, token]) for i, token in enumerate(ids[1:]))
    size = len(lm.detokenize(ids[1:]).encode())
    assert bits_per_byte(lm, [lm.detokenize(ids)], windows_a_book=1) == pytest.approx(expected / size, rel=1e-4)
