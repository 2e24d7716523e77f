"""What CheXVision has that timm's DenseNet-121 has not, with the author's tensor names.

What a network for breathing sounds has that others have not: how it begins and how it pools.
"""

from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of red, green and blue
_WIDTH = 512


class GreyToRGB(nn.Module):
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
        self.colours = GreyToRGB()
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


class BandContrast(nn.Module):
    """The spectrogram, and beside it what each band does against its own mean over the window.

    (batch, 1, rows, columns) -> (batch, 2, rows, columns). A stethoscope colours the sound, which
    the second channel does not see.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Two channels of one."""
        return torch.cat([x, x - x.mean(3, keepdim=True)], 1)


class MeanMaxPool(nn.Module):
    """Mean of every channel, and its most over time of the mean over frequency.

    (batch, channels, rows, columns) -> (batch, 2 channels): a wheeze lasts, a crackle does not.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Twice as many numbers as channels."""
        return torch.cat([x.mean((2, 3)), x.mean(2).amax(2)], 1)

    def column_contributions(self, x: Tensor) -> Tensor:
        """What each column adds to these numbers: (batch, columns, 2 channels); they sum up."""
        over_rows = x.mean(2)
        loudest = F.one_hot(over_rows.argmax(2), over_rows.shape[2])
        return torch.cat([over_rows / over_rows.shape[2], over_rows * loudest], 1).transpose(1, 2)
