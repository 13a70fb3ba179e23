"""From rows to figures, reckoned by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from cramdemo.reproduce.table import by_length, capacities, difference, entropy_fit, lines, published_row


def _row(length: int, accuracy: float, **changes: Any) -> dict[str, Any]:
    values = {
        "model": "m",
        "kind": "prose",
        "num_mem": 1,
        "length": length,
        "accuracy": accuracy,
        "accuracy_without_token_0": accuracy,
        "lossless": accuracy == 1.0,
        "horizon": round(length * accuracy),
        "information_gain_bits": 10.0 * length,
        "h_lm_bits": 12.0 * length,
        "token_gain": length // 2,
        "theoretical_capacity": 200.0,
        "steps": 5,
    }
    return values | changes


ROWS = [
    *(_row(8, 1.0), _row(8, 1.0), _row(16, 1.0), _row(16, 0.98, accuracy_without_token_0=1.0)),
    *(_row(32, 0.9), _row(32, 0.7), {"model": "m", "kind": "prose", "num_mem": 1, "length": 32, "error": "short"}),
]


def test_lengths_are_means_of_the_texts_that_were_run() -> None:
    eight, sixteen, more = by_length(ROWS)
    assert (eight["accuracy"], eight["lossless"], eight["texts"]) == (1.0, 1.0, 2)
    assert sixteen["accuracy"] == pytest.approx(0.99) and sixteen["accuracy_as_published"] == 1.0
    assert (more["texts"], more["not_run"], more["lossless"]) == (2, 1, 0.0)
    assert more["median_horizon"] == pytest.approx((29 + 22) / 2)


def test_capacities_by_the_paper_s_rule_by_ours_and_by_decoding() -> None:
    rows = [row for row in ROWS if row["length"] != 16]
    rows += [_row(16, 0.98, accuracy_without_token_0=1.0), _row(16, 0.98, accuracy_without_token_0=1.0)]
    (line,) = capacities(rows)
    assert (line["capacity_as_published"], line["capacity"], line["capacity_lossless"]) == (16, 8, 8)
    beyond = [160.0, 160.0, 320.0, 320.0]  # bits gained by the texts below 0.99
    assert line["c_h_bits"] == pytest.approx(sum(beyond) / 4)
    assert line["c_h_nats"] == pytest.approx(240 * math.log(2))
    assert line["token_gain"] == pytest.approx(12) and line["utilisation"] == pytest.approx(12 / 200)


def test_a_model_that_holds_nothing_has_a_line_that_says_so() -> None:
    (line,) = capacities([_row(8, 0.5, token_gain=0)])
    assert line["capacity"] is line["capacity_lossless"] is None and line["token_gain"] == 0
    (none,) = capacities([{"model": "m", "kind": "prose", "num_mem": 1, "length": 8, "error": "short"}])
    assert none["capacity"] is none["c_h_bits"] is none["utilisation"] is None


def test_the_paper_s_figures_stand_beside_those_of_the_same_model_kind_and_k() -> None:
    found = published_row("meta-llama/Llama-3.2-1B", "prose", 1)
    assert found == {"published_capacity": 512, "published_token_gain": 426, "published_c_h_nats": 2120}
    assert published_row("meta-llama/Llama-3.2-1B", "random words", 1)["published_capacity"] == 316
    assert published_row("meta-llama/Llama-3.2-1B", "unseen", 1)["published_capacity"] == 512
    for other in (("cram-mini", "prose", 1), ("meta-llama/Llama-3.2-1B", "prose", 2), ("x/Llama-3.2-1B", "seen", 1)):
        assert set(published_row(*other).values()) == {None}


def test_the_line_against_k_and_the_law_s_fit() -> None:
    table = [{"model": "m", "num_mem": k, "capacity": 10 * k + 3} for k in (1, 2, 4)]
    assert lines(table, "capacity")["m"].slope == pytest.approx(10)
    assert lines(table[:1], "capacity") == {} and lines([{**table[0], "capacity": None}], "capacity") == {}
    rows = [_row(1, 1.0, h_lm_bits=h, information_gain_bits=min(h, 50.0)) for h in (10.0, 40.0, 80.0, 120.0)]
    assert entropy_fit(rows) == pytest.approx(50)
    assert entropy_fit([_row(1, 1.0, h_lm_bits=9.0, information_gain_bits=9.0)]) is None


def test_the_difference_has_an_interval_and_needs_both_kinds() -> None:
    seen = [_row(8, accuracy, kind="seen") for accuracy in (0.9, 1.0, 0.8, 0.9)]
    unseen = [_row(8, accuracy, kind="unseen") for accuracy in (0.5, 0.4, 0.6, 0.5)]
    (line,) = difference(seen + unseen + [_row(16, 0.5, kind="seen")])
    assert line["difference"] == pytest.approx(0.4) and 0.2 < line["interval"][0] < 0.4 < line["interval"][1] < 0.6
