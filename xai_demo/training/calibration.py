"""What is chosen on validation: temperature, operating points, and when to be uncertain. Pure."""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING

import numpy as np

from xai_demo.decision import standing
from xai_demo.training import metrics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xai_demo.records import Model
    from xai_demo.training.datasets import RecordingPredictions
    from xai_demo.training.metrics import Array, Labels
    from xai_demo.training.recipe import Recipe

WELL_CALIBRATED = 0.05  # expected calibration error
FEW = 30  # a label with fewer validation samples is treated as if it had these
LEAST_POINT = 0.1  # of the labels' operating points, relative to the largest one
MOST_LEAN = 2.0  # of the point of normal, against its frequency
_LEANS = sorted(np.geomspace(1 / MOST_LEAN, MOST_LEAN, 21), key=lambda lean: abs(np.log(lean)))
_TEMPERATURES = np.geomspace(0.25, 4, 200)
_HEARD_S = 30.0  # from how much time on a label has a point of its own for moments
_ENOUGH = 200  # samples, for a calibration error to be more than chance


def softmax(logits: Array) -> Array:
    """(samples, labels) -> probabilities."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: Array = shifted / shifted.sum(axis=1, keepdims=True)
    return result


def calibrated(recipe: Recipe, logits: Array, targets: Labels) -> Model:
    """The recipe's model with temperature, operating points and doubt."""
    chosen = temperature(logits, targets)
    probabilities = softmax(logits / chosen)
    model = dataclasses.replace(recipe.model, temperature=round(chosen, 4))
    if model.normal_label:
        normal = model.labels.index(model.normal_label)
        points = (
            two_points(probabilities, targets, normal)
            if len(model.labels) == 2
            else operating_points(probabilities, targets, normal)
        )
        model = dataclasses.replace(model, operating_points=_named(model, points))
    doubt = _doubt(recipe, model, probabilities, pooled=False)
    return dataclasses.replace(model, uncertain_margin=doubt)


def of_recordings(recipe: Recipe, model: Model, found: RecordingPredictions) -> Model:
    """The model with operating points and doubt for what several windows say together.

    What is heard in one breath of many is diluted in the mean over a recording's windows, so that
    the points of single events would miss it; of moments, so many are asked about that they would
    find something in every recording.
    """
    probabilities, targets = found.probabilities, found.targets
    if model.normal_label is None or len(set(targets.tolist())) < 2:
        return model
    model = dataclasses.replace(model, event_points=event_points(model, found))
    normal = model.labels.index(model.normal_label)
    points = operating_points(probabilities, targets, normal)
    model = dataclasses.replace(model, recording_points=_named(model, points))
    doubt = _doubt(recipe, model, probabilities, pooled=True)
    return dataclasses.replace(model, recording_margin=doubt)


def event_points(model: Model, found: RecordingPredictions) -> dict[str, float]:
    """For each label but normal the point at which the moments above it agree best with the truth.

    That is the largest F1 of their time (Dice 1945). A label that sounds for less than half a
    minute of validation gets the largest point of the others.
    """
    points: dict[str, float] = {}
    rare = []
    lasting = found.sounding_s.sum(axis=1)
    for k, label in enumerate(model.labels):
        if label == model.normal_label:
            continue
        sounding, scores = found.sounding_s[:, k], found.moments[:, k]
        if sounding.sum() < _HEARD_S:
            rare.append(label)
            continue
        order = np.argsort(-scores)
        agreed = 2 * sounding[order].cumsum()
        f1 = agreed / (lasting[order].cumsum() + sounding.sum())
        points[label] = round(float(scores[order][f1.argmax()]), 4)
    if not points:
        return {}
    return points | dict.fromkeys(rare, max(points.values()))


def _named(model: Model, points: Array) -> dict[str, float]:
    return {k: round(float(v), 4) for k, v in zip(model.labels, points, strict=True)}


def _doubt(recipe: Recipe, model: Model, probabilities: Array, *, pooled: bool) -> float:
    """The lead below which lie as many validation cases as the recipe leaves unanswered."""
    ranked = np.sort([standing(model, row, pooled=pooled) for row in probabilities], axis=1)
    return round(float(np.quantile(ranked[:, -1] - ranked[:, -2], recipe.uncertainty)), 4)


def temperature(logits: Array, targets: Labels) -> float:
    """That of the largest likelihood (Guo et al. 2017), if it calibrates well.

    If not, as where a classifier was taught with other class sizes than validation has, the
    likeliest of those that do; if none does, that of the smallest expected calibration error.
    """
    rows, everyone = np.arange(len(targets)), np.ones(len(targets))
    losses, errors = np.zeros(len(_TEMPERATURES)), np.zeros(len(_TEMPERATURES))
    for i, each in enumerate(_TEMPERATURES):
        probabilities = softmax(logits / each)
        losses[i] = -np.log(probabilities[rows, targets] + 1e-12).mean()
        errors[i] = metrics.expected_calibration_error(probabilities, targets, everyone)
    chosen = int(losses.argmin())
    if errors[chosen] > WELL_CALIBRATED and len(targets) >= _ENOUGH:
        # Half of what is wanted leaves room for other patients.
        allowed = max(float(errors.min()), WELL_CALIBRATED / 2)
        chosen = int(np.where(errors <= allowed, losses, np.inf).argmin())
    return float(_TEMPERATURES[chosen])


def two_points(probabilities: Array, targets: Labels, normal: int) -> Array:
    """The operating points of normal and abnormal, which add up to one."""
    point = operating_point(probabilities[:, 1 - normal], targets != normal)
    points = np.full(2, point)
    points[normal] = 1 - point
    return points


def operating_points(probabilities: Array, targets: Labels, normal: int) -> Array:
    """Operating points of the largest (sensitivity + specificity) / 2 plus balanced accuracy.

    They are the label's frequency to a power: frequencies themselves are best for balanced
    accuracy, equal points for accuracy. Normal's may be up to `MOST_LEAN` times as high or as low,
    where a network is too ready to call everything normal, or nothing; of equals the least such
    leaning is taken. Scaled so that normal and the commonest finding add up to one. A label that
    validation has hardly heard counts as often as `FEW` samples, and in the balanced accuracy no
    more than its share of them; no point is below `LEAST_POINT` of the largest: six lucky samples
    must not make a label win at a probability of 3 %.
    """
    n = probabilities.shape[1]
    sizes = np.bincount(targets, minlength=n)
    frequency = np.maximum(sizes, FEW) / len(targets)
    believed = np.minimum(sizes / FEW, 1.0)
    best, chosen = -1.0, np.full(n, 0.5)
    for lean, power in itertools.product(_LEANS, np.linspace(0, 1, 41)):
        points = frequency**power
        points[normal] *= lean
        points = np.maximum(points, LEAST_POINT * points.max())
        counts = metrics.confusion(
            targets, (probabilities / points).argmax(axis=1), np.ones(len(targets)), n
        )
        score = _average_score(counts, normal) + _believed_recall(counts, believed)
        if score > best + 1e-12:
            abnormal = np.delete(points, normal).max()
            best, chosen = score, points / (points[normal] + abnormal)
    return chosen


def operating_point(scores: Array, positive: NDArray[np.bool_]) -> float:
    """The threshold of the largest sensitivity + specificity (Youden 1950), amid its plateau."""
    levels = np.unique(scores)
    thresholds = np.r_[levels[0], (levels[1:] + levels[:-1]) / 2]
    youden = [(scores[positive] >= t).mean() + (scores[~positive] < t).mean() for t in thresholds]
    best = np.flatnonzero(np.isclose(youden, np.max(youden)))
    return float(thresholds[best].mean())


def _average_score(counts: Array, normal: int) -> float:
    abnormal = np.delete(counts, normal, axis=0)
    found = np.delete(abnormal, normal, axis=1).sum() / max(abnormal.sum(), 1e-12)
    return float(found + counts[normal, normal] / max(counts[normal].sum(), 1e-12)) / 2


def _believed_recall(counts: Array, believed: Array) -> float:
    recalls = counts.diagonal() / np.maximum(counts.sum(axis=1), 1e-12)
    return float((believed * recalls).sum() / max(believed.sum(), 1e-12))
