"""Links that bring settings back: there and back again, and what a stranger may write into one."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import pytest

from cramdemo.catalogue import BUILT_IN, MODELS
from cramdemo.config import CramConfig
from cramdemo.ui.links import linked, query_of


def _parsed(query: str) -> dict[str, str]:
    assert query.startswith("?")
    return dict(parse_qsl(query[1:], strict_parsing=True))


@pytest.mark.parametrize(
    "given",
    [
        {"num_mem": 1},
        {"num_mem": 32, "steps": 17, "seconds": 2.5, "learning_rate": 0.07, "margin": 0.25, "seed": 9},
        {"num_mem": 2, "precision": "bfloat16", "init": "encoder"},
    ],
)
@pytest.mark.parametrize("preset", ["fast", "most"])
@pytest.mark.parametrize("model", [BUILT_IN, "EleutherAI/pythia-160m"])
def test_a_link_brings_the_same_settings_back(model: str, preset: str, given: dict[str, Any]) -> None:
    config = CramConfig.for_model(MODELS[model], preset=preset, **given)
    found = linked(_parsed(query_of(model, preset, config)), BUILT_IN, 5)
    assert (found.model, found.num_mem, found.preset, found.problem) == (model, config.num_mem, preset, "")
    assert {name: getattr(config, name) for name in found.settings} == found.settings


def test_a_link_can_ask_for_the_fewest_memory_tokens() -> None:
    config = CramConfig.for_model(MODELS[BUILT_IN], num_mem=1, seed=4)
    query = query_of(BUILT_IN, "most", CramConfig.for_model(MODELS[BUILT_IN], preset="most", seed=4), search=True)
    assert query == "?model=cram-mini&k=auto&aim=most&seed=4"
    found = linked(_parsed(query), BUILT_IN, 5)
    assert (found.search, found.num_mem, found.problem, found.settings["seed"]) == (True, 5, "", 4)
    assert not linked(_parsed(query_of(BUILT_IN, "fast", config)), BUILT_IN, 5).search


def test_a_link_says_only_what_is_not_the_preset_s_own() -> None:
    config = CramConfig.for_model(MODELS[BUILT_IN], num_mem=3, seed=4)
    assert query_of(BUILT_IN, "fast", config) == "?model=cram-mini&k=3&aim=fast&seed=4"


def test_no_query_leaves_the_page_as_it_is() -> None:
    found = linked({}, BUILT_IN, 7)
    assert (found.model, found.num_mem, found.preset, found.problem) == (BUILT_IN, 7, "fast", "")
    assert linked({"__theme": "dark", "utm_source": "x"}, BUILT_IN, 7) == found


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"model": "../../etc"}, "There is no model '../../etc' on this page"),
        ({"model": "<img src=x>"}, "There is no model"),
        ({"k": "0"}, "num_mem is 0"),
        ({"k": "many"}, "num_mem is 'many'"),
        ({"k": "999999999999"}, "num_mem is 999999999999"),
        ({"aim": "high"}, "preset is 'high'"),
        ({"steps": "1e99"}, "steps is '1e99'"),
        ({"rate": "nan"}, "learning_rate is nan"),
        ({"margin": "-1"}, "margin is -1"),
        ({"seed": "1.5"}, "seed is '1.5'"),
        ({"precision": "int3"}, "precision is 'int3'"),
        ({"start": "x" * 1000}, "init is 'xxx"),
    ],
)
def test_a_link_that_makes_no_sense_gives_its_sentence_and_the_defaults(query: dict[str, str], sentence: str) -> None:
    found = linked(query, BUILT_IN, 3)
    assert found.problem.startswith("The link was not followed. ")
    assert sentence in found.problem
    assert len(found.problem) < 400
    usual = linked({}, BUILT_IN, 3)
    assert (found.model, found.num_mem, found.preset, found.settings) == (BUILT_IN, 3, "fast", usual.settings)
