"""The result card: what a finished run reached, said in HTML. Pure functions of results; knows no widget."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from cramdemo.catalogue import Published, find, published
from cramdemo.config import MAX_NUM_MEM_PAGE, CramConfig
from cramdemo.cram import CramResult
from cramdemo.decode import Verification
from cramdemo.errors import plural
from cramdemo.vectors import MemVectors, dtype_name

ZLIB_LEVEL = 9
WHY = {  # each figure's definition
    "tokens a vector": "tokens decoded over memory tokens",
    "information gain": "of the text’s bits under the bare model, those that the vectors save; tokens 2 to N",
    "token gain": "right tokens, teacher-forced, with [mem] less without; tokens 2 to N",
    "theoretical capacity": "if every bit of 16-bit vectors held text",
    "utilisation": "token gain over that capacity",
}
ENCODER_WHY = ("the encoder alone", "right tokens, teacher-forced, without one step of optimisation")
GRID_WORDS = "teacher-forced accuracy of at least 0.99 on PG-19"


@dataclass(frozen=True)
class Suggestions:
    """What to try after a run that did not get there; None or "" where there is nothing to try.

    Attributes:
        num_mem: go on with so many memory tokens.
        steps: go on for at most so many more steps.
        shorter: a shorter text.
    """

    num_mem: int | None = None
    steps: int | None = None
    shorter: str = ""


def suggestions(result: CramResult, config: CramConfig, shorter: str) -> Suggestions:
    """To go on from the vectors for as many steps again, or with one more beside them; or the part of the text that
    does decode."""
    if result.lossless:
        return Suggestions()
    more = config.num_mem + 1
    return Suggestions(more if more <= MAX_NUM_MEM_PAGE else None, config.steps, shorter)


def byte_sizes(text: str, result: CramResult) -> list[tuple[str, int]]:
    """Bytes of the text, of the text by zlib, and of the vectors as downloaded (without the file's header)."""
    raw = text.encode("utf-8")
    dtype = dtype_name(result.vectors.mem.dtype)
    return [
        ("the text, UTF-8", len(raw)),
        ("the text, zlib", len(zlib.compress(raw, ZLIB_LEVEL))),
        (f"{plural(result.vectors.num_mem, 'vector')}, {dtype}", result.vectors.num_bytes),
    ]


def card_html(text: str, result: CramResult, tries: Suggestions) -> str:
    """The whole card."""
    head = _lossless_head(result) if result.lossless else _partial_head(result, tries)
    kind = "lossless" if result.lossless else "partial"
    return (
        f'<section class="cd-card" data-kind="{kind}" aria-label="Result">{head}'
        f"{_figures(result)}{_bytes(byte_sizes(text, result))}</section>"
    )


def unverified_html(vectors: MemVectors, why: str) -> str:
    """The card of vectors that nobody has decoded: their file is all there is."""
    count = plural(vectors.num_tokens, "token")
    right = round(vectors.metrics["accuracy"] * vectors.num_tokens)
    return (
        '<section class="cd-card" data-kind="partial" aria-label="Result"><header><span class="cd-badge">NOT VERIFIED'
        f'</span><p class="cd-claim" role="status">{right} of {count} right under teacher forcing.</p></header>'
        f'<p class="cd-proof">{escape(why)} These are the best vectors that it had reported before, and nobody has '
        "decoded them yet: decode them to see what they hold, or run again.</p></section>"
    )


def blank_html() -> str:
    """The card before the first run: what will stand where."""
    cells = "".join(
        f'<div><dt>{escape(name)}</dt><dd aria-hidden="true">…</dd><dd class="cd-why">{escape(why)}</dd></div>'
        for name, why in (*WHY.items(), ENCODER_WHY)
    )
    rows = "".join(
        f'<div class="cd-row"><dt>{name}</dt><dd><i style="width:0.6%"></i><b aria-hidden="true">… B</b></dd></div>'
        for name in ("the text, UTF-8", "the text, zlib", "the vectors")
    )
    return (
        f'<section class="cd-panel cd-await" aria-label="Result, still to come"><h3>Result</h3><p class="cd-empty">'
        "When a run ends, the vectors are written to a file’s bytes, read back and decoded. The verdict stands here, "
        "with the file to download, and what was reached:</p>"
        f'<dl class="cd-figures">{cells}</dl><dl class="cd-bytes">{rows}</dl></section>'
    )


def _lossless_head(result: CramResult) -> str:
    count, k = result.num_tokens, plural(result.vectors.num_mem, "memory token")
    checks = " and ".join(f"{_place(check)} (smallest margin {check.min_margin:.2f})" for check in result.verifications)
    return (
        f'<header><span class="cd-badge">LOSSLESS</span><p class="cd-claim" role="status">'
        f"Decoded {count} of {plural(count, 'token')} from the file’s bytes.</p></header>"
        f'<p class="cd-proof">Verified on {checks}: the file’s bytes were read back, and the model wrote the text '
        f"from {k} alone, token by token. {_effort(result)}</p>"
    )


def _effort(result: CramResult) -> str:
    seconds = f"{result.seconds:.1f} seconds"
    if result.steps == 0:
        return f"The starting vectors already held the text, so no step was needed; {seconds}."
    return f"{plural(result.steps, 'step')}, {seconds}."


def _place(check: Verification) -> str:
    return f"{escape(check.device.upper())} in {escape(check.dtype)}"


def _partial_head(result: CramResult, tries: Suggestions) -> str:
    check = result.verification
    correct = int(result.token_correct.sum())
    reached = (
        f"Decoding gave {check.correct_prefix} of {plural(check.num_tokens, 'token')} before the first wrong one; "
        f"teacher-forced, {correct} of {check.num_tokens} are right. Checked on {_place(check)} "
        f"after {plural(result.steps, 'step')}."
    )
    advice = " Go on from these vectors, or shorten the text." if tries != Suggestions() else ""
    return (
        f'<header><span class="cd-badge">NOT YET EXACT</span><p class="cd-claim" role="status">'
        f"{check.correct_prefix} of {plural(check.num_tokens, 'token')} decoded.</p></header>"
        f'<p class="cd-proof">{reached}{advice}</p>'
    )


def _figures(result: CramResult) -> str:
    vectors, held = result.vectors, result.verification.correct_prefix
    figures = [
        ("tokens a vector", f"{held / vectors.num_mem:.1f}", WHY["tokens a vector"]),
        (
            "information gain",
            f"{result.information_gain_bits:,.1f} bits",
            f"of the text’s {result.h_lm_bits:,.1f} bits under the bare model; tokens 2 to N",
        ),
        (
            "token gain",
            f"{result.token_gain:+,}" if result.token_gain else "0",
            WHY["token gain"],
        ),
        (
            "theoretical capacity",
            f"{result.theoretical_capacity:,.0f} tokens",
            WHY["theoretical capacity"],
        ),
        ("utilisation", f"{result.utilisation:.1%}", WHY["utilisation"]),
    ]
    if result.encoder_correct is not None:
        right = int(result.encoder_correct.sum())
        figures.append(
            (
                "the encoder alone",
                f"{right} of {plural(result.num_tokens, 'token')}",
                f"right, teacher-forced, without one step of optimisation; the first {result.encoder_prefix} in a row",
            )
        )
    figures += _beside_the_papers(result)
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd><dd class='cd-why'>{escape(why)}</dd></div>"
        for name, value, why in figures
    )
    return f'<dl class="cd-figures">{cells}</dl>'


def _beside_the_papers(result: CramResult) -> list[tuple[str, str, str]]:
    """What the papers reached with the same model and one vector, where they used it."""
    entry = find(result.vectors.model_id)
    known = published(entry) if entry else Published()
    found = []
    if known.cramming:
        held = plural(result.verification.correct_prefix, "token")
        why = f"in one vector, {GRID_WORDS}; here {held} decoded from {plural(result.vectors.num_mem, 'vector')}"
        found.append(("cramming paper", f"{known.cramming:,} tokens", why))
    if known.progressive:
        why = "in one vector, mean exact prefix by teacher forcing on PG-19"
        found.append(("progressive paper", f"{known.progressive:,.0f} tokens", why))
    return found


def _bytes(sizes: Sequence[tuple[str, int]]) -> str:
    largest = max(size for _, size in sizes)
    rows = "".join(
        f'<div class="cd-row"><dt>{escape(name)}</dt><dd><i style="width:{max(100 * size / largest, 0.6):.1f}%"></i>'
        f"<b>{size:,} B</b></dd></div>"
        for name, size in sizes
    )
    return (
        f'<dl class="cd-bytes">{rows}</dl><p class="cd-honest">{_honest_words(sizes)} '
        "What is remarkable is how much one input position can carry.</p>"
    )


def _honest_words(sizes: Sequence[tuple[str, int]]) -> str:
    best_text = min(size for _, size in sizes[:2])
    if sizes[-1][1] > best_text:
        return "In bytes this is no compression: the text itself is smaller."
    return "Here the vectors are the smaller ones; to read them one needs the whole model."
