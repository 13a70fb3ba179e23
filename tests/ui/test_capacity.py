"""The Capacity tab's handlers, on the tiny model."""

from __future__ import annotations

import ast
import threading
from dataclasses import replace
from typing import Any

import gradio as gr
import pytest

from cramdemo.capacity import ENDED, NUM_MEM, RULE, Capacity, Growth, Point
from cramdemo.catalogue import BUILT_IN
from cramdemo.errors import ConfigError, CramError, ModelError, TextError
from cramdemo.settings import Settings
from cramdemo.ui import capacity as tab_module
from cramdemo.ui.capacity import IDLE, SECONDS, _status, blank, check, draw_words, read_samples, run, show, tab
from cramdemo.words import random_words
from tests.ui.conftest import TINY

TEXT = "The old sea, tired. " * 20
GROWTH = Growth(1, 80, 32, 90.0, points=(Point(9, 16, 20, 50.0),), horizon=16, gain_bits=50.0)
STATE = Capacity("m", 1000, 64, 80, (1, 2), tuple(map(float, range(80))), (GROWTH,), trying=32, solved=20)


def test_a_run_ends_with_all_that_is_to_be_shown(tiny: str) -> None:
    states = [s for s in run(TEXT, tiny, "all", 15, 0, None, threading.Event()) if isinstance(s, Capacity)]
    last = states[-1]
    assert last.doing == ENDED and [growth.num_mem for growth in last.growths] == list(NUM_MEM)
    assert last.num_tokens == 120  # of more: as many as 128 positions leave behind 8 vectors
    status, outputs = show(last)
    assert 'data-state="done"' in status and "Done" in status
    assert len(outputs) == len(blank()) == 6
    assert all(type(found) is type(empty) for found, empty in zip(outputs, blank(), strict=True))


def test_one_vector_only_is_one(tiny: str) -> None:
    states = [s for s in run(TEXT, tiny, "one", 5, 0, None, threading.Event()) if isinstance(s, Capacity)]
    assert [growth.num_mem for growth in states[-1].growths] == [1]


def test_the_server_s_limits_hold_for_the_whole_run_which_keeps_what_is_there(
    tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tab_module, "server_settings", lambda: Settings(max_seconds=0.5, max_mem=4))
    states = [s for s in run(TEXT, tiny, "all", 2000, 0, None, threading.Event()) if isinstance(s, Capacity)]
    assert states[-1].stopped and states[-1].doing == ENDED
    assert states[-1].num_mems == (1, 2, 4)
    assert states[-1].growths[0].points


@pytest.mark.parametrize("most", [7, 40, 200])
def test_the_server_s_most_steps_are_those_of_the_whole_run(
    tiny: str, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(tab_module, "server_settings", lambda: Settings(max_steps=most))
    *_, last = run(TEXT, tiny, "all", 7, 0, None, threading.Event())
    assert isinstance(last, Capacity) and last.doing == ENDED
    assert 0 < last.steps <= most
    assert last.stopped is (last.steps == most)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"text": ""}, TextError, "pick a sample"),
        ({"text": "x" * 100_001}, TextError, "100,001 characters"),
        ({"steps": 0}, ConfigError, "from 1 to 2,000"),
        ({"steps": 2001}, ConfigError, "from 1 to 2,000"),
        ({"seed": -1}, ConfigError, "seed is -1"),
        ({"model": "nobody"}, ModelError, "no model"),
    ],
)
def test_what_cannot_be_measured_is_refused(change: dict[str, Any], error: type[CramError], words: str) -> None:
    given = {"text": TEXT, "model": BUILT_IN, "vectors": "all", "steps": 50, "seed": 0} | change
    with pytest.raises(error, match=words):
        check(**given, token=None)


def test_a_text_longer_than_the_context_may_be_measured(tiny: str) -> None:
    check("word " * 15_000, TINY, "all", 50, 0, None)
    check("word " * 15_000, BUILT_IN, "all", 50, None, None)


def test_the_status_says_what_is_being_done() -> None:
    assert "Growing the text in 1 vector<" in _status(STATE) and "20 of 32 right" in _status(STATE)
    assert "paper’s rule" in _status(replace(STATE, doing=RULE))
    assert "Stopped; what was found is kept." in _status(replace(STATE, doing=ENDED, stopped=True))
    whole = replace(STATE, doing=ENDED, growths=(replace(GROWTH, horizon=80),))
    assert "All of the 80 tokens fit" in _status(whole)
    assert "nothing more fits" in _status(replace(STATE, doing=ENDED))


def test_the_expected_time_stands_before_the_start() -> None:
    assert f"about {SECONDS['all']} seconds" in IDLE and f"{SECONDS['one']} with one vector" in IDLE


def test_samples_are_long_and_words_come_by_the_seed() -> None:
    samples = read_samples()
    assert list(samples) == ["Prose", "Code", "French"]
    assert all(len(text) > 700 for text in samples.values())
    assert ast.parse(samples["Code"]).body
    assert draw_words(2.0) == random_words(tab_module.RANDOM_WORDS, 2)
    assert draw_words(None) == draw_words(-5) == random_words(tab_module.RANDOM_WORDS, 0)


def test_the_tab_has_a_name_for_every_control() -> None:
    with gr.Blocks() as page:
        tab(1)
    controls = [b for b in page.blocks.values() if isinstance(b, gr.Textbox | gr.Radio | gr.Number | gr.Dropdown)]
    assert len(controls) == 7 and all(control.label for control in controls)
    assert all(b.interactive is not False for b in controls)
    assert any(f.concurrency_id == "model" for f in page.fns.values())
