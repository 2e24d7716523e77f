"""From waveform to what a network sees, and back to seconds and hertz. Pure.

Kaldi's filter bank, as AST was trained on it. Pure.

Equal to `torchaudio.compliance.kaldi.fbank(window_type="hanning")` and to what transformers'
ASTFeatureExtractor computes, but for all frames in one FFT. Unlike the front end in
`xai_demo.audio.spectrogram`, frames start at the first sample and only whole ones count.
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

_QUIETEST = 1e-10  # power floor, -100 dB
_STRETCH = 4096  # frames made at once
_LAST = 64  # fewer frames at the end are made with those before them, which they may mirror


def stft(samples: Floats, n_fft: int, win_length: int, hop_length: int) -> np.ndarray:
    """Short-time spectrum, complex: (time,) -> (frequency, frames).

    Periodic Hann window, centred frames, reflected ends.
    """
    count = len(samples) // hop_length + 1
    framed = _framed(samples, n_fft, hop_length, range(count))
    return _rfft(framed * _hann(win_length, n_fft)).T


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
    """Mel energies in decibels, before any floor: (time,) -> (mel, frames), lowest band first."""
    made = [piece for _, piece in log_mel_stretches(samples, spec)]
    return made[0] if len(made) == 1 else np.concatenate(made, axis=1)


def log_mel_stretches(samples: Floats, spec: LogMel) -> Iterator[tuple[int, Floats]]:
    """The same one stretch after the other: the first frame, (mel, frames of the stretch)."""
    front = FRONT_ENDS[spec.front_end]
    count = front.frames(len(samples), spec)
    edges = list(range(0, max(count - _LAST, 1), _STRETCH))
    for first, last in zip(edges, [*edges[1:], count], strict=True):
        yield first, front.log_mel(samples, spec, range(first, last))


def frames(n_samples: int, spec: LogMel) -> int:
    """How many frames `log_mel` makes of so many samples."""
    return FRONT_ENDS[spec.front_end].frames(n_samples, spec)


def mel_frequencies_hz(spec: LogMel) -> tuple[float, ...]:
    """Centre of every mel band, lowest first."""
    return FRONT_ENDS[spec.front_end].frequencies_hz(spec)


def window_frames(spec: LogMel) -> int:
    """How many frames of sound the network sees at once, without padding."""
    return frames(round(spec.window_s * spec.sample_rate_hz), spec)


def padded(windows: Floats, spec: LogMel) -> Floats:
    """Windows (..., frames) at the width that the network wants; 0 dB is what AST is padded with.

    What is padded is no sound: no heat belongs there.
    """
    missing = (spec.frames or windows.shape[-1]) - windows.shape[-1]
    widths = [(0, 0)] * (windows.ndim - 1) + [(0, missing)]
    full: Floats = np.pad(windows, widths, constant_values=padding(spec))
    return full


def padding(spec: LogMel) -> float:
    """What the network is given where there is no sound."""
    return -spec.mean_db / spec.deviation_db


def centred_log_mel(samples: Floats, spec: LogMel, which: range | None = None) -> Floats:
    """As librosa and PANNs have it: (time,) -> (mel, frames) in decibels, of all frames or some.

    Power spectrum, Slaney mel filters (librosa's defaults), 10 log10(max(x, 1e-10)): Kong et al.
    2020.
    """
    which = range(_centred_frames(len(samples), spec)) if which is None else which
    framed = _framed(samples, spec.n_fft, spec.hop_length, which)
    spectrum = _rfft(framed * _hann(spec.win_length, spec.n_fft)).T
    power = spectrum.real**2 + spectrum.imag**2
    mel: Floats = 10 * np.log10(np.maximum(mel_filters(spec) @ power, _QUIETEST))
    return mel


def network_input(samples: Floats, spec: LogMel) -> Floats:
    """What the network sees of a whole recording: (time,) -> (mel, frames)."""
    return conditioned(log_mel(samples, spec), spec)


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """What of a whole recording its windows are conditioned by, in decibels."""

    lowest: float
    floor: float  # what is below counts as this much
    mean: float = 0.0
    deviation: float = 1.0


def levels(decibels: Floats, spec: LogMel) -> Levels:
    """The levels of a recording's (mel, frames), taken in stretches."""
    frames = decibels.T
    ends = [(float(frames[p].min()), float(frames[p].max())) for p in files.stretches(frames)]
    lowest, highest = min(low for low, _ in ends), max(high for _, high in ends)
    floor = lowest if spec.top_db is None else max(lowest, highest - spec.top_db)
    if not spec.standardise:
        return Levels(lowest=lowest, floor=floor)
    total = squares = 0.0
    for part in files.stretches(frames):
        above = np.maximum(frames[part], floor).astype(np.float64) - floor
        total, squares = total + float(above.sum()), squares + float(np.square(above).sum())
    mean = total / decibels.size
    deviation = float(np.sqrt(max(squares / decibels.size - mean**2, 0.0)))
    return Levels(lowest=lowest, floor=floor, mean=floor + mean, deviation=max(deviation, 1e-3))


def conditioned(decibels: Floats, spec: LogMel, of: Levels | None = None) -> Floats:
    """Mel decibels, floored and standardised as the model wants.

    They are the whole recording's, or a part of what has the levels `of`.
    """
    of = levels(decibels, spec) if of is None else of
    standard = (np.maximum(decibels, np.float32(of.floor)) - of.mean) / of.deviation
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
def _slaney_frequencies_hz(spec: LogMel) -> tuple[float, ...]:
    """Centre of every mel band on Slaney's scale: linear to 1 kHz, then logarithmic."""
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


def _framed(samples: Floats, n_fft: int, hop_length: int, which: range) -> Floats:
    """Frames around multiples of the hop, mirrored at both ends: (frames, n_fft), not copied."""
    half = n_fft // 2
    start = which.start * hop_length - half
    end = start + (len(which) - 1) * hop_length + n_fft
    inside = samples[max(start, 0) : max(end, 0)]
    sides = max(-start, 0), max(end - len(samples), 0)
    padded = np.pad(inside, sides, mode="reflect" if len(samples) > half else "wrap")
    framed: Floats = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop_length]
    return framed


def _rfft(frames: np.ndarray) -> np.ndarray:
    from scipy import fft  # keeps float32, which numpy's does not

    spectrum: np.ndarray = fft.rfft(frames.astype(np.float32), axis=1)
    return spectrum


def _mel(hertz: float) -> float:
    return hertz * 3 / 200 if hertz < 1000 else 15 + np.log(hertz / 1000) / (np.log(6.4) / 27)


def _hertz(mel: float) -> float:
    return mel * 200 / 3 if mel < 15 else 1000 * np.exp((mel - 15) * np.log(6.4) / 27)


def _centred_frames(n_samples: int, spec: LogMel) -> int:
    return n_samples // spec.hop_length + 1


def _centred_kaldi_log_mel(samples: Floats, spec: LogMel, which: range) -> Floats:
    start = which.start * spec.hop_length
    end = start + (len(which) - 1) * spec.hop_length + spec.win_length
    return kaldi_log_mel(samples[start:end], spec)


_PREEMPHASIS = 0.97
_KALDI_QUIETEST = 2.0**-23  # energy floor, -69.2 dB: the resolution of a 32-bit float


def kaldi_log_mel(samples: Floats, spec: LogMel) -> Floats:
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
    energies = kaldi_mel_filters(spec) @ (spectrum.real**2 + spectrum.imag**2).T
    decibels: Floats = (10 * np.log10(np.maximum(energies, _KALDI_QUIETEST))).astype(np.float32)
    return decibels


def kaldi_frames(n_samples: int, spec: LogMel) -> int:
    """How many frames so many samples make."""
    return 1 + max(0, n_samples - spec.win_length) // spec.hop_length


@lru_cache(maxsize=8)
def kaldi_mel_filters(spec: LogMel) -> Floats:
    """Filters that are triangles on the mel scale, each with a peak of 1: (mel, frequency)."""
    hertz = np.arange(spec.n_fft // 2 + 1) * spec.sample_rate_hz / spec.n_fft
    left, centre, right = (_kaldi_edges(spec)[i : i + spec.n_mels, None] for i in range(3))
    up, down = (
        (_kaldi_mel(hertz) - left) / (centre - left),
        (right - _kaldi_mel(hertz)) / (right - centre),
    )
    filters: Floats = np.maximum(0, np.minimum(up, down))
    return filters


@lru_cache(maxsize=8)
def kaldi_mel_frequencies_hz(spec: LogMel) -> tuple[float, ...]:
    """Centre of every mel band, lowest first."""
    return tuple(float(hz) for hz in 700 * np.expm1(_kaldi_edges(spec)[1:-1] / 1127))


def _kaldi_edges(spec: LogMel) -> np.ndarray:
    """Where the bands meet: (mel + 2,) places at equal steps of the mel scale."""
    low, high = _kaldi_mel(np.array([spec.f_min_hz, spec.f_max_hz]))
    return np.linspace(low, high, spec.n_mels + 2)


def _kaldi_mel(hertz: np.ndarray) -> np.ndarray:
    """Kaldi's mel scale, O'Shaughnessy's with a natural logarithm."""
    mel: np.ndarray = 1127 * np.log1p(hertz / 700)
    return mel


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontEnd:
    """One way from a waveform to mel energies."""

    log_mel: Callable[[Floats, LogMel, range], Floats]  # (time,) -> (mel, those frames), decibels
    frames: Callable[[int, LogMel], int]  # how many of so many samples
    frequencies_hz: Callable[[LogMel], tuple[float, ...]]  # of the bands, lowest first


FRONT_ENDS = {
    "librosa": FrontEnd(
        log_mel=centred_log_mel, frames=_centred_frames, frequencies_hz=_slaney_frequencies_hz
    ),
    "kaldi": FrontEnd(
        log_mel=_centred_kaldi_log_mel, frames=kaldi_frames, frequencies_hz=kaldi_mel_frequencies_hz
    ),
}
