"""A network of a few hundred parameters, with dropout, for tests that train or time one."""

from torch import Tensor, nn

from xai_demo.networks import Architecture
from xai_demo.records import Model

LAYER = "features.5"


class Tiny(nn.Module):
    """(batch, 1, rows, columns) -> (batch, labels)."""

    def __init__(self, n_labels: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=4),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, stride=2),
            nn.BatchNorm2d(8),
            nn.ReLU(),
        )
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(8, n_labels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


def build_tiny(model: Model) -> nn.Module:
    return Tiny(len(model.labels))


def cut(network: nn.Module) -> tuple[nn.Module, nn.Module]:
    return network.get_submodule("features"), network.get_submodule("head")


TINY = Architecture(build=build_tiny, cuts={LAYER: cut})
