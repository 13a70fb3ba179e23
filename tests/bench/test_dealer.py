"""The simulation of the dealer, against cases that can be reckoned by hand."""

from __future__ import annotations

import pytest

from cramdemo.bench import Asked, dealer
from cramdemo.bench.dealer import bench_dealer, job_times, shared_out, take_seconds, utilisation


def test_workers_that_take_the_next_job_are_as_busy_as_can_be_reckoned() -> None:
    assert utilisation([3, 1, 1, 1], 2, 0.0) == 1.0  # one has the long job, the other the three short ones
    assert utilisation([1, 1, 1, 3], 2, 0.0) == pytest.approx(6 / (2 * 4))
    assert shared_out([3, 1, 1, 1], 2) == pytest.approx(6 / (2 * 4))


def test_takes_are_served_one_after_the_other() -> None:
    assert utilisation([2, 2], 2, 1.0) == pytest.approx(4 / (2 * 4))  # the second waits for the first one's take
    assert utilisation([0.001] * 100, 50, 1.0) < 0.001


def test_job_times_have_the_mean_they_are_said_to_have_and_long_tails() -> None:
    times = job_times(100_000)
    assert sum(times) / len(times) == pytest.approx(dealer.MEAN_SECONDS, rel=0.02)
    assert sorted(times)[50_000] < 0.65 * dealer.MEAN_SECONDS and max(times) > 20 * dealer.MEAN_SECONDS


def test_the_report_has_the_real_cost_of_a_take_and_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dealer, "JOBS_A_WORKER", (5, 20))
    monkeypatch.setattr(dealer, "WORKERS", 8)
    take, few, many = bench_dealer(Asked([]))["rows"]
    assert 1 < take["value"] < 100_000
    assert few["value"] < many["value"] <= 1 and many["shared_out_beforehand"] < many["value"]


def test_a_take_goes_through_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    served = []

    class Store:
        port = 1

        def __init__(self, *where: object, **how: object) -> None:
            served.append(how["is_master"])

        def add(self, name: str, amount: int) -> int:
            served.append(amount)
            return amount

    monkeypatch.setattr(dealer, "TCPStore", Store)
    assert take_seconds(3) >= 0 and served == [True, False, 1, 1, 1]
