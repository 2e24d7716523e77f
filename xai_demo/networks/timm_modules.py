"""The torch modules that timm's networks lack; imported when the first one is built.

`CheXVision` has the author's tensor names. `BandContrast` and `MeanMaxPool` are the input and the
pooling of the networks for breath sounds.
"""

from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

# ImageNet's, of red, green and blue.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Of the published hidden layer.
_WIDTH = 512


class GreyToRGB(nn.Module):
    """A grey image as three colour channels, each standardised as ImageNet's.

    The input is 0..1.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Not persistent: they are constants, which the published file does not contain.
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(_STD)[:, None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 1, rows, columns) -> (batch, 3, rows, columns)."""
        # Broadcasting repeats the grey channel: (batch, 1, ...) less (3, 1, 1).
        return (x - self.mean) / self.std


class CheXVision(nn.Module):
    """DenseNet-121, mean over the map, 512 hidden units with ReLU, one logit for each finding."""

    def __init__(self, n_labels: int) -> None:
        super().__init__()
        # num_classes=0: timm then leaves out its own classifier.
        backbone: Any = timm.create_model("densenet121", in_chans=3, num_classes=0)
        self.colours = GreyToRGB()
        self.features: nn.Module = backbone.features
        self.pool: nn.Module = backbone.global_pool
        self.feature_layer = nn.Sequential(
            nn.Linear(backbone.num_features, _WIDTH), nn.ReLU(), nn.Dropout(0.3)
        )
        self.multilabel_head = nn.Linear(_WIDTH, n_labels)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 1, rows, columns), 0..1, -> (batch, labels) logits."""
        pooled = self.pool(self.features(self.colours(x)))
        logits: Tensor = self.multilabel_head(self.feature_layer(pooled))
        return logits


class BandContrast(nn.Module):
    """Adds a channel to the spectrogram: each band minus its mean over the window.

    A stethoscope's frequency response shifts whole bands, which this second channel does not show.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 1, rows, columns) -> (batch, 2, rows, columns)."""
        # Axis 3 is time: the mean over it is the level of a band.
        return torch.cat([x, x - x.mean(3, keepdim=True)], 1)


class MeanMaxPool(nn.Module):
    """Two poolings of each channel: the mean, and the maximum over time of the mean over bands.

    A wheeze lasts and shows in the mean; a crackle is short and shows in the maximum.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, rows, columns) -> (batch, 2 channels)."""
        # `x.mean(2)` averages the bands first, so that the maximum is not one noisy cell.
        return torch.cat([x.mean((2, 3)), x.mean(2).amax(2)], 1)

    def column_contributions(self, x: Tensor) -> Tensor:
        """Each column's share of the pooled values: (batch, columns, 2 channels).

        Over the columns they sum to what `forward` returns.
        """
        # The mean is shared by all columns; the maximum belongs to one column alone.
        over_rows = x.mean(2)
        maximum = F.one_hot(over_rows.argmax(2), over_rows.shape[2])
        return torch.cat([over_rows / over_rows.shape[2], over_rows * maximum], 1).transpose(1, 2)
