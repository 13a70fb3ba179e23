"""The models on offer, and FrozenLM: a causal LM with frozen weights that reads [mem] vectors.

This is the only place where [mem] and text are joined and where a tokenizer is used. The engine above it
sees ids and tensors. Models load from safetensors only; no code from a model's repository is run.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import disable_progress_bar, get_logger

from cramdemo import attention
from cramdemo.body import Body, body_of
from cramdemo.catalogue import BUILT_IN, FAMILY_DEFAULTS, UNLIMITED, find
from cramdemo.checkpoint import INSIDE, model_fingerprint
from cramdemo.config import PRECISIONS, CramDefaults
from cramdemo.dispatch import execution_device, is_dispatched, recompute_layers
from cramdemo.encoder import MemoryEncoder, load_encoder
from cramdemo.errors import ConfigError, ModelError, TextError
from cramdemo.flops import FlopCount
from cramdemo.hub import Download, Snapshot, fetch, is_hub_id
from cramdemo.placement import Choice, memory_or, plan, ran_out_of_memory, torch_device

_LOCAL = {"local_files_only": True, "trust_remote_code": False}  # unless told False, transformers asks on the terminal
_DAMAGED = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, struct.error, SafetensorError)
_STD_ROWS = 4096  # of an embedding matrix, from which its spread is measured
_NOT_LOADED = "{name} cannot be loaded as a causal language model by transformers."
_INCOMPLETE = "The files of {name} are damaged or incomplete. Download the model again."
_PROBE = "The quick brown fox, 0123456789: caf\u00e9 \u041f\u0440\u0438\u0432\u0435\u0442 \U0001f642\r\n\t\x00 end"


class FrozenLM:
    """A causal LM whose weights never change, with its tokenizer and, where it has one, its memory encoder.

    Attributes:
        name: as the user called it.
        model: the transformers model, in evaluation mode, without weight gradients.
        hidden_size: d, read from the input embedding matrix (not every config's `hidden_size` is it).
        vocab_size: V, rows of the input embedding matrix.
        embedding_std: of the numbers that `embed` gives, which some models scale.
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
        self.embedding_std = self._measured_std()

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
    def where(self) -> str:
        """Device and dtype in words: "CPU in float32"."""
        return f"{self.device.type.upper()} in {str(self.dtype).removeprefix('torch.')}"

    @property
    def defaults(self) -> CramDefaults:
        """How this model is best crammed: by its table entry, or else as its family is."""
        entry = find(self.name)
        return entry.defaults if entry else FAMILY_DEFAULTS.get(self.model.config.model_type, CramDefaults())

    def _measured_std(self) -> float:
        rows = torch.arange(0, self.vocab_size, -(-self.vocab_size // _STD_ROWS), device=self.device)
        with torch.no_grad():
            return float(self.embed(rows).float().std())

    def in_float32(self) -> FrozenLM:
        """The same model with its weights in float32: `in_dtype` has the rest."""
        return self.in_dtype(torch.float32)

    def in_dtype(self, dtype: torch.dtype) -> FrozenLM:
        """The same model with its weights in another float dtype, made once and kept.

        Raises:
            ModelError: the model is dispatched, so that there is no place for a copy.
        """
        if self.dispatched:
            name = str(dtype).removeprefix("torch.")
            raise ModelError(f"{self.name} is spread over several devices. Load it with precision {name!r} instead.")
        return self._in(dtype)

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
            model = _copy_in(dtype, self.model)
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
        for spelt in (text, f" {text}"):  # SentencePiece's way takes one leading space away
            ids = self._encode(spelt)
            if self.detokenize(ids) == text:
                return ids
        raise TextError(
            f"The tokenizer of {self.name} does not give this text back exactly, so it cannot be decoded "
            "losslessly. Pick cram-mini, which keeps every character, or another model."
        )

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        return ids

    def detokenize(self, token_ids: Sequence[int]) -> str:
        """The text of the ids, nothing cleaned up."""
        text = self.tokenizer.decode(list(token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return str(text)

    def detokenize_so_far(self, token_ids: Sequence[int]) -> str:
        """The text of the first ids of more to come, without a character of which tokens are missing at the end.

        Where characters are spelt in bytes, one that is cut off makes those before it unreadable too.
        """
        for missing in range(4):
            text = self.detokenize(token_ids[: len(token_ids) - missing])
            if not text.endswith("\ufffd"):
                return text
        return self.detokenize(token_ids).rstrip("\ufffd")

    def token_texts(self, token_ids: Sequence[int]) -> list[str]:
        """The text that each token adds: joined they are the whole text.

        A character that is split over several tokens belongs to its last one; the others add "". What a token adds is
        seen behind the tokens before it, since some tokenizers drop a space at the start of whatever they decode.
        """
        whole, texts, known = self.detokenize(token_ids), [], 0
        start = before = context = 0  # tokens from `start` on are decoded; those up to `before` are known already
        for end in range(1, len(token_ids) + 1):
            piece = self.detokenize(token_ids[start:end])[context:]
            complete = whole.startswith(piece, known)
            texts.append(piece if complete else "")
            if complete:
                known += len(piece)
                start, before = before, end
                context = len(self.detokenize(token_ids[start:before]))
        if texts:
            texts[-1] += whole[known:]
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
        return hidden.to(self.dtype)  # Mamba adds its layers up in float32

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


def load_model(
    name: str = BUILT_IN,
    *,
    device: str | None = None,
    precision: str = "auto",
    token: str | None = None,
    stop: Callable[[], bool] | None = None,
    tell: Callable[[Download], None] | None = None,
) -> FrozenLM:
    """A frozen model by its name in the table, from a local folder, or by its hub id.

    Args:
        name: "cram-mini", another name from `MODELS`, a folder, or a hub id. What is not on this machine is
            downloaded, see `hub.fetch`.
        device: "cpu", "cuda", "cuda:1", "mps"; None takes a GPU if there is one, and spreads a model over all GPUs if
            one is too small; "auto" over all GPUs and main memory.
        precision: "float32", "bfloat16", "float16", or "auto": what suits device and weights (`choose_dtype`).
        token: for the hub; None for the environment's or the one that is logged in.
        stop: once it says True a download ends.
        tell: is told of a download's progress a few times a second.

    Raises:
        ModelError: not found, gated, cut off, stopped, no safetensors, too large, or not a causal LM that
            transformers knows.
        ConfigError: no such precision or device.
    """
    _check_place(device, precision)  # before anything is downloaded
    name, files = files_of(name, lambda repo_id: fetch(repo_id, token=token, stop=stop, tell=tell))
    return load_files(name, files, device=device, precision=precision)


def load_files(name: str, files: Snapshot, *, device: str | None = None, precision: str = "auto") -> FrozenLM:
    """`load_model` for files that are here, under a name of their own.

    Raises:
        ModelError: no safetensors, too large, or not a causal LM that transformers knows.
        ConfigError: no such precision or device.
    """
    place = _check_place(device, precision)
    with _readable(_NOT_LOADED.format(name=name)):
        choice, spread = plan(name, files.folder, device, precision)
    elsewhere = "" if place.type == "cpu" or spread else ", or device auto"
    with memory_or(f"There is not enough free memory to load {name}. Pick a smaller model{elsewhere}."):
        return _loaded(name, files, choice, place, spread=spread)


def _loaded(name: str, files: Snapshot, choice: Choice, place: torch.device, *, spread: bool) -> FrozenLM:
    model, tokenizer = _load(name, files.folder, choice.load_dtype, device_map="auto" if spread else None)
    with _readable(_INCOMPLETE.format(name=name)):
        fingerprint = model_fingerprint(files.folder, model)
        encoder = load_encoder(files.folder / "encoder", model.config) if (files.folder / "encoder").is_dir() else None
    if not spread:  # accelerate has placed it
        model.to(place)
    if encoder is not None:
        encoder.to(place)
    return FrozenLM(
        name,
        model,
        tokenizer,
        fingerprint=fingerprint,
        revision=files.revision,
        encoder=encoder,
        step_dtype=choice.step_dtype,
        precision_reason=choice.reason,
    )


@contextmanager
def _readable(sentence: str) -> Iterator[None]:
    """Work on files that may be damaged.

    Raises:
        ModelError: with that sentence, if they are; what has run out of memory stays what it is.
    """
    try:
        yield
    except _DAMAGED as error:
        if ran_out_of_memory(error):
            raise
        raise ModelError(sentence) from error


def _check_place(device: str | None, precision: str) -> torch.device:
    if precision not in PRECISIONS:
        raise ConfigError(f"precision is {precision!r}; choose from {', '.join(PRECISIONS)}.")
    return torch_device(device)


def files_of(name: str, download: Callable[[str], Snapshot]) -> tuple[str, Snapshot]:
    """The model's name for vector files, where a path would tell tales, and its files.

    Args:
        download: brings the files of a hub id.

    Raises:
        ModelError: there is no such model, or what `download` raises.
    """
    entry, folder = find(name), Path(name)
    if entry:
        return entry.name, download(entry.source) if is_hub_id(entry.source) else Snapshot(Path(entry.source), "")
    if (folder / "config.json").is_file():
        return folder.resolve().name, Snapshot(folder, "")
    if is_hub_id(name) and not folder.exists():
        return name, download(name)
    raise ModelError(
        f"There is no model {name!r} here. Choose {BUILT_IN} or another that `python -m cramdemo models` lists, "
        "or give a hub id, as owner/name, or the folder of a model."
    )


def _load(
    name: str, folder: Path, dtype: torch.dtype, *, device_map: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    if not any(folder.glob("*.safetensors")):
        raise ModelError(f"{name} has no safetensors weights, and other formats can run code. Convert it first.")
    disable_progress_bar()  # progress is ours to show; the bar of a local load is noise in a pipe
    get_logger("transformers.modeling_utils").addFilter(_no_report)
    with _readable(_NOT_LOADED.format(name=name)):
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            device_map=device_map,
            use_safetensors=True,
            output_loading_info=True,
            **_language_model(folder),
            **_LOCAL,
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, **_LOCAL)
    if report["missing_keys"]:  # transformers draws them at random
        raise ModelError(_INCOMPLETE.format(name=name))
    tokenizer.model_max_length = UNLIMITED  # `cram.check_length` has a better sentence than the tokenizer's warning
    return model, tokenizer


def _language_model(folder: Path) -> dict[str, Any]:
    """What makes transformers load only the language model of a checkpoint that reads images as well."""
    config = AutoConfig.from_pretrained(folder, **_LOCAL)
    text = config.get_text_config(decoder=True)
    if text is config or type(text) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return {}
    places = {f"^{re.escape(part)}": "model." for part in INSIDE} | {r"^language_model\.lm_head\.": "lm_head."}
    return {"config": text, "key_mapping": places}


def _no_report(record: Any) -> bool:
    """False for the table of weights, such as a vision tower's, that are in the files and not wanted."""
    return "LOAD REPORT" not in str(record.msg)


def _copy_in(dtype: torch.dtype, model: PreTrainedModel) -> PreTrainedModel:
    """A copy of the model with its weights in another dtype, as if it had been loaded so.

    Buffers stay as they are: rotary frequencies, rounded to bfloat16, turn a distant position by a wrong angle.
    """
    weights = {id(p): nn.Parameter(p.to(dtype), requires_grad=False) for p in model.parameters()}
    copied: PreTrainedModel = copy.deepcopy(model, weights)
    embedding = copied.get_input_embeddings()
    if hasattr(embedding, "scalar_embed_scale"):  # Gemma's, which was rounded to the dtype it was loaded in
        embedding.embed_scale = torch.full_like(embedding.embed_scale, embedding.scalar_embed_scale, dtype=dtype)
    return copied


def _tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    vocabulary = sorted(tokenizer.get_vocab().items())
    probe = tokenizer.encode(_PROBE, add_special_tokens=False)
    return hashlib.sha256(json.dumps([vocabulary, probe]).encode()).hexdigest()
