"""A toy of the built-in model: resumable to the last bit, and exported as what the product loads."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from cramdemo import CramConfig, load_model, run_cram
from cramdemo.errors import ConfigError
from cramdemo.pretrain import (
    FIRST_LENGTH,
    NUM_MEM_CHOICES,
    Curriculum,
    Cycle,
    PretrainConfig,
    Trainer,
    export,
    pretrain,
    tokenise_corpus,
    train_tokenizer,
)

SENTENCES = (
    "The old man and the sea were tired of the other men and the other seas.",
    "There is nothing either good or bad, but thinking makes it so.",
    "In the beginning there was the word, and the word was with the reader.",
)
TOY = PretrainConfig(
    vocab_size=280,
    hidden_size=32,
    intermediate_size=64,
    layers=2,
    heads=2,
    encoder_layers=1,
    context=64,
    lm_steps=4,
    cycles=(Cycle(5, 2, (0.35, 0.15, 0.15, 0.25, 0.1), 2), Cycle(4, 3, (0.2, 0.2, 0.2, 0.2, 0.2), 2)),
    lm_length=16,
    batch_positions=64,
    warmup_steps=2,
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(iter(SENTENCES), TOY.vocab_size, TOY.context)


@pytest.fixture(scope="module")
def tokens(tokenizer: PreTrainedTokenizerFast) -> torch.Tensor:
    return tokenise_corpus(tokenizer, iter(SENTENCES * 4))


@pytest.fixture(scope="module")
def trained(tokens: torch.Tensor) -> Trainer:
    """All steps in one go."""
    trainer = Trainer(TOY, tokens)
    for _ in range(TOY.total_steps):
        trainer.train_step()
    return trainer


def _weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {f"lm.{n}": p for n, p in trainer.lm.state_dict().items()} | {
        f"encoder.{n}": p for n, p in trainer.encoder.state_dict().items()
    }


def _differing(first: Trainer, second: Trainer) -> list[str]:
    ours, theirs = _weights(first), _weights(second)
    return [name for name in ours.keys() | theirs.keys() if not torch.equal(ours[name], theirs[name])]


@pytest.mark.parametrize(
    "stop_at",
    [2, 4, 5, 7, 9, 10, 11],
    ids=[
        "plain phase",
        "at the change",
        "just after it",
        "memory phase",
        "between cycles",
        "after the first batch of the second cycle",
        "second cycle",
    ],
)
def test_a_run_stopped_and_resumed_gets_the_weights_of_one_that_was_not(
    trained: Trainer, tokens: torch.Tensor, tmp_path: Path, stop_at: int
) -> None:
    first = Trainer(TOY, tokens)
    for _ in range(stop_at):
        first.train_step()
    first.save(tmp_path)
    torch.manual_seed(1234)  # nothing may come from the global generator
    second = Trainer(TOY, tokens)
    second.load(tmp_path)
    assert second.step == stop_at
    assert second.curriculum == first.curriculum
    assert _differing(second, first) == []
    while second.step < TOY.total_steps:
        second.train_step()
    assert _differing(second, trained) == []
    assert second.curriculum == trained.curriculum


def test_a_checkpoint_goes_on_only_with_the_settings_it_was_begun_with(tokens: torch.Tensor, tmp_path: Path) -> None:
    Trainer(TOY, tokens).save(tmp_path)
    Trainer(dataclasses.replace(TOY, cycles=TOY.cycles[:1]), tokens).load(tmp_path)  # a shorter schedule is no harm
    other = Trainer(dataclasses.replace(TOY, heads=4, noise=0.5), tokens)
    with pytest.raises(ConfigError, match=r"heads 2 instead of 4, noise 0\.1 instead of 0\.5"):
        other.load(tmp_path)


def test_saving_does_not_change_the_run_and_leaves_one_file(
    trained: Trainer, tokens: torch.Tensor, tmp_path: Path
) -> None:
    trainer = Trainer(TOY, tokens)
    for _ in range(TOY.total_steps):
        trainer.train_step()
        trainer.save(tmp_path)
    assert _differing(trainer, trained) == []
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.safetensors"]


def test_training_changes_every_weight_and_both_phases_have_their_batches(tokens: torch.Tensor) -> None:
    trainer, untrained = Trainer(TOY, tokens), Trainer(TOY, tokens)
    records = [trainer.train_step() for _ in range(TOY.total_steps)]
    assert all("lm_loss" in record for record in records[: TOY.lm_steps])
    later = ["lm_loss" in record for record in records[TOY.lm_steps :]]
    assert later == [step % 2 == 0 for step in range(4, 9)] + [step % 3 == 0 for step in range(9, 13)]
    assert {"lm.model.embed_tokens.weight", "encoder.project.weight", "encoder.query"} <= set(
        _differing(trainer, untrained)
    )
    assert records[0]["lm_loss"] == pytest.approx(math.log(TOY.vocab_size), rel=0.1)  # untrained: uniform


def test_the_seed_decides_the_run_and_global_random_numbers_are_left_alone(tokens: torch.Tensor) -> None:
    before = torch.get_rng_state()
    first, second, other = Trainer(TOY, tokens), Trainer(TOY, tokens), Trainer(dataclasses.replace(TOY, seed=1), tokens)
    for trainer in (first, second):
        trainer.train_step()
    assert torch.equal(torch.get_rng_state(), before)
    assert _differing(first, second) == []
    assert "lm.model.embed_tokens.weight" in _differing(other, second)


def test_the_learning_rate_warms_up_in_every_part_and_decays_in_every_cycle(tokens: torch.Tensor) -> None:
    trainer = Trainer(TOY, tokens)
    rates = []
    for trainer.step in range(TOY.total_steps):
        rates.append(trainer.learning_rate() / TOY.learning_rate)
    plain, first, second = [0.5, 1, 1, 1], [0.5, 1, 1, 1, 0.5], [0.5, 1, 1, 0.5]
    assert rates == [*plain, *first, *second]


def test_a_step_belongs_to_its_cycle_and_none_lies_past_the_end() -> None:
    first, second = TOY.cycles
    assert [TOY.cycle_at(step) for step in (4, 8, 9, 12)] == [(first, 0), (first, 4), (second, 0), (second, 3)]
    with pytest.raises(ValueError, match="past the schedule's end at 13"):
        TOY.cycle_at(13)


def test_a_new_cycle_begins_with_new_optimisers(tokens: torch.Tensor) -> None:
    trainer = Trainer(TOY, tokens)
    updates = []
    for _ in range(TOY.total_steps):
        trainer.train_step()
        adamw = trainer.optimizers[1]
        updates.append(int(adamw.state[trainer.lm.model.norm.weight]["step"]))
    assert updates == [*range(1, 10), *range(1, 5)]


def test_the_curriculum_grows_after_good_batches_only() -> None:
    curriculum = Curriculum()
    before = dict(curriculum.lengths)
    for _ in range(50):
        curriculum.update(1, 0.5)
    assert curriculum.lengths == before
    for _ in range(50):
        curriculum.update(1, 1.0)
    assert curriculum.lengths[1] > before[1]
    assert {k: n for k, n in curriculum.lengths.items() if k != 1} == {k: n for k, n in before.items() if k != 1}


def test_a_passage_grows_by_a_token_a_vector() -> None:
    curriculum = Curriculum()
    lengths = {curriculum.lengths[4] for _ in range(100) if curriculum.update(4, 1.0) is None}
    assert lengths == set(range(4 * FIRST_LENGTH, max(lengths) + 1, 4))


def test_a_k_joins_when_the_one_before_has_grown() -> None:
    curriculum = Curriculum()
    for joined in range(1, len(NUM_MEM_CHOICES) + 1):
        drawn = [k for k, has_joined in zip(NUM_MEM_CHOICES, curriculum.joined(), strict=True) if has_joined]
        assert drawn == list(NUM_MEM_CHOICES[:joined])
        curriculum.lengths[drawn[-1]] += drawn[-1]


def test_batches_are_of_lengths_and_k_that_the_curriculum_has_reached(tokens: torch.Tensor) -> None:
    trainer = Trainer(TOY, tokens)
    trainer.curriculum.lengths = {1: 6, 2: 10, 4: 16, 8: 32, 16: 64}  # 4 has joined, 8 has not
    generator = torch.Generator().manual_seed(0)
    shapes = [trainer._draw_shape(generator) for _ in range(2000)]
    full = [shape for shape in shapes if shape in {(1, 6), (2, 10), (4, 16)}]
    assert 1300 < len(full) < 1700
    assert {k for k, _ in shapes} == {1, 2, 3, 4}
    assert all(1 <= n <= {1: 6, 2: 12, 3: 18, 4: 16}[k] for k, n in shapes)


def test_each_cycle_draws_k_by_its_own_weights(tokens: torch.Tensor) -> None:
    only_four = Cycle(4, 3, (0.0, 0.0, 1.0, 0.0, 0.0))
    trainer = Trainer(dataclasses.replace(TOY, cycles=(TOY.cycles[0], only_four)), tokens)
    trainer.curriculum.lengths = {1: 6, 2: 10, 4: 20, 8: 32, 16: 64}
    generator = torch.Generator().manual_seed(0)
    drawn = {}
    for trainer.step in (8, 9):
        drawn[trainer.step] = {k for k, n in (trainer._draw_shape(generator) for _ in range(500)) if n % 5 == 0}
    assert drawn[8] > {1, 2, 4}
    full = [trainer._draw_shape(generator) for _ in range(500)]
    assert full.count((4, 20)) > 300


def test_a_few_tokens_of_memory_batches_are_any_of_the_vocabulary(tokens: torch.Tensor) -> None:
    trainer = Trainer(TOY, tokens)
    ids = torch.zeros(200, 50, dtype=torch.int64)
    replaced = trainer._with_rare_tokens(ids, torch.Generator().manual_seed(0))
    assert float((replaced != ids).float().mean()) == pytest.approx(TOY.rare_share, rel=0.2)
    assert set(replaced.unique().tolist()) > set(range(0, TOY.vocab_size, 50))


def test_matrices_inside_the_layers_are_muon_s_and_all_else_is_adamw_s(tokens: torch.Tensor) -> None:
    trainer = Trainer(TOY, tokens)
    names = {id(p): name for name, p in trainer._named_parameters()}
    muon, adamw = ({names[id(p)] for g in o.param_groups for p in g["params"]} for o in trainer.optimizers)
    assert muon | adamw == set(names.values())
    assert not muon & adamw
    assert {"lm.model.embed_tokens.weight", "encoder.query", "lm.model.norm.weight"} <= adamw
    assert {"lm.model.layers.0.mlp.up_proj.weight", "encoder.project.weight"} <= muon


def test_the_exported_model_is_the_trained_one_in_bfloat16(
    trained: Trainer, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    export(trained, tokenizer, tmp_path / "toy")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "toy")
    ours = trained.lm.state_dict()
    assert all(torch.equal(p, ours[name].to(torch.bfloat16)) for name, p in plain.state_dict().items())
    assert AutoTokenizer.from_pretrained(tmp_path / "toy")(SENTENCES[0]).input_ids == tokenizer(SENTENCES[0]).input_ids

    lm = load_model(str(tmp_path / "toy"), device="cpu")
    ids = torch.tensor([lm.tokenize("The old sea")])
    with torch.no_grad():
        text = trained.lm.get_input_embeddings()(ids)
        expected = trained.encoder(text, 2)
    torch.testing.assert_close(lm.encode(ids, 2), expected, rtol=0.1, atol=0.1)
    result = run_cram(lm, "The old sea", CramConfig(num_mem=2, steps=2, init="encoder"))
    assert result.vectors.hidden_size == TOY.hidden_size


def test_exported_files_are_small_and_an_older_export_is_replaced(
    trained: Trainer, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    (tmp_path / "encoder").mkdir()
    for old in ("model-00001-of-00009.safetensors", "other.safetensors", "encoder/other.safetensors"):
        (tmp_path / old).write_bytes(b"old")
    export(trained, tokenizer, tmp_path)
    export(trained, tokenizer, tmp_path)
    files = {str(p.relative_to(tmp_path)): p.stat().st_size for p in tmp_path.rglob("*") if p.is_file()}
    assert not [name for name in files if "of-00009" in name or "other" in name]
    assert max(files.values()) < 10_000_000
    assert {"config.json", "tokenizer.json", "model.safetensors", "encoder/config.json"} <= set(files)
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pkl"))]


def test_export_cuts_a_model_of_the_built_in_shape_into_files_under_ten_megabytes(
    tokenizer: PreTrainedTokenizerFast, tokens: torch.Tensor, tmp_path: Path
) -> None:
    trainer = Trainer(PretrainConfig(), tokens)
    export(trainer, tokenizer, tmp_path)
    sizes = [p.stat().st_size for p in tmp_path.rglob("*.safetensors")]
    assert len(sizes) > 3
    assert max(sizes) < 10_000_000
    assert sum(sizes) < 40_000_000


@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40))
def test_a_trained_tokenizer_gives_every_string_back(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    ids = tokenizer(text).input_ids
    assert all(0 <= i < TOY.vocab_size for i in ids)
    assert tokenizer.decode(ids) == text


def test_a_corpus_becomes_its_books_behind_one_another(tokenizer: PreTrainedTokenizerFast) -> None:
    tokens = tokenise_corpus(tokenizer, iter(SENTENCES))
    assert tokenizer.decode(tokens.tolist()) == "".join(SENTENCES)


def test_pretrain_goes_on_where_it_was_stopped_and_writes_the_model_at_the_end(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "a.txt").write_text(" ".join(SENTENCES * 4), encoding="utf-8")
    assert list(pretrain(TOY, corpus, tmp_path / "out", minutes=0)) == []
    stopped = (tmp_path / "out" / "checkpoint.safetensors").read_bytes()
    steps = [record["step"] for record in pretrain(TOY, corpus, tmp_path / "out")]
    assert steps == list(range(1, TOY.total_steps + 1))
    assert (tmp_path / "out" / "checkpoint.safetensors").read_bytes() != stopped
    log = (tmp_path / "out" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in log] == steps
    assert load_model(str(tmp_path / "out" / "model"), device="cpu").vocab_size == TOY.vocab_size
    assert list(pretrain(TOY, corpus, tmp_path / "out")) == []


PLAIN = dataclasses.replace(TOY, architecture="gpt_neox", cycles=(), lm_steps=6, lm_decay_steps=3)


def test_a_plain_model_has_no_encoder_and_decays_at_its_end(
    tokens: torch.Tensor, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    trainer, rates = Trainer(PLAIN, tokens), []
    for _ in range(PLAIN.total_steps):
        rates.append(trainer.learning_rate() / PLAIN.learning_rate)
        trainer.train_step()
    assert rates == pytest.approx([0.5, 1, 1, 1, 2 / 3, 1 / 3])
    export(trainer, tokenizer, tmp_path)
    assert not (tmp_path / "encoder").exists()
    lm = load_model(str(tmp_path), device="cpu")
    assert (lm.model.config.model_type, lm.encoder) == ("gpt_neox", None)


def test_a_plain_model_is_resumed_to_the_last_bit(tokens: torch.Tensor, tmp_path: Path) -> None:
    whole, first, second = (Trainer(PLAIN, tokens) for _ in range(3))
    for _ in range(PLAIN.total_steps):
        whole.train_step()
    for _ in range(2):
        first.train_step()
    first.save(tmp_path)
    second.load(tmp_path)
    for _ in range(PLAIN.total_steps - 2):
        second.train_step()
    ours, theirs = whole.lm.state_dict(), second.lm.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_head_of_a_plain_model_is_adamw_s_too(tokens: torch.Tensor) -> None:
    trainer = Trainer(PLAIN, tokens)
    _, adamw = ({id(p) for g in o.param_groups for p in g["params"]} for o in trainer.optimizers)
    assert {id(trainer.lm.get_input_embeddings().weight), id(trainer.lm.get_output_embeddings().weight)} <= adamw
