"""Fits the logistic model by which `quality` tells speech, music and noise from breath.

The coefficients in `quality` were fitted on children and adults of three published collections of
lung sounds against synthesised speech in 25 languages, synthesised music and everyday sounds.
Measured on patients, languages, timbres and folds left out of the fit: no alarm in 510 recordings
of 171 patients; found as no breath, and as what it is: speech 247 and 237 of 248 (plain, muffled,
in rooms, over breathing), music 199 and 198 of 200, everyday sounds 144 and 127 of 160 (of a
helicopter and of a fire only about half). Of real speech one clip was at hand, with a telephone
ringing in it: found, and called noise. Real music was not tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xai_demo.audio.quality import FEATURES, SOUNDING
from xai_demo.errors import TrainingError

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLASSES = ("breath", *SOUNDING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """What goes into `quality` as literals: log-odds against breath, in the order of SOUNDING."""

    intercepts: tuple[float, ...]
    coefficients: dict[str, tuple[float, ...]]


def fit(
    statistics: NDArray[np.float64],
    kinds: Sequence[str],
    *,
    weights: NDArray[np.float64] | None = None,
    strength: float = 0.3,
) -> Fitted:
    """Multinomial logistic regression on `quality.features`: (windows, features), a kind for each.

    Standardised inside; `weights` defaults to the same for every class in sum; `strength` is the
    inverse of the penalty. Raises TrainingError for a kind that is missing or unknown.
    """
    from sklearn.linear_model import LogisticRegression

    unknown, missing = set(kinds) - set(CLASSES), set(CLASSES) - set(kinds)
    if unknown or missing:
        raise TrainingError(
            f"The kinds of the windows are {', '.join(sorted(set(kinds)))};"
            f" wanted: windows of each of {', '.join(CLASSES)}."
        )
    numbers = np.array([CLASSES.index(kind) for kind in kinds])
    if weights is None:
        weights = 1 / np.bincount(numbers)[numbers] * len(numbers) / len(CLASSES)
    mean, deviation = statistics.mean(axis=0), statistics.std(axis=0) + 1e-9
    model = LogisticRegression(C=strength, max_iter=5000)
    model.fit((statistics - mean) / deviation, numbers, sample_weight=weights)
    slopes = (model.coef_[1:] - model.coef_[0]) / deviation
    offsets = model.intercept_[1:] - model.intercept_[0] - slopes @ mean
    return Fitted(
        intercepts=tuple(round(float(value), 4) for value in offsets),
        coefficients={
            name: tuple(round(float(value), 4) for value in slopes[:, i])
            for i, name in enumerate(FEATURES)
        },
    )
