"""Networks that timm makes, on one grey channel.

Residual networks (He et al. 2016) by timm, cut after the last stage.

Densely connected networks (Huang et al. 2017) by timm, cut after the last normalisation.

EfficientNet-lite (Tan & Le 2019) by timm, cut after the last convolution.

CheXVision: DenseNet-121 on a grey picture as ImageNet's three colours, with a layer before the
last (arudaev/chexvision, 2026, `densenet_transfer.py`).

Networks for short, faint sounds in breathing: two channels in, a finer map, two ways to pool.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from xai_demo.records import Model


def timm_builder(name: str) -> Callable[[Model], nn.Module]:
    """How to make timm's network of that name."""

    def make(model: Model) -> nn.Module:
        import timm

        network: nn.Module = timm.create_model(name, in_chans=1, num_classes=len(model.labels))
        return network

    return make


def fine_resnet18(model: Model) -> nn.Module:
    """ResNet-18 without the stem's pooling: half the stride, a map four times finer."""
    from torch import nn

    network = timm_builder("resnet18")(model)
    network.maxpool = nn.Identity()
    return network


def cut_resnet(network: Any) -> tuple[nn.Module, nn.Module]:
    """(stem and four stages, pooling and classifier)."""
    from torch import nn

    stages = ("conv1", "bn1", "act1", "maxpool", "layer1", "layer2", "layer3", "layer4")
    features = nn.Sequential(*(getattr(network, stage) for stage in stages))
    return features, nn.Sequential(network.global_pool, network.fc)


def cut_densenet(network: Any) -> tuple[nn.Module, nn.Module]:
    """(everything up to `features.norm5`, pooling and classifier).

    timm's `norm5` ends with the ReLU, so that the head starts behind it. torchvision applies that
    ReLU in place to the output of its own `norm5`, and so rewrites what a hook there has captured.
    """
    from torch import nn

    head = nn.Sequential(network.global_pool, network.head_drop, network.classifier)
    return network.features, head


def cut_efficientnet(network: Any) -> tuple[nn.Module, nn.Module]:
    """(up to `bn2`: the last convolution's normalisation and ReLU6; pooling and classifier)."""
    from torch import nn

    stages = ("conv_stem", "bn1", "blocks", "conv_head", "bn2")
    features = nn.Sequential(*(getattr(network, stage) for stage in stages))
    return features, nn.Sequential(network.global_pool, network.classifier)


def chexvision(model: Model) -> nn.Module:
    """The network with its head of findings alone."""
    from xai_demo.networks.timm_modules import CheXVision

    return CheXVision(len(model.labels))


def cut_chexvision(network: Any) -> tuple[nn.Module, nn.Module]:
    """(everything up to `features.norm5` and its ReLU, pooling and both layers of the head)."""
    from torch import nn

    features = nn.Sequential(network.colours, network.features)
    return features, nn.Sequential(network.pool, network.feature_layer, network.multilabel_head)


def lung_resnet18(model: Model) -> nn.Module:
    """ResNet-18 (He et al. 2016) by timm whose last stage keeps the map's size."""
    import timm
    from torch import nn

    from xai_demo.networks.timm_modules import BandContrast, MeanMaxPool

    network: Any = timm.create_model("resnet18", in_chans=2, num_classes=len(model.labels))
    network.conv1 = nn.Sequential(BandContrast(), network.conv1)
    network.layer4[0].conv1.stride = (1, 1)
    network.layer4[0].downsample[0].stride = (1, 1)
    network.global_pool = MeanMaxPool()
    network.fc = nn.Linear(2 * network.num_features, len(model.labels))
    return network  # type: ignore[no-any-return]


def lung_efficientnet_lite0(model: Model) -> nn.Module:
    """EfficientNet-lite0 (Tan & Le 2019) by timm whose last strided block keeps the map's size."""
    import timm
    from torch import nn

    from xai_demo.networks.timm_modules import BandContrast, MeanMaxPool

    network: Any = timm.create_model("efficientnet_lite0", in_chans=2, num_classes=4)
    network.conv_stem = nn.Sequential(BandContrast(), network.conv_stem)
    network.blocks[5][0].conv_dw.stride = (1, 1)
    network.global_pool = MeanMaxPool()
    network.classifier = nn.Linear(2 * network.num_features, len(model.labels))
    return network  # type: ignore[no-any-return]
