"""What the engine hands out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xai_demo.decision import rescaled
from xai_demo.records import Model, ModelInUse

if TYPE_CHECKING:
    from torch import Tensor, nn

    from xai_demo.records import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A loaded network: the heavy `features` on some backend, the small `head` in torch."""

    model: Model
    features: Callable[[Floats], Tensor]  # (batch, 1, rows, columns) -> activations
    head: nn.Module
    layer: str
    in_use: ModelInUse
    whole: nn.Module | None = None  # features and head, differentiable; None on ONNX Runtime

    def probabilities(self, logits: Tensor) -> Floats:
        """(batch, labels) logits to calibrated probabilities."""
        scaled = logits.float() / self.model.temperature
        if self.model.activation == "softmax":
            result: Floats = scaled.softmax(dim=1).cpu().numpy()
        else:
            result = scaled.sigmoid().cpu().numpy()
        return rescaled(self.model, result)
