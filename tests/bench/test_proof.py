"""A run that decodes counts, a file that was changed does not."""

from __future__ import annotations

from pathlib import Path

from cramdemo import CramConfig, load_model, run_cram, save
from cramdemo.bench import proof


def test_a_file_that_decodes_to_another_text_is_not_counted_as_exact(tmp_path: Path) -> None:
    result = run_cram(load_model(), "the old", CramConfig(num_mem=8))
    save(result.vectors, tmp_path / "a.safetensors")
    row = proof.new_process_row(tmp_path, {"a.safetensors": "the new", "missing.safetensors": "x"}, 1)
    assert (row["value"], row["share"]) == ("0 of 2", 0)
