"""Independent labels: calibration on the validation split, and figures of merit.

Targets and decisions are (samples, labels), 0 or 1; each probability is of its label alone.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo.decision import any_label
from xai_demo.training import metrics
from xai_demo.training.calibration import youden_threshold

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xai_demo.records import Model
    from xai_demo.training.metrics import Array, Labels

# With this many positive validation samples, a label's own operating point and its rate count
# equally.
PRIOR_POSITIVES = 10.0
# A grid, because every temperature has shifts of its own.
_TEMPERATURES = np.geomspace(0.4, 4, 60)
# Lower points would list nearly every label.
_LISTING_FACTORS = np.geomspace(1, 0.1, 24)
_PER_LABEL = ("auroc", "accuracy", "precision", "recall", "specificity", "f1")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LogitCalibration:
    """How logits become probabilities: sigmoid((logit + shift) / temperature)."""

    temperature: float
    shifts: Array  # (labels,)

    def probabilities(self, logits: Array) -> Array:
        """Calibrated probabilities, (samples, labels)."""
        return sigmoid((logits + self.shifts) / self.temperature)


def sigmoid(values: Array) -> Array:
    """From log-odds to 0..1.

    >>> sigmoid(np.array([0.0])).tolist()
    [0.5]
    """
    # Clipped, because exp overflows; at 60 the probability is within 1e-26 of 1.
    result: Array = 1 / (1 + np.exp(-np.clip(values, -60, 60)))
    return result


def fit_calibration(logits: Array, targets: Labels, rates: Array) -> LogitCalibration:
    """The temperature of the smallest binary cross-entropy, and a shift for each label.

    A shift makes the mean probability of a label equal to its rate. `rates`, (labels,), may come
    from more samples than these, which matters for labels that occur only once or twice here.
    """
    best_loss = np.inf
    best = LogitCalibration(temperature=1.0, shifts=np.zeros(logits.shape[1]))
    for temperature in _TEMPERATURES:
        calibration = LogitCalibration(
            temperature=float(temperature), shifts=_shifts(logits, rates, temperature)
        )
        p = np.clip(calibration.probabilities(logits), 1e-9, 1 - 1e-9)
        loss = -float((targets * np.log(p) + (1 - targets) * np.log(1 - p)).mean())
        if loss < best_loss:
            best_loss, best = loss, calibration
    return best


def _shifts(logits: Array, rates: Array, temperature: float) -> Array:
    """The shifts, (labels,), by bisection: a label's mean probability grows with its shift."""
    goals = np.clip(rates, 1e-4, 1 - 1e-4)
    # At these ends, all probabilities of a label are practically 0 and 1.
    low = np.full(logits.shape[1], -60.0 * temperature) - logits.max(axis=0)
    high = np.full(logits.shape[1], 60.0 * temperature) - logits.min(axis=0)
    # Sixty halvings of that range reach the precision of a float.
    for _ in range(60):
        middle = (low + high) / 2
        is_above = sigmoid((logits + middle) / temperature).mean(axis=0) > goals
        low, high = np.where(is_above, low, middle), np.where(is_above, middle, high)
    shifts: Array = (low + high) / 2
    return shifts


def operating_points(probabilities: Array, targets: Labels, rates: Array) -> Array:
    """The threshold of each label, (labels,), for the largest sensitivity + specificity.

    With few positives that threshold is mostly chance, so it is drawn towards the label's rate: a
    calibrated probability above the rate says more than is known without the radiograph.
    """
    # Within these bounds, no label is always or never found.
    points = np.clip(rates, 0.005, 0.95).astype(np.float64)
    for k, positive in enumerate(targets.T.astype(bool)):
        if positive.any() and not positive.all():
            threshold = np.clip(youden_threshold(probabilities[:, k], positive), 0.005, 0.95)
            share = positive.sum() / (positive.sum() + PRIOR_POSITIVES)
            # A geometric mean, because rates differ by orders of magnitude.
            points[k] = np.exp(share * np.log(threshold) + (1 - share) * np.log(points[k]))
    return points


def calibrate_model(
    model: Model,
    logits: Array,
    targets: Labels,
    rates: Array,
    *,
    most: float | None = None,
    listed: float = 0.0,
) -> tuple[Model, Array]:
    """The model with temperature and operating points, and the shifts to add to its logits.

    With `most`, at most this share of the samples without labels is given one: the probability of
    any label has a point too. The others are then chosen on the samples that reach it, because only
    those are given labels, and lowered together until `listed` of all labels present is listed.
    """
    calibration = fit_calibration(logits, targets, rates)
    # Rounded as in config.json, so that the operating points fit what is stored.
    temperature = round(calibration.temperature, 4)
    calibration = dataclasses.replace(calibration, temperature=temperature)
    probabilities = calibration.probabilities(logits)
    any_point = None if most is None else point_of_any_label(probabilities, targets, most)
    present = targets.sum()
    if any_point is not None:
        reached = any_label(probabilities) >= any_point
        # All of them, if so few are left that no label could have a point.
        if targets[reached].any():
            probabilities, targets = probabilities[reached], targets[reached]
            rates = targets.mean(axis=0)
    points = operating_points(probabilities, targets, rates)
    if any_point is not None:
        points *= _listing_factor(points, probabilities, targets, listed * present)
    by_label = {label: round(float(p), 4) for label, p in zip(model.labels, points, strict=True)}
    model = dataclasses.replace(
        model, temperature=temperature, operating_points=by_label, any_label_point=any_point
    )
    return model, calibration.shifts


def _listing_factor(points: Array, probabilities: Array, targets: Labels, wanted: float) -> float:
    """The largest factor, at most 1, at which the points list `wanted` of the labels present.

    The smallest tried where none does.
    """
    is_present = targets.astype(bool)
    for factor in _LISTING_FACTORS:
        if ((probabilities >= factor * points) & is_present).sum() >= wanted:
            break
    return float(factor)


def point_of_any_label(probabilities: Array, targets: Labels, most: float) -> float | None:
    """The least probability of any label that a share `most` of the samples without labels reaches.

    No larger share does. Rounded up to four digits; None where every sample has a label.
    """
    without = np.sort(any_label(probabilities[~targets.astype(bool).any(axis=1)]))
    if not len(without):
        return None
    # So many may reach the point; the next one may not.
    reaching = int(most * len(without))
    highest_below = float(without[len(without) - 1 - reaching])
    return min(1.0, math.floor(highest_below * 1e4 + 1) / 1e4)


def decide(model: Model, probabilities: Array) -> Labels:
    """Which labels the demo lists, (samples, labels)."""
    # A label without a point is at one half, as in `decision`.
    points = np.array([model.operating_points.get(label, 0.5) for label in model.labels])
    decisions: Labels = (probabilities >= points).astype(np.int64)
    if model.any_label_point is not None:
        decisions[any_label(probabilities) < model.any_label_point] = 0
    return decisions


def per_label(
    probabilities: Array, targets: Labels, decisions: Labels, weights: Array
) -> dict[str, Array]:
    """Each figure for all labels, (labels,); NaN where it is not defined."""
    is_present, is_predicted = targets.astype(bool), decisions.astype(bool)
    weight = weights[:, None]
    true_positives = (weight * (is_present & is_predicted)).sum(axis=0)
    false_negatives = (weight * (is_present & ~is_predicted)).sum(axis=0)
    false_positives = (weight * (~is_present & is_predicted)).sum(axis=0)
    true_negatives = (weight * (~is_present & ~is_predicted)).sum(axis=0)
    right, wrong = true_positives + true_negatives, false_positives + false_negatives
    areas = [
        metrics.auroc(probabilities[:, k], is_present[:, k], weights)
        for k in range(targets.shape[1])
    ]
    # A bootstrap draw may hold no sample of a label.
    occurs = true_positives + false_negatives > 0

    def ratio(above: Array, below: Array) -> Array:
        share: Array = np.where(below > 0, above / np.maximum(below, 1e-12), 0.0)
        return share

    # A label that is never predicted has precision 0, as in scikit-learn.
    precision = ratio(true_positives, true_positives + false_positives)
    recall = ratio(true_positives, true_positives + false_negatives)
    f1 = ratio(2 * true_positives, 2 * true_positives + false_positives + false_negatives)
    return {
        "auroc": np.array(areas),
        "accuracy": ratio(right, right + wrong),
        "precision": np.where(occurs, precision, np.nan),
        "recall": np.where(occurs, recall, np.nan),
        "specificity": ratio(true_negatives, true_negatives + false_positives),
        "f1": np.where(occurs, f1, np.nan),
    }


def summary(
    probabilities: Array, targets: Labels, decisions: Labels, weights: Array
) -> dict[str, float]:
    """Means over the labels and the calibration error, as `evaluate --json` names them."""
    by_figure = per_label(probabilities, targets, decisions, weights)
    mean = {name: metrics.mean_defined(values) for name, values in by_figure.items()}
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
        "auroc_abnormal": metrics.auroc(
            any_label(probabilities), np.asarray(targets.any(axis=1), np.bool_), weights
        ),
        **_listing(targets, decisions, weights),
    }


def _listing(targets: Labels, decisions: Labels, weights: Array) -> dict[str, float]:
    """How many findings are listed: per sample, on how many samples any, and of those present."""
    is_present, is_listed = targets.astype(bool), decisions.astype(bool)
    total, present = weights.sum(), (weights[:, None] * is_present).sum()
    listed = (weights[:, None] * (is_present & is_listed)).sum()
    return {
        "findings_per_sample": float((weights * is_listed.sum(axis=1)).sum() / total),
        "samples_with_findings": float((weights * is_listed.any(axis=1)).sum() / total),
        "present_findings_listed": float(listed / present) if present else float("nan"),
    }


def calibration_error(
    probabilities: Array, targets: Labels, weights: Array, bins: int = 15
) -> float:
    """Mean gap between probability and frequency, by bin of probability, over the labels."""
    errors = []
    for p, positive in zip(probabilities.T, targets.T, strict=True):
        # A probability of 1 belongs to the last bin.
        bin_of = np.minimum((p * bins).astype(int), bins - 1)
        gap = np.abs(np.bincount(bin_of, weights * (p - positive), minlength=bins))
        errors.append(gap.sum() / weights.sum())
    return float(np.mean(errors))


def figures(
    probabilities: Array, targets: Labels, decisions: Labels, groups: Sequence[str], model: Model
) -> dict[str, Any]:
    """`metrics`, `per_class` and `confusion` of an evaluation, with intervals over patients."""

    # All labels' figures in one dictionary, so that one bootstrap serves them all.
    def flat_per_label(weights: Array) -> dict[str, float]:
        by_figure = per_label(probabilities, targets, decisions, weights)
        return {
            # No label contains a line break, so the key can be split again.
            f"{label}\n{name}": float(by_figure[name][k])
            for k, label in enumerate(model.labels)
            for name in _PER_LABEL
        }

    overall = metrics.with_intervals(
        lambda weights: summary(probabilities, targets, decisions, weights), groups
    )
    by_label: dict[str, dict[str, Any]] = {label: {} for label in model.labels}
    for key, value in metrics.as_json(metrics.with_intervals(flat_per_label, groups)).items():
        label, name = key.split("\n")
        by_label[label][name] = value
    return {
        "metrics": metrics.as_json(overall),
        "per_class": by_label,
        "confusion": {
            "labels": list(model.labels),
            "counts": confusion_counts(targets, decisions),
        },
    }


def confusion_counts(targets: Labels, decisions: Labels) -> list[Any]:
    """For every label [[true negatives, false positives], [false negatives, true positives]].

    >>> confusion_counts(np.array([[0], [1], [1]]), np.array([[0], [1], [0]]))
    [[[1, 0], [1, 1]]]
    """
    return [
        np.bincount(2 * truth + decision, minlength=4).reshape(2, 2).tolist()
        for truth, decision in zip(targets.T, decisions.T, strict=True)
    ]
