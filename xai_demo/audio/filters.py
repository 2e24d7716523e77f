"""The signal path of a recording: a band-pass filter, then wavelet denoising. Pure.

Both process a recording in chunks that overlap by more than the filter's impulse response, so that
an hour takes no more memory than its result and the seams are inaudible.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from xai_demo.errors import UnknownNameError, UnsuitableError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xai_demo.records import Floats

BAND_HZ = (100.0, 1800.0)

# Half a minute at 8 kHz is processed at once.
_CHUNK_SAMPLES = 2**18
# The chunks overlap until the impulse response has decayed to this share.
_NEGLIGIBLE_RESPONSE = 1e-9
# A cut-off frequency above this share of the Nyquist frequency removes nothing and is left out.
_NYQUIST_SHARE = 0.99
# At 8 kHz the coarsest of eight scales reaches down to 16 Hz.
_MAX_LEVELS = 8
# Median absolute deviation of the standard normal distribution.
_MAD_OF_NORMAL = 0.6744897501960817
# The universal threshold grows with the number of samples. Capping that number leaves a crackle the
# same in a recording of an hour as in one of ten seconds.
_MAX_THRESHOLD_SAMPLES = 2**16
# In a long recording, noise is measured at this many places of this many samples.
_NOISE_PLACES = 64
_NOISE_PLACE_SAMPLES = 2**14

StageName = Literal["raw", "filtered", "denoised"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """The sound after one step of the signal path."""

    name: StageName
    samples: Floats  # (time,)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalPath:
    """The processing steps of a recording; each can be switched off."""

    band_hz: tuple[float, float] | None = BAND_HZ  # None: no band-pass
    denoise: bool = True

    def run(self, samples: Floats, sample_rate_hz: int) -> tuple[Stage, ...]:
        """The raw sound and the result of each step, in order; the last one is to be analysed."""
        stages = [Stage(name="raw", samples=samples)]
        if self.band_hz is not None:
            low_hz, high_hz = self.band_hz
            filtered = band_pass(samples, sample_rate_hz, low_hz=low_hz, high_hz=high_hz)
            stages.append(Stage(name="filtered", samples=filtered))
        if self.denoise:
            # Measured on the raw sound: the band-pass empties the scale that noise is measured on.
            clean = denoise_wavelet(stages[-1].samples, noise=noise_level(samples))
            stages.append(Stage(name="denoised", samples=clean))
        return tuple(stages)


def band_pass(
    samples: Floats,
    sample_rate_hz: float,
    *,
    low_hz: float = BAND_HZ[0],
    high_hz: float = BAND_HZ[1],
    order: int = 4,
) -> Floats:
    """Zero-phase Butterworth band-pass, (time,) -> (time,), with -6 dB at both cut-off frequencies.

    It is run forwards and backwards. A cut-off frequency at 0 Hz or at the Nyquist frequency and
    beyond is left out: 100 to 1800 Hz at 3 kHz is a high-pass, 0 to 1800 Hz a low-pass filter.
    Raises UnsuitableError if the band is empty or outside of what the sample rate can represent.
    """
    from scipy.signal import sosfiltfilt

    sections = _butterworth_sections(sample_rate_hz, low_hz, high_hz, order)
    if sections is None or not len(samples):
        return np.array(samples, np.float32)
    response = _impulse_response_samples(sections)

    def filter_chunk(chunk: Floats) -> NDArray[np.float64]:
        wide = chunk.astype(np.float64)
        return np.asarray(sosfiltfilt(sections, wide, padlen=min(response, len(wide) - 1)))

    return _process_in_chunks(samples, filter_chunk, overlap=response, step=1)


def noise_level(samples: Floats, *, wavelet: str = "db8") -> float:
    """The standard deviation of the white noise in a sound, (time,), from its finest wavelet scale.

    Estimated by the median absolute deviation (Donoho & Johnstone 1994), which a few loud clicks do
    not affect. Too low after a band-pass or upsampling, which leave that scale empty, so measure
    before. A long sound is measured at 64 places spread evenly over it.
    """
    import pywt

    _check_wavelet(wavelet)
    starts = np.unique(
        np.linspace(0, max(len(samples) - _NOISE_PLACE_SAMPLES, 0), _NOISE_PLACES).astype(int)
    )
    starts = starts if len(samples) > _NOISE_PLACES * _NOISE_PLACE_SAMPLES else np.zeros(1, int)
    size = _NOISE_PLACE_SAMPLES if len(starts) > 1 else len(samples)
    if size < pywt.Wavelet(wavelet).dec_len:
        return 0.0
    finest = [np.abs(pywt.dwt(samples[s : s + size], wavelet)[1]) for s in starts]
    return float(np.median(np.concatenate(finest))) / _MAD_OF_NORMAL


def denoise_wavelet(
    samples: Floats, *, wavelet: str = "db8", level: int | None = None, noise: float | None = None
) -> Floats:
    """Wavelet denoising by soft-thresholding every scale, (time,) -> (time,).

    The threshold of a scale is noise^2 / (standard deviation of the signal on it), as in
    BayesShrink (Chang, Yu & Vetterli 2000), but never above the universal threshold
    noise x sqrt(2 ln n) (Donoho & Johnstone 1994). Breath noise is strong on its scales and stays.

    `noise` is the `noise_level` of the sound before any filter; None: of these samples. `level` is
    the number of scales, fewer if the sound is too short; None: eight. Raises UnknownNameError for
    an unknown wavelet and UnsuitableError for a level below 1.
    """
    import pywt

    _check_wavelet(wavelet)
    if level is not None and level < 1:
        raise UnsuitableError(f"The wavelet level is {level}; expected 1 or more.")
    # White noise is equally strong on every scale, so one level serves for all of them. A level
    # measured on each scale would mistake breath noise, which is the signal here, for noise.
    noise = noise_level(samples, wavelet=wavelet) if noise is None else noise
    length = int(pywt.Wavelet(wavelet).dec_len)
    scales = min(level or _MAX_LEVELS, pywt.dwt_max_level(len(samples), length))
    if scales < 1 or not noise > 0:
        return np.array(samples, np.float32)
    # Chunks have the coefficients of the whole only if they start on the coarsest scale's grid.
    overlap, step = 2 * length * 2**scales, 2**scales

    def coefficients(chunk: Floats) -> list[Floats]:
        return list(pywt.wavedec(np.asarray(chunk, np.float32), wavelet, level=scales))

    squares = np.zeros(scales)  # coarsest scale first, as in the coefficients
    for first, last, start, end in _overlapping_chunks(len(samples), overlap, step):
        for i, detail in enumerate(coefficients(samples[start:end])[1:]):
            grid = 2 ** (scales - i)
            own = detail[(first - start) // grid : -(-(last - start) // grid)]
            squares[i] += float(np.sum(np.square(own, dtype=np.float64)))
    variances = squares * 2.0 ** np.arange(scales, 0, -1) / len(samples)
    thresholds = _shrinkage_thresholds(variances, noise, len(samples))

    def denoise_chunk(chunk: Floats) -> Floats:
        coarse, *details = coefficients(chunk)
        shrunk = [pywt.threshold(d, t, "soft") for d, t in zip(details, thresholds, strict=True)]
        sound: Floats = pywt.waverec([coarse, *shrunk], wavelet)[: len(chunk)]
        return sound

    return _process_in_chunks(samples, denoise_chunk, overlap=overlap, step=step)


def _shrinkage_thresholds(variances: NDArray[np.float64], noise: float, count: int) -> Floats:
    """One threshold per scale, from the variances of the coefficients: (scales,) -> (scales,)."""
    universal = noise * math.sqrt(2 * math.log(max(min(count, _MAX_THRESHOLD_SAMPLES), 2)))
    deviations = np.sqrt(np.maximum(variances - noise**2, 0))
    return (noise**2 / np.maximum(deviations, noise**2 / universal)).astype(np.float32)


def _process_in_chunks(
    samples: Floats,
    process: Callable[[Floats], NDArray[np.floating]],
    *,
    overlap: int,
    step: int,
) -> Floats:
    """`process` applied to overlapping chunks that start at multiples of `step`, (time,)."""
    result = np.empty(len(samples), np.float32)
    for first, last, start, end in _overlapping_chunks(len(samples), overlap, step):
        result[first:last] = process(samples[start:end])[first - start : last - start]
    return result


def _overlapping_chunks(count: int, overlap: int, step: int) -> Iterator[tuple[int, int, int, int]]:
    """(first, last, start, end) of each chunk: the samples to keep, and those to process."""
    overlap = step * -(-overlap // step)
    size = step * -(-max(_CHUNK_SAMPLES, 2 * overlap) // step)
    for first in range(0, count, size):
        last = min(first + size, count)
        yield first, last, max(first - overlap, 0), min(last + overlap, count)


def _butterworth_sections(
    sample_rate_hz: float, low_hz: float, high_hz: float, order: int
) -> NDArray[np.float64] | None:
    """The filter's second-order sections, (sections, 6); None if the band is the whole spectrum."""
    from scipy.signal import butter

    # An infinite upper end is allowed and means a high-pass filter.
    if not (math.isfinite(low_hz) and low_hz < high_hz):
        raise UnsuitableError(
            f"The band is {low_hz:g} to {high_hz:g} Hz; expected a lower end below the upper one."
        )
    if not high_hz > 0 or not low_hz < _NYQUIST_SHARE * sample_rate_hz / 2:
        raise UnsuitableError(
            f"The band is {low_hz:g} to {high_hz:g} Hz; expected a part of 0 to"
            f" {sample_rate_hz / 2:g} Hz, the range of a sample rate of {sample_rate_hz:g} Hz."
        )
    if not 1 <= order <= 12:
        raise UnsuitableError(f"The filter's order is {order}; expected 1 to 12.")
    no_low_end, no_high_end = low_hz <= 0, high_hz >= _NYQUIST_SHARE * sample_rate_hz / 2
    if no_low_end and no_high_end:
        return None
    kind = "lowpass" if no_low_end else "highpass" if no_high_end else "bandpass"
    cutoffs = {"lowpass": high_hz, "highpass": low_hz, "bandpass": (low_hz, high_hz)}[kind]
    return np.asarray(butter(order, cutoffs, kind, fs=sample_rate_hz, output="sos"))


def _impulse_response_samples(sections: NDArray[np.float64]) -> int:
    """Samples until the impulse response has decayed to a negligible share."""
    # The pole closest to the unit circle decays the slowest.
    slowest = max(float(np.max(np.abs(np.roots(section[3:])))) for section in sections)
    return math.ceil(math.log(_NEGLIGIBLE_RESPONSE) / math.log(min(slowest, 1 - 1e-6)))


def _check_wavelet(wavelet: str) -> None:
    import pywt

    if wavelet not in pywt.wavelist(kind="discrete"):
        raise UnknownNameError("wavelet", wavelet, pywt.wavelist(kind="discrete"))
