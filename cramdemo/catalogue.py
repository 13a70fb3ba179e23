"""The models on offer, as one table: what they are, how they are best crammed, and what the papers reached with them.

Knows nothing of torch, so that listing them costs nothing. `models.py` loads them.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from cramdemo.config import CramDefaults

BUILT_IN = "cram-mini"
_PACKAGE = Path(__file__).resolve().parent
_INSTALLED = _PACKAGE / "assets"  # where a wheel puts them; in a checkout and in a Space they lie beside the package
ASSETS = _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parent / "assets"
UNLIMITED = 1_000_000_000
# Capacity against vectors (arXiv 2502.13063): of Llama-3.2-1B, (K, tokens); the second is read off a figure
PAPER_LINE_MODEL = "Llama-3.2-1B"
PAPER_LINE = ((1, 512), (16, 7000))

FAMILY_DEFAULTS = {  # by `model_type`; `bench tune` measures the choices, a family that is not here was not measured
    "gpt_neox": CramDefaults(
        learning_rate=1.0, temperature=0.25, margin=0.1, boost=0.05, most={"steps": 4000, "init": "embedding"}
    ),
}


@dataclass(frozen=True)
class ModelEntry:
    """A model on offer. Sizes are in parameters and tokens; the licence is an SPDX name where there is one.

    Attributes:
        name: how users call it; of a model of the hub its id.
        source: local folder or hub id that it is loaded from.
        parameters: number of parameters, of a model that reads images too only those of its language model.
        hidden_size: d.
        vocab_size: V, rows of the input embedding matrix.
        context: most positions, [mem] and text together; `UNLIMITED` for a model without such a limit.
        defaults: how it is best crammed.
        licence: of the weights.
        note: one sentence for the picker.
        layers: number of layers.
        gated: its licence must be accepted on the hub before it can be downloaded.
        architecture: what its transformers config says, as far as sizes depend on it; its shape with random weights
            can be made from it.
    """

    name: str
    source: str
    parameters: int
    hidden_size: int
    vocab_size: int
    context: int
    defaults: CramDefaults
    licence: str
    note: str
    layers: int = 0
    gated: bool = False
    architecture: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The name without its owner."""
        return self.name.rpartition("/")[2]

    @property
    def local(self) -> bool:
        """Whether it is part of this program, so that no network is needed."""
        return self.name == BUILT_IN


@dataclass(frozen=True)
class Published:
    """What the papers reached with a model and one vector, in tokens; None where they give no figure.

    Attributes:
        cramming: decoding capacity on PG-19, teacher-forced accuracy of at least 0.99 (arXiv 2502.13063, Table 1).
        progressive: mean exact prefix on PG-19 of progressive cramming without its variants.
    """

    cramming: int | None = None
    progressive: float | None = None


@cache
def _published() -> dict[str, Published]:
    """By the model's label, in lower case: the two tables name owners differently."""
    cramming = {row["model_id"].rpartition("/")[2].lower(): row for row in paper_rows("table1.csv")}
    progressive = {
        row["model"].lower(): row for row in paper_rows("progressive.csv") if row["variant"] == "progressive"
    }
    return {
        label: Published(
            int(cramming[label]["capacity_pg19_tokens"]) if label in cramming else None,
            float(progressive[label]["tokens_mean"]) if label in progressive else None,
        )
        for label in cramming.keys() | progressive.keys()
    }


@cache
def published_gains() -> dict[str, float]:
    """C_H of the cramming paper's models by their labels, in bits: mean information gain of one vector on PG-19.

    The paper gives nats (arXiv 2502.13063, Table 1).
    """
    return {
        row["model_id"].rpartition("/")[2]: float(row["information_gain_pg19_nats"]) / math.log(2)
        for row in paper_rows("table1.csv")
    }


@dataclass(frozen=True)
class PublishedPoint:
    """One figure of a paper's for one vector of one model, beside the model's sizes.

    Attributes:
        label: of the model, without its owner.
        parameters: number of parameters.
        hidden_size: d.
        tokens: decoding capacity on PG-19 (cramming), or mean exact prefix on PG-19 (progressive).
        paper: "cramming" or "progressive".
        variant: of the recipe, "" for the paper's own.
    """

    label: str
    parameters: int
    hidden_size: int
    tokens: float
    paper: str
    variant: str = ""


def published_points() -> list[PublishedPoint]:
    """All figures that the two papers give for one vector, variants of the recipe too."""
    points = []
    for row in paper_rows("table1.csv"):
        entry = MODELS[row["model_id"]]
        tokens = float(row["capacity_pg19_tokens"])
        points.append(PublishedPoint(entry.label, entry.parameters, entry.hidden_size, tokens, "cramming"))
    for row in paper_rows("progressive.csv"):
        found, variant = find(row["model"]), row["variant"] if row["variant"] != "progressive" else ""
        assert found is not None  # every model of the papers is on offer
        tokens = float(row["tokens_mean"])
        points.append(PublishedPoint(found.label, found.parameters, found.hidden_size, tokens, "progressive", variant))
    return points


def paper_rows(name: str) -> list[dict[str, str]]:
    """The lines of one of the papers' tables, as they stand in `assets/paper`."""
    with (ASSETS / "paper" / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def published(entry: ModelEntry) -> Published:
    """What the papers reached with this model."""
    return _published().get(entry.label.lower(), Published())


def find(name: str) -> ModelEntry | None:
    """The entry of a model by its name, or by its name without the owner in any case; None if it is not on offer."""
    if name in MODELS:
        return MODELS[name]
    return next((entry for entry in MODELS.values() if entry.label.lower() == name.lower()), None)


def _on_the_hub(
    name: str,
    parameters: int,
    licence: str,
    architecture: Mapping[str, Any],
    *,
    gated: bool = False,
    note: str = "",
) -> ModelEntry:
    return ModelEntry(
        name=name,
        source=name,
        parameters=parameters,
        hidden_size=architecture["hidden_size"],
        vocab_size=architecture["vocab_size"],
        context=architecture.get("max_position_embeddings", UNLIMITED),
        defaults=FAMILY_DEFAULTS.get(architecture["model_type"], CramDefaults()),
        licence=licence,
        note=note,
        layers=architecture["num_hidden_layers"],
        gated=gated,
        architecture=dict(architecture),
    )


def _sizes(model_type: str, width: int, inner: int, layers: int, heads: int, **more: Any) -> dict[str, Any]:
    """Of a transformer."""
    return {
        "model_type": model_type,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "dtype": "bfloat16",
        **more,
    }


def _pythia(size: str, parameters: int, width: int, layers: int, heads: int) -> ModelEntry:
    more = {"vocab_size": 50304, "max_position_embeddings": 2048, "tie_word_embeddings": False, "dtype": "float16"}
    architecture = _sizes("gpt_neox", width, 4 * width, layers, heads, **more)
    note = "Trained on the Pile, the cramming paper's smallest family."
    return _on_the_hub(f"EleutherAI/pythia-{size}", parameters, "Apache-2.0", architecture, note=note)


def _mamba(size: str, parameters: int, width: int, layers: int) -> ModelEntry:
    architecture = {
        "model_type": "mamba",
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "vocab_size": 50280,
        "state_size": 16,
        "time_step_rank": -(-width // 16),
        "tie_word_embeddings": True,
        "dtype": "float32",
    }
    note = "A state space model: no attention, so no limit of positions."
    return _on_the_hub(f"state-spaces/mamba-{size}-hf", parameters, "Apache-2.0", architecture, note=note)


def _meta_llama(
    version: str, size: str, parameters: int, sizes: tuple[int, int, int, int], *, tied: bool, head_dim: int
) -> ModelEntry:
    more = {"num_key_value_heads": 8, "head_dim": head_dim, "vocab_size": 128256, "tie_word_embeddings": tied}
    architecture = _sizes("llama", *sizes, max_position_embeddings=131072, **more)
    return _on_the_hub(f"meta-llama/Llama-{version}-{size}", parameters, f"llama{version}", architecture, gated=True)


def _smollm2(size: str, parameters: int, sizes: tuple[int, int, int, int], key_value_heads: int) -> ModelEntry:
    more = {"num_key_value_heads": key_value_heads, "vocab_size": 49152, "tie_word_embeddings": True}
    architecture = _sizes("llama", *sizes, max_position_embeddings=8192, **more)
    return _on_the_hub(f"HuggingFaceTB/SmolLM2-{size}", parameters, "Apache-2.0", architecture)


def _gemma3(
    size: str, parameters: int, sizes: tuple[int, int, int, int, int], context: int, vocabulary: int
) -> ModelEntry:
    *most, key_value_heads = sizes
    more = {"num_key_value_heads": key_value_heads, "head_dim": 256, "vocab_size": vocabulary}
    architecture = _sizes("gemma3_text", *most, max_position_embeddings=context, tie_word_embeddings=True, **more)
    return _on_the_hub(f"google/gemma-3-{size}", parameters, "gemma", architecture, gated=True)


def _qwen3(size: str, parameters: int, sizes: tuple[int, int, int, int], tied: bool) -> ModelEntry:
    more = {"num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "tie_word_embeddings": tied}
    architecture = _sizes("qwen3", *sizes, max_position_embeddings=32768, **more)
    return _on_the_hub(f"Qwen/Qwen3-{size}-Base", parameters, "Apache-2.0", architecture)


_CRAM_MINI = ModelEntry(
    name=BUILT_IN,
    source=str(ASSETS / BUILT_IN),
    parameters=12_517_760,
    hidden_size=640,
    vocab_size=4096,
    context=1024,
    defaults=CramDefaults(
        learning_rate=0.3,
        growth=0,
        margin=0.5,
        optimizer="whitened",
        most={"learning_rate": 0.1, "margin": 0.3, "init": "embedding"},
    ),
    licence="MIT",
    note="Built in, works on any CPU. Trained to read memory vectors, as large models do untrained.",
    layers=3,
    architecture=_sizes(
        "llama",
        640,
        864,
        3,
        10,
        num_key_value_heads=10,
        vocab_size=4096,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
    ),
)
_OPT = _sizes("opt", 2048, 8192, 24, 32, vocab_size=50272, max_position_embeddings=2048, tie_word_embeddings=True) | {
    "word_embed_proj_dim": 2048,
    "ffn_dim": 8192,
    "dtype": "float16",
}
_OLMO = _sizes(
    "olmo",
    2048,
    8192,
    16,
    16,
    vocab_size=50304,
    max_position_embeddings=4096,
    tie_word_embeddings=False,
    dtype="float32",
)
_SHEARED = _sizes("llama", 2048, 5504, 24, 16, vocab_size=32000, max_position_embeddings=4096, dtype="float32")

MODELS = {
    entry.name: entry
    for entry in (
        _CRAM_MINI,
        _pythia("160m", 162_322_944, 768, 12, 12),
        _pythia("410m", 405_334_016, 1024, 24, 16),
        _pythia("1.4b", 1_414_647_808, 2048, 24, 16),
        _pythia("2.8b", 2_775_208_960, 2560, 32, 32),
        _on_the_hub("facebook/opt-1.3b", 1_315_758_080, "OPT-175B", _OPT),
        _on_the_hub("allenai/OLMo-1B-0724-hf", 1_279_787_008, "Apache-2.0", _OLMO),
        _on_the_hub("princeton-nlp/Sheared-LLaMA-1.3B", 1_345_423_360, "Apache-2.0", _SHEARED),
        _meta_llama("3.2", "1B", 1_235_814_400, (2048, 8192, 16, 32), tied=True, head_dim=64),
        _meta_llama("3.2", "3B", 3_212_749_824, (3072, 8192, 28, 24), tied=True, head_dim=128),
        _meta_llama("3.1", "8B", 8_030_261_248, (4096, 14336, 32, 32), tied=False, head_dim=128),
        _mamba("130m", 129_135_360, 768, 24),
        _mamba("370m", 371_516_416, 1024, 48),
        _mamba("790m", 793_204_224, 1536, 48),
        _mamba("1.4b", 1_372_178_432, 2048, 48),
        _smollm2("135M", 134_515_008, (576, 1536, 30, 9), 3),
        _smollm2("360M", 361_821_120, (960, 2560, 32, 15), 5),
        _smollm2("1.7B", 1_711_376_384, (2048, 8192, 24, 32), 32),
        _gemma3("270m", 268_098_176, (640, 2048, 18, 4, 1), 32768, 262144),
        _gemma3("1b-pt", 999_885_952, (1152, 6912, 26, 4, 1), 32768, 262144),
        _gemma3("4b-pt", 3_880_263_168, (2560, 10240, 34, 8, 4), 131072, 262208),
        _qwen3("0.6B", 596_049_920, (1024, 3072, 28, 16), tied=True),
        _qwen3("1.7B", 1_720_574_976, (2048, 6144, 28, 16), tied=True),
        _qwen3("4B", 4_022_468_096, (2560, 9728, 36, 32), tied=True),
        _qwen3("8B", 8_190_735_360, (4096, 12288, 36, 32), tied=False),
    )
}
