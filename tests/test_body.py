"""The layers written out here give what transformers' own give, forward and back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, GPTNeoXConfig, LlamaConfig, PretrainedConfig, PreTrainedModel

from cramdemo import models
from cramdemo.body import Body, body_of
from cramdemo.models import FrozenLM

SIZES = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
WRITTEN_OUT = {
    "Llama": LlamaConfig(**SIZES, num_attention_heads=4, num_key_value_heads=4),
    "Llama, grouped heads": LlamaConfig(**SIZES, num_attention_heads=4, num_key_value_heads=2),
    "Llama, wide heads": LlamaConfig(**SIZES, num_attention_heads=4, num_key_value_heads=1, head_dim=16),
    "Llama, scaled rotary": LlamaConfig(
        **SIZES,
        num_attention_heads=4,
        rope_parameters={"rope_type": "linear", "factor": 3.0, "rope_theta": 10000.0},
    ),
    "GPT-NeoX": GPTNeoXConfig(**SIZES, num_attention_heads=4),
    "GPT-NeoX, whole heads rotated": GPTNeoXConfig(
        **SIZES,
        num_attention_heads=4,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0},
    ),
}
OTHERS = [
    GPTNeoXConfig(**SIZES, num_attention_heads=4, use_parallel_residual=False),
    GPTNeoXConfig(**SIZES, num_attention_heads=4, hidden_act="relu"),
    LlamaConfig(**SIZES, num_attention_heads=4, attention_bias=True),
    LlamaConfig(**SIZES, num_attention_heads=4, hidden_act="gelu"),
]


def _model(config: PretrainedConfig, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Random, its norms and biases too, which transformers leaves at one and zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                torch.nn.init.normal_(parameter, mean=float("norm" in name and "weight" in name), std=0.3)
            else:
                torch.nn.init.normal_(parameter, std=0.2)
    return model.eval().requires_grad_(False).to(dtype)


def _inputs(length: int = 7) -> Tensor:
    return torch.randn(2, length, 32, generator=torch.Generator().manual_seed(1))


def _back(hidden: Tensor, inputs: Tensor) -> Tensor:
    weights = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(2))
    (gradient,) = torch.autograd.grad((hidden.float() * weights).sum(), inputs)
    return gradient


@pytest.mark.parametrize("length", [1, 7])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.06)], ids=str)
@pytest.mark.parametrize("name", WRITTEN_OUT)
def test_it_agrees_with_the_model(name: str, dtype: torch.dtype, tolerance: float, length: int) -> None:
    model = _model(WRITTEN_OUT[name], dtype)
    body = body_of(model)
    assert body is not None
    ours, theirs = (_inputs(length).to(dtype).requires_grad_(True) for _ in range(2))
    found, expected = body(ours), model.base_model(inputs_embeds=theirs, use_cache=False).last_hidden_state
    for a, b in ((found, expected), (_back(found, ours), _back(expected, theirs))):
        apart = float((a.detach().float() - b.detach().float()).norm() / b.detach().float().norm())
        assert apart < tolerance


@pytest.mark.parametrize("config", OTHERS, ids=[f"{c.model_type} {n}" for n, c in enumerate(OTHERS)])
def test_what_is_not_written_out_goes_through_transformers(config: PretrainedConfig) -> None:
    assert body_of(_model(config)) is None


def test_steps_take_the_short_way_and_everything_else_the_model(tiny_lm: FrozenLM) -> None:
    lm = FrozenLM("copy", tiny_lm.model, tiny_lm.tokenizer, fingerprint="0" * 64, step_dtype=torch.bfloat16)
    assert lm.body is None
    assert isinstance(lm.for_steps().body, Body)
    assert lm.in_float32().body is None


def test_a_body_that_gives_something_else_is_not_used(tiny_lm: FrozenLM, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: PreTrainedModel) -> Body | None:
        body = body_of(model)
        assert body is not None
        body.weight = -body.weight
        return body

    monkeypatch.setattr(models, "body_of", wrong)
    lm = FrozenLM("copy", tiny_lm.model, tiny_lm.tokenizer, fingerprint="0" * 64, step_dtype=torch.bfloat16)
    assert lm.for_steps().body is None
