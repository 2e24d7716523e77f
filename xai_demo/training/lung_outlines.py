"""Outlines of clear lungs by image processing: what the network of `imaging.lungs` learns from.

There are no drawn outlines. On a film with clear lungs these are two dark regions of a known shape:
the film is cut at many grey levels, and of all regions on either side the one is taken whose edge
is clearest, whose shape is most like a lung's, and which is large. Most films are refused, and
nearly all that are left are right; `training.lung_fit` makes the rest of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

import cv2
import numpy as np

from xai_demo.synthesis import thorax

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xai_demo.records import Floats

    Mask: TypeAlias = NDArray[np.bool_]

# Of thumbnails: pixels a side.
SIDE = 128
# Widths in pixels of what is removed because it is brighter and narrower, such as ribs; and widths
# of the surroundings by which the exposure is evened out, 0: not at all.
_RIB_WIDTHS, _SURROUNDINGS = (3, 5, 7, 11), (0, 20)
_LEVELS = np.linspace(0.1, 0.7, 26)
# Of a lung: share of the image, and where its centre lies from the left and from the top.
_AREAS, _LEFT_CENTRES, _HEIGHTS = (0.025, 0.27), (0.14, 0.46), (0.25, 0.72)
_SHAPE = (64, 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """A candidate for one lung, and how good it is."""

    mask: Mask  # (SIDE, SIDE)
    edge: float  # mean rise of the grey across the edge, per pixel
    likeness: float  # to the shape of a lung: Dice's coefficient
    solidity: float  # share of its convex hull
    score: float

    @property
    def area(self) -> float:
        """The share of the image."""
        return float(self.mask.mean())


def outline_lungs(small: Floats) -> Mask | None:
    """Both lungs of a thumbnail, (SIDE, SIDE) -> (2, SIDE, SIDE); None unless all is clear."""
    best: tuple[Outline, Outline] | None = None
    for width in _RIB_WIDTHS:
        for surroundings in _SURROUNDINGS:
            pair = _best_pair(small, width, surroundings)
            if pair and (best is None or _weaker(pair) > _weaker(best)):
                best = pair
    return np.stack([side.mask for side in best]) if best and _is_clear(*best) else None


def _weaker(pair: tuple[Outline, Outline]) -> float:
    return min(side.score for side in pair)


def _is_clear(left: Outline, right: Outline) -> bool:
    """Whether two outlines are those of a clear pair of lungs."""
    rows = [np.flatnonzero(side.mask.any(axis=1)) for side in (left, right)]
    return (
        min(left.likeness, right.likeness) > 0.8
        and min(left.solidity, right.solidity) > 0.82
        and min(left.edge, right.edge) > 0.012
        and 0.15 < left.area + right.area < 0.5
        and 0.6 < left.area / right.area < 1.9
        and abs(rows[0][0] - rows[1][0]) < 0.1 * SIDE
        and abs(rows[0][-1] - rows[1][-1]) < 0.16 * SIDE
        and not (left.mask & right.mask).any()
    )


def _best_pair(small: Floats, width: int, surroundings: int) -> tuple[Outline, Outline] | None:
    base = cv2.GaussianBlur(small, (0, 0), 1.0)
    plane = cv2.GaussianBlur(cv2.morphologyEx(base, cv2.MORPH_OPEN, _disc(width)), (0, 0), 1.0)
    if surroundings:
        plane = plane - 0.8 * cv2.GaussianBlur(plane, (0, 0), surroundings)
    smooth = cv2.GaussianBlur(base, (0, 0), 1.5)
    slopes = _slopes(smooth / 8)
    best: list[Outline | None] = [None, None]
    for level in np.quantile(plane, _LEVELS):
        for side, region in _regions(plane < level):
            outline = _judge(region, slopes, side)
            champion = best[side]
            if outline and outline.score > (champion.score if champion else 0):
                best[side] = outline
    left, right = best
    return (left, right) if left and right else None


def _regions(dark: Mask) -> Iterator[tuple[int, Mask]]:
    """Connected regions that might be a lung, with their side: 0 left, 1 right in the image."""
    number, labels, boxes, centres = cv2.connectedComponentsWithStats(
        dark.astype(np.uint8), connectivity=4
    )
    for i in range(1, number):
        width, height, area = boxes[i, 2:]
        x, y = centres[i] / SIDE
        side = int(x >= 0.5)
        inward = 1 - x if side else x
        # The air around the body runs along the edges of the image, a lung at most touches them.
        edges = ((labels[:, 0], 0.12), (labels[:, -1], 0.12), (labels[0], 0.04))
        if (
            _AREAS[0] * SIDE**2 < area < _AREAS[1] * SIDE**2
            and _LEFT_CENTRES[0] < inward < _LEFT_CENTRES[1]
            and _HEIGHTS[0] < y < _HEIGHTS[1]
            and height > max(0.27 * SIDE, 0.9 * width)
            and width < 0.5 * SIDE
            and all((edge == i).sum() <= most * SIDE for edge, most in edges)
        ):
            yield side, labels == i


def _judge(region: Mask, slopes: Floats, side: int) -> Outline | None:
    """A region with ribs filled in and its outline smoothed, and how much of a lung it is."""
    mask = _smooth(region)
    area = float(mask.mean())
    columns = np.flatnonzero(mask.any(axis=0))
    is_across = area and columns[0] < 0.47 * SIDE and columns[-1] > 0.53 * SIDE
    if area < 0.02 or (is_across and mask[:, SIDE // 2].sum() > 0.12 * SIDE):
        return None
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    x, y = contours[0][:, 0].T
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1.5)
    outward = -_slopes(soft)
    rise = (slopes * outward).sum(axis=0) / (np.hypot(*outward) + 1e-6)
    # Cut off, so that a bright rib on a short stretch does not make up for an edge without any.
    edge = float(np.clip(rise[y, x], -0.01, 0.04).mean())
    solidity = area * SIDE**2 / max(cv2.contourArea(cv2.convexHull(contours[0])), 1)
    likeness = _dice(_in_box(mask), _shapes()[side])
    score = max(edge, 0) * likeness**3 * solidity**2 * area**0.8
    return Outline(mask=mask, edge=edge, likeness=likeness, solidity=solidity, score=score)


def _slopes(plane: NDArray[Any]) -> Floats:
    """How a plane rises to the right and down: (2, rows, columns), times 8."""
    axes = ((1, 0), (0, 1))
    return np.asarray([cv2.Sobel(plane, cv2.CV_32F, *axis) for axis in axes], np.float32)


def _smooth(region: Mask) -> Mask:
    """The largest part, with ribs and notches filled in."""
    margin = 20
    plane = cv2.copyMakeBorder(region.astype(np.uint8), *4 * (margin,), cv2.BORDER_CONSTANT)
    plane = cv2.morphologyEx(plane, cv2.MORPH_OPEN, _disc(7))
    plane = cv2.morphologyEx(plane, cv2.MORPH_CLOSE, _disc(15))
    contours, _ = cv2.findContours(plane, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    whole = np.zeros(plane.shape, np.float32)
    if contours:
        cv2.drawContours(whole, [max(contours, key=cv2.contourArea)], -1, 1, -1)
    smooth = cv2.GaussianBlur(whole, (0, 0), 2) > 0.5
    return np.asarray(smooth[margin:-margin, margin:-margin])


def _in_box(mask: Mask) -> Floats:
    """A mask cut to its bounding box, at one size for all."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float32)
    return np.asarray(cv2.resize(box, _SHAPE[::-1]), np.float32)


@cache
def _shapes() -> tuple[Floats, Floats]:
    """The lungs of the thorax phantom, each in its box."""
    left, right = (mask for mask in thorax.lung_masks(SIDE))
    return _in_box(left), _in_box(right)


def _dice(one: Floats, other: Floats) -> float:
    return float(2 * np.minimum(one, other).sum() / (one.sum() + other.sum()))


def _disc(width: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width)), np.uint8)
