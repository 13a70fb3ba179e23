"""The Space: a folder that the hub takes and that runs by itself, and a push that takes nothing from anybody."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from gradio_client import Client, handle_file
from huggingface_hub import HfApi, SpaceCardData, SpaceHardware, metadata_load
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import hf_raise_for_status, validate_repo_id

from cramdemo import CramError, space
from cramdemo.catalogue import MODELS
from cramdemo.cli import main
from cramdemo.space import FLAVOURS, push_space, write_space

ROOT = Path(__file__).resolve().parent.parent
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
SCOPES = {"read-repos", "gated-repos", "write-repos", "manage-repos", "inference-api", "email", "profile", "openid"}
TEXT = "The old man and"


def _are_ids(found: Any) -> bool:
    try:
        return bool(found) and all(validate_repo_id(name) is None and "/" in name for name in found)
    except (HFValidationError, TypeError):
        return False


def _matches(pattern: str) -> Callable[[Any], bool]:
    return lambda found: isinstance(found, str) and re.fullmatch(pattern, found) is not None


NEEDED: dict[str, Callable[[Any], bool]] = {  # as the hub's reference of the front matter has them
    "title": _matches(r".*\S.*"),
    "emoji": _matches(r"[\u2600-\U0001FAFF]\uFE0F?"),
    "colorFrom": COLOURS.__contains__,
    "colorTo": COLOURS.__contains__,
    "sdk": "gradio".__eq__,
    "sdk_version": version("gradio").__eq__,
    "python_version": _matches(r"3\.1[1-4](\.\d+)?"),
    "app_file": "app.py".__eq__,
    "short_description": _matches(r".{10,60}"),
    "license": "mit".__eq__,
    "suggested_hardware": {item.value for item in SpaceHardware}.__contains__,
    "tags": lambda found: isinstance(found, list) and "mcp-server" in found and all(map(_matches(r"[a-z-]+"), found)),
    "models": _are_ids,
}
OPTIONAL: dict[str, Callable[[Any], bool]] = {
    "hf_oauth": lambda found: found is True,
    "hf_oauth_scopes": lambda found: isinstance(found, list) and set(found) <= SCOPES,
}


def problems(data: dict[str, Any]) -> set[str]:
    """Keys that the hub would not accept or not understand: missing, wrong or unknown."""
    known = NEEDED | OPTIONAL
    wrong = {key for key, valid in known.items() if key in data and not valid(data[key])}
    reread = SpaceCardData(**data).to_dict()  # as huggingface_hub understands them
    return (
        wrong | (NEEDED.keys() - data) | (data.keys() - known) | {key for key in data if data[key] != reread.get(key)}
    )


def _front_matter(folder: Path) -> dict[str, Any]:
    found = metadata_load(folder / "README.md")
    assert found is not None
    return found


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def _requirements(folder: Path) -> list[str]:
    return [line for line in (folder / "requirements.txt").read_text().splitlines() if not line.startswith("#")]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The repository with a model of one small file, and with what lies about in a checkout."""
    root = tmp_path / "checkout"
    shutil.copytree(ROOT / "cramdemo", root / "cramdemo")
    shutil.copytree(ROOT / "assets", root / "assets", ignore=lambda *_: ["cram-mini"])
    for name in ("app.py", "README.md", "LICENSE", "requirements.txt", "pyproject.toml", "Makefile"):
        shutil.copy(ROOT / name, root)
    for name in (
        *("assets/cram-mini/encoder/config.json", "assets/unseen.png", "assets/paper/.DS_Store", "runs/log.jsonl"),
        *("cramdemo/__pycache__/cli.pyc", "cramdemo/notes.txt", "tests/test_cli.py", ".git/HEAD", ".env"),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("{}")
    monkeypatch.setattr(space, "ROOT", root)
    return root


def test_the_repository_s_own_front_matter_is_the_cpu_space_s(checkout: Path, tmp_path: Path) -> None:
    assert problems(_front_matter(ROOT)) == set()
    write_space(tmp_path / "space")
    assert (tmp_path / "space" / "README.md").read_bytes() == (ROOT / "README.md").read_bytes()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("colorFrom", "orange"),
        ("emoji", "C"),
        ("sdk", "streamlit"),
        ("sdk_version", "5.0.0"),
        ("python_version", 3.11),
        ("short_description", "x" * 61),
        ("suggested_hardware", "zerogpu"),
        ("models", ["gpt2"]),
        ("tags", "mcp-server"),
        ("colourTo", "green"),
    ],
)
def test_a_wrong_key_or_value_in_a_front_matter_is_seen(key: str, value: object) -> None:
    assert problems(_front_matter(ROOT) | {key: value}) == {key}


@pytest.mark.parametrize("login", [False, True])
@pytest.mark.parametrize("hardware", FLAVOURS)
def test_every_flavour_has_a_front_matter_that_the_hub_takes(
    hardware: str, login: bool, checkout: Path, tmp_path: Path
) -> None:
    write_space(tmp_path / "space", hardware, title="Cram: it", login=login)
    data = _front_matter(tmp_path / "space")
    assert problems(data) == set()
    assert data["title"] == "Cram: it"
    assert data["suggested_hardware"] == {"cpu": "cpu-basic", "gpu": "l4x1", "zero": "zero-a10g"}[hardware]
    assert data["python_version"] == {"zero": "3.12.12"}.get(hardware, "3.11")
    assert data.get("hf_oauth_scopes") == (["read-repos", "gated-repos"] if login else None)
    assert ("hf_oauth" in data) == login
    models = [MODELS[name] for name in data["models"]]
    assert any(entry.gated for entry in models) == login
    assert (max(entry.parameters for entry in models) > 5e8) == (hardware != "cpu")


@pytest.mark.parametrize("hardware", FLAVOURS)
def test_a_space_holds_what_it_needs_and_nothing_else(hardware: str, checkout: Path, tmp_path: Path) -> None:
    written = write_space(tmp_path / "space", hardware)
    code = {path.relative_to(ROOT).as_posix() for path in (ROOT / "cramdemo").rglob("*.py")}
    assets = {"cram-mini/encoder/config.json", "samples/samples.json"}
    assets |= {"bytes.png", "capture.webp", "geometry.png", "race.png", "screenshot.png"}  # shown by the README
    assets |= {
        f"{folder}/{path.name}"
        for folder in ("gallery", "paper", "samples")
        for path in (ROOT / "assets" / folder).iterdir()
    }
    rest = {"app.py", "LICENSE", "README.md", "requirements.txt"}
    assert _files(tmp_path / "space") == code | {f"assets/{name}" for name in assets} | rest
    assert sorted(written) == sorted(tmp_path / "space" / name for name in _files(tmp_path / "space"))
    assert (tmp_path / "space" / "app.py").read_bytes() == (ROOT / "app.py").read_bytes()


def test_all_of_the_package_is_python_so_that_a_space_has_all_of_it() -> None:
    others = {path.suffix for path in (ROOT / "cramdemo").rglob("*") if path.is_file()} - {".py", ".pyc"}
    assert others == set()


def test_links_and_the_picture_of_the_readme_lead_somewhere_in_the_space(checkout: Path, tmp_path: Path) -> None:
    folder = tmp_path / "space"
    write_space(folder, "zero")
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)", (folder / "README.md").read_text(encoding="utf-8"))
    assert targets
    assert [target for target in targets if not (folder / target).exists()] == []


@pytest.mark.parametrize("hardware", FLAVOURS)
def test_requirements_are_the_repository_s_but_for_torch_and_spaces(
    hardware: str, checkout: Path, tmp_path: Path
) -> None:
    write_space(tmp_path / "space", hardware)
    changed = {line for line in _requirements(tmp_path / "space") if line.startswith(("torch", "spaces", "-"))}
    ours = dict(line.split("==") for line in _requirements(ROOT))
    index = "--extra-index-url https://download.pytorch.org/whl/cpu"
    assert (
        changed
        == {"spaces"}
        | {
            "cpu": {index, f"torch=={ours['torch']}+cpu"},
            "gpu": {f"torch=={ours['torch']}"},
            "zero": {"torch==2.11.0"},
        }[hardware]
    )
    kept = {f"{name}=={pin}" for name, pin in ours.items() if name not in ("torch", "spaces")}
    assert set(_requirements(tmp_path / "space")) - changed == kept
    assert f"gradio[mcp]=={_front_matter(tmp_path / 'space')['sdk_version']}" in kept


def test_zero_gpu_gets_no_cpu_build_of_torch(checkout: Path, tmp_path: Path) -> None:
    """A CPU wheel crashes there when `spaces` is imported; a version with a suffix is refused."""
    write_space(tmp_path / "space", "zero")
    text = (tmp_path / "space" / "requirements.txt").read_text()
    assert "index" not in text and "http" not in text and "+" not in text
    pin = re.search(r"^torch==([\d.]+)$", text, re.M)
    assert pin is not None and tuple(map(int, pin[1].split("."))) <= (2, 11, 0)


def test_login_needs_what_gradio_needs_for_it(checkout: Path, tmp_path: Path) -> None:
    write_space(tmp_path / "space", login=True)
    assert f"gradio[mcp,oauth]=={version('gradio')}" in _requirements(tmp_path / "space")


def test_a_folder_as_we_left_it_is_replaced_caches_and_all(checkout: Path, tmp_path: Path) -> None:
    folder = tmp_path / "space"
    write_space(folder)
    (folder / "cramdemo" / "__pycache__").mkdir()
    (folder / "cramdemo" / "__pycache__" / "cli.pyc").write_bytes(b"x")
    (checkout / "cramdemo" / "plots.py").unlink()
    (checkout / "app.py").write_text("# newer")
    write_space(folder, "zero")
    assert (folder / "app.py").read_text() == "# newer"
    assert not {"cramdemo/plots.py", "cramdemo/__pycache__/cli.pyc"} & _files(folder)


def _edit(folder: Path) -> None:
    (folder / "cramdemo" / "cli.py").write_text("# mine")


def _add(folder: Path) -> None:
    (folder / "packages.txt").write_text("mine")


def _pin(folder: Path) -> None:
    with (folder / "requirements.txt").open("a") as file:
        file.write("mine==1.0\n")


def _remove(folder: Path) -> None:
    (folder / "LICENSE").unlink()


@pytest.mark.parametrize("change", [_edit, _add, _pin, _remove])
def test_a_folder_that_somebody_changed_is_left_alone(
    change: Callable[[Path], None], checkout: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "space"
    write_space(folder)
    change(folder)
    before = {name: (folder / name).read_bytes() for name in _files(folder)}
    with pytest.raises(CramError, match="'space' is not empty, and not as this command left it"):
        write_space(folder)
    assert {name: (folder / name).read_bytes() for name in _files(folder)} == before


BAD = {
    "unknown hardware": (["new", "--hardware", "tpu"], "hardware is 'tpu'; choose from cpu, gpu, zero."),
    "a file": (["app.py"], "'app.py' is a file."),
    "not empty": (["full"], "'full' is not empty, and not as this command left it."),
    "not writable": (["app.py/new"], "new: Not a directory."),
    "somebody else's requirements": (["other"], "'other' is not empty"),
    "no title": (["new", "--title", " "], "The title is empty."),
    "no owner": (["new", "--push", "demo"], "'demo' is no name for a Space."),
    "no name of the hub": (["new", "--push", "me/a b"], "'me/a b' is no name for a Space."),
    "private but not pushed": (["new", "--private"], "Give --push USER/NAME too."),
    "not a checkout": (["new"], "written from a checkout"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_status_2_and_writes_nothing(
    case: str, checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("app.py").write_text("print()")
    for name in ("full", "other"):
        Path(name).mkdir()
    Path("full", "letter.txt").write_text("Dear Rat,")
    Path("other", "requirements.txt").write_text("numpy\n")
    if case == "not a checkout":
        (checkout / "pyproject.toml").unlink()
    arguments, sentence = BAD[case]
    before = _files(tmp_path)
    assert main(["space", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert sentence in captured.err
    assert captured.err.count("\n") == 1
    assert str(tmp_path) not in captured.err
    assert _files(tmp_path) == before


def test_a_folder_that_may_not_be_written_is_one_sentence(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert main(["space", str(tmp_path / "space")]) == 2
    assert capsys.readouterr().err == "cramdemo: space: Permission denied.\n"


class Hub:
    """Stands for HfApi: notes what it is asked, in HfApi's own terms, and answers or fails as told."""

    endpoint = "https://huggingface.co"

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, Any] = {"space_info": _error(404, "RepoNotFound")}

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        def answer(*arguments: Any, **settings: Any) -> Any:
            bound = inspect.signature(getattr(HfApi, verb)).bind(self, *arguments, **settings)
            self.asked.append((verb, {k: v for k, v in bound.arguments.items() if k not in ("self", "repo_id")}))
            assert bound.arguments["repo_id"] == "me/demo"
            found = self.answers.get(verb)
            if isinstance(found, Exception):
                raise found
            return found

        return answer

    def verbs(self) -> list[str]:
        return [verb for verb, _ in self.asked]


def _error(status: int, code: str = "") -> Exception:
    """As huggingface_hub raises it for such an answer."""
    request = httpx2.Request("POST", "https://huggingface.co/api/repos/create")
    response = httpx2.Response(status, request=request, headers={"X-Error-Code": code} if code else {})
    with pytest.raises(HfHubHTTPError) as caught:
        hf_raise_for_status(response)
    return caught.value


def _caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def _there(*files: str, sdk: str = "gradio") -> SimpleNamespace:
    return SimpleNamespace(sdk=sdk, siblings=[SimpleNamespace(rfilename=name) for name in files])


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    found = Hub()
    monkeypatch.setattr(space, "HfApi", lambda **_: found)
    return found


def test_a_push_creates_the_space_uploads_the_folder_and_prints_the_address(
    hub: Hub, checkout: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "space"
    assert main(["space", str(folder), "--hardware", "zero", "--push", "me/demo", "--private"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "https://huggingface.co/spaces/me/demo"
    assert hub.verbs() == ["space_info", "create_repo", "upload_folder"]
    created, uploaded = (asked for _, asked in hub.asked[1:])
    assert created == {
        "repo_type": "space",
        "space_sdk": "gradio",
        "space_hardware": SpaceHardware.ZERO_A10G,
        "private": True,
    }
    assert (uploaded["repo_type"], uploaded["folder_path"], uploaded["delete_patterns"]) == ("space", folder, "*")


def test_the_readme_s_commands_work(hub: Hub, checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^\$ python -m cramdemo (space .*)$", readme, re.M)
    assert len(commands) == 2
    assert [main(command.replace("USER/NAME", "me/demo").split()) for command in commands] == [0, 0]
    assert "upload_folder" in hub.verbs()


def test_a_cpu_space_asks_for_no_hardware_and_is_as_private_as_its_owner_s_default(hub: Hub, tmp_path: Path) -> None:
    push_space(tmp_path, "me/demo")
    created = hub.asked[1][1]
    assert created["space_hardware"] is None and created["private"] is None


@pytest.mark.parametrize("files", [(), ("README.md", ".gitattributes"), ("app.py", "cramdemo/space.py", "old.py")])
def test_a_space_of_ours_is_updated_and_gets_its_hardware_last(
    files: tuple[str, ...], hub: Hub, tmp_path: Path
) -> None:
    hub.answers["space_info"] = _there(*files)
    assert push_space(tmp_path, "me/demo", "gpu") == "https://huggingface.co/spaces/me/demo"
    assert hub.verbs() == ["space_info", "upload_folder", "request_space_hardware"]
    assert hub.asked[-1][1] == {"hardware": SpaceHardware.L4X1}
    hub.asked.clear()
    push_space(tmp_path, "me/demo", "cpu")
    assert hub.verbs() == ["space_info", "upload_folder"]


@pytest.mark.parametrize(
    "found",
    [_there("app.py", "README.md"), _there("README.md", sdk="docker"), _there("cramdemo/space.py", sdk="static")],
)
def test_a_space_that_holds_something_else_is_left_alone(found: SimpleNamespace, hub: Hub, tmp_path: Path) -> None:
    hub.answers["space_info"] = found
    with pytest.raises(CramError, match="me/demo is there already and holds something else"):
        push_space(tmp_path, "me/demo")
    assert hub.verbs() == ["space_info"]


REFUSALS = {
    "no token": ("create_repo", _error(401), "knows no token of yours"),
    "a token that is none": ("space_info", _error(401), "knows no token of yours"),
    "no plan": ("create_repo", _error(402), "a paid plan or credit to run a Space of me on zero-a10g"),
    "no right": ("create_repo", _error(403), "may not write to me's Spaces"),
    "taken": ("create_repo", _error(409), "me/demo is taken"),
    "too often": ("upload_folder", _error(429), "too many requests"),
    "out of order": ("upload_folder", _error(503), "answered with status 503"),
    "no network": ("space_info", httpx2.ConnectError("no route to host"), "cannot be reached"),
    "cut off": ("upload_folder", RuntimeError("Error while uploading 'app.py' to the Hub."), "connection broke"),
    "front matter": (
        "upload_folder",
        _caused(ValueError("Invalid metadata in README.md."), _error(400)),
        "front matter",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_each_refusal_of_the_hub_is_one_sentence(
    case: str, hub: Hub, checkout: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verb, error, sentence = REFUSALS[case]
    hub.answers[verb] = error
    assert main(["space", str(tmp_path / "space"), "--hardware", "zero", "--push", "me/demo"]) == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert told.count("\n") == 1
    assert str(tmp_path) not in told


def test_without_a_network_the_real_client_s_error_is_a_sentence_too(tmp_path: Path) -> None:
    """Tests run with HF_HUB_OFFLINE=1, which huggingface_hub reports in its own way."""
    with pytest.raises(CramError, match="HF_HUB_OFFLINE"):
        push_space(tmp_path, "me/demo")


PROGRAM = """
import importlib.util, runpy
print(importlib.util.find_spec("cramdemo").origin)
runpy.run_path("app.py", run_name="__main__")
"""


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[Path, str, str]]:
    """A CPU Space that runs in a process of its own: its folder, where its cramdemo is, and its address."""
    folder = tmp_path / "space"
    write_space(folder)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["GRADIO_TEMP_DIR"] = str(tmp_path / "gradio")
    with subprocess.Popen(
        [sys.executable, "-u", "-c", PROGRAM], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        watchdog = threading.Timer(90, process.kill)
        watchdog.start()
        try:
            origin = process.stdout.readline().strip()
            yield folder, origin, next(found[0] for line in process.stdout if (found := re.search(r"http://\S+", line)))
        finally:
            watchdog.cancel()
            process.terminate()


def test_the_cpu_space_runs_from_its_folder_alone(running: tuple[Path, str, str], tmp_path: Path) -> None:
    folder, origin, url = running
    assert origin == str(folder / "cramdemo" / "__init__.py")  # not the checkout's
    client = Client(url, verbose=False, download_files=tmp_path / "downloads")
    summary, path = client.predict(TEXT, num_mem=4, api_name="/compress")
    assert summary["lossless"] is True
    assert client.predict(handle_file(path), api_name="/decode")["text"] == TEXT
    client.close()
    write_space(folder)  # the run has left nothing there but caches
