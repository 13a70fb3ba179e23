"""What a run shows: streams that only grow, all tokens counted, and characters as data."""

import itertools
import json
import threading
from multiprocessing.reduction import ForkingPickler

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
    search_html,
    seconds_left,
    solved_points,
    status_html,
    status_line,
    token_lines,
    wrong_words,
)
from tests.ui.conftest import SOLVABLE, TINY, tiny_on_offer


def report(step: int, seconds: float) -> Progress:
    return Progress(step, seconds, 1.0, 0.5, 1, 2, 4, 4, -1.0, "1010", 2, 3, ())


def test_every_state_continues_the_string_before_it(every_step, states):
    for before, after in itertools.pairwise(states):
        assert after.curve.startswith(before.curve)
        assert after.tokens == before.tokens


def test_the_steps_at_which_tokens_were_solved_only_grow_and_the_last_are_the_engine_s(every_step, states):
    for before, after in itertools.pairwise(states):
        assert after.solved.startswith(before.solved)
    points = [point.split(":") for point in states[-1].solved.split(";") if point]
    assert {int(i): int(step) for i, step in points} == dict(enumerate(states[-1].progress.solved_at))


def test_tokens_that_come_right_are_told_once():
    assert solved_points((), (3, -1, 0)) == "0:3;2:0;"
    assert solved_points((3, -1, 0), (3, 5, -1)) == "1:5;"
    assert solved_points((3, 5, -1), (3, 5, 9)) == "2:9;"


def test_wrong_tokens_are_told_with_what_the_model_says(every_step, states, tiny_lm):
    ids = tiny_lm.tokenize(SOLVABLE)
    first = states[0]
    words = dict(json.loads(line) for line in first.words.splitlines())
    assert words and set(words) == {i for i, mark in enumerate(first.progress.marks) if mark == "0"}
    said = first.progress.predicted
    assert all(words[i] == tiny_lm.detokenize([said[i]]) and said[i] != ids[i] for i in words)
    assert states[-1].words == ""


def test_words_are_bounded_and_those_of_untrained_tokens_are_missing():
    assert wrong_words("0" * 9, [7] * 5, 3, str) == '[0, "7"]\n[1, "7"]\n[2, "7"]\n'
    assert wrong_words("1010", [1, 2], 9, str) == '[1, "2"]\n'


def test_the_words_of_a_result_are_those_of_its_vectors(tiny, tiny_lm):
    *_, last = run_live("bad thinking, reader", tiny, CramConfig(steps=1), threading.Event())
    words = dict(json.loads(line) for line in last.words.splitlines())
    assert set(words) == {i for i, mark in enumerate(last.result.marks) if mark == "0"}


def test_bits_are_the_surprisal_of_all_tokens_but_the_first(states):
    bits = [float(bits) for bits in states[0].bits.split(",")]
    assert len(bits) == states[-1].result.num_tokens - 1
    assert sum(bits) == pytest.approx(states[-1].result.h_lm_bits, abs=0.1)
    assert states[0].token_view["b"] == states[-1].token_view["b"]


def test_a_run_goes_on_from_the_vectors_of_another(tiny, tiny_lm):
    text, config = "bad thinking, reader", CramConfig(num_mem=2, steps=30)
    *_, half = run_live(text, tiny, config, threading.Event())
    first, *_, last = run_live(text, tiny, config, threading.Event(), start=half.result.vectors)
    assert first.progress.solved_total == int(half.result.token_correct.sum())
    assert int(last.result.token_correct.sum()) >= first.progress.solved_total
    more = CramConfig(num_mem=3, steps=1)
    *_, wider = run_live(text, tiny, more, threading.Event(), start=half.result.vectors)
    assert wider.result.vectors.num_mem == 3
    with pytest.raises(TextError, match="no longer the one of that run"):
        next(run_live(text + "s", tiny, config, threading.Event(), start=half.result.vectors))


@pytest.fixture(scope="module")
def search(tiny_folder):
    with tiny_on_offer(tiny_folder):
        return list(run_live(SOLVABLE, TINY, CramConfig(steps=300), threading.Event(), search=True))


def test_a_search_shows_each_run_and_at_the_end_the_one_that_won(search):
    last = search[-1]
    assert last.search_ended == "found" and last.result.lossless
    assert last.config.num_mem == last.result.vectors.num_mem > 1
    assert last.progress.best_total == last.result.num_tokens and last.curve.startswith("0,")
    for before, after in itertools.pairwise(search[:-1]):
        assert after.curve.startswith(before.curve) == (after.config.num_mem == before.config.num_mem)
    kept = [state.best.num_mem for state in search[:-1] if any(trial.lossless for trial in state.search)]
    assert all(num_mem >= last.config.num_mem for num_mem in kept)


def test_a_search_lists_what_was_tried_in_words(search):
    html = search_html(search[-1])
    found = search[-1].result.vectors.num_mem
    assert html.count("<li") == len(search[-1].search)
    assert f"<b>K = {found}:</b> lossless" in html and "<b>K = 1:</b> " in html
    assert f"K = {found} is the fewest found" in status_html(search[-1])
    assert "Trying K = 1" in status_html(search[0]) and "<b>K = 1:</b> trying" in search_html(search[0])


def test_states_of_runs_and_searches_cross_to_another_process(search, states):
    for state in (*search[-2:], states[0]):
        assert ForkingPickler.loads(ForkingPickler.dumps(state)).words == state.words


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
