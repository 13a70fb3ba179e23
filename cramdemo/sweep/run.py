"""One process of a sweep: it takes the next job, runs it, and writes its row."""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cramdemo import __version__
from cramdemo.bench.recipes import progressive_for, recipe_passes
from cramdemo.config import CramConfig
from cramdemo.cram import CramResult, check_length, cram, judge, packed
from cramdemo.errors import ConfigError, CramError, ModelError
from cramdemo.hub import fetch
from cramdemo.models import FrozenLM, files_of, load_model
from cramdemo.sweep.deal import Worker, join
from cramdemo.sweep.jobs import Job, Jobs
from cramdemo.sweep.rows import Row, RowFile, read_rows
from cramdemo.sweep.spec import PUBLISHED, Spec
from cramdemo.sweep.texts import read_texts
from cramdemo.vectors import MemVectors, save, to_bytes

VECTORS = "vectors"  # folder for the files, by their digests


@dataclass(frozen=True)
class Done:
    """How far the sweep is, told by this process after each of its jobs.

    Attributes:
        total: jobs of the sweep. before: that had a row when this process began. here: that it has done since.
        row: of the job just done; None at the beginning.
        twice: texts that stood twice among the sources and are run once.
    """

    total: int
    before: int
    here: int
    row: Row | None = None
    twice: int = 0


class OneModel:
    """The model in memory; it is let go before another is loaded."""

    def __init__(self) -> None:
        self._lm: FrozenLM | None = None
        self._name = ""

    def get(self, name: str, device: str | None) -> FrozenLM:
        """A model by its name, folder or hub id.

        Raises:
            ModelError: it cannot be loaded.
        """
        if self._lm is None or name != self._name:
            self._lm = None
            gc.collect()
            self._lm, self._name = load_model(name, device=device), name
        return self._lm


def run_sweep(
    spec: Spec,
    folder: Path,
    *,
    keep_vectors: bool = False,
    stop: Callable[[], bool] | None = None,
    model: OneModel | None = None,
) -> Iterator[Done]:
    """Run what is missing of a sweep, in this process or in all that a launcher started.

    Args:
        folder: for the rows, made if it is not there; a sweep that was there before goes on.
        keep_vectors: keep each job's vector file, named by its digest, in a folder of the sweep's.
        stop: asked all the time; the job that is running is then given up.
        model: for who runs several sweeps: the model of the one before is not loaded again.

    Yields:
        `Done`, before the first and after each job.

    Raises:
        TextError: a source of texts has none.
        ModelError: a model is not there, or the process that deals the jobs is gone.
        ConfigError: rows are there that other weights of a model gave.
        OSError: the folder cannot be written; rows that are done are kept.
    """
    asked = stop or (lambda: False)
    texts, twice = read_texts(spec.sources)
    for name in spec.models:
        files_of(name, lambda repo_id: fetch(repo_id, stop=asked))  # before anything runs
    folder.mkdir(parents=True, exist_ok=True)
    known = read_rows(folder)
    torch.set_num_threads(spec.threads)
    jobs, worker = Jobs(spec, texts), join()
    before = sum(job.key in known for job in jobs)
    yield Done(len(jobs), before, 0, twice=twice)
    with RowFile(folder, worker.rank) as file:
        for here, (job, lm) in enumerate(_missing(jobs, known, worker, model or OneModel()), start=1):
            row = run_job(lm, job, folder if keep_vectors else None, stop=asked)
            if asked():
                return
            file.add(row)
            yield Done(len(jobs), before, here, row)


def rows_of(spec: Spec, folder: Path) -> list[Row]:
    """The rows that are there of a sweep, in the order of its jobs.

    Raises:
        TextError: a source of texts has none.
    """
    known, texts = read_rows(folder), read_texts(spec.sources)[0]
    return [known[job.key] for job in Jobs(spec, texts) if job.key in known]


def _missing(jobs: Jobs, known: dict[str, Row], worker: Worker, model: OneModel) -> Iterator[tuple[Job, FrozenLM]]:
    """The jobs that fall to this process and have no row, with their models."""
    checked = ""
    while (number := worker.take()) < len(jobs):
        job = jobs[number]
        if job.key in known:
            continue
        lm = model.get(job.model, worker.device)
        if job.model != checked:
            _check_weights(lm, known)
            checked = job.model
        yield job, lm
        del lm  # so that it can be let go


def _check_weights(lm: FrozenLM, known: dict[str, Row]) -> None:
    for row in known.values():
        if row.get("model") == lm.name and row.get("model_fingerprint") not in (None, lm.fingerprint):
            raise ConfigError(f"The rows that are there were made with other weights of {lm.name}. Give another --out.")


def run_job(lm: FrozenLM, job: Job, folder: Path | None, *, stop: Callable[[], bool]) -> Row:
    """The row of one job; what cannot be run, such as a text that is too short, has an `error` in it.

    Args:
        folder: of the sweep, for the vector file, or None.
        stop: gives the job up.
    """
    row = {
        "key": job.key,
        "model": lm.name,
        "model_fingerprint": lm.fingerprint,
        "hidden_size": lm.hidden_size,
        "source": job.source,
        "length": job.length,
        "num_mem": job.num_mem,
        "seed": job.seed,
        "recipe": job.recipe.name,
        "settings": job.recipe.as_dict(),
        "created_with": f"cramdemo {__version__}",
    }
    try:
        ids = _ids(lm, job)
        result = _PUBLISHED_OR_OURS[job.recipe.like in PUBLISHED](lm, ids, job, stop)
    except ModelError:  # not of the job's making, so that a rerun tries again
        raise
    except CramError as error:
        return row | {"error": str(error)}
    return row | figures(result) | ({"vectors": _keep(result.vectors, folder)} if folder else {})


def _ids(lm: FrozenLM, job: Job) -> list[int]:
    ids = lm.tokenize(job.text)
    if len(ids) < job.length:
        raise ConfigError(f"The text has {len(ids):,} tokens, fewer than {job.length:,}. Give longer texts.")
    ids = ids[: job.length] if job.length else ids
    check_length(lm, len(ids), job.num_mem)
    return ids


def _ours(lm: FrozenLM, ids: list[int], job: Job, stop: Callable[[], bool]) -> CramResult:
    config = CramConfig.for_model(lm, preset=job.recipe.like, num_mem=job.num_mem, seed=job.seed, **job.recipe.settings)
    *_, result = cram(lm, ids, config, stop=stop)
    assert isinstance(result, CramResult)
    return result


def _published(lm: FrozenLM, ids: list[int], job: Job, stop: Callable[[], bool]) -> CramResult:
    """A published recipe in its plain loop, judged as ours is."""
    base = progressive_for(lm) if job.recipe.like == "progressive" else PUBLISHED[job.recipe.like]
    recipe, started = dataclasses.replace(base, **job.recipe.settings), time.perf_counter()
    for states in recipe_passes(lm.for_steps(), torch.tensor([ids]), recipe, num_mem=job.num_mem, seed=job.seed):
        (found,) = states
        if stop():
            break
    vectors = packed(lm, found.mem, ids, {"recipe": job.recipe.like, **job.recipe.settings, "seed": job.seed})
    return judge(lm, vectors, ids, reason="steps", steps=found.steps, started=started, flops=found.flops)


_PUBLISHED_OR_OURS = {True: _published, False: _ours}


def figures(result: CramResult) -> dict[str, Any]:
    """What a row says of a result: by this program's conventions, and where the papers' differ by theirs too."""
    return {
        "num_tokens": result.num_tokens,
        "token_sha256": result.vectors.token_sha256,
        "lossless": result.lossless,
        "horizon": result.verification.correct_prefix,
        "accuracy": result.accuracy,
        "accuracy_without_token_0": float(result.token_correct[1:].float().mean()) if result.num_tokens > 1 else None,
        "h_lm_bits": result.h_lm_bits,
        "information_gain_bits": result.information_gain_bits,
        "token_gain": result.token_gain,
        "theoretical_capacity": result.theoretical_capacity,
        "min_margin": result.min_margin,
        "reason": result.reason,
        "steps": result.steps,
        "flops": result.flops,
        "seconds": round(result.seconds, 3),
        "verified": [check.as_dict() for check in result.verifications],
        "mem_sha256": hashlib.sha256(result.vectors.mem.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest(),
    }


def _keep(vectors: MemVectors, folder: Path) -> str:
    """Write the vector file where its digest says, and give that."""
    digest = hashlib.sha256(to_bytes(vectors)).hexdigest()
    path = folder / VECTORS / digest[:2] / f"{digest}.safetensors"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        save(vectors, path)
    return digest
