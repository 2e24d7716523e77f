"""YAMNet (Plakal & Ellis 2019): MobileNetV1 (Howard et al. 2017) on patches of 0.96 s.

Batch normalisation is folded into the convolutions, as in the published ONNX graph. The input is
the log-mel spectrogram of `xai_demo.audio.front_ends`, (batch, 1, mel, time) here, while the graph
orders it as (batch, 1, time, mel), so it is transposed on the way in and out. The network is
convolutional up to its mean over the map: a longer input gives a longer map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from xai_demo.records import Model

# Channels and stride of the thirteen separable layers after the first convolution of 32 channels.
LAYERS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *((512, 1),) * 5,
    (1024, 2),
    (1024, 1),
)
LAST_LAYER = "layer14.pointwise"
# Before the last stride: four times as many cells.
FINER_LAYER = "layer12.pointwise"


def build(model: Model) -> nn.Module:
    """A convolution, thirteen separable ones, mean, one linear layer; 3.7 M parameters."""
    from xai_demo.networks.yamnet_modules import Yamnet

    return Yamnet(len(model.labels))


def cut(network: Any) -> tuple[nn.Module, nn.Module]:
    """Cut after the last convolution's ReLU: a thirty-second of the input's size."""
    from xai_demo.networks.yamnet_modules import Features, Head

    return Features(network, 14), Head(network, 14)


def cut_finer(network: Any) -> tuple[nn.Module, nn.Module]:
    """Cut two layers earlier, before the last stride: a sixteenth of the input's size."""
    from xai_demo.networks.yamnet_modules import Features, Head

    return Features(network, 12), Head(network, 12)
