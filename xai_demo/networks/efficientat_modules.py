"""The torch modules of EfficientAT's MobileNetV3; imported when the first one is built."""

from typing import NamedTuple

from torch import Tensor, nn


class BlockShape(NamedTuple):
    """One row of MobileNetV3-Large: Howard et al. 2019, table 1."""

    kernel: int
    expanded: int
    out: int
    squeeze: bool
    hardswish: bool
    stride: int


_STEM, _HIDDEN, _DROPOUT = 16, 1280, 0.2
_BLOCKS = (
    BlockShape(3, 16, 16, squeeze=False, hardswish=False, stride=1),
    BlockShape(3, 64, 24, squeeze=False, hardswish=False, stride=2),
    BlockShape(3, 72, 24, squeeze=False, hardswish=False, stride=1),
    BlockShape(5, 72, 40, squeeze=True, hardswish=False, stride=2),
    BlockShape(5, 120, 40, squeeze=True, hardswish=False, stride=1),
    BlockShape(5, 120, 40, squeeze=True, hardswish=False, stride=1),
    BlockShape(3, 240, 80, squeeze=False, hardswish=True, stride=2),
    BlockShape(3, 200, 80, squeeze=False, hardswish=True, stride=1),
    BlockShape(3, 184, 80, squeeze=False, hardswish=True, stride=1),
    BlockShape(3, 184, 80, squeeze=False, hardswish=True, stride=1),
    BlockShape(3, 480, 112, squeeze=True, hardswish=True, stride=1),
    BlockShape(3, 672, 112, squeeze=True, hardswish=True, stride=1),
    BlockShape(5, 672, 160, squeeze=True, hardswish=True, stride=2),
    BlockShape(5, 960, 160, squeeze=True, hardswish=True, stride=1),
    BlockShape(5, 960, 160, squeeze=True, hardswish=True, stride=1),
)
# `features` up to the layer before the last block that halves the map.
_N_FINER = 13


def _convolution(
    n_in: int,
    n_out: int,
    kernel: int,
    activation: nn.Module | None,
    stride: int = 1,
    groups: int = 1,
) -> nn.Sequential:
    """A convolution with batch normalisation and perhaps an activation."""
    padding = (kernel - 1) // 2
    layers: list[nn.Module] = [
        nn.Conv2d(n_in, n_out, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(n_out, eps=0.001, momentum=0.01),
    ]
    # No third layer where there is no activation: the authors' tensors are numbered that way.
    return nn.Sequential(*layers, *([activation] if activation else []))


def _squeezed_width(width: int) -> int:
    """A quarter of the channels, rounded to a multiple of 8, but not down by more than a tenth."""
    quarter = width // 4
    rounded = max(8, (quarter + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * quarter else rounded


class ChannelWeights(nn.Module):
    """One weight for each channel, from its mean over the map: Hu et al. 2018, section 3."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, _squeezed_width(width))
        self.fc2 = nn.Linear(_squeezed_width(width), width)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, rows, columns) -> (batch, channels, 1, 1), 0..1."""
        weights: Tensor = self.fc2(self.fc1(x.mean((2, 3))).relu()).sigmoid()
        return weights[:, :, None, None]


class SqueezeExcitation(nn.Module):
    """Channels weighted by their means; the authors' code could do the same over other axes."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conc_se_layers = nn.ModuleList([ChannelWeights(width)])

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, rows, columns) -> the same."""
        weighted: Tensor = x * self.conc_se_layers[0](x)
        return weighted


class InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow: Sandler et al. 2018, figure 3."""

    def __init__(self, n_in: int, shape: BlockShape) -> None:
        super().__init__()
        self.has_shortcut = shape.stride == 1 and n_in == shape.out

        def activation() -> nn.Module:
            return nn.Hardswish() if shape.hardswish else nn.ReLU()

        width = shape.expanded
        layers: list[nn.Module] = []
        if width != n_in:
            layers.append(_convolution(n_in, width, 1, activation()))
        layers.append(
            _convolution(width, width, shape.kernel, activation(), shape.stride, groups=width)
        )
        if shape.squeeze:
            layers.append(SqueezeExcitation(width))
        layers.append(_convolution(width, shape.out, 1, None))
        self.block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n_in, rows, columns) -> (batch, out, rows / stride, columns / stride)."""
        narrowed: Tensor = self.block(x)
        return x + narrowed if self.has_shortcut else narrowed


class MobileNet(nn.Module):
    """(batch, 1, mel, frames) -> (batch, labels) logits."""

    def __init__(self, n_labels: int) -> None:
        super().__init__()
        widths = [_STEM, *(shape.out for shape in _BLOCKS)]
        last = 6 * widths[-1]
        self.features = nn.Sequential(
            _convolution(1, _STEM, 3, nn.Hardswish(), stride=2),
            *map(InvertedResidual, widths, _BLOCKS),
            _convolution(widths[-1], last, 1, nn.Hardswish()),
        )
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(last, _HIDDEN),
            nn.Hardswish(),
            nn.Dropout(_DROPOUT),
            nn.Linear(_HIDDEN, n_labels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 1, mel, frames) -> (batch, labels) logits."""
        logits: Tensor = self.classifier(self.features(x))
        return logits


class FinerFeatures(nn.Module):
    """MobileNet up to block 12, whose map is twice as fine as the last one's."""

    def __init__(self, network: MobileNet) -> None:
        super().__init__()
        # The same modules: both halves share the whole network's parameters.
        self.features = network.features[:_N_FINER]

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 1, mel, frames) -> (batch, 112, mel / 16, frames / 16)."""
        activations: Tensor = self.features(x)
        return activations


class FinerHead(nn.Module):
    """MobileNet from block 13 on."""

    def __init__(self, network: MobileNet) -> None:
        super().__init__()
        self.features, self.classifier = network.features[_N_FINER:], network.classifier

    def forward(self, activations: Tensor) -> Tensor:
        """Activations -> (batch, labels) logits."""
        logits: Tensor = self.classifier(self.features(activations))
        return logits
