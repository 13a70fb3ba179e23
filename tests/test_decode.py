"""Greedy reconstruction against the naive one, and `verify`, which must not be talked into a yes."""

from __future__ import annotations

import dataclasses
import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cramdemo import CramResult, FrozenLM, MemVectors, ModelMismatch, decode, decode_tokens, save, verify
from cramdemo.decode import greedy_prefix, greedy_prefixes
from cramdemo.metrics import margins
from cramdemo.vectors import token_digest

ROOT = Path(__file__).resolve().parent.parent


@torch.no_grad()
def naive_greedy(lm: FrozenLM, mem: Tensor, num_tokens: int) -> list[int]:
    """The whole sequence anew for each token, by the plain model, without a cache."""
    ids: list[int] = []
    for _ in range(num_tokens):
        text = lm.model.get_input_embeddings().weight[torch.tensor(ids, dtype=torch.int64)]
        ids.append(int(lm.model(inputs_embeds=torch.cat([mem, text])[None]).logits[0, -1].argmax()))
    return ids


def _changed(vectors: MemVectors, **changes: Any) -> MemVectors:
    return dataclasses.replace(vectors, **changes)


def _drawn(vectors: MemVectors, num_mem: int, seed: int, num_tokens: int) -> MemVectors:
    """Vectors that nothing was crammed into."""
    mem = torch.randn(num_mem, vectors.hidden_size, generator=torch.Generator().manual_seed(seed))
    return _changed(vectors, mem=mem, num_tokens=num_tokens)


@pytest.mark.parametrize("num_mem", [1, 3])
def test_decoding_with_a_cache_writes_what_decoding_without_one_does(
    tiny_lm: FrozenLM, crammed: CramResult, num_mem: int
) -> None:
    for seed in range(4):
        vectors = _drawn(crammed.vectors, num_mem, seed, 30)
        found = list(decode_tokens(tiny_lm, vectors))
        assert found == naive_greedy(tiny_lm, vectors.mem, 30)
        assert len(set(found)) > 2  # not one token over and over


def test_decoded_text_is_the_crammed_one_and_the_digest_proves_it(tiny_lm: FrozenLM, crammed: CramResult) -> None:
    decoded = decode(tiny_lm, crammed.vectors)
    assert decoded.text == "The old sea, tired."
    assert decoded.token_ids == crammed.token_ids
    assert decoded.matches


def test_the_digest_does_not_match_another_text(tiny_lm: FrozenLM, crammed: CramResult) -> None:
    assert not decode(tiny_lm, _drawn(crammed.vectors, 4, 0, crammed.num_tokens)).matches
    shorter = _changed(crammed.vectors, num_tokens=crammed.num_tokens - 1)
    decoded = decode(tiny_lm, shorter)
    assert decoded.token_ids == crammed.token_ids[:-1]
    assert not decoded.matches


def test_exactly_num_tokens_tokens_are_decoded_one_at_a_time(tiny_lm: FrozenLM, crammed: CramResult) -> None:
    stream = decode_tokens(tiny_lm, crammed.vectors)
    assert next(stream) == crammed.token_ids[0]
    assert torch.is_grad_enabled()  # not left switched off for whoever reads the stream
    assert list(stream) == crammed.token_ids[1:]


def test_a_new_process_decodes_the_saved_file(crammed: CramResult, tiny_folder: Path, tmp_path: Path) -> None:
    path = save(crammed.vectors, tmp_path / "v.safetensors")
    program = (
        "import sys; from cramdemo import decode, load, load_model\n"
        "decoded = decode(load_model(sys.argv[1], device='cpu'), load(sys.argv[2]))\n"
        "sys.stdout.write(decoded.text * decoded.matches)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(tiny_folder), str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == "The old sea, tired."
    assert run.stderr == ""


# ---- verify


def test_verify_says_yes_to_vectors_that_decode_and_reports_the_smallest_margin(
    tiny_lm: FrozenLM, crammed: CramResult
) -> None:
    ids = torch.tensor([crammed.token_ids])
    report = verify(tiny_lm, crammed.vectors, crammed.token_ids)
    assert report.lossless
    assert (report.correct_prefix, report.num_tokens) == (crammed.num_tokens, crammed.num_tokens)
    assert (report.device, report.dtype) == ("cpu", "float32")
    with torch.no_grad():
        smallest = margins(tiny_lm.text_logits(crammed.vectors.mem[None], ids), ids).min()
    assert report.min_margin == pytest.approx(float(smallest), abs=1e-3)


def test_verify_says_no_to_vectors_made_wrong_in_one_number(tiny_lm: FrozenLM, crammed: CramResult) -> None:
    """The number and its size are chosen so that the naive decoding changes; prefixes of several lengths are met."""
    prefixes = set()
    for place in range(0, 4 * tiny_lm.hidden_size, 16):
        for size in (1.0, 3.0, 30.0):
            mem = crammed.vectors.mem.clone()
            mem.view(-1)[place] += size
            expected = naive_greedy(tiny_lm, mem, crammed.num_tokens)
            if expected != crammed.token_ids:
                break
        report = verify(tiny_lm, _changed(crammed.vectors, mem=mem), crammed.token_ids)
        pairs = zip(expected, crammed.token_ids, strict=True)
        wrong = [n for n, (a, b) in enumerate(pairs) if a != b]
        assert not report.lossless
        assert report.correct_prefix == wrong[0]
        prefixes.add(wrong[0])
    assert len(prefixes) > 1


@pytest.mark.parametrize("position", [0, 1, -1])
def test_verify_says_no_to_a_text_other_in_one_token_token_0_too(
    tiny_lm: FrozenLM, crammed: CramResult, position: int
) -> None:
    ids = list(crammed.token_ids)
    ids[position] = (ids[position] + 1) % tiny_lm.vocab_size
    report = verify(tiny_lm, crammed.vectors, ids)
    assert not report.lossless
    assert report.correct_prefix == position % len(ids)


def test_verify_says_no_to_a_part_of_the_text_and_to_more_than_it(tiny_lm: FrozenLM, crammed: CramResult) -> None:
    ids = crammed.token_ids
    assert not verify(tiny_lm, crammed.vectors, ids[:-1]).lossless
    assert not verify(tiny_lm, crammed.vectors, [*ids, 0]).lossless
    assert not verify(tiny_lm, crammed.vectors, []).lossless


def test_verify_says_no_if_the_file_s_digest_or_length_is_another_text_s(
    tiny_lm: FrozenLM, crammed: CramResult
) -> None:
    ids = crammed.token_ids
    assert not verify(tiny_lm, _changed(crammed.vectors, token_sha256=token_digest([1])), ids).lossless
    assert not verify(tiny_lm, _changed(crammed.vectors, num_tokens=len(ids) + 1), ids).lossless


def test_verify_does_not_believe_what_the_file_says_of_itself(tiny_lm: FrozenLM, crammed: CramResult) -> None:
    drawn = _drawn(crammed.vectors, 4, 0, crammed.num_tokens)
    assert not verify(tiny_lm, _changed(drawn, verified=[{"lossless": True}]), crammed.token_ids).lossless


def test_verify_judges_the_numbers_that_are_downloaded(tiny_lm: FrozenLM, crammed: CramResult) -> None:
    """Rounded hard, the vectors no longer decode; the unrounded ones are not what is in the file."""
    mem = (crammed.vectors.mem * 1e-7).to(torch.float16)  # most of it below float16's smallest number
    report = verify(tiny_lm, _changed(crammed.vectors, mem=mem), crammed.token_ids)
    expected = naive_greedy(tiny_lm, mem.float(), crammed.num_tokens)
    assert not report.lossless
    assert expected[: report.correct_prefix] == crammed.token_ids[: report.correct_prefix]


# ---- vectors of another model

MISMATCH: dict[str, tuple[dict[str, Any], str]] = {
    "width": ({"mem": torch.zeros(1, 32)}, "of width 32, but tiny reads width 64"),
    "other model": (
        {"model_fingerprint": "0" * 64, "model_id": "pythia"},
        "made for pythia, not tiny. Pick that model",
    ),
    "unnamed model": ({"model_fingerprint": "0" * 64, "model_id": ""}, "made for another model, not tiny"),
    "same name": (
        {"model_fingerprint": "0" * 64},
        "made for tiny of that name, but with other weights. Get the version",
    ),
    "tokenizer": ({"tokenizer_fingerprint": "0" * 64}, "another tokenizer than the one of tiny"),
    "too long": ({"num_tokens": 125}, "says 125 tokens, but tiny holds at most 124"),
}


@pytest.mark.parametrize("case", MISMATCH)
def test_vectors_of_another_model_are_refused_before_they_reach_it(
    tiny_lm: FrozenLM, crammed: CramResult, case: str
) -> None:
    changes, sentence = MISMATCH[case]
    vectors = _changed(crammed.vectors, **changes)
    with pytest.raises(ModelMismatch, match=sentence):
        decode(tiny_lm, vectors)
    with pytest.raises(ModelMismatch, match=sentence):
        verify(tiny_lm, vectors, crammed.token_ids)


def test_vectors_side_by_side_are_right_as_far_as_each_alone(tiny_lm: FrozenLM, crammed: CramResult) -> None:
    mem = crammed.vectors.mem
    noise = torch.randn(3, *mem.shape, generator=torch.Generator().manual_seed(0))
    many = torch.cat([mem[None], mem + noise * torch.tensor([0.1, 0.5, 5.0])[:, None, None]])
    found = greedy_prefixes(tiny_lm, many, crammed.token_ids)
    assert found == [greedy_prefix(tiny_lm, each, crammed.token_ids)[0] for each in many]
    assert found[0] == crammed.num_tokens > found[-1]


def test_a_vector_that_went_wrong_stays_wrong(tiny_lm: FrozenLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where it says the right token again, while another vector goes on."""
    said = torch.tensor([[5, 6, 7, 8], [5, 0, 7, 8], [0, 6, 0, 8]])  # (B, N)
    scripted = iter(torch.nn.functional.one_hot(said, 9).float().transpose(0, 1))
    monkeypatch.setattr(importlib.import_module("cramdemo.decode"), "_greedy", lambda lm, mem, num_tokens: scripted)
    assert greedy_prefixes(tiny_lm, torch.zeros(3, 1, 64), [5, 6, 7, 8]) == [4, 1, 0]
