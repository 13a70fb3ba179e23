"""Files from a hub on loopback: what is asked for, progress, Stop, going on, and how the program ends."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cramdemo import CramConfig, ModelError, load_model, run_cram
from cramdemo import hub as hub_module
from cramdemo.hub import Download, Snapshot, fetch, is_hub_id
from tests.fake_hub import FakeHub, files_of

ID = "someone/tiny"
NEEDED = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
CODE = ("model.py", "tokenizer.py", "pytorch_model.bin", "training_args.bin", "flax_model.msgpack", "tf_model.h5")
UNWANTED = dict.fromkeys((*CODE, "README.md", "consolidated.safetensors", "model.onnx"), b"never asked for")
SLOW = 0.04  # seconds a block: all of the tiny model's weights take about one


@pytest.fixture
def files(tiny_folder: Path) -> dict[str, bytes]:
    """The tiny model as the files of a repository."""
    return files_of(tiny_folder)


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[str]]:
    """The downloading processes that were started."""
    started: list[subprocess.Popen[str]] = []

    class Noted(subprocess.Popen[str]):
        def __init__(self, *arguments: Any, **settings: Any) -> None:
            super().__init__(*arguments, **settings)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Noted)
    return started


def _found(snapshot: Snapshot) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in snapshot.folder.iterdir()}


def _refused(**settings: Any) -> str:
    with pytest.raises(ModelError) as refused:
        fetch(ID, **settings)
    return str(refused.value)


def _half() -> Path:
    """The file that the weights grow in."""
    (path,) = Path(os.environ["HF_HOME"]).rglob("*.incomplete")
    return path


def test_what_is_needed_arrives_byte_for_byte_and_nothing_else_is_asked_for(
    hub: FakeHub, files: dict[str, bytes]
) -> None:
    repository = hub.add(ID, files | UNWANTED)
    snapshot = fetch(ID)
    assert _found(snapshot) == {name: files[name] for name in NEEDED}
    assert snapshot.revision == repository.sha
    assert hub.files_asked == NEEDED


def test_a_commit_that_is_made_meanwhile_is_not_mixed_in(hub: FakeHub, files: dict[str, bytes]) -> None:
    repository = hub.add(ID, files)
    first = repository.sha
    hub.after = lambda path: repository.push({"config.json": b"other"}) if path.endswith(ID) else None
    snapshot = fetch(ID)
    assert repository.sha != first == snapshot.revision
    assert _found(snapshot) == files


def test_the_commit_stands_in_the_vector_file_of_a_text_crammed_with_the_model(
    hub: FakeHub, files: dict[str, bytes], tiny_lm: Any
) -> None:
    repository = hub.add(ID, files)
    lm = load_model(ID, device="cpu")
    vectors = run_cram(lm, "The old sea.", CramConfig(num_mem=1, steps=1)).vectors
    assert (vectors.model_id, vectors.model_revision) == (ID, repository.sha)
    assert (lm.fingerprint, lm.tokenizer_fingerprint) == (tiny_lm.fingerprint, tiny_lm.tokenizer_fingerprint)


def test_a_model_in_several_files_is_fetched_by_its_index(hub: FakeHub, files: dict[str, bytes]) -> None:
    shards = {f"model-0000{part}-of-00002.safetensors": b"part" * part for part in (1, 2)}
    index = '{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}'
    weights = shards | {"model.safetensors.index.json": index.encode()}
    rest = {name: files[name] for name in NEEDED - {"model.safetensors"}}
    hub.add(ID, rest | weights | UNWANTED)
    assert _found(fetch(ID)) == rest | weights


def test_what_is_in_the_cache_is_not_fetched_again(hub: FakeHub, files: dict[str, bytes]) -> None:
    hub.add(ID, files)
    first = fetch(ID)
    hub.asked.clear()
    told: list[Download] = []
    assert fetch(ID, tell=told.append) == first
    assert hub.asked == [f"GET /api/models/{ID}"]
    assert told == []


def test_of_a_newer_commit_only_what_has_changed_is_fetched(hub: FakeHub, files: dict[str, bytes]) -> None:
    repository = hub.add(ID, files)
    first = fetch(ID)
    repository.push({"generation_config.json": b"{}"})
    hub.ranges.clear()
    second = fetch(ID)
    assert second.revision == repository.sha != first.revision
    assert _found(second)["generation_config.json"] == b"{}"
    assert hub.ranges == []  # the weights are the same


def test_progress_is_told_in_bytes_up_to_all_of_them(hub: FakeHub, files: dict[str, bytes]) -> None:
    hub.add(ID, files | UNWANTED)
    hub.wait = SLOW
    told: list[Download] = []
    fetch(ID, tell=told.append)
    total = sum(len(files[name]) for name in NEEDED)
    assert {news.total for news in told} == {total}
    done = [news.done for news in told]
    assert done == sorted(done)
    assert done[-1] == total
    assert len(set(done)) > 2  # in the middle of a file too


def test_stop_ends_a_download_in_the_middle_of_a_file_and_the_next_goes_on_there(
    hub: FakeHub, files: dict[str, bytes], programs: list[subprocess.Popen[str]]
) -> None:
    hub.add(ID, files)
    hub.stall = len(files["model.safetensors"]) // 2
    stop = _after(len(files["model.safetensors"]) // 4)
    assert "was stopped" in _refused(stop=lambda: stop.reached, tell=stop.tell)
    assert programs[0].poll() == -signal.SIGTERM
    kept = _half().stat().st_size
    assert 0 < kept < len(files["model.safetensors"])
    hub.stall = 0
    assert _found(fetch(ID)) == files
    assert hub.ranges == [0, kept]
    assert not list(Path(os.environ["HF_HOME"]).rglob("*.incomplete"))


class _after:  # noqa: N801 (reads as the condition it is)
    """Whether so many bytes were reported."""

    def __init__(self, count: int) -> None:
        self.count, self.reached = count, False

    def tell(self, news: Download) -> None:
        self.reached = self.reached or news.done > self.count


def test_stop_before_the_start_starts_nothing(hub: FakeHub, programs: list[subprocess.Popen[str]]) -> None:
    assert "was stopped" in _refused(stop=lambda: True)
    assert (programs, hub.asked) == ([], [])


def test_stop_ends_a_hub_that_does_not_answer(
    hub: FakeHub, files: dict[str, bytes], programs: list[subprocess.Popen[str]]
) -> None:
    hub.add(ID, files)
    hub.silence = 2.0
    assert "was stopped" in _refused(stop=lambda: bool(hub.asked))
    assert programs[0].poll() == -signal.SIGTERM


def test_a_program_that_does_not_end_when_told_to_is_killed(
    hub: FakeHub, files: dict[str, bytes], programs: list[subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(ID, files)
    hub.silence = 2.0
    monkeypatch.setattr(subprocess.Popen, "terminate", lambda self: None)
    assert "was stopped" in _refused(stop=lambda: bool(hub.asked))
    assert programs[0].poll() == -signal.SIGKILL


def test_a_hub_that_never_answers_is_given_up(
    hub: FakeHub, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(ID, files)
    hub.silence = 3.0
    monkeypatch.setattr(hub_module, "SILENCE_SECONDS", 0.3)
    assert "stopped answering" in _refused()


def test_a_cut_off_download_says_so_and_the_next_goes_on_there(hub: FakeHub, files: dict[str, bytes]) -> None:
    hub.add(ID, files)
    hub.cut = len(files["model.safetensors"]) // 2
    assert "goes on where it stopped" in _refused()
    kept = _half().stat().st_size
    assert kept > 0
    hub.cut = hub.broken = 0
    hub.ranges.clear()
    assert _found(fetch(ID)) == files
    assert hub.ranges == [kept]


def test_a_killed_program_is_one_sentence_and_the_next_goes_on_there(
    hub: FakeHub, files: dict[str, bytes], programs: list[subprocess.Popen[str]]
) -> None:
    hub.add(ID, files)
    hub.stall = 1
    sentence = _refused(tell=lambda news: os.kill(programs[0].pid, signal.SIGKILL))
    assert sentence == f"The download of {ID} was ended. Try again: it goes on where it stopped."
    hub.stall = 0
    assert _found(fetch(ID)) == files


def test_a_token_goes_to_the_hub_alone_and_stands_on_no_command_line(
    hub: FakeHub, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large files come from another address, which must not see it."""
    started: list[Any] = []
    popen = subprocess.Popen

    def noted(command: list[str], **settings: Any) -> Any:
        started.append((command, settings["env"]))
        return popen(command, **settings)

    monkeypatch.setattr(hub_module.subprocess, "Popen", noted)
    hub.add(ID, files, gated=True, granted=("secret",))
    assert _found(fetch(ID, token="secret")) == files
    assert set(hub.authorized.values()) == {"secret"}
    assert any(path.startswith("GET /storage/") for path in hub.asked)
    assert not any(path.startswith("/storage/") for path in hub.authorized)
    assert "secret" not in repr(started)


BAD_IDS = [
    *("", "tiny", "a/b/c", "../tiny", "someone/..", "/tiny", "someone/", "/etc/passwd", "C:\\a/b", "some one/tiny"),
    *(
        "someone/ti\0ny",
        "someone/tiny\n",
        "https://hub/a",
        "someone/tiny.git",
        "so--me/tiny",
        "é/tiny",
        "a/" + "b" * 97,
    ),
]


@pytest.mark.parametrize("name", BAD_IDS)
def test_what_is_no_id_is_refused_without_a_question(name: str, programs: list[subprocess.Popen[str]]) -> None:
    assert not is_hub_id(name)
    with pytest.raises(ModelError, match="is no model of the hub"):
        fetch(name)
    assert programs == []


@pytest.mark.parametrize("name", ["EleutherAI/pythia-1.4b", "a/b", "someone_else/Tiny-2.0_x"])
def test_what_is_an_id_is_known_as_one(name: str) -> None:
    assert is_hub_id(name)
