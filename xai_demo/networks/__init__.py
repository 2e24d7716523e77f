"""The architectures, one file a family, and where each is cut in two.

`features` is everything up to and including the explained layer, `head` everything after it, so that
`head(features(x))` is the whole network. Inputs are (batch, 1, rows, columns): picture rows from the
top, or mel bands from the lowest. Activations are (batch, channels, rows, columns) in the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xai_demo.errors import UnknownNameError
from xai_demo.networks import panns, resnet

if TYPE_CHECKING:
    from torch import nn

    from xai_demo.records import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A network in two parts; `layer` names the last layer of `features`."""

    features: nn.Module
    head: nn.Module
    layer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """How to make the whole network for a model, untrained, and how to cut it."""

    whole: Callable[[Model], nn.Module]
    cut: Callable[[nn.Module], tuple[nn.Module, nn.Module]]
    layer: str


ARCHITECTURES = {
    "resnet18": Architecture(whole=resnet.whole("resnet18"), cut=resnet.cut, layer="layer4"),
    "resnet18-fine": Architecture(
        whole=resnet.whole("resnet18", fine=True), cut=resnet.cut, layer="layer4"
    ),
    "resnet50": Architecture(whole=resnet.whole("resnet50"), cut=resnet.cut, layer="layer4"),
    "cnn6": Architecture(whole=panns.cnn6, cut=panns.cut_cnn6, layer="conv_block4"),
    "cnn14": Architecture(whole=panns.cnn14, cut=panns.cut_cnn14, layer="conv_block6.conv2"),
}


def architecture(model: Model) -> Architecture:
    """The architecture of a model; raises UnknownNameError if there is none of that name."""
    if model.architecture not in ARCHITECTURES:
        raise UnknownNameError("architecture", model.architecture, ARCHITECTURES)
    return ARCHITECTURES[model.architecture]


def cut(model: Model, whole: nn.Module) -> Cut:
    """The network of a model, cut at the layer that is explained."""
    kind = architecture(model)
    features, head = kind.cut(whole)
    return Cut(
        features=features.train(whole.training), head=head.train(whole.training), layer=kind.layer
    )
