"""The fingerprint of a checkpoint: what it depends on, and what it does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from cramdemo import FrozenLM, load_model
from cramdemo.catalogue import BUILT_IN

Copy = Callable[[Path], Path]


def test_the_fingerprint_does_not_depend_on_the_dtype_loaded(built_in: FrozenLM) -> None:
    half = load_model(BUILT_IN, device="cpu", precision="bfloat16")
    assert half.dtype == torch.bfloat16
    assert half.fingerprint == built_in.fingerprint
    assert half.tokenizer_fingerprint == built_in.tokenizer_fingerprint


@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "model.layers.1.mlp.down_proj.weight"])
def test_one_number_changed_on_disk_changes_the_fingerprint(
    tiny_lm: FrozenLM, tiny_folder: Path, copy_of: Copy, name: str
) -> None:
    folder = copy_of(tiny_folder)
    tensors = load_file(folder / "model.safetensors")
    tensors[name][-1, -1] += 1e-3
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert load_model(str(folder), device="cpu").fingerprint != tiny_lm.fingerprint


def test_the_fingerprint_depends_on_the_architecture(tiny_lm: FrozenLM, tiny_folder: Path, copy_of: Copy) -> None:
    """Other numbers of heads read the same bytes as another function."""
    folder = copy_of(tiny_folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 8}
    (folder / "config.json").write_text(json.dumps(config))
    assert load_model(str(folder), device="cpu").fingerprint != tiny_lm.fingerprint


def test_the_fingerprint_does_not_depend_on_how_the_checkpoint_is_cut_into_files(
    tiny_lm: FrozenLM, tiny_folder: Path, copy_of: Copy
) -> None:
    folder = copy_of(tiny_folder)
    (folder / "model.safetensors").unlink()
    AutoModelForCausalLM.from_pretrained(tiny_folder).save_pretrained(folder, max_shard_size="50KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    assert load_model(str(folder), device="cpu").fingerprint == tiny_lm.fingerprint
