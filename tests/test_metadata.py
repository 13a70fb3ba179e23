"""Metadata of strangers' files: what is missing, too long or of another kind is named, with the file and the key."""

from __future__ import annotations

import json
import types
from typing import Any

import pytest

from cramdemo.errors import VectorFileError
from cramdemo.metadata import MAX_DEPTH, MAX_JSON, MAX_WORD, Metadata, as_metadata, is_tensor


def _metadata(**values: Any) -> Metadata:
    return Metadata({"__metadata__": values}, "a.safetensors")


@pytest.mark.parametrize("header", [{}, {"__metadata__": None}, {"__metadata__": ["format"]}])
def test_a_header_without_metadata_has_no_format(header: dict[str, Any]) -> None:
    found = Metadata(header, "a.safetensors")
    assert found.format is None and "format" not in found


def test_values_are_what_stands_there() -> None:
    found = _metadata(a="word", n="12", d="0f" * 32, j='{"x":[1,null]}', l='[{"y":2}]')
    assert found.word("a") == "word" and found.whole_number("n") == 12 and found.digest("d") == "0f" * 32
    assert found.json_part("j", dict) == {"x": [1, None]} and found.json_part("l", list) == [{"y": 2}]
    assert "a" in found and "b" not in found


@pytest.mark.parametrize(
    ("read", "value", "words"),
    [
        ("word", None, "k is missing"),
        ("word", 7, "k is missing"),
        ("word", "x" * (MAX_WORD + 1), "k has 501 characters, at most 500"),
        ("whole_number", "-1", "not a whole number"),
        ("whole_number", "1.0", "not a whole number"),
        ("whole_number", "\u0661", "not a whole number"),
        ("whole_number", "1" * 10, "not a whole number"),
        ("digest", "0F" * 32, "not a SHA-256"),
        ("digest", "0f" * 31, "not a SHA-256"),
        ("json", "{", "not JSON"),
        ("json", "[]", "not a JSON dict"),
        ("json", '{"a":NaN}', "not JSON"),
        ("json", '{"a":1e999}', "not JSON"),
        ("json", '{"a":9223372036854775808}', "not JSON"),
        ("json", '{"a":"\\ud800"}', "not JSON"),
        ("json", '{"a":' * MAX_DEPTH + "1" + "}" * MAX_DEPTH, "not JSON"),
        ("json", json.dumps({"a": "x" * MAX_JSON}), "at most 6,000 can be read"),
        ("list", "[1]", "not a JSON list"),
        ("list", "{}", "not a JSON list"),
    ],
)
def test_what_cannot_be_used_is_named(read: str, value: Any, words: str) -> None:
    found = _metadata() if value is None else _metadata(k=value)
    kinds: dict[str, Any] = {"json": dict, "list": list}
    with pytest.raises(VectorFileError, match=words) as caught:
        found.json_part("k", kinds[read]) if read in kinds else getattr(found, read)("k")
    assert str(caught.value).startswith("a.safetensors is damaged: k ")


def test_a_version_that_is_not_read_names_the_program_that_wrote_it() -> None:
    _metadata(format_version="1").check_version("1")
    with pytest.raises(VectorFileError, match=r"no format version; .*\. Update cramdemo"):
        _metadata(created_with="cramdemo <b>").check_version("1")
    with pytest.raises(VectorFileError, match=r"format version '2'.*written by cramdemo 3\.0"):
        _metadata(format_version="2", created_with="cramdemo 3.0").check_version("1")


def test_attributes_become_words_and_json() -> None:
    owner = types.SimpleNamespace(a="x", n=3, j={"b": 1, "a": None})
    assert as_metadata(owner, ("a", "n"), ("j",)) == {"a": "x", "n": "3", "j": '{"a": null, "b": 1}'}
    with pytest.raises(VectorFileError, match="not finite numbers"):
        as_metadata(types.SimpleNamespace(j={"a": float("inf")}), (), ("j",))


@pytest.mark.parametrize(
    ("entry", "good"),
    [
        ({"dtype": "F32", "shape": [2, 3]}, True),
        ({"dtype": "F64", "shape": [2, 3]}, False),
        ({"dtype": ["F32"], "shape": [2, 3]}, False),
        ({"dtype": "F32", "shape": [2]}, False),
        ({"dtype": "F32", "shape": [2, 0]}, False),
        ({"dtype": "F32", "shape": [2, True]}, False),
        ({"dtype": "F32", "shape": [2, 2**63]}, False),
        ({"dtype": "F32"}, False),
        ("F32", False),
    ],
)
def test_a_tensor_is_known_by_its_dtype_and_shape(entry: Any, good: bool) -> None:
    assert is_tensor(entry, {"F32"}, 2) is good
