"""What the model picker says of each model, and that a browser's choice reaches the form."""

from __future__ import annotations

import json

import pytest
from huggingface_hub import constants

from cramdemo.catalogue import BUILT_IN, MODELS
from cramdemo.placement import Machine, refusal
from cramdemo.ui import offer, picker

SMALL = Machine("cpu", "CPU, 2 cores", 4 * 10**9, 1e11)


@pytest.fixture(autouse=True)
def _online_on_a_small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(offer, "get_token", lambda: None)
    monkeypatch.setattr(picker, "this_machine", lambda: SMALL)


def test_every_model_on_offer_has_a_row_and_the_chosen_one_is_named() -> None:
    value = picker.picker_value("EleutherAI/pythia-160m", 400, 2, 1000)
    rows = json.loads(value["r"])
    assert [row["name"] for row in rows] == list(MODELS)
    assert value["m"] == "EleutherAI/pythia-160m"
    assert "CPU, 2 cores with 4.0 GB" in value["n"]
    assert "100 tokens" in value["n"] and "K = 2" in value["n"] and "1,000 steps" in value["n"]


def test_a_row_says_size_need_time_and_the_paper_s_figure() -> None:
    row = picker.row(MODELS["EleutherAI/pythia-160m"], 100, 1, 1000, SMALL)
    assert (row["label"], row["size"], row["reason"]) == ("pythia-160m", "162M", "")
    for words in ("needs ", " GB", "up to ", "to be downloaded", "paper: 80 tokens", "Apache-2.0"):
        assert words in row["facts"]


def test_what_cannot_run_says_why() -> None:
    large, gated = MODELS["Qwen/Qwen3-8B-Base"], MODELS["meta-llama/Llama-3.2-1B"]
    machine = Machine("cpu", "CPU", 14 * 10**9, 1e11)
    assert picker.row(large, 100, 1, 1000, machine)["reason"] == refusal(large, 100, 1, machine) != ""
    assert picker.row(gated, 100, 1, 1000, machine)["reason"].startswith("Gated: ")
    assert picker.row(MODELS[BUILT_IN], 2000, 1, 1000, machine)["reason"].startswith("Holds at most 1,023 tokens")


def test_the_built_in_model_always_can() -> None:
    row = picker.row(MODELS[BUILT_IN], 100, 1, 1000, SMALL)
    assert row["reason"] == ""
    assert "built in" in row["facts"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.01, "1 s"), (89, "89 s"), (100, "2 min"), (5000, "83 min"), (7300, "2 h"), (200_000, "2 days")],
)
def test_durations_are_rough(seconds: float, words: str) -> None:
    assert picker.duration_words(seconds) == words


@pytest.mark.parametrize(("characters", "tokens"), [(0, 1), (1, 1), (400, 100)])
def test_tokens_are_guessed_from_characters(characters: int, tokens: int) -> None:
    assert picker.guessed_tokens(characters) == tokens
