"""MemVectors and its file: K trained vectors of width d, and what a decoder needs to know about them.

The file is safetensors with one tensor `mem` and string metadata (version 1 in the README); quantised vectors are
packed bits with a tensor `mem.scale` beside them. A file is data: everything about it is checked before a tensor is
made, nothing in it is executed, and nothing but `VectorFileError` comes out of a bad one. Knows nothing of models and
widgets.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from cramdemo.config import MAX_NUM_MEM
from cramdemo.errors import VectorFileError
from cramdemo.tensorfile import CutShort, TooLong, read_header, with_metadata, write_atomically

FORMAT = "cramdemo.mem"
FORMAT_VERSION = "1"
MAX_FILE_BYTES = 16 * 1024 * 1024
MAX_HEADER_BYTES = 64 * 1024  # ours take 1.4 kB; one of a megabyte can take half a second to read
MAX_TOKENS = 1_000_000
MAX_HIDDEN_SIZE = 24_576  # a third more than the widest model; with the most vectors, 12 MB of float32
MAX_WORD, MAX_JSON, MAX_DEPTH = 500, 6000, 16  # characters and levels in the metadata: whatever is read, a header holds
MIN_BITS, MAX_BITS = 2, 16  # of a quantised number
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_WHOLE = ("num_mem", "hidden_size", "num_tokens")
_WORDS = ("model_id", "model_revision", "dtype_trained", "created_with")
_DIGESTS = ("model_fingerprint", "tokenizer_fingerprint", "token_sha256")
_JSON = ("verified", "metrics", "config")
_PROGRAM = re.compile(r"cramdemo [0-9][0-9a-z.]{0,19}")


@dataclass(frozen=True)
class Quantised:
    """Numbers of few bits: each stands for one of 2^bits evenly spaced levels, half of them on either side of 0.

    No level is 0 itself, so that none of them is wasted: for 2 bits they are -1.5, -0.5, 0.5 and 1.5 times the scale.

    Attributes:
        codes: (K, d), int32, from 0 to 2^bits - 1.
        scale: (K,), float32, not below 0: how far apart two levels are, for each vector.
        bits: of a number, `MIN_BITS` to `MAX_BITS`.
    """

    codes: Tensor
    scale: Tensor
    bits: int

    @property
    def numbers(self) -> Tensor:
        """What the codes stand for: (code + 1/2 - 2^(bits - 1)) x scale, (K, d), float32."""
        levels: Tensor = self.codes.float()
        return levels.add_(0.5 - 2 ** (self.bits - 1)).mul_(self.scale[:, None])

    @property
    def num_bytes(self) -> int:
        """Bytes of the packed codes and the scales."""
        num_mem, hidden_size = self.codes.shape
        return num_mem * (_packed_width(hidden_size, self.bits) + self.scale.element_size())


@dataclass(frozen=True)
class MemVectors:
    """Trained [mem] vectors of one text.

    Attributes:
        mem: (K, d), float32, float16 or bfloat16, on the CPU; of quantised vectors their `numbers`.
        model_id: the model that reads them, as in `cramdemo models`.
        model_revision: the hub commit, or "" where it is not known.
        model_fingerprint: SHA-256 of the model (`FrozenLM.fingerprint`).
        tokenizer_fingerprint: SHA-256 of its tokenizer.
        num_tokens: N; greedy decoding stops after exactly so many.
        token_sha256: `token_digest` of the text's ids.
        dtype_trained: dtype the model ran in during optimisation.
        verified: one dict a check: device, dtype, lossless, tokens, min_margin.
        metrics: figures of the run, numbers and null only.
        config: settings of the run.
        created_with: program and version.
        quantised: how the file holds `mem`, where it does not hold the numbers as they are.
    """

    mem: Tensor
    model_id: str
    model_revision: str
    model_fingerprint: str
    tokenizer_fingerprint: str
    num_tokens: int
    token_sha256: str
    dtype_trained: str
    verified: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    created_with: str = ""
    quantised: Quantised | None = None

    @property
    def num_mem(self) -> int:
        """K, the number of memory tokens."""
        return self.mem.shape[0]

    @property
    def hidden_size(self) -> int:
        """d, the width of the model's input embeddings."""
        return self.mem.shape[1]

    @property
    def num_bytes(self) -> int:
        """Bytes of the vectors alone, without the file's metadata."""
        return self.quantised.num_bytes if self.quantised else self.mem.numel() * self.mem.element_size()

    @property
    def number_format(self) -> str:
        """What a number is in the file: "float32", "float16", "bfloat16", or "int4" for one of 4 bits."""
        return f"int{self.quantised.bits}" if self.quantised else dtype_name(self.mem.dtype)


def dtype_name(dtype: torch.dtype) -> str:
    """As it stands in files and tables: float32, bfloat16, float16."""
    return str(dtype).removeprefix("torch.")


def token_digest(token_ids: Sequence[int]) -> str:
    """SHA-256, in hexadecimal, of the ids as little-endian int32: proves a decoded text without holding it."""
    return hashlib.sha256(struct.pack(f"<{len(token_ids)}i", *token_ids)).hexdigest()


def to_bytes(vectors: MemVectors) -> bytes:
    """The vector file's bytes, version 1; the same vectors give the same bytes.

    Raises:
        VectorFileError: the vectors are not (K, d) finite numbers of a dtype the format has, or not those that their
            quantised form stands for.
    """
    metadata = {"format": FORMAT, "format_version": FORMAT_VERSION}
    if vectors.mem.ndim != 2:
        raise VectorFileError(f"mem has shape {tuple(vectors.mem.shape)}; a vector file holds (K, d) numbers.")
    metadata |= {name: str(getattr(vectors, name)) for name in (*_WORDS, *_DIGESTS, *_WHOLE)}
    try:
        metadata |= {name: json.dumps(getattr(vectors, name), sort_keys=True, allow_nan=False) for name in _JSON}
    except (ValueError, TypeError) as error:
        raise VectorFileError("The figures of these vectors are not finite numbers; no file can hold them.") from error
    tensors = {"mem": vectors.mem.contiguous()}
    if vectors.quantised:
        tensors, metadata["bits"] = _packed(vectors), str(vectors.quantised.bits)
    data = with_metadata(save_tensors(tensors), metadata)
    from_bytes(data)  # what cannot be read must not be written
    return data


def from_bytes(data: bytes, name: str = "This file") -> MemVectors:
    """Vectors read from a vector file's bytes, everything checked first.

    Args:
        data: the whole file.
        name: how error messages call it.

    Raises:
        VectorFileError: not safetensors, not one of ours, damaged, or a newer version.
    """
    header = _header(data, name)
    metadata = _metadata(header, name)
    bits = _bits(metadata, name)
    shape = _mem_shape(header, name, quantised=bits is not None)
    whole = {key: _whole_number(metadata, key, name) for key in _WHOLE}
    _check_sizes(shape, whole, bits, name)
    words: dict[str, Any] = {key: _word(metadata, key, name) for key in (*_WORDS, *_DIGESTS)}
    for key in _DIGESTS:
        if len(words[key]) != 64 or set(words[key]) - set("0123456789abcdef"):
            raise VectorFileError(f"{name} is damaged: {key} is not a SHA-256. Ask for the file again.")
    parts = {key: _json_part(metadata, key, name) for key in _JSON}
    try:
        tensors = load_tensors(data)
    except (SafetensorError, KeyError, ValueError, RuntimeError, TypeError) as error:
        raise VectorFileError(f"{name} is damaged: its tensor cannot be read. Ask for the file again.") from error
    quantised = _unpacked(tensors, bits, whole["hidden_size"]) if bits else None
    mem = quantised.numbers if quantised else tensors["mem"]
    if quantised and bool((quantised.scale < 0).any()):
        raise VectorFileError(f"{name} is damaged: the scale of a vector is below 0. Ask for the file again.")
    if not bool(torch.isfinite(torch.stack(torch.aminmax(mem))).all()):  # a NaN is both; no copy of `mem` is made
        raise VectorFileError(f"{name} holds numbers that are not finite, so no model can read it.")
    return MemVectors(mem=mem, num_tokens=whole["num_tokens"], quantised=quantised, **words, **parts)


def save(vectors: MemVectors, path: str | Path) -> Path:
    """Write the vector file; the old file or the new one is there at every moment.

    Raises:
        VectorFileError: the vectors cannot be written in this format.
        OSError: the folder cannot be written, or the disk is full; its `filename` is the path that was asked for.
    """
    target = Path(path)
    write_atomically(target, to_bytes(vectors))
    return target


def load(path: str | Path) -> MemVectors:
    """Read a vector file.

    Raises:
        VectorFileError: not found, not one of ours, damaged, or a newer version.
    """
    source = Path(path)
    try:
        with source.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        reason = getattr(error, "strerror", None) or "there is no such file"
        raise VectorFileError(f"{source.name} cannot be read: {reason}. Check the name of the file.") from error
    return from_bytes(data, source.name)


def describe(vectors: MemVectors) -> dict[str, Any]:
    """What a vector file says of itself, as plain values."""
    return {
        "model_id": vectors.model_id,
        "model_revision": vectors.model_revision,
        "num_mem": vectors.num_mem,
        "hidden_size": vectors.hidden_size,
        "num_tokens": vectors.num_tokens,
        "vector_bytes": vectors.num_bytes,
        "dtype": vectors.number_format,
        "dtype_trained": vectors.dtype_trained,
        "verified": vectors.verified,
        "metrics": vectors.metrics,
        "config": vectors.config,
        "token_sha256": vectors.token_sha256,
        "model_fingerprint": vectors.model_fingerprint,
        "tokenizer_fingerprint": vectors.tokenizer_fingerprint,
        "created_with": vectors.created_with,
    }


def _header(data: bytes, name: str) -> dict[str, Any]:
    """The safetensors header of a file that is not too large."""
    if len(data) > MAX_FILE_BYTES:
        limit = MAX_FILE_BYTES // 2**20
        raise VectorFileError(f"{name} is larger than {limit} MB, the most a vector file can be.")
    try:
        return read_header(data, MAX_HEADER_BYTES)
    except TooLong as error:
        raise VectorFileError(
            f"{name} has a header of {error.size:,} bytes; that of a vector file has at most {MAX_HEADER_BYTES:,}. "
            "Give a file downloaded from the Compress tab or written by `cramdemo cram`."
        ) from error
    except CutShort as error:
        raise VectorFileError(f"{name} is damaged: it ends too early. Ask for the file again.") from error
    except ValueError as error:
        raise VectorFileError(
            f"{name} is not a safetensors file. "
            "Give a .safetensors file made by cramdemo (Download on the Compress tab)."
        ) from error


def _metadata(header: dict[str, Any], name: str) -> dict[str, str]:
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise VectorFileError(
            f"{name} is a safetensors file, but not one of cramdemo's [mem] vectors. "
            "Give a file downloaded from the Compress tab or written by `cramdemo cram`."
        )
    version = metadata.get("format_version")
    if version != FORMAT_VERSION:
        found = f"format version {version[:20]!r}" if isinstance(version, str) else "no format version"
        raise VectorFileError(
            f"{name} has {found}; this program reads version {FORMAT_VERSION}. {_update(metadata.get('created_with'))}"
        )
    return metadata


def _update(maker: Any) -> str:
    """Which version of the program reads a file of another format: the one that wrote it, if the file says so."""
    if isinstance(maker, str) and _PROGRAM.fullmatch(maker):
        return f"It was written by {maker}: install that version or a later one."
    return "Update cramdemo to the version that wrote it."


def _bits(metadata: dict[str, str], name: str) -> int | None:
    """Bits of a quantised number; None where the numbers stand as they are."""
    if "bits" not in metadata:
        return None
    bits = _whole_number(metadata, "bits", name)
    if not MIN_BITS <= bits <= MAX_BITS:
        raise VectorFileError(
            f"{name} says {bits} bits for a number; numbers of {MIN_BITS} to {MAX_BITS} bits can be read. "
            "Ask for the file again."
        )
    return bits


def _mem_shape(header: dict[str, Any], name: str, *, quantised: bool) -> tuple[int, int]:
    """Shape of `mem` as stored: (K, d), or (K, bytes of a packed vector)."""
    damaged = VectorFileError(f"{name} is damaged: it must hold one tensor `mem` of K x d numbers. Ask for it again.")
    tensors, dtypes = ({"mem", "mem.scale"}, {"U8"}) if quantised else ({"mem"}, set(DTYPES))
    if set(header) != {"__metadata__"} | tensors or not _is_tensor(header["mem"], dtypes, dimensions=2):
        raise damaged
    shape = header["mem"]["shape"]
    if quantised and (not _is_tensor(header["mem.scale"], {"F32"}, 1) or header["mem.scale"]["shape"] != shape[:1]):
        raise damaged
    if shape[0] > MAX_NUM_MEM or shape[1] > MAX_HIDDEN_SIZE * (MAX_BITS // 8 if quantised else 1):
        raise VectorFileError(
            f"{name} holds {shape[0]} vectors of width {shape[1]}; "
            f"at most {MAX_NUM_MEM} of width {MAX_HIDDEN_SIZE} can be read."
        )
    return shape[0], shape[1]


def _is_tensor(entry: Any, dtypes: set[str], dimensions: int) -> bool:
    """Whether an entry of the header is a tensor of one of these dtypes with so many dimensions, none of them empty.

    A count of 64 bits or more, which could have thousands of digits, is not put into a sentence.
    """
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str) or entry["dtype"] not in dtypes:
        return False
    shape = entry.get("shape")
    return (
        isinstance(shape, list) and len(shape) == dimensions and all(type(n) is int and 1 <= n < 2**63 for n in shape)
    )


def _check_sizes(shape: tuple[int, int], whole: dict[str, int], bits: int | None, name: str) -> None:
    width = _packed_width(whole["hidden_size"], bits) if bits else whole["hidden_size"]
    if shape != (whole["num_mem"], width) or not 1 <= whole["hidden_size"] <= MAX_HIDDEN_SIZE:
        unit = " bytes" if bits else ""
        raise VectorFileError(
            f"{name} is damaged: it says {whole['num_mem']} vectors of width {whole['hidden_size']}, "
            f"but holds {shape[0]} of width {shape[1]}{unit}. Ask for the file again."
        )
    if not 1 <= whole["num_tokens"] <= MAX_TOKENS:
        raise VectorFileError(f"{name} is damaged: it says {whole['num_tokens']} tokens. Ask for the file again.")


def _packed_width(hidden_size: int, bits: int) -> int:
    """Bytes of one packed vector; the next one begins at a byte of its own."""
    return -(-hidden_size * bits // 8)


def _packed(vectors: MemVectors) -> dict[str, Tensor]:
    """The tensors of a quantised file: the bits of all codes of a vector on end, each code's lowest bit first."""
    quantised = vectors.quantised
    assert quantised is not None
    codes = quantised.codes
    fits = (
        codes.numel() > 0
        and codes.shape == vectors.mem.shape
        and 0 <= int(codes.min()) <= int(codes.max()) < 2**quantised.bits
    )
    if not fits or not torch.equal(vectors.mem, quantised.numbers):
        raise VectorFileError("These vectors are not the numbers that their codes stand for. Quantise them again.")
    places = np.arange(quantised.bits)
    rows = [np.packbits((row[:, None] >> places) & 1, bitorder="little") for row in codes.numpy()]
    return {"mem": torch.from_numpy(np.stack(rows)), "mem.scale": quantised.scale.contiguous()}


def _unpacked(tensors: dict[str, Tensor], bits: int, hidden_size: int) -> Quantised:
    """The inverse of `_packed`: a code lies in the three bytes that begin with the one where its lowest bit is."""
    packed = tensors["mem"].numpy()
    first, shift = np.divmod(np.arange(hidden_size) * bits, 8)
    shift = shift.astype(np.int32)
    codes = np.empty((len(packed), hidden_size), dtype=np.int32)
    for row, into in zip(packed, codes, strict=True):  # one at a time, which takes little memory
        low, middle, high = (np.pad(row, (0, 2))[at : at + len(row)].astype(np.int32) for at in range(3))
        np.take(low | middle << 8 | high << 16, first, out=into, mode="clip")  # "raise" would fill a copy first
        np.right_shift(into, shift, out=into)
        np.bitwise_and(into, 2**bits - 1, out=into)
    return Quantised(torch.from_numpy(codes), tensors["mem.scale"], bits)


def _required(metadata: dict[str, str], key: str, name: str) -> str:
    value = metadata.get(key)
    if not isinstance(value, str):
        raise VectorFileError(f"{name} is damaged: {key} is missing. Ask for the file again.")
    return value


def _word(metadata: dict[str, str], key: str, name: str) -> str:
    value = _required(metadata, key, name)
    _check_length(value, MAX_WORD, key, name)
    return value


def _check_length(text: str, most: int, key: str, name: str) -> None:
    if len(text) > most:
        raise VectorFileError(
            f"{name} is damaged: {key} has {len(text):,} characters, at most {most:,} can be read. "
            "Ask for the file again."
        )


def _whole_number(metadata: dict[str, str], key: str, name: str) -> int:
    text = _required(metadata, key, name)
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise VectorFileError(f"{name} is damaged: {key} is not a whole number. Ask for the file again.")
    return int(text)


def _json_part(metadata: dict[str, str], key: str, name: str) -> Any:
    wanted = list if key == "verified" else dict
    try:
        value = json.loads(_required(metadata, key, name))
        _check_json(value)
    except (ValueError, RecursionError) as error:
        raise VectorFileError(f"{name} is damaged: {key} is not JSON. Ask for the file again.") from error
    if not isinstance(value, wanted) or (wanted is list and not all(isinstance(item, dict) for item in value)):
        raise VectorFileError(f"{name} is damaged: {key} is not a JSON {wanted.__name__}. Ask for the file again.")
    _check_length(json.dumps(value), MAX_JSON, key, name)
    return value


def _check_json(value: Any, depth: int = 1) -> None:
    """Refuse what Python reads as JSON but other programs, or whoever goes through it, cannot: NaN and 1e999, whole
    numbers beyond 64 bits, half a surrogate pair, and more levels than any file of ours has.

    Raises:
        ValueError: there is such a thing in it.
    """
    if depth > MAX_DEPTH:
        raise ValueError("too deep")
    if isinstance(value, str):
        value.encode("utf-8")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("not finite")
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError("beyond 64 bits")
    elif isinstance(value, list | dict):
        for item in (*value, *value.values()) if isinstance(value, dict) else value:
            _check_json(item, depth + 1)
