"""The page as on a ZeroGPU Space: the real `spaces` and its forked children, with a scheduler that is made here."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
import spaces
import torch
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from cramdemo import FrozenLM, ModelError, decode, load
from cramdemo.ui import zero
from cramdemo.ui.pace import MAX_SECONDS
from cramdemo.ui.zero import SharedFlag, Zero, loan_sentence
from tests.ui.conftest import SOLVABLE, TINY
from tests.ui.scheduler import Scheduler
from tests.ui.zero_space import PLANTED

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 90.0
ENDLESS = {"num_mem": 1, "steps": 100_000, "margin": 90.0}
HARD = "bad thinking, " * 8
PATIENCE = 20.0


class Space:
    """A running page and a client of it."""

    def __init__(self, scheduler: Scheduler, process: subprocess.Popen[str], folder: Path) -> None:
        self.scheduler, self._process = scheduler, process
        self._said: list[str] = []
        assert process.stdout is not None
        too_late = threading.Timer(START_SECONDS, process.kill)  # else a page that never starts would hang the suite
        too_late.start()
        address = next(line.split()[1] for line in process.stdout if self._said.append(line) or line.startswith("url "))
        too_late.cancel()
        threading.Thread(target=self._said.extend, args=(process.stdout,), daemon=True).start()
        self.client = Client(address, verbose=False, download_files=folder)

    def said(self) -> str:
        """All that stands in its log."""
        return "".join(self._said)

    def handler(self, name: str) -> dict[str, int]:
        """A handler of the page by its function's name, which only browsers call."""
        index = next(i for i, endpoint in self.client.endpoints.items() if endpoint.api_name == f"/{name}")
        self.client.endpoints[index].is_valid = True
        return {"fn_index": index}

    def given_back(self) -> bool:
        """No GPU is lent any more."""
        return until(lambda: not self.scheduler.lent)

    def kill_the_child(self) -> None:
        """As the platform does when the time is over."""
        (gpu,) = self.scheduler.lent.values()
        os.kill(self.scheduler.children[gpu], signal.SIGKILL)


def until(true: Callable[[], Any]) -> bool:
    """Whether it comes true."""
    end = time.monotonic() + PATIENCE
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    return bool(true())


@pytest.fixture(scope="module")
def space(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Space]:
    folder = tmp_path_factory.mktemp("space")
    scheduler = Scheduler()
    places = {name: str(folder / name) for name in ("HOME", "TMPDIR", "HF_HOME", "GRADIO_TEMP_DIR", "XDG_CACHE_HOME")}
    Path(places["TMPDIR"]).mkdir()
    settings = {
        "SPACES_ZERO_GPU": "true",
        "SPACES_ZERO_DEVICE_API_URL": scheduler.url,
        "ZEROGPU_OFFLOAD_DIR": str(folder / "tensors"),
        "CRAMDEMO_MODELS": f"{TINY}, no/such-model",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.ui.zero_space", str(tiny_folder)],
        cwd=ROOT,
        env=os.environ | places | settings,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        found = Space(scheduler, process, folder / "downloads")
        yield found
        found.client.close()
        process.communicate(timeout=PATIENCE)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its children too, if it could not end them
        scheduler.close()


def begun(space: Space, **changed: Any) -> Any:
    """A run that would take for ever, which has reported some steps."""
    job = space.client.submit(**({"text": HARD, "model": TINY} | ENDLESS | changed), api_name="/compress")
    assert until(lambda: [item for item, _ in job.outputs() if item["step"]])
    return job


def test_text_is_crammed_and_decoded_on_lent_gpus(space: Space, tiny_lm: FrozenLM) -> None:
    before = len(space.scheduler.asked)
    job = space.client.submit(SOLVABLE, 4, 500, model=TINY, api_name="/compress")
    summary, path = job.result(timeout=PATIENCE)
    assert summary["lossless"] and summary["reason"] == "solved"
    assert len(job.outputs()) > 1
    assert decode(tiny_lm, load(path)).text == SOLVABLE, "the child had another model"
    answer = space.client.predict(handle_file(path), api_name="/decode")
    assert answer == {"text": SOLVABLE, "num_tokens": summary["num_tokens"], "lossless": True}
    asked = space.scheduler.asked[before:]
    assert len(asked) == 2 and all(0 < seconds <= MAX_SECONDS for seconds in asked)
    assert space.given_back()


def test_run_ends_itself_within_its_time(space: Space) -> None:
    summary, path = begun(space, seconds=1).result(timeout=PATIENCE)
    assert summary["reason"] == "seconds" and summary["verified"]
    assert space.scheduler.asked[-1] < MAX_SECONDS
    assert load(path).config["seconds"] == 1
    assert space.given_back()


def test_two_runs_have_a_gpu_each(space: Space) -> None:
    first = begun(space, seconds=3)
    second = begun(space, seconds=3)
    assert len(space.scheduler.lent) == 2 and not first.done()
    assert first.result(timeout=PATIENCE) and second.result(timeout=PATIENCE)


def test_stopped_run_is_verified_on_its_gpu_which_is_given_back(space: Space) -> None:
    client = space.client
    client.predict(**space.handler("begin"))
    settings = (HARD, TINY, 1, False, "fast", 100_000, 0, 0.1, 90.0, 0, "auto", "auto")
    job = client.submit(*settings, **space.handler("run"))
    assert until(lambda: [shown for shown in job.outputs() if shown[1]["d"].count(";") > 5])
    client.predict(**space.handler("stop"))
    status, _, _, card = job.result(timeout=PATIENCE)
    assert "Stopped, the best vectors are kept" in status
    assert "tokens decoded." in card and "Checked on CPU in float32" in card
    assert space.given_back()


@pytest.mark.parametrize(("model", "verified"), [("cram-mini", True), (TINY, False)])
def test_gpu_taken_back_leaves_the_best_vectors(space: Space, tmp_path: Path, model: str, verified: bool) -> None:
    """Verified by this process where it has the model on its CPU, and never called lossless without."""
    job = begun(space, model=model)
    space.kill_the_child()
    summary, path = job.result(timeout=PATIENCE)
    progress, _ = job.outputs()[-2]
    vectors = load(path)
    assert summary["done"] and summary["reason"] == "cut off" and not summary["lossless"]
    assert [(check["device"], check["dtype"]) for check in summary["verified"]] == [("cpu", "float32")] * verified
    assert len(vectors.verified) == verified
    assert vectors.num_tokens == progress["num_tokens"]
    assert 0 <= vectors.config["steps_done"] <= progress["step"]
    assert space.given_back()


def test_reader_who_goes_away_gives_the_gpu_back(space: Space) -> None:
    job = begun(space)
    assert space.scheduler.lent
    job.cancel()
    assert space.given_back()


def test_fault_in_the_child_is_one_sentence_that_quotes_nothing(space: Space) -> None:
    with pytest.raises(AppError, match=r"Something went wrong inside the program \(RuntimeError\)") as caught:
        space.client.predict(f"my secret {PLANTED}", model="cram-mini", api_name="/compress")
    assert until(lambda: "unexpected RuntimeError at" in space.said())
    for said in (str(caught.value), space.said()):
        assert "secret" not in said and "Traceback" not in said
    assert space.given_back()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"text": ""}, "The text is empty."),
        ({"text": "sea " * 300}, "at most 127"),
        ({"text": "x", "model": "EleutherAI/pythia-160m"}, "There is no model 'EleutherAI"),
    ],
)
def test_what_cannot_run_costs_no_gpu(space: Space, arguments: dict[str, str], sentence: str) -> None:
    before = len(space.scheduler.asked)
    with pytest.raises(AppError, match=sentence):
        space.client.predict(**({"model": TINY} | arguments), api_name="/compress")
    assert len(space.scheduler.asked) == before


def test_visitor_without_quota_is_told_so(space: Space) -> None:
    space.scheduler.refusal = {"left": 3, "wait": 3600}
    try:
        with pytest.raises(AppError, match=r"^No GPU was lent: .+ A smaller time budget asks for less\.$"):
            space.client.predict(SOLVABLE, model=TINY, api_name="/compress")
    finally:
        space.scheduler.refusal = None


def test_text_is_counted_without_a_gpu(space: Space) -> None:
    before = len(space.scheduler.asked)
    count = space.handler("about")
    assert "H_LM" in space.client.predict(SOLVABLE, "cram-mini", 1, False, 10, **count)[0]
    other = space.client.predict(SOLVABLE, TINY, 1, False, 10, **count)[0]
    assert "11 tokens" in other and "H_LM" not in other, "only a GPU could say that of a listed model"
    assert len(space.scheduler.asked) == before


def test_page_says_how_long_a_gpu_is_lent_and_the_log_what_is_missing(space: Space) -> None:
    assert f"at most {MAX_SECONDS:.0f} seconds" in str(space.client.config)
    assert "no/such-model is not on offer" in space.said()


def test_elsewhere_nothing_is_lent() -> None:
    assert spaces.GPU(duration=zero._asked)(zero._in_child) is zero._in_child is zero._on_lent_gpu
    assert not zero.ON_ZERO


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.bool, torch.int64])
@pytest.mark.parametrize("shape", [(2, 3), (0, 3), ()])
def test_tensors_cross_by_value(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    make, parts = zero._by_value(tensor.mT if len(shape) == 2 else tensor)
    assert not any(isinstance(part, torch.Tensor) for part in parts)
    again = make(*parts)
    Zero()
    assert ForkingPickler(io.BytesIO()).dispatch_table[torch.Tensor] is zero._by_value
    assert again.dtype == dtype and torch.equal(again, tensor.mT if len(shape) == 2 else tensor)


@pytest.mark.parametrize(
    ("title", "message", "sentence"),
    [
        ("ZeroGPU worker error", "GPU task aborted", "The GPU was taken back before the work was done."),
        ("ZeroGPU worker error", "OSError", "Something went wrong on the GPU (OSError)."),
        (
            "ZeroGPU quota exceeded",
            "You have 3 s left. ",
            "No GPU was lent: You have 3 s left. A smaller time budget asks for less.",
        ),
        ("ZeroGPU queue timeout", "No GPU after 60s.", "No GPU was lent: No GPU after 60s."),
    ],
)
def test_every_refusal_is_a_sentence(title: str, message: str, sentence: str) -> None:
    assert loan_sentence(gr.Error(message, title=title)) == sentence


@pytest.fixture
def lend(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Iterator[Any]]], None]:
    """Put something in the place of the loan."""
    return lambda loan: monkeypatch.setattr(zero, "_on_lent_gpu", loan)


def test_stop_while_waiting_for_a_gpu_does_not_wait_on(lend: Callable[..., None]) -> None:
    lent, used, closed, stop = threading.Event(), threading.Event(), threading.Event(), threading.Event()

    def loan(*_: Any) -> Iterator[int]:
        lent.wait(PATIENCE)
        try:
            yield 1
            used.set()
        finally:
            closed.set()

    lend(loan)
    threading.Timer(0.05, stop.set).start()
    assert list(Zero().stream(iter, stop=stop)) == []
    assert not lent.is_set()
    lent.set()
    assert closed.wait(PATIENCE) and not used.is_set(), "the GPU is used for nobody"


def test_stop_before_anything_asks_for_no_gpu(lend: Callable[..., None]) -> None:
    asked: list[Any] = []
    lend(lambda *loan: asked.append(loan))
    stop = threading.Event()
    stop.set()
    assert list(Zero().stream(iter, stop=stop)) == []
    assert not asked


def test_the_visitor_whose_quota_it_is_comes_along(lend: Callable[..., None]) -> None:
    from gradio.context import LocalContext

    def loan(*_: Any) -> Iterator[Any]:
        yield LocalContext.request.get(None)

    lend(loan)
    visitor: Any = object()
    before = LocalContext.request.set(visitor)
    try:
        assert list(Zero().stream(iter, stop=threading.Event())) == [visitor]
    finally:
        LocalContext.request.reset(before)


def test_seconds_asked_are_whole_and_never_too_few(lend: Callable[..., None]) -> None:
    lend(lambda *loan: (zero._asked(*loan) for _ in range(1)))
    assert list(Zero().stream(iter, stop=threading.Event(), seconds=7.2)) == [8]


def test_error_of_the_task_is_raised_as_it_was(lend: Callable[..., None]) -> None:
    lend(zero._in_child)

    def fail(_: SharedFlag) -> Iterator[int]:
        yield 1
        raise ModelError("It is too small.")

    stream = Zero().stream(fail, stop=threading.Event())
    with pytest.raises(ModelError, match=r"^It is too small\.$"):
        list(stream)


def test_flags_are_apart() -> None:
    mine, other = SharedFlag(), SharedFlag()
    mine.set()
    assert mine.is_set() and not other.is_set()
