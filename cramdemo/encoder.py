"""The memory encoder: one forward pass from a text to [mem] vectors, in the way of ICAE.

It is the warm start of the optimiser on the built-in model, and the other side of the comparison the
paper is about: what an encoder's vector decodes against what an optimised one does. Knows nothing of
training; `pretrain.py` trains it, `models.py` loads it.
"""

from __future__ import annotations

import copy
import json
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel


class MemoryEncoder(nn.Module):
    """A causal transformer that reads the text with K query positions in between, which become the [mem] vectors.

    The text enters as the frozen LM's own input embeddings, so the encoder has no vocabulary of its own.
    """

    def __init__(self, lm_config: LlamaConfig, layers: int, max_mem: int) -> None:
        super().__init__()
        self.max_mem = max_mem
        config = copy.deepcopy(lm_config)
        config.num_hidden_layers = layers
        self.config = config
        self.body = LlamaModel(config)
        self.body.embed_tokens = nn.Identity()  # embeddings come from the LM
        self.query = nn.Parameter(torch.zeros(1, config.hidden_size))
        self.project = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(self, text_embeds: Tensor, num_mem: int) -> Tensor:
        """[mem] vectors of root mean square 1 for each text.

        The text is cut in K parts, each followed by the query position whose output becomes its vector, so that
        K vectors are K times the task of one.

        Args:
            text_embeds: (B, N, d), the LM's input embeddings of the text.
            num_mem: K; trained for 1 to `max_mem`.

        Returns:
            (B, K, d), float32.
        """
        batch, num_tokens, width = text_embeds.shape
        query = self.query.to(text_embeds.dtype).expand(batch, 1, width)
        ends = [num_tokens * part // num_mem for part in range(num_mem + 1)]
        parts = [x for a, b in pairwise(ends) for x in (text_embeds[:, a:b], query)]
        outputs = torch.tensor([end + part for part, end in enumerate(ends[1:])], device=query.device)
        hidden = self.body(inputs_embeds=torch.cat(parts, dim=1), use_cache=False).last_hidden_state  # (B, N + K, d)
        mem: Tensor = self.project(hidden[:, outputs]).float()
        return mem * torch.rsqrt(mem.square().mean(-1, keepdim=True) + 1e-6)


def load_encoder(folder: Path, lm_config: LlamaConfig) -> MemoryEncoder:
    """The encoder saved in `folder` by `pretrain.py`, float32, frozen, in evaluation mode.

    Raises:
        OSError, safetensors.SafetensorError, RuntimeError: files missing, damaged, or of another shape.
    """
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    encoder = MemoryEncoder(lm_config, settings["layers"], settings["max_mem"])
    state: dict[str, Tensor] = {}
    for shard in sorted(folder.glob("*.safetensors")):
        state.update(load_file(shard))
    encoder.load_state_dict(state)
    return encoder.float().eval().requires_grad_(False)
