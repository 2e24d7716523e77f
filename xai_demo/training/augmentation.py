"""Small random changes to log-mel spectrograms, (mel, frames) in and out."""

from __future__ import annotations

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
