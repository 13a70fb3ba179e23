"""Benchmarks count what happened: a run that decodes counts, a file that was changed does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from cramdemo import TextError, bench

BOOK = "It was a bright cold day in the valley, and nobody came to the old mill by the river. " * 30


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    (tmp_path / "book.txt").write_text(BOOK)
    return tmp_path


def test_the_built_in_report_has_a_row_for_each_shape_and_each_thread_count(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "SHAPES", ((2, 8),))
    monkeypatch.setattr(bench, "THREAD_COUNTS", (1,))
    report = bench.bench_built_in(corpus, 2)
    held, random_start, again = report["rows"]
    assert held["value"] == "2 of 2"
    assert 0 <= held["median_steps"] <= held["most_steps"]
    assert "random start" in random_start["figure"]
    assert random_start["median_steps"] > 0  # nothing decodes from random vectors at step 0
    assert again["value"] == "2 of 2"
    assert "| 2 tokens, K = 8: lossless passages | 2 of 2 |" in bench.markdown(report)


def test_a_file_that_decodes_to_another_text_is_not_counted_as_exact(
    corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from cramdemo import CramConfig, load_model, run_cram, save

    folder = tmp_path_factory.mktemp("vectors")
    result = run_cram(load_model(), "the old", CramConfig(num_mem=8))
    save(result.vectors, folder / "a.safetensors")
    row = bench._new_process_row(folder, {"a.safetensors": "the new", "missing.safetensors": "x"}, 1)
    assert (row["value"], row["share"]) == ("0 of 2", 0)


def test_passages_need_a_folder() -> None:
    for benchmark in bench.BENCHMARKS.values():
        with pytest.raises(TextError, match="--corpus DIR"):
            benchmark.run(None, 1)


def test_the_table_has_every_column_of_every_row() -> None:
    rows = [{"figure": "a", "value": 1}, {"figure": "b", "share": 0.5}]
    lines = bench.markdown({"rows": rows}).splitlines()
    assert lines == ["| figure | value | share |", "| --- | --- | --- |", "| a | 1 |  |", "| b |  | 0.5 |"]
