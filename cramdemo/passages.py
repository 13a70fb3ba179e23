"""Held-out text for benchmarks and training checks: passages of exactly N tokens, and its cost in bits per byte."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from cramdemo.errors import TextError
from cramdemo.metrics import cross_entropy_bits
from cramdemo.models import FrozenLM

BYTES_A_TOKEN = 16  # read so much text for each token wanted; English needs 3 to 5
TRIES_A_PASSAGE = 200
WINDOW = 256  # tokens


def read_books(folder: Path, names: Sequence[str] = ()) -> list[str]:
    """The .txt files of a folder in the order of their names.

    Args:
        folder: where they are.
        names: parts of the names of the files wanted, such as ("slocum", "russell"); none takes all.

    Raises:
        TextError: there is none, or none for one of `names`, or one is not UTF-8.
    """
    paths = sorted(folder.glob("*.txt"))
    if not paths:
        raise TextError(f"The folder {folder.name!r} holds no .txt file. Give a folder of UTF-8 text files.")
    for name in names:
        if not any(name in path.name for path in paths):
            raise TextError(f"No .txt file in {folder.name!r} has {name!r} in its name. Give another, or none for all.")
    paths = [path for path in paths if not names or any(name in path.name for name in names)]
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


def bits_per_byte(lm: FrozenLM, books: list[str], windows_a_book: int = 32) -> float:
    """Cost of held-out text under the bare LM in bits per UTF-8 byte, in windows of 256 tokens.

    The windows stand at even distances in each book; the first token of a window is given, and its bytes
    are not counted.

    Raises:
        TextError: a book is shorter than a window.
    """
    bits, size = 0.0, 0
    for book in books:
        ids = torch.tensor(lm.tokenize(book))
        if len(ids) < WINDOW:
            raise TextError(f"A book has {len(ids):,} tokens; bits per byte needs {WINDOW}. Give longer ones.")
        starts = torch.linspace(0, len(ids) - WINDOW, windows_a_book).long()
        windows = ids[starts[:, None] + torch.arange(WINDOW)].to(lm.device)  # (W, 256)
        bits += float(cross_entropy_bits(lm.bare_logits(windows), windows[:, 1:]).double().sum())
        size += sum(len(lm.tokenizer.decode(row[1:]).encode("utf-8", "replace")) for row in windows.tolist())
    return bits / size
