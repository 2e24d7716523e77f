"""SimpleCNN: three convolutions, a network small enough to follow by hand; 99 k parameters."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from xai_demo.records import Model

WIDTHS = (1, 32, 64, 128)
DROPOUT = 0.4
# Rows and columns after pooling: coarse positions reach the classifier.
GRID = 4


def build(model: Model) -> nn.Module:
    """Three 3x3 convolutions with ReLU, pooling after each, and one linear layer."""
    from torch import nn

    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i in range(3):
        convolution = nn.Conv2d(WIDTHS[i], WIDTHS[i + 1], 3, padding=1)
        layers[f"conv_block{i + 1}"] = nn.Sequential(convolution, nn.ReLU())
        # The last pooling has a fixed output, so that inputs of any size fit the linear layer.
        layers[f"pool{i + 1}"] = nn.MaxPool2d(2) if i < 2 else nn.AdaptiveAvgPool2d(GRID)
    layers["flatten"] = nn.Flatten()
    layers["dropout"] = nn.Dropout(DROPOUT)
    layers["fc"] = nn.Linear(WIDTHS[-1] * GRID**2, len(model.labels))
    return nn.Sequential(layers)


def cut(network: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Cut after the third convolution's ReLU: a quarter of the input's size."""
    from torch import nn

    # Children keep their names, so the tensors of both halves are those of the whole network.
    children = OrderedDict(network.named_children())
    features: OrderedDict[str, nn.Module] = OrderedDict()
    while "conv_block3" not in features:
        name, child = children.popitem(last=False)
        features[name] = child
    return nn.Sequential(features), nn.Sequential(children)
