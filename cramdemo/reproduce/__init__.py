"""The cramming paper's table and figures, made anew for any model: python -m cramdemo reproduce EXPERIMENT.

`grid` says what is run and runs it as sweeps, `table` makes figures of rows, `report` one HTML file of both.
"""

from cramdemo.reproduce.grid import EXPERIMENTS, PAPER_LENGTHS, SAMPLES, Asked, plan, run
from cramdemo.reproduce.report import html
from cramdemo.reproduce.table import by_length, capacities, difference

__all__ = [
    "EXPERIMENTS",
    "PAPER_LENGTHS",
    "SAMPLES",
    "Asked",
    "by_length",
    "capacities",
    "difference",
    "html",
    "plan",
    "run",
]
