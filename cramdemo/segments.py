"""DocumentVectors and its file: the segments of a long text, K vectors each, in one safetensors file.

The segments lie in six tensors with a row for each (version 1 in the README), so that the header is as small for a book
as for a page. A stretch of the text may be missing, where a run was stopped. A file is data: everything about it is
checked before it is used, as `vectors.py` does. Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

from cramdemo.config import MAX_NUM_MEM
from cramdemo.errors import VectorFileError, plural
from cramdemo.metadata import Metadata, as_metadata, is_tensor, read_file_header
from cramdemo.tensorfile import with_metadata, write_atomically
from cramdemo.vectors import (
    DIGESTS,
    DOCUMENT_FORMAT,
    DTYPES,
    JSON,
    MAX_HIDDEN_SIZE,
    MAX_TOKENS,
    WORDS,
    MemVectors,
    dtype_name,
    read_bytes,
    read_tensors,
    read_words,
)

FORMAT_VERSION = "1"
MAX_DOCUMENT_BYTES = 64 * 1024 * 1024
DIGEST_BYTES = 32
_COLUMNS = {"start": "I64", "num_tokens": "I64", "lossless": "U8", "min_margin": "F32"}  # (S,) each
_AGAIN = "Ask for the file again."


@dataclass(frozen=True)
class Stretch:
    """Tokens of a text that follow one another.

    Attributes:
        start: of its first token in the text. num_tokens: how many it has.
    """

    start: int
    num_tokens: int

    @property
    def end(self) -> int:
        """The token after its last one."""
        return self.start + self.num_tokens


@dataclass(frozen=True)
class SegmentEntry(Stretch):
    """What a document says of one segment.

    Attributes:
        token_sha256: `vectors.token_digest` of them.
        lossless: greedy decoding gave exactly these tokens when the file was written.
        min_margin: smallest logit margin then.
    """

    token_sha256: str
    lossless: bool
    min_margin: float


@dataclass(frozen=True)
class DocumentVectors:
    """Trained [mem] vectors of a long text, segment by segment.

    Attributes:
        mem: (S, K, d), float32, float16 or bfloat16, on the CPU: K vectors for each of S segments.
        entries: S of them, in the order of the text; they do not overlap, but may leave gaps.
        num_tokens: N, of the whole text.
        token_sha256: digest of all its ids, whether or not each is in a segment.
        verified: one dict, the device and dtype that the segments were decoded in.
        model_id, model_revision, model_fingerprint, tokenizer_fingerprint, dtype_trained, metrics, config,
            created_with: as in `vectors.MemVectors`.
    """

    mem: Tensor
    entries: tuple[SegmentEntry, ...]
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

    @property
    def num_mem(self) -> int:
        """K, vectors of each segment."""
        return self.mem.shape[1]

    @property
    def hidden_size(self) -> int:
        """d, the width of the model's input embeddings."""
        return self.mem.shape[2]

    @property
    def num_bytes(self) -> int:
        """Bytes of the vectors alone."""
        return self.mem.numel() * self.mem.element_size()

    @property
    def gaps(self) -> list[tuple[int, int]]:
        """Stretches of tokens that no segment holds, each from its first token to the one after its last."""
        ends = [0, *(entry.end for entry in self.entries)]
        starts = [*(entry.start for entry in self.entries), self.num_tokens]
        return [(end, start) for end, start in zip(ends, starts, strict=True) if end < start]

    @property
    def complete(self) -> bool:
        """Every token is in a segment that was lossless when the file was written."""
        return not self.gaps and all(entry.lossless for entry in self.entries)

    @property
    def tokens_a_vector(self) -> float:
        """Tokens in segments for each of their vectors."""
        return sum(entry.num_tokens for entry in self.entries) / (self.num_mem * len(self.entries))

    @property
    def longest(self) -> int:
        """The number of a segment with the most tokens."""
        return max(range(len(self.entries)), key=lambda number: self.entries[number].num_tokens)

    def segment(self, number: int) -> MemVectors:
        """One segment as vectors of its own, which decode without the others.

        Args:
            number: from 0 to S - 1.
        """
        entry = self.entries[number]
        check = {"lossless": entry.lossless, "num_tokens": entry.num_tokens, "min_margin": entry.min_margin}
        return MemVectors(
            mem=self.mem[number].clone(),
            num_tokens=entry.num_tokens,
            token_sha256=entry.token_sha256,
            verified=[{**where, **check} for where in self.verified],
            metrics={},
            config=self.config,
            **{name: getattr(self, name) for name in (*WORDS, "model_fingerprint", "tokenizer_fingerprint")},
        )


def to_bytes(document: DocumentVectors) -> bytes:
    """The document file's bytes, version 1; the same document gives the same bytes.

    Raises:
        VectorFileError: it is not one that `from_bytes` would read.
    """
    metadata = {"format": DOCUMENT_FORMAT, "format_version": FORMAT_VERSION}
    metadata |= as_metadata(document, (*WORDS, *DIGESTS, "num_tokens"), tuple(JSON))
    if not bool(torch.isfinite(document.mem).all()):
        raise VectorFileError("These vectors hold numbers that are not finite, so no model could read them.")
    entries = document.entries
    tensors = {
        "mem": document.mem.contiguous(),
        "start": torch.tensor([entry.start for entry in entries]),
        "num_tokens": torch.tensor([entry.num_tokens for entry in entries]),
        "lossless": torch.tensor([entry.lossless for entry in entries], dtype=torch.uint8),
        "min_margin": torch.tensor([entry.min_margin for entry in entries], dtype=torch.float32),
        "token_sha256": torch.tensor([list(bytes.fromhex(entry.token_sha256)) for entry in entries], dtype=torch.uint8),
    }
    data = with_metadata(save_tensors(tensors), metadata)
    from_bytes(data)  # what cannot be read must not be written
    return data


def from_bytes(data: bytes, name: str = "This file") -> DocumentVectors:
    """A document read from its file's bytes, everything checked first.

    Args:
        data: the whole file.
        name: how error messages call it.

    Raises:
        VectorFileError: not safetensors, not a document of ours, damaged, or a newer version.
    """
    header = read_file_header(data, name, MAX_DOCUMENT_BYTES)
    metadata = Metadata(header, name)
    if metadata.format != DOCUMENT_FORMAT:
        raise VectorFileError(f"{name} is a safetensors file, but no document of cramdemo's. {_AGAIN}")
    metadata.check_version(FORMAT_VERSION)
    _check_tensors(header, name)
    words = read_words(metadata)
    num_tokens = metadata.whole_number("num_tokens")
    if not 1 <= num_tokens <= MAX_TOKENS:
        raise VectorFileError(f"{name} is damaged: it says {num_tokens} tokens. {_AGAIN}")
    tensors = read_tensors(data, name)
    entries = _entries(tensors, num_tokens, name)
    return DocumentVectors(mem=tensors["mem"], entries=entries, num_tokens=num_tokens, **words)


def is_document(data: bytes) -> bool:
    """Whether a file's bytes say that they are a document's; whatever cannot be read says nothing."""
    try:
        return bool(Metadata(read_file_header(data, "", MAX_DOCUMENT_BYTES), "").format == DOCUMENT_FORMAT)
    except VectorFileError:
        return False


def save(document: DocumentVectors, path: str | Path) -> Path:
    """Write the document file; the old file or the new one is there at every moment.

    Raises:
        VectorFileError: it cannot be written in this format.
        OSError: the folder cannot be written, or the disk is full; its `filename` is the path that was asked for.
    """
    target = Path(path)
    write_atomically(target, to_bytes(document))
    return target


def load(path: str | Path) -> DocumentVectors:
    """Read a document file.

    Raises:
        VectorFileError: not found, not one of ours, damaged, or a newer version.
    """
    return from_bytes(read_bytes(path, MAX_DOCUMENT_BYTES), Path(path).name)


def describe(document: DocumentVectors) -> dict[str, Any]:
    """What a document file says of itself, as plain values."""
    lossless = sum(entry.num_tokens for entry in document.entries if entry.lossless)
    return {
        "model_id": document.model_id,
        "model_revision": document.model_revision,
        "segments": len(document.entries),
        "num_mem": document.num_mem,
        "hidden_size": document.hidden_size,
        "num_tokens": document.num_tokens,
        "lossless_tokens": lossless,
        "tokens_a_vector": round(document.tokens_a_vector, 2),
        "gaps": document.gaps,
        "vector_bytes": document.num_bytes,
        "dtype": dtype_name(document.mem.dtype),
        **{key: getattr(document, key) for key in ("dtype_trained", *JSON, *DIGESTS, "created_with")},
    }


def _check_tensors(header: dict[str, Any], name: str) -> None:
    """Before a tensor is made: its dtypes and shapes, as many rows in one as in the others.

    Raises:
        VectorFileError: something is missing, superfluous or of another shape.
    """
    damaged = VectorFileError(f"{name} is damaged: its tensors are not those of a document. {_AGAIN}")
    names = {"__metadata__", "mem", "token_sha256", *_COLUMNS}
    if set(header) != names or not is_tensor(header["mem"], set(DTYPES), dimensions=3):
        raise damaged
    count, num_mem, hidden_size = header["mem"]["shape"]
    if num_mem > MAX_NUM_MEM or hidden_size > MAX_HIDDEN_SIZE or count > MAX_TOKENS:
        raise VectorFileError(
            f"{name} holds {count} segments of {num_mem} vectors of width {hidden_size}; at most {MAX_TOKENS:,} of "
            f"{MAX_NUM_MEM} of width {MAX_HIDDEN_SIZE:,} can be read."
        )
    for key, dtype in _COLUMNS.items():
        if not is_tensor(header[key], {dtype}, 1) or header[key]["shape"] != [count]:
            raise damaged
    if not is_tensor(header["token_sha256"], {"U8"}, 2) or header["token_sha256"]["shape"] != [count, DIGEST_BYTES]:
        raise damaged


def _entries(tensors: dict[str, Tensor], num_tokens: int, name: str) -> tuple[SegmentEntry, ...]:
    """The segments of a file: in order, without overlap, within the text.

    Raises:
        VectorFileError: they are not, or numbers are not finite.
    """
    starts, counts = tensors["start"], tensors["num_tokens"]  # both bounded before they are added
    in_text = bool(((starts >= 0) & (starts <= num_tokens) & (counts >= 1) & (counts <= num_tokens)).all())
    if not in_text or bool((starts[1:] < (starts + counts)[:-1]).any()) or int(starts[-1] + counts[-1]) > num_tokens:
        raise VectorFileError(
            f"{name} is damaged: its {plural(len(starts), 'segment')} do not lie one after the other in a text of "
            f"{plural(num_tokens, 'token')}. {_AGAIN}"
        )
    if not bool(torch.isfinite(tensors["min_margin"]).all()):  # of `mem`, a segment costs only itself
        raise VectorFileError(f"{name} is damaged: a margin is not finite. {_AGAIN}")
    if int(tensors["lossless"].max()) > 1:
        raise VectorFileError(f"{name} is damaged: it is not said which segments are lossless. {_AGAIN}")
    digests: Sequence[bytes] = [bytes(row) for row in tensors["token_sha256"].tolist()]
    columns = (tensors[key].tolist() for key in ("start", "num_tokens", "lossless", "min_margin"))
    return tuple(
        SegmentEntry(start, count, digest.hex(), bool(lossless), margin)
        for start, count, lossless, margin, digest in zip(*columns, digests, strict=True)
    )
