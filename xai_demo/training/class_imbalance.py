"""Labels of unequal size: what can be done about them, as one choice of five.

"none"; "weights": a label counts in inverse proportion to its size; "focal": what is easy counts
less; "oversampling": all labels are drawn alike; "smote": the last layer is fitted anew on features
between which SMOTE has made more of the rare labels (Chawla et al. 2002).

The last layer fitted anew on balanced features: SMOTE (Chawla et al. 2002), frozen features.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo import networks
from xai_demo.errors import TrainingError, UnknownNameError
from xai_demo.training import trainer

if TYPE_CHECKING:
    from torch import nn

    from xai_demo.records import Floats, Model
    from xai_demo.training.datasets import Dataset
    from xai_demo.training.metrics import Array, Labels
    from xai_demo.training.recipe import Recipe, Schedule

_PLAIN: dict[str, Any] = {"sampling_power": 1.0, "weighted": 0.0, "focal": 0.0, "smote": False}
BALANCES: dict[str, dict[str, Any]] = {
    "none": _PLAIN,
    "weights": _PLAIN | {"weighted": 1.0},
    "focal": _PLAIN | {"focal": 2.0},
    "oversampling": _PLAIN | {"sampling_power": 0.0},
    "smote": _PLAIN | {"smote": True},
}
MOST_WEIGHT = 10.0  # of a rare label, so that a handful of pictures is not all that counts


def chosen(recipe: Recipe, balance: str | None) -> Schedule:
    """The recipe's schedule with that choice, None: its own. Raises UnknownNameError."""
    if balance is None:
        return recipe.schedule
    if balance not in BALANCES:
        raise UnknownNameError("balance", balance, BALANCES)
    if recipe.sources:
        raise TrainingError(
            f"{recipe.model.name} balances its lessons itself, wanted: no --balance, or a recipe "
            "of pictures."
        )
    return dataclasses.replace(recipe.schedule, **BALANCES[balance])


def label_weights(targets: Labels, n_labels: int, power: float) -> Floats | None:
    """How much each label counts, (labels,); None: all alike.

    Of exclusive labels the mean over samples is one; of independent ones it is how many times as
    much a present label counts as an absent one, absent by present to that power.
    """
    if not power:
        return None
    if targets.ndim == 2:
        present = np.maximum(targets.sum(axis=0), 1)
        ratios = ((len(targets) - present) / present).astype(np.float64) ** power
        bounded: Floats = np.clip(ratios, 1.0, MOST_WEIGHT).astype(np.float32)
        return bounded
    sizes = np.maximum(np.bincount(targets, minlength=n_labels), 1).astype(np.float64)
    raw = np.minimum(sizes**-power / sizes.max() ** -power, MOST_WEIGHT)
    weights: Floats = (raw * len(targets) / (raw * sizes).sum()).astype(np.float32)
    return weights


def chances(targets: Labels, n_labels: int, power: float) -> Array:
    """How likely each sample is drawn: labels in proportion to (their size) ** power, (samples,).

    A sample of several labels counts as its rarest; one without any as of a label of its own.
    """
    if targets.ndim == 1:
        sizes = np.bincount(targets, minlength=n_labels).astype(float)
        chance = sizes[targets] ** (power - 1)
    else:
        sizes = np.maximum(targets.sum(axis=0), 1).astype(float)
        none = max(int((targets.sum(axis=1) == 0).sum()), 1)
        each = np.where(targets > 0, sizes, np.inf).min(axis=1)
        chance = np.where(np.isfinite(each), each, none) ** (power - 1)
    result: Array = chance / chance.sum()
    return result


NEIGHBOURS = 5  # between which features are made, as published
_STRENGTH = 0.1  # of the fitted last layer, inverse to its penalty


def last_layer(model: Model, network: nn.Module) -> tuple[nn.Module, nn.Linear]:
    """(everything up to the pooled features, the last linear layer); raises TrainingError."""
    from torch import nn

    cut = networks.cut(model, network)
    parts = list(cut.head.children())
    if not parts or not isinstance(parts[-1], nn.Linear):
        raise TrainingError(
            f"{model.architecture} does not end in one linear layer, wanted for SMOTE: one that "
            "does, as resnet18."
        )
    return nn.Sequential(cut.features, *parts[:-1]).eval(), parts[-1]


def refit(model: Model, network: nn.Module, data: Dataset) -> None:
    """Fit the last layer anew on balanced features of the training part."""
    import torch

    before, last = last_layer(model, network)
    features, _ = trainer.outputs(before, data, "train")
    targets = data.targets[data.indices("train")]
    weight, bias = fitted(features.numpy().astype(np.float64), targets, len(model.labels))
    with torch.no_grad():
        last.weight.copy_(torch.from_numpy(weight))
        last.bias.copy_(torch.from_numpy(bias))


def fitted(features: Array, targets: Labels, n_labels: int) -> tuple[Floats, Floats]:
    """Weight (labels, features) and bias (labels,) of a logistic regression after SMOTE.

    Independent labels are fitted one by one; one that no sample has stays at nought and even odds.
    """
    mean, deviation = features.mean(axis=0), features.std(axis=0) + 1e-6
    scaled = (features - mean) / deviation
    if targets.ndim == 1:
        rows = _regression(*_resampled(scaled, targets), n_labels)
    else:
        each = [_regression(*_resampled(scaled, column), 2) for column in targets.T]
        rows = (
            np.stack([weight[1] - weight[0] for weight, _ in each]),
            np.array([bias[1] - bias[0] for _, bias in each]),
        )
    weight = rows[0] / deviation
    bias = rows[1] - weight @ mean
    return weight.astype(np.float32), bias.astype(np.float32)


def _resampled(features: Array, targets: Labels) -> tuple[Array, Labels]:
    """As many of every label as of the largest; labels of one sample stay as they are."""
    from imblearn.over_sampling import SMOTE

    sizes = np.bincount(targets)
    wanted = {k: int(sizes.max()) for k, n in enumerate(sizes) if 1 < n < sizes.max()}
    if not wanted:
        return features, targets
    neighbours = min(NEIGHBOURS, min(int(sizes[k]) for k in wanted) - 1)
    made = SMOTE(sampling_strategy=wanted, k_neighbors=neighbours, random_state=0)
    more: tuple[Array, Labels] = made.fit_resample(features, targets)
    return more


def _regression(features: Array, targets: Labels, n_labels: int) -> tuple[Array, Array]:
    """One row a label, as a softmax takes them: (labels, features), (labels,)."""
    from sklearn.linear_model import LogisticRegression

    weight, bias = np.zeros((n_labels, features.shape[1])), np.zeros(n_labels)
    present = np.unique(targets)
    if len(present) < 2:
        return weight, bias
    model = LogisticRegression(C=_STRENGTH, max_iter=500)
    model.fit(features, targets)
    if len(present) == 2:
        weight[present[1]], bias[present[1]] = model.coef_[0], model.intercept_[0]
    else:
        weight[present], bias[present] = model.coef_, model.intercept_
    absent = np.setdiff1d(np.arange(n_labels), present)
    bias[absent] = bias[present].min() - 10  # never the answer
    return weight, bias
