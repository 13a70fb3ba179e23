"""Sweeps run for real: alone, resumed, by two processes, and with one of them killed half-way."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from cramdemo import load_model
from cramdemo.bench.recipes import CRAMMING, run_recipe
from cramdemo.cli import main
from cramdemo.config import CramConfig
from cramdemo.cram import run_cram
from cramdemo.decode import decode
from cramdemo.errors import ConfigError, ModelError
from cramdemo.sweep import export, read_rows, read_spec, rows_of, run_sweep
from cramdemo.sweep import run as run_module
from cramdemo.sweep.jobs import Jobs
from cramdemo.sweep.texts import read_texts
from cramdemo.vectors import load

ROOT = Path(__file__).resolve().parents[2]
SPEC = """
models = ["{model}"]
lengths = [6, 10]
num_mem = [1, 2]
seeds = [0, 1]
recipes = ["brief", "published"]

[[texts]]
random_words = {texts}
words = 8

[recipe.brief]
like = "fast"
steps = {steps}

[recipe.published]
like = "cramming"
steps = 5
"""
LAUNCH = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
TIMED = ("seconds",)  # in a row: the only thing that two runs of a job may differ in


@pytest.fixture
def spec_path(tiny_folder: Path, tmp_path: Path):
    def write(texts: int = 1, steps: int = 20) -> Path:
        path = tmp_path / "spec.toml"
        path.write_text(SPEC.format(model=tiny_folder, texts=texts, steps=steps), encoding="utf-8")
        return path

    return write


def _same(rows):
    return {key: {name: value for name, value in row.items() if name not in TIMED} for key, row in rows.items()}


def _swept(path: Path, out: Path):
    *_, last = run_sweep(read_spec(path), out)
    assert last.before + last.here == last.total
    return _same(read_rows(out))


def test_every_job_is_there_once_and_its_row_is_what_the_engine_says(spec_path, tmp_path, tiny_lm):
    path = spec_path()
    rows = list(_swept(path, tmp_path / "out").values())
    spec = read_spec(path)
    jobs = Jobs(spec, read_texts(spec.sources)[0])
    assert len(rows) == len(jobs) == 16 and len({job.key for job in jobs}) == 16
    assert [row["key"] for row in rows_of(spec, tmp_path / "out")] == [job.key for job in jobs]
    assert {(r["length"], r["num_mem"], r["seed"], r["recipe"]) for r in rows} == {
        (n, k, s, r) for n in (6, 10) for k in (1, 2) for s in (0, 1) for r in ("brief", "published")
    }
    ours = next(r for r in rows if (r["length"], r["num_mem"], r["seed"], r["recipe"]) == (10, 2, 1, "brief"))
    ids = tiny_lm.tokenize(jobs[0].text)[:10]
    result = run_cram(tiny_lm, ids, CramConfig.for_model(tiny_lm, num_mem=2, seed=1, steps=20))
    assert (ours["steps"], ours["flops"], ours["lossless"]) == (result.steps, result.flops, result.lossless)
    assert ours["mem_sha256"] == hashlib.sha256(result.vectors.mem.numpy().tobytes()).hexdigest()
    theirs = next(r for r in rows if (r["length"], r["num_mem"], r["seed"], r["recipe"]) == (10, 2, 1, "published"))
    (found,) = run_recipe(
        tiny_lm.for_steps(), torch.tensor([ids]), dataclasses.replace(CRAMMING, steps=5), num_mem=2, seed=1
    )
    assert theirs["mem_sha256"] == hashlib.sha256(found.mem.detach().float().numpy().tobytes()).hexdigest()


def test_a_rerun_does_only_what_is_missing(spec_path, tmp_path):
    out, path = tmp_path / "out", spec_path()
    first = _swept(path, out)
    kept = (out / "rows-00000.jsonl").read_bytes().splitlines(keepends=True)
    (out / "rows-00000.jsonl").write_bytes(b"".join(kept[:10]) + kept[10][:30])
    states = list(run_sweep(read_spec(path), out))
    assert (states[0].before, states[-1].here) == (10, 6)
    assert _same(read_rows(out)) == first
    assert len(list(run_sweep(read_spec(path), out))) == 1, "there is nothing left to do"


def test_stop_ends_the_sweep_without_a_row_for_the_job_that_ran(spec_path, tmp_path):
    out = tmp_path / "out"
    states = run_sweep(read_spec(spec_path()), out, stop=lambda: len(read_rows(out)) == 3)
    assert len(list(states)) == 4 and len(read_rows(out)) == 3


def test_vectors_are_kept_under_their_digest_and_decode(spec_path, tmp_path, tiny_lm):
    out, path = tmp_path / "out", spec_path(steps=100)
    path.write_text(path.read_text().replace("[6, 10]", "[6]").replace("[1, 2]", "[2]"), encoding="utf-8")
    list(run_sweep(read_spec(path), out, keep_vectors=True))
    rows = [row for row in read_rows(out).values() if row["lossless"]]
    assert rows
    for row in rows:
        path = out / "vectors" / row["vectors"][:2] / f"{row['vectors']}.safetensors"
        assert hashlib.sha256(path.read_bytes()).hexdigest() == row["vectors"]
        assert decode(tiny_lm, load(path)).matches


def test_what_cannot_be_run_has_a_row_that_says_why(spec_path, tmp_path):
    path = spec_path()
    path.write_text(path.read_text().replace("[6, 10]", "[6, 100]"), encoding="utf-8")
    rows = _swept(path, tmp_path / "out").values()
    errors = {row.get("error") for row in rows if row["length"] == 100}
    assert len(errors) == 1 and "fewer than 100. Give longer texts." in errors.pop()
    assert all("error" not in row for row in rows if row["length"] == 6)


def test_a_model_that_is_not_there_is_refused_before_anything_runs(spec_path, tmp_path):
    path = spec_path()
    path.write_text(path.read_text().replace("models = [", 'models = ["cram-mini", "nobody", '), encoding="utf-8")
    with pytest.raises(ModelError, match="no model 'nobody'"):
        next(run_sweep(read_spec(path), tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_rows_of_other_weights_are_not_mixed_with_these(spec_path, tmp_path):
    out = tmp_path / "out"
    _swept(spec_path(), out)
    path = out / "rows-00000.jsonl"
    lm = load_model(read_spec(spec_path()).models[0])
    path.write_text(path.read_text().replace(lm.fingerprint, "0" * 64), encoding="utf-8")
    with pytest.raises(ConfigError, match="other weights of tiny"):
        list(run_sweep(read_spec(spec_path(texts=2)), out))


def test_the_command_line(spec_path, tmp_path, capsys):
    out, path = tmp_path / "out", spec_path()
    assert main(["sweep", str(path), "--out", str(out)]) == 0
    assert capsys.readouterr().out == "16 jobs done here, 0 before, of 16.\n"
    assert main(["sweep", str(path), "--out", str(out), "--export", str(tmp_path / "t.parquet")]) == 0
    assert capsys.readouterr().out == "16 rows in t.parquet.\n"
    assert main(["sweep", str(tmp_path / "no.toml"), "--out", str(out)]) == 2
    assert capsys.readouterr().err == "cramdemo: no.toml: No such file or directory.\n"
    assert export(rows_of(read_spec(path), out), tmp_path / "t.csv") == 16
    again = path.read_text(encoding="utf-8") + "\n[[texts]]\nrandom_words = 1\nwords = 8\n"
    path.write_text(again, encoding="utf-8")
    assert main(["sweep", str(path), "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert said.err == "1 text stood twice; each is run once.\n" and said.out.startswith("0 jobs done here, 16 before")


def test_a_full_disk_ends_with_a_sentence_and_keeps_what_is_done(spec_path, tmp_path, capsys, monkeypatch):
    out, add = tmp_path / "out", run_module.RowFile.add

    def full(self, row):
        if len(read_rows(out)) == 3:
            raise OSError(28, "No space left on device", str(out / "rows-00000.jsonl"))
        add(self, row)

    monkeypatch.setattr(run_module.RowFile, "add", full)
    assert main(["sweep", str(spec_path()), "--out", str(out)]) == 2
    assert capsys.readouterr().err == "cramdemo: rows-00000.jsonl: No space left on device.\n"
    assert len(read_rows(out)) == 3


def test_of_two_processes_one_is_killed_and_two_go_on_do_each_job_once_and_get_the_same_bits(spec_path, tmp_path):
    path, out, total = spec_path(texts=3, steps=60), tmp_path / "out", 48
    with _launch(path, out) as launched:
        _until(lambda: len(read_rows(out)) >= 8, launched)
        children = Path(f"/proc/{launched.pid}/task/{launched.pid}/children").read_text(encoding="ascii").split()
        os.kill(int(children[0]), signal.SIGKILL)
        launched.communicate(timeout=120)
    before, lines = len(read_rows(out)), _lines(out)
    assert launched.returncode != 0 and 8 <= before < total
    with _launch(path, out) as again:
        done, _ = again.communicate(timeout=240)
    assert again.returncode == 0, done
    assert _same(read_rows(out)) == _swept(path, tmp_path / "alone")
    added = {name: count - lines.get(name, 0) for name, count in _lines(out).items()}
    assert sum(added.values()) == total - before, "a job was done twice"
    assert len(added) == 2 and all(added.values()), "one of the two did everything"
    assert sum(lines.values()) <= before + 2, "more than the two running jobs were lost"


def _lines(out: Path) -> dict[str, int]:
    """How many each process has written, half ones and all."""
    return {path.name: len(path.read_bytes().splitlines()) for path in out.glob("rows-*.jsonl")}


def _launch(path: Path, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, *LAUNCH, "-m", "cramdemo", "sweep", str(path), "--out", str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _until(what, process) -> None:
    end = time.monotonic() + 120
    while not what():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)
