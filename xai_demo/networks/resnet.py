"""Residual networks (He et al. 2016) by timm, on one grey channel, cut after the last stage."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from xai_demo.records import Model


def whole(name: str, *, fine: bool = False) -> Callable[[Model], nn.Module]:
    """How to make timm's network of that name. `fine` leaves out the stem's pooling: half the stride."""

    def make(model: Model) -> nn.Module:
        import timm
        from torch import nn

        network: nn.Module = timm.create_model(name, in_chans=1, num_classes=len(model.labels))
        if fine:
            network.maxpool = nn.Identity()
        return network

    return make


def cut(network: nn.Module) -> tuple[nn.Module, nn.Module]:
    """(stem and four stages, pooling and classifier)."""
    from torch import nn

    stages = ("conv1", "bn1", "act1", "maxpool", "layer1", "layer2", "layer3", "layer4")
    features = nn.Sequential(*(getattr(network, stage) for stage in stages))
    return features, nn.Sequential(network.global_pool, network.fc)
