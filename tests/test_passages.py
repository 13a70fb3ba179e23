"""Passages are exactly as long as asked, come from the books, and are the same for the same seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from cramdemo import TextError, load_model
from cramdemo.passages import draw_passages, read_books

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
