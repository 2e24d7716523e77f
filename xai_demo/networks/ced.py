"""CED (Dinkel et al. 2024): a vision transformer on mel spectrograms of any length up to 10 s.

Tensors have the names of the published checkpoint. The input is the HTK front end's spectrogram of
`xai_demo.audio.front_ends`, (batch, 1, mel, frames). Patches of 16 x 16 do not overlap: 64 bands by
1001 frames give 4 x 62 patches, whose tokens come row by row, lowest band first. Position
embeddings are separate for time and frequency, so that a shorter sound uses the first ones. There
is no class token: the prediction is read from the mean over all tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from xai_demo.errors import UnsuitableError
from xai_demo.records import LogMel

if TYPE_CHECKING:
    from torch import Tensor, nn

    from xai_demo.records import Model

PATCH = 16
# Of the published position embeddings: 63 patches.
MOST_FRAMES = 1012
# CED-tiny, Dinkel et al. 2024, table 1; 5.5 M parameters.
TINY = {"width": 192, "n_heads": 3, "n_layers": 12}


def last_layernorm(n_layers: int = TINY["n_layers"]) -> str:
    """The name of the explained layer: the normalisation before the last block's attention."""
    return f"encoder.blocks.{n_layers - 1}.norm1"


def builder(**size: int) -> Callable[[Model], nn.Module]:
    """A function that builds CED; `size` overrides fields of CED-tiny's."""

    def build(model: Model) -> nn.Module:
        from xai_demo.networks.ced_modules import AudioTransformer

        return AudioTransformer(len(model.labels), n_mels=_n_mels(model), **TINY | size)

    return build


def cut(network: Any) -> tuple[nn.Module, nn.Module]:
    """Cut inside the last block, after `norm1`, as AST is cut and pytorch-grad-cam advises."""
    from xai_demo.networks.ced_modules import Features, Head

    return Features(network), Head(network)


def feature_maps(model: Model, tokens: Tensor) -> Tensor:
    """The patches of activations, or of their gradients, as (batch, channels, rows, columns)."""
    # Behind the patches lie the same before normalisation: see `ced_modules.Features`.
    patches = tokens[:, : tokens.shape[1] // 2]
    # Channels come last in tokens, but second in feature maps.
    laid_out: Tensor = patches.unflatten(1, (_n_mels(model) // PATCH, -1)).permute(0, 3, 1, 2)
    return laid_out


def _n_mels(model: Model) -> int:
    spec = model.preprocessing
    if not isinstance(spec, LogMel) or spec.n_mels % PATCH:
        raise UnsuitableError(
            f"CED needs spectrograms of a multiple of {PATCH} mel bands, because its patches do not"
            f" overlap; {model.name} is preprocessed by {spec}."
        )
    frames = round(spec.window_s * spec.sample_rate_hz) // spec.hop_length + 1
    if frames > MOST_FRAMES:
        raise UnsuitableError(
            f"CED has position embeddings for {MOST_FRAMES} frames; the windows of {model.name}"
            f" have {frames}."
        )
    return spec.n_mels
