"""From answers to an evaluation: figures with intervals by person, and what to draw. Pure.

A trained network asked about a data set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo.decision import decided_index
from xai_demo.training import findings, metrics, trainer
from xai_demo.training.calibration import softmax
from xai_demo.training.recipe import Answers, Evaluation

if TYPE_CHECKING:
    from torch import nn

    from xai_demo.records import Model
    from xai_demo.training.datasets import Dataset, Split
    from xai_demo.training.metrics import Array, Labels


def evaluation(model: Model, data: Dataset, probabilities: Array, targets: Labels) -> Evaluation:
    """Of the test part of a data set; labels are exclusive or independent as the data has them."""
    groups = [data.groups[i] for i in data.indices("test")]
    if data.is_independent:
        decided = findings.decided(model, probabilities)
        figures = findings.figures(probabilities, targets, decided, groups, model)
    else:
        decided = np.array([decided_index(model, row) for row in probabilities])
        figures = _exclusive(model, probabilities, targets, decided, groups)
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
    answers = Answers(probabilities=probabilities, targets=targets, decided=decided)
    return Evaluation(result=result, answers={"": answers})


def _exclusive(
    model: Model, probabilities: Array, targets: Labels, decided: Labels, groups: list[str]
) -> dict[str, Any]:
    normal = model.labels.index(model.normal_label) if model.normal_label else None
    overall = metrics.with_intervals(
        lambda w: metrics.summary(probabilities, targets, decided, w, normal), groups
    )
    each = metrics.with_intervals(
        lambda w: {
            f"{label}\n{name}": value
            for label, row in zip(
                model.labels,
                metrics.per_class(probabilities, targets, decided, w).values(),
                strict=True,
            )
            for name, value in row.items()
        },
        groups,
    )
    by_label: dict[str, dict[str, Any]] = {label: {} for label in model.labels}
    for key, value in metrics.as_json(each).items():
        label, name = key.split("\n")
        by_label[label][name] = value
    counts = metrics.confusion(targets, decided, np.ones(len(targets)), len(model.labels))
    return {
        "metrics": metrics.as_json(overall),
        "per_class": by_label,
        "confusion": {"labels": list(model.labels), "counts": counts.astype(int).tolist()},
    }


def probabilities(
    network: nn.Module, model: Model, data: Dataset, split: Split
) -> tuple[Array, Labels]:
    """Calibrated, (samples, labels), and the targets of one part."""
    logits, targets = trainer.outputs(network, data, split)
    scaled = logits.numpy().astype(np.float64) / model.temperature
    of = softmax if model.activation == "softmax" else findings.sigmoid
    return of(scaled), targets.numpy()


def answered(network: nn.Module, model: Model, data: Dataset) -> Evaluation:
    """What it makes of the test part."""
    return evaluation(model, data, *probabilities(network, model, data, "test"))
