"""The public names: listed once, all there, and no others."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import cramdemo
from cramdemo import errors

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")
PROMISED = {
    *("load_model", "FrozenLM"),
    *("cram", "run_cram", "CramConfig", "CramResult", "Progress"),
    *("decode", "decode_tokens", "Decoded", "verify", "Verification"),
    *("save", "load", "MemVectors"),
    *(name for name, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__),
    "__version__",
}


def test_the_public_names_are_exactly_the_promised_ones() -> None:
    assert set(cramdemo.__all__) == PROMISED
    assert sorted(cramdemo.__all__) == cramdemo.__all__


@pytest.mark.parametrize("name", sorted(PROMISED))
def test_a_public_name_is_there_and_explained(name: str) -> None:
    found = getattr(cramdemo, name)
    assert name == "__version__" or found.__doc__
    assert name == "__version__" or found.__module__.startswith("cramdemo.")


def test_nothing_else_public_is_imported_into_the_package() -> None:
    tree = ast.parse(Path(cramdemo.__file__).read_text(encoding="utf-8"))
    imported = {a.asname or a.name for n in tree.body if isinstance(n, ast.ImportFrom) for a in n.names}
    assert imported | {"__version__"} == set(cramdemo.__all__)


def test_every_public_function_is_typed() -> None:
    for name in cramdemo.__all__:
        found = getattr(cramdemo, name)
        if inspect.isfunction(found):
            signature = inspect.signature(found)
            assert signature.return_annotation is not inspect.Signature.empty
            assert all(p.annotation is not inspect.Parameter.empty for p in signature.parameters.values())


def test_the_readme_uses_public_names_only() -> None:
    blocks = [b.split("```")[0] for b in README.split("```python\n")[1:]]
    used = {
        alias.name
        for block in blocks
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.ImportFrom) and node.module == "cramdemo"
        for alias in node.names
    }
    assert used
    assert used <= set(cramdemo.__all__)
    assert {"load_model", "cram", "decode", "save", "load"} <= used
