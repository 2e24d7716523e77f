"""The torch modules of PANNs; imported when the first one is built."""

from torch import Tensor, nn
from torch.nn import functional as F


class ConvBlock5x5(nn.Module):
    """One 5x5 convolution with batch normalisation and ReLU, without pooling."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 5, padding=2, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n_in, time, mel) -> (batch, n_out, time, mel)."""
        return F.relu(self.bn1(self.conv1(x)))


class ConvBlock(nn.Module):
    """Two 3x3 convolutions, each with batch normalisation and ReLU, without pooling."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.bn2 = nn.BatchNorm2d(n_out)

    def before_bn2(self, x: Tensor) -> Tensor:
        """The output of the second convolution, before its normalisation."""
        out: Tensor = self.conv2(F.relu(self.bn1(self.conv1(x))))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n_in, time, mel) -> (batch, n_out, time, mel)."""
        return F.relu(self.bn2(self.before_bn2(x)))


class Panns(nn.Module):
    """What Cnn6 and Cnn14 share: normalisation of the mel bands and the layers after the blocks."""

    def __init__(self, n_labels: int, width: int, dropout: float = 0.5) -> None:
        super().__init__()
        self.dropout = dropout
        # The published networks have 64 mel bands.
        self.bn0 = nn.BatchNorm2d(64)
        self.fc1 = nn.Linear(width, width)
        self.fc_audioset = nn.Linear(width, n_labels)

    def input_of_block(self, n_block: int, x: Tensor) -> Tensor:
        """(batch, 1, mel, time) -> the input of block `n_block`, (batch, channels, time, mel)."""
        # As (batch, mel, 1, time), so that batch normalisation takes the mel bands for channels.
        x = self.bn0(x.transpose(1, 2)).permute(0, 2, 3, 1)
        for i in range(1, n_block):
            x = _pool(getattr(self, f"conv_block{i}")(x), self)
        return x


def _dropout(x: Tensor, network: "Panns | Head") -> Tensor:
    """Dropout between blocks: 0.4 of the rate after them, so 0.2 with the published 0.5."""
    return F.dropout(x, 0.4 * network.dropout, training=network.training)


def _pool(x: Tensor, network: "Panns | Head") -> Tensor:
    return _dropout(F.avg_pool2d(x, 2), network)


def _classify(x: Tensor, network: "Panns | Head") -> Tensor:
    """(batch, channels, time, mel) -> logits: mean over mel, then maximum plus mean over time."""
    over_time = x.mean(dim=3)
    embedding = over_time.max(dim=2).values + over_time.mean(dim=2)
    embedding = F.dropout(embedding, network.dropout, training=network.training)
    hidden = F.dropout(F.relu(network.fc1(embedding)), network.dropout, training=network.training)
    logits: Tensor = network.fc_audioset(hidden)
    return logits


def _classify_steps(x: Tensor, network: "Panns | Head") -> Tensor:
    """(batch, channels, time, mel) -> logits of every step, (batch, labels, time).

    Maximum plus mean are taken over three steps, while Cnn14 takes them over all steps.
    """
    over_time = x.mean(dim=3)
    pooled = F.max_pool1d(over_time, 3, 1, 1) + F.avg_pool1d(over_time, 3, 1, 1)
    embedding = F.dropout(pooled, network.dropout, training=network.training).transpose(1, 2)
    hidden = F.dropout(F.relu(network.fc1(embedding)), network.dropout, training=network.training)
    logits: Tensor = network.fc_audioset(hidden)
    return logits.transpose(1, 2)


def _max_over_time(steps: Tensor) -> Tensor:
    """Logits of every step, (batch, labels, time), -> logits of the input, (batch, labels)."""
    # The authors take the maximum of probabilities. The sigmoid is monotonic, so it may come later.
    return steps.max(dim=2).values


class Cnn6(Panns):
    """Kong et al. 2020, table 3, where `width` is 512; (batch, 1, 64 mel, time) -> logits."""

    conv_block4: ConvBlock5x5

    def __init__(self, n_labels: int, width: int = 512, dropout: float = 0.5) -> None:
        super().__init__(n_labels, width, dropout)
        widths = (1, width // 8, width // 4, width // 2, width)
        for i in range(4):
            self.add_module(f"conv_block{i + 1}", ConvBlock5x5(widths[i], widths[i + 1]))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 1, mel, time) -> (batch, labels) logits."""
        return _classify(_pool(self.conv_block4(self.input_of_block(4, x)), self), self)


class Cnn14(Panns):
    """Kong et al. 2020, table 3; (batch, 1, 64 mel, time) -> logits."""

    conv_block5: ConvBlock
    conv_block6: ConvBlock

    def __init__(self, n_labels: int) -> None:
        super().__init__(n_labels, 2048)
        widths = (1, 64, 128, 256, 512, 1024, 2048)
        for i in range(6):
            self.add_module(f"conv_block{i + 1}", ConvBlock(widths[i], widths[i + 1]))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 1, mel, time) -> (batch, labels) logits."""
        # Block 6 has no pooling, as in the authors' code, where its pool size is 1.
        x = _dropout(self.conv_block6(self.input_of_block(6, x)), self)
        return _classify(x, self)


class Cnn14Framewise(Cnn14):
    """Cnn14_DecisionLevelMax; (batch, 1, 64 mel, time) -> logits."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 1, mel, time) -> (batch, labels) logits."""
        x = _dropout(self.conv_block6(self.input_of_block(6, x)), self)
        return _max_over_time(_classify_steps(x, self))


class Cnn6Features(nn.Module):
    """Cnn6 up to block 4's ReLU; activations (batch, width, mel / 8, time / 8)."""

    def __init__(self, network: Cnn6) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 1, mel, time) -> activations."""
        # `Panns` computes (time, mel); activations are (mel, time), like the input.
        activations: Tensor = self.network.conv_block4(self.network.input_of_block(4, x))
        return activations.transpose(2, 3)


class Cnn14Features(nn.Module):
    """Cnn14 up to `conv_block6.conv2`; activations (batch, 2048, mel / 32, time / 32)."""

    def __init__(self, network: Cnn14) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 1, mel, time) -> activations."""
        activations: Tensor = self.network.conv_block6.before_bn2(self.network.input_of_block(6, x))
        return activations.transpose(2, 3)


class Cnn14FinerFeatures(nn.Module):
    """Cnn14 up to block 5's ReLU; activations (batch, 1024, mel / 16, time / 16)."""

    def __init__(self, network: Cnn14) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 1, mel, time) -> activations."""
        activations: Tensor = self.network.conv_block5(self.network.input_of_block(5, x))
        return activations.transpose(2, 3)


class Head(nn.Module):
    """The layers after the last block."""

    def __init__(self, network: Panns) -> None:
        super().__init__()
        # Not the network itself: the blocks before the cut could not be freed.
        self.fc1, self.fc_audioset = network.fc1, network.fc_audioset
        self.dropout = network.dropout


class Cnn6Head(Head):
    """Cnn6 from block 4's pooling on."""

    def forward(self, activations: Tensor) -> Tensor:
        """Activations -> logits."""
        return _classify(_pool(activations.transpose(2, 3), self), self)


class Cnn14Head(Head):
    """Cnn14 from `conv_block6.bn2` on."""

    def __init__(self, network: Cnn14) -> None:
        super().__init__(network)
        # All that is left of block 6 after its second convolution.
        self.bn2 = network.conv_block6.bn2

    def block(self, activations: Tensor) -> Tensor:
        """The rest of block 6: (batch, channels, time, mel)."""
        x = F.relu(self.bn2(activations.transpose(2, 3)))
        return _dropout(x, self)

    def forward(self, activations: Tensor) -> Tensor:
        """Activations -> logits."""
        return _classify(self.block(activations), self)


class Cnn14FinerHead(Head):
    """Cnn14 from block 5's pooling on."""

    def __init__(self, network: Cnn14) -> None:
        super().__init__(network)
        self.conv_block6 = network.conv_block6

    def block(self, activations: Tensor) -> Tensor:
        """Block 6: (batch, channels, time, mel)."""
        x = self.conv_block6(_pool(activations.transpose(2, 3), self))
        return _dropout(x, self)

    def forward(self, activations: Tensor) -> Tensor:
        """Activations -> logits."""
        return _classify(self.block(activations), self)


class FramewiseHead(Cnn14Head):
    """Cnn14_DecisionLevelMax from `conv_block6.bn2` on."""

    def framewise_logits(self, activations: Tensor) -> Tensor:
        """Activations -> logits of every step, (batch, labels, time / 32)."""
        return _classify_steps(self.block(activations), self)

    def forward(self, activations: Tensor) -> Tensor:
        """Activations -> logits."""
        return _max_over_time(self.framewise_logits(activations))


class FramewiseFinerHead(Cnn14FinerHead):
    """Cnn14_DecisionLevelMax from block 5's pooling on."""

    def framewise_logits(self, activations: Tensor) -> Tensor:
        """Activations -> logits of every step, (batch, labels, time / 32)."""
        return _classify_steps(self.block(activations), self)

    def forward(self, activations: Tensor) -> Tensor:
        """Activations -> logits."""
        return _max_over_time(self.framewise_logits(activations))
