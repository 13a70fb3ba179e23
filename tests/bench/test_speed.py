"""Rates are steps over seconds, shares are FLOPs over the peak, and what is not run says why."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from cramdemo.bench import Asked, speed
from cramdemo.bench.recipes import Found, Recipe
from cramdemo.bench.speed import Cell, Machine, Shape, Sides
from cramdemo.config import CramConfig
from cramdemo.cram import Progress, cram
from cramdemo.errors import ConfigError, CramError
from cramdemo.models import FrozenLM
from cramdemo.placement import cpu_multiplies_bfloat16

TINY = Shape(
    "Tiny",
    {
        "model_type": "llama",
        "vocab_size": 300,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 128,
        "max_position_embeddings": 128,
        "tie_word_embeddings": True,
    },
    positions=(8, 16),
)
TINY_PARAMETERS = 300 * 64 + 2 * (64 * (64 + 32 + 32 + 64) + 3 * 64 * 128 + 2 * 64) + 64
HUGE = Shape("Huge", None, gpu_only=True)


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither here nor in new processes."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two shapes, a few sizes and moments instead of seconds."""
    small = {
        "SHAPES": (TINY, HUGE),
        "BATCHES": (1, 2),
        "HALF_SOLVED_POSITIONS": 32,
        "PRODUCTS": ((32, 32, 32), (64, 64, 64)),
        "MEASURED_SECONDS": 0.02,
        "PRODUCT_SECONDS": 0.001,
        "MEMORY_SHAPES": ("Tiny",),
        "MEMORY_POSITIONS": 64,
    }
    for name, value in small.items():
        monkeypatch.setattr(speed, name, value)


@pytest.fixture
def tiny() -> FrozenLM:
    return speed.shape_lm(TINY)


def _machine(peak: float = 1e15, memory: int = 10**12) -> Machine:
    return Machine(torch.device("cpu"), memory, {torch.float32: peak, torch.bfloat16: 2 * peak})


def _progress(step: int, seconds: float) -> Progress:
    return Progress(step, seconds, 1.0, 0.5, 0, 4, 8, 8, 0.0, "", 0, 4, ())


@pytest.mark.usefixtures("_small", "every_step")
def test_the_report_has_peaks_then_every_cell_then_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "memory_row", lambda shape, side: {"figure": f"{shape.name}, {side}", "value": 1.0})
    told: list[dict[str, Any]] = []
    report = speed.bench_speed(Asked([]), told.append)
    assert report["rows"] == told
    figures = [row["figure"] for row in told]
    peaks = [figure for figure in figures if "matrix products" in figure]
    assert figures[: len(peaks)] == peaks
    assert figures[len(peaks) :] == [
        "Tiny, 8 positions, batch 1",
        "Tiny, 8 positions, batch 2",
        "Tiny, 16 positions, batch 1",
        "Tiny, 16 positions, batch 2",
        "Tiny, 32 positions, batch 1, half solved",
        "Huge",
        "Tiny, ours",
        "Tiny, naive",
    ]
    rows = dict(zip(figures, told, strict=True))
    assert rows["Huge"]["value"] == "not run: it needs a GPU, and there is none"
    for row in told[len(peaks) : len(peaks) + 5]:
        assert row["value"] == pytest.approx(row["ours_steps_per_second"] / row["naive_steps_per_second"], abs=0.01)
    assert {row["solved_at_first"] for row in told[len(peaks) : len(peaks) + 4]} <= {"0 of 8", "0 of 16", "1 of 16"}
    assert 12 <= int(rows["Tiny, 32 positions, batch 1, half solved"]["solved_at_first"].split()[0]) <= 18
    json.dumps(report, allow_nan=False)


@pytest.mark.usefixtures("_small")
def test_shares_are_flops_times_rate_over_the_peak_of_the_dtype(
    tiny: FrozenLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "our_rate", lambda lm, ids, config: (30.0, 0))
    monkeypatch.setattr(speed, "naive_rate", lambda lm, texts: 12.0)
    step, naive_step = 2 * tiny.flops.step(16, 16), 2 * tiny.flops.step(17, 17)
    machine = Machine(torch.device("cpu"), 10**12, {torch.float32: 24.0 * naive_step, torch.bfloat16: 120.0 * step})
    tiny.step_dtype = torch.bfloat16
    row = Sides(machine, tiny, tiny).row(Cell(16, 2))
    assert (row["value"], row["ours_steps_per_second"], row["naive_steps_per_second"]) == (2.5, 30.0, 12.0)
    assert (row["share_of_peak"], row["naive_share_of_peak"]) == (0.25, 0.5)
    assert (row["dtype"], row["naive_dtype"]) == ("bfloat16", "float32")


def test_a_cell_that_would_take_too_long_or_too_much_is_a_row_with_the_reason(tiny: FrozenLM) -> None:
    cell = Cell(16, 8)
    slow = _machine(peak=tiny.flops.step(17, 17) * 8 / 3.2)
    row = Sides(slow, tiny, tiny).row(cell)
    assert row["figure"] == "Tiny, 16 positions, batch 8"
    assert row["value"] == "not run: a step of the published loop takes at least 3.2 s, more than 3"
    logits = 8 * 17 * 300 * 4 * 4
    full = Sides(_machine(memory=2 * logits - 2), tiny, tiny).row(cell)["value"]
    assert full == "not run: the published loop's logits take 0.0 GB, more than half of the memory"
    assert Sides(_machine(memory=2 * logits), tiny, tiny).too_large(cell) == ""


def test_a_cell_that_fails_does_not_end_the_benchmark(tiny: FrozenLM, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(lm: FrozenLM, ids: list[int], config: CramConfig) -> tuple[float, int]:
        raise torch.OutOfMemoryError("Tried to allocate 80 GiB.\nDetails.")

    monkeypatch.setattr(speed, "our_rate", fail)
    row = Sides(_machine(), tiny, tiny).row(Cell(16, 1))
    assert row["value"] == "not run to its end: Tried to allocate 80 GiB."


def test_our_rate_leaves_the_first_steps_out_and_lets_go_of_the_run(
    tiny: FrozenLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []

    def run(lm: FrozenLM, ids: list[int], config: CramConfig) -> Iterator[Progress]:
        step = 0
        try:
            for step in range(1000):
                yield _progress(step, 60.0 + 0.25 * step if step else 0.0)  # a minute to warm up, then 4 steps a second
        finally:
            ended.append(step)

    monkeypatch.setattr(speed, "cram", run)
    rate, solved = speed.our_rate(tiny, [1] * 8, speed.our_config(1))
    assert rate == pytest.approx(4)
    assert solved == 4
    assert ended == [speed.WARMUP_STEPS + int(4 * speed.MEASURED_SECONDS)]


def test_our_side_is_the_whole_text_with_the_batch_as_restarts() -> None:
    config = speed.our_config(8)
    assert (config.num_mem, config.restarts, config.growth, config.init) == (1, 8, 0, "embedding")


def test_a_run_that_ends_by_itself_is_not_timed(tiny_lm: FrozenLM, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = CramConfig(num_mem=1, steps=1, growth=0, init="embedding")
    with pytest.raises(CramError, match="ended before it was timed"):
        speed.our_rate(tiny_lm, [1, 2, 3], quick)


def test_the_naive_rate_is_of_a_run_long_enough_and_not_of_the_warm_up(
    tiny: FrozenLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, ran = [0.0], []

    def run(lm: FrozenLM, texts: Tensor, recipe: Recipe) -> list[Found]:
        assert (recipe.hidden_states, recipe.patience, recipe.growth) == (True, None, 0)
        clock[0] += 0.125 * recipe.steps + (0 if ran else 5.0)  # 8 steps a second, the first one slow
        ran.append(recipe.steps)
        return [_found(recipe.steps)]

    monkeypatch.setattr(speed, "run_recipe", run)
    monkeypatch.setattr(speed, "perf_counter", lambda: clock[0])
    assert speed.naive_rate(tiny, torch.ones(1, 8, dtype=torch.int64)) == pytest.approx(8)
    assert ran[0] == speed.WARMUP_STEPS
    assert ran[-1] / 8 >= speed.MEASURED_SECONDS / 2


def _found(steps: int) -> Found:
    found = object.__new__(Found)  # whatever else a recipe tells
    object.__setattr__(found, "steps", steps)
    return found


def test_a_text_that_the_published_loop_solved_is_not_timed(tiny: FrozenLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "run_recipe", lambda lm, texts, recipe: [_found(1)])
    with pytest.raises(CramError, match="solved before"):
        speed.naive_rate(tiny, torch.ones(1, 8, dtype=torch.int64))


@pytest.mark.parametrize("shape", ["tiny", "tiny_lm"])
def test_of_the_planted_text_half_is_right_at_step_0(shape: str, request: pytest.FixtureRequest) -> None:
    lm = request.getfixturevalue(shape)
    config = speed.our_config(1)
    ids = speed.half_solved_text(lm, 64, config)[0].tolist()
    first = next(iter(cram(lm, ids, config)))
    assert isinstance(first, Progress)
    assert 25 <= first.solved_total <= 35
    assert first.marks[::2].count("1") >= 25


def test_the_model_has_the_shape_and_the_weights_of_a_checkpoint_in_bfloat16(tiny: FrozenLM) -> None:
    assert (tiny.vocab_size, tiny.hidden_size, tiny.context) == (300, 64, 128)
    assert sum(p.numel() for p in tiny.model.parameters()) == TINY_PARAMETERS
    assert tiny.dtype == torch.float32
    assert all(torch.equal(p, p.bfloat16().float()) for p in tiny.model.parameters())
    assert tiny.for_steps().dtype == (torch.bfloat16 if cpu_multiplies_bfloat16() else torch.float32)
    state = torch.random.get_rng_state()
    speed.shape_lm(TINY)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("shape", speed.SHAPES, ids=lambda shape: shape.name)
def test_the_shapes_are_those_of_the_models(shape: Shape) -> None:
    known = {"pythia-160m": 162.3, "SmolLM2-135M": 134.5, "Llama-3.2-1B": 1235.8, "Llama-3.1-8B": 8030.3}
    if shape.sizes is None:
        assert shape.name == "cram-mini"
        return
    config = speed.AutoConfig.for_model(**shape.sizes)
    with torch.device("meta"):
        model = speed.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == known[shape.name]


def test_a_product_s_rate_is_its_flops_over_the_fastest_run(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 2.0, 2.0, 2.5, 3.0, 4.0])
    monkeypatch.setattr(speed, "perf_counter", lambda: next(times))
    rate = speed.product_rate(torch.device("cpu"), torch.float32, 3, 4, 5)
    assert rate == 2 * 3 * 4 * 5 / 0.5


def test_shapes_are_chosen_by_name_and_an_unknown_one_is_refused_in_one_sentence() -> None:
    assert speed.chosen(("cram-mini",)) == list(speed.SHAPES)
    assert [shape.name for shape in speed.chosen(("PYTHIA-160m", "SMOLLM2-135M"))] == ["pythia-160m", "SmolLM2-135M"]
    with pytest.raises(ConfigError) as refused:
        speed.bench_speed(Asked([], models=("pythia-160m", "GPT-5")))
    assert str(refused.value) == (
        "There is no shape 'GPT-5' to measure the speed of. "
        "Choose from cram-mini, pythia-160m, SmolLM2-135M, Llama-3.2-1B, Llama-3.1-8B."
    )


@pytest.mark.usefixtures("every_step")
@pytest.mark.parametrize("side", ["ours", "naive"])
def test_weights_are_all_parameters_that_a_side_holds(side: str, tiny: FrozenLM) -> None:
    request = {"shape": dataclasses.asdict(TINY), "side": side, "positions": 16}
    copy = 2 * (side == "ours" and tiny.step_dtype == torch.bfloat16)  # bytes a parameter
    assert speed.memory_use(json.dumps(request))["weights"] == (4 + copy) * TINY_PARAMETERS


@pytest.mark.usefixtures("_small")
def test_memory_is_that_of_a_new_process_alone() -> None:
    """`getrusage` in a new process gives the peak of the one that started it, if that was higher."""
    big = torch.ones(1_500_000_000, dtype=torch.int8)
    row = speed.memory_row(TINY, "ours")  # the other side's is no other process
    del big
    assert row["figure"] == "Tiny, 64 positions, batch 1: GB above the weights, ours"
    assert 0.1 < row["ready_gb"] <= row["ready_peak_gb"] <= row["peak_gb"] < 1.5


def test_memory_above_the_weights_is_the_peak_of_the_process_less_them(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"peak": 2_500_000_000, "weights": 1_000_000_000, "ready": 1_400_000_000, "ready_peak": 1_700_000_000}
    done = subprocess.CompletedProcess([], 0, stdout=json.dumps(sizes))
    monkeypatch.setattr(subprocess, "run", lambda command, **how: done)
    row = speed.memory_row(TINY, "ours")
    assert row["value"] == 1.5
    assert [row[f"{name}_gb"] for name in sizes] == [2.5, 1.0, 1.4, 1.7]


def test_a_new_process_that_fails_is_a_row_with_its_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda command, **how: subprocess.CompletedProcess(command, -9))
    assert speed.memory_row(TINY, "ours")["value"] == "not run to its end: the new process ended with status -9"
