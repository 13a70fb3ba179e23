"""What the README shows is there and works."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from huggingface_hub import metadata_load
from transformers import AutoModelForCausalLM, AutoTokenizer

from cramdemo import FrozenLM, MemVectors, decode, save
from cramdemo.catalogue import BUILT_IN, MODELS
from cramdemo.vectors import token_digest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
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
