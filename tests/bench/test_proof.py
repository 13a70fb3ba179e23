"""A run that decodes counts, a file that was changed does not, and every dtype that a file lists must agree."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from cramdemo import CramResult, FrozenLM, load_model, save
from cramdemo.bench import proof


@pytest.mark.usefixtures("in_this_process")
def test_a_file_that_decodes_to_another_text_is_not_counted_as_exact(
    crammed: CramResult, tiny_folder: Path, tmp_path: Path
) -> None:
    save(crammed.vectors, tmp_path / "a.safetensors")
    texts = {"a.safetensors": "the new", "missing.safetensors": "x"}
    row = proof.new_process_row(tmp_path, texts, 1, str(tiny_folder))
    assert (row["value"], row["share"]) == ("0 of 2", 0)


def _kept(result: CramResult, lm: FrozenLM, folder: Path) -> list[dict[str, Any]]:
    with proof.Proof(str(folder)) as kept:
        assert kept.rows() == []  # nothing to prove
        kept.keep([result], [lm.detokenize(result.token_ids)])
        return kept.rows()


def test_results_of_any_model_are_decoded_with_that_model_in_a_new_process(
    crammed: CramResult, tiny_lm: FrozenLM, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "THREAD_COUNTS", (2,))
    (row,) = _kept(crammed, tiny_lm, tiny_folder)
    assert row["value"] == "1 of 1" and row["figure"].endswith(" with 2 threads")


def test_each_number_of_threads_has_a_process_and_a_row(
    crammed: CramResult, tiny_lm: FrozenLM, tiny_folder: Path, in_this_process: list[str]
) -> None:
    assert [row["value"] for row in _kept(crammed, tiny_lm, tiny_folder)] == ["1 of 1", "1 of 1"]
    assert in_this_process == ["1", "2"]


def test_every_dtype_that_a_file_lists_must_give_the_text(
    crammed: CramResult, tiny_lm: FrozenLM, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tiny_lm.detokenize(crammed.token_ids)
    check = crammed.vectors.verified[0]
    listed = [check, {**check, "dtype": "bfloat16"}]
    save(dataclasses.replace(crammed.vectors, verified=listed), tmp_path / "a.safetensors")
    loaded: list[str] = []

    def load(name: str, *, precision: str) -> FrozenLM:
        loaded.append(precision)
        return tiny_lm if precision in good else FrozenLM("tiny", worse, tiny_lm.tokenizer, fingerprint=fingerprint)

    worse, fingerprint = load_model(str(tiny_folder)).model, tiny_lm.fingerprint
    worse.get_output_embeddings().weight.data.neg_()
    monkeypatch.setattr(proof, "load_model", load)
    good = {"float32", "bfloat16"}
    assert proof.decoded_texts(tmp_path, "tiny") == {"a.safetensors": text}
    assert loaded == ["float32", "bfloat16"]
    good = {"float32"}
    assert proof.decoded_texts(tmp_path, "tiny") == {"a.safetensors": None}


def test_the_right_text_by_other_ids_than_the_file_s_is_no_proof(
    crammed: CramResult, tiny_lm: FrozenLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "load_model", lambda name, *, precision: tiny_lm)
    save(dataclasses.replace(crammed.vectors, token_sha256="0" * 64), tmp_path / "a.safetensors")
    assert proof.decoded_texts(tmp_path, "tiny") == {"a.safetensors": None}
