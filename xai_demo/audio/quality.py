"""Quality check of a recording: silence, clipping, coughs, speech, music, everyday noise. Pure.

Speech, music and noise are distinguished from breath by a multinomial logistic regression on a few
statistics of the sound below 2 kHz, which is all that a stethoscope passes on.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from xai_demo.audio import cough

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xai_demo.records import Floats

    Values = NDArray[np.float64]

Kind = Literal["silence", "clipping", "cough", "speech", "music", "noise", "too short"]
KINDS: tuple[Kind, ...] = ("silence", "clipping", "cough", "speech", "music", "noise", "too short")

NON_BREATH_KINDS: tuple[Kind, ...] = ("speech", "music", "noise")
MIN_DURATION_S = 0.5  # shorter than any breath
FEATURE_RATE_HZ = 4000  # the statistics are computed at this sample rate
WINDOW_S = 4.0
FEATURES = (
    *(
        f"level_{high}_hz" for high in (150, 300, 600, 1000, 1400, 1900)
    ),  # dB relative to all of them
    # Height of the cepstrum's peak at 80 to 400 Hz, in standard deviations of the cepstrum.
    "pitch_median",
    "pitch_high",
    "pitch_steady",  # share of frames in which that peak moves by less than a tenth of an octave
    "tones",  # spectral lines per frame
    # Lines that last for 0.2 s: a wheeze has few of them, music has many.
    "held_tones",
    "held_tones_high",
    "chords",  # share of frames with three or more held lines at once
    "held_top_hz",
    "held_share",  # of the energy
    "syllables",  # share of the envelope's modulation at 2.5 to 8 Hz
    "beats",  # the same above 8 Hz
    "envelope_range_db",
    "envelope_spread_db",
    "flux_db",
    "onsets",  # the strongest rises in level, in decibels per frame
    "flatness_db",
    "frame_flatness_db",
)

# A window is reported only if something other than breath is at least this probable.
MIN_NON_BREATH_PROBABILITY = 0.6
# Fitted by `training.input_checks.fit_quality`; log-odds relative to breath, in the order speech,
# music, noise.
INTERCEPTS = (-11.5823, 0.1474, -5.1002)
COEFFICIENTS: dict[str, tuple[float, ...]] = {
    "level_150_hz": (-0.2323, -0.173, -0.1735),
    "level_300_hz": (0.154, 0.0697, 0.0174),
    "level_600_hz": (0.1643, 0.0501, 0.0335),
    "level_1000_hz": (0.0659, 0.0218, -0.0076),
    "level_1400_hz": (0.0289, 0.0411, -0.0078),
    "level_1900_hz": (0.1353, 0.1168, 0.1491),
    "pitch_median": (-0.2248, -0.7193, -0.2374),
    "pitch_high": (1.3183, -0.1905, 0.8437),
    "pitch_steady": (-1.3347, -3.4111, -0.0507),
    "tones": (0.6129, 0.2345, 0.5711),
    "held_tones": (-0.068, 0.4017, 0.1653),
    "held_tones_high": (0.1082, 0.235, 0.0329),
    "chords": (2.6065, 4.2773, 1.4564),
    "held_top_hz": (-0.0935, 1.5006, 0.4996),
    "held_share": (2.1332, 6.9162, 2.1008),
    "syllables": (12.1169, 6.9788, 4.8726),
    "beats": (-10.9779, -6.3758, 22.361),
    "envelope_range_db": (-0.0363, -0.0203, 0.0294),
    "envelope_spread_db": (0.1628, -0.0895, -0.04),
    "flux_db": (0.699, 0.0472, 0.2461),
    "onsets": (-0.1658, 0.1968, 0.0146),
    "flatness_db": (0.125, 0.0127, 0.0098),
    "frame_flatness_db": (-0.0642, 0.0235, 0.2192),
}

# Smaller shares of a recording are not worth mentioning.
_MIN_SILENT_SHARE, _MIN_CLIPPED_SHARE, _MIN_NON_BREATH_SHARE = 0.05, 5e-4, 0.1
_SILENT_BLOCK_S, _SILENT_RUN_S = 0.1, 0.5
# Four steps of 16 bits from peak to peak: the noise of an analogue-to-digital converter.
_SILENT_RANGE = 2.0**-13
# The crest of a quiet, slow wave is flat as well after quantisation, but has no cliff beside it.
_MIN_FLAT_SAMPLES, _MIN_CLIFF, _MIN_CLIFF_STEPS = 3, 0.01, 4
# Below this rate, much of the band up to 1.9 kHz that the statistics describe would be empty.
_MIN_RATE_HZ = 3500
_MAX_WINDOWS = 120
_NO_BREATH = "The models know breath sounds only, so their answer to other sounds is meaningless."
_COUGH = "There seems to be a cough, or another short burst of sound, and no breathing."
_SENTENCE_STARTS: dict[Kind, str] = {
    "speech": "There seems to be speech",
    "music": "There seems to be music",
    "noise": "There seems to be a sound other than breathing",
}

_N_FFT, _HOP = 512, 128
_BIN_HZ = FEATURE_RATE_HZ / _N_FFT
_FRAME_RATE_HZ = FEATURE_RATE_HZ / _HOP
_EDGES_HZ = (60, 150, 300, 600, 1000, 1400, 1900)
_HELD_FRAMES = 6
_TONE_DB = 9.0  # a spectral line rises by this much above its neighbourhood
_FLOOR_DB = 70.0  # below the maximum


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A quality problem: a sound other than breath, or a fault that masks the breath."""

    kind: Kind
    share: float  # of the recording, 0..1
    sentence: str


def check_quality(
    samples: Floats, sample_rate_hz: int, *, clipped: float | None = None
) -> tuple[Finding, ...]:
    """The quality problems of a recording, (time,), that the user should know before the answer.

    `clipped` is the share of clipped samples at the file's own sample rate; None: measure it here.
    Resampling rounds off flat tops, so clipping can only be measured reliably before.
    """
    duration_s = len(samples) / sample_rate_hz
    findings = []
    if duration_s < MIN_DURATION_S:
        sentence = (
            f"The recording lasts {duration_s:.2g} s; at least {MIN_DURATION_S:g} s is needed,"
            " preferably a whole breath."
        )
        findings.append(Finding(kind="too short", share=1.0, sentence=sentence))
    silent = silent_share(samples, sample_rate_hz)
    if silent >= _MIN_SILENT_SHARE:
        sentence = f"{_percent(silent)} of the recording is silent: nothing can be heard there."
        findings.append(Finding(kind="silence", share=silent, sentence=sentence))
    clipped = clipped_share(samples) if clipped is None else clipped
    if clipped >= _MIN_CLIPPED_SHARE:
        sentence = (
            f"The recording is clipped: {_percent(clipped)} of its samples lie on flat tops."
            f" Distortion can sound like crackles; record at a lower level."
        )
        findings.append(Finding(kind="clipping", share=clipped, sentence=sentence))
    if cough.cough_probability(samples, sample_rate_hz) >= cough.MIN_PROBABILITY:
        findings.append(Finding(kind="cough", share=1.0, sentence=f"{_COUGH} {_NO_BREATH}"))
        # Whatever else a cough resembles would only say the same again.
        return tuple(findings)
    for kind, share in non_breath_shares(samples, sample_rate_hz).items():
        if share >= _MIN_NON_BREATH_SHARE:
            sentence = (
                f"{_SENTENCE_STARTS[kind]} {_extent_phrase(share)} the recording. {_NO_BREATH}"
            )
            findings.append(Finding(kind=kind, share=share, sentence=sentence))
    return tuple(findings)


def silent_share(samples: Floats, sample_rate_hz: int) -> float:
    """The share of a recording, (time,), that is silent for half a second or more at a time."""
    block = max(1, round(_SILENT_BLOCK_S * sample_rate_hz))
    count = len(samples) // block
    if not count:
        return float(len(samples) > 0 and np.ptp(samples) <= _SILENT_RANGE)
    blocks = samples[: count * block].reshape(count, block)
    quiet = np.ptp(blocks, axis=1) <= _SILENT_RANGE
    least = min(round(_SILENT_RUN_S / _SILENT_BLOCK_S), count)
    lengths = np.array([end - start for start, end in _true_runs(quiet) if end - start >= least])
    return float(lengths.sum()) / count


def clipped_share(samples: Floats) -> float:
    """The share of samples, (time,), on flat tops.

    A flat top is three or more equal samples in a row at the recording's highest or lowest value,
    whatever that value is, with a cliff beside them.

    >>> clipped_share(np.array([0, 0.5, 0.5, 0.5, 0, -0.2, 0, 0], np.float32))
    0.375
    """
    if len(samples) < 4:
        return 0.0
    clipped = 0
    for sound in (samples, -samples):
        top = float(sound.max())
        cliff = max(_MIN_CLIFF * abs(top), _MIN_CLIFF_STEPS * 2.0**-15)
        for start, end in _true_runs(sound >= top - 1e-6 * abs(top)):
            neighbours = [float(sound[i]) for i in (start - 1, end) if 0 <= i < len(sound)]
            if end - start >= _MIN_FLAT_SAMPLES and neighbours and top - min(neighbours) >= cliff:
                clipped += end - start
    return clipped / len(samples)


def non_breath_shares(samples: Floats, sample_rate_hz: int) -> dict[Kind, float]:
    """The approximate shares of a recording, (time,), that are speech, music or other noise.

    At most 120 windows of 4 s are examined. All shares are zero for less than a second of sound or
    a sample rate below 3.5 kHz.
    """
    import soxr

    shares: dict[Kind, float] = dict.fromkeys(NON_BREATH_KINDS, 0.0)
    if len(samples) < sample_rate_hz or sample_rate_hz < _MIN_RATE_HZ:
        return shares
    length = min(round(WINDOW_S * sample_rate_hz), len(samples))
    count = min(-(-len(samples) // length), _MAX_WINDOWS)
    for start in np.linspace(0, len(samples) - length, count).astype(int):
        window = samples[start : start + length]
        if silent_share(window, sample_rate_hz) > 0.5:
            continue
        window = soxr.resample(window, sample_rate_hz, FEATURE_RATE_HZ, quality="HQ")
        # A recording shorter than a window is repeated up to its length.
        chances = probabilities(features(np.resize(window, round(WINDOW_S * FEATURE_RATE_HZ))))
        if 1 - chances["breath"] >= MIN_NON_BREATH_PROBABILITY:
            likeliest = max(NON_BREATH_KINDS, key=lambda kind: chances[kind])
            shares[likeliest] += 1 / count
    return shares


def probabilities(values: Values) -> dict[str, float]:
    """Probabilities of breath, speech, music and noise for a window's features, (features,)."""
    weights = np.array([COEFFICIENTS[name] for name in FEATURES])
    logits = np.concatenate([[0.0], np.array(INTERCEPTS) + values @ weights])
    chances = np.exp(logits - logits.max())
    chances = chances / chances.sum()
    return dict(zip(("breath", *NON_BREATH_KINDS), chances.tolist(), strict=True))


def features(window: Floats) -> Values:
    """The statistics named in `FEATURES` for one window at 4 kHz: (time,) -> (features,)."""
    power = _power_spectrogram(window)
    decibels = 10 * np.log10(power + max(power.max() * 10 ** (-_FLOOR_DB / 10), 1e-16))
    band = slice(round(100 / _BIN_HZ), round(1900 / _BIN_HZ))
    loud = decibels[band].max(axis=0)
    # Pitch and evenness are measured in the louder 60 % of the frames, and not in pauses.
    active = loud >= np.percentile(loud, 40)
    return np.array(
        [
            *_band_levels_db(power),
            *_pitch_features(decibels[band], active),
            *_tone_features(decibels, power),
            *_rhythm_features(power),
            *_flux_and_flatness(decibels[band], power[band], active),
        ]
    )


def _true_runs(where: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(start, end) of every run of True, with the end excluded."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], where, [False]]).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _extent_phrase(share: float) -> str:
    return f"in about {_percent(share)} of" if share < 0.995 else "throughout"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.995 else "All"


def _power_spectrogram(window: Floats) -> Values:
    """(time,) -> (frequency, frames): Hann windows of 128 ms every 32 ms."""
    padded = np.pad(np.asarray(window, np.float64), (0, max(0, _N_FFT - len(window))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _N_FFT)[::_HOP]
    spectrum = np.fft.rfft((frames - frames.mean()) * np.hanning(_N_FFT), axis=1)
    return np.asarray((np.abs(spectrum) ** 2).T)


def _band_levels_db(power: Values) -> Iterator[float]:
    rows = [round(edge / _BIN_HZ) for edge in _EDGES_HZ]
    whole = power[rows[0] : rows[-1]].sum() + 1e-20
    for low, high in itertools.pairwise(rows):
        yield max(10 * math.log10(power[low:high].sum() / whole + 1e-6), -50.0)


def _pitch_features(decibels: Values, active: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Strength (median, 90th percentile) and steadiness of the pitch, by the cepstrum."""
    smooth = decibels - decibels.mean(axis=0)
    ladder = np.abs(np.fft.rfft(smooth * np.hanning(len(smooth))[:, None], n=1024, axis=0))
    seconds = np.arange(len(ladder)) / (1024 * _BIN_HZ)
    at = (seconds >= 1 / 400) & (seconds <= 1 / 80)
    heights, where = ladder[at].max(axis=0), ladder[at].argmax(axis=0)
    strength = heights / (ladder[seconds > 1 / 800].std(axis=0) + 1e-9)
    octaves = np.log2(seconds[at])[where]
    steady = np.abs(np.diff(octaves)) < 0.1
    both = active[1:] & active[:-1]
    share = float(steady[both].mean()) if both.any() else 0.0
    return float(np.median(strength[active])), float(np.percentile(strength, 90)), share


def _tone_features(decibels: Values, power: Values) -> tuple[float, ...]:
    """Statistics of spectral lines and of those that are held for 0.2 s."""
    from scipy.ndimage import binary_opening, uniform_filter1d

    rows = slice(round(100 / _BIN_HZ), round(1950 / _BIN_HZ))
    floor = uniform_filter1d(decibels[rows], 21, axis=0, mode="nearest")
    quiet = decibels[rows].max() - 45
    line = (decibels[rows] > floor + _TONE_DB) & (decibels[rows] > quiet)
    peak = np.zeros_like(line)
    inner = decibels[rows]
    peak[1:-1] = line[1:-1] & (inner[1:-1] >= inner[:-2]) & (inner[1:-1] > inner[2:])
    held = binary_opening(line, structure=np.ones((1, _HELD_FRAMES), bool))
    held_peak = peak & held
    count = held_peak.sum(axis=0)
    per_row = held_peak.sum(axis=1)
    tops = np.flatnonzero(per_row >= _HELD_FRAMES)
    top_hz = float((tops[-1] + rows.start) * _BIN_HZ) if len(tops) else 0.0
    share = float((power[rows] * held).sum() / (power[rows].sum() + 1e-20))
    return (
        float(peak.sum(axis=0).mean()),
        float(count.mean()),
        float(np.percentile(count, 90)),
        float((count >= 3).mean()),
        top_hz / 1000,
        share,
    )


def _rhythm_features(power: Values) -> tuple[float, ...]:
    envelope = np.sqrt(power[round(300 / _BIN_HZ) : round(1900 / _BIN_HZ)].sum(axis=0))
    level = 20 * np.log10(envelope + max(envelope.max() * 1e-3, 1e-10))
    spectrum = np.abs(np.fft.rfft((envelope - envelope.mean()) * np.hanning(len(envelope)))) ** 2
    hertz = np.fft.rfftfreq(len(envelope), 1 / _FRAME_RATE_HZ)
    whole = spectrum[hertz > 0.2].sum() + 1e-20
    syllables = spectrum[(hertz >= 2.5) & (hertz <= 8)].sum() / whole
    beats = spectrum[hertz > 8].sum() / whole
    low, high = np.percentile(level, (10, 95))
    return float(syllables), float(beats), float(high - low), float(level.std())


def _flux_and_flatness(
    decibels: Values, power: Values, active: NDArray[np.bool_]
) -> tuple[float, ...]:
    steps = np.diff(decibels, axis=1)
    both = active[1:] | active[:-1]
    flux = float(np.abs(steps[:, both]).mean()) if both.any() else 0.0
    onsets = float(np.percentile(np.maximum(steps, 0).mean(axis=0), 95)) if steps.size else 0.0
    mean = power.mean(axis=1) + 1e-20
    flatness = 10 * float(np.log10(mean).mean() - math.log10(mean.mean()))
    frames = decibels[:, active]
    linear = 10 * np.log10(np.mean(10 ** (frames / 10), axis=0))
    return flux, onsets, flatness, float((frames.mean(axis=0) - linear).mean())
