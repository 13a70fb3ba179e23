"""Estimates against what is measured, and what is chosen on machines that are not here."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cramdemo import ConfigError, ModelError, load_model, objective, optimiser, placement
from cramdemo.catalogue import BUILT_IN, MODELS, ModelEntry
from cramdemo.flops import FlopCount
from cramdemo.models import FrozenLM
from cramdemo.placement import (
    Choice,
    Machine,
    choose_dtype,
    cpu_multiplies_bfloat16,
    entry_from_config,
    entry_from_folder,
    loop_device,
    machine_at,
    need,
    plan_for,
    refusal,
    seconds,
    this_machine,
    torch_device,
    within_budget,
)

ROOT = Path(__file__).resolve().parent.parent
GB = 10**9
OLD_CPU = Machine("cpu", "CPU, 2 cores", 15 * GB, 1e11)
CPU = dataclasses.replace(OLD_CPU, bfloat16=True)
T4 = Machine("cuda", "Tesla T4", 15 * GB, 2e13)
H100 = Machine("cuda", "NVIDIA H100", 84 * GB, 3e14, bfloat16=True)
TWO = Machine("cuda", "2 x NVIDIA L4", 44 * GB, 4e13, bfloat16=True, count=2)
MAC = Machine("mps", "Apple GPU", 12 * GB, 2e12)
ZERO = Machine("zero", "ZeroGPU", 47 * GB, 7e13, bfloat16=True)
BIG = MODELS["meta-llama/Llama-3.1-8B"]
SMALL = MODELS["EleutherAI/pythia-160m"]

# ---- against measured memory

_SIZES = {
    "vocab_size": 16000,
    "hidden_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": False,
}
_HEADS = {"num_key_value_heads": 2, "head_dim": 64}
SHAPES = {  # of some 18 million parameters
    "llama": {"model_type": "llama", "intermediate_size": 1024, "dtype": "bfloat16", **_SIZES},
    "neox": {"model_type": "gpt_neox", "intermediate_size": 1536, "dtype": "bfloat16", **_SIZES},
    "qwen3, float32": {"model_type": "qwen3", "intermediate_size": 1024, "dtype": "float32", **_SIZES, **_HEADS},
}
RUNS = ((128, 1), (512, 8))


@pytest.fixture(scope="module")
def peaks() -> dict[str, Any]:
    """Measured in a new process, which nothing else has grown."""
    request = json.dumps({"shapes": SHAPES, "runs": RUNS})
    command = [sys.executable, str(ROOT / "tests" / "peak_memory.py"), request]
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, env=environment)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads the resident set as Linux tells it")
@pytest.mark.parametrize("name", SHAPES)
def test_the_memory_needed_is_what_a_process_takes_or_somewhat_more(peaks: dict[str, Any], name: str) -> None:
    entry = entry_from_config(name, SHAPES[name])
    for (num_tokens, num_mem), peak in zip(RUNS, peaks[name]["runs"], strict=True):
        wanted = need(entry, num_tokens, num_mem, CPU)
        assert 0.85 < wanted.weights / peaks[name]["weights"] < 1.2
        assert 0.75 < wanted.run / peak < 1.7


def test_what_is_written_down_here_is_what_the_layers_below_have() -> None:
    """They stand below this module, which cannot import them."""
    assert placement.LOGIT_BLOCK == objective.LOGIT_BYTES
    assert placement.OPTIMISER_COPIES > optimiser.WINDOW


# ---- sizes


@pytest.mark.parametrize("entry", [e for e in MODELS.values() if not e.local], ids=lambda entry: entry.label)
def test_parameters_counted_from_a_config_are_those_of_the_model(entry: ModelEntry) -> None:
    assert entry_from_config("again", entry.architecture).parameters == pytest.approx(entry.parameters, rel=0.005)


def test_a_model_that_is_not_in_the_table_needs_what_its_config_says() -> None:
    entry = entry_from_config("someone/finetune", SMALL.architecture, SMALL.parameters)
    assert need(entry, 128, 1, CPU) == need(SMALL, 128, 1, CPU)
    assert entry.defaults == SMALL.defaults


def test_the_names_of_gpt_2_and_of_models_that_see_are_understood() -> None:
    gpt2 = entry_from_config(
        "gpt2", {"n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50257, "n_positions": 1024}
    )
    assert (gpt2.hidden_size, gpt2.layers, gpt2.context) == (768, 12, 1024)
    seeing = entry_from_config("seeing", {"model_type": "gemma3", "text_config": dict(BIG.architecture)})
    assert (seeing.hidden_size, seeing.layers) == (BIG.hidden_size, BIG.layers)


def test_a_config_without_sizes_is_refused() -> None:
    with pytest.raises(ModelError, match="does not say how large"):
        entry_from_config("frog", {"model_type": "frog"})


def test_a_folder_s_parameters_are_those_of_its_files(tiny_lm: FrozenLM, tiny_folder: Path) -> None:
    entry = entry_from_folder("tiny", tiny_folder)
    assert entry.parameters == pytest.approx(sum(p.numel() for p in tiny_lm.model.parameters()), rel=0.02)
    assert need(entry, 10, 1, CPU).download == 0


def test_flops_are_those_counted_on_the_model_itself(built_in: FrozenLM) -> None:
    """So that the seconds of a model that is not loaded are those of the one that is."""
    machine = dataclasses.replace(CPU, flops=1.0)
    assert seconds(MODELS[BUILT_IN], 64, 2, 3, machine) == pytest.approx(3 * built_in.flops.step(65, 64), rel=0.001)
    assert isinstance(built_in.flops, FlopCount)


# ---- what fits


def test_a_cpu_holds_float32_and_a_copy_for_steps_where_it_multiplies_bfloat16() -> None:
    entry = dataclasses.replace(SMALL, architecture={**SMALL.architecture, "dtype": "bfloat16"})
    joined = 12 * 768 * (3 * 768 + 3072)  # query, key and value; the way up
    assert need(entry, 128, 1, OLD_CPU).weights == 4 * SMALL.parameters
    assert need(entry, 128, 1, CPU).weights == 6 * SMALL.parameters + 2 * joined


def test_a_longer_text_more_vectors_and_a_larger_model_need_more() -> None:
    shortest = need(SMALL, 64, 1, CPU).total
    assert shortest < need(SMALL, 65, 1, CPU).total
    assert shortest < need(SMALL, 64, 2, CPU).total
    assert shortest < need(MODELS["EleutherAI/pythia-410m"], 64, 1, CPU).total


def test_attention_scores_are_counted_where_they_are_kept() -> None:
    entry = dataclasses.replace(SMALL, architecture={**SMALL.architecture, "dtype": "bfloat16"})
    scores = 12 * 12 * (2000**2 - 1000**2) * 2  # layers, heads, pairs of positions, bytes
    logits = 1000 * SMALL.vocab_size * 4 * 3
    assert need(entry, 2000, 1, CPU).run - need(entry, 1000, 1, CPU).run > scores + logits
    assert need(entry, 2000, 1, OLD_CPU).run - need(entry, 1000, 1, OLD_CPU).run < scores + logits


def test_states_of_mamba_are_counted() -> None:
    mamba = MODELS["state-spaces/mamba-130m-hf"]
    assert need(mamba, 512, 1, CPU).run > 24 * 512 * 1536 * 16 * 4  # layers, positions, inner width, states


def test_a_download_is_the_parameters_as_they_are_stored() -> None:
    assert need(BIG, 128, 1, CPU).download == 2 * BIG.parameters
    assert need(MODELS[BUILT_IN], 128, 1, CPU).download == 0


def test_a_refusal_says_both_numbers_and_what_fits_is_not_refused() -> None:
    small = dataclasses.replace(CPU, memory=12_600_000_000)
    total = need(BIG, 128, 1, small).total
    assert refusal(BIG, 128, 1, small) == f"Needs about {total / GB:.1f} GB, this machine has 12.6 GB."
    assert refusal(BIG, 128, 1, dataclasses.replace(small, memory=total)) == ""
    assert refusal(BIG, 128, 1, dataclasses.replace(small, memory=total - 1)) != ""


def test_seconds_grow_with_steps_and_fall_with_the_machine() -> None:
    once = seconds(BIG, 128, 1, 100, CPU)
    assert seconds(BIG, 128, 1, 200, CPU) == pytest.approx(2 * once)
    assert seconds(BIG, 128, 1, 100, H100) < seconds(BIG, 128, 1, 100, T4) < once
    assert seconds(SMALL, 1, 1, 1, H100) >= 12 * placement.GPU_LAYER_SECONDS
    middling = MODELS["meta-llama/Llama-3.2-1B"]
    assert seconds(middling, 128, 1, 1, CPU, precision="float32") > seconds(middling, 128, 1, 1, CPU)


# ---- the dtype


@pytest.mark.parametrize(
    ("machine", "stored", "parameters", "dtypes", "reason"),
    [
        (CPU, "bfloat16", 10**9, ("float32", "bfloat16"), "this CPU multiplies fastest"),
        (CPU, "float16", 10**9, ("float32", "float32"), "round the weights"),
        (CPU, "bfloat16", 3 * 10**9, ("float32", "float32"), "no room for a copy"),
        (OLD_CPU, "bfloat16", 10**9, ("float32", "float32"), "no faster"),
        (H100, "bfloat16", 10**8, ("bfloat16", "bfloat16"), "several times faster"),
        (H100, "float32", 2 * 10**9, ("bfloat16", "bfloat16"), "several times faster"),
        (H100, "float32", 10**8, ("float32", "float32"), "the model is small"),
        (ZERO, "bfloat16", 10**9, ("bfloat16", "bfloat16"), "several times faster"),
        (T4, "bfloat16", 10**9, ("float32", "float32"), "may overflow"),
        (T4, "bfloat16", 3 * 10**9, ("float16", "float16"), "more than half"),
        (MAC, "bfloat16", 10**9, ("float32", "float32"), "Apple"),
    ],
)
def test_the_dtype_is_what_the_chip_does_well(
    machine: Machine, stored: str, parameters: int, dtypes: tuple[str, str], reason: str
) -> None:
    choice = choose_dtype(machine, getattr(torch, stored), parameters)
    load, step = dtypes
    assert (choice.load_dtype, choice.step_dtype) == (getattr(torch, load), getattr(torch, step))
    assert choice.reason.startswith("steps in" if load != step else f"{load}: ")
    assert reason in choice.reason


@pytest.mark.parametrize("machine", [CPU, T4, H100, MAC], ids=lambda machine: machine.name)
def test_a_precision_asked_for_is_taken(machine: Machine) -> None:
    choice = choose_dtype(machine, torch.bfloat16, 10**9, "float16")
    assert choice == Choice(torch.float16, torch.float16, "float16: as asked for")


def test_the_choice_and_its_reason_stay_with_the_model(tiny_lm: FrozenLM) -> None:
    assert tiny_lm.precision_reason == "float32: bfloat16 would round the weights"


# ---- devices


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cuda:99", "xpu", "meta", ""])
def test_a_device_that_is_not_there_is_refused_in_a_sentence(device: str) -> None:
    with pytest.raises(ConfigError, match=r"device '.*Give cpu"):
        torch_device(device)


def test_this_machine_is_described() -> None:
    machine = this_machine()
    assert machine == machine_at(machine.device)
    assert machine.memory > GB and machine.flops > 1e9
    assert machine_at("cpu").name.startswith("CPU, ")


def test_on_a_zerogpu_space_the_gpu_is_described_that_runs_will_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    assert this_machine().device == "zero"
    assert torch_device(None) == torch.device("cuda")


def test_a_budget_bounds_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRAMDEMO_MEMORY_GB", "0.5")
    assert this_machine().memory == GB // 2
    assert within_budget(CPU, 1000.0).memory == CPU.memory


def test_a_container_s_share_is_what_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    limit, none = tmp_path / "memory.max", tmp_path / "no limit"
    limit.write_text("3000000000\n")
    none.write_text("max\n")
    monkeypatch.setattr(placement, "CGROUP_LIMITS", (none, limit, tmp_path / "not there"))
    assert machine_at("cpu").memory == 2 * GB


def test_the_optimiser_s_numbers_stay_off_a_device_without_float64() -> None:
    assert loop_device(torch.device("mps")) == torch.device("cpu")
    assert loop_device(torch.device("cuda:1")) == torch.device("cuda:1")


# ---- how a checkpoint is loaded


@pytest.mark.parametrize(
    ("machine", "device", "parameters", "spread"),
    [
        (H100, None, 8 * GB, False),
        (TWO, None, 8 * GB, False),  # 16 GB of 22
        (TWO, None, 14 * GB, True),  # 28 GB of 2 x 22
        (H100, "auto", 8 * GB, True),
        (CPU, "auto", GB, False),
    ],
)
def test_a_model_is_spread_if_it_has_to_be(machine: Machine, device: str | None, parameters: int, spread: bool) -> None:
    assert plan_for("m", machine, torch.bfloat16, parameters, device).spread is spread


@pytest.mark.parametrize(
    ("machine", "device", "wider"),
    [(OLD_CPU, None, False), (TWO, "cuda:0", True), (TWO, None, True), (MAC, "mps", False)],
)
def test_a_model_whose_weights_do_not_fit_is_refused(machine: Machine, device: str | None, wider: bool) -> None:
    with pytest.raises(ModelError, match=r"m does not fit: .*need about \S+ GB, this machine has \S+ GB") as refused:
        plan_for("m", machine, torch.bfloat16, 30 * GB, device)
    assert ("give device auto" in str(refused.value)) is wider


def test_a_gpu_asked_for_by_its_name_is_the_only_one_used() -> None:
    with pytest.raises(ModelError, match=r"this machine has 22\.0 GB"):
        plan_for("m", TWO, torch.bfloat16, 14 * GB, "cuda:1")


def test_loading_refuses_what_does_not_fit_before_it_reads_the_weights(
    tiny_folder: Path, copy_of: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRAMDEMO_MEMORY_GB", "0.0001")
    folder = copy_of(tiny_folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(bytes(weights.stat().st_size))  # anything that reads them would say damaged
    with pytest.raises(ModelError, match="tiny does not fit"):
        load_model(str(folder), device="cpu")


@pytest.mark.gpu
def test_a_gpu_is_described_and_takes_the_built_in_model() -> None:
    machine = machine_at("cuda")
    assert machine.memory > GB and machine.flops > 1e12
    lm = load_model(BUILT_IN)
    assert lm.device.type == "cuda" and lm.precision_reason


@pytest.mark.parametrize(
    ("capabilities", "faster"),
    [
        ({}, False),
        ({"avx512_bf16": True, "amx_bf16": True, "cpu_name": "Intel Xeon"}, True),
        ({"avx512_bf16": True, "amx_bf16": False, "cpu_name": "Intel Xeon"}, False),
        ({"avx512_bf16": True, "cpu_name": "AMD EPYC 9R14"}, True),
        ({"avx512_bf16": False, "cpu_name": "AMD EPYC 7R13"}, False),
    ],
)
def test_a_cpu_s_bfloat16_counts_where_it_is_faster(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, Any], faster: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert cpu_multiplies_bfloat16() is faster
