"""Common English words of this program's own, and texts of words drawn from them, which no LM can guess.

`assets/samples/words.txt` was made from 171 public-domain English books, those that cram-mini was trained on:

python -m cramdemo.words DIR assets/samples/words.txt

The words of `common_words`, less `LEFT_OUT`. The papers draw theirs from the vocabulary of GloVe; none of it is here.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import torch

from cramdemo.catalogue import ASSETS
from cramdemo.passages import read_books

WORDS = ASSETS / "samples" / "words.txt"
COUNT = 4000
LETTERS = (3, 10)  # shortest and longest
LEFT_OUT = {  # not what anybody wants to meet at random
    *("breast", "dumb", "gay", "hang", "hanging", "kill", "killed", "killing", "murder", "murdered", "naked"),
    *("queer", "savage", "savages", "sex", "slave", "slavery", "slaves", "whip"),
}
_WORD = re.compile(r"(?<![\w'’-])[A-Za-z]+(?![\w'’-])")


def common_words(books: Iterable[str], count: int = COUNT) -> list[str]:
    """The words that stand in the most books, in alphabetical order; of equals the more frequent ones.

    A word is 3 to 10 letters from a to z, with no apostrophe or hyphen beside it, and is more often written small than
    with a capital, so that names stay out.
    """
    in_books, small, capital = Counter[str](), Counter[str](), Counter[str]()
    for book in books:
        found = Counter(_WORD.findall(book))
        own = Counter({word: times for word, times in found.items() if word.islower()})
        in_books.update(own.keys())
        small.update(own)
        capital.update({word.lower(): times for word, times in found.items() if not word.islower()})
    kept = [w for w in small if LETTERS[0] <= len(w) <= LETTERS[1] and small[w] > capital[w] and w not in LEFT_OUT]
    kept.sort(key=lambda word: (-in_books[word], -small[word], word))
    return sorted(kept[:count])


def word_list() -> list[str]:
    """The words of the file, in alphabetical order."""
    return WORDS.read_text(encoding="utf-8").split()


def random_words(count: int, seed: int) -> str:
    """A text of `count` words, each drawn uniformly from the list; the same for the same seed."""
    words = word_list()
    drawn = torch.randint(len(words), (count,), generator=torch.Generator().manual_seed(seed))
    return " ".join(words[place] for place in drawn.tolist())


if __name__ == "__main__":
    listed = common_words(read_books(Path(sys.argv[1])))
    Path(sys.argv[2]).write_text("\n".join(listed) + "\n", encoding="utf-8")
