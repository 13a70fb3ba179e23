"""Sources of a sweep's texts."""

from __future__ import annotations

import json

import pytest
from huggingface_hub import HfApi
from huggingface_hub.utils import httpx

from cramdemo.errors import TextError
from cramdemo.sweep.texts import Dataset, Files, Folder, Lines, RandomWords, read_texts


def test_passages_of_a_folder_are_whole_words_and_the_same_each_time(tmp_path):
    book = " ".join(f"word{number}" for number in range(500))
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "a.txt").write_text(book, encoding="utf-8")
    (tmp_path / "books" / "short.txt").write_text("short", encoding="utf-8")
    source = Folder("books", passages=5, characters=200, base=tmp_path)
    found = dict(source.read())
    assert list(found) == [f"books:{number}" for number in range(5)] and found == dict(source.read())
    assert all(150 < len(text) <= 200 and set(text.split()) <= set(book.split()) for text in found.values())
    assert found != dict(Folder("books", passages=5, characters=200, seed=1, base=tmp_path).read())


def test_files_come_by_a_pattern_in_the_order_of_their_names(tmp_path):
    for name in ("b.txt", "a.txt", "c.md"):
        (tmp_path / name).write_text(name, encoding="utf-8")
    assert list(Files("*.txt", base=tmp_path).read()) == [("a.txt", "a.txt"), ("b.txt", "b.txt")]


def test_lines_have_a_field_and_a_limit(tmp_path):
    lines = [json.dumps({"story": f"tale {number}"}) for number in range(4)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    found = list(Lines("a.jsonl", field="story", most=3, base=tmp_path).read())
    assert found == [("a.jsonl:1", "tale 0"), ("a.jsonl:2", "tale 1"), ("a.jsonl:3", "tale 2")]


def test_texts_that_stand_twice_are_read_once(tmp_path):
    texts, twice = read_texts((RandomWords(3, words=5), RandomWords(2, words=5), RandomWords(2, words=5, seed=1)))
    assert [name for name, _ in texts] == [*(f"random words:{n}" for n in range(3)), "random words:0", "random words:1"]
    assert twice == 2 and all(len(text.split()) == 5 for _, text in texts)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (lambda base: Folder("nowhere", base=base), "'nowhere' holds no .txt file"),
        (lambda base: Folder(".", characters=300, base=base), "has 600 characters"),
        (lambda base: Files("*.md", base=base), "No file fits '\\*.md'"),
        (lambda base: Files("bad.*", base=base), "bad.bin is not UTF-8"),
        (lambda base: Lines("no.jsonl", base=base), "no file 'no.jsonl'"),
        (lambda base: Lines("half.jsonl", base=base), 'half.jsonl, line 2 is not {"text": "..."}'),
        (lambda base: Lines("empty.jsonl", base=base), "line 1: text is not a text, or empty"),
        (lambda base: Dataset("owner/name", base=base), "owner/name cannot be read: no such one, no access, or no"),
    ],
)
def test_a_source_without_texts_says_so(tmp_path, source, words):
    (tmp_path / "a.txt").write_text("too short", encoding="utf-8")
    (tmp_path / "bad.bin").write_bytes(b"\xff")
    (tmp_path / "half.jsonl").write_text('{"text": "a"}\n{"text": ', encoding="utf-8")
    (tmp_path / "empty.jsonl").write_text('{"text": ""}', encoding="utf-8")
    with pytest.raises(TextError, match=words):
        list(source(tmp_path).read())


def test_no_text_at_all_is_refused():
    with pytest.raises(TextError, match="every source is empty"):
        read_texts((RandomWords(0),))


def test_a_dataset_is_read_from_its_parquet_files(tmp_path, monkeypatch):
    import pyarrow
    import pyarrow.parquet

    for name, texts in (("train-0", ["a", "b"]), ("train-1", ["c", "d"])):
        pyarrow.parquet.write_table(pyarrow.table({"text": texts}), tmp_path / f"{name}.parquet")
    files = [str(tmp_path / f"train-{number}.parquet") for number in range(2)]
    monkeypatch.setattr(Dataset, "_files", lambda self: iter(files))
    found = list(Dataset("owner/name", most=3).read())
    assert found == [("owner/name:1", "a"), ("owner/name:2", "b"), ("owner/name:3", "c")]
    with pytest.raises(TextError, match="no column 'story'; it has text"):
        list(Dataset("owner/name", field="story").read())


def test_a_dataset_without_a_network_is_one_sentence(monkeypatch):
    def unreachable(self, *asked, **given):
        raise httpx.ConnectError("Name or service not known")

    monkeypatch.setattr(HfApi, "list_repo_files", unreachable)
    with pytest.raises(TextError, match="no such one, no access, or no network"):
        list(Dataset("owner/name").read())
