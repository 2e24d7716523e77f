"""From probabilities to an answer in one word, or to "uncertain". Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from xai_demo.records import Decision

if TYPE_CHECKING:
    from xai_demo.records import Floats, Model


def standing(model: Model, probabilities: Sequence[float] | Floats) -> list[float]:
    """How each label stands against its operating point: p / point, scaled to add up to one."""
    ratios = [
        float(p) / max(model.operating_points.get(label, 0.5), 1e-6)
        for label, p in zip(model.labels, probabilities, strict=True)
    ]
    total = sum(ratios) or 1.0
    return [ratio / total for ratio in ratios]


def decided_index(model: Model, probabilities: Sequence[float] | Floats) -> int:
    """The label furthest above its operating point; without points, the most probable one."""
    ratios = standing(model, probabilities)
    return max(range(len(ratios)), key=ratios.__getitem__)


def over_windows(model: Model, probabilities: Floats) -> Floats:
    """Probabilities of a recording from those of its windows, (windows, labels) -> (labels,).

    Independent labels: the maximum. With a normal label: the geometric mean, scaled to add up to
    one (a logarithmic opinion pool, Genest & Zidek 1986), which told normal from abnormal
    recordings best on validation. Otherwise the mean.
    """
    import numpy as np

    if model.activation == "sigmoid":
        result: Floats = probabilities.max(axis=0)
        return result
    if model.normal_label is None:
        mean: Floats = probabilities.mean(axis=0)
        return mean
    pooled = np.exp(np.log(np.maximum(probabilities, 1e-6)).mean(axis=0))
    shares: Floats = pooled / pooled.sum()
    return shares


def decision(model: Model, probabilities: Sequence[float] | Floats) -> Decision:
    """The answer; its label is None where validation showed the lead to be too small to call."""
    ratios = standing(model, probabilities)
    first, second = sorted(range(len(ratios)), key=lambda k: -ratios[k])[:2]
    label, p = model.labels[first], float(probabilities[first])
    lead = ratios[first] - ratios[second]
    if model.uncertain_margin is not None and lead < model.uncertain_margin:
        other = f"{model.labels[second]} ({float(probabilities[second]):.2f})"
        points = "; each is weighed against its operating point" if model.operating_points else ""
        return Decision(
            label=None,
            probability=p,
            reason=f"{label} ({p:.2f}) and {other} are too close to call{points}.",
        )
    if model.uncertain_below is not None and p < model.uncertain_below:
        return Decision(
            label=None,
            probability=p,
            reason=f"The most probable label, {label}, has probability {p:.2f}; this model answers "
            f"from {model.uncertain_below:.2f} on.",
        )
    point = model.operating_points.get(label)
    if point is None:
        return Decision(label=label, probability=p, reason="The most probable label.")
    return Decision(
        label=label,
        probability=p,
        reason=f"Furthest above its operating point, which is {point:.2f}.",
    )
