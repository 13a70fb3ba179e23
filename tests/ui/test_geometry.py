"""Handlers of the Geometry tab, called as plain functions on the tiny model."""

from __future__ import annotations

import dataclasses
import threading

import gradio as gr
import pytest

from cramdemo import geometry as engine
from cramdemo.cram import CramConfig
from cramdemo.errors import ConfigError, CramError, ModelError, TextError
from cramdemo.geometry import Findings, Landscape
from cramdemo.ui import geometry
from cramdemo.ui.chart import BLANK
from cramdemo.ui.geometry import BLANKS, CHARTS, EXAMPLES, TEXT, check, config_of, run, show, status_html
from cramdemo.ui.shelf import SHELF
from tests.ui.conftest import SOLVABLE

BEGUN = Findings("training", (0, 1, 2), 20, 1, 12, 400, (10, 20, 0))


@pytest.fixture
def found(tiny: str, monkeypatch: pytest.MonkeyPatch) -> list[Findings]:
    """States of a whole run."""
    monkeypatch.setattr(engine, "GRID", 3)
    return [s for s in run(SOLVABLE, tiny, 4.0, 0.0, None, threading.Event()) if isinstance(s, Findings)]


def test_a_run_fills_every_chart_and_says_that_it_is_done(found: list[Findings]) -> None:
    status, outputs = show(found[-1])
    assert 'data-state="done"' in status and "Done." in status
    assert len(outputs) == len(BLANKS) == len(CHARTS) + 1
    assert all(value["f"] and set(value) == set(BLANK) for value in outputs[:-1])


def test_before_the_first_state_all_is_blank_in_the_same_shape() -> None:
    assert all(value == BLANK for value in BLANKS[:-1])
    assert [type(value) for value in show(BEGUN)[1]] == [type(value) for value in BLANKS]


def test_the_status_line_names_the_stage_and_how_far_it_is() -> None:
    status = status_html(BEGUN)
    assert "Training three random starts" in status and "1 of 4" in status
    assert "12 of at most 400" in status and "10, 20 and 0 of 20" in status
    assert "width:20.0%" in status  # half of the tokens, of the first 40 %
    land = Landscape((0.0,), (0.0, 1.0), ((1.0,),), ())
    assert "width:80.0%" in status_html(dataclasses.replace(BEGUN, stage="landscape", landscape=land))


@pytest.mark.parametrize(
    ("stage", "training", "words"),
    [
        ("done", "solved", "Done."),
        ("done", "steps", "Done; the training had used all its steps."),
        ("done", "seconds", "Done; the training was ended by its time limit."),
        ("stopped", "", "Stopped; what was found is kept."),
    ],
)
def test_the_end_says_how_it_came(stage: str, training: str, words: str) -> None:
    assert words in status_html(dataclasses.replace(BEGUN, stage=stage, training=training))


def test_every_start_is_random_and_the_training_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of("cram-mini", 2.0, 7.0)
    assert isinstance(config, CramConfig)
    assert (config.num_mem, config.seed, config.init, config.seconds) == (2, 7, "embedding", 40.0)
    monkeypatch.setenv("CRAMDEMO_MAX_SECONDS", "5")
    monkeypatch.setenv("CRAMDEMO_MAX_STEPS", "30")
    geometry.server_settings.cache_clear()
    try:
        config = config_of("cram-mini", 2.0, 7.0)
        assert (config.seconds, config.steps) == (5.0, 30)
    finally:
        monkeypatch.undo()
        geometry.server_settings.cache_clear()


@pytest.mark.parametrize(
    ("values", "error"),
    [
        (("", "cram-mini", 1, 0), TextError),
        (("a", "cram-mini", 1, 0), TextError),
        (("word " * 400, "cram-mini", 1, 0), TextError),
        ((TEXT, "nobody/knows", 1, 0), ModelError),
        ((TEXT, "cram-mini", 99, 0), ConfigError),
        ((TEXT, "cram-mini", 1, -1), ConfigError),
    ],
)
def test_what_cannot_be_run_is_refused(
    built_in: object, monkeypatch: pytest.MonkeyPatch, values: tuple[str, str, float, float], error: type[CramError]
) -> None:
    monkeypatch.setattr(SHELF, "peek", lambda name: built_in)
    with pytest.raises(error):
        check(*values, None)


def test_the_examples_are_within_what_is_taken(built_in: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SHELF, "peek", lambda name: built_in)
    assert TEXT in EXAMPLES.values()
    for text in EXAMPLES.values():
        check(text, "cram-mini", 1, 0, None)


def test_the_tab_names_its_parts_and_puts_its_run_in_the_model_s_queue() -> None:
    with gr.Blocks() as page:
        geometry.tab(1)
    ids = {block.elem_id for block in page.blocks.values() if getattr(block, "elem_id", None)}
    wanted = {"text", "num-mem", "model", "seed", "start", "stop", "status", "numbers"} | {name for name, *_ in CHARTS}
    assert {f"geometry-{name}" for name in wanted} <= ids
    (event,) = [f for f in page.fns.values() if f.concurrency_id == "model"]
    assert event.concurrency_limit == 1
