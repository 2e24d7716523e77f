"""Networks that timm makes, on one grey channel."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from xai_demo.records import Model


def whole(name: str) -> Callable[[Model], nn.Module]:
    """How to make timm's network of that name."""

    def make(model: Model) -> nn.Module:
        import timm

        network: nn.Module = timm.create_model(name, in_chans=1, num_classes=len(model.labels))
        return network

    return make
