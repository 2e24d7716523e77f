"""Other stethoscopes and recorders, as changes of a spectrogram in decibels.

A frequency response with band limits and resonances, a steady tone of the electronics, a level
control, and a codec that drops what a loud band masks. None of them changes what sounds, so labels
stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xai_demo.audio import spectrogram

if TYPE_CHECKING:
    from xai_demo.records import Floats, LogMel

_LEVEL_FRAMES = 31  # over which a level control listens


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What a recording passes on its way to a file."""

    gain_db: Floats  # (mel,)
    # A steady tone: power of each band relative to the recording's mean, (mel,).
    tone: Floats | None = None
    # Share of the level's changes that a level control takes away, 0..1.
    compression: float = 0.0
    # How far below a frame's loudest band a codec keeps a band; None: all of it.
    masked_below_db: float | None = None


def draw(rng: np.random.Generator, spec: LogMel) -> Device:
    """A random device; one in four with a level control, one in six with a codec or a tone."""
    return Device(
        gain_db=_frequency_response(rng, spec),
        tone=_steady_tone(rng, spec) if rng.random() < 0.16 else None,
        compression=float(rng.uniform(0.2, 0.7)) if rng.random() < 0.25 else 0.0,
        masked_below_db=float(rng.uniform(22, 45)) if rng.random() < 0.16 else None,
    )


def apply(device: Device, window: Floats, sparse: Floats, stride: int) -> tuple[Floats, Floats]:
    """A window and every `stride`-th column of its recording as the device has them.

    Both are (mel, frames) in decibels.
    """
    window, sparse = window + device.gain_db[:, None], sparse + device.gain_db[:, None]
    if device.tone is not None:
        added = float((10 ** (sparse / 10)).mean()) * device.tone[:, None]
        window, sparse = (10 * np.log10(10 ** (part / 10) + added) for part in (window, sparse))
    if device.compression:
        usual_db = float(_levels_db(sparse, 1).mean())
        window, sparse = (
            part - device.compression * (_levels_db(part, width) - usual_db)
            for part, width in ((window, _LEVEL_FRAMES), (sparse, _LEVEL_FRAMES // stride))
        )
    if device.masked_below_db is not None:
        window, sparse = (_mask(part, device.masked_below_db) for part in (window, sparse))
    return window, sparse


def _levels_db(decibels: Floats, width: int) -> Floats:
    """The level of every frame, averaged over `width` frames around it: (frames,)."""
    levels = 10 * np.log10((10 ** (decibels / 10)).sum(0))
    width = min(width, len(levels))
    # Its edges are repeated, so that there are as many averages as frames.
    padded = np.pad(levels, (width // 2, width - 1 - width // 2), mode="edge")
    averages: Floats = np.convolve(padded, np.full(width, 1 / width), mode="valid").astype(
        np.float32
    )
    return averages


def _mask(decibels: Floats, below_db: float) -> Floats:
    """Bands too far below the loudest of their frame, lowered by another 15 dB."""
    limits = decibels.max(0, keepdims=True) - below_db
    masked: Floats = np.where(decibels < limits, decibels - 15, decibels).astype(np.float32)
    return masked


def _steady_tone(rng: np.random.Generator, spec: LogMel) -> Floats:
    """One band, with what leaks into its neighbours, -15 to 20 dB above the mean: (mel,)."""
    hertz = np.array(spectrogram.mel_frequencies_hz(spec))
    at = int(np.abs(hertz - np.exp(rng.uniform(np.log(100), np.log(1600)))).argmin())
    distance = np.abs(np.arange(len(hertz)) - at)
    tone_db = rng.uniform(-15, 20) - 12.0 * distance
    tone: Floats = (10 ** (tone_db / 10)).astype(np.float32)
    return tone


def _frequency_response(rng: np.random.Generator, spec: LogMel) -> Floats:
    """A smooth random gain in decibels with band limits and resonances: (mel,)."""
    hertz = np.array(spectrogram.mel_frequencies_hz(spec))
    # Seven knots over the whole band keep the gain smooth.
    knots = np.linspace(np.log(spec.f_min_hz), np.log(spec.f_max_hz), 7)
    gain = np.interp(np.log(hertz), knots, rng.normal(0, 3, len(knots)))
    if rng.random() < 0.35:
        # A bell, or a recorder of low rate: a Butterworth low-pass of order one to four.
        corner_hz = np.exp(rng.uniform(np.log(250), np.log(1500)))
        gain -= 10 * np.log10(1 + (hertz / corner_hz) ** (2 * int(rng.integers(1, 5))))
    if rng.random() < 0.25:
        # A phone's microphone, or a diaphragm: a high-pass of order one or two.
        corner_hz = np.exp(rng.uniform(np.log(60), np.log(300)))
        gain -= 10 * np.log10(1 + (corner_hz / hertz) ** (2 * int(rng.integers(1, 3))))
    if rng.random() < 0.3:
        # Tubes and chest pieces resonate: peaks of a twentieth of an octave to half of one.
        for _ in range(int(rng.integers(1, 4))):
            at_hz = np.exp(rng.uniform(np.log(100), np.log(1500)))
            octaves = np.abs(np.log2(hertz / at_hz)) / rng.uniform(0.05, 0.5)
            gain += rng.uniform(-6, 12) / (1 + octaves**2)
    result: Floats = gain.astype(np.float32)
    return result
