"""The job runner: nothing is lost that must not be, one run at a time, and faults become sentences."""

import logging
import threading
import time
from collections.abc import Iterator

import pytest

from cramdemo.errors import CramError, TextError
from cramdemo.ui.jobs import StopFlags, Worker


def counting(until: int, stop: threading.Event) -> Iterator[int]:
    for number in range(until):
        if stop.is_set():
            return
        yield number
        time.sleep(0.001)


def test_last_item_arrives_although_faster_ones_before_it_are_dropped():
    stop = threading.Event()
    found = list(Worker().stream(counting, 200, stop=stop))
    assert found[-1] == 199
    assert found == sorted(set(found)), "an item came twice or out of order"
    assert len(found) < 50, "the stream is not throttled"


def test_last_item_of_a_slow_reader_is_the_newest():
    stop = threading.Event()
    stream = Worker().stream(counting, 300, stop=stop)
    first = next(stream)
    time.sleep(1.0)
    assert list(stream)[-1] == 299 > first


def test_two_runs_never_overlap():
    worker, running, most = Worker(), [], []

    def work(_: threading.Event) -> Iterator[int]:
        running.append(1)
        most.append(len(running))
        time.sleep(0.05)
        yield 0
        running.pop()

    def read() -> None:
        list(worker.stream(work, stop=threading.Event()))

    readers = [threading.Thread(target=read, daemon=True) for _ in range(4)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(10)
    assert most == [1, 1, 1, 1]
    assert worker.idle


def test_every_run_is_on_the_same_thread():
    worker = Worker()
    names = [worker.submit(lambda: threading.get_ident()).result() for _ in range(3)]
    assert len(set(names)) == 1 and names[0] != threading.get_ident()


def test_closing_the_stream_stops_the_run_and_frees_the_thread():
    worker, stop = Worker(), threading.Event()
    stream = worker.stream(counting, 10**9, stop=stop)
    next(stream)
    stream.close()
    assert worker.submit(lambda: "free").result(timeout=5) == "free"


def test_run_that_waits_for_its_turn_can_be_stopped():
    worker, busy, stop = Worker(), threading.Event(), threading.Event()
    worker.submit(busy.wait)
    threading.Timer(0.1, stop.set).start()
    started = time.monotonic()
    assert list(worker.stream(counting, 10**9, stop=stop)) == []
    assert time.monotonic() - started < 5
    busy.set()


def test_errors_made_for_users_pass_through():
    def fail(_: threading.Event) -> Iterator[int]:
        yield 1
        raise TextError("The text is odd.")

    with pytest.raises(TextError, match=r"^The text is odd\.$"):
        list(Worker().stream(fail, stop=threading.Event()))


def test_other_errors_become_one_sentence_that_quotes_nothing(caplog):
    def fail(_: threading.Event) -> Iterator[int]:
        yield 1
        raise RuntimeError("secret text at /srv/secret.py")

    with caplog.at_level(logging.ERROR), pytest.raises(CramError) as caught:
        list(Worker().stream(fail, stop=threading.Event()))
    said = str(caught.value) + caplog.text
    assert "RuntimeError" in said
    assert "secret" not in said and "/" not in str(caught.value)


def test_short_question_is_not_asked_while_a_run_is_going():
    worker, busy = Worker(), threading.Event()
    assert worker.ask(lambda: 7, seconds=5) == 7
    worker.submit(busy.wait)
    assert worker.ask(lambda: 7, seconds=5) is None
    busy.set()


def test_stop_reaches_the_run_of_that_session_and_task_only():
    flags = StopFlags()
    mine, decoding, other = flags.begin("a", "compress"), flags.begin("a", "decode"), flags.begin("b", "compress")
    flags.stop("a", "compress")
    assert (mine.is_set(), decoding.is_set(), other.is_set()) == (True, False, False)


def test_new_run_stops_the_old_one_and_its_end_leaves_the_new_one_alone():
    flags = StopFlags()
    old = flags.begin("a", "compress")
    new = flags.begin("a", "compress")
    assert old.is_set() and not new.is_set()
    flags.end("a", "compress", old)
    assert flags.current("a", "compress") is new


def test_closed_tab_stops_everything_of_its_session():
    flags = StopFlags()
    mine, decoding, other = flags.begin("a", "compress"), flags.begin("a", "decode"), flags.begin("b", "compress")
    flags.forget("a")
    assert (mine.is_set(), decoding.is_set(), other.is_set()) == (True, True, False)
