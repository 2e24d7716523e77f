"""Pictures of an evaluation as PNG files: confusion matrix, reliability diagram, ROC curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from xai_demo.training.metrics import Array, Labels

CONFUSION, RELIABILITY, ROC = "confusion.png", "reliability.png", "roc.png"
_DPI = 150
_BLUE, _GREY = "#1f5f8b", "#8a8f94"


def write(
    out: Path,
    *,
    model: str,
    labels: Sequence[str],
    answers: tuple[Array, Labels, Labels],  # probabilities, targets, decided
    normal: int | None,
) -> tuple[Path, ...]:
    """All three in `out`, which is made; the curve is of abnormal against normal if it can be.

    `targets` and `decided` are (samples,), or of independent labels (samples, labels), 0 or 1.
    """
    probabilities, targets, decided = answers
    out.mkdir(parents=True, exist_ok=True)
    heading = f"{model}, n = {len(targets)}"
    paths = tuple(out / name for name in (CONFUSION, RELIABILITY, ROC))
    if targets.ndim == 2:
        curves = {
            k: (p, t == 1) for k, p, t in zip(labels, probabilities.T, targets.T, strict=True)
        }
        findings_matrix(paths[0], targets, decided, labels, heading=heading)
        each = np.stack([1 - probabilities.ravel(), probabilities.ravel()], axis=1)
        reliability_diagram(paths[1], each, targets.ravel(), heading=f"{heading}, all labels")
        roc_curves(paths[2], curves, heading=heading)
        return paths
    n = len(labels)
    counts = np.bincount(targets * n + decided, minlength=n * n).reshape(n, n)
    if normal is None:
        curves = {label: (probabilities[:, k], targets == k) for k, label in enumerate(labels)}
    else:
        curves = {"abnormal": (1 - probabilities[:, normal], targets != normal)}
    confusion_matrix(out / CONFUSION, counts, labels, heading=heading)
    reliability_diagram(out / RELIABILITY, probabilities, targets, heading=heading)
    roc_curves(out / ROC, curves, heading=heading)
    return paths


def findings_matrix(
    path: Path, targets: Labels, decided: Labels, labels: Sequence[str], *, heading: str
) -> None:
    """For every independent label how many have it and not, and what was answered of them."""
    figure, axes = _figure(heading, "Confusion by label", 2.2 + 0.45 * len(labels))
    there, said = targets.astype(bool), decided.astype(bool)
    pairs = ((there, said), (there, ~said), (~there, said), (~there, ~said))
    counts = np.stack([(a & b).sum(axis=0) for a, b in pairs], axis=1)  # (labels, 4)
    totals = np.stack([there.sum(axis=0), (~there).sum(axis=0)], axis=1).repeat(2, axis=1)
    shares = counts / np.maximum(totals, 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    names = ("present, found", "present, missed", "absent, found", "absent, not found")
    axes.set_xticks(range(4), names, rotation=20, ha="right", fontsize=8)
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    _written(axes, counts, shares)
    figure.savefig(path, dpi=_DPI)


def confusion_matrix(
    path: Path, counts: NDArray[np.int64], labels: Sequence[str], *, heading: str
) -> None:
    """Counts (true, decided), shaded by the share of the true label."""
    side = 2.2 + 0.75 * len(labels)
    figure, axes = _figure(heading, "Confusion matrix", side)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(labels)), labels, rotation=30, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("decided")
    axes.set_ylabel("annotated")
    _written(axes, counts, shares, "\n")
    figure.savefig(path, dpi=_DPI)


def _written(axes: Axes, counts: NDArray[np.int64], shares: Array, between: str = ", ") -> None:
    """Count and share in every cell."""
    for (row, column), count in np.ndenumerate(counts):
        share = shares[row, column]
        colour = "white" if share > 0.5 else "black"
        words = f"{count}{between}{share:.0%}"
        axes.text(column, row, words, ha="center", va="center", color=colour, fontsize=8)


def reliability_diagram(
    path: Path, probabilities: Array, targets: Labels, *, heading: str, bins: int = 15
) -> None:
    """Accuracy by confidence, with the number of samples below (Guo et al. 2017)."""
    confidence, accuracy, count = reliability(probabilities, targets, bins)
    figure, axes = _figure(heading, "Reliability", 4.6)
    some = count > 0
    axes.plot([0, 1], [0, 1], color=_GREY, linestyle="--", label="perfectly calibrated")
    axes.plot(confidence[some], accuracy[some], color=_BLUE, marker="o", label="model")
    centres = (np.arange(bins) + 0.5) / bins
    share = count / max(count.sum(), 1)
    axes.bar(centres, share, width=0.9 / bins, color=_BLUE, alpha=0.2, label="share of samples")
    _unit_square(axes, "confidence", "accuracy")
    axes.legend(loc="upper left", frameon=False, fontsize=8)
    figure.savefig(path, dpi=_DPI)


def reliability(
    probabilities: Array, targets: Labels, bins: int = 15
) -> tuple[Array, Array, NDArray[np.int64]]:
    """Mean confidence, accuracy and number of samples, by bin of the top probability."""
    top = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == targets
    bin_of = np.minimum((top * bins).astype(int), bins - 1)
    count = np.bincount(bin_of, minlength=bins)
    least = np.maximum(count, 1)
    confidence = np.bincount(bin_of, top, minlength=bins) / least
    return confidence, np.bincount(bin_of, right, minlength=bins) / least, count


def roc_curves(
    path: Path, curves: Mapping[str, tuple[Array, NDArray[np.bool_]]], *, heading: str
) -> None:
    """One curve a name from (scores, positive); those without both classes are left out."""
    figure, axes = _figure(heading, "ROC", 4.6)
    axes.plot([0, 1], [0, 1], color=_GREY, linestyle="--")
    for name, (scores, positive) in curves.items():
        if positive.any() and not positive.all():
            false, true = roc(scores, positive)
            area = np.trapezoid(true, false)
            axes.plot(false, true, label=f"{name}, area {area:.3f}")
    _unit_square(axes, "1 - specificity", "sensitivity")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right", frameon=False, fontsize=8 if len(curves) < 8 else 5)
    figure.savefig(path, dpi=_DPI)


def roc(scores: Array, positive: NDArray[np.bool_]) -> tuple[Array, Array]:
    """False and true positive rates from (0, 0) to (1, 1), one point for each distinct score."""
    order = np.argsort(-scores, kind="stable")
    scores, positive = scores[order], positive[order]
    last = np.r_[scores[1:] != scores[:-1], True]
    true = np.cumsum(positive)[last] / max(positive.sum(), 1)
    false = np.cumsum(~positive)[last] / max((~positive).sum(), 1)
    return np.r_[0.0, false], np.r_[0.0, true]


def _figure(heading: str, title: str, side: float) -> tuple[Figure, Axes]:
    """A figure of its own, on no screen and in no list that grows."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(side, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(f"{title}\n{heading}\nnot a medical device", fontsize=9)
    return figure, axes


def _unit_square(axes: Axes, x: str, y: str) -> None:
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel=x, ylabel=y, aspect="equal")
    axes.grid(alpha=0.2)
