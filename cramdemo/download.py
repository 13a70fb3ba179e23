"""The program that gets a model's files from the Hugging Face hub, in a process that may be ended at any time.

    python -P download.py

`hub.py` starts it by its path: as a module of the package it would load torch first, so it imports nothing from there.
A line of JSON comes in: repo_id, token, ask_access. Lines of JSON go out: bytes done of total, or nothing as a sign of
life, and last the folder and its commit, or a sentence that says why not. When its input ends so does the program,
which must not outlive its parent.

Everything is taken from one commit, into the cache that all programs share. Files are fetched here and checked against
the commit's hashes, because huggingface_hub 2.4 begins a half file anew in each process; it puts them in their places.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import sys
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, get_cached_repo_tree, hf_hub_url, snapshot_download
from huggingface_hub.errors import CachedRepoTreeNotFoundError, GatedRepoError, HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.file_download import http_get, repo_folder_name
from huggingface_hub.utils import WeakFileLock, build_hf_headers, get_token_to_send, httpx

CONFIG = "config.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"  # the first wins where both are there
TOKENIZER = (
    *("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "vocab.txt", "spiece.model"),
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
)
WANTED = (CONFIG, "generation_config.json", INDEX, *TOKENIZER)  # and the weights
CONVERTER, CONVERSION = "SFconvertbot", "Adding `safetensors` variant of this model"
WORKERS = 4  # files at a time
TELL_SECONDS = 0.2
CHUNK = 1 << 16  # bytes; few, so that progress moves and a stop loses little on a slow line
NONSENSE = (KeyError, TypeError, ValueError, AttributeError)


class Refusal(Exception):  # noqa: N818 (as the errors of the package: it reads well)
    """A sentence for the user."""


@dataclass(frozen=True)
class File:
    """A file of a commit: size in bytes; `blob` is its SHA-256 if it is in the large file storage, else git's SHA-1."""

    name: str
    size: int
    blob: str


@dataclass(frozen=True)
class Commit:
    """A commit of a repository, and its place in the cache."""

    repo_id: str
    sha: str
    files: Mapping[str, File]

    @property
    def storage(self) -> Path:
        """Where the cache keeps the repository."""
        return _storage(self.repo_id)

    @property
    def folder(self) -> Path:
        """Where its files stand under their names."""
        return self.storage / "snapshots" / self.sha

    @property
    def has_safetensors(self) -> bool:
        """Whether there are weights that may be loaded."""
        return WEIGHTS in self.files or INDEX in self.files


def fetch(repo_id: str, token: str | None, *, ask_access: bool) -> tuple[Path, str]:
    """The folder with a model's files, and the SHA of their commit.

    Args:
        ask_access: let the hub say whether the token may have the files, even if they are in the cache.

    Raises:
        Refusal: the model cannot be had, and the sentence is at hand.
        OSError, httpx.TransportError, KeyError, TypeError, ValueError, AttributeError: `_sentence` has it.
    """
    if constants.is_offline_mode():
        return _cached(repo_id, "HF_HUB_OFFLINE is set", "Unset it to download the model")
    api = HfApi(token=token)
    try:
        commit = _find_commit(api, repo_id)
        if ask_access:
            api.auth_check(repo_id)
    except (httpx.TransportError, HfHubHTTPError) as error:
        if ask_access or (isinstance(error, HfHubHTTPError) and error.response.status_code < 500):
            raise
        return _cached(repo_id, "the hub cannot be reached", "Check the connection and try again")
    _download(commit, token)
    return commit.folder, commit.sha


# ---- which commit


def _find_commit(api: HfApi, repo_id: str) -> Commit:
    """The newest commit, or where it has no safetensors the converter's on top of it."""
    newest = _commit(api, repo_id)
    if newest.has_safetensors:
        return newest
    for reference in _conversions(api, newest):
        converted = _commit(api, repo_id, reference)
        if converted.has_safetensors:
            return converted
    raise Refusal(
        f"{repo_id} has no safetensors weights, nor has the hub's bot converted them, and other formats can run code. "
        "Choose another model."
    )


def _commit(api: HfApi, repo_id: str, reference: str | None = None) -> Commit:
    """The newest commit of a branch or pull request.

    Raises:
        ValueError, TypeError, AttributeError: the answer is none of a hub.
    """
    info = api.model_info(repo_id, revision=reference, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    listed: Any = info.siblings
    files = [File(s.rfilename, s.size, s.lfs.sha256 if s.lfs else s.blob_id) for s in listed]
    if not all(re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", sha or "") for sha in (info.sha, *(f.blob for f in files))):
        raise ValueError("not a SHA, and it would become the name of a file")
    return Commit(repo_id, str(info.sha), {file.name: file for file in files})


def _conversions(api: HfApi, newest: Commit) -> Iterator[str]:
    """Open pull requests of the hub's converter that lie on top of the newest commit, which transformers asks too."""
    for request in api.get_repo_discussions(
        newest.repo_id, author=CONVERTER, discussion_type="pull_request", discussion_status="open"
    ):
        if (request.author, request.title, request.status) == (CONVERTER, CONVERSION, "open"):
            reference = f"refs/pr/{request.num}"
            commits = api.list_repo_commits(newest.repo_id, revision=reference)
            if request.is_pull_request and [commit.commit_id for commit in commits[1:2]] == [newest.sha]:
                yield reference


# ---- what the cache has


def _storage(repo_id: str) -> Path:
    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo_id, repo_type="model")


def _cached(repo_id: str, reason: str, advice: str) -> tuple[Path, str]:
    """The newest commit that is complete in the cache."""
    folders = [folder for folder in (_storage(repo_id) / "snapshots").glob("*") if folder.is_dir()]
    for folder in sorted(folders, key=lambda folder: folder.stat().st_mtime, reverse=True):
        if _is_complete(repo_id, folder):
            return folder, folder.name
    raise Refusal(f"{repo_id} is not on this machine, and {reason}. {advice}, or choose cram-mini.")


def _is_complete(repo_id: str, folder: Path) -> bool:
    """By the commit's own list where the cache has it: not every program writes it."""
    try:
        names = [file.path for file in get_cached_repo_tree(repo_id, revision=folder.name)]
    except CachedRepoTreeNotFoundError:
        names = [path.name for path in folder.iterdir()]
    try:
        weights = _weights(names, folder)
    except (OSError, *NONSENSE):
        return False
    whole = all((folder / name).is_file() for name in (*_wanted(names), *weights))
    return whole and CONFIG in names and bool(weights) and any(name in names for name in TOKENIZER)


def _wanted(names: Collection[str]) -> list[str]:
    """All files but the weights."""
    return [name for name in WANTED if name in names]


def _weights(names: Collection[str], folder: Path) -> list[str]:
    """The files of the weights: the one, or those that the index in the folder names."""
    if WEIGHTS in names:
        return [WEIGHTS]
    if INDEX not in names:
        return []
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    return sorted({str(name) for name in index["weight_map"].values()})


def _missing(commit: Commit, files: Sequence[File]) -> list[File]:
    paths = [(file, commit.folder / file.name) for file in files]
    return [file for file, path in paths if not (path.is_file() and path.stat().st_size == file.size)]


# ---- the download


def _download(commit: Commit, token: str | None) -> None:
    """All that is wanted of a commit; what is there already needs no network."""
    files = [commit.files[name] for name in _wanted(commit.files)]
    _get(commit, files, token)
    weights = [commit.files[name] for name in _weights(commit.files, commit.folder)]
    if not all(re.fullmatch(r"[\w.-]+\.safetensors", file.name) for file in weights):
        raise ValueError("not the name of a file of weights")
    _get(commit, [*files, *weights], token, tell=True)


def _get(commit: Commit, files: Sequence[File], token: str | None, *, tell: bool = False) -> None:
    """Put files into the commit's folder."""
    missing = _missing(commit, files)
    if not missing:
        return
    _check_space(commit, missing)
    pool = ThreadPoolExecutor(WORKERS)
    pending = {pool.submit(_pull, commit, file, token) for file in missing}
    while pending:
        _say(**(_progress(commit, files) if tell else {}))
        finished, pending = wait(pending, TELL_SECONDS, FIRST_EXCEPTION)
        for job in finished:
            job.result()
    names = [file.name for file in missing]
    snapshot_download(commit.repo_id, revision=commit.sha, allow_patterns=names, token=token)  # fetches none: all links
    if _missing(commit, files):
        raise OSError("the hub is gone")
    _say(**(_progress(commit, files) if tell else {}))


def _pull(commit: Commit, file: File, token: str | None) -> None:
    """A file into the cache, from where an earlier try has stopped; one process at a time."""
    half, blob = _places(commit, file)
    lock = Path(constants.HF_HUB_CACHE) / ".locks" / commit.storage.name / f"{file.blob}.lock"
    for path in (blob, lock):
        path.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if blob.exists() and blob.stat().st_size == file.size:
            return
        with half.open("ab") as out:
            if out.tell() > file.size:
                out.truncate(0)
                out.seek(0)
            url = hf_hub_url(commit.repo_id, file.name, revision=commit.sha)
            headers = build_hf_headers(token=token, headers={"Accept-Encoding": "identity"})  # its own bytes
            http_get(url, out, resume_size=out.tell(), headers=headers, expected_size=file.size)
        if _hash(half, file) != file.blob:
            half.unlink()
            raise Refusal(f"A file of {commit.repo_id} arrived damaged, and is deleted. Try again.")
        half.replace(blob)


def _hash(path: Path, file: File) -> str:
    """As the commit names it: SHA-256, or git's SHA-1 with a header."""
    start = hashlib.sha256() if len(file.blob) == 64 else hashlib.sha1(b"blob %d\0" % file.size)
    with path.open("rb") as whole:
        return hashlib.file_digest(whole, lambda: start).hexdigest()


def _places(commit: Commit, file: File) -> tuple[Path, Path]:
    """Where a file grows, and where the cache keeps it then."""
    blob = commit.storage / "blobs" / file.blob
    return blob.with_name(f"{blob.name}.incomplete"), blob


def _present(commit: Commit, file: File) -> int:
    """Bytes of a file that are on the disk."""
    if not _missing(commit, [file]):
        return file.size
    for place in _places(commit, file):  # in this order, as it may be renamed just now
        with suppress(FileNotFoundError):
            return place.stat().st_size
    return 0


def _progress(commit: Commit, files: Sequence[File]) -> dict[str, int]:
    return {"done": sum(_present(commit, file) for file in files), "total": sum(file.size for file in files)}


def _check_space(commit: Commit, files: Sequence[File]) -> None:
    needed = sum(file.size - _present(commit, file) for file in files)
    folder = next(place for place in (commit.storage, *commit.storage.parents) if place.exists())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise Refusal(
            f"{commit.repo_id} needs another {needed / 1e9:.2f} GB, and the disk of the model cache has "
            f"{free / 1e9:.2f} GB free. Free some space, or set HF_HOME to a folder on a larger disk."
        )


# ---- what is said


def _sentence(error: Exception, repo_id: str, token: str | None) -> str:
    """Why a model could not be had."""
    if isinstance(error, Refusal):
        return str(error)
    if isinstance(error, HfHubHTTPError):
        return _answer(error, repo_id, bool(get_token_to_send(token)))
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"The disk of the model cache is full before {repo_id} is complete. Free some space and try again, "
            "or set HF_HOME to a folder on a larger disk."
        )
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "The model cache cannot be written to. Set HF_HOME to a folder that can."
    if isinstance(error, NONSENSE):
        return f"The hub's answer about {repo_id} makes no sense. Try again later, or check HF_ENDPOINT if it is set."
    return f"The download of {repo_id} was cut off. Try again: it goes on where it stopped."


def _answer(error: HfHubHTTPError, repo_id: str, has_token: bool) -> str:
    """What an answer other than the file means."""
    status, page = error.response.status_code, f"https://huggingface.co/{repo_id}"
    if isinstance(error, GatedRepoError) and has_token:
        return f"{repo_id} is gated, and the token's owner has no access yet. Ask for it at {page}, then try again."
    if isinstance(error, GatedRepoError):
        return (
            f"{repo_id} is gated: accept its licence at {page}, then give a token of that account as HF_TOKEN in the "
            "environment, or on a Space as a secret of that name."
        )
    if status == 401 and has_token:
        return "The hub does not accept the token. Give a valid one as HF_TOKEN, or none."
    if isinstance(error, RepositoryNotFoundError) or status == 401:
        return f"There is no model {repo_id} on the hub, or it is private. Check the name, or HF_TOKEN."
    if status == 429 or status >= 500:
        return f"The hub is too busy to give {repo_id}. Try again later: it goes on where it stopped."
    return f"The hub does not give {repo_id}: it answers {status}. Try again later, or choose another model."


def _say(**facts: Any) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


def main() -> None:
    """Read the request, get the files, say where they are or why not."""
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    constants.DOWNLOAD_CHUNK_SIZE = CHUNK
    repo_id, token = request["repo_id"], request["token"]
    try:
        folder, revision = fetch(repo_id, token, ask_access=request["ask_access"])
        _say(folder=str(folder), revision=revision)
    except (Refusal, OSError, httpx.TransportError, *NONSENSE) as error:
        _say(sentence=_sentence(error, repo_id, token))
    os._exit(0)  # other files may still be on their way


if __name__ == "__main__":
    main()
