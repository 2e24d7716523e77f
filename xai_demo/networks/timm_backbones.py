"""Networks built by timm, on one grey channel, and where they are cut.

Residual networks (He et al. 2016) are cut after the last stage, densely connected ones (Huang et
al. 2017) after the last normalisation, EfficientNet-lite (Tan & Le 2019) after the last
convolution. CheXVision is a DenseNet-121 with its own input and head (arudaev/chexvision, 2026,
`densenet_transfer.py`). The `lung_` networks are changed for crackles and wheezes, which are short
and faint: two input channels, a finer map and two kinds of pooling.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from xai_demo.records import Model


def timm_builder(name: str) -> Callable[[Model], nn.Module]:
    """A function that builds timm's network of that name."""

    def build(model: Model) -> nn.Module:
        import timm

        network: nn.Module = timm.create_model(name, in_chans=1, num_classes=len(model.labels))
        return network

    return build


def fine_resnet18(model: Model) -> nn.Module:
    """ResNet-18 without the stem's pooling: half the stride, so a map with four times the cells."""
    from torch import nn

    network = timm_builder("resnet18")(model)
    network.maxpool = nn.Identity()
    return network


def chexvision(model: Model) -> nn.Module:
    """CheXVision with its multi-label head alone; the published one has a binary head as well."""
    from xai_demo.networks.timm_modules import CheXVision

    return CheXVision(len(model.labels))


def lung_resnet18(model: Model) -> nn.Module:
    """ResNet-18 whose last stage keeps the map's size."""
    import timm
    from torch import nn

    from xai_demo.networks.timm_modules import BandContrast, MeanMaxPool

    network: Any = timm.create_model("resnet18", in_chans=2, num_classes=len(model.labels))
    # Under the name of the convolution, so that the cut by names need not know of it.
    network.conv1 = nn.Sequential(BandContrast(), network.conv1)
    # Stride 1 instead of 2: a crackle would otherwise share its cell with too much else.
    network.layer4[0].conv1.stride = (1, 1)
    # The shortcut must have the stride of the path that it is added to.
    network.layer4[0].downsample[0].stride = (1, 1)
    network.global_pool = MeanMaxPool()
    # The mean and the maximum of each channel.
    network.fc = nn.Linear(2 * network.num_features, len(model.labels))
    return network  # type: ignore[no-any-return]


def lung_efficientnet_lite0(model: Model) -> nn.Module:
    """EfficientNet-lite0 whose last strided block keeps the map's size."""
    import timm
    from torch import nn

    from xai_demo.networks.timm_modules import BandContrast, MeanMaxPool

    # The classifier is replaced below, so its number of classes does not matter.
    network: Any = timm.create_model("efficientnet_lite0", in_chans=2, num_classes=4)
    network.conv_stem = nn.Sequential(BandContrast(), network.conv_stem)
    # Stage 5 is the last with stride 2; the depthwise convolution carries it.
    network.blocks[5][0].conv_dw.stride = (1, 1)
    network.global_pool = MeanMaxPool()
    network.classifier = nn.Linear(2 * network.num_features, len(model.labels))
    return network  # type: ignore[no-any-return]


def cut_resnet(network: Any) -> tuple[nn.Module, nn.Module]:
    """Cut into (stem and four stages, pooling and classifier)."""
    from torch import nn

    # The same modules, so that both halves share the whole network's parameters.
    stages = ("conv1", "bn1", "act1", "maxpool", "layer1", "layer2", "layer3", "layer4")
    features = nn.Sequential(*(getattr(network, stage) for stage in stages))
    # Without timm's dropout before the classifier, which does nothing in evaluation mode.
    return features, nn.Sequential(network.global_pool, network.fc)


def cut_densenet(network: Any) -> tuple[nn.Module, nn.Module]:
    """Cut into (everything up to `features.norm5`, pooling and classifier)."""
    from torch import nn

    # timm's `norm5` includes the last ReLU. torchvision's does not, and applies the ReLU in place
    # to its output, which overwrites what a hook there has captured.
    head = nn.Sequential(network.global_pool, network.head_drop, network.classifier)
    return network.features, head


def cut_efficientnet(network: Any) -> tuple[nn.Module, nn.Module]:
    """Cut after `bn2`, the last convolution's normalisation and ReLU6."""
    from torch import nn

    # timm's `bn1` and `bn2` include the activation, so nothing is left out between the stages.
    stages = ("conv_stem", "bn1", "blocks", "conv_head", "bn2")
    features = nn.Sequential(*(getattr(network, stage) for stage in stages))
    return features, nn.Sequential(network.global_pool, network.classifier)


def cut_chexvision(network: Any) -> tuple[nn.Module, nn.Module]:
    """Cut into (everything up to `features.norm5`, pooling and both layers of the head)."""
    from torch import nn

    features = nn.Sequential(network.colours, network.features)
    return features, nn.Sequential(network.pool, network.feature_layer, network.multilabel_head)
