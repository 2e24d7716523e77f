"""From waveform to what a network sees, and back to seconds and hertz. Pure."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from xai_demo.records import Floats, LogMel

_QUIETEST = 1e-10  # power floor, -100 dB


def stft(samples: Floats, n_fft: int, win_length: int, hop_length: int) -> np.ndarray:
    """Short-time spectrum, complex: (time,) -> (frequency, frames).

    Periodic Hann window, centred frames, reflected ends.
    """
    padded = np.pad(samples, n_fft // 2, mode="reflect" if len(samples) > n_fft // 2 else "wrap")
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop_length]
    return _rfft(frames * _hann(win_length, n_fft)).T


def istft(
    spectrum: np.ndarray, n_fft: int, win_length: int, hop_length: int, length: int
) -> Floats:
    """The waveform: inverse of `stft`, by weighted overlap-add (Griffin & Lim 1984)."""
    window = _hann(win_length, n_fft)
    frames = np.fft.irfft(spectrum.T, n=n_fft, axis=1).astype(np.float32) * window
    total = n_fft + hop_length * (len(frames) - 1)
    signal, weight = np.zeros(total, np.float32), np.zeros(total, np.float32)
    for i, frame in enumerate(frames):
        signal[i * hop_length : i * hop_length + n_fft] += frame
        weight[i * hop_length : i * hop_length + n_fft] += window**2
    share: Floats = np.maximum(weight, np.float32(1e-6))
    signal = signal / share
    start = n_fft // 2
    return np.pad(signal[start:], (0, max(0, length - (total - start))))[:length]


def log_mel(samples: Floats, spec: LogMel) -> Floats:
    """Mel energies in decibels, before any floor: (time,) -> (mel, frames), lowest band first.

    Power spectrum, Slaney mel filters (librosa's defaults), 10 log10(max(x, 1e-10)): Kong et al.
    2020.
    """
    spectrum = stft(samples, spec.n_fft, spec.win_length, spec.hop_length)
    power = spectrum.real**2 + spectrum.imag**2
    mel: Floats = 10 * np.log10(np.maximum(mel_filters(spec) @ power, _QUIETEST))
    return mel


def network_input(samples: Floats, spec: LogMel) -> Floats:
    """What the network sees of a whole recording: (time,) -> (mel, frames)."""
    return conditioned(log_mel(samples, spec), spec)


def conditioned(decibels: Floats, spec: LogMel) -> Floats:
    """Mel decibels of a whole recording, floored and standardised as the model wants."""
    if spec.top_db is not None:
        decibels = np.maximum(decibels, decibels.max() - spec.top_db)
    if spec.standardise:
        decibels = (decibels - decibels.mean()) / max(float(decibels.std()), 1e-3)
    return decibels.astype(np.float32)


@lru_cache(maxsize=8)
def mel_filters(spec: LogMel) -> Floats:
    """Triangular filters, area-normalised (Slaney): (mel, frequency)."""
    from librosa.filters import mel

    filters: Floats = mel(
        sr=spec.sample_rate_hz,
        n_fft=spec.n_fft,
        n_mels=spec.n_mels,
        fmin=spec.f_min_hz,
        fmax=spec.f_max_hz,
    ).astype(np.float32)
    return filters


@lru_cache(maxsize=8)
def mel_frequencies_hz(spec: LogMel) -> tuple[float, ...]:
    """Centre of every mel band, lowest first; Slaney's scale: linear to 1 kHz, then logarithmic."""
    edges = np.linspace(_mel(spec.f_min_hz), _mel(spec.f_max_hz), spec.n_mels + 2)[1:-1]
    return tuple(float(_hertz(m)) for m in edges)


def window_starts(n_frames: int, window: int, hop: int) -> tuple[int, ...]:
    """First frame of every window; they cover all frames, the last one flush with the end."""
    if n_frames <= window:
        return (0,)
    starts = list(range(0, n_frames - window + 1, hop))
    if starts[-1] + window < n_frames:
        starts.append(n_frames - window)
    return tuple(starts)


def repeated(samples: Floats, least: int) -> Floats:
    """The samples, repeated end to end until there are at least `least`."""
    if len(samples) >= least:
        return samples
    return np.tile(samples, -(-least // len(samples)))[:least]


def masked(samples: Floats, heat: Floats, spec: LogMel) -> Floats:
    """What is heard where the heat (mel, frames) is: spectrum times heat, phase kept."""
    spectrum = stft(samples, spec.n_fft, spec.win_length, spec.hop_length)
    return istft(
        spectrum * linear_mask(heat, spectrum.shape[1], spec),
        spec.n_fft,
        spec.win_length,
        spec.hop_length,
        len(samples),
    )


def linear_mask(heat: Floats, n_frames: int, spec: LogMel) -> Floats:
    """Heat (mel, frames) read at every linear frequency: (frequency, n_frames), 0 off the bands."""
    hertz = np.arange(spec.n_fft // 2 + 1) * spec.sample_rate_hz / spec.n_fft
    centres = np.array(mel_frequencies_hz(spec))
    rows = np.interp(hertz, centres, np.arange(spec.n_mels))
    low = np.floor(rows).astype(int)
    high = np.minimum(low + 1, spec.n_mels - 1)
    share = (rows - low)[:, None]
    inside = ((hertz >= spec.f_min_hz) & (hertz <= spec.f_max_hz))[:, None]
    columns = np.minimum(np.arange(n_frames), heat.shape[1] - 1)
    mask: Floats = (heat[low] * (1 - share) + heat[high] * share)[:, columns] * inside
    return mask.astype(np.float32)


@lru_cache(maxsize=8)
def _hann(win_length: int, n_fft: int) -> Floats:
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(win_length) / win_length)
    left = (n_fft - win_length) // 2
    return np.pad(window, (left, n_fft - win_length - left)).astype(np.float32)


def _rfft(frames: np.ndarray) -> np.ndarray:
    from scipy import fft  # keeps float32, which numpy's does not

    spectrum: np.ndarray = fft.rfft(frames.astype(np.float32), axis=1)
    return spectrum


def _mel(hertz: float) -> float:
    return hertz * 3 / 200 if hertz < 1000 else 15 + np.log(hertz / 1000) / (np.log(6.4) / 27)


def _hertz(mel: float) -> float:
    return mel * 200 / 3 if mel < 15 else 1000 * np.exp((mel - 15) * np.log(6.4) / 27)
