"""The command line: python -m cramdemo COMMAND, as `--help` lists them.

Exit status: 0 lossless (or done), 3 not lossless (the file is written all the same), 2 bad input or a file that cannot
be written, with one line on stderr. Results go to stdout, progress to stderr and only on a terminal.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import signal
import sys
import tempfile
import time
import traceback
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from tqdm import tqdm

from cramdemo import __version__
from cramdemo.catalogue import BUILT_IN, MODELS, UNLIMITED, ModelEntry, published
from cramdemo.config import MAX_NUM_MEM, OPTIMIZERS, CramConfig
from cramdemo.cram import CramResult, Progress, check_characters, cram
from cramdemo.decode import decode
from cramdemo.document import DONE, DocumentState, Segment, cram_document, decode_document, finished, pack
from cramdemo.errors import ConfigError, CramError, ModelError, TextError, VectorFileError, plural
from cramdemo.fewest import Search, Trial, fewest
from cramdemo.gallery import FOLDER, make_gallery
from cramdemo.hub import Download
from cramdemo.models import FrozenLM, load_model
from cramdemo.passages import read_books
from cramdemo.plots import capacity_figure, training_svg
from cramdemo.resume import check_folder
from cramdemo.segments import MAX_DOCUMENT_BYTES, DocumentVectors, is_document
from cramdemo.segments import describe as describe_document
from cramdemo.segments import from_bytes as document_from_bytes
from cramdemo.segments import to_bytes as document_to_bytes
from cramdemo.space import FLAVOURS, check_name, push_space, write_space
from cramdemo.tensorfile import write_atomically
from cramdemo.vectors import MemVectors, describe, from_bytes, load, read_bytes
from cramdemo.vectors import to_bytes as vectors_to_bytes

EXIT_OK, EXIT_BAD_INPUT, EXIT_NOT_LOSSLESS = 0, 2, 3
SUFFIX = ".safetensors"
CRAM_SETTINGS = (  # that `cram` has an option for
    *("preset", "num_mem", "steps", "seconds", "learning_rate", "margin", "temperature", "boost", "optimizer"),
    *("init", "precision", "seed"),
)
FEWEST = "auto"  # in the place of K
SAVE_SECONDS, SAVE_SPACING = 10.0, 100  # between two writes of a document that grows; times what a write took
_LEAST_BYTES = 4096  # of room on a disk, before a run that writes to it
_DEVICE_HELP = "cpu, cuda, cuda:1, mps, or auto: all GPUs and main memory together (default: a GPU if there is one)"
MODEL_HELP = "name from `models`, folder, or hub id as owner/name"
MODEL_COLUMNS = ("model", "size", "width", "layers", "context", "licence", "gated", "cramming", "progressive")
FIGURES = {"capacity": capacity_figure}  # of benchmarks that have one


class CutOffError(CramError):
    """A run that broke off, and what is left of it.

    Attributes:
        best: the best vectors that it had reported, not verified.
    """

    def __init__(self, error: Exception, best: MemVectors) -> None:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"
        super().__init__(str(error) if isinstance(error, CramError) else f"The run broke off: {place}.")
        self.best = best


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        status: int = arguments.run(arguments)
        return status
    except CramError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"{Path(error.filename or '').name or 'A file'}: {error.strerror or error}.")


def _fail(sentence: str) -> int:
    print(f"cramdemo: {sentence}", file=sys.stderr)
    return EXIT_BAD_INPUT


def _parser() -> argparse.ArgumentParser:
    description = "Cram a text into memory vectors, and back."
    parser = argparse.ArgumentParser(prog="python -m cramdemo", description=description)
    parser.add_argument("--version", action="version", version=f"cramdemo {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_cram(commands.add_parser("cram", help="optimise [mem] vectors for a text and verify them by decoding"))
    _add_decode(commands.add_parser("decode", help="write the text that a vector file holds"))
    _add_inspect(commands.add_parser("inspect", help="show what a vector file says, without a model"))
    models = commands.add_parser("models", help="list the models on offer")
    models.add_argument("--json", action="store_true", help="print one JSON list")
    models.set_defaults(run=run_models)
    _add_bench(commands.add_parser("bench", help="measure this program on this machine"))
    _add_sweep(commands.add_parser("sweep", help="many texts x models x lengths x K x seeds x recipes, resumable"))
    _add_reproduce(commands.add_parser("reproduce", help="the cramming paper's table and figures, for any model"))
    _add_gallery(commands.add_parser("gallery", help="make the vectors of the page's gallery"))
    _add_pretrain(commands.add_parser("pretrain", help="train the built-in model and its encoder"))
    _add_space(commands.add_parser("space", help="write a folder ready to push as a Hugging Face Space"))
    return parser


def _add_cram(parser: argparse.ArgumentParser) -> None:
    default = CramConfig()
    parser.add_argument("text", metavar="FILE", help="a UTF-8 text file, or - for standard input")
    parser.add_argument("-o", "--output", type=Path, metavar="OUT", help=f"vector file (default: FILE's name{SUFFIX})")
    parser.add_argument("--model", default=BUILT_IN, help=f"{MODEL_HELP} (default {BUILT_IN})")
    memory_help = f"memory tokens, 1 to {MAX_NUM_MEM}, or {FEWEST} to find the fewest (default {default.num_mem})"
    parser.add_argument("--num-mem", type=_num_mem, metavar="K", help=memory_help)
    preset_help = "fast: soonest lossless; most: as many tokens as the vectors can hold, in its time (default fast)"
    parser.add_argument("--preset", metavar="P", help=preset_help)
    parser.add_argument("--steps", type=int, metavar="N", help=f"most optimiser steps (default {default.steps})")
    parser.add_argument("--seconds", type=float, metavar="S", help="time budget (default none)")
    parser.add_argument("--learning-rate", type=float, metavar="LR", help="peak step size (default: the model's)")
    parser.add_argument("--margin", type=float, metavar="M", help="logit margin to reach (default: the model's)")
    temperature_help = "of the loss; below 1 the tokens still wrong weigh more (default: the model's)"
    parser.add_argument("--temperature", type=float, metavar="T", help=temperature_help)
    boost_help = "how fast tokens that are still wrong gain weight, 0 to 1 (default: the model's)"
    parser.add_argument("--boost", type=float, metavar="B", help=boost_help)
    optimizer_help = f"{' or '.join(OPTIMIZERS)} (default: the model's)"
    parser.add_argument("--optimizer", metavar="O", help=optimizer_help)
    parser.add_argument("--init", metavar="INIT", help=f"encoder, embedding or auto (default {default.init})")
    parser.add_argument("--precision", metavar="P", help=f"dtype of the model (default {default.precision})")
    parser.add_argument("--device", metavar="D", help=_DEVICE_HELP)
    checkpoint_help = (
        "keep the state of the run in this folder, made if it is not there and for this run alone: if it is killed or "
        "stopped, the same command goes on from there; the files go once the vectors are saved"
    )
    parser.add_argument("--checkpoint", type=Path, metavar="DIR", help=checkpoint_help)
    document_help = (
        "a text of any length: segments of K vectors each, as full as they are found to hold, in one file; if it is "
        "killed or stopped, the same command goes on from what the file has"
    )
    parser.add_argument("--document", action="store_true", help=document_help)
    segment_help = "with --document: end a segment after so many tokens (default: as many as its vectors hold)"
    parser.add_argument("--segment-tokens", type=int, metavar="N", help=segment_help)
    parser.add_argument("--seed", type=int, metavar="S", help=f"of the initial vectors (default {default.seed})")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run_cram_command)


def _add_decode(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("vectors", type=Path, metavar="FILE", help="a vector file")
    parser.add_argument("-o", "--output", type=Path, metavar="TEXT", help="write the text here, not to stdout")
    segment_help = "of a document, decode this segment alone; the first one is 1"
    parser.add_argument("--segment", type=int, metavar="N", help=segment_help)
    parser.add_argument("--model", help=f"the file's model, if it is not on offer: {MODEL_HELP}")
    parser.add_argument("--device", metavar="D", help=_DEVICE_HELP)
    parser.add_argument("--json", action="store_true", help="print one JSON object with the text in it")
    parser.set_defaults(run=run_decode)


def _add_inspect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("vectors", type=Path, metavar="FILE", help="a vector file")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run_inspect)


def _add_bench(parser: argparse.ArgumentParser) -> None:
    from cramdemo.bench import BENCHMARKS

    names = "; ".join(f"{name}: {benchmark.help}" for name, benchmark in BENCHMARKS.items())
    parser.add_argument("benchmark", choices=sorted(BENCHMARKS), help=names)
    parser.add_argument("--corpus", type=Path, metavar="DIR", help="folder of .txt files that passages are drawn from")
    books_help = "only the files with one of these in their name"
    parser.add_argument("--books", nargs="+", default=(), metavar="NAME", help=books_help)
    parser.add_argument("--passages", type=int, default=50, metavar="N", help="passages a row (default 50)")
    models_help = f"capacity, tune: names from `models`, or folders; speed: shapes (default {BUILT_IN})"
    parser.add_argument("--models", nargs="+", default=(BUILT_IN,), metavar="MODEL", help=models_help)
    parser.add_argument("--num-mem", nargs="+", type=int, default=(1,), metavar="K", help="capacity, tune: (default 1)")
    out_help = "capacity: keep what was run here, figures only, and go on from it"
    parser.add_argument("--out", type=Path, metavar="DIR", help=out_help)
    figure_help = f"{', '.join(FIGURES)}: write a figure here, one HTML file that needs no network"
    parser.add_argument("--figure", type=Path, metavar="FILE.html", help=figure_help)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run_bench)


def _add_gallery(parser: argparse.ArgumentParser) -> None:
    out_help = "folder for the vector files, made if it is not there (default: the gallery's own)"
    parser.add_argument("--out", type=Path, default=FOLDER, metavar="DIR", help=out_help)
    parser.set_defaults(run=run_gallery)


def _add_pretrain(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--corpus", type=Path, required=True, metavar="DIR", help="folder of .txt files to learn from")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="checkpoint, log and the model itself")
    parser.add_argument("--heldout", type=Path, metavar="DIR", help="folder of .txt files to check on")
    shape_help = "cram-mini, or plain-neox: the benchmarks' second model, trained on plain text only"
    parser.add_argument("--shape", default=BUILT_IN, help=f"{shape_help} (default {BUILT_IN})")
    parser.add_argument("--minutes", type=float, metavar="M", help="stop, resumable, after so long")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.set_defaults(run=run_pretrain)


def _add_space(parser: argparse.ArgumentParser) -> None:
    folder_help = "new or empty, or written by this command and unchanged since: then it is replaced"
    parser.add_argument("folder", type=Path, metavar="DIR", help=folder_help)
    parser.add_argument("--hardware", default="cpu", metavar="H", help=f"{', '.join(FLAVOURS)} (default cpu)")
    parser.add_argument("--title", metavar="T", help="of the Space (default: the README's)")
    parser.add_argument("--login", action="store_true", help="offer Login with Hugging Face, for gated models")
    parser.add_argument("--push", metavar="USER/NAME", help="create that Space, or update it, and ask for the hardware")
    parser.add_argument("--private", action="store_true", help="a new Space is for its owner's eyes only")
    parser.set_defaults(run=run_space)


def _add_sweep(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("spec", type=Path, metavar="SPEC", help="a TOML file: what to run (the README has one)")
    out_help = "folder for the rows; what has a row there is not run again"
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help=out_help)
    parser.add_argument("--vectors", action="store_true", help="keep each job's vector file too, named by its digest")
    export_help = "write the rows as one table, .parquet, .jsonl or .csv, and run nothing"
    parser.add_argument("--export", type=Path, metavar="TABLE", help=export_help)
    parser.set_defaults(run=run_sweep_command)


def _add_reproduce(parser: argparse.ArgumentParser) -> None:
    from cramdemo.reproduce import EXPERIMENTS, SAMPLES

    names = "; ".join(f"{name}: {words}" for name, words in EXPERIMENTS.items())
    parser.add_argument("experiment", choices=list(EXPERIMENTS), help=names)
    texts_help = "folder of UTF-8 .txt books; for unseen those that the models were not trained on"
    parser.add_argument("--texts", type=Path, metavar="DIR", required=True, help=texts_help)
    parser.add_argument("--seen", type=Path, metavar="DIR", help="for unseen: books that they were trained on")
    out_help = "folder for rows, tables and the report; rows that are there are not run again"
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help=out_help)
    parser.add_argument("--models", nargs="+", default=(BUILT_IN,), metavar="MODEL", help=MODEL_HELP)
    samples_help = f"texts of each length (default {SAMPLES}, the paper's)"
    parser.add_argument("--samples", type=int, default=SAMPLES, metavar="N", help=samples_help)
    lengths_help = "in tokens, for one vector (default: the paper's grid)"
    parser.add_argument("--lengths", nargs="+", type=int, metavar="N", help=lengths_help)
    parser.add_argument("--num-mem", nargs="+", type=int, default=(), metavar="K", help="scaling: (default 1 2 4 8 16)")
    recipe_help = "fast or most, ours; cramming or progressive, as published (default fast)"
    parser.add_argument("--recipe", default="fast", metavar="R", help=recipe_help)
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="of torch (default: one a core)")
    plan_help = "run nothing: what it would take at most on a GPU, by assumed rates"
    parser.add_argument("--plan", action="store_true", help=plan_help)
    parser.set_defaults(run=run_reproduce)


def _num_mem(value: str) -> int | str:
    """K, or the word for the fewest that will do."""
    try:
        return value if value == FEWEST else int(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{value[:60]!r} is no whole number, nor {FEWEST}") from None


def run_cram_command(arguments: argparse.Namespace) -> int:
    """`cram`: text file in, vector file and figures out."""
    text = read_text(arguments.text)
    check_characters(text)
    output = arguments.output or Path(_default_output(arguments.text))
    _check_folder(output)  # before the run, so that no work is lost
    settings = {name: getattr(arguments, name) for name in CRAM_SETTINGS}
    search = settings["num_mem"] == FEWEST
    if search:
        settings["num_mem"] = None
    if arguments.document:
        _check_document(arguments, search=search)
    elif arguments.segment_tokens is not None:
        raise ConfigError("Only a document has segments. Give --document too, or leave --segment-tokens out.")
    if arguments.checkpoint is not None:
        _check_checkpoint(arguments.checkpoint, search=search)
    CramConfig.for_model(MODELS[BUILT_IN], **settings)  # the limits of all models, told before one is loaded
    lm = _load(arguments.model, device=arguments.device, precision=arguments.precision or "auto")
    _tell_precision(lm)
    config = CramConfig.for_model(lm, **settings)
    if arguments.document:
        return _cram_document(lm, text, config, output, arguments)
    run: Iterator[Progress | CramResult] = iter(())
    try:
        with _interrupt_flag() as interrupted:
            if search:
                result, trials = _watch_search(fewest(lm, text, config, stop=interrupted), config.steps)
            else:
                run = cram(lm, text, config, stop=interrupted, checkpoint=arguments.checkpoint)
                result, trials = _watch(run, config.steps), ()
    except CutOffError as cut:
        return _keep_cut_off(cut, output)
    kept, trouble = _keep(result.vectors, output)
    if kept:
        next(run, None)  # the vectors are safe: now its checkpoints may go
    base64 = {} if kept else {"vectors_base64": b64encode(to_bytes(result.vectors)).decode("ascii")}
    if arguments.json:
        tried = {"trials": [dataclasses.asdict(trial) for trial in trials]} if search else {}
        _print_json(result.summary() | tried | base64)
    else:
        print(*(_trial_line(trial) for trial in trials), _report(result, kept), *base64.values(), sep="\n")
    if trouble:
        return _fail(trouble)
    return EXIT_OK if result.lossless else EXIT_NOT_LOSSLESS


def _check_checkpoint(folder: Path, *, search: bool) -> None:
    """Before a model is loaded, so that nobody waits for a refusal."""
    if search:
        raise ConfigError(
            f"A search for the fewest memory tokens (--num-mem {FEWEST}) has no checkpoints. Give a number of them, or "
            "leave --checkpoint out."
        )
    check_folder(folder)


def _check_document(arguments: argparse.Namespace, *, search: bool) -> None:
    """Before a model is loaded, so that nobody waits for a refusal."""
    for given, option in ((search, f"--num-mem {FEWEST}"), (arguments.checkpoint, "--checkpoint")):
        if given:
            raise ConfigError(
                f"A document takes no {option}: each of its segments has K vectors, and its file is what a run goes on "
                "from. Leave it out."
            )


def _cram_document(lm: FrozenLM, text: str, config: CramConfig, output: Path, arguments: argparse.Namespace) -> int:
    """`cram --document`: segments into one file, which is written again and again while they are found."""
    ids = lm.tokenize(text)
    before = _segments_before(lm, ids, config, output)
    ends = time.monotonic() + (config.seconds or math.inf)
    with _interrupt_flag() as interrupted:
        states = cram_document(
            lm,
            ids,
            config,
            thorough=arguments.preset == "most",
            segment_tokens=arguments.segment_tokens,
            done=before,
            stop=lambda: interrupted() or time.monotonic() > ends,
        )
        state = _watch_document(states, lambda segments: save(pack(lm, ids, segments, config), output))
    if not state.segments:
        return _fail("Stopped before the first segment was done, so there is nothing to write.")
    document = pack(lm, ids, state.segments, config)
    kept, trouble = _keep(document, output)
    base64 = {} if kept else {"vectors_base64": b64encode(to_bytes(document)).decode("ascii")}
    if arguments.json:
        _print_json(_document_summary(state, document) | base64)
    else:
        print(_document_report(state, document, kept, len(before)), *base64.values(), sep="\n")
    if trouble:
        return _fail(trouble)
    return EXIT_OK if document.complete else EXIT_NOT_LOSSLESS


def _segments_before(lm: FrozenLM, ids: Sequence[int], config: CramConfig, output: Path) -> list[Segment]:
    """What an earlier run has left in the file, if it is a document.

    Raises:
        ConfigError, ModelMismatch: it is a document that this run cannot go on from.
    """
    if not output.exists():
        return []
    try:
        found = load_any(output)
    except VectorFileError:
        return []  # something else, which is written over as by any other `cram`
    if not isinstance(found, DocumentVectors):
        return []
    before = finished(lm, found, ids, config.num_mem)
    print(f"Going on from {plural(len(before), 'segment')} in {output.name}.", file=sys.stderr)
    return before


def _watch_document(states: Iterator[DocumentState], keep: Callable[[Sequence[Segment]], object]) -> DocumentState:
    """Drive a document to its end, with a progress bar on a terminal; what is finished is written meanwhile.

    A write that fails is tried again later, and told at the end.
    """
    written, due = 0, time.monotonic() + SAVE_SECONDS
    with tqdm(unit="token", disable=None) as bar:
        for state in states:
            bar.total, bar.n = state.num_tokens, state.tokens_done
            words = f"{plural(len(state.segments), 'segment')}, {state.tokens_a_vector:.1f} tokens a vector"
            bar.set_postfix_str(words, refresh=True)
            if len(state.segments) > written and time.monotonic() > due and not state.reason:
                began = time.monotonic()
                with suppress(OSError):
                    keep(state.segments)
                    written = len(state.segments)
                due = time.monotonic() + max(SAVE_SECONDS, SAVE_SPACING * (time.monotonic() - began))
    return state


def _document_summary(state: DocumentState, document: DocumentVectors) -> dict[str, Any]:
    return {
        "lossless": document.complete,
        "num_tokens": document.num_tokens,
        "lossless_tokens": state.lossless_tokens,
        "segments": len(document.entries),
        "num_mem": document.num_mem,
        "tokens_a_vector": state.tokens_a_vector,
        "reason": state.reason,
        "steps": state.steps,
        "flops": state.flops,
        "seconds": state.seconds,
        "vector_bytes": document.num_bytes,
    }


def _document_report(state: DocumentState, document: DocumentVectors, output: Path | None, before: int) -> str:
    where = f"{document.verified[0]['device']}, {document.verified[0]['dtype']}"
    if document.complete:
        verdict = f"Lossless: all {plural(document.num_tokens, 'token')} decoded, segment by segment ({where})."
    else:
        why = "" if state.reason == DONE else f" ({_REASONS[state.reason]})"
        verdict = (
            f"Not lossless{why}: {state.lossless_tokens:,} of {plural(document.num_tokens, 'token')} are in segments "
            "that decode exactly. Start the same command again to go on, or take more memory tokens (--num-mem)."
        )
    pace = f", {state.tokens_done / state.seconds:.0f} tokens a second" if not before else ""
    figures = (
        f"{plural(len(document.entries), 'segment')} of {plural(document.num_mem, 'vector')}, "
        f"{document.tokens_a_vector:.1f} tokens a vector, {state.seconds:.1f} s{pace}."
    )
    target = output or "in base64, below"
    return f"{verdict}\n{figures}\nVectors: {target} ({document.num_bytes:,} bytes of numbers)"


def _keep_cut_off(cut: CutOffError, output: Path) -> int:
    """The best vectors of a run that broke off, where it was asked for or wherever they can be."""
    kept, trouble = _keep(cut.best, output)
    if trouble:
        print(f"cramdemo: {trouble}", file=sys.stderr)
    if kept:
        print(
            f"cramdemo: {cut} The best vectors so far are in {kept.name}; nobody has decoded them yet.", file=sys.stderr
        )
    else:
        print(b64encode(to_bytes(cut.best)).decode("ascii"))
    return EXIT_NOT_LOSSLESS


def _keep(vectors: MemVectors | DocumentVectors, output: Path) -> tuple[Path | None, str]:
    """Write what a run has found where it was asked for, or else wherever it can be: a long run is not lost to a disk.

    Returns:
        Where it is, None for nowhere, and what is to be said if that is elsewhere.
    """
    try:
        return save(vectors, output), ""
    except OSError as error:
        why = f"{output.name} cannot be written: {error.strerror}."
    for folder in (Path.cwd, tempfile.gettempdir):
        with suppress(OSError):
            elsewhere = save(vectors, Path(folder(), f"cramdemo-{uuid4().hex[:8]}{SUFFIX}"))
            return elsewhere, f"{why} The vectors are in {elsewhere}, move them from there."
    return None, f"{why} Nor can any other file: the vectors are printed in base64, copy them from there."


def _tell_precision(lm: FrozenLM) -> None:
    """Where the model runs, in which dtype and why, for whoever watches."""
    if sys.stderr.isatty():
        print(f"{lm.name} on {lm.device}, {lm.precision_reason}.", file=sys.stderr)


def run_decode(arguments: argparse.Namespace) -> int:
    """`decode`: vector file in, text out, byte for byte."""
    vectors = load_any(arguments.vectors)
    if arguments.output:
        _check_folder(arguments.output)
    if arguments.segment is not None and not isinstance(vectors, DocumentVectors):
        raise ConfigError(f"{arguments.vectors.name} is not a document, so it has no segments. Leave --segment out.")
    lm = _load(arguments.model or _offered(vectors.model_id), device=arguments.device)
    if isinstance(vectors, DocumentVectors):
        return _decode_document(lm, vectors, arguments)
    decoded = decode(lm, vectors)
    data = decoded.text.encode("utf-8")
    if arguments.output:
        arguments.output.write_bytes(data)
    if arguments.json:
        _print_json({"text": decoded.text, "num_tokens": len(decoded.token_ids), "lossless": decoded.matches})
    elif not arguments.output:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    if not decoded.matches:
        print("cramdemo: this is not the original text: its digest differs from the file's.", file=sys.stderr)
    return EXIT_OK if decoded.matches else EXIT_NOT_LOSSLESS


def _decode_document(lm: FrozenLM, document: DocumentVectors, arguments: argparse.Namespace) -> int:
    """The text of a document, written as it is decoded, and what is wrong with it."""
    only = None if arguments.segment is None else arguments.segment - 1
    found, pieces = [], []
    with ExitStack() as stack:
        if arguments.output:
            out = stack.enter_context(arguments.output.open("wb"))
        else:
            out = None if arguments.json else sys.stdout.buffer
        for part in decode_document(lm, document, only=only):
            found.append(part)
            pieces.append(part.text)
            if out:
                out.write(part.text.encode("utf-8"))
                out.flush()
    wrong = [part for part in found if not part.matches]
    gaps = document.gaps if only is None else []
    lossless = not wrong and not gaps
    if arguments.json:
        count = sum(len(part.token_ids) for part in found)
        _print_json({"text": "".join(pieces), "num_tokens": count, "segments": len(found), "lossless": lossless})
    for part in wrong:
        end = part.start + len(part.token_ids)
        words = f"segment {part.number + 1} (tokens {part.start:,} to {end:,}) is not the original text"
        print(f"cramdemo: {words}: its digest differs from the file's.", file=sys.stderr)
    for start, end in gaps:
        print(f"cramdemo: tokens {start:,} to {end:,} are missing: the run was stopped before them.", file=sys.stderr)
    return EXIT_OK if lossless else EXIT_NOT_LOSSLESS


def load_any(path: Path) -> MemVectors | DocumentVectors:
    """A vector file or a document, whichever it says it is.

    Raises:
        VectorFileError: neither, or damaged.
    """
    data = read_bytes(path, MAX_DOCUMENT_BYTES)
    return document_from_bytes(data, path.name) if is_document(data) else from_bytes(data, path.name)


def to_bytes(vectors: MemVectors | DocumentVectors) -> bytes:
    """Either's file.

    Raises:
        VectorFileError: no file can hold it.
    """
    return document_to_bytes(vectors) if isinstance(vectors, DocumentVectors) else vectors_to_bytes(vectors)


def save(vectors: MemVectors | DocumentVectors, path: Path) -> Path:
    """Write either's file, whole or not at all.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    write_atomically(path, to_bytes(vectors))
    return path


def run_models(arguments: argparse.Namespace) -> int:
    """`models`: the table of models on offer."""
    if arguments.json:
        _print_json([_model_row(entry) for entry in MODELS.values()])
        return EXIT_OK
    print(_aligned([MODEL_COLUMNS, *(_model_cells(entry) for entry in MODELS.values())]))
    print("\nThe last two are tokens in one vector, as the papers on cramming and progressive cramming have them.")
    return EXIT_OK


def _model_row(entry: ModelEntry) -> dict[str, Any]:
    """A table entry without its folder, which is a path of this machine, and with the papers' figures."""
    row = {name: value for name, value in dataclasses.asdict(entry).items() if name != "source"}
    return row | {"published": dataclasses.asdict(published(entry))}


def _model_cells(entry: ModelEntry) -> tuple[str, ...]:
    """An entry's line, one cell for each of `MODEL_COLUMNS`; blank where nothing is known."""
    figures = published(entry)
    size = f"{entry.parameters / 1e9:.2f}B" if entry.parameters >= 1e9 else f"{entry.parameters / 1e6:.1f}M"
    context = f"{entry.context:,}" if entry.context != UNLIMITED else "no limit"
    tokens = (f"{figure:,}" if figure else "" for figure in (figures.cramming, figures.progressive))
    gated = "yes" if entry.gated else ""
    layers = str(entry.layers or "")
    return entry.name, size, str(entry.hidden_size), layers, context, entry.licence, gated, *tokens


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Lines with their cells below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def _offered(model_id: str) -> str:
    """The model that a file names, if it is on offer: a stranger's file chooses no folder and starts no download."""
    if model_id in MODELS:
        return model_id
    raise ModelError(
        f"The file was made for {_plain(model_id[:80])!r}, which is not on offer. If you have or trust that model, "
        "name it: --model FOLDER, or its hub id."
    )


def run_inspect(arguments: argparse.Namespace) -> int:
    """`inspect`: what a vector file says of itself."""
    found = load_any(arguments.vectors)
    facts = describe_document(found) if isinstance(found, DocumentVectors) else describe(found)
    if arguments.json:
        _print_json(facts)
        return EXIT_OK
    for name, value in facts.items():
        print(f"{name}: {_plain(value if isinstance(value, str) else json.dumps(value))}")
    return EXIT_OK


def run_bench(arguments: argparse.Namespace) -> int:
    """`bench`: one benchmark, as a Markdown table or JSON, and where it has one as a figure."""
    from cramdemo.bench import BENCHMARKS, Asked, markdown

    benchmark = BENCHMARKS[arguments.benchmark]
    _check_figure(arguments)
    if benchmark.reads_corpus and arguments.corpus is None:
        raise TextError("Give a folder of UTF-8 .txt files to draw passages from: --corpus DIR.")
    books = read_books(arguments.corpus, arguments.books) if arguments.corpus else []
    asked = Asked(books, arguments.passages, tuple(arguments.models), tuple(arguments.num_mem), arguments.out)
    report = benchmark.run(asked, _tell)
    if arguments.json:
        _print_json(report)
    else:
        print(markdown(report))
    if arguments.figure:
        FIGURES[arguments.benchmark](report).write_html(arguments.figure, include_plotlyjs=True)
    return EXIT_OK


def _check_figure(arguments: argparse.Namespace) -> None:
    """Before the run, so that no work is lost."""
    if not arguments.figure:
        return
    if arguments.benchmark not in FIGURES:
        raise ConfigError(f"The benchmark {arguments.benchmark} has no figure. Leave --figure out.")
    _check_folder(arguments.figure)


def _tell(row: dict[str, Any]) -> None:
    """A row of a benchmark that goes on, for whoever waits."""
    print(f"{row['figure']}: {row['value']}", file=sys.stderr, flush=True)


def run_sweep_command(arguments: argparse.Namespace) -> int:
    """`sweep`: run what is missing, in this process or in all that a launcher started; or export what is there."""
    from cramdemo.sweep import export, read_spec, rows_of, run_sweep

    spec = read_spec(arguments.spec)
    if arguments.export:
        count = export(rows_of(spec, arguments.out), arguments.export)
        print(f"{plural(count, 'row')} in {arguments.export.name}.")
        return EXIT_OK
    print(*spec.dropped, sep="\n", end="\n" * bool(spec.dropped), file=sys.stderr)
    with _interrupt_flag() as interrupted, tqdm(unit="job", disable=None) as bar:
        for done in run_sweep(spec, arguments.out, keep_vectors=arguments.vectors, stop=interrupted):
            if done.twice:
                tqdm.write(f"{plural(done.twice, 'text')} stood twice; each is run once.", file=sys.stderr)
            bar.total, bar.n = done.total, done.before + done.here
            bar.refresh()
    stopped = "Stopped; start the same command again to go on. " if interrupted() else ""
    print(f"{stopped}{plural(done.here, 'job')} done here, {done.before:,} before, of {done.total:,}.")
    return EXIT_OK


def run_reproduce(arguments: argparse.Namespace) -> int:
    """`reproduce`: run what is missing of an experiment, then write its tables and its report."""
    from cramdemo.bench import markdown
    from cramdemo.reproduce import PAPER_LENGTHS, Asked, plan, run

    asked = Asked(
        arguments.experiment,
        arguments.texts,
        arguments.seen,
        tuple(arguments.models),
        arguments.samples,
        tuple(arguments.lengths or PAPER_LENGTHS),
        tuple(arguments.num_mem),
        arguments.recipe,
    )
    if arguments.plan:
        print(markdown({"rows": plan(asked)}))
        return EXIT_OK
    threads = arguments.threads or os.cpu_count() or 1
    found: list[dict[str, Any]] = []
    with _interrupt_flag() as interrupted, tqdm(unit="text", disable=None) as bar:
        for news in run(asked, arguments.out, threads=threads, stop=interrupted):
            found += news.rows
            cell = news.cell
            bar.set_description_str(
                f"{cell.model}, {cell.kind}, K = {cell.num_mem}, {cell.length} tokens", refresh=False
            )
            bar.total, bar.n = news.total, news.done
            bar.refresh()
    if not found:
        return _fail("Stopped before the first text was done, so there is nothing to report.")
    written = _write_reproduction(asked.experiment, found, arguments)
    stopped = "Stopped; start the same command again to go on. " if interrupted() else ""
    print(f"{stopped}{plural(len(found), 'row')}; {', '.join(written)} in {arguments.out.name}.")
    return EXIT_OK


def _write_reproduction(experiment: str, found: list[dict[str, Any]], arguments: argparse.Namespace) -> list[str]:
    """The rows, their table by lengths and capacities, and the report, in the experiment's folder."""
    from cramdemo.reproduce import by_length, capacities, difference, html
    from cramdemo.sweep import export

    tables = {"rows": found, "lengths": by_length(found), "capacities": capacities(found)}
    if experiment == "unseen" and (gaps := difference(found)):
        tables["difference"] = gaps
    names = []
    for name, lines in tables.items():
        for ending in (".csv", ".parquet"):
            path = arguments.out / f"{experiment}-{name}{ending}"
            export(lines, path)
            names.append(path.name)
    report = arguments.out / f"{experiment}.html"
    write_atomically(report, html(experiment, found, _command(arguments)).encode())
    return [*names, report.name]


def _command(arguments: argparse.Namespace) -> str:
    """The command as it may be repeated, with the names of folders only."""
    words = ["python -m cramdemo reproduce", arguments.experiment, "--texts", arguments.texts.name]
    words += ["--seen", arguments.seen.name] if arguments.seen else []
    words += ["--out", arguments.out.name, "--models", *(Path(model).name for model in arguments.models)]
    words += ["--samples", str(arguments.samples), "--recipe", arguments.recipe]
    for option, values in (("--lengths", arguments.lengths), ("--num-mem", arguments.num_mem)):
        words += [option, *map(str, values)] if values else []
    return " ".join(words)


def run_gallery(arguments: argparse.Namespace) -> int:
    """`gallery`: a vector file for each text of the gallery, every one of them lossless."""
    sizes = []
    for piece, path in make_gallery(arguments.out):
        vectors = load(path)
        sizes.append(path.stat().st_size)
        held = f"{plural(vectors.num_tokens, 'token')} in {plural(piece.num_mem, 'vector')}"
        print(f"{path.name}: {held}, {sizes[-1]:,} bytes, lossless", flush=True)
    print(f"{plural(len(sizes), 'file')}, {sum(sizes):,} bytes.")
    return EXIT_OK


def run_pretrain(arguments: argparse.Namespace) -> int:
    """`pretrain`: train or resume, then write the model."""
    from cramdemo.pretrain import SHAPES, pretrain

    if arguments.shape not in SHAPES:
        raise ConfigError(f"There is no shape {arguments.shape!r}. Choose from {', '.join(SHAPES)}.")
    config = dataclasses.replace(SHAPES[arguments.shape], seed=arguments.seed)
    bar = tqdm(total=config.total_steps, unit="step", disable=None)
    for record in pretrain(
        config, arguments.corpus, arguments.out, heldout=arguments.heldout, minutes=arguments.minutes
    ):
        bar.update(int(record["step"]) - bar.n)
        bar.set_postfix({k: f"{v:.3g}" for k, v in record.items() if k != "step"})
    bar.close()
    records = [json.loads(line) for line in (arguments.out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    (arguments.out / "model" / "training.svg").write_text(training_svg(records), encoding="utf-8")
    return EXIT_OK


def run_space(arguments: argparse.Namespace) -> int:
    """`space`: a folder for the hub, pushed if asked for."""
    if arguments.push is not None:
        check_name(arguments.push)
    elif arguments.private:
        raise ConfigError("Only a Space that is pushed can be private. Give --push USER/NAME too.")
    folder, hardware = arguments.folder, arguments.hardware
    files = write_space(folder, hardware, title=arguments.title, login=arguments.login)
    megabytes = sum(path.stat().st_size for path in files) / 1e6
    print(f"{plural(len(files), 'file')} in {folder.absolute().name}, {megabytes:.0f} MB, for hardware {hardware}.")
    if arguments.push:
        print(push_space(folder, arguments.push, hardware, private=arguments.private))
    return EXIT_OK


def read_text(name: str) -> str:
    """A text file, or standard input for "-", byte for byte.

    Raises:
        TextError: the bytes are not UTF-8.
    """
    data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        source = "Standard input" if name == "-" else Path(name).name
        raise TextError(
            f"{source} is not UTF-8: byte {error.start:,} cannot be read. Save it as UTF-8 and try again."
        ) from error


def _check_folder(output: Path) -> None:
    """Whether a file can be written, as far as that can be known now.

    Raises:
        ConfigError: it is a folder, or its folder is not there, full or read-only.
    """
    if not output.parent.is_dir():
        raise ConfigError(f"There is no folder {output.parent.name!r} to write {output.name} to. Create it first.")
    if output.is_dir():
        raise ConfigError(f"{output.name!r} is a folder. Give the name of a file.")
    try:
        with tempfile.TemporaryFile(dir=output.parent) as file:
            file.write(bytes(_LEAST_BYTES))
            file.flush()
    except OSError as error:
        raise ConfigError(
            f"{output.name} cannot be written: {error.strerror}. Make room, or give a file in another folder."
        ) from error


def _default_output(name: str) -> str:
    return ("text" if name == "-" else Path(name).stem) + SUFFIX


def _plain(text: str) -> str:
    """A file's words on a terminal: control characters, which could move the cursor, are shown as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _load(name: str, *, device: str | None, precision: str = "auto") -> FrozenLM:
    """A model, downloaded if it must be: with a bar on a terminal, until Ctrl-C."""
    with _interrupt_flag() as interrupted, _download_bar() as tell:
        lm = load_model(name, device=device, precision=precision, stop=interrupted, tell=tell)
        if interrupted():
            raise ModelError(f"Stopped before {lm.name} was used.")
    return lm


@contextmanager
def _download_bar() -> Iterator[Callable[[Download], None]]:
    """A bar that is there from the first news on, in bytes."""
    with ExitStack() as stack:
        bars: list[tqdm[Any]] = []

        def tell(news: Download) -> None:
            if not bars:
                bar = tqdm(total=news.total, initial=news.done, unit="B", unit_scale=True, disable=None)
                bars.append(stack.enter_context(bar))
            bars[0].update(news.done - bars[0].n)

        yield tell


def _watch(items: Iterator[Progress | CramResult], steps: int) -> CramResult:
    """Drive a run to its result, with a progress bar on a terminal.

    Raises:
        CutOffError: it broke off after it had vectors.
    """
    with tqdm(total=steps, unit="step", disable=None) as bar, _best_kept() as keep:
        for item in items:
            if isinstance(item, CramResult):
                return item
            if item.notice:
                tqdm.write(f"cramdemo: {item.notice}", file=sys.stderr)
            keep(item.best)
            _show(bar, item)
    raise AssertionError("a run ends with a result")


def _watch_search(states: Iterator[Search], steps: int) -> tuple[CramResult, tuple[Trial, ...]]:
    """Drive a search to its result, with a progress bar for each K on a terminal.

    Raises:
        CutOffError: it broke off after it had vectors.
    """
    with tqdm(total=steps, unit="step", disable=None) as bar, _best_kept() as keep:
        for state in states:
            if state.result is not None:
                return state.result, state.trials
            keep(state.kept or state.progress.best)
            bar.set_description_str(f"K = {state.config.num_mem}", refresh=False)
            _show(bar, state.progress)
    raise AssertionError("a search ends with a result")


@contextmanager
def _best_kept() -> Iterator[Callable[[MemVectors | None], None]]:
    """An error inside takes along the vectors told last, if there are any.

    Raises:
        CutOffError: in place of that error.
    """
    best: MemVectors | None = None

    def keep(found: MemVectors | None) -> None:
        nonlocal best
        best = found or best

    try:
        yield keep
    except Exception as error:
        if best is None:
            raise
        raise CutOffError(error, best) from error


def _show(bar: tqdm[Any], item: Progress) -> None:
    bar.update(item.step - bar.n)
    bar.set_postfix_str(f"{item.best_total}/{item.num_tokens} tokens, {item.loss_bits:.2f} bits/token", refresh=False)


def _trial_line(trial: Trial) -> str:
    reached = "lossless" if trial.lossless else f"{trial.solved} of {plural(trial.num_tokens, 'token')} right"
    return f"K = {trial.num_mem}: {reached}, {plural(trial.steps, 'step')}, {trial.seconds:.1f} s"


@contextmanager
def _interrupt_flag() -> Iterator[Callable[[], bool]]:
    """Ctrl-C asks the run to stop and keep its best; a second one ends the program."""
    pressed = False

    def note(signum: int, frame: object) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    try:
        previous = signal.signal(signal.SIGINT, note)
    except ValueError:  # not in the main thread: whoever drives us has its own way to stop
        yield lambda: False
        return
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, previous)


def _report(result: CramResult, output: Path | None) -> str:
    check = result.verification
    if result.lossless:
        verdict = (
            f"Lossless: {check.num_tokens} of {check.num_tokens} tokens decoded from the file's bytes "
            f"({check.device}, {check.dtype}, smallest margin {check.min_margin:.2f})."
        )
    else:
        verdict = (
            f"Not lossless ({_REASONS[result.reason]}): greedy decoding is right for the first "
            f"{check.correct_prefix} of {check.num_tokens} tokens; teacher-forced accuracy {result.accuracy:.1%}. "
            "Try more memory tokens (--num-mem), more steps (--steps) or a shorter text."
        )
    figures = (
        f"{plural(result.num_tokens, 'token')} in {plural(result.vectors.num_mem, 'vector')}, "
        f"{plural(result.steps, 'step')}, "
        f"{result.seconds:.1f} s; information gain {result.information_gain_bits:.1f} of {result.h_lm_bits:.1f} bits."
    )
    where = output or "in base64, below"
    return f"{verdict}\n{figures}\nVectors: {where} ({result.vectors.num_bytes:,} bytes of numbers)"


_REASONS = {
    "solved": "the margin was reached, but decoding differs",
    "steps": "out of steps",
    "seconds": "out of time",
    "patience": "no more tokens came right",
    "stopped": "stopped",
    "memory": "out of memory",
    "diverged": "the loss is no longer a number; lower the learning rate",
}


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=True, allow_nan=False))
