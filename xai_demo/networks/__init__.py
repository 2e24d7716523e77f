"""The architectures, one file a family, and where each is cut in two.

`features` is everything up to and including the explained layer, `head` everything after it, so
that `head(features(x))` is the whole network. Inputs are (batch, 1, rows, columns): picture rows
from the top, or mel bands from the lowest. Activations are (batch, channels, rows, columns) in the
same order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xai_demo.errors import UnknownNameError
from xai_demo.networks import densenet, efficientnet, made_by_timm, panns, resnet, simplecnn

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
    """How to make the whole network for a model, untrained, and where it can be cut."""

    whole: Callable[[Model], nn.Module]
    cuts: Mapping[str, Callable[[nn.Module], tuple[nn.Module, nn.Module]]]  # the usual one first
    kind: str = "convolutional"  # what an explainer's `fits` refers to

    @property
    def layer(self) -> str:
        """The layer that is explained unless another is asked for."""
        return next(iter(self.cuts))


ARCHITECTURES = {
    "resnet18": Architecture(whole=made_by_timm.whole("resnet18"), cuts={"layer4": resnet.cut}),
    "resnet18-fine": Architecture(whole=resnet.fine_resnet18, cuts={"layer4": resnet.cut}),
    "resnet50": Architecture(whole=made_by_timm.whole("resnet50"), cuts={"layer4": resnet.cut}),
    "resnet101": Architecture(whole=made_by_timm.whole("resnet101"), cuts={"layer4": resnet.cut}),
    "densenet121": Architecture(
        whole=made_by_timm.whole("densenet121"), cuts={"features.norm5": densenet.cut}
    ),
    "efficientnet-lite0": Architecture(
        whole=made_by_timm.whole("efficientnet_lite0"), cuts={"bn2": efficientnet.cut}
    ),
    "simplecnn": Architecture(whole=simplecnn.whole, cuts={"conv_block3": simplecnn.cut}),
    "cnn6": Architecture(whole=panns.cnn6, cuts={"conv_block4": panns.cut_cnn6}),
    "cnn14": Architecture(
        whole=panns.cnn14,
        cuts={
            "conv_block6.conv2": panns.cut_cnn14,
            "conv_block5": panns.cut_cnn14_finer,
        },
    ),
}


def architecture(model: Model) -> Architecture:
    """The architecture of a model; raises UnknownNameError if there is none of that name."""
    if model.architecture not in ARCHITECTURES:
        raise UnknownNameError("architecture", model.architecture, ARCHITECTURES)
    return ARCHITECTURES[model.architecture]


def explained_layer(model: Model, layer: str | None = None) -> str:
    """The layer asked for, or the usual one; raises UnknownNameError where no cut is known."""
    kind = architecture(model)
    if layer is not None and layer not in kind.cuts:
        raise UnknownNameError(f"explained layer of {model.architecture}", layer, kind.cuts)
    return layer or kind.layer


def cut(model: Model, whole: nn.Module, layer: str | None = None) -> Cut:
    """The network of a model, cut after a layer or the usual one; raises UnknownNameError."""
    layer = explained_layer(model, layer)
    features, head = architecture(model).cuts[layer](whole)
    return Cut(
        features=features.train(whole.training), head=head.train(whole.training), layer=layer
    )
