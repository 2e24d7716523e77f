"""Small random changes to log-mel spectrograms, (mel, frames) in and out.

Random changes to radiographs, (height, width) in and out, 0..1: one record says which.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from xai_demo.records import Floats


def spectrogram_masked(
    mel: Floats, rng: np.random.Generator, *, rows: int, columns: int, fill: float
) -> Floats:
    """SpecAugment (Park et al. 2019): up to two bands and two stretches are blotted out."""
    mel = mel.copy()
    for _ in range(rng.integers(0, 3)):
        height, width = rng.integers(0, rows + 1), rng.integers(0, columns + 1)
        top = rng.integers(0, mel.shape[0] - height + 1)
        left = rng.integers(0, mel.shape[1] - width + 1)
        mel[top : top + height] = fill
        mel[:, left : left + width] = fill
    return mel


def equalised(mel: Floats, rng: np.random.Generator, *, deviation: float) -> Floats:
    """Another stethoscope: a smooth random gain over frequency, in the units of `mel`."""
    knots = rng.normal(0, deviation, size=5)
    gain = np.interp(np.linspace(0, 4, mel.shape[0]), np.arange(5), knots)
    changed: Floats = (mel + gain[:, None]).astype(np.float32)
    return changed


def band_shifted(mel: Floats, rng: np.random.Generator, *, most: int) -> Floats:
    """A slightly higher or lower voice: all bands moved by up to `most` rows, the edge repeated."""
    rows = np.clip(np.arange(mel.shape[0]) + rng.integers(-most, most + 1), 0, mel.shape[0] - 1)
    shifted: Floats = mel[rows]
    return shifted


def stretched(mel: Floats, rng: np.random.Generator, *, most: float) -> Floats:
    """A slower or quicker breath: time stretched by up to a share `most`, same number of frames."""
    centre = mel.shape[1] / 2
    at = centre + (np.arange(mel.shape[1]) - centre) * rng.uniform(1 - most, 1 + most)
    return mel[:, np.clip(np.round(at), 0, mel.shape[1] - 1).astype(int)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variation:
    """How far a picture may be changed while a network learns; 0: not in that way."""

    rotation_deg: float = 0.0
    scale: float = 0.0  # as a share, of height and width each by itself
    shift: float = 0.0  # as a share of the picture
    mirrored: float = 0.0  # probability
    brightness: float = 0.0  # what is added
    contrast: float = 0.0  # as a share, about the picture's mean
    gamma: float = 0.0  # as a logarithm
    gaussian: float = 0.0  # the largest standard deviation of additive noise
    speckle: float = 0.0  # ... and of noise that multiplies


# As the published system for 14 findings, which took whole pictures; the shift is for averaging.
NIH14 = Variation(
    rotation_deg=15, scale=0.1, shift=0.05, mirrored=0.5, brightness=0.1, contrast=0.2
)
COVID3 = Variation(
    rotation_deg=8,
    scale=0.12,
    shift=0.06,
    mirrored=0.5,
    brightness=0.1,
    contrast=0.3,
    gamma=0.2,
    gaussian=0.03,
    speckle=0.08,
)


def varied(picture: Floats, rng: np.random.Generator, change: Variation) -> Floats:
    """One random change; the same generator gives the same one."""
    if rng.random() < change.mirrored:
        picture = picture[:, ::-1]
    if change.rotation_deg or change.scale or change.shift:
        picture = _moved(picture, rng, change)
    if change.gamma:
        picture = picture ** np.float32(np.exp(rng.uniform(-change.gamma, change.gamma)))
    mean = np.float32(picture.mean())
    steeper = np.float32(rng.uniform(1 - change.contrast, 1 + change.contrast))
    lighter = np.float32(rng.uniform(-change.brightness, change.brightness))
    picture = (picture - mean) * steeper + mean + lighter
    if change.speckle:
        picture = picture * (1 + _noise(picture, rng, change.speckle))
    if change.gaussian:
        picture = picture + _noise(picture, rng, change.gaussian)
    result: Floats = np.clip(picture, 0, 1).astype(np.float32)
    return result


def _noise(picture: Floats, rng: np.random.Generator, most: float) -> Floats:
    noise: Floats = rng.standard_normal(picture.shape, dtype=np.float32)
    scaled: Floats = noise * np.float32(rng.uniform(0, most))
    return scaled


def _moved(picture: Floats, rng: np.random.Generator, change: Variation) -> Floats:
    """Turned about its middle, scaled and shifted; what comes in from outside is black."""
    import cv2

    rows, columns = picture.shape
    angle = np.deg2rad(rng.uniform(-change.rotation_deg, change.rotation_deg))
    scale = rng.uniform(1 - change.scale, 1 + change.scale, size=2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * scale
    centre = np.array([columns, rows]) / 2
    shift = rng.uniform(-change.shift, change.shift, size=2) * (columns, rows)
    matrix = np.column_stack([turn, centre - turn @ centre + shift])
    turned = cv2.warpAffine(np.ascontiguousarray(picture), matrix, (columns, rows))
    moved: Floats = np.clip(turned, 0, 1).astype(np.float32)
    return moved
