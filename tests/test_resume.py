"""Checkpoints: a run that was cut off anywhere ends with the bits it would have had, and a file is only data."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import importlib
import json
import math
import os
import shutil
import signal
import struct
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cramdemo import ConfigError, CramConfig, CramResult, FrozenLM, Progress, cram
from cramdemo import resume as module
from cramdemo.cli import main
from cramdemo.resume import NAMES, Checkpoint, Checkpoints, State, check_folder, to_bytes
from cramdemo.tensorfile import read_header
from cramdemo.vectors import to_bytes as vector_bytes
from tests.kills import Place, killed_after_checkpoints, killed_in_a_write

ENGINE: Any = importlib.import_module("cramdemo.cram")
HARD = list(range(5, 295, 7))  # 42 tokens that a few steps cannot put into one vector
STEPS = 9
KINDS: dict[str, dict[str, Any]] = {
    "adam, growth, boost": {"optimizer": "adam", "growth": 2},
    "whitened, growth, boost": {"optimizer": "whitened", "growth": 2},
    "restarts": {"restarts": 3, "growth": 4, "num_mem": 2},
    "whitened, restarts": {"restarts": 2, "optimizer": "whitened", "growth": 0},
    "plain": {"boost": 0.0, "growth": 0, "temperature": 0.5, "warmup_steps": 0},
    "patience": {"patience": 4, "growth": 0, "learning_rate": 3.0},
    "tokens left out": {"num_mem": 6, "growth": 0, "margin": 0.01},
    "tokens left out, growth": {"num_mem": 6, "growth": 1, "margin": 0.01, "restarts": 2},
}
Items = tuple[list[Progress], CramResult]


@pytest.fixture(autouse=True)
def _a_checkpoint_after_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(module, "SHARE", math.inf)


@pytest.fixture
def heavy_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the head were worth leaving tokens out for, and one token were enough of them."""
    monkeypatch.setattr(ENGINE, "WORTHWHILE_HEAD", 0.0)
    monkeypatch.setattr("cramdemo.record.WORTHWHILE_TOKENS", 1.0)
    monkeypatch.setattr("cramdemo.record.WELL_SOLVED", -1.0)


class _Cut(Exception):  # noqa: N818
    """What ends a run in the middle."""


def _cut_at(look: int) -> Callable[[], bool]:
    """A Stop that raises at a look, counted from 0."""
    looks = count()

    def stop() -> bool:
        if next(looks) == look:
            raise _Cut
        return False

    return stop


def _split(items: Iterator[Progress | CramResult]) -> Items:
    *progress, result = items
    assert isinstance(result, CramResult)
    return [p for p in progress if isinstance(p, Progress)], result


def _all_but_time(items: Items) -> dict[str, Any]:
    """All that a run tells, but the seconds: the curve point by point, the last progress, the result, the file."""
    progress, result = items
    last = dataclasses.asdict(dataclasses.replace(progress[-1], best=None))
    tensors = {name: getattr(result, name).tolist() for name in ("token_bits", "token_margins", "token_predicted")}
    return {
        "curve": [point for p in progress for point in p.curve],
        "last": {name: value for name, value in last.items() if name not in ("seconds", "curve", "best", "notice")},
        "summary": {name: value for name, value in result.summary().items() if name != "seconds"},
        "file": vector_bytes(result.vectors),
        **tensors,
    }


def _cut_and_resumed(run: Callable[..., Iterator[Progress | CramResult]], folder: Path, look: int) -> Items:
    """A run that is cut off at a look, and then called again."""
    with pytest.raises(_Cut):
        list(run(stop=_cut_at(look), checkpoint=folder))
    assert len(list(folder.iterdir())) == min(look, 2)
    items = _split(run(checkpoint=folder))
    assert items[0][0].step == look
    assert bool(items[0][0].notice) is (look > 0)
    assert list(folder.iterdir()) == []
    return items


# ---- resumed at every step


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("every_step")
def test_a_run_cut_off_at_any_step_ends_as_if_it_had_not_been(
    tiny_lm: FrozenLM, tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    if kind.startswith("tokens left out"):
        request.getfixturevalue("heavy_head")
    config = CramConfig(**{"steps": STEPS, "seed": 2, **KINDS[kind]})

    def run(**settings: Any) -> Iterator[Progress | CramResult]:
        return cram(tiny_lm, HARD, config, **settings)

    alone = _split(run())
    for look in range(alone[1].steps):
        assert _all_but_time(_cut_and_resumed(run, tmp_path / str(look), look)) == _all_but_time(alone)


@pytest.mark.usefixtures("every_step")
def test_so_does_one_cut_off_while_its_result_is_judged(
    tiny_lm: FrozenLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(**given: Any) -> Iterator[Progress | CramResult]:
        return cram(tiny_lm, HARD, CramConfig(steps=STEPS, growth=2), **given)

    def cut(*_: Any, **__: Any) -> None:
        raise _Cut

    alone = _split(run())
    with monkeypatch.context() as late:
        late.setattr(ENGINE, "judge", cut)
        with pytest.raises(_Cut):
            list(run(checkpoint=tmp_path))
    resumed = _split(run(checkpoint=tmp_path))
    assert resumed[0][0].step == STEPS
    assert _all_but_time(resumed) == _all_but_time(alone)


@pytest.mark.parametrize("settings", [{}, {"optimizer": "whitened", "restarts": 2}], ids=str)
@pytest.mark.usefixtures("every_step")
def test_so_does_one_on_the_built_in_model_from_its_encoder(
    built_in: FrozenLM, tmp_path: Path, settings: dict[str, Any]
) -> None:
    config = CramConfig.for_model(built_in, steps=4, num_mem=2, margin=50.0, init="encoder", **settings)

    def run(**given: Any) -> Iterator[Progress | CramResult]:
        return cram(built_in, HARD, config, **given)

    alone = _split(run())
    for look in range(4):
        assert _all_but_time(_cut_and_resumed(run, tmp_path / str(look), look)) == _all_but_time(alone)


@pytest.mark.usefixtures("every_step")
def test_so_does_one_from_given_vectors_which_stay_as_they_are(tiny_lm: FrozenLM, tmp_path: Path) -> None:
    start = torch.randn(2, tiny_lm.hidden_size, generator=torch.Generator().manual_seed(5))
    before = start.clone()

    def run(**given: Any) -> Iterator[Progress | CramResult]:
        return cram(tiny_lm, HARD, CramConfig(num_mem=2, steps=STEPS), start=start, **given)

    alone = _split(run())
    for look in (1, 5, STEPS - 1):
        assert _all_but_time(_cut_and_resumed(run, tmp_path / str(look), look)) == _all_but_time(alone)
    assert torch.equal(start, before)


@pytest.mark.usefixtures("every_step")
def test_so_does_one_whose_proof_fails_first(
    tiny_lm: FrozenLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It then asks for twice the margin, and takes the step again."""
    real = ENGINE._verify

    def strict(*arguments: Any) -> Any:
        checks = real(*arguments)
        return [dataclasses.replace(check, lossless=check.min_margin > 4) for check in checks]

    monkeypatch.setattr(ENGINE, "_verify", strict)

    def run(**given: Any) -> Iterator[Progress | CramResult]:
        return cram(tiny_lm, "The old", CramConfig(num_mem=4, steps=60, margin=0.05, growth=0), **given)

    alone = _split(run())
    steps = [step for p in alone[0] for step, _, _ in p.curve]
    twice = [step for step in steps if steps.count(step) == 2]
    assert twice and len(set(steps)) > twice[0] + 3
    for look in (twice[0], twice[0] + 1, twice[0] + 2):
        with pytest.raises(_Cut):
            list(run(stop=_cut_at(look), checkpoint=tmp_path / str(look)))
        assert _all_but_time(_split(run(checkpoint=tmp_path / str(look)))) == _all_but_time(alone)


@pytest.mark.usefixtures("every_step")
def test_a_run_cut_off_at_every_step_in_turn_ends_the_same(tiny_lm: FrozenLM, tmp_path: Path) -> None:
    def run(**given: Any) -> Iterator[Progress | CramResult]:
        return cram(tiny_lm, HARD, CramConfig(steps=STEPS, optimizer="whitened", growth=2, restarts=2), **given)

    for step in range(STEPS):
        items = run(checkpoint=tmp_path)
        first = next(items)
        assert isinstance(first, Progress) and first.step == step
        items.close()  # type: ignore[attr-defined]  # it is a generator
    assert _all_but_time(_split(run(checkpoint=tmp_path))) == _all_but_time(_split(run()))


@pytest.mark.usefixtures("every_step")
def test_one_restart_that_diverged_is_no_damage(tiny_lm: FrozenLM, tmp_path: Path) -> None:
    config = CramConfig(steps=STEPS, restarts=2, growth=0)
    items = cram(tiny_lm, HARD, config, checkpoint=tmp_path)
    list(islice(items, 3))
    spoilt = ENGINE._Run(tiny_lm, HARD, config.filled(tiny_lm))
    checkpoints = Checkpoints(tmp_path, spoilt.identity())
    checkpoints.resume(spoilt)
    spoilt.mem[1] = math.nan
    list(islice(spoilt.items(lambda: False, checkpoints), 2))
    fresh = ENGINE._Run(tiny_lm, HARD, config.filled(tiny_lm))
    Checkpoints(tmp_path, fresh.identity()).resume(fresh)
    assert bool(fresh.mem[1].isnan().all()) and bool(fresh.mem[0].isfinite().all())
    assert _split(cram(tiny_lm, HARD, config, checkpoint=tmp_path))[1].reason == "steps"


# ---- stopping, ending, and what stays


@pytest.mark.parametrize("look", [0, 3, STEPS - 1, STEPS])
@pytest.mark.usefixtures("every_step")
def test_a_stopped_run_keeps_its_very_last_step_and_goes_on(
    tiny_lm: FrozenLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look: int
) -> None:
    def run(**given: Any) -> Iterator[Progress | CramResult]:
        return cram(tiny_lm, HARD, CramConfig(steps=STEPS, growth=2), **given)

    alone = _split(run())
    monkeypatch.setattr(module, "LEAST_SECONDS", 1000.0)  # so that only Stop writes one
    looks = count()
    stopped = _split(run(stop=lambda: next(looks) >= look, checkpoint=tmp_path))
    assert (stopped[1].reason, stopped[1].steps) == ("stopped" if look < STEPS else "steps", look)
    assert len(list(tmp_path.iterdir())) == (look < STEPS)
    resumed = _split(run(checkpoint=tmp_path))
    assert resumed[0][0].step == (look + 1 if look < STEPS else 0)
    assert _all_but_time(resumed) == _all_but_time(alone)


def test_files_go_only_when_the_result_has_been_taken(tiny_lm: FrozenLM, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    items = cram(tiny_lm, HARD, CramConfig(steps=STEPS), checkpoint=tmp_path)
    for item in items:
        if isinstance(item, CramResult):
            assert {path.name for path in tmp_path.iterdir()} == {"mine.txt", *NAMES}
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_run_out_of_memory_goes_on_when_there_is_some(
    tiny_lm: FrozenLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CramConfig(steps=STEPS, growth=0)
    alone = _split(cram(tiny_lm, HARD, config))
    real, calls = ENGINE.score, count()

    def score(*arguments: Any, **settings: Any) -> Any:
        if next(calls) == 5:
            raise torch.OutOfMemoryError
        return real(*arguments, **settings)

    with monkeypatch.context() as full:
        full.setattr(ENGINE, "score", score)
        assert _split(cram(tiny_lm, HARD, config, checkpoint=tmp_path))[1].reason == "memory"
    resumed = _split(cram(tiny_lm, HARD, config, checkpoint=tmp_path))
    assert resumed[0][0].step == 5
    assert _all_but_time(resumed) == _all_but_time(alone)


def test_seconds_go_on_and_so_does_the_budget(
    tiny_lm: FrozenLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that goes a hundredth of a second each time it is asked."""
    ticks = count()
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(ticks) / 100)
    config = CramConfig(steps=1000, growth=0, seconds=3.0)
    alone = _split(cram(tiny_lm, HARD, config))[0][-1].seconds
    assert alone == pytest.approx(3.0, abs=0.02)
    with pytest.raises(_Cut):
        list(cram(tiny_lm, HARD, config, stop=_cut_at(20), checkpoint=tmp_path))
    next(islice(ticks, 5000, None))  # long after
    progress, result = _split(cram(tiny_lm, HARD, config, checkpoint=tmp_path))
    assert 0.2 < progress[0].seconds < 1.5
    assert (result.reason, progress[-1].seconds) == ("seconds", pytest.approx(3.0, abs=0.1))
    assert result.seconds == pytest.approx(3.0, abs=0.2)


def test_the_first_progress_brings_the_best_and_the_whole_curve(tiny_lm: FrozenLM, tmp_path: Path) -> None:
    config = CramConfig(steps=100, growth=0)
    with pytest.raises(_Cut):
        list(cram(tiny_lm, HARD, config, stop=_cut_at(60), checkpoint=tmp_path))
    first = next(cram(tiny_lm, HARD, config, checkpoint=tmp_path))
    assert isinstance(first, Progress) and first.best is not None
    assert [step for step, _, _ in first.curve] == list(range(61))


# ---- when they are written


class _Counting:
    """A run whose state is a number."""

    def __init__(self) -> None:
        self.step = 0

    def state(self) -> State:
        return State({"mem": torch.full((2,), float(self.step))}, {"step": self.step})

    def restore(self, state: State) -> None:
        if state.numbers["step"] < 0:
            raise ValueError("its step cannot be this run's")
        assert float(state.tensors["mem"][0]) == state.numbers["step"]
        self.step = int(state.numbers["step"])


IDENTITY = {"text": "0" * 64, "steps": 5}


def _written(folder: Path, steps: int) -> _Counting:
    run, checkpoints = _Counting(), Checkpoints(folder, IDENTITY)
    for run.step in range(1, steps + 1):
        checkpoints.offer(run)
    return run


def _taken_up(folder: Path) -> tuple[int, str]:
    """The step a fresh run would go on from, and what is told."""
    run, checkpoints = _Counting(), Checkpoints(folder, IDENTITY)
    checkpoints.resume(run)
    return run.step, checkpoints.news()


def _steps(folder: Path) -> set[float]:
    return {Checkpoint(path.read_bytes()).state(_Counting().state()).numbers["step"] for path in folder.iterdir()}


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    for steps in (1, 2, 3, 8):
        _written(tmp_path / str(steps), steps)
        assert _steps(tmp_path / str(steps)) == {steps, max(1, steps - 1)}
        assert _taken_up(tmp_path / str(steps)) == (steps, f"The run goes on from the checkpoint, at step {steps}.")


def test_writing_takes_no_more_than_its_share_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that only writing moves, by 0.1 s, and the loop, by 0.01 s."""
    now, writes = 0.0, []
    monkeypatch.setattr(module, "LEAST_SECONDS", 2.0)
    monkeypatch.setattr(module, "SHARE", 0.01)
    monkeypatch.setattr(module.time, "perf_counter", lambda: now)

    def write(path: Path, data: bytes) -> None:
        nonlocal now
        writes.append(now)
        now += cost

    monkeypatch.setattr(module, "write_atomically", write)
    for cost, interval in ((0.001, 2.0), (0.1, 10.0)):
        now, writes = 0.0, []
        checkpoints = Checkpoints(tmp_path, IDENTITY)
        for _ in range(5000):
            checkpoints.offer(_Counting())
            now += 0.01
        assert writes[0] == pytest.approx(2.0, abs=0.02)
        assert writes[1] - writes[0] == pytest.approx(interval + cost, abs=0.03)
        checkpoints.offer(_Counting(), now=True)
        assert writes[-1] == pytest.approx(now - cost)


def test_without_checkpoints_nothing_is_written_and_with_them_nothing_changes(
    tiny_lm: FrozenLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = CramConfig(steps=STEPS, growth=2)
    alone = _split(cram(tiny_lm, HARD, config))
    assert list(tmp_path.iterdir()) == []
    assert vector_bytes(_split(cram(tiny_lm, HARD, config, checkpoint="here"))[1].vectors) == vector_bytes(
        alone[1].vectors
    )


def test_a_disk_that_is_full_is_told_once_and_ends_nothing(
    tiny_lm: FrozenLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = os.fsync, count()

    def fsync(handle: int) -> None:
        if 3 <= next(calls) < 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(ENGINE, "YIELD_SECONDS", 0.0)
    progress = []
    for item in cram(tiny_lm, HARD, CramConfig(steps=STEPS, growth=0), checkpoint=tmp_path):
        if isinstance(item, Progress):
            progress.append(item)
            if item.step in (4, 5):
                held = {Checkpoint(path.read_bytes()).serial for path in tmp_path.iterdir()}
                assert held == {2, 3}  # what was there stays
    assert [p.step for p in progress if p.notice] == [3]
    assert "No space left on device" in progress[3].notice and str(tmp_path) not in progress[3].notice


# ---- damage


def test_no_bit_of_a_checkpoint_changes_unseen(tmp_path: Path) -> None:
    _written(tmp_path, 1)
    (path,) = tmp_path.iterdir()
    data = path.read_bytes()
    Checkpoint(data)
    for place in range(len(data)):
        for bit in (1, 32, 128):
            with pytest.raises(ValueError, match=r"\w"):
                Checkpoint(data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :])
        with pytest.raises(ValueError, match=r"\w"):
            Checkpoint(data[:place])
    with pytest.raises(ValueError, match="bytes"):
        Checkpoint(data + b"\0")


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _zero(path: Path) -> None:
    path.write_bytes(bytes(len(path.read_bytes())))


def _lengthen(path: Path) -> None:
    with path.open("ab") as file:
        file.truncate(path.stat().st_size + 2**32)  # with a hole: it takes no room


def _make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _replace_by_vectors(path: Path) -> None:
    shutil.copy(next((Path(__file__).parent.parent / "assets" / "gallery").glob("*.safetensors")), path)


DAMAGES = (_flip, _cut, _empty, _zero, _lengthen, _make_folder, _replace_by_vectors)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("steps", [6, 7])  # so that each name is the newest once
def test_a_damaged_one_falls_back_to_the_one_before(tmp_path: Path, damage: Callable[[Path], None], steps: int) -> None:
    _written(tmp_path, steps)
    newest = max(tmp_path.iterdir(), key=lambda path: Checkpoint(path.read_bytes()).serial)
    damage(newest)
    step, told = _taken_up(tmp_path)
    assert step == steps - 1
    assert f"Damaged in the folder {tmp_path.name!r}: {newest.name}: " in told
    assert f"goes on from the other checkpoint, at step {steps - 1}." in told
    for path in tmp_path.iterdir():
        if path != newest:
            damage(path)
    step, told = _taken_up(tmp_path)
    assert step == 0
    assert all(name in told for name in NAMES) and told.endswith("so the run starts anew.")


def test_the_next_one_is_written_over_the_damaged_one(tmp_path: Path) -> None:
    _written(tmp_path, 6)
    newest = max(tmp_path.iterdir(), key=lambda path: Checkpoint(path.read_bytes()).serial)
    _flip(newest)
    run, checkpoints = _Counting(), Checkpoints(tmp_path, IDENTITY)
    checkpoints.resume(run)
    run.step = 99
    checkpoints.offer(run)
    assert _steps(tmp_path) == {5, 99}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.usefixtures("every_step")
def test_a_run_with_a_damaged_checkpoint_ends_the_same(
    tiny_lm: FrozenLM, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    def run(**given: Any) -> Iterator[Progress | CramResult]:
        return cram(tiny_lm, HARD, CramConfig(steps=STEPS, growth=2, optimizer="whitened"), **given)

    with pytest.raises(_Cut):
        list(run(stop=_cut_at(6), checkpoint=tmp_path))
    damage(max(tmp_path.iterdir(), key=lambda path: Checkpoint(path.read_bytes()).serial))
    resumed = _split(run(checkpoint=tmp_path))
    assert resumed[0][0].step == 5
    assert "Damaged" in resumed[0][0].notice
    assert _all_but_time(resumed) == _all_but_time(_split(run()))


def test_what_a_killed_writer_left_is_cleared_and_nothing_else(tmp_path: Path) -> None:
    _written(tmp_path, 2)
    (tmp_path / f".{NAMES[1]}.abc.partial").write_bytes(b"half")
    (tmp_path / ".other.partial").write_bytes(b"another's")
    assert _taken_up(tmp_path)[0] == 2
    assert {path.name for path in tmp_path.iterdir()} == {*NAMES, ".other.partial"}


# ---- a file is data


def _state(lm: FrozenLM) -> tuple[Any, State]:
    """A run, and its state after 4 steps."""
    config = CramConfig(steps=STEPS, growth=2).filled(lm)
    run = ENGINE._Run(lm, HARD, config)
    with pytest.raises(_Cut):
        list(run.items(_cut_at(3)))
    return ENGINE._Run(lm, HARD, config), run.state()


def _with(name: str, value: Any) -> Callable[[State], State]:
    """The state with another number, or a tensor with one number in it changed."""

    def changed(state: State) -> State:
        if name in state.numbers:
            return State(state.tensors, {**state.numbers, name: value})
        tensor = state.tensors[name].clone()
        tensor.flatten()[-1] = value
        return State({**state.tensors, name: tensor}, state.numbers)

    return changed


def _with_tensor(name: str, tensor: Tensor) -> Callable[[State], State]:
    return lambda state: State({**state.tensors, name: tensor}, state.numbers)


def _unwanted_all(state: State) -> State:
    return State({**state.tensors, "seen.wanted": torch.zeros(len(HARD), dtype=torch.bool)}, state.numbers)


def _without(name: str) -> Callable[[State], State]:
    return lambda state: State({n: t for n, t in state.tensors.items() if n != name}, state.numbers)


CRAFTED: dict[str, Callable[[State], State]] = {
    "step beyond the budget": _with("step", STEPS + 1),
    "step below zero": _with("step", -1),
    "step a fraction": _with("step", 2.5),
    "step true": _with("step", True),
    "step a word": _with("step", "3"),
    "more trained than there are": _with("trained", len(HARD) + 1),
    "none trained": _with("trained", 0),
    "flops below zero": _with("flops", -1),
    "margin below zero": _with("margin", -0.1),
    "seconds below zero": _with("seconds", -1.0),
    "a number more": lambda state: State(state.tensors, {**state.numbers, "more": 1}),
    "best not finite": _with("best.mem", math.inf),
    "count beyond the text": _with("best.counts", len(HARD) + 1),
    "gained in the future": _with("best.gained_at", STEPS + 1),
    "solved in the future": _with("solved_at", STEPS + 1),
    "more seen than trained": _with("seen.count", len(HARD)),
    "seen below zero": _with("seen.count", -1),
    "a rival outside the vocabulary": _with("seen.rivals", 10**6),
    "none wanted": _unwanted_all,
    "wanted beyond what is seen": _with("seen.wanted", False),
    "curves of two lengths": _with_tensor("curve.nats", torch.zeros(99)),
    "optimiser that counts backwards": _with("optimiser.count", -5),
    "vectors of another shape": _with_tensor("mem", torch.zeros(2, 1, 64)),
    "vectors of another dtype": _with_tensor("mem", torch.zeros(1, 1, 64, dtype=torch.float64)),
    "a tensor less": _without("mem"),
    "a tensor more": _with_tensor("more", torch.zeros(1)),
    "a dtype that no state has": _with_tensor("mem", torch.zeros(1, 1, 64, dtype=torch.int8)),
}


@pytest.mark.parametrize("case", CRAFTED)
def test_a_state_that_cannot_be_this_run_s_is_damage(tiny_lm: FrozenLM, tmp_path: Path, case: str) -> None:
    """Its digest is right, as whoever wants to do harm would have it."""
    run, state = _state(tiny_lm)
    before = {name: tensor.clone() for name, tensor in run.state().tensors.items()}
    (tmp_path / NAMES[0]).write_bytes(to_bytes(CRAFTED[case](state), run.identity(), 1))
    checkpoints = Checkpoints(tmp_path, run.identity())
    checkpoints.resume(run)
    assert run.step == 0
    assert f"Damaged in the folder {tmp_path.name!r}: {NAMES[0]}: its " in checkpoints.news()
    assert all(torch.equal(tensor, before[name]) for name, tensor in run.state().tensors.items())

    (tmp_path / NAMES[0]).write_bytes(to_bytes(state, run.identity(), 1))  # as it was, it is taken up
    Checkpoints(tmp_path, run.identity()).resume(run)
    assert run.step == state.numbers["step"]


def _forged(data: bytes, **changes: Any) -> bytes:
    """A checkpoint with other metadata, None for none, and a digest that is right."""
    header, body = read_header(data), data[8 + struct.unpack("<Q", data[:8])[0] :]
    metadata = header["__metadata__"] | {"content_sha256": "0" * 64} | changes
    header["__metadata__"] = {name: value for name, value in metadata.items() if value is not None}
    text = json.dumps(header, separators=(",", ":")).encode()
    blank = struct.pack("<Q", len(text)) + text + body
    return blank.replace(b"0" * 64, hashlib.sha256(blank).hexdigest().encode(), 1)


FORGED: dict[str, dict[str, Any]] = {
    "numbers not finite": {"numbers": '{"step": NaN}'},
    "numbers beyond any float": {"numbers": '{"step": 1e999}'},
    "numbers of 5,000 digits": {"numbers": '{"step": 1' + "0" * 5000 + "}"},
    "numbers a list": {"numbers": "[]"},
    "numbers not JSON": {"numbers": "{"},
    "numbers deeper than any stack": {"numbers": "[" * 100_000},
    "no numbers": {"numbers": None},
    "numbers not a word": {"numbers": 3},
    "run a list": {"run": "[]"},
    "no run": {"run": None},
    "serial a word": {"serial": "x"},
    "serial below zero": {"serial": "-1"},
    "serial of 10 digits": {"serial": "1" * 10},
    "serial not a word": {"serial": 1},
    "serial in other digits": {"serial": "\u0663"},
    "no serial": {"serial": None},
    "another format": {"format": "cramdemo.mem"},
    "no format": {"format": None},
    "no digest": {"content_sha256": None},
}


@pytest.mark.parametrize("case", FORGED)
def test_metadata_that_says_nothing_is_damage(tmp_path: Path, case: str) -> None:
    (tmp_path / NAMES[0]).write_bytes(_forged(to_bytes(_Counting().state(), {"steps": 5}, 7)))
    run, checkpoints = _Counting(), Checkpoints(tmp_path, {"steps": 5})
    checkpoints.resume(run)  # forged, but in nothing
    assert "goes on from the checkpoint" in checkpoints.news()
    (tmp_path / NAMES[0]).write_bytes(_forged(to_bytes(_Counting().state(), {"steps": 5}, 7), **FORGED[case]))
    checkpoints.resume(run)
    assert f"Damaged in the folder {tmp_path.name!r}: {NAMES[0]}: " in checkpoints.news()


@pytest.mark.parametrize("whole", [True, False])
def test_the_text_is_not_in_a_checkpoint(
    tiny_lm: FrozenLM, tmp_path: Path, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its characters nor its ids, not even where the head is no plain one and rivals are what it says."""
    if not whole:
        monkeypatch.setattr(FrozenLM, "linear_head", None)
    text, right = "The old sea", 0
    ids = tiny_lm.tokenize(text)
    for item in cram(tiny_lm, text, CramConfig(num_mem=4, steps=400, margin=30.0, growth=0), checkpoint=tmp_path):
        if isinstance(item, Progress) and item.solved_total == len(ids):
            right = item.solved_total
            held = b"".join(path.read_bytes() for path in tmp_path.iterdir())
            break
    assert right == len(ids)
    assert text.encode() not in held and b"old" not in held
    for kind in (torch.int64, torch.int32, torch.int16, torch.float32):
        assert torch.tensor(ids[:3], dtype=kind).numpy().tobytes() not in held
    assert len(held) > 1000


# ---- whose checkpoint it is


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": STEPS + 1}, f"a run with steps {STEPS} instead of {STEPS + 1}"),
        ({"seed": 4, "margin": 2.0}, r"margin 1.0 instead of 2.0, seed 0 instead of 4"),
        ({"seconds": 60.0}, "seconds null instead of 60.0"),
        ({"optimizer": "whitened"}, "optimizer adam instead of whitened"),
    ],
    ids=str,
)
def test_a_checkpoint_of_other_settings_is_refused(
    tiny_lm: FrozenLM, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    config = CramConfig(steps=STEPS)
    list(islice(cram(tiny_lm, HARD, config, checkpoint=tmp_path), 2))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ConfigError, match=words) as refused:
        cram(tiny_lm, HARD, dataclasses.replace(config, **change), checkpoint=tmp_path)
    assert "delete the files in this one" in str(refused.value) and str(tmp_path) not in str(refused.value)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_one_of_another_text_model_start_or_program_is_refused(
    tiny_lm: FrozenLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, start = CramConfig(steps=STEPS), torch.zeros(1, tiny_lm.hidden_size)
    list(islice(cram(tiny_lm, HARD, config, checkpoint=tmp_path), 2))
    other = FrozenLM("tiny", tiny_lm.model, tiny_lm.tokenizer, fingerprint="1" * 64)
    with pytest.raises(ConfigError, match=r"of a run with another text, another model\. Repeat"):
        cram(other, HARD[1:], config, checkpoint=tmp_path)
    with pytest.raises(ConfigError, match=r"with another text\. Repeat"):
        cram(tiny_lm, HARD[1:], config, checkpoint=tmp_path)
    with pytest.raises(ConfigError, match=r"with other vectors to start from\. Repeat"):
        cram(tiny_lm, HARD, config, checkpoint=tmp_path, start=start)
    monkeypatch.setattr(ENGINE, "__version__", "9.9")
    with pytest.raises(ConfigError, match=r'program "cramdemo 0.1.0" instead of "cramdemo 9.9"'):
        cram(tiny_lm, HARD, config, checkpoint=tmp_path)


def test_words_of_a_file_cannot_move_the_cursor(tmp_path: Path) -> None:
    (tmp_path / NAMES[0]).write_bytes(to_bytes(_Counting().state(), IDENTITY | {"steps": "\x1b[2J" * 50}, 1))
    with pytest.raises(ConfigError) as refused:
        _taken_up(tmp_path)
    assert str(refused.value).isprintable() and len(str(refused.value)) < 400


def test_one_of_a_newer_format_is_refused_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as newer:
        newer.setattr(module, "FORMAT_VERSION", "2")
        _written(tmp_path, 2)
    with pytest.raises(ConfigError, match=r'has format version "2"; this program reads version 1\. Use the cramdemo'):
        _taken_up(tmp_path)


# ---- the folder


def test_a_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    check_folder(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


@pytest.mark.parametrize("name", ["file", "file/below", "with\0null"])
def test_a_folder_that_cannot_be_is_one_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="No checkpoint can be written to the folder") as refused:
        check_folder(tmp_path / name)
    assert str(tmp_path) not in str(refused.value)


def test_a_folder_that_is_read_only_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(module.tempfile, "TemporaryFile", refuse)
    with pytest.raises(ConfigError, match=r"Permission denied\. Give a folder of yours"):
        check_folder(tmp_path)


# ---- kill -9


def test_a_command_killed_again_and_again_ends_as_one_that_nobody_touched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed as it is, then half through a file, and before a file has its name; the last one is this process."""
    alone, place = Place(tmp_path / "alone", 100), Place(tmp_path / "killed", 100)
    status = main(alone.command(checkpoint=False))  # whether it is lossless by then is for the CPU's last bits to say
    done = capsys.readouterr()
    expected = json.loads(done.out)
    assert (done.err, expected["steps"]) == ("", 100)

    assert killed_after_checkpoints(place.command(), place.checkpoints, 1) == -signal.SIGKILL
    for function, call in (("fdopen", 3), ("replace", 4)):
        assert killed_in_a_write(place.command(), function, call) == -signal.SIGKILL
        left = {path.name for path in place.checkpoints.iterdir()}
        assert left >= set(NAMES) and len(left) == 3  # and what it was writing
    assert not place.vectors.exists()

    assert main(place.command()) == status
    done = capsys.readouterr()
    assert "The run goes on from the checkpoint, at step " in done.err
    assert json.loads(done.out) | {"seconds": 0} == expected | {"seconds": 0}
    assert place.vectors.read_bytes() == alone.vectors.read_bytes()
    assert list(place.checkpoints.iterdir()) == []
