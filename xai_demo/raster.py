"""From a picture as read to the array a network sees. Pure: arrays in, arrays out."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
