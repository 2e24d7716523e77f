"""Where the lungs are on an upright frontal chest radiograph: the lung field. Pure.

A convolutional network in the shape of a U (Ronneberger et al. 2015, arXiv:1505.04597) with 126,000
weights of 8 bits looks at a thumbnail. Its weights lie beside this module; `training.lung_fit` has
how they were fitted. The field is where air is or would be: of a lung that is opaque, the network
continues the outline. The heart, the mediastinum and what the diaphragm hides are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from xai_demo.imaging.gate import thumbnail

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeAlias

    from numpy.typing import NDArray

    from xai_demo.records import Floats

    Mask: TypeAlias = NDArray[np.bool_]
    Layers: TypeAlias = Mapping[str, tuple[Floats, Floats]]

WEIGHTS_FILE = Path(__file__).with_name("lungs.npz")
# By layer, in the order in which they run: channels in, channels out, stride.
LAYERS = {
    "stem": (3, 8, 2),
    "fine": (8, 8, 1),
    "down1": (8, 16, 2),
    "medium": (16, 16, 1),
    "down2": (16, 32, 2),
    "coarse": (32, 32, 1),
    "down3": (32, 48, 2),
    "deep1": (48, 48, 1),
    "deep2": (48, 48, 1),
    "deep3": (48, 48, 1),
    "up1": (80, 32, 1),
    "up2": (48, 16, 1),
    "up3": (24, 8, 1),
    "out": (8, 2, 1),
}
# Of the network's answer: one for the lung on the left of the image, one for that on the right.
GRID = 64
# Below this the field is reported as not found.
MIN_PLAUSIBILITY = 0.5
# The share of the image that one lung takes: never, always, always and never plausible.
_AREAS = (0.01, 0.03, 0.26, 0.36)


@dataclass(frozen=True, slots=True, kw_only=True)
class LungField:
    """The field, and how plausible it is as that of two lungs."""

    mask: Mask  # (height, width) of the image; all False where none was found
    plausibility: float  # 0 to 1

    @property
    def is_found(self) -> bool:
        """Whether the field is plausible enough to be used."""
        return self.plausibility >= MIN_PLAUSIBILITY

    @property
    def area(self) -> float:
        """The share of the image that the field takes."""
        return float(self.mask.mean())


def lung_field(pixels: Floats) -> Mask:
    """The lungs of a radiograph, (height, width), 0 to 1; all False where none were found."""
    return find_lungs(pixels).mask


def find_lungs(pixels: Floats, layers: Layers | None = None) -> LungField:
    """The lung field of a radiograph, (height, width), 0 to 1, upright and not inverted.

    `layers` are other weights than those in `WEIGHTS_FILE`.
    """
    import cv2

    height, width = pixels.shape
    sides = lung_probabilities(thumbnail(pixels), layers)
    masks = largest_parts(sides)
    score = plausibility(sides, masks)
    if score < MIN_PLAUSIBILITY:
        return LungField(mask=np.zeros((height, width), np.bool_), plausibility=score)
    # Apart from the largest part nothing stays, and no hole in it, but the edge's fractions do:
    # from them its place between two points of the grid is known.
    near, inner = (_morph(operation, masks) for operation in (cv2.MORPH_DILATE, cv2.MORPH_ERODE))
    edges = np.where(near, np.where(inner, 1, sides), 0).max(axis=0).astype(np.float32)
    large = cv2.resize(edges, (width, height), interpolation=cv2.INTER_LINEAR)
    return LungField(mask=large >= 0.5, plausibility=score)


def plausibility(sides: Floats, masks: Mask) -> float:
    """How much two masks look like lungs, 0 to 1: the weakest of several marks.

    Both are (2, height, width); `sides` has the probabilities that the masks were made of.
    """
    areas = masks.mean(axis=(1, 2))
    if not areas.all():
        return 0.0
    apart = (sides >= 0.5).any(axis=0).sum() / masks.any(axis=0).sum()
    rows = [np.flatnonzero(mask.any(axis=1)) for mask in masks]
    shared = min(r[-1] for r in rows) - max(r[0] for r in rows)
    height = max(r[-1] for r in rows) - min(r[0] for r in rows)
    centres = [np.nonzero(mask)[1].mean() / mask.shape[1] for mask in masks]
    marks = [
        *(float(np.interp(area, _AREAS, (0, 1, 1, 0))) for area in areas),
        # Certain within, in one piece, of similar size, beside one another.
        *(np.interp(sides[i][masks[i]].mean(), (0.6, 0.85), (0, 1)) for i in (0, 1)),
        np.interp(apart, (1, 1.5), (1, 0)),
        np.interp(areas.min() / areas.max(), (0.1, 0.35), (0, 1)),
        np.interp(shared / max(height, 1), (0.2, 0.6), (0, 1)),
        np.interp(centres[1] - centres[0], (0.1, 0.25), (0, 1)),
    ]
    return float(min(marks))


def share_inside(heatmap: Floats, mask: Mask) -> float | None:
    """The share of a heatmap's sum that lies inside a mask of the same shape; None if it is zero.

    >>> share_inside(np.array([[3.0, 1.0]], np.float32), np.array([[True, False]]))
    0.75
    """
    total = float(heatmap.sum(dtype=np.float64))
    return float(heatmap[mask].sum(dtype=np.float64)) / total if total > 0 else None


def inside(heatmap: Floats, field: LungField) -> dict[str, Any] | None:
    """What a report says of a heatmap of the field's shape; None if either shows nothing.

    Its keys are `share`, of the heatmap's sum; `area`, the share of the image that the lungs take,
    which is what chance would give; and a `sentence` with both.
    """
    share = share_inside(heatmap, field.mask) if field.is_found else None
    if share is None:
        return None
    return {
        "share": round(share, 4),
        "area": round(field.area, 4),
        "sentence": f"{100 * share:.0f} % of the heatmap lies inside the lungs, which take "
        f"{100 * field.area:.0f} % of the image.",
    }


def to_json(field: LungField | None) -> dict[str, Any]:
    """What a report says of the film itself; None: no lungs were looked for."""
    if field is None:
        return {"found": False, "plausibility": 0.0, "area": None}
    area = round(field.area, 4) if field.is_found else None
    return {"found": field.is_found, "plausibility": round(field.plausibility, 4), "area": area}


def outlines(mask: Mask) -> tuple[tuple[tuple[float, float], ...], ...]:
    """The outline of every part of a mask, as points (x, y) in fractions of the image."""
    import cv2

    height, width = mask.shape
    found, _ = cv2.findContours(
        np.asarray(mask, np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    parts = []
    for contour in found:
        points = cv2.approxPolyDP(contour, 0.002 * (height + width), True)[:, 0]
        # Of pixels' centres.
        if len(points) > 2:
            parts.append(tuple(((x + 0.5) / width, (y + 0.5) / height) for x, y in points.tolist()))
    return tuple(parts)


def lung_probabilities(small: Floats, layers: Layers | None = None) -> Floats:
    """The network's answer to a thumbnail: (128, 128) -> (2, 64, 64), left and right in the image.

    It is the probability that a point belongs to a lung.
    """
    layers = layers or _weights()

    def run(name: str, planes: Floats, *, rectified: bool = True) -> Floats:
        answer = _convolve(planes, *layers[name], stride=LAYERS[name][2])
        return np.maximum(answer, 0, out=answer) if rectified else answer

    side = np.linspace(-1, 1, len(small), dtype=np.float32)
    # The last two say where a point is, which the film itself may not show.
    down, right = np.meshgrid(side, side, indexing="ij")
    fine = run("fine", run("stem", np.stack([2 * small - 1, down, right])))
    medium = run("medium", run("down1", fine))
    coarse = run("coarse", run("down2", medium))
    deep = run("down3", coarse)
    deep = run("deep3", run("deep2", run("deep1", deep)) + deep) + deep
    coarse = run("up1", np.concatenate([_double(deep), coarse]))
    medium = run("up2", np.concatenate([_double(coarse), medium]))
    fine = run("up3", np.concatenate([_double(medium), fine]))
    logits = run("out", fine, rectified=False)
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -30, 30))), np.float32)


@cache
def _weights() -> Layers:
    return read_weights(WEIGHTS_FILE)


def read_weights(file: Path | BinaryIO) -> Layers:
    """The kernels, (out, in, 3, 3), and biases, (out,), of every layer of a weights file."""
    layers = {}
    with np.load(file, allow_pickle=False) as arrays:
        for name in LAYERS:
            kernels = arrays[f"{name}.kernels"].astype(np.float32)
            # One scale for each channel out, by which eight bits suffice.
            scaled = kernels * arrays[f"{name}.scales"][:, None, None, None]
            layers[name] = scaled, arrays[f"{name}.biases"]
    return layers


def _convolve(planes: Floats, kernels: Floats, biases: Floats, *, stride: int) -> Floats:
    """Convolve (in, height, width) with (out, in, 3, 3), zeros around it."""
    _, height, width = planes.shape
    padded = np.pad(planes, ((0, 0), (1, 1), (1, 1)))
    rows, columns = height // stride, width // stride
    # A matrix product for each of the nine taps is quicker than gathering them all first.
    answer = np.repeat(biases[:, None], rows * columns, axis=1)
    for down in range(3):
        for right in range(3):
            seen = padded[:, down : down + height : stride, right : right + width : stride]
            answer += kernels[:, :, down, right] @ seen.reshape(len(planes), -1)
    return answer.reshape(-1, rows, columns)


def _double(planes: Floats) -> Floats:
    """Twice as large: (channels, height, width), each point four times."""
    return planes.repeat(2, axis=1).repeat(2, axis=2)


def largest_parts(sides: Floats) -> Mask:
    """Of each lung the largest connected part that is probable, holes filled: one shape."""
    return np.stack([_largest_part(side >= 0.5) for side in sides])


def _largest_part(mask: Mask) -> Mask:
    import cv2

    plane = np.asarray(mask, np.uint8)
    # Without thin tails, such as a bubble of air below the diaphragm that hangs on.
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    solid = cv2.morphologyEx(plane, cv2.MORPH_OPEN, disc)
    contours, _ = cv2.findContours(solid, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros(mask.shape, np.uint8)
    if contours:
        cv2.drawContours(filled, [max(contours, key=cv2.contourArea)], -1, 1, -1)
    # The corner between diaphragm and ribs is thin too: one point of it comes back.
    return np.asarray((filled > 0) | (cv2.dilate(filled, np.ones((3, 3))) > 0) & mask)


def _morph(operation: int, masks: Mask) -> Mask:
    """Masks, (parts, height, width), dilated or eroded by one point."""
    import cv2

    square = np.ones((3, 3), np.uint8)
    return np.stack(
        [cv2.morphologyEx(mask.astype(np.uint8), operation, square) > 0 for mask in masks]
    )
