"""Handlers of the Compress tab, called as plain functions."""

import threading

import gradio as gr
import pytest

from cramdemo.catalogue import MODELS
from cramdemo.config import PRESETS, CramConfig
from cramdemo.errors import ConfigError
from cramdemo.ui import compress as module
from cramdemo.ui import shelf
from cramdemo.ui.card import Suggestions
from cramdemo.ui.compress import (
    MOST_ASKS,
    NOTHING,
    TASK,
    Outcome,
    about,
    ask_again,
    begin,
    check,
    check_more,
    config_of,
    expected_html,
    finish,
    preset_settings,
    remember,
    run,
    run_more,
    shorter_text,
    stop,
    whole,
    with_as_many,
    with_more,
)
from cramdemo.ui.count import Count, count_text
from cramdemo.ui.offer import entry_of
from cramdemo.ui.samples import read_samples
from cramdemo.ui.shelf import STOPS, WORKER
from cramdemo.vectors import from_bytes
from tests.ui.conftest import SOLVABLE, TINY


def settings(
    *,
    text=SOLVABLE,
    model=TINY,
    num_mem=4,
    search=False,
    preset="fast",
    steps=500,
    seconds=0,
    margin=1.0,
    init="auto",
):
    return text, model, num_mem, search, preset, steps, seconds, 0.1, margin, 0, "auto", init


def test_run_ends_with_a_card_and_the_bytes_of_a_file(tiny, request_of):
    shown = list(run(request_of, *settings()))
    status, curve, tokens, card, outcome = shown[-1]
    assert 'data-state="done"' in status and curve["d"].endswith(";") and set(tokens["m"]) == {"1"}
    assert "LOSSLESS" in card
    assert from_bytes(outcome.data).num_tokens == len(tokens["m"])
    assert outcome.name == f"tiny-{len(tokens['m'])}tok-k4.safetensors"
    assert all(item[4] is NOTHING for item in shown[:-1])
    assert all("LOSSLESS" not in item[3] for item in shown[:-1]), "said before it was verified"


def test_the_choice_of_start_reaches_the_run(tiny, request_of, warnings_shown):
    *_, shown = run(request_of, *settings(steps=1, init="embedding"))
    assert from_bytes(shown[4].data).config["init"] == "embedding"
    *_, shown = run(request_of, *settings(steps=1, init="encoder"))  # the tiny model has none
    assert "has no memory encoder" in shown[0]
    assert len(warnings_shown) == 1


def test_the_fewest_memory_tokens_are_found_whatever_k_says(tiny, request_of):
    *_, shown = run(request_of, *settings(num_mem=32, search=True, steps=300))
    found = from_bytes(shown[4].data).num_mem
    assert 1 < found < 32 and f"K = {found} is the fewest found" in shown[0] and "LOSSLESS" in shown[3]
    assert f"-k{found}.safetensors" in shown[4].name


def half(request_of, **changed):
    *_, shown = run(request_of, *settings(text="bad thinking, reader", num_mem=2, steps=30, **changed))
    assert shown[4].tries == Suggestions(3, 30, shown[4].tries.shorter)
    return shown[4]


@pytest.mark.parametrize("num_mem", [2, 3])
def test_a_run_goes_on_from_the_best_vectors_of_the_last(tiny, request_of, num_mem):
    before = half(request_of)
    asked = settings(text="bad thinking, reader", num_mem=num_mem, steps=40)
    assert 'data-state="waiting"' in next(check_more(request_of, before, *asked))
    first, *_, last = run_more(request_of, before, *asked)
    assert first[4] is before, "what cannot go on must lose nothing"
    found = from_bytes(last[4].data)
    assert (found.num_mem, found.config["init"]) == (num_mem, "given")
    if num_mem == 2:
        assert found.metrics["accuracy"] >= from_bytes(before.data).metrics["accuracy"]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"text": "another text"}, "The text is no longer the one of that run"),
        ({"num_mem": 1}, "The last run has 2 vectors"),
        ({"model": "cram-mini"}, "were made for tiny"),
    ],
    ids=["text", "K", "model"],
)
def test_a_run_cannot_go_on_with_what_is_not_the_same(tiny, request_of, warnings_shown, changed, sentence):
    before = half(request_of)
    asked = settings(**{"text": "bad thinking, reader", "num_mem": 2, **changed})
    *_, last = run_more(request_of, before, *asked)
    assert 'data-state="error"' in last[0] and sentence in last[0] and last[4] is before


def test_without_a_run_there_is_nothing_to_go_on_from(tiny, request_of):
    assert "no run to go on from" in next(check_more(request_of, NOTHING, *settings()))


@pytest.mark.parametrize("filling", [with_more, with_as_many])
def test_a_server_that_forgot_the_run_leaves_the_form_as_it_is(filling):
    assert filling(NOTHING, 7, True) == (7, True)
    assert shorter_text(NOTHING, "as it is") == "as it is"


def test_a_run_is_remembered_once_and_without_its_text(tiny, request_of):
    *_, shown = run(request_of, *settings(text="bad thinking, reader", steps=3))
    kept, outcome = remember([], shown[4])
    assert [run["num_mem"] for run in kept] == [4] and "thinking" not in str(kept)
    assert remember(kept, outcome) == (kept, outcome)


def test_streamed_channels_carry_plain_values_only(tiny, request_of):
    for status, curve, tokens, card, _ in run(request_of, *settings()):
        assert type(status) is type(card) is str and all(type(part) is str for part in curve.values())
        assert all(type(value) is str for value in tokens.values())


def test_stop_ends_the_run_with_its_best(tiny, request_of):
    begin(request_of)
    stream = run(request_of, *settings(text="bad thinking, " * 8, num_mem=1, steps=100_000))
    for shown in stream:
        if shown[1]:
            stop(request_of)
    assert "Stopped, the best vectors are kept" in shown[0]
    assert shown[4].data and shown[4].tries.num_mem == 2


def test_stop_pressed_while_waiting_is_not_forgotten(tiny, request_of):
    begin(request_of)
    stop(request_of)
    *_, shown = run(request_of, *settings(steps=100_000))
    assert "Stopped" in shown[0]


def test_flag_of_a_finished_run_is_forgotten(tiny, request_of):
    list(run(request_of, *settings()))
    assert not STOPS.current(request_of.session_hash, TASK).is_set()


def test_error_in_the_run_is_shown_in_the_status_and_as_a_toast(tiny, request_of, warnings_shown):
    *_, shown = run(request_of, *settings(text="x" * 200_000))
    assert 'data-state="error"' in shown[0] and "Shorten it." in shown[0]
    assert len(warnings_shown) == 1 and "Shorten it." in warnings_shown[0]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"text": ""}, "The text is empty."),
        ({"text": "sea " * 200}, "at most 124"),
        ({"model": "gpt-9"}, "There is no model 'gpt-9'"),
        ({"steps": 0}, "steps is 0; give a whole number from 1"),
        ({"steps": 2.5}, "steps is 2.5; give a whole number"),
        ({"margin": -1}, "margin is -1"),
        ({"seconds": -3}, "seconds is -3"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_cleared(tiny, request_of, changed, sentence):
    list(run(request_of, *settings(steps=1)))  # the model is in memory now
    stream = check(request_of, *settings(**changed))
    status = next(stream)
    assert 'data-state="error"' in status
    with pytest.raises(gr.Error) as caught:
        next(stream)
    assert sentence in caught.value.message.replace("&#x27;", "'")


def test_who_comes_to_a_run_past_its_check_is_refused_there(request_of, warnings_shown, monkeypatch):
    monkeypatch.setattr(shelf, "load_model", None)
    settings = ("x", "meta-llama/Llama-3.1-8B", 1, False, "fast", 10, 0, 0.1, 1.0, 0, "auto", "auto")
    *_, last = run(request_of, *settings)
    assert "Llama-3.1-8B cannot run here." in last[0]


def test_finish_shows_what_can_be_done_next():
    download, _, _, actions, tries, try_mem, try_steps, _ = finish(
        Outcome(b"data", "name.safetensors", Suggestions(num_mem=2)),
    )
    assert actions["visible"] and tries["visible"] and try_mem["value"] == "Continue with 2 memory tokens"
    assert not try_steps["visible"]
    assert download == gr.update(value=None, interactive=False)  # until there is this run's file


def test_finish_after_nothing_gives_the_buttons_back():
    _, compress, stop_button, actions, tries, *_ = finish(NOTHING)
    assert (compress["interactive"], stop_button["interactive"]) == (True, False)
    assert not actions["visible"] and not tries["visible"]


def test_config_of_untouched_widgets_is_the_default(tiny):
    default = CramConfig.for_model(MODELS["cram-mini"])
    found = config_of(
        model="cram-mini",
        num_mem=1.0,
        steps=float(default.steps),
        seconds=0,
        learning_rate=default.learning_rate,
        margin=default.margin,
        seed=0,
        precision="auto",
    )
    assert found == default


@pytest.mark.parametrize("model", ["cram-mini", TINY])
@pytest.mark.parametrize("preset", PRESETS)
def test_choosing_a_preset_shows_its_settings_and_a_run_with_them_is_the_preset(tiny, model, preset):
    steps, learning_rate, margin, init = preset_settings(model, preset)
    found = config_of(model, 2.0, preset, float(steps), 0, learning_rate, margin, 0, "auto", init)
    assert found == CramConfig.for_model(entry_of(model), preset=preset, num_mem=2)


def test_the_preset_reaches_the_run(tiny, request_of):
    *_, shown = run(request_of, *settings(steps=1, preset="most"))
    assert from_bytes(shown[4].data).config["optimizer"] == "whitened"


@pytest.fixture
def busy():
    """The model is in somebody's run."""
    release = threading.Event()
    WORKER.submit(release.wait)
    yield release
    release.set()


def test_a_page_that_met_a_busy_model_asks_again_until_it_is_free(tiny, busy):
    asked = ("the sea", TINY, 1, False)
    count_text("warm", TINY, 1)
    line, _, _, timer, asks = about(*asked, 100)
    assert "H_LM" not in line and timer.active and asks == 0
    line, timer, asks = ask_again(*asked, asks)
    assert "H_LM" not in line and timer.active and asks == 1
    assert not ask_again(*asked, MOST_ASKS)[1].active, "it must not ask for ever"
    busy.set()
    WORKER.submit(int).result()
    line, timer, _ = ask_again(*asked, asks)
    assert "H_LM" in line and not timer.active


def test_a_page_that_knows_all_does_not_ask(tiny):
    assert not about("the sea", TINY, 1, False, 100)[3].active
    assert not about("", TINY, 1, False, 100)[3].active


def test_the_expected_time_is_told_before_the_start(monkeypatch):
    monkeypatch.setattr(module, "expected_seconds", lambda entry, tokens, num_mem, steps, machine: tokens * steps)
    count = Count(40, 1000, 2, tokens=10)
    assert "a run takes <b>at most about 20 s</b> (2 steps)" in expected_html("cram-mini", count, search=False, steps=2)
    assert "each K tried takes <b>at most about 20 s" in expected_html("cram-mini", count, search=True, steps=2)
    assert "once there is a text" in expected_html("cram-mini", Count(0, 0, 2), search=False, steps=2)


def test_whole_takes_only_whole_floats():
    assert whole(8.0) == 8 and type(whole(8.0)) is int
    assert whole(8.5) == 8.5 and whole(None) is None


def test_samples_fit_the_page_and_come_back_from_the_built_in_tokenizer(built_in):
    samples = read_samples()
    assert samples[0].num_mem == CramConfig().num_mem
    for sample in samples:
        config_of("cram-mini", sample.num_mem)
        assert len(built_in.tokenize(sample.text)) <= built_in.max_tokens(sample.num_mem)


def test_settings_out_of_range_name_the_setting():
    with pytest.raises(ConfigError, match="num_mem is 999"):
        config_of("cram-mini", 999)


def test_whatever_writes_the_count_line_answers_in_the_order_of_the_questions() -> None:
    """A page that asks again for a busy model must not overwrite what was typed since."""
    with gr.Blocks() as page:
        module.tab(1)
    (count,) = [block for block in page.blocks.values() if getattr(block, "elem_id", None) == "count"]
    writers = [fn for fn in page.fns.values() if count in fn.outputs]
    assert len(writers) > 3
    assert {(fn.concurrency_id, fn.concurrency_limit, fn.queue) for fn in writers} == {("count", 1, True)}
