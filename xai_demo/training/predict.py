"""SamplePredictions of a trained network on a dataset, and their evaluation.

Figures come with 95 % bootstrap intervals over patients.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo.decision import decided_label_index
from xai_demo.training import findings, metrics, trainer
from xai_demo.training.calibration import softmax
from xai_demo.training.recipe import Evaluation, SamplePredictions

if TYPE_CHECKING:
    from torch import nn

    from xai_demo.records import Model
    from xai_demo.training.datasets import Dataset, Split
    from xai_demo.training.metrics import Array, Labels


def split_probabilities(
    network: nn.Module, model: Model, data: Dataset, split: Split
) -> tuple[Array, Labels]:
    """Calibrated probabilities (samples, labels) and the targets of one split."""
    logits, targets = trainer.logits_and_targets(network, data, split)
    # Shifts of independent labels are in the bias already, see `train.calibrate_network`.
    scaled = logits.numpy().astype(np.float64) / model.temperature
    activation = softmax if model.activation == "softmax" else findings.sigmoid
    return activation(scaled), targets.numpy()


def evaluate_test_split(network: nn.Module, model: Model, data: Dataset) -> Evaluation:
    """Run a network on the test split and evaluate its predictions."""
    return evaluate_predictions(model, data, *split_probabilities(network, model, data, "test"))


def evaluate_predictions(
    model: Model, data: Dataset, probabilities: Array, targets: Labels
) -> Evaluation:
    """Evaluate predictions on the test split, in its order, of exclusive or independent labels."""
    groups = [data.groups[i] for i in data.indices("test")]
    if data.is_independent:
        decisions = findings.decide(model, probabilities)
        figures = findings.figures(probabilities, targets, decisions, groups, model)
    else:
        decisions = np.array([decided_label_index(model, row) for row in probabilities])
        figures = _exclusive_figures(model, probabilities, targets, decisions, groups)
    result = {
        "model": model.name,
        "data": data.name,
        "split": "test",
        "n": len(targets),
        "groups": len(set(groups)),
        **figures,
        "threshold": dict(model.operating_points),
        "notes": list(data.notes),
    }
    predictions = SamplePredictions(
        probabilities=probabilities, targets=targets, decisions=decisions
    )
    # The empty name puts the plots into the folder of the evaluation itself.
    return Evaluation(result=result, predictions={"": predictions})


def part_figures(result: dict[str, Any]) -> dict[str, Any]:
    """What the result of an evaluation says of one of its parts."""
    return {name: result[name] for name in ("n", "groups", "metrics", "per_class", "confusion")}


def _exclusive_figures(
    model: Model, probabilities: Array, targets: Labels, decisions: Labels, groups: list[str]
) -> dict[str, Any]:
    """`metrics`, `per_class` and `confusion` of one label per sample."""
    normal = model.labels.index(model.normal_label) if model.normal_label else None
    overall = metrics.with_intervals(
        lambda weights: metrics.summary(probabilities, targets, decisions, weights, normal), groups
    )

    # All labels' figures in one dictionary, so that one bootstrap serves them all.
    def flat_per_class(weights: Array) -> dict[str, float]:
        rows = metrics.per_class(probabilities, targets, decisions, weights).values()
        return {
            # No label contains a line break, so the key can be split again.
            f"{label}\n{name}": value
            for label, row in zip(model.labels, rows, strict=True)
            for name, value in row.items()
        }

    by_label: dict[str, dict[str, Any]] = {label: {} for label in model.labels}
    for key, value in metrics.as_json(metrics.with_intervals(flat_per_class, groups)).items():
        label, name = key.split("\n")
        by_label[label][name] = value
    counts = metrics.confusion(targets, decisions, np.ones(len(targets)), len(model.labels))
    return {
        "metrics": metrics.as_json(overall),
        "per_class": by_label,
        "confusion": {"labels": list(model.labels), "counts": counts.astype(int).tolist()},
    }
