"""The short form of `tests.fuzz`, the same rules over whatever hypothesis thinks of, and proof that the rules bite."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cramdemo import VectorFileError
from cramdemo.vectors import DTYPES, from_bytes
from tests import fuzz
from tests.fuzz import GOLDEN, VALUES, check_sentence, check_written_again, framed, join, places, split

ROOT = Path(__file__).parents[1]
PLACES = [(number, at) for number, data in enumerate(GOLDEN) for at in range(len(places(split(data)[0])))]
FIELDS = sorted({key for data in GOLDEN for key in split(data)[0]["__metadata__"]})

whole = (
    st.integers()
    | st.integers(-2, 300)
    | st.sampled_from([2**power + more for power in (31, 32, 63, 64) for more in (-1, 0)])
)
words = st.text(max_size=30) | whole.map(str) | st.text('[]{}",:0123456789eE+-.ntf\\u', max_size=30)
json_values = st.sampled_from(VALUES).map(copy.deepcopy) | st.recursive(
    st.none() | st.booleans() | whole | st.floats() | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=12,
)
shapes = st.lists(whole, max_size=4) | st.sampled_from([[2, 4], [1, 8], [8, 1], [4, 2], [2, 2], [2, 3]])
tensors = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from([*DTYPES, "U8", "I8", "F64", "BOOL"]) | words,
        "shape": shapes,
        "data_offsets": st.lists(whole | st.integers(0, 40), max_size=3),
    },
)
golden = st.sampled_from(GOLDEN)


def _obeys(data: bytes) -> None:
    """The rules but those of time, memory and audit, which need a process of their own."""
    try:
        vectors = from_bytes(data, "bad.safetensors")
    except VectorFileError as error:
        check_sentence(str(error), "bad.safetensors")
    else:
        check_written_again(vectors)


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def test_two_thousand_bad_files_obey_the_rules() -> None:
    """In 100 ms of CPU and 50 MB each, with nothing opened, imported or run beside the file."""
    run = _run("-m", "tests.fuzz", "--count", "2000", "--json")
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout)
    assert (report["files"], report["broken"]) == (2000, [])
    assert report["sentences"] > 40
    assert 100 < report["read"] < 500  # some faults do no harm, and those files have to be read
    assert all(row["files"] > 20 for kind, row in report["kinds"].items() if kind != "golden, and found before")


PLANT = """
import ftplib, os, sys, tempfile, time
from pathlib import Path
import torch
from cramdemo.errors import VectorFileError
from cramdemo.vectors import load
from tests.fuzz import BrokenRuleError, GOLDEN, Judge

def slow(path):
    end = time.process_time() + 0.12
    while time.process_time() < end: pass

def refuse(sentence):
    raise VectorFileError(sentence)

PLANTED = [
    lambda path: {}["x"],
    slow,
    lambda path: torch.ones(13_000_000),
    lambda path: b"x" * 51_000_000,
    lambda path: path.with_name("trace").write_text("x"),
    lambda path: exec("1"),
    lambda path: __import__("mailbox"),
    lambda path: os.listdir("."),
    lambda path: refuse("It is bad."),
    lambda path: refuse(path.name + " is" + " very" * 80 + " bad."),
    lambda path: refuse(path.name + " is\\nbad."),
]
plant = None

def read(path):
    if plant is not None: plant(path)
    return load(path)

judge = Judge(read, Path(tempfile.mkdtemp()))
judge(GOLDEN[0])
for plant in PLANTED:
    try:
        judge(GOLDEN[0])
        print("obeyed")
    except BrokenRuleError as error:
        print(str(error)[:60].replace("\\n", " "))
"""


def test_a_reader_that_breaks_a_rule_is_caught() -> None:
    run = _run("-c", PLANT)
    assert run.returncode == 0, run.stderr
    found = run.stdout.splitlines()
    wanted = ["raised KeyError", "took 1", "took 52 MB", "took 51 MB", 'did ["open', 'did ["compile', 'did ["import']
    wanted += ['did ["os.listdir', "said 'It is bad.'", "said 'case.safetensors is very", "said 'case.safetensors is"]
    assert len(found) == len(wanted)
    assert [line for line, start in zip(found, wanted, strict=True) if not line.startswith(start)] == []


def test_the_same_seed_draws_the_same_files() -> None:
    drawn = [[fuzz.damage(Random(f"{seed} {n}"), GOLDEN[n % 5]) for n in range(200)] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert list(fuzz.strangers()) == list(fuzz.strangers())


@pytest.mark.parametrize("fault", fuzz.FAULTS, ids=lambda fault: fault.__name__)
def test_every_fault_changes_the_file(fault: fuzz.Fault) -> None:
    drawn = {fault(Random(seed), data) for seed in range(20) for data in GOLDEN}
    assert len(drawn - set(GOLDEN)) > 15


# ---- what hypothesis thinks of


@settings(max_examples=400)
@given(changes=st.lists(st.tuples(st.sampled_from(PLACES), json_values), min_size=1, max_size=3))
def test_any_value_in_any_place(changes: list[tuple[tuple[int, int], Any]]) -> None:
    header, body = split(GOLDEN[changes[0][0][0]])
    for (_, at), value in changes:
        found = places(header)
        container, key = found[at % len(found)]
        container[key] = value
    _obeys(join(header, body))


@pytest.mark.parametrize("field", FIELDS)
@given(data=golden, word=words | json_values)
@settings(max_examples=40)
def test_any_word_in_any_field(field: str, data: bytes, word: Any) -> None:
    header, body = split(data)
    header["__metadata__"][field] = word
    _obeys(join(header, body))


@given(
    data=golden,
    missing=st.sets(st.sampled_from([*FIELDS, "mem", "mem.scale", "dtype", "shape", "data_offsets"]), min_size=1),
)
def test_any_fields_missing(data: bytes, missing: set[str]) -> None:
    header, body = split(data)
    for container in [header, *header.values()]:
        for name in missing & set(container):
            del container[name]
    _obeys(join(header, body))


@settings(max_examples=300)
@given(
    data=golden,
    mem=tensors,
    scale=tensors,
    more=st.dictionaries(words, tensors, max_size=2),
    body=st.binary(max_size=80),
)
def test_any_tensors(data: bytes, mem: Any, scale: Any, more: Any, body: bytes) -> None:
    header, ours = split(data)
    header["mem"] |= mem
    if scale and "mem.scale" in header:
        header["mem.scale"] |= scale
    _obeys(join(header | more, body or ours))


@settings(max_examples=300)
@given(data=golden, numbers=st.binary(min_size=32, max_size=32))
def test_any_numbers(data: bytes, numbers: bytes) -> None:
    header, body = split(data)
    _obeys(join(header, numbers[: len(body)]))


@given(data=golden, length=st.integers(0, 2**64 - 1) | st.integers(0, 2000))
def test_any_length_of_the_header(data: bytes, length: int) -> None:
    _obeys(length.to_bytes(8, "little") + data[8:])


@given(
    header=st.binary(max_size=200) | st.binary(max_size=200).map(lambda text: b"{" + text), body=st.binary(max_size=40)
)
def test_any_bytes_as_header(header: bytes, body: bytes) -> None:
    _obeys(framed(header, body))
