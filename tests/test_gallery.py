"""The gallery: every file holds the text that it says, and the command that makes them is faithful and repeatable."""

from __future__ import annotations

import dataclasses
import shutil

import pytest
import torch

from cramdemo import CramConfig, TextError, VectorFileError, decode, gallery
from cramdemo.cli import main
from cramdemo.config import MAX_NUM_MEM_PAGE
from cramdemo.gallery import FOLDER, SUFFIX, exhibit, exhibits, make, make_gallery, read_pieces
from cramdemo.vectors import token_digest

PIECES = read_pieces()
MOST_BYTES = 600_000


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A copy of the gallery that may be damaged."""
    copy = shutil.copytree(FOLDER, tmp_path / "gallery")
    monkeypatch.setattr(gallery, "FOLDER", copy)
    exhibits.cache_clear()
    yield copy
    exhibits.cache_clear()


@pytest.mark.parametrize("piece", PIECES, ids=lambda piece: piece.name)
def test_each_file_decodes_to_its_text(piece, built_in):
    held = exhibit(piece.name)
    decoded = decode(built_in, held.vectors)
    assert decoded.matches and decoded.text == piece.text
    assert token_digest(built_in.tokenize(piece.text)) == held.vectors.token_sha256


def test_the_list_and_the_files_are_the_same():
    assert [path.stem for path in sorted(FOLDER.glob(f"*{SUFFIX}"))] == sorted(piece.name for piece in PIECES)
    assert list(exhibits()) == [piece.name for piece in PIECES]
    assert all(held.vectors.num_mem == held.piece.num_mem <= MAX_NUM_MEM_PAGE for held in exhibits().values())
    assert len({piece.text for piece in PIECES}) == len(PIECES) >= 12
    assert max(piece.num_mem for piece in PIECES) == MAX_NUM_MEM_PAGE
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < MOST_BYTES


def test_each_file_says_that_it_was_decoded_for_cpus_and_gpus():
    for held in exhibits().values():
        checks = {check["dtype"]: check["lossless"] for check in held.vectors.verified}
        assert checks == {"float32": True, "bfloat16": True}
        assert held.vectors.mem.dtype == torch.float16


@pytest.mark.parametrize("name", ["../texts", "", "haiku.safetensors", None, ["haiku"]])
def test_a_name_is_looked_up_and_is_no_path(name):
    with pytest.raises(VectorFileError, match=r"There is no .* in the gallery\. Choose from haiku, "):
        exhibit(name)


def test_a_missing_or_damaged_file_is_a_sentence(folder):
    (folder / f"haiku{SUFFIX}").unlink()
    with pytest.raises(VectorFileError, match=r"haiku\.safetensors cannot be read"):
        exhibits()
    (folder / f"haiku{SUFFIX}").write_bytes(b"no vectors")
    with pytest.raises(VectorFileError, match="is not a safetensors file"):
        exhibits()


def test_the_command_writes_lossless_files_and_the_same_ones_again(tmp_path, monkeypatch, capsys, built_in):
    piece = dataclasses.replace(PIECES[0], name="short", text="The ferry is late.")
    monkeypatch.setattr(gallery, "read_pieces", lambda: [piece])
    monkeypatch.setattr(gallery, "load_model", lambda *_, **__: built_in)
    written, threads = [], []
    made = gallery.make
    monkeypatch.setattr(gallery, "make", lambda *a: (threads.append(torch.get_num_threads()), made(*a))[1])
    before = torch.get_num_threads()
    for name in ("one", "two/deep"):
        assert main(["gallery", "--out", str(tmp_path / name)]) == 0
        (path,) = (tmp_path / name).iterdir()
        written.append(path.read_bytes())
    assert written[0] == written[1]
    assert threads == [1, 1] and torch.get_num_threads() == before, "sums depend on the number of threads"
    said = capsys.readouterr().out
    count = len(built_in.tokenize(piece.text))
    assert f"short.safetensors: {count} tokens in 1 vector, " in said
    assert "1 file, " in said
    assert decode(built_in, gallery.load(path)).text == piece.text


def test_the_command_fails_with_a_sentence_where_a_text_is_not_lossless(tmp_path, monkeypatch, capsys, built_in):
    piece = dataclasses.replace(PIECES[0], title="Too much", text=PIECES[0].text * 3)
    monkeypatch.setattr(gallery, "read_pieces", lambda: [piece])
    monkeypatch.setattr(gallery, "load_model", lambda *_, **__: built_in)
    monkeypatch.setattr(CramConfig, "for_model", lambda *_: CramConfig(steps=1, growth=0, init="embedding"))
    assert main(["gallery", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "“Too much” is not lossless with 1 vector: " in said and "larger num_mem in texts.json" in said
    assert list(tmp_path.iterdir()) == [], "a file that does not hold its text was written"


def test_every_judge_must_find_the_text(tiny_lm, monkeypatch):
    """Vectors that one dtype decodes and another does not are refused."""
    piece = gallery.Piece("sea", "Sea", "sentence", 4, "The old sea, tired.")
    config = CramConfig(steps=500)
    assert make([tiny_lm], piece, config).lossless
    checks = iter((True, False))
    honest = gallery.verify
    monkeypatch.setattr(
        gallery, "verify", lambda *given: dataclasses.replace(honest(*given), lossless=next(checks), correct_prefix=3)
    )
    with pytest.raises(TextError, match="3 of"):
        make([tiny_lm, tiny_lm], piece, config)


def test_the_files_are_made_one_after_the_other(tmp_path, monkeypatch, built_in):
    pieces = [dataclasses.replace(PIECES[0], name=name, text="The ferry is late.") for name in "ab"]
    monkeypatch.setattr(gallery, "read_pieces", lambda: pieces)
    monkeypatch.setattr(gallery, "load_model", lambda *_, **__: built_in)
    piece, path = next(make_gallery(tmp_path))
    assert piece.name == path.stem == "a" and not (tmp_path / f"b{SUFFIX}").exists()
