"""Sweeps: texts x models x lengths x K x seeds x recipes over the processes of one or many machines, resumable.

`read_spec` reads what is asked for, `run_sweep` runs what is missing of it, `read_rows` and `export` give what is
there. The processes share one number, the next job, in torch.distributed's store (`deal`); each writes rows to a file
of its own (`rows`), so that whoever is killed loses the job it was at and no more.
"""

from cramdemo.sweep.rows import export, read_rows
from cramdemo.sweep.run import Done, rows_of, run_sweep
from cramdemo.sweep.spec import Spec, read_spec

__all__ = ["Done", "Spec", "export", "read_rows", "read_spec", "rows_of", "run_sweep"]
