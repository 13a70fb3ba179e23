"""Honest bytes: what a text takes as text, in the LM's own bits, and as [mem] vectors of fewer and fewer bits.

Nothing is called surviving that was not decoded: vectors are written to bytes in each number format, read back and
decoded. `weigh` does all of it, as a generator of states.
"""

from __future__ import annotations

import dataclasses
import lzma
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cramdemo.decode import check_model, decode_tokens, greedy_prefixes, verify
from cramdemo.errors import ConfigError, VectorFileError
from cramdemo.metrics import correct_tokens, cross_entropy_bits, solved_prefix
from cramdemo.models import FrozenLM
from cramdemo.vectors import MAX_BITS, MIN_BITS, MemVectors, Quantised, from_bytes, to_bytes, token_digest

FLOATS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
FORMATS = (*FLOATS, "int8", "int4", "int3", "int2")  # the table's; the other widths follow
ALL_FORMATS = (*FORMATS, *(f"int{n}" for n in range(MIN_BITS, MAX_BITS + 1) if f"int{n}" not in FORMATS))
NOISE_LEVELS = tuple(round(10 ** (-2 + 2 * step / 11), 4) for step in range(12))  # 0.01 to 1, evenly on a log scale
NOISE_SEEDS = 4
NUMBERS_AT_ONCE = 2**24  # logits of a batch: 64 MB
_ZLIB_LEVEL, _ZSTD_LEVEL = 9, 22
_NARROWEST, _TRIED = 0.1, 200  # scales tried, from a tenth of the widest one up to it
Stop = Callable[[], bool]


@dataclass(frozen=True)
class Stored:
    """Vectors in one number format, and what the model writes from them.

    Attributes:
        name: "float32", "bfloat16", "float16", or "int4" for quantised numbers of 4 bits.
        bits: of a number.
        num_bytes: of the vectors alone, scales included, without the file's metadata.
        token_ids: N ids of the greedy reconstruction.
        correct_prefix: leading tokens that are right, 0 to N.
    """

    name: str
    bits: int
    num_bytes: int
    token_ids: list[int]
    correct_prefix: int

    @property
    def survives(self) -> bool:
        """All N tokens are right."""
        return self.correct_prefix == len(self.token_ids)


@dataclass(frozen=True)
class NoisePoint:
    """Vectors with noise of one strength added.

    Attributes:
        sigma: standard deviation of the noise, in units of each vector's RMS.
        accuracies: teacher-forced, over all N tokens, one a seed.
        exact: seeds whose vectors still decode to all N tokens.
    """

    sigma: float
    accuracies: tuple[float, ...]
    exact: int

    @property
    def accuracy(self) -> float:
        """Mean over the seeds."""
        return sum(self.accuracies) / len(self.accuracies)


@dataclass(frozen=True)
class Positions:
    """What so many positions in front cost a model when it goes on writing.

    Attributes:
        count: positions.
        cache_bytes: of the KV cache; None for a model without attention, which keeps none.
        attention_flops: of one more token, which looks back at all of them; 0 without attention.
    """

    count: int
    cache_bytes: int | None
    attention_flops: int


@dataclass(frozen=True)
class Weighed:
    """All that is known of some vectors at one moment; each state holds what the one before held.

    Attributes:
        num_mem, hidden_size: K and d.
        token_ids: the N ids that the vectors decode to as they are.
        matches: whether they have the digest in the file, which proves them the original text.
        where: device and dtype of the model, as "CPU in float32".
        texts: what the text takes as text, (name, bytes).
        entropy_bits: of the text under the bare LM, token 0 at log2(V) bits (`entropy_coded_bits`).
        positions: of K memory tokens and of N tokens of text.
        stored: by number format, in the order of `ALL_FORMATS`; without those that cannot hold the numbers.
        noise: by strength, weakest first.
        smallest: the smallest vectors that survive, verified; None until they are known, and if none does.
        ended: nothing more will come.
    """

    num_mem: int
    hidden_size: int
    token_ids: list[int]
    matches: bool
    where: str
    texts: tuple[tuple[str, int], ...]
    entropy_bits: float
    positions: tuple[Positions, Positions]
    stored: tuple[Stored, ...] = ()
    noise: tuple[NoisePoint, ...] = ()
    smallest: MemVectors | None = None
    ended: bool = False

    @property
    def entropy_bytes(self) -> int:
        """Whole bytes of an ideal entropy coder that has the LM on both sides."""
        return math.ceil(self.entropy_bits / 8)


def weigh(lm: FrozenLM, vectors: MemVectors, stop: Stop = lambda: False) -> Iterator[Weighed]:
    """Weigh vectors against the text they decode to.

    The text is known by decoding only: where the file's digest does not match, what survives or breaks is measured
    against what the vectors decode to as they are.

    Args:
        lm: the model they were made for.
        stop: asked between tokens; when it says True, what is known by then is the last state.

    Yields:
        Cumulative states; none if it was stopped before the text was known.

    Raises:
        ModelMismatch: at the first state, if they were made for another model.
    """
    check_model(lm, vectors)
    token_ids = _written(lm, vectors, stop)
    if token_ids is None:
        return
    state = _as_text(lm, vectors, token_ids)
    yield state
    for stored in _stored(lm, vectors, token_ids, stop):
        state = dataclasses.replace(state, stored=(*state.stored, stored))
        yield state
    state = dataclasses.replace(state, smallest=smallest(lm, vectors, token_ids, state.stored))
    yield state
    for points in noise_points(lm, vectors.mem, token_ids, stop=stop):
        state = dataclasses.replace(state, noise=points)
        yield state
    if len(state.noise) == len(NOISE_LEVELS):
        yield dataclasses.replace(state, ended=True)


def text_sizes(text: str) -> tuple[tuple[str, int], ...]:
    """Bytes of a text as it is and by compressors at their strongest, without check sums where they allow it.

    zstd is left out where the package `zstandard` is not installed.
    """
    raw = text.encode("utf-8")
    xz = lzma.compress(raw, check=lzma.CHECK_NONE, preset=9 | lzma.PRESET_EXTREME)
    sizes = [("UTF-8", len(raw)), ("zlib", len(zlib.compress(raw, _ZLIB_LEVEL))), ("xz", len(xz))]
    with suppress(ImportError):
        import zstandard

        sizes.append(("zstd", len(zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(raw))))
    return tuple(sizes)


def entropy_coded_bits(bare_bits: Tensor, vocab_size: int) -> float:
    """Bits of a text by an ideal entropy coder that has the LM: H_LM + log2(V).

    H_LM sums tokens 1..N-1 (arXiv 2502.13063); token 0, which a bare LM cannot price, is one of V equally likely ones.

    Args:
        bare_bits: (N - 1,), cost of tokens 1..N-1 under the bare LM.
    """
    return float(bare_bits.double().sum()) + math.log2(vocab_size)


def quantised(vectors: MemVectors, bits: int) -> MemVectors:
    """The vectors in numbers of few bits, with one scale for each vector.

    Of 200 scales from a tenth of max|x| / (2^(bits-1) - 1/2) up to it, the one with the least squared error is taken.
    On cram-mini (20 passages of 32 tokens, K = 2, lossless) that scale and these levels, none at 0, kept 0.84, 0.96
    and 0.99 of the tokens at 2, 3 and 4 bits, teacher-forced. The largest scale kept 0.58, 0.90 and 0.99; levels
    around 0, one fewer, 0.68, 0.95 and 0.99 with their best scale and 0.20, 0.86 and 0.98 with the largest. From 5
    bits on they are alike. 6 of the 20 still decoded at 3 bits, with the other choices 1, 4 and 1.

    Raises:
        ConfigError: bits out of range.
    """
    if not MIN_BITS <= bits <= MAX_BITS:
        raise ConfigError(f"bits is {bits}; numbers can have {MIN_BITS} to {MAX_BITS} bits.")
    rows = vectors.mem.float()
    scale = torch.stack([_best_scale(row, bits) for row in rows])
    form = Quantised(_codes(rows, scale[:, None], bits), scale, bits)
    return dataclasses.replace(vectors, mem=form.numbers, quantised=form)


def stored_as(vectors: MemVectors, name: str) -> MemVectors:
    """The vectors in a number format of `ALL_FORMATS`, as they come back from a file of it.

    What was verified and measured of the original does not hold for them, so it is left out.

    Raises:
        VectorFileError: float16 cannot hold the numbers.
    """
    bare = dataclasses.replace(vectors, verified=[], metrics={})
    if name in FLOATS:
        changed = dataclasses.replace(bare, mem=vectors.mem.to(FLOATS[name]), quantised=None)
    else:
        changed = quantised(bare, bits_of(name))
    return from_bytes(to_bytes(changed))


def bits_of(name: str) -> int:
    """Bits of a number in a number format: 16 for "bfloat16", 4 for "int4"."""
    return FLOATS[name].itemsize * 8 if name in FLOATS else int(name.removeprefix("int"))


def smallest(
    lm: FrozenLM, vectors: MemVectors, token_ids: Sequence[int], stored: Sequence[Stored]
) -> MemVectors | None:
    """The vectors in the smallest format that survives, with the check by `verify` that goes into their file."""
    alive = [each for each in stored if each.survives]
    if not alive:
        return None
    found = stored_as(vectors, min(alive, key=lambda each: each.num_bytes).name)
    return dataclasses.replace(found, verified=[verify(lm, found, token_ids).as_dict()])


def noise_points(
    lm: FrozenLM,
    mem: Tensor,
    token_ids: Sequence[int],
    *,
    levels: Sequence[float] = NOISE_LEVELS,
    seeds: int = NOISE_SEEDS,
    stop: Stop = lambda: False,
) -> Iterator[tuple[NoisePoint, ...]]:
    """How accuracy falls with Gaussian noise on the vectors: at each yield all levels measured so far.

    A seed's noise is the same at all levels but for its strength. Vectors that are wrong somewhere under teacher
    forcing go wrong there when decoding too, so only the others are decoded.

    Args:
        mem: (K, d).
        token_ids: the text's N ids.
    """
    mem = mem.float()
    size = mem.square().mean(-1, keepdim=True).sqrt()  # (K, 1)
    draws = [torch.randn(mem.shape, generator=torch.Generator().manual_seed(seed)) for seed in range(seeds)]
    noisy = torch.stack([mem + level * size * draw for level in levels for draw in draws])  # (levels x seeds, K, d)
    rows = max(1, NUMBERS_AT_ONCE // (len(token_ids) * lm.vocab_size * seeds)) * seeds
    points: tuple[NoisePoint, ...] = ()
    for start in range(0, len(noisy), rows):
        if stop():
            return
        accuracies, exact = _under_noise(lm, noisy[start : start + rows], token_ids)
        points += tuple(
            NoisePoint(levels[(start + at) // seeds], tuple(accuracies[at : at + seeds]), sum(exact[at : at + seeds]))
            for at in range(0, len(accuracies), seeds)
        )
        yield points


def positions(lm: FrozenLM, count: int) -> Positions:
    """What `count` positions in front cost.

    KV cache: 2 x layers x key-value heads x head width x bytes of a number x positions. Attention of one more token:
    a product for the scores and one for the mix, each 2 x layers x heads x head width x positions FLOPs. Layers that
    look back through a window count its positions only.
    """
    config, flops = lm.model.config, lm.flops
    seen = min(count, flops.window)
    attention = 2 * 2 * (flops.attention * count + flops.windowed * seen)
    heads, key_value_heads = (_field(config, name) for name in ("num_attention_heads", "num_key_value_heads"))
    if not heads:
        return Positions(count, None, 0)
    share = (key_value_heads or heads) / heads  # of the attention's width, which all heads have together
    numbers = 2 * share * (flops.attention * count + flops.windowed * seen)
    return Positions(count, round(numbers * lm.dtype.itemsize), attention)


def _field(config: Any, name: str) -> int:
    value = getattr(config, name, None)
    return value if isinstance(value, int) else 0


def _as_text(lm: FrozenLM, vectors: MemVectors, token_ids: list[int]) -> Weighed:
    """The first state: all that needs no decoding."""
    ids = torch.tensor([token_ids], device=lm.device)
    bare_bits = cross_entropy_bits(lm.bare_logits(ids), ids[:, 1:])[0]
    return Weighed(
        num_mem=vectors.num_mem,
        hidden_size=vectors.hidden_size,
        token_ids=token_ids,
        matches=token_digest(token_ids) == vectors.token_sha256,
        where=lm.where,
        texts=text_sizes(lm.detokenize(token_ids)),
        entropy_bits=entropy_coded_bits(bare_bits, lm.vocab_size),
        positions=(positions(lm, vectors.num_mem), positions(lm, len(token_ids))),
    )


def _stored(lm: FrozenLM, vectors: MemVectors, token_ids: Sequence[int], stop: Stop) -> Iterator[Stored]:
    for name in ALL_FORMATS:
        try:
            form = stored_as(vectors, name)
        except VectorFileError:  # numbers beyond the format's largest
            continue
        written = _written(lm, form, stop)
        if written is None:
            return
        prefix = int(solved_prefix(torch.tensor(written) == torch.tensor(token_ids)))
        yield Stored(name, bits_of(name), form.num_bytes, written, prefix)


def _written(lm: FrozenLM, vectors: MemVectors, stop: Stop) -> list[int] | None:
    """The greedy reconstruction; None if it was stopped on the way."""
    token_ids: list[int] = []
    for token_id in decode_tokens(lm, vectors):
        if stop():
            return None
        token_ids.append(token_id)
    return token_ids


def _best_scale(row: Tensor, bits: int) -> Tensor:
    """The scale with the least squared error for one vector: (d,) -> ()."""
    widest = row.abs().max() / (2 ** (bits - 1) - 0.5)
    tried: Tensor = widest * torch.linspace(_NARROWEST, 1, _TRIED)
    numbers = Quantised(_codes(row.expand(_TRIED, -1), tried[:, None], bits), tried, bits).numbers
    return tried[(numbers - row).square().sum(-1).argmin()]


def _codes(rows: Tensor, scale: Tensor, bits: int) -> Tensor:
    """The nearest level of each number: (K, d) and (K, 1) -> (K, d), int32."""
    half = 2 ** (bits - 1)
    return (rows / scale).nan_to_num().floor().add(half).clamp(0, 2 * half - 1).int()


def _under_noise(lm: FrozenLM, noisy: Tensor, token_ids: Sequence[int]) -> tuple[list[float], list[bool]]:
    """Teacher-forced accuracy of each of (B, K, d) vectors, and whether it decodes exactly."""
    ids = torch.tensor([list(token_ids)], device=lm.device).expand(len(noisy), -1)
    with torch.no_grad():
        accuracy = correct_tokens(lm.text_logits(noisy.to(lm.device), ids), ids).float().mean(-1).cpu()
    hopeful = accuracy == 1
    exact = torch.zeros(len(noisy), dtype=torch.bool)
    if bool(hopeful.any()):
        decoded = greedy_prefixes(lm, noisy[hopeful], token_ids)
        exact[hopeful] = torch.tensor([count == len(token_ids) for count in decoded])
    return accuracy.tolist(), exact.tolist()
