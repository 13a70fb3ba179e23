"""The Bytes tab: what it weighs, what it says of it, and that a file's words stay words."""

from __future__ import annotations

import dataclasses
import itertools
import json
import threading
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from cramdemo import MemVectors, ModelMismatch, VectorFileError, decode, save
from cramdemo.storage import ALL_FORMATS, FORMATS, Positions, stored_as
from cramdemo.ui import shelf, size
from cramdemo.ui.compress import NOTHING, Outcome
from cramdemo.ui.handout import offer
from cramdemo.ui.live import LiveState
from cramdemo.ui.samples import Sample
from cramdemo.ui.size import (
    BLANKS,
    Making,
    Measured,
    check,
    given,
    noise_chart,
    positions_html,
    run,
    show,
    sizes_html,
    source_html,
)
from cramdemo.vectors import from_bytes, to_bytes
from tests.ui.conftest import SOLVABLE, TINY


@pytest.fixture
def vectors(tiny: str, states: list[LiveState]) -> MemVectors:
    result = states[-1].result
    assert result is not None
    return dataclasses.replace(result.vectors, model_id=tiny)


@pytest.fixture
def outcome(vectors: MemVectors) -> Outcome:
    return Outcome(to_bytes(vectors), "a.safetensors")


@pytest.fixture
def measured(outcome: Outcome) -> list[Measured]:
    found = list(run(outcome, None, None, threading.Event()))
    assert all(isinstance(state, Measured) for state in found)
    return found  # type: ignore[return-value]


# ---- what is weighed


def test_a_file_goes_before_the_last_run_and_that_before_the_example(
    vectors: MemVectors, outcome: Outcome, tmp_path: Path
) -> None:
    other = save(stored_as(vectors, "int8"), tmp_path / "b.safetensors")
    assert (found := given(outcome, str(other))) and found.quantised
    assert (found := given(outcome, None)) and not found.quantised
    assert given(NOTHING, None) is None
    assert "file below" in source_html(outcome, str(other))
    assert "last run" in source_html(outcome, None)
    assert "example" in source_html(NOTHING, None)


def test_what_cannot_be_weighed_is_refused_before_anybody_waits(vectors: MemVectors, tmp_path: Path) -> None:
    check(NOTHING, None, None)
    check(Outcome(to_bytes(vectors)), None, None)
    (tmp_path / "bad.safetensors").write_bytes(b"nothing of ours")
    with pytest.raises(VectorFileError):
        check(NOTHING, str(tmp_path / "bad.safetensors"), None)
    foreign = dataclasses.replace(vectors, model_id="somebody/else")
    with pytest.raises(ModelMismatch, match="does not have"):
        check(Outcome(to_bytes(foreign)), None, None)


def test_the_example_is_made_first_where_there_is_nothing(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(size, "BUILT_IN", TINY)
    monkeypatch.setattr(size, "read_samples", lambda: [Sample("one", 4, SOLVABLE)])
    found = list(run(NOTHING, None, None, threading.Event()))
    assert isinstance(found[0], Making) and isinstance(found[-1], Measured)
    assert found[-1].weighed.ended and "".join(json.loads(found[-1].tokens)) == SOLVABLE
    status, values = show(found[0])
    assert "Cramming the example" in status and values == BLANKS


# ---- what is shown


def test_the_table_says_of_each_format_whether_it_survives(measured: list[Measured]) -> None:
    weighed = measured[-1].weighed
    html = sizes_html(weighed)
    for each in weighed.stored:
        if each.name in FORMATS:
            verdict = "survives" if each.survives else f"breaks at token {each.correct_prefix + 1}"
            row = html.split(f">{each.name}<small>")[1].split("</tr>")[0]
            assert verdict in row and f"{each.num_bytes:,} B" in row
    smallest = weighed.smallest
    assert smallest is not None
    assert f"smallest: {smallest.number_format}" in html
    assert f"at best {smallest.num_bytes:,} bytes, more than the text’s" in html


def test_the_table_has_the_same_rows_before_and_after(measured: list[Measured]) -> None:
    counts = {sizes_html(state and state.weighed).count("<tr") for state in (None, *measured)}
    assert len(counts) == 1


def test_a_text_of_another_digest_is_not_called_the_original(outcome: Outcome, vectors: MemVectors) -> None:
    wrong = Outcome(to_bytes(dataclasses.replace(vectors, token_sha256="0" * 64)))
    *_, last = run(wrong, None, None, threading.Event())
    assert isinstance(last, Measured)
    status, values = show(last)
    assert "do not hold their original text" in status
    assert "not the original text" in values[0]


def test_every_width_has_its_marks_and_lost_tokens_their_text(measured: list[Measured], tiny_lm: Any) -> None:
    last = measured[-1]
    tokens = json.loads(last.tokens)
    levels = [json.loads(row) for row in last.levels.splitlines()]
    assert sorted(bits for bits, *_ in levels) == list(range(2, 17))
    assert any("0" in marks for _, _, marks, _ in levels)
    stored = {f"int{bits}": (marks, texts) for bits, _, marks, texts in levels}
    for each in last.weighed.stored:
        if each.name in stored:
            marks, texts = stored[each.name]
            assert (texts is None) == each.survives == ("0" not in marks)
            assert len(marks) == len(tokens) and (marks + "0").index("0") == each.correct_prefix
    assert all(later.levels.startswith(one.levels) for one, later in itertools.pairwise(measured))


def test_titles_are_findings(measured: list[Measured]) -> None:
    status, values = show(measured[-1])
    assert 'data-state="done"' in status and f"{len(ALL_FORMATS)} of {len(ALL_FORMATS)}" in status
    bits, noise = json.loads(values[2]["f"]), json.loads(values[3]["f"])
    assert bits["title"].startswith("Nothing is lost")
    unhurt = [point.sigma for point in measured[-1].weighed.noise if point.exact == 4]
    assert noise["title"] == f"Noise of {max(unhurt):.0%} does no harm"
    assert "RMS" in noise["layout"]["xaxis"]["title"]["text"]


def test_noise_that_breaks_at_once_is_said(measured: list[Measured]) -> None:
    weighed = measured[-1].weighed
    broken = dataclasses.replace(weighed, noise=tuple(dataclasses.replace(p, exact=0) for p in weighed.noise))
    assert json.loads(noise_chart(broken)["f"])["title"] == "Noise of 1% already breaks it"


def test_positions_are_compared_and_the_caveat_stands_beside(measured: list[Measured]) -> None:
    weighed = measured[-1].weighed
    html = positions_html(weighed)
    mem, text = weighed.positions
    assert f"{text.cache_bytes:,}" in html and f"{mem.cache_bytes:,}" in html
    assert all("Reconstruction is not understanding" in each for each in (html, positions_html(None)))
    none = (Positions(1, None, 0), Positions(40, None, 0))
    assert "no KV cache" in positions_html(dataclasses.replace(weighed, positions=none))


def test_stop_keeps_what_is_there_and_says_so(outcome: Outcome) -> None:
    stop = threading.Event()
    states = []
    for state in run(outcome, None, None, stop):
        states.append(state)
        if isinstance(state, Measured) and len(state.weighed.stored) == 3:
            stop.set()
    last = states[-1]
    assert isinstance(last, Measured) and last.stopped and len(last.weighed.stored) == 3
    status, values = show(last)
    assert "Stopped, what is known is kept" in status and "survives" in values[0]


def test_the_smallest_is_offered_as_a_file_that_decodes(measured: list[Measured], tiny_lm: Any) -> None:
    file = show(measured[-1])[1][-1]
    path = Path(offer(file)[0]["value"])
    assert path.read_bytes() == file.data and "int" in path.name and path.name.startswith(TINY)
    assert decode(tiny_lm, from_bytes(file.data)).text == SOLVABLE


def test_the_tab_is_connected_to_the_models_queue() -> None:
    with gr.Blocks() as page:
        size.tab(1, gr.State(NOTHING))
    assert [f.concurrency_limit for f in page.fns.values() if f.concurrency_id == "model"] == [1]
    assert all(f.api_visibility == "private" for f in page.fns.values())
    assert shelf.RUNNER is not None
