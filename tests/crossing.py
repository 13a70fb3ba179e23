"""What a state must stand to reach a page on ZeroGPU: the way to another process and back."""

from __future__ import annotations

import multiprocessing
from typing import Any


def crossed(value: Any) -> Any:
    """The value as it comes out of a queue between processes."""
    way = multiprocessing.Queue()
    try:
        way.put(value)
        return way.get()
    finally:
        way.close()
        way.join_thread()
