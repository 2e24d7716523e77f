"""From probabilities to an answer in one word, or to "uncertain". Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from xai_demo.records import Decision

if TYPE_CHECKING:
    from xai_demo.records import Floats, Model


def decided_index(model: Model, probabilities: Sequence[float] | Floats) -> int:
    """The label furthest above its operating point; without these, the most probable one."""
    ratios = [
        p / max(model.operating_points.get(label, 0.5), 1e-6)
        for label, p in zip(model.labels, probabilities, strict=True)
    ]
    return max(range(len(ratios)), key=ratios.__getitem__)


def over_windows(model: Model, probabilities: Floats) -> Floats:
    """Probabilities of a recording from those of its windows, (windows, labels) -> (labels,).

    With a normal label: the mean over the third of the windows that look least normal, since one
    crackle makes a breath abnormal. Independent labels: the maximum. Otherwise the mean.
    """
    import numpy as np

    if model.activation == "sigmoid":
        result: Floats = probabilities.max(axis=0)
        return result
    if model.normal_label is not None:
        normality = probabilities[:, model.labels.index(model.normal_label)]
        few = -(-len(probabilities) // 3)
        probabilities = probabilities[np.argsort(normality, kind="stable")[:few]]
    mean: Floats = probabilities.mean(axis=0)
    return mean


def decision(model: Model, probabilities: Sequence[float] | Floats) -> Decision:
    """The answer; its label is None where it is too close to call by what validation showed."""
    index = decided_index(model, probabilities)
    label, p = model.labels[index], float(probabilities[index])
    point = model.operating_points.get(label)
    if model.uncertain_margin is not None and point is not None:
        if abs(p - point) < model.uncertain_margin:
            return Decision(
                label=None,
                probability=p,
                reason=f"{label} has probability {p:.2f}, less than {model.uncertain_margin:.2f} "
                f"from its operating point {point:.2f}: too close to call.",
            )
        return Decision(
            label=label, probability=p, reason=f"Above its operating point of {point:.2f}."
        )
    if model.uncertain_below is not None and p < model.uncertain_below:
        return Decision(
            label=None,
            probability=p,
            reason=f"The most probable label, {label}, has probability {p:.2f}; this model answers "
            f"from {model.uncertain_below:.2f} on.",
        )
    return Decision(label=label, probability=p, reason="The most probable label.")
