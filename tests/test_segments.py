"""The document file: what is written comes back to the last bit, and a bad file is one sentence."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from cramdemo.errors import VectorFileError
from cramdemo.segments import DocumentVectors, SegmentEntry, describe, from_bytes, is_document, load, save, to_bytes
from cramdemo.vectors import from_bytes as vectors_from_bytes
from cramdemo.vectors import to_bytes as vectors_to_bytes
from cramdemo.vectors import token_digest

GOLDEN = Path(__file__).parent / "data" / "golden_document_v1.safetensors"
IDS = [5, 0, 299, 7, 7, 1, 2, 3, 4]
COLUMNS = ("start", "num_tokens", "lossless", "min_margin", "token_sha256")


def _entry(start: int, end: int, *, lossless: bool = True) -> SegmentEntry:
    return SegmentEntry(start, end - start, token_digest(IDS[start:end]), lossless, 0.5)


def _document(dtype: torch.dtype = torch.float32, **changes: Any) -> DocumentVectors:
    """What the golden file holds: three segments of two vectors, with a gap before the last."""
    mem = torch.tensor([0.0, -0.0, 1.5, -2.25, 3.0, 1e-3, -1e3, 0.1, 1, 2, 3, 4]).view(3, 2, 2).to(dtype)
    values: dict[str, Any] = {
        "mem": mem,
        "entries": (_entry(0, 3), _entry(3, 5), _entry(6, 9, lossless=False)),
        "model_id": "some/model",
        "model_revision": "abc123",
        "model_fingerprint": "0123456789abcdef" * 4,
        "tokenizer_fingerprint": "fedcba9876543210" * 4,
        "num_tokens": len(IDS),
        "token_sha256": token_digest(IDS),
        "dtype_trained": "float32",
        "verified": [{"device": "cpu", "dtype": "float32"}],
        "config": {"seed": 7},
        "created_with": "cramdemo 0.1.0",
    }
    return DocumentVectors(**values | changes)


def _same(first: DocumentVectors, second: DocumentVectors) -> bool:
    plain = (dataclasses.replace(each, mem=torch.zeros(1)) for each in (first, second))
    values = [[getattr(each, field.name) for field in dataclasses.fields(each)[1:]] for each in plain]
    return values[0] == values[1] and torch.equal(first.mem.view(torch.uint8), second.mem.view(torch.uint8))


def _changed(**tensors: Any) -> bytes:
    """The file with other tensors; None takes one away."""
    data = to_bytes(_document())
    (size,) = struct.unpack("<Q", data[:8])
    metadata = json.loads(data[8 : 8 + size])["__metadata__"]
    found = {**load_tensors(data), **tensors}
    return bytes(save_tensors({name: t for name, t in found.items() if t is not None}, metadata=metadata))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_document_comes_back_bitwise(dtype: torch.dtype, tmp_path: Path) -> None:
    document = _document(dtype)
    assert _same(load(save(document, tmp_path / "d.safetensors")), document)
    assert to_bytes(from_bytes(to_bytes(document))) == to_bytes(document)


def test_the_golden_file_of_version_1_still_loads_and_is_what_is_written() -> None:
    """As the first release wrote it. If this fails, files in the world cannot be read any more."""
    data = GOLDEN.read_bytes()
    assert hashlib.sha256(data).hexdigest() == "55d5781e9200ae4e1cc7b70de65af6cd1675fa51facae45ea9f61a10e03a0ab1"
    assert _same(from_bytes(data), _document())
    assert to_bytes(_document()) == data


def test_it_says_what_is_missing_and_how_full_it_is() -> None:
    document = _document()
    assert document.gaps == [(5, 6)] and not document.complete
    assert document.tokens_a_vector == pytest.approx(8 / 6)
    whole = _document(entries=(_entry(0, 3), _entry(3, 5), _entry(5, 9)))
    assert whole.gaps == [] and whole.complete
    assert not dataclasses.replace(whole, entries=(*whole.entries[:2], _entry(5, 9, lossless=False))).complete
    facts = describe(document)
    assert facts["segments"] == 3 and facts["lossless_tokens"] == 5 and facts["gaps"] == [(5, 6)]
    json.dumps(facts)


def test_a_segment_alone_is_an_ordinary_vector_file() -> None:
    document = _document()
    alone = vectors_from_bytes(vectors_to_bytes(document.segment(1)))
    assert torch.equal(alone.mem, document.mem[1])
    assert alone.num_tokens == 2 and alone.token_sha256 == token_digest(IDS[3:5])
    assert alone.verified == [
        {"device": "cpu", "dtype": "float32", "lossless": True, "num_tokens": 2, "min_margin": 0.5}
    ]
    assert alone.model_fingerprint == document.model_fingerprint


def test_numbers_of_one_segment_that_are_not_finite_cost_the_others_nothing() -> None:
    mem = _document().mem.clone()
    mem[1, 0, 0] = float("nan")
    assert torch.equal(from_bytes(_changed(mem=mem)).mem[[0, 2]], _document().mem[[0, 2]])
    with pytest.raises(VectorFileError, match="not finite"):
        to_bytes(_document(mem=mem))


def test_each_kind_of_file_knows_the_other() -> None:
    data, vectors = to_bytes(_document()), vectors_to_bytes(_document().segment(0))
    assert is_document(data) and not is_document(vectors) and not is_document(b"") and not is_document(data[:50])
    with pytest.raises(VectorFileError, match="holds a document of many segments"):
        vectors_from_bytes(data)
    with pytest.raises(VectorFileError, match="no document"):
        from_bytes(vectors)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "overlap": ({"start": torch.tensor([0, 2, 6])}, "one after the other"),
    "disorder": ({"start": torch.tensor([3, 0, 6])}, "one after the other"),
    "beyond the text": ({"start": torch.tensor([0, 3, 7])}, "in a text of 9 tokens"),
    "before the text": ({"start": torch.tensor([-1, 3, 6])}, "one after the other"),
    "no tokens": ({"num_tokens": torch.tensor([3, 0, 3])}, "one after the other"),
    "an overflow": ({"start": torch.tensor([0, 3, 2**63 - 2])}, "one after the other"),
    "more rows in one": ({"start": torch.tensor([0, 3, 6, 8])}, "not those of a document"),
    "no rows": ({name: torch.zeros(0) for name in COLUMNS}, "not those of a document"),
    "other dtype": ({"lossless": torch.ones(3)}, "not those of a document"),
    "a flag of 2": ({"lossless": torch.tensor([1, 2, 0], dtype=torch.uint8)}, "which segments are lossless"),
    "margin": ({"min_margin": torch.tensor([1.0, float("nan"), 0.0])}, "not finite"),
    "short digest": ({"token_sha256": torch.zeros(3, 31, dtype=torch.uint8)}, "not those of a document"),
    "a flat mem": ({"mem": torch.zeros(3, 4)}, "not those of a document"),
    "too many vectors": ({"mem": torch.zeros(3, 4097, 1)}, "can be read"),
    "one more": ({"more": torch.zeros(1)}, "not those of a document"),
    "one less": ({"min_margin": None}, "not those of a document"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_sentence(name: str) -> None:
    tensors, words = BAD[name]
    with pytest.raises(VectorFileError, match=words) as caught:
        from_bytes(_changed(**tensors), "d.safetensors")
    assert str(caught.value).startswith("d.safetensors ") and len(str(caught.value)) < 300


@pytest.mark.parametrize("changes", [{"num_tokens": 0}, {"token_sha256": "x"}, {"model_fingerprint": "0" * 63}])
def test_what_cannot_be_read_is_not_written(changes: dict[str, Any]) -> None:
    with pytest.raises(VectorFileError):
        to_bytes(_document(**changes))


def test_a_later_version_is_named() -> None:
    data = to_bytes(_document(created_with="cramdemo 9.9")).replace(b'"format_version":"1"', b'"format_version":"2"')
    with pytest.raises(VectorFileError, match=r"version '2'.*written by cramdemo 9\.9"):
        from_bytes(data)


def test_no_truncation_is_read() -> None:
    data = to_bytes(_document())
    for length in range(len(data)):
        with pytest.raises(VectorFileError):
            from_bytes(data[:length])


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4))
def test_whatever_bytes_are_changed_only_our_error_comes_out(changes: list[tuple[int, int]]) -> None:
    data = bytearray(to_bytes(_document()))
    for place, value in changes:
        data[place % len(data)] = value
    try:
        found = from_bytes(bytes(data))
    except VectorFileError:
        return
    assert len(found.entries) == len(found.mem) >= 1
    found.gaps, describe(found)
