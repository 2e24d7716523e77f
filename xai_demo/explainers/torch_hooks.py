"""What explainers change in torch for the length of a block; imports torch.

`AttentionRecorder` keeps the weights that attention computes, `GuidedReLU` changes how gradients
flow back. Both intercept torch's functions in the thread that enters the block: the network itself
is not touched, so that other threads can use it meanwhile.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_RECTIFIERS = {functional.relu, functional.relu6, torch.relu, Tensor.relu}


class AttentionRecorder(TorchFunctionMode):
    """Records the weights of every attention in the block, mean over its heads, in `weights`.

    torch's fused attention does not return its weights, so they are computed once more here.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[Tensor] = []  # each (batch, queries, keys)

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
    """The weights of an attention without a mask, as encoders of images and sounds use it."""
    # (batch, heads, queries, keys).
    scores = query @ key.transpose(-2, -1) * (scale or 1 / math.sqrt(query.shape[-1]))
    return scores.softmax(dim=-1).mean(dim=1)


class GuidedReLU(TorchFunctionMode):
    """No negative gradient flows back through a rectifier: guided backpropagation.

    Springenberg et al. 2015, figure 1. Covers rectifiers called as functions and as modules.
    """

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run a function of torch; after a rectifier, clip the gradient that will flow back."""
        kwargs = dict(kwargs or {})
        # nn.ReLU6 calls hardtanh with a lower bound of 0.
        is_relu6 = func is functional.hardtanh and kwargs.get("min_val") == 0
        if func not in _RECTIFIERS and not is_relu6:
            return func(*args, **kwargs)
        result = func(*args, **kwargs)
        # Without gradients, as in a mere prediction, a hook is an error.
        if result.requires_grad:
            result.register_hook(lambda gradient: gradient.clamp(min=0))
        return result
