"""PANNs (Kong et al. 2020): Cnn6, Cnn14 and Cnn14_DecisionLevelMax.

Tensors have the authors' names. The input is the log-mel spectrogram of
`xai_demo.audio.front_ends`: (batch, 1, mel, time) here, while the authors order it as
(batch, 1, time, mel), so it is transposed on the way in and out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from xai_demo.records import Model

# Input frames for each step of the last block: five poolings by 2.
_STRIDE = 32


def cnn6(model: Model) -> nn.Module:
    """Cnn6: four blocks of one 5x5 convolution, 64 to 512 channels; 4.8 M parameters."""
    from xai_demo.networks.panns_modules import Cnn6

    return Cnn6(len(model.labels))


def cnn6_half(model: Model) -> nn.Module:
    """Cnn6 with half as many channels, for small datasets: 32 to 256; 1.1 M parameters."""
    from xai_demo.networks.panns_modules import Cnn6

    return Cnn6(len(model.labels), width=256, dropout=0.2)


def cnn14(model: Model) -> nn.Module:
    """Cnn14: six blocks of two 3x3 convolutions, 64 to 2048 channels; 80.8 M parameters."""
    from xai_demo.networks.panns_modules import Cnn14

    return Cnn14(len(model.labels))


def cnn14_framewise(model: Model) -> nn.Module:
    """Cnn14_DecisionLevelMax: predicts every step; a label's largest logit over time counts."""
    from xai_demo.networks.panns_modules import Cnn14Framewise

    return Cnn14Framewise(len(model.labels))


def cut_cnn6(network: Any) -> tuple[nn.Module, nn.Module]:
    """Cut after block 4's ReLU, before its pooling: an eighth of the input's size."""
    from xai_demo.networks.panns_modules import Cnn6Features, Cnn6Head

    return Cnn6Features(network), Cnn6Head(network)


def cut_cnn14(network: Any) -> tuple[nn.Module, nn.Module]:
    """Cut after `conv_block6.conv2`, before its normalisation, as the reference system does."""
    from xai_demo.networks.panns_modules import Cnn14Features, Cnn14Head

    return Cnn14Features(network), Cnn14Head(network)


def cut_cnn14_finer(network: Any) -> tuple[nn.Module, nn.Module]:
    """Cut after block 5's ReLU, before its pooling: twice the resolution in time and frequency."""
    from xai_demo.networks.panns_modules import Cnn14FinerFeatures, Cnn14FinerHead

    return Cnn14FinerFeatures(network), Cnn14FinerHead(network)


def cut_framewise(network: Any) -> tuple[nn.Module, nn.Module]:
    """Cut Cnn14_DecisionLevelMax after `conv_block6.conv2`."""
    from xai_demo.networks.panns_modules import Cnn14Features, FramewiseHead

    return Cnn14Features(network), FramewiseHead(network)


def cut_framewise_finer(network: Any) -> tuple[nn.Module, nn.Module]:
    """Cut Cnn14_DecisionLevelMax after block 5's ReLU."""
    from xai_demo.networks.panns_modules import Cnn14FinerFeatures, FramewiseFinerHead

    return Cnn14FinerFeatures(network), FramewiseFinerHead(network)


def framewise_logits(head: Any, activations: Tensor, n_frames: int) -> Tensor:
    """The logits of every input frame, (batch, labels, n_frames), by a framewise head.

    As in the authors' code, each step of the last block is repeated for its 32 frames, and the last
    step also for the remaining ones.
    """
    import torch

    # (batch, labels, steps).
    steps: Tensor = head.framewise_logits(activations)
    repeated = steps.repeat_interleave(_STRIDE, dim=2)
    # Pooling drops an odd frame at the end, so the steps cover up to 31 frames too few.
    missing = n_frames - repeated.shape[2]
    last = repeated[:, :, -1:].expand(-1, -1, max(0, missing))
    return torch.cat([repeated, last], dim=2)[:, :, :n_frames]
