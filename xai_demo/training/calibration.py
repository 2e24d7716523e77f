"""What is chosen on the validation split: temperature, operating points, margin of uncertainty."""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING

import numpy as np

from xai_demo.decision import operating_point_ratios
from xai_demo.training import metrics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xai_demo.records import Model
    from xai_demo.training.datasets import RecordingPredictions
    from xai_demo.training.metrics import Array, Labels
    from xai_demo.training.recipe import Recipe

# Expected calibration error of a well calibrated model.
MAX_CALIBRATION_ERROR = 0.05
# A label with fewer validation samples is treated as if it had this many.
MIN_LABEL_COUNT = 30
# Of the labels' operating points, relative to the largest one.
MIN_RELATIVE_POINT = 0.1
# By which normal's operating point may depart from its frequency.
MAX_NORMAL_FACTOR = 2.0
# A grid, because the calibration error is not smooth in the temperature.
_TEMPERATURES = np.geomspace(0.25, 4, 200)
# Validation time from which a label gets an event point of its own.
_MIN_SOUNDING_S = 30.0
# With fewer samples than this, a calibration error is mostly chance.
_MIN_SAMPLES = 200
# By distance from 1, so that of equally good factors the one nearest to 1 is found first.
_NORMAL_FACTORS = sorted(
    np.geomspace(1 / MAX_NORMAL_FACTOR, MAX_NORMAL_FACTOR, 21), key=lambda f: abs(np.log(f))
)


def softmax(logits: Array) -> Array:
    """Probabilities from logits, (samples, labels).

    >>> softmax(np.array([[0.0, 0.0]]))
    array([[0.5, 0.5]])
    """
    # Without their maximum, which cancels out: exp cannot overflow.
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: Array = shifted / shifted.sum(axis=1, keepdims=True)
    return result


def calibrate_model(recipe: Recipe, logits: Array, targets: Labels) -> Model:
    """The recipe's model with temperature, operating points and margin of uncertainty."""
    # Operating points apply to calibrated probabilities, so the temperature comes first.
    temperature = best_temperature(logits, targets)
    probabilities = softmax(logits / temperature)
    model = dataclasses.replace(recipe.model, temperature=round(temperature, 4))
    if model.normal_label:
        normal = model.labels.index(model.normal_label)
        points = (
            binary_operating_points(probabilities, targets, normal)
            if len(model.labels) == 2
            else operating_points(probabilities, targets, normal)
        )
        model = dataclasses.replace(model, operating_points=_points_by_label(model, points))
    margin = _uncertain_margin(recipe, model, probabilities, pooled=False)
    return dataclasses.replace(model, uncertain_margin=margin)


def calibrate_recordings(recipe: Recipe, model: Model, recordings: RecordingPredictions) -> Model:
    """The model with operating points and margin for whole recordings and for events in time.

    An event in one breath of many is diluted in the mean over a recording's windows, so the
    operating points of single events would miss it. Moments are so many that these points would
    find something in every recording.
    """
    probabilities, targets = recordings.probabilities, recordings.targets
    if model.normal_label is None or len(set(targets.tolist())) < 2:
        return model
    model = dataclasses.replace(model, event_points=event_points(model, recordings))
    normal = model.labels.index(model.normal_label)
    points = operating_points(probabilities, targets, normal)
    model = dataclasses.replace(model, recording_points=_points_by_label(model, points))
    margin = _uncertain_margin(recipe, model, probabilities, pooled=True)
    return dataclasses.replace(model, recording_margin=margin)


def event_points(model: Model, recordings: RecordingPredictions) -> dict[str, float]:
    """For each abnormal label, the threshold whose moments agree best with the annotated events.

    Agreement is F1 over time (Dice 1945). A label that sounds for less than half a minute in the
    validation split gets the largest threshold of the others.
    """
    points: dict[str, float] = {}
    rare = []
    moment_s = recordings.sounding_s.sum(axis=1)
    for k, label in enumerate(model.labels):
        if label == model.normal_label:
            continue
        sounding, scores = recordings.sounding_s[:, k], recordings.moments[:, k]
        if sounding.sum() < _MIN_SOUNDING_S:
            rare.append(label)
            continue
        # Each score in descending order is a candidate for the threshold.
        order = np.argsort(-scores)
        agreement = 2 * sounding[order].cumsum()
        f1 = agreement / (moment_s[order].cumsum() + sounding.sum())
        points[label] = round(float(scores[order][f1.argmax()]), 4)
    if not points:
        return {}
    return points | dict.fromkeys(rare, max(points.values()))


def _points_by_label(model: Model, points: Array) -> dict[str, float]:
    return {k: round(float(v), 4) for k, v in zip(model.labels, points, strict=True)}


def _uncertain_margin(recipe: Recipe, model: Model, probabilities: Array, *, pooled: bool) -> float:
    """The lead of the best label below which the recipe's `uncertain_share` of samples lies."""
    ranked = np.sort(
        [operating_point_ratios(model, row, pooled=pooled) for row in probabilities], axis=1
    )
    return round(float(np.quantile(ranked[:, -1] - ranked[:, -2], recipe.uncertain_share)), 4)


def best_temperature(logits: Array, targets: Labels) -> float:
    """The temperature of the largest likelihood (Guo et al. 2017), provided it calibrates well.

    It may not, for example if a classifier was trained with other class frequencies than those of
    the validation split. Then the choice is the most likely temperature of those with a small
    expected calibration error, or the one with the smallest error if there are none.
    """
    rows, weights = np.arange(len(targets)), np.ones(len(targets))
    losses, errors = np.zeros(len(_TEMPERATURES)), np.zeros(len(_TEMPERATURES))
    for i, temperature in enumerate(_TEMPERATURES):
        probabilities = softmax(logits / temperature)
        losses[i] = -np.log(probabilities[rows, targets] + 1e-12).mean()
        errors[i] = metrics.expected_calibration_error(probabilities, targets, weights)
    best = int(losses.argmin())
    if errors[best] > MAX_CALIBRATION_ERROR and len(targets) >= _MIN_SAMPLES:
        # Half of the error allowed, because it will be larger for other patients.
        allowed = max(float(errors.min()), MAX_CALIBRATION_ERROR / 2)
        best = int(np.where(errors <= allowed, losses, np.inf).argmin())
    return float(_TEMPERATURES[best])


def binary_operating_points(probabilities: Array, targets: Labels, normal: int) -> Array:
    """The operating points of normal and abnormal, (2,), which add up to one."""
    point = youden_threshold(probabilities[:, 1 - normal], targets != normal)
    # The larger ratio of probability to point wins, which is abnormal from `point` on.
    points = np.full(2, point)
    points[normal] = 1 - point
    return points


def operating_points(probabilities: Array, targets: Labels, normal: int) -> Array:
    """The operating points with the largest average score plus balanced accuracy, (labels,).

    A point is the label's frequency to some power: the frequency itself is best for balanced
    accuracy, equal points are best for accuracy. Normal's point may be up to `MAX_NORMAL_FACTOR`
    times higher or lower, for networks that answer normal too readily or too rarely; of equally
    good factors the one nearest to 1 is chosen. Points are scaled so that those of normal and the
    most frequent finding add up to one.

    A label with hardly any validation samples is treated as if it had `MIN_LABEL_COUNT`, and counts
    less in the balanced accuracy. No point is below `MIN_RELATIVE_POINT` of the largest: a few
    lucky samples must not make a label win at a probability of 3 %.
    """
    n = probabilities.shape[1]
    sizes = np.bincount(targets, minlength=n)
    frequency = np.maximum(sizes, MIN_LABEL_COUNT) / len(targets)
    trust = np.minimum(sizes / MIN_LABEL_COUNT, 1.0)
    best_score, best_points = -1.0, np.full(n, 0.5)
    for factor, power in itertools.product(_NORMAL_FACTORS, np.linspace(0, 1, 41)):
        points = frequency**power
        points[normal] *= factor
        points = np.maximum(points, MIN_RELATIVE_POINT * points.max())
        # As `decision` decides: the largest ratio of probability to point.
        counts = metrics.confusion(
            targets, (probabilities / points).argmax(axis=1), np.ones(len(targets)), n
        )
        score = _average_score(counts, normal) + _weighted_recall(counts, trust)
        # Sums in another order differ in the last digits; that is no improvement.
        if score > best_score + 1e-12:
            abnormal = np.delete(points, normal).max()
            best_score, best_points = score, points / (points[normal] + abnormal)
    return best_points


def youden_threshold(scores: Array, positive: NDArray[np.bool_]) -> float:
    """The threshold of the largest sensitivity + specificity (Youden 1950).

    If several are equally good, their mean. Both arguments are (samples,).

    >>> youden_threshold(np.array([0.1, 0.2, 0.6, 0.8]), np.array([False, False, True, True]))
    0.4
    """
    levels = np.unique(scores)
    # Midway between neighbouring scores, where no sample lies; the first finds every sample.
    thresholds = np.r_[levels[0], (levels[1:] + levels[:-1]) / 2]
    youden = [(scores[positive] >= t).mean() + (scores[~positive] < t).mean() for t in thresholds]
    best = np.flatnonzero(np.isclose(youden, np.max(youden)))
    return float(thresholds[best].mean())


def _average_score(counts: Array, normal: int) -> float:
    """(Sensitivity + specificity) / 2 of abnormal versus normal, from a confusion matrix."""
    abnormal = np.delete(counts, normal, axis=0)
    sensitivity = np.delete(abnormal, normal, axis=1).sum() / max(abnormal.sum(), 1e-12)
    specificity = counts[normal, normal] / max(counts[normal].sum(), 1e-12)
    return float(sensitivity + specificity) / 2


def _weighted_recall(counts: Array, weights: Array) -> float:
    recalls = counts.diagonal() / np.maximum(counts.sum(axis=1), 1e-12)
    return float((weights * recalls).sum() / max(weights.sum(), 1e-12))
