"""EfficientAT's mn10 (Schmid et al. 2023): MobileNetV3 for 128 mel bands; 4.9 M parameters.

Tensors have the authors' names. The input is the EfficientAT front end's spectrogram of
`xai_demo.audio.front_ends`, (batch, 1, mel, frames). Apart from the classifier the network is
convolutional, and squeeze-and-excitation takes means over the map, so any length will do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from xai_demo.records import Model

# In `features`: the first convolution, fifteen blocks, the last convolution.
LAST_LAYER = "features.16"
# Before the last block that halves the map.
FINER_LAYER = "features.12"


def mn10(model: Model) -> nn.Module:
    """MobileNetV3-Large of width 1.0, with the hidden layer of 1280 units in its classifier."""
    from xai_demo.networks.efficientat_modules import MobileNet

    return MobileNet(len(model.labels))


def cut(network: Any) -> tuple[nn.Module, nn.Module]:
    """Cut after the last convolution and its Hardswish: 10 s give 4 x 32 cells."""
    return network.features, network.classifier


def cut_finer(network: Any) -> tuple[nn.Module, nn.Module]:
    """Cut before the last halving of the map: twice the resolution in time and frequency."""
    from xai_demo.networks.efficientat_modules import FinerFeatures, FinerHead

    return FinerFeatures(network), FinerHead(network)
