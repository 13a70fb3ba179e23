"""A model that accelerate has spread gives what the plain one gives, and lets go of the weights it fetched."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from cramdemo import CramConfig, FrozenLM, ModelError, decode, load_model, run_cram
from cramdemo.catalogue import BUILT_IN, MODELS
from cramdemo.checkpoint import layers_of, model_fingerprint
from cramdemo.dispatch import execution_device, is_dispatched
from cramdemo.step import score

TEXT = "The old sea, tired."
SPLIT = {
    "model.embed_tokens": "disk",
    "model.layers.0": "cpu",
    "model.layers.1": "disk",
    "model.norm": "cpu",
    "model.rotary_emb": "cpu",
    "lm_head": "cpu",
}
Spread = Callable[[Path, Path], PreTrainedModel]


def _plain(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


WAYS: dict[str, Spread] = {
    "CPU offload": lambda folder, store: cpu_offload(_plain(folder), torch.device("cpu")),
    "disk offload": lambda folder, store: disk_offload(_plain(folder), str(store), torch.device("cpu")),
    "a device map": lambda folder, store: AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, device_map=SPLIT, offload_folder=str(store)
    ),
}


@pytest.fixture(scope="module", params=WAYS)
def spread(
    request: pytest.FixtureRequest, tiny_lm: FrozenLM, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> FrozenLM:
    model = WAYS[request.param](tiny_folder, tmp_path_factory.mktemp("offloaded"))
    assert is_dispatched(model)
    return FrozenLM("tiny", model, tiny_lm.tokenizer, fingerprint=tiny_lm.fingerprint, step_dtype=torch.bfloat16)


def _scored(lm: FrozenLM, wanted: Tensor | None = None) -> tuple[Tensor, ...]:
    mem = torch.randn(1, 3, lm.hidden_size, generator=torch.Generator().manual_seed(1))
    ids = torch.tensor([lm.tokenize(TEXT)])
    return score(lm, mem, ids, temperature=0.5, margin=1.0, wanted=wanted)


@pytest.mark.parametrize("wanted", [None, torch.tensor([1, 4])], ids=["all tokens", "some tokens"])
def test_loss_and_gradient_are_the_plain_model_s(spread: FrozenLM, tiny_lm: FrozenLM, wanted: Tensor | None) -> None:
    for found, expected in zip(_scored(spread, wanted), _scored(tiny_lm, wanted), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_a_run_is_lossless_and_decodes_on_the_plain_model(spread: FrozenLM, tiny_lm: FrozenLM) -> None:
    result = run_cram(spread, TEXT, CramConfig(num_mem=4, steps=300))
    assert result.lossless
    assert decode(spread, result.vectors).text == decode(tiny_lm, result.vectors).text == TEXT


def test_inputs_go_where_the_model_runs_not_where_its_weights_wait(spread: FrozenLM, tiny_lm: FrozenLM) -> None:
    embedding = spread.model.get_input_embeddings()
    assert embedding.weight.device.type == "meta"
    assert spread.device == torch.device("cpu")
    assert spread.embedding_std == tiny_lm.embedding_std


def test_a_plain_model_runs_where_its_weights_are(tiny_lm: FrozenLM) -> None:
    assert not tiny_lm.dispatched
    assert execution_device(tiny_lm.model.lm_head) == torch.device("cpu")


def test_the_fingerprint_is_the_plain_model_s(spread: FrozenLM, tiny_lm: FrozenLM, tiny_folder: Path) -> None:
    assert model_fingerprint(tiny_folder, spread.model) == tiny_lm.fingerprint


def test_it_is_neither_copied_nor_run_by_our_own_layers(spread: FrozenLM) -> None:
    assert spread.step_dtype != spread.dtype
    assert spread.for_steps() is spread
    assert (spread.body, spread.linear_head) == (None, None)
    with pytest.raises(ModelError, match="spread over several devices"):
        spread.in_float32()


def _kept_for_backward(lm: FrozenLM) -> int:
    """Bytes that autograd keeps after a forward pass, of whatever lies in the layers."""
    sizes = {}

    def note(tensor: Tensor) -> Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    mem = torch.zeros(1, 1, lm.hidden_size, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        lm.text_logits(mem, torch.tensor([[1, 2]]))
    return sum(sizes.values())


def test_no_layer_s_weights_are_kept_for_the_backward_pass(spread: FrozenLM, tiny_lm: FrozenLM) -> None:
    """Autograd would hold the whole model on the GPU, which is what it was spread for."""
    layers = sum(p.nbytes for p in layers_of(tiny_lm.model)[1].parameters())
    assert _kept_for_backward(tiny_lm) > layers
    assert _kept_for_backward(spread) < layers / 2 + tiny_lm.model.lm_head.weight.nbytes


def test_weights_are_let_go_again_after_a_step(spread: FrozenLM) -> None:
    waiting = {name: p.device.type for name, p in spread.model.named_parameters()}
    _scored(spread)
    assert {name: p.device.type for name, p in spread.model.named_parameters()} == waiting


def test_made_twice_a_model_s_layers_are_run_again_once(spread: FrozenLM) -> None:
    before = [layer.forward for layer in layers_of(spread.model)[1]]
    FrozenLM("again", spread.model, spread.tokenizer, fingerprint=spread.fingerprint)
    assert [layer.forward for layer in layers_of(spread.model)[1]] == before


def test_tied_embeddings_keep_the_fingerprint(built_in: FrozenLM, tmp_path: Path) -> None:
    """Of weights that are elsewhere the pointers are all alike."""
    folder = Path(MODELS[BUILT_IN].source)
    model = disk_offload(copy.deepcopy(built_in.model), str(tmp_path), torch.device("cpu"))
    assert model_fingerprint(folder, model) == built_in.fingerprint


@pytest.mark.gpu
def test_on_a_gpu_auto_spreads_a_model_and_a_run_is_lossless(tiny_folder: Path) -> None:
    lm = load_model(str(tiny_folder), device="auto")
    assert lm.device.type == "cuda"
    assert run_cram(lm, TEXT, CramConfig(num_mem=4, steps=300)).lossless
