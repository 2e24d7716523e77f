"""Synthesised lung sounds: breath noise, crackles and wheezes at known times and frequencies.

Length and pitch of crackles follow Park et al. 2023. The spectrum of the breath noise, the
breathing rate, the contact noise of the stethoscope and the level of wheezes follow the recordings
of children in SPRSound (Zhang et al. 2022).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from xai_demo.errors import UnsuitableError
from xai_demo.examples import GroundTruth, SynthesisedSound

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xai_demo.records import Floats

    Samples: TypeAlias = NDArray[np.float64]

SAMPLE_RATE_HZ = 8000
# For each kind, the length in seconds and the pitch in hertz.
CRACKLES: dict[str, tuple[float, float]] = {
    "fine": (0.005, 650.0),
    "coarse": (0.015, 350.0),
}
# Median band levels while children breathe in, in decibels relative to the loudest band.
_BREATH_HZ = (0, 25, 50, 100, 150, 200, 300, 400, 500, 600, 800, 1000, 1500, 4000)
_BREATH_DB = (-45, -25, -10, -2, 0, -3, -8, -15, -22, -31, -48, -55, -58, -61)
# The level between breaths.
_SILENCE_DB = -22.0
_EXPIRATION_DB = -7.0
_CONTACT_S = 0.15
_CONTACT_HZ = (0, 100, 250, 500, 1000, 2000, 4000)
_CONTACT_DB = (0, 0, -3, -7, -12, -18, -24)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheeze:
    """A wheeze to add to breathing: a tone with harmonics."""

    start_s: float
    duration_s: float
    frequency_hz: float = 400.0
    harmonics: int = 3
    # The pitch rises and falls by this fraction.
    modulation: float = 0.08
    snr_db: float = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Crackles:
    """A burst of crackles to add to breathing."""

    start_s: float
    duration_s: float
    kind: Literal["fine", "coarse"] = "fine"
    per_second: float = 30.0
    snr_db: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Breathing:
    """The breathing that the events are added to."""

    duration_s: float = 9.0
    first_breath_s: float = 0.3
    period_s: float = 1.5
    inspiration_s: float = 0.63
    expiration_s: float = 0.6
    heart_per_minute: float = 84.0
    # Root mean square.
    level: float = 0.02
    # Peak of the contact noise, relative to that of the breathing.
    contact_db: float = 11.0


Event: TypeAlias = Wheeze | Crackles


def coloured_noise(
    rng: np.random.Generator, count: int, sample_rate_hz: int, curve_hz: object, curve_db: object
) -> Samples:
    """Gaussian noise of deviation 1 whose spectrum follows a curve in decibels: (count,)."""
    frequencies = np.fft.rfftfreq(count, 1 / sample_rate_hz)
    gains = 10 ** (np.interp(frequencies, np.asarray(curve_hz), np.asarray(curve_db)) / 20)
    noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(count)) * gains, count)
    return np.asarray(noise / noise.std())


def breath_noise(rng: np.random.Generator, breathing: Breathing) -> Samples:
    """Inspiration and expiration with faint heart sounds, no events: (time,) at 8 kHz."""
    count = round(breathing.duration_s * SAMPLE_RATE_HZ)
    inspiration, expiration = np.zeros(count), np.zeros(count)
    starts = np.arange(breathing.first_breath_s, breathing.duration_s, breathing.period_s)
    for start_s in starts:
        # Breaths are not perfectly regular.
        start_s += rng.uniform(-0.05, 0.05)
        pause_s = 0.05 * breathing.period_s
        expiration_s = start_s + breathing.inspiration_s + pause_s
        _add_hump(inspiration, start_s, breathing.inspiration_s, rng.uniform(0.85, 1.0))
        _add_hump(expiration, expiration_s, breathing.expiration_s, rng.uniform(0.85, 1.0))
    # Expiration has less energy at high frequencies than inspiration.
    darker = np.asarray(_BREATH_DB) - 6 * np.clip(np.asarray(_BREATH_HZ) / 500 - 0.3, 0, 1)
    # Of inspiration, expiration and the pauses: independent of each other.
    noises = [
        coloured_noise(rng, count, SAMPLE_RATE_HZ, _BREATH_HZ, curve)
        for curve in (_BREATH_DB, darker, _BREATH_DB)
    ]
    sound = noises[0] * inspiration + noises[1] * expiration * 10 ** (_EXPIRATION_DB / 20)
    sound += noises[2] * 10 ** (_SILENCE_DB / 20)
    sound += 0.25 * _heart(rng, breathing)
    return np.asarray(breathing.level * sound / np.sqrt(np.mean(sound**2)))


def contact_noise(rng: np.random.Generator) -> Samples:
    """The thump of a stethoscope being placed, as most recordings start: (time,), peak 1."""
    time_s = np.arange(round(_CONTACT_S * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    noise = coloured_noise(rng, len(time_s), SAMPLE_RATE_HZ, _CONTACT_HZ, _CONTACT_DB)
    wave = noise * np.minimum(time_s / 0.002, 1) * np.exp(-time_s / 0.015)
    return np.asarray(wave / np.abs(wave).max())


def crackle(kind: Literal["fine", "coarse"], *, frequency_hz: float | None = None) -> Samples:
    """One crackle, a damped sinusoid that decays to 5 % over its length: (time,), peak 1.

    Its onset is smoothed over one period, as the chest wall does, and so is its end.
    """
    length_s, pitch_hz = CRACKLES[kind]
    pitch_hz = frequency_hz or pitch_hz
    time_s = np.arange(round(length_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    attack = np.sin(np.pi / 2 * np.clip(time_s * pitch_hz, 0, 1)) ** 2
    release = np.sin(np.pi / 2 * np.clip((length_s - time_s) / (0.5 * length_s), 0, 1)) ** 2
    # exp(-length / decay) = 1 / 20.
    decay_s = length_s / np.log(20)
    damped = np.exp(-time_s / decay_s) * np.sin(2 * np.pi * pitch_hz * time_s)
    wave = attack * release * damped
    return np.asarray(wave / np.abs(wave).max())


def crackle_burst(rng: np.random.Generator, event: Crackles) -> Samples:
    """Crackles at irregular intervals and of varying height over the burst: (time,), not scaled."""
    burst = np.zeros(round(event.duration_s * SAMPLE_RATE_HZ))
    pitch_hz = CRACKLES[event.kind][1]
    number = max(2, round(event.duration_s * event.per_second))
    length = len(crackle(event.kind))
    last = max(len(burst) - length, 0)
    slots = np.linspace(0, last, number)
    # Less than half the distance between slots, so that crackles keep their order.
    jitter = rng.uniform(-0.45, 0.45, number) * last / (number - 1)
    # The burst starts and ends with a crackle, so its length is the one requested.
    jitter[[0, -1]] = 0
    for onset in (slots + jitter).astype(int):
        wave = crackle(event.kind, frequency_hz=pitch_hz * rng.uniform(0.85, 1.15))
        end = min(onset + length, len(burst))
        # Heights are uniform in decibels; the sign is random.
        height = np.exp(rng.uniform(np.log(0.15), 0.0)) * rng.choice((-1, 1))
        burst[onset:end] += height * wave[: end - onset]
    return burst


def wheeze(rng: np.random.Generator, event: Wheeze) -> tuple[Samples, tuple[float, float]]:
    """A tone with harmonics, (time,), not scaled; and its lowest and highest frequency in hertz."""
    count = round(event.duration_s * SAMPLE_RATE_HZ)
    time_s = np.arange(count) / SAMPLE_RATE_HZ
    part = time_s / event.duration_s
    # The pitch rises and falls once.
    arch = 2 * np.sin(np.pi * part ** rng.uniform(0.7, 1.0)) - 1
    pitch_hz = event.frequency_hz * (1 + event.modulation * arch)
    phase = 2 * np.pi * np.cumsum(pitch_hz) / SAMPLE_RATE_HZ
    tone = np.zeros(count)
    for harmonic in range(1, event.harmonics + 1):
        tone += 0.25 ** (harmonic - 1) * np.sin(harmonic * phase + rng.uniform(0, 2 * np.pi))
    # The amplitude flutters about 15 times a second.
    knots = max(3, round(15 * event.duration_s))
    tone *= 1 + 0.25 * np.interp(part, np.linspace(0, 1, knots), rng.uniform(-1, 1, knots))
    # An abrupt start or end would be a click, which resembles a crackle.
    fade = min(0.1, event.duration_s / 4)
    shape = np.clip(np.minimum(time_s, event.duration_s - time_s) / fade, 0, 1)
    band = float(pitch_hz.min()), float(pitch_hz.max() * event.harmonics)
    return tone * np.sin(np.pi / 2 * shape) ** 2, band


def mix_at_snr(background: Samples | Floats, event: Samples | Floats, snr_db: float) -> Samples:
    """The background plus the event, scaled to a signal-to-noise ratio; both (time,).

    The ratio is that of their powers over the event's interval, from its first to its last non-zero
    sample. Raises UnsuitableError if the shapes differ or one of them is silent there.
    """
    if np.shape(background) != np.shape(event):
        raise UnsuitableError(
            f"The event has shape {np.shape(event)}; "
            f"it must have the background's, {np.shape(background)}."
        )
    # The interval of the event, without the zeros around it.
    sounding = np.flatnonzero(event)
    span = slice(sounding[0], sounding[-1] + 1) if len(sounding) else slice(0, 0)
    power = float(np.sum(np.square(event[span], dtype=np.float64)))
    target = float(np.sum(np.square(background[span], dtype=np.float64))) * 10 ** (snr_db / 10)
    if power <= 0 or target <= 0:
        raise UnsuitableError(
            f"The event has energy {power:g} and the background under it {target:g}; "
            "both must be above 0."
        )
    return np.asarray(background + np.sqrt(target / power) * np.asarray(event, np.float64))


def lung_sound(
    *, seed: int, events: tuple[Event, ...] = (), breathing: Breathing | None = None
) -> SynthesisedSound:
    """Breathing with these events, and where they are; the seed determines the sound."""
    rng = np.random.default_rng(seed)
    breathing = breathing or Breathing()
    sound = breath_noise(rng, breathing)
    contact = contact_noise(rng) * np.abs(sound).max() * 10 ** (breathing.contact_db / 20)
    sound[: len(contact)] += contact[: len(sound)]
    truth = []
    # One after the other: the background of an event includes those before it.
    for event in events:
        label = "wheeze" if isinstance(event, Wheeze) else "crackle"
        if isinstance(event, Wheeze):
            wave, (low_hz, high_hz) = wheeze(rng, event)
        else:
            wave, pitch_hz = crackle_burst(rng, event), CRACKLES[event.kind][1]
            low_hz, high_hz = 0.5 * pitch_hz, 1.5 * pitch_hz
        start = round(event.start_s * SAMPLE_RATE_HZ)
        alone = _place_event(wave, start, len(sound))
        sound = mix_at_snr(sound, alone, event.snr_db)
        end_s = (start + len(wave)) / SAMPLE_RATE_HZ
        truth.append(
            GroundTruth(
                label=label,
                start_s=event.start_s,
                end_s=end_s,
                low_hz=round(low_hz, 1),
                high_hz=round(high_hz, 1),
            )
        )
    # Only downwards, so that the level of the breathing stays as given.
    samples = (sound * min(1.0, 0.95 / np.abs(sound).max())).astype(np.float32)
    return SynthesisedSound(samples=samples, sample_rate_hz=SAMPLE_RATE_HZ, truth=tuple(truth))


def _place_event(wave: Samples, start: int, count: int) -> Samples:
    if not 0 <= start <= count - len(wave):
        raise UnsuitableError(
            f"The event lies at samples {start} to {start + len(wave)}; "
            f"it must lie within 0 to {count}."
        )
    alone = np.zeros(count)
    alone[start : start + len(wave)] = wave
    return alone


def _add_hump(envelope: Samples, start_s: float, length_s: float, height: float) -> None:
    start, length = round(start_s * SAMPLE_RATE_HZ), round(length_s * SAMPLE_RATE_HZ)
    hump = height * np.sin(np.pi * np.linspace(0, 1, length)) ** 0.8
    first, last = max(start, 0), min(start + length, len(envelope))
    if last > first:
        # The maximum, because breaths that touch do not add up.
        envelope[first:last] = np.maximum(envelope[first:last], hump[first - start : last - start])


def _heart(rng: np.random.Generator, breathing: Breathing) -> Samples:
    """First and second heart sounds: damped low tones, peak near 1."""
    sound = np.zeros(round(breathing.duration_s * SAMPLE_RATE_HZ))
    time_s = np.arange(round(0.12 * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    beat_s = 60 / breathing.heart_per_minute
    for start_s in np.arange(0.1, breathing.duration_s - 0.6, beat_s):
        start_s += rng.uniform(-0.01, 0.01)
        for delay_s, pitch_hz, height in ((0.0, 45.0, 1.0), (0.3, 60.0, 0.7)):
            thump = np.sin(2 * np.pi * pitch_hz * time_s) * np.exp(-time_s / 0.03)
            first = round((start_s + delay_s) * SAMPLE_RATE_HZ)
            sound[first : first + len(thump)] += height * thump
    return sound
