"""EfficientNet-lite (Tan & Le 2019; without squeeze and excitation) by timm, cut after the last convolution."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def cut(network: nn.Module) -> tuple[nn.Module, nn.Module]:
    """(everything up to `conv_head`'s normalisation and ReLU6, which are timm's `bn2`; the classifier)."""
    from torch import nn

    stages = ("conv_stem", "bn1", "blocks", "conv_head", "bn2")
    features = nn.Sequential(*(getattr(network, stage) for stage in stages))
    return features, nn.Sequential(network.global_pool, network.classifier)
