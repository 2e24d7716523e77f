"""Figures of merit with 95 % bootstrap intervals over patients.

Every metric is a function of sample weights. A bootstrap draw of whole patients is then a weight
per sample: how often its patient was drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo.records import Metric

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Labels = NDArray[np.int64]

# 25 draws then lie beyond each end of a 95 % interval.
DRAWS = 1000


def auroc(scores: Array, positive: NDArray[np.bool_], weights: Array) -> float:
    """Area under the ROC curve, ties counted half; NaN if one class is absent.

    All arguments are (samples,).

    >>> scores, positive = np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, False, True, True])
    >>> auroc(scores, positive, np.ones(4))
    0.875
    """
    order = np.argsort(scores, kind="stable")
    scores, positive, weights = scores[order], positive[order], weights[order]
    up, down = weights * positive, weights * ~positive
    # Equal scores form one step of the curve, so a pair of them counts half.
    first = np.r_[True, scores[1:] != scores[:-1]]
    group = np.cumsum(first) - 1
    up_at, down_at = np.bincount(group, up), np.bincount(group, down)
    # The weight of the negatives with a smaller score.
    below = np.cumsum(down_at) - down_at
    total = up.sum() * down.sum()
    return float((up_at * (below + down_at / 2)).sum() / total) if total > 0 else float("nan")


def confusion(targets: Labels, decisions: Labels, weights: Array, n: int) -> Array:
    """Weighted counts, (true label, decided label), of `n` labels.

    >>> confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), np.ones(3), 2)
    array([[1., 1.],
           [0., 1.]])
    """
    counts = np.bincount(targets * n + decisions, weights, minlength=n * n)
    return counts.reshape(n, n).astype(np.float64)


# Fifteen bins, as in Guo et al. 2017.
def expected_calibration_error(
    probabilities: Array, targets: Labels, weights: Array, bins: int = 15
) -> float:
    """Mean gap between confidence and accuracy, by bin of the top probability (Guo et al. 2017)."""
    top = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == targets
    # A probability of 1 belongs to the last bin.
    bin_of = np.minimum((top * bins).astype(int), bins - 1)
    # A bin's sum is its weight times the gap of its means.
    gap = np.abs(np.bincount(bin_of, weights * (top - right), minlength=bins))
    return float(gap.sum() / weights.sum())


def summary(
    probabilities: Array, targets: Labels, decisions: Labels, weights: Array, normal: int | None
) -> dict[str, float]:
    """All overall metrics of exclusive labels, under the names that `evaluate --json` prints.

    `probabilities` are (samples, labels), the other arrays (samples,). Averages are over the labels
    that occur. With the index of the `normal` label there are also those of abnormal versus normal.
    """
    n = probabilities.shape[1]
    counts = confusion(targets, decisions, weights, n)
    right, true_counts, decided_counts = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    present = true_counts > 0
    recall = right[present] / true_counts[present]
    # A label that is never predicted has precision 0, as in scikit-learn.
    precision = right[present] / np.maximum(decided_counts[present], 1e-12)
    f1 = 2 * right[present] / np.maximum(true_counts[present] + decided_counts[present], 1e-12)
    areas = [auroc(probabilities[:, k], targets == k, weights) for k in range(n)]
    result = {
        "accuracy": right.sum() / true_counts.sum(),
        "balanced_accuracy": recall.mean(),
        "precision": precision.mean(),
        "recall": recall.mean(),
        "f1": f1.mean(),
        "auroc": float(np.nanmean(areas)) if not np.all(np.isnan(areas)) else float("nan"),
        "ece": expected_calibration_error(probabilities, targets, weights),
    }
    if normal is not None:
        result |= _abnormal_summary(probabilities, targets, counts, weights, normal)
    return {name: float(value) for name, value in result.items()}


def _abnormal_summary(
    probabilities: Array, targets: Labels, counts: Array, weights: Array, normal: int
) -> dict[str, float]:
    # Any abnormal answer to an abnormal sample counts as right here, as with two classes.
    abnormal = np.arange(len(counts)) != normal
    sensitivity = counts[abnormal][:, abnormal].sum() / max(counts[abnormal].sum(), 1e-12)
    specificity = counts[normal, normal] / max(counts[normal].sum(), 1e-12)
    # Combined as in the ICBHI 2017 and SPRSound challenges, see `lung.metrics`.
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
    probabilities: Array, targets: Labels, decisions: Labels, weights: Array
) -> dict[int, dict[str, float]]:
    """Precision, recall, F1, AUROC and accuracy of each label versus the rest."""
    n = probabilities.shape[1]
    counts = confusion(targets, decisions, weights, n)
    result = {}
    for k in range(n):
        right, true_count, decided_count = counts[k, k], counts[k].sum(), counts[:, k].sum()
        result[k] = {
            "precision": float(right / max(decided_count, 1e-12)),
            "recall": float(right / max(true_count, 1e-12)),
            "f1": float(2 * right / max(true_count + decided_count, 1e-12)),
            "auroc": auroc(probabilities[:, k], targets == k, weights),
            # Wrong are the false positives and the false negatives of this label.
            "accuracy": float(1 - (true_count + decided_count - 2 * right) / counts.sum()),
        }
    return result


def with_intervals(
    figures: Callable[[Array], dict[str, float]], groups: Sequence[str], *, seed: int = 0
) -> dict[str, Metric]:
    """Each figure with its 95 % interval over bootstrap draws of whole groups.

    `figures` takes weights, (samples,); `groups` name the patient of each sample.
    """
    # Whole groups are drawn, because a patient's samples resemble one another.
    names, group_of = np.unique(np.array(groups), return_inverse=True)
    rng = np.random.default_rng(seed)
    point = figures(np.ones(len(groups)))
    draws: dict[str, list[float]] = {name: [] for name in point}
    for _ in range(DRAWS):
        times = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))
        for name, value in figures(times[group_of].astype(np.float64)).items():
            draws[name].append(value)
    result = {}
    for name, value in point.items():
        # A draw may lack a class, which leaves a figure undefined: such draws are left out.
        low, high = np.nanpercentile(draws[name], [2.5, 97.5])
        result[name] = Metric(value=value, low=float(low), high=float(high))
    return result


def mean_defined(values: Array) -> float:
    """The mean of the figures that are defined; NaN where none is.

    >>> mean_defined(np.array([1.0, np.nan, 2.0]))
    1.5
    """
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


def as_json(metrics: Mapping[str, Metric]) -> dict[str, Any]:
    """Values and intervals rounded to four digits; a figure that is not defined is null."""
    return {
        name: {
            "value": round_finite(metric.value),
            "low": round_finite(metric.low),
            "high": round_finite(metric.high),
        }
        for name, metric in metrics.items()
    }


def round_finite(value: float) -> float | None:
    """A number rounded to four digits; None if it is not finite.

    >>> round_finite(0.123456), round_finite(float("nan"))
    (0.1235, None)
    """
    return round(value, 4) if np.isfinite(value) else None


def interval_text(row: Mapping[str, float | None]) -> str:
    """A figure with its interval in brackets, for a table.

    >>> interval_text({"value": 0.9, "low": 0.85, "high": 0.95})
    '0.900 (0.850-0.950)'
    >>> interval_text({"value": None, "low": None, "high": None})
    'not defined'
    """
    if row["value"] is None:
        return "not defined"
    return f"{row['value']:.3f} ({row['low']:.3f}-{row['high']:.3f})"
