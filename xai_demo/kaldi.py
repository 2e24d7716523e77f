"""Kaldi's filter bank, as AST was trained on it. Pure.

Equal to `torchaudio.compliance.kaldi.fbank(window_type="hanning")` and to what transformers'
ASTFeatureExtractor computes, but for all frames in one FFT. Unlike the front end in
`xai_demo.spectrum`, frames start at the first sample and only whole ones count.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from xai_demo.records import Floats, LogMel

_PREEMPHASIS = 0.97
_QUIETEST = 2.0**-23  # energy floor, -69.2 dB: the resolution of a 32-bit float


def log_mel(samples: Floats, spec: LogMel) -> Floats:
    """Mel energies in decibels: (time,) -> (mel, frames), lowest band first.

    Each frame loses its mean, is pre-emphasised and windowed; its power goes through filters that
    are triangles on the mel scale. A sound shorter than one frame is filled up with silence.
    """
    from scipy import fft

    missing = max(0, spec.win_length - len(samples))
    padded = np.pad(samples, (0, missing)).astype(np.float64)
    frames = np.lib.stride_tricks.sliding_window_view(padded, spec.win_length)[:: spec.hop_length]
    frames = frames - frames.mean(axis=1, keepdims=True)
    before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    emphasised = (frames - _PREEMPHASIS * before) * np.hanning(spec.win_length)
    spectrum = fft.rfft(emphasised, n=spec.n_fft, axis=1)
    energies = mel_filters(spec) @ (spectrum.real**2 + spectrum.imag**2).T
    decibels: Floats = (10 * np.log10(np.maximum(energies, _QUIETEST))).astype(np.float32)
    return decibels


def frames(n_samples: int, spec: LogMel) -> int:
    """How many frames so many samples make."""
    return 1 + max(0, n_samples - spec.win_length) // spec.hop_length


@lru_cache(maxsize=8)
def mel_filters(spec: LogMel) -> Floats:
    """Filters that are triangles on the mel scale, each with a peak of 1: (mel, frequency)."""
    hertz = np.arange(spec.n_fft // 2 + 1) * spec.sample_rate_hz / spec.n_fft
    left, centre, right = (_edges(spec)[i : i + spec.n_mels, None] for i in range(3))
    up, down = (_mel(hertz) - left) / (centre - left), (right - _mel(hertz)) / (right - centre)
    filters: Floats = np.maximum(0, np.minimum(up, down))
    return filters


@lru_cache(maxsize=8)
def mel_frequencies_hz(spec: LogMel) -> tuple[float, ...]:
    """Centre of every mel band, lowest first."""
    return tuple(float(hz) for hz in 700 * np.expm1(_edges(spec)[1:-1] / 1127))


def _edges(spec: LogMel) -> np.ndarray:
    """Where the bands meet: (mel + 2,) places at equal steps of the mel scale."""
    low, high = _mel(np.array([spec.f_min_hz, spec.f_max_hz]))
    return np.linspace(low, high, spec.n_mels + 2)


def _mel(hertz: np.ndarray) -> np.ndarray:
    """Kaldi's mel scale, O'Shaughnessy's with a natural logarithm."""
    mel: np.ndarray = 1127 * np.log1p(hertz / 700)
    return mel
