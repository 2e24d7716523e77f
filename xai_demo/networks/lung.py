"""Networks for short, faint sounds in breathing: two channels in, a finer map, two ways to pool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from xai_demo.records import Model


def resnet18(model: Model) -> nn.Module:
    """ResNet-18 (He et al. 2016) by timm whose last stage keeps the map's size."""
    import timm
    from torch import nn

    from xai_demo.networks.lung_modules import Contrast, MeanAndMost

    network: Any = timm.create_model("resnet18", in_chans=2, num_classes=len(model.labels))
    network.conv1 = nn.Sequential(Contrast(), network.conv1)
    network.layer4[0].conv1.stride = (1, 1)
    network.layer4[0].downsample[0].stride = (1, 1)
    network.global_pool = MeanAndMost()
    network.fc = nn.Linear(2 * network.num_features, len(model.labels))
    return network  # type: ignore[no-any-return]


def efficientnet_lite0(model: Model) -> nn.Module:
    """EfficientNet-lite0 (Tan & Le 2019) by timm whose last strided block keeps the map's size."""
    import timm
    from torch import nn

    from xai_demo.networks.lung_modules import Contrast, MeanAndMost

    network: Any = timm.create_model("efficientnet_lite0", in_chans=2, num_classes=4)
    network.conv_stem = nn.Sequential(Contrast(), network.conv_stem)
    network.blocks[5][0].conv_dw.stride = (1, 1)
    network.global_pool = MeanAndMost()
    network.classifier = nn.Linear(2 * network.num_features, len(model.labels))
    return network  # type: ignore[no-any-return]
