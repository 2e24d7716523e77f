"""The explainers: one table here, one module for each family.

An explainer receives a `Subject` (windows and a network), the indices of the labels to explain and
a `Budget`. It returns raw, non-negative attributions, (windows, targets, rows, columns), at its own
resolution; `xai_demo.analysis.heatmap` scales them to 0..1. To add one, write its function and add
a line to `EXPLAINERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from xai_demo.errors import UnknownNameError, UnsuitableError
from xai_demo.explainers import cam, gradients, perturbation
from xai_demo.explainers.base import Budget, Meter, Subject

if TYPE_CHECKING:
    from xai_demo.records import Floats

DEFAULT = "Grad-CAM++"
_ALL_KINDS = ("convolutional", "transformer")
# "pooled" networks are convolutional ones with nothing after the explained layer but the mean over
# the map and one linear layer: whatever fits a convolutional network fits them too.
_BROADER_KIND = {"pooled": "convolutional"}
# What only the whole network in torch can give.
_NEEDS_WHOLE_NETWORK = ("full gradients", "attention")


@dataclass(frozen=True, slots=True, kw_only=True)
class Explainer:
    """An explainer: its function, what that needs and costs, and which networks it fits."""

    heatmap: Callable[[Subject, Sequence[int], Budget], Floats]
    # Activations, head gradients, full gradients, forward passes or attention.
    needs: str
    source: str
    # False: the same heatmap for every label.
    per_label: bool = True
    fits: tuple[str, ...] = ("convolutional",)  # kinds of network
    # Forward passes per window by default; 0: the head's alone.
    passes: int = 0
    # False: each further label costs as much again.
    labels_share_passes: bool = True

    @property
    def needs_torch(self) -> bool:
        """Whether it needs the whole network in torch, rather than only the head."""
        return self.needs in _NEEDS_WHOLE_NETWORK

    def explain(
        self, subject: Subject, targets: Sequence[int], budget: Budget | None = None
    ) -> Floats:
        """Raw attributions (windows, targets, rows, columns), non-negative.

        Raises UnsuitableError if the network does not fit, and CancelledError.
        """
        budget = budget or Budget()
        # The function itself sees a number of passes in any case, never None.
        return self.heatmap(subject, targets, replace(budget, passes=budget.passes or self.passes))


# In the order in which the page and `explainers --json` list them.
EXPLAINERS = {
    "Grad-CAM++": Explainer(
        heatmap=cam.gradient_cam("GradCAMPlusPlus"),
        needs="head gradients",
        source="Chattopadhay et al. 2018",
        fits=_ALL_KINDS,
    ),
    "Grad-CAM": Explainer(
        heatmap=cam.gradient_cam("GradCAM"),
        needs="head gradients",
        source="Selvaraju et al. 2017",
        fits=_ALL_KINDS,
    ),
    "CAM": Explainer(
        heatmap=cam.class_weight_cam,
        needs="activations",
        source="Zhou et al. 2016",
        fits=("pooled",),
    ),
    "HiResCAM": Explainer(
        heatmap=cam.gradient_cam("HiResCAM"),
        needs="head gradients",
        source="Draelos & Carin 2020",
        fits=_ALL_KINDS,
    ),
    "XGrad-CAM": Explainer(
        heatmap=cam.gradient_cam("XGradCAM"), needs="head gradients", source="Fu et al. 2020"
    ),
    "LayerCAM": Explainer(
        heatmap=cam.gradient_cam("LayerCAM"),
        needs="head gradients",
        source="Jiang et al. 2021",
        fits=_ALL_KINDS,
    ),
    "EigenGrad-CAM": Explainer(
        heatmap=cam.eigengrad_cam,
        needs="head gradients",
        source="pytorch-grad-cam (Gildenblat et al. 2021)",
        fits=_ALL_KINDS,
    ),
    "Eigen-CAM": Explainer(
        heatmap=cam.eigen_cam,
        needs="activations",
        source="Muhammad & Yeasin 2020",
        per_label=False,
        fits=_ALL_KINDS,
    ),
    "Ablation-CAM": Explainer(
        heatmap=cam.ablation_cam, needs="activations", source="Desai & Ramaswamy 2020"
    ),
    "Score-CAM": Explainer(
        heatmap=cam.score_cam,
        needs="forward passes",
        source="Wang et al. 2020",
        fits=_ALL_KINDS,
        passes=256,
    ),
    "Occlusion": Explainer(
        heatmap=perturbation.occlusion,
        needs="forward passes",
        source="Zeiler & Fergus 2014",
        fits=_ALL_KINDS,
        # A grid of 15 x 15 cells on a square input.
        passes=225,
    ),
    "LIME": Explainer(
        heatmap=perturbation.lime,
        needs="forward passes",
        source="Ribeiro et al. 2016",
        fits=_ALL_KINDS,
        # Five for each of the 7 x 7 cells on a square input.
        passes=250,
    ),
    "SHAP": Explainer(
        heatmap=perturbation.partition_shap,
        needs="forward passes",
        source="Lundberg & Lee 2017",
        fits=_ALL_KINDS,
        passes=250,
        labels_share_passes=False,
    ),
    "SHAP gradients": Explainer(
        heatmap=perturbation.expected_gradients,
        needs="full gradients",
        source="Erion et al. 2021",
        fits=_ALL_KINDS,
        passes=64,
        labels_share_passes=False,
    ),
    "Integrated gradients": Explainer(
        heatmap=gradients.integrated_gradients,
        needs="full gradients",
        source="Sundararajan et al. 2017",
        fits=_ALL_KINDS,
        passes=64,
        labels_share_passes=False,
    ),
    "Guided backpropagation": Explainer(
        heatmap=gradients.guided_backpropagation,
        needs="full gradients",
        source="Springenberg et al. 2015",
        passes=1,
        labels_share_passes=False,
    ),
    "Attention rollout": Explainer(
        heatmap=gradients.rollout,
        needs="attention",
        source="Abnar & Zuidema 2020",
        per_label=False,
        fits=("transformer",),
        passes=1,
    ),
}


def explainer(name: str) -> Explainer:
    """The explainer of that name; raises UnknownNameError if there is none."""
    if name not in EXPLAINERS:
        raise UnknownNameError("explainer", name, EXPLAINERS)
    return EXPLAINERS[name]


def fitting_names(kind: str, *, torch: bool = True) -> tuple[str, ...]:
    """The names of the explainers that fit this kind of network, with or without torch."""
    return tuple(
        name
        for name, e in EXPLAINERS.items()
        if {kind, _BROADER_KIND.get(kind, kind)} & set(e.fits) and (torch or not e.needs_torch)
    )


def explainer_for(name: str, kind: str, *, torch: bool = True) -> Explainer:
    """The explainer of that name for this kind of network.

    Raises UnknownNameError if there is none, and UnsuitableError if it does not fit.
    """
    chosen = explainer(name)
    fit = fitting_names(kind, torch=torch)
    if name not in fit:
        # The same explainer may fit this network with torch: say which of the two is missing.
        where = "" if torch else " without torch"
        raise UnsuitableError(
            f"{name} explains {' and '.join(chosen.fits)} networks by {chosen.needs} and does not "
            f"fit a {kind} one{where}; choose from: {', '.join(fit)}."
        )
    return chosen


def default_name(kind: str, preferred: str | None = None) -> str:
    """The explainer to use if none is chosen: the model's preferred one, or Grad-CAM++ if it fits.

    `kind` is that of the model's architecture. If neither fits, it is the first one that does.
    """
    fit = fitting_names(kind)
    return next((name for name in (preferred, DEFAULT) if name in fit), fit[0])


def describe(models: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """One row for each explainer, as `explainers --json` prints it.

    `models` maps names of models to their kind of network: the row lists those that it fits.
    """
    kinds = models or {}
    return [
        {
            "name": name,
            "needs": e.needs,
            "fits": list(e.fits),
            "models": [model for model, kind in kinds.items() if name in fitting_names(kind)],
            "per_label": e.per_label,
            "forward_passes": e.passes,
            "source": e.source,
        }
        for name, e in EXPLAINERS.items()
    ]


def warm_up() -> None:
    """Import pytorch-grad-cam ahead of the first request, which would otherwise wait for it."""
    import pytorch_grad_cam  # noqa: F401


__all__ = [
    "DEFAULT",
    "EXPLAINERS",
    "Budget",
    "Explainer",
    "Meter",
    "Subject",
    "default_name",
    "describe",
    "explainer",
    "explainer_for",
    "fitting_names",
    "warm_up",
]
