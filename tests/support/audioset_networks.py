"""CED and EfficientAT with made weights: seeded, and far from the ones that networks start with."""

from __future__ import annotations

import dataclasses
import functools

import torch
from torch import nn

from tests.support.small_models import MEL, model_of
from xai_demo import networks
from xai_demo.catalog.hub_models import CED_TINY, EFFICIENTAT_MN10
from xai_demo.networks import Architecture, ced
from xai_demo.records import Model

SMALL_SIZE = {"width": 24, "n_heads": 3, "n_layers": 3}
SMALL_LAYER = ced.last_layernorm(3)
SMALL_CED = Architecture(
    build=ced.builder(**SMALL_SIZE),
    cuts={SMALL_LAYER: ced.cut},
    kind="transformer",
    feature_maps=ced.feature_maps,
)
# 3 x 4 patches.
SMALL_MODEL = dataclasses.replace(
    model_of("cnn6"),
    name="small-ced",
    architecture="ced-tiny",
    activation="sigmoid",
    preprocessing=dataclasses.replace(MEL, front_end="htk", n_mels=48, window_s=0.7, min_s=0.2),
)
SMALL_GRID = (3, 4)


def randomise(network: nn.Module, seed: int) -> nn.Module:
    """Every tensor random, batch normalisation's statistics too, with activations of order 1."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    for name, parameter in network.named_parameters():
        with torch.no_grad():
            if parameter.ndim == 1:
                parameter.uniform_(0.5, 1.5, generator=generator)
                parameter.sub_(0.0 if name.endswith("weight") else 1.0)
            else:
                fan_in = parameter[0].numel()
                parameter.normal_(0, 1.4 / fan_in**0.5, generator=generator)
    return network.eval().requires_grad_(False)


@functools.cache
def whole_network(name: str) -> nn.Module:
    """The network of "ced-tiny" or "efficientat-mn10" at its published size."""
    model = {"ced-tiny": CED_TINY, "efficientat-mn10": EFFICIENTAT_MN10}[name]
    whole = randomise(networks.architecture(model).build(model), seed=5)
    if name == "ced-tiny":
        # Decibels come in, so that the first normalisation is one of decibels.
        whole.encoder.init_bn.running_mean.sub_(30)
        whole.encoder.init_bn.running_var.mul_(200)
    else:
        calibrate(whole, torch.randn(4, 1, 128, 160, generator=torch.Generator().manual_seed(6)))
    return whole


def calibrate(network: nn.Module, inputs: torch.Tensor) -> None:
    """Batch normalisation's statistics as after training: activations of order 1 in every layer."""
    layers = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    for layer in layers:
        layer.momentum = 1.0
    with torch.inference_mode():
        network.train().features(inputs)
    network.eval()
    for layer in layers:
        layer.momentum = 0.01


def small_ced(model: Model = SMALL_MODEL) -> tuple[nn.Module, networks.Cut, torch.Tensor]:
    """(whole network, its cut, two windows), of three narrow blocks."""
    whole = randomise(SMALL_CED.build(model), seed=3)
    features, head = ced.cut(whole)
    cut = networks.Cut(features=features.eval(), head=head.eval(), layer=SMALL_LAYER)
    inputs = torch.randn(2, 1, 48, 70, generator=torch.Generator().manual_seed(4))
    return whole, cut, inputs
