"""Prefixes of many texts grown side by side, as one batch: a row is given out when its K vectors hold no more.

Each row goes its own way: its text, its steps, its optimiser, its weights of tokens. Where a prefix is solved, tokens
are added to it; where one is not solved in time, the longest that was is what the row gives. Whoever drives the batch
puts the next text in its place, so that the device stays full. What is given is solved under teacher forcing only:
`document.py` decodes it. No clock decides anything here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cramdemo.config import CramConfig
from cramdemo.cram import initial_vectors, learning_rate
from cramdemo.models import FrozenLM
from cramdemo.objective import boosted
from cramdemo.optimiser import OPTIMISERS
from cramdemo.placement import loop_device
from cramdemo.step import score

FIRST_TOKENS = 32  # of a prefix, for each vector
ADDED_TOKENS = 8  # to a solved prefix, for each vector
PATIENCE = 30  # steps in which a prefix has to be solved
THOROUGH_PATIENCE = 60  # where the last token is wanted, at four times the work
THOROUGH_LEAST = 2  # tokens for each vector, to which `ADDED_TOKENS` is then halved
UNSOLVED = 1e9  # margin of a token that is not asked for


@dataclass(frozen=True)
class Held:
    """What a row gives when it ends.

    Attributes:
        tag: as given with the text.
        mem: (K, d), float32, on the CPU.
        num_tokens: of the longest prefix solved, under teacher forcing; 0 if not even one token was.
        steps: updates it took.
    """

    tag: int
    mem: Tensor
    num_tokens: int
    steps: int


@dataclass
class _Row:
    """One text's place in the batch.

    Attributes:
        trained: tokens of the prefix that is tried now. added: to it, the last time. held: of the longest solved.
        limit: tokens that the prefix may grow to.
        stage: steps since it last grew. step: since it began.
    """

    tag: int
    limit: int
    trained: int
    added: int
    held: int = 0
    stage: int = 0
    step: int = 0


class Batch:
    """R rows of K vectors each.

    Args:
        lm: the frozen model.
        config: filled; of it count `num_mem`, `steps` (of a row), `learning_rate`, `margin`, `temperature`, `boost`,
            `optimizer`, `init` and `seed`.
        rows: R.
        thorough: try longer, and then shorter additions, before a row ends.
    """

    def __init__(self, lm: FrozenLM, config: CramConfig, rows: int, *, thorough: bool = False) -> None:
        assert config.optimizer is not None and config.margin is not None
        assert config.temperature is not None and config.boost is not None
        self.lm, self.config, self.stepper = lm, config, lm.for_steps()
        self.margin, self.temperature, self.boost = config.margin, config.temperature, config.boost
        self.patience = THOROUGH_PATIENCE if thorough else PATIENCE
        self.least = (THOROUGH_LEAST if thorough else ADDED_TOKENS) * config.num_mem
        place = loop_device(lm.device)
        self.rows: list[_Row | None] = [None] * rows
        self.mem = torch.zeros(rows, config.num_mem, lm.hidden_size, device=place)
        self.best = torch.zeros_like(self.mem)
        self.ids = torch.zeros(rows, 0, dtype=torch.int64, device=lm.device)
        self.weights = torch.zeros(rows, 0, device=place)
        self.optimiser = OPTIMISERS[config.optimizer](self.mem)
        self.flops = 0
        self.solved = [0] * rows  # tokens right under teacher forcing, of what each row tries now

    @property
    def free(self) -> list[int]:
        """Rows without a text."""
        return [number for number, row in enumerate(self.rows) if row is None]

    def put(self, number: int, tag: int, token_ids: Sequence[int]) -> None:
        """Give a free row a text, whose first tokens it begins with.

        Args:
            token_ids: as many as the prefix may grow to, at least one.
        """
        ids = torch.tensor(token_ids, device=self.lm.device)
        self._widen(len(ids))
        first = min(len(ids), FIRST_TOKENS * self.config.num_mem)
        self.rows[number] = _Row(tag, len(ids), first, ADDED_TOKENS * self.config.num_mem)
        self.ids[number] = 0
        self.ids[number, : len(ids)] = ids
        self.weights[number] = 1
        self.mem[number] = initial_vectors(self.lm, ids[None, :first], self.config)[0]
        self.flops += self.lm.encode_flops(first, self.config.num_mem) if self.lm.encoder else 0
        self.best[number] = self.mem[number]
        self.optimiser.forget(number)
        self.solved[number] = 0

    def shorten(self, number: int, limit: int) -> None:
        """Let a row's text end sooner, but not within the prefix that it tries now."""
        row = self.rows[number]
        assert row is not None and limit >= row.trained
        row.limit = limit

    def trained(self, number: int) -> int:
        """Tokens of the prefix that a row tries now."""
        row = self.rows[number]
        return 0 if row is None else row.trained

    def step(self) -> list[Held]:
        """One step of every row that has a text; gives what ended, whose rows are free then."""
        numbers = [number for number, row in enumerate(self.rows) if row is not None]
        token_margins, gradient = self._score(numbers)
        smallest = token_margins.amin(-1).tolist()
        solved = (token_margins > 0).sum(-1).tolist()
        ended, sizes = [], torch.zeros(len(self.rows))
        for place, number in enumerate(numbers):
            row = self.rows[number]
            assert row is not None
            unasked = token_margins.shape[1] - row.trained
            self.solved[number] = solved[place] - unasked
            if self._goes_on(row, number, smallest[place] >= self.margin):
                sizes[number] = learning_rate(self.config, min(row.step, self.config.steps))
                row.step += 1
            else:
                ended.append(Held(row.tag, self.best[number].cpu().clone(), row.held, row.step))
                self.rows[number] = None
        self.mem = self.mem - sizes.to(self.mem.device)[:, None, None] * self.optimiser.direction(gradient)
        return ended

    def _widen(self, length: int) -> None:
        more = length - self.ids.shape[1]
        if more > 0:
            self.ids = torch.nn.functional.pad(self.ids, (0, more))
            self.weights = torch.nn.functional.pad(self.weights, (0, more), value=1.0)

    @torch.no_grad()
    def _score(self, numbers: list[int]) -> tuple[Tensor, Tensor]:
        """Margins (B, n) of the B rows' trained tokens, `UNSOLVED` beyond them; gradients (R, K, d) of all rows."""
        rows = [row for row in self.rows if row is not None]
        longest = max(row.trained for row in rows)
        lengths = torch.tensor([[row.trained] for row in rows], device=self.mem.device)
        asked = torch.arange(longest, device=self.mem.device) < lengths  # (B, n)
        weights = self.weights[numbers, :longest]
        shares = weights * asked
        shares = shares * (longest / shares.sum(-1, keepdim=True))  # so that each row's loss is a mean of its own
        found = score(
            self.stepper,
            self.mem[numbers],
            self.ids[numbers, :longest],
            temperature=self.temperature,
            margin=self.margin,
            weights=shares,
        )
        token_margins = found.margins.masked_fill(~asked, UNSOLVED)
        if self.boost:
            new = boosted(shares.clamp(min=1e-6), found.margins, margin=self.margin, rate=self.boost)
            self.weights[numbers, :longest] = torch.where(asked, new, weights)
        gradient = torch.zeros_like(self.mem)
        gradient[numbers] = found.gradient
        positions = self.config.num_mem + longest - 1
        self.flops += len(rows) * (self.lm.flops.step(positions, longest) + self.optimiser.flops)
        return token_margins, gradient

    def _goes_on(self, row: _Row, number: int, solved: bool) -> bool:
        """Let a row's prefix grow, or shrink; whether there is anything left to try."""
        out_of_steps = row.step >= self.config.steps
        if solved:
            self.best[number] = self.mem[number]
            row.held, row.stage = row.trained, 0
            row.trained = min(row.limit, row.held + row.added)
            return row.held < row.limit and not out_of_steps
        row.stage += 1
        if out_of_steps:
            return False
        return row.stage <= self.patience or self._tries_less(row, number)

    def _tries_less(self, row: _Row, number: int) -> bool:
        """After a prefix that was not solved in time: a shorter one from the best vectors, if it is worth it."""
        if row.held:
            row.added //= 2
            if row.added < self.least:
                return False
            row.trained = min(row.limit, row.held + row.added)
            self.mem[number] = self.best[number]
            self.optimiser.forget(number)
            self.weights[number] = 1
        else:
            row.trained //= 2
        row.stage = 0
        return row.trained > 0
