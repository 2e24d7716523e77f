"""Class imbalance: label weights, sampling probabilities, and a last layer refitted with SMOTE.

A caller chooses one of five ways: "none"; "weights" (a label weighs inversely to its frequency);
"focal" (easy samples count less); "oversampling" (all labels are drawn equally often); or "smote":
the last layer is refitted on frozen features, among which SMOTE has synthesised more of the rare
labels (Chawla et al. 2002).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo import networks
from xai_demo.errors import TrainingError, UnknownNameError

if TYPE_CHECKING:
    from torch import nn

    from xai_demo.records import Floats, Model
    from xai_demo.training.metrics import Array, Labels
    from xai_demo.training.recipe import Recipe, Schedule

_NO_BALANCE: dict[str, Any] = {
    "sampling_power": 1.0,
    "label_weight_power": 0.0,
    "focal_gamma": 0.0,
    "smote": False,
}
BALANCES: dict[str, dict[str, Any]] = {
    "none": _NO_BALANCE,
    "weights": _NO_BALANCE | {"label_weight_power": 1.0},
    "focal": _NO_BALANCE | {"focal_gamma": 2.0},
    "oversampling": _NO_BALANCE | {"sampling_power": 0.0},
    "smote": _NO_BALANCE | {"smote": True},
}
# Without a limit, a handful of samples of a rare label would dominate the loss.
MAX_LABEL_WEIGHT = 10.0
SMOTE_NEIGHBOURS = 5  # as in Chawla et al. 2002
# C of the logistic regression.
_INVERSE_PENALTY = 0.1


def balanced_schedule(recipe: Recipe, balance: str | None) -> Schedule:
    """The recipe's schedule with a choice of `BALANCES`; None leaves it as it is.

    Raises UnknownNameError for another name and TrainingError for recipes of lung sounds.
    """
    if balance is None:
        return recipe.schedule
    if balance not in BALANCES:
        raise UnknownNameError("balance", balance, BALANCES)
    if recipe.n_sources:
        raise TrainingError(
            f"{recipe.model.name} balances its samples itself; use --balance with other recipes "
            "only."
        )
    return dataclasses.replace(recipe.schedule, **BALANCES[balance])


def label_weights(targets: Labels, n_labels: int, power: float) -> Floats | None:
    """The weight of each label in the loss, (labels,); None if all weigh the same.

    Weights of exclusive labels average to one over the samples. For independent labels, a weight is
    that of a sample with the label relative to one without: (absent / present) ** power.

    >>> label_weights(np.array([0, 0, 1]), 2, 1.0).tolist()
    [0.75, 1.5]
    """
    if not power:
        return None
    if targets.ndim == 2:
        present = np.maximum(targets.sum(axis=0), 1)
        ratios = ((len(targets) - present) / present).astype(np.float64) ** power
        # Never below 1: where it is present, even a common label counts no less than where absent.
        clipped: Floats = np.clip(ratios, 1.0, MAX_LABEL_WEIGHT).astype(np.float32)
        return clipped
    # A label without samples counts as one, so that nothing is divided by zero.
    sizes = np.maximum(np.bincount(targets, minlength=n_labels), 1).astype(np.float64)
    raw = np.minimum(sizes**-power / sizes.max() ** -power, MAX_LABEL_WEIGHT)
    weights: Floats = (raw * len(targets) / (raw * sizes).sum()).astype(np.float32)
    return weights


def sampling_probabilities(targets: Labels, n_labels: int, power: float) -> Array:
    """The probability of drawing each sample, (samples,).

    Labels are then drawn in proportion to (their size) ** power. A sample with several labels
    counts as one of its rarest; samples without any count as a label of their own.

    >>> sampling_probabilities(np.array([0, 0, 0, 1]), 2, 0.0).round(3).tolist()
    [0.167, 0.167, 0.167, 0.5]
    """
    if targets.ndim == 1:
        sizes = np.bincount(targets, minlength=n_labels).astype(float)
        # Times the size of the label, this is its size to the power.
        chance = sizes[targets] ** (power - 1)
    else:
        sizes = np.maximum(targets.sum(axis=0), 1).astype(float)
        n_without = max(int((targets.sum(axis=1) == 0).sum()), 1)
        # Infinite for a label that the sample lacks, so also for a sample without any.
        rarest = np.where(targets > 0, sizes, np.inf).min(axis=1)
        chance = np.where(np.isfinite(rarest), rarest, n_without) ** (power - 1)
    result: Array = chance / chance.sum()
    return result


def split_last_layer(model: Model, network: nn.Module) -> tuple[nn.Module, nn.Linear]:
    """Everything up to the pooled features, and the last linear layer; raises TrainingError."""
    from torch import nn

    cut = networks.cut(model, network)
    parts = list(cut.head.children())
    if not parts or not isinstance(parts[-1], nn.Linear):
        raise TrainingError(
            f"{model.architecture} does not end in one linear layer, which SMOTE needs; resnet18 "
            "for example does."
        )
    return nn.Sequential(cut.features, *parts[:-1]).eval(), parts[-1]


def fit_balanced_layer(features: Array, targets: Labels, n_labels: int) -> tuple[Floats, Floats]:
    """Weight (labels, features) and bias (labels,) of a logistic regression after SMOTE.

    Independent labels are fitted one by one; a label without samples gets zeros, that is a
    probability of one half.
    """
    # The offset keeps features that never vary from dividing by zero.
    mean, deviation = features.mean(axis=0), features.std(axis=0) + 1e-6
    scaled = (features - mean) / deviation
    if targets.ndim == 1:
        rows = _fit_regression(*_oversample(scaled, targets), n_labels)
    else:
        fits = [_fit_regression(*_oversample(scaled, column), 2) for column in targets.T]
        # A sigmoid takes the difference of what a softmax over absent and present would take.
        rows = (
            np.stack([weight[1] - weight[0] for weight, _ in fits]),
            np.array([bias[1] - bias[0] for _, bias in fits]),
        )
    # The layer gets raw features, so the scaling goes into its weights.
    weight = rows[0] / deviation
    bias = rows[1] - weight @ mean
    return weight.astype(np.float32), bias.astype(np.float32)


def _oversample(features: Array, targets: Labels) -> tuple[Array, Labels]:
    """Synthesise samples until all labels are as frequent as the most frequent one."""
    # Of the extra `train`, which no other balance needs.
    from imblearn.over_sampling import SMOTE

    sizes = np.bincount(targets)
    # SMOTE interpolates between neighbours, so a label with a single sample stays as it is.
    goals = {k: int(sizes.max()) for k, n in enumerate(sizes) if 1 < n < sizes.max()}
    if not goals:
        return features, targets
    # A label of n samples has only n - 1 neighbours for each.
    neighbours = min(SMOTE_NEIGHBOURS, min(int(sizes[k]) for k in goals) - 1)
    smote = SMOTE(sampling_strategy=goals, k_neighbors=neighbours, random_state=0)
    balanced: tuple[Array, Labels] = smote.fit_resample(features, targets)
    return balanced


def _fit_regression(features: Array, targets: Labels, n_labels: int) -> tuple[Array, Array]:
    """One row per label, as a softmax takes them: weight (labels, features), bias (labels,)."""
    from sklearn.linear_model import LogisticRegression

    weight, bias = np.zeros((n_labels, features.shape[1])), np.zeros(n_labels)
    present = np.unique(targets)
    if len(present) < 2:
        return weight, bias
    model = LogisticRegression(C=_INVERSE_PENALTY, max_iter=500)
    model.fit(features, targets)
    # With two labels scikit-learn fits one row, that of the second.
    if len(present) == 2:
        weight[present[1]], bias[present[1]] = model.coef_[0], model.intercept_[0]
    else:
        weight[present], bias[present] = model.coef_, model.intercept_
    absent = np.setdiff1d(np.arange(n_labels), present)
    # Low enough that a label without samples is never the answer.
    bias[absent] = bias[present].min() - 10
    return weight, bias
