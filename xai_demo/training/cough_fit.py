"""Fits the logistic model of `audio.cough` and measures it; the command is `refit cough`.

The literals were fitted on sneezes of ESC-10 (folds 1 to 4; no recorded coughs were at hand) and
synthesised coughs, as they are and through a low-pass filter, against annotated events and
stretches of 0.8 to 2.5 s of three published collections of lung sounds, the same with synthesised
crackles, the same with a spectrum as even as that of a microphone in the air, and synthesised
breathing. In five folds, in which neither the patient nor the source of the clip was fitted on: no
alarm in 7,065 of 7,077 stretches of SPRSound, 223 of 223 of ICBHI 2017, 1,139 of 1,140 of Fraiwan,
2,064 of 2,084 equalised ones, 1,964 of 2,193 with synthesised crackles of up to 30 dB and 378 of
400 of synthesised breathing; detected 389 of 400 synthesised coughs (low-passed 358) and 91 of 96
cuts of sneezes (76), and as many of these (75) when fitted on synthesised coughs alone. Of eight
events of stridor, three were called coughs. Not tested: recorded coughs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from xai_demo import audio
from xai_demo.audio import cough
from xai_demo.audio.cough import RATE_HZ
from xai_demo.errors import TrainingError, UnreadableFileError
from xai_demo.synthesis import lung
from xai_demo.training.datasets import assign_folds, breathing
from xai_demo.training.gate_eval import VerdictTally, rate_cells
from xai_demo.training.refit import coefficient_differences, fit_notes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xai_demo.records import Floats, Progress

    Values = NDArray[np.float64]

_SYNTHESISED = 400
_EVENTS_PER_TAKE = 4
_CUTS_PER_COUGH = 3
_FOLDS = 5
_STRENGTH = 0.1  # the inverse of the penalty
# The kinds of breath and their shares in the fit; all kinds of coughs have the same.
_BREATH_SHARES = {
    "sprsound": 0.2,
    "icbhi": 0.3,
    "fraiwan": 0.3,
    "folders": 0.2,
    "lung sounds with synthesised crackles": 0.15,
    "lung sounds, equalised": 0.1,
    "synthesised breathing": 0.1,
}
_RECORDED = ("recorded bursts", "recorded bursts, low-passed")


@dataclass(frozen=True, slots=True, kw_only=True)
class CoughFit:
    """The literals of `cough`."""

    intercept: float
    weights: tuple[float, ...]

    def log_odds(self, statistics: Values) -> Values:
        """Log-odds of a cough: (sounds, features) -> (sounds,)."""
        return np.asarray(self.intercept + statistics @ np.array(self.weights))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sounds:
    """The statistics of all sounds, (sounds, features), and of what and of whom they are."""

    statistics: Values
    kinds: NDArray[np.str_]
    groups: tuple[str, ...]


def fit_cough(statistics: Values, kinds: NDArray[np.str_]) -> CoughFit:
    """Logistic regression on `cough.features`: (sounds, features), and a kind for each.

    Raises TrainingError without breaths or without coughs.
    """
    from sklearn.linear_model import LogisticRegression

    is_breath = np.isin(kinds, list(_BREATH_SHARES))
    if is_breath.all() or not is_breath.any():
        raise TrainingError(
            f"The sounds are of the kinds {', '.join(sorted(set(kinds.tolist())))}; a fit needs"
            " breaths and coughs."
        )
    weights = np.where(is_breath, 0.0, 1 / (~is_breath).sum())
    for kind, share in _BREATH_SHARES.items():
        weights[kinds == kind] = share / max(1, (kinds == kind).sum())
    mean, deviation = statistics.mean(axis=0), statistics.std(axis=0) + 1e-9
    model = LogisticRegression(C=_STRENGTH, max_iter=3000)
    model.fit((statistics - mean) / deviation, ~is_breath, sample_weight=weights * len(kinds))
    # The check takes raw features, so the scaling goes into the literals.
    slopes = model.coef_[0] / deviation
    return CoughFit(
        intercept=float(f"{model.intercept_[0] - slopes @ mean:.5g}"),
        weights=tuple(float(f"{slope:.4g}") for slope in slopes),
    )


def refit_cough(
    recordings: Path,
    *,
    coughs: Path | None = None,
    most: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Fit the check to breathing and coughs, and compare the fit with the literals.

    `recordings` are lung sounds in published layouts, `coughs` a folder of sounds; `most` limits
    the files of both. Raises TrainingError where a folder is missing.
    """
    report = progress or (lambda done, doing: None)
    unread: list[str] = []
    rows: list[tuple[str, str, Values]] = []
    for kind, group, sound in _all_sounds(recordings, coughs, most, unread):
        if np.ptp(sound) > 2.0**-12:
            rows.append((kind, group, cough.features(sound)))
        if len(rows) % 500 == 0:
            report(min(0.8, len(rows) / 20_000), f"{len(rows)} sounds")
    kinds = np.array([kind for kind, _, _ in rows])
    statistics = np.stack([values for _, _, values in rows])
    sounds = _Sounds(
        statistics=statistics, kinds=kinds, groups=tuple(group for _, group, _ in rows)
    )
    report(0.8, "fitting")
    fitted = fit_cough(statistics, kinds)
    shipped = CoughFit(intercept=cough.INTERCEPT, weights=cough.WEIGHTS)
    held_out, unseen = _held_out_log_odds(sounds)
    is_recorded = np.isin(kinds, _RECORDED)
    without = [
        f"Fitted without recorded bursts: {name}: {rate_cells(rate)}."
        for name, rate in _rates(unseen[is_recorded], kinds[is_recorded]).items()
    ]
    return {
        "check": "cough",
        "n": {str(kind): int((kinds == kind).sum()) for kind in sorted(set(kinds.tolist()))},
        "intercept": fitted.intercept,
        "weights": list(fitted.weights),
        "difference": coefficient_differences(
            np.array([fitted.intercept, *fitted.weights]),
            np.array([shipped.intercept, *shipped.weights]),
            fitted.log_odds(statistics),
            shipped.log_odds(statistics),
        ),
        "refitted": _rates(held_out, kinds),
        "shipped": _rates(shipped.log_odds(statistics), kinds),
        "notes": [*without, *fit_notes(unread)],
    }


def _held_out_log_odds(sounds: _Sounds) -> tuple[Values, Values]:
    """Log-odds by the fits of the other folds: on all kinds, and without recorded bursts."""
    is_breath = np.isin(sounds.kinds, list(_BREATH_SHARES))
    fold_of = assign_folds(sounds.groups, is_breath.astype(np.int64), _FOLDS, seed="refit")
    log_odds = np.zeros((2, len(sounds.kinds)))
    for fold in range(_FOLDS):
        inside = fold_of == fold
        for row, others in enumerate((~inside, ~inside & ~np.isin(sounds.kinds, _RECORDED))):
            fit = fit_cough(sounds.statistics[others], sounds.kinds[others])
            log_odds[row, inside] = fit.log_odds(sounds.statistics[inside])
    return log_odds[0], log_odds[1]


def _rates(log_odds: Values, kinds: NDArray[np.str_]) -> dict[str, Any]:
    """Rates of correct verdicts: no alarm for breath, an alarm for coughs."""
    tallies: dict[str, VerdictTally] = {}
    for odds, kind in zip(log_odds, kinds.tolist(), strict=True):
        is_alarm = bool(1 / (1 + np.exp(-odds)) >= cough.MIN_PROBABILITY)
        if kind in _BREATH_SHARES:
            tallies.setdefault(f"{kind} accepted", VerdictTally()).count(not is_alarm)
        else:
            tallies.setdefault(f"{kind} detected", VerdictTally()).count(is_alarm)
    return {name: tally.to_json() for name, tally in tallies.items()}


def _all_sounds(
    recordings: Path, coughs: Path | None, most: int | None, unread: list[str]
) -> Iterator[tuple[str, str, Floats]]:
    """Kind, patient or source, and samples of every sound at the check's rate."""
    rng = np.random.default_rng(0)
    takes = [
        take
        for take in breathing.read(recordings).takes
        # Of a manikin, no breath is real.
        if take.quality != "poor" and take.site != "manikin"
    ]
    for i in rng.permutation(len(takes))[:most]:
        samples = _read(takes[i].path, unread)
        for sound in _stretches(samples, takes[i], rng):
            yield takes[i].site, takes[i].patient, sound
            chance = rng.random()
            if chance < 0.25:
                yield "lung sounds, equalised", takes[i].patient, _equalise(sound, rng)
            elif chance < 0.5:
                crackling = _with_crackles(sound, rng)
                yield "lung sounds with synthesised crackles", takes[i].patient, crackling
    for number in range(_SYNTHESISED):
        yield "synthesised breathing", f"breath {number}", synthetic_breath(rng)
        sound = synthetic_cough(rng)
        yield "synthesised coughs", f"cough {number}", sound
        yield "synthesised coughs, low-passed", f"cough {number}", _low_pass(sound, rng)
    if coughs is None:
        return
    paths = breathing.visible_files(coughs.rglob("*"), breathing.FOLDER_SUFFIXES)
    for i in rng.permutation(len(paths))[:most]:
        # ESC-10 names several clips of one source alike: <fold>-<clip>-<take>.
        source = paths[i].stem.rpartition("-")[0] or paths[i].stem
        for sound in _cuts(_read(paths[i], unread), rng):
            yield _RECORDED[0], source, sound
            yield _RECORDED[1], source, _low_pass(sound, rng)


def _read(path: Path, unread: list[str]) -> Floats:
    try:
        return audio.read_audio(path, sample_rate_hz=RATE_HZ, max_duration_s=600).samples
    except UnreadableFileError:
        unread.append(path.name)
        return np.zeros(0, np.float32)


def _stretches(samples: Floats, take: breathing.Take, rng: np.random.Generator) -> Iterator[Floats]:
    """Annotated events of a length that the check looks at, and stretches from anywhere."""
    shortest, longest = cough.DURATION_RANGE_S
    spans = [(a.start_s, a.end_s) for a in take.annotations]
    spans = [spans[i] for i in rng.permutation(len(spans))[:_EVENTS_PER_TAKE]]
    for _ in range(1 if spans else _EVENTS_PER_TAKE):
        length_s = rng.uniform(0.8, 2.5)
        first_s = rng.uniform(0, max(0.01, len(samples) / RATE_HZ - length_s))
        spans.append((first_s, first_s + length_s))
    for start_s, end_s in spans:
        sound = samples[round(start_s * RATE_HZ) : round(end_s * RATE_HZ)]
        if shortest <= len(sound) / RATE_HZ <= longest:
            yield sound


def _cuts(samples: Floats, rng: np.random.Generator) -> Iterator[Floats]:
    """Short recordings around the loudest moment."""
    if not len(samples):
        return
    loudest = int(np.abs(samples).argmax())
    for _ in range(_CUTS_PER_COUGH):
        length = round(rng.uniform(0.8, 2.2) * RATE_HZ)
        start = loudest - round(rng.uniform(0.05, 0.6) * min(RATE_HZ, length))
        start = min(max(0, start), max(0, len(samples) - length))
        yield samples[start : start + length]


def _equalise(sound: Floats, rng: np.random.Generator) -> Floats:
    """The sound with an even spectrum, or one that falls a little."""
    spectrum = np.fft.rfft(sound)
    power = np.convolve(np.abs(spectrum), np.ones(61) / 61, "same")
    gain = 1 / (power + power.max() * 1e-5) ** rng.uniform(0.6, 1)
    return _scale(np.fft.irfft(spectrum * gain * _tilt(len(sound), rng), len(sound)))


def _with_crackles(sound: Floats, rng: np.random.Generator) -> Floats:
    """The sound with a burst or two of crackles up to 20 dB above it."""
    mixed, count = sound.astype(np.float64), len(sound)
    level = np.sqrt(np.mean(mixed**2)) * 10 ** (rng.uniform(6, 30) / 20)
    for _ in range(rng.integers(1, 3)):
        length = min(count, round(rng.uniform(0.15, 1) * RATE_HZ))
        first = rng.integers(0, count - length + 1)
        kind: Literal["fine", "coarse"] = "fine" if rng.random() < 0.6 else "coarse"
        number = max(2, round(rng.uniform(8, 60) * length / RATE_HZ))
        for start in first + rng.integers(0, length, number):
            wave = lung.crackle(kind, frequency_hz=rng.uniform(150, 1200))
            # Every second sample: crackles have nothing beyond 2 kHz.
            wave = wave[:: lung.SAMPLE_RATE_HZ // RATE_HZ][: count - start]
            peak = np.abs(wave).max(initial=1e-9)
            mixed[start : start + len(wave)] += level * rng.uniform(0.3, 1) * wave / peak
    return _scale(mixed)


def _tilt(count: int, rng: np.random.Generator) -> Values:
    hertz = np.fft.rfftfreq(count, 1 / RATE_HZ)
    return np.asarray((1 + hertz / rng.uniform(150, 1500)) ** -rng.uniform(0, 2))


def _low_pass(sound: Floats, rng: np.random.Generator) -> Floats:
    from scipy.signal import butter, sosfilt

    filtered = sosfilt(butter(2, rng.uniform(700, 1900), fs=RATE_HZ, output="sos"), sound)
    noise = 10 ** (-rng.uniform(30, 60) / 20) * np.abs(filtered).max()
    return _scale(filtered + noise * rng.standard_normal(len(sound)))


def synthetic_breath(rng: np.random.Generator) -> Floats:
    """Breathing through a microphone in the air, with crackles or a wheeze in some: (time,)."""
    count = round(rng.uniform(0.8, 2.5) * RATE_HZ)
    time_s = np.arange(count) / RATE_HZ
    phase = time_s / rng.uniform(0.8, 2.5) + rng.uniform(0, 1)
    envelope = np.abs(np.sin(np.pi * phase)) ** rng.uniform(0.7, 2)
    envelope *= np.where(np.floor(phase) % 2 == 0, 1, rng.uniform(0.2, 1))
    envelope += 10 ** (-rng.uniform(12, 45) / 20)
    noise = np.fft.rfft(rng.standard_normal(count)) * _tilt(count, rng)
    sound = np.fft.irfft(noise, count) * envelope
    peak, kind = np.abs(sound).max(), rng.random()
    if kind < 0.3:
        for start in rng.integers(0, count - 100, rng.integers(2, 20)):
            at_s = np.arange(100) / RATE_HZ
            click = np.sin(2 * np.pi * rng.uniform(150, 900) * at_s) * np.exp(-at_s / 0.005)
            sound[start : start + 100] += peak * rng.uniform(0.3, 2) * click
    elif kind < 0.6:
        tone = np.sin(2 * np.pi * rng.uniform(150, 900) * time_s)
        sound += peak * rng.uniform(0.1, 1) * tone * envelope
    return _scale(sound)


def synthetic_cough(rng: np.random.Generator) -> Floats:
    """One cough or two in a short recording: a burst of noise that fades, voiced in half, (time,).

    The phases are those of Korpas, Sadlonova & Vrabec 1996, Pulmonary Pharmacology 9, 261-268.
    """
    count = round(rng.uniform(0.8, 2.2) * RATE_HZ)
    sound = np.zeros(count)
    first_s = rng.uniform(0.02, count / RATE_HZ - 0.6)
    for number in range(1 if rng.random() < 0.75 else 2):
        start = round((first_s + number * rng.uniform(0.35, 0.6)) * RATE_HZ)
        length = min(round(rng.uniform(0.15, 0.5) * RATE_HZ), count - start)
        if length >= 200:
            sound[start : start + length] += rng.uniform(0.6, 1) * _cough_wave(length, rng)
    room = np.convolve(rng.standard_normal(count), np.ones(int(rng.integers(1, 8))), "same")
    peak = np.abs(sound).max()
    return _scale(sound + peak * 10 ** (-rng.uniform(25, 60) / 20) * room)


def _cough_wave(length: int, rng: np.random.Generator) -> Values:
    time_s, hertz = np.arange(length) / RATE_HZ, np.fft.rfftfreq(length, 1 / RATE_HZ)
    explosion = np.exp(-time_s / rng.uniform(0.03, 0.08))
    flow = rng.uniform(0.1, 0.5) * np.exp(-time_s / rng.uniform(0.1, 0.3))
    envelope = np.minimum(time_s / rng.uniform(0.003, 0.02), 1) * (explosion + flow)
    gain = np.full(len(hertz), 0.15)
    for low, high, narrow, wide in (
        (300, 700, 100, 300),
        (700, 1500, 150, 400),
        (1300, 1950, 200, 500),
    ):
        distance = (hertz - rng.uniform(low, high)) / rng.uniform(narrow, wide)
        gain += rng.uniform(0.3, 1.2) / (1 + distance**2)
    wave = np.fft.irfft(np.fft.rfft(rng.standard_normal(length)) * gain, length) * envelope
    voice = round(rng.uniform(0.1, 0.25) * RATE_HZ)
    if rng.random() < 0.5 and voice < length - 100:
        rest_s = np.arange(length - voice) / RATE_HZ
        pitch = 2 * np.pi * rng.uniform(180, 450) * rest_s * (1 - 0.2 * rest_s)
        tone = sum(np.sin(k * pitch) / k for k in range(1, 5))
        fade = np.hanning(2 * len(rest_s))[len(rest_s) :]
        wave[voice:] += rng.uniform(0.05, 0.4) * np.abs(wave).max() * tone * fade
    return np.asarray(wave / (np.abs(wave).max() + 1e-9))


def _scale(sound: Values) -> Floats:
    return np.asarray(0.5 * sound / (np.abs(sound).max() + 1e-9), np.float32)
