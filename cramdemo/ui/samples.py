"""The sample texts behind the chips of the Compress tab, from assets/samples. Knows no widget."""

from __future__ import annotations

import json
from dataclasses import dataclass

from cramdemo.catalogue import ASSETS

SAMPLES = ASSETS / "samples" / "samples.json"


@dataclass(frozen=True)
class Sample:
    """A text and the number of memory tokens that suits it."""

    label: str
    num_mem: int
    text: str


def read_samples() -> list[Sample]:
    """All samples; the first one fills the text box of a fresh page."""
    return [Sample(**item) for item in json.loads(SAMPLES.read_text(encoding="utf-8"))]
