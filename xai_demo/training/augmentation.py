"""Random changes to training samples: log-mel spectrograms and radiographs.

Spectrograms are (mel, frames), radiographs (height, width) from 0 to 1; every function returns an
array of the same shape and leaves its argument as it is. The same generator gives the same change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from xai_demo.records import Floats


def mask_spectrogram(
    mel: Floats, rng: np.random.Generator, *, rows: int, columns: int, fill: float
) -> Floats:
    """SpecAugment (Park et al. 2019): fill up to two bands and two time spans with `fill`.

    They are at most `rows` and `columns` wide.
    """
    mel = mel.copy()
    for _ in range(rng.integers(0, 3)):
        height, width = rng.integers(0, rows + 1), rng.integers(0, columns + 1)
        top = rng.integers(0, mel.shape[0] - height + 1)
        left = rng.integers(0, mel.shape[1] - width + 1)
        mel[top : top + height] = fill
        mel[:, left : left + width] = fill
    return mel


def equalise(mel: Floats, rng: np.random.Generator, *, deviation: float) -> Floats:
    """Add a smooth random gain over frequency, as if by another stethoscope.

    `deviation` is the gain's standard deviation, in the units of `mel`.
    """
    # Five knots over the whole band keep the gain smooth.
    knots = rng.normal(0, deviation, size=5)
    gain = np.interp(np.linspace(0, 4, mel.shape[0]), np.arange(5), knots)
    changed: Floats = (mel + gain[:, None]).astype(np.float32)
    return changed


def shift_bands(mel: Floats, rng: np.random.Generator, *, max_rows: int) -> Floats:
    """Shift the pitch by up to `max_rows` bands; the edge is repeated."""
    shift = rng.integers(-max_rows, max_rows + 1)
    rows = np.clip(np.arange(mel.shape[0]) + shift, 0, mel.shape[0] - 1)
    shifted: Floats = mel[rows]
    return shifted


def stretch_time(mel: Floats, rng: np.random.Generator, *, max_share: float) -> Floats:
    """Stretch or compress time by up to `max_share`; the number of frames stays the same."""
    # About the centre, so that both edges move; the outermost frames repeat.
    centre = mel.shape[1] / 2
    factor = rng.uniform(1 - max_share, 1 + max_share)
    frames = centre + (np.arange(mel.shape[1]) - centre) * factor
    return mel[:, np.clip(np.round(frames), 0, mel.shape[1] - 1).astype(int)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RadiographAugmentation:
    """How far a radiograph may be changed during training; 0: not in that way."""

    rotation_deg: float = 0.0
    scale: float = 0.0  # as a share; height and width are scaled independently
    shift: float = 0.0  # as a share of the width or height
    mirror_probability: float = 0.0
    brightness: float = 0.0  # added to all pixels
    contrast: float = 0.0  # as a share, about the mean
    gamma: float = 0.0  # logarithm of the exponent
    gaussian: float = 0.0  # largest standard deviation of additive noise
    speckle: float = 0.0  # largest standard deviation of multiplicative noise
    # Largest loss of resolution, as a share; every other radiograph loses some.
    resolution: float = 0.0
    # Lowest quality of the JPEG that every third radiograph becomes.
    jpeg_quality: int = 0


# As in the published system for 14 findings, which took whole radiographs; the shift is ours. So
# are, here and below, the resolution and the JPEG: without them, a network can tell collections
# apart by how their files were made.
NIH14 = RadiographAugmentation(
    rotation_deg=15,
    scale=0.1,
    shift=0.05,
    mirror_probability=0.5,
    brightness=0.1,
    contrast=0.2,
    resolution=0.5,
    jpeg_quality=50,
)
# As in the published system: Gaussian and speckle noise, and random contrast.
COVID3 = RadiographAugmentation(
    rotation_deg=8,
    scale=0.12,
    shift=0.06,
    mirror_probability=0.5,
    brightness=0.1,
    contrast=0.3,
    gamma=0.2,
    gaussian=0.03,
    speckle=0.08,
    resolution=0.5,
    jpeg_quality=50,
)


def augment_radiograph(
    radiograph: Floats, rng: np.random.Generator, limits: RadiographAugmentation
) -> Floats:
    """Apply one random change within `limits`."""
    if rng.random() < limits.mirror_probability:
        radiograph = radiograph[:, ::-1]
    if limits.resolution and rng.random() < 1 / 2:
        radiograph = _reduce_resolution(radiograph, rng.uniform(1 - limits.resolution, 1))
    if limits.jpeg_quality and rng.random() < 1 / 3:
        radiograph = _compress(radiograph, int(rng.integers(limits.jpeg_quality, 96)))
    if limits.rotation_deg or limits.scale or limits.shift:
        radiograph = _warp(radiograph, rng, limits)
    # Before contrast and noise, which can make pixels negative: they have no power.
    if limits.gamma:
        # As float32, because NumPy widens the whole array for a float64 scalar.
        exponent = np.exp(rng.uniform(-limits.gamma, limits.gamma))
        radiograph = radiograph ** np.float32(exponent)
    mean = np.float32(radiograph.mean())
    contrast = np.float32(rng.uniform(1 - limits.contrast, 1 + limits.contrast))
    brightness = np.float32(rng.uniform(-limits.brightness, limits.brightness))
    radiograph = (radiograph - mean) * contrast + mean + brightness
    # Speckle grows with the signal; the Gaussian noise added last does not.
    if limits.speckle:
        radiograph = radiograph * (1 + _noise(radiograph, rng, limits.speckle))
    if limits.gaussian:
        radiograph = radiograph + _noise(radiograph, rng, limits.gaussian)
    result: Floats = np.clip(radiograph, 0, 1).astype(np.float32)
    return result


def _reduce_resolution(radiograph: Floats, scale: float) -> Floats:
    """The radiograph at a smaller size, and back."""
    import cv2

    rows, columns = radiograph.shape
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    small = cv2.resize(np.ascontiguousarray(radiograph), size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (columns, rows)), np.float32)


def _compress(radiograph: Floats, quality: int) -> Floats:
    """The radiograph as a JPEG of this quality gives it back, in steps of 1/255."""
    import cv2

    eight_bits = np.rint(255 * np.clip(radiograph, 0, 1)).astype(np.uint8)
    _, file = cv2.imencode(".jpg", eight_bits, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded: Floats = np.asarray(cv2.imdecode(file, cv2.IMREAD_GRAYSCALE), np.float32)
    return decoded / np.float32(255)


def _noise(radiograph: Floats, rng: np.random.Generator, max_deviation: float) -> Floats:
    noise: Floats = rng.standard_normal(radiograph.shape, dtype=np.float32)
    scaled: Floats = noise * np.float32(rng.uniform(0, max_deviation))
    return scaled


def _warp(radiograph: Floats, rng: np.random.Generator, limits: RadiographAugmentation) -> Floats:
    """Rotate about the centre, scale and shift; pixels from outside are black."""
    import cv2

    rows, columns = radiograph.shape
    angle = np.deg2rad(rng.uniform(-limits.rotation_deg, limits.rotation_deg))
    scale = rng.uniform(1 - limits.scale, 1 + limits.scale, size=2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * scale
    centre = np.array([columns, rows]) / 2
    shift = rng.uniform(-limits.shift, limits.shift, size=2) * (columns, rows)
    # An affine map that keeps the centre where it is, plus the shift.
    matrix = np.column_stack([turn, centre - turn @ centre + shift])
    # A mirrored array has negative strides, which OpenCV does not accept.
    contiguous = np.ascontiguousarray(radiograph)
    warped = cv2.warpAffine(contiguous, matrix, (columns, rows))
    result: Floats = np.clip(warped, 0, 1).astype(np.float32)
    return result
