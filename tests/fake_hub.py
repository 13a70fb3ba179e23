"""A Hugging Face hub on loopback: what huggingface_hub asks of the real one, the troubles too, and who asked for what.

Large files are handed out as there: the hub redirects to a storage with another address, which knows ranges.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

BLOCK = 1 << 14  # bytes that are sent at a time
DATE = "2026-01-01T00:00:00.000Z"


def sha_of(files: dict[str, bytes]) -> str:
    """The SHA of the commit with these files."""
    digest = hashlib.sha1()
    for name in sorted(files):
        digest.update(name.encode() + b"\0" + files[name])
    return digest.hexdigest()


@dataclass
class Repository:
    """A repository: its main branch's files, and what else the hub knows of it.

    Attributes:
        files: of the newest commit.
        requests: open or closed pull requests by number; see `Request`.
        gated: only `granted` tokens may have the files.
        granted: tokens.
        sizes: what the hub says of a file's size where that is not true.
        older: the files of earlier commits.
    """

    files: dict[str, bytes]
    requests: dict[int, Request] = field(default_factory=dict)
    gated: bool = False
    granted: tuple[str, ...] = ()
    sizes: dict[str, int] = field(default_factory=dict)
    older: list[dict[str, bytes]] = field(default_factory=list)

    def push(self, files: dict[str, bytes]) -> None:
        """A new commit, with these files in place of what was there."""
        self.older.append(self.files)
        self.files = self.files | files

    @property
    def sha(self) -> str:
        """Of the newest commit."""
        return sha_of(self.files)

    def commit(self, reference: str) -> dict[str, bytes] | None:
        """Files of a branch, pull request or SHA."""
        known = {"main": self.files} | {sha_of(files): files for files in (self.files, *self.older)}
        for number, request in self.requests.items():
            known |= {f"refs/pr/{number}": request.files, sha_of(request.files): request.files}
        return known.get(reference)


@dataclass
class Request:
    """A pull request: its files, and the commit that it lies on."""

    files: dict[str, bytes]
    parent: str
    author: str = "SFconvertbot"
    title: str = "Adding `safetensors` variant of this model"
    status: str = "open"


@dataclass
class FakeHub:
    """The hub's state, which tests change, and what it was asked.

    Attributes:
        repositories: by id.
        asked: method and path of each request, in order.
        authorized: paths that came with a token, and the token.
        wait: seconds before each block of a large file.
        cut: bytes after which a large file's connection is closed, and the hub answers 503 from then on; 0 for never.
        stall: bytes after which a large file sends nothing more; 0 for never.
        broken: status of every answer; 0 for the right one.
        silence: seconds before every answer.
        garbled: name of the file that holds something else than the commit says.
        answer: body in place of every answer in JSON.
        ranges: first byte of each request for a large file.
        after: called with the path of each answer in JSON once it is made.
    """

    url: str = ""
    storage: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    authorized: dict[str, str] = field(default_factory=dict)
    ranges: list[int] = field(default_factory=list)
    wait: float = 0.0
    cut: int = 0
    stall: int = 0
    broken: int = 0
    silence: float = 0.0
    garbled: str = ""
    answer: bytes = b""
    after: Callable[[str], None] = lambda path: None

    @property
    def files_asked(self) -> set[str]:
        """Names of files that were asked for in any way."""
        return {path.rpartition("/")[2] for path in self.asked if "/resolve/" in path}

    def add(self, repo_id: str, files: dict[str, bytes], **more: Any) -> Repository:
        """Put a repository on the hub."""
        self.repositories[repo_id] = Repository(dict(files), **more)
        return self.repositories[repo_id]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *arguments: Any) -> None:
        """Nothing."""

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        if token := self.headers.get("Authorization", "").removeprefix("Bearer "):
            self.hub.authorized[path] = token
        time.sleep(self.hub.silence)
        if self.hub.broken:
            return self._send(self.hub.broken, b"")
        if path.startswith("/storage/"):
            return self._store(path.rpartition("/")[2])
        parts = path.split("/")[1:]
        if parts[0] == "api":
            return self._api("/".join(parts[2:4]), parts[4:])
        return self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))

    def _repository(self, repo_id: str) -> Repository | None:
        found = self.hub.repositories.get(repo_id)
        if found is None:
            known = "Authorization" in self.headers
            self._send(404 if known else 401, b'{"error":"Repository not found"}', {"X-Error-Code": "RepoNotFound"})
        return found

    def _api(self, repo_id: str, rest: list[str]) -> None:
        repository = self._repository(repo_id)
        if repository is None or (rest == ["auth-check"] and self._gate(repository)):
            return None
        if rest[:1] == ["discussions"]:
            return self._json(self._discussions(repo_id, repository))
        reference = "/".join(rest[1:]) or "main"
        files = repository.commit(reference)
        if files is None:
            return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        if rest[:1] == ["commits"]:
            return self._json(_commits(repository, reference, files))
        if rest[:1] == ["tree"]:
            return self._json(
                [{"type": "file", "path": name, **_facts(repository, name, files[name])} for name in files]
            )
        siblings = [_sibling(repository, name, content) for name, content in files.items()]
        return self._json({"id": repo_id, "sha": sha_of(files), "gated": repository.gated, "siblings": siblings})

    def _discussions(self, repo_id: str, repository: Repository) -> dict[str, Any]:
        """All of them, whatever the filter: the client must look itself."""
        rows = [
            {
                "title": request.title,
                "num": number,
                "author": {"name": request.author},
                "createdAt": DATE,
                "status": request.status,
                "repo": {"name": repo_id, "type": "model"},
                "isPullRequest": True,
            }
            for number, request in repository.requests.items()
        ]
        return {"count": len(rows), "start": 0, "discussions": rows}

    def _gate(self, repository: Repository) -> bool:
        """Whether the gate is shut, which is then said."""
        shut = repository.gated and self.headers.get("Authorization", "")[7:] not in repository.granted
        if shut:
            self._send(403 if "Authorization" in self.headers else 401, b"", {"X-Error-Code": "GatedRepo"})
        return shut

    def _file(self, repo_id: str, reference: str, name: str) -> None:
        repository = self._repository(repo_id)
        if repository is None:
            return None
        if self._gate(repository):
            return None
        files = repository.commit(reference) or {}
        if name not in files:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        facts = {"X-Repo-Commit": sha_of(files), "ETag": f'"{_blob(files[name])}"'}
        if not _is_large(name):
            return self._send(200, bytes(len(files[name])) if name == self.hub.garbled else files[name], facts)
        sha = hashlib.sha256(files[name]).hexdigest()
        large = {"X-Linked-Etag": f'"{sha}"', "X-Linked-Size": str(len(files[name]))}
        return self._send(302, b"", facts | large | {"Location": f"{self.hub.storage}/storage/{sha}"})

    def _store(self, sha: str) -> None:
        """A large file, from where the client wants it."""
        contents = (c for r in self.hub.repositories.values() for c in _all_contents(r))
        content = next(c for c in contents if hashlib.sha256(c).hexdigest() == sha)
        if _is_large(self.hub.garbled):
            content = bytes(len(content))
        start = int(self.headers.get("Range", "bytes=0-")[6:].split("-")[0])
        self.hub.ranges.append(start)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        for first in range(start, len(content), BLOCK):
            if self.hub.cut and first >= self.hub.cut:
                self.hub.broken, self.close_connection = 503, True
                return
            time.sleep(10 if self.hub.stall and first >= self.hub.stall else self.hub.wait)
            self.wfile.write(content[first : first + BLOCK])

    def _json(self, value: Any) -> None:
        body = self.hub.answer or json.dumps(value).encode()
        self.hub.after(urlsplit(self.path).path)
        self._send(200, body)

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".bin"))


def _blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _all_contents(repository: Repository) -> Iterator[bytes]:
    for files in (repository.files, *repository.older, *(r.files for r in repository.requests.values())):
        yield from files.values()


def _facts(repository: Repository, name: str, content: bytes) -> dict[str, Any]:
    size = repository.sizes.get(name, len(content))
    large = {"oid": hashlib.sha256(content).hexdigest(), "size": size, "pointerSize": 134}
    return {"oid": _blob(content), "size": size} | ({"lfs": large} if _is_large(name) else {})


def _sibling(repository: Repository, name: str, content: bytes) -> dict[str, Any]:
    facts = _facts(repository, name, content)
    large = {"sha256": facts["lfs"]["oid"], "size": facts["size"], "pointerSize": 134} if "lfs" in facts else None
    return {"rfilename": name, "size": facts["size"], "blobId": facts["oid"]} | ({"lfs": large} if large else {})


def _commits(repository: Repository, reference: str, files: dict[str, bytes]) -> list[dict[str, Any]]:
    parents = [r.parent for number, r in repository.requests.items() if reference == f"refs/pr/{number}"]
    ids = [sha_of(files), *parents]
    return [{"id": sha, "authors": [], "date": DATE, "title": "", "message": ""} for sha in ids]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is what many tests are about."""


@contextmanager
def serve() -> Iterator[FakeHub]:
    """A hub that answers until the end of the block."""
    hub = FakeHub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = _Server(("127.0.0.1", 0), handler)
    hub.url, hub.storage = (f"http://{host}:{server.server_port}" for host in ("127.0.0.1", "localhost"))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def files_of(folder: Path) -> dict[str, bytes]:
    """A model folder as a repository's files."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
