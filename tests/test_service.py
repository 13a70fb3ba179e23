"""The real program as its visitors meet it: many at once, for a long time, and with nobody else to talk to.

By hand, the long form: `make soak`.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client

from cramdemo.bench.proof import THREAD_COUNTS, new_process_row
from cramdemo.ui import shutdown
from cramdemo.ui.page import SESSIONS
from cramdemo.vectors import from_bytes
from tests.service import Service, children_of, memory_of, running_app, threads_of, vectors_of

VISITORS = 20
ROUNDS = int(os.environ.get("SOAK_ROUNDS", "20"))
SETTLED = 30  # rounds after which memory counts
GROWTH_BYTES = 30e6
PACE = 0.95  # of the last rounds over the first ones, in steps a second
PACED = 30  # rounds of either; a run of fewer than both tells nothing of a pace
WORDS = ("river", "lamp", "village", "winter", "garden", "letter", "morning", "bridge", "harbour", "candle")
HARD_TEXT = " ".join(str(7919 * i % 10007) for i in range(24))  # no vector holds it
WATCHFUL = """
import runpy, sys
def watch(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    elif event in ("socket.sendto", "socket.sendmsg") and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    if host not in (None, "", "127.0.0.1", "localhost", "::1", "0.0.0.0"):
        print(f"OUTSIDE {event} {host}", flush=True)
sys.addaudithook(watch)
sys.argv = ["app.py"]
runpy.run_path("app.py", run_name="__main__")
"""


def text_of(number: int) -> str:
    """A text of its own for each visitor."""
    return f"{WORDS[number % 10].capitalize()} {number}: the {WORDS[(number * 7 + 3) % 10]} was old."


@pytest.fixture(scope="module")
def app() -> Iterator[tuple[str, Service]]:
    with running_app("-c", WATCHFUL) as (url, process):
        yield url, process


def _round_trip(url: str, text: str, num_mem: int = 4, preset: str = "fast") -> tuple[dict[str, Any], dict[str, Any]]:
    client = Client(url, verbose=False, download_files=False, ssl_verify=False)  # else it reads all certificates first
    report, _ = client.predict(text, num_mem, preset=preset, as_base64=True, api_name="/compress")
    return report, client.predict(vectors_base64=report["vectors_base64"], api_name="/decode")


def test_each_of_twenty_visitors_at_once_gets_exactly_their_own_text_back(
    app: tuple[str, Service],
) -> None:
    url, process = app
    _round_trip(url, text_of(99))
    threads, folders = threads_of(process), _left_behind(process)
    found: dict[int, str] = {}

    def visit(number: int) -> None:
        report, decoded = _round_trip(url, text_of(number))
        assert report["lossless"] and decoded["lossless"]
        found[number] = decoded["text"]

    visitors = [threading.Thread(target=visit, args=(number,)) for number in range(VISITORS)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join(300)
    assert found == {number: text_of(number) for number in range(VISITORS)}
    assert threads_of(process) <= threads + 40, "gradio's pool has 40; whatever is more was left behind"
    assert _left_behind(process) == folders, "a folder for a run's file was left behind"
    assert children_of(process) == []


def test_rounds_leave_nothing_behind_and_stay_right(app: tuple[str, Service], tmp_path: Path) -> None:
    """One vector from a random start, so that there is something to optimise."""
    url, process = app
    settled, paces, texts = 0, [], {}
    for number in range(ROUNDS):
        begun = time.perf_counter()
        report, decoded = _round_trip(url, text_of(number), num_mem=1, preset="most")
        paces.append(report["steps"] / report["seconds"])
        print(f"round {number}: {paces[-1]:.0f} steps/s, {time.perf_counter() - begun:.2f} s, {memory_of(process):,} B")
        assert report["lossless"] and decoded["text"] == text_of(number)
        (tmp_path / f"{number}.safetensors").write_bytes(vectors_of(report))
        texts[f"{number}.safetensors"] = text_of(number)
        if number == min(SETTLED, ROUNDS // 2):
            settled = memory_of(process)
    assert memory_of(process) - settled < GROWTH_BYTES
    assert _left_behind(process) == []
    counts = THREAD_COUNTS if ROUNDS >= 2 * PACED else THREAD_COUNTS[-1:]  # the server has decoded each with one
    assert {new_process_row(tmp_path, texts, threads)["share"] for threads in counts} == {1.0}
    if ROUNDS >= 2 * PACED:
        assert sum(paces[-PACED:]) >= PACE * sum(paces[:PACED])


def test_visitors_who_are_gone_take_no_memory(app: tuple[str, Service]) -> None:
    url, process = app
    with httpx.Client(base_url=url, trust_env=False) as line:
        for number in range(2 * SESSIONS + 20):
            if number == SESSIONS:
                settled = memory_of(process)
            asked = line.post("/gradio_api/call/v2/models", json={})
            answer = line.get(f"/gradio_api/call/models/{asked.json()['event_id']}")
            assert "cram-mini" in answer.text
    assert memory_of(process) - settled < GROWTH_BYTES


def test_nobody_outside_was_asked(app: tuple[str, Service]) -> None:
    """Of all that the tests above did."""
    _, process = app
    assert process.said and not [line for line in process.said if line.startswith("OUTSIDE")]


def test_the_watch_sees_who_asks_outside() -> None:
    asking = "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('192.0.2.1', 9))"
    program = WATCHFUL.split("sys.argv", maxsplit=1)[0] + asking
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert "OUTSIDE socket.connect 192.0.2.1" in done.stdout


def test_no_text_is_in_the_log(app: tuple[str, Service]) -> None:
    _, process = app
    said = "".join(process.said)
    assert not re.search("|".join(f"{word} was old" for word in WORDS), said)


def test_a_run_s_best_vectors_are_delivered_before_the_server_ends(app: tuple[str, Service]) -> None:
    """SIGTERM with a run going; the last test here, since the server is gone then."""
    url, process = app
    job = Client(url, verbose=False, ssl_verify=False).submit(HARD_TEXT, 1, as_base64=True, api_name="/compress")
    while not any(report.get("step", 0) > 2 for report, _ in job.outputs()):
        time.sleep(0.05)
        assert not job.done(), job.result()
    process.send_signal(signal.SIGTERM)
    assert job.exception(timeout=30) is None
    report, _ = job.outputs()[-1]
    assert process.wait(30) == 0
    assert shutdown.RUN_SECONDS + shutdown.DELIVERY_SECONDS + shutdown.EXIT_SECONDS < 5
    assert report["reason"] == "stopped" and not report["lossless"]
    assert from_bytes(vectors_of(report), "its file").num_mem == 1


def _left_behind(process: Service) -> list[str]:
    """Folders that runs made for their files and that are still there; gradio's own cache is not ours."""
    return [path.name for path in Path(process.folder).glob("cramdemo-*")]
