"""The page as on a ZeroGPU Space, for tests: the real `spaces`, with a torch that has no CUDA.

python -m tests.ui.zero_space MODEL_FOLDER     (run by test_zero.py, which is the scheduler that lends GPUs)

It prints its address and serves until its standard input is closed. What only CUDA can do is done on the CPU: models
are emulated, written to disk, and read by the forked child, as there.
"""

from __future__ import annotations

import mmap
import os
import sys
from pathlib import Path
from typing import Any

import torch

PLANTED = "planted"  # a text with this word makes the program fail inside the child


def look_like_cuda() -> None:
    """What `spaces` asks of CUDA when it is imported, and a torch for CPUs does not have."""
    torch.version.cuda = "12.8"
    torch._C._cuda_init = lambda: None
    torch.cuda._is_in_bad_fork = not_forked


def be_cuda(_: str) -> None:
    """In the child: what `spaces` does there with a GPU."""
    real_tensor, real_empty = torch.tensor, torch.empty

    def pinned(tensor: torch.Tensor) -> torch.Tensor:
        """At the beginning of a memory page, as `spaces` needs it to read from the disk directly."""
        return torch.frombuffer(mmap.mmap(-1, tensor.numel() * tensor.element_size()), dtype=tensor.dtype)

    def on_cpu(make: Any) -> Any:
        return lambda *a, device=None, **k: make(*a, device=None if device == "cuda" else device, **k)

    torch.cuda.synchronize = lambda *_: None
    torch.Tensor.cuda = lambda tensor, **_: tensor.clone()
    torch.Tensor.pin_memory = pinned
    torch.tensor, torch.empty = on_cpu(real_tensor), on_cpu(real_empty)


def not_forked() -> bool:
    """A function of a module, since `spaces` asks it in a process of a pool."""
    return False


def offer_tiny(folder: str) -> None:
    """The tiny model under its name, which `CRAMDEMO_MODELS` lists."""
    from cramdemo.catalogue import MODELS
    from cramdemo.placement import entry_from_folder

    MODELS["tiny"] = entry_from_folder("tiny", Path(folder))


def plant_a_fault() -> None:
    """An exception that quotes the text, where only the child comes by."""
    from cramdemo.ui import live

    real = live.token_lines

    def faulty(texts: list[str], ids: list[int]) -> str:
        if PLANTED in "".join(texts):
            raise RuntimeError("".join(texts))
        return real(texts, ids)

    live.token_lines = faulty


if __name__ == "__main__":
    look_like_cuda()
    import spaces.zero.torch

    spaces.zero.torch.init = be_cuda
    offer_tiny(sys.argv[1])
    plant_a_fault()
    import app

    _, url, _ = app.demo.launch(prevent_thread_lock=True, quiet=True, **app.LAUNCH)
    print(f"url {url}", flush=True)
    os.read(0, 1)  # not by sys.stdin: its lock would be held in the forked child
    app.demo.close(verbose=False)
