"""The classifier that goes with the network: one for all hospitals, on features that stay as is.

Logistic regression on the pooled features of SPRSound's events and whole windows, ICBHI's cycles,
Fraiwan's recordings and, twice as heavy as any of these, of windows varied as in training: with
other stethoscopes, noise and synthesised events, which is what carries over to other hospitals.
Rare classes count more. Standardisation is folded into the network's last layer. As only this
layer sees Fraiwan, cross-validating it over Fraiwan's patients tells how the whole procedure does
there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from xai_demo import spectrum
from xai_demo.decision import over_windows
from xai_demo.training.breathing import BOTH, CRACKLE, WHEEZE, kind_of
from xai_demo.training.calibration import softmax
from xai_demo.training.lung_windows import Change, cut, stage_of
from xai_demo.training.objectives import narrow

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from xai_demo.records import Floats, Model
    from xai_demo.training.lung_lessons import Lessons, Place

_RIDGE = 0.2  # on weights of standardised features, against a loss that is a mean
_VARIED = 12_000  # windows varied as in training, ...
_VARIED_TIMES = 4  # ... unless that is so many times the events
_TOLERANCE = 1e-4  # of the gradient of a loss that is a mean over the samples
_FLAT = 1e-6  # a feature that varies less is left as it is
_BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Learnt:
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

    def thinned(self, most: int, seed: int = 0) -> Learnt:
        """At most so many of the samples, drawn once."""
        if len(self.kinds) <= most:
            return self
        drawn = np.random.default_rng(seed).choice(len(self.kinds), most, replace=False)
        return self.of(np.sort(drawn))

    def of(self, index: NDArray[np.int64]) -> Learnt:
        """Some of the samples."""
        return Learnt(
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


def fitted(network: nn.Module, *, lessons: Lessons) -> None:
    """Give the network the classifier that all sources agree on, in place."""
    put(network, *regression(list(sources(network, lessons).values())))


def sources(network: nn.Module, lessons: Lessons) -> dict[str, Learnt]:
    """Features of everything that training may hear, by source; plain, and some varied."""
    found = {}
    events = [p for p in lessons.events if p.split == "train"]
    if events:
        found["events"] = _of_places(network, lessons, events, weight=0.5, power=0.5)
        found["varied"] = _varied(network, lessons)
    if lessons.whole:
        windows = [(i, s) for i in lessons.whole for s in starts(lessons, i)]
        found["windows"] = Learnt(
            features=features(network, (whole(lessons, i, s) for i, s in windows)),
            kinds=np.array([int(lessons.heard_in(i, s)[1].argmax()) for i, s in windows]),
            groups=tuple(lessons.sounds[i].take.patient for i, _ in windows),
            weight=0.5,
            power=0.5,
        )
    if lessons.cycles:
        found["cycles"] = _of_places(network, lessons, lessons.cycles, weight=0.1, power=0.3)
    if lessons.labelled:
        found["recordings"] = of_recordings(network, lessons, lessons.labelled)
    return found


def _varied(network: nn.Module, lessons: Lessons) -> Learnt:
    """Windows of all sources as training draws them, the rarer kinds of event more often."""
    rng = np.random.default_rng(0)
    train = np.array([i for i, p in enumerate(lessons.events) if p.split == "train"])
    kinds = np.array([lessons.events[i].kind for i in train])
    chance = np.bincount(kinds, minlength=4).astype(float)[kinds] ** -0.5
    count = min(_VARIED, _VARIED_TIMES * len(train))
    drawn = rng.choice(train, count, p=chance / chance.sum())
    labels = np.zeros((count, 4), np.float32)

    def windows() -> Iterator[Floats]:
        for row, i in enumerate(drawn):
            window, target = lessons.load(int(i), np.random.default_rng((0, row)))
            labels[row] = target[:4]
            yield window

    found = features(network, windows())
    return Learnt(
        features=found,
        kinds=labels.argmax(axis=1),
        groups=("",) * count,
        weight=2.0,
        power=1.0,
        labels=labels,
    )


def _of_places(
    network: nn.Module, lessons: Lessons, places: Sequence[Place], *, weight: float, power: float
) -> Learnt:
    return Learnt(
        features=features(network, (lessons.plain(p) for p in places)),
        kinds=np.array([p.kind for p in places]),
        groups=tuple(lessons.sounds[p.recording].take.patient for p in places),
        weight=weight,
        power=power,
    )


def of_recordings(network: nn.Module, lessons: Lessons, chosen: Sequence[int]) -> Learnt:
    """Whole recordings with one label each: the mean over their windows."""
    return Learnt(
        features=np.stack(
            [
                features(network, (whole(lessons, i, s) for s in starts(lessons, i))).mean(0)
                for i in chosen
            ]
        ),
        kinds=np.array([lessons.sounds[i].take.kind for i in chosen]),
        groups=tuple(lessons.sounds[i].take.patient for i in chosen),
        weight=1.0,
        power=0.3,
    )


def recordings(
    network: Any, model: Model, *, lessons: Lessons
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Whole validation recordings as the demo answers them: pooled probabilities and kinds."""
    last = network.get_classifier()
    weight, bias = last.weight.detach().cpu().numpy(), last.bias.detach().cpu().numpy()
    rows, kinds = [], []
    for i in lessons.validated():
        found = features(network, (whole(lessons, i, s) for s in starts(lessons, i)))
        logits = (found @ weight.T + bias).astype(np.float64)
        rows.append(over_windows(model, softmax(logits / model.temperature).astype(np.float32)))
        heard = {kind for _, _, kind in lessons.sounds[i].events}
        crackles, wheezes = bool(heard & {CRACKLE, BOTH}), bool(heard & {WHEEZE, BOTH})
        kinds.append(kind_of(crackles=crackles, wheezes=wheezes))
    return np.stack(rows).astype(np.float64), np.array(kinds)


def starts(lessons: Lessons, recording: int) -> tuple[int, ...]:
    """First frames of a recording's windows, as the demo lays them."""
    hop = round(lessons.spec.window_hop_s * lessons.per_second)
    return spectrum.window_starts(lessons.sounds[recording].frames, lessons.frames, hop)


def whole(lessons: Lessons, recording: int, first: int) -> Floats:
    """A window of a recording, nothing blotted out: (mel, frames)."""
    change = Change(stage=stage_of(lessons.spec))
    return cut(lessons.sounds[recording], first, lessons.frames, change, lessons.spec)


def features(network: Any, windows: Iterator[Floats]) -> Floats:
    """What the classifier sees of each window, (windows, features)."""
    device = next(network.parameters()).device
    network.eval()
    found = []
    with torch.inference_mode():
        for batch in _batched(windows):
            inputs = torch.from_numpy(np.stack(batch))[:, None].to(device)
            maps = narrow(network.forward_features, inputs)
            found.append(network.global_pool(maps).cpu().numpy())
    return np.concatenate(found)


def regression(
    learnt: Sequence[Learnt], start: tuple[Floats, Floats] | None = None
) -> tuple[Floats, Floats]:
    """Weights (4, features) and biases (4,) on the features as they are.

    Weighted multinomial logistic regression on standardised features, in float32 by L-BFGS;
    `start`, a result for nearly the same samples, makes it quicker and hardly changes it.
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
    problem = _Problem(
        inputs=((inputs - mean) / scale).astype(np.float32),
        wanted=(labels[:, classes] * weights[:, None]).astype(np.float32),
        weights=weights.astype(np.float32)[:, None],
        ridge=_RIDGE,
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
class _Problem:
    """Loss and gradient of the regression for weights and biases, (classes x (features + 1),)."""

    inputs: Floats  # (samples, features), standardised
    wanted: Floats  # (samples, classes), each sample's weight at its class
    weights: Floats  # (samples, 1), which sum up to one
    ridge: float

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
        return loss, slope.astype(np.float64).ravel()


def put(network: Any, weight: Floats, bias: Floats) -> None:
    """Make this the network's last layer."""
    last = network.get_classifier()
    with torch.no_grad():
        last.weight.copy_(torch.from_numpy(weight))
        last.bias.copy_(torch.from_numpy(bias))


def _batched(windows: Iterator[Floats]) -> Iterator[list[Floats]]:
    batch: list[Floats] = []
    for window in windows:
        batch.append(window)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
