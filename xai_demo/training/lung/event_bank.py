"""Synthetic crackles, wheezes and voices, to be added to recordings of breathing.

Their parameters cover the ranges of Gavriely et al. 1984 (wheezes) and of Hoevers & Loudon 1990
and Park et al. 2023 (crackles), both widened. Voices are no event: they teach that a stack of
gliding harmonics is no wheeze.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from xai_demo.audio import spectrogram
from xai_demo.synthesis import lung as synthesis
from xai_demo.training.lung.windows import EventOverlay

if TYPE_CHECKING:
    from collections.abc import Callable

    from xai_demo.records import Floats, LogMel

    Bank: TypeAlias = dict["Kind", list[Floats]]

Kind = Literal["crackle", "fine crackle", "wheeze", "voice"]

SIZE = 600  # synthetic sounds of each kind
_SNR_DB: dict[Kind, tuple[float, float]] = {
    "crackle": (-4, 14),
    "fine crackle": (-6, 10),
    "wheeze": (-8, 10),
    "voice": (0, 40),
}
_RATE_HZ = synthesis.SAMPLE_RATE_HZ
_MAX_CRACKLE_S = 0.025
_EDGE_FRAMES = 3  # silence around a synthetic event
_FORMANTS_HZ = ((250, 900), (900, 1900))


def event_bank(count: int, seed: int, spec: LogMel) -> Bank:
    """`count` synthetic sounds of each kind, as mel power: (mel, frames) each."""
    rng = np.random.default_rng(seed)
    makers: dict[Kind, Callable[[np.random.Generator], np.ndarray]] = {
        "crackle": _crackles,
        "fine crackle": _fine_crackles,
        "wheeze": _wheeze,
        "voice": _voice,
    }
    return {
        kind: [_mel_power(make(rng), spec) for _ in range(count)] for kind, make in makers.items()
    }


def draw_crackles(
    bank: Bank, rng: np.random.Generator, span: tuple[int, int], times: Floats
) -> list[EventOverlay]:
    """One to three bursts between two frames; half of the time fine and late in the breath.

    Their times are marked in `times`, (frames,), which is as long as the window.
    """
    if rng.random() < 0.5:
        return [
            draw_overlay(bank, "crackle", rng, span, times) for _ in range(int(rng.integers(1, 4)))
        ]
    low, high = span
    # A normal segment is a breath, whose first half is the inspiration.
    if rng.random() < 0.6:
        low, high = low + int(0.15 * (high - low)), low + int(0.6 * (high - low))
    return [
        draw_overlay(bank, "fine crackle", rng, (low, high), times)
        for _ in range(int(rng.integers(1, 3)))
    ]


def draw_overlay(
    bank: Bank, kind: Kind, rng: np.random.Generator, span: tuple[int, int], times: Floats
) -> EventOverlay:
    """A sound of the bank between two frames, whose time is marked in `times`, (frames,)."""
    low, high = span
    power = bank[kind][int(rng.integers(SIZE))]
    power = power[:, : max(1, high - low)]
    at = int(rng.integers(low, max(low, high - power.shape[1]) + 1))
    times[at : at + power.shape[1]] = 1
    return EventOverlay(
        power=power[:, : len(times) - at],
        first_frame=at,
        snr_db=float(rng.uniform(*_SNR_DB[kind])),
    )


def _mel_power(wave: np.ndarray, spec: LogMel) -> Floats:
    """A sound scaled to a peak of 1, as mel power: (mel, frames)."""
    # `log_mel` reflects the ends of a sound, which should be silence here. Most of it is cut off
    # again.
    wave = np.pad(wave / np.abs(wave).max(), 5 * spec.hop_length).astype(np.float32)
    power = 10 ** (spectrogram.log_mel(wave, spec) / 10)
    inner: Floats = power[:, _EDGE_FRAMES:-_EDGE_FRAMES].astype(np.float32)
    return inner


def _wheeze(rng: np.random.Generator) -> np.ndarray:
    # Uniform in the logarithm, so that every octave is drawn equally often.
    duration_s = float(np.exp(rng.uniform(np.log(0.08), np.log(1.8))))
    pitch_hz = float(np.exp(rng.uniform(np.log(100), np.log(800))))
    tone = np.zeros(round(duration_s * _RATE_HZ))
    # One or two tones; the second is less than an octave above, so it is no harmonic.
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
    time_s = np.arange(min(round(_MAX_CRACKLE_S * _RATE_HZ), len(burst))) / _RATE_HZ
    for _ in range(max(1, int(rng.uniform(8, 60) * duration_s))):
        own_hz = pitch_hz * rng.uniform(0.8, 1.25)
        decay_s = rng.uniform(0.6, 1.6) / own_hz
        wave = np.exp(-time_s / decay_s) * np.sin(2 * np.pi * own_hz * time_s)
        # An attack of a quarter of a period, and a height from 0.15 to 1.
        wave *= np.minimum(4 * time_s * own_hz, 1) * np.exp(rng.uniform(np.log(0.15), 0))
        at = int(rng.integers(0, len(burst) - len(wave) + 1))
        burst[at : at + len(wave)] += wave * rng.choice((-1, 1))
    return burst


def _fine_crackles(rng: np.random.Generator) -> np.ndarray:
    """Short, high crackles in close succession, as at the end of inspiration in fibrosis."""
    duration_s = float(rng.uniform(0.15, 0.8))
    burst = np.zeros(round(duration_s * _RATE_HZ))
    pitch_hz = float(np.exp(rng.uniform(np.log(480), np.log(900))))
    for _ in range(max(3, int(rng.uniform(10, 45) * duration_s))):
        wave = synthesis.crackle("fine", frequency_hz=pitch_hz * rng.uniform(0.85, 1.15))
        # They grow denser towards the end of the breath.
        at = int(rng.beta(1.6, 1.0) * (len(burst) - len(wave)))
        height = np.exp(rng.uniform(np.log(0.25), 0)) * rng.choice((-1, 1))
        burst[at : at + len(wave)] += height * wave
    return burst


def _voice(rng: np.random.Generator) -> np.ndarray:
    """One to four syllables: gliding harmonics under two formants."""
    pitch_hz = float(np.exp(rng.uniform(np.log(110), np.log(550))))
    syllables = []
    for _ in range(int(rng.integers(1, 5))):
        part = np.linspace(0, 1, round(rng.uniform(0.08, 0.45) * _RATE_HZ))
        glide = rng.uniform(-0.35, 0.35) * part + rng.uniform(-0.3, 0.3) * np.sin(np.pi * part)
        own_hz = pitch_hz * rng.uniform(0.85, 1.2) * (1 + glide)
        phase = 2 * np.pi * np.cumsum(own_hz) / _RATE_HZ
        formants_hz = [rng.uniform(*limits) for limits in _FORMANTS_HZ]
        tone = np.zeros(len(part))
        for harmonic in range(1, int(2000 / own_hz.max()) + 1):
            distance = min(abs(harmonic * own_hz.mean() / hertz - 1) for hertz in formants_hz)
            tone += np.exp(-2 * distance) / np.sqrt(harmonic) * np.sin(harmonic * phase)
        fade = np.clip(np.minimum(part, 1 - part) / 0.15, 0, 1)
        pause = np.zeros(round(rng.uniform(0.03, 0.15) * _RATE_HZ))
        syllables += [tone * fade * rng.uniform(0.4, 1), pause]
    return np.concatenate(syllables)
