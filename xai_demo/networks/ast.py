"""AST, the Audio Spectrogram Transformer (Gong et al. 2021), built by transformers.

Its input is Kaldi's filter bank with a fixed number of frames: see `xai_demo.audio.front_ends`.
Patches of 16 x 16 lie 10 apart, so 128 bands by 1024 frames give 12 x 101 patches. Their tokens
come row by row, lowest band first, after two leading tokens that the prediction is read from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from xai_demo.errors import UnsuitableError
from xai_demo.records import LogMel

if TYPE_CHECKING:
    from torch import Tensor, nn

    from xai_demo.records import Model

N_LAYERS = 12
# Of the published network; the position embeddings fit no other grid.
PATCH, STRIDE = 16, 10
# The class token and the distillation token.
N_LEADING_TOKENS = 2

# transformers 5 renamed the tensors; the published checkpoint still has the old names.
TENSOR_RENAMES = (
    (r"\.encoder\.layer\.", ".layers."),
    (r"\.attention\.attention\.query\.", ".attention.q_proj."),
    (r"\.attention\.attention\.key\.", ".attention.k_proj."),
    (r"\.attention\.attention\.value\.", ".attention.v_proj."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    # After `.attention.output.dense.`, which it would match as well.
    (r"\.output\.dense\.", ".mlp.fc2."),
)


def last_layernorm(n_layers: int = N_LAYERS) -> str:
    """The name of the explained layer: the normalisation before the last block's attention."""
    return f"audio_spectrogram_transformer.layers.{n_layers - 1}.layernorm_before"


def builder(**size: int) -> Callable[[Model], nn.Module]:
    """A function that builds AST; `size` overrides fields of the published ASTConfig."""

    def build(model: Model) -> nn.Module:
        from transformers import ASTConfig

        from xai_demo.networks.ast_modules import SpectrogramTransformer

        # There is one position embedding for each patch, so the number of frames is fixed.
        spec = _fixed_length_spec(model)
        # All other fields keep ASTConfig's defaults, which are the published network's.
        facts: dict[str, Any] = {
            "num_hidden_layers": N_LAYERS,
            "patch_size": PATCH,
            "frequency_stride": STRIDE,
            "time_stride": STRIDE,
            "num_mel_bins": spec.n_mels,
            "max_length": spec.frames,
            "num_labels": len(model.labels),
        }
        # `size` last, because it overrides.
        return SpectrogramTransformer(ASTConfig(**facts | size))

    return build


def cut(network: Any) -> tuple[nn.Module, nn.Module]:
    """Cut inside the last block, after `layernorm_before`, as pytorch-grad-cam advises.

    After that block the gradient of every patch would be zero, because the prediction is read from
    the leading tokens alone.
    """
    from xai_demo.networks.ast_modules import Features, Head

    return Features(network), Head(network)


def feature_maps(model: Model, tokens: Tensor) -> Tensor:
    """The patches of activations, or of their gradients, as (batch, channels, rows, columns)."""
    spec = _fixed_length_spec(model)
    # Patches overlap: 12 rows of 128 bands, 101 columns of 1024 frames.
    rows, columns = ((n - PATCH) // STRIDE + 1 for n in (spec.n_mels, spec.frames or 0))
    # Behind the patches lie the leading tokens before normalisation: see `ast_modules.Features`.
    patches = tokens[:, N_LEADING_TOKENS : N_LEADING_TOKENS + rows * columns]
    # Channels come last in tokens, but second in feature maps.
    laid_out: Tensor = patches.unflatten(1, (rows, columns)).permute(0, 3, 1, 2)
    return laid_out


def _fixed_length_spec(model: Model) -> LogMel:
    spec = model.preprocessing
    if not isinstance(spec, LogMel) or spec.frames is None:
        raise UnsuitableError(
            f"AST needs inputs with a fixed number of frames, because it has a position embedding "
            f"for each patch; {model.name} is preprocessed by {spec}."
        )
    return spec
