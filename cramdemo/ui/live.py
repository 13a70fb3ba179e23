"""What a run shows while it goes: a state that only grows, made on the worker's thread. Knows no widget."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape

from cramdemo.config import CramConfig
from cramdemo.cram import CramResult, Progress, cram
from cramdemo.decode import check_model
from cramdemo.errors import TextError, plural
from cramdemo.fewest import Search, Trial, fewest, widened
from cramdemo.models import FrozenLM
from cramdemo.settings import server_settings
from cramdemo.ui.count import surprisal
from cramdemo.ui.jobs import Flag
from cramdemo.ui.shelf import SHELF, Loading
from cramdemo.ui.tokens import visible
from cramdemo.vectors import MemVectors, token_digest

CURVE_POINTS = 5000  # at most so many are sent; a longer run sends every n-th step
MOST_WORDS = 64  # of what the model says instead, ten times a second; at the end there are all
RATE_WINDOW = 20  # progress reports over which steps/s are measured: about two seconds
STOPPED_SECONDS = 1.0  # for decoding after Stop; others wait for the model
LOADING = "Loading the model"
MEGABYTE = 1e6
REASONS = {
    "solved": "Solved",
    "steps": "All steps used",
    "seconds": "Time budget used",
    "patience": "No more tokens came right, the best vectors are kept",
    "stopped": "Stopped, the best vectors are kept",
    "memory": "Out of memory, the best vectors are kept; shorten the text, or pick a smaller model",
    "diverged": "The numbers overflowed, the best vectors are kept; take a smaller learning rate, or another seed",
}


SEARCH_ENDS = {  # if what was found is lossless, and if not
    "found": ("{k} is the fewest found", ""),
    "most": ("", "Not even {k} holds the text, the best vectors are kept"),
    "stopped": ("Stopped: {k} is the fewest so far", "Stopped, the best vectors are kept"),
    "seconds": ("Time budget used: {k} is the fewest so far", "Time budget used, the best vectors are kept"),
    "memory": ("Out of memory: {k} is the fewest so far", REASONS["memory"]),
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
        bits: surprisal of tokens 1..N-1 under the bare model, "3.14,0.20,...".
        words: one JSON line `[index, text]` for each token that is wrong: what the model says instead.
        solved: "index:step;" whenever a token came right; each state's string begins with the last one's.
        search: where the fewest memory tokens are sought, the trials that have ended; None where K was given.
        search_ended: at its end, why (`fewest.Search.ended`).
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
    bits: str = ""
    words: str = ""
    solved: str = ""
    search: tuple[Trial, ...] | None = None
    search_ended: str = ""
    cut_off: str = ""

    @property
    def ended(self) -> bool:
        """Whether this is the last state, and there are vectors to be had."""
        return self.result is not None or bool(self.cut_off)

    @property
    def token_view(self) -> dict[str, str]:
        """Value of the token view: see `tokens.token_view`."""
        known = {"t": self.tokens, "b": self.bits, "w": self.words, "s": self.solved}
        if self.result is None:
            return known | {"m": self.progress.marks, "g": ""}
        return known | {"m": self.result.marks, "g": margins_line(self.result.token_margins.tolist())}


def run_live(
    text: str,
    model: str,
    config: CramConfig,
    stop: Flag,
    token: str | None = None,
    *,
    search: bool = False,
    start: MemVectors | None = None,
) -> Iterator[LiveState | Loading]:
    """Cram, on the worker's thread or in a child; the last state has the result.

    Args:
        token: of the visitor, for the hub.
        search: find the fewest memory tokens; the config's K is then ignored.
        start: vectors of the same text to go on from; if K is more than they are, fresh ones come in front.

    Raises:
        CramError: see `cram` and `load_model`; or `start` is of another text or model.
    """
    lm = yield from SHELF.bring(model, config.precision, token, stop)
    ids = lm.tokenize(text)
    if start is not None:
        check_same_text(lm, start, ids)
    report = _Report(lm, ids)
    if search:
        most = server_settings().max_mem
        yield from report.of_search(fewest(lm, ids, config, most=most, stop=stop.is_set, give_up=_long_after(stop)))
        return
    mem = None if start is None else widened(lm, start.mem, config.num_mem, config.seed)
    for item in cram(lm, ids, config, stop=stop.is_set, give_up=_long_after(stop), start=mem):
        yield report.of_run(item, config)


def _long_after(stop: Flag) -> Callable[[], bool]:
    """Whether somebody who has stopped a run, or gone, has waited long enough for it to be decoded."""
    since: float | None = None

    def is_long_after() -> bool:
        nonlocal since
        if since is None and stop.is_set():
            since = time.monotonic()
        return since is not None and time.monotonic() - since >= STOPPED_SECONDS

    return is_long_after


def check_same_text(lm: FrozenLM, start: MemVectors, ids: Sequence[int]) -> None:
    """Refuse to go on from vectors of another text.

    Raises:
        TextError: they are of another text.
        ModelMismatch: they were made for another model.
    """
    check_model(lm, start)
    if start.token_sha256 != token_digest(ids):
        raise TextError("The text is no longer the one of that run. Press Compress to start a new one.")


class _Report:
    """Makes states that only grow of what runs say."""

    def __init__(self, lm: FrozenLM, ids: list[int]) -> None:
        self.lm, self.ids = lm, ids
        self.tokens = token_lines(lm.token_texts(ids), ids)
        self.bits = ",".join(f"{bits:.2f}" for bits in surprisal(lm, ids))
        self._texts: dict[int, str] = {}
        self._fresh()

    def _fresh(self) -> None:
        self.curve, self.solved = "", ""
        self.solved_at: tuple[int, ...] = ()
        self.reports = deque[Progress](maxlen=RATE_WINDOW)
        self.best: MemVectors | None = None

    def of_run(self, item: Progress | CramResult, config: CramConfig) -> LiveState:
        """The next state of a run."""
        if isinstance(item, CramResult):
            return self._ended(self._state(self.reports[-1], config, ""), item)
        self.reports.append(item)
        self.curve += curve_points(item.curve, max(1, math.ceil(config.steps / CURVE_POINTS)))
        self.solved += solved_points(self.solved_at, item.solved_at)
        self.solved_at = item.solved_at
        self.best = item.best or self.best
        return self._state(item, config, wrong_words(item.marks, item.predicted, MOST_WORDS, self._text))

    def of_search(self, states: Iterator[Search]) -> Iterator[LiveState]:
        """The states of a search: curve and text are those of the run that is going."""
        of_k: dict[int, LiveState] = {}  # the last state of each run, since the last run need not be the one that won
        for search in states:
            num_mem = search.config.num_mem
            if search.result is not None:
                last = self._ended(of_k[num_mem], search.result)
            else:
                if of_k and num_mem not in of_k:
                    self._fresh()
                last = of_k[num_mem] = self.of_run(search.progress, search.config)
                last = dataclasses.replace(last, best=search.kept or last.best)
            yield dataclasses.replace(last, search=search.trials, search_ended=search.ended)

    def _state(self, progress: Progress, config: CramConfig, words: str) -> LiveState:
        return LiveState(
            progress,
            rate(self.reports),
            self.curve,
            self.tokens,
            config,
            best=self.best,
            bits=self.bits,
            words=words,
            solved=self.solved,
        )

    def _ended(self, last: LiveState, result: CramResult) -> LiveState:
        words, shorter = result_words(self.lm, result), shorter_text(self.lm, result)
        return dataclasses.replace(last, result=result, best=None, words=words, shorter=shorter)

    def _text(self, token: int) -> str:
        if token not in self._texts:
            self._texts[token] = text_of(self.lm, token)
        return self._texts[token]


def text_of(lm: FrozenLM, token: int) -> str:
    """What one token says by itself."""
    return lm.detokenize([token])


def result_words(lm: FrozenLM, result: CramResult) -> str:
    """What the model says instead of each wrong token of a result, as the token view reads it."""
    return wrong_words(result.marks, result.token_predicted.tolist(), result.num_tokens, partial(text_of, lm))


def wrong_words(marks: str, predicted: Sequence[int], most: int, text: Callable[[int], str]) -> str:
    """Tokens that are wrong, from the first one on, and what the model says there: one JSON line `[index, text]` each.

    Args:
        marks: "1" for a token that is right, "0" for a wrong one.
        predicted: ids; those of tokens that are not trained yet are missing at the end.
        most: so many lines at most.
        text: of an id.
    """
    wrong = [(i, token) for i, (mark, token) in enumerate(zip(marks, predicted, strict=False)) if mark == "0"]
    return "".join(json.dumps([i, text(token)]) + "\n" for i, token in wrong[:most])


def solved_points(before: Sequence[int], after: Sequence[int]) -> str:
    """Tokens that came right between two reports, as the token view reads them: "index:step;"."""
    known = before or [-1] * len(after)
    return "".join(f"{i}:{new};" for i, (old, new) in enumerate(zip(known, after, strict=True)) if new not in (old, -1))


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
    share = progress.best_total / progress.num_tokens
    if state.ended:
        cells, share = (_end_cells(result, state.search), result.accuracy) if result else (_cells(state), share)
        return status_line("done", _end_head(state), cells, share, search_html(state))
    cells = _cells(state)
    if state.search is not None:
        return status_line("running", f"Trying K = {state.config.num_mem}", cells, share, search_html(state))
    return status_line("running", "Optimising", [*cells, ("at most left", clock(seconds_left(state)))], share)


def _cells(state: LiveState) -> list[tuple[str, str]]:
    progress = state.progress
    return [
        ("step", f"{progress.step:,} of {state.config.steps:,}"),
        ("steps a second", f"{state.steps_a_second:.1f}" if state.steps_a_second else "…"),
        ("tokens solved", f"{progress.solved_total} of {progress.num_tokens}"),
        ("best so far", f"{progress.best_total} of {progress.num_tokens}"),
    ]


def _end_cells(result: CramResult, search: Sequence[Trial] | None) -> list[tuple[str, str]]:
    cells = [
        ("steps", f"{result.steps:,}"),
        ("seconds", f"{result.seconds:.1f}"),
        ("tokens solved", f"{int(result.token_correct.sum())} of {result.num_tokens}"),
        ("decoded", f"{result.verification.correct_prefix} of {result.num_tokens}"),
    ]
    if search is None:
        return cells
    return [*cells, ("seconds, all K tried", f"{sum(trial.seconds for trial in search):.1f}")]


def _end_head(state: LiveState) -> str:
    result = state.result
    if result is not None and state.search_ended:
        words = SEARCH_ENDS[state.search_ended][0 if result.lossless else 1]
        return words.format(k=f"K = {result.vectors.num_mem}")
    if result is not None and result.reason in REASONS:
        return REASONS[result.reason]
    return f"{state.cut_off} The best vectors are kept."


def search_html(state: LiveState) -> str:
    """The K that were tried, in their order, and the one that is being tried; "" where K was given."""
    if state.search is None:
        return ""
    tried = [
        (trial.num_mem, "lossless" if trial.lossless else f"{trial.solved} of {plural(trial.num_tokens, 'token')}")
        for trial in state.search
    ]
    now = [] if state.ended else [(state.config.num_mem, "trying")]
    rows = "".join(
        f'<li data-kind="{words if words in ("lossless", "trying") else "partial"}"><b>K = {num_mem}:</b> {words}</li>'
        for num_mem, words in [*tried, *now]
    )
    return f'<ol class="cd-search" aria-label="Memory tokens that were tried, and what came right">{rows}</ol>'


def loading_html(state: Loading) -> str:
    """The status line while a model's files are on their way."""
    done, total = state.download.done, state.download.total
    cells = [("downloaded", f"{done / MEGABYTE:,.0f} of {total / MEGABYTE:,.0f} MB")]
    return status_line("running", f"Downloading {state.model}", cells, done / total if total else 0.0)


def status_line(kind: str, head: str, cells: Sequence[tuple[str, str]] = (), share: float = 0.0, more: str = "") -> str:
    """A status line: kind is "idle", "waiting", "running", "done" or "error"; `more` is HTML below it."""
    figures = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in cells)
    bar = f'<div class="cd-bar"><i style="width:{100 * share:.1f}%"></i></div>' if cells else ""
    live = ' role="status"' if kind != "running" else ""  # ten times a second would drown a screen reader
    return (
        f'<div class="cd-status" data-state="{kind}"><p class="cd-head"{live}>{escape(visible(head))}</p>'
        f"{f'<dl>{figures}</dl>' if cells else ''}{bar}{more}</div>"
    )


def clock(seconds: float | None) -> str:
    """Minutes and seconds: 75 -> "1:15"; "…" where it is not known yet."""
    if seconds is None:
        return "…"
    whole = math.ceil(seconds)
    return f"{whole // 60}:{whole % 60:02d}"
