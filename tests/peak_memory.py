"""What models and runs of a few small shapes take in a process of its own: python tests/peak_memory.py REQUEST.

REQUEST is JSON: `shapes` (name -> transformers config) and `runs` (pairs of N and K). Prints, by shape, the bytes of
`weights` and of each run at its peak above them. Linux only: it reads the resident set and resets its peak.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from cramdemo import CramConfig, FrozenLM, run_cram
from cramdemo.catalogue import BUILT_IN, MODELS

TOKENIZER = AutoTokenizer.from_pretrained(MODELS[BUILT_IN].source, local_files_only=True, trust_remote_code=False)
WARM_UP = {"hidden_size": 96, "intermediate_size": 128, "num_hidden_layers": 1}  # the code itself takes memory too


def resident(name: str) -> int:
    """Bytes held now ("VmRSS"), or at most since `start_anew` ("VmHWM")."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(dict(line.split(":", 1) for line in lines)[name].split()[0]) * 1024


def start_anew() -> int:
    """Give back what is free, forget the peak; returns what is held."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return resident("VmRSS")


def model(config: dict[str, Any]) -> FrozenLM:
    """Random, as if stored in the dtype that the config says; steps run in it, the model itself is in float32."""
    stored = getattr(torch, config["dtype"])
    made = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), dtype=stored).float()
    lm = FrozenLM("shape", made, TOKENIZER, fingerprint="0" * 64, step_dtype=stored)
    lm.for_steps()
    return lm


def run(lm: FrozenLM, num_tokens: int, num_mem: int) -> int:
    """Peak of a few steps and of what ends a run, above what is held before."""
    ids = torch.randint(1000, (num_tokens,), generator=torch.Generator().manual_seed(0)).tolist()
    held = start_anew()
    run_cram(lm, ids, CramConfig(num_mem=num_mem, steps=1, growth=0, init="embedding", optimizer="whitened"))
    return resident("VmHWM") - held


def measured(config: dict[str, Any], runs: list[tuple[int, int]]) -> dict[str, Any]:
    """Of one shape, after a much smaller one of its kind has run."""
    run(model({**config, **WARM_UP}), 64, 1)
    empty = start_anew()
    lm = model(config)
    weights = start_anew() - empty
    return {"weights": weights, "runs": [run(lm, *sizes) for sizes in runs]}


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    torch.manual_seed(0)
    print(json.dumps({name: measured(config, asked["runs"]) for name, config in asked["shapes"].items()}))
