"""Densely connected networks (Huang et al. 2017) by timm, cut after the last normalisation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def cut(network: Any) -> tuple[nn.Module, nn.Module]:
    """(everything up to `features.norm5`, pooling and classifier).

    timm's `norm5` ends with the ReLU, so that the head starts behind it. torchvision applies that
    ReLU in place to the output of its own `norm5`, and so rewrites what a hook there has captured.
    """
    from torch import nn

    head = nn.Sequential(network.global_pool, network.head_drop, network.classifier)
    return network.features, head
