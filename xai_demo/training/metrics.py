"""Figures of merit with 95 % bootstrap intervals by person. Pure.

Every metric is a function of sample weights, so that a bootstrap draw of whole persons is a weight
per sample: how often its person was drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo.records import Metric

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Labels = NDArray[np.int64]

DRAWS = 1000


def auroc(scores: Array, positive: NDArray[np.bool_], weights: Array) -> float:
    """Area under the ROC curve, ties counted half; NaN where one class is absent."""
    order = np.argsort(scores, kind="stable")
    scores, positive, weights = scores[order], positive[order], weights[order]
    up, down = weights * positive, weights * ~positive
    first = np.r_[True, scores[1:] != scores[:-1]]
    group = np.cumsum(first) - 1
    up_at, down_at = np.bincount(group, up), np.bincount(group, down)
    below = np.cumsum(down_at) - down_at
    total = up.sum() * down.sum()
    return float((up_at * (below + down_at / 2)).sum() / total) if total > 0 else float("nan")


def confusion(targets: Labels, decided: Labels, weights: Array, n: int) -> Array:
    """Counts (true label, decided label)."""
    counts = np.bincount(targets * n + decided, weights, minlength=n * n)
    return counts.reshape(n, n).astype(np.float64)


def expected_calibration_error(
    probabilities: Array, targets: Labels, weights: Array, bins: int = 15
) -> float:
    """Mean gap of confidence and accuracy in bins of the top probability (Guo et al. 2017)."""
    top = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == targets
    bin_of = np.minimum((top * bins).astype(int), bins - 1)
    gap = np.abs(np.bincount(bin_of, weights * (top - right), minlength=bins))
    return float(gap.sum() / weights.sum())


def summary(
    probabilities: Array, targets: Labels, decided: Labels, weights: Array, normal: int | None
) -> dict[str, float]:
    """All overall metrics for one weighting of the samples, under the contract's names."""
    n = probabilities.shape[1]
    counts = confusion(targets, decided, weights, n)
    right, truly, said = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    present = truly > 0
    recall = right[present] / truly[present]
    precision = right[present] / np.maximum(said[present], 1e-12)
    f1 = 2 * right[present] / np.maximum(truly[present] + said[present], 1e-12)
    areas = [auroc(probabilities[:, k], targets == k, weights) for k in range(n)]
    result = {
        "accuracy": right.sum() / truly.sum(),
        "balanced_accuracy": recall.mean(),
        "precision": precision.mean(),
        "recall": recall.mean(),
        "f1": f1.mean(),
        "auroc": float(np.nanmean(areas)) if not np.all(np.isnan(areas)) else float("nan"),
        "ece": expected_calibration_error(probabilities, targets, weights),
    }
    if normal is not None:
        result |= _abnormal(probabilities, targets, counts, weights, normal)
    return {name: float(value) for name, value in result.items()}


def _abnormal(
    probabilities: Array, targets: Labels, counts: Array, weights: Array, normal: int
) -> dict[str, float]:
    abnormal = np.arange(len(counts)) != normal
    sensitivity = counts[abnormal][:, abnormal].sum() / max(counts[abnormal].sum(), 1e-12)
    specificity = counts[normal, normal] / max(counts[normal].sum(), 1e-12)
    average = (sensitivity + specificity) / 2
    harmonic = 2 * sensitivity * specificity / max(sensitivity + specificity, 1e-12)
    return {
        "auroc_abnormal": auroc(1 - probabilities[:, normal], targets != normal, weights),
        "sensitivity": sensitivity,
        "specificity": specificity,
        "average_score": average,
        "harmonic_score": harmonic,
        "total_score": (average + harmonic) / 2,
    }


def per_class(
    probabilities: Array, targets: Labels, decided: Labels, weights: Array
) -> dict[int, dict[str, float]]:
    """Precision, recall, F1, AUROC and accuracy of each label against the rest."""
    n = probabilities.shape[1]
    counts = confusion(targets, decided, weights, n)
    result = {}
    for k in range(n):
        right, truly, said = counts[k, k], counts[k].sum(), counts[:, k].sum()
        result[k] = {
            "precision": float(right / max(said, 1e-12)),
            "recall": float(right / max(truly, 1e-12)),
            "f1": float(2 * right / max(truly + said, 1e-12)),
            "auroc": auroc(probabilities[:, k], targets == k, weights),
            "accuracy": float(1 - (truly + said - 2 * right) / counts.sum()),
        }
    return result


def with_intervals(
    figures: Callable[[Array], dict[str, float]], groups: Sequence[str], *, seed: int = 0
) -> dict[str, Metric]:
    """Each figure with its 95 % interval over bootstrap draws of whole groups."""
    names, group_of = np.unique(np.array(groups), return_inverse=True)
    rng = np.random.default_rng(seed)
    point = figures(np.ones(len(groups)))
    draws: dict[str, list[float]] = {name: [] for name in point}
    for _ in range(DRAWS):
        drawn = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))
        for name, value in figures(drawn[group_of].astype(np.float64)).items():
            draws[name].append(value)
    result = {}
    for name, value in point.items():
        low, high = np.nanpercentile(draws[name], [2.5, 97.5])
        result[name] = Metric(value=value, low=float(low), high=float(high))
    return result


def as_json(metrics: dict[str, Metric]) -> dict[str, Any]:
    """Rounded for reading; a figure that is not defined is null."""

    def rounded(value: float) -> float | None:
        return None if np.isnan(value) else round(value, 4)

    return {
        name: {"value": rounded(m.value), "low": rounded(m.low), "high": rounded(m.high)}
        for name, m in metrics.items()
    }
