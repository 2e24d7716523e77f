"""The input gate: is this a frontal chest radiograph, upright and not inverted? Pure.

A logistic regression on simple statistics of a small grey copy, applied to the image in eight
variants: in four orientations, each as it is and inverted. The most probable variant decides.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xai_demo.records import Floats, GateMode, Radiograph

    Values = NDArray[np.float64]

Kind = Literal["frontal", "rotated", "inverted", "not a radiograph"]
Turn = Literal[0, 90, 180, 270]

# The layout of the features. WEIGHTS belong to it: whoever changes it has to refit them.
SIDE = 64
_TURNS: tuple[Turn, ...] = (0, 90, 180, 270)
_GRID, _CELLS, _DIRECTIONS = 8, 4, 4
# A larger image is subsampled first, so that 100 megapixels cost no more than one.
_MAX_SIDE = 512
# Most radiographs come as they should, so the variant "as it is" needs less evidence than the
# others: a lower probability, and log-odds up to _UPRIGHT_LEAD behind the best other variant.
_MIN_PROBABILITY, _MIN_PROBABILITY_CORRECTED, _UPRIGHT_LEAD = 0.15, 0.6, 1.5
_FLAT_RANGE = 1e-3
# `_FLAT_RANGE` of `imaging`: the limit for the image itself, not for its thumbnail.
_BLANK_RANGE = 1.5 / 255

# Fitted by `training.input_checks.fit_gate`, in the order of `features`.
INTERCEPT = -23.774
WEIGHTS = (
    -0.1405, -0.3677, -0.1353, 0.1448, 0.1689, -0.1773, -0.2005, -0.02405, 0.02498, 0.2495,
    -0.2187, 0.01494, 0.1598, -0.2012, 0.2289, -0.01851, 0.01066, 0.2907, -0.4315, 0.0599,
    -0.0434, -0.5316, 0.1756, -0.03054, 0.05196, -0.02654, -0.319, 0.07824, 0.2029, -0.3604,
    0.1101, 0.03139, -0.05525, -0.2931, -0.3301, 0.2353, 0.1873, -0.02607, -0.2896, 0.02648,
    -0.1305, -0.09792, -0.09547, 0.3607, 0.3139, 0.276, -0.1741, -0.06932, -0.1198, 0.02594,
    0.06559, 0.5177, 0.3317, 0.1024, -0.1273, -0.1878, -0.02723, 0.2463, 0.1618, 0.244, 0.1731,
    0.1569, 0.1992, -0.2147, 0.07323, -0.09655, 1.114, 0.2712, 1.31, 1.399, 1.46, 1.44, 2.108,
    0.9211, -1.114, 1.994, 1.669, -1.454, -1.665, 1.017, 1.087, 1.79, 1.855, 0.5066, 1.639, 1.844,
    -0.3422, -0.9639, 2.211, 0.5702, -0.965, -0.6917, 0.7522, 0.4071, -1.433, -0.8401, 2.274,
    0.1893, 0.1158, 1.947, 0.5093, -0.8832, -1.36, -0.4661, -0.2284, -0.2372, -0.7522, -0.7695,
    0.4989, 1.007, 0.6555, 0.742, -0.5501, 1.243, 0.7913, 1.98, -1.026, 1.032, 2.996, 1.342,
    -1.343, 0.3783, 1.624, 1.537, -1.485, -2.476, 0.1007, 1.241, -0.1794, -0.09885, -0.165,
    0.01217, -0.2277, 0.5683, -0.03968, -0.3022, 0.2278, -0.2585, -5.083, -2.785, -2.134, 1.807,
    2.412, 3.975, 0.6766, 1.232, 1.416, -2.136, -1.464, 2.839, -0.5144, 0.07132, -0.115, 0.03384,
    1.023, -2.074, -0.6805, -1.43, -4.001, -0.6965, -0.9615,
)  # fmt: skip

_ADVICE = "The models' answer to such an image is meaningless."


@dataclass(frozen=True, slots=True, kw_only=True)
class GateVerdict:
    """Whether an image is a frontal chest radiograph, and how it would have to be corrected."""

    kind: Kind
    probability: float  # of being a frontal chest radiograph, after the correction
    turn: Turn  # degrees to turn it to the left to make it upright; also if it is inverted
    sentence: str  # for the user; "" if nothing is wrong


def classify_image(pixels: Floats, *, colour: bool | None = None) -> GateVerdict:
    """Whether an image, (height, width), 0 to 1, looks like a frontal chest radiograph.

    `colour` says whether the file is in colour, which no radiograph is; None: unknown.
    """
    small = thumbnail(pixels)
    if np.ptp(small) < _FLAT_RANGE or colour:
        reason = "it is in colour" if colour else "it is the same grey everywhere"
        return _rejection(0.0, f": {reason}")
    odds = logits(features(small))
    variant = most_likely_variant(odds)
    best = float(probability(odds[variant or 0]))
    if variant is None:
        return _rejection(best, "")
    turn, is_inverted = _TURNS[variant % 4], variant >= 4
    if is_inverted:
        also = f" and {_orientation_phrase(turn)}" if turn else ""
        sentence = (
            f"This radiograph seems to be inverted (dark where it is dense){also}: the models would"
            " misread it. It can be corrected."
        )
        return GateVerdict(kind="inverted", probability=best, turn=turn, sentence=sentence)
    if turn:
        sentence = (
            f"This radiograph seems to be {_orientation_phrase(turn)}: the models would misread it."
            " It can be corrected."
        )
        return GateVerdict(kind="rotated", probability=best, turn=turn, sentence=sentence)
    return GateVerdict(kind="frontal", probability=best, turn=0, sentence="")


def correct_image(pixels: Floats, gate: GateVerdict) -> Floats:
    """The image, (height, width), turned upright and inverted as the verdict says."""
    return upright(pixels, turn=gate.turn, inverted=gate.kind == "inverted")


def upright(pixels: Floats, *, turn: int, inverted: bool) -> Floats:
    """The image, (height, width), turned to the left by `turn` degrees, and inverted if it is."""
    turned = np.rot90(pixels, turn // 90)
    return np.ascontiguousarray(1 - turned if inverted else turned)


def screen_radiograph(radiograph: Radiograph, film: GateMode = "checked") -> Radiograph:
    """The radiograph as the model will see it, with the verdict in its facts and warnings.

    `film` says what happens to an image that is not an upright frontal radiograph. "checked": its
    answer is marked as doubtful. "corrected": it is turned and inverted if that helps, otherwise
    marked as doubtful. "as-is": there is only a warning.
    """
    gate = classify_image(radiograph.pixels, colour=radiograph.facts.get("colour"))
    is_corrected = film == "corrected" and gate.kind in ("rotated", "inverted")
    verdict = {
        "kind": gate.kind,
        "probability": round(gate.probability, 4),
        "turn_deg": gate.turn,
        "film": film,
        "corrected": is_corrected,
        "sentence": gate.sentence,
    }
    facts = {**radiograph.facts, "gate": verdict}
    if is_corrected:
        pixels = correct_image(radiograph.pixels, gate)
        facts |= {"width": pixels.shape[1], "height": pixels.shape[0]}
        warning = f"The radiograph was corrected before the analysis: {_correction_phrase(gate)}."
        warnings = (warning, *radiograph.warnings)
        return replace(radiograph, pixels=pixels, facts=facts, warnings=warnings)
    # The reader has already warned about an image of a single grey.
    is_blank = float(np.ptp(radiograph.pixels)) < _BLANK_RANGE
    own_warnings = (gate.sentence,) if gate.sentence and not is_blank else ()
    return replace(
        radiograph,
        facts=facts,
        warnings=(*own_warnings, *radiograph.warnings),
        doubt="" if film == "as-is" else gate.sentence or radiograph.doubt,
    )


def _correction_phrase(gate: GateVerdict) -> str:
    """What the correction does, in words."""
    turns = {
        90: "turned left by 90 degrees",
        180: "turned by 180 degrees",
        270: "turned right by 90 degrees",
    }
    parts = [turns[gate.turn]] if gate.turn else []
    return " and ".join([*parts, *(["inverted"] if gate.kind == "inverted" else [])])


def _orientation_phrase(turn: Turn) -> str:
    """The orientation of an image that has to be turned left by `turn` to be upright, in words."""
    return {90: "turned to the right", 180: "upside down", 270: "turned to the left"}.get(turn, "")


def _rejection(probability: float, reason: str) -> GateVerdict:
    return GateVerdict(
        kind="not a radiograph",
        probability=probability,
        turn=0,
        sentence=f"This does not look like a frontal chest X-ray{reason}. {_ADVICE}",
    )


def thumbnail(pixels: Floats) -> Floats:
    """The image, (height, width), squashed to (128, 128) with 1 % of it black and 1 % white."""
    from PIL import Image

    step = max(1, min(pixels.shape) // _MAX_SIDE)
    subsampled = np.ascontiguousarray(pixels[::step, ::step], np.float32)
    size = (2 * SIDE, 2 * SIDE)
    small = np.asarray(Image.fromarray(subsampled).resize(size, Image.Resampling.BILINEAR))
    # Percentiles, because a bright side marker or a black border would set the range otherwise.
    low, high = np.percentile(small, (1, 99))
    if high - low < _FLAT_RANGE:
        return np.zeros(size, np.float32)
    return np.asarray(np.clip((small - low) / (high - low), 0, 1), np.float32)


def most_likely_variant(odds: Values) -> int | None:
    """The index of the variant that is an upright frontal radiograph, from log-odds, (8,).

    None if no variant is probable enough. Variant 0, the image as it is, needs less evidence.
    """
    other = 1 + int(odds[1:].argmax())
    if probability(odds[0]) >= _MIN_PROBABILITY and odds[0] + _UPRIGHT_LEAD >= odds[other]:
        return 0
    return other if probability(odds[other]) >= _MIN_PROBABILITY_CORRECTED else None


def logits(values: Values) -> Values:
    """The log-odds of being an upright frontal radiograph: (..., features) -> (...)."""
    return np.asarray(INTERCEPT + values @ np.array(WEIGHTS))


def probability(odds: float | Values) -> Values:
    """The probability, 0 to 1, for log-odds of any shape.

    >>> float(probability(0.0))
    0.5
    """
    return np.asarray(1 / (1 + np.exp(-np.clip(odds, -50, 50))))


def features(small: Floats) -> Values:
    """The statistics of a thumbnail in its eight variants: (128, 128) -> (8, features).

    First as it is, then turned to the left by 90, 180 and 270 degrees; then the same inverted.
    """
    # Fine detail is the same in every orientation and when inverted.
    detail = _detail_features(small)
    rows = []
    for variant in (small, 1 - small):
        half, tones = _half_size(variant), _tone_features(variant)
        for quarters in range(4):
            rows.append(np.concatenate([_layout(np.rot90(half, quarters)), tones, detail]))
    return np.stack(rows)


def layout_features(small: Floats) -> Values:
    """Where a thumbnail is bright, how its edges run, its symmetry: (128, 128) -> (features,)."""
    return _layout(_half_size(small))


def _half_size(small: Floats) -> Values:
    return np.asarray(small.reshape(SIDE, 2, SIDE, 2).mean(axis=(1, 3)), np.float64)


def _layout(half: Values) -> Values:
    level = (half - half.mean()) / (half.std() + 1e-6)
    return np.concatenate(
        [_block_means(level, _GRID).ravel(), _edge_features(half), _symmetry_features(level)]
    )


def _block_means(picture: Values, count: int) -> Values:
    side = picture.shape[0] // count
    return np.asarray(picture.reshape(count, side, count, side).mean(axis=(1, 3)))


def _edge_features(half: Values) -> Values:
    """The strength of edges in four directions in each of 4 x 4 cells, and overall."""
    down, right = np.gradient(half)
    strength = np.hypot(down, right)
    # An edge has no sign: opposite directions are the same.
    angle = np.mod(np.arctan2(down, right), math.pi) / math.pi * _DIRECTIONS
    nearest = np.mod(np.rint(angle).astype(int), _DIRECTIONS)
    cells = [
        _block_means(strength * (nearest == direction), _CELLS) for direction in range(_DIRECTIONS)
    ]
    energy = np.stack(cells).ravel()
    # Relative to the whole image's edges, so that contrast counts in the last value only.
    return np.concatenate([np.sqrt(energy / (strength.mean() + 1e-6)), [10 * strength.mean()]])


def _symmetry_features(level: Values) -> Values:
    """The symmetry of left and right and of top and bottom, and lungs against mediastinum."""
    # `level` has mean 0 and variance 1: its products are correlations with its mirror images.
    rows, columns = level.mean(axis=1), level.mean(axis=0)
    quarter = SIDE // 4
    middle = level[quarter : 3 * quarter]
    # Where a frontal radiograph has its mediastinum and its lungs, in columns out of 64.
    mediastinum = middle[:, SIDE // 2 - 6 : SIDE // 2 + 6].mean()
    lungs = [middle[:, 10:24].mean(), middle[:, -24:-10].mean()]
    return np.array(
        [
            (level * level[:, ::-1]).mean(),
            (level * level[::-1]).mean(),
            (columns * columns[::-1]).mean(),
            (rows * rows[::-1]).mean(),
            mediastinum - max(lungs),
            abs(lungs[0] - lungs[1]),
            rows.std(),
            columns.std(),
        ]
    )


def _tone_features(small: Floats) -> Values:
    """The histogram in eight bins, its entropy, and the shares of black, white and border."""
    counts = np.histogram(small, bins=8, range=(0, 1))[0] / small.size
    entropy = -float((counts * np.log(counts + 1e-6)).sum())
    border = np.concatenate([small[0], small[-1], small[:, 0], small[:, -1]])
    ends = [(small < 0.02).mean(), (small > 0.98).mean(), border.mean(), border.std()]
    return np.array([*counts, entropy, *ends])


def _detail_features(small: Floats) -> Values:
    """The amount of fine detail: the spectrum by octaves, and the steps between neighbours."""
    # Tapered, because the jump from one border to the other would look like fine detail.
    window = np.hanning(len(small))
    power = np.abs(np.fft.fft2((small - small.mean()) * np.outer(window, window))) ** 2
    frequency = np.fft.fftfreq(len(small)) * len(small)
    radius = np.hypot(frequency[:, None], frequency[None, :])
    # Cycles over the image; 64 is the limit for 128 pixels.
    edges = (1, 2, 4, 8, 16, 32, 64)
    octaves = [
        math.log10(float(power[(radius >= low) & (radius < high)].sum()) + 1e-9)
        for low, high in itertools.pairwise(edges)
    ]
    steps = np.abs(np.diff(small, axis=1))[:-1] + np.abs(np.diff(small, axis=0))[:, :-1]
    flat = [(steps < 0.004).mean(), (steps < 0.02).mean(), (steps > 0.3).mean()]
    # From octave to octave, because the power itself depends on the contrast.
    falls = [low - high for low, high in itertools.pairwise(octaves)]
    return np.array([*falls, *flat, *np.sqrt(np.percentile(steps, (10, 50, 90)))])
