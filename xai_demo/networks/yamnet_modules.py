"""The torch modules of YAMNet; imported when the first one is built."""

from torch import Tensor, nn
from torch.nn import functional as F

from xai_demo.networks.yamnet import LAYERS

_FIRST_CHANNELS = 32


class Convolution(nn.Conv2d):
    """A convolution with bias and ReLU, whose padding is that of TensorFlow's SAME.

    With stride 2 an even input is padded by nothing before it and by one cell after it.
    """

    def __init__(
        self, n_in: int, n_out: int, size: int = 3, *, stride: int = 1, groups: int = 1
    ) -> None:
        padding = size // 2 if stride == 1 else 0
        super().__init__(n_in, n_out, size, stride=stride, padding=padding, groups=groups)
        # He et al. 2015: PyTorch's default shrinks activations by a third a layer, to nothing after
        # 27 layers without normalisation.
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n_in, time, mel) -> (batch, n_out, time / stride, mel / stride)."""
        if self.stride == (2, 2):
            x = F.pad(x, (0, 1, 0, 1))
        return F.relu(super().forward(x))


class SeparableConvolution(nn.Module):
    """Each channel by itself in 3 x 3 cells, then all channels of each cell."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.depthwise = Convolution(n_in, n_in, stride=stride, groups=n_in)
        self.pointwise = Convolution(n_in, n_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n_in, time, mel) -> (batch, n_out, time / stride, mel / stride)."""
        activations: Tensor = self.pointwise(self.depthwise(x))
        return activations


class Yamnet(nn.Module):
    """(batch, 1, mel, time) -> (batch, labels) logits."""

    def __init__(self, n_labels: int) -> None:
        super().__init__()
        self.layer1 = Convolution(1, _FIRST_CHANNELS, stride=2)
        n_in = _FIRST_CHANNELS
        for number, (n_out, stride) in enumerate(LAYERS, start=2):
            self.add_module(f"layer{number}", SeparableConvolution(n_in, n_out, stride))
            n_in = n_out
        self.classifier = nn.Linear(n_in, n_labels)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 1, mel, time) -> (batch, labels) logits."""
        logits: Tensor = Head(self, 14)(Features(self, 14)(x))
        return logits


def _layers(network: Yamnet, first: int, last: int) -> nn.Sequential:
    """Layers by number, both ends included; they stay the network's own."""
    return nn.Sequential(*(getattr(network, f"layer{i}") for i in range(first, last + 1)))


class Features(nn.Module):
    """YAMNet up to the ReLU of a layer; activations (batch, channels, mel, time)."""

    def __init__(self, network: Yamnet, last: int) -> None:
        super().__init__()
        self.layers = _layers(network, 1, last)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 1, mel, time) -> activations."""
        activations: Tensor = self.layers(x.transpose(2, 3))
        return activations.transpose(2, 3)


class Head(nn.Module):
    """The layers after that one, the mean over the map and the linear layer."""

    def __init__(self, network: Yamnet, last: int) -> None:
        super().__init__()
        self.layers = _layers(network, last + 1, 14)
        self.classifier = network.classifier

    def forward(self, activations: Tensor) -> Tensor:
        """Activations -> logits."""
        logits: Tensor = self.classifier(self.layers(activations.transpose(2, 3)).mean((2, 3)))
        return logits
