"""The word list and how it was made, on small books."""

from __future__ import annotations

import re

from cramdemo.words import LEFT_OUT, WORDS, common_words, random_words, word_list


def test_words_of_more_books_come_first_and_ties_go_by_their_number() -> None:
    books = ["plum plum plum pear fig", "pear apple", "pear apple apple"]
    assert common_words(books, 2) == ["apple", "pear"]
    assert common_words(books, 3) == ["apple", "pear", "plum"]


def test_names_parts_of_words_and_what_is_left_out_stay_out() -> None:
    assert common_words(["Mole met mole, Mole sank. The don't re-enter naked ox; the, the"]) == ["met", "sank", "the"]


def test_the_file_is_a_list_by_that_rule() -> None:
    words = word_list()
    assert len(words) == len(set(words)) == 4000
    assert words == sorted(words)
    assert all(re.fullmatch("[a-z]{3,10}", word) for word in words)
    assert not LEFT_OUT & set(words)
    assert WORDS.stat().st_size < 60_000


def test_random_words_are_drawn_from_the_list_by_the_seed_alone() -> None:
    drawn = random_words(50, 3)
    assert drawn == random_words(50, 3) != random_words(50, 4)
    assert len(drawn.split()) == 50
    assert set(drawn.split()) <= set(word_list())
