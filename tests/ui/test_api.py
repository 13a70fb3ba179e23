"""The HTTP twins through gradio_client, on a launched page with the tiny model."""

from __future__ import annotations

import threading

import gradio as gr
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from cramdemo import CramConfig, decode, load
from cramdemo.ui.api import add_api
from cramdemo.ui.offer import entry_of
from tests.ui.conftest import SOLVABLE


@pytest.fixture
def client(tiny, monkeypatch, tmp_path):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    with gr.Blocks(analytics_enabled=False) as page:
        add_api(1, "model")
    _, url, _ = page.queue().launch(prevent_thread_lock=True, quiet=True, show_error=False, run_history=False)
    found = Client(url, verbose=False, download_files=tmp_path / "downloads")
    yield found
    found.close()
    page.close(verbose=False)


def test_compress_streams_progress_then_summary_and_file(client, tiny, tiny_lm):
    job = client.submit(SOLVABLE, 4, 500, model=tiny, api_name="/compress")
    summary, path = job.result(timeout=60)
    assert summary["done"] and summary["lossless"] and summary["num_mem"] == 4
    progress = [item for item, _ in job.outputs()[:-1]]
    assert progress and all(not item["done"] for item in progress)
    assert [item["step"] for item in progress] == sorted(item["step"] for item in progress)
    vectors = load(path)
    assert decode(tiny_lm, vectors).text == SOLVABLE

    answer = client.predict(handle_file(path), api_name="/decode")
    assert answer == {"text": SOLVABLE, "num_tokens": summary["num_tokens"], "lossless": True}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"text": ""}, "The text is empty."),
        ({"text": "x", "num_mem": 0}, "num_mem is 0"),
        ({"text": "x", "model": "../secret"}, "There is no model"),
        ({"text": "sea " * 300}, "at most 127"),
    ],
)
def test_bad_input_is_a_sentence(client, tiny, arguments, sentence):
    with pytest.raises(AppError, match=sentence):
        client.predict(**({"model": tiny} | arguments), api_name="/compress")


def test_wrong_file_is_a_sentence_without_a_path(client, tmp_path):
    wrong = tmp_path / "wrong.safetensors"
    wrong.write_bytes(b"nothing of the kind")
    with pytest.raises(AppError, match="is not a safetensors file") as caught:
        client.predict(handle_file(wrong), api_name="/decode")
    assert str(tmp_path) not in str(caught.value)


def test_cancelled_call_frees_the_model(client, tiny):
    job = client.submit("bad thinking, " * 8, 1, 100_000, margin=90, model=tiny, api_name="/compress")
    seen = threading.Event()
    for _ in job:
        seen.set()
        break
    job.cancel()
    assert seen.is_set()
    summary, _ = client.submit("sea", 2, 5, model=tiny, api_name="/compress").result(timeout=30)
    assert summary["done"]


def test_both_verbs_are_described_for_programs(client):
    found = client.view_api(return_format="dict")["named_endpoints"]
    assert set(found) == {"/compress", "/decode"}
    names = [parameter["parameter_name"] for parameter in found["/compress"]["parameters"]]
    assert names == ["text", "num_mem", "steps", "seconds", "margin", "seed", "model", "preset"]
    assert len(found["/compress"]["returns"]) == 2


def test_what_is_left_out_is_the_preset_s(client, tiny):
    most = CramConfig.for_model(entry_of(tiny), preset="most")
    _, path = client.submit("sea", 2, model=tiny, preset="most", api_name="/compress").result(timeout=60)
    config = load(path).config
    assert (config["steps"], config["margin"], config["optimizer"]) == (most.steps, most.margin, most.optimizer)
    _, path = client.submit("sea", 2, 7, 0, 0.9, model=tiny, preset="most", api_name="/compress").result(timeout=60)
    config = load(path).config
    assert (config["steps"], config["margin"], config["optimizer"]) == (7, 0.9, most.optimizer)
    with pytest.raises(AppError, match="preset is 'best'; choose from fast, most"):
        client.predict("sea", model=tiny, preset="best", api_name="/compress")
