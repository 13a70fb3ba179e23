"""The memory encoder: K vectors, each made of its own part of the text and what stands before it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import LlamaConfig

from cramdemo.encoder import MemoryEncoder, load_encoder

WIDTH = 32


def _config() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=50, hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2
    )


@pytest.fixture(scope="module")
def encoder() -> MemoryEncoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = MemoryEncoder(_config(), 2, max_mem=4)
        torch.nn.init.normal_(encoder.query)
    return encoder.eval().requires_grad_(False)


def _text(num_tokens: int) -> Tensor:
    return torch.randn(2, num_tokens, WIDTH, generator=torch.Generator().manual_seed(num_tokens))


@pytest.mark.parametrize("num_mem", [1, 3, 4, 9])
@pytest.mark.parametrize("num_tokens", [1, 3, 13])
def test_every_k_gives_k_vectors_of_root_mean_square_one(encoder: MemoryEncoder, num_mem: int, num_tokens: int) -> None:
    mem = encoder(_text(num_tokens), num_mem)
    assert mem.shape == (2, num_mem, WIDTH)
    assert mem.dtype == torch.float32
    torch.testing.assert_close(mem.square().mean(-1).sqrt(), torch.ones(2, num_mem), rtol=1e-3, atol=0)


@pytest.mark.parametrize(("num_mem", "ends"), [(1, [13]), (2, [6, 13]), (4, [3, 6, 9, 13])])
def test_a_vector_depends_on_the_text_up_to_the_end_of_its_part(
    encoder: MemoryEncoder, num_mem: int, ends: list[int]
) -> None:
    text = _text(13)
    before = encoder(text, num_mem)
    for position in range(13):
        changed = text.clone()
        changed[:, position] += 1
        differs = (encoder(changed, num_mem) - before).abs().amax((0, 2)) > 1e-5
        assert differs.tolist() == [position < end for end in ends]


def test_the_first_vector_of_many_is_the_only_one_of_its_part(encoder: MemoryEncoder) -> None:
    text = _text(12)
    torch.testing.assert_close(encoder(text, 4)[:, :1], encoder(text[:, :3], 1))


def test_the_lm_s_config_is_left_as_it_was() -> None:
    config = _config()
    assert len(MemoryEncoder(config, 1, max_mem=4).body.layers) == 1
    assert config.num_hidden_layers == 3


def test_a_saved_encoder_is_loaded_frozen_from_all_its_files(encoder: MemoryEncoder, tmp_path: Path) -> None:
    state = encoder.state_dict()
    names = sorted(state)
    save_file({name: state[name] for name in names[:3]}, tmp_path / "a.safetensors")
    save_file({name: state[name] for name in names[3:]}, tmp_path / "b.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"layers": 2, "max_mem": 4}))
    loaded = load_encoder(tmp_path, _config())
    assert torch.equal(loaded(_text(5), 2), encoder(_text(5), 2))
    assert loaded.max_mem == 4
    assert not any(p.requires_grad for p in loaded.parameters())
