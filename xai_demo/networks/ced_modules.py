"""The torch modules of CED; imported when the first one is built."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xai_demo.networks.ced import MOST_FRAMES, PATCH

# Of all layer normalisations but the classifier's.
_EPSILON = 1e-6


class Attention(nn.Module):
    """Self-attention with one projection for queries, keys and values."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, tokens, width) -> the same."""
        # (3, batch, heads, tokens, channels of a head).
        split = self.qkv(tokens).unflatten(2, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = split.unbind(0)
        # A function call, so that `AttentionRecorder` sees it.
        mixed = F.scaled_dot_product_attention(query, key, value)
        output: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return output


class Perceptron(nn.Module):
    """Two linear layers with a GELU between them, the hidden one four times as wide."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, tokens, width) -> the same."""
        output: Tensor = self.fc2(F.gelu(self.fc1(tokens)))
        return output


class Block(nn.Module):
    """Attention and a perceptron, each with normalisation before it and a residual connection."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=_EPSILON)
        self.attn = Attention(width, n_heads)
        self.norm2 = nn.LayerNorm(width, eps=_EPSILON)
        self.mlp = Perceptron(width)

    def after_norm1(self, normalised: Tensor, tokens: Tensor) -> Tensor:
        """The block's output, from its input before and after the first normalisation."""
        tokens = tokens + self.attn(normalised)
        output: Tensor = tokens + self.mlp(self.norm2(tokens))
        return output

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, tokens, width) -> the same."""
        return self.after_norm1(self.norm1(tokens), tokens)


class PatchEmbedding(nn.Module):
    """One token for each patch, by a convolution without overlap."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, width, PATCH, stride=PATCH)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 1, mel, frames) -> (batch, width, rows, columns), of complete patches only."""
        patches: Tensor = self.proj(x)
        return patches


class Encoder(nn.Module):
    """CED without its classifier."""

    def __init__(self, n_mels: int, width: int, n_heads: int, n_layers: int) -> None:
        super().__init__()
        self.init_bn = nn.BatchNorm2d(n_mels)
        self.patch_embed = PatchEmbedding(width)
        self.time_pos_embed = nn.Parameter(0.02 * torch.randn(1, width, 1, MOST_FRAMES // PATCH))
        self.freq_pos_embed = nn.Parameter(0.02 * torch.randn(1, width, n_mels // PATCH, 1))
        self.blocks = nn.ModuleList(Block(width, n_heads) for _ in range(n_layers))
        self.norm = nn.LayerNorm(width, eps=_EPSILON)

    def embed(self, x: Tensor) -> Tensor:
        """(batch, 1, mel, frames) -> tokens before the first block, (batch, patches, width).

        At most `ced.MOST_FRAMES` frames: there are no position embeddings for more.
        """
        # As (batch, mel, 1, frames), so that batch normalisation takes the mel bands for channels.
        patches = self.patch_embed(self.init_bn(x.transpose(1, 2)).transpose(1, 2))
        positions = self.time_pos_embed[..., : patches.shape[3]] + self.freq_pos_embed
        tokens: Tensor = (patches + positions).flatten(2).transpose(1, 2)
        return tokens


class AudioTransformer(nn.Module):
    """The whole network: (batch, 1, mel, frames) -> logits, which the authors put in a sigmoid."""

    def __init__(
        self, n_labels: int, *, n_mels: int, width: int, n_heads: int, n_layers: int
    ) -> None:
        super().__init__()
        self.encoder = Encoder(n_mels, width, n_heads, n_layers)
        self.outputlayer = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, n_labels))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 1, mel, frames) -> (batch, labels) logits."""
        tokens = self.encoder.embed(x)
        for block in self.encoder.blocks:
            tokens = block(tokens)
        logits: Tensor = self.outputlayer(self.encoder.norm(tokens).mean(dim=1))
        return logits


class Features(nn.Module):
    """CED up to the last block's `norm1`.

    Activations are tokens, (batch, 2 x patches, width): normalised ones, then the same before
    normalisation, which the last block's residual connection needs.
    """

    def __init__(self, network: AudioTransformer) -> None:
        super().__init__()
        # The same modules: both halves share the whole network's parameters.
        self.encoder = network.encoder
        last: Any = network.encoder.blocks[-1]
        self.normalised = last.norm1

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 1, mel, frames) -> activations."""
        tokens = self.encoder.embed(x)
        for block in self.encoder.blocks[:-1]:
            tokens = block(tokens)
        return torch.cat([self.normalised(tokens), tokens], dim=1)


class Head(nn.Module):
    """CED from the last block's attention on."""

    def __init__(self, network: AudioTransformer) -> None:
        super().__init__()
        self.last: Any = network.encoder.blocks[-1]
        self.norm = network.encoder.norm
        self.outputlayer = network.outputlayer

    def forward(self, activations: Tensor) -> Tensor:
        """Activations -> (batch, labels) logits."""
        normalised, tokens = activations.chunk(2, dim=1)
        tokens = self.last.after_norm1(normalised, tokens)
        logits: Tensor = self.outputlayer(self.norm(tokens).mean(dim=1))
        return logits
