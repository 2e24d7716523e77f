"""Crackles and wheezes of every kind, other stethoscopes, and noise: what training varies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from xai_demo.audio import spectrogram
from xai_demo.synthesis import lung as synthesis
from xai_demo.training.augmentation import band_shifted, spectrogram_masked
from xai_demo.training.lung_windows import Change, stage_gain_db

if TYPE_CHECKING:
    from xai_demo.records import Floats, LogMel
    from xai_demo.training.lung_windows import Heard

Kind = Literal["crackle", "wheeze"]
_RATE_HZ = synthesis.SAMPLE_RATE_HZ
_LONGEST_CRACKLE_S = 0.025
_EDGE = 3  # frames of silence around an event


def bank(count: int, seed: int, spec: LogMel) -> dict[Kind, list[Floats]]:
    """So many crackle bursts and wheezes as mel power, (mel, frames) each, more varied than life.

    Ranges: Gavriely et al. 1984 for wheezes, Hoevers & Loudon 1990 and Park et al. 2023 for
    crackles, both widened.
    """
    rng = np.random.default_rng(seed)
    made: dict[Kind, list[Floats]] = {"crackle": [], "wheeze": []}
    for _ in range(count):
        made["crackle"].append(_power(_crackles(rng), spec))
        made["wheeze"].append(_power(_wheeze(rng), spec))
    return made


def change(rng: np.random.Generator, one: Heard, frames: int, spec: LogMel, stage: int) -> Change:
    """Another stethoscope four times in five, noise two times in five."""
    gain = _stethoscope(rng, spec) if rng.random() < 0.8 else None
    noise = _noise(rng, one, frames, spec, stage) if rng.random() < 0.4 else None
    return Change(stage=stage, gain_db=gain, noise=noise)


def varied(window: Floats, times: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Pitch, pace, a little noise and SpecAugment; `times`, (2, frames), goes along."""
    frames = window.shape[1]
    window = band_shifted(window, rng, most=2)
    if rng.random() < 0.5:
        centre = frames / 2
        at = centre + (np.arange(frames) - centre) * rng.uniform(0.88, 1.12)
        columns = np.clip(np.round(at), 0, frames - 1).astype(int)
        window, times = window[:, columns], times[:, columns]
    window = window + rng.normal(0, 0.1, window.shape).astype(np.float32)
    return spectrogram_masked(window, rng, rows=8, columns=20, fill=0.0), times


def _power(wave: np.ndarray, spec: LogMel) -> Floats:
    wave = np.pad(wave / np.abs(wave).max(), 5 * spec.hop_length).astype(np.float32)
    power = 10 ** (spectrogram.log_mel(wave, spec) / 10)
    inner: Floats = power[:, _EDGE:-_EDGE].astype(np.float32)
    return inner


def _wheeze(rng: np.random.Generator) -> np.ndarray:
    duration_s = float(np.exp(rng.uniform(np.log(0.08), np.log(1.8))))
    pitch_hz = float(np.exp(rng.uniform(np.log(100), np.log(800))))
    tone = np.zeros(round(duration_s * _RATE_HZ))
    for voice in range(int(rng.integers(1, 3))):
        event = synthesis.Wheeze(
            start_s=0,
            duration_s=duration_s,
            frequency_hz=pitch_hz * (1 if voice == 0 else rng.uniform(1.1, 1.9)),
            harmonics=int(rng.integers(1, 5)),
            modulation=float(rng.uniform(0, 0.15)),
        )
        tone += synthesis.wheeze(rng, event)[0] * rng.uniform(0.3, 1)
    return tone


def _crackles(rng: np.random.Generator) -> np.ndarray:
    duration_s = float(rng.uniform(0.12, 1.1))
    burst = np.zeros(round(duration_s * _RATE_HZ))
    pitch_hz = np.exp(rng.uniform(np.log(150), np.log(900)))
    time_s = np.arange(min(round(_LONGEST_CRACKLE_S * _RATE_HZ), len(burst))) / _RATE_HZ
    for _ in range(max(1, int(rng.uniform(8, 60) * duration_s))):
        own_hz = pitch_hz * rng.uniform(0.8, 1.25)
        decay_s = rng.uniform(0.6, 1.6) / own_hz
        wave = np.exp(-time_s / decay_s) * np.sin(2 * np.pi * own_hz * time_s)
        wave *= np.minimum(4 * time_s * own_hz, 1) * np.exp(rng.uniform(np.log(0.15), 0))
        at = int(rng.integers(0, len(burst) - len(wave) + 1))
        burst[at : at + len(wave)] += wave * rng.choice((-1, 1))
    return burst


def _stethoscope(rng: np.random.Generator, spec: LogMel) -> Floats:
    """A smooth random gain; one time in three a low-pass on top, as a bell has it: (mel,)."""
    hertz = np.array(spectrogram.mel_frequencies_hz(spec))
    knots = np.linspace(np.log(spec.f_min_hz), np.log(spec.f_max_hz), 7)
    gain = np.interp(np.log(hertz), knots, rng.normal(0, 3, len(knots)))
    if rng.random() < 0.35:
        corner_hz = np.exp(rng.uniform(np.log(250), np.log(1500)))
        gain -= 10 * np.log10(1 + (hertz / corner_hz) ** (2 * int(rng.integers(1, 5))))
    result: Floats = gain.astype(np.float32)
    return result


def _noise(rng: np.random.Generator, one: Heard, frames: int, spec: LogMel, stage: int) -> Floats:
    """Steady coloured noise below or about the recording's own level, as power: (mel, frames)."""
    level_db = float(np.percentile(one.thin[stage].astype(np.float32), 60)) + rng.uniform(-25, 3)
    hertz = np.array(spectrogram.mel_frequencies_hz(spec))
    ends = np.log([spec.f_min_hz, spec.f_max_hz])
    colour_db = np.interp(np.log(hertz), ends, rng.normal(0, 8, 2)) + stage_gain_db(spec, stage)
    uneven = rng.gamma(4, 0.25, (len(hertz), frames))
    noise: Floats = (10 ** ((level_db + colour_db) / 10)[:, None] * uneven).astype(np.float32)
    return noise
