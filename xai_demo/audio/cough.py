"""Whether a short recording is a cough, a sneeze or another burst of sound instead of a breath.

A breath swells and fades over half a second and more. A cough is there within hundredths of a
second, over within half a second, and bright. A logistic regression weighs eleven statistics of
this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xai_demo.records import Floats

    Values = NDArray[np.float64]

# Shorter ones are a click; in longer ones there is room for a breath, and `quality` judges them.
DURATION_RANGE_S = (0.3, 3.0)
# So that at most 0.2 % of the stretches of any collection of lung sounds are called coughs.
MIN_PROBABILITY = 0.7
RATE_HZ = 4000  # the statistics are computed at this sample rate
FEATURES = (
    "rise_db",  # from one 40 ms to the next, at its steepest
    "attack_db",  # of the loudest moment over the fifth of a second before it
    "loud_s",  # time within 10 dB of the loudest moment
    "audible_s",  # time within 20 dB of it
    "burst_share",  # of the energy, in the loudest 0.4 s
    "median_db",  # relative to the loudest moment
    # Share of the energy at the loudest moment, in decibels.
    "level_1000_to_2000_hz",
    "level_400_to_1000_hz",
    "level_60_to_200_hz",
    "flatness_db",  # of the spectrum at the loudest moment
    # Logarithm of the kurtosis in the loudest 0.2 s: crackles are clicks with pauses between them.
    "spikiness",
)
# Beyond these, a feature says more about the microphone and the room than about the sound.
_LIMITS = {
    "rise_db": (0.0, 40.0),
    "attack_db": (0.0, 40.0),
    "median_db": (-45.0, 0.0),
    "level_1000_to_2000_hz": (-30.0, 0.0),
    "level_400_to_1000_hz": (-30.0, 0.0),
    "level_60_to_200_hz": (-30.0, 0.0),
    "flatness_db": (-25.0, 0.0),
}
# Fitted by `training.cough_fit`; log-odds relative to breath.
INTERCEPT = -0.93067
WEIGHTS = (
    -0.06884, 0.0747, -3.657, 1.59, 2.78, -0.1169, 0.07996, 0.1588, -0.2714, 0.08319, -1.452,
)  # fmt: skip

_FRAME, _HOP = 64, 20  # 16 ms every 5 ms
_FLOOR = 1e-7  # of the loudest moment


def cough_probability(samples: Floats, sample_rate_hz: int) -> float:
    """The probability that a short recording, (time,), is a cough or another burst of sound.

    0 for a recording outside `DURATION_RANGE_S`, or at a rate that leaves out much of the band.
    """
    import soxr

    shortest, longest = DURATION_RANGE_S
    duration_s = len(samples) / sample_rate_hz
    if not shortest <= duration_s <= longest or sample_rate_hz < RATE_HZ or not np.ptp(samples):
        return 0.0
    sound = soxr.resample(samples, sample_rate_hz, RATE_HZ, quality="HQ")
    return float(1 / (1 + np.exp(-(INTERCEPT + features(sound) @ np.array(WEIGHTS)))))


def features(sound: Floats) -> Values:
    """The statistics named in `FEATURES` of a sound at 4 kHz: (time,) -> (features,)."""
    power, hertz = _power_spectrogram(sound)
    energy = _smooth(power[:, (hertz >= 150) & (hertz <= 1900)].sum(axis=1))
    level = 10 * np.log10(energy + energy.max() * _FLOOR + 1e-20)
    loudest = int(level.argmax())
    values = {
        "rise_db": _steepest_rise_db(level),
        "attack_db": _attack_db(level, loudest),
        "loud_s": _seconds(level > level.max() - 10),
        "audible_s": _seconds(level > level.max() - 20),
        "burst_share": _burst_share(energy),
        "median_db": float(np.median(level) - level.max()),
        "spikiness": _spikiness(sound, loudest * _HOP),
        **_spectrum_features(power[max(0, loudest - 10) : loudest + 40].sum(axis=0), hertz),
    }
    return np.array(
        [np.clip(values[name], *_LIMITS.get(name, (-np.inf, np.inf))) for name in FEATURES]
    )


def _power_spectrogram(sound: Floats) -> tuple[Values, NDArray[np.floating]]:
    """(time,) -> (frames, frequency), and the frequencies in hertz."""
    padded = np.pad(np.asarray(sound, np.float64), _FRAME // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FRAME)[::_HOP]
    spectrum = np.fft.rfft((frames - frames.mean(axis=1, keepdims=True)) * np.hanning(_FRAME))
    return np.asarray(np.abs(spectrum) ** 2, np.float64), np.fft.rfftfreq(_FRAME, 1 / RATE_HZ)


def _smooth(energy: Values) -> Values:
    return np.convolve(energy, np.ones(5) / 5, "same")


def _seconds(where: NDArray[np.bool_]) -> float:
    return float(where.sum()) * _HOP / RATE_HZ


def _steepest_rise_db(level: Values) -> float:
    """The largest step of the median level, from 45 ms to the 40 ms that begin 15 ms later."""
    if len(level) < 21:
        return 0.0
    windows = np.lib.stride_tricks.sliding_window_view
    before = np.median(windows(level, 9), axis=1)
    after = np.median(windows(level, 8), axis=1)
    return float((after[12 : len(level) - 8] - before[: len(level) - 20]).max(initial=0.0))


def _attack_db(level: Values, loudest: int) -> float:
    # Right at the start, nothing is known of what was before.
    if loudest < 15:
        return 0.0
    return float(level[loudest] - np.median(level[max(0, loudest - 40) : loudest - 12]))


def _burst_share(energy: Values) -> float:
    width = min(80, len(energy))
    sums = np.convolve(energy, np.ones(width), "valid")
    return float(sums.max() / (energy.sum() + 1e-20))


def _spikiness(sound: Floats, loudest: int) -> float:
    part = sound[max(0, loudest - 200) : loudest + 600].astype(np.float64)
    centred = part - part.mean()
    variance = float(np.mean(centred**2))
    return float(np.log(np.mean(centred**4) / (variance**2 + 1e-20) + 1e-3))


def _spectrum_features(power: Values, hertz: NDArray[np.floating]) -> dict[str, float]:
    whole = power[hertz >= 60].sum() + 1e-20

    def level(low: float, high: float) -> float:
        inside = power[(hertz >= low) & (hertz < high)].sum()
        return 10 * float(np.log10(inside / whole + 1e-4))

    band = power[(hertz >= 100) & (hertz <= 1900)] + 1e-20
    return {
        "level_1000_to_2000_hz": level(1000, 1990),
        "level_400_to_1000_hz": level(400, 1000),
        "level_60_to_200_hz": level(60, 200),
        "flatness_db": 10 * float(np.log10(band).mean() - np.log10(band.mean())),
    }
