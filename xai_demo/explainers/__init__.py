"""The explainers: one table, one file a family. They see activations and a head, nothing else.

An explainer returns raw, non-negative heat per sample and target, (samples, targets, rows, columns),
not yet scaled; `xai_demo.heat` makes 0..1 of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xai_demo.errors import UnknownNameError
from xai_demo.explainers import cam

if TYPE_CHECKING:
    from torch import Tensor, nn

    from xai_demo.records import Floats

DEFAULT = "Grad-CAM++"


@dataclass(frozen=True, slots=True, kw_only=True)
class Explainer:
    """One way to explain: what it needs, and whether it tells one label from another."""

    heat: Callable[[Tensor, nn.Module, Sequence[int]], Floats]
    needs: str  # activations, head gradients, full gradients, forward passes or attention
    source: str
    per_label: bool = True
    fits: tuple[str, ...] = ("convolutional",)  # kinds of network


EXPLAINERS = {
    "Grad-CAM++": Explainer(
        heat=cam.by_gradient("GradCAMPlusPlus"),
        needs="head gradients",
        source="Chattopadhay et al. 2018",
    ),
    "Grad-CAM": Explainer(
        heat=cam.by_gradient("GradCAM"), needs="head gradients", source="Selvaraju et al. 2017"
    ),
    "HiResCAM": Explainer(
        heat=cam.by_gradient("HiResCAM"), needs="head gradients", source="Draelos & Carin 2020"
    ),
    "XGrad-CAM": Explainer(
        heat=cam.by_gradient("XGradCAM"), needs="head gradients", source="Fu et al. 2020"
    ),
    "LayerCAM": Explainer(
        heat=cam.by_gradient("LayerCAM"), needs="head gradients", source="Jiang et al. 2021"
    ),
    "EigenGrad-CAM": Explainer(
        heat=cam.by_gradient("EigenGradCAM"),
        needs="head gradients",
        source="pytorch-grad-cam (Gildenblat et al. 2021)",
    ),
    "Eigen-CAM": Explainer(
        heat=cam.by_activation("EigenCAM"),
        needs="activations",
        source="Muhammad & Yeasin 2020",
        per_label=False,
    ),
    "Ablation-CAM": Explainer(
        heat=cam.by_ablation, needs="activations", source="Desai & Ramaswamy 2020"
    ),
}


def explainer(name: str) -> Explainer:
    """The explainer of that name; raises UnknownNameError."""
    if name not in EXPLAINERS:
        raise UnknownNameError("explainer", name, EXPLAINERS)
    return EXPLAINERS[name]


def describe() -> list[dict[str, Any]]:
    """One row per explainer: name, what it needs, which kinds of network it fits."""
    return [
        {
            "name": name,
            "needs": e.needs,
            "fits": list(e.fits),
            "per_label": e.per_label,
            "source": e.source,
        }
        for name, e in EXPLAINERS.items()
    ]


def warm_up() -> None:
    """Import the library behind the maps before somebody waits for it."""
    import pytorch_grad_cam  # noqa: F401
