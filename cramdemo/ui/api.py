"""The page's two verbs for programs: `compress` and `decode` over HTTP, with plain types.

No `from __future__ import annotations` here: gradio reads these functions' annotations as objects.
"""

import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.events import api as offer

from cramdemo.catalogue import BUILT_IN
from cramdemo.errors import CramError, VectorFileError
from cramdemo.ui.compress import config_of, file_name
from cramdemo.ui.count import check_characters
from cramdemo.ui.decode import DecodeState, follow_decoding
from cramdemo.ui.follow import CUT_OFF, follow
from cramdemo.ui.live import LiveState, Loading
from cramdemo.ui.offer import check_can_run, entry_of
from cramdemo.ui.picker import guessed_tokens
from cramdemo.vectors import load, save

PERIOD_SECONDS = 0.25  # a program has no eyes: fewer reports leave more of two cores to the model


def compress(  # noqa: PLR0917  # programs may pass them by place
    text: str,
    num_mem: int = 1,
    steps: int = 0,
    seconds: float = 0,
    margin: float = 0,
    seed: int = 0,
    model: str = BUILT_IN,
    preset: str = "fast",
) -> Iterator[tuple[dict[str, Any], gr.FileData | None]]:
    """Cram a text into the input vectors of a frozen language model and verify them by decoding.

    Args:
        text: the text to compress.
        num_mem: K, the number of memory tokens.
        steps: most optimiser steps; 0 is what the preset has.
        seconds: time budget in seconds; 0 is none.
        margin: logit margin to reach before the run ends as solved; 0 is what the preset has.
        seed: of the initial vectors.
        model: name of the model, as in the page's picker.
        preset: fast is soonest lossless; most holds as many tokens as possible, and takes its time.
    """
    stop = threading.Event()
    try:
        check_characters(text)
        config = config_of(model, num_mem, preset, steps or None, seconds, margin=margin or None, seed=seed)
        check_can_run(entry_of(model), guessed_tokens(len(text)), config.num_mem)
        for state in follow(text, model, config, stop, period=PERIOD_SECONDS):
            if isinstance(state, Loading):
                yield loading_dict(state), None
            elif state.ended:
                yield from _with_file(state, model)
            else:
                yield progress_dict(state), None
    except CramError as error:
        raise gr.Error(str(error), title="Not compressed", print_exception=False) from None


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


def _with_file(state: LiveState, model: str) -> Iterator[tuple[dict[str, Any], gr.FileData | None]]:
    """The last item: gradio copies the file before the folder is removed."""
    name = file_name(state, model)
    vectors = state.result.vectors if state.result else state.best
    assert vectors is not None
    with tempfile.TemporaryDirectory(prefix="cramdemo-") as folder:
        path = save(vectors, Path(folder) / name)
        yield last_dict(state), gr.FileData(path=str(path), orig_name=name)


def decode(file: gr.FileData) -> dict[str, Any]:
    """Write the text that a vector file holds, and say whether it is the original.

    Args:
        file: a .safetensors file made by compress.
    """
    stop = threading.Event()
    try:
        vectors = load(_path_of(file))
        *_, last = follow_decoding(vectors, stop)
        assert isinstance(last, DecodeState)  # what is loading ends in an error or is decoded
    except CramError as error:
        raise gr.Error(str(error), title="Not decoded", print_exception=False) from None
    return {"text": last.text, "num_tokens": last.num_tokens, "lossless": bool(last.matches)}


def _path_of(file: Any) -> str:
    """Where gradio put the upload: it hands over a mapping, whatever the annotation that it reads says.

    Raises:
        VectorFileError: no file was given.
    """
    path = file.get("path") if isinstance(file, dict) else getattr(file, "path", None)
    if not isinstance(path, str) or not path:
        raise VectorFileError("No file was given. Upload a .safetensors file made by compress.")
    return path


# gradio derives the outputs of a generator from what it yields, not from Iterator
compress.__annotations__["return"] = tuple[dict[str, Any], gr.FileData]


def add_api(queue_limit: int | None, queue_id: str) -> None:
    """Offer both functions to programs, in the same queue as the page's runs."""
    for function in (compress, decode):
        offer(function, api_name=function.__name__, concurrency_limit=queue_limit, concurrency_id=queue_id)
