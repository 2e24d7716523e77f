"""What a network for breathing sounds has that others have not: how it begins and how it pools."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Contrast(nn.Module):
    """The spectrogram, and beside it what each band does against its own mean over the window.

    (batch, 1, rows, columns) -> (batch, 2, rows, columns). A stethoscope colours the sound, which
    the second channel does not see.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Two channels of one."""
        return torch.cat([x, x - x.mean(3, keepdim=True)], 1)


class MeanAndMost(nn.Module):
    """Mean of every channel, and its most over time of the mean over frequency.

    (batch, channels, rows, columns) -> (batch, 2 channels): a wheeze lasts, a crackle does not.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Twice as many numbers as channels."""
        return torch.cat([x.mean((2, 3)), x.mean(2).amax(2)], 1)

    def columns(self, x: Tensor) -> Tensor:
        """What each column adds to these numbers: (batch, columns, 2 channels); they sum up."""
        over_rows = x.mean(2)
        loudest = F.one_hot(over_rows.argmax(2), over_rows.shape[2])
        return torch.cat([over_rows / over_rows.shape[2], over_rows * loudest], 1).transpose(1, 2)
