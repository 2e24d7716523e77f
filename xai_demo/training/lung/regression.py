"""Logistic regression on pooled features, trained on labels and, for some windows, on locations.

Standardisation is folded into the returned weights. The features of `MeanMaxPool` are sums of the
contributions of the map's columns, so a logit is the sum of the columns' contributions to it, which
is HiResCAM's heatmap summed over frequency. For windows in which it is known when an event sounds,
an additional loss asks that sum to come from the columns of the event. The classifier that a
heatmap explains then points at the event, at almost no cost in accuracy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xai_demo.records import Floats

# Penalty on weights of standardised features, for a loss that is a mean.
_RIDGE = 0.1
# Weight of the pointing loss against that of the labels.
_POINTING = 1.0
# Sharpness of the softmax over columns: how far ahead the event's columns have to be.
_SHARPNESS = 2.0
# Tolerance on the gradient of a loss that is a mean over the samples.
_TOLERANCE = 1e-4
# Features that vary less are not standardised.
_MIN_DEVIATION = 1e-6
# The smallest probability whose logarithm is taken.
_EPSILON = 1e-9
# Bias of a class without any sample: it is never predicted.
_ABSENT_BIAS = -20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFeatures:
    """The features and labels of one source of training data."""

    features: Floats  # (samples, features)
    kinds: NDArray[np.int64]
    groups: tuple[str, ...]  # the patient of each sample
    weight: float  # of the source against others
    # A class counts by its size to this power: 0 balances the classes.
    power: float
    # (samples, 4), where a sample may be of several classes in part.
    labels: Floats | None = None

    def weights(self) -> NDArray[np.float64]:
        """The weight of every sample; they sum to `weight`."""
        sizes = np.bincount(self.kinds, minlength=4).astype(float)
        each = sizes[self.kinds] ** (self.power - 1)
        weights: NDArray[np.float64] = self.weight * each / each.sum()
        return weights

    def subset(self, index: NDArray[np.int64]) -> SourceFeatures:
        """The samples at these indices."""
        return SourceFeatures(
            features=self.features[index],
            kinds=self.kinds[index],
            groups=tuple(self.groups[i] for i in index),
            weight=self.weight,
            power=self.power,
            labels=None if self.labels is None else self.labels[index],
        )

    def label_probabilities(self) -> Floats:
        """Each sample's label as probabilities, (samples, 4)."""
        rows: Floats = np.eye(4, dtype=np.float32)[self.kinds]
        return rows if self.labels is None else self.labels


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalisedWindows:
    """Windows with one kind of event, and where in each it sounds."""

    # Contribution of each column to the features, (windows, columns, features).
    contributions: Floats
    # Whether a column is in the event, (windows, columns).
    inside: NDArray[np.bool_]
    kinds: NDArray[np.int64]

    def pointing_losses(self, scale: NDArray[np.float64]) -> tuple[_PointingLoss, ...]:
        """One loss per kind of event, on features divided by `scale`."""
        sizes = np.bincount(self.kinds, minlength=1).astype(float)
        # A kind counts by the square root of its size, so that the common one does not dominate.
        shares = sizes[self.kinds] ** -0.5
        shares *= _POINTING / max(shares.sum(), _EPSILON)
        return tuple(
            _PointingLoss(
                kind=int(kind),
                contributions=(self.contributions[chosen] / scale).astype(np.float32),
                inside=self.inside[chosen],
                shares=shares[chosen].astype(np.float32)[:, None],
            )
            for kind in np.unique(self.kinds)
            for chosen in [self.kinds == kind]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _PointingLoss:
    """Minus the log of the softmax's mass inside the events, and its gradient.

    The softmax is over the columns' contributions to the logit of the kind.
    """

    kind: int
    # (windows, columns, features), standardised.
    contributions: Floats
    inside: NDArray[np.bool_]  # (windows, columns)
    # The weight of each window, (windows, 1).
    shares: Floats

    def __call__(self, weight: Floats) -> tuple[float, Floats]:
        """Loss and gradient for the weights of the kind, (features,)."""
        logits = _SHARPNESS * (self.contributions @ weight)
        logits -= logits.max(axis=1, keepdims=True)
        mass = np.exp(logits)
        mass /= mass.sum(axis=1, keepdims=True)
        hit = (mass * self.inside).sum(axis=1, keepdims=True) + _EPSILON
        over = _SHARPNESS * self.shares * (mass - mass * self.inside / hit)
        gradient: Floats = over.ravel() @ self.contributions.reshape(
            -1, self.contributions.shape[2]
        )
        return float(-(self.shares * np.log(hit)).sum(dtype=np.float64)), gradient


def fit_regression(
    sources: Sequence[SourceFeatures],
    start: tuple[Floats, Floats] | None = None,
    localised: LocalisedWindows | None = None,
) -> tuple[Floats, Floats]:
    """Weights (4, features) and biases (4,) for features that are not standardised.

    Weighted multinomial logistic regression on standardised features, in float32 by L-BFGS. With
    `localised` windows, it also learns to point at their events. Starting from a result for nearly
    the same samples makes it faster and hardly changes the result.
    """
    from scipy.optimize import minimize

    inputs = np.concatenate([each.features for each in sources])
    weights = np.concatenate([each.weights() for each in sources])
    weights /= weights.sum()
    labels = np.concatenate([each.label_probabilities() for each in sources])
    # Biases have no penalty: that of a class without samples would fall without end.
    classes = np.flatnonzero(labels.any(axis=0))
    mean = weights @ inputs
    scale = np.sqrt(weights @ (inputs - mean.astype(np.float32)) ** 2)
    scale = np.where(scale > _MIN_DEVIATION, scale, 1.0)
    problem = _Objective(
        inputs=((inputs - mean) / scale).astype(np.float32),
        targets=(labels[:, classes] * weights[:, None]).astype(np.float32),
        weights=weights.astype(np.float32)[:, None],
        ridge=_RIDGE,
        pointing={
            int(np.flatnonzero(classes == task.kind)[0]): task
            for task in (localised.pointing_losses(scale) if localised else ())
            if task.kind in classes
        },
    )
    first = np.zeros((len(classes), len(mean) + 1))
    # The start in terms of standardised features.
    if start is not None:
        first[:, :-1] = start[0][classes] * scale
        first[:, -1] = start[1][classes] + start[0][classes] @ mean
    options = {"maxiter": 300, "gtol": _TOLERANCE, "ftol": 1e-9, "maxcor": 20}
    solution = minimize(problem, first.ravel(), jac=True, method="L-BFGS-B", options=options)
    # Back to features that are not standardised.
    solved = solution.x.reshape(len(classes), -1)
    weight = np.zeros((4, inputs.shape[1]), np.float32)
    bias = np.full(4, _ABSENT_BIAS, np.float32)
    weight[classes] = solved[:, :-1] / scale
    bias[classes] = solved[:, -1] - (solved[:, :-1] / scale) @ mean
    return weight, bias


@dataclass(frozen=True, slots=True, kw_only=True)
class _Objective:
    """Loss and gradient of the regression for weights and biases, (classes x (features + 1),)."""

    inputs: Floats  # (samples, features), standardised
    # (samples, classes), each sample's weight at its class.
    targets: Floats
    weights: Floats  # (samples, 1), which sum to one
    ridge: float
    pointing: Mapping[int, _PointingLoss]  # by class

    def __call__(self, flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        solved = flat.astype(np.float32).reshape(self.targets.shape[1], -1)
        weight, bias = solved[:, :-1], solved[:, -1]
        logits = self.inputs @ weight.T + bias
        logits -= logits.max(axis=1, keepdims=True)
        shares = np.exp(logits)
        total = shares.sum(axis=1, keepdims=True)
        loss = float((self.weights * np.log(total)).sum(dtype=np.float64))
        loss -= float((self.targets * logits).sum(dtype=np.float64))
        loss += self.ridge / 2 * float((weight.astype(np.float64) ** 2).sum())
        over = shares / total * self.weights - self.targets
        slope = np.column_stack([over.T @ self.inputs + self.ridge * weight, over.sum(axis=0)])
        for row, task in self.pointing.items():
            pointing_loss, gradient = task(weight[row])
            loss += pointing_loss
            slope[row, :-1] += gradient
        return loss, slope.astype(np.float64).ravel()
