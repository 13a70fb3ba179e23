"""From rows to figures: the cramming paper's conventions beside this program's own, and the published numbers.

The paper scores tokens 1..N-1 and gives nats; here all N tokens count, lossless means decoded, and costs are in bits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import groupby
from statistics import mean, median
from typing import Any

from cramdemo.bench.report import interval
from cramdemo.capacity import Fit, linear_fit
from cramdemo.catalogue import paper_rows
from cramdemo.entropy import fit_capacity
from cramdemo.metrics import CAPACITY_ACCURACY
from cramdemo.reproduce.grid import PROSE, SEEN, UNSEEN, WORDS

Row = Mapping[str, Any]
KINDS = (PROSE, WORDS, SEEN, UNSEEN)
PUBLISHED_KIND = {PROSE: "pg19", UNSEEN: "fanfics", WORDS: "random"}
PUBLISHED_SCALING = {"Llama-3.2-1B": ((1, 512), (16, 7000))}  # read off the paper's figure


def by_length(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Means of the texts of each model, kind, K and length; texts that could not be run are counted, not averaged."""
    table = []
    for (model, kind, num_mem, length), group in _groups(rows, "model", "kind", "num_mem", "length"):
        good = [row for row in group if "error" not in row]
        table.append(
            {
                "model": model,
                "kind": kind,
                "num_mem": num_mem,
                "length": length,
                "texts": len(good),
                "not_run": len(group) - len(good),
                "accuracy": _mean(good, "accuracy"),
                "accuracy_as_published": _mean(good, "accuracy_without_token_0"),
                "lossless": _mean(good, "lossless"),
                "median_horizon": median(row["horizon"] for row in good) if good else None,
                "gain_bits": _mean(good, "information_gain_bits"),
                "steps": _mean(good, "steps"),
            }
        )
    return table


def capacities(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A line for each model, kind of text and K: capacities, gains, utilisation, and the paper's row beside them."""
    table = []
    for (model, kind, num_mem), group in _groups(rows, "model", "kind", "num_mem"):
        good = [row for row in group if "error" not in row]
        lengths = by_length(good)
        # the plateau: texts of lengths that are not held (PAPER.md: accuracy below 0.99)
        beyond = [row for row in good if row["accuracy"] < CAPACITY_ACCURACY]
        gain = _mean(beyond, "information_gain_bits")
        theory = good[0]["theoretical_capacity"] if good else None
        token_gain = _mean(beyond, "token_gain")
        table.append(
            {
                "model": model,
                "kind": kind,
                "num_mem": num_mem,
                "capacity_as_published": _longest(lengths, "accuracy_as_published", CAPACITY_ACCURACY),
                "capacity": _longest(lengths, "accuracy", CAPACITY_ACCURACY),
                "capacity_lossless": _longest(lengths, "lossless", 0.5),
                "longest_run": max((line["length"] for line in lengths), default=None),
                "token_gain": token_gain,
                "c_h_bits": gain,
                "c_h_nats": None if gain is None else gain * math.log(2),
                "theoretical_capacity": theory,
                "utilisation": token_gain / theory if theory and token_gain is not None else None,
                **published_row(model, kind, num_mem),
            }
        )
    return table


def published_row(model: str, kind: str, num_mem: int) -> dict[str, Any]:
    """The cramming paper's Table 1 for a model and kind of text; None where it gives nothing."""
    row = _table1().get(model.rpartition("/")[2].lower(), {}) if num_mem == 1 else {}
    name = PUBLISHED_KIND.get(kind, "")

    def value(key: str) -> float | None:
        return float(row[key]) if row.get(key) else None

    return {
        "published_capacity": value(f"capacity_{name}_tokens"),
        "published_token_gain": value(f"token_gain_{name}"),
        "published_c_h_nats": value(f"information_gain_{name}_nats"),
    }


def lines(table: Sequence[Row], column: str) -> dict[str, Fit]:
    """For each model the straight line of a column of `capacities` against K, by least squares."""
    found = {}
    for (model,), group in _groups(table, "model"):
        points = [(line["num_mem"], line[column]) for line in group if line[column]]
        fit = linear_fit(points) if len(points) > 1 else None
        if fit:
            found[model] = fit
    return found


def entropy_fit(rows: Sequence[Row]) -> float | None:
    """C_H in bits of H_LM+mem = max(0, H_LM - C_H), by least squares over all texts that were run."""
    good = [row for row in rows if "error" not in row]
    h_lm = [row["h_lm_bits"] for row in good]
    return fit_capacity(h_lm, [max(0.0, row["h_lm_bits"] - row["information_gain_bits"]) for row in good])


def difference(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """For each model and length: mean accuracy on seen less unseen books, with a 95 % bootstrap interval.

    As many texts of both are compared; they are drawn in pairs, which are no pairs but by their number.
    """
    table = []
    for (model, length), group in _groups(rows, "model", "length"):
        good = [row for row in group if "error" not in row]
        kinds = ([row["accuracy"] for row in good if row["kind"] == kind] for kind in (SEEN, UNSEEN))
        pairs = list(zip(*kinds, strict=False))
        if not pairs:
            continue

        def gap(chosen: Sequence[int], pairs: list[Any] = pairs) -> float:
            return float(mean(pairs[i][0] - pairs[i][1] for i in chosen))

        table.append(
            {
                "model": model,
                "length": length,
                "seen": mean(seen for seen, _ in pairs),
                "unseen": mean(unseen for _, unseen in pairs),
                "difference": gap(range(len(pairs))),
                "interval": interval(gap, len(pairs)),
            }
        )
    return table


def _groups(rows: Sequence[Row], *keys: str) -> list[tuple[tuple[Any, ...], list[Row]]]:
    def key(row: Row) -> tuple[Any, ...]:
        return tuple(KINDS.index(row[name]) if name == "kind" else row[name] for name in keys)

    def plain(row: Row) -> tuple[Any, ...]:
        return tuple(row[name] for name in keys)

    return [(plain(group[0]), group) for _, it in groupby(sorted(rows, key=key), key) for group in [list(it)]]


def _mean(rows: Sequence[Row], key: str) -> float | None:
    values = [float(row[key]) for row in rows if row[key] is not None]
    return mean(values) if values else None


def _longest(lengths: Sequence[Row], key: str, least: float) -> int | None:
    """The longest length that reaches so much, as the paper's rule takes it; None where none does."""
    return max((line["length"] for line in lengths if line[key] is not None and line[key] >= least), default=None)


@cache
def _table1() -> dict[str, dict[str, str]]:
    return {row["model_id"].rpartition("/")[2].lower(): row for row in paper_rows("table1.csv")}
