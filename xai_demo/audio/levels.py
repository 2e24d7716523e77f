"""Levels of decoded samples: peaks, clipping and the full scale of floating-point files.

The statistics are collected block by block, so that memory does not grow with the recording.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from xai_demo.records import Floats

# Decoders overshoot full scale a little; a float file beyond this uses another scale.
MAX_OVERSHOOT = 2.0
# Float samples up to this value may be 32-bit integers that were never scaled down.
MAX_SAMPLE = 2.0**31
# Two steps of 16 bits: the noise of an analogue-to-digital converter without a signal.
SILENCE_AMPLITUDE = 2.0**-14

# A sine that just touches full scale stays below this share.
_MIN_CLIPPED_SHARE = 1e-3
_MIN_FLAT_SHARE = 5e-4
# Consecutive samples that make a flat top, and how far it must rise above its neighbours.
_MIN_FLAT_SAMPLES, _MIN_CLIFF = 3, 0.01
# The scales of 16, 24 and 32 bits.
_INTEGER_SCALES = (2.0**15, 2.0**23, 2.0**31)
# Averaging channels may halve a whole number a few times; a finer step is no integer's.
_MIN_STEP = 2.0**-4
# Filtered integers have any step, but few other units reach this.
_MIN_INTEGER_PEAK = 128.0
# A filter may overshoot the scale of what it was given.
_FILTER_OVERSHOOT = 1.25


class SampleStatistics:
    """Statistics of the decoded samples, collected block by block."""

    def __init__(self, step: float, *, has_full_scale: bool = True) -> None:
        self.step = step  # between two quantisation levels near full scale
        self._has_full_scale = has_full_scale  # otherwise 1 is just the loudest sample
        self.frames = self.values = self.clipped = self.not_finite = 0
        self.duration_s = 0.0
        self.first_not_finite_s = 0.0
        self.peak = self.squares = 0.0
        self.low, self.high = math.inf, -math.inf  # of the mono mix
        # Height and number of samples of the flat tops of each block, positive and negative ones
        # in turn: which height is the overall extreme is known only at the end.
        self._tops: list[tuple[float, int]] = []

    @property
    def is_silent(self) -> bool:
        """Whether the mono mix is constant but for the noise of a converter."""
        return self.high - self.low <= 2 * SILENCE_AMPLITUDE

    @property
    def clipped_share(self) -> float:
        """The share of clipped samples at the file's own rate; 0 if it is too small to mention."""
        if self.is_silent:
            return 0.0
        full, flat = self.clipped / self.values, self._flat / self.values
        return max(
            full if full > _MIN_CLIPPED_SHARE else 0.0, flat if flat >= _MIN_FLAT_SHARE else 0.0
        )

    @property
    def _flat(self) -> int:
        """Number of samples on flat tops at the overall highest or lowest value."""
        total = 0
        for sign in (0, 1):
            tops = self._tops[sign::2]
            top = max((height for height, _ in tops), default=0.0)
            total += sum(count for height, count in tops if height >= top * (1 - 1e-6))
        return total

    def add(self, block: Floats, mix: Floats, sample_rate_hz: int) -> None:
        """Add a block: (frames, channels) as decoded and (frames,) mixed to mono."""
        finite = np.isfinite(block)
        not_finite = finite.size - int(np.count_nonzero(finite))
        if not_finite and not self.not_finite:
            first = int(np.argmin(finite.all(axis=1)))
            self.first_not_finite_s = self.duration_s + first / sample_rate_hz
        self.not_finite += not_finite
        self.frames += len(block)
        self.values += block.size
        self.duration_s += len(block) / sample_rate_hz
        if self.not_finite:
            return
        loudness = np.abs(block)
        self.peak = max(self.peak, float(loudness.max()))
        if self._has_full_scale:
            self.clipped += int(np.count_nonzero(np.abs(loudness - 1) <= self.step))
        self.squares += float(np.square(mix, dtype=np.float64).sum())
        self.low, self.high = min(self.low, float(mix.min())), max(self.high, float(mix.max()))
        self._tops += [_count_flat_top(block, self.step), _count_flat_top(-block, self.step)]


@dataclass(frozen=True, slots=True)
class FullScale:
    """The value that stands for full scale in a floating-point file, and what showed it."""

    value: float
    bits: int | None  # of the integers that the samples are; None: full scale is the loudest one


UNIT_SCALE = FullScale(1.0, None)


def find_full_scale(blocks: Iterable[Floats]) -> FullScale:
    """The full scale of samples that reach beyond 1, (frames, channels) each.

    Whole numbers, or halves and quarters of them, are integers that were never scaled down: the
    smallest of 16, 24 and 32 bits that holds them. So are large values of any kind. Otherwise the
    unit is unknown, and full scale is the loudest sample.
    """
    peak, step = 0.0, math.inf
    for block in blocks:
        values = block[np.isfinite(block) & (block != 0)]
        if values.size:
            peak = max(peak, float(np.abs(values).max()))
            step = min(step, _quantisation_step(values))
    if peak <= 1 or peak > MAX_SAMPLE * _FILTER_OVERSHOOT:
        return UNIT_SCALE
    is_integer = step >= _MIN_STEP
    if is_integer or peak >= _MIN_INTEGER_PEAK:
        # Integers of 16 bits that fill the upper ones of 24 or 32 have a step beyond 1.
        smallest = 2.0**15 * max(1.0, step) if is_integer else 0.0
        for bits, scale in zip((16, 24, 32), _INTEGER_SCALES, strict=True):
            slack = 1 if is_integer else _FILTER_OVERSHOOT
            if scale * slack >= max(peak, smallest):
                return FullScale(scale, bits)
    return FullScale(peak, None)


def _quantisation_step(values: Floats) -> float:
    """The largest power of two that divides all values, none of which is zero."""
    mantissas, exponents = np.frexp(values.astype(np.float32))
    whole = (mantissas * 2**24).astype(np.int64)
    return float(np.ldexp((whole & -whole).astype(np.float64), exponents - 24).min())


def _count_flat_top(block: Floats, step: float) -> tuple[float, int]:
    """The highest value of a block, (frames, channels), and how many samples lie on its flat tops.

    Uses the criterion of `quality.clipped_share`: three or more equal samples with a cliff beside.
    """
    top = float(block.max())
    count = 0
    if top > 0 and np.count_nonzero(block >= top * (1 - 1e-6)) >= _MIN_FLAT_SAMPLES:
        for sound in block.T:
            edges = np.flatnonzero(np.diff(np.pad(sound >= top * (1 - 1e-6), 1).astype(np.int8)))
            for start, end in zip(edges[::2], edges[1::2], strict=True):
                neighbours = [sound[i] for i in (start - 1, end) if 0 <= i < len(sound)]
                cliff = max(_MIN_CLIFF * top, 4 * step)
                has_cliff = bool(neighbours) and top - min(neighbours) >= cliff
                count += (end - start) * (end - start >= _MIN_FLAT_SAMPLES and has_cliff)
    return top, int(count)
