"""Does this look like a frontal chest radiograph, upright and bright where it is dense? Pure.

A few statistics of a small grey copy and one logistic model of them (see training.gate), asked of
the picture as it is, turned by quarters, and inverted: the likeliest of the eight is what it is.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xai_demo.records import Film, Floats, Radiograph

    Values = NDArray[np.float64]

Kind = Literal["frontal", "rotated", "inverted", "not a radiograph"]
Turn = Literal[0, 90, 180, 270]

SIDE = 64
_TURNS: tuple[Turn, ...] = (0, 90, 180, 270)
_GRID, _CELLS, _DIRECTIONS = 8, 4, 4
_STRIDE_TO = 512  # a larger picture is thinned first: 100 megapixels cost as much as one
_SURE, _SURE_OTHERWISE, _USUAL = 0.15, 0.6, 1.5  # chances, and a lead in log-odds
_FLAT = 1e-3
_BLANK = 1.5 / 255  # as `image` has it

# Fitted by training.gate.fit, in the order of `features`.
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

_ADVICE = "What the models say of such a picture means nothing."


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What a picture looks like before anybody asks what it shows."""

    kind: Kind
    probability: float  # that it is a frontal chest radiograph, once turned and inverted as said
    turn: Turn  # degrees to the left by which it would stand upright; with "inverted" too
    sentence: str  # "" where there is nothing to say


def looked_at(pixels: Floats, *, colour: bool | None = None) -> Gate:
    """Whether a picture looks like a frontal chest radiograph: (height, width), 0..1.

    `colour` is whether the file is in colour, which no film is; None: not known.
    """
    small = reduced(pixels)
    if np.ptp(small) < _FLAT or colour:
        what = "it is in colour" if colour else "it is the same grey all over"
        return _stranger(0.0, f": {what}")
    odds = logits(features(small))
    way = likeliest(odds)
    best = float(probability(odds[way or 0]))
    if way is None:
        return _stranger(best, "")
    turn, inverted = _TURNS[way % 4], way >= 4
    if inverted:
        also = f" and to stand {_turned(turn)}" if turn else ""
        sentence = (
            f"This film seems to be inverted, dark where it is dense{also}: the models here would"
            " misread it. It can be corrected."
        )
        return Gate(kind="inverted", probability=best, turn=turn, sentence=sentence)
    if turn:
        sentence = (
            f"This film seems to stand {_turned(turn)}: the models here would misread it. It can"
            " be corrected."
        )
        return Gate(kind="rotated", probability=best, turn=turn, sentence=sentence)
    return Gate(kind="frontal", probability=best, turn=0, sentence="")


def corrected(pixels: Floats, gate: Gate) -> Floats:
    """The picture turned upright and made bright where it is dense, as the gate would have it."""
    upright = np.rot90(pixels, gate.turn // 90)
    return np.ascontiguousarray(1 - upright if gate.kind == "inverted" else upright)


def admitted(radiograph: Radiograph, film: Film = "checked") -> Radiograph:
    """The radiograph as it goes on to a model, with the verdict among its facts and warnings.

    What is no frontal film, or stands otherwise, is `checked`: doubted; `corrected`: put right
    where it can be, doubted where it cannot; `as-is`: warned about and no more.
    """
    gate = looked_at(radiograph.pixels, colour=radiograph.facts.get("colour"))
    correctable = gate.kind in ("rotated", "inverted")
    done = film == "corrected" and correctable
    verdict = {
        "kind": gate.kind,
        "probability": round(gate.probability, 4),
        "turn_deg": gate.turn,
        "film": film,
        "corrected": done,
        "sentence": gate.sentence,
    }
    facts = {**radiograph.facts, "gate": verdict}
    if done:
        pixels = corrected(radiograph.pixels, gate)
        facts |= {"width": pixels.shape[1], "height": pixels.shape[0]}
        corrected_so = f"The film was corrected before it was analysed: {_done(gate)}."
        warnings = (corrected_so, *radiograph.warnings)
        return replace(radiograph, pixels=pixels, facts=facts, warnings=warnings)
    # Of a picture of one grey the reader has said enough.
    blank = float(np.ptp(radiograph.pixels)) < _BLANK
    said = (gate.sentence,) if gate.sentence and not blank else ()
    return replace(
        radiograph,
        facts=facts,
        warnings=(*said, *radiograph.warnings),
        doubt="" if film == "as-is" else gate.sentence,
    )


def _done(gate: Gate) -> str:
    """What correcting does, in words."""
    turned = {
        90: "turned to the left by a quarter",
        180: "turned upside down",
        270: "turned to the right by a quarter",
    }
    parts = [turned[gate.turn]] if gate.turn else []
    return " and ".join([*parts, *(["inverted"] if gate.kind == "inverted" else [])])


def _turned(turn: Turn) -> str:
    """How a picture stands that must be turned so far to the left."""
    return {90: "turned to the right", 180: "upside down", 270: "turned to the left"}.get(turn, "")


def _stranger(likelihood: float, why: str) -> Gate:
    return Gate(
        kind="not a radiograph",
        probability=likelihood,
        turn=0,
        sentence=f"This does not look like a frontal chest X-ray{why}. {_ADVICE}",
    )


def reduced(pixels: Floats) -> Floats:
    """The picture squashed to 128 x 128, 1 % of it black and 1 % white: 0..1."""
    from PIL import Image

    step = max(1, min(pixels.shape) // _STRIDE_TO)
    thin = np.ascontiguousarray(pixels[::step, ::step], np.float32)
    size = (2 * SIDE, 2 * SIDE)
    small = np.asarray(Image.fromarray(thin).resize(size, Image.Resampling.BILINEAR))
    low, high = np.percentile(small, (1, 99))
    if high - low < _FLAT:
        return np.zeros(size, np.float32)
    return np.asarray(np.clip((small - low) / (high - low), 0, 1), np.float32)


def likeliest(odds: Values) -> int | None:
    """In which of its eight ways a picture is a frontal radiograph, None: in none; (8,) log-odds.

    Most films come as they should, so that way needs less than another to be believed.
    """
    other = 1 + int(odds[1:].argmax())
    if probability(odds[0]) >= _SURE and odds[0] + _USUAL >= odds[other]:
        return 0
    return other if probability(odds[other]) >= _SURE_OTHERWISE else None


def logits(values: Values) -> Values:
    """The log-odds of being an upright frontal radiograph: (..., features) -> (...)."""
    return np.asarray(INTERCEPT + values @ np.array(WEIGHTS))


def probability(odds: float | Values) -> Values:
    """From log-odds to 0..1."""
    return np.asarray(1 / (1 + np.exp(-np.clip(odds, -50, 50))))


def features(small: Floats) -> Values:
    """The statistics of a reduced picture in its eight ways: (128, 128) -> (8, features).

    As it is, then turned to the left by one, two and three quarters; then the same of its inverse.
    """
    detail = _detail(small)  # the same whichever way it stands
    rows = []
    for shown in (small, 1 - small):
        half = shown.reshape(SIDE, 2, SIDE, 2).mean(axis=(1, 3)).astype(np.float64)
        tones = _tones(shown)
        for quarters in range(4):
            turned = np.rot90(half, quarters)
            level = (turned - turned.mean()) / (turned.std() + 1e-6)
            layout = (_blocks(level, _GRID).ravel(), _edges(turned), _symmetry(level))
            rows.append(np.concatenate([*layout, tones, detail]))
    return np.stack(rows)


def _blocks(picture: Values, count: int) -> Values:
    side = picture.shape[0] // count
    return np.asarray(picture.reshape(count, side, count, side).mean(axis=(1, 3)))


def _edges(half: Values) -> Values:
    """How strong the edges of four directions are in each of 4 x 4 cells, and in all."""
    down, right = np.gradient(half)
    strength = np.hypot(down, right)
    angle = np.mod(np.arctan2(down, right), math.pi) / math.pi * _DIRECTIONS
    nearest = np.mod(np.rint(angle).astype(int), _DIRECTIONS)
    cells = [_blocks(strength * (nearest == direction), _CELLS) for direction in range(_DIRECTIONS)]
    found = np.stack(cells).ravel()
    return np.concatenate([np.sqrt(found / (strength.mean() + 1e-6)), [10 * strength.mean()]])


def _symmetry(level: Values) -> Values:
    """Likeness of left and right and of top and bottom, and the lungs beside what is between."""
    rows, columns = level.mean(axis=1), level.mean(axis=0)
    quarter = SIDE // 4
    middle = level[quarter : 3 * quarter]
    between = middle[:, SIDE // 2 - 6 : SIDE // 2 + 6].mean()
    lungs = [middle[:, 10:24].mean(), middle[:, -24:-10].mean()]
    return np.array(
        [
            (level * level[:, ::-1]).mean(),
            (level * level[::-1]).mean(),
            (columns * columns[::-1]).mean(),
            (rows * rows[::-1]).mean(),
            between - max(lungs),
            abs(lungs[0] - lungs[1]),
            rows.std(),
            columns.std(),
        ]
    )


def _tones(small: Floats) -> Values:
    """The histogram in eight steps, black and white, and how even it is."""
    counts = np.histogram(small, bins=8, range=(0, 1))[0] / small.size
    entropy = -float((counts * np.log(counts + 1e-6)).sum())
    border = np.concatenate([small[0], small[-1], small[:, 0], small[:, -1]])
    ends = [(small < 0.02).mean(), (small > 0.98).mean(), border.mean(), border.std()]
    return np.array([*counts, entropy, *ends])


def _detail(small: Floats) -> Values:
    """How much of the picture is fine: by octaves of its spectrum, and by its flattest parts."""
    window = np.hanning(len(small))
    power = np.abs(np.fft.fft2((small - small.mean()) * np.outer(window, window))) ** 2
    at = np.fft.fftfreq(len(small)) * len(small)
    radius = np.hypot(at[:, None], at[None, :])
    edges = (1, 2, 4, 8, 16, 32, 64)
    octaves = [
        math.log10(float(power[(radius >= low) & (radius < high)].sum()) + 1e-9)
        for low, high in itertools.pairwise(edges)
    ]
    steps = np.abs(np.diff(small, axis=1))[:-1] + np.abs(np.diff(small, axis=0))[:, :-1]
    flat = [(steps < 0.004).mean(), (steps < 0.02).mean(), (steps > 0.3).mean()]
    falls = [low - high for low, high in itertools.pairwise(octaves)]
    return np.array([*falls, *flat, *np.sqrt(np.percentile(steps, (10, 50, 90)))])
