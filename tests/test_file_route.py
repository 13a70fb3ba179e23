"""The route by which gradio serves files: a visitor gets what is theirs, and nobody gets anything else."""

from __future__ import annotations

import http.client
import importlib.util
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pytest
from gradio_client import Client

from cramdemo.ui.chart import PLOTLY_FOLDER
from cramdemo.vectors import from_bytes

ROOT = Path(__file__).resolve().parent.parent
GRADIO = Path(next(iter(importlib.util.find_spec("gradio").submodule_search_locations)))
TEXT = "Once upon a time"
SECRET = b"not for visitors"
PLACES = (
    "/gradio_api/file=",
    "/file=",
    "/gradio_api/file/",
    "/gradio_api/stream/",
    "/static/",
    "/assets/",
    "/custom_component/",
)
OURS = ("app.py", "README.md", "cramdemo/ui/jobs.py", "assets/cram-mini/config.json", "assets/gallery/texts.json")
HIDDEN = (".git", ".gitignore", ".env", ".gradio", ".ci/run")


def ask(url: str, path: str) -> tuple[int, bytes]:
    """A GET of exactly that path: nothing is normalised on the way."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    try:
        connection.putrequest("GET", path, skip_accept_encoding=True)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def served_file(url: str, path: str) -> tuple[int, bytes]:
    return ask(url, f"/gradio_api/file={quote(path)}")


@pytest.fixture(scope="module")
def result(url: str) -> dict[str, Any]:
    """What a visitor's call gave: the file, as gradio tells of it."""
    return _result(url)


def _result(url: str) -> dict[str, Any]:
    _, file = Client(url, verbose=False, download_files=False).predict(TEXT, 8, api_name="/compress")
    return file


@pytest.fixture
def beside(gradio_folder: Path) -> Path:
    """A file beside gradio's folder, to be reached from there by `..` or a link."""
    path = gradio_folder.parent / "beside.txt"
    path.write_bytes(SECRET)
    return path


def test_a_visitor_gets_the_file_under_our_name_from_a_folder_of_its_own(
    url: str, result: dict[str, Any], gradio_folder: Path
) -> None:
    path = Path(result["path"])
    assert path.parent.parent == gradio_folder
    assert re.fullmatch(r"cramdemo-result-[0-9a-f]{32}", path.parent.name)
    assert re.fullmatch(r"cram-mini-\d+tok-k8\.safetensors", path.name) and result["orig_name"] == path.name
    status, data = ask(url, urlsplit(result["url"]).path)
    assert status == 200 and from_bytes(data).num_mem == 8
    assert _result(url)["path"] != result["path"], "two visitors share a file"


def test_who_has_the_same_bytes_does_not_learn_that_somebody_else_has(url: str, result: dict[str, Any]) -> None:
    path = Path(result["path"])
    answer = httpx.post(f"{url}gradio_api/upload", files={"files": ("mine", path.read_bytes())}, trust_env=False)
    (uploaded,) = answer.json()
    assert served_file(url, uploaded)[0] == 200
    assert served_file(url, str(Path(uploaded).with_name(path.name)))[0] == 403


def test_where_gradio_s_folder_is_the_system_s_the_file_is_there_all_the_same(
    url: str, gradio_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(gradio_folder))
    assert served_file(url, _result(url)["path"])[0] == 200


def _wanted(result: str, folder: Path, beside: Path) -> Iterator[str]:
    """What a stranger may try after `file=`."""
    for name in (*OURS, *HIDDEN):
        yield from (name, f"./{name}", str(ROOT / name), f"{folder}/../../../../..{ROOT / name}")
    up = "../" * 12
    yield from ("/etc/passwd", f"{up}etc/passwd", f"{folder}/{up}etc/passwd", "//etc/passwd", "/proc/self/environ")
    yield from ("file:///etc/passwd", "C:\\Windows\\win.ini", "~/.netrc", "\0", f"{result}\0.txt", "", ".", "..", "/")
    yield from (str(beside), f"{folder}/../{beside.name}", f"{result}/../../../{beside.name}")
    yield from (str(folder), f"{folder}/", str(Path(result).parent), f"{folder}/*", f"{folder}/{'0' * 64}/a")
    yield from (f"{folder}/cramdemo-result-{'0' * 32}/{Path(result).name}", f"{folder}/{Path(result).name}")
    yield from (str(GRADIO / "hash_seed.txt"), str(GRADIO / "routes.py"), str(PLOTLY_FOLDER.parent / "__init__.py"))
    yield from (f"{PLOTLY_FOLDER}/../__init__.py", str(ROOT / "cramdemo" / "__init__.py"))


def test_nothing_else_can_be_read(url: str, result: dict[str, Any], gradio_folder: Path, beside: Path) -> None:
    (gradio_folder / "link").unlink(missing_ok=True)
    (gradio_folder / "link").symlink_to(beside)
    (gradio_folder / "links").unlink(missing_ok=True)
    (gradio_folder / "links").symlink_to(beside.parent)
    wanted = [*_wanted(result["path"], gradio_folder, beside), f"{gradio_folder}/link"]
    wanted.append(f"{gradio_folder}/links/{beside.name}")
    page = ask(url, "/")[1]
    for path in wanted:
        forms = {quote(path), quote(quote(path)), quote(path, safe=""), quote(path).replace(".", "%2e")}
        for form in forms:
            status, data = ask(url, f"/gradio_api/file={form}")
            assert status in (307, 400, 403, 404, 422), f"{path!r} as {form!r} gives {status}: {data[:80]!r}"
    for place in PLACES[1:]:
        for path in ("../" * 12 + "etc/passwd", "/etc/passwd", "../app.py", str(beside), result["path"] + "/../.."):
            status, data = ask(url, place + quote(path))
            assert status != 200 or data == page, f"{place}{path} gives {data[:80]!r}"


def test_what_the_page_needs_can_be_read(url: str) -> None:
    assert served_file(url, str(PLOTLY_FOLDER / "plotly.min.js"))[0] == 200


def _fields(url: str) -> Iterator[tuple[int, list[Any], int]]:
    """Handlers of the page that take a file: number, values of all inputs, and which of them is the file."""
    config = json.loads(ask(url, "/config")[1])
    parts = {part["id"]: part for part in config["components"]}
    for handler in config["dependencies"]:
        inputs = [parts[number] for number in handler["inputs"]]
        for at, part in enumerate(inputs):
            if part["type"] in ("file", "downloadbutton"):
                yield handler["id"], [each["props"].get("value") for each in inputs], at


def _answer(url: str, handler: int, values: list[Any], session: str) -> str:
    """All that the page would be told."""
    body = {"data": values, "fn_index": handler, "session_hash": session}
    with httpx.Client(trust_env=False, timeout=60) as client:
        client.post(f"{url}gradio_api/queue/join", json=body).raise_for_status()
        said = []
        with client.stream("GET", f"{url}gradio_api/queue/data", params={"session_hash": session}) as stream:
            for line in stream.iter_lines():
                said.append(line)
                if '"process_completed"' in line or '"close_stream"' in line:
                    break
    return "\n".join(said)


def test_no_handler_of_the_page_takes_a_file_that_was_not_uploaded(url: str, beside: Path) -> None:
    """What a browser would never send: paths of this machine where an upload is expected."""
    meta = {"_type": "gradio.FileData"}
    found = list(_fields(url))
    assert len(found) > 10
    for path in (str(ROOT / "README.md"), str(beside)):
        payloads = (
            path,
            {"path": path},
            {"path": path, "meta": meta},
            {"path": path, "url": "http://a/", "meta": meta},
        )
        for number, (handler, values, at) in enumerate(found):
            payload = payloads[number % len(payloads)]
            said = _answer(url, handler, [*values[:at], payload, *values[at + 1 :]], f"stranger{number}")
            assert '"success":false' in said.replace(" ", ""), (handler, payload, said)
            assert str(ROOT) not in said and "not for visitors" not in said
