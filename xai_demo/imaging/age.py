"""Whose radiograph it is, an adult's or a child's: the visitor, the file or the picture says. Pure.

The picture's word is a guess: a logistic regression on where a small grey copy is bright and how
its edges run, without the borders that a collimator leaves. It was fitted on children of one
hospital and adults of others, so hospital and age cannot be told apart in it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo.decision import age_phrase, film_of
from xai_demo.imaging import gate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from xai_demo.records import Age, Floats, Radiograph

    Values = NDArray[np.float64]

# A less probable guess is said to be uncertain.
SURE = 0.9
# Rows and columns at the edges whose greys differ less than this fraction of white are border.
_FLAT, _LEAST_SHARE = 0.16, 0.3

# Fitted by `training.age_fit.refit_age`, in the order of `statistics`.
INTERCEPT = 8.1153
WEIGHTS = (
    -0.1731, 0.2019, -0.1163, 0.09863, -0.1342, -0.178, 0.2885, -0.2083, 0.2413, 0.2234, -0.3842,
    -0.3134, -0.1415, -0.3299, 0.4127, 0.1714, 0.2266, -0.0582, -0.2127, -0.3163, -0.1061, -0.2588,
    -0.1892, 0.03617, 0.2417, -0.06646, -0.3426, -0.3882, -0.6238, -0.4938, -0.3337, -0.003426,
    0.2172, 0.0621, -0.04016, -0.212, -0.5126, -0.3073, 0.1555, 0.07593, 0.1913, 0.08151, 0.2525,
    0.1003, -0.2452, -0.2151, 0.1477, 0.1103, 0.09061, 0.1533, 0.2981, 0.6361, 0.7116, 0.3105,
    0.2503, 0.1417, -0.14, -0.4977, -0.4934, 0.1175, 0.2534, 0.08266, -0.2776, 0.1142, -0.2856,
    2.585, 0.8317, -0.6886, -0.552, 2.141, 0.5981, -0.1747, -0.4744, 1.028, 0.6026, -1.163,
    -0.7619, 0.2098, 0.1763, -1.285, 0.6342, -0.4232, -0.9136, -0.5435, -1.005, -0.01798, 3.182,
    0.7673, -0.9217, -1.511, -1.198, 0.7062, -0.737, -0.1613, -0.3618, 2.046, 0.4535, 0.8226,
    0.3293, 0.2064, 0.1813, -1.537, -1.239, -1.375, -1.5, -0.6807, -0.6739, -0.8103, -0.9013,
    -0.0964, -0.3985, -1.144, 0.8233, -1.024, -0.8595, 1.127, 0.8606, 1.371, -1.02, -1.232,
    -0.8776, -1.009, 0.9991, -1.109, 0.4054, -0.4631, 0.1227, -0.5684, -3.246, -0.3127, -0.6401,
    -0.9468, -0.5019, -0.03434, -0.4201, 0.5446, -1.292,
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
    `source` "visitor", "dicom" or "picture", and the `probability` of a guess.
    """
    stated = radiograph.facts.get("age")
    guess = _guess(radiograph)
    known: dict[str, Any] = guess
    if age != "auto":
        known = {"value": age, "source": "visitor", "probability": None}
    elif stated:
        known = dict(stated)
    notes = _doubts(known, stated, guess)
    facts = {**radiograph.facts, "age": known}
    return replace(radiograph, facts=facts, warnings=(*radiograph.warnings, *notes))


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


def _doubts(
    known: Mapping[str, Any], stated: Mapping[str, Any] | None, guess: Mapping[str, Any]
) -> list[str]:
    """What a person should know about the age group: an unsure guess, or a contradiction."""
    value = known["value"]
    if known is guess:
        if value is None or guess["probability"] >= SURE:
            return []
        return [
            f"The picture alone does not tell well whose film this is: it is read as "
            f"{age_phrase(known)}. Choose adult or child to be sure."
        ]
    if stated and stated["value"] != value:
        return [f"The file says that this is {film_of(stated['value'])}."]
    if guess["value"] not in (None, value) and guess["probability"] >= SURE:
        return [f"This looks like {age_phrase(guess)}."]
    return []


def _without_borders(small: Floats) -> Floats:
    """A thumbnail without the rows and columns at its edges that are nearly uniform."""
    import cv2

    smooth = np.asarray(cv2.blur(small, (3, 3)))
    rows, columns = slice(0, len(small)), slice(0, len(small))
    # Corners of a border that is cut off may have hidden more of it.
    for _ in range(3):
        rows = _varied(smooth[rows, columns].T, rows)
        columns = _varied(smooth[rows, columns], columns)
    return np.ascontiguousarray(small[rows, columns])


def _varied(picture: Floats, columns: slice) -> slice:
    """The part of `columns`, those of `picture`, between the first and the last that vary."""
    low, high = np.percentile(picture, (10, 90), axis=0)
    varied = np.flatnonzero(high - low > _FLAT)
    if len(varied) < _LEAST_SHARE * 2 * gate.SIDE:
        return columns
    return slice(columns.start + int(varied[0]), columns.start + int(varied[-1]) + 1)
