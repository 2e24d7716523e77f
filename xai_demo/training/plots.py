"""Plots of an evaluation as PNG files: confusion matrix, reliability diagram and ROC curves."""

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


def write_plots(
    out: Path,
    *,
    model: str,
    labels: Sequence[str],
    # Probabilities, targets, decisions.
    predictions: tuple[Array, Labels, Labels],
    normal: int | None,
) -> tuple[Path, ...]:
    """Write all three plots into `out`, which is created, and return their paths.

    Targets and decisions are (samples,), or (samples, labels) of 0 and 1 for independent labels.
    With the index of the `normal` label, the ROC curve is that of abnormal versus normal.
    """
    probabilities, targets, decisions = predictions
    out.mkdir(parents=True, exist_ok=True)
    heading = f"{model}, n = {len(targets)}"
    paths = tuple(out / name for name in (CONFUSION, RELIABILITY, ROC))
    if targets.ndim == 2:
        curves = {
            k: (p, t == 1) for k, p, t in zip(labels, probabilities.T, targets.T, strict=True)
        }
        draw_findings_matrix(paths[0], targets, decisions, labels, heading=heading)
        # Every label of every sample is a decision between absent and present.
        binary = np.stack([1 - probabilities.ravel(), probabilities.ravel()], axis=1)
        draw_reliability_diagram(
            paths[1], binary, targets.ravel(), heading=f"{heading}, all labels"
        )
        draw_roc_curves(paths[2], curves, heading=heading)
        return paths
    n = len(labels)
    counts = np.bincount(targets * n + decisions, minlength=n * n).reshape(n, n)
    if normal is None:
        curves = {label: (probabilities[:, k], targets == k) for k, label in enumerate(labels)}
    else:
        curves = {"abnormal": (1 - probabilities[:, normal], targets != normal)}
    draw_confusion_matrix(out / CONFUSION, counts, labels, heading=heading)
    draw_reliability_diagram(out / RELIABILITY, probabilities, targets, heading=heading)
    draw_roc_curves(out / ROC, curves, heading=heading)
    return paths


def draw_findings_matrix(
    path: Path, targets: Labels, decisions: Labels, labels: Sequence[str], *, heading: str
) -> None:
    """Draw the 2 x 2 confusion matrix of every independent label as one row."""
    figure, axes = _figure(heading, "Confusion by label", 2.2 + 0.45 * len(labels))
    present, predicted = targets.astype(bool), decisions.astype(bool)
    pairs = (
        (present, predicted),
        (present, ~predicted),
        (~present, predicted),
        (~present, ~predicted),
    )
    counts = np.stack([(a & b).sum(axis=0) for a, b in pairs], axis=1)  # (labels, 4)
    # Shares are of the truth: present for the first two columns, absent for the others.
    totals = np.stack([present.sum(axis=0), (~present).sum(axis=0)], axis=1).repeat(2, axis=1)
    shares = counts / np.maximum(totals, 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    names = ("true positives", "false negatives", "false positives", "true negatives")
    axes.set_xticks(range(4), names, rotation=20, ha="right", fontsize=8)
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    _annotate_cells(axes, counts, shares)
    figure.savefig(path, dpi=_DPI)


def draw_confusion_matrix(
    path: Path, counts: NDArray[np.int64], labels: Sequence[str], *, heading: str
) -> None:
    """Draw counts, (true label, decided label), shaded by their share of the true label."""
    side = 2.2 + 0.75 * len(labels)
    figure, axes = _figure(heading, "Confusion matrix", side)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(labels)), labels, rotation=30, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("predicted label")
    axes.set_ylabel("true label")
    _annotate_cells(axes, counts, shares, "\n")
    figure.savefig(path, dpi=_DPI)


def _annotate_cells(
    axes: Axes, counts: NDArray[np.int64], shares: Array, separator: str = ", "
) -> None:
    """Write count and share into every cell."""
    for (row, column), count in np.ndenumerate(counts):
        share = shares[row, column]
        colour = "white" if share > 0.5 else "black"
        text = f"{count}{separator}{share:.0%}"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)


def draw_reliability_diagram(
    path: Path, probabilities: Array, targets: Labels, *, heading: str, bins: int = 15
) -> None:
    """Draw accuracy by confidence and the share of samples below it (Guo et al. 2017)."""
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
    """Mean confidence, accuracy and number of samples by bin of the top probability, (bins,)."""
    top = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == targets
    bin_of = np.minimum((top * bins).astype(int), bins - 1)
    count = np.bincount(bin_of, minlength=bins)
    least = np.maximum(count, 1)
    # Empty bins get 0 here and are not drawn.
    confidence = np.bincount(bin_of, top, minlength=bins) / least
    return confidence, np.bincount(bin_of, right, minlength=bins) / least, count


def draw_roc_curves(
    path: Path, curves: Mapping[str, tuple[Array, NDArray[np.bool_]]], *, heading: str
) -> None:
    """Draw one curve per name from (scores, positive), unless one of the classes is absent."""
    figure, axes = _figure(heading, "ROC", 4.6)
    axes.plot([0, 1], [0, 1], color=_GREY, linestyle="--")
    for name, (scores, positive) in curves.items():
        if positive.any() and not positive.all():
            false, true = roc_curve(scores, positive)
            area = np.trapezoid(true, false)
            axes.plot(false, true, label=f"{name}, area {area:.3f}")
    _unit_square(axes, "1 - specificity", "sensitivity")
    # Matplotlib warns of a legend without entries.
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right", frameon=False, fontsize=8 if len(curves) < 8 else 5)
    figure.savefig(path, dpi=_DPI)


def roc_curve(scores: Array, positive: NDArray[np.bool_]) -> tuple[Array, Array]:
    """False and true positive rates from (0, 0) to (1, 1), one point per distinct score.

    >>> false, true = roc_curve(np.array([0.9, 0.4]), np.array([True, False]))
    >>> false.tolist(), true.tolist()
    ([0.0, 0.0, 1.0], [0.0, 1.0, 1.0])
    """
    order = np.argsort(-scores, kind="stable")
    scores, positive = scores[order], positive[order]
    # Equal scores pass a threshold together, so only the last of them is a point.
    last = np.r_[scores[1:] != scores[:-1], True]
    true = np.cumsum(positive)[last] / max(positive.sum(), 1)
    false = np.cumsum(~positive)[last] / max((~positive).sum(), 1)
    return np.r_[0.0, false], np.r_[0.0, true]


def _figure(heading: str, title: str, side: float) -> tuple[Figure, Axes]:
    """A new figure with its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Not pyplot: it keeps every figure until it is closed, and wants a display.
    figure = Figure(figsize=(side, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(f"{title}\n{heading}\nnot a medical device", fontsize=9)
    return figure, axes


def _unit_square(axes: Axes, x: str, y: str) -> None:
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel=x, ylabel=y, aspect="equal")
    axes.grid(alpha=0.2)
