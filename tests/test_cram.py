"""The engine's laws: what is returned is what was scored, nothing found is lost, and a seed says it all."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count, cycle, pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cramdemo import (
    ConfigError,
    CramConfig,
    CramResult,
    FrozenLM,
    ModelError,
    Progress,
    TextError,
    cram,
    decode,
    load_model,
    run_cram,
    verify,
)
from cramdemo.cram import initial_vectors, judge
from cramdemo.metrics import cross_entropy_bits, margins, solved_prefix
from cramdemo.objective import boosted
from cramdemo.optimiser import ADAM_BETAS, ADAM_EPS, OPTIMISERS
from cramdemo.vectors import from_bytes, to_bytes

ENGINE: Any = importlib.import_module("cramdemo.cram")  # the name in the package is the function
EASY = "The old sea"
HARD = list(range(5, 295, 7))  # 42 tokens that a few steps cannot put into one vector
Items = tuple[list[Progress], CramResult]


def _split(items: Iterator[Progress | CramResult]) -> Items:
    *progress, result = items
    assert isinstance(result, CramResult)
    assert all(isinstance(p, Progress) for p in progress)
    return [p for p in progress if isinstance(p, Progress)], result


def _after(looks: int) -> Callable[[], bool]:
    """A Stop that is pressed at the given look, counted from 0."""
    counter = count()
    return lambda: next(counter) >= looks


class _Faulty(FrozenLM):
    """The tiny model with something wrong at one training step."""

    def __init__(self, lm: FrozenLM, call: int, fault: Callable[[Tensor], Tensor]) -> None:
        super().__init__(lm.name, lm.model, lm.tokenizer, fingerprint=lm.fingerprint)
        self.call = -1
        assert self.linear_head is not None  # looked at now, since that is a call too
        self.calls, self.call, self.fault = count(), call, fault

    def text_hidden(self, mem: Tensor, token_ids: Tensor, wanted: Tensor | None = None) -> Tensor:
        hidden = super().text_hidden(mem, token_ids, wanted)
        return self.fault(hidden) if self.call >= 0 and next(self.calls) == self.call else hidden


def _out_of_memory(_: Tensor) -> Tensor:
    raise torch.OutOfMemoryError("CUDA out of memory: tried to allocate 2 GiB")


# ---- what is returned is what was scored


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_mem": 3},
        {"growth": 0},
        {"growth": 4},
        {"restarts": 3},
        {"temperature": 0.5},
        {"learning_rate": 3.0},
        {"optimizer": "whitened"},
    ],
    ids=str,
)
def test_returned_vectors_score_exactly_what_the_result_claims(tiny_lm: FrozenLM, settings: dict[str, Any]) -> None:
    result = run_cram(tiny_lm, HARD, CramConfig(steps=25, **settings))
    ids = torch.tensor([HARD])
    with torch.no_grad():
        logits = tiny_lm.text_logits(result.vectors.mem[None], ids)
    assert float(cross_entropy_bits(logits, ids).double().sum()) == result.total_bits
    assert torch.equal(margins(logits, ids)[0], result.token_margins)
    assert torch.equal(logits[0].argmax(-1) == ids[0], result.token_correct)
    assert result.vectors.metrics["total_bits"] == result.total_bits
    assert result.vectors.metrics["accuracy"] == result.accuracy


@pytest.mark.parametrize("settings", [{}, {"num_mem": 2}, {"restarts": 3}, {"learning_rate": 3.0}], ids=str)
@pytest.mark.usefixtures("every_step")
def test_the_result_is_the_best_that_was_seen(tiny_lm: FrozenLM, settings: dict[str, Any]) -> None:
    """More right tokens first, then fewer bits. At a learning rate of 3 the best is not the last by far."""
    progress, result = _split(cram(tiny_lm, HARD, CramConfig(steps=40, growth=0, **settings)))
    seen = [point for p in progress for point in p.curve]
    assert [step for step, _, _ in seen] == list(range(41))
    most = max(accuracy for _, _, accuracy in seen)
    fewest = min(bits for _, bits, accuracy in seen if accuracy == most)
    assert result.accuracy == pytest.approx(most, abs=1e-6)
    assert result.total_bits / len(HARD) == pytest.approx(fewest, rel=1e-5)
    assert progress[-1].best_total == int(result.token_correct.sum())
    assert progress[-1].best_prefix == int(solved_prefix(result.token_correct))


def test_a_run_stopped_at_its_first_look_returns_the_vectors_it_scored_not_updated_ones(tiny_lm: FrozenLM) -> None:
    """The published code copies the vectors one update after their score."""
    config = CramConfig(num_mem=2, growth=0, learning_rate=1.0, init="embedding")
    (first,), result = _split(cram(tiny_lm, HARD, config, stop=lambda: True))
    assert torch.equal(result.vectors.mem, initial_vectors(tiny_lm, torch.tensor([HARD]), config)[0])
    assert result.total_bits / len(HARD) == pytest.approx(first.loss_bits, rel=1e-5)
    assert (first.step, result.steps, result.reason) == (0, 0, "stopped")


def test_the_encoder_alone_is_scored_without_optimisation(built_in: FrozenLM, tiny_lm: FrozenLM) -> None:
    text = "Ratty and the old sea captain went to town, and nobody knew what had become of the boat they left behind."
    result = run_cram(built_in, text, CramConfig(init="embedding", steps=3))
    ids = torch.tensor([built_in.tokenize(text)])
    predicted = built_in.text_logits(built_in.encode(ids, 1), ids).argmax(-1)
    wrong = (predicted != ids)[0].nonzero()
    assert result.encoder_prefix == int(wrong[0]) < result.num_tokens
    assert result.summary()["encoder_prefix"] == result.encoder_prefix

    assert built_in.encoder is not None
    beyond = run_cram(built_in, text, CramConfig(num_mem=built_in.encoder.max_mem + 1, steps=1))
    assert beyond.encoder_prefix is None
    assert run_cram(tiny_lm, [1, 2], CramConfig(steps=1)).encoder_prefix is None


def test_the_result_s_figures_are_those_of_its_definitions(tiny_lm: FrozenLM) -> None:
    result = run_cram(tiny_lm, HARD, CramConfig(num_mem=2, steps=10))
    ids = torch.tensor([HARD])
    bare = tiny_lm.bare_logits(ids)
    h_lm = float(cross_entropy_bits(bare, ids[:, 1:]).double().sum())
    bare_correct = int((bare.argmax(-1) == ids[:, 1:]).sum())
    assert result.h_lm_bits == pytest.approx(h_lm)
    assert result.information_gain_bits == pytest.approx(h_lm - float(result.token_bits[1:].double().sum()))
    assert result.token_gain == int(result.token_correct[1:].sum()) - bare_correct
    assert result.theoretical_capacity == pytest.approx(2 * 64 * 16 / math.log2(300))
    assert result.utilisation == result.token_gain / result.theoretical_capacity
    assert result.accuracy == pytest.approx(result.marks.count("1") / len(HARD))
    assert result.vectors.num_bytes == 2 * 64 * 4
    json.dumps(result.summary(), allow_nan=False)


# ---- token 0 counts


def _vectors_right_but_for_token_0(lm: FrozenLM, ids: Sequence[int], other: int) -> Tensor:
    """(1, 4, d) that say `other` for token 0 and, given the text so far, every later token rightly."""
    text, wanted = torch.tensor([ids]), torch.tensor([[other, *ids[1:]]])
    mem = (0.1 * torch.randn(1, 4, lm.hidden_size, generator=torch.Generator().manual_seed(0))).requires_grad_(True)
    optimizer = torch.optim.Adam([mem], lr=0.05)
    for _ in range(200):
        logits = lm.text_logits(mem, text)
        loss = F.cross_entropy(logits[0], wanted[0]) + F.relu(3 - margins(logits, wanted)).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    return mem.detach()


def test_a_vector_that_misses_only_token_0_is_neither_solved_nor_lossless(
    tiny_lm: FrozenLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The published code drops the last [mem] position's logits, so it would call this text exact."""
    ids = [40, 90, 150, 210]
    mem = _vectors_right_but_for_token_0(tiny_lm, ids, other=7)
    monkeypatch.setattr(ENGINE, "initial_vectors", lambda *_: mem.clone())
    config = CramConfig(num_mem=4, steps=2, learning_rate=1e-6, growth=0, margin=0.5)
    progress, result = _split(cram(tiny_lm, ids, config))
    assert (progress[0].solved_prefix, progress[0].solved_total, progress[0].marks) == (0, 3, "0111")
    assert (result.reason, result.lossless, result.accuracy) == ("steps", False, 0.75)
    assert result.verification.correct_prefix == 0
    assert run_cram(tiny_lm, [7, *ids[1:]], config).token_correct[0]


def test_a_text_of_one_token_is_trained_and_decoded(tiny_lm: FrozenLM) -> None:
    result = run_cram(tiny_lm, [123], CramConfig(steps=200))
    assert (result.reason, result.lossless) == ("solved", True)
    assert (result.h_lm_bits, result.information_gain_bits, result.token_gain) == (0, 0, 0)
    assert decode(tiny_lm, result.vectors).token_ids == [123]


# ---- solved means lossless


@pytest.mark.parametrize("seed", range(4))
def test_a_solved_run_is_lossless_by_the_margin_asked_for(tiny_lm: FrozenLM, seed: int) -> None:
    config = CramConfig(num_mem=2, steps=500, margin=0.25, seed=seed)
    result = run_cram(tiny_lm, EASY, config)
    assert result.reason == "solved"
    assert result.lossless
    assert result.min_margin >= 0.25 - 1e-4
    assert result.verification == verify(tiny_lm, result.vectors, result.token_ids)
    assert result.vectors.verified == [result.verification.as_dict()]
    assert decode(tiny_lm, result.vectors).text == EASY


def test_a_solved_run_is_decoded_once(tiny_lm: FrozenLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof that ends the run is the one in the result; for short texts decoding is most of the time."""
    calls = []

    def counted(*arguments: Any, **settings: Any) -> Any:
        calls.append(arguments)
        return verify(*arguments, **settings)

    monkeypatch.setattr(ENGINE, "verify", counted)
    result = run_cram(tiny_lm, EASY, CramConfig(num_mem=2, steps=500, margin=0.25))
    assert result.lossless and result.reason == "solved"
    assert len(calls) == 1


def test_steps_in_bfloat16_are_verified_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    lm = load_model(device="cpu")
    text = "The old man and the sea were tired of the other men."
    result = run_cram(lm, text, CramConfig(init="embedding", steps=300))
    assert result.vectors.dtype_trained == "bfloat16"
    assert [check.dtype for check in result.verifications] == ["float32"]
    assert result.lossless and decode(lm, result.vectors).text == text


@pytest.mark.parametrize(("settings", "encoded"), [({}, 1), ({"init": "embedding"}, 0), ({"restarts": 3}, 1)])
def test_flops_are_those_of_encoder_steps_and_decoding(
    built_in: FrozenLM, settings: dict[str, Any], encoded: int
) -> None:
    """Not solved within a step: one token is decoded, the wrong one."""
    ids = HARD * 3
    config = CramConfig(num_mem=2, steps=2, learning_rate=1e-6, growth=0, **settings)
    progress, result = _split(cram(built_in, ids, config))
    count, judged = built_in.flops, min(result.verification.correct_prefix + 1, len(ids))
    update = OPTIMISERS[built_in.defaults.optimizer](torch.zeros(1, 2, built_in.hidden_size)).flops
    a_step = count.step(2 + len(ids) - 1, len(ids)) + update
    steps = 3 * settings.get("restarts", 1) * a_step  # the last is scored as well
    decoding = count.forward(2 + judged - 1, judged)
    spent = steps + encoded * built_in.encode_flops(len(ids), 2)
    assert progress[-1].flops == spent
    assert result.flops == result.summary()["flops"] == spent + decoding


def test_a_run_is_not_solved_while_decoding_says_no(tiny_lm: FrozenLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exact under teacher forcing is not lossless: refused by the decoder, the run goes on for a larger margin."""
    answers = count()

    def refused_once(*arguments: Any, **settings: Any) -> Any:
        report = verify(*arguments, **settings)
        return dataclasses.replace(report, lossless=report.lossless and next(answers) > 0)

    monkeypatch.setattr(ENGINE, "verify", refused_once)
    config = CramConfig(num_mem=2, steps=800, margin=0.25)
    result = run_cram(tiny_lm, EASY, config)
    assert (result.reason, result.lossless) == ("solved", True)
    assert result.min_margin > 0.5 - 1e-4

    monkeypatch.setattr(ENGINE, "verify", lambda *a, **k: dataclasses.replace(verify(*a, **k), lossless=False))
    never = run_cram(tiny_lm, EASY, dataclasses.replace(config, steps=300))
    assert (never.reason, never.lossless) == ("steps", False)
    assert never.accuracy == 1.0


# ---- given vectors


def test_a_run_from_given_vectors_goes_on_from_them_and_never_falls_behind(tiny_lm: FrozenLM) -> None:
    config = CramConfig(num_mem=2, steps=60, growth=4)
    half = run_cram(tiny_lm, HARD, dataclasses.replace(config, growth=0))
    kept = half.vectors.mem.clone()
    (first,), stopped = _split(cram(tiny_lm, HARD, config, stop=lambda: True, start=half.vectors.mem))
    assert torch.equal(stopped.vectors.mem, kept) and first.solved_total == int(half.token_correct.sum())
    _, wild = _split(cram(tiny_lm, HARD, dataclasses.replace(config, learning_rate=3.0), start=half.vectors.mem))
    assert int(wild.token_correct.sum()) >= int(half.token_correct.sum())
    assert torch.equal(half.vectors.mem, kept), "the vectors given were changed"
    assert (half.vectors.config["init"], stopped.vectors.config["init"]) == ("auto", "given")


def test_only_the_first_restart_starts_from_the_given_vectors(tiny_lm: FrozenLM) -> None:
    config = CramConfig(num_mem=2, steps=1, restarts=2)
    good = run_cram(tiny_lm, EASY, CramConfig(num_mem=2, steps=500)).vectors.mem
    found = ENGINE._Run(tiny_lm, tiny_lm.tokenize(EASY), config.filled(tiny_lm), good).mem
    assert torch.equal(found[0], good)
    assert torch.equal(found[1], initial_vectors(tiny_lm, torch.tensor([[1]]), config)[1])


def test_the_encoder_is_not_paid_for_where_it_is_not_asked(built_in: FrozenLM) -> None:
    config = CramConfig(num_mem=2, steps=1).filled(built_in)
    start = torch.zeros(2, built_in.hidden_size)
    without = ENGINE._Run(built_in, HARD, config).flops
    assert (ENGINE._Run(built_in, HARD, config, start).flops, without) == (0, built_in.encode_flops(len(HARD), 2))


@pytest.mark.parametrize(
    ("start", "sentence"),
    [
        (torch.zeros(1, 64), r"start has shape \(1, 64\); with 2 memory tokens .* starts from \(2, 64\) numbers"),
        (torch.zeros(2, 63), r"start has shape \(2, 63\)"),
        (torch.zeros(1, 2, 64), r"start has shape \(1, 2, 64\)"),
        (torch.full((2, 64), math.nan), "not finite"),
    ],
)
def test_vectors_that_cannot_be_a_start_are_refused_at_once(tiny_lm: FrozenLM, start: Tensor, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        cram(tiny_lm, EASY, CramConfig(num_mem=2), start=start)


# ---- what is told of each token


@pytest.mark.parametrize("settings", [{"growth": 4}, {"growth": 0, "restarts": 3}], ids=str)
@pytest.mark.usefixtures("every_step")
def test_a_token_is_dated_by_the_step_since_which_it_is_right(tiny_lm: FrozenLM, settings: dict[str, Any]) -> None:
    progress, _ = _split(cram(tiny_lm, EASY, CramConfig(num_mem=2, steps=80, margin=3.0, **settings)))
    since = [-1] * len(progress[0].marks)
    for p in progress:
        since = [-1 if mark == "0" else p.step if was < 0 else was for mark, was in zip(p.marks, since, strict=True)]
        assert list(p.solved_at) == since
    assert max(since) > 0 and len(set(since)) > 2


@pytest.mark.usefixtures("every_step")
def test_the_model_s_own_word_is_told_of_every_trained_token(tiny_lm: FrozenLM) -> None:
    config = CramConfig(num_mem=2, growth=8, init="embedding")
    (first,), result = _split(cram(tiny_lm, HARD, config, stop=lambda: True))
    ids = torch.tensor([HARD])
    said = tiny_lm.text_logits(initial_vectors(tiny_lm, ids, config), ids)[0].argmax(-1)
    assert first.trained_tokens == 16 and list(first.predicted) == said[:16].tolist()
    assert torch.equal(result.token_predicted, said)
    assert [a == b for a, b in zip(said.tolist(), HARD, strict=True)] == result.token_correct.tolist()


@pytest.mark.usefixtures("every_step")
def test_patience_ends_a_run_that_gains_nothing_and_no_other(tiny_lm: FrozenLM) -> None:
    config = CramConfig(steps=400, growth=0, patience=30)
    progress, result = _split(cram(tiny_lm, HARD, config))
    gains = [p.step for before, p in pairwise(progress) if p.best_total > before.best_total]
    assert (result.reason, result.steps) == ("patience", max(gains) + 30)
    assert run_cram(tiny_lm, EASY, CramConfig(num_mem=2, steps=500, patience=30)).reason == "solved"


# ---- a seed says it all


CONFIG = CramConfig(num_mem=2, steps=12, seed=3, growth=8)


@pytest.fixture(scope="module")
def reference(tiny_lm: FrozenLM) -> bytes:
    """The file's bytes of a short run on the main thread."""
    return to_bytes(run_cram(tiny_lm, HARD, CONFIG).vectors)


def test_the_same_seed_and_steps_are_the_same_file(tiny_lm: FrozenLM, reference: bytes) -> None:
    assert to_bytes(run_cram(tiny_lm, HARD, CONFIG).vectors) == reference


def test_another_thread_makes_the_same_file(tiny_lm: FrozenLM, reference: bytes) -> None:
    with ThreadPoolExecutor(1) as pool:
        assert to_bytes(pool.submit(run_cram, tiny_lm, HARD, CONFIG).result().vectors) == reference


def test_the_built_in_model_makes_the_same_file_on_any_thread(built_in: FrozenLM) -> None:
    """Whitened updates and steps in bfloat16, where the machine has them."""
    config = CramConfig.for_model(built_in, init="embedding", steps=12)
    expected = to_bytes(run_cram(built_in, HARD, config).vectors)
    with ThreadPoolExecutor(1) as pool:
        assert to_bytes(pool.submit(run_cram, built_in, HARD, config).result().vectors) == expected


@pytest.mark.usefixtures("every_step")
def test_a_run_handed_from_thread_to_thread_makes_the_same_file(tiny_lm: FrozenLM, reference: bytes) -> None:
    """As Gradio drives generators; gradients are switched on and off a thread at a time."""
    items = cram(tiny_lm, HARD, CONFIG)
    with ExitStack() as stack:
        threads = cycle([stack.enter_context(ThreadPoolExecutor(1)) for _ in range(3)])
        item: Progress | CramResult | None = None
        for thread in threads:
            item, last = thread.submit(next, items, None).result(), item
            if item is None:
                break
    assert isinstance(last, CramResult)
    assert to_bytes(last.vectors) == reference


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad])
@pytest.mark.usefixtures("every_step")
def test_the_driver_s_gradient_mode_neither_matters_nor_changes(
    tiny_lm: FrozenLM, reference: bytes, mode: Callable[[], Any]
) -> None:
    with mode():
        before, items = torch.is_grad_enabled(), []
        for item in cram(tiny_lm, HARD, CONFIG):
            assert torch.is_grad_enabled() == before
            items.append(item)
        assert torch.is_grad_enabled() == before
    assert to_bytes(_split(iter(items))[1].vectors) == reference


@pytest.mark.usefixtures("every_step")
def test_how_often_the_run_is_looked_at_does_not_matter(tiny_lm: FrozenLM, reference: bytes) -> None:
    assert to_bytes(run_cram(tiny_lm, HARD, CONFIG).vectors) == reference


def test_global_random_numbers_are_neither_used_nor_touched(tiny_lm: FrozenLM, reference: bytes) -> None:
    torch_before, np_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        torch.manual_seed(99)
        after_seeding = torch.get_rng_state()
        assert to_bytes(run_cram(tiny_lm, HARD, CONFIG).vectors) == reference
        assert torch.equal(torch.get_rng_state(), after_seeding)
        assert random.getstate() == python_state
        assert np.array_equal(np.random.get_state()[1], np_state[1])  # type: ignore[index]
    finally:
        torch.set_rng_state(torch_before)


@pytest.mark.parametrize(
    "change", [{"seed": 4}, {"steps": 11}, {"learning_rate": 0.05}, {"num_mem": 1}, {"optimizer": "whitened"}], ids=str
)
def test_another_setting_makes_other_vectors(tiny_lm: FrozenLM, reference: bytes, change: dict[str, Any]) -> None:
    """The vectors, not only the settings that stand beside them in the file."""
    other = run_cram(tiny_lm, HARD, dataclasses.replace(CONFIG, **change))
    assert not torch.equal(other.vectors.mem, from_bytes(reference).mem)


def test_seeds_differ_even_from_the_encoder_s_start(built_in: FrozenLM) -> None:
    ids = torch.tensor([built_in.tokenize("We were tired of the sea.")])
    first, second = (initial_vectors(built_in, ids, CramConfig(num_mem=2, seed=seed)) for seed in (0, 1))
    assert first.shape == (1, 2, built_in.hidden_size)
    assert not torch.equal(first, second)


# ---- stopping never loses work


@pytest.mark.parametrize("looks", [0, 1, 7, 30])
@pytest.mark.usefixtures("every_step")
def test_a_stopped_run_keeps_the_best_it_showed(tiny_lm: FrozenLM, looks: int) -> None:
    config = CramConfig(num_mem=2, steps=1000, growth=0, learning_rate=3.0)
    progress, result = _split(cram(tiny_lm, HARD, config, stop=_after(looks)))
    assert (result.reason, result.steps) == ("stopped", looks)
    assert int(result.token_correct.sum()) == progress[-1].best_total == max(p.best_total for p in progress)
    assert max(p.solved_total for p in progress) == progress[-1].best_total


def test_a_run_with_growth_keeps_at_least_the_tokens_it_showed(tiny_lm: FrozenLM) -> None:
    progress, result = _split(cram(tiny_lm, HARD, CramConfig(num_mem=4, steps=200, growth=1)))
    trained = [p.trained_tokens for p in progress]
    assert trained == sorted(trained)
    assert len(set(trained)) > 1
    assert all(len(p.marks) == len(HARD) == p.num_tokens for p in progress)
    assert int(result.token_correct.sum()) >= progress[-1].best_total


def test_a_deadline_ends_the_run_with_the_best_so_far(tiny_lm: FrozenLM) -> None:
    progress, result = _split(cram(tiny_lm, HARD, CramConfig(steps=100_000, seconds=0.1, growth=0)))
    assert result.reason == "seconds"
    assert 0 < result.steps < 100_000
    assert result.seconds >= 0.1
    assert int(result.token_correct.sum()) == progress[-1].best_total


@pytest.mark.parametrize("steps", [1, 2, 9])
def test_a_step_budget_is_kept_to_the_step_and_its_last_update_is_scored(tiny_lm: FrozenLM, steps: int) -> None:
    progress, result = _split(cram(tiny_lm, HARD, CramConfig(steps=steps)))
    assert (result.reason, result.steps) == ("steps", steps)
    assert [step for p in progress for step, _, _ in p.curve] == list(range(steps + 1))
    assert result.vectors.config["steps_done"] == steps


@pytest.mark.usefixtures("every_step")
def test_out_of_memory_keeps_the_best_so_far(tiny_lm: FrozenLM) -> None:
    progress, result = _split(cram(_Faulty(tiny_lm, 8, _out_of_memory), HARD, CramConfig(steps=50, growth=0)))
    assert (result.reason, result.steps) == ("memory", 8)
    assert int(result.token_correct.sum()) == progress[-1].best_total
    assert math.isfinite(result.total_bits)


def test_out_of_memory_at_the_first_step_is_one_sentence(tiny_lm: FrozenLM) -> None:
    with pytest.raises(ModelError, match="not enough memory for one step of tiny") as refused:
        run_cram(_Faulty(tiny_lm, 0, _out_of_memory), HARD, CramConfig(steps=5))
    assert "CUDA" not in str(refused.value)


@pytest.mark.usefixtures("every_step")
def test_a_run_that_diverges_keeps_the_best_before(tiny_lm: FrozenLM) -> None:
    faulty = _Faulty(tiny_lm, 8, lambda logits: logits * math.nan)
    progress, result = _split(cram(faulty, HARD, CramConfig(steps=50, growth=0)))
    assert (result.reason, result.steps) == ("diverged", 8)
    assert math.isfinite(result.total_bits)
    assert int(result.token_correct.sum()) == progress[-1].best_total


def test_one_restart_that_diverges_does_not_end_the_others(tiny_lm: FrozenLM) -> None:
    def spoil_the_second(logits: Tensor) -> Tensor:
        factor = torch.ones(3, 1, 1)
        factor[1] = math.nan
        return logits * factor

    config = CramConfig(num_mem=2, steps=20, growth=0, restarts=3)
    result = run_cram(_Faulty(tiny_lm, 4, spoil_the_second), HARD, config)
    assert (result.reason, result.steps) == ("steps", 20)
    assert math.isfinite(result.total_bits)


def test_restarts_are_as_good_as_the_first_of_them_alone(tiny_lm: FrozenLM) -> None:
    config = CramConfig(steps=30, growth=0)
    alone = run_cram(tiny_lm, HARD, config)
    among = run_cram(tiny_lm, HARD, dataclasses.replace(config, restarts=4))
    assert among.accuracy >= alone.accuracy
    assert among.vectors.mem.shape == (1, tiny_lm.hidden_size)


# ---- the optimiser


def _naive(lm: FrozenLM, ids: list[int], config: CramConfig, updates: int) -> tuple[list[float], list[Tensor]]:
    """Bits a token and vectors before each update, by torch's own Adam at a constant learning rate."""
    text = torch.tensor([ids])
    mem = initial_vectors(lm, text, config).clone().requires_grad_(True)
    optimizer = torch.optim.Adam([mem], lr=config.learning_rate or 0, betas=ADAM_BETAS, eps=ADAM_EPS)
    embeds = lm.model.get_input_embeddings().weight[text]
    bits, seen, weights = [], [], torch.ones(len(ids))
    for _ in range(updates + 1):
        logits = lm.model(inputs_embeds=torch.cat([mem, embeds], dim=1)).logits[0, config.num_mem - 1 : -1]
        right = logits[torch.arange(len(ids)), text[0]]
        rival = torch.where(F.one_hot(text[0], lm.vocab_size).bool(), -math.inf, logits).amax(-1)
        temperature, margin = config.temperature or 0, config.margin or 0
        nats = F.cross_entropy(logits / temperature, text[0], reduction="none") * temperature
        short = F.relu(margin - (right - rival))
        loss = (weights * (nats + short)).mean()
        if config.boost:
            weights = boosted(weights[None], (right - rival).detach()[None], margin=margin, rate=config.boost)[0]
        bits.append(float(F.cross_entropy(logits.detach(), text[0])) / math.log(2))
        seen.append(mem.detach()[0].clone())
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    return bits, seen


@pytest.mark.parametrize(
    "settings", [{"boost": 0.0}, {"num_mem": 3, "temperature": 0.5, "margin": 2.0}, {"boost": 0.2}], ids=str
)
@pytest.mark.usefixtures("every_step")
def test_the_engine_agrees_with_a_naive_loop_around_torch_s_adam(tiny_lm: FrozenLM, settings: dict[str, Any]) -> None:
    """Without warm-up, and so early in its budget that the schedule has not begun to fall."""
    config = CramConfig(steps=100_000, warmup_steps=0, growth=0, learning_rate=0.02, **settings).filled(tiny_lm)
    progress, result = _split(cram(tiny_lm, HARD, config, stop=_after(25)))
    bits, seen = _naive(tiny_lm, HARD, config, 25)
    found = [loss for p in progress for _, loss, _ in p.curve]
    torch.testing.assert_close(torch.tensor(found), torch.tensor(bits), rtol=1e-4, atol=1e-4)
    assert bits[-1] < bits[0] - 0.2
    assert min(float((result.vectors.mem - mem).abs().max()) for mem in seen) < 1e-4


def test_warm_up_makes_the_first_update_small(tiny_lm: FrozenLM) -> None:
    """Adam's first update is the learning rate in every number."""
    for warmup_steps in (0, 9):
        config = CramConfig(steps=100_000, warmup_steps=warmup_steps, growth=0, learning_rate=0.001)
        _, result = _split(cram(tiny_lm, HARD, config, stop=_after(1)))
        start = initial_vectors(tiny_lm, torch.tensor([HARD]), config)[0]
        assert float((result.vectors.mem - start).abs().max()) == pytest.approx(0.001 / (warmup_steps + 1), rel=0.01)


def test_no_weight_is_changed_by_a_run(tiny_lm: FrozenLM) -> None:
    before = {name: p.clone() for name, p in tiny_lm.model.named_parameters()}
    run_cram(tiny_lm, HARD, CramConfig(steps=5))
    assert all(torch.equal(p, before[name]) for name, p in tiny_lm.model.named_parameters())
    assert all(p.grad is None for p in tiny_lm.model.parameters())


# ---- tokens left out of a step


@pytest.fixture
def heavy_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the head were worth leaving tokens out for."""
    monkeypatch.setattr(ENGINE, "WORTHWHILE_HEAD", 0.0)
    monkeypatch.setattr("cramdemo.record.WELL_SOLVED", 0.0)


def _predictions(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...] | None]:
    """Fills with the tokens that each step predicts; None for all."""
    seen: list[tuple[int, ...] | None] = []
    real = ENGINE.score

    def noting(*arguments: Any, wanted: Tensor | None, **settings: Any) -> Any:
        seen.append(None if wanted is None else tuple(wanted.tolist()))
        return real(*arguments, wanted=wanted, **settings)

    monkeypatch.setattr(ENGINE, "score", noting)
    return seen


@pytest.mark.usefixtures("heavy_head")
def test_well_solved_tokens_are_left_out_but_looked_at_again(
    tiny_lm: FrozenLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = _predictions(monkeypatch)
    result = run_cram(tiny_lm, HARD, CramConfig(num_mem=8, steps=200, growth=0, margin=0.1))
    assert {len(step) for step in seen if step} - {len(HARD)}
    assert all(seen[step] is None for step in (*range(0, len(seen), ENGINE.LOOK_ALL_STEPS), len(seen) - 1))
    full = len(seen) * tiny_lm.flops.step(8 + len(HARD) - 1, len(HARD))
    assert result.flops < full


@pytest.mark.usefixtures("heavy_head", "every_step")
def test_what_is_kept_was_seen_whole(tiny_lm: FrozenLM, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _predictions(monkeypatch)
    progress, result = _split(cram(tiny_lm, EASY, CramConfig(num_mem=4, steps=400, growth=0, margin=0.1)))
    assert result.lossless
    assert any(seen)
    assert seen[-1] is None  # solved is said of all tokens at once
    for before, now in pairwise(progress):
        kept = (before.best_prefix, before.best_total) == (now.best_prefix, now.best_total)
        assert kept or seen[now.step] is None
    assert int(result.token_correct.sum()) == progress[-1].best_total


def test_a_light_head_is_not_worth_it(tiny_lm: FrozenLM, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _predictions(monkeypatch)
    run_cram(tiny_lm, HARD, CramConfig(num_mem=8, steps=200, growth=0, margin=0.1))
    assert not any(seen)


# ---- what is shown


def test_progress_comes_at_most_ten_times_a_second_and_leaves_no_step_out(
    tiny_lm: FrozenLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = count()
    monkeypatch.setattr(time, "perf_counter", lambda: 0.015 * next(clock))
    progress, result = _split(cram(tiny_lm, HARD, CramConfig(steps=60)))
    pauses = [b.seconds - a.seconds for a, b in pairwise(progress[:-1])]
    assert progress[0].step == 0
    assert min(pauses) >= 0.1 - 1e-9
    assert max(pauses) < 0.2
    assert [step for p in progress for step, _, _ in p.curve] == list(range(61))
    assert progress[-1].step == result.steps == 60


@pytest.mark.usefixtures("every_step")
def test_progress_agrees_with_itself(tiny_lm: FrozenLM) -> None:
    progress, _ = _split(cram(tiny_lm, EASY, CramConfig(num_mem=2, steps=100, growth=0)))
    for p in progress:
        assert p.solved_total == p.marks.count("1")
        assert p.solved_prefix == len(p.marks) - len(p.marks.lstrip("1"))
        assert p.accuracy == pytest.approx(p.solved_total / p.num_tokens)
        assert (p.min_margin > 0) == (p.solved_total == p.trained_tokens)
        assert p.curve[-1] == (p.step, p.loss_bits, p.accuracy)
        assert p.best_total >= p.solved_total


# ---- refused at once


@pytest.mark.parametrize(
    ("text", "settings", "error", "sentence"),
    [
        ("", {}, TextError, "The text is empty"),
        ([], {}, TextError, "The text is empty"),
        ("x" * 1_000_001, {}, TextError, "has 1,000,001 characters; at most 1,000,000 are taken"),
        ([1] * 128, {}, TextError, "has 128 tokens; with 1 memory token tiny takes at most 127"),
        ([1] * 125, {"num_mem": 4}, TextError, "has 125 tokens; with 4 memory tokens tiny takes at most 124"),
        ([1, 300], {}, TextError, "vocabulary of 300"),
        ([-1], {}, TextError, "vocabulary of 300"),
        ([1], {"precision": "bfloat16"}, ConfigError, "precision is 'bfloat16', but tiny was loaded in float32"),
        ([1], {"init": "encoder"}, ConfigError, "tiny has no memory encoder"),
    ],
)
def test_bad_input_is_refused_before_the_first_item_is_asked_for(
    tiny_lm: FrozenLM, text: Any, settings: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        cram(tiny_lm, text, CramConfig(**settings))


def test_the_longest_text_that_fits_can_be_crammed(tiny_lm: FrozenLM) -> None:
    result = run_cram(tiny_lm, [1] * 124, CramConfig(num_mem=4, steps=1))
    assert result.num_tokens == 124


def test_no_config_means_the_model_s_defaults(tiny_lm: FrozenLM) -> None:
    def first_vectors(config: CramConfig | None) -> bytes:
        _, result = _split(cram(tiny_lm, HARD, config, stop=_after(3)))
        return to_bytes(result.vectors)

    assert first_vectors(None) == first_vectors(CramConfig()) == first_vectors(CramConfig.for_model(tiny_lm))


@pytest.mark.usefixtures("every_step")
def test_best_vectors_are_told_first_last_and_now_and_then(tiny_lm: FrozenLM, monkeypatch: pytest.MonkeyPatch) -> None:
    config = CramConfig(num_mem=2, steps=40)
    monkeypatch.setattr(ENGINE, "BEST_SECONDS", 1e9)
    reports, result = _split(cram(tiny_lm, HARD, config))
    told = [(report.step, report.best.mem) for report in reports if report.best is not None]
    assert [step for step, _ in told] == [0, 40]
    assert torch.equal(told[-1][1], result.vectors.mem)
    monkeypatch.setattr(ENGINE, "BEST_SECONDS", 0.0)
    reports, _ = _split(cram(tiny_lm, HARD, config))
    told = [(report.step, report.best.mem) for report in reports if report.best is not None]
    assert len(told) > 2
    for (_, before), (_, after) in pairwise(told):
        assert not torch.equal(before, after), "told again although nothing was better"


@pytest.mark.usefixtures("every_step")
def test_told_vectors_are_copies_that_say_how_good_they_are(tiny_lm: FrozenLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ENGINE, "BEST_SECONDS", 0.0)
    reports, _ = _split(cram(tiny_lm, HARD, CramConfig(num_mem=2, steps=40)))
    for report in reports:
        if report.best is not None:
            margins_now = judge(tiny_lm, report.best, HARD, reason="cut off", steps=0, started=0.0).token_margins
            assert report.best.metrics == {"accuracy": report.best_total / len(HARD)}
            assert int((margins_now > 0).sum()) == report.best_total
            assert report.best.config["steps_done"] == report.step and report.best.verified == []


def test_judged_vectors_are_the_run_s_own_result(tiny_lm: FrozenLM) -> None:
    """A run that is cut off right before its end loses nothing but FLOPs that nobody counted."""
    (*_, last), result = _split(cram(tiny_lm, EASY, CramConfig(num_mem=4, steps=500)))
    assert last.best is not None
    started = time.perf_counter()
    judged = judge(tiny_lm, last.best, result.token_ids, reason=result.reason, steps=last.step, started=started)
    assert to_bytes(judged.vectors) == to_bytes(result.vectors)
    assert judged.summary() | {"seconds": 0, "flops": 0} == result.summary() | {"seconds": 0, "flops": 0}
    assert 0 < judged.flops < result.flops
