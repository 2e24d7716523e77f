"""The torch modules of Cnn6 and Cnn14; imported when the first of them is built."""

from torch import Tensor, nn
from torch.nn import functional as F


class ConvBlock5x5(nn.Module):
    """One 5x5 convolution with normalisation and ReLU; pooling is the caller's."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 5, padding=2, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n_in, time, mel) -> (batch, n_out, time, mel)."""
        return F.relu(self.bn1(self.conv1(x)))


class ConvBlock(nn.Module):
    """Two 3x3 convolutions, each with normalisation and ReLU; pooling is the caller's."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.bn2 = nn.BatchNorm2d(n_out)

    def before_bn2(self, x: Tensor) -> Tensor:
        """Up to and including the second convolution."""
        out: Tensor = self.conv2(F.relu(self.bn1(self.conv1(x))))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n_in, time, mel) -> (batch, n_out, time, mel)."""
        return F.relu(self.bn2(self.before_bn2(x)))


class Panns(nn.Module):
    """What Cnn6 and Cnn14 share: normalisation over mel bands, and the head after the last block."""

    def __init__(self, n_labels: int, width: int) -> None:
        super().__init__()
        self.bn0 = nn.BatchNorm2d(64)
        self.fc1 = nn.Linear(width, width)
        self.fc_audioset = nn.Linear(width, n_labels)

    def normalised(self, x: Tensor) -> Tensor:
        """(batch, 1, mel, time) -> (batch, 1, time, mel), each mel band normalised."""
        by_band = self.bn0(x.transpose(1, 2))  # (batch, mel, 1, time)
        return by_band.permute(0, 2, 3, 1)

    def classified(self, x: Tensor) -> Tensor:
        """(batch, channels, time, mel) -> logits: mean over mel, then maximum plus mean over time."""
        over_time = x.mean(dim=3)
        embedding = over_time.max(dim=2).values + over_time.mean(dim=2)
        embedding = F.dropout(embedding, 0.5, training=self.training)
        hidden = F.dropout(F.relu(self.fc1(embedding)), 0.5, training=self.training)
        logits: Tensor = self.fc_audioset(hidden)
        return logits


class Cnn6(Panns):
    """Kong et al. 2020, table 3; (batch, 1, 64 mel, time) -> logits."""

    def __init__(self, n_labels: int) -> None:
        super().__init__(n_labels, 512)
        widths = (1, 64, 128, 256, 512)
        for i in range(4):
            self.add_module(f"conv_block{i + 1}", ConvBlock5x5(widths[i], widths[i + 1]))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 1, mel, time) -> (batch, labels) logits."""
        logits: Tensor = Cnn6Head(self)(Cnn6Features(self)(x))
        return logits


class Cnn14(Panns):
    """Kong et al. 2020, table 3; (batch, 1, 64 mel, time) -> logits."""

    def __init__(self, n_labels: int) -> None:
        super().__init__(n_labels, 2048)
        widths = (1, 64, 128, 256, 512, 1024, 2048)
        for i in range(6):
            self.add_module(f"conv_block{i + 1}", ConvBlock(widths[i], widths[i + 1]))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 1, mel, time) -> (batch, labels) logits."""
        logits: Tensor = Cnn14Head(self)(Cnn14Features(self)(x))
        return logits


def _pooled(x: Tensor, training: bool) -> Tensor:
    return F.dropout(F.avg_pool2d(x, 2), 0.2, training=training)


class Cnn6Features(nn.Module):
    """Cnn6 up to block 4's ReLU; activations (batch, 512, mel / 8, time / 8)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 1, mel, time) -> activations."""
        net = self.network
        x = net.normalised(x)
        for block in (net.conv_block1, net.conv_block2, net.conv_block3):
            x = _pooled(block(x), net.training)
        return net.conv_block4(x).transpose(2, 3)


class Cnn6Head(nn.Module):
    """Cnn6 from block 4's pooling on."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, activations: Tensor) -> Tensor:
        """Activations -> logits."""
        net = self.network
        logits: Tensor = net.classified(_pooled(activations.transpose(2, 3), net.training))
        return logits


class Cnn14Features(nn.Module):
    """Cnn14 up to `conv_block6.conv2`; activations (batch, 2048, mel / 32, time / 32)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 1, mel, time) -> activations."""
        net = self.network
        x = net.normalised(x)
        for i in range(1, 6):
            x = _pooled(getattr(net, f"conv_block{i}")(x), net.training)
        return net.conv_block6.before_bn2(x).transpose(2, 3)


class Cnn14Head(nn.Module):
    """Cnn14 from `conv_block6.bn2` on."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, activations: Tensor) -> Tensor:
        """Activations -> logits."""
        net = self.network
        x = F.relu(net.conv_block6.bn2(activations.transpose(2, 3)))
        x = F.dropout(x, 0.2, training=net.training)
        logits: Tensor = net.classified(x)
        return logits


__all__ = ["Cnn6", "Cnn6Features", "Cnn6Head", "Cnn14", "Cnn14Features", "Cnn14Head"]
