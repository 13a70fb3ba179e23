"""MemVectors and its file: K trained vectors of width d, and what a decoder needs to know about them.

The file is safetensors with one tensor `mem` and string metadata (version 1 in the README); quantised vectors are
packed bits with a tensor `mem.scale` beside them. A file is data: everything about it is checked before a tensor is
made, nothing in it is executed, and nothing but `VectorFileError` comes out of a bad one. Knows nothing of models and
widgets.
"""

from __future__ import annotations

import hashlib
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
from cramdemo.metadata import Metadata, as_metadata, is_tensor, read_file_header
from cramdemo.tensorfile import with_metadata, write_atomically

FORMAT = "cramdemo.mem"
DOCUMENT_FORMAT = "cramdemo.document"  # many segments in one file: `segments.py`
FORMAT_VERSION = "1"
MAX_FILE_BYTES = 16 * 1024 * 1024
MAX_TOKENS = 1_000_000
MAX_HIDDEN_SIZE = 24_576  # a third more than the widest model; with the most vectors, 12 MB of float32
MIN_BITS, MAX_BITS = 2, 16  # of a quantised number
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_WHOLE = ("num_mem", "hidden_size", "num_tokens")
WORDS = ("model_id", "model_revision", "dtype_trained", "created_with")
DIGESTS = ("model_fingerprint", "tokenizer_fingerprint", "token_sha256")
JSON: dict[str, Any] = {"verified": list, "metrics": dict, "config": dict}


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
    metadata |= as_metadata(vectors, (*WORDS, *DIGESTS, *_WHOLE), tuple(JSON))
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
    header = read_file_header(data, name, MAX_FILE_BYTES)
    metadata = _metadata(header, name)
    bits = _bits(metadata)
    shape = _mem_shape(header, name, quantised=bits is not None)
    whole = {key: metadata.whole_number(key) for key in _WHOLE}
    _check_sizes(shape, whole, bits, name)
    words = read_words(metadata)
    tensors = read_tensors(data, name)
    quantised = _unpacked(tensors, bits, whole["hidden_size"]) if bits else None
    mem = quantised.numbers if quantised else tensors["mem"]
    if quantised and bool((quantised.scale < 0).any()):
        raise VectorFileError(f"{name} is damaged: the scale of a vector is below 0. Ask for the file again.")
    if not bool(torch.isfinite(torch.stack(torch.aminmax(mem))).all()):  # a NaN is both; no copy of `mem` is made
        raise VectorFileError(f"{name} holds numbers that are not finite, so no model can read it.")
    return MemVectors(mem=mem, num_tokens=whole["num_tokens"], quantised=quantised, **words)


def read_words(metadata: Metadata) -> dict[str, Any]:
    """What metadata says of vectors in words, digests and figures, by the names of `MemVectors`.

    Raises:
        VectorFileError: something is missing, too long or of another kind.
    """
    words: dict[str, Any] = {key: metadata.word(key) for key in WORDS}
    words |= {key: metadata.digest(key) for key in DIGESTS}
    return words | {key: metadata.json_part(key, wanted) for key, wanted in JSON.items()}


def read_tensors(data: bytes, name: str) -> dict[str, Tensor]:
    """The tensors of a file whose header has been checked.

    Raises:
        VectorFileError: they are not what the header says.
    """
    try:
        found: dict[str, Tensor] = load_tensors(data)
    except (SafetensorError, KeyError, ValueError, RuntimeError, TypeError) as error:
        raise VectorFileError(f"{name} is damaged: its tensors cannot be read. Ask for the file again.") from error
    return found


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
    return from_bytes(read_bytes(path, MAX_FILE_BYTES), Path(path).name)


def read_bytes(path: str | Path, most: int) -> bytes:
    """A file that may be one of ours, but not read further than one byte beyond what such a file may have.

    Raises:
        VectorFileError: it is not there or cannot be read.
    """
    source = Path(path)
    try:
        with source.open("rb") as file:
            return file.read(most + 1)
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        reason = getattr(error, "strerror", None) or "there is no such file"
        raise VectorFileError(f"{source.name} cannot be read: {reason}. Check the name of the file.") from error


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


def _metadata(header: dict[str, Any], name: str) -> Metadata:
    metadata = Metadata(header, name)
    if metadata.format == DOCUMENT_FORMAT:
        raise VectorFileError(
            f"{name} holds a document of many segments. Decode it on the Document tab, or by `cramdemo decode`."
        )
    if metadata.format != FORMAT:
        raise VectorFileError(
            f"{name} is a safetensors file, but not one of cramdemo's [mem] vectors. "
            "Give a file downloaded from the Compress tab or written by `cramdemo cram`."
        )
    metadata.check_version(FORMAT_VERSION)
    return metadata


def _bits(metadata: Metadata) -> int | None:
    """Bits of a quantised number; None where the numbers stand as they are."""
    if "bits" not in metadata:
        return None
    bits = metadata.whole_number("bits")
    if not MIN_BITS <= bits <= MAX_BITS:
        raise VectorFileError(
            f"{metadata.name} says {bits} bits for a number; numbers of {MIN_BITS} to {MAX_BITS} bits can be read. "
            "Ask for the file again."
        )
    return bits


def _mem_shape(header: dict[str, Any], name: str, *, quantised: bool) -> tuple[int, int]:
    """Shape of `mem` as stored: (K, d), or (K, bytes of a packed vector)."""
    damaged = VectorFileError(f"{name} is damaged: it must hold one tensor `mem` of K x d numbers. Ask for it again.")
    tensors, dtypes = ({"mem", "mem.scale"}, {"U8"}) if quantised else ({"mem"}, set(DTYPES))
    if set(header) != {"__metadata__"} | tensors or not is_tensor(header["mem"], dtypes, dimensions=2):
        raise damaged
    shape = header["mem"]["shape"]
    if quantised and (not is_tensor(header["mem.scale"], {"F32"}, 1) or header["mem.scale"]["shape"] != shape[:1]):
        raise damaged
    if shape[0] > MAX_NUM_MEM or shape[1] > MAX_HIDDEN_SIZE * (MAX_BITS // 8 if quantised else 1):
        raise VectorFileError(
            f"{name} holds {shape[0]} vectors of width {shape[1]}; "
            f"at most {MAX_NUM_MEM} of width {MAX_HIDDEN_SIZE} can be read."
        )
    return shape[0], shape[1]


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
