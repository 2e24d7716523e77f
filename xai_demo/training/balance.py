"""Labels of unequal size: what can be done about them, as one choice of five.

"none"; "weights": a label counts in inverse proportion to its size; "focal": what is easy counts
less; "oversampling": all labels are drawn alike; "smote": the last layer is fitted anew on features
between which SMOTE has made more of the rare labels (Chawla et al. 2002).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo.errors import TrainingError, UnknownNameError

if TYPE_CHECKING:
    from xai_demo.records import Floats
    from xai_demo.training.metrics import Array, Labels
    from xai_demo.training.schedule import Recipe, Schedule

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
