"""Fits the logistic model by which `gate` tells an upright frontal chest radiograph from the rest.

The coefficients in `gate` were fitted on radiographs of three published collections (children,
adults, COVID-19), each in eight ways (four turns, inverted or not) of which one is right, against
photographs and parts of them, spectrograms of everyday and lung sounds, and rendered or synthesised
text pages, drawings, charts, noise and gradients.

Measured by three folds, each person or picture left out of one fit (the thresholds in `gate` were
chosen on one of the folds; the coefficients there are of all three): passed as they are, 4,985 of
4,985 radiographs of children, 1,291 of 1,299 (NIH; some of the other 8 do stand upside down or are
inverted) and 850 of 853 (COVID-19). Turned, inverted or both: 99.5 % recognised and told how to
correct, under 0.05 % passed. Stopped or warned of: 145 of 145 photographs and 99.3 % of 1,160 parts
of them, 98.6 % of 760 spectrograms, 300 of 300 text pages and of gradients, 60 of 60 charts, 600 of
600 pictures of noise, 99.8 % of 600 drawings. Of kinds left out of the fit altogether: photographs
98.5 %, spectrograms 95.5 %, drawings 99.2 %, the rest all; of collections left out, 98.9 to 99.8 %
passed. Not tried: radiographs of other parts of the body, lateral films, slices of CT or MR.

Fits the logistic model by which `quality` tells speech, music and noise from breath.

The coefficients in `quality` were fitted on children and adults of three published collections of
lung sounds against synthesised speech in 25 languages, synthesised music and everyday sounds.
Measured on patients, languages, timbres and folds left out of the fit: no alarm in 510 recordings
of 171 patients; found as no breath, and as what it is: speech 247 and 237 of 248 (plain, muffled,
in rooms, over breathing), music 199 and 198 of 200, everyday sounds 144 and 127 of 160 (of a
helicopter and of a fire only about half). Of real speech one clip was at hand, with a telephone
ringing in it: found, and called noise. Real music was not tried.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xai_demo.audio.quality import FEATURES, SOUNDING
from xai_demo.errors import TrainingError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WRONG_WAYS = 0.3  # what the seven wrong ways of a film count, where the right one counts 1
_OTHER_WAYS = 0.5  # what each of the eight ways of another picture counts
_STRENGTH = 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class GateFit:
    """What goes into `gate` as literals."""

    intercept: float
    weights: tuple[float, ...]


def fit_gate(
    statistics: NDArray[np.float64], kinds: Sequence[str], *, films: Collection[str]
) -> GateFit:
    """Logistic regression on `gate.features`: (pictures, 8, features), a kind for each picture.

    Kinds in `films` are sources of radiographs and count the same in sum; so do all others. Raises
    TrainingError where there are no radiographs or nothing else.
    """
    from sklearn.linear_model import LogisticRegression

    names = np.array(kinds)
    is_film = np.isin(names, list(films))
    if is_film.all() or not is_film.any():
        raise TrainingError(
            f"The kinds of the pictures are {', '.join(sorted(set(kinds)))}; wanted: some of"
            f" {', '.join(sorted(films))}, and some of anything else."
        )
    share = np.empty(len(names))
    for chosen in (is_film, ~is_film):
        sources, counts = np.unique(names[chosen], return_counts=True)
        count = dict(zip(sources.tolist(), counts.tolist(), strict=True))
        share[chosen] = [is_film.sum() / len(sources) / count[name] for name in names[chosen]]
    ways = np.where(is_film[:, None], _WRONG_WAYS, _OTHER_WAYS) * np.ones(8)
    ways[is_film, 0] = 1
    right = np.zeros(ways.shape, bool)
    right[is_film, 0] = True
    mean = statistics.mean(axis=(0, 1))
    deviation = statistics.std(axis=(0, 1)) + 1e-9
    model = LogisticRegression(C=_STRENGTH, max_iter=1000)
    model.fit(
        ((statistics - mean) / deviation).reshape(-1, statistics.shape[-1]),
        right.ravel(),
        sample_weight=(ways * share[:, None]).ravel(),
    )
    weights = model.coef_[0] / deviation
    return GateFit(
        intercept=float(f"{model.intercept_[0] - weights @ mean:.5g}"),
        weights=tuple(float(f"{weight:.4g}") for weight in weights),
    )


CLASSES = ("breath", *SOUNDING)


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityFit:
    """What goes into `quality` as literals: log-odds against breath, in the order of SOUNDING."""

    intercepts: tuple[float, ...]
    coefficients: dict[str, tuple[float, ...]]


def fit_quality(
    statistics: NDArray[np.float64],
    kinds: Sequence[str],
    *,
    weights: NDArray[np.float64] | None = None,
    strength: float = 0.3,
) -> QualityFit:
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
    return QualityFit(
        intercepts=tuple(round(float(value), 4) for value in offsets),
        coefficients={
            name: tuple(round(float(value), 4) for value in slopes[:, i])
            for i, name in enumerate(FEATURES)
        },
    )
