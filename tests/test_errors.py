"""Errors meant for users' eyes have one root, and the tree in the module's first lines is the real one."""

from __future__ import annotations

import inspect
import re

import pytest

from cramdemo import errors

CLASSES = [c for _, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__]


@pytest.mark.parametrize("error", CLASSES)
def test_every_error_is_a_cram_error_and_says_when_it_happens(error: type[Exception]) -> None:
    assert issubclass(error, errors.CramError)
    assert error.__doc__


def test_the_tree_in_the_docstring_lists_every_class() -> None:
    assert set(re.findall(r"^[|` -]*([A-Z]\w+)", errors.__doc__.split("\n\n", 1)[1], re.M)) == {
        c.__name__ for c in CLASSES
    }


def test_no_error_is_caught_by_catching_another_one() -> None:
    leaves = [c for c in CLASSES if c is not errors.CramError]
    assert [(a, b) for a in leaves for b in leaves if a is not b and issubclass(a, b)] == []
