"""The Document tab: what it takes, what it shows of a run, how it goes on, and what it says of a document read back."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from cramdemo import document as engine
from cramdemo import packing
from cramdemo.document import DocumentState, Running, Segment
from cramdemo.errors import CramError, ModelMismatch, TextError, VectorFileError
from cramdemo.segments import from_bytes, to_bytes
from cramdemo.ui import document as page
from cramdemo.ui.document import (
    FULLY,
    MOST_BYTES,
    NOTHING,
    QUICKLY,
    Moment,
    Outcome,
    check,
    check_back,
    map_value,
    run,
    run_back,
    show,
    show_back,
    text_of,
)

TEXT = "The old man and the sea were tired of the other men. \u00e9t\u00e9 \U0001f99c"


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments that a tiny model can hold, and every state shown."""
    for module in (packing, engine):
        monkeypatch.setattr(module, "FIRST_TOKENS", 4)
    monkeypatch.setattr(packing, "ADDED_TOKENS", 1)
    monkeypatch.setattr(engine, "YIELD_SECONDS", 0.0)
    monkeypatch.setattr(page, "SHOW_SECONDS", 0.0)


def _run(tiny: str, text: str = TEXT, before: Outcome = NOTHING, stop: Any = None, **given: Any) -> list[Moment]:
    asked = {"num_mem": 2, "fill": QUICKLY} | given
    found = list(run(text, None, tiny, asked["num_mem"], asked["fill"], before, None, stop or threading.Event()))
    assert all(isinstance(moment, Moment) for moment in found)
    return found  # type: ignore[return-value]


def _state(**changes: Any) -> DocumentState:
    mem = torch.zeros(2, 4)
    values: dict[str, Any] = {
        "num_tokens": 100,
        "num_mem": 2,
        "segments": (Segment(0, 30, mem, True, 1.0), Segment(50, 1, mem, False, 0.0)),
        "running": (Running(30, 20, 7), Running(60, 16, 16)),
        "steps": 9,
        "flops": 5,
        "seconds": 31.0,
    }
    return DocumentState(**values | changes)


def test_a_text_comes_from_the_box_or_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(TEXT.encode() + b"\r\n")
    assert text_of("box", None) == "box" and text_of("box", str(file)) == TEXT + "\r\n"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(TextError, match="not UTF-8"):
        text_of("box", str(file))
    file.write_bytes(b"")
    for text, path in (("", None), ("box", str(file))):
        with pytest.raises(TextError, match="empty"):
            text_of(text, path)
    assert text_of("x" * MOST_BYTES, None)
    with pytest.raises(TextError, match="longer than 200 kB"):
        text_of("\u00e9" * (MOST_BYTES // 2 + 1), None)


def test_an_upload_is_not_read_further_than_a_text_may_be(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"x" * (MOST_BYTES + 1))
    with pytest.raises(TextError, match="longer than 200 kB"):
        text_of("", str(file))


def test_a_run_gives_a_document_that_reads_back(tiny: str) -> None:
    *states, last = _run(tiny)
    assert all(not moment.outcome.data for moment in states) and states
    document = from_bytes(last.outcome.data)
    assert document.complete and document.num_mem == 2
    assert last.outcome.name.endswith("tok-document.safetensors") and "/" not in last.outcome.name
    status, (drawn, card, outcome) = show(last)
    assert "Done: lossless." in status and 'data-kind="lossless"' in card and outcome is last.outcome
    assert drawn["s"].count("lossless") == len(document.entries)
    document = dataclasses.replace(document, model_id=tiny)
    *_, read = run_back(Outcome(to_bytes(document), "a"), None, None, threading.Event())
    assert read.text == TEXT and read.ended and not read.wrong
    assert "every segment is the original text" in show_back(read)[0]


def test_what_was_stopped_goes_on_with_the_same_text_and_not_with_another(tiny: str) -> None:
    stop = threading.Event()
    states = []
    for moment in run(TEXT * 3, None, tiny, 2, QUICKLY, NOTHING, None, stop):
        assert isinstance(moment, Moment)
        states.append(moment)
        if len(moment.state.segments) >= 3:
            stop.set()
    stopped = states[-1]
    assert "to go on" in show(stopped)[0] and not stopped.state.lossless
    before = from_bytes(stopped.outcome.data)
    first, *_, last = _run(tiny, TEXT * 3, stopped.outcome)
    assert len(first.state.segments) >= len(before.entries) and last.state.lossless
    for changed in ({"text": TEXT * 2}, {"text": TEXT * 3, "num_mem": 1}):
        assert _run(tiny, before=stopped.outcome, **changed)[0].state.segments == ()
    assert _run(tiny, TEXT * 3, last.outcome)[0].state.segments == (), "what is complete is crammed anew"


def test_filling_fully_is_the_thorough_way(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real = page.cram_document
    monkeypatch.setattr(page, "cram_document", lambda *a, **given: asked.append(given["thorough"]) or real(*a, **given))
    _run(tiny, "The old", fill=FULLY)
    _run(tiny, "The old", fill=QUICKLY)
    assert asked == [True, False]


def test_the_map_has_every_segment_in_order_and_what_is_in_work_only_while_it_is() -> None:
    assert map_value(_state())["s"] == "lossless,0,30,0;running,30,50,7;partial,50,51,0;running,60,76,16;"
    assert map_value(_state(reason="stopped"))["s"] == "lossless,0,30,0;partial,50,51,0;"


def test_the_time_left_is_what_the_tokens_so_far_took() -> None:
    assert "<dt>time left</dt><dd>1:09</dd>" in show(Moment(_state(), NOTHING))[0]
    assert "<dt>time left</dt><dd>…</dd>" in show(Moment(_state(segments=()), NOTHING))[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reason": "done"}, "not every segment decodes exactly"),
        ({"reason": "stopped"}, "Stopped; finished segments are kept"),
        ({"reason": "memory"}, "Out of memory; finished segments are kept"),
        ({"reason": "stopped", "segments": ()}, "Stopped before the first segment"),
    ],
)
def test_each_end_has_its_sentence(changes: dict[str, Any], words: str) -> None:
    status, (_, card, _) = show(Moment(_state(**changes), NOTHING))
    assert words in status and 'data-kind="partial"' in card


def test_what_cannot_be_crammed_is_refused_before_the_run(tiny: str) -> None:
    check(TEXT, None, tiny, 2, QUICKLY, NOTHING, None)
    with pytest.raises(TextError, match="empty"):
        check("", None, tiny, 2, QUICKLY, NOTHING, None)
    with pytest.raises(CramError):
        check(TEXT, None, "no/such-model", 2, QUICKLY, NOTHING, None)


def test_what_cannot_be_read_back_is_refused_before_the_run(tiny: str, tmp_path: Path) -> None:
    with pytest.raises(VectorFileError, match="There is no document yet"):
        check_back(NOTHING, None, None)
    document = from_bytes(_run(tiny, "The old")[-1].outcome.data)
    elsewhere = to_bytes(dataclasses.replace(document, model_id="<b>some/model"))
    with pytest.raises(ModelMismatch, match="which this page does not have"):
        check_back(Outcome(elsewhere, "a"), None, None)
    file = tmp_path / "d.safetensors"
    file.write_bytes(b"nothing of the kind")
    with pytest.raises(VectorFileError, match="not a safetensors file"):
        check_back(NOTHING, str(file), None)


def test_a_damaged_segment_and_a_gap_are_told_and_the_rest_is_read(tiny: str) -> None:
    document = from_bytes(_run(tiny)[-1].outcome.data)
    mem = document.mem.clone()
    mem[1] = 7.0
    spoilt = dataclasses.replace(document, model_id=tiny, mem=mem)
    *_, read = run_back(Outcome(to_bytes(spoilt), "a"), None, None, threading.Event())
    assert read.wrong == (1,) and "Not the original text by its digest: segment 2." in show_back(read)[0]
    less = dataclasses.replace(document, model_id=tiny, mem=document.mem[:-1], entries=document.entries[:-1])
    *_, read = run_back(Outcome(to_bytes(less), "a"), None, None, threading.Event())
    assert read.gaps == 1 and "some of the text is missing" in show_back(read)[0]


def test_reading_back_is_stopped(tiny: str) -> None:
    document = dataclasses.replace(from_bytes(_run(tiny)[-1].outcome.data), model_id=tiny)
    stop = threading.Event()
    stop.set()
    *_, read = run_back(Outcome(to_bytes(document), "a"), None, None, stop)
    assert read.stopped and read.done == 1 and "Stopped" in show_back(read)[0]
