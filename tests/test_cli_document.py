"""`cram --document` and what decodes it, as a user types them: status, stdout, stderr, and the file that grows."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cramdemo import cli, document, packing
from cramdemo.cli import main
from cramdemo.segments import load, save

TEXT = "The old man and the sea were tired of the other men and the other seas; so it was. \u00e9t\u00e9 \U0001f99c\n"


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments that a tiny model can hold."""
    for module in (packing, document):
        monkeypatch.setattr(module, "FIRST_TOKENS", 4)
    monkeypatch.setattr(packing, "ADDED_TOKENS", 1)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_bytes(TEXT.encode())
    return path


def _cram(text: Path, model: Path, *more: str) -> list[str]:
    output = str(text.with_suffix(".safetensors"))
    return ["cram", str(text), "--document", "--model", str(model), "--num-mem", "2", "-o", output, *more]


def test_a_text_comes_back_byte_for_byte(
    text: Path, tiny_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(_cram(text, tiny_folder)) == 0
    told = capfd.readouterr().out
    assert told.startswith("Lossless: all ") and " tokens a vector, " in told and " tokens a second" in told
    file, back = text.with_suffix(".safetensors"), tmp_path / "back.txt"
    assert main(["decode", str(file), "--model", str(tiny_folder), "-o", str(back)]) == 0
    assert back.read_bytes() == TEXT.encode()
    assert main(["decode", str(file), "--model", str(tiny_folder), "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["text"] == TEXT and found["lossless"] and found["segments"] == len(load(file).entries) > 2
    assert main(["inspect", str(file)]) == 0
    assert f"segments: {found['segments']}" in capfd.readouterr().out


def test_json_of_a_document_is_one_object(text: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(_cram(text, tiny_folder, "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["lossless"] is True and found["lossless_tokens"] == found["num_tokens"] and found["reason"] == "done"
    assert found["vector_bytes"] == found["segments"] * 2 * 64 * 4 and found["flops"] > 0


def test_a_segment_alone_is_decoded_and_a_wrong_number_told(
    text: Path, tiny_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    main(_cram(text, tiny_folder))
    file = str(text.with_suffix(".safetensors"))
    capfd.readouterr()
    assert main(["decode", file, "--model", str(tiny_folder), "--segment", "1"]) == 0
    assert TEXT.startswith(capfd.readouterr().out)
    assert main(["decode", file, "--model", str(tiny_folder), "--segment", "0"]) == 2
    assert "There is no segment 0. Give a number from 1 to" in capfd.readouterr().err


def test_a_damaged_segment_and_a_gap_are_told_and_the_rest_is_written(
    text: Path, tiny_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    main(_cram(text, tiny_folder))
    file = text.with_suffix(".safetensors")
    whole = load(file)
    mem = whole.mem.clone()
    mem[1] = 9.0
    entries = whole.entries[:2]
    save(dataclasses.replace(whole, mem=mem[:2], entries=entries), file)
    capfd.readouterr()
    assert main(["decode", str(file), "--model", str(tiny_folder)]) == 3
    out, err = capfd.readouterr()
    lines = err.splitlines()
    first, second = entries
    assert lines[0].startswith(f"cramdemo: segment 2 (tokens {second.start} to {second.end}) is not the original text")
    assert lines[1].startswith(f"cramdemo: tokens {second.end} to {whole.num_tokens} are missing")
    assert out.startswith(TEXT[: first.num_tokens // 4])


def test_killed_at_any_moment_the_same_command_goes_on(text: Path, tiny_folder: Path) -> None:
    text.write_text(TEXT * 6, encoding="utf-8")
    file = text.with_suffix(".safetensors")
    patch = (
        "from cramdemo import cli, document, packing; packing.FIRST_TOKENS = document.FIRST_TOKENS = 4; "
        "packing.ADDED_TOKENS = 1; cli.SAVE_SECONDS = cli.SAVE_SPACING = 0; document.YIELD_SECONDS = 0; "
        "import sys; sys.exit(cli.main(sys.argv[1:]))"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", patch, *_cram(text, tiny_folder)], start_new_session=True, stderr=subprocess.DEVNULL
    )
    ends = time.monotonic() + 60
    while not file.exists() and time.monotonic() < ends:
        time.sleep(0.01)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    before = load(file)
    assert before.entries and before.gaps
    marked = tuple(dataclasses.replace(entry, min_margin=77.0) for entry in before.entries)
    save(dataclasses.replace(before, entries=marked), file)
    assert main(_cram(text, tiny_folder)) == 0
    after = {entry.start: entry for entry in load(file).entries}
    assert all(after[entry.start] == entry for entry in marked if entry.lossless)


def test_what_is_there_is_not_written_over_by_another_text(
    text: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(_cram(text, tiny_folder))
    kept = text.with_suffix(".safetensors").read_bytes()
    text.write_text("Another one.", encoding="utf-8")
    assert main(_cram(text, tiny_folder)) == 2
    assert "is of another text" in capsys.readouterr().err
    assert text.with_suffix(".safetensors").read_bytes() == kept


def test_a_full_disk_while_it_grows_is_tried_again_and_told_at_the_end_only(
    text: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(cli, "SAVE_SPACING", 0)
    monkeypatch.setattr(document, "YIELD_SECONDS", 0.0)
    file, replace, tries = text.with_suffix(".safetensors"), os.replace, []

    def full(source: Path, target: Path) -> None:
        if Path(target) == file:
            tries.append(target)
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    monkeypatch.chdir(text.parent)
    assert main(_cram(text, tiny_folder)) == 2
    out, err = capsys.readouterr()
    assert len(tries) > 2 and err.count("No space left") == 1
    (elsewhere,) = text.parent.glob("cramdemo-*.safetensors")
    assert load(elsewhere).complete and elsewhere.name in out


def test_ctrl_c_before_the_first_segment_is_one_sentence(
    text: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = packing.Batch.step

    def pressed(batch: packing.Batch) -> list[packing.Held]:
        os.kill(os.getpid(), signal.SIGINT)
        return real(batch)

    monkeypatch.setattr(packing.Batch, "step", pressed)
    assert main(_cram(text, tiny_folder)) == 2
    assert capsys.readouterr().err.count("Stopped before the first segment was done") == 1
    assert not text.with_suffix(".safetensors").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--num-mem", "auto"], "A document takes no --num-mem auto"),
        (["--checkpoint", "folder"], "A document takes no --checkpoint"),
        (["--segment-tokens", "0"], "A segment of 0 tokens"),
    ],
)
def test_what_a_document_cannot_be_given_is_told(
    text: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str], more: list[str], words: str
) -> None:
    assert main([*_cram(text, tiny_folder), *more]) == 2
    assert words in capsys.readouterr().err


def test_segments_without_a_document_are_refused(text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cram", str(text), "--segment-tokens", "3"]) == 2
    assert "Only a document has segments" in capsys.readouterr().err
