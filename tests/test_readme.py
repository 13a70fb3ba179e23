"""What the README shows is there and works."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import safetensors
import torch
from huggingface_hub import metadata_load
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from transformers import AutoModelForCausalLM, AutoTokenizer

from cramdemo import FrozenLM, MemVectors, decode, load, save
from cramdemo.catalogue import BUILT_IN, MODELS
from cramdemo.cli import main
from cramdemo.sweep import read_spec
from cramdemo.vectors import token_digest
from tests.browser import served

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
TEXT = "We were tired of the sea."  # of the examples
SHOWN_URL = "http://127.0.0.1:7860"
PATIENCE = 60
TOP_LEVEL = {
    *("app.py", "cramdemo", "assets", "tests", "README.md", "LICENSE", "Makefile", "pyproject.toml"),
    "requirements.txt",
}


def _tree_lines() -> dict[str, str]:
    """Path and remark of each line of the README's tree."""
    (block,) = re.findall(r"^```\n(app\.py .*?)^```", README, re.M | re.S)
    found: dict[str, str] = {}
    folders: list[str] = []
    for line in block.splitlines():
        indent, name, remark = re.fullmatch(r"( *)(\S+)(?: +(.*))?", line).groups()  # type: ignore[union-attr]
        folders = folders[: len(indent) // 2]
        found["".join(folders) + name] = remark or ""
        if name.endswith("/"):
            folders.append(name)
    return found


def test_the_tree_has_one_line_for_every_module_and_no_other() -> None:
    modules = {p.relative_to(ROOT).as_posix() for p in (ROOT / "cramdemo").rglob("*.py")}
    shown = {name for name in _tree_lines() if name.startswith("cramdemo/") and name.endswith(".py")}
    inner = {"cramdemo/ui/__init__.py"}
    assert shown - inner == modules - inner


def test_every_line_of_the_tree_says_what_the_file_is_for() -> None:
    assert [name for name, remark in _tree_lines().items() if not remark and not name.endswith("/")] == []
    assert [name for name in _tree_lines() if not (ROOT / name).exists()] == []


def test_the_spec_of_a_sweep_can_be_read(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```toml\n(.*?)^```", README, re.M | re.S)
    (tmp_path / "spec.toml").write_text(block, encoding="utf-8")
    spec = read_spec(tmp_path / "spec.toml")
    assert len(spec.sources) == 3 and [recipe.name for recipe in spec.recipes][1] == "patient" and not spec.dropped


def test_the_top_level_holds_nothing_unforeseen() -> None:
    ignored = {p.strip("/") for p in (ROOT / ".gitignore").read_text(encoding="utf-8").split()}
    found = {p.name for p in ROOT.iterdir() if not p.name.startswith(".") and not p.name.endswith(".egg-info")}
    assert found - ignored <= TOP_LEVEL


def test_the_front_matter_agrees_with_the_pins() -> None:
    """That it is a valid one of a Space is tested with the Space."""
    matter = metadata_load(ROOT / "README.md")
    assert matter is not None
    pins = dict(re.findall(r"^([\w-]+)(?:\[\w+\])?==(\S+)", (ROOT / "requirements.txt").read_text(), re.M))
    assert matter["sdk_version"] == pins["gradio"]
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert matter["python_version"] in wanted


def test_every_local_link_leads_to_a_file() -> None:
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)", README)
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_no_placeholder_is_left() -> None:
    assert re.findall(r"^[A-Z]{5,}$|TODO|FIXME|TBD", README, re.M) == []


def test_the_front_page_starts_with_one_sentence_and_a_picture() -> None:
    body = README.split("---\n", 2)[2]
    assert re.match(r"\s*# cramdemo\n\n[^\n]+\.\n\n!\[[^\]]{20,}\]\(assets/", body)


@pytest.mark.parametrize("command", ["make demo", "make test"])
def test_the_two_commands_are_targets_of_the_makefile(command: str) -> None:
    assert command in README
    assert re.search(rf"^{command.split()[1]}:", (ROOT / "Makefile").read_text(), re.M)


def test_the_three_lines_of_plain_transformers_decode_a_vector_file(
    built_in: FrozenLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the vectors: the block must print what cramdemo's own greedy decoding gives."""
    mem = torch.randn(2, built_in.hidden_size, generator=torch.Generator().manual_seed(2))
    vectors = MemVectors(
        mem=mem,
        model_id=BUILT_IN,
        model_revision="",
        model_fingerprint=built_in.fingerprint,
        tokenizer_fingerprint=built_in.tokenizer_fingerprint,
        num_tokens=12,
        token_sha256=token_digest([0]),
        dtype_trained="float32",
    )
    (block,) = [b for b in re.findall(r"```python\n(.*?)```", README, re.S) if "safe_open" in b]
    assert len(block.splitlines()) == 3
    name = re.search(r'safe_open\("([^"]+)"', block)[1]  # type: ignore[index]
    monkeypatch.chdir(tmp_path)
    save(vectors, name)
    folder = MODELS[BUILT_IN].source
    names: dict[str, Any] = {
        "safetensors": safetensors,
        "model": AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        "tokenizer": AutoTokenizer.from_pretrained(folder),
    }
    exec(block, names)
    assert capsys.readouterr().out == decode(built_in, vectors).text + "\n"


# ---- the examples, from the README's own text


def _blocks(language: str, word: str) -> list[str]:
    """Its code blocks of a language with a word in them."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.M | re.S)
    return [block for found, block in fenced if found == language and word in block]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own for what an example writes."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_five_lines_of_python_are_a_round_trip(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = _blocks("python", "run_cram")
    assert len([line for line in block.splitlines() if line]) == 5
    exec(block, {})
    assert capsys.readouterr().out == f"True {TEXT}\n"


def test_the_example_of_a_run_step_by_step_ends_with_its_result(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = _blocks("python", "Progress")
    exec(block, {})
    *steps, last = capsys.readouterr().out.splitlines()
    assert steps[0].startswith("step 0: ")
    assert re.fullmatch(r"True \d+\.\d+", last)


def test_the_commands_of_the_command_line_work(here: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    block, checkpointed = _blocks("", "cramdemo cram mole.txt")
    first, *commands = (shlex.split(line.removeprefix("$ ")) for line in block.splitlines())
    assert (first[0], first[2:]) == ("printf", [">", "mole.txt"])
    (here / "mole.txt").write_text(first[1])
    assert [command[:3] for command in commands] == [["python", "-m", "cramdemo"]] * 4
    assert [main(command[3:]) for command in commands] == [0, 0, 0, 0]
    assert first[1].encode() in capfdbinary.readouterr().out
    assert main(shlex.split(checkpointed)[4:]) == 0


@pytest.fixture(scope="module")
def server(gradio_folder: Path) -> Iterator[str]:
    """Address of the real page with its MCP server."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(gradio_folder))
        with served(mcp=True) as address:
            yield address.rstrip("/")


def _curl(command: list[str]) -> str:
    """What curl prints; where it is not installed, the same request is made without it."""
    if shutil.which("curl"):
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout
    given = dict(itertools.pairwise(command))
    (url,) = [word for word in command if word.startswith("http")]
    name, _, value = given.get("-H", "").partition(": ")
    data = given["-d"].encode() if "-d" in given else None
    with urlopen(Request(url, data, {name: value} if name else {}), timeout=PATIENCE) as reply:
        body: bytes = reply.read()
    if "-o" in given:
        Path(given["-o"]).write_bytes(body)
    return "" if "-o" in given else body.decode()


def _follow_curl(server: str) -> list[str]:
    """Run the curl commands one after the other, each with what the ones before have answered."""
    (block,) = _blocks("", "$ curl")
    known: dict[str, str] = {}
    answers = []
    for line in block.replace(SHOWN_URL, server).splitlines():
        words = shlex.split(line.removeprefix("$ "))
        answers.append(_curl([_filled(word, known) for word in words]))
        named = re.findall(r'"(event_id|url|vectors_base64)": ?"([^"]+)"', answers[-1])
        known |= {name.upper(): value for name, value in named}
    return answers


def _filled(word: str, known: dict[str, str]) -> str:
    """A word of a command with what stands in capitals replaced."""
    return re.sub(r"\b(EVENT_ID|URL|VECTORS_BASE64)\b", lambda found: known[found[1]], word)


@pytest.mark.parametrize("installed", [True, False], ids=["curl", "no curl"])
def test_the_curl_commands_are_a_round_trip(
    server: str, here: Path, monkeypatch: pytest.MonkeyPatch, built_in: FrozenLM, installed: bool
) -> None:
    if not installed:
        monkeypatch.setattr(shutil, "which", lambda name: None)
    answers = _follow_curl(server)
    assert "event: complete" in answers[1]
    assert decode(built_in, load(here / "sea.safetensors")).text == TEXT
    (decoded,) = json.loads(answers[-1].rpartition("data: ")[2])
    assert (decoded["text"], decoded["lossless"]) == (TEXT, True)


def test_the_gradio_client_example_is_a_round_trip(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = _blocks("python", "gradio_client")
    names: dict[str, Any] = {}
    exec(block.replace(SHOWN_URL, server), names)
    names["client"].close()
    assert capsys.readouterr().out.endswith(f"True {2 * 640 * 4}\n{TEXT}\n")


def test_the_mcp_example_is_a_round_trip(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = _blocks("python", "round_trip")
    exec(block.replace(SHOWN_URL, server), {})
    assert re.search(rf"^{server}/\S+\.safetensors {re.escape(TEXT)}$", capsys.readouterr().out, re.M)


def test_the_mcp_configuration_leads_to_the_four_tools(server: str) -> None:
    (block,) = _blocks("json", "mcpServers")
    url = json.loads(block.replace(SHOWN_URL, server))["mcpServers"]["cramdemo"]["url"]

    async def tools() -> set[str]:
        async with streamable_http_client(url) as (read, write, _), ClientSession(read, write) as session:
            await session.initialize()
            return {tool.name for tool in (await session.list_tools()).tools}

    assert asyncio.run(tools()) == {"compress", "decode", "inspect", "models"}
