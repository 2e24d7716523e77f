"""The architectures, one module for each family, and where each network is cut in two.

`features` is everything up to and including the explained layer and `head` everything after it, so
that `head(features(x))` is the whole network. Inputs are (batch, 1, rows, columns): image rows from
the top, or mel bands from the lowest. Activations, laid out by `feature_maps`, are (batch,
channels, rows, columns) in the same order. To add an architecture, write its function and its cut,
and add a line to `ARCHITECTURES`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xai_demo.errors import UnknownNameError
from xai_demo.networks import (
    ast,
    ced,
    efficientat,
    panns,
    simplecnn,
    timm_backbones,
    yamnet,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from xai_demo.records import Model


def _identity(model: Model, activations: Tensor) -> Tensor:
    return activations


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A network in two parts; `layer` names the last layer of `features`."""

    features: nn.Module
    head: nn.Module
    layer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """How to build the network of a model, without weights, and where it can be cut."""

    build: Callable[[Model], nn.Module]
    # By layer, the default first.
    cuts: Mapping[str, Callable[[nn.Module], tuple[nn.Module, nn.Module]]]
    # What an explainer's `fits` refers to. "pooled": convolutional, with nothing after the default
    # cut but the mean over the map and one linear layer.
    kind: str = "convolutional"
    # Lays out activations, or their gradients, as (batch, channels, rows, columns).
    feature_maps: Callable[[Model, Tensor], Tensor] = _identity
    # Patterns in published tensor names.
    tensor_renames: tuple[tuple[str, str], ...] = ()
    # For a network that predicts every frame: (head, activations, number of frames) -> logits
    # (batch, labels, frames).
    framewise: Callable[[nn.Module, Tensor, int], Tensor] | None = None

    @property
    def default_layer(self) -> str:
        """The layer that is explained unless the request names another."""
        return next(iter(self.cuts))


ARCHITECTURES = {
    "resnet18": Architecture(
        build=timm_backbones.timm_builder("resnet18"),
        cuts={"layer4": timm_backbones.cut_resnet},
        kind="pooled",
    ),
    "resnet18-fine": Architecture(
        build=timm_backbones.fine_resnet18,
        cuts={"layer4": timm_backbones.cut_resnet},
        kind="pooled",
    ),
    "resnet50": Architecture(
        build=timm_backbones.timm_builder("resnet50"),
        cuts={"layer4": timm_backbones.cut_resnet},
        kind="pooled",
    ),
    "resnet101": Architecture(
        build=timm_backbones.timm_builder("resnet101"),
        cuts={"layer4": timm_backbones.cut_resnet},
        kind="pooled",
    ),
    "densenet121": Architecture(
        build=timm_backbones.timm_builder("densenet121"),
        cuts={"features.norm5": timm_backbones.cut_densenet},
        kind="pooled",
    ),
    # Not pooled: its head has a hidden layer.
    "densenet121-chexvision": Architecture(
        build=timm_backbones.chexvision, cuts={"features.norm5": timm_backbones.cut_chexvision}
    ),
    "efficientnet-lite0": Architecture(
        build=timm_backbones.timm_builder("efficientnet_lite0"),
        cuts={"bn2": timm_backbones.cut_efficientnet},
        kind="pooled",
    ),
    "efficientnet-lite1": Architecture(
        build=timm_backbones.timm_builder("efficientnet_lite1"),
        cuts={"bn2": timm_backbones.cut_efficientnet},
        kind="pooled",
    ),
    "efficientnet-lite2": Architecture(
        build=timm_backbones.timm_builder("efficientnet_lite2"),
        cuts={"bn2": timm_backbones.cut_efficientnet},
        kind="pooled",
    ),
    # Not pooled: their head also takes the maximum over time.
    "resnet18-lung": Architecture(
        build=timm_backbones.lung_resnet18, cuts={"layer4": timm_backbones.cut_resnet}
    ),
    "efficientnet-lite0-lung": Architecture(
        build=timm_backbones.lung_efficientnet_lite0, cuts={"bn2": timm_backbones.cut_efficientnet}
    ),
    "simplecnn": Architecture(build=simplecnn.build, cuts={"conv_block3": simplecnn.cut}),
    "cnn6": Architecture(build=panns.cnn6, cuts={"conv_block4": panns.cut_cnn6}),
    "cnn6-half": Architecture(build=panns.cnn6_half, cuts={"conv_block4": panns.cut_cnn6}),
    "cnn14": Architecture(
        build=panns.cnn14,
        cuts={
            "conv_block6.conv2": panns.cut_cnn14,
            "conv_block5": panns.cut_cnn14_finer,
        },
    ),
    "cnn14-decisionlevelmax": Architecture(
        build=panns.cnn14_framewise,
        cuts={
            "conv_block6.conv2": panns.cut_framewise,
            "conv_block5": panns.cut_framewise_finer,
        },
        framewise=panns.framewise_logits,
    ),
    "yamnet": Architecture(
        build=yamnet.build,
        cuts={yamnet.LAST_LAYER: yamnet.cut, yamnet.FINER_LAYER: yamnet.cut_finer},
        kind="pooled",
    ),
    "ast": Architecture(
        build=ast.builder(),
        cuts={ast.last_layernorm(): ast.cut},
        kind="transformer",
        feature_maps=ast.feature_maps,
        tensor_renames=ast.TENSOR_RENAMES,
    ),
    "ced-tiny": Architecture(
        build=ced.builder(),
        cuts={ced.last_layernorm(): ced.cut},
        kind="transformer",
        feature_maps=ced.feature_maps,
    ),
    # Not pooled: its head has a hidden layer.
    "efficientat-mn10": Architecture(
        build=efficientat.mn10,
        cuts={
            efficientat.LAST_LAYER: efficientat.cut,
            efficientat.FINER_LAYER: efficientat.cut_finer,
        },
    ),
}


def architecture(model: Model) -> Architecture:
    """The architecture of a model; raises UnknownNameError if there is none with that name."""
    if model.architecture not in ARCHITECTURES:
        raise UnknownNameError("architecture", model.architecture, ARCHITECTURES)
    return ARCHITECTURES[model.architecture]


def explained_layer(model: Model, layer: str | None = None) -> str:
    """The layer, or the default one for None; raises UnknownNameError if no cut is there."""
    design = architecture(model)
    if layer is not None and layer not in design.cuts:
        raise UnknownNameError(f"explained layer of {model.architecture}", layer, design.cuts)
    return layer or design.default_layer


def cut(model: Model, whole: nn.Module, layer: str | None = None) -> Cut:
    """Cut a model's network after a layer, or after the default one for None.

    Raises UnknownNameError if the network cannot be cut there.
    """
    layer = explained_layer(model, layer)
    features, head = architecture(model).cuts[layer](whole)
    # New modules start in training mode, whatever the mode of those that they are made of.
    return Cut(
        features=features.train(whole.training), head=head.train(whole.training), layer=layer
    )


def feature_maps(model: Model, activations: Tensor) -> Tensor:
    """Activations at a model's cut, or their gradients, as (batch, channels, rows, columns)."""
    return architecture(model).feature_maps(model, activations)


def tensor_name(model: Model, name: str) -> str:
    """The network's own name for a tensor that a published file calls `name`."""
    for pattern, replacement in architecture(model).tensor_renames:
        # In this order: a later pattern may match what an earlier one has left.
        name = re.sub(pattern, replacement, name)
    return name
