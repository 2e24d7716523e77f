"""The torch modules of AST; imported when the first is built."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ASTConfig, ASTForAudioClassification

from xai_demo.networks.ast import N_LEADING_TOKENS


class SpectrogramTransformer(nn.Module):
    """transformers' AST for classification, under the tensor names that it has there."""

    def __init__(self, config: ASTConfig) -> None:
        super().__init__()
        made = ASTForAudioClassification._from_config(config, attn_implementation="sdpa")
        self.audio_spectrogram_transformer = made.audio_spectrogram_transformer
        self.classifier = made.classifier

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 1, mel, frames) -> (batch, labels) logits."""
        seen = self.audio_spectrogram_transformer(x[:, 0].transpose(1, 2))
        logits: Tensor = self.classifier(seen.pooler_output)
        return logits


class Features(nn.Module):
    """AST up to the last block's `layernorm_before`.

    Activations are tokens, (batch, leading + patches + leading, channels): all of them normalised,
    then the leading ones as they were before, which the last block adds to again.
    """

    def __init__(self, network: SpectrogramTransformer) -> None:
        super().__init__()
        body = network.audio_spectrogram_transformer
        self.embeddings, self.layers = body.embeddings, body.layers[:-1]
        self.normalised = body.layers[-1].layernorm_before

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 1, mel, frames) -> activations."""
        tokens = self.embeddings(x[:, 0].transpose(1, 2))
        for layer in self.layers:
            tokens = layer(tokens)
        return torch.cat([self.normalised(tokens), tokens[:, :N_LEADING_TOKENS]], dim=1)


class Head(nn.Module):
    """AST from the last block's attention on, for the leading tokens alone.

    Nobody reads what the last block makes of the patches, so that it is not worked out.
    """

    def __init__(self, network: SpectrogramTransformer) -> None:
        super().__init__()
        body = network.audio_spectrogram_transformer
        last = body.layers[-1]
        self.attention, self.mlp = last.attention, last.mlp
        self.layernorm_after, self.layernorm = last.layernorm_after, body.layernorm
        self.classifier = network.classifier

    def forward(self, activations: Tensor) -> Tensor:
        """Activations -> (batch, labels) logits."""
        normalised, leading = activations[:, :-N_LEADING_TOKENS], activations[:, -N_LEADING_TOKENS:]
        leading = leading + self._attended(normalised)
        leading = leading + self.mlp(self.layernorm_after(leading))
        logits: Tensor = self.classifier(self.layernorm(leading).mean(dim=1))
        return logits

    def _attended(self, tokens: Tensor) -> Tensor:
        """What the leading tokens take from all: (batch, leading, channels)."""
        attention = self.attention

        def heads(projected: Tensor) -> Tensor:
            apart: Tensor = projected.unflatten(2, (-1, attention.head_dim)).transpose(1, 2)
            return apart

        mixed = F.scaled_dot_product_attention(
            heads(attention.q_proj(tokens[:, :N_LEADING_TOKENS])),
            heads(attention.k_proj(tokens)),
            heads(attention.v_proj(tokens)),
            scale=attention.scaling,
        )
        taken: Tensor = attention.o_proj(mixed.transpose(1, 2).flatten(2))
        return taken
