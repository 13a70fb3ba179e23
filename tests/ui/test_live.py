"""What a run shows: streams that only grow, all tokens counted, and characters as data."""

import itertools
import json
import threading

import pytest

from cramdemo.config import CramConfig
from cramdemo.cram import Progress
from cramdemo.errors import ModelError, TextError
from cramdemo.ui.live import (
    CURVE_POINTS,
    LiveState,
    clock,
    curve_points,
    rate,
    run_live,
    seconds_left,
    status_html,
    status_line,
    token_lines,
)


def report(step: int, seconds: float) -> Progress:
    return Progress(step, seconds, 1.0, 0.5, 1, 2, 4, 4, -1.0, "1010", 2, 3, ())


def test_every_state_continues_the_string_before_it(every_step, states):
    for before, after in itertools.pairwise(states):
        assert after.curve.startswith(before.curve)
        assert after.tokens == before.tokens


def test_curve_has_every_step_of_a_short_run_although_reports_are_rarer(states):
    steps = [int(point.split(",")[0]) for point in states[-1].curve.split(";") if point]
    assert steps == list(range(states[-1].result.steps + 1))


def test_long_run_sends_a_bounded_number_of_points():
    stride = 100_000 // CURVE_POINTS
    sent = curve_points([(step, 1.0, 0.5) for step in range(100_000)], stride)
    assert sent.count(";") == CURVE_POINTS


def test_curve_points_are_step_loss_accuracy():
    assert curve_points([(3, 1.23456, 0.5), (4, 1.0, 1.0)], 1) == "3,1.2346,0.5000;4,1.0000,1.0000;"


def test_token_lines_keep_newlines_quotes_and_tags_as_data():
    texts = ["a\nb", '"', "<img src=x onerror=alert(1)>", ""]
    lines = token_lines(texts, [1, 2, 3, 4]).splitlines()
    assert [json.loads(line) for line in lines] == [[text, i + 1] for i, text in enumerate(texts)]


def test_last_state_has_the_result_its_margins_and_marks(states):
    view = states[-1].token_view
    result = states[-1].result
    assert result.lossless
    assert view["m"] == "1" * result.num_tokens
    assert len(view["g"].split(",")) == result.num_tokens
    assert all(state.token_view["g"] == "" for state in states[:-1])


def test_status_counts_all_tokens_and_says_lossless_nowhere(states):
    for state in states:
        html = status_html(state)
        assert f"of {state.result.num_tokens if state.result else state.progress.num_tokens}" in html
        assert "lossless" not in html.lower()


def test_status_escapes_what_it_is_given():
    assert "<b>" not in status_line("error", "no model '<b>x</b>'")


def test_rate_is_steps_over_the_window():
    assert rate([report(0, 0.0), report(10, 0.5), report(30, 1.0)]) == 30.0
    assert rate([report(0, 0.0)]) == 0.0


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(None, 90.0), (5.0, 3.0), (500.0, 90.0)],
    ids=["steps only", "time budget ends first", "steps end first"],
)
def test_time_left_is_the_nearer_of_both_limits(seconds, expected):
    state = LiveState(report(100, 2.0), 10.0, "", "", CramConfig(steps=1000, seconds=seconds))
    assert seconds_left(state) == pytest.approx(expected)


@pytest.mark.parametrize(("seconds", "text"), [(None, "…"), (0.2, "0:01"), (75, "1:15"), (3600, "60:00")])
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_stop_before_the_first_step_still_gives_a_result(tiny):
    stop = threading.Event()
    stop.set()
    *_, last = run_live("The sea", tiny, CramConfig(steps=500), stop)
    assert last.result.reason == "stopped"


def test_shorter_text_is_a_leading_part(tiny):
    text = "bad thinking, reader"
    *_, last = run_live(text, tiny, CramConfig(steps=1), threading.Event())
    assert not last.result.lossless
    assert last.shorter and text.startswith(last.shorter) and last.shorter != text


@pytest.mark.parametrize(("text", "model", "error"), [("", "tiny", TextError), ("x", "../../etc", ModelError)])
def test_bad_input_is_a_sentence_before_any_step(tiny, text, model, error):
    with pytest.raises(error):
        next(run_live(text, model, CramConfig(), threading.Event()))
