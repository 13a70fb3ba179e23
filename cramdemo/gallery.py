"""The gallery: texts of many kinds that come with the program, each with the vectors that hold it.

python -m cramdemo gallery [--out DIR]

The texts stand in assets/gallery/texts.json, the vectors beside it, as NAME.safetensors. They are made for the built-in
model, in float16, and each is decoded from its file's bytes in float32 and in bfloat16 before it is kept, so that it is
read alike on a CPU and on a GPU.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from cramdemo.catalogue import ASSETS, BUILT_IN
from cramdemo.config import CramConfig
from cramdemo.cram import CramResult, judge, run_cram
from cramdemo.decode import verify
from cramdemo.errors import TextError, VectorFileError, plural
from cramdemo.models import FrozenLM, load_model
from cramdemo.vectors import MemVectors, load, save

FOLDER = ASSETS / "gallery"
SUFFIX = ".safetensors"
STORED = torch.float16  # of the numbers in a file: half the bytes, and finer than bfloat16
JUDGES = ("float32", "bfloat16")  # what CPUs and GPUs read the built-in model in


@dataclass(frozen=True)
class Piece:
    """A text of the gallery.

    Attributes:
        name: of its file, without the suffix.
        title: what it is called.
        kind: what sort of text it is: "haiku", "chess game".
        num_mem: K, the number of memory tokens that hold it.
        text: the text itself.
    """

    name: str
    title: str
    kind: str
    num_mem: int
    text: str


@dataclass(frozen=True)
class Exhibit:
    """A piece and what its file says; the file has been read and checked, but nothing was decoded.

    Attributes:
        piece: the text.
        vectors: from its file.
        file_bytes: size of the file, vectors and what it says of itself.
    """

    piece: Piece
    vectors: MemVectors
    file_bytes: int

    @property
    def tokens_a_vector(self) -> float:
        """N / K."""
        return self.vectors.num_tokens / self.vectors.num_mem


def read_pieces() -> list[Piece]:
    """All texts of the gallery, in the order in which they are shown."""
    return [Piece(**item) for item in json.loads((FOLDER / "texts.json").read_text(encoding="utf-8"))]


@cache
def exhibits() -> dict[str, Exhibit]:
    """The gallery by name; read once.

    Raises:
        VectorFileError: a file is missing or damaged.
    """
    found = {}
    for piece in read_pieces():
        path = FOLDER / f"{piece.name}{SUFFIX}"
        found[piece.name] = Exhibit(piece, load(path), path.stat().st_size)
    return found


def exhibit(name: str) -> Exhibit:
    """One exhibit: a name from a visitor is looked up and never becomes a path.

    Raises:
        VectorFileError: there is no such exhibit, or its file is missing or damaged.
    """
    found = exhibits().get(name) if isinstance(name, str) else None
    if found is None:
        names = ", ".join(exhibits())
        raise VectorFileError(f"There is no {str(name)[:40]!r} in the gallery. Choose from {names}.")
    return found


def make_gallery(folder: Path) -> Iterator[tuple[Piece, Path]]:
    """Make the vectors of every text and write their files, one after the other; the same seed, the same bytes.

    Yields:
        A piece and its file, which is written by then.

    Raises:
        TextError: vectors do not hold their text. Files written before stay.
        OSError: the folder cannot be written.
    """
    judges = [load_model(BUILT_IN, device="cpu", precision=precision) for precision in JUDGES]
    folder.mkdir(parents=True, exist_ok=True)
    for piece in read_pieces():
        with _one_thread():
            result = make(judges, piece)
        yield piece, save(result.vectors, folder / f"{piece.name}{SUFFIX}")


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums come out the same whatever the number of cores, and with them the files."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def make(judges: Sequence[FrozenLM], piece: Piece, config: CramConfig | None = None) -> CramResult:
    """Cram a text, store its vectors in half precision, and have every judge decode them.

    Args:
        judges: the model, in each dtype that the vectors must be read in; the first one crams.
        config: settings; None takes the model's own. K is the piece's in any case.

    Raises:
        TextError: the vectors do not hold the text for every judge, or it cannot be crammed.
    """
    lm, started = judges[0], time.perf_counter()
    config = dataclasses.replace(config or CramConfig.for_model(lm), num_mem=piece.num_mem)
    run = run_cram(lm, piece.text, config)
    stored = dataclasses.replace(run.vectors, mem=run.vectors.mem.to(STORED))
    checks = [verify(each, stored, run.token_ids) for each in judges]
    result = judge(
        lm,
        stored,
        run.token_ids,
        reason=run.reason,
        steps=run.steps,
        started=started,
        flops=run.flops,
        proof=checks,
    )
    if not result.lossless:
        check = result.verification
        raise TextError(
            f"“{piece.title}” is not lossless with {plural(piece.num_mem, 'vector')}: {check.correct_prefix} of "
            f"{plural(check.num_tokens, 'token')} decoded in {check.dtype}. Give it a larger num_mem in texts.json."
        )
    return result
