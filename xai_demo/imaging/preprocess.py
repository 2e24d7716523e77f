"""From an image as read to the network's input, and test-time augmentation for uncertainty. Pure.

Test-time augmentation (Wang et al. 2019, https://doi.org/10.1016/j.neucom.2019.01.103): variations
that a radiologist would call the same radiograph should get the same answer. The interval reaches
from the lowest to the highest probability; it says how stable an answer is, and not whether it is
right.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from xai_demo.records import Floats, Raster

# Along each side of the image; also OpenCV's default.
_TILES = 8


def resize_for_network(pixels: Floats, spec: Raster) -> Floats:
    """The image at the network's size: (height, width) -> (spec.height, spec.width), 0 to 1.

    As the model requires, its contrast is equalised and it is squashed or centre-cropped; then it
    is resized with an antialiased bilinear filter.
    """
    from PIL import Image

    # Equalised before anything is cut off or resized, as in training.
    if spec.contrast_limit is not None:
        pixels = equalise_contrast(pixels, spec.contrast_limit)
    if spec.crop == "centre":
        side = min(pixels.shape)
        top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
        pixels = pixels[top : top + side, left : left + side]
    if pixels.shape != (spec.height, spec.width):
        resized = Image.fromarray(pixels).resize(
            (spec.width, spec.height), Image.Resampling.BILINEAR
        )
        # Rounding may put a value just outside of 0 to 1.
        pixels = np.clip(np.asarray(resized, dtype=np.float32), 0, 1)
    return pixels


def equalise_contrast(pixels: Floats, contrast_limit: float) -> Floats:
    """Contrast-limited adaptive histogram equalisation (CLAHE), (height, width), 0 to 1.

    OpenCV's implementation of Zuiderveld 1994, with eight by eight tiles and 256 grey levels.
    """
    import cv2

    # OpenCV's CLAHE works on whole numbers only.
    greys = np.round(255 * np.clip(pixels, 0, 1)).astype(np.uint8)
    clahe = cv2.createCLAHE(clipLimit=contrast_limit, tileGridSize=(_TILES, _TILES))
    return clahe.apply(greys).astype(np.float32) / np.float32(255)


def network_input(pixels: Floats, spec: Raster) -> Floats:
    """The network's input, (pixel - mean) / std: any shape -> the same shape."""
    values: Floats = (pixels - np.float32(spec.mean)) / np.float32(spec.std)
    return values


N_VIEWS = 12
SEED = 0
# The limits of the augmentation, each in either direction.
MAX_SHIFT = 0.04  # of the width and of the height
MAX_ROTATION_DEG = 5.0
MAX_BRIGHTNESS = 0.08  # of white
MAX_CONTRAST = 0.1


def augmented_views(pixels: Floats) -> Floats:
    """Slight variations of an image: (rows, columns), 0 to 1 -> (N_VIEWS, rows, columns).

    Shift, rotation, brightness and contrast are drawn uniformly between the limits above, from a
    fixed seed. Areas that come in at an edge repeat the edge pixels.
    """
    import cv2

    rows, columns = pixels.shape
    # Seeded afresh in each call, so that the same image always has the same interval.
    rng = np.random.default_rng(SEED)
    views = []
    for _ in range(N_VIEWS):
        right, down, rotation, brightness, contrast = rng.uniform(-1, 1, 5)
        centre = ((columns - 1) / 2, (rows - 1) / 2)
        matrix = cv2.getRotationMatrix2D(centre, MAX_ROTATION_DEG * rotation, 1)
        matrix[:, 2] += MAX_SHIFT * right * columns, MAX_SHIFT * down * rows
        # A black border would be an edge that is not in the image.
        warped = cv2.warpAffine(
            pixels, matrix, (columns, rows), borderMode=cv2.BORDER_REPLICATE
        ).astype(np.float32)
        mean = warped.mean()
        contrasted = mean + (1 + MAX_CONTRAST * contrast) * (warped - mean)
        views.append(np.clip(contrasted + MAX_BRIGHTNESS * brightness, 0, 1))
    return np.stack(views).astype(np.float32)


def prediction_intervals(probabilities: Floats, augmented: Floats) -> Floats:
    """The lowest and highest probability of each label over the image and its augmented views.

    (labels,) and (views, labels) -> (labels, 2).

    >>> prediction_intervals(np.array([0.5, 0.9]), np.array([[0.6, 0.3]])).tolist()
    [[0.5, 0.6], [0.3, 0.9]]
    """
    # The image itself is one of them, so the interval always holds the reported probability.
    together = np.concatenate([probabilities[None], augmented])
    return np.stack([together.min(axis=0), together.max(axis=0)], axis=1)


def augmentation_settings() -> Mapping[str, Any]:
    """How the intervals were computed, for the report."""
    return {
        "method": "test-time augmentation",
        "passes": N_VIEWS,
        "seed": SEED,
        "interval": "lowest and highest probability",
        "shift": MAX_SHIFT,
        "turn_deg": MAX_ROTATION_DEG,
        "brightness": MAX_BRIGHTNESS,
        "contrast": MAX_CONTRAST,
    }
