"""Steps a second: ours beside the published loop, and the share of the machine's peak that each of them reaches.

The shapes are those of real models, the weights random: speed does not depend on them. The published loop is
`recipes.CRAMMING` as it stands. Both sides score the same texts, one after the other in one process; memory is
measured in new processes. Neither side gets anywhere with its text while it is timed, since its step size is next
to nothing, which costs what any other does.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from cramdemo.bench.recipes import CRAMMING, run_recipe
from cramdemo.bench.report import ROOT, Asked, Tell, keep_quiet, noting
from cramdemo.catalogue import BUILT_IN, MODELS
from cramdemo.config import MAX_STEPS, CramConfig
from cramdemo.cram import CramResult, Progress, cram, initial_vectors
from cramdemo.errors import ConfigError, CramError
from cramdemo.models import FrozenLM, load_model
from cramdemo.placement import cpu_multiplies_bfloat16
from cramdemo.vectors import dtype_name

POSITIONS = (32, 128, 512)  # K + N - 1, which is N: K is 1
BATCHES = (1, 8, 64)
HALF_SOLVED_POSITIONS = 128
MEASURED_SECONDS = 3.0
LEAST_STEPS = 5
WARMUP_STEPS = 2
MOST_SECONDS_A_STEP = 3.0
LOGIT_COPIES = 4  # that the published loop holds at a time: raw, over the temperature, log-softmax, gradient
LEARNING_RATE = 1e-6  # the smallest that settings allow
NAIVE = dataclasses.replace(CRAMMING, learning_rate=LEARNING_RATE, patience=None)
PRODUCTS = (  # rows, inner, columns
    (1024, 1024, 1024),
    (2048, 2048, 2048),
    (4096, 4096, 4096),
    (128, 768, 3072),
    (512, 4096, 14336),
)
GPU_PRODUCTS = ((8192, 8192, 8192), (4096, 4096, 14336))  # a GPU is not busy with less
PRODUCT_SECONDS = 1.0
LEAST_PRODUCTS = 3
MEMORY_SHAPES = (BUILT_IN, "pythia-160m")
MEMORY_POSITIONS = 512
MEMORY_STEPS = 3
GB = 1e9


@dataclass(frozen=True)
class Shape:
    """The architecture of a model.

    Attributes:
        name: of the model.
        sizes: `model_type` and whatever else its transformers config wants; None for the built-in model itself.
        positions: that its steps are timed at.
        naive_dtype: what the published loop runs it in.
        gpu_only: a CPU would take minutes a step.
    """

    name: str
    sizes: dict[str, Any] | None
    positions: tuple[int, ...] = POSITIONS
    naive_dtype: str = "float32"
    gpu_only: bool = False


def _shape(name: str, **more: Any) -> Shape:
    """Of a model on offer."""
    entry = MODELS[name]
    return Shape(entry.label, dict(entry.architecture), **more)


SHAPES = (
    Shape(BUILT_IN, None, positions=(32, 64, 128, 512)),
    _shape("EleutherAI/pythia-160m"),
    _shape("HuggingFaceTB/SmolLM2-135M"),
    _shape("meta-llama/Llama-3.2-1B", naive_dtype="bfloat16", gpu_only=True),
    _shape("meta-llama/Llama-3.1-8B", naive_dtype="bfloat16", gpu_only=True),
)


@dataclass(frozen=True)
class Cell:
    """One step that is timed.

    Attributes:
        positions: of one text. batch: texts (the published loop) or restarts of one (ours) side by side.
        half_solved: every other token is right from the start.
    """

    positions: int
    batch: int
    half_solved: bool = False

    def __str__(self) -> str:
        return f"{self.positions} positions, batch {self.batch}" + ", half solved" * self.half_solved


@dataclass(frozen=True)
class Machine:
    """What steps run on.

    Attributes:
        place: the device.
        memory: bytes.
        peaks: FLOP/s of the fastest matrix product, by dtype.
    """

    place: torch.device
    memory: int
    peaks: dict[torch.dtype, float]


def bench_speed(asked: Asked, tell: Tell = keep_quiet) -> dict[str, Any]:
    """Steps a second of ours and of the published loop at each shape and size, and the memory that each takes.

    `asked.models` names shapes; the default stands for all of them. Books are not used.

    Raises:
        ConfigError: there is no such shape.
    """
    shapes = chosen(asked.models)
    rows: list[dict[str, Any]] = []
    note = noting(rows, tell)
    machine = this_machine(note)
    for shape in shapes:
        if shape.gpu_only and machine.place.type == "cpu":
            note({"figure": shape.name, "value": "not run: it needs a GPU, and there is none"})
        else:
            _time_shape(shape, machine, note)
    if machine.place.type == "cuda":
        torch.cuda.empty_cache()  # the new processes need the room
    for shape in shapes:
        if shape.name in MEMORY_SHAPES:
            note(memory_row(shape, "ours"))
            note(memory_row(shape, "naive"))
    names = [shape.name for shape in shapes]
    return {"benchmark": "speed", "models": names, "threads": torch.get_num_threads(), "rows": rows}


def chosen(models: tuple[str, ...]) -> list[Shape]:
    """The shapes of these names, whatever their case; all of them for the default.

    Raises:
        ConfigError: there is no such shape.
    """
    if models == (BUILT_IN,):
        return list(SHAPES)
    known = {shape.name.lower(): shape for shape in SHAPES}
    for name in models:
        if name.lower() not in known:
            offered = ", ".join(shape.name for shape in SHAPES)
            raise ConfigError(f"There is no shape {name!r} to measure the speed of. Choose from {offered}.")
    return [known[name.lower()] for name in models]


def this_machine(note: Tell) -> Machine:
    """The device that models are loaded to, with a row for the peak of each dtype that steps run in."""
    place = _place()
    peaks = {}
    for dtype in dict.fromkeys([torch.float32, _step_dtype(place)]):
        sizes = PRODUCTS + (GPU_PRODUCTS if place.type == "cuda" else ())
        rates = {size: product_rate(place, dtype, *size) for size in sizes}
        best = max(rates, key=lambda size: rates[size])
        peaks[dtype] = rates[best]
        note(
            {
                "figure": f"{dtype_name(dtype)} matrix products, fastest, GFLOP/s",
                "value": round(rates[best] / 1e9, 1),
                "size": " x ".join(str(n) for n in best),
            }
        )
    if place.type == "cuda":
        return Machine(place, torch.cuda.get_device_properties(place).total_memory, peaks)
    return Machine(place, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), peaks)


def product_rate(place: torch.device, dtype: torch.dtype, rows: int, inner: int, columns: int) -> float:
    """FLOP/s of the product of (rows, inner) with (inner, columns), stored as a layer's weights are; the best run."""
    generator = torch.Generator(place).manual_seed(0)
    left, right = (
        torch.randn(shape, generator=generator, device=place, dtype=dtype)
        for shape in ((rows, inner), (columns, inner))
    )
    runs: list[float] = []
    while len(runs) < LEAST_PRODUCTS or sum(runs) < PRODUCT_SECONDS:
        begun = perf_counter()
        F.linear(left, right)
        if place.type == "cuda":
            torch.cuda.synchronize()
        runs.append(perf_counter() - begun)
    return 2 * rows * inner * columns / min(runs)


def shape_lm(shape: Shape) -> FrozenLM:
    """A model of the shape with random weights, as if loaded from a checkpoint in bfloat16."""
    if shape.sizes is None:
        return load_model(BUILT_IN)
    place = _place()
    with torch.random.fork_rng([] if place.type == "cpu" else [place]), place:
        torch.manual_seed(0)  # transformers initialises from the global generator
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**shape.sizes), dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(MODELS[BUILT_IN].source, local_files_only=True, trust_remote_code=False)
    if place.type == "cpu":
        model = model.float()
    return FrozenLM(shape.name, model, tokenizer, fingerprint="0" * 64, step_dtype=_step_dtype(place))


def naive_lm(lm: FrozenLM, shape: Shape) -> FrozenLM:
    """The same model in the dtype that the published loop runs it in."""
    return lm.in_float32() if shape.naive_dtype == "float32" and lm.dtype != torch.float32 else lm


def cells(shape: Shape) -> list[Cell]:
    """Cheap ones first."""
    found = [Cell(positions, batch) for positions in shape.positions for batch in BATCHES]
    found.append(Cell(HALF_SOLVED_POSITIONS, 1, half_solved=True))
    return sorted(found, key=lambda cell: cell.positions * cell.batch)


def _time_shape(shape: Shape, machine: Machine, note: Tell) -> None:
    """A row for each cell of a shape; the model is gone from memory afterwards."""
    lm = shape_lm(shape)
    sides = Sides(machine, lm, naive_lm(lm, shape))
    for cell in cells(shape):
        note(sides.row(cell))


@dataclass(frozen=True)
class Sides:
    """Ours and the published loop on one model.

    Attributes:
        lm: as our engine takes it. naive: as the published loop runs it.
    """

    machine: Machine
    lm: FrozenLM
    naive: FrozenLM

    def row(self, cell: Cell) -> dict[str, Any]:
        """Both sides timed at one cell, or the reason why not."""
        figure = {"figure": f"{self.lm.name}, {cell}"}
        reason = self.too_large(cell)
        if reason:
            return figure | {"value": f"not run: {reason}"}
        try:
            return figure | self._timed(cell)
        except (CramError, torch.OutOfMemoryError) as error:
            return figure | {"value": f"not run to its end: {str(error).splitlines()[0]}"}

    def too_large(self, cell: Cell) -> str:
        """Why a cell cannot be run on this machine, by what the published loop's step takes at least; "" if it can."""
        seconds = self.naive_flops(cell) / self.machine.peaks[self.naive.dtype]
        if seconds > MOST_SECONDS_A_STEP:
            return f"a step of the published loop takes at least {seconds:.1f} s, more than {MOST_SECONDS_A_STEP:g}"
        logits = cell.batch * (cell.positions + 1) * self.lm.vocab_size * 4 * LOGIT_COPIES
        if logits > self.machine.memory / 2:
            return f"the published loop's logits take {logits / GB:.1f} GB, more than half of the memory"
        return ""

    def our_flops(self, cell: Cell) -> int:
        """Of one step over the batch: K + N - 1 positions, N predictions."""
        return cell.batch * self.lm.flops.step(cell.positions, cell.positions)

    def naive_flops(self, cell: Cell) -> int:
        """Of one step over the batch: the published loop feeds the last token as well, and computes all logits."""
        return cell.batch * self.lm.flops.step(cell.positions + 1, cell.positions + 1)

    def _timed(self, cell: Cell) -> dict[str, Any]:
        config = our_config(cell.batch)
        texts = half_solved_text(self.lm, cell.positions, config) if cell.half_solved else _texts(self.lm, cell)
        ours, solved = our_rate(self.lm, texts[0].tolist(), config)
        naive = naive_rate(self.naive, texts)
        dtype, naive_dtype = self.lm.step_dtype, self.naive.dtype
        return {
            "value": round(ours / naive, 2),
            "ours_steps_per_second": round(ours, 3),
            "naive_steps_per_second": round(naive, 3),
            "share_of_peak": round(self.our_flops(cell) * ours / self.machine.peaks[dtype], 3),
            "naive_share_of_peak": round(self.naive_flops(cell) * naive / self.machine.peaks[naive_dtype], 3),
            "dtype": dtype_name(dtype),
            "naive_dtype": dtype_name(naive_dtype),
            "solved_at_first": f"{solved} of {cell.positions}",
        }


def our_config(batch: int) -> CramConfig:
    """The engine on the whole text; the batch is restarts, and nothing ends the run."""
    return CramConfig(
        num_mem=1,
        restarts=batch,
        init="embedding",
        steps=MAX_STEPS,
        growth=0,
        learning_rate=LEARNING_RATE,
        margin=0.0,
    )


def our_rate(lm: FrozenLM, token_ids: list[int], config: CramConfig) -> tuple[float, int]:
    """Steps a second of the engine after its first ones, and how many tokens are right at step 0.

    Raises:
        CramError: the run ended by itself.
    """
    with closing(_progress(lm, token_ids, config)) as items:
        first = next(items)
        start = next(item for item in items if item.step >= WARMUP_STEPS)
        for item in items:
            seconds, steps = item.seconds - start.seconds, item.step - start.step
            if seconds >= MEASURED_SECONDS and steps >= LEAST_STEPS:
                break
    return steps / seconds, first.solved_total


def _progress(lm: FrozenLM, token_ids: list[int], config: CramConfig) -> Generator[Progress, None, None]:
    """The engine's steps. Closed early, it lets go of the run, which then has no result to verify."""
    for item in cram(lm, token_ids, config):
        if isinstance(item, CramResult):
            raise CramError(f"The run ended before it was timed ({item.reason}).")
        yield item


def naive_rate(lm: FrozenLM, texts: Tensor) -> float:
    """Steps a second of the published loop on texts (B, N) side by side; the first steps go to warming up."""
    steps = WARMUP_STEPS
    while True:
        begun = perf_counter()
        found = run_recipe(lm, texts, dataclasses.replace(NAIVE, steps=steps))
        seconds = perf_counter() - begun
        if any(text.steps < steps for text in found):
            raise CramError("A text was solved before the published loop was timed.")
        if steps >= LEAST_STEPS and seconds >= MEASURED_SECONDS / 2:
            return steps / seconds
        steps = max(LEAST_STEPS, math.ceil(steps * MEASURED_SECONDS / seconds))


def half_solved_text(lm: FrozenLM, num_tokens: int, config: CramConfig) -> Tensor:
    """A text (1, N) whose tokens at even places are what the model predicts from [mem] at step 0, others random."""
    stepper, ids = lm.for_steps(), _texts(lm, Cell(num_tokens, 1)).to(lm.device)
    mem = initial_vectors(lm, ids, config)[:1]
    with torch.no_grad():
        for place in range(0, num_tokens, 2):
            ids[0, place] = stepper.text_logits(mem, ids[:, : place + 1])[0, -1].argmax()
    return ids


def _texts(lm: FrozenLM, cell: Cell) -> Tensor:
    """Random ids, (B, N)."""
    return torch.randint(lm.vocab_size, (cell.batch, cell.positions), generator=torch.Generator().manual_seed(0))


def memory_row(shape: Shape, side: str) -> dict[str, Any]:
    """What one side takes in a new process, in GB: all of it at most, less the weights, is the value."""
    row = {"figure": f"{shape.name}, {Cell(MEMORY_POSITIONS, 1)}: GB above the weights, {side}"}
    request = json.dumps({"shape": dataclasses.asdict(shape), "side": side, "positions": MEMORY_POSITIONS})
    command = [sys.executable, "-m", "cramdemo.bench", "memory", request]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    if done.returncode:
        return row | {"value": f"not run to its end: the new process ended with status {done.returncode}"}
    sizes = {name: size / GB for name, size in json.loads(done.stdout).items()}
    above = {"value": round(sizes["peak"] - sizes["weights"], 3)}
    return row | above | {f"{name}_gb": round(size, 3) for name, size in sizes.items()}


def memory_use(request: str) -> dict[str, int]:
    """What a few steps take in this process, which is a new one, in bytes.

    Args:
        request: what `memory_row` wants, as JSON.

    Returns:
        `peak`: of the whole process, or on a GPU of what is allocated there. `weights`: parameters of the model
        loaded, of its copy for steps, and of an encoder. `ready`, `ready_peak`: held, and most held so far, when the
        first step begins; if `ready_peak` is the peak, loading took more than any step.
    """
    asked = json.loads(request)
    shape = Shape(**asked["shape"])
    lm = shape_lm(shape)
    runner = lm.for_steps() if asked["side"] == "ours" else naive_lm(lm, shape)
    modules = [lm.model, runner.model] + ([lm.encoder] if lm.encoder is not None else [])
    weights = {id(p): p.nbytes for module in modules for p in module.parameters()}
    ready, ready_peak = _memory_held(lm.device)
    texts = _texts(lm, Cell(asked["positions"], 1))
    if asked["side"] == "ours":
        with closing(_progress(lm, texts[0].tolist(), our_config(1))) as items:
            next(item for item in items if item.step >= MEMORY_STEPS)
    else:
        run_recipe(runner, texts, dataclasses.replace(NAIVE, steps=MEMORY_STEPS))
    _, peak = _memory_held(lm.device)
    return {"peak": peak, "weights": sum(weights.values()), "ready": ready, "ready_peak": ready_peak}


def _memory_held(place: torch.device) -> tuple[int, int]:
    """Bytes held now, and at most so far.

    On a CPU Linux is asked for the resident set of this program alone: the peak that `getrusage` gives takes in
    the process that started it.
    """
    if place.type == "cuda":
        return torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    sizes = dict(line.split(":", 1) for line in lines)
    now, most = (int(sizes[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return now, most


def _place() -> torch.device:
    """Where `load_model` puts a model."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _step_dtype(place: torch.device) -> torch.dtype:
    """What steps run in if weights are stored in bfloat16, as `load_model` decides it."""
    fast = place.type == "cuda" or cpu_multiplies_bfloat16()
    return torch.bfloat16 if fast else torch.float32
