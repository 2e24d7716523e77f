"""What CheXVision has that timm's DenseNet-121 has not, with the author's tensor names."""

from typing import Any

import timm
import torch
from torch import Tensor, nn

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of red, green and blue
_WIDTH = 512


class Colours(nn.Module):
    """A grey picture as three colours, each standardised as ImageNet's.

    (batch, 1, rows, columns) -> (batch, 3, rows, columns), from 0..1.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(_STD)[:, None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Three channels of one."""
        return (x - self.mean) / self.std


class CheXVision(nn.Module):
    """DenseNet-121, mean over the map, 512 values with ReLU, one logit a finding."""

    def __init__(self, n_labels: int) -> None:
        super().__init__()
        backbone: Any = timm.create_model("densenet121", in_chans=3, num_classes=0)
        self.colours = Colours()
        self.features: nn.Module = backbone.features
        self.pool: nn.Module = backbone.global_pool
        self.feature_layer = nn.Sequential(
            nn.Linear(backbone.num_features, _WIDTH), nn.ReLU(), nn.Dropout(0.3)
        )
        self.multilabel_head = nn.Linear(_WIDTH, n_labels)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (batch, labels) of pictures (batch, 1, rows, columns)."""
        pooled = self.pool(self.features(self.colours(x)))
        logits: Tensor = self.multilabel_head(self.feature_layer(pooled))
        return logits
