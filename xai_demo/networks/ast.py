"""AST, the Audio Spectrogram Transformer (Gong et al. 2021), by transformers.

Its input is Kaldi's filter bank of fixed width; see `xai_demo.audio.spectrogram`. Patches of
16 x 16 lie 10 apart, so that 128 bands by 1024 frames make 12 x 101 of
them: row by row, lowest band first, after two leading tokens that the answer is read from.
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
PATCH, STRIDE = 16, 10
N_LEADING_TOKENS = 2  # the class token and the distillation token

# What the published file calls its tensors, and what they are called since transformers 5.
TENSOR_RENAMES = (
    (r"\.encoder\.layer\.", ".layers."),
    (r"\.attention\.attention\.query\.", ".attention.q_proj."),
    (r"\.attention\.attention\.key\.", ".attention.k_proj."),
    (r"\.attention\.attention\.value\.", ".attention.v_proj."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
)


def last_layernorm(n_layers: int = N_LAYERS) -> str:
    """The layer that is explained: what the last block's attention is given."""
    return f"audio_spectrogram_transformer.layers.{n_layers - 1}.layernorm_before"


def builder(**size: int) -> Callable[[Model], nn.Module]:
    """How to make AST; `size` are fields of transformers' ASTConfig other than the published."""

    def make(model: Model) -> nn.Module:
        from transformers import ASTConfig

        from xai_demo.networks.ast_modules import SpectrogramTransformer

        spec = _fixed_length_spec(model)
        facts: dict[str, Any] = {
            "num_hidden_layers": N_LAYERS,
            "patch_size": PATCH,
            "frequency_stride": STRIDE,
            "time_stride": STRIDE,
            "num_mel_bins": spec.n_mels,
            "max_length": spec.frames,
            "num_labels": len(model.labels),
        }
        return SpectrogramTransformer(ASTConfig(**facts | size))

    return make


def cut(network: Any) -> tuple[nn.Module, nn.Module]:
    """Cut inside the last block, after `layernorm_before`, as pytorch-grad-cam advises.

    Behind that block the patches no longer matter: the answer is read from the leading tokens, and
    the gradient of every patch would be zero.
    """
    from xai_demo.networks.ast_modules import Features, Head

    return Features(network), Head(network)


def feature_maps(model: Model, tokens: Tensor) -> Tensor:
    """The patches of activations or their gradients: (batch, channels, rows, columns)."""
    spec = _fixed_length_spec(model)
    rows, columns = ((n - PATCH) // STRIDE + 1 for n in (spec.n_mels, spec.frames or 0))
    patches = tokens[:, N_LEADING_TOKENS : N_LEADING_TOKENS + rows * columns]
    laid_out: Tensor = patches.unflatten(1, (rows, columns)).permute(0, 3, 1, 2)
    return laid_out


def _fixed_length_spec(model: Model) -> LogMel:
    spec = model.preprocessing
    if not isinstance(spec, LogMel) or spec.frames is None:
        raise UnsuitableError(
            f"{model.name} is prepared by {spec}, wanted: a LogMel with a number of frames, "
            "because AST has a place for each of its patches."
        )
    return spec
