"""What attention weighs, for as long as a block runs; imports torch.

The rule of guided backpropagation, for as long as a block runs; imports torch.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode


class AttentionRecorder(TorchFunctionMode):
    """Within this block every attention leaves its weights, mean over heads, in `weights`.

    torch's own attention works them out in passing and hands none of them over. It holds for the
    thread that enters the block; the network is left alone, and as fast as ever for all others.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[Tensor] = []  # each (batch, asking, asked)

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run a function of torch; of an attention, keep the weights."""
        if func is functional.scaled_dot_product_attention:
            self.weights.append(_attention_weights(*args, **(kwargs or {})))
        return func(*args, **(kwargs or {}))


def _attention_weights(
    query: Tensor, key: Tensor, value: Tensor, *, scale: float | None = None, **rest: Any
) -> Tensor:
    """Of attention without a mask, which is what networks on pictures and sounds have."""
    scores = query @ key.transpose(-2, -1) * (scale or 1 / math.sqrt(query.shape[-1]))
    return scores.softmax(dim=-1).mean(dim=1)


_RECTIFIERS = {functional.relu, functional.relu6, torch.relu, Tensor.relu}


class GuidedReLU(TorchFunctionMode):
    """Within this block no negative gradient flows back through a rectifier.

    Springenberg et al. 2015, figure 1. It holds for the thread that enters the block, and for
    rectifiers called as functions as well as for modules; the network itself is left alone: others
    may use it meanwhile.
    """

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run a function of torch; after a rectifier, clip the gradient that will come back."""
        kwargs = dict(kwargs or {})
        clipped_relu = (
            func is functional.hardtanh and kwargs.get("min_val") == 0
        )  # nn.ReLU6 calls it so
        if func not in _RECTIFIERS and not clipped_relu:
            return func(*args, **kwargs)
        result = func(*args, **kwargs)
        if result.requires_grad:
            result.register_hook(lambda gradient: gradient.clamp(min=0))
        return result
