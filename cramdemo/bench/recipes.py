"""The published recipes as plain loops, written anew from the papers: the other side of the benchmarks.

Nothing of the engine is used in them, so that they are neither helped nor hurt by it: float32 vectors, whole
logits, one look at the device each step, the model in the dtype that it is given in. They differ from the published
code where that has a fault which would only flatter us (arXiv 2502.13063's leaves token 0 out, and keeps the vectors
of the step after the scored one): all N tokens are trained and scored, and the vectors kept are those scored.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from cramdemo.models import FrozenLM


@dataclass(frozen=True)
class Recipe:
    """A way to optimise [mem], as published.

    Attributes:
        name: how tables call it.
        learning_rate: AdamW's peak step size.
        steps: most updates.
        init: "embedding" draws from N(0, std of the embedding matrix), "uniform" from [0, 0.02).
        growth: tokens added to the trained prefix on each exact match; 0 trains the whole text at once.
        steps_a_stage: most updates without an exact match of the prefix; None for no such limit.
        patience: most updates without a better accuracy; None for no such limit.
        warmup_steps, last_learning_rate: linear warm-up, then a cosine over `steps` down to the last rate; a last
            rate of None keeps the rate constant.
        temperature: the loss is T * cross-entropy(logits / T).
        rank: vectors are W z + b with z of so many numbers, all three trained; None trains the vectors themselves.
        hidden_states: keep every layer's, as the published loop does.
    """

    name: str
    learning_rate: float
    steps: int
    init: str
    growth: int = 0
    steps_a_stage: int | None = None
    patience: int | None = None
    warmup_steps: int = 0
    last_learning_rate: float | None = None
    temperature: float = 1.0
    rank: int | None = None
    hidden_states: bool = False

    def learning_rate_at(self, step: int) -> float:
        """Of the update that follows `step` updates."""
        if step < self.warmup_steps:
            return self.learning_rate * step / self.warmup_steps
        if self.last_learning_rate is None:
            return self.learning_rate
        share = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        fall = 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
        return self.last_learning_rate + (self.learning_rate - self.last_learning_rate) * fall


BETAS = (0.9, 0.9)  # of both
WEIGHT_DECAY = 0.01
UNIFORM_SCALE = 0.02
CRAMMING = Recipe(
    "cramming", learning_rate=0.01, steps=5000, init="embedding", patience=2000, hidden_states=True
)  # arXiv 2502.13063
PROGRESSIVE = Recipe(
    "progressive cramming",
    learning_rate=0.1,
    steps=10_000,
    init="uniform",
    growth=1,
    steps_a_stage=1000,
    warmup_steps=100,
    last_learning_rate=1e-3,
)  # ICML 2026; 0.1 is its learning rate for models of the Llama type
PROGRESSIVE_NEOX_LEARNING_RATE = 0.5  # and this for Pythia
WARM_PASSES = 5  # before passes are timed


def progressive_for(lm: FrozenLM) -> Recipe:
    """Progressive cramming at its published learning rate: Pythia is GPT-NeoX, the others are of the Llama type."""
    neox = getattr(lm.model.config, "model_type", "") == "gpt_neox"
    return dataclasses.replace(PROGRESSIVE, learning_rate=PROGRESSIVE_NEOX_LEARNING_RATE) if neox else PROGRESSIVE


@dataclass(frozen=True)
class Found:
    """What a recipe found for one text.

    Attributes:
        mem: (K, d), the vectors that solved the longest prefix, or without growth the most tokens.
        prefix: tokens of the longest prefix solved under teacher forcing; without growth N or 0.
        steps: updates up to the end of the run. flops: of all that was run, by `FlopCount`.
        passes_at: forward and backward passes at each prefix length that was trained; those that found the prefix
            exact are among them, and needed no update.
        solved: tokens right at the last pass, of the prefix that it trained.
    """

    mem: Tensor
    prefix: int
    steps: int
    flops: int
    passes_at: dict[int, int]
    solved: int = 0


def run_recipe(
    lm: FrozenLM, token_ids: Tensor, recipe: Recipe, *, num_mem: int = 1, seed: int = 0, max_flops: float = math.inf
) -> list[Found]:
    """Run a recipe on several texts of one length side by side; each goes its own way, as if alone.

    Args:
        token_ids: (B, N), int64.
        seed: of the first text's initial vectors; the next one takes the next seed.
        max_flops: for each text; a step that would go beyond is not run.
    """
    passes = recipe_passes(lm, token_ids, recipe, num_mem=num_mem, seed=seed, max_flops=max_flops)
    return deque(passes, maxlen=1).pop()


def recipe_passes(
    lm: FrozenLM, token_ids: Tensor, recipe: Recipe, *, num_mem: int = 1, seed: int = 0, max_flops: float = math.inf
) -> Iterator[list[Found]]:
    """`run_recipe`, to be followed pass by pass; takes the same.

    Yields:
        What each of the B texts has found, before the first pass and after every one.
    """
    rows = [_Row(lm, ids, recipe, num_mem, seed + number) for number, ids in enumerate(token_ids)]
    yield [row.found() for row in rows]
    while active := [row for row in rows if row.goes_on(max_flops)]:
        for row, correct in zip(active, _scored(lm, active, recipe), strict=True):
            row.decide(correct)
        yield [row.found() for row in rows]


def seconds_a_pass(lm: FrozenLM, token_ids: Tensor, recipe: Recipe, *, num_mem: int = 1, passes: int = 30) -> float:
    """Median seconds of one pass of the loop, update included, with one text alone and all of it trained.

    The step size is 0, so that the text stays unsolved however many passes are timed.

    Args:
        token_ids: (N,), int64.
    """
    still = dataclasses.replace(recipe, growth=0, learning_rate=0.0, warmup_steps=0, last_learning_rate=None)
    row = _Row(lm, token_ids, still, num_mem, seed=0)
    seconds = []
    for _ in range(WARM_PASSES + passes):
        begun = time.perf_counter()
        row.decide(_scored(lm, [row], still)[0])
        seconds.append(time.perf_counter() - begun)
    return median(seconds[WARM_PASSES:])


class _Row:
    """One text under a recipe."""

    def __init__(self, lm: FrozenLM, token_ids: Tensor, recipe: Recipe, num_mem: int, seed: int) -> None:
        self.ids, self.recipe, self.num_mem, self.count = token_ids, recipe, num_mem, lm.flops
        self.parameters = _initial(lm, recipe, num_mem, seed)
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=recipe.learning_rate, betas=BETAS, weight_decay=WEIGHT_DECAY
        )
        self.length = min(recipe.growth, len(token_ids)) or len(token_ids)
        self.best = self.vectors().detach().clone()
        self.most = -1  # tokens solved by the best vectors, of the stage at hand
        self.prefix = self.step = self.flops = self.idle = self.solved = 0
        self.passes_at: Counter[int] = Counter()
        self.done = False

    def vectors(self) -> Tensor:
        """(K, d), differentiable."""
        if self.recipe.rank is None:
            return self.parameters[0]
        coefficients, weight, bias = self.parameters
        return F.linear(coefficients, weight, bias)

    def goes_on(self, max_flops: float) -> bool:
        """Whether another step is allowed."""
        recipe, positions = self.recipe, self.num_mem + self.length
        limits = recipe.steps_a_stage if recipe.growth else recipe.patience
        spent = self.step >= recipe.steps or (limits is not None and self.idle >= limits)
        return not (self.done or spent or self.flops + self.count.step(positions, positions) > max_flops)

    def decide(self, correct: Tensor) -> None:
        """Keep the vectors if they are the best, and update them unless they solve what is asked of them."""
        positions = self.num_mem + self.length
        self.flops += self.count.step(positions, positions)
        self.passes_at[self.length] += 1
        self.solved = int(correct[: self.length].sum())
        exact = self.solved == self.length
        if exact if self.recipe.growth else self.solved > self.most:
            self.best, self.most, self.idle = self.vectors().detach().clone(), self.solved, 0
        else:
            self.idle += 1
        if exact:
            self.prefix = self.length
            self.done = self.length == len(self.ids)
            self.length = min(len(self.ids), self.length + self.recipe.growth)
        else:
            self.optimizer.param_groups[0]["lr"] = self.recipe.learning_rate_at(self.step)
            self.optimizer.step()
            self.step += 1
        self.optimizer.zero_grad(set_to_none=True)

    def found(self) -> Found:
        """What it has found so far."""
        return Found(self.best, self.prefix, self.step, self.flops, dict(self.passes_at), self.solved)


def _scored(lm: FrozenLM, rows: list[_Row], recipe: Recipe) -> Tensor:
    """One forward and backward pass: which tokens are right, (B, longest prefix), and gradients for each row."""
    num_mem, longest = rows[0].num_mem, max(row.length for row in rows)
    ids = torch.stack([row.ids[:longest] for row in rows]).to(lm.device)
    lengths = torch.tensor([row.length for row in rows], device=lm.device)
    mem = torch.stack([row.vectors() for row in rows])
    inputs = torch.cat([mem.to(lm.dtype), lm.embed(ids)], dim=1)
    output = lm.model(inputs_embeds=inputs, output_hidden_states=recipe.hidden_states)
    logits = output.logits[:, num_mem - 1 : -1].float()  # (B, n, V)
    nats = F.cross_entropy((logits / recipe.temperature).transpose(1, 2), ids, reduction="none")
    wanted = torch.arange(longest, device=lm.device) < lengths[:, None]
    torch.autograd.backward((recipe.temperature * nats * wanted).sum(-1).div(lengths).sum())
    correct: Tensor = (logits.argmax(-1) == ids).cpu()
    return correct


def _initial(lm: FrozenLM, recipe: Recipe, num_mem: int, seed: int) -> list[Tensor]:
    """The trained tensors of one text: the vectors (K, d), or z (K, rank), W (d, rank) and b (d,)."""
    generator = torch.Generator().manual_seed(seed)
    width = recipe.rank or lm.hidden_size
    if recipe.init == "embedding":
        vectors = torch.randn(num_mem, width, generator=generator) * lm.embedding_std
    else:
        vectors = torch.rand(num_mem, width, generator=generator) * UNIFORM_SCALE
    tensors = [vectors]
    if recipe.rank is not None:  # a linear layer as torch draws it
        bound = 1 / math.sqrt(recipe.rank)
        tensors += [
            bound * (2 * torch.rand(shape, generator=generator) - 1)
            for shape in ((lm.hidden_size, recipe.rank), (lm.hidden_size,))
        ]
    return [tensor.to(lm.device).requires_grad_(True) for tensor in tensors]
