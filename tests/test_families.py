"""Laws that hold for the models of every family on offer, tiny and random, saved and loaded as a user's are."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from cramdemo import (
    CramConfig,
    FrozenLM,
    MemVectors,
    ModelMismatch,
    TextError,
    decode,
    load,
    load_model,
    run_cram,
    save,
)
from cramdemo.attention import NAME
from cramdemo.body import Body
from cramdemo.cram import check_length
from cramdemo.decode import decode_tokens, greedy_prefix, verify
from cramdemo.errors import ModelError
from cramdemo.metrics import margins
from cramdemo.objective import cram_loss
from cramdemo.step import score
from cramdemo.vectors import token_digest
from tests.families import EMBEDDING_STD, FAMILIES, LAYERS, VOCABULARY, WIDTH, build

Folders = Callable[[str], Path]
Models = Callable[[str], FrozenLM]
TEXT = "  The sea, \U0001f642\n"
SHORT = "The old sea."
SPECIAL = "<s></s><unk><pad><bos><eos><|endoftext|><|begin_of_text|><|im_start|>"
NO_HINGE = -1e4  # where two tokens are all but equal, rounding decides which of them the hinge pushes
LENGTH = 14  # more than Gemma's window
ROOT = Path(__file__).resolve().parent.parent
each_family = pytest.mark.parametrize("name", FAMILIES)


def _ids(*shape: int, seed: int = 3) -> Tensor:
    return torch.randint(300, shape, generator=torch.Generator().manual_seed(seed))


def _mem(lm: FrozenLM, *shape: int, seed: int = 4) -> Tensor:
    return lm.embedding_std * torch.randn(*shape, lm.hidden_size, generator=torch.Generator().manual_seed(seed))


def _plain(folder: Path) -> Any:
    """What transformers makes of the folder by itself, vision tower and all."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def _vectors(lm: FrozenLM, mem: Tensor, ids: list[int]) -> MemVectors:
    return MemVectors(
        mem=mem,
        model_id=lm.name,
        model_revision="",
        model_fingerprint=lm.fingerprint,
        tokenizer_fingerprint=lm.tokenizer_fingerprint,
        num_tokens=len(ids),
        token_sha256=token_digest(ids),
        dtype_trained="float32",
    )


# ---- [mem] and text


@each_family
def test_vectors_that_are_embeddings_of_tokens_are_read_as_those_tokens(
    family_lm: Models, family_folder: Folders, name: str
) -> None:
    lm, ids = family_lm(name), _ids(2, LENGTH)
    with torch.no_grad():
        expected = _plain(family_folder(name))(input_ids=ids).logits[:, 3:-1]
        found = lm.text_logits(lm.embed(ids[:, :4]), ids[:, 4:])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert float(expected.std()) > 0.3  # or all would be alike


@each_family
def test_token_0_is_predicted_from_the_last_vector(family_lm: Models, name: str) -> None:
    lm, ids = family_lm(name), _ids(1, 3)
    mem = _mem(lm, 1, 2)
    with torch.no_grad():
        first = lm.text_logits(mem, ids)[0, 0]
        changed = lm.text_logits(torch.cat([mem[:, :1], -mem[:, 1:]], 1), ids)[0, 0]
    assert float((first - changed).abs().max()) > 0.1
    found = score(lm, mem, ids, temperature=1.0, margin=0.0, wanted=torch.tensor([0]))
    assert bool((found.gradient.abs().amax(-1) > 1e-5).all())  # of both vectors
    torch.testing.assert_close(found.nats[0, 0], -first.log_softmax(-1)[ids[0, 0]], rtol=1e-4, atol=1e-4)


@each_family
@pytest.mark.parametrize("num_mem", [1, 3])
def test_decoding_step_by_step_writes_what_one_pass_over_it_predicts(
    family_lm: Models, name: str, num_mem: int
) -> None:
    """A model that is handed its past under a name it does not know writes on from the last token alone."""
    lm = family_lm(name)
    mem = _mem(lm, num_mem)
    written = list(decode_tokens(lm, _vectors(lm, mem, [0] * LENGTH)))
    ids = torch.tensor([written])
    with torch.no_grad():
        logits = lm.text_logits(mem[None], ids)
    assert logits[0].argmax(-1).tolist() == written
    check = verify(lm, _vectors(lm, mem, written), written)
    assert check.lossless
    assert check.min_margin == pytest.approx(float(margins(logits, ids).min()), abs=1e-3)


# ---- files


@pytest.fixture(scope="module")
def files(family_lm: Models, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The vector file of a short text, by family."""
    folder = tmp_path_factory.mktemp("files")

    def crammed(name: str) -> Path:
        config = CramConfig(num_mem=8, steps=400, learning_rate=0.3, optimizer="whitened")
        result = run_cram(family_lm(name), SHORT, config)
        assert result.lossless, f"{name}: {result.verification.correct_prefix} of {result.num_tokens}"
        return save(result.vectors, folder / f"{name}.safetensors")

    return cache(crammed)


_ELSEWHERE = """
import json, sys
from cramdemo import decode, load, load_model
jobs = json.load(sys.stdin)
print(json.dumps({n: decode(load_model(f, device="cpu"), load(v)).text for n, (f, v) in jobs.items()}))
"""


@pytest.fixture(scope="module")
def decoded_elsewhere(family_folder: Folders, files: Callable[[str], Path]) -> dict[str, str]:
    """What a new process writes from all the files."""
    jobs = {name: (str(family_folder(name)), str(files(name))) for name in FAMILIES}
    command = [sys.executable, "-W", "ignore", "-c", _ELSEWHERE]
    done = subprocess.run(command, input=json.dumps(jobs), cwd=ROOT, capture_output=True, text=True, check=True)
    texts: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return texts


@each_family
def test_a_crammed_text_decodes_in_a_new_process(decoded_elsewhere: dict[str, str], name: str) -> None:
    assert decoded_elsewhere[name] == SHORT


@each_family
def test_a_file_is_refused_by_every_other_model(family_lm: Models, files: Callable[[str], Path], name: str) -> None:
    vectors = load(files(name))
    others = [family_lm(other) for other in FAMILIES if other != name]
    if name != "OPT, projected":
        assert sum(lm.hidden_size == vectors.hidden_size for lm in others) == len(others) - 1
    for lm in others:
        same = lm.hidden_size == vectors.hidden_size
        with pytest.raises(ModelMismatch, match=f"not {lm.name}" if same else "width"):
            decode(lm, vectors)


@each_family
def test_a_file_is_refused_by_the_same_architecture_with_other_weights(
    files: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    other = load_model(str(build(name, tmp_path / name, seed=1)), device="cpu")
    with pytest.raises(ModelMismatch, match="with other weights"):
        decode(other, load(files(name)))


# ---- the optimiser's steps


@pytest.fixture(scope="module")
def bfloat16_folder(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Families stored in bfloat16, as most real ones are."""
    folder = tmp_path_factory.mktemp("bfloat16")
    return cache(lambda name: build(name, folder / name, dtype=torch.bfloat16))


def _expected(model: Any, lm: FrozenLM, mem: Tensor, ids: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """Costs of the tokens and the loss's gradient by the plain model, all logits computed, and autograd."""
    leaf = mem.clone().requires_grad_(True)
    inputs = torch.cat([leaf, lm.embed(ids).float()], dim=1)
    logits = model(inputs_embeds=inputs, use_cache=False).logits[:, mem.shape[1] - 1 : -1]
    loss, nats = cram_loss(logits, ids, margins(logits, ids), temperature=0.5, margin=margin)
    return nats, torch.autograd.grad(loss.sum(), leaf)[0]


def _apart(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@each_family
def test_a_step_s_costs_and_gradient_are_the_plain_model_s(bfloat16_folder: Folders, name: str) -> None:
    """In float32, and by all that makes steps short: own attention, layers written out, head and loss in one."""
    loaded = load_model(str(bfloat16_folder(name)), device="cpu", precision="bfloat16")
    lm = FrozenLM(name, loaded.model, loaded.tokenizer, fingerprint="0" * 64, step_dtype=torch.float32).for_steps()
    assert lm.dtype == torch.float32
    assert lm.linear_head is not None
    assert isinstance(lm.body, Body) == name.startswith(("Llama", "GPT-NeoX"))
    assert lm.model.config._attn_implementation == NAME
    mem, ids = _mem(lm, 2, 3), _ids(2, LENGTH)
    nats, gradient = _expected(_plain(bfloat16_folder(name)), lm, mem, ids, margin=0.3)
    found = score(lm, mem, ids, temperature=0.5, margin=0.3)
    torch.testing.assert_close(found.nats, nats, rtol=1e-3, atol=1e-3)
    assert _apart(found.gradient, gradient) < 1e-3


@each_family
def test_a_model_stored_in_bfloat16_takes_its_steps_in_it(
    bfloat16_folder: Folders, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    whole = load_model(str(bfloat16_folder(name)), device="cpu")
    lm = whole.for_steps()
    assert (whole.dtype, lm.dtype) == (torch.float32, torch.bfloat16)
    mem, ids = _mem(lm, 2, 3), _ids(2, LENGTH)
    nats, gradient = _expected(_plain(bfloat16_folder(name)), whole, mem, ids, NO_HINGE)
    found = score(lm, mem, ids, temperature=0.5, margin=NO_HINGE)
    assert _apart(found.nats, nats) < 0.03
    assert _apart(found.gradient, gradient) < 0.2


@each_family
def test_a_model_in_another_dtype_is_as_if_it_had_been_loaded_in_it(bfloat16_folder: Folders, name: str) -> None:
    """Copies once had their rotary frequencies rounded to bfloat16, and Gemma's scale was never rounded back."""
    half, whole = (load_model(str(bfloat16_folder(name)), device="cpu", precision=p) for p in ("bfloat16", "float32"))
    stepper = FrozenLM(name, whole.model, whole.tokenizer, fingerprint="0" * 64, step_dtype=torch.bfloat16).for_steps()
    stepper.model.set_attn_implementation(half.model.config._attn_implementation)
    mem, ids = _mem(whole, 1, 1), _ids(1, 30)
    with torch.no_grad():
        for ours, theirs in ((half.in_float32(), whole), (stepper, half)):
            assert ours.dtype == theirs.dtype
            assert torch.equal(ours.text_logits(mem, ids), theirs.text_logits(mem, ids))


# ---- text


@each_family
@pytest.mark.parametrize("text", [SHORT, TEXT, SPECIAL], ids=["plain", "awkward", "names"])
def test_a_text_s_ids_are_its_own_and_give_it_back(family_lm: Models, name: str, text: str) -> None:
    lm = family_lm(name)
    ids = lm.tokenize(text)
    assert not set(ids) & set(lm.tokenizer.all_special_ids)
    assert max(ids) < lm.vocab_size
    assert lm.detokenize(ids) == "".join(lm.token_texts(ids)) == text


def test_most_families_would_put_a_token_in_front_if_they_were_let(family_lm: Models) -> None:
    """Or the law above would say little."""
    adding = [n for n in FAMILIES if family_lm(n).tokenizer.encode(SHORT)[0] in family_lm(n).tokenizer.all_special_ids]
    assert adding == [n for n in FAMILIES if FAMILIES[n].tokenizer in ("OPT", "Llama 3", "Llama 2", "Gemma")]


# ---- sizes


@each_family
def test_sizes_are_those_of_the_model(family_lm: Models, name: str) -> None:
    lm, family = family_lm(name), FAMILIES[name]
    assert (lm.hidden_size, lm.vocab_size, lm.context) == (family.width, VOCABULARY, family.context)
    embeds = lm.embed(torch.arange(VOCABULARY))
    assert lm.embedding_std == pytest.approx(float(embeds.std()), rel=1e-3)
    assert lm.embedding_std == pytest.approx(EMBEDDING_STD * (WIDTH**0.5 if name.startswith("Gemma") else 1), rel=0.05)


@each_family
def test_flops_are_those_of_the_matrices(family_lm: Models, name: str) -> None:
    count, family = family_lm(name).flops, FAMILIES[name]
    assert (count.body, count.head) == (family.body, VOCABULARY * family.width)
    assert count.attention + count.windowed == LAYERS * family.heads_width
    assert (count.windowed > 0) == name.startswith("Gemma")


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.context < 100])
def test_a_text_may_fill_the_context_and_no_more(family_lm: Models, name: str) -> None:
    lm, num_mem = family_lm(name), 3
    ids = _ids(lm.context - num_mem).tolist()
    result = run_cram(lm, ids, CramConfig(num_mem=num_mem, steps=1))
    assert result.num_tokens == lm.context - num_mem == lm.max_tokens(num_mem)
    assert greedy_prefix(lm, result.vectors.mem, list(decode_tokens(lm, result.vectors)))[0] == len(ids)
    with pytest.raises(TextError, match=f"has {len(ids) + 1} tokens; with 3 memory tokens .* at most {len(ids)}"):
        check_length(lm, len(ids) + 1, num_mem)


def test_a_model_without_positions_has_no_limit(family_lm: Models) -> None:
    lm = family_lm("Mamba")
    check_length(lm, 1_000_000, 32)
    assert run_cram(lm, _ids(60).tolist(), CramConfig(num_mem=1, steps=1)).num_tokens == 60


# ---- checkpoints


@each_family
def test_the_fingerprint_is_the_same_in_shards_and_in_any_dtype(family_lm: Models, tmp_path: Path, name: str) -> None:
    folder = build(name, tmp_path / name, shard="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    assert load_model(str(folder), device="cpu", precision="bfloat16").fingerprint == family_lm(name).fingerprint


@each_family
def test_the_fingerprint_depends_on_embedding_and_last_layer(
    family_lm: Models, family_folder: Folders, copy_of: Callable[[Path], Path], name: str
) -> None:
    folder = copy_of(family_folder(name))
    stored = load_file(folder / "model.safetensors")
    embedding = next(
        k for k in stored if k.endswith(("embed_in.weight", "embed_tokens.weight", "embeddings.weight", "wte.weight"))
    )
    last = next(k for k in stored if f".{LAYERS - 1}." in k and "vision" not in k and stored[k].ndim == 2)
    for key in (embedding, last):
        save_file(stored | {key: stored[key] + 1e-3}, folder / "model.safetensors", metadata={"format": "pt"})
        assert load_model(str(folder), device="cpu").fingerprint != family_lm(name).fingerprint


def test_the_fingerprint_knows_the_number_of_heads_by_any_name(
    family_lm: Models, family_folder: Folders, copy_of: Callable[[Path], Path]
) -> None:
    """GPT-2 calls it n_head; other heads read the same bytes as another function."""
    folder = copy_of(family_folder("GPT-2"))
    config = json.loads((folder / "config.json").read_text())
    assert config["n_head"] == 4
    (folder / "config.json").write_text(json.dumps(config | {"n_head": 2}))
    assert load_model(str(folder), device="cpu").fingerprint != family_lm("GPT-2").fingerprint


# ---- a checkpoint that reads images too


def test_only_the_language_model_of_a_checkpoint_with_images_is_loaded(
    family_lm: Models, family_folder: Folders, caplog: pytest.LogCaptureFixture
) -> None:
    lm = load_model(str(family_folder("Gemma 3, images")), device="cpu")
    text_only = family_lm("Gemma 3, window")
    assert [n for n, _ in lm.model.named_parameters()] == [n for n, _ in text_only.model.named_parameters()]
    assert caplog.text == ""  # transformers would list what it left out, and the folder


def test_the_language_model_is_found_by_the_other_name_of_its_place(
    family_lm: Models, family_folder: Folders, copy_of: Callable[[Path], Path]
) -> None:
    """Both are in use: transformers has turned the words around since the first of these checkpoints."""
    name = "Gemma 3, images"
    folder = copy_of(family_folder(name))
    stored = load_file(folder / "model.safetensors")
    turned = {key.replace("language_model.model.", "model.language_model."): tensor for key, tensor in stored.items()}
    assert turned.keys() != stored.keys()
    save_file(turned, folder / "model.safetensors", metadata={"format": "pt"})
    ids = _ids(1, LENGTH)
    assert torch.equal(load_model(str(folder), device="cpu").bare_logits(ids), family_lm(name).bare_logits(ids))


def test_a_language_model_s_own_head_is_found(family_folder: Folders, copy_of: Callable[[Path], Path]) -> None:
    folder = copy_of(family_folder("Gemma 3, images"))
    head = torch.full((VOCABULARY, WIDTH), 0.5)
    stored = load_file(folder / "model.safetensors") | {"language_model.lm_head.weight": head}
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": False}
    config["text_config"]["tie_word_embeddings"] = False
    (folder / "config.json").write_text(json.dumps(config))
    assert torch.equal(load_model(str(folder), device="cpu").model.get_output_embeddings().weight, head)


def test_a_language_model_with_a_weight_missing_is_refused(
    family_folder: Folders, copy_of: Callable[[Path], Path]
) -> None:
    folder = copy_of(family_folder("Gemma 3, images"))
    stored = load_file(folder / "model.safetensors")
    del stored["language_model.model.layers.0.mlp.up_proj.weight"]
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="damaged or incomplete"):
        load_model(str(folder), device="cpu")
