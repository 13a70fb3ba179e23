"""The Decode tab: a vector file in, what it says, and the text that the model writes from it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from threading import Event
from typing import Any

import gradio as gr

from cramdemo.catalogue import BUILT_IN, MODELS, ModelEntry
from cramdemo.decode import decode_tokens
from cramdemo.errors import CramError, ModelMismatch, plural
from cramdemo.gallery import exhibit
from cramdemo.models import FrozenLM
from cramdemo.ui.experiment import QUEUE, QUEUED, QUICK
from cramdemo.ui.handout import lent
from cramdemo.ui.jobs import PERIOD_SECONDS, Flag
from cramdemo.ui.live import loading_html, status_line
from cramdemo.ui.login import visitor_token
from cramdemo.ui.offer import check_can_run, offered
from cramdemo.ui.pace import PACE
from cramdemo.ui.shelf import RUNNER, SHELF, STOPS, Loading
from cramdemo.ui.tokens import text_view, visible
from cramdemo.vectors import MemVectors, load, to_bytes, token_digest

TASK = "decode"
NO_FACTS = (
    '<div class="cd-panel cd-await"><h3>What the file says</h3><p class="cd-empty">Model, number of memory tokens, '
    "length and how it was verified will be listed here before anything is decoded.</p></div>"
)
NO_VERDICT = status_line(
    "idle",
    "Ready. Choose one from the gallery, give a vector file, or press “Decode it” after a run on the Compress tab. A "
    "paragraph takes about a second on cram-mini.",
)
WHOSE_WORDS = (
    '<p class="cd-note cd-whose"><strong>Whose words?</strong> A vector can make a model say anything that its author '
    "chose. What you read here was put there by whoever made the file; the model vouches for none of it.</p>"
)
CSS = """
.cd-whose { border-left: 4px solid var(--cd-warm); padding: 2px 0 2px 12px; margin: 0; font-size: 14px; }
.cd-whose strong { color: var(--cd-ink); }
#tab-decode .cd-decoded { min-height: 200px; box-sizing: border-box; }
#tab-decode .cd-right > button { align-self: flex-start; width: auto; }
"""
CHIPS = ("haiku", "chess", "emoji", "german")
Shown = tuple[str, str, str]  # facts, text, verdict


@dataclass(frozen=True)
class Given:
    """Vectors to be decoded, and the size of their file in bytes."""

    vectors: MemVectors
    size: int


@dataclass(frozen=True)
class DecodeState:
    """A decoding at one moment; `matches` is None until the last token is written.

    Attributes:
        text: written so far.
        done, num_tokens: tokens written, and N.
        matches: whether the ids have the digest in the file.
        where: device and dtype, as "CPU in float32".
        seconds: since the first token was asked for.
    """

    text: str
    done: int
    num_tokens: int
    matches: bool | None = None
    where: str = ""
    seconds: float = 0.0


def decode_live(vectors: MemVectors, stop: Flag, token: str | None = None) -> Iterator[DecodeState | Loading]:
    """Decode, on the worker's thread or in a child.

    Args:
        token: of the visitor, for the hub.

    Raises:
        ModelMismatch: the file is for a model that is not on offer here, or for other weights.
        ModelError: the model cannot be had, or cannot run here.
    """
    lm = yield from bring_for(vectors, token, stop)
    ids: list[int] = []
    started, shown = time.monotonic(), 0.0
    for token_id in decode_tokens(lm, vectors):
        ids.append(token_id)
        seconds = time.monotonic() - started
        if seconds - shown >= PERIOD_SECONDS:
            shown = seconds
            text = lm.detokenize_so_far(ids)
            yield DecodeState(text, len(ids), vectors.num_tokens, None, lm.where, seconds)
        if stop.is_set():
            return
    matches = token_digest(ids) == vectors.token_sha256
    yield DecodeState(lm.detokenize(ids), len(ids), vectors.num_tokens, matches, lm.where, time.monotonic() - started)


def bring_for(vectors: MemVectors, token: str | None, stop: Flag) -> Generator[Loading, None, FrozenLM]:
    """The model of some vectors. Raises what `check_vectors` raises."""
    entry = check_vectors(vectors, token)
    return (yield from SHELF.bring(entry.name, "auto", token, stop))


def check_vectors(vectors: MemVectors, token: str | None) -> ModelEntry:
    """Refuse vectors whose model cannot be had or run here, before it is loaded; gives their model.

    Raises:
        ModelMismatch: the file is for a model that is not on offer here.
        ModelError: the model cannot be had, or cannot run here.
    """
    entry = model_for(vectors)
    if SHELF.peek(entry.name) is None:
        check_can_run(entry, vectors.num_tokens, vectors.num_mem, token)
    return entry


def model_for(vectors: MemVectors) -> ModelEntry:
    """The model that a file's vectors were made for: whoever made the file does not choose what is downloaded.

    Raises:
        ModelMismatch: it is not on offer here.
    """
    entry = offered().get(vectors.model_id)
    if entry is None:
        raise ModelMismatch(
            f"The vectors were made for {vectors.model_id[:60] or 'an unnamed model'}, which this page does not have. "
            "Decode them where that model is installed: python -m cramdemo decode."
        )
    return entry


def follow_decoding(vectors: MemVectors, stop: Event, token: str | None = None) -> Iterator[DecodeState | Loading]:
    """`decode_live` wherever models run here. Raises what it raises, and `ModelError` if there is no GPU to be had."""
    entry = offered().get(vectors.model_id, MODELS[BUILT_IN])
    task = partial(decode_live, token=token) if token else decode_live
    return RUNNER.stream(task, vectors, stop=stop, seconds=PACE.decoding(entry, vectors.num_tokens))


def facts_html(vectors: MemVectors, size: int) -> str:
    """What a file says of itself. All of it is somebody else's words, so all of it is escaped."""
    rows = [
        ("Model", vectors.model_id or "not named"),
        ("Memory tokens, K", f"{vectors.num_mem}, of width {vectors.hidden_size}"),
        ("Tokens of text", f"{vectors.num_tokens:,}"),
        ("Numbers", vectors.number_format),
        ("Size", f"{size:,} bytes, {vectors.num_bytes:,} of them vectors"),
        ("Verified", checks_words(vectors.verified)),
        ("Created with", vectors.created_with or "not said"),
    ]
    cells = "".join(
        f"<tr><th scope='row'>{escape(name)}</th><td>{escape(visible(value[:200]))}</td></tr>" for name, value in rows
    )
    return f'<div class="cd-panel cd-facts"><h3>What the file says</h3><table>{cells}</table></div>'


def checks_words(verified: Sequence[dict[str, Any]]) -> str:
    """The file's `verified` list in words; whatever is missing or odd in it is left out or quoted as it is."""
    words = []
    for check in verified[:4]:
        where = f"{check.get('device', '?')}, {check.get('dtype', '?')}"
        prefix, total = check.get("correct_prefix", "?"), check.get("num_tokens", "?")
        verdict = "decoded exactly" if check.get("lossless") is True else f"{prefix} of {total} tokens decoded"
        words.append(f"{where}: {verdict}")
    return "; ".join(words) or "no check recorded"


def verdict_html(state: DecodeState) -> str:
    """Progress while it decodes, the verdict at the end."""
    count = f"{state.done} of {plural(state.num_tokens, 'token')}"
    if state.matches is None:
        return status_line("running", "Decoding", [("tokens written", count)], state.done / state.num_tokens)
    if state.matches:
        head, kind, badge = "Identical to the original.", "lossless", "IDENTICAL"
        why = f"All {plural(state.num_tokens, 'token id')} have the SHA-256 that the file holds"
    else:
        head, kind, badge = "Not the original text.", "partial", "DIFFERENT"
        why = (
            "The SHA-256 of the decoded token ids is not the one in the file. Where the first wrong token stands "
            "cannot be known from the file: everything after it may be wrong, and the beginning may be right"
        )
    return (
        f'<section class="cd-card" data-kind="{kind}"><header><span class="cd-badge">{badge}</span>'
        f'<p class="cd-claim" role="status">{head}</p></header><p class="cd-proof">{why}. '
        f"Decoded on {escape(state.where)} in {state.seconds:.2f} seconds.</p></section>"
    )


def decode_file(path: str | None, request: gr.Request) -> Iterator[Shown]:
    """Read a file, say what it says, decode it; streamed."""
    if not path:
        session = request.session_hash or ""
        STOPS.end(session, TASK, STOPS.current(session, TASK))
        yield NO_FACTS, "", NO_VERDICT
        return
    yield from watch_decoding(lambda: Given(load(path), Path(path).stat().st_size), TASK, request)


def watch_decoding(read: Callable[[], Given], task: str, request: gr.Request) -> Iterator[Shown]:
    """Read vectors and decode them, for a visitor who watches and may stop it.

    Args:
        read: gives the vectors; its `CramError` becomes a sentence.
        task: the name under which it may be stopped.
    """
    session = request.session_hash or ""
    flag = STOPS.current(session, task)
    last: Shown = (NO_FACTS, "", status_line("waiting", "Reading the file"))
    state: DecodeState | Loading | None = None
    try:
        given = read()
        facts = facts_html(given.vectors, given.size)
        last = (facts, "", status_line("waiting", "Waiting for the model"))
        yield last
        for state in follow_decoding(given.vectors, flag, visitor_token(request)):
            if isinstance(state, Loading):
                last = (facts, "", loading_html(state))
            else:
                last = (facts, state.text, verdict_html(state))
            yield last
        if not isinstance(state, DecodeState) or state.matches is None:
            yield *last[:2], stopped_html(state)
    except CramError as error:
        gr.Warning(escape(str(error)), title="Not decoded")
        yield *last[:2], status_line("error", str(error))
    finally:
        STOPS.end(session, task, flag)


def stopped_html(state: DecodeState | Loading | None) -> str:
    """What a decoding that was stopped leaves: no verdict."""
    if not isinstance(state, DecodeState):
        return status_line("done", "Stopped before the first token.")
    count = f"{state.done} of {state.num_tokens}"
    head = "Stopped. Whether this is the original text is told by all tokens together."
    return status_line("done", head, [("tokens", count)], state.done / state.num_tokens)


def stop_button(task: str) -> gr.Button:
    """Lay out the Stop of a decoding."""
    return gr.Button("Stop", variant="stop", size="md", min_width=90, interactive=False, elem_id=f"{task}-stop")


def connect_decoding(
    event: Any,
    handler: Callable[..., Iterator[Any]],
    inputs: Any,
    outputs: Any,
    stop: gr.Button,
    *,
    task: str,
    queue_limit: int | None,
) -> None:
    """Make an event decode with `handler`; the visitor's decoding before it gives way, and Stop ends this one."""

    def begin(request: gr.Request) -> Any:
        STOPS.begin(request.session_hash or "", task)
        return gr.update(interactive=True)

    def end(request: gr.Request) -> Any:
        return gr.update(interactive=STOPS.going(request.session_hash or "", task))

    begun = event(begin, None, stop, trigger_mode="multiple", **QUICK)
    ran = begun.then(
        handler,
        inputs,
        outputs,
        concurrency_limit=queue_limit,
        concurrency_id=QUEUE,
        trigger_mode="multiple",
        show_progress_on=outputs[-1],
        **QUEUED,
    )
    ran.then(end, None, stop, trigger_mode="multiple", **QUICK)


def connect_stop(stop: gr.Button, task: str) -> None:
    """Make a Stop button work."""

    def press(request: gr.Request) -> None:
        STOPS.stop(request.session_hash or "", task)

    stop.click(press, None, None, **QUICK)


def lend(name: str) -> str:
    """A file of the gallery as a component takes it.

    Raises:
        VectorFileError: there is no such exhibit.
        gr.Error: see `lent`.
    """
    held = exhibit(name)
    return lent(to_bytes(held.vectors), f"{held.piece.name}.safetensors")


def tab(queue_limit: int | None) -> tuple[gr.File, Callable[[Any], None]]:
    """Lay out the tab and connect it; gives the file component and a function that connects another trigger."""
    with gr.Row(elem_classes="cd-columns"):
        with gr.Column(scale=5, min_width=320, elem_classes="cd-left"):
            file = gr.File(
                label="A vector file (.safetensors)", file_types=[".safetensors"], height=150, elem_id="vector-file"
            )
            chips = _chips()
            facts = gr.HTML(NO_FACTS, apply_default_css=False, elem_id="facts", elem_classes="cd-flat")
        with gr.Column(scale=7, min_width=320, elem_classes="cd-right"):
            verdict = gr.HTML(NO_VERDICT, apply_default_css=False, elem_id="verdict", elem_classes="cd-flat")
            stop = stop_button(TASK)
            text = text_view()
            gr.HTML(WHOSE_WORDS, apply_default_css=False, elem_id="whose-words", elem_classes="cd-flat")

    def connect(event: Any) -> None:
        connect_decoding(event, decode_file, file, [facts, text, verdict], stop, task=TASK, queue_limit=queue_limit)

    connect(file.upload)
    connect(file.clear)
    for name, chip in chips.items():
        connect(chip.click(partial(lend, name), None, file, **QUICK).then)
    connect_stop(stop, TASK)
    return file, connect


def _chips() -> dict[str, gr.Button]:
    """A row of exhibits that are decoded with one click."""
    with gr.Row(elem_classes="cd-chips"):
        gr.HTML('<span class="cd-chips-label">From the gallery</span>', apply_default_css=False, elem_classes="cd-flat")
        return {
            name: gr.Button(
                exhibit(name).piece.kind.capitalize(), size="sm", min_width=0, scale=0, elem_classes="cd-chip"
            )
            for name in CHIPS
        }
