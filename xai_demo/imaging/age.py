"""Whose radiograph it is, an adult's or a child's, as visitor, file or picture say. Pure.

The picture's word is a guess: a logistic regression on where a small grey copy is bright and how
its edges run, without the borders that a collimator leaves. It was fitted on children of one
hospital and adults of others, so hospital and age cannot be told apart in it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo.decision import age_phrase
from xai_demo.imaging import gate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from xai_demo.records import Age, Floats, Radiograph

    Values = NDArray[np.float64]

# A less probable guess is said to be uncertain, and one of less than the second value is not held
# against what the visitor or the file says.
SURE, CONTRADICTS = 0.9, 0.75
# Rows and columns at the edges whose greys differ less than this fraction of white are border.
_FLAT, _LEAST_SHARE = 0.16, 0.3

# Fitted by `training.age_fit.refit_age`, in the order of `statistics`.
INTERCEPT = 7.4045
WEIGHTS = (
    -0.08121, 0.1448, -0.09718, 0.07219, -0.1707, -0.125, 0.199, -0.1896, 0.2328, 0.217, -0.2677,
    -0.3235, -0.2259, -0.2639, 0.415, 0.2012, 0.2036, -0.1064, -0.224, -0.3148, -0.09554, -0.2385,
    -0.1865, 0.0282, 0.2011, -0.052, -0.3692, -0.3715, -0.4905, -0.436, -0.2763, -0.004866, 0.1807,
    0.05333, 0.02017, -0.2166, -0.4965, -0.3354, 0.07021, 0.06702, 0.1594, 0.09811, 0.2436, 0.1007,
    -0.3094, -0.2619, 0.2016, 0.09311, 0.0913, 0.1432, 0.224, 0.5656, 0.7068, 0.2498, 0.2089,
    0.1103, -0.1069, -0.3396, -0.4082, 0.1105, 0.3264, 0.04752, -0.2233, 0.1269, -0.4256, 2.574,
    1.068, -0.6528, -0.5126, 2.109, 0.8269, -0.13, -0.5688, 0.6584, 0.5813, -1.018, -0.7374,
    0.3139, 0.2236, -1.339, 0.5842, -0.03731, -0.557, -0.714, -0.6549, -0.1508, 2.77, 0.3127,
    -0.9408, -1.096, -0.8243, 0.5919, -0.7159, -0.4011, -0.2006, 1.71, 0.4233, 0.4256, 0.5091,
    0.2742, 0.5463, -1.431, -1.88, -0.9615, -1.428, -0.6232, -0.4674, -0.9713, -0.6056, 0.05758,
    -0.1172, -0.7561, 0.5593, -0.7795, -1.145, 0.9587, 0.5728, 1.435, -0.9684, -1.037, -0.3826,
    -1.077, 0.9142, -0.8816, 0.4585, -0.592, -0.1609, -0.786, -3.065, -0.3212, -0.5236, -0.939,
    -0.4827, -0.01456, -0.4484, 0.4962, -1.179,
)  # fmt: skip


def statistics(pixels: Floats) -> Values:
    """What the guess is based on: of an upright image, (height, width), 0 to 1."""
    import cv2

    inside = _without_borders(gate.thumbnail(pixels))
    side = 2 * gate.SIDE
    small = cv2.resize(inside, (side, side), interpolation=cv2.INTER_AREA)
    return gate.layout_features(np.asarray(small, np.float32))


def adult_probability(pixels: Floats) -> float:
    """The probability that an upright radiograph, (height, width), 0 to 1, is an adult's."""
    return float(gate.probability(INTERCEPT + statistics(pixels) @ np.array(WEIGHTS)))


def screen_age(radiograph: Radiograph, age: Age = "auto") -> Radiograph:
    """The radiograph with the patient's age group in its facts, and with what is doubtful about it.

    `age` is what the visitor says, which counts before the file, and that before the picture. The
    fact `age` has the `value` "adult" or "child" (None where there is nothing to guess from), its
    `source` "visitor", "dicom" or "picture", and the `probability` of a guess. What contradicts it
    is its `doubt`, in the same form.
    """
    stated = radiograph.facts.get("age")
    guess = _guess(radiograph)
    known: dict[str, Any] = guess
    if age != "auto":
        known = {"value": age, "source": "visitor", "probability": None}
    elif stated:
        known = dict(stated)
    if doubt := _contradiction(known, stated, guess):
        known = {**known, "doubt": dict(doubt)}
    facts = {**radiograph.facts, "age": known}
    note = _doubt_sentence(known)
    warnings = (*radiograph.warnings, *((note,) if note else ()))
    return replace(radiograph, facts=facts, warnings=warnings)


def _guess(radiograph: Radiograph) -> dict[str, Any]:
    verdict = radiograph.facts.get("gate", {})
    kind = verdict.get("kind", "frontal")
    nothing = {"value": None, "source": "picture", "probability": None}
    if kind == "not a radiograph" or float(np.ptp(radiograph.pixels)) == 0:
        return nothing
    pixels = radiograph.pixels
    if kind != "frontal" and not verdict.get("corrected"):
        # The guess knows upright films only, whatever becomes of this one.
        pixels = gate.upright(pixels, turn=verdict["turn_deg"], inverted=kind == "inverted")
    adult = adult_probability(pixels)
    value = "adult" if adult >= 0.5 else "child"
    return {"value": value, "source": "picture", "probability": round(max(adult, 1 - adult), 4)}


def _contradiction(
    known: Mapping[str, Any], stated: Mapping[str, Any] | None, guess: Mapping[str, Any]
) -> Mapping[str, Any] | None:
    """What the file, or else the picture, says against the age group; None: nothing."""
    for other in (stated, guess):
        is_other = other is not None and other["value"] not in (None, known["value"])
        if other is not None and is_other and (other["probability"] or 1) >= CONTRADICTS:
            return other
    return None


def _doubt_sentence(known: Mapping[str, Any]) -> str:
    """What a person should know about the age group: a contradiction, or an unsure guess."""
    if doubt := known.get("doubt"):
        looks = "This is" if doubt["source"] == "dicom" else "This looks like"
        return f"{looks} {age_phrase(doubt)}, but it is read as {age_phrase(known)}."
    if known["probability"] is None or known["probability"] >= SURE:
        return ""
    return (
        "The picture alone does not tell well whose film this is: it is read as "
        f"{age_phrase(known)}. Choose adult or child to be sure."
    )


def _without_borders(small: Floats) -> Floats:
    """A thumbnail without the rows and columns at its edges that are nearly uniform."""
    import cv2

    smooth = np.asarray(cv2.blur(small, (3, 3)), np.float32)
    rows, columns = slice(0, len(small)), slice(0, len(small))
    # Corners of a border that is cut off may have hidden more of it.
    for _ in range(3):
        rows = _varying_span(smooth[rows, columns].T, rows)
        columns = _varying_span(smooth[rows, columns], columns)
    return np.ascontiguousarray(small[rows, columns])


def _varying_span(picture: Floats, columns: slice) -> slice:
    """The part of `columns`, those of `picture`, between the first and the last that vary."""
    low, high = np.percentile(picture, (10, 90), axis=0)
    varying = np.flatnonzero(high - low > _FLAT)
    if len(varying) < _LEAST_SHARE * 2 * gate.SIDE:
        return columns
    return slice(columns.start + int(varying[0]), columns.start + int(varying[-1]) + 1)
