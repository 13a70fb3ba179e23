"""The benchmark of documents: both sides on the same texts, the ratio of their paces, and what is not exact."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cramdemo import document as engine
from cramdemo import packing
from cramdemo.bench import Asked, document
from cramdemo.bench.document import bench_document, pace
from cramdemo.document import DocumentState, Segment

BOOK = "The old man and the sea were tired of the other men and the other seas. " * 30


def _state(seconds: float, exact: int) -> DocumentState:
    segments = (Segment(0, exact, torch.zeros(1, 2), True, 1.0), Segment(exact, 1, torch.zeros(1, 2), False, 0.0))
    return DocumentState(exact + 1, 1, segments, (), 5, 10**9, seconds, "done")


def test_both_sides_cram_the_same_texts_and_the_ratio_is_of_their_paces(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (packing, engine):
        monkeypatch.setattr(module, "FIRST_TOKENS", 4)
    monkeypatch.setattr(document, "TOKENS", 20)
    seen, real = [], document.cram_document

    def watched(lm, ids, config, *, rows):  # type: ignore[no-untyped-def]
        seen.append((tuple(ids), rows))
        return real(lm, ids, config, rows=rows)

    monkeypatch.setattr(document, "cram_document", watched)
    at_once, alone, ratio = bench_document(Asked([BOOK], 2, (str(tiny_folder),), (2,)))["rows"]
    assert at_once["value"] == alone["value"] == "80 of 80 tokens"
    assert ratio["value"] > 0 and len(ratio["interval"]) == 2
    assert [rows for _, rows in seen] == [16, 1, 16, 1] and seen[0][0] == seen[1][0] != seen[2][0]


def test_only_what_decodes_counts_for_the_pace() -> None:
    assert pace(_state(2.0, 30)) == 15.0
    row = document._row("x", [_state(2.0, 30), _state(3.0, 30)])
    assert row["value"] == "60 of 62 tokens" and row["tokens_a_second"] == 12.5 and row["gflop_a_token"] == 0.03
