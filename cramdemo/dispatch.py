"""A model that accelerate has spread over several devices, main memory or a disk: where its inputs go, and its layers.

Accelerate's hooks fetch a layer's weights when it runs and drop them after. Autograd would keep what was fetched until
the backward pass, and with it the whole model on one device; so layers are run again in the backward pass, where their
weights are fetched once more.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from accelerate.hooks import AlignDevicesHook, SequentialHook
from torch import nn
from torch.utils.checkpoint import checkpoint

from cramdemo.checkpoint import layers_of


def is_dispatched(model: nn.Module) -> bool:
    """Whether accelerate moves inputs or weights of any part of the model."""
    return any(True for module in model.modules() for _ in _hooks(module))


def execution_device(module: nn.Module) -> torch.device:
    """Where a module with a weight runs; that of a weight which is fetched for it says nothing."""
    for hook in _hooks(module):
        if hook.execution_device is not None:
            return torch.device(hook.execution_device)
    place: torch.device = next(module.parameters()).device
    return place


def recompute_layers(model: nn.Module) -> None:
    """Lets no layer keep fetched weights for the backward pass, if any are fetched at all; once is enough."""
    if not any(hook.offload for module in model.modules() for hook in _hooks(module)):
        return
    _, layers = layers_of(model)
    for layer in layers:
        forward: Any = layer.forward
        if getattr(forward, "func", None) is not _recomputed:
            layer.forward = partial(_recomputed, forward)


def _recomputed(forward: Any, *inputs: Any, **named: Any) -> Any:
    """Without an early stop, which would skip the hook that drops the weights."""
    if not torch.is_grad_enabled():
        return forward(*inputs, **named)
    return checkpoint(forward, *inputs, use_reentrant=False, preserve_rng_state=False, early_stop=False, **named)


def _hooks(module: nn.Module) -> Iterator[AlignDevicesHook]:
    """Accelerate's own on one module; others may have hooks of theirs."""
    hook = getattr(module, "_hf_hook", None)
    for found in hook.hooks if isinstance(hook, SequentialHook) else (hook,):
        if isinstance(found, AlignDevicesHook):
            yield found
