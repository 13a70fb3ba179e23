"""Specs of sweeps: what is asked for, and what is refused with line and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from cramdemo.errors import ConfigError
from cramdemo.sweep.spec import SweepRecipe, read_spec
from cramdemo.sweep.texts import Lines, RandomWords

WHOLE = """
models = ["cram-mini"]
lengths = [8, 16]
num_mem = [1, 2]
seeds = [0, 1]
recipes = ["fast", "patient", "progressive", "slow"]
threads = 2

[[texts]]
random_words = 3

[[texts]]
jsonl = "a.jsonl"
field = "story"

[recipe.patient]
like = "most"
steps = 8000

[recipe.slow]
like = "cramming"
learning_rate = 0.001
"""


@pytest.fixture
def spec(tmp_path: Path):
    def read(text: str):
        path = tmp_path / "spec.toml"
        path.write_text(text, encoding="utf-8")
        return read_spec(path)

    return read


def test_a_whole_spec(spec, tmp_path):
    found = spec(WHOLE)
    assert (found.models, found.lengths, found.num_mem, found.seeds) == (("cram-mini",), (8, 16), (1, 2), (0, 1))
    assert found.recipes == (
        SweepRecipe("fast", "fast", {}),
        SweepRecipe("patient", "most", {"steps": 8000}),
        SweepRecipe("progressive", "progressive", {}),
        SweepRecipe("slow", "cramming", {"learning_rate": 0.001}),
    )
    assert found.sources == (RandomWords(3, base=tmp_path), Lines("a.jsonl", field="story", base=tmp_path))
    assert found.threads == 2 and found.dropped == ()


def test_what_is_left_out_has_a_value(spec):
    found = spec("[[texts]]\nrandom_words = 1")
    assert (found.models, found.lengths, found.num_mem, found.seeds) == (("cram-mini",), (0,), (1,), (0,))
    assert [recipe.name for recipe in found.recipes] == ["fast"] and found.threads == 1


def test_what_stands_twice_is_run_once_and_said(spec):
    text = WHOLE.replace("[8, 16]", "[8, 16, 8]").replace("learning_rate = 0.001", "")
    found = spec(text.replace('"slow"', '"slow", "cramming"'))
    assert found.lengths == (8, 16)
    assert [recipe.name for recipe in found.recipes] == ["fast", "patient", "progressive", "slow"]
    assert found.dropped == (
        "recipes has two of the same settings; they are run once.",
        "lengths has values that stand twice; each is run once.",
    )


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("lengths = [8, 16]", "lengths = [8, ", 4, "not TOML"),
        ("lengths = [8, 16]", "lengths = [-1]", 3, "lengths: it is -1; give a whole number from 0"),
        ("lengths = [8, 16]", "lengths = []", 3, "lengths: it is []; give a list"),
        ("num_mem = [1, 2]", "num_mem = [129]", 4, "num_mem: it is 129; give a whole number from 1 to 128"),
        ("num_mem = [1, 2]", "num_mem = [true]", 4, "num_mem: it is True"),
        ("num_mem = [1, 2]", 'num_mem = "2"', 4, "num_mem: it is '2'; give a list"),
        ("seeds = ", "sedes = ", 5, "sedes: there is no key sedes; there are"),
        ('"patient", ', '"pateint", ', 6, "recipes: there is no recipe 'pateint'; there are fast, most, cramming"),
        ("threads = 2", "threads = 0", 7, "threads: it is 0; give a whole number from 1"),
        ("random_words = 3", 'random_words = "3"', 10, "random_words: it is '3'; give a whole number"),
        ("random_words = 3", "words = 3", 9, "each table [[texts]] has one of folder, files, jsonl"),
        ("random_words = 3", 'random_words = 3\nbase = "/"', 11, "texts with random_words have random_words, words"),
        ('field = "story"', 'feild = "story"', 14, "feild: texts with jsonl have jsonl, field, most"),
        ("steps = 8000", "steps = 0", 18, "steps: steps is 0; give a whole number from 1"),
        ("steps = 8000", "num_mem = 2", 18, "num_mem: recipes like most have"),
        ("steps = 8000", "seconds = 2", 18, "seconds: recipes like most have"),
        ('like = "most"', "", 16, "patient: give like = one of fast, most, cramming, progressive"),
        ('like = "most"', 'like = "best"', 17, "like: give like = one of"),
        ("[recipe.slow]", "[recipe.fast]", 20, "fast: fast is the name of a recipe that is there already"),
        ("learning_rate = 0.001", 'learning_rate = "x"', 22, "learning_rate: it is 'x'; it was 0.01"),
        ("learning_rate = 0.001", "hidden_states = false", 22, "hidden_states: recipes like cramming have"),
    ],
)
def test_a_malformed_spec_is_refused_with_line_and_key(spec, old, new, line, words):
    assert WHOLE.count(old) == 1
    with pytest.raises(ConfigError) as caught:
        spec(WHOLE.replace(old, new))
    assert f"line {line}" in str(caught.value) and words in str(caught.value)
    assert str(caught.value).startswith("spec.toml") and "\n" not in str(caught.value)


def test_no_texts_and_not_utf8(spec, tmp_path):
    with pytest.raises(ConfigError, match=r"texts: give at least one table \[\[texts\]\]"):
        spec("seeds = [1]")
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_spec(tmp_path / "bad.toml")
