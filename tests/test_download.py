"""The downloading program: which commit it takes, what it makes of the cache, and its sentences."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cramdemo import ModelError
from cramdemo.hub import PROGRAM, fetch
from tests.fake_hub import FakeHub, Repository, Request, files_of, serve

ID = "someone/tiny"
Files = dict[str, bytes]


@pytest.fixture
def files(tiny_folder: Path) -> Files:
    """The tiny model as the files of a repository."""
    return files_of(tiny_folder)


def _refused(token: str | None = None) -> str:
    """One sentence or two, of no place on this machine."""
    with pytest.raises(ModelError) as refused:
        fetch(ID, token=token)
    sentence = str(refused.value)
    assert os.environ["HF_HOME"] not in sentence
    assert "\n" not in sentence
    return sentence


# ---- refused by the hub


@pytest.mark.parametrize("token", [None, "any"])
def test_a_model_that_is_not_there_or_private_is_refused_as_either(hub: FakeHub, token: str | None) -> None:
    """The hub answers 401 to those without a token, 404 to others."""
    assert f"There is no model {ID} on the hub, or it is private" in _refused(token)


def test_a_gated_model_is_refused_with_its_page_and_how_to_give_a_token(hub: FakeHub, files: Files) -> None:
    hub.add(ID, files, gated=True, granted=("granted",))
    sentence = _refused()
    assert f"https://huggingface.co/{ID}" in sentence
    assert "HF_TOKEN" in sentence
    assert "secret of that name" in sentence


def test_a_gated_model_with_a_token_without_access_is_refused_with_where_to_ask(hub: FakeHub, files: Files) -> None:
    hub.add(ID, files, gated=True, granted=("granted",))
    sentence = _refused(token="other")
    assert "has no access yet" in sentence
    assert f"https://huggingface.co/{ID}" in sentence


def test_a_token_of_the_environment_is_used(hub: FakeHub, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "granted")
    hub.add(ID, files, gated=True, granted=("granted",))
    assert fetch(ID).folder.is_dir()


@pytest.mark.parametrize(("status", "sentence"), [(401, "does not accept the token"), (451, "it answers 451")])
def test_other_refusals_are_told_with_what_to_do(hub: FakeHub, status: int, sentence: str) -> None:
    hub.broken = status
    assert sentence in _refused(token="any")


@pytest.mark.parametrize(
    "answer",
    [b"<html>Sign in to the network</html>", b"[]", b'{"id": "a/b", "sha": "../../a", "siblings": []}', b'{"id": "x"}'],
)
def test_an_answer_of_no_hub_is_told_as_such(hub: FakeHub, files: Files, answer: bytes) -> None:
    hub.add(ID, files)
    hub.answer = answer
    assert "makes no sense" in _refused()
    assert hub.asked == [f"GET /api/models/{ID}"]


@pytest.mark.parametrize("name", ["../config.json", "model-00001-of-00002.safetensors", "weights.bin"])
def test_an_index_may_name_only_safetensors_of_the_commit(hub: FakeHub, files: Files, name: str) -> None:
    del files["model.safetensors"]
    index = json.dumps({"weight_map": {"a": name}}).encode()
    hub.add(ID, files | {"model.safetensors.index.json": index, "weights.bin": b"pickled"})
    assert "makes no sense" in _refused()
    assert "weights.bin" not in hub.files_asked


def test_a_large_file_of_the_cache_with_another_size_is_fetched_anew(hub: FakeHub, files: Files) -> None:
    hub.add(ID, files)
    weights = fetch(ID).folder / "model.safetensors"
    weights.resolve().write_bytes(b"cut")
    fetch(ID)
    assert weights.read_bytes() == files["model.safetensors"]


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_file_that_is_not_what_the_commit_says_is_deleted(hub: FakeHub, files: Files, name: str) -> None:
    hub.add(ID, files)
    hub.garbled = name
    assert "arrived damaged" in _refused()
    hub.garbled = ""
    assert (fetch(ID).folder / name).read_bytes() == files[name]


def test_a_model_too_large_for_the_disk_is_refused_before_its_weights_are_asked_for(hub: FakeHub, files: Files) -> None:
    hub.add(ID, files, sizes={"model.safetensors": 10**15})
    sentence = _refused()
    assert f"{ID} needs another 1000000.00 GB" in sentence
    assert "HF_HOME" in sentence
    assert hub.ranges == []


# ---- no safetensors


def _pickled(hub: FakeHub, files: Files) -> Repository:
    """A repository whose main branch has no safetensors."""
    return hub.add(ID, {n: c for n, c in files.items() if n != "model.safetensors"} | {"pytorch_model.bin": b"pickled"})


def test_the_hub_s_own_conversion_is_taken_with_all_its_files_from_its_commit(hub: FakeHub, files: Files) -> None:
    repository = _pickled(hub, files)
    converted = files | {"pytorch_model.bin": b"pickled", "generation_config.json": b"{}"}
    repository.requests[7] = Request(converted, parent=repository.sha)
    snapshot = fetch(ID)
    assert snapshot.revision != repository.sha
    assert (snapshot.folder / "model.safetensors").read_bytes() == files["model.safetensors"]
    assert (snapshot.folder / "generation_config.json").read_bytes() == b"{}"
    assert "pytorch_model.bin" not in hub.files_asked
    assert {path.split("/resolve/")[1].split("/")[0] for path in hub.asked if "/resolve/" in path} == {
        snapshot.revision
    }


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"author": "stranger"},
        {"title": "Better weights"},
        {"status": "closed"},
        {"parent": "0" * 40},
        {"files": {"config.json": b"{}"}},
    ],
    ids=lambda change: next(iter(change), "none"),
)
def test_no_other_request_is_taken_for_the_conversion(hub: FakeHub, files: Files, change: dict[str, str]) -> None:
    repository = _pickled(hub, files)
    if change:
        repository.requests[7] = Request(**({"files": files, "parent": repository.sha} | change))  # type: ignore[arg-type]
    assert "no safetensors weights" in _refused()
    assert hub.files_asked == set()


# ---- the cache


@pytest.fixture
def cached(files: Files, hub: FakeHub) -> str:
    """Two commits of the model are in the cache, the second one of them not complete; the SHA of the first."""
    hub.add(ID, files)
    revision = fetch(ID).revision
    hub.add(ID, files | {"model.safetensors": b"other"}, sizes={"model.safetensors": 10**15})
    _refused()
    return revision


def _offline(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def _down(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve() as gone:
        monkeypatch.setenv("HF_ENDPOINT", gone.url)


def _broken(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.broken = 502


UNREACHED = pytest.mark.parametrize("lose", [_offline, _down, _broken])


@UNREACHED
def test_without_a_hub_the_newest_complete_commit_of_the_cache_is_taken(
    cached: str, hub: FakeHub, monkeypatch: pytest.MonkeyPatch, lose: Callable[..., None]
) -> None:
    lose(hub, monkeypatch)
    assert fetch(ID).revision == cached


@UNREACHED
def test_without_a_hub_and_a_cache_the_sentence_says_which_is_missing(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, lose: Callable[..., None]
) -> None:
    lose(hub, monkeypatch)
    sentence = _refused()
    assert f"{ID} is not on this machine" in sentence
    assert ("HF_HUB_OFFLINE is set" if lose is _offline else "the hub cannot be reached") in sentence
    assert hub.asked == ([f"GET /api/models/{ID}"] if lose is _broken else [])


def test_a_cache_that_another_program_has_filled_serves_once_it_is_complete(
    cached: str, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others keep no list of a commit's files."""
    _offline(hub, monkeypatch)
    (storage,) = Path(os.environ["HF_HOME"], "hub").glob("models--*")
    shutil.rmtree(storage / "trees")
    assert fetch(ID).revision == cached
    (storage / "snapshots" / cached / "model.safetensors").unlink()
    assert "is not on this machine" in _refused()


# ---- as a process


def test_the_program_ends_when_the_one_that_started_it_is_gone(hub: FakeHub, files: Files) -> None:
    hub.add(ID, files)
    hub.stall = 1
    with subprocess.Popen([sys.executable, "-P", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        assert program.stdin and program.stdout
        program.stdin.write(json.dumps({"repo_id": ID, "token": None, "ask_access": False}).encode() + b"\n")
        program.stdin.flush()
        assert any(b"done" in line for line in program.stdout)
        program.stdin.close()  # as the system does for a process that has ended
        try:
            assert program.wait(timeout=10) == 1
        finally:
            program.kill()


def test_the_program_needs_neither_torch_nor_the_package() -> None:
    code = f"import runpy, sys; runpy.run_path({str(PROGRAM)!r}); print({{'torch', 'cramdemo'}} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"
