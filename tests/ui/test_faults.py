"""Whatever goes wrong in a run, the page, its API and the command line say what and keep the best so far, and the
next run on the same server is right."""

from __future__ import annotations

import base64
import importlib
import math
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
import torch

from cramdemo import FrozenLM, decode
from cramdemo.cli import main
from cramdemo.ui import api, capacity, geometry, laws, race, size
from cramdemo.ui.compress import NOTHING, Outcome, Shown, begin, run, stop
from cramdemo.ui.decode import decode_file
from cramdemo.ui.experiment import Experiment, _running
from cramdemo.ui.jobs import NO_MEMORY
from cramdemo.ui.shelf import WORKER
from cramdemo.vectors import from_bytes, save, to_bytes
from tests.ui.conftest import SOLVABLE, TINY

ENGINE, DECODING = importlib.import_module("cramdemo.cram"), importlib.import_module("cramdemo.decode")
STEP = 4  # at which it goes wrong, when there are best vectors
SECRET = "your text is swordfish"
HARD = "bad thinking, reader and the other seas"
LOADING = "There is not enough free memory to load tiny. Pick a smaller model."
FIRST_STEP = "There is not enough memory for one step of tiny. Shorten the text, or pick a smaller model."
UNREAD = "There is not enough memory to decode what was found with tiny. Shorten the text, or pick a smaller model."
FULL_MEANWHILE = "Out of memory, the best vectors are kept; shorten the text, or pick a smaller model"
OVERFLOW = "The numbers overflowed, the best vectors are kept; take a smaller learning rate, or another seed"
NO_NUMBERS = "tiny gives numbers that are not finite for this text in float32. Try another precision, or another model."
BROKEN = "Something went wrong inside the program (IndexError). Your text is still here: try again, or reload the page."
Fault = Callable[[], None]


def gpu_is_full() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def machine_is_full() -> None:
    torch.empty(2**50)  # what the allocator itself says


def python_is_full() -> None:
    bytearray(2**60)


def model_is_broken() -> None:
    raise IndexError(SECRET)


FULL = (gpu_is_full, machine_is_full, python_is_full)
ANY = (*FULL, model_is_broken)


@contextmanager
def broken_steps(step: int, fault: Fault | None) -> Iterator[None]:
    """A run's steps go wrong from the given one on; None for a loss that is no number."""
    real, steps = ENGINE.score, iter(range(10**9))

    def score(*arguments: Any, **settings: Any) -> Any:
        found = real(*arguments, **settings)
        if next(steps) < step:
            return found
        if fault is not None:
            fault()
        return found._replace(nats=found.nats * math.nan, margins=found.margins * math.nan)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ENGINE, "score", score)
        patch.setattr(ENGINE, "YIELD_SECONDS", 0.0)
        patch.setattr(ENGINE, "BEST_SECONDS", 0.0)
        yield


@contextmanager
def broken_decoding(fault: Fault) -> Iterator[None]:
    """Every decoding goes wrong, that of `verify` too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DECODING, "_next_logits", lambda *_: fault())
        yield


@contextmanager
def broken_model(after: int, fault: Fault) -> Iterator[None]:
    """The model's forward pass goes wrong after so many of them."""
    passes = iter(range(10**9))

    def guarded(real: Any) -> Any:
        def forward(*arguments: Any, **settings: Any) -> Any:
            if next(passes) >= after:
                fault()
            return real(*arguments, **settings)

        return forward

    with pytest.MonkeyPatch.context() as patch:
        for name in ("text_hidden", "text_logits"):
            patch.setattr(FrozenLM, name, guarded(getattr(FrozenLM, name)))
        patch.setattr(DECODING, "_next_logits", guarded(DECODING._next_logits))
        yield


def on_the_page(request: Any, text: str = HARD, steps: int = 30, *, search: bool = False) -> Shown:
    """The last state of a run that was started by its button."""
    begin(request)
    *_, last = run(request, text, TINY, 4, search, "fast", steps, 0, 0.1, 1.0, 0, "auto", "auto")
    return last


def by_the_api(text: str = HARD, steps: int = 30) -> tuple[dict[str, Any], bytes]:
    """The last report of a call, and the file that came with it."""
    reports = [
        (report, Path(file.path).read_bytes() if file else b"")
        for report, file in api.compress(text, 4, steps, model=TINY)
    ]
    return reports[-1]


def on_the_command_line(folder: Path, tiny_folder: Path) -> tuple[int, Path]:
    """The status and where the file would be."""
    text, vectors = folder / "text.txt", folder / "text.safetensors"
    text.write_text(HARD)
    return main(["cram", str(text), "--model", str(tiny_folder), "--num-mem", "4", "--steps", "30"]), vectors


@pytest.fixture
def right_for_the_next(tiny: str, tiny_lm: FrozenLM, request_of: Any) -> Iterator[None]:
    """After all that went wrong, the next visitor's run on the same server."""
    yield
    outcome = on_the_page(request_of, SOLVABLE, 500)[4]
    assert decode(tiny_lm, from_bytes(outcome.data)).text == SOLVABLE
    assert WORKER.idle


@pytest.fixture(autouse=True)
def _as_in_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _best(data: bytes) -> bool:
    vectors = from_bytes(data)
    return vectors.num_mem == 4 and vectors.metrics["accuracy"] > 0


@pytest.mark.usefixtures("right_for_the_next")
@pytest.mark.parametrize("fault", FULL)
def test_without_memory_for_the_model_a_sentence_says_so(
    request_of: Any, warnings_shown: list[str], fault: Fault
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cramdemo.models.AutoModelForCausalLM.from_pretrained", lambda *_, **__: fault())
        status, *_, outcome = on_the_page(request_of)
        with pytest.raises(gr.Error, match=LOADING):
            by_the_api()
    assert 'data-state="error"' in status and LOADING in status
    assert outcome is NOTHING and warnings_shown == [LOADING]


@pytest.mark.usefixtures("right_for_the_next")
@pytest.mark.parametrize(
    ("fault", "sentence"), [*((fault, FIRST_STEP) for fault in FULL), (model_is_broken, BROKEN), (None, NO_NUMBERS)]
)
def test_what_goes_wrong_before_there_are_vectors_is_a_sentence(
    request_of: Any, warnings_shown: list[str], fault: Fault | None, sentence: str
) -> None:
    with broken_steps(0, fault):
        status, *_, outcome = on_the_page(request_of)
    with broken_steps(0, fault), pytest.raises(gr.Error, match=re.escape(sentence)):
        by_the_api()
    assert 'data-state="error"' in status and sentence in status
    assert outcome is NOTHING and warnings_shown == [sentence]


@pytest.mark.usefixtures("right_for_the_next")
@pytest.mark.parametrize("search", [False, True], ids=["K", "fewest"])
@pytest.mark.parametrize(
    ("fault", "sentence"),
    [*((fault, FULL_MEANWHILE) for fault in FULL), (model_is_broken, f"{BROKEN} The best vectors"), (None, OVERFLOW)],
)
def test_what_goes_wrong_in_the_middle_leaves_the_best_so_far(
    request_of: Any, tiny_lm: FrozenLM, fault: Fault | None, sentence: str, search: bool
) -> None:
    with broken_steps(STEP, fault):
        status, _, _, card, outcome = on_the_page(request_of, search=search)
    assert 'data-state="done"' in status
    assert sentence in status or (search and fault is None)  # of a search all K are tried
    vectors = from_bytes(outcome.data)
    assert vectors.verified and vectors.metrics["accuracy"] > 0 and "NOT YET EXACT" in card
    assert SECRET not in status + card

    with broken_steps(STEP, fault):
        report, data = by_the_api()
    assert report["done"] and report["verified"] and _best(data)


@pytest.mark.usefixtures("right_for_the_next")
@pytest.mark.parametrize(("fault", "sentence"), [*((fault, UNREAD) for fault in FULL), (model_is_broken, BROKEN)])
def test_what_cannot_be_decoded_is_offered_and_called_not_verified(
    request_of: Any, fault: Fault, sentence: str
) -> None:
    with broken_decoding(fault):
        status, _, _, card, outcome = on_the_page(request_of)
        report, data = by_the_api()
    assert f"{sentence} The best vectors are kept." in status and "NOT VERIFIED" in card
    assert _best(outcome.data) and _best(data)
    assert (report["lossless"], report["verified"], report["cut_off"]) == (False, [], sentence)
    assert SECRET not in status + card


@pytest.mark.usefixtures("right_for_the_next")
@pytest.mark.parametrize(("fault", "sentence"), [*((fault, NO_MEMORY) for fault in FULL), (model_is_broken, BROKEN)])
def test_a_decoding_that_goes_wrong_is_a_sentence(  # noqa: PLR0917
    crammed: Any, tmp_path: Path, request_of: Any, warnings_shown: list[str], fault: Fault, sentence: str
) -> None:
    path = save(crammed.vectors, tmp_path / "v.safetensors")
    with broken_decoding(fault):
        *_, last = decode_file(str(path), request_of)
        with pytest.raises(gr.Error, match=re.escape(sentence)):
            api.decode(vectors_base64=base64.b64encode(path.read_bytes()).decode())
    assert f'data-state="error"><p class="cd-head" role="status">{sentence}' in last[2]
    assert warnings_shown == [sentence]
    *_, last = decode_file(str(path), request_of)
    assert last[1] == SOLVABLE


@pytest.mark.usefixtures("right_for_the_next")
@pytest.mark.parametrize("search", [False, True], ids=["K", "fewest"])
def test_stop_while_the_result_is_decoded_does_not_wait_for_its_end(
    request_of: Any, monkeypatch: pytest.MonkeyPatch, search: bool
) -> None:
    """Decoding a long text may take minutes, and others wait."""
    real, tokens = DECODING._next_logits, []

    def slow(*arguments: Any) -> Any:
        tokens.append(stop(request_of))
        time.sleep(0.05)
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DECODING, "_next_logits", slow)
        patch.setattr("cramdemo.ui.live.STOPPED_SECONDS", 0.15)
        status, _, _, card, outcome = on_the_page(request_of, SOLVABLE, 500, search=search)
    assert "Stopped" in status
    if search and not tokens[4:]:  # the first K decodes no token right
        return
    assert 3 <= len(tokens) < 9 and "NOT VERIFIED" in card and "lossless" not in (status + card).lower()
    assert from_bytes(outcome.data).verified == []


TABS = {  # the values of their widgets, and after how many forward passes it goes wrong
    "capacity": (capacity, (HARD, TINY, "one", 5, 0), 10),
    "laws": (laws, ("", TINY, 0), 20),
    "race": (race, (HARD, TINY, "", 0), 60),
    "geometry": (geometry, (HARD, TINY, 1, 0), 20),
    "bytes": (size, (), 40),
}


@pytest.mark.usefixtures("right_for_the_next")
@pytest.mark.parametrize("fault", [machine_is_full, model_is_broken])
@pytest.mark.parametrize("name", TABS)
def test_an_experiment_that_goes_wrong_says_so_and_keeps_what_is_shown(
    request_of: Any, crammed: Any, warnings_shown: list[str], name: str, fault: Fault
) -> None:
    tab, values, after = TABS[name]
    values = values or (Outcome(to_bytes(crammed.vectors), "a.safetensors"), None)
    experiment = Experiment(name, [], [], tab.check, tab.run, tab.show, ("blank",))
    with broken_model(after, fault):
        shown = list(_running(experiment)(request_of, *values))
    words = "not enough memory" if fault in FULL else "Something went wrong inside the program (IndexError)"
    assert 'data-state="error"' in shown[-1][0] and words in shown[-1][0]
    assert SECRET not in str(shown) and len(warnings_shown) == 1
    assert shown[-1][1:] == shown[-2][1:] != ("blank",), "what was there is gone"


@pytest.mark.parametrize(("fault", "status"), [*((fault, 3) for fault in ANY), (None, 3)])
def test_the_command_line_keeps_the_best_so_far(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str], fault: Fault | None, status: int
) -> None:
    with broken_steps(STEP, fault):
        found, vectors = on_the_command_line(tmp_path, tiny_folder)
    assert found == status and _best(vectors.read_bytes())
    said = capsys.readouterr()
    words = {model_is_broken: "broke off: IndexError at test_faults.py", None: "lower the learning rate"}
    assert words.get(fault, "out of memory") in said.out + said.err
    assert SECRET not in said.out + said.err and "Traceback" not in said.err


@pytest.mark.parametrize("fault", ANY)
def test_the_command_line_keeps_what_cannot_be_decoded(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str], fault: Fault
) -> None:
    with broken_decoding(fault):
        found, vectors = on_the_command_line(tmp_path, tiny_folder)
    said = capsys.readouterr().err
    assert found == 3 and _best(vectors.read_bytes())
    assert "The best vectors so far are in text.safetensors; nobody has decoded them yet." in said
    assert ("not enough memory to decode" if fault in FULL else "IndexError") in said


@pytest.mark.parametrize("fault", FULL)
def test_the_command_line_says_that_a_model_does_not_fit(
    tmp_path: Path,
    tiny_folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
) -> None:
    monkeypatch.setattr("cramdemo.models.AutoModelForCausalLM.from_pretrained", lambda *_, **__: fault())
    found, vectors = on_the_command_line(tmp_path, tiny_folder)
    assert found == 2 and not vectors.exists()
    assert capsys.readouterr().err == f"cramdemo: {LOADING}\n"
