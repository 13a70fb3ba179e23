"""The table of margins counts what decodes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from cramdemo import CramResult, FrozenLM
from cramdemo.bench import Asked, margin
from cramdemo.bench.margin import bench_margin, survivors

BOOK = "The old man and the sea were tired of the other men and the other seas. " * 30


def test_a_row_for_each_margin_with_the_dtypes_that_were_not_verified(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(margin, "MARGINS", (0.0, 2.0))
    monkeypatch.setattr(margin, "TOKENS", 2)
    none, large = bench_margin(Asked([BOOK], 3, (str(tiny_folder),), (8,)))["rows"]
    assert none["value"] == large["value"] == "3 of 3"
    assert large["smallest_margin"] >= 2.0 > none["smallest_margin"]
    assert large["bfloat16"] == "3 of 3" and "float32" not in large, "a tiny model's rounding is far below 2 logits"


def test_survivors_are_those_that_decode(tiny_lm: FrozenLM, crammed: CramResult) -> None:
    wrong = dataclasses.replace(crammed.vectors, mem=torch.zeros_like(crammed.vectors.mem))
    assert survivors(tiny_lm, [crammed, dataclasses.replace(crammed, vectors=wrong)]) == 1


def test_no_lossless_run_is_a_row_without_a_margin(tiny_lm: FrozenLM) -> None:
    row = margin._row(tiny_lm, 0.5, [], 4)
    assert row["value"] == "0 of 4" and row["smallest_margin"] is None
    assert row["float16"] == "0 of 0"
