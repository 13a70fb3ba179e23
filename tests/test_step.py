"""One pass over [mem]: the short way through the head is the long way's equal."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PretrainedConfig,
)

from cramdemo import objective
from cramdemo.models import FrozenLM
from cramdemo.step import score

SIZES = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SCALED = Gemma2Config(
    **SIZES,
    intermediate_size=64,
    num_key_value_heads=2,
    head_dim=8,
    final_logit_softcapping=0.5,
    query_pre_attn_scalar=8,
)
CONFIGS = [
    LlamaConfig(**SIZES, intermediate_size=64, num_key_value_heads=2),
    GPTNeoXConfig(**SIZES, intermediate_size=64),
    GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=4),
    SCALED,
]
KINDS = [config.model_type for config in CONFIGS]


def _lm(config: PretrainedConfig, like: FrozenLM) -> FrozenLM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
    return FrozenLM("random", model, like.tokenizer, fingerprint="0" * 64)


def _inputs(lm: FrozenLM, rows: int = 2, num_mem: int = 3, num_tokens: int = 9) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    mem = torch.randn(rows, num_mem, lm.hidden_size, generator=generator)
    return mem, torch.randint(lm.vocab_size, (1, num_tokens), generator=generator).expand(rows, -1)


def _expected(lm: FrozenLM, mem: Tensor, ids: Tensor, margin: float, temperature: float) -> tuple[Tensor, ...]:
    """Whole logits at all positions, and autograd through everything."""
    leaf, embeds = mem.clone().requires_grad_(True), lm.embed(ids)
    logits = lm.model(inputs_embeds=torch.cat([leaf, embeds], dim=1)).logits[:, mem.shape[1] - 1 : -1]
    right = logits.gather(-1, ids[..., None])[..., 0]
    margins = right - torch.where(F.one_hot(ids, lm.vocab_size).bool(), -torch.inf, logits).amax(-1)
    nats = F.cross_entropy((logits / temperature).transpose(1, 2), ids, reduction="none") * temperature
    plain = F.cross_entropy(logits.transpose(1, 2), ids, reduction="none")
    loss = nats + F.relu(margin - margins)
    gradients = [torch.autograd.grad(loss[:, n].sum(), leaf, retain_graph=True)[0] for n in range(ids.shape[1])]
    return plain.detach(), margins.detach(), logits.argmax(-1), torch.stack(gradients)  # (R, N) each; (N, R, K, d)


@pytest.mark.parametrize("weighted", [False, True], ids=["alike", "weighted"])
@pytest.mark.parametrize("wanted", [None, [0, 3, 8], [5]], ids=str)
@pytest.mark.parametrize("settings", [(0.0, 1.0), (0.3, 1.0), (0.3, 0.5)], ids=str)
@pytest.mark.parametrize("config", CONFIGS, ids=KINDS)
def test_it_agrees_with_whole_logits_and_autograd(
    tiny_lm: FrozenLM, config: PretrainedConfig, settings: tuple[float, float], wanted: list[int] | None, weighted: bool
) -> None:
    lm, (margin, temperature) = _lm(config, tiny_lm), settings
    mem, ids = _inputs(lm)
    nats, margins, said, gradients = _expected(lm, mem, ids, margin, temperature)
    chosen = list(range(9)) if wanted is None else wanted
    kept = None if wanted is None else torch.tensor(wanted)
    weights = torch.rand(2, 9, generator=torch.Generator().manual_seed(2)) if weighted else torch.ones(2, 9)
    found = score(
        lm, mem, ids, temperature=temperature, margin=margin, weights=weights if weighted else None, wanted=kept
    )
    torch.testing.assert_close(found.nats, nats[:, chosen], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.margins, margins[:, chosen], rtol=1e-4, atol=1e-5)
    weighed = weights.T[:, :, None, None] * gradients  # (N, R, K, d)
    wrong = margins[:, chosen] < 0
    assert wrong.any() and torch.equal(found.rivals[wrong], said[:, chosen][wrong])
    torch.testing.assert_close(found.gradient, weighed[chosen].mean(0), rtol=1e-3, atol=1e-6)


def test_a_model_that_bends_its_logits_takes_the_long_way(tiny_lm: FrozenLM) -> None:
    assert _lm(SCALED, tiny_lm).linear_head is None
    assert all(_lm(config, tiny_lm).linear_head is not None for config in CONFIGS[:-1])


def test_blocks_of_logits_change_nothing(tiny_lm: FrozenLM, monkeypatch: pytest.MonkeyPatch) -> None:
    mem, ids = _inputs(tiny_lm)
    whole = score(tiny_lm, mem, ids, temperature=1.0, margin=0.3)
    monkeypatch.setattr(objective, "LOGIT_BYTES", 4 * 300 * 4)  # four rows of float32
    for found, expected in zip(score(tiny_lm, mem, ids, temperature=1.0, margin=0.3), whole, strict=True):
        torch.testing.assert_close(found, expected)


def test_it_leaves_no_graph_and_no_gradient_mode_behind(tiny_lm: FrozenLM) -> None:
    mem, ids = _inputs(tiny_lm)
    with torch.no_grad():
        found = score(tiny_lm, mem, ids, temperature=1.0, margin=0.3)
        assert not torch.is_grad_enabled()
    assert not any(tensor.requires_grad for tensor in found)
    assert not mem.requires_grad
