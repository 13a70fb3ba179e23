"""A checkpoint's files: its fingerprint, from the bytes as they are stored, whatever dtype the model is loaded in."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

INSIDE = ("language_model.model.", "model.language_model.")  # where it is, in checkpoints that read images as well
_HASH_CHUNK = 1 << 20
_ARCHITECTURE = (
    "model_type",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "tie_word_embeddings",
)


def model_fingerprint(folder: Path, model: PreTrainedModel) -> str:
    """SHA-256 over architecture fields and the stored bytes of the input embedding and of the last layer.

    Args:
        folder: of the checkpoint: config.json and safetensors files.
        model: loaded from it, which knows what the tensors are for.

    Raises:
        ValueError, KeyError, TypeError, struct.error: the files are damaged or are not this model's.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    sizes = config.get("text_config") or config
    others = model.config.attribute_map  # GPT-2 calls its heads n_head
    fields = [sizes.get(key, sizes.get(others.get(key))) for key in _ARCHITECTURE]
    digest = hashlib.sha256(json.dumps(fields).encode())
    wanted = _fingerprint_names(model)
    found = 0
    for key, path, start, size in _stored_tensors(folder):
        if _bare(key, model) in wanted:
            digest.update(key.encode())
            _hash_range(digest, path, start, size)
            found += 1
    if found < len(wanted):
        raise ValueError("stored names do not match the model's")
    return digest.hexdigest()


def layers_of(model: torch.nn.Module) -> tuple[str, torch.nn.ModuleList]:
    """The model's stack of layers and its name: the longest list of modules, the outermost of equals."""
    stacks = [(name, module) for name, module in model.named_modules() if isinstance(module, torch.nn.ModuleList)]
    return max(stacks, key=lambda stack: (len(stack[1]), -stack[0].count(".")))


def _fingerprint_names(model: PreTrainedModel) -> set[str]:
    """Names, without the base prefix, of the input embedding and of every tensor of the last layer."""
    name_of_layers, layers = layers_of(model)
    last = f"{name_of_layers}.{len(layers) - 1}."
    embedding = model.get_input_embeddings().weight
    state = model.state_dict(keep_vars=True)  # of weights that are elsewhere (`dispatch`) no pointer tells
    tied_head = model.get_output_embeddings()
    heads = {name for name, m in model.named_modules() if m is tied_head}
    return {
        _bare(name, model)
        for name, tensor in state.items()
        if name.startswith(last) or (tensor is embedding and name.rpartition(".")[0] not in heads)
    }


def _bare(name: str, model: PreTrainedModel) -> str:
    """A tensor's name within the language model's layers and embeddings."""
    prefixes = (*INSIDE, f"{model.base_model_prefix}.")
    return name.removeprefix(next((prefix for prefix in prefixes if name.startswith(prefix)), ""))


def _stored_tensors(folder: Path) -> Iterator[tuple[str, Path, int, int]]:
    """Name, file, first byte and size of every stored tensor, by name."""
    found = []
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(size))
        for key, entry in header.items():
            if key != "__metadata__":
                start, end = entry["data_offsets"]
                found.append((key, path, 8 + size + start, end - start))
    yield from sorted(found)


def _hash_range(digest: Any, path: Path, start: int, size: int) -> None:
    with path.open("rb") as file:
        file.seek(start)
        while size > 0 and (chunk := file.read(min(size, _HASH_CHUNK))):
            digest.update(chunk)
            size -= len(chunk)
