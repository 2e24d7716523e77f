"""From probabilities to an answer in one word, or to "uncertain". Pure.

`decide` compares the probabilities with the model's operating points, which were chosen on
validation, and answers with a label, with findings or with "uncertain".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo.records import Decision

if TYPE_CHECKING:
    from xai_demo.records import Floats, Model


def operating_points(model: Model, *, pooled: bool = False) -> Mapping[str, float]:
    """The operating points of a model; for pooled windows, those of recordings if it has any."""
    return model.recording_points if pooled and model.recording_points else model.operating_points


def rescale_to_operating_points(model: Model, probabilities: Floats) -> Floats:
    """Probabilities, (batch, labels), with each point of `model.rescaled_at` moved to 0.5.

    Linear on both sides of the point t: p / 2t below it, 1 - (1 - p) / 2(1 - t) above it. This is
    `op_norm` of torchxrayvision (Cohen et al. 2022).
    """
    if not model.rescaled_at:
        return probabilities
    # A label without a point stays as it is: 0.5 is mapped to itself.
    t = np.array([model.rescaled_at.get(label, 0.5) for label in model.labels], np.float32)
    below, above = probabilities / (2 * t), 1 - (1 - probabilities) / (2 - 2 * t)
    rescaled = np.where(probabilities < t, below, above)
    result: Floats = rescaled.astype(np.float32)
    return result


def operating_point_ratios(
    model: Model, probabilities: Sequence[float] | Floats, *, pooled: bool = False
) -> list[float]:
    """Each label's probability divided by its operating point, normalised to a sum of 1.

    Labels without an operating point are divided by 0.5.
    """
    # Ratios, because 0.2 can be much for a rare label and little for a frequent one.
    thresholds = operating_points(model, pooled=pooled)
    ratios = [
        # A point of zero would divide by zero.
        float(p) / max(thresholds.get(label, 0.5), 1e-6)
        for label, p in zip(model.labels, probabilities, strict=True)
    ]
    # All probabilities can be 0 where float32 underflows.
    total = sum(ratios) or 1.0
    return [ratio / total for ratio in ratios]


def decided_label_index(
    model: Model, probabilities: Sequence[float] | Floats, *, pooled: bool = False
) -> int:
    """The index of the label furthest above its operating point.

    For a model without operating points, that is the most probable label.
    """
    ratios = operating_point_ratios(model, probabilities, pooled=pooled)
    return max(range(len(ratios)), key=ratios.__getitem__)


def pool_windows(model: Model, probabilities: Floats) -> Floats:
    """Probabilities of a recording from those of its windows, (windows, labels) -> (labels,).

    The maximum for independent labels, of means over `model.averaged_windows` windows in a row;
    otherwise the mean (a linear opinion pool), which separated normal from abnormal lung recordings
    best on validation.
    """
    if model.activation == "sigmoid":
        count = min(model.averaged_windows, len(probabilities))
        result: Floats = _rolling_means(probabilities, count).max(axis=0)
        return result
    mean: Floats = probabilities.mean(axis=0)
    return mean


def any_label(probabilities: Any) -> Any:
    """The probability that any label is present, as if they were independent: 1 - prod(1 - p).

    Of one sample or of many: (..., labels) -> (...).

    >>> float(any_label([0.5, 0.5, 0.0]))
    0.75
    """
    return 1 - np.prod(1 - np.asarray(probabilities, np.float64), axis=-1)


def _rolling_means(rows: Floats, count: int) -> Floats:
    """The mean of every `count` rows in a row: (rows, labels) -> (rows - count + 1, labels)."""
    if count == 1:
        return rows
    # In float64: sums over an hour would lose the last digits.
    sums = np.cumsum(np.pad(rows, ((1, 0), (0, 0))), axis=0, dtype=np.float64)
    means: Floats = ((sums[count:] - sums[:-count]) / count).astype(np.float32)
    return means


def findings(
    model: Model, probabilities: Sequence[float] | Floats, *, pooled: bool = False
) -> tuple[int, ...]:
    """The independent labels at or above their operating points, the furthest above first.

    None where `model.any_label_point` is not reached.
    """
    thresholds = operating_points(model, pooled=pooled)
    if model.activation != "sigmoid" or not thresholds or not _has_any_label(model, probabilities):
        return ()
    ratios = operating_point_ratios(model, probabilities, pooled=pooled)
    # A label without a point has no threshold to reach, so it is never a finding.
    with_points = [k for k, label in enumerate(model.labels) if label in thresholds]
    present = [k for k in with_points if float(probabilities[k]) >= thresholds[model.labels[k]]]
    return tuple(sorted(present, key=lambda k: -ratios[k]))


def _has_any_label(model: Model, probabilities: Sequence[float] | Floats) -> bool:
    point = model.any_label_point
    return point is None or bool(any_label(probabilities) >= point)


def decide(
    model: Model, probabilities: Sequence[float] | Floats, *, pooled: bool = False
) -> Decision:
    """The decision for probabilities, (labels,); its label is None if it is uncertain.

    It is uncertain if the lead of the best label is below the margin chosen on validation. `pooled`
    says that the probabilities were pooled over several windows.
    """
    thresholds = operating_points(model, pooled=pooled)
    if model.activation == "sigmoid" and thresholds:
        return _decide_independent(model, probabilities, pooled=pooled)
    # By identity: a margin belongs to the points that it was chosen with, and a model may lack
    # those of recordings.
    is_recording = thresholds is model.recording_points
    margin = model.recording_margin if is_recording else model.uncertain_margin
    ratios = operating_point_ratios(model, probabilities, pooled=pooled)
    first, second = sorted(range(len(ratios)), key=lambda k: -ratios[k])[:2]
    label, p = model.labels[first], float(probabilities[first])
    lead = ratios[first] - ratios[second]
    # Too close a lead comes first: its reason names both labels.
    if margin is not None and lead < margin:
        other = f"{model.labels[second]} ({float(probabilities[second]):.2f})"
        relative = ", relative to their operating points" if thresholds else ""
        return Decision(
            label=None,
            probability=p,
            kind="uncertain",
            reason=f"{label} ({p:.2f}) and {other} are too close to call{relative}.",
        )
    if model.uncertain_below is not None and p < model.uncertain_below:
        return Decision(
            label=None,
            probability=p,
            kind="uncertain",
            reason=f"The most probable label, {label}, has probability {p:.2f}; this model needs "
            f"at least {model.uncertain_below:.2f}.",
        )
    point = thresholds.get(label)
    if point is None:
        return Decision(label=label, probability=p, reason="The most probable label.")
    return Decision(
        label=label,
        probability=p,
        reason=f"The label furthest above its operating point, which is {point:.2f}.",
    )


def _decide_independent(
    model: Model, probabilities: Sequence[float] | Floats, *, pooled: bool
) -> Decision:
    """The decision for independent labels, of which any number may be present."""
    thresholds = operating_points(model, pooled=pooled)
    first = decided_label_index(model, probabilities, pooled=pooled)
    label, p = model.labels[first], float(probabilities[first])
    present = findings(model, probabilities, pooled=pooled)
    # Not an uncertain answer: independent labels may all be absent.
    if not _has_any_label(model, probabilities):
        return Decision(
            label=None,
            probability=p,
            kind="nothing found",
            reason=f"The probability of any of the {len(model.labels)} labels is "
            f"{any_label(probabilities):.2f}, below {model.any_label_point:.2f}, so that none is "
            f"listed; the nearest is {label} at {p:.2f}.",
        )
    if not present:
        return Decision(
            label=None,
            probability=p,
            kind="nothing found",
            reason=f"None of the {len(model.labels)} labels reaches its operating point; the "
            f"nearest is {label} at {p:.2f}, whose point is {thresholds.get(label, 0.5):.2f}.",
        )
    count = f"{len(present)} of {len(model.labels)} labels reach their operating points"
    point = thresholds.get(label, 0.5)
    return Decision(
        label=label,
        probability=p,
        reason=f"{count}; {label} is furthest above its own, which is {point:.2f}.",
        findings=tuple(model.labels[k] for k in present),
    )


def age_phrase(known: Mapping[str, Any]) -> str:
    """Whose film it is and who says so; "" where nobody knows.

    >>> age_phrase({"value": "adult", "source": "picture", "probability": 0.974})
    "an adult's film (from the picture, 97 %)"
    """
    if known.get("value") not in ("adult", "child"):
        return ""
    sources = {"visitor": "as you chose", "dicom": "from the file"}
    source = sources.get(known["source"], "")
    if not source:
        # Never 100 %: no guess is certain.
        source = f"from the picture, {min(99, math.floor(100 * known['probability']))} %"
    film = "an adult's film" if known["value"] == "adult" else "a child's film"
    return f"{film} ({source})"


def age_mismatch(model: Model, facts: Mapping[str, Any]) -> str:
    """What to warn of where a network is asked about a patient it is not meant for; else "".

    `facts` are the report's `input`.
    """
    known = facts.get("age", {})
    # A file is believed; a visitor may have pressed the wrong button.
    doubt = known.get("doubt", {}) if known.get("source") == "visitor" else {}
    for each, verb in ((known, "is"), (doubt, "may well be")):
        trained_on = {"adult": "children", "child": "adults"}.get(str(each.get("value")))
        if trained_on and model.patients == trained_on:
            return (
                f"{model.name} was trained on {trained_on}, and this {verb} {age_phrase(each)}: "
                f"do not rely on its answer. {model.meant_for}".rstrip()
            )
    return ""
