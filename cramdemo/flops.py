"""What cramming costs in floating-point operations: one count for every recipe that is compared.

A matrix product of one position with a matrix of p parameters is 2p FLOPs. With frozen weights a training step
does each twice, forward and back through the activations. Embedding look-ups, norms and activations do not count.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from transformers.pytorch_utils import Conv1D


@dataclass(frozen=True)
class FlopCount:
    """The sizes of a model that its FLOPs follow from.

    Attributes:
        body: parameters of the matrices inside the layers.
        head: parameters of the output head, V x d; 0 without one.
        attention: width of the attention summed over the layers; 0 without any.
        windowed: the same of layers that look back at the last `window` positions only.
    """

    body: int
    head: int
    attention: int
    windowed: int = 0
    window: int = 0

    @classmethod
    def of(cls, model: nn.Module) -> FlopCount:
        """The sizes of a transformers model."""
        get_head = getattr(model, "get_output_embeddings", None)
        head = get_head() if get_head else None
        matrices = {m.weight for m in model.modules() if isinstance(m, (nn.Linear, Conv1D)) and m is not head}
        attention, windowed, window = _attention_widths(getattr(model, "config", None))
        return cls(
            body=sum(weight.numel() for weight in matrices),
            head=head.weight.numel() if head is not None else 0,
            attention=attention,
            windowed=windowed,
            window=window,
        )

    def forward(self, positions: int, predictions: int) -> int:
        """FLOPs of a forward pass of one text. Greedy decoding with a cache feeds as many positions and costs the same.

        Args:
            positions: fed to the layers.
            predictions: positions whose logits are computed.
        """
        return 2 * (self.body * positions + self.head * predictions) + self._attention(positions, products=2)

    def step(self, positions: int, predictions: int) -> int:
        """FLOPs of a training step of one text: forward, and back to the input vectors without weight gradients."""
        return 4 * (self.body * positions + self.head * predictions) + self._attention(positions, products=6)

    def _attention(self, positions: int, products: int) -> int:
        """Scores and mixing are a product each, over every pair of a position with itself or one before it."""
        beyond = max(0, positions - self.window)
        pairs = positions * (positions + 1) // 2
        return 2 * products * (self.attention * pairs + self.windowed * (pairs - beyond * (beyond + 1) // 2))


def _attention_widths(config: object) -> tuple[int, int, int]:
    """Heads x head width x layers, of the layers that see all and of those that see a window; and the window."""
    heads, layers, width = (
        int(getattr(config, name, None) or 0) for name in ("num_attention_heads", "num_hidden_layers", "hidden_size")
    )
    head_width = int(getattr(config, "head_dim", None) or (width // heads if heads else 0))
    window = int(getattr(config, "sliding_window", None) or 0)
    within = (getattr(config, "layer_types", None) or []).count("sliding_attention") if window else 0
    return heads * head_width * (layers - within), heads * head_width * within, window
