"""Our attention gives what transformers' own gives, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, GPTNeoXConfig, LlamaConfig, PretrainedConfig, PreTrainedModel

from cramdemo.attention import NAME

SIZES = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
CONFIGS = {
    "grouped heads": LlamaConfig(**SIZES, num_attention_heads=4, num_key_value_heads=2),
    "one key head": LlamaConfig(**SIZES, num_attention_heads=4, num_key_value_heads=1),
    "heads wider than d / H": LlamaConfig(**SIZES, num_attention_heads=4, num_key_value_heads=4, head_dim=16),
    "GPT-NeoX": GPTNeoXConfig(**SIZES, num_attention_heads=4),
}


def _model(config: PretrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).eval().requires_grad_(False).to(dtype)


def _forward_and_back(model: PreTrainedModel, implementation: str) -> tuple[Tensor, Tensor]:
    model.set_attn_implementation(implementation)
    assert model.config._attn_implementation == implementation
    inputs = torch.randn(3, 7, 32, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
    logits = model(inputs_embeds=inputs.to(model.dtype), use_cache=False).logits.float()
    (gradient,) = torch.autograd.grad((10 * logits).square().sum(), inputs)
    return logits.detach(), gradient


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)], ids=str)
@pytest.mark.parametrize("name", CONFIGS)
def test_it_agrees_with_eager_attention(name: str, dtype: torch.dtype, tolerance: float) -> None:
    model = _model(CONFIGS[name], dtype)
    for ours, theirs in zip(_forward_and_back(model, NAME), _forward_and_back(model, "eager"), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance * float(theirs.abs().max()))


def test_a_token_sees_none_that_come_later() -> None:
    model = _model(CONFIGS["grouped heads"], torch.float32)
    model.set_attn_implementation(NAME)
    inputs = torch.randn(1, 7, 32, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
    logits = model(inputs_embeds=inputs, use_cache=False).logits
    (gradient,) = torch.autograd.grad(logits[:, 3].sum(), inputs)
    assert bool((gradient[:, 4:] == 0).all())
    assert bool((gradient[:, :4] != 0).any(-1).all())
