"""Settings of a server: what the environment may say, what it may not, and that the README lists them all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cramdemo import ConfigError, CramConfig
from cramdemo.settings import Settings, limited, read_settings, table

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")


def test_an_empty_environment_gives_the_defaults() -> None:
    assert read_settings({"PATH": "/bin", "CRAMDEMO_MODELS": ""}) == Settings()


def test_every_setting_is_read() -> None:
    given = {
        "CRAMDEMO_MODELS": " pythia-160m, some/model ,,pythia-160m",
        "CRAMDEMO_ANY_MODEL": "1",
        "CRAMDEMO_MEMORY_GB": "12.5",
        "CRAMDEMO_MAX_MEM": "4",
        "CRAMDEMO_MAX_STEPS": "500",
        "CRAMDEMO_MAX_SECONDS": "60",
        "CRAMDEMO_QUEUE": "3",
        "CRAMDEMO_MCP": "yes",
    }
    assert set(given) == {name for name, _, _ in table()}
    assert read_settings(given) == Settings(("pythia-160m", "some/model"), True, 12.5, 4, 500, 60.0, 3, True)


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("CRAMDEMO_MAX_STEPS", "0", "a whole number from 1 to 100,000"),
        ("CRAMDEMO_MAX_STEPS", "ten", "a whole number"),
        ("CRAMDEMO_MAX_STEPS", "1e3", "a whole number"),
        ("CRAMDEMO_MAX_MEM", "64", "a whole number from 1 to 32"),
        ("CRAMDEMO_MEMORY_GB", "nan", "a number from 0 to 100,000"),
        ("CRAMDEMO_MAX_SECONDS", "-1", "a number from 0"),
        ("CRAMDEMO_MCP", "perhaps", "1 or 0"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_name(name: str, value: str, wanted: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name} is '{re.escape(value)}'; give {wanted}"):
        read_settings({name: value})


def test_a_misspelt_setting_is_not_passed_over() -> None:
    with pytest.raises(ConfigError, match=r"no setting CRAMDEMO_MODEL\. Choose from CRAMDEMO_MODELS,"):
        read_settings({"CRAMDEMO_MODEL": "pythia-160m"})


def test_strangers_may_not_type_any_model_on_a_space() -> None:
    assert read_settings({"CRAMDEMO_ANY_MODEL": "1"}).any_model
    assert not read_settings({"CRAMDEMO_ANY_MODEL": "1", "SPACE_ID": "a/b"}).any_model


@pytest.mark.parametrize("given", [{"num_mem": 5}, {"steps": 501}, {"seconds": 61.0}])
def test_more_than_the_server_allows_is_refused(given: dict[str, float]) -> None:
    settings = Settings(max_mem=4, max_steps=500, max_seconds=60.0)
    (name,) = given
    with pytest.raises(ConfigError, match=f"{name} is .*; this server allows at most"):
        limited(CramConfig(**{"steps": 500, **given}), settings)


def test_a_time_limit_holds_for_runs_without_one_and_leaves_shorter_ones() -> None:
    settings = Settings(max_seconds=60.0)
    assert limited(CramConfig(), settings).seconds == 60.0
    assert limited(CramConfig(seconds=5.0), settings).seconds == 5.0
    assert limited(CramConfig(), Settings()) == CramConfig()


def test_the_readme_lists_every_setting_as_it_is() -> None:
    for name, default, means in table():
        assert f"| `{name}` | {default} | {means} |" in README
