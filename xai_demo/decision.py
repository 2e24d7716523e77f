"""From probabilities to an answer in one word, or to "uncertain". Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from xai_demo.records import Decision

if TYPE_CHECKING:
    from xai_demo.records import Floats, Model


def points(model: Model, *, pooled: bool = False) -> Mapping[str, float]:
    """The operating points; of answers pooled over several windows where it has its own."""
    return model.recording_points if pooled and model.recording_points else model.operating_points


def rescaled(model: Model, probabilities: Floats) -> Floats:
    """Probabilities (batch, labels) with each point of `model.rescaled_at` moved to 0.5.

    Linear on both sides of the point t: p / 2t below it, 1 - (1 - p) / 2(1 - t) above; Cohen et al.
    2022, torchxrayvision's `op_norm`.
    """
    import numpy as np

    if not model.rescaled_at:
        return probabilities
    t = np.array([model.rescaled_at.get(label, 0.5) for label in model.labels], np.float32)
    below, above = probabilities / (2 * t), 1 - (1 - probabilities) / (2 - 2 * t)
    moved = np.where(probabilities < t, below, above)
    result: Floats = moved.astype(np.float32)
    return result


def standing(
    model: Model, probabilities: Sequence[float] | Floats, *, pooled: bool = False
) -> list[float]:
    """How each label stands against its operating point: p / point, scaled to add up to one."""
    of = points(model, pooled=pooled)
    ratios = [
        float(p) / max(of.get(label, 0.5), 1e-6)
        for label, p in zip(model.labels, probabilities, strict=True)
    ]
    total = sum(ratios) or 1.0
    return [ratio / total for ratio in ratios]


def decided_index(
    model: Model, probabilities: Sequence[float] | Floats, *, pooled: bool = False
) -> int:
    """The label furthest above its operating point; without points, the most probable one."""
    ratios = standing(model, probabilities, pooled=pooled)
    return max(range(len(ratios)), key=ratios.__getitem__)


def over_windows(model: Model, probabilities: Floats) -> Floats:
    """Probabilities of a recording from those of its windows, (windows, labels) -> (labels,).

    Independent labels: the maximum. Others: the mean (a linear opinion pool), which told normal
    from abnormal lung recordings best on validation.
    """
    if model.activation == "sigmoid":
        result: Floats = probabilities.max(axis=0)
        return result
    mean: Floats = probabilities.mean(axis=0)
    return mean


def findings(
    model: Model, probabilities: Sequence[float] | Floats, *, pooled: bool = False
) -> tuple[int, ...]:
    """Of independent labels those at or above their operating points, the furthest above first."""
    of = points(model, pooled=pooled)
    if model.activation != "sigmoid" or not of:
        return ()
    ratios = standing(model, probabilities, pooled=pooled)
    found = [k for k, label in enumerate(model.labels) if label in of]
    found = [k for k in found if float(probabilities[k]) >= of[model.labels[k]]]
    return tuple(sorted(found, key=lambda k: -ratios[k]))


def decision(
    model: Model, probabilities: Sequence[float] | Floats, *, pooled: bool = False
) -> Decision:
    """The answer; its label is None where validation showed the lead to be too small to call.

    `pooled`: the probabilities are those of several windows together.
    """
    of = points(model, pooled=pooled)
    if model.activation == "sigmoid" and of:
        return _of_findings(model, probabilities, pooled=pooled)
    margin = model.recording_margin if of is model.recording_points else model.uncertain_margin
    ratios = standing(model, probabilities, pooled=pooled)
    first, second = sorted(range(len(ratios)), key=lambda k: -ratios[k])[:2]
    label, p = model.labels[first], float(probabilities[first])
    lead = ratios[first] - ratios[second]
    if margin is not None and lead < margin:
        other = f"{model.labels[second]} ({float(probabilities[second]):.2f})"
        weighed = "; each is weighed against its operating point" if of else ""
        return Decision(
            label=None,
            probability=p,
            kind="uncertain",
            reason=f"{label} ({p:.2f}) and {other} are too close to call{weighed}.",
        )
    if model.uncertain_below is not None and p < model.uncertain_below:
        return Decision(
            label=None,
            probability=p,
            kind="uncertain",
            reason=f"The most probable label, {label}, has probability {p:.2f}; this model answers "
            f"from {model.uncertain_below:.2f} on.",
        )
    point = of.get(label)
    if point is None:
        return Decision(label=label, probability=p, reason="The most probable label.")
    return Decision(
        label=label,
        probability=p,
        reason=f"Furthest above its operating point, which is {point:.2f}.",
    )


def _of_findings(
    model: Model, probabilities: Sequence[float] | Floats, *, pooled: bool
) -> Decision:
    """Independent labels: any number of them is found, or none."""
    of = points(model, pooled=pooled)
    first = decided_index(model, probabilities, pooled=pooled)
    label, p = model.labels[first], float(probabilities[first])
    found = findings(model, probabilities, pooled=pooled)
    if not found:
        return Decision(
            label=None,
            probability=p,
            kind="nothing found",
            reason=f"None of the {len(model.labels)} labels reaches its operating point; the "
            f"nearest is {label} at {p:.2f}, whose point is {of.get(label, 0.5):.2f}.",
        )
    count = f"{len(found)} of {len(model.labels)} labels reach their operating points"
    return Decision(
        label=label,
        probability=p,
        reason=f"{count}; {label} is furthest above its own, which is {of.get(label, 0.5):.2f}.",
        findings=tuple(model.labels[k] for k in found),
    )
