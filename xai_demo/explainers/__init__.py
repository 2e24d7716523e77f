"""The explainers: one table, one file a family. They see windows and a network, nothing else.

An explainer is handed a `Subject`, the places of the labels to explain, and a `Budget`. It returns
raw, non-negative heat per window and target, (windows, targets, rows, columns), at a resolution of
its own and not yet scaled; `xai_demo.analysis.heatmap` makes 0..1 of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from xai_demo.errors import UnknownNameError, UnsuitableError
from xai_demo.explainers import (
    attention,
    cam,
    gradients,
    perturbation,
)
from xai_demo.explainers.base import Budget, Meter, Subject

if TYPE_CHECKING:
    from xai_demo.records import Floats

DEFAULT = "Grad-CAM++"
_ALL_KINDS = ("convolutional", "transformer")
# A network whose kind is also another: "pooled" ones are convolutional, and all that comes after
# the explained layer is the mean over the map and one linear layer.
_BROADER_KIND = {"pooled": "convolutional"}
_NEEDS_WHOLE_NETWORK = (
    "full gradients",
    "attention",
)  # what only the whole network in torch can give


@dataclass(frozen=True, slots=True, kw_only=True)
class Explainer:
    """One way to explain: what it needs and costs, and whether it tells one label from another."""

    run: Callable[[Subject, Sequence[int], Budget], Floats]
    needs: str  # activations, head gradients, full gradients, forward passes or attention
    source: str
    per_label: bool = True
    fits: tuple[str, ...] = ("convolutional",)  # kinds of network
    passes: int = 0  # forward passes per window where nobody says otherwise; 0: next to nothing
    together: bool = True  # all labels cost what one costs; False: each costs as much again

    @property
    def needs_torch(self) -> bool:
        """Whether it needs the whole network in torch, and not only its cut head."""
        return self.needs in _NEEDS_WHOLE_NETWORK

    def heat(
        self, subject: Subject, targets: Sequence[int], budget: Budget | None = None
    ) -> Floats:
        """Raw heat (windows, targets, rows, columns). Raises UnsuitableError and CancelledError."""
        limits = budget or Budget()
        return self.run(subject, targets, replace(limits, passes=limits.passes or self.passes))


EXPLAINERS = {
    "Grad-CAM++": Explainer(
        run=cam.gradient_cam("GradCAMPlusPlus"),
        needs="head gradients",
        source="Chattopadhay et al. 2018",
        fits=_ALL_KINDS,
    ),
    "Grad-CAM": Explainer(
        run=cam.gradient_cam("GradCAM"),
        needs="head gradients",
        source="Selvaraju et al. 2017",
        fits=_ALL_KINDS,
    ),
    "CAM": Explainer(
        run=cam.class_weight_cam, needs="activations", source="Zhou et al. 2016", fits=("pooled",)
    ),
    "HiResCAM": Explainer(
        run=cam.gradient_cam("HiResCAM"),
        needs="head gradients",
        source="Draelos & Carin 2020",
        fits=_ALL_KINDS,
    ),
    "XGrad-CAM": Explainer(
        run=cam.gradient_cam("XGradCAM"), needs="head gradients", source="Fu et al. 2020"
    ),
    "LayerCAM": Explainer(
        run=cam.gradient_cam("LayerCAM"),
        needs="head gradients",
        source="Jiang et al. 2021",
        fits=_ALL_KINDS,
    ),
    "EigenGrad-CAM": Explainer(
        run=cam.eigengrad_cam,
        needs="head gradients",
        source="pytorch-grad-cam (Gildenblat et al. 2021)",
        fits=_ALL_KINDS,
    ),
    "Eigen-CAM": Explainer(
        run=cam.eigen_cam,
        needs="activations",
        source="Muhammad & Yeasin 2020",
        per_label=False,
        fits=_ALL_KINDS,
    ),
    "Ablation-CAM": Explainer(
        run=cam.ablation_cam, needs="activations", source="Desai & Ramaswamy 2020"
    ),
    "Score-CAM": Explainer(
        run=cam.score_cam,
        needs="forward passes",
        source="Wang et al. 2020",
        fits=_ALL_KINDS,
        passes=256,
    ),
    "Occlusion": Explainer(
        run=perturbation.occlusion,
        needs="forward passes",
        source="Zeiler & Fergus 2014",
        fits=_ALL_KINDS,
        passes=225,
    ),
    "LIME": Explainer(
        run=perturbation.lime,
        needs="forward passes",
        source="Ribeiro et al. 2016",
        fits=_ALL_KINDS,
        passes=250,
    ),
    "SHAP": Explainer(
        run=perturbation.partition_shap,
        needs="forward passes",
        source="Lundberg & Lee 2017",
        fits=_ALL_KINDS,
        passes=250,
        together=False,
    ),
    "SHAP gradients": Explainer(
        run=perturbation.expected_gradients,
        needs="full gradients",
        source="Erion et al. 2021",
        fits=_ALL_KINDS,
        passes=64,
        together=False,
    ),
    "Integrated gradients": Explainer(
        run=gradients.integrated_gradients,
        needs="full gradients",
        source="Sundararajan et al. 2017",
        fits=_ALL_KINDS,
        passes=64,
        together=False,
    ),
    "Guided backpropagation": Explainer(
        run=gradients.guided_backpropagation,
        needs="full gradients",
        source="Springenberg et al. 2015",
        passes=1,
        together=False,
    ),
    "Attention rollout": Explainer(
        run=attention.rollout,
        needs="attention",
        source="Abnar & Zuidema 2020",
        per_label=False,
        fits=("transformer",),
        passes=1,
    ),
}


def explainer(name: str) -> Explainer:
    """The explainer of that name; raises UnknownNameError."""
    if name not in EXPLAINERS:
        raise UnknownNameError("explainer", name, EXPLAINERS)
    return EXPLAINERS[name]


def fitting_names(kind: str, *, torch: bool = True) -> tuple[str, ...]:
    """Names of the explainers that fit this kind of network, on torch or without it."""
    return tuple(
        name
        for name, e in EXPLAINERS.items()
        if {kind, _BROADER_KIND.get(kind, kind)} & set(e.fits) and (torch or not e.needs_torch)
    )


def explainer_for(name: str, kind: str, *, torch: bool = True) -> Explainer:
    """The explainer of that name, if it fits. Raises UnknownNameError, UnsuitableError."""
    chosen = explainer(name)
    fit = fitting_names(kind, torch=torch)
    if name not in fit:
        where = "" if torch else " without torch"
        raise UnsuitableError(
            f"{name} explains {' and '.join(chosen.fits)} networks by {chosen.needs} and does not "
            f"fit a {kind} one{where}, wanted: one of {', '.join(fit)}."
        )
    return chosen


def default_name(kind: str, wanted: str | None = None) -> str:
    """The explainer of whoever names none: a model's own, else the default, else the first to fit.

    `kind` is that of the model's architecture.
    """
    fit = fitting_names(kind)
    return next((name for name in (wanted, DEFAULT) if name in fit), fit[0])


def describe(models: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """One row per explainer: name, what it needs and costs, which kinds of network it fits.

    `models` are names of models with the kind of network of each; those that it fits are named.
    """
    known = models or {}
    return [
        {
            "name": name,
            "needs": e.needs,
            "fits": list(e.fits),
            "models": [model for model, kind in known.items() if name in fitting_names(kind)],
            "per_label": e.per_label,
            "forward_passes": e.passes,
            "source": e.source,
        }
        for name, e in EXPLAINERS.items()
    ]


def warm_up() -> None:
    """Import the library behind the maps before somebody waits for it."""
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
