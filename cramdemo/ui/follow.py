"""A run from its reader's side, wherever models run here: if it is cut off, the best vectors it had reported remain.

Knows no widget.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from functools import partial
from threading import Event

from cramdemo.config import CramConfig
from cramdemo.cram import CramResult, check_length, judge
from cramdemo.decode import GIVEN_UP
from cramdemo.errors import CramError
from cramdemo.ui.jobs import PERIOD_SECONDS, plain_sentence
from cramdemo.ui.live import LiveState, result_words, run_live, shorter_text
from cramdemo.ui.offer import entry_of
from cramdemo.ui.pace import PACE
from cramdemo.ui.shelf import RUNNER, SHELF, WORKER, Loading
from cramdemo.ui.zero import ON_ZERO
from cramdemo.vectors import MemVectors

CUT_OFF = "cut off"  # the reason of such a run's result


def follow(
    text: str,
    model: str,
    config: CramConfig,
    stop: Event,
    *,
    period: float = PERIOD_SECONDS,
    token: str | None = None,
    search: bool = False,
    start: MemVectors | None = None,
) -> Iterator[LiveState | Loading]:
    """The states of a run; the last one has its result, or at least vectors, unless it was stopped before its first.

    Args:
        stop: set from outside to stop the run.
        period: at least so many seconds between two states.
        token: of the visitor, for the hub.
        search, start: as `run_live` has them.

    Raises:
        CramError: the run cannot be, or it ended before it had any vectors.
    """
    seconds = 0.0
    if ON_ZERO:
        config, seconds = _within_a_loan(text, model, config)
    state: LiveState | None = None
    try:
        task = partial(run_live, token=token, search=search, start=start)
        for item in RUNNER.stream(task, text, model, config, stop=stop, period=period, seconds=seconds):
            state = item if isinstance(item, LiveState) else state
            yield item
    except CramError as error:
        if state is None or not (state.ended or state.best):
            raise
        if not state.ended:  # else what went wrong after its result is nobody's loss
            why = str(error)
            given_up = why == GIVEN_UP  # there was no time to decode, and there is none now
            yield dataclasses.replace(state, cut_off=why) if given_up else cut_off(state, why, text, model)
    if ON_ZERO and state is not None and state.result is not None:
        PACE.learn(entry_of(model), config, state.progress, state.result)


def _within_a_loan(text: str, model: str, config: CramConfig) -> tuple[CramConfig, float]:
    """The config, made to end by itself before the GPU is taken back, and for how many seconds to ask.

    What cannot run is refused here, before it costs the visitor anything.
    """
    lm = SHELF.get(model)
    num_tokens = len(lm.tokenize(text))
    check_length(lm, num_tokens, config.num_mem)
    share = PACE.share(entry_of(model), config, num_tokens)
    seconds = min(share.steps, config.seconds or share.steps)
    return dataclasses.replace(config, seconds=seconds), share.asked


def cut_off(state: LiveState, why: str, text: str, model: str) -> LiveState:
    """The last state of a run that could not end itself: its best vectors, verified if this process can run the model.

    Args:
        state: the last one that came, which has vectors.
        why: one sentence.
    """
    try:
        result, shorter, words = WORKER.submit(_judged, state, text, model).result()
    except Exception as error:  # what cut the run off may do so here too, and the vectors are worth more
        plain_sentence(error)  # for the log
        result, shorter, words = None, "", state.words
    return dataclasses.replace(state, cut_off=why, result=result, shorter=shorter, words=words)


def _judged(state: LiveState, text: str, model: str) -> tuple[CramResult | None, str, str]:
    """On the worker's thread: the result, a shorter text to try and the words of wrong tokens; no result where only a
    lent GPU could tell."""
    lm = SHELF.here(model)
    if lm is None or state.best is None:
        return None, "", state.words
    started = time.perf_counter() - state.progress.seconds
    ids, steps = lm.tokenize(text), state.progress.step
    flops = steps * lm.flops.step(state.best.num_mem + len(ids) - 1, len(ids))  # as if all tokens were predicted always
    result = judge(lm, state.best, ids, reason=CUT_OFF, steps=steps, started=started, flops=flops)
    return result, shorter_text(lm, result), result_words(lm, result)
