"""Logistic regression on pooled features, told what is heard and, of some windows, where.

Standardisation is folded into the weights that come out. The features of `MeanAndMost` are sums of
what the map's columns add to them, so a logit is the sum of what the columns add to it, which is
HiResCAM's heat summed over frequency. Of windows in which it is known when an event sounds, that
sum is asked to come from the columns where it does: the classifier that a heatmap explains then
points at the event, at next to no cost in what it answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xai_demo.records import Floats

_RIDGE = 0.1  # on weights of standardised features, against a loss that is a mean
_POINTING = 1.0  # what pointing counts against answering
_SHARPNESS = 2.0  # of the columns' softmax: how far ahead the event's columns have to be
_TOLERANCE = 1e-4  # of the gradient of a loss that is a mean over the samples
_FLAT = 1e-6  # a feature that varies less is left as it is
_LEAST = 1e-9  # a probability whose logarithm is still taken


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFeatures:
    """What one source teaches the classifier."""

    features: Floats  # (samples, features)
    kinds: NDArray[np.int64]
    groups: tuple[str, ...]  # whose they are
    weight: float  # of the source against others
    power: float  # a class counts by its size to this power
    labels: Floats | None = None  # (samples, 4), where a sample is not wholly of one kind

    def weights(self) -> NDArray[np.float64]:
        """Of every sample; they sum up to `weight`."""
        sizes = np.bincount(self.kinds, minlength=4).astype(float)
        each = sizes[self.kinds] ** (self.power - 1)
        weights: NDArray[np.float64] = self.weight * each / each.sum()
        return weights

    def of(self, index: NDArray[np.int64]) -> SourceFeatures:
        """Some of the samples."""
        return SourceFeatures(
            features=self.features[index],
            kinds=self.kinds[index],
            groups=tuple(self.groups[i] for i in index),
            weight=self.weight,
            power=self.power,
            labels=None if self.labels is None else self.labels[index],
        )

    def wanted(self) -> Floats:
        """Each sample's label as probabilities, (samples, 4)."""
        rows: Floats = np.eye(4, dtype=np.float32)[self.kinds]
        return rows if self.labels is None else self.labels


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalisedWindows:
    """Windows with one kind of event, and where in them it sounds."""

    parts: Floats  # (windows, columns, features): what each column adds to the features
    inside: NDArray[np.bool_]  # (windows, columns): where the event is
    kinds: NDArray[np.int64]

    def against(self, scale: NDArray[np.float64]) -> tuple[_PointingLoss, ...]:
        """The task of pointing for each kind, on features that are divided by `scale`."""
        sizes = np.bincount(self.kinds, minlength=1).astype(float)
        shares = sizes[self.kinds] ** -0.5  # as the square root of the kind's size
        shares *= _POINTING / max(shares.sum(), _LEAST)
        return tuple(
            _PointingLoss(
                kind=int(kind),
                parts=(self.parts[chosen] / scale).astype(np.float32),
                inside=self.inside[chosen],
                shares=shares[chosen].astype(np.float32)[:, None],
            )
            for kind in np.unique(self.kinds)
            for chosen in [self.kinds == kind]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _PointingLoss:
    """Minus the log of the softmax's mass inside the events, and its gradient."""

    kind: int
    parts: Floats  # (windows, columns, features), standardised
    inside: NDArray[np.bool_]  # (windows, columns)
    shares: Floats  # (windows, 1): what each window counts

    def __call__(self, weight: Floats) -> tuple[float, Floats]:
        """For the weights of the kind, (features,)."""
        added = _SHARPNESS * (self.parts @ weight)
        added -= added.max(axis=1, keepdims=True)
        mass = np.exp(added)
        mass /= mass.sum(axis=1, keepdims=True)
        hit = (mass * self.inside).sum(axis=1, keepdims=True) + _LEAST
        over = _SHARPNESS * self.shares * (mass - mass * self.inside / hit)
        slope: Floats = over.ravel() @ self.parts.reshape(-1, self.parts.shape[2])
        return float(-(self.shares * np.log(hit)).sum(dtype=np.float64)), slope


def fit_regression(
    learnt: Sequence[SourceFeatures],
    start: tuple[Floats, Floats] | None = None,
    located: LocalisedWindows | None = None,
) -> tuple[Floats, Floats]:
    """Weights (4, features) and biases (4,) on the features as they are.

    Weighted multinomial logistic regression on standardised features, in float32 by L-BFGS, which
    also learns to point where the windows are located; `start`, a result for nearly the same
    samples, makes it quicker and hardly changes it.
    """
    from scipy.optimize import minimize

    inputs = np.concatenate([each.features for each in learnt])
    weights = np.concatenate([each.weights() for each in learnt])
    weights /= weights.sum()
    labels = np.concatenate([each.wanted() for each in learnt])
    classes = np.flatnonzero(labels.any(axis=0))
    mean = weights @ inputs
    scale = np.sqrt(weights @ (inputs - mean.astype(np.float32)) ** 2)
    scale = np.where(scale > _FLAT, scale, 1.0)
    problem = _Objective(
        inputs=((inputs - mean) / scale).astype(np.float32),
        wanted=(labels[:, classes] * weights[:, None]).astype(np.float32),
        weights=weights.astype(np.float32)[:, None],
        ridge=_RIDGE,
        pointing={
            int(np.flatnonzero(classes == task.kind)[0]): task
            for task in (located.against(scale) if located else ())
            if task.kind in classes
        },
    )
    first = np.zeros((len(classes), len(mean) + 1))
    if start is not None:
        first[:, :-1] = start[0][classes] * scale
        first[:, -1] = start[1][classes] + start[0][classes] @ mean
    options = {"maxiter": 300, "gtol": _TOLERANCE, "ftol": 1e-9, "maxcor": 20}
    found = minimize(problem, first.ravel(), jac=True, method="L-BFGS-B", options=options)
    solved = found.x.reshape(len(classes), -1)
    weight = np.zeros((4, inputs.shape[1]), np.float32)
    bias = np.full(4, -20.0, np.float32)  # a class that nobody taught
    weight[classes] = solved[:, :-1] / scale
    bias[classes] = solved[:, -1] - (solved[:, :-1] / scale) @ mean
    return weight, bias


@dataclass(frozen=True, slots=True, kw_only=True)
class _Objective:
    """Loss and gradient of the regression for weights and biases, (classes x (features + 1),)."""

    inputs: Floats  # (samples, features), standardised
    wanted: Floats  # (samples, classes), each sample's weight at its class
    weights: Floats  # (samples, 1), which sum up to one
    ridge: float
    pointing: Mapping[int, _PointingLoss]  # by class

    def __call__(self, flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        solved = flat.astype(np.float32).reshape(self.wanted.shape[1], -1)
        weight, bias = solved[:, :-1], solved[:, -1]
        logits = self.inputs @ weight.T + bias
        logits -= logits.max(axis=1, keepdims=True)
        shares = np.exp(logits)
        total = shares.sum(axis=1, keepdims=True)
        loss = float((self.weights * np.log(total)).sum(dtype=np.float64))
        loss -= float((self.wanted * logits).sum(dtype=np.float64))
        loss += self.ridge / 2 * float((weight.astype(np.float64) ** 2).sum())
        over = shares / total * self.weights - self.wanted
        slope = np.column_stack([over.T @ self.inputs + self.ridge * weight, over.sum(axis=0)])
        for row, task in self.pointing.items():
            missed, steep = task(weight[row])
            loss += missed
            slope[row, :-1] += steep
        return loss, slope.astype(np.float64).ravel()
