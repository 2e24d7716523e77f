"""A transformer small enough for tests: AST with three narrow blocks and 4 x 5 patches."""

import dataclasses

import torch

from tests.support.small_models import MEL, model_of
from xai_demo import networks
from xai_demo.networks import Architecture, ast

LAYER = ast.last_layernorm(3)
ARCHITECTURE = Architecture(
    build=ast.builder(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48
    ),
    cuts={LAYER: ast.cut},
    kind="transformer",
    feature_maps=ast.feature_maps,
    tensor_renames=ast.TENSOR_RENAMES,
)
SPEC = dataclasses.replace(
    MEL,
    front_end="kaldi",
    n_mels=48,
    frames=64,
    window_s=0.6,
    window_hop_s=0.3,
    min_s=0.1,
    mean_db=-30.0,
    deviation_db=20.0,
)
MODEL = dataclasses.replace(model_of("cnn6"), name="small-ast", architecture="ast")
MODEL = dataclasses.replace(MODEL, preprocessing=SPEC, activation="sigmoid")
GRID = (4, 5)


def build_network():
    """(whole network, its cut, two windows)."""
    torch.manual_seed(3)
    whole = ARCHITECTURE.build(MODEL).eval().requires_grad_(False)
    for name, parameter in whole.named_parameters():
        if "embeddings" in name:  # transformers starts them at zero
            torch.nn.init.normal_(parameter)
    features, head = ast.cut(whole)
    cut = networks.Cut(features=features.eval(), head=head.eval(), layer=LAYER)
    return whole, cut, torch.randn(2, 1, 48, 64)


def feature_maps(activations: torch.Tensor) -> torch.Tensor:
    return ast.feature_maps(MODEL, activations)
