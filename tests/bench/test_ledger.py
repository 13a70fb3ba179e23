"""What was run is not run again, whenever the run before was stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

from cramdemo.bench.ledger import Ledger, Outcome

FOUND = [Outcome(4, 0.75, 2, 1.5, 3, 5, {1: 2, 4: 1}), Outcome(4, 1.0, 4, 2.5, 6, 7)]


def _never() -> list[Outcome]:
    raise AssertionError("this was run before")


def test_what_was_run_is_known_to_the_next_ledger_number_for_number(tmp_path: Path) -> None:
    assert Ledger(tmp_path / "out").get("a", lambda: FOUND) == FOUND
    again = Ledger(tmp_path / "out").get("a", _never)
    assert again == FOUND  # prefix lengths too, which JSON turns into strings
    assert [outcome.lossless for outcome in again] == [False, True]


def test_other_keys_are_run(tmp_path: Path) -> None:
    Ledger(tmp_path).get("a", lambda: FOUND)
    assert Ledger(tmp_path).get("b", lambda: FOUND[:1]) == FOUND[:1]
    assert Ledger(tmp_path).get("b", _never) == FOUND[:1]


def test_without_a_folder_it_remembers_as_long_as_it_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ledger = Ledger(None)
    ledger.get("a", lambda: FOUND)
    assert ledger.get("a", _never) == FOUND
    assert list(tmp_path.iterdir()) == []


def test_a_line_that_was_cut_off_costs_its_own_run_only(tmp_path: Path) -> None:
    for key in "ab":
        Ledger(tmp_path).get(key, lambda: FOUND)
    path = tmp_path / "capacity.jsonl"
    path.write_text(path.read_text()[:-9])
    ledger = Ledger(tmp_path)
    ledger.get("a", _never)
    ledger.get("b", lambda: FOUND[:1])
    assert Ledger(tmp_path).get("b", _never) == FOUND[:1]


def test_a_folder_that_cannot_be_made_is_refused_before_the_first_run(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        Ledger(tmp_path / "file")
