"""Honest bytes: nothing survives that was not decoded, and sizes are those of files and formulas."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import lzma
import math
import sys
import zlib
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from cramdemo import ConfigError, CramResult, FrozenLM, ModelMismatch, decode
from cramdemo.decode import greedy_prefix
from cramdemo.storage import (
    ALL_FORMATS,
    FORMATS,
    NOISE_LEVELS,
    NOISE_SEEDS,
    Weighed,
    bits_of,
    entropy_coded_bits,
    noise_points,
    positions,
    quantised,
    stored_as,
    text_sizes,
    weigh,
)
from cramdemo.vectors import MAX_BITS, MIN_BITS, from_bytes, to_bytes

TEXT = "The old sea, tired. The old sea, tired. Ünïcode."


@pytest.fixture(scope="module")
def states(tiny_lm: FrozenLM, crammed: CramResult) -> list[Weighed]:
    return list(weigh(tiny_lm, crammed.vectors))


# ---- quantising


@pytest.mark.parametrize("bits", [MIN_BITS, 3, 4, 8, MAX_BITS])
def test_the_searched_scale_is_never_worse_than_the_largest(crammed: CramResult, bits: int) -> None:
    mem = crammed.vectors.mem
    found = quantised(crammed.vectors, bits)
    form = found.quantised
    assert form is not None and torch.equal(found.mem, form.numbers)
    widest = mem.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 0.5)
    plain = ((mem / widest).floor().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) + 0.5) * widest
    assert (found.mem - mem).square().sum() <= (plain - mem).square().sum() * 1.0001
    within = (form.codes > 0) & (form.codes < 2**bits - 1)
    assert ((found.mem - mem).abs() <= form.scale[:, None] * 0.501)[within].all()


def test_more_bits_are_nearer(crammed: CramResult) -> None:
    errors = [
        float((quantised(crammed.vectors, n).mem - crammed.vectors.mem).square().sum()) for n in range(2, MAX_BITS + 1)
    ]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-5 < errors[0]


def test_two_bits_search_pays(crammed: CramResult) -> None:
    """With the largest scale, a vector with one far number would lose all others."""
    row = torch.ones(1, 64)
    row[0, 0] = 8.0
    found = quantised(dataclasses.replace(crammed.vectors, mem=row), 2)
    assert float((found.mem - row)[0, 1:].abs().max()) < 0.5


def test_a_vector_of_zeros_stays_one(crammed: CramResult) -> None:
    zeros = dataclasses.replace(crammed.vectors, mem=torch.zeros(2, 8))
    assert not from_bytes(to_bytes(quantised(zeros, 3))).mem.any()


@pytest.mark.parametrize("bits", [MIN_BITS - 1, MAX_BITS + 1])
def test_bits_out_of_range_are_refused(crammed: CramResult, bits: int) -> None:
    with pytest.raises(ConfigError, match="2 to 16 bits"):
        quantised(crammed.vectors, bits)


@pytest.mark.parametrize("name", ALL_FORMATS)
def test_a_format_claims_only_what_was_checked_in_it(crammed: CramResult, name: str) -> None:
    found = stored_as(crammed.vectors, name)
    assert found.number_format == name
    assert found.verified == [] and found.metrics == {}
    assert found.token_sha256 == crammed.vectors.token_sha256
    bits = crammed.vectors.mem.numel() * bits_of(name)
    assert found.num_bytes == bits // 8 + (4 * found.num_mem if name.startswith("int") else 0)


def test_a_quantised_file_decodes_like_any_other(tiny_lm: FrozenLM, crammed: CramResult) -> None:
    decoded = decode(tiny_lm, stored_as(crammed.vectors, "int12"))
    assert decoded.matches and decoded.text == "The old sea, tired."


# ---- the text


def test_sizes_of_a_text_are_those_of_the_compressors() -> None:
    sizes, raw = dict(text_sizes(TEXT)), TEXT.encode()
    assert sizes["UTF-8"] == len(raw) > len(TEXT)
    assert sizes["zlib"] == len(zlib.compress(raw, 9))
    assert sizes["xz"] <= len(lzma.compress(raw, preset=9))


def test_zstd_is_measured_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    made = SimpleNamespace(ZstdCompressor=lambda level: SimpleNamespace(compress=lambda raw: raw[:level]))
    monkeypatch.setitem(sys.modules, "zstandard", made)
    assert dict(text_sizes(TEXT))["zstd"] == 22
    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert "zstd" not in dict(text_sizes(TEXT))


def test_the_entropy_coder_pays_for_the_first_token_too(tiny_lm: FrozenLM, crammed: CramResult) -> None:
    assert entropy_coded_bits(torch.tensor([1.5, 2.5]), 256) == 12.0
    (first, *_) = weigh(tiny_lm, crammed.vectors)
    assert first.entropy_bits == pytest.approx(crammed.h_lm_bits + math.log2(tiny_lm.vocab_size), rel=1e-5)
    assert first.entropy_bytes == math.ceil(first.entropy_bits / 8)


# ---- weighing


def test_states_only_grow_and_the_last_one_has_everything(states: list[Weighed]) -> None:
    for one, later in itertools.pairwise(states):
        assert later.stored[: len(one.stored)] == one.stored and later.noise[: len(one.noise)] == one.noise
    last = states[-1]
    assert [each.name for each in last.stored] == list(ALL_FORMATS)
    assert [point.sigma for point in last.noise] == list(NOISE_LEVELS)
    assert last.ended and not any(state.ended for state in states[:-1])
    assert last.matches and last.texts[0] == ("UTF-8", len("The old sea, tired."))


def test_what_survives_and_where_it_breaks_is_what_greedy_decoding_says(
    states: list[Weighed], tiny_lm: FrozenLM, crammed: CramResult
) -> None:
    assert {each.survives for each in states[-1].stored} == {True, False}
    for each in states[-1].stored:
        prefix, _ = greedy_prefix(tiny_lm, stored_as(crammed.vectors, each.name).mem, crammed.token_ids)
        assert each.correct_prefix == prefix
        assert each.survives is (each.token_ids == crammed.token_ids)


def test_the_smallest_that_survives_is_a_verified_file(states: list[Weighed], tiny_lm: FrozenLM) -> None:
    smallest = states[-1].smallest
    assert smallest is not None
    assert smallest.num_bytes == min(each.num_bytes for each in states[-1].stored if each.survives)
    (check,) = smallest.verified
    assert check["lossless"] and check["dtype"] == "float32"
    assert decode(tiny_lm, from_bytes(to_bytes(smallest))).matches


def test_the_text_of_a_wrong_digest_is_what_it_decodes_to(tiny_lm: FrozenLM, crammed: CramResult) -> None:
    wrong = dataclasses.replace(crammed.vectors, token_sha256="0" * 64)
    first = next(iter(weigh(tiny_lm, wrong)))
    assert not first.matches and first.token_ids == crammed.token_ids


def test_vectors_of_another_model_are_refused(tiny_lm: FrozenLM, crammed: CramResult) -> None:
    with pytest.raises(ModelMismatch):
        next(iter(weigh(tiny_lm, dataclasses.replace(crammed.vectors, model_fingerprint="0" * 64))))


def test_numbers_that_a_format_cannot_hold_leave_it_out(tiny_lm: FrozenLM, crammed: CramResult) -> None:
    large = dataclasses.replace(crammed.vectors, mem=crammed.vectors.mem * 1e6)
    *_, last = weigh(tiny_lm, large)
    assert {each.name for each in last.stored} == set(ALL_FORMATS) - {"float16"}
    assert last.ended


@pytest.mark.parametrize("tokens", [1, 40])
def test_stop_keeps_what_is_known(tiny_lm: FrozenLM, crammed: CramResult, tokens: int) -> None:
    asked = iter(range(10_000))
    found = list(weigh(tiny_lm, crammed.vectors, lambda: next(asked) >= tokens))
    assert not any(state.ended for state in found)
    assert len(found) == 0 if tokens < crammed.num_tokens else 0 < len(found[-1].stored) < len(FORMATS)


# ---- noise


def test_noise_is_in_units_of_each_vector_and_the_same_for_a_seed(
    tiny_lm: FrozenLM, crammed: CramResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    storage = importlib.import_module("cramdemo.storage")
    real = storage._under_noise
    monkeypatch.setattr(storage, "_under_noise", lambda lm, noisy, ids: seen.append(noisy) or real(lm, noisy, ids))
    mem = crammed.vectors.mem * torch.tensor([1.0, 10.0, 1.0, 1.0])[:, None]
    *_, points = noise_points(tiny_lm, mem, crammed.token_ids, levels=(0.5, 1.0), seeds=3)
    added = torch.cat(seen) - mem  # (6, K, d)
    assert torch.allclose(2 * added[:3], added[3:], rtol=1e-3, atol=1e-4)
    size = added[3:].square().mean((0, 2)).sqrt() / mem.square().mean(-1).sqrt()
    assert torch.allclose(size, torch.ones(4), atol=0.2)
    assert [len(point.accuracies) for point in points] == [3, 3]


def test_exact_under_noise_is_what_decoding_says(tiny_lm: FrozenLM, crammed: CramResult, states: list[Weighed]) -> None:
    points = states[-1].noise
    assert points[0].exact == NOISE_SEEDS and points[0].accuracy == 1.0
    assert points[-1].exact == 0 and points[-1].accuracy < 0.9
    mem, size = crammed.vectors.mem, crammed.vectors.mem.square().mean(-1, keepdim=True).sqrt()
    for point in points:
        draws = [torch.randn(mem.shape, generator=torch.Generator().manual_seed(seed)) for seed in range(NOISE_SEEDS)]
        prefixes = [greedy_prefix(tiny_lm, mem + point.sigma * size * draw, crammed.token_ids)[0] for draw in draws]
        assert point.exact == prefixes.count(crammed.num_tokens)


def test_small_batches_give_the_same_points(
    tiny_lm: FrozenLM, crammed: CramResult, states: list[Weighed], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cramdemo.storage.NUMBERS_AT_ONCE", 1)
    found = list(noise_points(tiny_lm, crammed.vectors.mem, crammed.token_ids))
    assert [len(points) for points in found] == list(range(1, len(NOISE_LEVELS) + 1))
    assert [point.exact for point in found[-1]] == [point.exact for point in states[-1].noise]


# ---- positions


@pytest.mark.parametrize("family", ["Llama, tied", "GPT-2", "GPT-NeoX", "OPT, projected", "OLMo", "Qwen3", "Gemma 3"])
def test_the_cache_is_as_large_as_the_one_that_a_model_keeps(family_lm: Callable[[str], FrozenLM], family: str) -> None:
    lm, count = family_lm(family), 4
    with torch.no_grad():
        cache = lm.model(input_ids=torch.arange(count)[None], use_cache=True).past_key_values
    kept = sum(part.nbytes for layer in cache.layers for part in (layer.keys, layer.values))
    assert positions(lm, count).cache_bytes == kept


def test_attention_of_one_more_token_looks_back_at_every_position(tiny_lm: FrozenLM) -> None:
    """Layers, heads and head width of the tiny model: 2, 4 and 16."""
    assert positions(tiny_lm, 10).attention_flops == 4 * 2 * 4 * 16 * 10


def test_a_model_without_attention_has_no_cache(family_lm: Callable[[str], FrozenLM]) -> None:
    found = positions(family_lm("Mamba"), 10)
    assert found.cache_bytes is None and found.attention_flops == 0


def test_layers_with_a_window_keep_no_more_than_it(family_lm: Callable[[str], FrozenLM]) -> None:
    lm = family_lm("Gemma 3, window")
    window = lm.flops.window
    grown = [positions(lm, count) for count in (window, window + 10, window + 20)]
    caches = [each.cache_bytes or 0 for each in grown]
    assert caches[1] - caches[0] == caches[2] - caches[1] == caches[0] * 10 // window // 2  # one layer of two goes on
    assert grown[2].attention_flops < 2 * grown[0].attention_flops * (window + 20) / window
