"""The report counts what happened."""

from __future__ import annotations

import pytest

from cramdemo.bench import Asked, built_in, markdown, proof

BOOK = "It was a bright cold day in the valley, and nobody came to the old mill by the river. " * 30


@pytest.mark.usefixtures("in_this_process")
def test_the_built_in_report_has_a_row_for_each_shape_and_each_thread_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(built_in, "SHAPES", ((2, 8),))
    monkeypatch.setattr(proof, "THREAD_COUNTS", (1,))
    report = built_in.bench_built_in(Asked([BOOK], 2))
    held, random_start, again = report["rows"]
    assert held["value"] == "2 of 2"
    assert 0 <= held["median_steps"] <= held["most_steps"]
    assert "random start" in random_start["figure"]
    assert random_start["median_steps"] > 0  # nothing decodes from random vectors at step 0
    assert again["value"] == "2 of 2"
    assert "| 2 tokens, K = 8: lossless passages | 2 of 2 |" in markdown(report)
