"""Optimisers of the [mem] vectors: from a gradient to the direction of an update. Knows nothing of models.

K x d numbers are few beside a model, so that an update may cost more arithmetic than Adam's and still be next to
nothing. The gradient of a text has no noise, and the loss is far steeper along some directions than along others;
these seldom lie along single numbers, which is all that Adam can tell apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor

ADAM_BETAS = (0.9, 0.95)
ADAM_EPS = 1e-8
WINDOW = 64  # gradients remembered; by then their weight has fallen to 4 %
WINDOW_DECAY = 0.95
MOMENTUM = 0.8  # of the whitened update, whose steps are large
DAMPING = 1e-3  # of the largest eigenvalue
WHITENED_SCALE = 5.0  # so that one learning rate serves both


class Optimiser(Protocol):
    """What the loop needs of an optimiser of R rows of (K, d) vectors."""

    flops: int  # of an update of one row

    def direction(self, gradient: Tensor) -> Tensor:
        """(R, K, d), float32 -> (R, K, d), to be subtracted times the learning rate."""

    def state(self) -> dict[str, Tensor]:
        """All that later directions depend on, by name: the tensors themselves, whose shapes never change."""

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a `state` of the same shapes; the tensors belong to the optimiser from then on."""


class Adam:
    """Adam with bias correction (Kingma and Ba, arXiv 1412.6980)."""

    def __init__(self, like: Tensor) -> None:
        self.flops = 0  # a few passes over K x d numbers
        self._first, self._second, self._count = torch.zeros_like(like), torch.zeros_like(like), 0

    def direction(self, gradient: Tensor) -> Tensor:
        """(R, K, d), float32 -> the same."""
        self._count += 1
        first, second = ADAM_BETAS
        self._first.lerp_(gradient, 1 - first)
        self._second.lerp_(gradient.square(), 1 - second)
        mean, square = self._first / (1 - first**self._count), self._second / (1 - second**self._count)
        direction: Tensor = mean / (square.sqrt() + ADAM_EPS)
        return direction

    def state(self) -> dict[str, Tensor]:
        """Both moments and how many gradients are in them."""
        return {"first": self._first, "second": self._second, "count": torch.tensor(self._count)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `state`."""
        self._first, self._second, self._count = state["first"], state["second"], int(state["count"])


class Whitened:
    """The mean gradient times the inverse root of the recent gradients' covariance, over all K x d numbers at once.

    Full-matrix adaptive regularisation as in GGT (Agarwal et al., arXiv 1806.02958): the covariance is that of the
    last `WINDOW` gradients, so that its eigenvectors come from a matrix of their products, WINDOW x WINDOW, and
    nothing of size (K d)^2 is ever made. Directions that no recent gradient had are damped least.
    """

    def __init__(self, like: Tensor) -> None:
        rows, size = like.shape[0], like[0].numel()
        self.flops = 6 * WINDOW * size + 9 * WINDOW**3
        self._mean = like.new_zeros(rows, size)
        self._seen = like.new_zeros(rows, WINDOW, size)
        self._products = like.new_zeros(rows, WINDOW, WINDOW, dtype=torch.float64)
        self._count = 0

    def direction(self, gradient: Tensor) -> Tensor:
        """(R, K, d), float32 -> the same."""
        flat = gradient.flatten(1)  # (R, K d)
        self._remember(flat)
        self._mean.lerp_(flat, 1 - MOMENTUM)
        mean = self._mean / (1 - MOMENTUM**self._count)
        weights = self._weights()
        values, vectors = torch.linalg.eigh((self._products * weights[:, None] * weights).nan_to_num())
        values = values.clamp(min=0)
        floor = DAMPING * values[:, -1:] + 1e-30
        along = vectors.mT @ (weights * (self._seen @ mean[..., None])[..., 0].double())[..., None]
        # (C + floor)^-1/2 is floor^-1/2 but for the span of the gradients seen
        change = ((values + floor).rsqrt() - floor.rsqrt()) / values.clamp(min=1e-9 * floor)
        within = weights * (vectors @ (change[..., None] * along))[..., 0]
        whitened = floor.rsqrt().float() * mean + (within.float()[:, None] @ self._seen)[:, 0]
        direction: Tensor = WHITENED_SCALE * whitened.view_as(gradient)
        return direction

    def state(self) -> dict[str, Tensor]:
        """The mean, the gradients remembered, their products and how many there have been."""
        count = torch.tensor(self._count)
        return {"mean": self._mean, "seen": self._seen, "products": self._products, "count": count}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `state`."""
        self._mean, self._seen, self._products = state["mean"], state["seen"], state["products"]
        self._count = int(state["count"])

    def _remember(self, flat: Tensor) -> None:
        place = self._count % WINDOW
        self._count += 1
        self._seen[:, place] = flat
        products = (self._seen @ flat[..., None])[..., 0].double()  # (R, WINDOW)
        self._products[:, place] = products
        self._products[:, :, place] = products

    def _weights(self) -> Tensor:
        """Roots of the weights of the gradients remembered, (WINDOW,), float64; the newest weighs most."""
        age = (self._count - 1 - torch.arange(WINDOW, device=self._mean.device)) % WINDOW
        share = (1 - WINDOW_DECAY) * WINDOW_DECAY ** age.double() / (1 - WINDOW_DECAY**self._count)
        return share.sqrt()


OPTIMISERS: dict[str, Callable[[Tensor], Optimiser]] = {"adam": Adam, "whitened": Whitened}
