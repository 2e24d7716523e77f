"""Sound -> what is drawn of it: how far it swings, and its spectrum over time. Pure, and fast."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo.records import View

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xai_demo.records import Floats

SHOWN_DB = 70.0  # from white down to black

_FRAME_S = 0.05  # about: long enough to part the harmonics of a wheeze
_LOOKS = 8  # frames for one column at most: an hour costs no more than some minutes
_AT_ONCE = 512  # frames
_SILENCE = 1e-12


def envelope(samples: Floats, columns: int) -> Floats:
    """The lowest and the highest sample of every column, (2, columns); fewer columns if shorter."""
    columns = min(columns, len(samples))
    if columns < 1:
        return np.zeros((2, 0), np.float32)
    starts = np.arange(columns) * len(samples) // columns
    return np.stack([np.minimum.reduceat(samples, starts), np.maximum.reduceat(samples, starts)])


def spectrogram(
    samples: Floats,
    sample_rate_hz: int,
    *,
    columns: int = 600,
    loudest_db: float | None = None,
    least_loud_db: float = -math.inf,
) -> View:
    """The spectrum over time as a grey picture, from 0 Hz to half the sample rate, evenly.

    A column shows the loudest of the moments looked at in it, which of an hour are not all.
    `loudest_db` is drawn white, in decibels re a full-scale sine; None: the loudest there is, or
    `least_loud_db` where all is quieter than that.
    """
    size = 2 ** round(math.log2(_FRAME_S * sample_rate_hz))
    padded = np.pad(samples, (0, max(0, size - len(samples))))
    wanted = 1 + (len(padded) - size) // (size // 4)
    starts = np.linspace(0, len(padded) - size, min(wanted, _LOOKS * columns)).astype(int)
    levels = 10 * np.log10(np.maximum(_loudest(_powers(padded, starts, size), columns), _SILENCE))
    high = max(float(levels.max()), least_loud_db) if loudest_db is None else loudest_db
    grey = np.clip((levels - high + SHOWN_DB) / SHOWN_DB, 0, 1)
    return View(
        pixels=np.rint(255 * grey[::-1]).astype(np.uint8),
        duration_s=len(samples) / sample_rate_hz,
        row_frequencies_hz=tuple((np.arange(len(levels)) * sample_rate_hz / size).tolist()),
        decibels=(high - SHOWN_DB, high),
    )


def _powers(samples: Floats, starts: NDArray[np.intp], size: int) -> NDArray[np.float32]:
    """Power of every frame, (frequency, frames): a full-scale sine is 1."""
    window = np.hanning(size + 1)[:-1].astype(np.float32)
    framed = np.lib.stride_tricks.sliding_window_view(samples, size)
    parts = [
        np.abs(np.fft.rfft(framed[starts[i : i + _AT_ONCE]] * window)) ** 2
        for i in range(0, len(starts), _AT_ONCE)
    ]
    power: NDArray[Any] = np.concatenate(parts).T * (2 / window.sum()) ** 2
    return power.astype(np.float32)


def _loudest(powers: NDArray[np.float32], columns: int) -> NDArray[np.float32]:
    count = powers.shape[1]
    shown = min(columns, count)
    loudest: NDArray[np.float32] = np.maximum.reduceat(
        powers, np.arange(shown) * count // shown, axis=1
    )
    return loudest
