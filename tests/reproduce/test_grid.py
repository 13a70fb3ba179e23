"""What an experiment runs: its cells, where a ladder of lengths ends, nothing twice, and what it may cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cramdemo.errors import ConfigError, TextError
from cramdemo.reproduce import grid
from cramdemo.reproduce.grid import PROSE, SEEN, UNSEEN, WORDS, Asked, held, plan, run
from cramdemo.sweep import run as sweep_run

BOOK = "The old man and the sea were tired of the other men and the other seas. " * 60


@pytest.fixture
def books(tmp_path: Path) -> Path:
    for name in ("seen", "unseen"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(BOOK, encoding="utf-8")
    return tmp_path


def _asked(books: Path, experiment: str = "table1", **given: Any) -> Asked:
    values: dict[str, Any] = {"samples": 2, "lengths": (4, 2)} | given
    if experiment == "unseen":
        values["seen"] = books / "seen"
    return Asked(experiment, books / "unseen", **values)


def test_a_ladder_ends_two_lengths_after_the_last_that_is_held(
    books: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, ran = _asked(books, lengths=(2, 3, 4, 5, 6, 7)), []

    def fake(spec: Any, folder: Path, **given: Any) -> Any:
        ran.append(spec.lengths[0])
        return iter(())

    monkeypatch.setattr(grid, "run_sweep", fake)
    monkeypatch.setattr(grid, "rows_of", lambda spec, folder: [{"accuracy": 1.0 if spec.lengths[0] in (2, 4) else 0.5}])
    list(run(asked, tmp_path, threads=1))
    assert ran == [2, 3, 4, 5, 6] * 2  # 3 is one miss, 4 is held, 5 and 6 are two; of both kinds of text


def test_each_experiment_has_its_kinds_and_vectors(books: Path) -> None:
    assert _asked(books).kinds == (PROSE, WORDS) and _asked(books, num_mem=(3, 4)).vectors == (3,)
    assert _asked(books, "unseen").kinds == (SEEN, UNSEEN)
    assert _asked(books, "scaling", num_mem=(4, 1)).vectors == (1, 4)
    cells = [cell for ladder in grid._ladders(_asked(books, "scaling", num_mem=(1, 3))) for cell in ladder]
    assert [(cell.num_mem, cell.length) for cell in cells] == [(1, 2), (1, 4), (3, 6), (3, 12)]


@pytest.mark.parametrize(("recipe", "settings"), [("fast", {"growth": 0}), ("most", {"growth": 0}), ("cramming", {})])
def test_our_recipes_train_the_whole_text_since_its_accuracy_is_what_counts(
    books: Path, recipe: str, settings: dict[str, Any]
) -> None:
    asked = _asked(books, recipe=recipe)
    (found,) = grid._spec(asked, grid.Cell("m", PROSE, 1, 8), 1).recipes
    assert (found.like, found.settings) == (recipe, settings)


def test_rows_say_their_kind_and_are_not_run_again_nor_is_the_model_loaded_again(
    books: Path, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = _asked(books, "unseen", models=(str(tiny_folder),), num_mem=(2,))
    loads: list[str] = []
    real = sweep_run.load_model
    monkeypatch.setattr(sweep_run, "load_model", lambda name, **given: loads.append(name) or real(name, **given))
    news = list(run(asked, tmp_path / "out", threads=1))
    assert news[-1].done == news[-1].total == 2 and len(loads) == 1
    found = [row for each in news for row in each.rows]
    lengths = {kind: [row["length"] for row in found if row["kind"] == kind] for kind in (SEEN, UNSEEN)}
    assert lengths == {SEEN: [4, 4, 8, 8], UNSEEN: [4, 4, 8, 8]}
    before = [path.read_bytes() for path in sorted((tmp_path / "out").glob("rows-*"))]
    again = [row for each in run(asked, tmp_path / "out", threads=1) for row in each.rows]
    assert again == found
    assert [path.read_bytes() for path in sorted((tmp_path / "out").glob("rows-*"))] == before
    assert b"old man" not in b"".join(before)


def test_held_is_a_mean_of_texts_that_were_run() -> None:
    assert held([{"accuracy": 1.0}, {"accuracy": 0.98}]) and not held([{"accuracy": 1.0}, {"accuracy": 0.97}])
    assert held([{"accuracy": 1.0}, {"error": "too short"}]) and not held([{"error": "too short"}]) and not held([])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"experiment": "table2"}, "There is no experiment 'table2'"),
        ({"recipe": "slow"}, "recipe is 'slow'"),
        ({"samples": 0}, "samples is 0"),
        ({"lengths": (1,)}, "at least 2 tokens"),
        ({"num_mem": (0,)}, "num_mem has 0"),
        ({"seen": Path()}, "Only unseen reads --seen"),
        ({"experiment": "unseen"}, "give --seen DIR"),
        ({"texts": Path("nowhere")}, "There is no folder 'nowhere'"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_runs(books: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Asked(**{"experiment": "table1", "texts": books / "unseen"} | changes)


def test_books_that_are_too_short_are_named(books: Path, tiny_folder: Path, tmp_path: Path) -> None:
    (books / "unseen" / "a.txt").write_text("short", encoding="utf-8")
    with pytest.raises(TextError, match="Give longer ones"):
        list(run(_asked(books, models=(str(tiny_folder),)), tmp_path / "out", threads=1))


def test_a_plan_costs_more_for_more_and_stops_beyond_the_published_capacity(books: Path) -> None:
    pythia, llama = "EleutherAI/pythia-160m", "meta-llama/Llama-3.1-8B"

    def hours(model: str = pythia, **given: Any) -> float:
        (line,) = plan(_asked(books, samples=50, models=(model,), **given))
        return float(line["gpu_hours_at_most"])

    assert 0 < hours(lengths=grid.PAPER_LENGTHS) < hours(llama, lengths=grid.PAPER_LENGTHS)
    assert hours(lengths=(80,), recipe="cramming") > hours(lengths=(80,)) > 0
    assert hours(lengths=(80, 96, 128, 1024)) == hours(lengths=(80, 96, 128)) > hours(lengths=(80, 96))
    assert plan(_asked(books, models=(llama,)))[0]["published_capacity"] == 1568
    with pytest.raises(ConfigError, match="not in the table"):
        plan(_asked(books, models=("my/model",)))
