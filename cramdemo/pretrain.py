"""Trains the built-in model and its encoder: how assets/cram-mini was made.

    python -m cramdemo pretrain --corpus DIR --out DIR --minutes M

`--shape plain-neox` trains another model, unlike it: a GPT-NeoX that has seen plain text only, the second model of
the benchmarks.

The built-in model has two phases, one schedule. First a plain language model. Then memory-aware training: the
encoder turns fresh passages into [mem], the LM reproduces them from the noisy vectors, with a plain batch in between
so that it stays a language model; passages grow whenever they are reproduced well. Every batch depends only on
the seed, the step and the curriculum, and the checkpoint holds all of the state, so a run that is stopped
and resumed gets the weights of one that was not. Knows nothing of pages and vector files.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from huggingface_hub import save_torch_state_dict
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from cramdemo.config import CramConfig
from cramdemo.cram import run_cram
from cramdemo.encoder import MemoryEncoder
from cramdemo.errors import ConfigError
from cramdemo.models import FrozenLM
from cramdemo.passages import bits_per_byte, draw_passages, read_books

SHARD_SIZE = "9MB"  # a plain git push to a Space refuses files over 10 MB
NUM_MEM_CHOICES = (1, 2, 4, 8, 16)
FIRST_LENGTH = 4  # tokens a vector
GROWTH_ACCURACY = 0.8
SHORTER_SHARE = 0.3
CHECKPOINT_EVERY = 200
EVALUATE_EVERY = 500
EVALUATE_LENGTHS = (4, 8, 16)
EVALUATE_PASSAGES = 4
EVALUATE_STEPS = 300
MUON_STEPS = 3  # Newton-Schulz iterations; five, the usual number, cost as much as the batch


@dataclass(frozen=True)
class Cycle:
    """One warm-up, plateau and decay of memory-aware training; the optimisers begin it afresh.

    Attributes:
        steps: updates.
        lm_every: one batch in so many is plain text.
        num_mem_weights: how often each of `NUM_MEM_CHOICES` is drawn, not normalised.
        decay_steps: the last updates, over which the learning rate falls to zero.
    """

    steps: int
    lm_every: int
    num_mem_weights: tuple[float, ...]
    decay_steps: int = 240


@dataclass(frozen=True)
class PretrainConfig:
    """Shape and schedule; the defaults made assets/cram-mini. Lengths are in tokens, steps in updates.

    `architecture` is "llama" or "gpt_neox". Without `cycles` the model is a plain LM and has no encoder.
    """

    architecture: str = "llama"
    vocab_size: int = 4096
    hidden_size: int = 640
    intermediate_size: int = 864
    layers: int = 3
    encoder_layers: int = 2
    heads: int = 10
    context: int = 1024
    init_std: float = 0.04
    lm_steps: int = 500
    lm_decay_steps: int = 0  # of the plain phase; only the last phase should decay
    cycles: tuple[Cycle, ...] = (
        Cycle(1721, lm_every=2, num_mem_weights=(0.35, 0.15, 0.15, 0.25, 0.1)),
        Cycle(7266, lm_every=3, num_mem_weights=(0.15, 0.25, 0.25, 0.3, 0.05), decay_steps=70),
    )
    lm_length: int = 256
    batch_positions: int = 4096
    learning_rate: float = 1.0e-3
    weight_decay: float = 0.1
    warmup_steps: int = 60
    noise: float = 0.1
    rare_share: float = 0.03
    seed: int = 0

    @property
    def total_steps(self) -> int:
        """Updates of both phases."""
        return self.lm_steps + sum(cycle.steps for cycle in self.cycles)

    def cycle_at(self, step: int) -> tuple[Cycle, int]:
        """The cycle of a step of memory-aware training, and how many steps of it are done."""
        since = step - self.lm_steps
        for cycle in self.cycles:
            if since < cycle.steps:
                return cycle, since
            since -= cycle.steps
        raise ValueError(f"step {step} is past the schedule's end at {self.total_steps}")


SHAPES = {
    "cram-mini": PretrainConfig(),
    "plain-neox": PretrainConfig(
        architecture="gpt_neox",
        hidden_size=512,
        intermediate_size=1024,
        heads=8,
        lm_steps=2600,
        lm_decay_steps=800,
        cycles=(),
        batch_positions=2048,
    ),
}


@dataclass
class Curriculum:
    """Passage length for each K, and the running accuracy that lets it grow.

    A K joins when the one before has grown: to read many vectors is to read one, and then some.
    """

    lengths: dict[int, int] = field(default_factory=lambda: {k: FIRST_LENGTH * k for k in NUM_MEM_CHOICES})
    accuracy: dict[int, float] = field(default_factory=lambda: dict.fromkeys(NUM_MEM_CHOICES, 0.0))

    def update(self, num_mem: int, accuracy: float) -> None:
        """Note the accuracy of a full-length batch; above the bar, the passage grows by a token a vector."""
        running = 0.8 * self.accuracy[num_mem] + 0.2 * accuracy
        if running > GROWTH_ACCURACY:
            self.lengths[num_mem] += num_mem
            running = GROWTH_ACCURACY - 0.3
        self.accuracy[num_mem] = running

    def joined(self) -> list[bool]:
        """Which of `NUM_MEM_CHOICES` are trained by now; the first always is."""
        before = (1, *NUM_MEM_CHOICES)
        return [k == 1 or self.lengths[b] > FIRST_LENGTH * b for b, k in zip(before, NUM_MEM_CHOICES, strict=False)]


def train_tokenizer(texts: Iterator[str], vocab_size: int, context: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE without special tokens, normalisation or clean-up: every string comes back as it was."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, model_max_length=context
    )


def tokenise_corpus(tokenizer: PreTrainedTokenizerFast, texts: Iterator[str]) -> Tensor:
    """All books behind one another, (tokens,), int32."""
    parts = [torch.tensor(e.ids, dtype=torch.int32) for e in tokenizer.backend_tokenizer.encode_batch(list(texts))]
    return torch.cat(parts)


def lm_config(config: PretrainConfig) -> LlamaConfig | GPTNeoXConfig:
    """The LM's architecture; the layers of an encoder have the same shape."""
    shape: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "max_position_embeddings": config.context,
        "initializer_range": config.init_std,
        # on a CPU eager is 2 to 10 times faster
        "attn_implementation": "sdpa" if torch.cuda.is_available() else "eager",
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    if config.architecture == "gpt_neox":  # as Pythia: input and output embeddings apart
        return GPTNeoXConfig(**shape, tie_word_embeddings=False)
    return LlamaConfig(**shape, num_key_value_heads=config.heads, tie_word_embeddings=True)


def _untrained(shape: LlamaConfig | GPTNeoXConfig) -> PreTrainedModel:
    model = LlamaForCausalLM(shape) if isinstance(shape, LlamaConfig) else GPTNeoXForCausalLM(shape)
    assert isinstance(model, PreTrainedModel)
    return model


class Trainer:
    """Model, encoder (None of a plain model), optimiser and curriculum at one step of the schedule."""

    encoder: MemoryEncoder | None

    def __init__(self, config: PretrainConfig, tokens: Tensor) -> None:
        self.config, self.tokens = config, tokens
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)  # transformers initialises from the global generator
            shape = lm_config(config)
            self.lm = _untrained(shape).to(self.device)
            self.encoder = None
            if config.cycles:
                self.encoder = MemoryEncoder(shape, config.encoder_layers, max(NUM_MEM_CHOICES)).to(self.device)
                torch.nn.init.normal_(self.encoder.query, std=config.init_std)
                torch.nn.init.orthogonal_(self.encoder.project.weight)
        self.step = 0
        self.curriculum = Curriculum()
        self.optimizers = self._optimizers()

    def _optimizers(self) -> tuple[torch.optim.Optimizer, ...]:
        """Muon for the matrices inside the layers, AdamW for embeddings, the query and norms.

        At 20 tokens and K = 1, three minutes of Muon took the loss from 3.1 to 2.1 nats a token, of AdamW to 2.5.
        """
        config = self.config
        outside = {id(m.weight) for m in (self.lm.get_input_embeddings(), self.lm.get_output_embeddings())}
        hidden: list[Tensor] = []
        embeddings: list[Tensor] = []
        vectors: list[Tensor] = []
        for name, parameter in self._named_parameters():
            inside = parameter.ndim == 2 and id(parameter) not in outside and "query" not in name
            (hidden if inside else embeddings if parameter.ndim == 2 else vectors).append(parameter)
        muon = torch.optim.Muon(
            hidden,
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            adjust_lr_fn="match_rms_adamw",
            ns_steps=MUON_STEPS,
        )
        groups = [
            {"params": embeddings, "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        return muon, torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.95))

    def _named_parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        parts: dict[str, torch.nn.Module | None] = {"lm": self.lm, "encoder": self.encoder}
        for prefix, module in parts.items():
            for name, parameter in module.named_parameters() if module else ():
                yield f"{prefix}.{name}", parameter

    def _optimizer_state(self) -> dict[str, dict[str, Tensor]]:
        """Moments by parameter name; to write into one's dictionary is to set them."""
        owners = {p: o for o in self.optimizers for group in o.param_groups for p in group["params"]}
        return {name: owners[p].state[p] for name, p in self._named_parameters()}

    def learning_rate(self) -> float:
        """Warm-up, constant, and at the end of the plain phase and of each cycle linear decay."""
        config, since = self.config, self.step
        left = (config.lm_steps - since) / config.lm_decay_steps if config.lm_decay_steps else 1.0
        if self.step >= config.lm_steps:
            cycle, since = config.cycle_at(self.step)
            left = (cycle.steps - since) / max(1, cycle.decay_steps)
        return config.learning_rate * min(1.0, (since + 1) / config.warmup_steps, left)

    def train_step(self) -> dict[str, float]:
        """One update; returns loss (nats a token) and, for a memory batch, accuracy, K and N."""
        config = self.config
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + self.step)
        if self.step == config.lm_steps and self.encoder:
            self.encoder.body.load_state_dict(self.lm.base_model.state_dict(), strict=False)
        plain = True
        if self.step >= config.lm_steps:
            cycle, since = config.cycle_at(self.step)
            plain = self.step % cycle.lm_every == 0
            if since == 0 and cycle is not config.cycles[0]:
                self.optimizers = self._optimizers()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate()
            optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            loss, record = self._lm_loss(generator) if plain else self._memory_loss(generator)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.lm.parameters(), 1.0)
        if self.encoder:
            torch.nn.utils.clip_grad_norm_(self.encoder.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        return record

    def _crops(self, count: int, length: int, generator: torch.Generator) -> Tensor:
        starts = torch.randint(len(self.tokens) - length, (count, 1), generator=generator)
        return self.tokens[starts + torch.arange(length)].long().to(self.device)  # (B, N)

    def _lm_loss(self, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        config = self.config
        ids = self._crops(max(1, config.batch_positions // config.lm_length), config.lm_length, generator)
        hidden = self.lm.base_model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
        loss = F.cross_entropy(self.lm.get_output_embeddings()(hidden).float().flatten(0, 1), ids[:, 1:].flatten())
        return loss, {"lm_loss": float(loss.detach())}

    def _memory_loss(self, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        assert self.encoder is not None
        num_mem, length = self._draw_shape(generator)
        ids = self._crops(max(1, self.config.batch_positions // (num_mem + length)), length, generator)
        ids = self._with_rare_tokens(ids, generator)
        embeds = self.lm.get_input_embeddings()(ids)
        mem = self._noisy(self.encoder(embeds, num_mem), generator)
        inputs = torch.cat([mem, embeds[:, :-1]], dim=1)  # (B, K + N - 1, d)
        hidden = self.lm.base_model(inputs_embeds=inputs, use_cache=False).last_hidden_state[:, num_mem - 1 :]
        logits = self.lm.get_output_embeddings()(hidden).float()  # (B, N, V)
        loss = F.cross_entropy(logits.flatten(0, 1), ids.flatten())
        accuracy = float((logits.argmax(-1) == ids).float().mean())
        if length == self.curriculum.lengths.get(num_mem):
            self.curriculum.update(num_mem, accuracy)
        return loss, {"loss": float(loss.detach()), "accuracy": accuracy, "num_mem": num_mem, "num_tokens": length}

    def _with_rare_tokens(self, ids: Tensor, generator: torch.Generator) -> Tensor:
        """A few tokens replaced by any of the vocabulary, so that those hardly found in books can be written too."""
        drawn = torch.randint(self.config.vocab_size, ids.shape, generator=generator)
        replaced = torch.rand(ids.shape, generator=generator) < self.config.rare_share
        return torch.where(replaced.to(self.device), drawn.to(self.device), ids)

    def _draw_shape(self, generator: torch.Generator) -> tuple[int, int]:
        """K by its weight and N its length in the curriculum; in three of ten batches any smaller K and N."""
        cycle, _ = self.config.cycle_at(self.step)
        weights = torch.tensor(cycle.num_mem_weights) * torch.tensor(self.curriculum.joined())
        num_mem = NUM_MEM_CHOICES[int(torch.multinomial(weights, 1, generator=generator))]
        length = self.curriculum.lengths[num_mem]
        if torch.rand((), generator=generator) < SHORTER_SHARE:
            a_vector = length // num_mem
            num_mem = int(torch.randint(1, num_mem + 1, (), generator=generator))
            length = int(torch.randint(1, a_vector * num_mem + 1, (), generator=generator))
        return num_mem, length

    def _noisy(self, mem: Tensor, generator: torch.Generator) -> Tensor:
        """Noise and a change of scale, so that the optimiser need not hit a needle's eye."""
        noise = torch.randn(mem.shape, generator=generator).to(self.device) * self.config.noise
        scale = torch.exp(0.3 * torch.randn((mem.shape[0], 1, 1), generator=generator)).to(self.device)
        return (mem + noise) * scale

    def save(self, folder: Path) -> None:
        """The whole state as safetensors and JSON, replaced in one go."""
        tensors = {f"weights.{name}": p.detach() for name, p in self._named_parameters()}
        for name, moments in self._optimizer_state().items():
            for key, value in moments.items():
                tensors[f"optimizer.{key}.{name}"] = value.clone()
        state = {
            "step": self.step,
            "curriculum": dataclasses.asdict(self.curriculum),
            "config": self._fixed_settings(),
        }
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / "checkpoint.partial"
        save_file(tensors, partial, metadata={"state": json.dumps(state)})
        partial.replace(folder / "checkpoint.safetensors")

    def _fixed_settings(self) -> dict[str, Any]:
        """What a checkpoint may not change; the schedule may be cut short or drawn out."""
        settings = dataclasses.asdict(self.config)
        schedule = {"cycles"} if self.encoder else {"cycles", "lm_steps", "lm_decay_steps"}
        return {key: value for key, value in settings.items() if key not in schedule}

    def load(self, folder: Path) -> None:
        """Take up the state that `save` wrote.

        Raises:
            ConfigError: the checkpoint was begun with another shape or other settings.
        """
        with safe_open(folder / "checkpoint.safetensors", framework="pt") as file:
            state = json.loads(file.metadata()["state"])
            self._check_settings(state["config"])
            moments = self._optimizer_state()
            for name, parameter in self._named_parameters():
                parameter.data.copy_(file.get_tensor(f"weights.{name}"))
            for key in file.keys():  # noqa: SIM118 (safe_open is no mapping)
                kind, _, rest = key.partition(".")
                if kind == "optimizer":
                    moment, _, name = rest.partition(".")
                    device = "cpu" if moment == "step" else self.device
                    moments[name][moment] = file.get_tensor(key).to(device)
        self.step = state["step"]
        self.curriculum = Curriculum(
            **{part: {int(k): v for k, v in values.items()} for part, values in state["curriculum"].items()}
        )

    def _check_settings(self, begun: dict[str, Any]) -> None:
        wanted = self._fixed_settings()
        other = [key for key in sorted(wanted) if begun.get(key) != wanted[key]]
        if other:
            listed = ", ".join(f"{key} {begun.get(key)} instead of {wanted[key]}" for key in other)
            raise ConfigError(
                f"The checkpoint was begun with other settings: {listed}. Give another folder, or the same settings."
            )


def export(trainer: Trainer, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write what the product ships: LM, tokenizer and, if there is one, encoder in bfloat16, no file over 10 MB."""
    for old in [*folder.glob("*.safetensors*"), *folder.glob("encoder/*")]:
        old.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    lm = copy.deepcopy(trainer.lm).to("cpu", torch.bfloat16)
    lm.save_pretrained(folder, max_shard_size=SHARD_SIZE)
    tokenizer.save_pretrained(folder)
    if trainer.encoder is None:
        return
    (folder / "encoder").mkdir(exist_ok=True)
    encoder = {name: p.detach().to("cpu", torch.bfloat16) for name, p in trainer.encoder.state_dict().items()}
    save_torch_state_dict(encoder, folder / "encoder", max_shard_size=SHARD_SIZE)
    settings = json.dumps({"layers": trainer.config.encoder_layers, "max_mem": trainer.encoder.max_mem}, indent=2)
    (folder / "encoder" / "config.json").write_text(settings + "\n", encoding="utf-8")


def pretrain(
    config: PretrainConfig, corpus: Path, out: Path, *, heldout: Path | None = None, minutes: float | None = None
) -> Iterator[dict[str, float]]:
    """Train, or go on from the checkpoint in `out`, and write the model to `out`/model at the end.

    Args:
        config: shape and schedule; a checkpoint goes on only with the settings it was begun with.
        corpus: folder of .txt files to learn from.
        out: tokenizer, tokens, checkpoint, log.jsonl and the model.
        heldout: folder of .txt files never trained on, for the checks; None leaves them out.
        minutes: end this call, resumable, after so long.

    Yields:
        One record an update: step, loss in nats a token, and accuracy, K and N of a memory batch; every
        `EVALUATE_EVERY` steps also heldout_bits_per_byte and heldout_solved_N.

    Raises:
        TextError: the corpus holds no UTF-8 text.
        ConfigError: `out` holds a checkpoint begun with other settings.
    """
    out.mkdir(parents=True, exist_ok=True)
    tokenizer, tokens = _prepared(config, corpus, out)
    trainer = Trainer(config, tokens)
    if (out / "checkpoint.safetensors").exists():
        trainer.load(out)
    deadline = math.inf if minutes is None else time.monotonic() + 60 * minutes
    books = read_books(heldout) if heldout else []
    with (out / "log.jsonl").open("a", encoding="utf-8") as log:
        while trainer.step < config.total_steps and time.monotonic() < deadline:
            record = trainer.train_step()
            record["step"] = trainer.step
            if books and trainer.step % EVALUATE_EVERY == 0:
                record |= evaluate(trainer, tokenizer, books)
            log.write(json.dumps(record) + "\n")
            if trainer.step % CHECKPOINT_EVERY == 0:
                log.flush()
                trainer.save(out)
            yield record
    trainer.save(out)
    export(trainer, tokenizer, out / "model")


def evaluate(trainer: Trainer, tokenizer: PreTrainedTokenizerFast, books: list[str]) -> dict[str, float]:
    """Held-out bits per byte of the bare LM, and the share of a few passages that cramming solves, K = 1."""
    lm = FrozenLM("in-training", copy.deepcopy(trainer.lm), tokenizer, fingerprint="0" * 64)
    if trainer.encoder:
        lm.encoder = copy.deepcopy(trainer.encoder).eval().requires_grad_(False)
    record = {"heldout_bits_per_byte": bits_per_byte(lm, books)}
    for num_tokens in EVALUATE_LENGTHS:
        passages = draw_passages(lm, books, EVALUATE_PASSAGES, num_tokens)
        solved = [run_cram(lm, text, CramConfig(steps=EVALUATE_STEPS)).lossless for text in passages]
        record[f"heldout_solved_{num_tokens}"] = sum(solved) / len(solved)
    return record


def _prepared(config: PretrainConfig, corpus: Path, out: Path) -> tuple[PreTrainedTokenizerFast, Tensor]:
    """Tokenizer and tokens of the corpus, made once and kept in `out`."""
    if not (out / "tokens.safetensors").exists():
        books = read_books(corpus)
        tokenizer = train_tokenizer(iter(books), config.vocab_size, config.context)
        tokenizer.save_pretrained(out / "tokenizer")
        save_file({"tokens": tokenise_corpus(tokenizer, iter(books))}, out / "tokens.safetensors")
    with safe_open(out / "tokens.safetensors", framework="pt") as file:
        tokens: Tensor = file.get_tensor("tokens")
    return PreTrainedTokenizerFast.from_pretrained(out / "tokenizer"), tokens
