"""What a run shows while it goes: a state that only grows, made on the worker's thread. Knows no widget."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from cramdemo.config import CramConfig
from cramdemo.cram import CramResult, Progress, cram
from cramdemo.models import FrozenLM
from cramdemo.ui.jobs import Flag
from cramdemo.ui.shelf import SHELF, Loading
from cramdemo.vectors import MemVectors

CURVE_POINTS = 5000  # at most so many are sent; a longer run sends every n-th step
RATE_WINDOW = 20  # progress reports over which steps/s are measured: about two seconds
LOADING = "Loading the model"
MEGABYTE = 1e6
REASONS = {
    "solved": "Solved",
    "steps": "All steps used",
    "seconds": "Time budget used",
    "patience": "No more tokens came right, the best vectors are kept",
    "stopped": "Stopped, the best vectors are kept",
    "memory": "Out of memory, the best vectors are kept",
    "diverged": "The numbers overflowed, the best vectors are kept",
}


@dataclass(frozen=True)
class LiveState:
    """Everything the page shows of a run at one moment.

    Attributes:
        progress: the newest report.
        steps_a_second: over the last two seconds.
        curve: "step,loss,accuracy;" for every point so far; each state's string begins with the last one's.
        tokens: one JSON line `[text, id]` a token.
        config: settings of the run.
        result: at the end only.
        shorter: at the end, the leading part of the text that decodes, or half of it; "" if there is none.
        best: the best vectors that a report had so far, not verified.
        cut_off: at the end of a run that could not end itself, why; it has a result only if `best` could be verified.
    """

    progress: Progress
    steps_a_second: float
    curve: str
    tokens: str
    config: CramConfig
    result: CramResult | None = None
    shorter: str = ""
    best: MemVectors | None = None
    cut_off: str = ""

    @property
    def ended(self) -> bool:
        """Whether this is the last state, and there are vectors to be had."""
        return self.result is not None or bool(self.cut_off)

    @property
    def token_view(self) -> dict[str, str]:
        """Value of the token view: tokens, marks, and at the end margins."""
        if self.result is None:
            return {"t": self.tokens, "m": self.progress.marks, "g": ""}
        return {"t": self.tokens, "m": self.result.marks, "g": margins_line(self.result.token_margins.tolist())}


def run_live(
    text: str, model: str, config: CramConfig, stop: Flag, token: str | None = None
) -> Iterator[LiveState | Loading]:
    """Cram, on the worker's thread or in a child; the last state has the result.

    Args:
        token: of the visitor, for the hub.

    Raises:
        CramError: see `cram` and `load_model`.
    """
    lm = yield from SHELF.bring(model, config.precision, token, stop)
    ids = lm.tokenize(text)
    tokens = token_lines(lm.token_texts(ids), ids)
    stride = max(1, math.ceil(config.steps / CURVE_POINTS))
    curve, reports = "", deque[Progress](maxlen=RATE_WINDOW)
    best: MemVectors | None = None
    for item in cram(lm, ids, config, stop=stop.is_set):
        if isinstance(item, CramResult):
            yield LiveState(reports[-1], rate(reports), curve, tokens, config, item, shorter_text(lm, item))
        else:
            reports.append(item)
            curve += curve_points(item.curve, stride)
            best = item.best or best
            yield LiveState(item, rate(reports), curve, tokens, config, best=best)


def curve_points(points: Sequence[tuple[int, float, float]], stride: int) -> str:
    """Points as the curve component reads them: "step,loss,accuracy;", every `stride`-th step."""
    return "".join(f"{step},{loss:.4f},{accuracy:.4f};" for step, loss, accuracy in points if step % stride == 0)


def token_lines(texts: Sequence[str], ids: Sequence[int]) -> str:
    """Tokens as the token view reads them: one JSON line `[text, id]` each, so that a longer list only appends."""
    return "".join(json.dumps([text, token]) + "\n" for text, token in zip(texts, ids, strict=True))


def margins_line(margins: Sequence[float]) -> str:
    """Margins as the token view reads them."""
    return ",".join(f"{margin:.2f}" for margin in margins)


def rate(reports: Sequence[Progress]) -> float:
    """Steps a second between the oldest and the newest report; 0 where that cannot be told."""
    if len(reports) < 2 or reports[-1].seconds <= reports[0].seconds:
        return 0.0
    return (reports[-1].step - reports[0].step) / (reports[-1].seconds - reports[0].seconds)


def seconds_left(state: LiveState) -> float | None:
    """The longest the run can still take: to the last step or to the end of the time budget."""
    limits = []
    if state.steps_a_second > 0:
        limits.append((state.config.steps - state.progress.step) / state.steps_a_second)
    if state.config.seconds is not None:
        limits.append(state.config.seconds - state.progress.seconds)
    return max(0.0, min(limits)) if limits else None


def shorter_text(lm: FrozenLM, result: CramResult) -> str:
    """The leading part of the text that did decode, or half of it where nothing did."""
    count = result.verification.correct_prefix or result.num_tokens // 2
    if result.lossless or count >= result.num_tokens:
        return ""
    return "".join(lm.token_texts(result.token_ids)[:count])


def status_html(state: LiveState) -> str:
    """The status line of a running or finished run."""
    progress, result = state.progress, state.result
    solved = f"{progress.solved_total} of {progress.num_tokens}"
    cells = [
        ("step", f"{progress.step:,} of {state.config.steps:,}"),
        ("steps a second", f"{state.steps_a_second:.1f}" if state.steps_a_second else "…"),
        ("tokens solved", solved),
        ("best so far", f"{progress.best_total} of {progress.num_tokens}"),
        ("at most left", clock(seconds_left(state))),
    ]
    head = f"{state.cut_off} The best vectors are kept."
    if result is None and state.ended:
        return status_line("done", head, cells[:-1], progress.best_total / progress.num_tokens)
    if result is None:
        return status_line("running", "Optimising", cells, progress.best_total / progress.num_tokens)
    correct = int(result.token_correct.sum())
    cells = [
        ("steps", f"{result.steps:,}"),
        ("seconds", f"{result.seconds:.1f}"),
        ("tokens solved", f"{correct} of {result.num_tokens}"),
        ("decoded", f"{result.verification.correct_prefix} of {result.num_tokens}"),
    ]
    return status_line("done", REASONS.get(result.reason, head), cells, correct / result.num_tokens)


def loading_html(state: Loading) -> str:
    """The status line while a model's files are on their way."""
    done, total = state.download.done, state.download.total
    cells = [("downloaded", f"{done / MEGABYTE:,.0f} of {total / MEGABYTE:,.0f} MB")]
    return status_line("running", f"Downloading {state.model}", cells, done / total if total else 0.0)


def status_line(kind: str, head: str, cells: Sequence[tuple[str, str]] = (), share: float = 0.0) -> str:
    """A status line: kind is "idle", "waiting", "running", "done" or "error"."""
    figures = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in cells)
    bar = f'<div class="cd-bar"><i style="width:{100 * share:.1f}%"></i></div>' if cells else ""
    live = ' role="status"' if kind != "running" else ""  # ten times a second would drown a screen reader
    return (
        f'<div class="cd-status" data-state="{kind}"><p class="cd-head"{live}>{escape(head)}</p>'
        f"{f'<dl>{figures}</dl>' if cells else ''}{bar}</div>"
    )


def clock(seconds: float | None) -> str:
    """Minutes and seconds: 75 -> "1:15"; "…" where it is not known yet."""
    if seconds is None:
        return "…"
    whole = math.ceil(seconds)
    return f"{whole // 60}:{whole % 60:02d}"
