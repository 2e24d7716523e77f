"""The rule of guided backpropagation, for as long as a block runs; imports torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

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
