"""The optimiser loop: [mem] vectors trained until the frozen LM reproduces the text from them alone.

`cram` is a generator: progress at most ten times a second, and as its last item the result, whose vectors
are a copy of the best ones scored and which has been verified by decoding. Each step scores the vectors,
decides, and only then updates them. No global random numbers, no clock in the result but its duration.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cramdemo import __version__
from cramdemo.config import MAX_CHARACTERS, CramConfig
from cramdemo.decode import Verification, verify
from cramdemo.errors import ConfigError, ModelError, TextError, plural
from cramdemo.metrics import (
    correct_tokens,
    cross_entropy_bits,
    information_gain_bits,
    margins,
    solved_prefix,
    theoretical_capacity,
    token_gain,
)
from cramdemo.models import FrozenLM
from cramdemo.objective import boosted
from cramdemo.optimiser import OPTIMISERS, Optimiser
from cramdemo.placement import loop_device, memory_or, ran_out_of_memory
from cramdemo.record import Best, Curve, Seen
from cramdemo.resume import Checkpoints, State
from cramdemo.step import score
from cramdemo.vectors import MemVectors, dtype_name, token_digest

YIELD_SECONDS = 0.1
BEST_SECONDS = 1.5  # a run that is cut off loses no more than so much
GPU_POLL_STEPS = 8  # on a GPU the host looks at the device only so often; on a CPU looking is free
LOOK_ALL_STEPS = GPU_POLL_STEPS  # so often every token is predicted; in between, those well solved may be left out
WORTHWHILE_HEAD = 0.3  # of a model's matrices; a smaller head saves too little
ENCODER_NOISE = 0.02  # lets seeds differ when every run starts from the same encoding
UNFINISHED = ("stopped", "memory")  # reasons after which a run goes on from its checkpoint


@dataclass(frozen=True)
class Progress:
    """The state of a run at one step, scored before that step's update.

    Where a model's head is large, tokens that are well solved are predicted every `LOOK_ALL_STEPS` steps only; in
    between they count as they were last seen. The best vectors are only ever chosen when all tokens were.

    Attributes:
        step: updates done so far.
        seconds: since the optimisation began, without those lost to what ended it before it went on.
        loss_bits: cross-entropy in bits a token, over the `trained_tokens` leading ones.
        accuracy: teacher-forced, over all N tokens; those not trained yet count as unsolved.
        solved_prefix: leading tokens that are right under teacher forcing.
        solved_total: tokens that are right under teacher forcing.
        trained_tokens: length of the prefix being trained (it grows).
        num_tokens: N.
        min_margin: smallest logit margin over the trained tokens.
        marks: "1" for a solved token, "0" for an unsolved one, N characters.
        predicted: what the model says for each trained token, the true ones before it given; ids.
        solved_at: for each of the N tokens the step since which it has been right without a break; -1 if it is not.
        best_prefix, best_total: the same counts for the best vectors so far, which are the ones kept.
        curve: (step, loss_bits, accuracy) for the steps since the last progress; in the first one of a run that goes
            on from a checkpoint, for all steps from 0 on.
        best: copy of the best vectors, not verified, whose only figure is their accuracy; in the first and the last
            progress and in between every `BEST_SECONDS`, if there are better ones by then; else None.
        flops: spent so far (`FlopCount`).
        notice: sentences for whoever watches about the run's checkpoints; mostly "".
    """

    step: int
    seconds: float
    loss_bits: float
    accuracy: float
    solved_prefix: int
    solved_total: int
    trained_tokens: int
    num_tokens: int
    min_margin: float
    marks: str
    best_prefix: int
    best_total: int
    curve: tuple[tuple[int, float, float], ...]
    best: MemVectors | None = None
    flops: int = 0
    predicted: tuple[int, ...] = ()
    solved_at: tuple[int, ...] = ()
    notice: str = ""


@dataclass(frozen=True)
class CramResult:
    """The best vectors of a run, what they score under teacher forcing, and whether they decode.

    Attributes:
        vectors: ready to be saved; a copy of the best ones scored.
        token_ids: the text's N ids.
        verifications: of the vectors as saved, by greedy decoding, one for each dtype checked.
        reason: why the run ended: "solved", "steps", "seconds", "patience", "stopped", "memory" or "diverged"; or
            what `judge` was told.
        steps: updates done. seconds: time of the optimisation, verification included.
        flops: of the encoder, all steps of all restarts, and verification (`FlopCount`).
        token_bits: (N,), cost of each token with [mem]. token_margins: (N,). token_correct: (N,), bool.
        token_predicted: (N,), int64, what the model says for each token, teacher-forced.
        bare_bits, bare_correct: (N - 1,), the bare LM's on tokens 1..N-1.
        encoder_correct: (N,), bool, right tokens under the memory encoder's vectors as they come; None where the
            model has no encoder for this K.
        vocab_size: V.
    """

    vectors: MemVectors
    token_ids: list[int]
    verifications: list[Verification]
    reason: str
    steps: int
    seconds: float
    flops: int
    token_bits: Tensor
    token_margins: Tensor
    token_correct: Tensor
    token_predicted: Tensor
    bare_bits: Tensor
    bare_correct: Tensor
    encoder_correct: Tensor | None
    vocab_size: int

    @property
    def lossless(self) -> bool:
        """Greedy reconstruction gave all N ids, in every check."""
        return all(check.lossless for check in self.verifications)

    @property
    def verification(self) -> Verification:
        """The check that went worst."""
        return min(self.verifications, key=lambda check: (check.correct_prefix, check.min_margin))

    @property
    def num_tokens(self) -> int:
        """N, the text's length in tokens."""
        return len(self.token_ids)

    @property
    def accuracy(self) -> float:
        """Teacher-forced accuracy over all N tokens."""
        return float(self.token_correct.float().mean())

    @property
    def total_bits(self) -> float:
        """Cost of the text with [mem], all N tokens, in bits."""
        return float(self.token_bits.double().sum())

    @property
    def min_margin(self) -> float:
        """Smallest logit margin over the N tokens, under teacher forcing."""
        return float(self.token_margins.min())

    @property
    def h_lm_bits(self) -> float:
        """H_LM: cost of tokens 1..N-1 under the bare LM, in bits."""
        return float(self.bare_bits.double().sum())

    @property
    def information_gain_bits(self) -> float:
        """H_LM - H_LM+mem over tokens 1..N-1, in bits."""
        return information_gain_bits(self.bare_bits, self.token_bits)

    @property
    def token_gain(self) -> int:
        """Correct tokens with [mem] minus correct tokens of the bare LM, over tokens 1..N-1."""
        return token_gain(self.bare_correct, self.token_correct)

    @property
    def theoretical_capacity(self) -> float:
        """Tokens that the vectors could hold at 16 bits a number."""
        return theoretical_capacity(self.vectors.num_mem, self.vectors.hidden_size, self.vocab_size)

    @property
    def utilisation(self) -> float:
        """Token gain over theoretical capacity."""
        return self.token_gain / self.theoretical_capacity

    @property
    def encoder_prefix(self) -> int | None:
        """Leading tokens that the memory encoder's vectors give exactly, without any optimisation."""
        return None if self.encoder_correct is None else int(solved_prefix(self.encoder_correct))

    @property
    def marks(self) -> str:
        """ "1" for a token that is right under teacher forcing, "0" for a wrong one, N characters."""
        return _marks(self.token_correct)

    def summary(self) -> dict[str, Any]:
        """The figures as plain numbers, as printed by `--json` and returned by the API."""
        return {
            "model": self.vectors.model_id,
            "num_tokens": self.num_tokens,
            "num_mem": self.vectors.num_mem,
            "lossless": self.lossless,
            "verified": [check.as_dict() for check in self.verifications],
            "reason": self.reason,
            "accuracy": self.accuracy,
            "steps": self.steps,
            "seconds": round(self.seconds, 3),
            "flops": self.flops,
            "min_margin": self.min_margin,
            "h_lm_bits": self.h_lm_bits,
            "information_gain_bits": self.information_gain_bits,
            "token_gain": self.token_gain,
            "theoretical_capacity": self.theoretical_capacity,
            "utilisation": self.utilisation,
            "encoder_prefix": self.encoder_prefix,
            "vector_bytes": self.vectors.num_bytes,
        }


def cram(
    lm: FrozenLM,
    text_or_ids: str | Sequence[int],
    config: CramConfig | None = None,
    *,
    stop: Callable[[], bool] | None = None,
    give_up: Callable[[], bool] = lambda: False,
    start: Tensor | None = None,
    checkpoint: str | Path | None = None,
) -> Iterator[Progress | CramResult]:
    """Optimise [mem] vectors for one text.

    Args:
        lm: the frozen model.
        text_or_ids: the text, or its N ids.
        config: settings; None takes the defaults for this model.
        stop: asked after every look at the run; when it says True, the best so far becomes the result.
        give_up: asked while the result is decoded, which `stop` does not cut short; when it says True, the run has no
            result, and the last `Progress.best` is what is left of it.
        start: (K, d), finite, the vectors at step 0, which the result never falls behind: the whole text is trained
            at once. None for `initial_vectors`, as every restart but the first has.
        checkpoint: a folder for this run alone, made if it is not there. A run that was killed, or stopped, goes on
            from there when it is called again with the same arguments, and ends with the bits it would have had; on
            the same machine, that is, with as many threads. The files go when the generator is asked for more after
            its result, unless the run was stopped or out of memory: save the vectors before you ask.

    Yields:
        `Progress` at most ten times a second, the first at step 0 or where a checkpoint was; then one `CramResult`.

    Raises:
        TextError: at once, if the text is empty, too long, or not given back by the tokenizer.
        ConfigError: at once, if `init` is "encoder" and the model has none, the model was loaded in another
            precision than the config's, `start` is not (K, d) finite numbers, the folder for checkpoints cannot be
            written, or holds those of another run.
        ModelError: while running, if there is not memory for a single step or to decode what was found, the model
            gives numbers that are not finite, or decoding was given up.
    """
    if isinstance(text_or_ids, str):
        check_characters(text_or_ids)
    token_ids = lm.tokenize(text_or_ids) if isinstance(text_or_ids, str) else list(text_or_ids)
    config = (config or CramConfig()).filled(lm)
    check_length(lm, len(token_ids), config.num_mem)
    _check_precision(lm, config)
    if not all(0 <= token < lm.vocab_size for token in token_ids):
        raise TextError(f"The text holds ids outside the vocabulary of {lm.vocab_size:,} that {lm.name} has.")
    if start is not None:
        _check_start(lm, start, config.num_mem)
    run = _Run(lm, token_ids, config, start, give_up)
    checkpoints = None
    if checkpoint is not None:
        checkpoints = Checkpoints(Path(checkpoint), run.identity())
        checkpoints.resume(run)
    return run.items(stop or (lambda: False), checkpoints)


def run_cram(lm: FrozenLM, text_or_ids: str | Sequence[int], config: CramConfig | None = None) -> CramResult:
    """`cram` without the progress: the result. Raises what `cram` raises."""
    *_, result = cram(lm, text_or_ids, config)
    assert isinstance(result, CramResult)
    return result


def packed(lm: FrozenLM, mem: Tensor, token_ids: Sequence[int], config: Mapping[str, Any]) -> MemVectors:
    """A copy of vectors with what a decoder needs to know; nothing is verified of them yet.

    Args:
        mem: (K, d), float32, optimised in the dtype of this model's steps.
        token_ids: the text's N ids.
        config: settings of the run, plain values.
    """
    return MemVectors(mem=mem.detach().cpu().clone(), config=dict(config), **provenance(lm, token_ids))


def provenance(lm: FrozenLM, token_ids: Sequence[int]) -> dict[str, Any]:
    """What a file of vectors says of the model that they were trained on, and of the text: its length and digest."""
    return {
        "model_id": lm.name,
        "model_revision": lm.revision,
        "model_fingerprint": lm.fingerprint,
        "tokenizer_fingerprint": lm.tokenizer_fingerprint,
        "num_tokens": len(token_ids),
        "token_sha256": token_digest(token_ids),
        "dtype_trained": dtype_name(lm.for_steps().dtype),
        "created_with": f"cramdemo {__version__}",
    }


def judge(
    lm: FrozenLM,
    vectors: MemVectors,
    token_ids: Sequence[int],
    *,
    reason: str,
    steps: int,
    started: float,
    flops: int = 0,
    proof: Sequence[Verification] = (),
    give_up: Callable[[], bool] = lambda: False,
) -> CramResult:
    """Score vectors over all N tokens, decode them, and pack both with them: the end of every run.

    It also makes the result of a run that was cut off, from the last `Progress.best`.

    Args:
        lm: the model they were made for, in any precision and on any device.
        token_ids: the text's N ids.
        reason: why the run ended.
        steps: updates done.
        started: when the run began, by `time.perf_counter`.
        flops: spent before.
        proof: checks of these very vectors, if there are any yet.
        give_up: asked while they are decoded.

    Raises:
        ModelMismatch: the vectors were made for another model.
        ModelError: the model gives numbers that are not finite, or decoding was given up.
    """
    ids = torch.tensor([list(token_ids)], device=lm.device)  # (1, N)
    with torch.no_grad():
        logits = lm.text_logits(vectors.mem.to(lm.device)[None], ids)
        bare = lm.bare_logits(ids)
        token_margins, predicted = margins(logits, ids)[0].cpu(), logits[0].argmax(-1).cpu()
        token_bits = cross_entropy_bits(logits, ids)[0].cpu()
        bare_bits = cross_entropy_bits(bare, ids[:, 1:])[0].cpu()
        bare_correct = correct_tokens(bare, ids[:, 1:])[0].cpu()
    if not bool(torch.isfinite(token_bits).all()):
        raise ModelError(_NO_NUMBERS.format(model=lm.name, dtype=dtype_name(lm.dtype)))
    checks = list(proof) or _verify(lm, vectors, token_ids, give_up)
    result = CramResult(
        vectors=vectors,
        token_ids=list(token_ids),
        verifications=checks,
        reason=reason,
        steps=steps,
        seconds=time.perf_counter() - started,
        flops=flops if proof else flops + _verification_flops(lm, vectors.num_mem, checks),
        token_bits=token_bits,
        token_margins=token_margins,
        token_correct=token_margins > 0,
        token_predicted=predicted,
        bare_bits=bare_bits,
        bare_correct=bare_correct,
        encoder_correct=_encoder_correct(lm, ids, vectors.num_mem),
        vocab_size=lm.vocab_size,
    )
    return dataclasses.replace(result, vectors=_with_figures(vectors, result))


def _verify(
    lm: FrozenLM, vectors: MemVectors, token_ids: Sequence[int], give_up: Callable[[], bool]
) -> list[Verification]:
    """Decode in the model's own dtype, and on a CPU in float32 in any case."""
    judges = [lm]
    if lm.device.type == "cpu" and lm.dtype != torch.float32 and not lm.dispatched:
        judges.append(lm.in_float32())
    return [verify(each, vectors, token_ids, give_up=give_up) for each in judges]


def _verification_flops(lm: FrozenLM, num_mem: int, checks: Sequence[Verification]) -> int:
    decoded = [min(check.correct_prefix + 1, check.num_tokens) for check in checks]
    return sum(lm.flops.forward(num_mem + count - 1, count) for count in decoded)


def _encoder_correct(lm: FrozenLM, ids: Tensor, num_mem: int) -> Tensor | None:
    """What the encoder alone reaches: one forward pass each way, no optimisation."""
    if lm.encoder is None or num_mem > lm.encoder.max_mem:
        return None
    with torch.no_grad():
        return correct_tokens(lm.text_logits(lm.encode(ids, num_mem), ids), ids)[0].cpu()


def check_characters(text: str, limit: int = MAX_CHARACTERS) -> None:
    """Refuse a text that is too long even to count its tokens.

    Raises:
        TextError: more characters than `limit`.
    """
    if len(text) > limit:
        raise TextError(f"The text has {len(text):,} characters; at most {limit:,} are taken. Shorten it.")


def check_length(lm: FrozenLM, num_tokens: int, num_mem: int) -> None:
    """Refuse a text that does not fit the model's context.

    Raises:
        TextError: no token, or more than the context less K.
    """
    if num_tokens < 1:
        raise TextError("The text is empty. Paste or type something to cram.")
    limit = lm.max_tokens(num_mem)
    if num_tokens > limit:
        raise TextError(
            f"The text has {num_tokens:,} tokens; with {plural(num_mem, 'memory token')} "
            f"{lm.name} takes at most {limit:,}. Shorten the text."
        )


def _check_precision(lm: FrozenLM, config: CramConfig) -> None:
    loaded = dtype_name(lm.dtype)
    if config.precision not in ("auto", loaded):
        raise ConfigError(
            f"precision is {config.precision!r}, but {lm.name} was loaded in {loaded}. "
            f"Load it with precision={config.precision!r}, or leave the setting at 'auto'."
        )


def _check_start(lm: FrozenLM, start: Tensor, num_mem: int) -> None:
    if start.shape != (num_mem, lm.hidden_size):
        raise ConfigError(
            f"start has shape {tuple(start.shape)}; with {plural(num_mem, 'memory token')} {lm.name} starts from "
            f"({num_mem}, {lm.hidden_size}) numbers."
        )
    if not bool(torch.isfinite(start).all()):
        raise ConfigError("start holds numbers that are not finite. Start from other vectors.")


def _from_encoder(lm: FrozenLM, config: CramConfig) -> bool:
    return config.init == "encoder" or (config.init == "auto" and lm.encoder is not None)


def _marks(correct: Tensor) -> str:
    return "".join("1" if c else "0" for c in correct.tolist())


def initial_vectors(lm: FrozenLM, token_ids: Tensor, config: CramConfig) -> Tensor:
    """[mem] at step 0: the encoder's vectors, or draws from N(0, std of the embedding matrix).

    Where K is more than the encoder gives, the leading vectors are draws and the encoder's come last, since
    the last one predicts token 0.

    Args:
        token_ids: (1, N), int64.

    Returns:
        (R, K, d), float32, on the model's device; R is `config.restarts`.

    Raises:
        ConfigError: `init` is "encoder" and the model has none.
    """
    generator = torch.Generator().manual_seed(config.seed)
    noise = torch.randn(config.restarts, config.num_mem, lm.hidden_size, generator=generator).to(lm.device)
    if not _from_encoder(lm, config):
        return noise * lm.embedding_std
    encoded = lm.encode(token_ids, min(config.num_mem, lm.encoder.max_mem) if lm.encoder else config.num_mem)
    drawn = config.num_mem - encoded.shape[1]
    return torch.cat([noise[:, :drawn] * lm.embedding_std, encoded + ENCODER_NOISE * noise[:, drawn:]], dim=1)


def learning_rate(config: CramConfig, step: int) -> float:
    """Step size of an update: linear warm-up, then a cosine over the step budget down to a tenth of the peak.

    Args:
        config: filled, so that it has a learning rate.
        step: updates done before.
    """
    assert config.learning_rate is not None
    warm = min(1.0, (step + 1) / (config.warmup_steps + 1))
    cosine = 0.55 + 0.45 * math.cos(math.pi * step / config.steps)
    return config.learning_rate * warm * cosine


def _first_vectors(lm: FrozenLM, token_ids: Tensor, config: CramConfig, start: Tensor | None) -> Tensor:
    """[mem] of every restart at step 0, (R, K, d): the first one's are `start`, if it is given."""
    if start is None:
        return initial_vectors(lm, token_ids, config)
    given = start.detach().to(lm.device, torch.float32)[None]
    return given if config.restarts == 1 else torch.cat([given, initial_vectors(lm, token_ids, config)[1:]])


class _Run:
    """One optimisation: tensors on the device, decisions there too, looked at by the host now and then.

    R restarts of the same text run as one batch; what is shown and kept is always the leading one.
    """

    def __init__(
        self,
        lm: FrozenLM,
        token_ids: list[int],
        config: CramConfig,
        start: Tensor | None = None,
        give_up: Callable[[], bool] = lambda: False,
    ) -> None:
        assert config.learning_rate is not None and config.growth is not None
        assert config.margin is not None and config.temperature is not None and config.boost is not None
        assert config.optimizer is not None
        self.growth, self.temperature, self.boost = config.growth, config.temperature, config.boost
        self.lm, self.config, self.token_ids, self.give_up = lm, config, token_ids, give_up
        self.stepper = lm.for_steps()
        self.ids = torch.tensor([token_ids], device=lm.device)  # (1, N)
        place = loop_device(lm.device)
        self.start = start
        self.mem = _first_vectors(lm, self.ids, config, start).to(place)  # (R, K, d)
        self.optimiser = OPTIMISERS[config.optimizer](self.mem)
        self.best = Best(self.mem[0])
        self.seen = Seen(config.restarts, len(token_ids), place)
        self.curve = Curve()
        self.solved_at = torch.full((len(token_ids),), -1, device=place)  # int64
        self.done = torch.zeros((), dtype=torch.bool, device=place)
        self.margin = config.margin
        self.weights = torch.ones(config.restarts, len(token_ids), device=place)  # of tokens in the loss
        grown = 0 if start is not None else self.growth * config.num_mem
        self.trained = min(len(token_ids), grown or len(token_ids))
        heads = lm.flops.head / max(1, lm.flops.head + lm.flops.body)
        self._head_is_worthwhile = heads >= WORTHWHILE_HEAD
        self.proof: list[Verification] = []  # of the best vectors, once they are solved
        self.told = (-math.inf, -math.inf)  # rank and seconds of the best vectors last put into a progress
        self.step = 0
        self.seconds = 0.0  # since the optimisation began, as of the last look
        encoded = _from_encoder(lm, config) and (start is None or config.restarts > 1)
        self.flops = lm.encode_flops(len(token_ids), config.num_mem) if encoded else 0

    def items(
        self, stop: Callable[[], bool], checkpoints: Checkpoints | None = None
    ) -> Iterator[Progress | CramResult]:
        """The generator behind `cram`."""
        started = time.perf_counter() - self.seconds
        shown = -math.inf
        reason = ""
        while not reason:
            try:
                scores = self._score_and_update()
            except (RuntimeError, MemoryError) as error:
                if not ran_out_of_memory(error):
                    raise
                if self.step == 0:
                    raise ModelError(_NO_MEMORY.format(model=self.lm.name)) from error
                reason = "memory"
                break
            self.seconds = time.perf_counter() - started
            reason = self._look(scores, self.seconds, stop)
            if checkpoints and (not reason or reason == "stopped"):
                checkpoints.offer(self, now=bool(reason))
            if reason or self.seconds - shown >= YIELD_SECONDS:
                shown = self.seconds
                yield self._progress(scores, last=bool(reason), notice=checkpoints.news() if checkpoints else "")
            self.step += not reason
            if reason == "solved" and not self._still_solved():
                reason = ""
        with memory_or(_NO_MEMORY_TO_JUDGE.format(model=self.lm.name)):
            result = self._result(reason, started)
        yield result
        if checkpoints and reason not in UNFINISHED:
            checkpoints.remove()

    def identity(self) -> dict[str, Any]:
        """What a checkpoint is good for: everything that the run's future depends on but its state."""
        lm, start = self.lm, self.start
        given = b"" if start is None else start.detach().cpu().float().numpy().tobytes()
        return {
            "text": token_digest(self.token_ids),
            "model": lm.fingerprint,
            "tokenizer": lm.tokenizer_fingerprint,
            "start": hashlib.sha256(given).hexdigest(),
            "program": f"cramdemo {__version__}",
            "device": lm.device.type,
            "dtype": dtype_name(lm.dtype),
            "dtype_of_steps": dtype_name(self.stepper.dtype),
            **dataclasses.asdict(self.config),
        }

    def state(self) -> State:
        """All that the steps after this one depend on, and what is told of those before."""
        tensors = {"mem": self.mem, "weights": self.weights, "solved_at": self.solved_at, "done": self.done}
        for part, held in self._parts().items():
            tensors |= {f"{part}.{name}": tensor for name, tensor in held.state().items()}
        numbers = {"step": self.step + 1, "trained": self.trained, "margin": self.margin}
        return State(tensors, numbers | {"flops": self.flops, "seconds": self.seconds})

    def restore(self, state: State) -> None:
        """Go on from a state that is made as this run's is.

        Raises:
            ValueError: it cannot be a state of this run, which is as it was.
        """
        self._check(state)
        # copies lie in memory as torch's own do, on which the last bits of a product may depend
        tensors = {name: tensor.to(self.mem.device, copy=True) for name, tensor in state.tensors.items()}
        self.mem, self.weights = tensors["mem"], tensors["weights"]
        self.solved_at, self.done = tensors["solved_at"], tensors["done"]
        for part, held in self._parts().items():
            own = f"{part}."
            held.restore({name.removeprefix(own): t for name, t in tensors.items() if name.startswith(own)})
        numbers = state.numbers
        self.step, self.trained, self.flops = (int(numbers[name]) for name in ("step", "trained", "flops"))
        self.margin, self.seconds = float(numbers["margin"]), float(numbers["seconds"])

    def _parts(self) -> dict[str, Best | Seen | Curve | Optimiser]:
        return {"best": self.best, "seen": self.seen, "curve": self.curve, "optimiser": self.optimiser}

    def _check(self, state: State) -> None:
        """That nothing in it lies outside this run, so that the worst that a file can do is to start the run badly."""
        tensors, numbers, num_tokens = state.tensors, state.numbers, len(self.token_ids)
        step, trained, seen = numbers["step"], numbers["trained"], int(tensors["seen.count"])
        wanted = tensors["seen.wanted"]
        sound = {
            "step": type(step) is int and 0 < step <= self.config.steps,
            "trained": type(trained) is int and 0 < trained <= num_tokens,
            "flops": type(numbers["flops"]) is int and numbers["flops"] >= 0,
            "margin": numbers["margin"] >= 0,
            "seconds": numbers["seconds"] >= 0,
            "best": bool(torch.isfinite(tensors["best.mem"]).all()),
            "counts": _within(tensors["best.counts"], 0, num_tokens),
            "gained_at": _within(tensors["best.gained_at"], 0, step),
            "solved_at": _within(tensors["solved_at"], -1, step),
            "seen": 0 <= seen <= trained and _within(tensors["seen.rivals"], 0, self.lm.vocab_size - 1),
            "wanted": bool(wanted.all()) or (seen == trained and bool(wanted.any()) and not wanted[seen:].any()),
            "curve": len({len(tensors[f"curve.{name}"]) for name in ("steps", "nats", "accuracy")}) == 1,
            "optimiser": int(tensors["optimiser.count"].min()) >= 0,
        }
        wrong = [name for name, well in sound.items() if not well]
        if wrong:
            raise ValueError(f"its {' and '.join(wrong)} cannot be this run's")

    @torch.no_grad()
    def _score_and_update(self) -> _Scores:
        """One step."""
        if self.step % LOOK_ALL_STEPS == 0 or self.step >= self.config.steps:
            self.seen.want_all()
        ids = self.ids[:, : self.trained].expand(self.config.restarts, -1)  # (R, n)
        weights = self.weights[:, : self.trained] if self.boost else None
        found = score(
            self.stepper,
            self.mem,
            ids,
            temperature=self.temperature,
            margin=self.margin,
            weights=weights,
            wanted=self.seen.wanted,
        )
        nats, token_margins, _ = self.seen.add(found)
        scores = _Scores.of_leader(token_margins, nats.mean(-1), self.margin)
        self._date(scores.correct)
        if self.seen.wanted is None:  # what was last seen some steps ago proves nothing
            self.best.keep(self.mem[scores.leader], scores.rank, scores.counts, scores.exact, self.step)
            if self.trained == len(self.token_ids):
                self.done |= scores.solved
        if weights is not None:
            self.weights[:, : self.trained] = boosted(weights, token_margins, margin=self.margin, rate=self.boost)
        predicted = found.nats.shape[1]
        self._update(found.gradient * (predicted / self.trained))  # of the mean over all tokens trained
        step = self.lm.flops.step(self.config.num_mem + self.trained - 1, predicted)
        self.flops += self.config.restarts * (step + self.optimiser.flops)
        self.curve.add(self.step, scores.nats, scores.counts[1] / len(self.token_ids))
        return scores

    def _date(self, correct: Tensor) -> None:
        """Note since which step each token, (n,) bool, has been right."""
        since = self.solved_at[: len(correct)]
        self.solved_at[: len(correct)] = torch.where(correct, torch.where(since < 0, self.step, since), -1)

    def _choose_wanted(self, solved: bool) -> None:
        """Which tokens the next steps predict: all, or those that are not well solved where that saves enough."""
        assert self.seen.looks is not None
        if solved or self.seen.looks.margins.shape[1] < self.trained or not self._head_is_worthwhile:
            self.seen.want_all()
        else:
            self.seen.want_unsolved(self.margin)

    def _update(self, gradient: Tensor) -> None:
        """Stands still once the run is done."""
        size = learning_rate(self.config, self.step) * (~self.done)
        self.mem = self.mem - size * self.optimiser.direction(gradient)

    def _look(self, scores: _Scores, seconds: float, stop: Callable[[], bool]) -> str:
        """Read the device, let the trained prefix grow, and say why the run ends ("" if it goes on)."""
        if self.lm.device.type != "cpu" and self.step % GPU_POLL_STEPS and self.step + 1 < self.config.steps:
            return ""
        if bool(self.done):
            return "solved"
        if not bool(torch.isfinite(scores.nats)):
            if self.step == 0:
                raise ModelError(_NO_NUMBERS.format(model=self.lm.name, dtype=dtype_name(self.stepper.dtype)))
            return "diverged"
        if self.trained < len(self.token_ids) and bool(scores.exact):
            self.trained = min(len(self.token_ids), self.trained + self.growth)
        self._choose_wanted(bool(scores.solved))
        return self._limit(seconds) or ("stopped" if stop() else "")

    def _limit(self, seconds: float) -> str:
        """Which limit of its settings the run has reached, "" if none."""
        if self.config.seconds is not None and seconds >= self.config.seconds:
            return "seconds"
        if self.config.patience is not None and self.step - int(self.best.gained_at) >= self.config.patience:
            return "patience"
        return "steps" if self.step >= self.config.steps else ""

    def _still_solved(self) -> bool:
        """Decode what was found; if rounding undid it, ask for twice the margin and go on."""
        with memory_or(_NO_MEMORY_TO_JUDGE.format(model=self.lm.name)):
            self.proof = _verify(self.lm, self._vectors(self.best.mem), self.token_ids, self.give_up)
        self.flops += _verification_flops(self.lm, self.config.num_mem, self.proof)
        if all(check.lossless for check in self.proof):
            return True
        self.proof = []
        self.margin = max(2 * self.margin, 0.1)
        self.seen.want_all()
        self.done.zero_()
        self.best.forget_rank()
        return False

    def _news(self, *, last: bool) -> MemVectors | None:
        """The best vectors, if they are better than those told last and it is time."""
        rank, (told, told_at) = float(self.best.rank), self.told
        if rank == told or not (last or self.seconds - told_at >= BEST_SECONDS):
            return None
        self.told = (rank, self.seconds)
        accuracy = int(self.best.counts[1]) / len(self.token_ids)
        return dataclasses.replace(self._vectors(self.best.mem), metrics={"accuracy": accuracy})

    def _progress(self, scores: _Scores, *, last: bool, notice: str) -> Progress:
        correct = scores.correct.tolist()
        counts = scores.counts.tolist()
        best = self.best.counts.tolist()
        curve = self.curve.news()
        return Progress(
            step=self.step,
            seconds=self.seconds,
            loss_bits=curve[-1][1],
            accuracy=curve[-1][2],
            solved_prefix=counts[0],
            solved_total=counts[1],
            trained_tokens=len(correct),
            num_tokens=len(self.token_ids),
            min_margin=float(scores.min_margin),
            marks="".join("1" if c else "0" for c in correct).ljust(len(self.token_ids), "0"),
            best_prefix=best[0],
            best_total=best[1],
            curve=curve,
            best=self._news(last=last),
            flops=self.flops,
            predicted=self._predicted(scores),
            solved_at=tuple(self.solved_at.tolist()),
            notice=notice,
        )

    def _predicted(self, scores: _Scores) -> tuple[int, ...]:
        assert self.seen.looks is not None
        rivals = self.seen.looks.rivals[scores.leader]
        ids = self.ids[0, : len(rivals)].to(rivals.device)
        return tuple(torch.where(scores.correct, ids, rivals).tolist())

    def _vectors(self, mem: Tensor) -> MemVectors:
        return packed(self.lm, mem, self.token_ids, self._settings())

    def _settings(self) -> dict[str, Any]:
        """The file's `config`; nobody must think that a run from given vectors could be repeated by its seed."""
        given = {"init": "given"} if self.start is not None else {}
        return {**dataclasses.asdict(self.config), **given, "steps_done": self.step}

    def _result(self, reason: str, started: float) -> CramResult:
        return judge(
            self.lm,
            self._vectors(self.best.mem),
            self.token_ids,
            reason=reason,
            steps=self.step,
            started=started,
            flops=self.flops,
            proof=self.proof,
            give_up=self.give_up,
        )


def _within(whole: Tensor, low: float, high: float) -> bool:
    return bool(((whole >= low) & (whole <= high)).all())


_NO_MEMORY = "There is not enough memory for one step of {model}. Shorten the text, or pick a smaller model."
_NO_MEMORY_TO_JUDGE = (
    "There is not enough memory to decode what was found with {model}. Shorten the text, or pick a smaller model."
)
_NO_NUMBERS = (
    "{model} gives numbers that are not finite for this text in {dtype}. Try another precision, or another model."
)
_FIGURES = ("accuracy", "min_margin", "h_lm_bits", "information_gain_bits", "token_gain")


def _with_figures(vectors: MemVectors, result: CramResult) -> MemVectors:
    """The file's `verified` and `metrics`: nothing in them depends on the clock."""
    metrics = {name: getattr(result, name) for name in _FIGURES} | {"total_bits": result.total_bits}
    return dataclasses.replace(vectors, verified=[check.as_dict() for check in result.verifications], metrics=metrics)


@dataclass(frozen=True)
class _Scores:
    """What one forward pass says of the leading restart; tensors on the device."""

    leader: Tensor  # (), int64: index of the restart with the highest rank
    correct: Tensor  # (n,), bool
    counts: Tensor  # (2,), int64: solved prefix, solved total
    nats: Tensor  # (), cross-entropy a token
    min_margin: Tensor  # ()
    exact: Tensor  # (), bool: every trained token is right
    solved: Tensor  # (), bool: and by the margin asked for
    rank: Tensor  # (), float64: more correct tokens first, then a larger margin or a lower loss

    @staticmethod
    def of_leader(token_margins: Tensor, nats: Tensor, margin: float) -> _Scores:
        """Scores of the best of R restarts, from margins (R, n) and cross-entropy (R,)."""
        correct = token_margins > 0
        total, smallest, exact = correct.sum(-1), token_margins.amin(-1), correct.all(-1)
        tie_break = torch.where(exact, 1 + smallest.double().clamp(min=0).atan(), torch.exp(-nats.double()))
        rank = torch.where(nats.isfinite(), total.double() + tie_break / 4, -math.inf)  # a diverged one never leads
        leader = rank.argmax()
        return _Scores(
            leader=leader,
            correct=correct[leader],
            counts=torch.stack([solved_prefix(correct[leader]), total[leader]]),
            nats=nats[leader],
            min_margin=smallest[leader],
            exact=exact[leader],
            solved=exact[leader] & (smallest[leader] >= margin),
            rank=rank[leader],
        )
