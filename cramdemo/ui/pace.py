"""How many seconds of a lent GPU to ask for: by a model's size at first, then by what its last run took."""

from __future__ import annotations

from dataclasses import dataclass

from cramdemo.catalogue import ModelEntry
from cramdemo.config import CramConfig
from cramdemo.cram import CramResult, Progress

MAX_SECONDS = 75.0  # ZeroGPU refuses a visitor without an account 80 at once
END_SECONDS = 3.0  # a run ends itself so long before the GPU is taken back
LEAST_SECONDS = 5.0  # for steps, however long the text
SLACK = 1.25  # over the expectation: no two loans are alike
START_SECONDS = 5.0
STORED_BYTES_A_SECOND = 1e9  # from the disk, where ZeroGPU keeps the weights until a loan begins
FLOPS_A_SECOND = 5e13
READ_BYTES_A_SECOND = 1e12
LAYER_SECONDS = 2e-3  # small steps wait for the host, layer by layer
LEAST_LAYERS = 8
ENOUGH_STEPS = 10  # fewer tell nothing of a step


@dataclass(frozen=True)
class Share:
    """What a run gets of a GPU's time, in seconds.

    Attributes:
        asked: how long the GPU is asked for.
        steps: how much of it the optimiser may use; the rest is for loading and verification.
    """

    asked: float
    steps: float


class Pace:
    """What steps and decoded tokens of each model take on the GPUs that are lent here."""

    def __init__(self) -> None:
        self._slower: dict[str, tuple[float, float]] = {}  # measured over guessed: a step, a token

    def share(self, entry: ModelEntry, config: CramConfig, num_tokens: int) -> Share:
        """The share of a run: never more than `MAX_SECONDS`, and less if its steps or its time budget are few."""
        wanted = config.steps * self._slow(entry)[0] * _step_seconds(entry, config, num_tokens) * SLACK
        if config.seconds is not None:
            wanted = min(wanted, config.seconds)
        rest = self.decoding(entry, num_tokens)
        asked = min(MAX_SECONDS, rest + max(wanted, LEAST_SECONDS))
        return Share(asked, max(asked - rest, LEAST_SECONDS))

    def decoding(self, entry: ModelEntry, num_tokens: int) -> float:
        """Seconds to ask for to load a model and to decode a text."""
        load = START_SECONDS + 2 * entry.parameters / STORED_BYTES_A_SECOND
        decode = num_tokens * self._slow(entry)[1] * _token_seconds(entry) * SLACK
        return min(MAX_SECONDS, load + decode + END_SECONDS)

    def learn(self, entry: ModelEntry, config: CramConfig, last: Progress, result: CramResult) -> None:
        """Correct the guess by a run: its last report came before the result was verified."""
        step, token = self._slow(entry)
        if last.step >= ENOUGH_STEPS:
            step = last.seconds / last.step / _step_seconds(entry, config, result.num_tokens)
        decoded = sum(min(check.correct_prefix + 1, check.num_tokens) for check in result.verifications)
        if decoded:
            token = (result.seconds - last.seconds) / decoded / _token_seconds(entry)
        self._slower[entry.name] = step, token

    def _slow(self, entry: ModelEntry) -> tuple[float, float]:
        return self._slower.get(entry.name, (1.0, 1.0))


def _step_seconds(entry: ModelEntry, config: CramConfig, num_tokens: int) -> float:
    flops = 4 * entry.parameters * (config.num_mem + num_tokens) * config.restarts
    return flops / FLOPS_A_SECOND + max(entry.layers, LEAST_LAYERS) * LAYER_SECONDS


def _token_seconds(entry: ModelEntry) -> float:
    return 2 * entry.parameters / READ_BYTES_A_SECOND + max(entry.layers, LEAST_LAYERS) * LAYER_SECONDS / 2


PACE = Pace()
