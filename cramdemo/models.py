"""The models on offer, and FrozenLM: a causal LM with frozen weights that reads [mem] vectors.

This is the only place where [mem] and text are joined and where a tokenizer is used. The engine above it
sees ids and tensors. Models load from safetensors only; no code from a model's repository is run.
"""

from __future__ import annotations

import copy
import hashlib
import json
import struct
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from accelerate.utils import align_module_device
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from cramdemo import attention
from cramdemo.body import Body, body_of
from cramdemo.catalogue import BUILT_IN, FAMILY_DEFAULTS, MODELS, UNLIMITED, find
from cramdemo.checkpoint import model_fingerprint
from cramdemo.config import PRECISIONS, CramDefaults
from cramdemo.dispatch import execution_device, is_dispatched, recompute_layers
from cramdemo.encoder import MemoryEncoder, load_encoder
from cramdemo.errors import ConfigError, ModelError, TextError
from cramdemo.flops import FlopCount
from cramdemo.placement import plan, torch_device

_LOCAL = {"local_files_only": True, "trust_remote_code": False}  # unless told False, transformers asks on the terminal
_DAMAGED = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, struct.error, SafetensorError)
_NOT_LOADED = "{name} cannot be loaded as a causal language model by transformers."
_PROBE = "The quick brown fox, 0123456789: caf\u00e9 \u041f\u0440\u0438\u0432\u0435\u0442 \U0001f642\r\n\t\x00 end"


class FrozenLM:
    """A causal LM whose weights never change, with its tokenizer and, where it has one, its memory encoder.

    Attributes:
        name: as the user called it.
        model: the transformers model, in evaluation mode, without weight gradients.
        hidden_size: d, read from the input embedding matrix (not every config's `hidden_size` is it).
        vocab_size: V, rows of the input embedding matrix.
        context: most positions, [mem] and text together.
        fingerprint: SHA-256 of architecture, input embedding and last layer as stored; the same whatever dtype
            the model is loaded in, different for a fine-tune.
        tokenizer_fingerprint: SHA-256 of the vocabulary and of how a probe text is split.
        encoder: the memory encoder, or None.
        flops: the sizes that FLOPs are counted from.
        step_dtype: what the optimiser's steps run in (`for_steps`); the model's own dtype unless said.
        precision_reason: why these dtypes, in words to be shown; "" where nobody chose.
        dispatched: accelerate has spread the model over several places; then it is run as transformers runs it.
    """

    def __init__(
        self,
        name: str,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        fingerprint: str,
        revision: str = "",
        encoder: MemoryEncoder | None = None,
        step_dtype: torch.dtype | None = None,
        precision_reason: str = "",
    ) -> None:
        self.name, self.revision, self.fingerprint = name, revision, fingerprint
        self.model = model.eval().requires_grad_(False)
        self.tokenizer, self.encoder = tokenizer, encoder
        self.precision_reason, self.dispatched = precision_reason, is_dispatched(model)
        recompute_layers(model)
        self.body: Body | None = None  # of the copy for steps
        self._copies: dict[torch.dtype, FrozenLM] = {}
        self.tokenizer_fingerprint = _tokenizer_fingerprint(tokenizer)
        self._embedding = model.get_input_embeddings()
        self.vocab_size, self.hidden_size = self._embedding.weight.shape
        self.step_dtype = step_dtype or self.dtype
        self.context = int(getattr(model.config, "max_position_embeddings", 0) or UNLIMITED)
        self.flops = FlopCount.of(model)
        with align_module_device(self._embedding):
            self.embedding_std = float(self._embedding.weight.float().std())

    @property
    def device(self) -> torch.device:
        """Where the model runs; of a dispatched one where its inputs go."""
        return execution_device(self._embedding)

    @property
    def dtype(self) -> torch.dtype:
        """What the model runs in."""
        dtype: torch.dtype = self._embedding.weight.dtype
        return dtype

    @property
    def defaults(self) -> CramDefaults:
        """How this model is best crammed: by its table entry, or else as its family is."""
        entry = find(self.name)
        return entry.defaults if entry else FAMILY_DEFAULTS.get(self.model.config.model_type, CramDefaults())

    def in_float32(self) -> FrozenLM:
        """The same model with its weights in float32, made once and kept.

        Raises:
            ModelError: the model is dispatched, so that there is no place for a copy.
        """
        if self.dispatched:
            raise ModelError(f"{self.name} is spread over several devices. Load it with precision 'float32' instead.")
        return self._in(torch.float32)

    def for_steps(self) -> FrozenLM:
        """The same model as the optimiser's steps are fastest with, made once and kept.

        That is in `step_dtype`, and on a CPU with our own attention wherever it gives the same logits. A dispatched
        model is not copied.
        """
        if self.step_dtype == self.dtype or self.dispatched:
            return self
        return self._stepper

    @cached_property
    def _stepper(self) -> FrozenLM:
        lm = self._in(self.step_dtype)
        if self.device.type == "cpu":
            lm._choose_attention()
            lm._choose_body()
        return lm

    def _choose_attention(self) -> None:
        """Ours, or transformers' eager one for models whose attention does more than ours knows of."""
        ids = torch.arange(min(8, self.vocab_size))[None]
        self.model.set_attn_implementation("eager")
        known = self.bare_logits(ids)
        self.model.set_attn_implementation(attention.NAME)
        if not torch.allclose(self.bare_logits(ids), known, rtol=0.1, atol=0.1 * float(known.std())):
            self.model.set_attn_implementation("eager")

    def _choose_body(self) -> None:
        """The short way through the layers, where there is one and it gives the model's own hidden states."""
        mem, ids = self.embed(torch.arange(2)[None]), torch.arange(min(8, self.vocab_size))[None]
        with torch.no_grad():
            known = self.text_hidden(mem, ids)
            self.body = body_of(self.model)
            if self.body and not torch.allclose(
                self.text_hidden(mem, ids), known, rtol=0.1, atol=0.1 * float(known.std())
            ):
                self.body = None

    def _in(self, dtype: torch.dtype) -> FrozenLM:
        if dtype not in self._copies:
            weights = {id(p): nn.Parameter(p.to(dtype), requires_grad=False) for p in self.model.parameters()}
            model = copy.deepcopy(self.model, weights)  # buffers stay: rotary angles are wrong in bfloat16
            self._copies[dtype] = FrozenLM(
                self.name, model, self.tokenizer, fingerprint=self.fingerprint, revision=self.revision
            )
        return self._copies[dtype]

    def max_tokens(self, num_mem: int) -> int:
        """Longest text, in tokens, that fits behind `num_mem` memory tokens."""
        return self.context - num_mem

    def tokenize(self, text: str) -> list[int]:
        """The text's ids: no BOS or other token is added, and a special token's name is plain text.

        Raises:
            TextError: the text is empty, is not valid Unicode, or would not come back from its ids.
        """
        if not text:
            raise TextError("The text is empty. Paste or type something to cram.")
        if any("\ud800" <= char <= "\udfff" for char in text):
            raise TextError("The text holds half a surrogate pair, which is not valid Unicode. Remove it.")
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        if self.detokenize(ids) != text:
            raise TextError(
                f"The tokenizer of {self.name} does not give this text back exactly, so it cannot be decoded "
                "losslessly. Pick cram-mini, which keeps every character, or another model."
            )
        return ids

    def detokenize(self, token_ids: Sequence[int]) -> str:
        """The text of the ids, nothing cleaned up."""
        text = self.tokenizer.decode(list(token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return str(text)

    def token_texts(self, token_ids: Sequence[int]) -> list[str]:
        """The text that each token adds: joined they are the whole text.

        A character that is split over several tokens belongs to its last one; the others add "".
        """
        texts, pending = [], []
        for token in token_ids:
            pending.append(token)
            piece = self.detokenize(pending)
            incomplete = piece.endswith("\ufffd") and len(pending) < 8
            texts.append("" if incomplete else piece)
            pending = pending if incomplete else []
        if pending:
            texts[-1] = self.detokenize(pending)
        return texts

    def embed(self, token_ids: Tensor) -> Tensor:
        """Input embeddings of ids: (B, N) int64 -> (B, N, d)."""
        embeds: Tensor = self._embedding(token_ids)
        return embeds

    def text_logits(self, mem: Tensor, token_ids: Tensor, wanted: Tensor | None = None) -> Tensor:
        """The N predictions of a text's N tokens, token 0's from the last [mem] position.

        The head runs only where a prediction is needed, and no cache is kept.

        Args:
            mem: (B, K, d), float32; gradients flow to it.
            token_ids: (B, N), int64.
            wanted: (P,), int64, the tokens whose predictions are needed; None for all N.

        Returns:
            (B, N or P, V), float32.
        """
        num_tokens = token_ids.shape[1]
        kept = num_tokens if wanted is None else wanted + mem.shape[1] - 1
        if isinstance(kept, Tensor) and self.dispatched:
            kept = kept.cpu()  # the last layer may be on any device
        inputs = self._joined(mem, token_ids)
        logits: Tensor = self.model(inputs_embeds=inputs, use_cache=False, logits_to_keep=kept).logits
        return (logits[:, -num_tokens:] if wanted is None else logits).float()

    def text_hidden(self, mem: Tensor, token_ids: Tensor, wanted: Tensor | None = None) -> Tensor:
        """What a linear head reads for the predictions that `text_logits` gives: (B, N or P, d), the model's dtype."""
        inputs = self._joined(mem, token_ids)
        hidden = (self.body(inputs) if self.body else self._hidden(inputs))[:, mem.shape[1] - 1 :]
        return hidden if wanted is None else hidden[:, wanted]

    def _hidden(self, inputs: Tensor) -> Tensor:
        """Last hidden states of the model itself: (B, n, d) -> (B, n, d)."""
        hidden: Tensor = self.model.base_model(inputs_embeds=inputs, use_cache=False).last_hidden_state
        return hidden

    def _joined(self, mem: Tensor, token_ids: Tensor) -> Tensor:
        """Input embeddings of [mem] and all tokens but the last: (B, K + N - 1, d)."""
        return torch.cat([mem.to(self.dtype), self.embed(token_ids[:, :-1])], dim=1)

    @cached_property
    def linear_head(self) -> tuple[Tensor, Tensor | None] | None:
        """Weight (V, d) and bias of the head, if logits are just that of the last hidden states.

        Some models scale or bend their logits; a short pass tells, whatever the architecture. None for those, and for
        a dispatched model, whose head may be elsewhere.
        """
        head = self.model.get_output_embeddings()
        if (
            self.dispatched
            or not isinstance(head, nn.Linear)
            or head.weight.shape != (self.vocab_size, self.hidden_size)
        ):
            return None
        ids = torch.arange(min(3, self.vocab_size), device=self.device)[None]
        with torch.no_grad():
            mem = self.embed(ids[:, :1])
            plain = head(self._hidden(self._joined(mem, ids))).float()
            given = self.text_logits(mem, ids)
        return (head.weight, head.bias) if torch.equal(plain, given) else None

    def bare_logits(self, token_ids: Tensor) -> Tensor:
        """The bare LM's predictions of tokens 1..N-1, without any gradient: (B, N) -> (B, N - 1, V), float32."""
        with torch.no_grad():
            logits: Tensor = self.model(input_ids=token_ids, use_cache=False).logits[:, :-1]
        return logits.float()

    def encode_flops(self, num_tokens: int, num_mem: int) -> int:
        """FLOPs of `encode` for one text; 0 without an encoder."""
        return FlopCount.of(self.encoder).forward(num_tokens + num_mem, 0) if self.encoder else 0

    def encode(self, token_ids: Tensor, num_mem: int) -> Tensor:
        """[mem] vectors from the memory encoder in one forward pass: (B, N) -> (B, K, d), float32.

        Raises:
            ConfigError: the model has no encoder, or it was not trained for this K.
        """
        if self.encoder is None:
            raise ConfigError(f"{self.name} has no memory encoder. Use init 'embedding'.")
        if num_mem > self.encoder.max_mem:
            raise ConfigError(f"The encoder gives at most {self.encoder.max_mem} vectors, not {num_mem}.")
        with torch.no_grad():
            vectors: Tensor = self.encoder(self.embed(token_ids).float(), num_mem)
        return vectors


def load_model(name: str = BUILT_IN, *, device: str | None = None, precision: str = "auto") -> FrozenLM:
    """A frozen model by its name in the table, a local folder, or a hub id already on this machine.

    Args:
        name: "cram-mini", another name from `MODELS`, a folder, or a hub id.
        device: "cpu", "cuda", "cuda:1", "mps"; None takes a GPU if there is one, and spreads a model over all GPUs if
            one is too small; "auto" over all GPUs and main memory.
        precision: "float32", "bfloat16", "float16", or "auto": what suits device and weights (`choose_dtype`).

    Raises:
        ModelError: not found, no safetensors, too large, or not a causal LM that transformers knows.
        ConfigError: no such precision or device.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"precision is {precision!r}; choose from {', '.join(PRECISIONS)}.")
    place = torch_device(device)
    folder = _folder_of(name)
    if name not in MODELS:
        name = folder.resolve().name  # it will stand in vector files, where a path would tell tales
    try:
        choice, spread = plan(name, folder, device, precision)
    except _DAMAGED as error:
        raise ModelError(_NOT_LOADED.format(name=name)) from error
    model, tokenizer = _load(name, folder, choice.load_dtype, device_map="auto" if spread else None)
    try:
        fingerprint = model_fingerprint(folder, model)
        encoder = load_encoder(folder / "encoder", model.config) if (folder / "encoder").is_dir() else None
    except _DAMAGED as error:
        raise ModelError(f"The files of {name} are damaged or incomplete. Download the model again.") from error
    try:
        if not spread:  # accelerate has placed it
            model.to(place)
        if encoder is not None:
            encoder.to(place)
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"{name} does not fit what is free on the GPU. Pick a smaller model, or device auto."
        ) from error
    return FrozenLM(
        name,
        model,
        tokenizer,
        fingerprint=fingerprint,
        encoder=encoder,
        step_dtype=choice.step_dtype,
        precision_reason=choice.reason,
    )


def _folder_of(name: str) -> Path:
    """Where the model's files lie: the table's folder, or a folder given by its path."""
    folder = Path(MODELS[name].source if name in MODELS else name)
    if (folder / "config.json").is_file():
        return folder
    offered = ", ".join(MODELS)
    raise ModelError(f"There is no model {name!r} here. Choose from {offered}, or give the folder of a model.")


def _load(
    name: str, folder: Path, dtype: torch.dtype, *, device_map: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    if not any(folder.glob("*.safetensors")):
        raise ModelError(f"{name} has no safetensors weights, and other formats can run code. Convert it first.")
    disable_progress_bar()  # progress is ours to show; the bar of a local load is noise in a pipe
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, device_map=device_map, use_safetensors=True, output_loading_info=True, **_LOCAL
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, **_LOCAL)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(_NOT_LOADED.format(name=name)) from error
    if report["missing_keys"]:  # transformers draws them at random
        raise ModelError(f"The files of {name} are damaged or incomplete. Download the model again.")
    tokenizer.model_max_length = UNLIMITED  # `cram.check_length` has a better sentence than the tokenizer's warning
    return model, tokenizer


def _tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    vocabulary = sorted(tokenizer.get_vocab().items())
    probe = tokenizer.encode(_PROBE, add_special_tokens=False)
    return hashlib.sha256(json.dumps([vocabulary, probe]).encode()).hexdigest()
