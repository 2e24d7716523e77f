"""A thorax phantom: a schematic frontal chest X-ray, optionally with opacities in known places.

Drawn as thicknesses that attenuate X-rays (soft tissue and bone, minus air), then converted to
grey as in a radiograph: air dark, bone bright, outside the body black. The patient's right side is
on the left of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from xai_demo.errors import UnsuitableError
from xai_demo.examples import Box, Phantom

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Plane: TypeAlias = NDArray[np.float64]
    Points: TypeAlias = Sequence[tuple[float, float]]

SIZE = 512
# Of outlines: averaging back to SIZE smooths their edges.
_OVERSAMPLING = 2

# Outlines as (x, y) fractions of the image; paired parts are drawn on the left and mirrored.
_TORSO = (
    (0.40, -0.20), (0.40, 0.02), (0.385, 0.085), (0.32, 0.125), (0.20, 0.15), (0.09, 0.17),
    (-0.10, 0.21), (-0.15, 0.45), (0.00, 0.46), (0.065, 0.50), (0.085, 0.60), (0.095, 0.80),
    (0.095, 1.00), (0.10, 1.20),
)  # fmt: skip
_RIGHT_LUNG = (
    (0.385, 0.205), (0.425, 0.27), (0.435, 0.38), (0.43, 0.50), (0.42, 0.62), (0.415, 0.735),
    (0.35, 0.715), (0.27, 0.73), (0.20, 0.775), (0.145, 0.84), (0.135, 0.76), (0.15, 0.62),
    (0.185, 0.47), (0.24, 0.33), (0.315, 0.23),
)  # fmt: skip
_LEFT_LUNG = (
    (0.615, 0.205), (0.575, 0.27), (0.565, 0.37), (0.59, 0.46), (0.64, 0.56), (0.68, 0.66),
    (0.70, 0.755), (0.745, 0.76), (0.80, 0.80), (0.855, 0.86), (0.865, 0.77), (0.85, 0.62),
    (0.815, 0.47), (0.76, 0.33), (0.685, 0.23),
)  # fmt: skip
_HEART = (
    (0.465, 0.30), (0.435, 0.42), (0.405, 0.56), (0.40, 0.68), (0.44, 0.77), (0.56, 0.80),
    (0.67, 0.785), (0.71, 0.725), (0.68, 0.635), (0.625, 0.52), (0.58, 0.42), (0.555, 0.32),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Opacity:
    """A cloudy patch to draw; its centre and radii are fractions of the image."""

    label: str
    x: float
    y: float
    radius_x: float
    radius_y: float
    strength: float = 0.95  # 1: as dense as the heart


def thorax_phantom(*, seed: int, opacities: tuple[Opacity, ...] = ()) -> Phantom:
    """A radiograph with these opacities, and their boxes; the seed determines the image.

    Raises UnsuitableError for an opacity outside both lungs.
    """
    rng = np.random.default_rng(seed)
    lungs = _smooth(_fill_outline(_RIGHT_LUNG), 1.6) + _smooth(_fill_outline(_LEFT_LUNG), 1.6)
    body = _soft_tissue(lungs)
    bone = _bones(rng)
    vessels = _vessels(rng) * lungs
    tissue = _tissue_texture(rng) * np.clip(4 * body, 0, 1)
    # Bone stands out less where the body is dense already.
    grey = body + 0.95 * bone * (1 - 0.75 * body) + 0.26 * vessels + 0.022 * tissue
    clouds = np.zeros_like(grey)
    boxes = []
    for opacity in opacities:
        cloud = _cloud(rng, opacity) * np.clip(lungs, 0, 1)
        boxes.append(_bounding_box(opacity.label, cloud))
        # The maximum, because overlapping opacities do not add up.
        clouds = np.maximum(clouds, opacity.strength * cloud)
    # Fluid replaces air: the patch becomes as dense as the heart and hides what lies in it.
    grey += clouds * (0.72 - grey)
    grain = _smooth(rng.standard_normal((SIZE, SIZE)), 0.7)
    # Grain grows with brightness.
    exposure = np.clip(grey, 0, 1) + 0.014 * grain * (0.3 + np.clip(grey, 0, 1))
    pixels = np.clip(255 * exposure + 3, 0, 255).astype(np.uint8)
    return Phantom(pixels=_draw_side_marker(pixels), truth=tuple(boxes))


def lung_masks(side: int) -> NDArray[np.bool_]:
    """Where the lungs of every phantom are: (2, side, side), the one on the left first."""
    from PIL import Image

    masks = [
        np.asarray(Image.fromarray(_fill_outline(lung)).resize((side, side), Image.Resampling.BOX))
        for lung in (_RIGHT_LUNG, _LEFT_LUNG)
    ]
    return np.stack(masks) >= 0.5


def _tissue_texture(rng: np.random.Generator) -> Plane:
    """The mottle of unresolved vessels and airways: deviation 1."""
    mottle = np.zeros((SIZE, SIZE))
    for sigma in (1.3, 2.6):
        layer = _smooth(rng.standard_normal((SIZE, SIZE)), sigma)
        mottle += layer / layer.std()
    return np.asarray(mottle / mottle.std())


def _soft_tissue(lungs: Plane) -> Plane:
    """Muscle, mediastinum, heart and abdomen, minus air in lungs and trachea: grey, 0..1."""
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    torso = _fill_outline(_TORSO + tuple((1 - px, py) for px, py in reversed(_TORSO)))
    skin = _smooth(torso, 3) * (0.25 + 0.75 * _smooth(torso, 26))
    grey = 0.55 * skin
    # Thicker towards the middle.
    grey += 0.09 * np.exp(-(((x - 0.5) / 0.16) ** 2)) * torso
    # The chin covers the upper edge.
    chin = 1 / (1 + np.exp((np.hypot((x - 0.5) / 0.20, (y + 0.04) / 0.13) - 1) / 0.05))
    grey = np.maximum(grey, 0.76 * chin)
    # Lungs are thicker, and so darker, away from their edges.
    depth = np.clip(_smooth(lungs, 12) ** 1.5, 0, 1)
    grey -= lungs * (0.12 + 0.21 * depth) * (1 - 0.15 * (y - 0.5))
    # Only where lung was subtracted: elsewhere the heart is as dense as what surrounds it.
    heart = _smooth(_fill_outline(_HEART), 3.5)
    grey += heart * 0.20 * lungs
    abdomen = 1 / (1 + np.exp(-(y - 0.76) / 0.025)) * np.clip(torso - lungs, 0, 1)
    grey += 0.17 * _smooth(abdomen, 4) * np.exp(-(((x - 0.5) / 0.42) ** 4))
    windpipe = _fill_outline(_band_outline(((0.5, -0.10), (0.5, 0.20), (0.495, 0.36)), 0.018))
    grey -= 0.08 * _smooth(windpipe, 4) * np.clip(3.2 - 8 * y, 0, 1)
    # The gastric bubble, below the left half of the diaphragm.
    bubble = np.exp(-(((x - 0.73) / 0.05) ** 2) - ((y - 0.87) / 0.03) ** 2)
    return np.asarray(np.clip(grey - 0.13 * bubble, 0, 1))


def _bones(rng: np.random.Generator) -> Plane:
    """Ribs, spine, clavicles, scapulae and humeri: thickness, 0..1."""
    bone = np.zeros((SIZE, SIZE))
    for rib in range(10):
        back, front = _rib(rib)
        bone += 0.27 * _tube(back, 0.0105)
        # The lower ribs end in cartilage, which is not visible.
        if rib < 7:
            bone += 0.11 * _tube(front, 0.0100)
    bone = np.maximum(bone, bone[:, ::-1])
    collar = ((0.452, 0.252), (0.41, 0.240), (0.34, 0.206), (0.26, 0.188), (0.185, 0.180))
    blade = ((0.155, 0.20), (0.195, 0.28), (0.205, 0.36), (0.165, 0.44))
    humerus = ((0.125, 0.205), (0.02, 0.29), (-0.10, 0.38))
    sides = 0.36 * _tube(collar, 0.0115) + 0.13 * _tube(blade, 0.012) + 0.32 * _tube(humerus, 0.02)
    bone += sides + sides[:, ::-1]
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    # The spine: vertebrae with darker discs between them and a brighter ridge along the middle.
    column = np.exp(-(((x - 0.5) / 0.042) ** 6))
    level = (y + 0.004 * rng.standard_normal()) / 0.058 * (1 - 0.12 * y)
    disc = np.exp(-(((level % 1) - 0.5) ** 2) / 0.012)
    bone += column * (0.17 - 0.08 * disc + 0.05 * np.exp(-(((x - 0.5) / 0.008) ** 2)))
    return np.clip(_smooth(bone, 0.9), 0, 1)


def _rib(number: int) -> tuple[Points, Points]:
    """One rib: its posterior part, spine to flank, and its fainter anterior part."""
    y = 0.195 + 0.066 * number
    # Where each rib is furthest to the side.
    flank = (0.335, 0.245, 0.195, 0.165, 0.150, 0.142, 0.138, 0.134, 0.130, 0.128)[number]
    fall = 0.035 + 0.012 * min(number, 6)
    back = (
        (0.47, y),
        (0.41, y - 0.016),
        (0.41 + 0.55 * (flank - 0.41), y + 0.10 * fall),
        (flank + 0.035, y + 0.55 * fall),
        (flank + 0.004, y + 1.15 * fall),
        (flank + 0.006, y + 1.75 * fall),
    )
    front = (
        back[-1],
        (flank + 0.035, y + 2.15 * fall),
        (flank + 0.45 * (0.40 - flank), y + 2.3 * fall + 0.01),
        (0.385, y + 2.2 * fall - 0.005 * number),
    )
    return back, front


def _tube(path: Points, radius: float) -> Plane:
    """A hollow bone from the side: its cortex is brighter than its middle."""
    outer = _smooth(_fill_outline(_band_outline(path, radius)), 1.2)
    inner = _smooth(_fill_outline(_band_outline(path, 0.45 * radius)), 1.4)
    return outer - 0.5 * inner


def _vessels(rng: np.random.Generator) -> Plane:
    """Vessels that branch out from both hila and become thinner: thickness, 0..1."""
    from PIL import Image, ImageDraw

    canvas = Image.new("L", (SIZE * _OVERSAMPLING, SIZE * _OVERSAMPLING))
    draw = ImageDraw.Draw(canvas)
    scale = SIZE * _OVERSAMPLING
    for side, root_x in ((-1, 0.425), (1, 0.59)):
        for spread in np.linspace(-1.3, 1.3, 7):
            angle = spread + rng.normal(0, 0.2)
            twigs = [(root_x, 0.49, angle, 0.0085)]
            # Branch until the branches are too thin to be visible.
            while twigs:
                x, y, angle, width = twigs.pop()
                length = rng.uniform(0.035, 0.06)
                end_x = x + side * length * np.cos(angle)
                end_y = y + length * np.sin(angle)
                ends = (x * scale, y * scale, end_x * scale, end_y * scale)
                draw.line(ends, fill=int(110 + 12000 * width), width=max(1, int(width * scale)))
                if width > 0.0016:
                    for turn in (rng.uniform(0.15, 0.6), -rng.uniform(0.1, 0.5)):
                        twigs.append((end_x, end_y, angle + turn, width * rng.uniform(0.6, 0.78)))
    drawn = np.asarray(canvas.resize((SIZE, SIZE), Image.Resampling.BOX), np.float64) / 255
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    roots = sum(
        np.exp(-(((x - cx) / 0.03) ** 2) - ((y - 0.49) / 0.06) ** 2) for cx in (0.425, 0.60)
    )
    return np.asarray(np.clip(_smooth(drawn, 1.1) + 0.3 * roots, 0, 1))


def _cloud(rng: np.random.Generator, opacity: Opacity) -> Plane:
    """An uneven patch with soft edges: thickness, 0..1."""
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    texture = _smooth(rng.standard_normal((SIZE, SIZE)), 9)
    texture /= texture.std()
    reach = np.hypot((x - opacity.x) / opacity.radius_x, (y - opacity.y) / opacity.radius_y)
    solid = 1 / (1 + np.exp((reach + 0.11 * texture - 0.84) / 0.16))
    return np.asarray(_smooth(solid, 5) * np.clip(0.93 + 0.07 * texture, 0, 1))


def _bounding_box(label: str, cloud: Plane) -> Box:
    """The smallest box around everything denser than a quarter of the maximum."""
    # Clouds have been multiplied by the lungs: outside them nothing is left.
    if cloud.max() <= 0.05:
        raise UnsuitableError(
            f"The opacity {label!r} lies outside both lungs; it must lie inside one."
        )
    rows, columns = np.nonzero(cloud > cloud.max() / 4)
    left, top = columns.min() / SIZE, rows.min() / SIZE
    width, height = (np.ptp(columns) + 1) / SIZE, (np.ptp(rows) + 1) / SIZE
    return Box(
        label=label,
        x=round(float(left), 4),
        y=round(float(top), 4),
        width=round(float(width), 4),
        height=round(float(height), 4),
    )


def _draw_side_marker(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Draw the letter R that marks the patient's right side."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.fromarray(pixels)
    ImageDraw.Draw(image).text((22, 60), "R", fill=225, font=ImageFont.load_default(26))
    return np.asarray(image)


def _fill_outline(outline: Points) -> Plane:
    """The area inside a smooth closed curve through the points: 0..1, (SIZE, SIZE)."""
    from PIL import Image, ImageDraw

    canvas = Image.new("L", (SIZE * _OVERSAMPLING, SIZE * _OVERSAMPLING))
    corners = [
        (px * SIZE * _OVERSAMPLING, py * SIZE * _OVERSAMPLING) for px, py in _spline(outline)
    ]
    ImageDraw.Draw(canvas).polygon(corners, fill=255)
    return np.asarray(canvas.resize((SIZE, SIZE), Image.Resampling.BOX), np.float64) / 255


def _spline(points: Points, *, closed: bool = True) -> NDArray[np.float64]:
    """Points along a Catmull-Rom spline through the given points: (number, 2)."""
    # Each segment needs a neighbour on both sides: wrap around, or repeat the ends.
    knots = np.asarray(points, np.float64)
    ends = (knots[-1:], knots[:2]) if closed else (knots[:1], knots[-1:])
    knots = np.concatenate([ends[0], knots, ends[1]])
    # 16 points a segment, without its end, which is the start of the next one.
    t = np.linspace(0, 1, 16, endpoint=False)[:, None]
    pieces = []
    for a, b, c, d in zip(knots, knots[1:], knots[2:], knots[3:], strict=False):
        bend = t * (c - a) + t**2 * (2 * a - 5 * b + 4 * c - d) + t**3 * (3 * b - a - 3 * c + d)
        pieces.append(b + bend / 2)
    return np.concatenate(pieces if closed else [*pieces, knots[-1:]])


def _band_outline(path: Points, radius: float) -> list[tuple[float, float]]:
    """The outline of a band along a smooth path; `radius` is half its width."""
    # Every sixth point is enough, as `_fill_outline` smooths the outline again.
    middle = _spline(path, closed=False)[::6]
    along = np.gradient(middle, axis=0)
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    across = radius * np.stack([-along[:, 1], along[:, 0]], axis=1)
    outline = np.concatenate([middle + across, (middle - across)[::-1]])
    return [(float(px), float(py)) for px, py in outline]


def _smooth(plane: Plane, sigma: float) -> Plane:
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(plane, sigma, mode="nearest"))
