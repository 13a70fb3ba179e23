"""What a model needs and what a machine has: whether a run fits, how long it takes, in which dtype it goes best.

Estimates are made from the sizes of an architecture, before anything is loaded or downloaded. They are meant for a
picker, and lean to the high side: tests hold the memory against measured peaks. Makes no model.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from cramdemo.catalogue import FAMILY_DEFAULTS, UNLIMITED, ModelEntry
from cramdemo.config import CramDefaults
from cramdemo.errors import ConfigError, ModelError, plural
from cramdemo.flops import FlopCount
from cramdemo.settings import read_settings

GB = 1e9
PROGRAM = 1_000_000_000  # bytes of main memory for Python, torch and the page
CONTEXT = 600_000_000  # bytes of a GPU for CUDA itself and its libraries' workspaces
CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))

CPU_CORE_FLOPS = {"bfloat16": 120e9, "AVX512": 50e9}  # see `_cpu`
CPU_CORE_FLOPS_LEAST = 20e9
CPU_FLOAT32_SHARE = 0.4  # of the rate in bfloat16, where the CPU multiplies it
GPU_FLOPS_A_CYCLE = {  # 16-bit, of one multiprocessor by compute capability, as NVIDIA's data sheets come out
    (7, 0): 1024,
    (7, 5): 1024,
    (8, 0): 2048,
    (8, 6): 1024,
    (8, 9): 1024,
    (9, 0): 4096,
    (10, 0): 8192,
    (12, 0): 1024,
}
GPU_FLOPS_A_CYCLE_LEAST = 256
GPU_SHARE = 0.3  # of that rate that a step of one text reaches; assumed, not measured
GPU_FLOAT32_SHARE = 0.1
GPU_LAYER_SECONDS = 1e-3  # some 150 kernels forward and back, started one by one; assumed, not measured
MPS_FLOPS = 2e12  # assumed, not measured
ZERO_MEMORY = 47_000_000_000
ZERO_FLOPS = 75e12  # GPU_SHARE of half of the card's 500 TFLOP/s
SCAN_SECONDS = 3e-4  # of a position of a state space layer, forward and back; assumed, not measured

LOGIT_BLOCK = 64 * 2**20  # `objective.LOGIT_BYTES`
OPTIMISER_COPIES = 64 + 8  # of the vectors: `optimiser.WINDOW` gradients, moments, and what an update works out
PASSING_SCORES = 3  # scores, shares and their gradient
SCAN_COPIES = 4  # of the states: decay, its exponential, input, and each position's sum
END_LOGITS = 3  # with [mem], without, and what is worked out from either
WRITTEN_OUT = ("llama", "gpt_neox")  # families of `body.py`
ROOM_FOR_A_COPY = 8  # bytes a parameter: float32, the copy, its joined matrices, and a run
NO_MEMORY_WORDS = (  # of a RuntimeError: only CUDA has a type of its own for it
    *("can't allocate memory", "not enough memory", "out of memory"),
    "CUBLAS_STATUS_ALLOC_FAILED",
)
SMALL = 1_000_000_000  # parameters; below, a GPU waits for its kernels to be started, whatever the dtype

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Machine:
    """What a model may run on.

    Attributes:
        device: "cpu", "cuda", "mps", or "zero" for a ZeroGPU Space, which has its GPU only while a run lasts.
        name: as it is shown.
        memory: bytes that a model and a run may take together; of several GPUs all of it.
        flops: FLOP/s that a training step reaches there in the dtype that suits it best: a rough figure, from
            matrix products timed on one CPU and from data sheets of GPUs.
        bfloat16: it multiplies bfloat16 faster than float32.
        count: GPUs of that kind.
    """

    device: str
    name: str
    memory: int
    flops: float
    bfloat16: bool = False
    count: int = 1


@dataclass(frozen=True)
class Choice:
    """The dtypes that a model is loaded and trained against in.

    Attributes:
        load_dtype: of the model itself, which verifies.
        step_dtype: of the optimiser's steps; a copy of the model, if it is another.
        reason: in plain words, to be shown.
    """

    load_dtype: torch.dtype
    step_dtype: torch.dtype
    reason: str


@dataclass(frozen=True)
class Need:
    """Bytes that a model and one run of it take.

    Attributes:
        weights: the model, and its copy for steps.
        run: most that a run of one text takes above that.
        download: of its files; 0 for a model that is here.
    """

    weights: int
    run: int
    download: int

    @property
    def total(self) -> int:
        """Memory: the weights and the run."""
        return self.weights + self.run


@dataclass(frozen=True)
class _Sizes:
    """Of an architecture: L layers of width d and inner width m, H heads and G key heads of width h, V words."""

    family: str
    layers: int
    width: int
    inner: int
    heads: int
    groups: int
    head_width: int
    vocabulary: int
    tied: bool
    states: int  # of each inner number; 0 but for state space models

    @classmethod
    def of(cls, architecture: Mapping[str, Any]) -> _Sizes:
        """What a transformers config says, by the names that families give it."""
        width, heads = (
            _first(architecture, "hidden_size", "n_embd"),
            _first(architecture, "num_attention_heads", "n_head"),
        )
        return cls(
            family=str(architecture.get("model_type")),
            layers=_first(architecture, "num_hidden_layers", "n_layer"),
            width=width,
            inner=_first(architecture, "ffn_dim", "intermediate_size", "n_inner") or 4 * width,
            heads=heads,
            groups=_first(architecture, "num_key_value_heads") or heads,
            head_width=_first(architecture, "head_dim") or (width // heads if heads else 0),
            vocabulary=_first(architecture, "vocab_size"),
            tied=bool(architecture.get("tie_word_embeddings")),
            states=_first(architecture, "state_size"),
        )

    @property
    def attended(self) -> int:
        """Numbers that a position's queries, keys and values have in a layer."""
        return (self.heads + 2 * self.groups) * self.head_width

    @property
    def gated(self) -> bool:
        """Whether the feed-forward part has three matrices, not two. A state space layer has as many."""
        return self.family not in ("gpt_neox", "opt", "gpt2")

    @property
    def norms(self) -> int:
        """Norms over the whole width in a layer."""
        return 4 if self.family.startswith("gemma") else 2

    @property
    def matrices(self) -> int:
        """Parameters of the matrices inside the layers."""
        attention = self.width * (self.attended + self.heads * self.head_width)
        scan = self.inner * (3 * self.states + self.width // 8) if self.states else 0
        return self.layers * (attention + (3 if self.gated else 2) * self.width * self.inner + scan)

    @property
    def flops(self) -> FlopCount:
        """The sizes that FLOPs follow from."""
        return FlopCount(self.matrices, self.vocabulary * self.width, self.heads * self.head_width * self.layers)


# ---- the machine


def this_machine() -> Machine:
    """Where models are loaded to unless said otherwise: a GPU if there is one, else the CPU.

    Raises:
        ConfigError: a CRAMDEMO_ setting makes no sense.
    """
    return machine_at(default_device())


def on_zero_gpu() -> bool:
    """Whether this is a Space on ZeroGPU, told as `spaces` tells it."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


def default_device() -> str:
    """ "zero" on a ZeroGPU Space, else "cuda", "mps" or "cpu", the first that is there."""
    if on_zero_gpu():
        return "zero"
    return next(device for device in ("cuda", "mps", "cpu") if _is_there(torch.device(device)))


def torch_device(device: str | None) -> torch.device:
    """A device by its name: "cpu", "cuda", "cuda:1", "mps"; None and "auto" take a GPU if there is one.

    Raises:
        ConfigError: there is no such device, or not on this machine.
    """
    try:
        asked = default_device() if device in (None, "auto") else device
        place = torch.device("cuda" if asked == "zero" else asked)
    except RuntimeError as error:
        raise ConfigError(
            f"There is no device {str(device)[:20]!r}. Give cpu, cuda, cuda:1 and so on, mps, or auto."
        ) from error
    if asked != "zero" and not _is_there(place):
        raise ConfigError(
            f"This machine has no device {device!r} that can be used. Give cpu, or auto for what there is."
        )
    return place


def _is_there(place: torch.device) -> bool:
    if place.type == "cuda":
        return torch.cuda.is_available() and (place.index or 0) < torch.cuda.device_count()
    return place.type == "cpu" or (place.type == "mps" and torch.backends.mps.is_available())


def loop_device(place: torch.device) -> torch.device:
    """Where the optimiser's own few numbers are kept for a model: beside it, or on the CPU if that has no float64."""
    return torch.device("cpu") if place.type == "mps" else place


def machine_at(device: str) -> Machine:
    """What stands behind "cpu", "cuda", "mps" or "zero", and no more of it than the budget allows.

    Raises:
        ConfigError: a CRAMDEMO_ setting makes no sense.
    """
    machine = {"cpu": _cpu, "cuda": _cuda, "mps": _mps, "zero": _zero}[device]()
    return within_budget(machine, read_settings(os.environ).memory_gb)


def within_budget(machine: Machine, memory_gb: float) -> Machine:
    """The same machine, if a server's owner allows no more memory than so many GB; 0 for all there is."""
    if not memory_gb:
        return machine
    return dataclasses.replace(machine, memory=min(machine.memory, int(memory_gb * GB)))


def _cpu() -> Machine:
    """Rates are those of one core of an EPYC of 2023 (AVX-512 with bfloat16): products reach 219 GFLOP/s in bfloat16
    and 96 in float32, a step somewhat more than half of that. An older CPU is taken to reach half of its float32 rate.
    """
    threads, bfloat16 = torch.get_num_threads(), cpu_multiplies_bfloat16()
    kind = "bfloat16" if bfloat16 else torch.backends.cpu.get_cpu_capability()
    rate = CPU_CORE_FLOPS.get(kind, CPU_CORE_FLOPS_LEAST)
    memory = _main_memory() - PROGRAM
    return Machine("cpu", f"CPU, {plural(threads, 'core')}", memory, threads * rate, bfloat16)


def _cuda() -> Machine:
    """All GPUs, as if they were like the first."""
    count, first = torch.cuda.device_count(), torch.cuda.get_device_properties(0)
    a_cycle = GPU_FLOPS_A_CYCLE.get((first.major, first.minor), GPU_FLOPS_A_CYCLE_LEAST)
    return Machine(
        device="cuda",
        name=first.name if count == 1 else f"{count} x {first.name}",
        memory=count * (first.total_memory - CONTEXT),
        flops=GPU_SHARE * a_cycle * first.multi_processor_count * first.clock_rate * 1e3,  # kHz
        bfloat16=torch.cuda.is_bf16_supported(including_emulation=False),
        count=count,
    )


def _mps() -> Machine:
    return Machine("mps", "Apple GPU", torch.mps.recommended_max_memory(), MPS_FLOPS)


def _zero() -> Machine:
    """Half of an RTX Pro 6000, which is what the Hub lends at its plain size; it cannot be asked before a run."""
    return Machine("zero", "ZeroGPU", ZERO_MEMORY, ZERO_FLOPS, bfloat16=True)


def _main_memory() -> int:
    """Bytes of main memory, or of the container's share of it where that is less."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in CGROUP_LIMITS:
        with suppress(OSError, ValueError):  # not there, or "max"
            sizes.append(int(path.read_text(encoding="ascii")))
    return min(sizes)


def cpu_multiplies_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 faster than float32.

    That is where it has matrix tiles (AMX), or AVX-512's instructions for it and is not Intel's. There these reach half
    the rate of float32 (74 against 134 GFLOP/s on a core of a Xeon of 2023 whose tiles are switched off), on an EPYC
    twice as much. No clock decides it, so that each process of a machine comes to the same.
    """
    found = torch.cpu.get_capabilities()
    intel = "intel" in str(found.get("cpu_name", "")).lower()
    return bool(found.get("amx_bf16") or (found.get("avx512_bf16") and not intel))


# ---- the dtype


def choose_dtype(machine: Machine, stored: torch.dtype, parameters: int, precision: str = "auto") -> Choice:
    """In which dtypes a model goes best on a machine.

    On a CPU a model is in float32, and its steps in bfloat16 if that costs the weights nothing and the CPU multiplies
    it. A GPU takes bfloat16 where it multiplies it, but for small models whose weights it would round. Float16 is
    the last resort: its gradients may overflow, and nothing scales the loss.

    Args:
        stored: dtype of the checkpoint.
        parameters: number of parameters.
        precision: "float32", "bfloat16" or "float16" as asked for, or "auto".
    """
    if precision != "auto":
        return _alike(DTYPES[precision], "as asked for")
    if machine.device == "cpu":
        return _choose_on_cpu(machine, stored, parameters)
    if machine.device == "mps":
        return _alike(torch.float32, "what an Apple GPU is surest with")
    return _choose_on_gpu(machine, stored, parameters)


def _choose_on_cpu(machine: Machine, stored: torch.dtype, parameters: int) -> Choice:
    if stored != torch.bfloat16:
        return _alike(torch.float32, "bfloat16 would round the weights")
    if not machine.bfloat16:
        return _alike(torch.float32, "this CPU multiplies bfloat16 no faster")
    if ROOM_FOR_A_COPY * parameters > machine.memory:
        return _alike(torch.float32, "there is no room for a copy in bfloat16 beside it")
    reason = "steps in bfloat16, as the weights are stored and this CPU multiplies fastest; results checked in float32"
    return Choice(torch.float32, torch.bfloat16, reason)


def _choose_on_gpu(machine: Machine, stored: torch.dtype, parameters: int) -> Choice:
    if machine.bfloat16 and (stored == torch.bfloat16 or parameters >= SMALL):
        return _alike(torch.bfloat16, "this GPU multiplies it several times faster than float32")
    if machine.bfloat16:
        return _alike(torch.float32, "the model is small, and bfloat16 would round its weights")
    if 4 * parameters <= machine.memory / 2:
        return _alike(torch.float32, "this GPU does not multiply bfloat16, and in float16 gradients may overflow")
    return _alike(torch.float16, "in float32 the model would take more than half of this GPU; gradients may overflow")


def _alike(dtype: torch.dtype, reason: str) -> Choice:
    return Choice(dtype, dtype, f"{str(dtype).removeprefix('torch.')}: {reason}")


def stored_dtype(config: Mapping[str, Any]) -> torch.dtype:
    """Of a checkpoint, by its transformers config; float32 where that says nothing."""
    return DTYPES.get(str(config.get("dtype") or config.get("torch_dtype")), torch.float32)


# ---- how a checkpoint is loaded


class Plan(NamedTuple):
    """How a checkpoint is loaded: in which dtypes, and whether accelerate spreads it over several places."""

    choice: Choice
    spread: bool


def plan(name: str, folder: Path, device: str | None, precision: str = "auto") -> Plan:
    """What becomes of a checkpoint on this machine.

    On GPUs, "auto" spreads a model over all of them and main memory; None does so over the GPUs if one is too small.

    Args:
        device: as `torch_device` takes it.

    Raises:
        ModelError: the weights alone need more memory than there is.
        OSError, ValueError, TypeError, AttributeError: config.json is damaged.
    """
    machine = machine_at("zero" if default_device() == "zero" and device != "cpu" else torch_device(device).type)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return plan_for(name, machine, stored_dtype(config), _parameters(folder, config), device, precision=precision)


def plan_for(
    name: str, machine: Machine, stored: torch.dtype, parameters: int, device: str | None, *, precision: str = "auto"
) -> Plan:
    """`plan` for a machine and a checkpoint that are told, not looked at.

    Raises:
        ModelError: the weights alone need more memory than there is.
    """
    one = dataclasses.replace(machine, memory=machine.memory // machine.count, count=1)
    if device == "auto" and machine.device == "cuda":
        machine = dataclasses.replace(machine, memory=machine.memory + _main_memory() - PROGRAM)
    elif device is not None:
        machine = one
    choice = choose_dtype(machine, stored, parameters, precision)
    weights = _weights(parameters, choice)
    if weights > machine.memory:
        raise ModelError(
            f"{name} does not fit: its weights alone need about {gigabytes(weights)}, this machine has "
            f"{gigabytes(machine.memory)}. Pick a smaller model{_wider(machine, device)}."
        )
    return Plan(choice, machine.device == "cuda" and (device == "auto" or weights > one.memory))


def _wider(machine: Machine, device: str | None) -> str:
    """What else may be tried with a model that is too large for the GPUs."""
    return ", or give device auto, which uses main memory too" if machine.device == "cuda" and device != "auto" else ""


def _weights(parameters: int, choice: Choice) -> int:
    """Bytes of a model and of its copy for steps, if that is in another dtype."""
    copied = choice.step_dtype != choice.load_dtype
    return parameters * (choice.load_dtype.itemsize + copied * choice.step_dtype.itemsize)


def _parameters(folder: Path, config: Mapping[str, Any]) -> int:
    """Of a checkpoint, by the size of its files."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors")) // stored_dtype(config).itemsize


# ---- what a model needs


def entry_from_config(name: str, config: Mapping[str, Any], parameters: int = 0) -> ModelEntry:
    """A model that is not in the table, as an entry, by its transformers config.

    Args:
        parameters: their number, where it is known; 0 counts them from the sizes.

    Raises:
        ModelError: the config does not say how large the model is.
    """
    text = config.get("text_config") or {}  # of a model that reads images too
    architecture = {**config, **text}
    sizes = _Sizes.of(architecture)
    if not (sizes.layers and sizes.width and sizes.vocabulary):
        raise ModelError(f"The config of {name} does not say how large the model is. Pick another model.")
    embeddings = (1 if sizes.tied else 2) * sizes.vocabulary * sizes.width
    return ModelEntry(
        name=name,
        source=name,
        parameters=parameters or sizes.matrices + embeddings,
        hidden_size=sizes.width,
        vocab_size=sizes.vocabulary,
        context=_first(architecture, "max_position_embeddings", "n_positions") or UNLIMITED,
        defaults=FAMILY_DEFAULTS.get(sizes.family, CramDefaults()),
        licence="",
        note="",
        layers=sizes.layers,
        architecture=architecture,
    )


def entry_from_folder(name: str, folder: Path) -> ModelEntry:
    """The same by a checkpoint's files, whose size tells the number of parameters.

    Raises:
        ModelError: as `entry_from_config`.
        OSError, ValueError, TypeError, AttributeError: config.json is damaged.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return dataclasses.replace(entry_from_config(name, config, _parameters(folder, config)), source=str(folder))


def need(entry: ModelEntry, num_tokens: int, num_mem: int, machine: Machine, *, precision: str = "auto") -> Need:
    """Bytes that a model and one run of a text take on a machine, at most.

    With n = K + N - 1 positions, L layers, width d, inner width m, H heads and G key heads of width h, V words, b bytes
    a number of a step, and no gradients of weights:

    - weights: all parameters in the dtype they are loaded in; where steps run in another, a copy in it, and of the
      families that are written out (`body.py`) the matrices joined there once more.
    - kept for the backward pass, a layer: n b (2 d + (H + 2 G) h + 3 m) where the layer is written out (3 m is m, and
      2 d is d, in GPT-NeoX); through autograd n (4 d a norm, in float32, + b (4 H h + 3 m)). State space models keep
      their states: n m (state size) 4 bytes, `SCAN_COPIES` times.
    - attention scores: H n^2 b a layer where they are kept, which is where steps have a copy of the model; in any case
      `PASSING_SCORES` layers' worth that come and go, but for a GPU, whose kernels make none.
    - logits: a block of `LOGIT_BLOCK` bytes, with what is worked out from it in float32.
    - optimiser: `OPTIMISER_COPIES` times K d 4 bytes, most of them the whitening's window of gradients.
    - at the end of a run N V 4 bytes three times, to score the text with [mem] and without, when a step holds no more.

    The run is the larger of a step and the end; on a CPU their sum, since much of what is freed stays with the process.
    Not counted: what a program takes without a model (`Machine.memory`
    is less by that), and more than one text or restart at a time.
    """
    sizes, choice = _Sizes.of(entry.architecture), _choice(entry, machine, precision)
    weights = _weights(entry.parameters, choice)
    if choice.step_dtype != choice.load_dtype:
        weights += _joined(sizes) * choice.step_dtype.itemsize
    step = _step_bytes(sizes, num_tokens, num_mem, choice, machine)
    end = _end_bytes(sizes, num_tokens, num_mem, choice)
    run = step + end if machine.device == "cpu" else max(step, end)
    stored = stored_dtype(entry.architecture).itemsize
    here = entry.local or Path(entry.source).is_dir()
    return Need(weights, run, 0 if here else entry.parameters * stored)


def refusal(entry: ModelEntry, num_tokens: int, num_mem: int, machine: Machine, *, precision: str = "auto") -> str:
    """Why a run does not fit a machine, in one sentence; "" if it does, or if the model's sizes are not known yet."""
    if not entry.parameters:
        return ""
    wanted = need(entry, num_tokens, num_mem, machine, precision=precision).total
    if wanted <= machine.memory:
        return ""
    return f"Needs about {gigabytes(wanted)}, this machine has {gigabytes(machine.memory)}."


def seconds(
    entry: ModelEntry, num_tokens: int, num_mem: int, steps: int, machine: Machine, *, precision: str = "auto"
) -> float:
    """Expected for so many steps with the whole text trained; the download, loading and verification come on top.

    FLOPs by the machine's rate, and on a GPU at least what starting its kernels takes. Right within a factor of two
    or three.
    """
    sizes, positions = _Sizes.of(entry.architecture), num_mem + num_tokens - 1
    rate = machine.flops * _share(machine, _choice(entry, machine, precision).step_dtype)
    step = sizes.flops.step(positions, num_tokens) / rate
    if machine.device != "cpu":
        step += sizes.layers * GPU_LAYER_SECONDS
    if sizes.states:
        step += sizes.layers * positions * SCAN_SECONDS
    return steps * step


def _share(machine: Machine, dtype: torch.dtype) -> float:
    """Of the machine's rate that a dtype reaches."""
    if machine.device == "mps" or (dtype == torch.bfloat16 and machine.bfloat16):
        return 1.0
    if machine.device == "cpu":
        return CPU_FLOAT32_SHARE if machine.bfloat16 or dtype != torch.float32 else 1.0
    return 1.0 if dtype == torch.float16 else GPU_FLOAT32_SHARE


def _choice(entry: ModelEntry, machine: Machine, precision: str) -> Choice:
    return choose_dtype(machine, stored_dtype(entry.architecture), entry.parameters, precision)


def gigabytes(size: float) -> str:
    """ "12.6 GB"."""
    return f"{size / GB:.1f} GB"


def _first(architecture: Mapping[str, Any], *names: str) -> int:
    """The first of the names that a config gives, 0 if it gives none."""
    return next((int(architecture[name]) for name in names if architecture.get(name)), 0)


def _joined(sizes: _Sizes) -> int:
    """Parameters that `body.py` holds once more: matrices that read the same input, joined."""
    if sizes.family not in WRITTEN_OUT:
        return 0
    read = sizes.attended + (2 if sizes.gated else 1) * sizes.inner
    return sizes.layers * sizes.width * read


def _step_bytes(sizes: _Sizes, num_tokens: int, num_mem: int, choice: Choice, machine: Machine) -> int:
    """Most that a step holds above the weights."""
    size, positions = choice.step_dtype.itemsize, num_mem + num_tokens - 1
    copied = choice.step_dtype != choice.load_dtype  # `FrozenLM.for_steps` has its own attention then
    scores = sizes.heads * positions**2 * size
    kept = positions * (
        _written_out(sizes) * size if copied and sizes.family in WRITTEN_OUT else _autograd(sizes, size)
    )
    kept += scores * copied
    passing = PASSING_SCORES * scores * (copied or machine.device == "mps")
    passing += positions * (4 * sizes.inner * size + 4 * sizes.width * 4)
    rows = min(num_tokens, max(1, LOGIT_BLOCK // (sizes.vocabulary * size)))
    logits = rows * sizes.vocabulary * (size + 2 * 4)
    hidden = 4 * positions * sizes.width * 4
    optimiser = OPTIMISER_COPIES * num_mem * sizes.width * 4
    return sizes.layers * kept + max(passing, logits) + hidden + optimiser


def _written_out(sizes: _Sizes) -> int:
    """Numbers of a position that a layer of `body.py` keeps."""
    if sizes.gated:
        return 2 * sizes.width + sizes.attended + 3 * sizes.inner
    return sizes.width + sizes.attended + sizes.inner


def _autograd(sizes: _Sizes, size: int) -> int:
    """Bytes of a position that a layer of transformers keeps."""
    opened = 3 if sizes.gated else 4 if sizes.family == "gpt2" else 2  # GPT-2's activation is a sum of powers
    kept = sizes.norms * sizes.width * 4 + size * (4 * sizes.heads * sizes.head_width + opened * sizes.inner)
    return kept + SCAN_COPIES * sizes.inner * sizes.states * 4


def _end_bytes(sizes: _Sizes, num_tokens: int, num_mem: int, choice: Choice) -> int:
    """Most that scoring the best vectors and the bare model holds: logits of all N tokens, in float32."""
    size, positions = choice.load_dtype.itemsize, num_mem + num_tokens - 1
    logits = num_tokens * sizes.vocabulary * (END_LOGITS * 4 + (size if size < 4 else 0))
    layer = positions * (4 * sizes.inner * size + 4 * sizes.width * 4) + 3 * sizes.inner * sizes.states * positions * 4
    return logits + layer


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch or Python says that there was no memory left, of a GPU or of the machine."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY_WORDS)


@contextmanager
def memory_or(sentence: str) -> Iterator[None]:
    """Work that may run out of memory.

    Raises:
        ModelError: with that sentence, if it did.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not ran_out_of_memory(error):
            raise
        raise ModelError(sentence) from error
