"""From a waveform to mel energies in decibels, one front end for each way the networks have. Pure.

"librosa" (PANNs, the lung networks): centred frames with reflected ends, Slaney mel filters.
"htk" (CED): the same with HTK's mel filters, equal to `torchaudio.transforms.MelSpectrogram`.
"efficientat": pre-emphasis over the whole sound, a symmetric window, Kaldi's mel filters, and a
floor that is added, equal to EfficientAT's `AugmentMelSTFT`.
"yamnet": the magnitude of complete frames, as TensorFlow's `tf.signal` has it, and an offset.
"kaldi" (AST): equal to `torchaudio.compliance.kaldi.fbank(window_type="hanning")` and to
transformers' ASTFeatureExtractor; frames start at the first sample, only complete ones count.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from xai_demo.records import Floats, LogMel

_POWER_FLOOR = 1e-10  # -100 dB
_PREEMPHASIS = 0.97
# -69.2 dB: Kaldi's energy floor is the machine epsilon of a 32-bit float.
_KALDI_ENERGY_FLOOR = 2.0**-23
# EfficientAT adds it to every energy, so silence is at -50 dB.
_EFFICIENTAT_OFFSET = 1e-5

# YAMNet adds it to every magnitude, so silence is at -60 dB.
_YAMNET_OFFSET = 1e-3


def librosa_log_mel(samples: Floats, spec: LogMel, frame_range: range | None = None) -> Floats:
    """The librosa front end: (time,) -> (mel, frames) in decibels, for all frames or a range.

    Power spectrum, Slaney mel filters (librosa's defaults), 10 log10(max(x, 1e-10)), as in PANNs:
    Kong et al. 2020.
    """
    return _centred_log_mel(samples, spec, mel_filters(spec), frame_range)


def htk_log_mel(samples: Floats, spec: LogMel, frame_range: range | None = None) -> Floats:
    """The HTK front end: as `librosa_log_mel`, with `htk_mel_filters`; Dinkel et al. 2024."""
    return _centred_log_mel(samples, spec, htk_mel_filters(spec), frame_range)


def _centred_log_mel(
    samples: Floats, spec: LogMel, filters: Floats, frame_range: range | None
) -> Floats:
    if frame_range is None:
        frame_range = range(centred_frame_count(len(samples), spec))
    frames = centred_frames(samples, spec.n_fft, spec.hop_length, frame_range)
    power = _power(frames * hann_window(spec.win_length, spec.n_fft))
    mel: Floats = 10 * np.log10(np.maximum(filters @ power, _POWER_FLOOR))
    return mel


def centred_frame_count(n_samples: int, spec: LogMel) -> int:
    """The number of frames that are centred on a multiple of the hop within `n_samples`."""
    return n_samples // spec.hop_length + 1


def centred_frames(
    samples: Floats,
    n_fft: int,
    hop_length: int,
    frame_range: range,
    preemphasis: float = 0.0,
) -> Floats:
    """Frames centred on multiples of the hop, with reflected ends: (frames, n_fft).

    With pre-emphasis they are frames of x[i + 1] - preemphasis * x[i], one sample shorter.
    """
    half, lead = n_fft // 2, int(preemphasis > 0)
    length = len(samples) - lead
    start = frame_range.start * hop_length - half
    end = start + (len(frame_range) - 1) * hop_length + n_fft
    # Only the part that these frames see is pre-emphasised: an hour of sound would double.
    inside = samples[max(start, 0) : max(min(end, length), 0) + lead]
    if lead:
        inside = inside[1:] - np.float32(preemphasis) * inside[:-1]
    sides = max(-start, 0), max(end - length, 0)
    # A sound shorter than half a frame is repeated instead of reflected.
    padded = np.pad(inside, sides, mode="reflect" if length > half else "wrap")
    frames: Floats = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop_length]
    return frames


@lru_cache(maxsize=8)
def hann_window(win_length: int, n_fft: int, *, symmetric: bool = False) -> Floats:
    """A Hann window, periodic unless `symmetric`, zero-padded on both sides to (n_fft,)."""
    period = win_length - 1 if symmetric else win_length
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(win_length) / period)
    left = (n_fft - win_length) // 2
    return np.pad(window, (left, n_fft - win_length - left)).astype(np.float32)


def rfft(frames: np.ndarray) -> np.ndarray:
    """The spectrum of real frames in float32: (frames, n_fft) -> (frames, n_fft / 2 + 1)."""
    # scipy's FFT computes in float32 where numpy's converts to float64.
    from scipy import fft

    spectrum: np.ndarray = fft.rfft(frames.astype(np.float32), axis=1)
    return spectrum


def _power(frames: Floats) -> Floats:
    """(frames, n_fft) -> (frequency, frames)."""
    spectrum = rfft(frames).T
    power: Floats = spectrum.real**2 + spectrum.imag**2
    return power


@lru_cache(maxsize=8)
def mel_filters(spec: LogMel) -> Floats:
    """Triangular filters, area-normalised (Slaney): (mel, frequency)."""
    return _librosa_filters(spec, htk=False, norm="slaney")


@lru_cache(maxsize=8)
def htk_mel_filters(spec: LogMel) -> Floats:
    """Filters at equal steps on HTK's mel scale, triangular in hertz, with a peak of 1 each."""
    return _librosa_filters(spec, htk=True, norm=None)


def _librosa_filters(spec: LogMel, *, htk: bool, norm: Literal["slaney"] | None) -> Floats:
    from librosa.filters import mel

    filters: Floats = mel(
        sr=spec.sample_rate_hz,
        n_fft=spec.n_fft,
        n_mels=spec.n_mels,
        fmin=spec.f_min_hz,
        fmax=spec.f_max_hz,
        htk=htk,
        norm=norm,
    ).astype(np.float32)
    return filters


@lru_cache(maxsize=8)
def _librosa_mel_frequencies_hz(spec: LogMel) -> tuple[float, ...]:
    """The centre of every mel band on Slaney's scale: linear to 1 kHz, then logarithmic."""
    edges = np.linspace(_slaney_mel(spec.f_min_hz), _slaney_mel(spec.f_max_hz), spec.n_mels + 2)[
        1:-1
    ]
    return tuple(float(_slaney_hertz(m)) for m in edges)


def _slaney_mel(hertz: float) -> float:
    return hertz * 3 / 200 if hertz < 1000 else 15 + np.log(hertz / 1000) / (np.log(6.4) / 27)


def _slaney_hertz(mel: float) -> float:
    return mel * 200 / 3 if mel < 15 else 1000 * np.exp((mel - 15) * np.log(6.4) / 27)


def efficientat_log_mel(samples: Floats, spec: LogMel, frame_range: range | None = None) -> Floats:
    """EfficientAT's front end: (time,) -> (mel, frames) in decibels; Schmid et al. 2023."""
    if frame_range is None:
        frame_range = range(_emphasised_frame_count(len(samples), spec))
    frames = centred_frames(samples, spec.n_fft, spec.hop_length, frame_range, _PREEMPHASIS)
    power = _power(frames * hann_window(spec.win_length, spec.n_fft, symmetric=True))
    energies = kaldi_mel_filters(spec).astype(np.float32) @ power
    mel: Floats = 10 * np.log10(energies + np.float32(_EFFICIENTAT_OFFSET))
    return mel


def _emphasised_frame_count(n_samples: int, spec: LogMel) -> int:
    return centred_frame_count(n_samples - 1, spec)


def _kaldi_log_mel_range(samples: Floats, spec: LogMel, frame_range: range) -> Floats:
    start = frame_range.start * spec.hop_length
    end = start + (len(frame_range) - 1) * spec.hop_length + spec.win_length
    return kaldi_log_mel(samples[start:end], spec)


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


def yamnet_log_mel(samples: Floats, spec: LogMel, frame_range: range | None = None) -> Floats:
    """YAMNet's front end: (time,) -> (mel, frames) in decibels of the magnitude.

    From its authors' `features.py` (Plakal & Ellis 2019): the magnitude, not the power, through
    filters that are triangular on HTK's mel scale, and the logarithm of that plus 0.001. A sound
    shorter than one frame is zero-padded.
    """
    frame_range = frame_range or range(kaldi_frame_count(len(samples), spec))
    start = frame_range.start * spec.hop_length
    end = start + (len(frame_range) - 1) * spec.hop_length + spec.win_length
    inside = samples[start:end]
    padded = np.pad(inside, (0, max(0, spec.win_length - len(inside))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, spec.win_length)[:: spec.hop_length]
    windowed = frames * hann_window(spec.win_length, spec.win_length)
    magnitude = np.sqrt(_power(np.pad(windowed, ((0, 0), (0, spec.n_fft - spec.win_length)))))
    energies = kaldi_mel_filters(spec).astype(np.float32) @ magnitude
    mel: Floats = 20 * np.log10(energies + np.float32(_YAMNET_OFFSET))
    return mel


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
    """The centre frequency of every mel band, lowest first; HTK's mel scale is the same."""
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
        frame_count=centred_frame_count,
        frequencies_hz=_librosa_mel_frequencies_hz,
    ),
    "htk": FrontEnd(
        log_mel=htk_log_mel,
        frame_count=centred_frame_count,
        frequencies_hz=kaldi_mel_frequencies_hz,
    ),
    "efficientat": FrontEnd(
        log_mel=efficientat_log_mel,
        frame_count=_emphasised_frame_count,
        frequencies_hz=kaldi_mel_frequencies_hz,
    ),
    "yamnet": FrontEnd(
        log_mel=yamnet_log_mel,
        frame_count=kaldi_frame_count,
        frequencies_hz=kaldi_mel_frequencies_hz,
    ),
    "kaldi": FrontEnd(
        log_mel=_kaldi_log_mel_range,
        frame_count=kaldi_frame_count,
        frequencies_hz=kaldi_mel_frequencies_hz,
    ),
}
