"""The page's verbs for programs, over HTTP and MCP, with plain types: `compress`, `decode`, `inspect`, `models`.

What stands here on a function is what programs read: gradio makes the descriptions of its parameters, and of the
MCP tools, from these docstrings. No `from __future__ import annotations` here: gradio reads annotations as objects.
"""

import base64
import binascii
import dataclasses
import threading
from collections.abc import Iterator
from typing import Any

import gradio as gr
from gradio.events import api as offer
from gradio.utils import get_upload_folder, is_in_or_equal

from cramdemo.catalogue import BUILT_IN, UNLIMITED, ModelEntry, published
from cramdemo.errors import CramError, ModelError, TextError, VectorFileError
from cramdemo.ui.compress import config_of, file_name, unless_zero
from cramdemo.ui.count import check_characters
from cramdemo.ui.decode import DecodeState, follow_decoding
from cramdemo.ui.follow import CUT_OFF, follow
from cramdemo.ui.live import LiveState
from cramdemo.ui.offer import check_can_run, entry_of, offered
from cramdemo.ui.picker import guessed_tokens
from cramdemo.ui.results import put
from cramdemo.ui.shelf import Loading
from cramdemo.vectors import MemVectors, describe, from_bytes, load, to_bytes

PERIOD_SECONDS = 0.25  # a program has no eyes: fewer reports leave more of two cores to the model
MAX_UPLOAD_BYTES = 8 * 1024 * 1024
MAX_BASE64_LETTERS = -(-MAX_UPLOAD_BYTES // 3) * 4
NO_FILE = "No vector file was given. Give one made by compress as file, or as vectors_base64."
NO_BASE64 = "vectors_base64 is not base64, or not all of it. Give the bytes of a vector file in base64."
Item = tuple[dict[str, Any], gr.FileData | None]


def compress(  # noqa: PLR0917  # programs may pass them by place
    text: str,
    num_mem: int = 1,
    steps: int = 0,
    seconds: float = 0,
    margin: float = 0,
    seed: int = 0,
    model: str = BUILT_IN,
    preset: str = "fast",
    learning_rate: float = 0,
    as_base64: bool = False,
) -> Iterator[Item]:
    """Cram a text into a few input vectors of a frozen language model, and verify them by decoding.

    The result says whether the text is lossless, that is, comes back exactly, and has a vector file to keep.
    Whoever has that file can read the text with `decode`.

    Args:
        text: the text to compress.
        num_mem: K, the number of memory tokens (vectors), 1 to 32. More of them hold a longer text.
        steps: most optimiser steps; 0 is what the preset has.
        seconds: time budget in seconds; 0 is none.
        margin: logit margin to reach before the run ends as solved; 0 is what the preset has.
        seed: of the initial vectors.
        model: name of the model, one of those that `models` lists.
        preset: fast is soonest lossless; most holds as many tokens as possible, and takes its time.
        learning_rate: peak step size; 0 is what the preset has.
        as_base64: give the vector file in the result too, as vectors_base64, for where its URL cannot be fetched.
    """
    stop = threading.Event()
    try:
        _check_text(text)
        model = str(model)
        config = config_of(
            model,
            num_mem,
            preset,
            unless_zero(steps),
            seconds,
            unless_zero(learning_rate),
            unless_zero(margin),
            seed,
        )
        check_can_run(entry_of(model), guessed_tokens(len(text)), config.num_mem)
        for state in follow(text, model, config, stop, period=PERIOD_SECONDS):
            if isinstance(state, Loading):
                yield loading_dict(state), None
            elif state.ended:
                yield _with_file(state, model, as_base64)
            else:
                yield progress_dict(state), None
    except CramError as error:
        raise gr.Error(str(error), title="Not compressed", print_exception=False) from None


def decode(file: gr.FileData | None = None, vectors_base64: str = "") -> dict[str, Any]:
    """Write the text that a vector file holds, and say whether it is the original.

    Args:
        file: a vector file made by compress (.safetensors); over MCP, its public URL. Give this or vectors_base64.
        vectors_base64: the bytes of a vector file in base64, for where no file can be given. At most 8 MB of them.
    """
    stop = threading.Event()
    try:
        vectors = _given_vectors(file, vectors_base64)
        *_, last = follow_decoding(vectors, stop)
        assert isinstance(last, DecodeState)  # what is loading ends in an error or is decoded
    except CramError as error:
        raise gr.Error(str(error), title="Not decoded", print_exception=False) from None
    return {"text": last.text, "num_tokens": last.num_tokens, "lossless": bool(last.matches)}


def inspect(file: gr.FileData | None = None, vectors_base64: str = "") -> dict[str, Any]:
    """Tell what a vector file says of itself: its model, sizes, checks and settings. Decodes nothing.

    Args:
        file: a vector file made by compress (.safetensors); over MCP, its public URL. Give this or vectors_base64.
        vectors_base64: the bytes of a vector file in base64, for where no file can be given. At most 8 MB of them.
    """
    try:
        return describe(_given_vectors(file, vectors_base64))
    except CramError as error:
        raise gr.Error(str(error), title="Not read", print_exception=False) from None


def models() -> list[dict[str, Any]]:
    """List the language models on offer: sizes, licence, and the tokens that the papers got into one vector of each.

    The names are those that `compress` takes. `cannot_run` says why a model cannot run on this server, and is null if
    it can. `context` is null for a model without a limit of positions, and `published` where the papers have no figure.
    """
    return [model_facts(entry) for entry in offered().values()]


def model_facts(entry: ModelEntry) -> dict[str, Any]:
    """What programs are told of a model: no source, which may be a path of this machine."""
    return {
        "name": entry.name,
        "parameters": entry.parameters,
        "layers": entry.layers or None,
        "hidden_size": entry.hidden_size,
        "vocab_size": entry.vocab_size,
        "context": entry.context if entry.context < UNLIMITED else None,
        "licence": entry.licence,
        "gated": entry.gated,
        "note": entry.note,
        "cannot_run": _why_not(entry),
        "published": dataclasses.asdict(published(entry)),
        "defaults": dataclasses.asdict(entry.defaults),
    }


def _why_not(entry: ModelEntry) -> str | None:
    """Why a model cannot run here, not even with the shortest text; None if it can."""
    try:
        check_can_run(entry, num_tokens=1, num_mem=1)
    except ModelError as error:
        return str(error)
    return None


def loading_dict(state: Loading) -> dict[str, Any]:
    """A report of a run whose model is still on its way."""
    return {"done": False, "bytes_downloaded": state.download.done, "bytes_total": state.download.total}


def progress_dict(state: LiveState) -> dict[str, Any]:
    """A report of a running run."""
    progress = state.progress
    return {
        "done": False,
        "step": progress.step,
        "seconds": round(progress.seconds, 3),
        "loss_bits": progress.loss_bits,
        "solved_total": progress.solved_total,
        "best_total": progress.best_total,
        "num_tokens": progress.num_tokens,
    }


def last_dict(state: LiveState) -> dict[str, Any]:
    """The last report: of a run that was cut off and could not be verified, what is known."""
    if state.result is not None:
        return {"done": True, **state.result.summary()}
    unverified = {"done": True, "lossless": False, "verified": [], "reason": CUT_OFF, "cut_off": state.cut_off}
    return progress_dict(state) | unverified


def _with_file(state: LiveState, model: str, as_base64: bool) -> Item:
    """The last item, with the file in base64 if that was asked for, or the disk takes no file."""
    vectors = state.result.vectors if state.result else state.best
    assert vectors is not None
    name, data = file_name(state, model), to_bytes(vectors)
    report = last_dict(state)
    try:
        file = gr.FileData(path=put(name, data), orig_name=name)
    except OSError:
        file = None
    if as_base64 or file is None:
        report["vectors_base64"] = base64.b64encode(data).decode("ascii")
    return report, file


def _check_text(text: Any) -> None:
    """Refuse what is no text, or too long even to count.

    Raises:
        TextError: it is not a string, or has more characters than the page takes.
    """
    if not isinstance(text, str):
        raise TextError("The text is not a string. Give it as one.")
    check_characters(text)


def _given_vectors(file: Any, vectors_base64: Any) -> MemVectors:
    """The vectors of the one file that was given.

    Raises:
        VectorFileError: none was given, or two, or what was given is not a vector file.
    """
    if file and vectors_base64:
        raise VectorFileError("Two vector files were given. Give either file or vectors_base64.")
    if file:
        return load(_path_of(file))
    if vectors_base64:
        return from_bytes(_decoded(vectors_base64), "vectors_base64")
    raise VectorFileError(NO_FILE)


def _path_of(file: Any) -> str:
    """Where gradio put an upload. It checks and copies only a mapping that says "gradio.FileData"; whatever else a
    program sends arrives here as it is, and must not choose a file of this machine.

    Raises:
        VectorFileError: this is no upload.
    """
    path = file.get("path") if isinstance(file, dict) else None
    if not isinstance(path, str) or "\0" in path or not is_in_or_equal(path, get_upload_folder()):
        raise VectorFileError("The file was not uploaded here. Upload it first, or give it as vectors_base64.")
    return path


def _decoded(vectors_base64: Any) -> bytes:
    """The bytes that base64 stands for, of at most `MAX_UPLOAD_BYTES`; line breaks and a data: URL's head may be there.

    Raises:
        VectorFileError: too long, or not base64.
    """
    if not isinstance(vectors_base64, str):
        raise VectorFileError("vectors_base64 is not a string. Give the bytes of a vector file in base64.")
    letters = "".join(vectors_base64.rpartition(",")[2].split())
    if len(letters) > MAX_BASE64_LETTERS:
        limit = MAX_UPLOAD_BYTES // 2**20
        raise VectorFileError(f"vectors_base64 holds more than {limit} MB, the most that a vector file here can be.")
    try:
        return base64.b64decode(letters, validate=True)
    except (binascii.Error, ValueError):
        raise VectorFileError(NO_BASE64) from None


# gradio derives the outputs of a generator from what it yields, not from Iterator, and takes a file by its plain type
compress.__annotations__["return"] = tuple[dict[str, Any], gr.FileData]
decode.__annotations__["file"] = inspect.__annotations__["file"] = gr.FileData


def add_api(queue_limit: int | None, queue_id: str) -> None:
    """Offer the functions to programs; those that run a model in the same queue as the page's runs."""
    offer(compress, api_name="compress", concurrency_limit=queue_limit, concurrency_id=queue_id)
    offer(decode, api_name="decode", concurrency_limit=queue_limit, concurrency_id=queue_id)
    offer(inspect, api_name="inspect", concurrency_limit=None)
    offer(models, api_name="models", concurrency_limit=None)
