"""The torch modules of AST; imported when the first one is built."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ASTConfig, ASTForAudioClassification

from xai_demo.networks.ast import N_LEADING_TOKENS


class SpectrogramTransformer(nn.Module):
    """transformers' AST for classification, with its tensor names."""

    def __init__(self, config: ASTConfig) -> None:
        super().__init__()
        # SDPA is the attention that `AttentionRecorder` can record.
        network = ASTForAudioClassification._from_config(config, attn_implementation="sdpa")
        self.audio_spectrogram_transformer = network.audio_spectrogram_transformer
        self.classifier = network.classifier

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 1, mel, frames) -> (batch, labels) logits."""
        # transformers expects (batch, frames, mel).
        output = self.audio_spectrogram_transformer(x[:, 0].transpose(1, 2))
        logits: Tensor = self.classifier(output.pooler_output)
        return logits


class Features(nn.Module):
    """AST up to the last block's `layernorm_before`.

    Activations are tokens, (batch, leading + patches + leading, channels): all of them normalised,
    then the leading ones before normalisation, which the last block's residual connection needs.
    """

    def __init__(self, network: SpectrogramTransformer) -> None:
        super().__init__()
        body = network.audio_spectrogram_transformer
        # The same modules: both halves share the whole network's parameters.
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

    The last block's output for the patches has no effect on the logits and is not computed.
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
        # The residual connection adds what came before normalisation.
        leading = leading + self._attend(normalised)
        leading = leading + self.mlp(self.layernorm_after(leading))
        # Like transformers' pooled output: the mean of both leading tokens, after normalisation.
        logits: Tensor = self.classifier(self.layernorm(leading).mean(dim=1))
        return logits

    def _attend(self, tokens: Tensor) -> Tensor:
        """The attention of the leading tokens to all tokens: (batch, leading, channels)."""
        attention = self.attention

        def heads(projected: Tensor) -> Tensor:
            # (batch, tokens, channels) -> (batch, heads, tokens, channels of a head).
            split: Tensor = projected.unflatten(2, (-1, attention.head_dim)).transpose(1, 2)
            return split

        # Queries of the leading tokens alone; a function call, so that `AttentionRecorder` sees it.
        mixed = F.scaled_dot_product_attention(
            heads(attention.q_proj(tokens[:, :N_LEADING_TOKENS])),
            heads(attention.k_proj(tokens)),
            heads(attention.v_proj(tokens)),
            scale=attention.scaling,
        )
        output: Tensor = attention.o_proj(mixed.transpose(1, 2).flatten(2))
        return output
