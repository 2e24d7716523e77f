"""Subjects to explain, for tests: networks with random weights, and one computable by hand."""

import numpy as np
import torch
from torch import nn

from tests.support import small_transformer
from tests.support.small_models import model_of
from xai_demo import networks
from xai_demo.explainers import Subject


def build_network(architecture: str):
    """(whole network, its cut, two windows)."""
    model = model_of(architecture)
    torch.manual_seed(3)
    whole = networks.architecture(model).build(model).eval().requires_grad_(False)
    shape = (2, 1, 64, 200) if architecture.startswith("cnn") else (2, 1, 96, 96)
    return whole, networks.cut(model, whole), torch.randn(shape)


def tiny_network():
    """The same of a network that is fast: two convolutions, cut after the second."""
    torch.manual_seed(5)
    features = nn.Sequential(
        nn.Conv2d(1, 24, 5, stride=2), nn.ReLU(inplace=True), nn.Conv2d(24, 32, 5, stride=2)
    )
    head = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 3))
    whole = nn.Sequential(features, head).eval().requires_grad_(False)
    return whole, networks.Cut(features=features, head=head, layer="0"), torch.randn(2, 1, 36, 48)


def pooled_network():
    """The same with nothing after the cut but the mean and one linear layer."""
    whole, _, inputs = tiny_network()
    features = nn.Sequential(*whole[0], nn.ReLU())
    head = nn.Sequential(*list(whole[1])[1:])
    whole = nn.Sequential(features, head).eval().requires_grad_(False)
    return whole, networks.Cut(features=features, head=head, layer="0"), inputs


# One of each kind.
SMALL = {
    "convolutional": tiny_network,
    "pooled": pooled_network,
    "transformer": small_transformer.build_network,
}


def subject_of(whole, cut, inputs, **changes) -> Subject:
    """The subject of a real network on torch."""
    with torch.inference_mode():
        activations = cut.features(inputs).clone()

    def forward(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return whole(torch.from_numpy(batch)).numpy()

    fields = {
        "inputs": inputs.numpy(),
        "activations": activations,
        "feature_maps": small_transformer.feature_maps
        if cut.layer == small_transformer.LAYER
        else lambda x: x,
        "head": cut.head,
        "forward": forward,
        "network": whole,
        "background": 0.0,
    }
    return Subject(**fields | changes)


def linear_subject(windows: int = 1, background: float = 0.5, **changes) -> Subject:
    """An image of 16 x 16 ones for a network that is a weighted sum.

    Label 0 sees the top left quarter at weight 1 and the bottom right one at weight -1, label 1 the
    top right quarter at weight 2.
    """
    weights = torch.zeros(2, 16, 16)
    weights[0, :8, :8], weights[0, 8:, 8:], weights[1, :8, 8:] = 1, -1, 2

    def network(x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("nrc,lrc->nl", x[:, 0], weights)

    inputs = np.ones((windows, 1, 16, 16), np.float32)
    fields = {
        "inputs": inputs,
        "activations": torch.from_numpy(inputs),
        "head": torch.nn.Identity(),
        "forward": lambda batch: network(torch.from_numpy(batch)).numpy(),
        "network": network,
        "background": background,
    }
    return Subject(**fields | changes)
