"""Synthesised everyday sounds with known times, modelled on those of ESC-10 (Piczak 2015)."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from xai_demo.errors import UnknownNameError
from xai_demo.examples import GroundTruth, SynthesisedSound

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Samples: TypeAlias = NDArray[np.float64]
    Span: TypeAlias = tuple[float, float]
    # The sound, the intervals in which it sounds in seconds, and its band in hertz.
    SoundParts: TypeAlias = tuple[Samples, tuple[Span, ...], Span]

# PANNs' own rate: the examples are not resampled for them.
SAMPLE_RATE_HZ = 32000
DURATION_S = 5.0
_COUNT = round(SAMPLE_RATE_HZ * DURATION_S)


def everyday_sound(label: str, *, seed: int) -> SynthesisedSound:
    """Five seconds of one of `SOUNDS`, by its AudioSet label; the seed determines the sound.

    Raises UnknownNameError if no sound has that label.
    """
    if label not in SOUNDS:
        raise UnknownNameError("everyday sound", label, SOUNDS)
    sound, spans, (low_hz, high_hz) = SOUNDS[label](np.random.default_rng(seed))
    samples = np.clip(0.7 * sound / np.abs(sound).max(), -1, 1).astype(np.float32)
    truth = tuple(
        GroundTruth(label=label, start_s=start, end_s=end, low_hz=low_hz, high_hz=high_hz)
        for start, end in spans
    )
    return SynthesisedSound(samples=samples, sample_rate_hz=SAMPLE_RATE_HZ, truth=truth)


def clock_tick(rng: np.random.Generator) -> SoundParts:
    """A click and its weaker echo once a second, in a quiet room."""
    starts = np.arange(0.45, DURATION_S - 0.1, 1.0)
    sound = 0.0016 * _background_noise(rng, ((0, 0), (300, 0), (2000, -20), (16000, -40)))
    for number, start_s in enumerate(starts):
        for delay_s, height in ((0.0, 1.0), (0.022, 0.45)):
            # Tick and tock differ a little in pitch.
            pitch = 1.0 if number % 2 else 0.93
            for pitch_hz, decay_s, share in (
                (2100, 0.006, 0.6),
                (4300, 0.004, 1.0),
                (7600, 0.003, 0.6),
            ):
                tone = _damped_tone(pitch * pitch_hz, decay_s)
                _add_at(sound, start_s + delay_s, height * share * tone)
            burst = rng.standard_normal(800) * np.exp(-np.arange(800) / 60)
            _add_at(sound, start_s + delay_s, 0.5 * height * burst)
    return sound, tuple((float(s), round(float(s) + 0.06, 3)) for s in starts), (1500.0, 9000.0)


def dog(rng: np.random.Generator) -> SoundParts:
    """Barks: a short, hoarse harmonic stack whose pitch rises late, in two groups."""
    starts = (0.35, 0.85, 2.1, 2.5, 2.95, 4.1)
    sound = 0.006 * _background_noise(rng, ((0, 0), (200, -3), (2000, -25), (16000, -40)))
    spans = []
    for start_s in starts:
        length_s = rng.uniform(0.095, 0.116)
        time_s = np.arange(round(length_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
        part = time_s / length_s
        pitch_hz = rng.uniform(600, 665) * (1.38 + 0.32 * np.sin(np.pi * part**2.13))
        # Two formants, at 1.6 and 2.3 kHz; these and the numbers above were found by search, for
        # barks that YAMNet and the small network both recognise.
        stack = _harmonic_stack(
            rng,
            pitch_hz,
            ((0, -12), (1390, -3), (1600, -2), (2320, 0), (4180, -8), (7000, -40), (12000, -66)),
            24,
            roughness=0.085,
        )
        breath = _coloured_noise(
            rng, len(part), ((0, -30), (1600, -4), (2320, 0), (6000, -26), (16000, -60))
        )
        shape = np.minimum(part / 0.157, 1) * (1 - part) ** 0.357
        _add_at(
            sound, start_s, rng.uniform(0.8, 1.0) * shape * (stack + 0.52 * breath * stack.std())
        )
        spans.append((start_s, round(start_s + length_s, 3)))
    return _add_reverb(rng, sound, 0.18, 0.19), tuple(spans), (600.0, 6000.0)


def rooster(rng: np.random.Generator) -> SoundParts:
    """One crow: three short syllables and a long one that falls at its end."""
    sound = 0.001 * _background_noise(rng, ((0, 0), (200, -3), (2000, -20), (16000, -40)))
    # Start, length and the pitches that each syllable glides through, in seconds and hertz.
    syllables = (
        (1.2, 0.17, (620.0, 820.0, 760.0)),
        (1.45, 0.13, (760.0, 900.0, 800.0)),
        (1.64, 0.26, (800.0, 960.0, 860.0)),
        (1.98, 0.95, (820.0, 940.0, 900.0, 870.0, 640.0)),
    )
    for start_s, length_s, glide in syllables:
        part = np.linspace(0, 1, round(length_s * SAMPLE_RATE_HZ))
        pitch_hz = np.interp(part, np.linspace(0, 1, len(glide)), glide)
        # A fast vibrato, as in a rooster's voice.
        pitch_hz = pitch_hz * (1 + 0.012 * np.sin(2 * np.pi * 24 * part * length_s))
        curve = ((0, -8), (800, -2), (1800, 0), (3200, -4), (5000, -16), (10000, -40))
        stack = _harmonic_stack(rng, pitch_hz, curve, 12)
        stack += 0.15 * stack.std() * _coloured_noise(rng, len(part), curve)
        _add_at(sound, start_s, stack * np.sin(np.pi * part) ** 0.4)
    return _add_reverb(rng, sound, 0.2, 0.2), ((1.2, 2.93),), (600.0, 6000.0)


def helicopter(rng: np.random.Generator) -> SoundParts:
    """Low rotor beats, eleven a second, without a pause."""
    time_s = np.arange(_COUNT) / SAMPLE_RATE_HZ
    # Beats since the start; the slow sine keeps them from being strictly periodic.
    beat = 11.0 * time_s + 0.05 * np.sin(2 * np.pi * 0.3 * time_s)
    chop = np.exp(-((((beat % 1) - 0.3) / 0.16) ** 2))
    # Median band levels of the recordings in ESC-10.
    low_curve = (
        (0, -20), (40, -4), (100, -1), (210, 0), (430, -8), (800, -16), (2000, -34), (5000, -60),
        (16000, -90),
    )  # fmt: skip
    air_curve = (
        (0, -40), (300, -12), (600, -1), (1000, -3), (2100, -8), (3000, -14), (5700, -22),
        (8000, -30), (11000, -47), (16000, -58),
    )  # fmt: skip
    low, air = _background_noise(rng, low_curve), _background_noise(rng, air_curve)
    whine = np.sin(2 * np.pi * 430 * time_s) + 0.5 * np.sin(2 * np.pi * 860 * time_s)
    # The rotor modulates all but the whine.
    sound = low * (0.5 + chop) + 0.15 * air * (0.8 + chop) + 0.03 * whine
    return sound * (0.85 + 0.15 * np.sin(2 * np.pi * 0.17 * time_s)), _THROUGHOUT, (30.0, 3000.0)


def chainsaw(rng: np.random.Generator) -> SoundParts:
    """A two-stroke engine, revved twice."""
    # (seconds, hertz): idling, revved up, back, and revved up again.
    knots = (
        (0, 95.0),
        (0.6, 95.0),
        (1.1, 155.0),
        (2.3, 160.0),
        (2.8, 100.0),
        (3.2, 150.0),
        (5, 158.0),
    )
    time_s = np.arange(_COUNT) / SAMPLE_RATE_HZ
    pitch_hz = _interpolate(knots, time_s) * (1 + 0.003 * _slow_drift(rng, 12))
    curve = ((0, -14), (150, 0), (700, -2), (2500, -6), (6000, -16), (16000, -34))
    engine = _harmonic_stack(rng, pitch_hz, curve, 60, roughness=0.06)
    hiss = _background_noise(
        rng, ((0, -40), (500, -8), (2000, 0), (5000, -3), (10000, -12), (16000, -24))
    )
    # Louder at higher revolutions: 95 Hz is idling.
    loud = 0.35 + 0.65 * np.clip((pitch_hz - 95) / 60, 0, 1)
    return loud * (engine / engine.std() + 0.45 * hiss), _THROUGHOUT, (100.0, 8000.0)


def rain(rng: np.random.Generator) -> SoundParts:
    """Steady broadband noise with single drops."""
    sound = 0.30 * _background_noise(
        rng, ((0, -25), (150, -9), (600, -3), (2500, 0), (7000, -4), (16000, -14))
    )
    # Single drops over the noise, of exponentially distributed height: few are loud.
    for start_s in rng.uniform(0, DURATION_S - 0.05, 420):
        tone = _damped_tone(rng.uniform(1200, 7000), rng.uniform(0.0008, 0.003))
        _add_at(sound, float(start_s), rng.exponential(0.35) * tone)
    return sound, _THROUGHOUT, (500.0, 12000.0)


def sea_waves(rng: np.random.Generator) -> SoundParts:
    """Two breakers that swell and run out."""
    curve = ((0, -14), (100, 0), (500, -3), (2000, -8), (6000, -18), (16000, -36))
    time_s = np.arange(_COUNT) / SAMPLE_RATE_HZ
    swell = _interpolate(
        ((0, 0.1), (1.2, 0.9), (2.0, 0.5), (2.9, 0.12), (4.0, 1.0), (5, 0.6)), time_s
    )
    foam = _background_noise(rng, ((0, -40), (800, -8), (3000, 0), (8000, -8), (16000, -24)))
    return (
        _background_noise(rng, curve) * (0.12 + swell) + 0.35 * foam * swell**2,
        _THROUGHOUT,
        (50.0, 8000.0),
    )


def fire(rng: np.random.Generator) -> SoundParts:
    """Sharp crackles at random over a low roar."""
    sound = 0.003 * _background_noise(
        rng, ((0, -6), (60, 0), (300, -14), (2000, -30), (16000, -40))
    )
    for start_s in rng.uniform(0, DURATION_S - 0.05, 110):
        length = int(rng.uniform(60, 500))
        snap = rng.standard_normal(length) * np.exp(-5 * np.arange(length) / length)
        _add_at(sound, float(start_s), 0.04 * rng.pareto(1.6) * snap)
    # Soft clipping: a few of the Pareto-distributed snaps are very loud.
    return np.tanh(sound / 0.5), _THROUGHOUT, (300.0, 16000.0)


_THROUGHOUT: tuple[tuple[float, float], ...] = ((0.0, DURATION_S),)
SOUNDS: dict[str, Callable[[np.random.Generator], SoundParts]] = {
    "Tick-tock": clock_tick,
    "Dog": dog,
    "Crowing, cock-a-doodle-doo": rooster,
    "Helicopter": helicopter,
    "Chainsaw": chainsaw,
    "Rain": rain,
    "Waves, surf": sea_waves,
    "Fire": fire,
}


def _coloured_noise(
    rng: np.random.Generator, count: int, curve: tuple[tuple[float, float], ...]
) -> Samples:
    """Noise of deviation 1 whose spectrum follows (hertz, decibels) points: (count,)."""
    frequencies = np.fft.rfftfreq(count, 1 / SAMPLE_RATE_HZ)
    gains = 10 ** (_interpolate(curve, np.asarray(frequencies, np.float64)) / 20)
    noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(count)) * gains, count)
    return np.asarray(noise / noise.std())


def _background_noise(rng: np.random.Generator, curve: tuple[tuple[float, float], ...]) -> Samples:
    return _coloured_noise(rng, _COUNT, curve)


def _harmonic_stack(
    rng: np.random.Generator,
    pitch_hz: Samples,
    curve: tuple[tuple[float, float], ...],
    harmonics: int,
    *,
    roughness: float = 0.05,
) -> Samples:
    """Harmonics of a moving pitch, with levels from a (hertz, decibels) curve: (time,)."""
    # The phase is the integral of the pitch, so that it has no jumps where the pitch moves.
    phase = 2 * np.pi * np.cumsum(pitch_hz) / SAMPLE_RATE_HZ
    sound = np.zeros(len(pitch_hz))
    for harmonic in range(1, harmonics + 1):
        level = 10 ** (_interpolate(curve, harmonic * pitch_hz) / 20)
        # Harmonics near and above the Nyquist frequency would alias.
        level = level * (harmonic * pitch_hz < 0.45 * SAMPLE_RATE_HZ)
        # A random walk of the phase makes the voice hoarse.
        jitter = roughness * np.cumsum(rng.standard_normal(len(pitch_hz))) / 20
        sound += level * np.sin(harmonic * phase + rng.uniform(0, 2 * np.pi) + jitter)
    return sound


def _slow_drift(rng: np.random.Generator, per_second: float) -> Samples:
    """A random curve of deviation about 1 that changes `per_second` times a second: (time,)."""
    knots = rng.standard_normal(int(DURATION_S * per_second) + 2)
    line = np.interp(np.linspace(0, len(knots) - 1, _COUNT), np.arange(len(knots)), knots)
    return np.asarray(line)


def _interpolate(points: tuple[tuple[float, float], ...], x: Samples) -> Samples:
    positions, values = zip(*points, strict=True)
    return np.asarray(np.interp(x, positions, values))


def _damped_tone(pitch_hz: float, decay_s: float) -> Samples:
    # Six time constants: the rest is below -52 dB.
    time_s = np.arange(round(6 * decay_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    return np.asarray(np.exp(-time_s / decay_s) * np.sin(2 * np.pi * pitch_hz * time_s))


def _add_reverb(rng: np.random.Generator, sound: Samples, decay_s: float, share: float) -> Samples:
    """The sound in a room, with an exponentially decaying tail of noise."""
    time_s = np.arange(round(3 * decay_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    tail = rng.standard_normal(len(time_s)) * np.exp(-time_s / decay_s)
    # Padded by the tail's length, because a product of spectra is a circular convolution.
    size = len(sound) + len(tail)
    wet = np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(tail, size), size)[: len(sound)]
    return np.asarray(sound + share * wet * sound.std() / wet.std())


def _add_at(sound: Samples, start_s: float, wave: Samples) -> None:
    start = round(start_s * SAMPLE_RATE_HZ)
    end = min(start + len(wave), len(sound))
    sound[start:end] += wave[: end - start]
