"""FrozenLM against the plain transformers model, the fingerprint, and what may not be loaded."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from cramdemo import ConfigError, FrozenLM, ModelError, load_model
from cramdemo.catalogue import ASSETS, BUILT_IN, MODELS
from cramdemo.hub import Download
from tests.fake_hub import FakeHub, files_of

MEGABYTE = 1_000_000
Copy = Callable[[Path], Path]


def _plain(folder: Path) -> Any:
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval()


def _ids(*shape: int, vocabulary: int) -> torch.Tensor:
    return torch.randint(vocabulary, shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(("num_mem", "num_tokens"), [(1, 1), (1, 6), (3, 5), (8, 2)])
def test_text_logits_are_the_plain_model_s_on_vectors_and_text_joined(
    tiny_lm: FrozenLM, tiny_folder: Path, num_mem: int, num_tokens: int
) -> None:
    """Token 0 is predicted from the last vector, and the last token's own row is not needed."""
    ids = _ids(2, num_tokens, vocabulary=tiny_lm.vocab_size)
    mem = torch.randn(2, num_mem, tiny_lm.hidden_size, generator=torch.Generator().manual_seed(4))
    plain = _plain(tiny_folder)
    with torch.no_grad():
        embeds = plain.get_input_embeddings().weight[ids]
        expected = plain(inputs_embeds=torch.cat([mem, embeds], dim=1)).logits[:, num_mem - 1 : -1]
        found = tiny_lm.text_logits(mem, ids)
    assert found.shape == (2, num_tokens, tiny_lm.vocab_size)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_bare_logits_are_the_plain_model_s_on_the_text_alone(tiny_lm: FrozenLM, tiny_folder: Path) -> None:
    ids = _ids(2, 7, vocabulary=tiny_lm.vocab_size)
    with torch.no_grad():
        expected = _plain(tiny_folder)(input_ids=ids).logits[:, :-1]
    torch.testing.assert_close(tiny_lm.bare_logits(ids), expected, rtol=1e-4, atol=1e-5)
    assert tiny_lm.bare_logits(ids[:, :1]).shape == (2, 0, tiny_lm.vocab_size)


def test_gradient_flows_to_the_vectors_and_to_no_weight(tiny_lm: FrozenLM) -> None:
    mem = torch.randn(1, 2, tiny_lm.hidden_size, generator=torch.Generator().manual_seed(5)).requires_grad_(True)
    logits = tiny_lm.text_logits(mem, _ids(1, 4, vocabulary=tiny_lm.vocab_size))
    (gradient,) = torch.autograd.grad(logits[0, 3].sum(), mem)
    assert bool(torch.isfinite(gradient).all())
    assert bool((gradient != 0).any(-1).all())
    assert not any(p.requires_grad for p in tiny_lm.model.parameters())
    assert not tiny_lm.model.training


def test_a_later_token_does_not_change_an_earlier_prediction(tiny_lm: FrozenLM) -> None:
    ids = _ids(1, 6, vocabulary=tiny_lm.vocab_size)
    mem = torch.zeros(1, 1, tiny_lm.hidden_size)
    other = ids.clone()
    other[0, 4] = (other[0, 4] + 1) % tiny_lm.vocab_size
    with torch.no_grad():
        first, second = tiny_lm.text_logits(mem, ids)[0], tiny_lm.text_logits(mem, other)[0]
    torch.testing.assert_close(first[:5], second[:5], rtol=0, atol=1e-6)
    assert not torch.allclose(first[5], second[5])


def test_width_vocabulary_and_context_are_read_from_the_model(tiny_lm: FrozenLM) -> None:
    assert (tiny_lm.hidden_size, tiny_lm.vocab_size, tiny_lm.context) == (64, 300, 128)
    assert tiny_lm.max_tokens(28) == 100
    assert (tiny_lm.device.type, tiny_lm.dtype) == ("cpu", torch.float32)


def test_the_built_in_model_loads_with_plain_transformers_and_gives_the_same_logits(built_in: FrozenLM) -> None:
    folder = Path(MODELS[BUILT_IN].source)
    text = "We were tired of the sea."
    ids = AutoTokenizer.from_pretrained(folder)(text).input_ids
    assert ids == built_in.tokenize(text)
    with torch.no_grad():
        expected = _plain(folder)(input_ids=torch.tensor([ids])).logits[:, :-1]
    torch.testing.assert_close(built_in.bare_logits(torch.tensor([ids])), expected, rtol=1e-4, atol=1e-4)


def test_the_table_agrees_with_the_built_in_model(built_in: FrozenLM) -> None:
    entry = MODELS[BUILT_IN]
    assert entry.parameters == sum(p.numel() for p in built_in.model.parameters())
    assert (entry.hidden_size, entry.vocab_size, entry.context) == (
        built_in.hidden_size,
        built_in.vocab_size,
        built_in.context,
    )
    assert len(built_in.tokenizer) == entry.vocab_size
    assert entry.defaults == built_in.defaults


def test_the_built_in_files_fit_a_plain_git_push() -> None:
    sizes = {p.name: p.stat().st_size for p in (ASSETS / BUILT_IN).rglob("*") if p.is_file()}
    assert {name: size for name, size in sizes.items() if size >= 10 * MEGABYTE} == {}
    assert sum(sizes.values()) < 40 * MEGABYTE


def test_the_built_in_encoder_gives_as_many_vectors_as_asked_and_no_more_than_it_has(built_in: FrozenLM) -> None:
    ids = torch.tensor([built_in.tokenize("We were tired of the sea.")])
    assert built_in.encoder is not None
    assert built_in.encode(ids, 2).shape == (1, 2, built_in.hidden_size)
    with pytest.raises(ConfigError, match=f"at most {built_in.encoder.max_mem} vectors"):
        built_in.encode(ids, built_in.encoder.max_mem + 1)


def test_a_model_without_encoder_says_so(tiny_lm: FrozenLM) -> None:
    with pytest.raises(ConfigError, match="no memory encoder"):
        tiny_lm.encode(torch.tensor([[1, 2]]), 1)


def test_another_vocabulary_changes_the_tokenizer_fingerprint_only(
    tiny_lm: FrozenLM, tiny_folder: Path, copy_of: Copy
) -> None:
    folder = copy_of(tiny_folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    (a, b) = list(vocabulary)[10:12]
    vocabulary[a], vocabulary[b] = vocabulary[b], vocabulary[a]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    other = load_model(str(folder), device="cpu")
    assert other.fingerprint == tiny_lm.fingerprint
    assert other.tokenizer_fingerprint != tiny_lm.tokenizer_fingerprint


def _refused(folder: Path) -> str:
    """The sentence that refuses a folder; it names no place on this machine."""
    with pytest.raises(ModelError) as refused:
        load_model(str(folder), device="cpu")
    assert str(folder.parent) not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("name", ["gpt-17", "", "no/such/model", "a\0b"])
def test_an_unknown_name_is_refused_with_what_may_be_given(name: str) -> None:
    with pytest.raises(ModelError, match=f"no model .*{BUILT_IN}.* hub id.* folder"):
        load_model(name)


def test_a_folder_that_holds_no_model_is_not_looked_for_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: FakeHub
) -> None:
    """Its name would tell the hub how a user calls folders."""
    monkeypatch.chdir(tmp_path)
    Path("secret/project").mkdir(parents=True)
    with pytest.raises(ModelError, match="no model 'secret/project' here"):
        load_model("secret/project")
    assert hub.asked == []


def test_a_hub_id_that_is_not_on_this_machine_is_refused_offline() -> None:
    with pytest.raises(ModelError, match="no/such-model is not on this machine, and HF_HUB_OFFLINE is set"):
        load_model("no/such-model")


@pytest.mark.parametrize("name", ["EleutherAI/pythia-160m", "pythia-160m"])
def test_a_model_of_the_table_is_fetched_and_goes_by_its_name_there(
    name: str, hub: FakeHub, tiny_folder: Path, tiny_lm: FrozenLM
) -> None:
    repository = hub.add("EleutherAI/pythia-160m", files_of(tiny_folder))
    lm = load_model(name, device="cpu")
    assert (lm.name, lm.revision) == ("EleutherAI/pythia-160m", repository.sha)
    assert lm.fingerprint == tiny_lm.fingerprint


def test_a_folder_goes_before_a_hub_id_of_the_same_words(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, hub: FakeHub
) -> None:
    monkeypatch.chdir(tiny_folder.parent.parent)
    lm = load_model(f"{tiny_folder.parent.name}/{tiny_folder.name}", device="cpu")
    assert (lm.name, lm.revision, hub.asked) == (tiny_folder.name, "", [])


def test_token_stop_and_tell_reach_the_download(hub: FakeHub, tiny_folder: Path) -> None:
    hub.add("someone/tiny", files_of(tiny_folder), gated=True, granted=("token",))
    told: list[Download] = []
    load_model("someone/tiny", device="cpu", token="token", tell=told.append)
    assert told
    with pytest.raises(ModelError, match="was stopped"):
        load_model("someone/tiny", stop=lambda: True)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_hub_model_that_transformers_cannot_load_is_one_sentence(hub: FakeHub, tiny_folder: Path, name: str) -> None:
    hub.add("someone/tiny", {n: c for n, c in files_of(tiny_folder).items() if n != name})
    with pytest.raises(ModelError, match="someone/tiny cannot be loaded as a causal language model"):
        load_model("someone/tiny", device="cpu")


def test_an_unknown_precision_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"precision is 'int3'.*bfloat16"):
        load_model(BUILT_IN, precision="int3")


def test_pickled_weights_are_refused_unopened(tiny_folder: Path, copy_of: Copy) -> None:
    folder = copy_of(tiny_folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"never opened")
    assert "no safetensors weights" in _refused(folder)


@pytest.mark.parametrize("size", [0, 4, 8, 100, 5000, -1])
def test_cut_off_weights_are_refused(tiny_folder: Path, copy_of: Copy, size: int) -> None:
    weights = copy_of(tiny_folder) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:size])
    assert "cannot be loaded" in _refused(weights.parent)


def test_a_weight_missing_from_the_checkpoint_is_refused(tiny_folder: Path, copy_of: Copy) -> None:
    """Transformers would draw it at random, and the vectors made would decode nowhere else."""
    folder = copy_of(tiny_folder)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.0.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert "damaged or incomplete" in _refused(folder)


def test_a_stray_damaged_safetensors_file_is_refused(tiny_folder: Path, copy_of: Copy) -> None:
    folder = copy_of(tiny_folder)
    (folder / "stray.safetensors").write_bytes(b"abc")
    assert "damaged or incomplete" in _refused(folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [("config.json", "{"), ("config.json", "[]"), ("config.json", '{"model_type": "frog"}'), ("tokenizer.json", "{")],
)
def test_damaged_json_is_refused(tiny_folder: Path, copy_of: Copy, name: str, content: str) -> None:
    folder = copy_of(tiny_folder)
    (folder / name).write_text(content)
    assert "cannot be loaded" in _refused(folder)


@pytest.mark.parametrize("config", ['{"layers": 1, "max_mem": 3}', '{"max_mem": 3}', "{"])
def test_a_damaged_encoder_is_refused(built_in: FrozenLM, copy_of: Copy, config: str) -> None:
    folder = copy_of(Path(MODELS[BUILT_IN].source))
    (folder / "encoder" / "config.json").write_text(config)
    assert "damaged or incomplete" in _refused(folder)


def test_code_in_a_model_folder_is_never_run(
    tiny_folder: Path, copy_of: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left to itself transformers asks on the terminal, and runs the code on a "y"."""
    folder = copy_of(tiny_folder)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "frog.FrogConfig", "AutoModelForCausalLM": "frog.FrogLM"}
    config["model_type"] = "frog"
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "frog.py").write_text(f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))
    assert "cannot be loaded" in _refused(folder)
    assert not (tmp_path / "ran").exists()


def test_a_folder_s_model_goes_by_the_folder_s_name(tiny_lm: FrozenLM) -> None:
    """The name is written into vector files, which must not tell where their maker keeps things."""
    assert tiny_lm.name == "tiny"


# ---- the dtype of the optimiser's steps


@pytest.mark.parametrize(
    ("capable", "precision", "dtype"),
    [
        (True, "auto", torch.bfloat16),
        (False, "auto", torch.float32),
        (True, "float32", torch.float32),
    ],
)
def test_steps_run_in_bfloat16_where_that_costs_nothing_and_the_chip_has_it(
    monkeypatch: pytest.MonkeyPatch, capable: bool, precision: str, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": capable})
    lm = load_model(BUILT_IN, device="cpu", precision=precision)
    assert (lm.dtype, lm.for_steps().dtype) == (torch.float32, dtype)
    assert lm.for_steps() is lm.for_steps()
    original = dict(lm.model.named_parameters())
    assert all(torch.equal(p.float(), original[name]) for name, p in lm.for_steps().model.named_parameters())


def test_a_model_stored_in_float32_is_not_rounded_for_its_steps(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    lm = load_model(str(tiny_folder), device="cpu")
    assert lm.for_steps() is lm
