"""From the raw recording to what is listened to: band-pass, then wavelet denoising. Pure.

Both work through a recording in stretches that overlap by more than any filter remembers, so that
an hour takes no more memory than its result and no border is heard.
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

_STRETCH = 2**18  # samples worked on at once: half a minute at 8 kHz
_FORGOTTEN = 1e-9  # what is left of a filter's memory where stretches are joined
_NYQUIST_SHARE = 0.99  # an end beyond this is no end: nothing is sampled above it
_MOST_LEVELS = 8  # at 8 kHz the coarsest scale reaches down to 16 Hz
_MAD_OF_NORMAL = 0.6744897501960817  # median absolute value of a normal deviate
# The universal threshold grows with the length of the sound. Counting this much of it at most, a
# crackle comes out of an hour as it does out of ten seconds.
_COUNTED = 2**16
_LISTENED = 64  # places spread over a recording at which its noise is measured
_PLACE = 2**14  # samples at each

StageName = Literal["raw", "filtered", "denoised"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """The sound after one step of the signal path."""

    name: StageName
    samples: Floats  # (time,)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalPath:
    """Which steps a recording goes through; each can be switched off."""

    band_hz: tuple[float, float] | None = BAND_HZ  # None: no band-pass
    denoise: bool = True

    def run(self, samples: Floats, sample_rate_hz: int) -> tuple[Stage, ...]:
        """The raw sound and what each step made of it, in order; the last is what to analyse.

        The noise is measured before the band-pass, which leaves the scale it is measured on empty.
        """
        stages = [Stage(name="raw", samples=samples)]
        if self.band_hz is not None:
            low_hz, high_hz = self.band_hz
            passed = band_passed(samples, sample_rate_hz, low_hz=low_hz, high_hz=high_hz)
            stages.append(Stage(name="filtered", samples=passed))
        if self.denoise:
            clean = denoised(stages[-1].samples, noise=noise_level(samples))
            stages.append(Stage(name="denoised", samples=clean))
        return tuple(stages)


def band_passed(
    samples: Floats,
    sample_rate_hz: float,
    *,
    low_hz: float = BAND_HZ[0],
    high_hz: float = BAND_HZ[1],
    order: int = 4,
) -> Floats:
    """Zero-phase Butterworth band-pass, (time,) -> (time,): -6 dB at both ends, run both ways.

    An end that the sample rate does not reach is left open: 100 to 1800 Hz at 3 kHz is a high-pass
    at 100 Hz, 0 to 1800 Hz a low-pass. Raises UnsuitableError where nothing would be left.
    """
    from scipy.signal import sosfiltfilt

    sections = _butterworth(sample_rate_hz, low_hz, high_hz, order)
    if sections is None or not len(samples):
        return np.array(samples, np.float32)
    memory = _memory(sections)

    def work(stretch: Floats) -> NDArray[np.float64]:
        wide = stretch.astype(np.float64)
        edge = min(memory, len(wide) - 1)
        return np.asarray(sosfiltfilt(sections, wide, padlen=edge))

    return _by_stretches(samples, work, overlap=memory, step=1)


def noise_level(samples: Floats, *, wavelet: str = "db8") -> float:
    """The standard deviation of the white noise in a sound: of its finest wavelet scale.

    By the median absolute deviation (Donoho & Johnstone 1994), which a few loud clicks leave as it
    is. Too low after a band-pass or where the sound was sampled up, as that scale is then empty:
    measure before. A long sound is measured at 64 places spread over it.
    """
    import pywt

    _check_wavelet(wavelet)
    starts = np.unique(np.linspace(0, max(len(samples) - _PLACE, 0), _LISTENED).astype(int))
    starts = starts if len(samples) > _LISTENED * _PLACE else np.zeros(1, int)
    size = _PLACE if len(starts) > 1 else len(samples)
    if size < pywt.Wavelet(wavelet).dec_len:
        return 0.0
    finest = [np.abs(pywt.dwt(samples[s : s + size], wavelet)[1]) for s in starts]
    return float(np.median(np.concatenate(finest))) / _MAD_OF_NORMAL


def denoised(
    samples: Floats, *, wavelet: str = "db8", level: int | None = None, noise: float | None = None
) -> Floats:
    """Wavelet denoising, (time,) -> (time,): every scale soft-thresholded.

    The threshold of a scale is noise^2 / (deviation of what is no noise on it), which costs the
    sound least (Chang, Yu & Vetterli 2000), and never above noise x sqrt(2 ln n), under which all
    noise lies (Donoho & Johnstone 1994): breath noise, strong on its scales, stays.

    `noise` is `noise_level` of the sound before any filter; None: of these samples. White noise is
    equally strong on every scale, so one level serves them all; a level measured on each scale
    would take breath noise, which is what a lung sounds like, for noise. `level` is the number of
    scales, fewer where the sound is too short for them; None: eight.
    """
    import pywt

    _check_wavelet(wavelet)
    if level is not None and level < 1:
        raise UnsuitableError(f"The wavelet level is {level}; wanted: 1 or more.")
    noise = noise_level(samples, wavelet=wavelet) if noise is None else noise
    length = int(pywt.Wavelet(wavelet).dec_len)
    scales = min(level or _MOST_LEVELS, pywt.dwt_max_level(len(samples), length))
    if scales < 1 or not noise > 0:
        return np.array(samples, np.float32)
    # Coefficients of stretches agree only where they start on the same grid as the coarsest scale.
    overlap, step = 2 * length * 2**scales, 2**scales

    def coefficients(stretch: Floats) -> list[Floats]:
        return list(pywt.wavedec(np.asarray(stretch, np.float32), wavelet, level=scales))

    squares = np.zeros(scales)  # coarsest first, as the coefficients come
    for first, last, start, end in _stretches(len(samples), overlap, step):
        for i, detail in enumerate(coefficients(samples[start:end])[1:]):
            grid = 2 ** (scales - i)
            own = detail[(first - start) // grid : -(-(last - start) // grid)]
            squares[i] += float(np.sum(np.square(own, dtype=np.float64)))
    variances = squares * 2.0 ** np.arange(scales, 0, -1) / len(samples)
    thresholds = _thresholds(variances, noise, len(samples))

    def work(stretch: Floats) -> Floats:
        coarse, *details = coefficients(stretch)
        kept = [pywt.threshold(d, t, "soft") for d, t in zip(details, thresholds, strict=True)]
        sound: Floats = pywt.waverec([coarse, *kept], wavelet)[: len(stretch)]
        return sound

    return _by_stretches(samples, work, overlap=overlap, step=step)


def _thresholds(variances: NDArray[np.float64], noise: float, count: int) -> Floats:
    """One threshold a scale from the variances of their coefficients."""
    universal = noise * math.sqrt(2 * math.log(max(min(count, _COUNTED), 2)))
    deviations = np.sqrt(np.maximum(variances - noise**2, 0))
    return (noise**2 / np.maximum(deviations, noise**2 / universal)).astype(np.float32)


def _by_stretches(
    samples: Floats, work: Callable[[Floats], NDArray[np.floating]], *, overlap: int, step: int
) -> Floats:
    """What `work` makes of the whole, made of stretches of it that start at multiples of `step`."""
    result = np.empty(len(samples), np.float32)
    for first, last, start, end in _stretches(len(samples), overlap, step):
        result[first:last] = work(samples[start:end])[first - start : last - start]
    return result


def _stretches(count: int, overlap: int, step: int) -> Iterator[tuple[int, int, int, int]]:
    """(first, last, start, end): the samples to keep, and those to look at for them."""
    overlap = step * -(-overlap // step)
    size = step * -(-max(_STRETCH, 2 * overlap) // step)
    for first in range(0, count, size):
        last = min(first + size, count)
        yield first, last, max(first - overlap, 0), min(last + overlap, count)


def _butterworth(
    sample_rate_hz: float, low_hz: float, high_hz: float, order: int
) -> NDArray[np.float64] | None:
    """Second-order sections; None: the band is all there is."""
    from scipy.signal import butter

    if not (math.isfinite(low_hz) and low_hz < high_hz):  # infinity is a fine upper end
        raise UnsuitableError(
            f"The band is {low_hz:g} to {high_hz:g} Hz; wanted: a lower end below the upper one."
        )
    if not high_hz > 0 or not low_hz < _NYQUIST_SHARE * sample_rate_hz / 2:
        raise UnsuitableError(
            f"The band is {low_hz:g} to {high_hz:g} Hz; wanted: a part of 0 to"
            f" {sample_rate_hz / 2:g} Hz, which is all that {sample_rate_hz:g} Hz can hold."
        )
    if not 1 <= order <= 12:
        raise UnsuitableError(f"The filter's order is {order}; wanted: 1 to 12.")
    from_0, to_the_end = low_hz <= 0, high_hz >= _NYQUIST_SHARE * sample_rate_hz / 2
    if from_0 and to_the_end:
        return None
    kind = "lowpass" if from_0 else "highpass" if to_the_end else "bandpass"
    ends = {"lowpass": high_hz, "highpass": low_hz, "bandpass": (low_hz, high_hz)}[kind]
    return np.asarray(butter(order, ends, kind, fs=sample_rate_hz, output="sos"))


def _memory(sections: NDArray[np.float64]) -> int:
    """Samples until an impulse has died away: as long as the pole nearest to the circle rings."""
    slowest = max(float(np.max(np.abs(np.roots(section[3:])))) for section in sections)
    return math.ceil(math.log(_FORGOTTEN) / math.log(min(slowest, 1 - 1e-6)))


def _check_wavelet(wavelet: str) -> None:
    import pywt

    if wavelet not in pywt.wavelist(kind="discrete"):
        raise UnknownNameError("wavelet", wavelet, pywt.wavelist(kind="discrete"))
