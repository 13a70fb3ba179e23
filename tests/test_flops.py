"""The count of FLOPs is what torch counts, but for the half of the attention that a causal model does not need."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MambaConfig,
    PretrainedConfig,
    PreTrainedModel,
)

from cramdemo.flops import FlopCount

SIZES = {"vocab_size": 300, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
CONFIGS = [
    LlamaConfig(**SIZES, intermediate_size=128, num_key_value_heads=2, tie_word_embeddings=True),
    LlamaConfig(**SIZES, intermediate_size=96, num_key_value_heads=4, head_dim=32, tie_word_embeddings=False),
    GPTNeoXConfig(**SIZES, intermediate_size=128),
    GPT2Config(vocab_size=300, n_embd=64, n_layer=2, n_head=4),
]
POSITIONS, PREDICTIONS = 12, 9


def _model(config: PretrainedConfig) -> PreTrainedModel:
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    return model.eval().requires_grad_(False)


def _counted_by_torch(model: PreTrainedModel, backward: bool) -> int:
    inputs = torch.randn(1, POSITIONS, 64, requires_grad=backward)
    with FlopCounterMode(display=False) as counter:
        logits = model(inputs_embeds=inputs, use_cache=False, logits_to_keep=PREDICTIONS).logits
        if backward:
            logits.sum().backward()
    return int(counter.get_total_flops())


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.model_type)
def test_the_count_is_torch_s(config: PretrainedConfig) -> None:
    model = _model(config)
    count = FlopCount.of(model)
    width = 2 * 4 * (getattr(config, "head_dim", None) or 16)  # layers x heads x head width
    unneeded = POSITIONS**2 - POSITIONS * (POSITIONS + 1) // 2  # pairs with later positions
    forward, step = count.forward(POSITIONS, PREDICTIONS), count.step(POSITIONS, PREDICTIONS)
    with torch.no_grad():
        assert _counted_by_torch(model, backward=False) == forward + 2 * 2 * width * unneeded
    assert _counted_by_torch(model, backward=True) == step + 2 * 6 * width * unneeded


def test_the_head_counts_for_predictions_only_and_once_when_it_is_the_embedding_too() -> None:
    tied, untied = (FlopCount.of(_model(config)) for config in CONFIGS[:2])
    assert tied.head == untied.head == 300 * 64
    assert tied.step(10, 5) - tied.step(10, 4) == 4 * 300 * 64


def test_a_model_without_attention_has_no_pairs() -> None:
    config = MambaConfig(vocab_size=300, hidden_size=64, num_hidden_layers=2, state_size=4)
    count = FlopCount.of(AutoModelForCausalLM.from_config(config))
    assert count.attention == 0
    assert count.forward(20, 1) - count.forward(10, 1) == 20 * count.body > 0


@pytest.mark.parametrize("positions", [1, 4, 5, 30])
def test_layers_that_see_a_window_have_pairs_within_it_only(positions: int) -> None:
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    config = Gemma3TextConfig(**SIZES | {"num_hidden_layers": 3}, head_dim=16, sliding_window=4, layer_types=kinds)
    count = FlopCount.of(AutoModelForCausalLM.from_config(config))
    seen = [
        sum(earlier > later - 4 for earlier in range(later + 1)) for later in range(positions)
    ]  # by the mask's rule
    pairs = 2 * sum(seen) + sum(range(1, positions + 1))
    products = count.forward(positions, 0) - 2 * count.body * positions
    assert products == 2 * 2 * (4 * 16) * pairs
