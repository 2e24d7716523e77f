"""Independent labels on one sample: what is chosen on validation, and figures of merit. Pure.

`targets` and `decided` are (samples, labels), 0 or 1; probabilities are of each label by itself.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo.training import metrics
from xai_demo.training.calibration import operating_point

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xai_demo.records import Model
    from xai_demo.training.metrics import Array, Labels

BELIEVED = (
    10.0  # positives of validation from which a label's own operating point outweighs its rate
)
_TEMPERATURES = np.geomspace(0.4, 4, 60)
_PER_LABEL = ("auroc", "accuracy", "precision", "recall", "specificity", "f1")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """What makes probabilities of logits: sigmoid((logit + shift) / temperature)."""

    temperature: float
    shifts: Array  # (labels,)

    def probabilities(self, logits: Array) -> Array:
        """(samples, labels)."""
        return sigmoid((logits + self.shifts) / self.temperature)


def sigmoid(values: Array) -> Array:
    """From log-odds to 0..1."""
    result: Array = 1 / (1 + np.exp(-np.clip(values, -60, 60)))
    return result


def calibration(logits: Array, targets: Labels, rates: Array) -> Fit:
    """The temperature of the smallest binary cross-entropy, and a shift for each label.

    Each shift makes a label's mean probability its rate; `rates`, (labels,), may be known from more
    samples than these, which matters where these hold two of a label.
    """
    best, chosen = np.inf, Fit(temperature=1.0, shifts=np.zeros(logits.shape[1]))
    for temperature in _TEMPERATURES:
        fit = Fit(temperature=float(temperature), shifts=_shifts(logits, rates, temperature))
        p = np.clip(fit.probabilities(logits), 1e-9, 1 - 1e-9)
        loss = -float((targets * np.log(p) + (1 - targets) * np.log(1 - p)).mean())
        if loss < best:
            best, chosen = loss, fit
    return chosen


def _shifts(logits: Array, rates: Array, temperature: float) -> Array:
    """By bisection: the mean probability of a label grows with its shift."""
    wanted = np.clip(rates, 1e-4, 1 - 1e-4)
    low = np.full(logits.shape[1], -60.0 * temperature) - logits.max(axis=0)
    high = np.full(logits.shape[1], 60.0 * temperature) - logits.min(axis=0)
    for _ in range(60):
        middle = (low + high) / 2
        above = sigmoid((logits + middle) / temperature).mean(axis=0) > wanted
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    shifts: Array = (low + high) / 2
    return shifts


def operating_points(probabilities: Array, targets: Labels, rates: Array) -> Array:
    """The threshold of each label: of the largest sensitivity + specificity, (labels,).

    Of a few positives that threshold is chance, so it is drawn towards the label's rate, which is
    where a calibrated probability says more than is known without the picture.
    """
    points = np.clip(rates, 0.005, 0.95).astype(np.float64)
    for k, positive in enumerate(targets.T.astype(bool)):
        if positive.any() and not positive.all():
            own = np.clip(operating_point(probabilities[:, k], positive), 0.005, 0.95)
            share = positive.sum() / (positive.sum() + BELIEVED)
            points[k] = np.exp(share * np.log(own) + (1 - share) * np.log(points[k]))
    return points


def calibrated(model: Model, logits: Array, targets: Labels, rates: Array) -> tuple[Model, Array]:
    """The model with temperature and operating points, and the shifts to add to its logits."""
    fit = calibration(logits, targets, rates)
    fit = dataclasses.replace(fit, temperature=round(fit.temperature, 4))
    points = operating_points(fit.probabilities(logits), targets, rates)
    named = {label: round(float(p), 4) for label, p in zip(model.labels, points, strict=True)}
    return (
        dataclasses.replace(model, temperature=fit.temperature, operating_points=named),
        fit.shifts,
    )


def decided(model: Model, probabilities: Array) -> Labels:
    """Which labels are at or above their operating points, (samples, labels)."""
    points = np.array([model.operating_points.get(label, 0.5) for label in model.labels])
    answers: Labels = (probabilities >= points).astype(np.int64)
    return answers


def per_label(
    probabilities: Array, targets: Labels, answers: Labels, weights: Array
) -> dict[str, Array]:
    """Each figure for all labels: (labels,); NaN where it is not defined."""
    there, said = targets.astype(bool), answers.astype(bool)
    weight = weights[:, None]
    right = (weight * (there & said)).sum(axis=0)
    missed = (weight * (there & ~said)).sum(axis=0)
    wrong = (weight * (~there & said)).sum(axis=0)
    rest = (weight * (~there & ~said)).sum(axis=0)
    areas = [
        metrics.auroc(probabilities[:, k], there[:, k], weights) for k in range(targets.shape[1])
    ]
    present = right + missed > 0

    def ratio(above: Array, below: Array) -> Array:
        share: Array = np.where(below > 0, above / np.maximum(below, 1e-12), 0.0)
        return share

    return {
        "auroc": np.array(areas),
        "accuracy": ratio(right + rest, right + rest + missed + wrong),
        "precision": np.where(present, ratio(right, right + wrong), np.nan),
        "recall": np.where(present, ratio(right, right + missed), np.nan),
        "specificity": ratio(rest, rest + wrong),
        "f1": np.where(present, ratio(2 * right, 2 * right + wrong + missed), np.nan),
    }


def summary(
    probabilities: Array, targets: Labels, answers: Labels, weights: Array
) -> dict[str, float]:
    """The means over labels, and the calibration error, under the contract's names."""
    each = per_label(probabilities, targets, answers, weights)
    mean = {name: _mean(values) for name, values in each.items()}
    return {
        "auroc": mean["auroc"],
        "accuracy": mean["accuracy"],
        "balanced_accuracy": (mean["recall"] + mean["specificity"]) / 2,
        "precision": mean["precision"],
        "recall": mean["recall"],
        "f1": mean["f1"],
        "sensitivity": mean["recall"],
        "specificity": mean["specificity"],
        "ece": calibration_error(probabilities, targets, weights),
    }


def calibration_error(
    probabilities: Array, targets: Labels, weights: Array, bins: int = 15
) -> float:
    """Mean gap of probability and frequency, over the labels, in bins of probability."""
    errors = []
    for p, there in zip(probabilities.T, targets.T, strict=True):
        bin_of = np.minimum((p * bins).astype(int), bins - 1)
        gap = np.abs(np.bincount(bin_of, weights * (p - there), minlength=bins))
        errors.append(gap.sum() / weights.sum())
    return float(np.mean(errors))


def figures(
    probabilities: Array, targets: Labels, answers: Labels, groups: Sequence[str], model: Model
) -> dict[str, Any]:
    """`metrics`, `per_class` and `confusion` of an evaluation, with intervals by person."""

    def of_each(weights: Array) -> dict[str, float]:
        each = per_label(probabilities, targets, answers, weights)
        return {
            f"{label}\n{name}": float(each[name][k])
            for k, label in enumerate(model.labels)
            for name in _PER_LABEL
        }

    overall = metrics.with_intervals(
        lambda weights: summary(probabilities, targets, answers, weights), groups
    )
    by_label: dict[str, dict[str, Any]] = {label: {} for label in model.labels}
    for key, value in metrics.as_json(metrics.with_intervals(of_each, groups)).items():
        label, name = key.split("\n")
        by_label[label][name] = value
    return {
        "metrics": metrics.as_json(overall),
        "per_class": by_label,
        "confusion": {"labels": list(model.labels), "counts": counts(targets, answers)},
    }


def counts(targets: Labels, answers: Labels) -> list[Any]:
    """For every label [[true negatives, false positives], [false negatives, true positives]]."""
    return [
        np.bincount(2 * there + said, minlength=4).reshape(2, 2).tolist()
        for there, said in zip(targets.T, answers.T, strict=True)
    ]


def _mean(values: Array) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
