"""Where a sweep's texts come from. No model is needed to read them, so that all models get the same ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch

from cramdemo.errors import TextError
from cramdemo.passages import read_books
from cramdemo.words import random_words

SEED_STEP = 1_000_003  # between texts of random words: their seeds do not meet those of another source


@dataclass(frozen=True)
class Source:
    """Texts of one kind.

    Attributes:
        base: the folder that paths start from.
    """

    base: Path = field(default=Path(), kw_only=True)
    kind: ClassVar[str] = ""

    def read(self) -> Iterator[tuple[str, str]]:
        """Name and text, one after the other.

        Raises:
            TextError: there is none, or it cannot be read.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Folder(Source):
    """Passages drawn from the .txt files of a folder: file drawn uniformly, then the place, from a word on."""

    folder: str
    passages: int = 10
    characters: int = 4000
    seed: int = 0
    kind: ClassVar[str] = "folder"

    def read(self) -> Iterator[tuple[str, str]]:
        """`passages` of them, each of `characters`, less what follows the last whole word."""
        books = read_books(self.base / self.folder)
        generator = torch.Generator().manual_seed(self.seed)
        long = [book for book in books if len(book) > 2 * self.characters]
        if not long:
            raise TextError(
                f"No .txt file in {Path(self.folder).name!r} has {2 * self.characters:,} characters. "
                "Give longer ones, or less as characters."
            )
        for number in range(self.passages):
            book = long[int(torch.randint(len(long), (), generator=generator))]
            start = int(torch.randint(len(book) - self.characters, (), generator=generator))
            words = book[start : start + self.characters].split(maxsplit=1)[-1]
            yield f"{Path(self.folder).name}:{number}", words.rsplit(maxsplit=1)[0]


@dataclass(frozen=True)
class Files(Source):
    """Whole text files, by a pattern."""

    files: str
    kind: ClassVar[str] = "files"

    def read(self) -> Iterator[tuple[str, str]]:
        """In the order of their names."""
        paths = sorted(path for path in self.base.glob(self.files) if path.is_file())
        if not paths:
            raise TextError(f"No file fits {self.files!r}. Give a pattern of UTF-8 text files, as texts/*.txt.")
        for path in paths:
            try:
                yield path.name, path.read_bytes().decode("utf-8")
            except UnicodeDecodeError as error:
                raise TextError(f"{path.name} is not UTF-8. Save it as UTF-8.") from error


@dataclass(frozen=True)
class Lines(Source):
    """A JSONL file: an object with the text under `field` on each line."""

    jsonl: str
    field: str = "text"
    most: int = 0
    kind: ClassVar[str] = "jsonl"

    def read(self) -> Iterator[tuple[str, str]]:
        """In the file's order, at most `most` where that is not 0."""
        path = self.base / self.jsonl
        if not path.is_file():
            raise TextError(f"There is no file {path.name!r}. Check the name under jsonl.")
        with path.open(encoding="utf-8") as lines:
            try:
                for number, line in enumerate(lines, start=1):
                    if self.most and number > self.most:
                        return
                    yield f"{path.name}:{number}", self._text(path.name, number, line)
            except UnicodeDecodeError as error:
                raise TextError(f"{path.name} is not UTF-8. Save it as UTF-8.") from error

    def _text(self, name: str, number: int, line: str) -> str:
        try:
            text = json.loads(line)[self.field]
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise TextError(f'{name}, line {number} is not {{"{self.field}": "..."}}. Mend or remove it.') from error
        if not isinstance(text, str) or not text:
            raise TextError(f"{name}, line {number}: {self.field} is not a text, or empty. Mend or remove it.")
        return text


@dataclass(frozen=True)
class Dataset(Source):
    """The Parquet files of a dataset of the hub, with a network or from the hub's cache."""

    dataset: str
    split: str = "train"
    field: str = "text"
    most: int = 100
    kind: ClassVar[str] = "dataset"

    def read(self) -> Iterator[tuple[str, str]]:
        """The first `most` texts of the files whose names hold the split's, in their order."""
        from pyarrow import parquet

        number = 0
        for path in self._files():
            table = parquet.ParquetFile(path)
            if self.field not in table.schema_arrow.names:
                names = ", ".join(table.schema_arrow.names[:10])
                raise TextError(f"The dataset {self.dataset} has no column {self.field!r}; it has {names}.")
            for batch in table.iter_batches(batch_size=64, columns=[self.field]):
                for text in batch.column(0).to_pylist():
                    if number == self.most:
                        return
                    number += 1
                    yield f"{self.dataset}:{number}", str(text or "")

    def _files(self) -> Iterator[str]:
        from huggingface_hub import HfApi, hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
        from huggingface_hub.utils import httpx

        try:
            names = HfApi().list_repo_files(self.dataset, repo_type="dataset")
            found = sorted(name for name in names if name.endswith(".parquet") and self.split in Path(name).name)
            if not found:
                raise TextError(f"The dataset {self.dataset} has no .parquet file with {self.split!r} in its name.")
            yield from (hf_hub_download(self.dataset, name, repo_type="dataset") for name in found)
        except (HfHubHTTPError, httpx.TransportError, OfflineModeIsEnabled, OSError, ValueError) as error:
            raise TextError(
                f"The dataset {self.dataset} cannot be read: no such one, no access, or no network. "
                "Check its name, or give texts as jsonl."
            ) from error


@dataclass(frozen=True)
class RandomWords(Source):
    """Texts of words drawn from this program's own list."""

    random_words: int
    words: int = 200
    seed: int = 0
    kind: ClassVar[str] = "random_words"

    def read(self) -> Iterator[tuple[str, str]]:
        """So many texts."""
        for number in range(self.random_words):
            yield f"random words:{number}", random_words(self.words, self.seed * SEED_STEP + number)


SOURCES: dict[str, type[Source]] = {kind.kind: kind for kind in (Folder, Files, Lines, Dataset, RandomWords)}


def read_texts(sources: tuple[Source, ...]) -> tuple[list[tuple[str, str]], int]:
    """All texts with their names, and how many stood twice and were dropped.

    Raises:
        TextError: a source has none, or cannot be read.
    """
    found: dict[str, str] = {}
    count = 0
    for source in sources:
        for name, text in source.read():
            count += 1
            found.setdefault(text, name)
    if not found:
        raise TextError("There is no text to sweep over: every source is empty. Give more under [[texts]].")
    return [(name, text) for text, name in found.items()], count - len(found)
