"""The vector file: what is written comes back to the last bit, and a bad file is one sentence, never more."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save as save_tensors

from cramdemo import MemVectors, VectorFileError, load, save
from cramdemo.config import MAX_NUM_MEM
from cramdemo.vectors import (
    MAX_BITS,
    MAX_FILE_BYTES,
    MAX_HIDDEN_SIZE,
    MIN_BITS,
    Quantised,
    from_bytes,
    to_bytes,
    token_digest,
)

DATA = Path(__file__).parent / "data"
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def _vectors(dtype: torch.dtype = torch.float32, **changes: Any) -> MemVectors:
    """What the golden file holds."""
    mem = torch.tensor([[0.0, -0.0, 1.5, -2.25], [3.0, 1e-3, -1e3, 0.1]]).to(dtype)
    values: dict[str, Any] = {
        "mem": mem,
        "model_id": "some/model",
        "model_revision": "abc123",
        "model_fingerprint": "0123456789abcdef" * 4,
        "tokenizer_fingerprint": "fedcba9876543210" * 4,
        "num_tokens": 3,
        "token_sha256": token_digest([5, 0, 299]),
        "dtype_trained": "float32",
        "verified": [{"device": "cpu", "dtype": "float32", "lossless": True, "min_margin": 0.5}],
        "metrics": {"total_bits": 1.25, "token_gain": 2, "missing": None},
        "config": {"seed": 7, "steps": 100, "init": "auto"},
        "created_with": "cramdemo 0.1.0 \u2013 caf\u00e9",
    }
    return MemVectors(**values | changes)


def _quantised(bits: int = 4, num_mem: int = 2, hidden_size: int = 5) -> MemVectors:
    codes = torch.randint(0, 2**bits, (num_mem, hidden_size), generator=torch.Generator().manual_seed(bits))
    form = Quantised(codes.int(), torch.arange(1.0, num_mem + 1) / 8, bits)
    return _vectors(mem=form.numbers, quantised=form)


def _same(first: MemVectors, second: MemVectors) -> bool:
    """Equal in every field, the tensor bitwise (-0.0 is not 0.0)."""
    fields = [f.name for f in dataclasses.fields(MemVectors) if f.name not in ("mem", "quantised")]
    forms = [v.quantised and (v.quantised.bits, v.quantised.codes.tolist(), v.quantised.scale.tolist())
             for v in (first, second)]  # fmt: skip
    return (
        forms[0] == forms[1]
        and first.mem.dtype == second.mem.dtype
        and torch.equal(first.mem.view(torch.uint8), second.mem.view(torch.uint8))
        and all(getattr(first, name) == getattr(second, name) for name in fields)
    )


def _file(header: Any, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def _header(data: bytes) -> tuple[dict[str, Any], bytes]:
    (size,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def _with_metadata(**changes: Any) -> bytes:
    header, body = _header(to_bytes(_vectors()))
    header["__metadata__"] |= changes
    return _file(header, body)


def _without_metadata(name: str) -> bytes:
    header, body = _header(to_bytes(_vectors()))
    del header["__metadata__"][name]
    return _file(header, body)


def _with_mem(**changes: Any) -> bytes:
    header, body = _header(to_bytes(_vectors()))
    header["mem"] |= changes
    return _file(header, body)


def _with_numbers(mem: torch.Tensor) -> bytes:
    header, _ = _header(to_bytes(_vectors()))
    metadata = header["__metadata__"] | {"num_mem": str(mem.shape[0]), "hidden_size": str(mem.shape[-1])}
    return bytes(save_tensors({"mem": mem}, metadata=metadata))


# ---- good files


@pytest.mark.parametrize("dtype", DTYPES)
def test_vectors_come_back_bitwise_in_every_dtype(dtype: torch.dtype, tmp_path: Path) -> None:
    vectors = _vectors(dtype)
    assert save(vectors, tmp_path / "v.safetensors") == tmp_path / "v.safetensors"
    assert _same(load(tmp_path / "v.safetensors"), vectors)
    assert vectors.num_bytes == 8 * dtype.itemsize


@given(
    rows=st.integers(1, 5).flatmap(
        lambda d: st.lists(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=d, max_size=d),
                           min_size=1, max_size=4)
    ),
    words=st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20),
    num_tokens=st.integers(1, 1_000_000),
)  # fmt: skip
def test_any_finite_vectors_come_back_bitwise(rows: list[list[float]], words: str, num_tokens: int) -> None:
    mem = torch.tensor(rows, dtype=torch.float32)
    vectors = _vectors(mem=mem, model_id=words, created_with=words, num_tokens=num_tokens, config={words: words})
    assert _same(from_bytes(to_bytes(vectors)), vectors)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_same_vectors_are_the_same_bytes(dtype: torch.dtype) -> None:
    """Safetensors alone writes metadata in a new order each time."""
    one = to_bytes(_vectors(dtype))
    assert {to_bytes(_vectors(dtype)) for _ in range(20)} == {one}
    assert to_bytes(from_bytes(one)) == one
    assert to_bytes(_vectors(dtype, config={"init": "auto", "steps": 100, "seed": 7})) == one
    assert to_bytes(_vectors(dtype, num_tokens=4)) != one


def test_a_slice_of_a_larger_tensor_is_written_as_itself() -> None:
    large = torch.arange(24.0).view(4, 6)
    assert torch.equal(from_bytes(to_bytes(_vectors(mem=large[1:3, ::2]))).mem, large[1:3, ::2])


GOLDEN: dict[str, tuple[str, list[float]]] = {  # digest of the file, and its numbers; written once, never again
    "golden_v1": (
        "7ae3eee23e0cb41f36f17923facd357dbd42b3273773e11b58412c4e93c402c2",
        [0.0, -0.0, 1.5, -2.25, 3.0, 0.0010000000474974513, -1000.0, 0.10000000149011612],
    ),
    "golden_v1_float16": (
        "cf17e0eca17d4dad59c666c61779d1851b30ab4f33a9f0a1151dc5fb619eaf58",
        [0.0, -0.0, 1.5, -2.25, 3.0, 0.0010004043579101562, -1000.0, 0.0999755859375],
    ),
    "golden_v1_bfloat16": (
        "ae122fba7e9d9dc20f3498c53a7333936e44d317cde13d9afa55851be49885e0",
        [0.0, -0.0, 1.5, -2.25, 3.0, 0.00099945068359375, -1000.0, 0.10009765625],
    ),
    "golden_v1_int3": (
        "269be61f33d3cc1d0a451bfecf5af9ffea4eb83fb49372485a9be18dd51d28c3",
        [
            *(-0.4375, -0.3125, -0.1875, -0.0625, 0.4375),
            *(1.0500000715255737, 0.75, 0.45000001788139343, 0.15000000596046448, 1.0500000715255737),
        ],
    ),
    "golden_v1_int4": (
        "4f66fbb5278cf1e94037198f4276ab3d411d7b52f73a279d593ec3680a10f71e",
        [
            *(-0.9375, -0.8125, -0.6875, -0.5625, -0.0625),
            *(-0.15000000596046448, -0.45000001788139343, -0.75, -1.0500000715255737, 2.25),
        ],
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_files_of_version_1_still_load(name: str) -> None:
    """As the first release wrote them. If this fails, files in the world cannot be read any more."""
    digest, numbers = GOLDEN[name]
    path = DATA / f"{name}.safetensors"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
    vectors = load(path)
    form = name.removeprefix("golden_v1").strip("_") or "float32"
    assert vectors.number_format == form
    assert [str(value) for value in vectors.mem.flatten().tolist()] == [str(value) for value in numbers]  # -0.0 too
    assert _same(dataclasses.replace(vectors, mem=_vectors().mem, quantised=None), _vectors())


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_files_are_what_is_still_written(name: str) -> None:
    data = (DATA / f"{name}.safetensors").read_bytes()
    assert to_bytes(from_bytes(data)) == data


def test_the_first_golden_file_is_written_from_its_parts() -> None:
    assert to_bytes(_vectors()) == (DATA / "golden_v1.safetensors").read_bytes()


def test_three_lines_of_plain_safetensors_read_the_file(tmp_path: Path) -> None:
    save(_vectors(), tmp_path / "v.safetensors")
    with safe_open(tmp_path / "v.safetensors", "pt") as file:
        assert torch.equal(file.get_tensor("mem"), _vectors().mem)
        assert int(file.metadata()["num_tokens"]) == 3
        assert list(file.keys()) == ["mem"]
        metadata = file.metadata()
    assert (metadata["format"], metadata["format_version"]) == ("cramdemo.mem", "1")
    assert (metadata["num_mem"], metadata["hidden_size"]) == ("2", "4")
    assert json.loads(metadata["verified"])[0]["lossless"] is True


def test_the_digest_is_sha256_over_little_endian_int32() -> None:
    assert token_digest([1, 256]) == hashlib.sha256(bytes.fromhex("0100000000010000")).hexdigest()


def test_the_file_holds_no_clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = save(_vectors(), tmp_path / "a.safetensors").read_bytes()
    monkeypatch.setattr("time.time", lambda: 2_000_000_000.0)
    assert save(_vectors(), tmp_path / "b.safetensors").read_bytes() == first


# ---- bad files


class _Bomb:
    """Unpickling it would leave a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (self.path,))


def _duplicate_keys(**_: object) -> bytes:
    data = to_bytes(_vectors())
    (size,) = struct.unpack("<Q", data[:8])
    text = data[8 : 8 + size].rstrip()
    return _file(text[:-1] + b',"mem":{"dtype":"F32","shape":[2,4],"data_offsets":[0,32]}}', data[8 + size :])


DEEP = b'{"a":' * 10_000 + b"1" + b"}" * 10_000
NAN, INFINITE = torch.tensor([[0.0, float("nan")]]), torch.tensor([[float("-inf"), 1.0]])
BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not a safetensors file"),
    "a text": (b"Call me Ishmael. Some years ago", "not a safetensors file"),
    "zeros": (bytes(100), "not a safetensors file"),
    "header length zero": (struct.pack("<Q", 0) + b"{}" + bytes(20), "not a safetensors file"),
    "header length huge": (struct.pack("<Q", 2**63) + b"{}" + bytes(20), "not a safetensors file"),
    "header length beyond the end": (struct.pack("<Q", 1000) + b"{}" + bytes(20), "ends too early"),
    "header not an object": (_file(b"[1, 2, 3]"), "not a safetensors file"),
    "header not UTF-8": (_file(b'{"\xff\xfe": 1}'), "not a safetensors file"),
    "header deeper than any stack": (_file(DEEP), "not a safetensors file"),
    "header with a name twice": (_duplicate_keys(), "not a safetensors file"),
    "a number of 5,000 digits": (_file(b'{"mem":' + b"9" * 5000 + b"}"), "not a safetensors file"),
    "safetensors of another program": (bytes(save_tensors({"weight": torch.ones(2)})), "not one of cramdemo's"),
    "other metadata": (_with_metadata(format="somebody.else"), "not one of cramdemo's"),
    "metadata not an object": (_file({"__metadata__": "cramdemo.mem", "mem": {}}), "not one of cramdemo's"),
    "newer version": (_with_metadata(format_version="2"), "format version '2'.*Update cramdemo"),
    "no version": (_without_metadata("format_version"), "no format version"),
    "newer version that says who wrote it": (
        _with_metadata(format_version="2", created_with="cramdemo 2.10.0"),
        "format version '2'; this program reads version 1. It was written by cramdemo 2.10.0: install that version",
    ),
    "newer version with words of its own": (
        _with_metadata(format_version="2", created_with="cramdemo 2\nRun: curl"),
        "Update cramdemo to the version that wrote it.$",
    ),
    "version without end": (_with_metadata(format_version="9" * 5000), "format version '9{20}';"),
    "version not a word": (_with_metadata(format_version=["1"]), "no format version"),
    "no tensor": (_file({"__metadata__": {"format": "cramdemo.mem", "format_version": "1"}}), "one tensor `mem`"),
    "a tensor more": (
        _file(_header(to_bytes(_vectors()))[0] | {"x": {"dtype": "F32", "shape": [0], "data_offsets": [32, 32]}}),
        "one tensor `mem`",
    ),
    "whole numbers for vectors": (_with_numbers(torch.ones(2, 4, dtype=torch.int32)), "one tensor `mem`"),
    "float64": (_with_numbers(torch.ones(2, 4, dtype=torch.float64)), "one tensor `mem`"),
    "one dimension": (_with_numbers(torch.ones(4)), "one tensor `mem`"),
    "no vectors": (_with_numbers(torch.ones(0, 4)), "one tensor `mem`"),
    "K too large": (_with_numbers(torch.ones(MAX_NUM_MEM + 1, 2)), f"holds {MAX_NUM_MEM + 1} vectors"),
    "width too large": (_with_mem(shape=[1, 10**9]), "width 1000000000"),
    "width of 4,000 digits": (_with_mem(shape=[2, 10**4000]), "one tensor `mem`"),
    "shape negative": (_with_mem(shape=[-2, -4]), "one tensor `mem`"),
    "shape of truths": (_with_mem(shape=[True, 8]), "one tensor `mem`"),
    "shape other than the metadata's": (_with_metadata(num_mem="3"), "says 3 vectors of width 4.*holds 2"),
    "shape other than the data's": (_with_mem(shape=[2, 4], data_offsets=[0, 16]), "damaged"),
    "offsets outside": (_with_mem(data_offsets=[2**40, 2**40 + 32]), "damaged"),
    "offsets missing": (_with_mem(data_offsets=None), "damaged"),
    "not a number": (_with_numbers(NAN), "not finite"),
    "infinite": (_with_numbers(INFINITE), "not finite"),
    "no tokens": (_with_metadata(num_tokens="0"), "says 0 tokens"),
    "more tokens than any text": (_with_metadata(num_tokens="999999999"), "says 999999999 tokens"),
    "tokens not a number": (_with_metadata(num_tokens="\u0663"), "num_tokens is not a whole number"),
    "tokens below zero": (_with_metadata(num_tokens="-3"), "num_tokens is not a whole number"),
    "tokens of 5,000 digits": (_with_metadata(num_tokens="9" * 5000), "num_tokens is not a whole number"),
    "tokens not a word": (_with_metadata(num_tokens=3), "num_tokens is missing"),
    "no model": (_without_metadata("model_id"), "model_id is missing"),
    "no digest": (_without_metadata("token_sha256"), "token_sha256 is missing"),
    "digest too short": (_with_metadata(token_sha256="abc"), "token_sha256 is not a SHA-256"),
    "digest not hexadecimal": (_with_metadata(model_fingerprint="G" * 64), "model_fingerprint is not a SHA-256"),
    "figures not JSON": (_with_metadata(metrics="{"), "metrics is not JSON"),
    "figures not finite": (_with_metadata(metrics='{"bits": NaN}'), "metrics is not JSON"),
    "figures beyond any float": (_with_metadata(metrics='{"bits": 1e999}'), "metrics is not JSON"),
    "figures a list": (_with_metadata(metrics="[]"), "metrics is not a JSON dict"),
    "checks not objects": (_with_metadata(verified="[1]"), "verified is not a JSON list"),
    "figures larger than 64 bits": (_with_metadata(metrics='{"bits": 9223372036854775808}'), "metrics is not JSON"),
    "half a surrogate pair": (_with_metadata(metrics='{"\\ud800": 1}'), "metrics is not JSON"),
    "figures deeper than ours": (_with_metadata(metrics='{"a": ' + "[" * 16 + "]" * 16 + "}"), "metrics is not JSON"),
    "more figures than ours": (_with_metadata(metrics=json.dumps({"a": [1] * 2000})), "metrics has 6,007 characters"),
    "model with a name without end": (_with_metadata(model_id="m" * 501), "model_id has 501 characters, at most 500"),
    "header larger than ours": (_with_metadata(note="x" * 65_536), "has a header of 66,.* at most 65,536"),
    "settings deeper than any stack": (_with_metadata(config="[" * 20_000), "config is not JSON"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused_with_one_sentence_that_calls_it_by_its_name(case: str, tmp_path: Path) -> None:
    data, sentence = BAD[case]
    (tmp_path / "bad.safetensors").write_bytes(data)
    with pytest.raises(VectorFileError, match=sentence) as refused:
        load(tmp_path / "bad.safetensors")
    assert str(refused.value).startswith("bad.safetensors ")
    assert str(tmp_path) not in str(refused.value)
    assert len(str(refused.value)) < 300


def test_every_truncation_is_refused() -> None:
    data = to_bytes(_vectors())
    for size in range(len(data)):
        with pytest.raises(VectorFileError):
            from_bytes(data[:size])
    with pytest.raises(VectorFileError):
        from_bytes(data + b"\x00")


def _read(data: bytes) -> None:
    """Read what may be damaged: nothing but VectorFileError may come out, and what is read can be written."""
    try:
        vectors = from_bytes(data)
    except VectorFileError:
        return
    assert _same(from_bytes(to_bytes(vectors)), vectors)


@given(flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 7)), min_size=1, max_size=6))
def test_flipped_bits_give_vectors_or_a_sentence(flips: list[tuple[int, int]]) -> None:
    data = bytearray(to_bytes(_vectors()))
    for place, bit in flips:
        data[place % len(data)] ^= 1 << bit
    _read(bytes(data))


@given(place=st.integers(0, 10_000), junk=st.binary(max_size=40), cut=st.integers(0, 40))
def test_bytes_put_in_or_cut_out_give_vectors_or_a_sentence(place: int, junk: bytes, cut: int) -> None:
    data = to_bytes(_vectors())
    place %= len(data)
    _read(data[:place] + junk + data[place + cut :])


@given(value=st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=5), st.lists, max_leaves=5))
@pytest.mark.parametrize("part", ["header", "metadata", "mem", "shape", "num_mem", "metrics", "verified", "model_id"])
def test_any_json_in_any_place_gives_vectors_or_a_sentence(part: str, value: Any) -> None:
    header, body = _header(to_bytes(_vectors()))
    if part == "header":
        header = value
    elif part in ("metadata", "mem"):
        header["__metadata__" if part == "metadata" else "mem"] = value
    elif part == "shape":
        header["mem"]["shape"] = value
    else:
        header["__metadata__"][part] = value if part == "num_mem" else json.dumps(value)
    _read(_file(header, body))


def test_a_pickle_and_a_zip_under_our_name_are_not_opened(tmp_path: Path) -> None:
    pickled, zipped = tmp_path / "pickle.safetensors", tmp_path / "zip.safetensors"
    pickled.write_bytes(pickle.dumps(_Bomb(str(tmp_path / "ran"))))
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(_Bomb(str(tmp_path / "ran"))))
    for path in (pickled, zipped):
        with pytest.raises(VectorFileError, match="not a safetensors file"):
            load(path)
    assert not (tmp_path / "ran").exists()


def test_no_more_is_read_than_a_vector_file_can_be(tmp_path: Path) -> None:
    path = tmp_path / "large.safetensors"
    with path.open("wb") as file:
        file.truncate(100 * MAX_FILE_BYTES)  # sparse
    with pytest.raises(VectorFileError, match="larger than 16 MB"):
        load(path)


@pytest.mark.parametrize("name", ["missing.safetensors", "", "a\0b"])
def test_what_cannot_be_read_is_one_sentence(name: str, tmp_path: Path) -> None:
    with pytest.raises(VectorFileError, match="cannot be read") as refused:
        load(tmp_path / name)
    assert str(tmp_path) not in str(refused.value)


UNWRITABLE: dict[str, dict[str, Any]] = {
    "not finite": {"mem": NAN},
    "float64": {"mem": torch.ones(1, 2, dtype=torch.float64)},
    "one dimension": {"mem": torch.ones(3)},
    "three dimensions": {"mem": torch.ones(1, 2, 3)},
    "too many": {"mem": torch.ones(MAX_NUM_MEM + 1, 2)},
    "no digest": {"token_sha256": ""},
    "no tokens": {"num_tokens": 0},
    "figures not finite": {"metrics": {"bits": float("nan")}},
    "half a surrogate pair": {"created_with": "\ud800"},
}


@pytest.mark.parametrize("case", UNWRITABLE)
def test_what_could_not_be_read_is_not_written(case: str, tmp_path: Path) -> None:
    with pytest.raises(VectorFileError):
        save(_vectors(**UNWRITABLE[case]), tmp_path / "v.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
@pytest.mark.parametrize("step", ["replace", "fsync", "chmod"])
def test_a_failed_save_leaves_the_old_file_and_nothing_else(
    step: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    path = save(_vectors(), tmp_path / "v.safetensors")
    before = path.read_bytes()
    with monkeypatch.context() as broken:
        broken.setattr(os, step, fail)
        with pytest.raises(OSError, match=os.strerror(code)) as failed:
            save(_vectors(num_tokens=9), path)
    assert (failed.value.filename, failed.value.errno) == (str(path), code)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    save(_vectors(num_tokens=9), path)
    assert load(path).num_tokens == 9


def test_a_folder_that_is_not_there_is_told_by_the_name_that_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as failed:
        save(_vectors(), tmp_path / "none" / "v.safetensors")
    assert failed.value.filename == str(tmp_path / "none" / "v.safetensors")


def test_a_save_that_is_killed_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    """By SIGKILL in another process, whenever it comes."""
    command = [sys.executable, "-m", "tests.killed_save", str(tmp_path / "v.safetensors")]
    run = subprocess.run(command, cwd=DATA.parents[1], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert list(map(float, run.stdout.split())) == [1.0, 2.0]
    assert any(path.suffix == ".partial" for path in tmp_path.iterdir())  # some were killed while they wrote


def test_a_saved_file_is_readable_by_whom_the_umask_lets(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        assert save(_vectors(), tmp_path / "v.safetensors").stat().st_mode & 0o777 == 0o640
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(old)


# ---- quantised files


@pytest.mark.parametrize("bits", range(MIN_BITS, MAX_BITS + 1))
def test_quantised_vectors_come_back_code_by_code_and_take_their_bits_only(bits: int) -> None:
    vectors = _quantised(bits)
    data = to_bytes(vectors)
    assert _same(from_bytes(data), vectors)
    assert to_bytes(from_bytes(data)) == data
    packed = -(-5 * bits // 8)
    assert vectors.num_bytes == 2 * (packed + 4) == len(_header(data)[1])
    assert vectors.number_format == f"int{bits}"


@given(bits=st.integers(MIN_BITS, MAX_BITS), num_mem=st.integers(1, 3), width=st.integers(1, 40))
def test_codes_of_any_width_come_back(bits: int, num_mem: int, width: int) -> None:
    vectors = _quantised(bits, num_mem, width)
    assert _same(from_bytes(to_bytes(vectors)), vectors)


def test_a_quantised_file_is_read_by_plain_numpy_as_the_readme_says(tmp_path: Path) -> None:
    vectors = _quantised(3)
    save(vectors, tmp_path / "v.safetensors")
    with safe_open(tmp_path / "v.safetensors", "np") as file:
        packed, scale, bits = file.get_tensor("mem"), file.get_tensor("mem.scale"), int(file.metadata()["bits"])
        width = int(file.metadata()["hidden_size"])
    codes = [
        [sum(((int(row[n // 8]) >> n % 8) & 1) << (n - bits * at) for n in range(bits * at, bits * (at + 1)))
         for at in range(width)] for row in packed
    ]  # fmt: skip
    numbers = (torch.tensor(codes) + 0.5 - 2 ** (bits - 1)) * torch.tensor(scale)[:, None]
    assert torch.equal(numbers, vectors.mem)


def test_no_level_of_a_quantised_number_is_wasted() -> None:
    form = Quantised(torch.tensor([[0, 1, 2, 3]], dtype=torch.int32), torch.tensor([2.0]), 2)
    assert form.numbers.tolist() == [[-3.0, -1.0, 1.0, 3.0]]


@pytest.mark.parametrize(
    "changed",
    [
        {"mem": torch.ones(2, 5)},
        {"mem": torch.ones(2, 4)},
        {"quantised": Quantised(torch.full((2, 5), 16, dtype=torch.int32), torch.ones(2), 4)},
        {"quantised": Quantised(torch.zeros((0, 5), dtype=torch.int32), torch.ones(0), 4), "mem": torch.ones(0, 5)},
    ],
    ids=["other numbers", "another shape", "codes of more bits", "no vectors"],
)
def test_codes_that_do_not_stand_for_the_vectors_are_not_written(changed: dict[str, Any]) -> None:
    with pytest.raises(VectorFileError, match="Quantise them again"):
        to_bytes(dataclasses.replace(_quantised(), **changed))


def _quantised_file(*, metadata: dict[str, Any] | None = None, **tensors: dict[str, Any] | None) -> bytes:
    """A quantised file with its header changed; a tensor given as None is left out."""
    header, body = _header(to_bytes(_quantised()))
    header["__metadata__"] |= metadata or {}
    for name, changes in tensors.items():
        key = name.replace("_", ".")
        if changes is None:
            del header[key]
        else:
            header[key] |= changes
    return _file(header, body)


def _quantised_with(scale: list[float]) -> bytes:
    header, body = _header(to_bytes(_quantised()))
    at = slice(*header["mem.scale"]["data_offsets"])
    return _file(header, body[: at.start] + struct.pack("<2f", *scale) + body[at.stop :])


BAD_QUANTISED = {
    "bits on plain numbers": (_with_metadata(bits="4"), "one tensor `mem`"),
    "bits not a word": (_quantised_file(metadata={"bits": 4}), "bits is missing"),
    "one bit": (_quantised_file(metadata={"bits": "1"}), "says 1 bits"),
    "17 bits": (_quantised_file(metadata={"bits": "17"}), "says 17 bits"),
    "bits not a number": (_quantised_file(metadata={"bits": "-4"}), "bits is not a whole number"),
    "fewer bits than packed": (_quantised_file(metadata={"bits": "3"}), "holds 2 of width 3 bytes"),
    "width beyond what is packed": (_quantised_file(metadata={"hidden_size": "7"}), "holds 2 of width 3 bytes"),
    "width zero": (_quantised_file(metadata={"hidden_size": "0"}), "says 2 vectors of width 0"),
    "no scale": (_quantised_file(mem_scale=None), "one tensor `mem`"),
    "scales of other shape": (_quantised_file(mem_scale={"shape": [2, 1]}), "one tensor `mem`"),
    "scales too few": (_quantised_file(mem_scale={"shape": [1]}), "one tensor `mem`"),
    "scales of another dtype": (_quantised_file(mem_scale={"dtype": "F16"}), "one tensor `mem`"),
    "scale dtype a list": (_quantised_file(mem_scale={"dtype": ["F32"]}), "one tensor `mem`"),
    "scale below zero": (_quantised_with([-1.0, 1.0]), "scale of a vector is below 0"),
    "scale infinite": (_quantised_with([float("inf"), 1.0]), "not finite"),
    "scale not a number": (_quantised_with([1.0, float("nan")]), "not finite"),
    "scale overflows": (_quantised_with([3e38, 1.0]), "not finite"),
    "packed too wide": (_quantised_file(mem={"shape": [2, 2 * MAX_HIDDEN_SIZE + 1]}), "at most"),
    "offsets outside": (_quantised_file(mem={"data_offsets": [8, 2**40]}), "damaged"),
}


@pytest.mark.parametrize("case", BAD_QUANTISED)
def test_a_bad_quantised_file_is_refused_with_one_sentence(case: str) -> None:
    data, sentence = BAD_QUANTISED[case]
    with pytest.raises(VectorFileError, match=sentence) as refused:
        from_bytes(data, "bad.safetensors")
    assert str(refused.value).startswith("bad.safetensors ") and len(str(refused.value)) < 300


@given(flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 7)), min_size=1, max_size=6))
def test_flipped_bits_of_a_quantised_file_give_vectors_or_a_sentence(flips: list[tuple[int, int]]) -> None:
    data = bytearray(to_bytes(_quantised()))
    for place, bit in flips:
        data[place % len(data)] ^= 1 << bit
    _read(bytes(data))


def test_every_truncation_of_a_quantised_file_is_refused() -> None:
    data = to_bytes(_quantised())
    for size in range(len(data)):
        with pytest.raises(VectorFileError):
            from_bytes(data[:size])
