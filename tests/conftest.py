"""What all tests share: no network, no writes outside pytest's folders, and a model made in a second.

`tiny_lm` is a random two-layer Llama behind a byte-level tokenizer, saved and loaded the way a user's model is.
Its weights are drawn wide, so that a few vectors can make it say anything within some dozens of steps.
"""

from __future__ import annotations

import importlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from cramdemo import CramResult, FrozenLM
    from tests.browser import Watch
    from tests.fake_hub import FakeHub

    Visitor = Callable[..., Page]

SENTENCES = (
    "The old man and the sea were tired of the other men and the other seas.",
    "There is nothing either good or bad, but thinking makes it so.",
    "In the beginning there was the word, and the word was with the reader.",
)
HUB_SETTINGS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")
CACHES = ("HF_HOME", "GRADIO_TEMP_DIR", "TMPDIR", "XDG_CACHE_HOME", "MPLCONFIGDIR")
TINY_VOCABULARY = 300
LONG_FILES = (  # that take more than half a minute, the longest first
    *("test_service.py", "test_browser_hostile.py", "test_resume.py", "test_run.py", "test_accessibility.py"),
    *("test_browser.py", "test_browser_leaving.py", "test_browser_size.py", "test_browser_compress.py"),
    *("test_browser_gallery.py", "test_browser_capacity.py", "test_browser_geometry.py", "test_fuzz.py"),
    *("test_cli.py", "test_browser_race.py", "test_zero.py", "test_cram.py", "test_space.py", "test_families.py"),
)

settings.register_profile("cramdemo", deadline=None, database=None, derandomize=True)
settings.load_profile("cramdemo")


FOLDER = tempfile.mkdtemp(prefix="cramdemo-tests-")
# Before anything imports huggingface_hub and gradio, which read these once: other conftest files do so at their top.
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HOME": FOLDER, "GRADIO_ANALYTICS_ENABLED": "False"}
os.environ["GRADIO_TEMP_DIR"] = FOLDER


def pytest_configure(config: pytest.Config) -> None:
    """Nothing is left behind."""
    config.add_cleanup(lambda: shutil.rmtree(FOLDER, ignore_errors=True))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long files first, so that no worker is left with one of them when the others have nothing to do."""
    first = {name: place for place, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: first.get(item.path.name, len(first)))


@pytest.fixture(autouse=True)
def _caches_and_outputs_stay_in_the_test_folder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server lives longer than a test, and gradio looks up its folder at each upload: that one stays."""
    folder = tmp_path_factory.mktemp("caches")
    for name in CACHES:
        monkeypatch.setenv(name, str(folder))
    if "gradio_folder" in request.fixturenames:
        monkeypatch.setenv("GRADIO_TEMP_DIR", str(request.getfixturevalue("gradio_folder")))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))


@pytest.fixture(scope="module")
def gradio_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server of a module's tests keeps files."""
    return tmp_path_factory.mktemp("gradio")


@pytest.fixture(scope="module")
def url(gradio_folder: Path) -> Iterator[str]:
    """Address of the real page, served for a module's tests."""
    from tests.browser import served

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(gradio_folder))
        with served() as address:
            yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium, for a module's tests."""
    from tests.browser import chromium

    with chromium() as found:
        yield found


@pytest.fixture
def watch(url: str) -> Iterator[Watch]:
    """Fails the test if the page complained on the console or asked the outside world."""
    from tests.browser import Watch

    found = Watch(url)
    yield found
    try:
        found.found_nothing()
    finally:
        found.close()


@pytest.fixture(scope="module")
def _stay(url: str, browser: Browser) -> Iterator[tuple[Watch, Visitor]]:
    from tests.browser import Watch, open_page

    watch = Watch(url)
    yield watch, cache(lambda width=1280, dark=False: open_page(browser, url, watch, width=width, dark=dark))
    watch.close()


@pytest.fixture
def visitor(_stay: tuple[Watch, Visitor]) -> Iterator[Visitor]:
    """A page by its width and whether it is dark, the same for all tests of a module: opening one takes seconds.

    Fails a test like `watch`. The first test of a module that asks for a page finds it as it was opened.
    """
    watch, page_of = _stay
    yield page_of
    watch.found_nothing()


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model: d = 64, V = 300, 128 positions, untied head, float32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from cramdemo.pretrain import train_tokenizer

    folder = tmp_path_factory.mktemp("models") / "tiny"
    config = LlamaConfig(
        vocab_size=TINY_VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.1,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    train_tokenizer(iter(SENTENCES), TINY_VOCABULARY, 128).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_lm(tiny_folder: Path) -> FrozenLM:
    """The tiny model by the real loading path. Shared: no test may change it."""
    from cramdemo import load_model

    return load_model(str(tiny_folder), device="cpu")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub on loopback, which the downloading process asks in place of the real one; its cache is this test's."""
    from tests.fake_hub import serve

    for name in HUB_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    with serve() as hub:
        for name, value in {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1,localhost"}.items():
            monkeypatch.setenv(name, value)
        yield hub


@pytest.fixture(scope="session")
def built_in() -> FrozenLM:
    """cram-mini. Shared: no test may change it."""
    from cramdemo import load_model

    return load_model("cram-mini", device="cpu")


@pytest.fixture(scope="session")
def family_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The saved model of a family, by its name in `tests.families`. Shared: no test may change it."""
    from tests.families import build

    folder = tmp_path_factory.mktemp("families")
    return cache(lambda name: build(name, folder / name))


@pytest.fixture(scope="session")
def family_lm(family_folder: Callable[[str], Path]) -> Callable[[str], FrozenLM]:
    """The same by the real loading path. Shared: no test may change it."""
    from cramdemo import load_model

    return cache(lambda name: load_model(str(family_folder(name)), device="cpu"))


@pytest.fixture(scope="session")
def crammed(tiny_lm: FrozenLM) -> CramResult:
    """A lossless run on the tiny model."""
    from cramdemo import CramConfig, run_cram

    result = run_cram(tiny_lm, "The old sea, tired.", CramConfig(num_mem=4, steps=500))
    assert result.lossless
    return result


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress after each step, not ten times a second."""
    monkeypatch.setattr(importlib.import_module("cramdemo.cram"), "YIELD_SECONDS", 0.0)


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:
    """Copies a model folder to where it may be damaged."""

    def copy(folder: Path) -> Path:
        return Path(shutil.copytree(folder, tmp_path / "copies" / folder.name))

    return copy
