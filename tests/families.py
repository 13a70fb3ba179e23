"""A tiny random model of each family of the papers, with a tokenizer of the kind that family uses, saved in a folder.

The weights are drawn wide, norms and biases too, so that nothing hides behind a zero and a few vectors can make the
model say anything. Vocabularies are a little larger than their tokenizers, as the real ones are.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    Gemma3Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MambaConfig,
    OlmoConfig,
    OPTConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen3Config,
)

from cramdemo.catalogue import UNLIMITED
from tests.conftest import SENTENCES

PIECES = 60  # learnt by each tokenizer from the sentences
VOCABULARY = 400
WIDTH = 32
CONTEXT = 40
LAYERS = 2
EMBEDDING_STD = 0.25
SPLIT = r" ?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+"  # words, numbers, signs, spaces
Kind = tuple[Tokenizer, dict[str, Any]]  # and what stands in tokenizer_config.json


# ---- tokenizers


def _trained(pre_tokenizer: Any, alphabet: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Pieces and merges of a BPE of the sentences."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + PIECES, initial_alphabet=alphabet, limit_alphabet=len(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator(iter(SENTENCES), trainer)
    learnt = json.loads(tokenizer.to_str())["model"]
    return list(learnt["vocab"]), [(left, right) for left, right in learnt["merges"]]


def _special(tokenizer: Tokenizer, names: list[str], bos: str | None) -> Tokenizer:
    """With names that are no plain text, of which one is put in front of what is encoded."""
    tokenizer.add_special_tokens(names)
    if bos:
        before = [(bos, tokenizer.token_to_id(bos))]
        tokenizer.post_processor = processors.TemplateProcessing(f"{bos} $A", f"{bos} $A {bos} $B", before)
    return tokenizer


def _bytes_bpe(names: list[str], pre_tokenizer: Any, **settings: Any) -> Tokenizer:
    """BPE over bytes, every byte being one of 256 letters."""
    pieces, merges = _trained(pre_tokenizers.ByteLevel(add_prefix_space=False), pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: number for number, piece in enumerate([*names, *pieces])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, **settings))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizer, decoders.ByteLevel()
    return tokenizer


def _characters_bpe(names: list[str], decoder: list[Any]) -> Tokenizer:
    """BPE over characters, of which those that no sentence has are spelt in bytes, and spaces are "▁"."""
    letters = sorted({letter for sentence in SENTENCES for letter in sentence.replace(" ", "▁")})
    pieces, merges = _trained(pre_tokenizers.Metaspace(prepend_scheme="always"), letters)
    spelt = [f"<0x{byte:02X}>" for byte in range(256)]
    vocabulary = {piece: number for number, piece in enumerate([*names, *spelt, *pieces])}
    model = models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *decoder]
    )
    return tokenizer


def gpt2_kind() -> Kind:
    """Byte-level, one special token that is never added."""
    tokenizer = _bytes_bpe(["<|endoftext|>"], pre_tokenizers.ByteLevel(add_prefix_space=False))
    ends = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    return _special(tokenizer, ["<|endoftext|>"], None), {"tokenizer_class": "GPT2Tokenizer", **ends}


def opt_kind() -> Kind:
    """GPT-2's, that puts its end of a text in front."""
    names = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer = _special(_bytes_bpe(names, pre_tokenizers.ByteLevel(add_prefix_space=False)), names, "</s>")
    ends = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>"}
    return tokenizer, {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True, **ends}


def neox_kind() -> Kind:
    """Byte-level, composes characters (NFC), and knows runs of spaces as tokens of their own."""
    tokenizer = _bytes_bpe(["<|endoftext|>"], pre_tokenizers.ByteLevel(add_prefix_space=False))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_tokens([" " * width for width in (24, 8, 4, 2)])
    ends = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    return _special(tokenizer, ["<|endoftext|>"], None), {"tokenizer_class": "GPTNeoXTokenizer", **ends}


def qwen_kind() -> Kind:
    """Byte-level behind its own split, composes characters (NFC), no token in front."""
    split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = _bytes_bpe([], pre_tokenizers.Sequence([split, bytes_only]))
    tokenizer.normalizer = normalizers.NFC()
    ends = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    return _special(tokenizer, names, None), {"tokenizer_class": "Qwen2Tokenizer", **ends}


def llama3_kind() -> Kind:
    """Byte-level behind its own split; whole words are looked up before any merge; adds <|begin_of_text|>."""
    split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]
    tokenizer = _bytes_bpe([], pre_tokenizers.Sequence([split, bytes_only]), ignore_merges=True)
    ends = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>", "clean_up_tokenization_spaces": True}
    return _special(tokenizer, names, names[0]), {"tokenizer_class": "PreTrainedTokenizerFast", **ends}


def llama2_kind() -> Kind:
    """SentencePiece's BPE with byte fallback: a space is put in front of the text, and <s> before it."""
    names = ["<unk>", "<s>", "</s>"]
    tokenizer = _characters_bpe(names, [decoders.Strip(" ", 1, 0)])
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    ends = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return _special(tokenizer, names, "<s>"), {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, **ends}


def llama2_file_kind() -> Kind:
    """The same, its parts taken from the file and not built anew by transformers."""
    tokenizer, settings = llama2_kind()
    return tokenizer, settings | {"tokenizer_class": "PreTrainedTokenizerFast"}


def gemma_kind() -> Kind:
    """Byte fallback without a space in front; runs of line ends are tokens of their own; adds <bos>."""
    names = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    tokenizer = _characters_bpe(names, [])
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.add_tokens(["\n\n", "▁▁", "<table>", "<start_of_image>"])
    ends = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return _special(tokenizer, names, "<bos>"), {"tokenizer_class": "GemmaTokenizer", "add_bos_token": True, **ends}


TOKENIZERS: dict[str, Callable[[], Kind]] = {
    "GPT-2": gpt2_kind,
    "OPT": opt_kind,
    "GPT-NeoX": neox_kind,
    "Qwen": qwen_kind,
    "Llama 3": llama3_kind,
    "Llama 2": llama2_kind,
    "Llama 2, from its file": llama2_file_kind,
    "Gemma": gemma_kind,
}


def save_tokenizer(kind: str, folder: Path) -> None:
    """As a checkpoint of that family holds it: tokenizer.json and tokenizer_config.json."""
    tokenizer, settings = TOKENIZERS[kind]()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


# ---- models


@dataclass(frozen=True)
class Family:
    """A family's tiny model.

    Attributes:
        config: of the model.
        tokenizer: a key of `TOKENIZERS`.
        body: parameters of the matrices that each position passes, by hand.
        width: d, of the input embeddings.
        heads_width: heads x head width, 0 without attention.
        context: most positions.
    """

    config: PretrainedConfig
    tokenizer: str
    body: int
    width: int = WIDTH
    heads_width: int = WIDTH
    context: int = CONTEXT


_SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "max_position_embeddings": CONTEXT,
}
_GATED = {**_SHAPE, "intermediate_size": 48, "num_attention_heads": 4}
_NO_ENDS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
_GEMMA: dict[str, Any] = {
    **_GATED,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "query_pre_attn_scalar": 16,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
}
_WINDOW = {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]}
_VISION = {
    "model_type": "siglip_vision_model",
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}


def _gated_body(heads_width: int, groups_width: int) -> int:
    """Of a Llama-like model: query and output, key and value, gate and up and down."""
    return LAYERS * WIDTH * (2 * heads_width + 2 * groups_width + 3 * 48)


def _plain_body(inner: int) -> int:
    """Of a model of the older kind: query, key, value and output, up and down."""
    return LAYERS * WIDTH * (4 * WIDTH + 2 * inner)


def _llama(tied: bool) -> LlamaConfig:
    return LlamaConfig(**_GATED, num_key_value_heads=2, tie_word_embeddings=tied, bos_token_id=1, eos_token_id=2)


def _opt(width: int) -> OPTConfig:
    sizes = {**_SHAPE, "num_attention_heads": 4, "ffn_dim": 64, "word_embed_proj_dim": width}
    return OPTConfig(**sizes, pad_token_id=1, bos_token_id=2, eos_token_id=2)


FAMILIES = {
    "GPT-NeoX": Family(
        GPTNeoXConfig(**{**_GATED, "intermediate_size": 64}, tie_word_embeddings=False, **_NO_ENDS),
        "GPT-NeoX",
        _plain_body(64),
    ),
    "OPT, projected": Family(_opt(24), "OPT", _plain_body(64) + 2 * 24 * WIDTH, width=24),
    "OPT": Family(_opt(WIDTH), "OPT", _plain_body(64)),
    "OLMo": Family(OlmoConfig(**_GATED, tie_word_embeddings=False, **_NO_ENDS), "GPT-NeoX", _gated_body(32, 32)),
    "Llama, tied": Family(_llama(True), "Llama 3", _gated_body(32, 16)),
    "Llama, untied": Family(_llama(False), "Llama 2", _gated_body(32, 16)),
    "Mamba": Family(
        MambaConfig(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            num_hidden_layers=LAYERS,
            state_size=4,
            time_step_rank=2,
            **_NO_ENDS,
        ),
        "GPT-NeoX",
        LAYERS * 64 * (2 * WIDTH + (2 + 2 * 4) + 2 + WIDTH),
        heads_width=0,
        context=UNLIMITED,
    ),
    "Gemma 3": Family(Gemma3TextConfig(**_GEMMA), "Gemma", _gated_body(64, 32), heads_width=64),
    "Gemma 3, window": Family(Gemma3TextConfig(**_GEMMA, **_WINDOW), "Gemma", _gated_body(64, 32), heads_width=64),
    "Gemma 3, images": Family(
        Gemma3Config(
            text_config=Gemma3TextConfig(**_GEMMA, **_WINDOW),
            vision_config=_VISION,
            mm_tokens_per_image=4,
            image_token_index=VOCABULARY - 1,
        ),
        "Gemma",
        _gated_body(64, 32),
        heads_width=64,
    ),
    "Qwen3": Family(
        Qwen3Config(**_GATED, num_key_value_heads=2, head_dim=16, tie_word_embeddings=True, **_NO_ENDS),
        "Qwen",
        _gated_body(64, 32),
        heads_width=64,
    ),
    "GPT-2": Family(
        GPT2Config(vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=LAYERS, n_head=4, n_positions=CONTEXT, **_NO_ENDS),
        "GPT-2",
        _plain_body(4 * WIDTH),
    ),
}


def random_model(name: str, seed: int = 0) -> PreTrainedModel:
    """A family's model, float32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(100 * seed + list(FAMILIES).index(name))  # or Gemma's kinds would have the same weights
        model = AutoModelForCausalLM.from_config(copy.deepcopy(FAMILIES[name].config), attn_implementation="eager")
        for part, parameter in model.named_parameters():
            if part.endswith(("A_log", ".D", "dt_proj.bias")):  # Mamba's own start
                continue
            mean = 1.0 if parameter.ndim == 1 and part.endswith("weight") else 0.0  # of a norm's weights
            std = EMBEDDING_STD if parameter.shape[0] == VOCABULARY else 0.4
            torch.nn.init.normal_(parameter, mean, std)
    return model.eval().requires_grad_(False)


def build(name: str, folder: Path, *, seed: int = 0, dtype: torch.dtype = torch.float32, shard: str = "1GB") -> Path:
    """Saves a family's model and tokenizer as a user would find them; returns the folder."""
    random_model(name, seed).to(dtype).save_pretrained(folder, max_shard_size=shard)
    save_tokenizer(FAMILIES[name].tokenizer, folder)
    return folder
