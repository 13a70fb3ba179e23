"""What programs see: plain HTTP, gradio_client and an MCP client, on one launched server with the tiny model."""

from __future__ import annotations

import ast
import asyncio
import base64
import dataclasses
import errno
import json
import math
import os
import re
import threading
from pathlib import Path
from urllib.request import Request, urlopen

import gradio as gr
import pytest
from gradio import processing_utils
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

from cramdemo import CramConfig, decode, load
from cramdemo.catalogue import MODELS
from cramdemo.config import MAX_NUM_MEM_PAGE
from cramdemo.ui import api
from cramdemo.ui.api import MAX_UPLOAD_BYTES, add_api
from cramdemo.ui.offer import entry_of
from cramdemo.vectors import describe, from_bytes, to_bytes
from tests.ui.conftest import SOLVABLE, TINY, tiny_on_offer

VERBS = {"compress", "decode", "inspect", "models"}
FILE_DATA = {"_type": "gradio.FileData"}
SECONDS = 60


@pytest.fixture(scope="module")
def url(tiny_folder, gradio_folder):
    with pytest.MonkeyPatch.context() as patch, tiny_on_offer(tiny_folder):
        patch.setenv("GRADIO_TEMP_DIR", str(gradio_folder))
        with gr.Blocks(analytics_enabled=False) as page:
            add_api(1, "model")
        settings = {"show_error": False, "run_history": False, "max_file_size": MAX_UPLOAD_BYTES, "mcp_server": True}
        _, address, _ = page.queue().launch(prevent_thread_lock=True, quiet=True, **settings)
        yield address
        page.close(verbose=False)


@pytest.fixture(scope="module")
def client(url, tmp_path_factory):
    found = Client(url, verbose=False, download_files=tmp_path_factory.mktemp("downloads"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def made(client):
    """What a lossless run gave: its report and its file."""
    summary, path = client.predict(SOLVABLE, 4, 500, model=TINY, as_base64=True, api_name="/compress")
    assert summary["lossless"]
    return summary, Path(path)


@pytest.fixture
def no_run(monkeypatch):
    """A run that is begun all the same fails with a sentence that no test wants."""

    def begun(*_, **__):
        raise AssertionError("a run was begun")

    monkeypatch.setattr(api, "follow", begun)


def ask(url, name, arguments):
    """Call by plain HTTP: the kind of the last event, and its data."""
    body = json.dumps(arguments).encode()
    request = Request(f"{url}gradio_api/call/v2/{name}", body, {"Content-Type": "application/json"})
    with urlopen(request, timeout=SECONDS) as reply:
        event_id = json.load(reply)["event_id"]
    with urlopen(f"{url}gradio_api/call/{name}/{event_id}", timeout=SECONDS) as reply:
        events = re.findall(r"event: (\w+)\ndata: (.*)\n", reply.read().decode())
    kind, data = events[-1]
    return kind, json.loads(data)


def refusal(url, name, arguments):
    """The one sentence that a bad call gets; it has nothing of the program's insides."""
    kind, data = ask(url, name, arguments)
    assert kind == "error"
    assert set(data) == {"error", "duration", "visible", "title"}
    sentence = data["error"]
    assert sentence and "\n" not in sentence and len(sentence) < 300
    assert sentence.count(". ") <= 2
    return sentence


def base64_of(vectors):
    return base64.b64encode(to_bytes(vectors)).decode()


# ---- what they do


def test_compress_streams_progress_then_summary_and_file(client, tiny_lm):
    job = client.submit(SOLVABLE, 4, 500, model=TINY, api_name="/compress")
    summary, path = job.result(timeout=SECONDS)
    assert summary["done"] and summary["lossless"] and summary["num_mem"] == 4
    assert "vectors_base64" not in summary
    progress = [item for item, _ in job.outputs()[:-1]]
    assert progress and all(not item["done"] for item in progress)
    assert [item["step"] for item in progress] == sorted(item["step"] for item in progress)
    assert max(len(json.dumps(item)) for item in progress) < 300
    assert decode(tiny_lm, load(path)).text == SOLVABLE

    answer = client.predict(handle_file(path), api_name="/decode")
    assert answer == {"text": SOLVABLE, "num_tokens": summary["num_tokens"], "lossless": True}


def test_vectors_that_the_disk_has_no_room_for_come_in_base64(client, tiny_lm, monkeypatch):
    def full(path, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    summary, path = client.submit(SOLVABLE, 4, 500, model=TINY, api_name="/compress").result(timeout=SECONDS)
    assert path is None and summary["lossless"]
    assert decode(tiny_lm, from_bytes(base64.b64decode(summary["vectors_base64"]))).text == SOLVABLE


def test_the_file_in_base64_is_the_file(client, made):
    summary, path = made
    assert base64.b64decode(summary["vectors_base64"]) == path.read_bytes()
    answer = client.predict(vectors_base64=summary["vectors_base64"], api_name="/decode")
    assert (answer["text"], answer["lossless"]) == (SOLVABLE, True)


def test_inspect_tells_what_the_file_says_and_needs_no_model(client, made, no_run):
    summary, path = made
    wrapped = "data:application/octet-stream;base64," + re.sub("(.{76})", r"\1\n", summary["vectors_base64"])
    told = [
        client.predict(handle_file(path), api_name="/inspect"),
        client.predict(vectors_base64=wrapped, api_name="/inspect"),
    ]
    assert told == [describe(load(path))] * 2
    assert told[0]["model_id"] == TINY and told[0]["num_mem"] == 4


def test_models_lists_what_is_on_offer_with_the_papers_figures(client):
    rows = {row["name"]: row for row in client.predict(api_name="/models")}
    assert list(rows) == list(MODELS)
    tiny = entry_of(TINY)
    assert (rows[TINY]["hidden_size"], rows[TINY]["vocab_size"], rows[TINY]["licence"]) == (64, 300, "MIT")
    assert rows[TINY]["defaults"]["learning_rate"] == tiny.defaults.learning_rate
    assert rows[TINY]["cannot_run"] is None
    llama = rows["meta-llama/Llama-3.1-8B"]
    assert llama["published"] == {"cramming": 1568, "progressive": 1437.6}
    assert (llama["layers"], llama["context"], llama["gated"]) == (32, 131072, True)
    assert "cannot run here" in llama["cannot_run"]
    assert rows["state-spaces/mamba-130m-hf"]["context"] is None
    assert all("source" not in row and str(Path.cwd()) not in json.dumps(row) for row in rows.values())


def test_a_model_that_cannot_be_had_is_refused_before_anything_is_loaded(client, no_run):
    with pytest.raises(AppError, match=r"Llama-3\.1-8B cannot run here"):
        client.predict("x", model="meta-llama/Llama-3.1-8B", api_name="/compress")


def test_cancelled_call_frees_the_model(client):
    job = client.submit("bad thinking, " * 8, 1, 100_000, margin=90, model=TINY, api_name="/compress")
    seen = threading.Event()
    for _ in job:
        seen.set()
        break
    job.cancel()
    assert seen.is_set()
    summary, _ = client.submit("sea", 2, 5, model=TINY, api_name="/compress").result(timeout=30)
    assert summary["done"]


def test_the_verbs_are_described_for_programs(client):
    found = client.view_api(return_format="dict")["named_endpoints"]
    assert set(found) == {f"/{verb}" for verb in VERBS}
    names = [parameter["parameter_name"] for parameter in found["/compress"]["parameters"]]
    assert names[:8] == ["text", "num_mem", "steps", "seconds", "margin", "seed", "model", "preset"]
    assert names[8:] == ["learning_rate", "as_base64"]
    assert len(found["/compress"]["returns"]) == 2


def test_what_is_left_out_is_the_preset_s(client):
    most = CramConfig.for_model(entry_of(TINY), preset="most")
    _, path = client.submit("sea", 2, model=TINY, preset="most", api_name="/compress").result(timeout=SECONDS)
    config = load(path).config
    assert (config["steps"], config["margin"], config["learning_rate"]) == (most.steps, most.margin, most.learning_rate)
    given = {"model": TINY, "preset": "most", "learning_rate": 0.03}
    _, path = client.submit("sea", 2, 7, 0, 0.9, **given, api_name="/compress").result(timeout=SECONDS)
    config = load(path).config
    assert (config["steps"], config["margin"], config["learning_rate"]) == (7, 0.9, 0.03)
    assert config["optimizer"] == most.optimizer


def test_null_is_left_out(url):
    nothing = dict.fromkeys(["num_mem", "seconds", "margin", "seed", "preset", "learning_rate", "as_base64"])
    kind, (summary, file) = ask(url, "compress", {"text": "sea", "model": TINY, "steps": 3} | nothing)
    assert (kind, summary["done"], summary["num_mem"]) == ("complete", True, 1)
    assert file["orig_name"].endswith(".safetensors")


# ---- bad input

NUMBERS = ("num_mem", "steps", "seconds", "margin", "seed", "learning_rate")
NO_NUMBERS = (math.nan, math.inf, -math.inf, -1, 10**12, 10**400, "7", True, False, [[1]], {"a": 1}, "")
BAD_RUNS = {
    "K of zero": ({"num_mem": 0}, "num_mem is 0; give a whole number from 1"),
    "K of a billion": ({"num_mem": 10**9}, "num_mem is 1000000000; give a whole number from 1"),
    "K beyond the page's": ({"num_mem": MAX_NUM_MEM_PAGE + 1}, "num_mem is 33; this server allows at most 32"),
    "K and a half": ({"num_mem": 1.5}, "num_mem is 1.5"),
    "a sea of numbers": ({"margin": list(range(10**5))}, r"margin is \[0, 1, 2, 3, 4, 5, \.\.\.\]"),
    "unknown preset": ({"preset": "best"}, "preset is 'best'; choose from fast, most"),
    "blank preset": ({"preset": ""}, "preset is ''; choose"),
    "preset in a list": ({"preset": ["fast"]}, "preset is .*; choose"),
    "unknown model": ({"model": "gpt-17"}, "There is no model 'gpt-17' on this page. Choose from cram-mini"),
    "a path up": ({"model": "../../etc/passwd"}, "There is no model"),
    "a path down": ({"model": "/etc/passwd"}, "There is no model"),
    "a folder of this program": ({"model": "assets/cram-mini"}, "There is no model"),
    "an id of the hub": ({"model": "someone/something"}, "There is no model"),
    "model in a list": ({"model": [TINY]}, "There is no model"),
    "model in an object": ({"model": {TINY: TINY}}, "There is no model"),
    "no model": ({"model": None}, "There is no model"),
    "no text": ({"text": None}, "The text is not a string"),
    "text in a list": ({"text": ["sea"]}, "The text is not a string"),
    "text of 10 MB": ({"text": "x" * 10**7}, "The text has 10,000,000 characters; at most 100,000 are taken"),
}
BAD_TEXTS = {  # that only the model's tokenizer can judge
    "": "The text is empty.",
    "half \ud83d": "half a surrogate pair",
    "sea " * 300: "at most 127",
}
BAD_FILES = {
    "nothing": ({}, "No vector file was given"),
    "null": ({"file": None, "vectors_base64": None}, "No vector file was given"),
    "a path": ({"file": "/etc/passwd"}, "was not uploaded here"),
    "an object with a path": ({"file": {"path": "/etc/passwd"}}, "was not uploaded here"),
    "a path up": ({"file": {"path": "../../etc/passwd"}}, "was not uploaded here"),
    "a path with a null byte": ({"file": {"path": "a\0b"}}, "was not uploaded here"),
    "a path in a list": ({"file": {"path": ["a"], "meta": FILE_DATA}}, "was not uploaded here"),
    "an object without a path": ({"file": {"url": "http://localhost/"}}, "was not uploaded here"),
    "a list": ({"file": [1]}, "was not uploaded here"),
    "a number": ({"file": 7}, "was not uploaded here"),
    "no base64": ({"vectors_base64": "no base64!"}, "vectors_base64 is not base64"),
    "half of base64": ({"vectors_base64": "AAAAA"}, "vectors_base64 is not base64"),
    "letters of no language": ({"vectors_base64": "ÅÅÅÅ"}, "vectors_base64 is not base64"),
    "base64 of something else": ({"vectors_base64": "AAAA" * 9}, "vectors_base64 is not a safetensors file"),
    "base64 of 9 MB": ({"vectors_base64": "AAAA" * 3 * 2**20}, "vectors_base64 holds more than 8 MB"),
    "base64 as a number": ({"vectors_base64": 7}, "vectors_base64 is not a string"),
    "two": ({"file": {"path": "a"}, "vectors_base64": "AAAA"}, "Two vector files were given"),
}


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: repr(value)[:12])
def test_what_is_no_number_in_its_range_is_refused_by_name(url, no_run, name, value):
    sentence = refusal(url, "compress", {"text": "sea", "model": TINY, name: value})
    assert re.fullmatch(rf"{name} is .{{1,45}}; give a (whole )?number from \S+ to \S+\.", sentence)


@pytest.mark.parametrize("case", BAD_RUNS)
def test_a_bad_run_is_refused_before_anything_is_loaded(url, no_run, case):
    arguments, sentence = BAD_RUNS[case]
    assert re.search(sentence, refusal(url, "compress", {"text": "sea", "model": TINY} | arguments))


@pytest.mark.parametrize("text", BAD_TEXTS, ids=lambda text: text[:8])
def test_a_text_that_the_model_cannot_take_is_refused(url, text):
    assert BAD_TEXTS[text] in refusal(url, "compress", {"text": text, "model": TINY})


@pytest.mark.parametrize("case", BAD_FILES)
@pytest.mark.parametrize("verb", ["decode", "inspect"])
def test_what_is_no_vector_file_is_refused(url, verb, case):
    arguments, sentence = BAD_FILES[case]
    assert sentence in refusal(url, verb, arguments)


@pytest.mark.parametrize("meta", [{}, {"meta": FILE_DATA}, {"meta": FILE_DATA, "is_stream": True}], ids=str)
@pytest.mark.parametrize("verb", ["decode", "inspect"])
def test_no_file_of_the_server_can_be_named(url, made, tmp_path, verb, meta):
    """gradio checks only what says "gradio.FileData": a bare path reached the reader, and so any vector file there."""
    secret = tmp_path / "secret.safetensors"
    secret.write_bytes(made[1].read_bytes())
    kind, data = ask(url, verb, {"file": {"path": str(secret)} | meta})
    assert kind == "error"
    assert "secret" not in json.dumps(data) and str(tmp_path) not in json.dumps(data)


def test_a_file_of_another_model_is_refused(url, made):
    vectors = load(made[1])
    elsewhere = dataclasses.replace(vectors, model_id="someone/else")
    assert "someone/else, which this page does not have" in refusal(
        url, "decode", {"vectors_base64": base64_of(elsewhere)}
    )
    tuned = dataclasses.replace(vectors, model_fingerprint="0" * 64)
    assert "were made for" in refusal(url, "decode", {"vectors_base64": base64_of(tuned)})


def test_a_wrong_upload_is_a_sentence_without_a_path(client, tmp_path):
    wrong = tmp_path / "wrong.safetensors"
    wrong.write_bytes(b"nothing of the kind")
    for verb in ("decode", "inspect"):
        with pytest.raises(AppError, match=r"wrong\.safetensors is not a safetensors file") as caught:
            client.predict(handle_file(wrong), api_name=f"/{verb}")
        assert str(tmp_path) not in str(caught.value)


def test_after_all_that_the_server_is_as_it_was(url, made):
    for arguments, _ in BAD_RUNS.values():
        refusal(url, "compress", {"text": "sea", "model": TINY} | arguments)
    for arguments, _ in BAD_FILES.values():
        refusal(url, "decode", arguments)
    kind, (summary, file) = ask(url, "compress", {"text": SOLVABLE, "model": TINY, "num_mem": 4, "steps": 500})
    assert (kind, summary["lossless"]) == ("complete", True)
    with urlopen(file["url"], timeout=SECONDS) as reply:
        assert from_bytes(reply.read()).mem.equal(load(made[1]).mem)


# ---- MCP


def over_mcp(url, talk):
    """What `talk` gives with a session of a real MCP client."""

    async def session():
        async with (
            streamable_http_client(f"{url}gradio_api/mcp/") as (read, write, _),
            ClientSession(read, write) as opened,
        ):
            await opened.initialize()
            return await talk(opened)

    return asyncio.run(session())


def call(url, tool, arguments, **how):
    """The texts that a tool gives, and whether it calls them an error."""
    result = over_mcp(url, lambda session: session.call_tool(tool, arguments, **how))
    return [part.text for part in result.content], result.isError


async def ignore(*_):
    """Asks for progress reports and drops them."""


def test_the_tools_and_all_their_parameters_are_described(url):
    tools = {tool.name: tool for tool in over_mcp(url, lambda session: session.list_tools()).tools}
    assert set(tools) == VERBS
    for tool in tools.values():
        assert len(tool.description) > 60
        parameters = tool.inputSchema["properties"]
        assert [name for name, schema in parameters.items() if len(schema.get("description", "")) < 12] == []
    assert tools["compress"].inputSchema["required"] == ["text"]
    assert set(tools["decode"].inputSchema["properties"]) == {"file", "vectors_base64"}
    assert not any("required" in tools[name].inputSchema for name in VERBS - {"compress"})


def test_a_text_goes_round_over_mcp(url, tiny_lm):
    arguments = {"text": SOLVABLE, "num_mem": 4, "steps": 500, "model": TINY, "as_base64": True}
    (texts, failed) = call(url, "compress", arguments)
    summary, file = ast.literal_eval(texts[0])
    assert not failed and summary["lossless"]
    with urlopen(file["url"], timeout=SECONDS) as reply:
        data = reply.read()
    assert base64.b64encode(data).decode() == summary["vectors_base64"]
    for given in (
        {"vectors_base64": summary["vectors_base64"]},
        {"file": f"data:application/octet-stream;base64,{summary['vectors_base64']}"},
    ):
        (texts, failed) = call(url, "decode", given)
        assert not failed and ast.literal_eval(texts[0])["text"] == SOLVABLE
        (texts, failed) = call(url, "inspect", given)
        assert not failed and ast.literal_eval(texts[0]) == describe(from_bytes(data))


def test_who_asks_for_progress_gets_the_summary_and_the_file_s_address_apart(url):
    arguments = {"text": SOLVABLE, "num_mem": 4, "steps": 500, "model": TINY}
    (texts, failed) = call(url, "compress", arguments, progress_callback=ignore)
    assert not failed and ast.literal_eval(texts[0])["lossless"]
    assert texts[1].startswith(url) and texts[1].endswith(".safetensors")


def test_a_file_is_taken_by_its_address_if_that_is_public(url, made, monkeypatch):
    """This server's own address stands for a public one: gradio asks no machine of a private network."""
    summary, _ = made
    _, (_, file) = ask(url, "compress", {"text": SOLVABLE, "model": TINY, "num_mem": 4, "steps": 500})
    given = {"file": file["url"]}
    (texts, failed) = call(url, "inspect", given)
    assert failed and "safetensors" not in texts[0]
    monkeypatch.setattr(processing_utils, "PUBLIC_HOSTNAME_WHITELIST", ["127.0.0.1"])
    (texts, failed) = call(url, "inspect", given)
    assert not failed and ast.literal_eval(texts[0])["num_tokens"] == summary["num_tokens"]
    (texts, failed) = call(url, "decode", given)
    assert not failed and ast.literal_eval(texts[0])["text"] == SOLVABLE


def test_models_over_mcp(url):
    (texts, failed) = call(url, "models", {})
    rows = ast.literal_eval(texts[0])
    assert not failed and [row["name"] for row in rows] == list(MODELS)


@pytest.mark.parametrize(
    ("tool", "arguments", "sentence"),
    [
        ("compress", {"text": "sea", "num_mem": 0}, "num_mem is 0; give a whole number from 1 to 128."),
        ("compress", {"text": "sea", "num_mem": 33}, "num_mem is 33; this server allows at most 32. Give less."),
        ("compress", {"text": ""}, "The text is empty. Paste or type something to cram."),
        ("decode", {}, api.NO_FILE),
        ("inspect", {"vectors_base64": "no!"}, api.NO_BASE64),
    ],
)
def test_an_error_over_mcp_is_the_sentence_and_nothing_else(url, tool, arguments, sentence):
    model = {"model": TINY} if tool == "compress" else {}
    assert call(url, tool, arguments | model) == ([sentence], True)
    (texts, failed) = call(url, tool, arguments | model, progress_callback=ignore)
    assert failed and re.fullmatch(rf"Not \w+: {re.escape(sentence)}", texts[0])
