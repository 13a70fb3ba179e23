"""Benchmarks count what happened: a run that decodes counts, a file that was changed does not."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from cramdemo import CramConfig, bench, load_model, run_cram, save
from cramdemo.cram import CramResult
from cramdemo.decode import Verification
from cramdemo.models import FrozenLM

BOOK = "It was a bright cold day in the valley, and nobody came to the old mill by the river. " * 30


def test_the_built_in_report_has_a_row_for_each_shape_and_each_thread_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "SHAPES", ((2, 8),))
    monkeypatch.setattr(bench, "THREAD_COUNTS", (1,))
    report = bench.bench_built_in([BOOK], 2)
    held, random_start, again = report["rows"]
    assert held["value"] == "2 of 2"
    assert 0 <= held["median_steps"] <= held["most_steps"]
    assert "random start" in random_start["figure"]
    assert random_start["median_steps"] > 0  # nothing decodes from random vectors at step 0
    assert again["value"] == "2 of 2"
    assert "| 2 tokens, K = 8: lossless passages | 2 of 2 |" in bench.markdown(report)


def test_a_file_that_decodes_to_another_text_is_not_counted_as_exact(tmp_path: Path) -> None:
    result = run_cram(load_model(), "the old", CramConfig(num_mem=8))
    save(result.vectors, tmp_path / "a.safetensors")
    row = bench._new_process_row(tmp_path, {"a.safetensors": "the new", "missing.safetensors": "x"}, 1)
    assert (row["value"], row["share"]) == ("0 of 2", 0)


def _failing_beyond(monkeypatch: pytest.MonkeyPatch, limits: dict[int, int]) -> list[int]:
    """Runs are faked: lossless up to `limits[K]` tokens. Returns the list of lengths that gets filled."""
    lm, lengths = load_model(), []
    real = run_cram(lm, "the old", CramConfig(num_mem=8))
    assert real.lossless

    def fake(lm: FrozenLM, text: str, config: CramConfig) -> CramResult:
        lengths.append(len(lm.tokenize(text)))
        fails = lengths[-1] > limits[config.num_mem]
        return dataclasses.replace(real, verifications=[_FAILED]) if fails else real

    monkeypatch.setattr(bench, "run_cram", fake)
    return lengths


_FAILED = Verification(lossless=False, correct_prefix=1, num_tokens=2, device="cpu", dtype="float32", min_margin=-1.0)


@pytest.mark.parametrize("limit", [3, 4, 15, 16, 31, 64, 70])
def test_the_horizon_is_the_longest_length_that_holds(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    lengths = _failing_beyond(monkeypatch, {1: limit})
    search = bench._HorizonSearch(load_model(), [BOOK], 3, 1)
    assert search.horizon() == max((n for n in bench.HORIZON_LEVELS if n <= limit), default=0)
    assert 16 in lengths  # the length of the bound is run in any case
    assert len(search.rows()) < len(bench.HORIZON_LEVELS) / 2


def test_a_length_is_given_up_once_too_many_passages_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = _failing_beyond(monkeypatch, {1: 4})
    search = bench._HorizonSearch(load_model(), [BOOK], 20, 1)
    assert not search._holds(8, 20)
    assert len(lengths) == 3  # two of twenty may fail
    assert search.rows()[0]["value"] == "0 of 3"


def test_the_horizon_report_has_ratios_proof_and_the_cost_of_the_books(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "HORIZON_LEVELS", range(1, 3))
    monkeypatch.setattr(bench, "HORIZON_NUM_MEM", (1, 2))
    monkeypatch.setattr(bench, "HORIZON_BOUNDS", {})
    monkeypatch.setattr(bench, "THREAD_COUNTS", (1,))
    told: list[dict[str, Any]] = []
    report = bench.bench_horizon([BOOK], 2, told.append)
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


def test_the_table_has_every_column_of_every_row() -> None:
    rows = [{"figure": "a", "value": 1}, {"figure": "b", "share": 0.5}]
    lines = bench.markdown({"rows": rows}).splitlines()
    assert lines == ["| figure | value | share |", "| --- | --- | --- |", "| a | 1 |  |", "| b |  | 0.5 |"]
