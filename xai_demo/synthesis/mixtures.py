"""Sounds of known time and band laid over a background at a given ratio, to put heat to the test.

The ratio is that of the powers of event and background over the event's own stretch, all
frequencies together; the same seed puts the same events in the same places at every ratio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from xai_demo.errors import UnsuitableError
from xai_demo.examples import Synthesised, Truth
from xai_demo.synthesis import everyday, lung

if TYPE_CHECKING:
    from xai_demo.records import Floats

LUNG_KINDS: tuple[Literal["crackle", "wheeze"], ...] = ("crackle", "wheeze")
EVERYDAY_LABELS = ("Tick-tock", "Dog", "Crowing, cock-a-doodle-doo")  # those that come and go
_EVERY_S = 2.0  # one event in so many seconds, about one a breath
_LENGTHS_S = (0.4, 0.7)
_ROOM = ((0, 100, 600, 2500, 8000, 16000), (-6, 0, -4, -10, -22, -36))  # hertz, decibels


def lung_mixture(
    background: Floats, *, kind: Literal["crackle", "wheeze"], snr_db: float, seed: int
) -> Synthesised:
    """Events of one kind in breathing, (time,) at `lung.SAMPLE_RATE_HZ`.

    Raises UnsuitableError for a background shorter than one event, or silent under one.
    """
    rng = np.random.default_rng(seed)
    rate, count = lung.SAMPLE_RATE_HZ, len(background)
    number = max(1, int(count / rate / _EVERY_S))
    slot = count // number
    if slot < _LENGTHS_S[1] * rate:
        raise UnsuitableError(
            f"The background lasts {count / rate:.2f} s; wanted: at least {_LENGTHS_S[1]:g} s."
        )
    sound = np.asarray(background, np.float64)
    truth = []
    for first in range(0, number * slot, slot):
        wave, (low_hz, high_hz) = _event(rng, kind)
        start = first + int(rng.integers(slot - len(wave) + 1))
        alone = np.zeros(count)
        alone[start : start + len(wave)] = wave
        sound = lung.mixed(sound, alone, snr_db)
        truth.append(
            Truth(
                label=kind,
                start_s=start / rate,
                end_s=(start + len(wave)) / rate,
                low_hz=low_hz,
                high_hz=high_hz,
            )
        )
    return Synthesised(samples=_fitted(sound), sample_rate_hz=rate, truth=tuple(truth))


def everyday_mixture(label: str, *, snr_db: float, seed: int) -> Synthesised:
    """One of `EVERYDAY_LABELS` in the noise of a room, moved round in time by chance."""
    made = everyday.everyday_sound(label, seed=seed)
    rng = np.random.default_rng(seed)
    rate, count = made.sample_rate_hz, len(made.samples)
    shift = int(rng.integers(count))
    sound = np.roll(made.samples.astype(np.float64), shift)
    truth = tuple(part for t in made.truth for part in _moved(t, shift / rate, count / rate))
    during = np.zeros(count, bool)
    for t in truth:
        during[round(t.start_s * rate) : round(t.end_s * rate)] = True
    noise = lung.coloured_noise(rng, count, rate, *_ROOM)
    power = np.mean(sound[during] ** 2) / np.mean(noise[during] ** 2)
    mixed = sound + noise * np.sqrt(power / 10 ** (snr_db / 10))
    return Synthesised(samples=_fitted(mixed), sample_rate_hz=rate, truth=truth)


def _event(
    rng: np.random.Generator, kind: Literal["crackle", "wheeze"]
) -> tuple[np.ndarray, tuple[float, float]]:
    duration_s = float(rng.uniform(*_LENGTHS_S))
    if kind == "wheeze":
        pitch_hz = float(np.exp(rng.uniform(np.log(200), np.log(600))))
        return lung.wheeze(
            rng,
            lung.Wheeze(start_s=0, duration_s=duration_s, frequency_hz=pitch_hz, harmonics=2),
        )
    event = lung.Crackles(
        start_s=0,
        duration_s=duration_s,
        kind="fine" if rng.random() < 0.5 else "coarse",
        per_second=float(rng.uniform(12, 25)),
    )
    pitch_hz = lung.CRACKLES[event.kind][1]
    return lung.crackle_burst(rng, event), (0.5 * pitch_hz, 1.5 * pitch_hz)


def _moved(truth: Truth, by_s: float, total_s: float) -> list[Truth]:
    """The stretch later by so much, in two parts where it passes the end."""
    start_s = (truth.start_s + by_s) % total_s
    end_s = start_s + truth.end_s - truth.start_s
    spans = [(start_s, min(end_s, total_s))]
    if end_s > total_s:
        spans.append((0.0, end_s - total_s))
    return [
        Truth(label=truth.label, start_s=a, end_s=b, low_hz=truth.low_hz, high_hz=truth.high_hz)
        for a, b in spans
    ]


def _fitted(sound: np.ndarray) -> Floats:
    fitted: Floats = (sound * min(1.0, 0.95 / np.abs(sound).max())).astype(np.float32)
    return fitted
