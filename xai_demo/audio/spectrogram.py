"""Log-mel spectrograms as the networks were trained on, and back to seconds and hertz. Pure.

`audio.front_ends` computes the mel energies; here they are cut into chunks and windows, normalised,
and turned back into sound.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xai_demo import files
from xai_demo.audio.front_ends import FRONT_ENDS, centred_frames, hann_window, rfft

if TYPE_CHECKING:
    from xai_demo.records import Floats, LogMel

_CHUNK_FRAMES = 4096
# Fewer frames at the end join the chunk before: a chunk reflects the end of the sound, which must
# be longer than half a frame for that.
_MIN_LAST_FRAMES = 64


def stft(samples: Floats, n_fft: int, win_length: int, hop_length: int) -> np.ndarray:
    """Short-time spectrum, complex: (time,) -> (frequency, frames).

    Periodic Hann window, centred frames, reflected ends.
    """
    count = len(samples) // hop_length + 1
    frames = centred_frames(samples, n_fft, hop_length, range(count))
    return rfft(frames * hann_window(win_length, n_fft)).T


def istft(
    spectrum: np.ndarray, n_fft: int, win_length: int, hop_length: int, length: int
) -> Floats:
    """The waveform: inverse of `stft`, by weighted overlap-add (Griffin & Lim 1984)."""
    window = hann_window(win_length, n_fft)
    frames = np.fft.irfft(spectrum.T, n=n_fft, axis=1).astype(np.float32) * window
    total = n_fft + hop_length * (len(frames) - 1)
    signal, weight = np.zeros(total, np.float32), np.zeros(total, np.float32)
    for i, frame in enumerate(frames):
        signal[i * hop_length : i * hop_length + n_fft] += frame
        weight[i * hop_length : i * hop_length + n_fft] += window**2
    # Where no window has weight, at the very ends, the sum is zero as well.
    share: Floats = np.maximum(weight, np.float32(1e-6))
    signal = signal / share
    start = n_fft // 2
    return np.pad(signal[start:], (0, max(0, length - (total - start))))[:length]


def log_mel(samples: Floats, spec: LogMel) -> Floats:
    """Mel energies in decibels, before any floor: (time,) -> (mel, frames), lowest band first."""
    parts = [part for _, part in log_mel_chunks(samples, spec)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def log_mel_chunks(samples: Floats, spec: LogMel) -> Iterator[tuple[int, Floats]]:
    """`log_mel` in chunks, to bound memory: the index of the first frame, and (mel, frames)."""
    front = FRONT_ENDS[spec.front_end]
    count = front.frame_count(len(samples), spec)
    edges = list(range(0, max(count - _MIN_LAST_FRAMES, 1), _CHUNK_FRAMES))
    for first, last in zip(edges, [*edges[1:], count], strict=True):
        yield first, front.log_mel(samples, spec, range(first, last))


def frame_count(n_samples: int, spec: LogMel) -> int:
    """The number of frames that `log_mel` makes of `n_samples`."""
    return FRONT_ENDS[spec.front_end].frame_count(n_samples, spec)


def mel_frequencies_hz(spec: LogMel) -> tuple[float, ...]:
    """The centre frequency of every mel band, lowest first."""
    return FRONT_ENDS[spec.front_end].frequencies_hz(spec)


def window_frames(spec: LogMel) -> int:
    """The number of frames in one window of the network, without padding."""
    return frame_count(round(spec.window_s * spec.sample_rate_hz), spec)


def pad_windows(windows: Floats, spec: LogMel) -> Floats:
    """Pad windows (..., frames) to the width of the network's input, as AST needs it.

    The padding is not sound, so no attribution belongs there.
    """
    missing = (spec.frames or windows.shape[-1]) - windows.shape[-1]
    widths = [(0, 0)] * (windows.ndim - 1) + [(0, missing)]
    padded: Floats = np.pad(windows, widths, constant_values=padding_value(spec))
    return padded


def padding_value(spec: LogMel) -> float:
    """The network's input where there is no sound: a normalised 0 dB, which AST is padded with."""
    return -spec.mean_db / spec.deviation_db


def network_input(samples: Floats, spec: LogMel) -> Floats:
    """The network's input for a whole recording: (time,) -> (mel, frames)."""
    return normalise_decibels(log_mel(samples, spec), spec)


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """The levels of a whole recording by which its windows are normalised, in decibels."""

    lowest: float
    floor: float  # lower values are raised to it
    mean: float = 0.0
    deviation: float = 1.0


def measure_levels(decibels: Floats, spec: LogMel) -> Levels:
    """The levels of a recording's spectrogram, (mel, frames), computed in chunks."""
    frames = decibels.T
    extremes = [(float(frames[c].min()), float(frames[c].max())) for c in files.chunks(frames)]
    lowest, highest = min(low for low, _ in extremes), max(high for _, high in extremes)
    floor = lowest if spec.top_db is None else max(lowest, highest - spec.top_db)
    if not spec.standardise:
        return Levels(lowest=lowest, floor=floor)
    total = squares = 0.0
    for chunk in files.chunks(frames):
        # Relative to the floor, so that the sum of squares does not cancel with the squared mean.
        above = np.maximum(frames[chunk], floor).astype(np.float64) - floor
        total, squares = total + float(above.sum()), squares + float(np.square(above).sum())
    mean = total / decibels.size
    deviation = float(np.sqrt(max(squares / decibels.size - mean**2, 0.0)))
    return Levels(lowest=lowest, floor=floor, mean=floor + mean, deviation=max(deviation, 1e-3))


def normalise_decibels(decibels: Floats, spec: LogMel, levels: Levels | None = None) -> Floats:
    """Mel decibels, (..., mel, frames), floored and standardised as the network expects.

    `levels` are those of the whole recording; None: `decibels` are the whole recording.
    """
    levels = measure_levels(decibels, spec) if levels is None else levels
    standard = (np.maximum(decibels, np.float32(levels.floor)) - levels.mean) / levels.deviation
    return ((standard - spec.mean_db) / spec.deviation_db).astype(np.float32)


def window_starts(n_frames: int, window: int, hop: int) -> tuple[int, ...]:
    """The first frame of every window; they cover all frames, the last one ends with the sound.

    >>> window_starts(10, window=4, hop=4)
    (0, 4, 6)
    """
    if n_frames <= window:
        return (0,)
    starts = list(range(0, n_frames - window + 1, hop))
    if starts[-1] + window < n_frames:
        starts.append(n_frames - window)
    return tuple(starts)


def repeat_to_length(samples: Floats, min_length: int) -> Floats:
    """The samples, (time,), repeated end to end until there are at least `min_length` of them.

    >>> repeat_to_length(np.array([1.0, 2.0, 3.0]), 5)
    array([1., 2., 3., 1., 2.])
    """
    if len(samples) >= min_length:
        return samples
    return np.tile(samples, -(-min_length // len(samples)))[:min_length]


def mask_sound(samples: Floats, heatmap: Floats, spec: LogMel) -> Floats:
    """The part of a sound, (time,), that lies under a heatmap, (mel, frames), 0 to 1.

    The magnitude spectrum is multiplied by the heatmap; the phase is kept.
    """
    spectrum = stft(samples, spec.n_fft, spec.win_length, spec.hop_length)
    return istft(
        spectrum * linear_frequency_mask(heatmap, spectrum.shape[1], spec),
        spec.n_fft,
        spec.win_length,
        spec.hop_length,
        len(samples),
    )


def linear_frequency_mask(heatmap: Floats, n_frames: int, spec: LogMel) -> Floats:
    """A heatmap, (mel, frames), interpolated to linear frequencies: (frequency, n_frames).

    It is zero below and above the mel bands.
    """
    hertz = np.arange(spec.n_fft // 2 + 1) * spec.sample_rate_hz / spec.n_fft
    centres = np.array(mel_frequencies_hz(spec))
    # The (fractional) mel row of every linear frequency.
    rows = np.interp(hertz, centres, np.arange(spec.n_mels))
    low = np.floor(rows).astype(int)
    high = np.minimum(low + 1, spec.n_mels - 1)
    share = (rows - low)[:, None]
    inside = ((hertz >= spec.f_min_hz) & (hertz <= spec.f_max_hz))[:, None]
    # The heatmap may have fewer frames than the spectrum: its last one is repeated.
    columns = np.minimum(np.arange(n_frames), heatmap.shape[1] - 1)
    mask: Floats = (heatmap[low] * (1 - share) + heatmap[high] * share)[:, columns] * inside
    return mask.astype(np.float32)
