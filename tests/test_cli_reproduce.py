"""`reproduce` as a user types it: files that it leaves, what it says, and what it refuses before anything runs."""

from __future__ import annotations

import csv
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from cramdemo.cli import main
from cramdemo.reproduce import grid

BOOK = "The old man and the sea were tired of the other men and the other seas. " * 60


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "a.txt").write_text(BOOK, encoding="utf-8")
    return tmp_path


def _asked(folder: Path, model: Path, *more: str) -> list[str]:
    command = ["reproduce", "table1", "--texts", str(folder / "books"), "--out", str(folder / "out")]
    return [*command, "--models", str(model), "--samples", "2", "--lengths", "2", "4", *more]


def test_tables_and_a_report_are_written_and_a_second_time_nothing_is_run(
    folder: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(_asked(folder, tiny_folder)) == 0
    assert "8 rows; table1-rows.csv" in capsys.readouterr().out
    with (folder / "out" / "table1-capacities.csv").open(encoding="utf-8", newline="") as file:
        prose, words = csv.DictReader(file)
    assert prose["kind"] == "prose" and words["kind"] == "random words" and prose["capacity"] == "4"
    report = (folder / "out" / "table1.html").read_text(encoding="utf-8")
    assert "--samples 2" in report and str(folder) not in report
    for name in ("rows", "lengths", "capacities"):
        assert (folder / "out" / f"table1-{name}.parquet").stat().st_size > 0
    monkeypatch.setattr("cramdemo.sweep.run.run_job", None)  # whoever calls it fails
    assert main(_asked(folder, tiny_folder)) == 0


def test_ctrl_c_keeps_what_is_done_and_reports_it(
    folder: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real: Any = grid.run_sweep

    def pressed(*given: Any, **more: Any) -> Any:
        for done in real(*given, **more):
            yield done
            if done.here == 1:
                os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(grid, "run_sweep", pressed)
    assert main(_asked(folder, tiny_folder)) == 0
    assert capsys.readouterr().out.startswith("Stopped; start the same command again to go on. 1 row; ")


def test_a_plan_runs_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(_asked(folder, Path("EleutherAI/pythia-160m"), "--plan")) == 0
    assert "| EleutherAI/pythia-160m | 80 |" in capsys.readouterr().out and not (folder / "out").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--samples", "0"], "samples is 0"),
        (["--recipe", "best"], "recipe is 'best'"),
        (["--seen", "nowhere"], "Only unseen reads --seen"),
        (["--models", "no/such-model-here"], "no/such-model-here"),
    ],
)
def test_what_cannot_be_run_is_one_line_and_status_2(
    folder: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str], more: list[str], words: str
) -> None:
    assert main([*_asked(folder, tiny_folder), *more]) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1
