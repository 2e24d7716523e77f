"""Log-mel spectrograms as the networks were trained on, and back to seconds and hertz. Pure.

There are two front ends. "librosa" (PANNs and the lung networks): centred frames with reflected
ends, Slaney mel filters. "kaldi" (AST): equal to
`torchaudio.compliance.kaldi.fbank(window_type="hanning")` and to transformers' ASTFeatureExtractor;
frames start at the first sample and only complete ones count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from xai_demo import files

if TYPE_CHECKING:
    from xai_demo.records import Floats, LogMel

_POWER_FLOOR = 1e-10  # -100 dB
_CHUNK_FRAMES = 4096
# Fewer frames at the end join the chunk before: a chunk reflects the end of the sound, which must
# be longer than half a frame for that.
_MIN_LAST_FRAMES = 64


def stft(samples: Floats, n_fft: int, win_length: int, hop_length: int) -> np.ndarray:
    """Short-time spectrum, complex: (time,) -> (frequency, frames).

    Periodic Hann window, centred frames, reflected ends.
    """
    count = len(samples) // hop_length + 1
    frames = _centred_frames(samples, n_fft, hop_length, range(count))
    return _rfft(frames * _hann_window(win_length, n_fft)).T


def istft(
    spectrum: np.ndarray, n_fft: int, win_length: int, hop_length: int, length: int
) -> Floats:
    """The waveform: inverse of `stft`, by weighted overlap-add (Griffin & Lim 1984)."""
    window = _hann_window(win_length, n_fft)
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


def librosa_log_mel(samples: Floats, spec: LogMel, frame_range: range | None = None) -> Floats:
    """The librosa front end: (time,) -> (mel, frames) in decibels, for all frames or a range.

    Power spectrum, Slaney mel filters (librosa's defaults), 10 log10(max(x, 1e-10)), as in PANNs:
    Kong et al. 2020.
    """
    if frame_range is None:
        frame_range = range(_librosa_frame_count(len(samples), spec))
    frames = _centred_frames(samples, spec.n_fft, spec.hop_length, frame_range)
    spectrum = _rfft(frames * _hann_window(spec.win_length, spec.n_fft)).T
    power = spectrum.real**2 + spectrum.imag**2
    mel: Floats = 10 * np.log10(np.maximum(mel_filters(spec) @ power, _POWER_FLOOR))
    return mel


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
def _librosa_mel_frequencies_hz(spec: LogMel) -> tuple[float, ...]:
    """The centre of every mel band on Slaney's scale: linear to 1 kHz, then logarithmic."""
    edges = np.linspace(_slaney_mel(spec.f_min_hz), _slaney_mel(spec.f_max_hz), spec.n_mels + 2)[
        1:-1
    ]
    return tuple(float(_slaney_hertz(m)) for m in edges)


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


@lru_cache(maxsize=8)
def _hann_window(win_length: int, n_fft: int) -> Floats:
    """A periodic Hann window, zero-padded on both sides to (n_fft,), as librosa has it."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(win_length) / win_length)
    left = (n_fft - win_length) // 2
    return np.pad(window, (left, n_fft - win_length - left)).astype(np.float32)


def _centred_frames(samples: Floats, n_fft: int, hop_length: int, frame_range: range) -> Floats:
    """Frames centred on multiples of the hop, with reflected ends: a view of (frames, n_fft)."""
    half = n_fft // 2
    start = frame_range.start * hop_length - half
    end = start + (len(frame_range) - 1) * hop_length + n_fft
    inside = samples[max(start, 0) : max(end, 0)]
    sides = max(-start, 0), max(end - len(samples), 0)
    # A sound shorter than half a frame is repeated instead of reflected.
    padded = np.pad(inside, sides, mode="reflect" if len(samples) > half else "wrap")
    frames: Floats = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop_length]
    return frames


def _rfft(frames: np.ndarray) -> np.ndarray:
    # scipy's FFT computes in float32 where numpy's converts to float64.
    from scipy import fft

    spectrum: np.ndarray = fft.rfft(frames.astype(np.float32), axis=1)
    return spectrum


def _slaney_mel(hertz: float) -> float:
    return hertz * 3 / 200 if hertz < 1000 else 15 + np.log(hertz / 1000) / (np.log(6.4) / 27)


def _slaney_hertz(mel: float) -> float:
    return mel * 200 / 3 if mel < 15 else 1000 * np.exp((mel - 15) * np.log(6.4) / 27)


def _librosa_frame_count(n_samples: int, spec: LogMel) -> int:
    return n_samples // spec.hop_length + 1


def _kaldi_log_mel_range(samples: Floats, spec: LogMel, frame_range: range) -> Floats:
    start = frame_range.start * spec.hop_length
    end = start + (len(frame_range) - 1) * spec.hop_length + spec.win_length
    return kaldi_log_mel(samples[start:end], spec)


_PREEMPHASIS = 0.97
# -69.2 dB: Kaldi's energy floor is the machine epsilon of a 32-bit float.
_KALDI_ENERGY_FLOOR = 2.0**-23


def kaldi_log_mel(samples: Floats, spec: LogMel) -> Floats:
    """The Kaldi front end: (time,) -> (mel, frames) in decibels, lowest band first.

    Each frame is freed of its mean, pre-emphasised and windowed; its power spectrum goes through
    filters that are triangular on the mel scale. A sound shorter than one frame is zero-padded.
    """
    from scipy import fft

    missing = max(0, spec.win_length - len(samples))
    padded = np.pad(samples, (0, missing)).astype(np.float64)
    frames = np.lib.stride_tricks.sliding_window_view(padded, spec.win_length)[:: spec.hop_length]
    frames = frames - frames.mean(axis=1, keepdims=True)
    # As in Kaldi, the first sample of a frame is its own predecessor.
    previous = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    emphasised = (frames - _PREEMPHASIS * previous) * np.hanning(spec.win_length)
    spectrum = fft.rfft(emphasised, n=spec.n_fft, axis=1)
    energies = kaldi_mel_filters(spec) @ (spectrum.real**2 + spectrum.imag**2).T
    decibels: Floats = (10 * np.log10(np.maximum(energies, _KALDI_ENERGY_FLOOR))).astype(np.float32)
    return decibels


def kaldi_frame_count(n_samples: int, spec: LogMel) -> int:
    """The number of complete frames in `n_samples`, at least 1."""
    return 1 + max(0, n_samples - spec.win_length) // spec.hop_length


@lru_cache(maxsize=8)
def kaldi_mel_filters(spec: LogMel) -> Floats:
    """Filters that are triangular on the mel scale, with a peak of 1 each: (mel, frequency)."""
    hertz = np.arange(spec.n_fft // 2 + 1) * spec.sample_rate_hz / spec.n_fft
    left, centre, right = (_kaldi_edges(spec)[i : i + spec.n_mels, None] for i in range(3))
    rising = (_kaldi_mel(hertz) - left) / (centre - left)
    falling = (right - _kaldi_mel(hertz)) / (right - centre)
    filters: Floats = np.maximum(0, np.minimum(rising, falling))
    return filters


@lru_cache(maxsize=8)
def kaldi_mel_frequencies_hz(spec: LogMel) -> tuple[float, ...]:
    """The centre frequency of every mel band, lowest first."""
    return tuple(float(hz) for hz in 700 * np.expm1(_kaldi_edges(spec)[1:-1] / 1127))


def _kaldi_edges(spec: LogMel) -> np.ndarray:
    """The edges of the bands, at equal steps on the mel scale: (mel + 2,)."""
    low, high = _kaldi_mel(np.array([spec.f_min_hz, spec.f_max_hz]))
    return np.linspace(low, high, spec.n_mels + 2)


def _kaldi_mel(hertz: np.ndarray) -> np.ndarray:
    """Kaldi's mel scale, which is O'Shaughnessy's."""
    mel: np.ndarray = 1127 * np.log1p(hertz / 700)
    return mel


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontEnd:
    """One way to compute mel energies from a waveform."""

    log_mel: Callable[[Floats, LogMel, range], Floats]  # (time,) -> (mel, frames in range), dB
    frame_count: Callable[[int, LogMel], int]  # from the number of samples
    frequencies_hz: Callable[[LogMel], tuple[float, ...]]  # centres of the bands, lowest first


FRONT_ENDS = {
    "librosa": FrontEnd(
        log_mel=librosa_log_mel,
        frame_count=_librosa_frame_count,
        frequencies_hz=_librosa_mel_frequencies_hz,
    ),
    "kaldi": FrontEnd(
        log_mel=_kaldi_log_mel_range,
        frame_count=kaldi_frame_count,
        frequencies_hz=kaldi_mel_frequencies_hz,
    ),
}
