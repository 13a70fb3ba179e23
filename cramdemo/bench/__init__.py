"""Benchmarks of this program on this machine: python -m cramdemo bench NAME.

Ratios come from one run with both sides in it; times are only those a user waits for.
"""

from __future__ import annotations

from cramdemo.bench.built_in import bench_built_in
from cramdemo.bench.capacity import bench_capacity
from cramdemo.bench.dealer import bench_dealer
from cramdemo.bench.document import bench_document
from cramdemo.bench.horizon import bench_horizon
from cramdemo.bench.margin import bench_margin
from cramdemo.bench.report import Asked, Benchmark, markdown
from cramdemo.bench.speed import bench_speed
from cramdemo.bench.tune import bench_tune
from cramdemo.bench.view import bench_view

BENCHMARKS = {
    "capacity": Benchmark("tokens held at equal FLOPs, beside the published recipes", bench_capacity),
    "built-in": Benchmark("short passages on the built-in model", bench_built_in),
    "horizon": Benchmark("how many tokens the built-in model holds", bench_horizon),
    "margin": Benchmark("what the margin buys when vectors are decoded in another dtype", bench_margin),
    "document": Benchmark("many segments of a text at once, over one at a time", bench_document),
    "dealer": Benchmark("how busy a sweep keeps 512 workers, simulated", bench_dealer, reads_corpus=False),
    "view": Benchmark("what the page costs", bench_view),
    "speed": Benchmark(
        "steps a second, beside the published loop and the machine's peak", bench_speed, reads_corpus=False
    ),
    "tune": Benchmark("the sweep behind a model's default settings", bench_tune),
}

__all__ = ["BENCHMARKS", "Asked", "Benchmark", "markdown"]
