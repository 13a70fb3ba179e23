"""Passages of exactly N tokens drawn from a folder of books by a fixed rule, for benchmarks and training checks."""

from __future__ import annotations

from pathlib import Path

import torch

from cramdemo.errors import TextError
from cramdemo.models import FrozenLM

BYTES_A_TOKEN = 16  # read so much text for each token wanted; English needs 3 to 5
TRIES_A_PASSAGE = 200


def read_books(folder: Path) -> list[str]:
    """The .txt files of a folder in the order of their names.

    Raises:
        TextError: there is none, or one is not UTF-8.
    """
    paths = sorted(folder.glob("*.txt"))
    if not paths:
        raise TextError(f"The folder {folder.name!r} holds no .txt file. Give a folder of UTF-8 text files.")
    try:
        return [path.read_bytes().decode("utf-8") for path in paths]
    except UnicodeDecodeError as error:
        raise TextError(f"A .txt file in {folder.name!r} is not UTF-8. Save it as UTF-8.") from error


def draw_passages(lm: FrozenLM, books: list[str], count: int, num_tokens: int, seed: int = 0) -> list[str]:
    """Texts of exactly `num_tokens` tokens: book drawn uniformly, then the place, moved on to the next word.

    A passage whose text is tokenised otherwise when it stands alone is drawn anew.

    Raises:
        TextError: the books are too short for such passages.
    """
    generator = torch.Generator().manual_seed(seed)
    found: list[str] = []
    for _ in range(TRIES_A_PASSAGE * count):
        book = books[int(torch.randint(len(books), (), generator=generator))]
        start = int(torch.randint(len(book), (), generator=generator))
        text = _passage(lm, book[start : start + BYTES_A_TOKEN * num_tokens + 100], num_tokens)
        if text is not None:
            found.append(text)
        if len(found) == count:
            return found
    raise TextError(f"The books are too short to draw {count} passages of {num_tokens} tokens. Give longer ones.")


def _passage(lm: FrozenLM, stretch: str, num_tokens: int) -> str | None:
    words = stretch.split(maxsplit=1)
    if len(words) < 2:
        return None
    ids = lm.tokenize(words[1])[:num_tokens]
    text = lm.detokenize(ids)
    return text if len(ids) == num_tokens and lm.tokenize(text) == ids else None
