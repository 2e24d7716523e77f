"""Residual networks (He et al. 2016) by timm, cut after the last stage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xai_demo.networks import made_by_timm

if TYPE_CHECKING:
    from torch import nn

    from xai_demo.records import Model


def fine_resnet18(model: Model) -> nn.Module:
    """ResNet-18 without the stem's pooling: half the stride, a map four times finer."""
    from torch import nn

    network = made_by_timm.whole("resnet18")(model)
    network.maxpool = nn.Identity()
    return network


def cut(network: Any) -> tuple[nn.Module, nn.Module]:
    """(stem and four stages, pooling and classifier)."""
    from torch import nn

    stages = ("conv1", "bn1", "act1", "maxpool", "layer1", "layer2", "layer3", "layer4")
    features = nn.Sequential(*(getattr(network, stage) for stage in stages))
    return features, nn.Sequential(network.global_pool, network.fc)
