"""CheXVision: DenseNet-121 on a grey picture as ImageNet's three colours, with a layer before the
last (arudaev/chexvision, 2026, `densenet_transfer.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from xai_demo.records import Model


def whole(model: Model) -> nn.Module:
    """The network with its head of findings alone."""
    from xai_demo.networks.chexvision_modules import CheXVision

    return CheXVision(len(model.labels))


def cut(network: Any) -> tuple[nn.Module, nn.Module]:
    """(everything up to `features.norm5` and its ReLU, pooling and both layers of the head)."""
    from torch import nn

    features = nn.Sequential(network.colours, network.features)
    return features, nn.Sequential(network.pool, network.feature_layer, network.multilabel_head)
