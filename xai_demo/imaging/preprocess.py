"""From a picture as read to the array a network sees. Pure: arrays in, arrays out.

How steady an answer is: the same radiograph slightly shifted, turned and brightened. Pure.

Test-time augmentation (Wang et al. 2019, https://doi.org/10.1016/j.neucom.2019.01.103): what no
radiologist would call another film should get no other answer. The interval is from the lowest to
the highest of the answers; it says how steady the answer is, not how right.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from xai_demo.records import Floats, Raster

_TILES = 8  # of the picture's height, and of its width


def framed(pixels: Floats, spec: Raster) -> Floats:
    """The picture at the network's size: (height, width) -> (spec.height, spec.width), 0..1.

    Its contrast equalised where that is wanted, squashed or centre-cropped, then resized with an
    antialiased bilinear filter.
    """
    from PIL import Image

    if spec.contrast_limit is not None:
        pixels = equalised(pixels, spec.contrast_limit)
    if spec.crop == "centre":
        side = min(pixels.shape)
        top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
        pixels = pixels[top : top + side, left : left + side]
    if pixels.shape != (spec.height, spec.width):
        resized = Image.fromarray(pixels).resize(
            (spec.width, spec.height), Image.Resampling.BILINEAR
        )
        pixels = np.clip(np.asarray(resized, dtype=np.float32), 0, 1)
    return pixels


def equalised(pixels: Floats, contrast_limit: float) -> Floats:
    """Contrast-limited adaptive histogram equalisation of eight by eight tiles, in 256 greys.

    Zuiderveld 1994, as OpenCV's CLAHE does it.
    """
    import cv2

    greys = np.round(255 * np.clip(pixels, 0, 1)).astype(np.uint8)
    made = cv2.createCLAHE(clipLimit=contrast_limit, tileGridSize=(_TILES, _TILES)).apply(greys)
    return made.astype(np.float32) / np.float32(255)


def network_input(framed_pixels: Floats, spec: Raster) -> Floats:
    """What the network sees: (pixel - mean) / std."""
    values: Floats = (framed_pixels - np.float32(spec.mean)) / np.float32(spec.std)
    return values


LOOKS = 12
SEED = 0
MOST_SHIFT = 0.04  # of a side, either way
MOST_TURN_DEG = 5.0
MOST_BRIGHTER = 0.08  # of white, either way
MOST_CONTRAST = 0.1


def looks(framed: Floats) -> Floats:
    """The picture in its variations, always the same: (rows, columns), 0..1 -> (n, rows, columns).

    Drawn evenly between the limits above; what comes in at an edge repeats the edge.
    """
    import cv2

    rows, columns = framed.shape
    rng = np.random.default_rng(SEED)
    varied = []
    for _ in range(LOOKS):
        right, down, turn, brighter, contrast = rng.uniform(-1, 1, 5)
        matrix = cv2.getRotationMatrix2D(
            ((columns - 1) / 2, (rows - 1) / 2), MOST_TURN_DEG * turn, 1
        )
        matrix[:, 2] += MOST_SHIFT * right * columns, MOST_SHIFT * down * rows
        moved = cv2.warpAffine(
            framed, matrix, (columns, rows), borderMode=cv2.BORDER_REPLICATE
        ).astype(np.float32)
        mean = moved.mean()
        toned = mean + (1 + MOST_CONTRAST * contrast) * (moved - mean) + MOST_BRIGHTER * brighter
        varied.append(np.clip(toned, 0, 1))
    return np.stack(varied).astype(np.float32)


def intervals(overall: Floats, varied: Floats) -> Floats:
    """Lowest and highest of the answer itself and those to its variations.

    (labels,) and (n, labels) -> (labels, 2).
    """
    every = np.concatenate([overall[None], varied])
    return np.stack([every.min(axis=0), every.max(axis=0)], axis=1)


def method() -> Mapping[str, Any]:
    """For the report: how the intervals were made."""
    return {
        "method": "test-time augmentation",
        "passes": LOOKS,
        "seed": SEED,
        "interval": "lowest and highest probability",
        "shift": MOST_SHIFT,
        "turn_deg": MOST_TURN_DEG,
        "brightness": MOST_BRIGHTER,
        "contrast": MOST_CONTRAST,
    }
