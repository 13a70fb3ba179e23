"""The table of models: what it says is what the architectures are, and what the papers wrote."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from cramdemo.catalogue import BUILT_IN, MODELS, UNLIMITED, ModelEntry, find, published, published_points


@pytest.mark.parametrize("entry", MODELS.values(), ids=lambda entry: entry.label)
def test_parameters_width_and_vocabulary_are_those_of_the_architecture(entry: ModelEntry) -> None:
    """Made on the meta device, which takes no memory; the counts are the ones that the hub shows."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**entry.architecture))
    assert sum(p.numel() for p in model.parameters()) == entry.parameters
    assert tuple(model.get_input_embeddings().weight.shape) == (entry.vocab_size, entry.hidden_size)
    assert entry.layers == model.config.num_hidden_layers
    assert entry.context == getattr(model.config, "max_position_embeddings", UNLIMITED)


def test_every_model_of_the_cramming_paper_is_on_offer_with_its_figure() -> None:
    with_figure = {entry.label: published(entry).cramming for entry in MODELS.values() if published(entry).cramming}
    assert len(with_figure) == 14
    assert with_figure["Llama-3.1-8B"] == 1568
    assert with_figure["mamba-130m-hf"] == 32


def test_progressive_s_figures_are_those_without_its_variants() -> None:
    figures = {entry.label: published(entry).progressive for entry in MODELS.values()}
    assert figures["SmolLM2-1.7B"] == 335.1  # its low-dim variant: 957.4
    assert figures["pythia-1.4b"] == 430.4
    assert sum(figure is not None for figure in figures.values()) == 12
    assert figures[BUILT_IN] is None


@pytest.mark.parametrize("name", ["EleutherAI/pythia-160m", "pythia-160m", "PYTHIA-160M"])
def test_a_model_is_found_by_its_name_with_or_without_its_owner(name: str) -> None:
    entry = find(name)
    assert entry is not None
    assert entry.name == "EleutherAI/pythia-160m"


@pytest.mark.parametrize("name", ["", "pythia", "160m", "EleutherAI/", "../pythia-160m", "someone/pythia-160m"])
def test_what_is_not_on_offer_is_not_found(name: str) -> None:
    assert find(name) is None


def test_published_points_are_the_papers_rows_with_the_sizes_of_their_models() -> None:
    points = published_points()
    assert {paper: sum(p.paper == paper for p in points) for paper in ("cramming", "progressive")} == {
        "cramming": 14,
        "progressive": 18,
    }
    assert sum(bool(point.variant) for point in points) == 6
    best = max((point for point in points if point.variant), key=lambda point: point.tokens)
    assert (best.label, best.hidden_size, best.tokens) == ("Llama-3.1-8B", 4096, 1697.2)
    assert best.parameters == MODELS["meta-llama/Llama-3.1-8B"].parameters
