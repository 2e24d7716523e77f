"""EfficientNet-lite (Tan & Le 2019) by timm, cut after the last convolution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def cut(network: Any) -> tuple[nn.Module, nn.Module]:
    """(up to `bn2`: the last convolution's normalisation and ReLU6; pooling and classifier)."""
    from torch import nn

    stages = ("conv_stem", "bn1", "blocks", "conv_head", "bn2")
    features = nn.Sequential(*(getattr(network, stage) for stage in stages))
    return features, nn.Sequential(network.global_pool, network.classifier)
