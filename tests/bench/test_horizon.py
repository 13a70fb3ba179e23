"""The horizon is what was proven on all passages."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from cramdemo import CramConfig, load_model, run_cram
from cramdemo.bench import Asked, horizon, proof
from cramdemo.cram import CramResult
from cramdemo.decode import Verification
from cramdemo.models import FrozenLM

BOOK = "It was a bright cold day in the valley, and nobody came to the old mill by the river. " * 30


def _failing_beyond(monkeypatch: pytest.MonkeyPatch, limits: dict[int, int]) -> list[int]:
    """Runs are faked: lossless up to `limits[K]` tokens. Returns the list of lengths that gets filled."""
    lm, lengths = load_model(), []
    real = run_cram(lm, "the old", CramConfig(num_mem=8))
    assert real.lossless

    def fake(lm: FrozenLM, text: str, config: CramConfig) -> CramResult:
        lengths.append(len(lm.tokenize(text)))
        fails = lengths[-1] > limits[config.num_mem]
        return dataclasses.replace(real, verifications=[_FAILED]) if fails else real

    monkeypatch.setattr(horizon, "run_cram", fake)
    return lengths


_FAILED = Verification(lossless=False, correct_prefix=1, num_tokens=2, device="cpu", dtype="float32", min_margin=-1.0)


@pytest.mark.parametrize("limit", [3, 4, 15, 16, 31, 64, 70])
def test_the_horizon_is_the_longest_length_that_holds(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    lengths = _failing_beyond(monkeypatch, {1: limit})
    search = horizon._HorizonSearch(load_model(), [BOOK], 3, 1)
    assert search.horizon() == max((n for n in horizon.HORIZON_LEVELS if n <= limit), default=0)
    assert 16 in lengths  # the length of the bound is run in any case
    assert len(search.rows()) < len(horizon.HORIZON_LEVELS) / 2


def test_a_length_is_given_up_once_too_many_passages_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = _failing_beyond(monkeypatch, {1: 4})
    search = horizon._HorizonSearch(load_model(), [BOOK], 20, 1)
    assert not search._holds(8, 20)
    assert len(lengths) == 3  # two of twenty may fail
    assert search.rows()[0]["value"] == "0 of 3"


@pytest.mark.usefixtures("in_this_process")
def test_the_horizon_report_has_ratios_proof_and_the_cost_of_the_books(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(horizon, "HORIZON_LEVELS", range(1, 3))
    monkeypatch.setattr(horizon, "HORIZON_NUM_MEM", (1, 2))
    monkeypatch.setattr(horizon, "HORIZON_BOUNDS", {})
    monkeypatch.setattr(proof, "THREAD_COUNTS", (1,))
    told: list[dict[str, Any]] = []
    report = horizon.bench_horizon(Asked([BOOK], 2), told.append)
    rows = {row["figure"]: row for row in report["rows"]}
    assert rows["K = 1: tokens that nine of ten passages reach"]["value"] == 2
    assert rows["K = 2: tokens that nine of ten passages reach"]["over_one_vector"] == 2
    tried = rows["K = 1, 2 tokens: lossless passages"]
    assert tried in told  # whoever waits an hour sees each length as it comes
    assert tried["value"] == "2 of 2"
    assert 0 <= tried["encoder_alone_tokens"] <= tried["optimised_tokens"] == 2
    again = rows["of results called lossless, exact in a new process with 1 thread"]
    assert again["value"].split(" of ")[0] == again["value"].split(" of ")[1]
    # BOOK is one sentence thirty times: the general compressors see that, and beat what a model can do
    assert rows["bits per byte: xz"]["value"] < rows["bits per byte: gzip"]["value"] + 1 < 2
