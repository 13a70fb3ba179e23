"""The command line as a user types it: status, stdout, stderr, and the files it leaves."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cramdemo import bench, cram, load, load_model, save
from cramdemo.bench import Asked, Benchmark
from cramdemo.catalogue import MODELS
from cramdemo.cli import main
from cramdemo.vectors import from_bytes
from tests.fake_hub import FakeHub, files_of

ROOT = Path(__file__).resolve().parent.parent
EASY = "The old man and\n"
KEYS = {
    "num_tokens",
    "num_mem",
    "lossless",
    "verified",
    "accuracy",
    "steps",
    "seconds",
    "min_margin",
    "h_lm_bits",
    "information_gain_bits",
    "token_gain",
    "vector_bytes",
}


@pytest.fixture(scope="module")
def crammed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A text file and the vector file made of it by the command line."""
    folder = tmp_path_factory.mktemp("crammed")
    text, vectors = folder / "easy.txt", folder / "easy.safetensors"
    text.write_bytes(EASY.encode())
    assert main(["cram", str(text), "-o", str(vectors), "--num-mem", "8"]) == 0
    return text, vectors


def _stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_text_comes_back_byte_for_byte_with_its_final_newline(
    crammed: tuple[Path, Path], capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> None:
    text, vectors = crammed
    assert main(["decode", str(vectors)]) == 0
    assert capfdbinary.readouterr().out == text.read_bytes()
    assert main(["decode", str(vectors), "-o", str(tmp_path / "back.txt")]) == 0
    assert (tmp_path / "back.txt").read_bytes() == text.read_bytes()
    assert capfdbinary.readouterr().out == b""


def test_json_of_cram_is_one_object_with_every_promised_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _stdin(monkeypatch, EASY.encode())
    assert main(["cram", "-", "-o", str(tmp_path / "v.safetensors"), "--num-mem", "8", "--json"]) == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert set(report) >= KEYS
    assert report["lossless"] is True
    assert report["verified"][0]["lossless"] is True
    assert report["vector_bytes"] == 8 * load(tmp_path / "v.safetensors").hidden_size * 4
    assert captured.err == ""  # no progress bar in a pipe


def test_auto_finds_the_fewest_memory_tokens_and_tells_what_was_tried(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, out = tmp_path / "t.txt", tmp_path / "v.safetensors"
    text.write_text(" ".join(str(7919 * i % 10007) for i in range(8)))
    arguments = ["cram", str(text), "-o", str(out), "--num-mem", "auto", "--init", "embedding"]
    assert main([*arguments, "--json", "--seconds", "0.1"]) == 3  # too short for anything
    report = json.loads(capsys.readouterr().out)
    tried = [trial["num_mem"] for trial in report["trials"]]
    assert tried == [2**i for i in range(len(tried))] and not any(trial["lossless"] for trial in report["trials"])
    assert report["num_mem"] == load(out).num_mem

    text.write_text("Hi there")
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("K = 1: lossless, ") and "Lossless: " in printed
    assert load(out).num_mem == 1


def test_what_is_no_number_of_memory_tokens_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["cram", "-", "--num-mem", "few"])
    assert caught.value.code == 2 and "'few' is no whole number, nor auto" in capsys.readouterr().err


def test_a_run_out_of_steps_exits_3_and_still_writes_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "long.txt"
    text.write_text("Colourless green ideas sleep furiously beside 7319 umbrellas. " * 3)
    assert main(["cram", str(text), "-o", str(tmp_path / "v.safetensors"), "--steps", "3"]) == 3
    printed = capsys.readouterr().out
    assert "Not lossless" in printed
    assert "tokens in 1 vector, 3 steps" in printed
    assert load(tmp_path / "v.safetensors").num_tokens > 16
    assert main(["decode", str(tmp_path / "v.safetensors")]) == 3
    assert "not the original text" in capsys.readouterr().err


def test_a_preset_reaches_the_run_and_settings_given_go_before_it(tmp_path: Path) -> None:
    text, out = tmp_path / "t.txt", tmp_path / "v.safetensors"
    text.write_text("Hi there")
    main(["cram", str(text), "-o", str(out), "--preset", "most", "--steps", "1"])
    most = MODELS["cram-mini"].defaults.most
    config = load(out).config
    assert (config["steps"], config["margin"], config["init"]) == (1, most["margin"], most["init"])


def test_an_unknown_preset_is_refused_with_what_to_choose_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "t.txt"
    text.write_text("Hi")
    assert main(["cram", str(text), "--preset", "best"]) == 2
    assert "choose from fast, most" in capsys.readouterr().err


def test_without_output_the_file_is_named_after_the_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("note.txt").write_text("Hi")
    assert main(["cram", "note.txt", "--steps", "2"]) in (0, 3)
    assert "note.safetensors" in capsys.readouterr().out
    assert Path("note.safetensors").is_file()


def test_inspect_and_models_print_the_same_facts_as_json(
    crammed: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    _, vectors = crammed
    assert main(["inspect", str(vectors), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["model_id"], facts["num_mem"]) == ("cram-mini", 8)
    assert main(["inspect", str(vectors)]) == 0
    assert "model_id: cram-mini" in capsys.readouterr().out
    assert main(["models", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert "source" not in rows["cram-mini"]
    assert rows["meta-llama/Llama-3.1-8B"]["published"] == {"cramming": 1568, "progressive": 1437.6}


def test_models_is_a_table_with_a_line_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    head, *lines = capsys.readouterr().out.partition("\n\n")[0].splitlines()
    assert [line.split()[0] for line in lines] == list(MODELS)
    assert max(map(len, lines)) < 120
    (llama,) = [line for line in lines if "Llama-3.1-8B" in line]
    assert llama.split()[1:] == ["8.03B", "4096", "32", "131,072", "llama3.1", "yes", "1,568", "1,437.6"]
    assert all(line.index("MIT") == head.index("licence") for line in lines if "MIT" in line)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A text that the tiny model can be made to say."""
    path = tmp_path / "text.txt"
    path.write_text("The old sea, tired.")
    return path


def test_a_text_crammed_with_a_model_of_the_hub_decodes_by_its_file_only_if_the_table_has_the_model(
    hub: FakeHub, tiny_folder: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stranger's file must not start a download."""
    for name, status in (("EleutherAI/pythia-160m", 0), ("someone/tiny", 2)):
        hub.add(name, files_of(tiny_folder))
        vectors = text.with_name("v.safetensors")
        cramming = ["cram", str(text), "-o", str(vectors), "--model", name, "--num-mem", "4", "--steps", "500"]
        assert main(cramming) == 0
        assert load(vectors).model_revision == hub.repositories[name].sha
        hub.asked.clear()
        assert main(["decode", str(vectors)]) == status
        assert bool(hub.asked) == (status == 0)
    assert "'someone/tiny', which is not on offer" in capsys.readouterr().err
    assert main(["decode", str(vectors), "--model", "someone/tiny"]) == 0
    assert capsys.readouterr().out == text.read_text()


def test_a_download_shows_a_bar_in_bytes_on_a_terminal_only(
    hub: FakeHub, tiny_folder: Path, text: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, terminal in (("someone/one", False), ("someone/two", True)):
        hub.add(name, files_of(tiny_folder))
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal)
        main(["cram", str(text), "-o", str(text.with_name("v")), "--model", name, "--steps", "1"])
        assert ("B/s]" in capsys.readouterr().err) == terminal


def test_ctrl_c_in_a_download_is_one_sentence_and_status_2(
    hub: FakeHub, tiny_folder: Path, text: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed(name: str, *, tell: Any, **settings: Any) -> Any:
        return load_model(name, tell=lambda news: signal.raise_signal(signal.SIGINT), **settings)

    monkeypatch.setattr("cramdemo.cli.load_model", pressed)
    hub.add("someone/tiny", files_of(tiny_folder))
    hub.stall = 1
    assert main(["cram", str(text), "--model", "someone/tiny"]) == 2
    assert capsys.readouterr().err.startswith("cramdemo: The download of someone/tiny was stopped.")


# ---- a disk that is full, or read-only


CRAM = ["cram", "t.txt", "--steps", "2", "-o"]
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def hi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A text in the current folder, and a folder `out`."""
    monkeypatch.chdir(tmp_path)
    Path("t.txt").write_text("Hi")
    Path("out").mkdir()
    return tmp_path


def _refuse(monkeypatch: pytest.MonkeyPatch, refused: Callable[[Path], bool]) -> None:
    """The disk is full at the end of a run, for files that `refused` says yes to."""
    replace = os.replace

    def full(source: Path, target: Path) -> None:
        if refused(Path(target)):
            raise FULL
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_folder_that_cannot_be_written_is_told_before_a_model_is_loaded(
    hi: Path, crammed: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: int
) -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(tempfile, "TemporaryFile", lambda dir: Full())
    monkeypatch.setattr("cramdemo.cli.load_model", None)
    for command in (["cram", "t.txt"], ["decode", str(crammed[1])]):
        assert main([*command, "-o", "out/v"]) == 2
        assert capsys.readouterr().err == (
            f"cramdemo: v cannot be written: {os.strerror(code)}. Make room, or give a file in another folder.\n"
        )
    assert list(Path("out").iterdir()) == []


def test_a_folder_in_place_of_a_file_is_told_before_a_model_is_loaded(
    hi: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cramdemo.cli.load_model", None)
    assert main([*CRAM, "out"]) == 2
    assert "'out' is a folder" in capsys.readouterr().err


@pytest.mark.parametrize("json_too", [[], ["--json"]], ids=["words", "json"])
@pytest.mark.parametrize("here_too", [False, True], ids=["folder full", "current folder full too"])
def test_vectors_that_cannot_be_written_where_asked_are_written_elsewhere(
    hi: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], here_too: bool, json_too: list[str]
) -> None:
    _refuse(monkeypatch, lambda target: target.parent.name == "out" or (here_too and target.parent == hi))
    assert main([*CRAM, "out/v.safetensors", *json_too]) == 2
    captured = capsys.readouterr()
    (kept,) = (Path(tempfile.gettempdir()) if here_too else hi).glob("cramdemo-*.safetensors")
    assert captured.err == (
        f"cramdemo: v.safetensors cannot be written: No space left on device. "
        f"The vectors are in {kept}, move them from there.\n"
    )
    assert load(kept).num_mem == 1
    assert "lossless" in json.loads(captured.out) if json_too else f"Vectors: {kept} (" in captured.out
    assert list(Path("out").iterdir()) == []


@pytest.mark.parametrize("json_too", [[], ["--json"]], ids=["words", "json"])
def test_vectors_that_can_be_written_nowhere_are_printed(
    hi: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], json_too: list[str]
) -> None:
    _refuse(monkeypatch, lambda target: True)
    assert main([*CRAM, "out/v.safetensors", *json_too]) == 2
    captured = capsys.readouterr()
    assert "No space left on device. Nor can any other file: the vectors are printed in base64" in captured.err
    assert captured.err.count("\n") == 1
    base64 = json.loads(captured.out)["vectors_base64"] if json_too else captured.out.splitlines()[-1]
    assert from_bytes(b64decode(base64, validate=True)).num_mem == 1
    assert sorted(path.name for path in hi.iterdir()) == ["out", "t.txt"]


BAD = {
    "no such file": (["cram", "missing.txt"], "missing.txt: No such file"),
    "empty text": (["cram", "empty.txt"], "The text is empty"),
    "not UTF-8": (["cram", "latin.txt"], "latin.txt is not UTF-8: byte 3"),
    "too long": (["cram", "book.txt"], "takes at most"),
    "no such model": (["cram", "ok.txt", "--model", "gpt-17"], "no model 'gpt-17'"),
    "K of zero": (["cram", "ok.txt", "--num-mem", "0"], "num_mem is 0"),
    "K too large": (["cram", "ok.txt", "--num-mem", "129"], "num_mem is 129"),
    "K of a billion": (["cram", "ok.txt", "--num-mem", "1000000000"], "num_mem is 1000000000"),
    "steps of a trillion": (["cram", "ok.txt", "--steps", "1000000000000"], "steps is 1000000000000"),
    "learning rate not a number": (["cram", "ok.txt", "--learning-rate", "nan"], "learning_rate is nan"),
    "learning rate without end": (["cram", "ok.txt", "--learning-rate", "inf"], "learning_rate is inf"),
    "seconds below zero": (["cram", "ok.txt", "--seconds", "-1"], "seconds is -1.0"),
    "blank preset": (["cram", "ok.txt", "--preset", ""], "preset is ''"),
    "text of 10 MB": (["cram", "huge.txt"], "The text has 10,000,000 characters; at most 1,000,000 are taken"),
    "margin not a number": (["cram", "ok.txt", "--margin", "nan"], "margin is nan"),
    "unknown precision": (["cram", "ok.txt", "--precision", "int3"], "precision is 'int3'"),
    "no folder for the output": (["cram", "ok.txt", "-o", "nowhere/v.safetensors"], "no folder 'nowhere'"),
    "text as vectors": (["decode", "ok.txt"], "ok.txt is not a safetensors file"),
    "missing vectors": (["inspect", "missing.safetensors"], "missing.safetensors cannot be read"),
    "bench without books": (["bench", "built-in"], "--corpus DIR"),
    "bench on an empty folder": (["bench", "capacity", "--corpus", "void"], "'void' holds no .txt file"),
    "bench on short books": (["bench", "capacity", "--corpus", "short", "--passages", "1"], "books are too short"),
    "bench of no passages": (["bench", "capacity", "--corpus", "books", "--passages", "0"], "passages is 0"),
    "bench of fewer than none": (["bench", "built-in", "--corpus", "books", "--passages", "-2"], "passages is -2"),
    "bench with K of zero": (["bench", "capacity", "--corpus", "books", "--num-mem", "1", "0"], "num_mem is 0"),
    "bench of no such model": (
        ["bench", "capacity", "--corpus", "books", "--passages", "1", "--models", "cram-mini", "gpt-17"],
        "no model 'gpt-17'",
    ),
    "bench kept in a file": (["bench", "capacity", "--corpus", "books", "--out", "ok.txt"], "ok.txt: File exists"),
    "figure of a benchmark without": (
        ["bench", "built-in", "--corpus", "books", "--figure", "f.html"],
        "built-in has no figure",
    ),
    "no folder for the figure": (
        ["bench", "capacity", "--corpus", "books", "--figure", "nowhere/f.html"],
        "no folder 'nowhere'",
    ),
    "a folder as the figure": (["bench", "capacity", "--corpus", "books", "--figure", "void"], "'void' is a folder"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_on_stderr_and_status_2(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ok.txt").write_text("All is well.")
    Path("empty.txt").write_bytes(b"")
    Path("latin.txt").write_bytes(b"caf\xe9")
    Path("book.txt").write_text("word and " * 3000)
    Path("huge.txt").write_text("x" * 10_000_000)
    for folder, text in (("books", "It was a bright cold day. " * 300), ("short", "All is well.")):
        Path(folder).mkdir()
        Path(folder, "a.txt").write_text(text)
    Path("void").mkdir()
    arguments, sentence = BAD[case]
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert sentence in captured.err
    assert captured.err.count("\n") == 1
    assert str(tmp_path) not in captured.err


def test_a_file_s_control_characters_do_not_reach_the_terminal(
    crammed: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vectors = replace(load(crammed[1]), created_with="\x1b[2Jboo")
    save(vectors, tmp_path / "v.safetensors")
    assert main(["inspect", str(tmp_path / "v.safetensors")]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "\\x1b[2Jboo" in printed


def test_a_file_does_not_choose_which_folder_is_loaded_as_its_model(
    crammed: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vectors = replace(load(crammed[1]), model_id=str(MODELS["cram-mini"].source))
    save(vectors, tmp_path / "v.safetensors")
    assert main(["decode", str(tmp_path / "v.safetensors")]) == 2
    assert "name it: --model FOLDER" in capsys.readouterr().err
    assert main(["decode", str(tmp_path / "v.safetensors"), "--model", "cram-mini"]) == 0


@pytest.mark.parametrize("changed", [{"model_id": "someone/else"}, {"model_fingerprint": "0" * 64}], ids=str)
def test_a_file_of_another_model_is_one_line_on_stderr_and_status_2(
    crammed: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: dict[str, str]
) -> None:
    save(replace(load(crammed[1]), **changed), tmp_path / "v.safetensors")
    assert main(["decode", str(tmp_path / "v.safetensors")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "made for" in captured.err
    assert captured.err.count("\n") == 1


def test_settings_out_of_range_are_told_before_a_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cramdemo.cli.load_model", None)
    (tmp_path / "t.txt").write_text("Hi")
    assert main(["cram", str(tmp_path / "t.txt"), "--model", "Qwen/Qwen3-8B-Base", "--num-mem", "0"]) == 2
    assert "num_mem is 0" in capsys.readouterr().err


def _ctrl_c_at(progress: int) -> Callable[..., Iterator[Any]]:
    """`cram`, with Ctrl-C pressed before a progress is given, counted from 0."""

    def pressed(*arguments: Any, **settings: Any) -> Iterator[Any]:
        for count, item in enumerate(cram(*arguments, **settings)):
            if count == progress:
                signal.raise_signal(signal.SIGINT)
            yield item

    return pressed


def test_ctrl_c_keeps_the_best_so_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cramdemo.cli.cram", _ctrl_c_at(2))
    text, vectors = tmp_path / "long.txt", tmp_path / "long.safetensors"
    text.write_text("Seventeen purple 9931 zebras quietly vote on Thursdays. " * 4)
    assert main(["cram", str(text), "-o", str(vectors), "--steps", "100000", "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["reason"] == "stopped"
    assert load(vectors).num_mem == 1


# ---- checkpoints


def test_the_same_command_goes_on_after_ctrl_c_and_leaves_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text, vectors, kept = tmp_path / "t.txt", tmp_path / "v.safetensors", tmp_path / "made" / "kept"
    text.write_text("Seventeen purple 9931 zebras quietly vote on Thursdays. ")
    settings = ["--steps", "40", "--margin", "50", "--init", "embedding", "--json"]
    command = ["cram", str(text), "-o", str(vectors), *settings, "--checkpoint", str(kept)]
    main(["cram", str(text), "-o", str(tmp_path / "alone.safetensors"), *settings])
    alone = json.loads(capsys.readouterr().out)
    with monkeypatch.context() as patch:
        patch.setattr("cramdemo.cli.cram", _ctrl_c_at(1))
        main(command)
    captured = capsys.readouterr()
    stopped = json.loads(captured.out)
    assert (stopped["reason"], captured.err) == ("stopped", "")
    assert [path.name for path in kept.iterdir()] == ["cram-a.safetensors"]
    main(command)
    captured = capsys.readouterr()
    assert captured.err == f"cramdemo: The run goes on from the checkpoint, at step {stopped['steps'] + 1}.\n"
    resumed = json.loads(captured.out)
    assert resumed | {"seconds": 0} == alone | {"seconds": 0}
    assert vectors.read_bytes() == (tmp_path / "alone.safetensors").read_bytes()
    assert list(kept.iterdir()) == []


def test_checkpoints_stay_until_the_vectors_are_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "v.safetensors"))

    monkeypatch.setattr("cramdemo.resume.LEAST_SECONDS", 0.0)
    (tmp_path / "t.txt").write_text("Hi there, you two")
    command = ["cram", str(tmp_path / "t.txt"), "-o", str(tmp_path / "v.safetensors"), "--init", "embedding"]
    command += ["--checkpoint", str(tmp_path / "kept")]
    with monkeypatch.context() as full:
        full.setattr("cramdemo.cli.save", refuse)
        assert main(command) == 2
    assert capsys.readouterr().err.startswith("cramdemo: v.safetensors cannot be written: No space left on device.")
    assert list((tmp_path / "kept").iterdir()) != []
    assert main(command) == 0
    assert list((tmp_path / "kept").iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["--checkpoint", "t.txt"], "No checkpoint can be written to the folder 't.txt': File exists."),
        (["--checkpoint", "kept", "--num-mem", "auto"], "A search for the fewest memory tokens .* has no checkpoints."),
    ],
    ids=str,
)
def test_checkpoints_that_cannot_be_are_refused_before_a_model_is_loaded(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    settings: list[str],
    words: str,
) -> None:
    monkeypatch.setattr("cramdemo.cli.load_model", None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.txt").write_text("Hi")
    assert main(["cram", "t.txt", *settings]) == 2
    error = capsys.readouterr().err
    assert re.search(words, error) and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["t.txt"]


def test_a_checkpoint_of_another_text_is_one_line_and_status_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cramdemo.resume.LEAST_SECONDS", 0.0)
    (tmp_path / "t.txt").write_text("Hi there")
    (tmp_path / "other.txt").write_text("Hi there, you two")
    settings = ["-o", str(tmp_path / "v.safetensors"), "--margin", "50", "--checkpoint", str(tmp_path / "kept")]
    with monkeypatch.context() as cut:
        cut.setattr("cramdemo.cli._show", lambda *_: sys.exit(9))  # in the middle of the run
        with pytest.raises(SystemExit):
            main(["cram", str(tmp_path / "t.txt"), *settings])
    assert list((tmp_path / "kept").iterdir()) != []
    assert main(["cram", str(tmp_path / "other.txt"), *settings]) == 2
    error = capsys.readouterr().err
    assert "of a run with another text. Repeat what it was begun with" in error and error.count("\n") == 1
    assert not (tmp_path / "v.safetensors").exists()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Asked]:
    """Benchmarks that only note what is asked of them: capacity, and one that reads no books."""
    noted: list[Asked] = []
    report = {"rows": [{"model": "a", "num_mem": 1, "figure": "ours: verified tokens", "value": 9, "column": "ours"}]}
    benchmarks = {
        name: Benchmark("help", lambda asked, tell: noted.append(asked) or report, reads_corpus=name == "capacity")
        for name in ("capacity", "idle")
    }
    monkeypatch.setattr(bench, "BENCHMARKS", benchmarks)
    return noted


def test_a_benchmark_writes_its_figure_for_a_browser_without_network(
    asked: list[Asked], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text("All is well.")
    figure = tmp_path / "figure.html"
    arguments = ["bench", "capacity", "--corpus", str(tmp_path), "--num-mem", "1", "8", "--json"]
    assert main([*arguments, "--figure", str(figure)]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][0]["value"] == 9
    assert [(one.books, one.num_mem) for one in asked] == [(["All is well."], (1, 8))]
    page = figure.read_text(encoding="utf-8")
    assert "tokens decoded exactly" in page
    assert len(page) > 1_000_000  # plotly.js is in it
    assert "<script src=" not in page


def test_a_benchmark_that_reads_no_books_needs_none(asked: list[Asked]) -> None:
    assert main(["bench", "idle"]) == 0
    assert asked[0].books == []
    assert main(["bench", "capacity"]) == 2
    assert len(asked) == 1


def test_help_of_every_command_names_its_settings(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("cram", "decode", "inspect", "models", "bench", "pretrain", "space"):
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0
        assert "--json" in capsys.readouterr().out or command in ("pretrain", "space")


def test_the_module_runs_as_a_program_and_rejects_an_unknown_command() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "cramdemo", "squash"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 2
    assert "invalid choice: 'squash'" in run.stderr


# ---- devices and precision


def test_a_device_that_is_not_there_is_refused(
    tmp_path: Path, crammed: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    text, vectors = crammed
    for command in (["cram", str(text), "-o", str(tmp_path / "v.safetensors")], ["decode", str(vectors)]):
        assert main([*command, "--device", "gpu"]) == 2
        assert "There is no device 'gpu'. Give cpu, cuda" in capsys.readouterr().err


@pytest.mark.parametrize("terminal", [True, False])
def test_whoever_watches_is_told_the_precision_and_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], terminal: bool
) -> None:
    text = tmp_path / "t.txt"
    text.write_text("Hi")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    main(["cram", str(text), "-o", str(tmp_path / "v.safetensors"), "--device", "cpu", "--precision", "float32"])
    assert ("cram-mini on cpu, float32: as asked for.\n" in capsys.readouterr().err) is terminal


def test_a_model_too_large_for_this_machine_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CRAMDEMO_MEMORY_GB", "0.01")
    text = tmp_path / "t.txt"
    text.write_text("Hi")
    assert main(["cram", str(text), "-o", str(tmp_path / "v.safetensors"), "--device", "cpu"]) == 2
    assert "cram-mini does not fit: its weights alone need about 0.1 GB" in capsys.readouterr().err
