"""Fits the logistic models of the input checks, `imaging.gate` and `audio.quality`.

The coefficients of both are literals in those modules; the command `refit` fits them to given data.

The gate's literals were fitted on radiographs of three published collections (children, adults,
COVID-19), each in eight orientations (four rotations, inverted or not), one of which is correct,
against photographs and parts of them, spectrograms of everyday and lung sounds, and text pages,
drawings, charts, noise and gradients. In three folds (the thresholds in `gate` were chosen on one
of them), the fits accepted 4,985 of 4,985 radiographs of children, 1,291 of 1,299 (NIH; some of the
other 8 really are upside down or inverted) and 850 of 853 (COVID-19). Rotated or inverted
radiographs: 99.5 % recognised with the right correction, under 0.05 % accepted. Stopped or warned
about: 145 of 145 photographs and 99.3 % of 1,160 parts of them, 98.6 % of 760 spectrograms, 300 of
300 text pages and of gradients, 60 of 60 charts, 600 of 600 images of noise, 99.8 % of 600
drawings. Of kinds left out of the fit entirely: photographs 98.5 %, spectrograms 95.5 %, drawings
99.2 %, the others all; of collections left out, 98.9 to 99.8 % accepted. Not tested: radiographs of
other parts of the body, lateral radiographs, slices of CT or MR.

The quality check's literals were fitted on children and adults of three published collections of
lung sounds against synthesised speech in 25 languages, synthesised music and everyday sounds. On
patients, languages, timbres and folds left out of the fit: no alarm in 510 recordings of 171
patients; detected, and named correctly: speech 247 and 237 of 248 (clean, muffled, in rooms, over
breathing), music 199 and 198 of 200, everyday sounds 144 and 127 of 160 (of a helicopter and of a
fire only about half). One clip of real speech, with a telephone ringing in it, was detected and
called noise. Real music was not tested.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xai_demo.audio.quality import FEATURES, NON_BREATH_KINDS
from xai_demo.errors import TrainingError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Weights of a radiograph's seven wrong orientations, against 1 for the correct one, and of each of
# the eight orientations of any other image.
_WRONG_WEIGHT = 0.3
_OTHER_WEIGHT = 0.5
# The inverse of the penalty.
_GATE_STRENGTH = 0.03
CLASSES = ("breath", *NON_BREATH_KINDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateFit:
    """The literals of `gate`."""

    intercept: float
    weights: tuple[float, ...]

    def log_odds(self, statistics: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log-odds of an upright frontal radiograph: (..., features) -> (...)."""
        return np.asarray(self.intercept + statistics @ np.array(self.weights))


def fit_gate(
    statistics: NDArray[np.float64], kinds: Sequence[str], *, radiograph_kinds: Collection[str]
) -> GateFit:
    """Logistic regression on `gate.features`: (images, 8, features), and a kind for each image.

    Kinds in `radiograph_kinds` are sources of radiographs and have the same total weight each; so
    have all others. Raises TrainingError without radiographs or without other images.
    """
    from sklearn.linear_model import LogisticRegression

    names = np.array(kinds)
    is_radiograph = np.isin(names, list(radiograph_kinds))
    if is_radiograph.all() or not is_radiograph.any():
        raise TrainingError(
            f"The images are of the kinds {', '.join(sorted(set(kinds)))}; a fit needs some of"
            f" {', '.join(sorted(radiograph_kinds))}, and some of any other kind."
        )
    # Every source of radiographs weighs the same, every other kind as well, and so do both sides.
    share = np.empty(len(names))
    for chosen in (is_radiograph, ~is_radiograph):
        sources, counts = np.unique(names[chosen], return_counts=True)
        count = dict(zip(sources.tolist(), counts.tolist(), strict=True))
        share[chosen] = [is_radiograph.sum() / len(sources) / count[n] for n in names[chosen]]
    # (images, 8), where the first variant is the image as it is, see `gate.features`.
    weights = np.where(is_radiograph[:, None], _WRONG_WEIGHT, _OTHER_WEIGHT) * np.ones(8)
    weights[is_radiograph, 0] = 1
    is_upright = np.zeros(weights.shape, bool)
    is_upright[is_radiograph, 0] = True
    # The penalty treats features alike, so they need one scale; the offset is for constant ones.
    mean = statistics.mean(axis=(0, 1))
    deviation = statistics.std(axis=(0, 1)) + 1e-9
    model = LogisticRegression(C=_GATE_STRENGTH, max_iter=1000)
    model.fit(
        ((statistics - mean) / deviation).reshape(-1, statistics.shape[-1]),
        is_upright.ravel(),
        sample_weight=(weights * share[:, None]).ravel(),
    )
    # The gate takes raw features, so the scaling goes into the literals.
    slopes = model.coef_[0] / deviation
    return GateFit(
        # To the digits that the literals have.
        intercept=float(f"{model.intercept_[0] - slopes @ mean:.5g}"),
        weights=tuple(float(f"{slope:.4g}") for slope in slopes),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityFit:
    """The literals of `quality`: log-odds against breath, in the order of NON_BREATH_KINDS."""

    intercepts: tuple[float, ...]
    coefficients: dict[str, tuple[float, ...]]

    def log_odds(self, statistics: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log-odds of each kind against breath: (windows, features) -> (windows, 3)."""
        slopes = np.array([self.coefficients[name] for name in FEATURES])
        return np.asarray(np.array(self.intercepts) + statistics @ slopes)


def fit_quality(
    statistics: NDArray[np.float64],
    kinds: Sequence[str],
    *,
    weights: NDArray[np.float64] | None = None,
    strength: float = 0.3,
) -> QualityFit:
    """Multinomial logistic regression on `quality.features`: (windows, features), a kind for each.

    Features are standardised inside; `weights` default to the same total for every class;
    `strength` is the inverse of the penalty. Raises TrainingError for a missing or unknown kind.
    """
    from sklearn.linear_model import LogisticRegression

    unknown, missing = set(kinds) - set(CLASSES), set(CLASSES) - set(kinds)
    if unknown or missing:
        raise TrainingError(
            f"The windows are of the kinds {', '.join(sorted(set(kinds)))};"
            f" a fit needs windows of each of {', '.join(CLASSES)}, and no others."
        )
    numbers = np.array([CLASSES.index(kind) for kind in kinds])
    if weights is None:
        weights = 1 / np.bincount(numbers)[numbers] * len(numbers) / len(CLASSES)
    mean, deviation = statistics.mean(axis=0), statistics.std(axis=0) + 1e-9
    model = LogisticRegression(C=strength, max_iter=5000)
    model.fit((statistics - mean) / deviation, numbers, sample_weight=weights)
    # A softmax stays the same without breath's row, so the others are relative to it.
    slopes = (model.coef_[1:] - model.coef_[0]) / deviation
    offsets = model.intercept_[1:] - model.intercept_[0] - slopes @ mean
    return QualityFit(
        intercepts=tuple(round(float(value), 4) for value in offsets),
        coefficients={
            name: tuple(round(float(value), 4) for value in slopes[:, i])
            for i, name in enumerate(FEATURES)
        },
    )
