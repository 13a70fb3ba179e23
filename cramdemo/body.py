"""The layers of a frozen LM for the optimiser's steps: forward and back to the inputs in as few passes as they take.

A step of a small model is bound by the number of its operations, not by arithmetic. With frozen weights much can be
joined once: norms' weights into the matrices behind them, matrices that read the same input into one, residuals into
the products that are added to them. Two families are written out, Llama and GPT-NeoX with parallel residuals; every
other model takes the way through transformers, and so does one of these whose hidden states do not come out the same
(`models.FrozenLM.for_steps` asks). Knows nothing of [mem], heads and losses.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cramdemo.attention import attend, attend_back


class Normed(NamedTuple):
    """Rows (m, d) brought to length sqrt(d), and the factor (m, 1), float32, that did it."""

    rows: Tensor
    factor: Tensor


def normalise(rows: Tensor, eps: float, *, centred: bool) -> Normed:
    """RMSNorm, or LayerNorm if `centred`, without weights; sums in float32."""
    wide = rows.float()
    if centred:
        wide = wide - wide.mean(-1, keepdim=True)
    factor = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return Normed((wide * factor).to(rows.dtype), factor)


def normalise_back(gradient: Tensor, normed: Normed, *, centred: bool) -> Tensor:
    """Gradient by the rows from the gradient by the normalised rows, (m, d)."""
    wide, rows = gradient.float(), normed.rows.float()
    wide = torch.addcmul(wide, rows, (wide * rows).mean(-1, keepdim=True), value=-1)
    if centred:
        wide = wide - wide.mean(-1, keepdim=True)
    return (wide * normed.factor).to(gradient.dtype)


class Shape(NamedTuple):
    """Sizes of the attention: H query heads and G key heads of width h, of which the first `turned` are rotated."""

    heads: int
    groups: int
    width: int
    turned: int
    scaling: float


class Turn(NamedTuple):
    """Rotary position embedding: cos and sin, (n, 1, turned / 2); both halves turn by the same angles."""

    cos: Tensor
    sin: Tensor

    def forward(self, heads: Tensor) -> Tensor:
        """(B, n, heads, turned) -> the same, turned."""
        first, second = heads.chunk(2, -1)
        out = torch.empty_like(heads)
        left, right = out.chunk(2, -1)
        torch.mul(first, self.cos, out=left)
        left.addcmul_(second, self.sin, value=-1)
        torch.mul(second, self.cos, out=right)
        right.addcmul_(first, self.sin)
        return out

    def back(self, heads: Tensor) -> Tensor:
        """The inverse turn, which is also its gradient."""
        return Turn(self.cos, -self.sin).forward(heads)


class Attention:
    """Attention of one layer behind its joined query, key and value matrix."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape

    def forward(self, joined: Tensor, turn: Turn, mask: Tensor) -> tuple[Tensor, Any]:
        """(B, n, (H + 2 G) h) -> (B * n, H h), and what `back` needs."""
        shape, (batch, length, _) = self.shape, joined.shape
        heads = joined.view(batch, length, -1, shape.width)
        turning = shape.heads + shape.groups
        turned = turn.forward(heads[:, :, :turning, : shape.turned])
        if shape.turned < shape.width:
            turned = torch.cat([turned, heads[:, :, :turning, shape.turned :]], -1)
        query, key = turned[:, :, : shape.heads].transpose(1, 2), turned[:, :, shape.heads :].transpose(1, 2)
        out, saved = attend(query, key, heads[:, :, turning:].transpose(1, 2), mask, shape.scaling)
        return out.reshape(batch * length, -1), saved

    def back(self, gradient: Tensor, saved: Any, turn: Turn) -> Tensor:
        """(B * n, H h) -> (B * n, (H + 2 G) h)."""
        shape, length = self.shape, turn.cos.shape[0]
        out = gradient.view(-1, length, shape.heads, shape.width)
        query, key, value = (x.transpose(1, 2) for x in attend_back(out, saved, shape.groups, shape.scaling))
        turned = torch.cat([query, key], 2)  # (B, n, H + G, h)
        turned_back = turn.back(turned[..., : shape.turned])
        if shape.turned < shape.width:
            turned_back = torch.cat([turned_back, turned[..., shape.turned :]], -1)
        return torch.cat([turned_back, value], 2).reshape(gradient.shape[0], -1)


class LlamaLayer:
    """Attention, then a gated feed-forward part, each behind an RMSNorm and added to what it read."""

    centred = False

    @staticmethod
    def knows(config: Any) -> bool:
        """Whether these settings are what is written out here."""
        return config.hidden_act == "silu" and not (config.attention_bias or config.mlp_bias)

    def __init__(self, layer: Any, shape: Shape) -> None:
        attention, mlp, parts = layer.self_attn, layer.mlp, ("q_proj", "k_proj", "v_proj")
        self.attention, self.eps = Attention(shape), layer.input_layernorm.variance_epsilon
        joined = torch.cat([getattr(attention, part).weight for part in parts])
        self.joined = _scaled(joined, layer.input_layernorm.weight)
        gated = torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight])
        self.gated = _scaled(gated, layer.post_attention_layernorm.weight)
        self.out, self.down = attention.o_proj.weight, mlp.down_proj.weight

    def forward(self, rows: Tensor, batch: int, turn: Turn, mask: Tensor) -> tuple[Tensor, Any]:
        """(B * n, d) -> the same, and what `back` needs."""
        first = normalise(rows, self.eps, centred=False)
        mixed, saved = self.attention.forward(
            (first.rows @ self.joined.T).view(batch, len(rows) // batch, -1), turn, mask
        )
        rows = torch.addmm(rows, mixed, self.out.T)
        second = normalise(rows, self.eps, centred=False)
        gate, up = (second.rows @ self.gated.T).chunk(2, -1)
        opened = F.silu(gate)
        return torch.addmm(rows, opened * up, self.down.T), (first, saved, second, gate, up, opened)

    def back(self, gradient: Tensor, state: Any, turn: Turn) -> Tensor:
        """(B * n, d), by the output -> by the input."""
        first, saved, second, gate, up, opened = state
        by_product = gradient @ self.down
        by_gated = torch.cat([torch.ops.aten.silu_backward(by_product * up, gate), by_product * opened], -1)
        gradient = gradient + normalise_back(by_gated @ self.gated, second, centred=False)
        by_joined = self.attention.back(gradient @ self.out, saved, turn)
        return gradient + normalise_back(by_joined @ self.joined, first, centred=False)


class NeoXLayer:
    """Attention and feed-forward part side by side, behind the same normalised rows, both added to what they read."""

    centred = True

    @staticmethod
    def knows(config: Any) -> bool:
        """Whether these settings are what is written out here."""
        return config.hidden_act == "gelu" and bool(config.use_parallel_residual and config.attention_bias)

    def __init__(self, layer: Any, shape: Shape) -> None:
        attention, mlp = layer.attention, layer.mlp
        self.attention, self.eps = Attention(shape), layer.input_layernorm.eps
        weight, bias = _behind(attention.query_key_value, layer.input_layernorm)
        order = _by_kind(shape)
        self.joined, self.joined_bias = weight[order], bias[order]
        self.up, self.up_bias = _behind(mlp.dense_h_to_4h, layer.post_attention_layernorm)
        self.down, self.out = mlp.dense_4h_to_h.weight, attention.dense.weight
        self.bias = mlp.dense_4h_to_h.bias + attention.dense.bias

    def forward(self, rows: Tensor, batch: int, turn: Turn, mask: Tensor) -> tuple[Tensor, Any]:
        """(B * n, d) -> the same, and what `back` needs."""
        first = normalise(rows, self.eps, centred=True)
        joined = F.linear(first.rows, self.joined, self.joined_bias)
        mixed, saved = self.attention.forward(joined.view(batch, len(rows) // batch, -1), turn, mask)
        up = F.linear(first.rows, self.up, self.up_bias)
        rows = torch.addmm(rows + self.bias, mixed, self.out.T)
        return torch.addmm(rows, F.gelu(up), self.down.T), (first, saved, up)

    def back(self, gradient: Tensor, state: Any, turn: Turn) -> Tensor:
        """(B * n, d), by the output -> by the input."""
        first, saved, up = state
        by_up = torch.ops.aten.gelu_backward(gradient @ self.down, up)
        by_joined = self.attention.back(gradient @ self.out, saved, turn)
        by_first = torch.addmm(by_joined @ self.joined, by_up, self.up)
        return gradient + normalise_back(by_first, first, centred=True)


class Body:
    """All layers and the last norm of a model of one of the two families.

    Made from a transformers model; holds joined copies of its matrices, in its dtype.
    """

    def __init__(self, model: Any) -> None:
        config, base = model.config, model.base_model
        heads = config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // heads
        self.rotary = base.rotary_emb
        turned = 2 * len(base.rotary_emb.inv_freq)
        groups = getattr(config, "num_key_value_heads", None) or heads
        shape = Shape(heads, groups, width, turned, width**-0.5)
        kind = _FAMILIES[config.model_type]
        with torch.no_grad():
            self.layers = [kind(layer, shape) for layer in base.layers]
        last = base.norm if kind is LlamaLayer else base.final_layer_norm
        self.weight, self.bias = last.weight, getattr(last, "bias", None)
        self.eps, self.centred = self.layers[0].eps, kind.centred

    def __call__(self, inputs: Tensor) -> Tensor:
        """Last hidden states of input embeddings: (B, n, d) -> (B, n, d), differentiable."""
        apply: Any = _Whole.apply
        hidden: Tensor = apply(inputs, self)
        return hidden

    def forward(self, inputs: Tensor) -> tuple[Tensor, Any]:
        """(B, n, d) -> (B, n, d), and what `back` needs."""
        batch, length, _ = inputs.shape
        turn, mask = self._turn(inputs, length), _causal(inputs, length)
        rows, states = inputs.reshape(batch * length, -1), []
        for layer in self.layers:
            rows, state = layer.forward(rows, batch, turn, mask)
            states.append(state)
        last = normalise(rows, self.eps, centred=self.centred)
        hidden = last.rows * self.weight if self.bias is None else last.rows * self.weight + self.bias
        return hidden.view(inputs.shape), (turn, states, last)

    def back(self, gradient: Tensor, state: Any) -> Tensor:
        """(B, n, d), by the hidden states -> by the inputs."""
        turn, states, last = state
        rows = normalise_back(gradient.reshape(last.rows.shape) * self.weight, last, centred=self.centred)
        for layer, layer_state in zip(reversed(self.layers), reversed(states), strict=True):
            rows = layer.back(rows, layer_state, turn)
        return rows.view(gradient.shape)

    def _turn(self, inputs: Tensor, length: int) -> Turn:
        """As the model itself works it out, whatever kind of rotary embedding it has."""
        cos, sin = self.rotary(inputs, torch.arange(length, device=inputs.device)[None])
        half = cos.shape[-1] // 2
        return Turn(cos[0, :, None, :half], sin[0, :, None, :half])


class _Whole(torch.autograd.Function):
    """The body as one operation of autograd."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        """Embeddings (B, n, d) and the body -> hidden states (B, n, d)."""
        embeddings, body = inputs
        hidden: Tensor
        hidden, ctx.state = body.forward(embeddings)
        ctx.body = body
        return hidden

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradient by the embeddings."""
        return ctx.body.back(gradients[0], ctx.state), None


_FAMILIES: dict[str, type[LlamaLayer] | type[NeoXLayer]] = {"llama": LlamaLayer, "gpt_neox": NeoXLayer}


def body_of(model: Any) -> Body | None:
    """The short way through a model, if its family and settings are written out here.

    Whether it gives the same as the model is for the caller to check.
    """
    kind = _FAMILIES.get(model.config.model_type)
    return Body(model) if kind and kind.knows(model.config) else None


def _causal(inputs: Tensor, length: int) -> Tensor:
    """(1, 1, n, n), added to the scores: 0 where a position may look, and the lowest number where not."""
    lowest = torch.finfo(inputs.dtype).min
    return torch.full((1, 1, length, length), lowest, dtype=inputs.dtype, device=inputs.device).triu(1)


def _scaled(weight: Tensor, by: Tensor) -> Tensor:
    """A matrix (out, d) that reads rows scaled number by number."""
    return (weight.float() * by.float()).to(weight.dtype)


def _behind(linear: nn.Linear, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """Weight and bias that read the normalised rows in place of the norm's output."""
    bias = linear.bias.float() + linear.weight.float() @ norm.bias.float()
    return _scaled(linear.weight, norm.weight), bias.to(linear.weight.dtype)


def _by_kind(shape: Shape) -> Tensor:
    """Order of GPT-NeoX's rows, head by head, that gives all queries, then all keys, then all values."""
    return torch.arange(3 * shape.heads * shape.width).view(shape.heads, 3, shape.width).transpose(0, 1).flatten()
