"""Adding white, pink or babble noise to a recording at a given signal-to-noise ratio. Pure.

All noise is synthesised from a fixed seed, so that the same request has the same answer. It is made
in seamless loops of `LOOP_S`, which are repeated over a longer recording.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from xai_demo import files
from xai_demo.errors import UnknownNameError, UnsuitableError
from xai_demo.records import Recording

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xai_demo.records import Floats

    Samples = NDArray[np.float64]

Kind = Literal["white", "pink", "babble"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SNR_RANGE_DB = (-20.0, 60.0)
LOOP_S = 20.0
# With fewer voices, single ones stand out; with more, babble becomes a steady murmur.
N_VOICES = 8
# The lower end of pink noise. Lower frequencies are inaudible, and 1/f power has no bound at 0 Hz.
_LOWEST_HZ = 20.0
# Long-term average speech spectrum of men and women, in hertz and decibels per third of an octave,
# relative to 500 Hz: Byrne et al. 1994.
SPEECH_SPECTRUM = (
    (63, -23.5), (80, -18.6), (100, -7.7), (125, -4.4), (160, -5.3), (200, -1.9), (250, -1.8),
    (315, -3.1), (400, 0.0), (500, 0.0), (630, -1.6), (800, -5.3), (1000, -8.4), (1250, -9.1),
    (1600, -10.1), (2000, -13.4), (2500, -14.0), (3150, -15.3), (4000, -16.5), (5000, -17.6),
    (6300, -17.8), (8000, -18.4), (10000, -18.7), (16000, -26.0),
)  # fmt: skip
# Formants of vowels in hertz, the mean of men and women: after Peterson & Barney 1952, table II.
_VOWELS = (
    (290, 2540, 3160), (410, 2235, 2815), (570, 2085, 2730), (760, 1885, 2630), (790, 1155, 2525),
    (580, 880, 2560), (455, 1090, 2460), (335, 910, 2455), (700, 1295, 2590), (495, 1500, 1825),
)  # fmt: skip
# The modulation spectrum of speech peaks here (Greenberg et al. 2003).
_SYLLABLES_PER_S = 4.3
_FRICATIVE_SHARE, _PAUSE_SHARE = 0.25, 0.15  # of all syllables
_FRICATIVE_LEVEL = 0.2  # amplitude relative to a vowel


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """The kind of noise and the ratio of signal power to noise power over the whole recording.

    Raises UnknownNameError for an unknown kind and UnsuitableError for a ratio out of range.
    """

    kind: Kind
    snr_db: float

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UnknownNameError("kind of noise", self.kind, KINDS)
        low, high = SNR_RANGE_DB
        if not low <= self.snr_db <= high:
            raise UnsuitableError(
                f"The signal-to-noise ratio is {self.snr_db:g} dB; expected {low:g} to {high:g} dB."
            )

    @property
    def description(self) -> str:
        """A phrase for a sentence.

        >>> Noise(kind="pink", snr_db=5).description
        'pink noise at a signal-to-noise ratio of 5 dB'
        """
        ratio = f"{self.snr_db:g}".replace("-", "\u2212")
        return f"{self.kind} noise at a signal-to-noise ratio of {ratio} dB"


def add_noise(recording: Recording, noise: Noise) -> Recording:
    """The recording with noise added, made quieter as a whole if it would clip otherwise.

    Raises UnsuitableError for a silent recording, which has no signal-to-noise ratio.
    """
    mixed, gain_db = mix_noise(recording.samples, recording.sample_rate_hz, noise)
    facts = {"kind": noise.kind, "snr_db": noise.snr_db, "gain_db": round(gain_db, 2)}
    quieter = f", made {-gain_db:.1f} dB quieter to avoid clipping" if gain_db else ""
    return dataclasses.replace(
        recording,
        samples=mixed,
        facts={**recording.facts, "noise": facts},
        warnings=(
            *recording.warnings,
            f"The answer is for the recording mixed with {noise.description}{quieter}.",
        ),
    )


def mix_noise(samples: Floats, sample_rate_hz: int, noise: Noise) -> tuple[Floats, float]:
    """The mixture, (time,), and the gain applied to avoid clipping, in decibels, 0 or less.

    Raises UnsuitableError for a silent sound.
    """
    loop = noise_loop(noise.kind, sample_rate_hz)
    signal_energy, noise_energy, peak = 0.0, 0.0, 0.0
    for part in files.chunks(samples):
        signal_energy += float(np.square(samples[part], dtype=np.float64).sum())
        noise_energy += float(np.square(_loop_slice(loop, part), dtype=np.float64).sum())
    if signal_energy <= 0:
        raise UnsuitableError(
            "The recording is silent, so it has no signal-to-noise ratio; expected a sound."
        )
    gain = float(np.sqrt(signal_energy / noise_energy) * 10 ** (-noise.snr_db / 20))
    for part in files.chunks(samples):
        peak = max(peak, float(np.abs(samples[part] + gain * _loop_slice(loop, part)).max()))
    # Scaled down only if it would clip, and never made louder.
    scale = min(1.0, 1 / peak) if peak > 1 else 1.0
    mixed = files.allocate_array(samples.shape)
    for part in files.chunks(samples):
        mixed[part] = scale * (samples[part] + gain * _loop_slice(loop, part))
        files.release_pages(mixed)
    return mixed, float(20 * np.log10(scale))


@lru_cache(maxsize=6)
def noise_loop(kind: Kind, sample_rate_hz: int) -> Floats:
    """A seamless loop of noise with power 1 and mean 0 that lasts `LOOP_S`: (time,), read-only."""
    rng = np.random.default_rng([KINDS.index(kind), sample_rate_hz])
    count = round(LOOP_S * sample_rate_hz)
    synthesise = {"white": _white, "pink": _pink, "babble": _babble}[kind]
    sound = synthesise(rng, count, sample_rate_hz)
    sound = sound - sound.mean()
    loop: Floats = (sound / np.sqrt(np.mean(sound**2))).astype(np.float32)
    # All callers share the cached array.
    loop.setflags(write=False)
    return loop


def _loop_slice(loop: Floats, part: slice) -> Floats:
    """The part of the endlessly repeated loop that covers a slice of the recording."""
    covering: Floats = np.take(loop, range(part.start, part.stop), mode="wrap")
    return covering


def _white(rng: np.random.Generator, count: int, sample_rate_hz: int) -> Samples:
    return rng.standard_normal(count)


def _pink(rng: np.random.Generator, count: int, sample_rate_hz: int) -> Samples:
    """Noise with power proportional to 1 / frequency, -3 dB per octave."""
    hertz = np.fft.rfftfreq(count, 1 / sample_rate_hz)
    gains = np.zeros(len(hertz))
    audible = hertz >= _LOWEST_HZ
    gains[audible] = hertz[audible] ** -0.5
    return np.asarray(np.fft.irfft(np.fft.rfft(rng.standard_normal(count)) * gains, count))


def _babble(rng: np.random.Generator, count: int, sample_rate_hz: int) -> Samples:
    """Several voices at once that speak meaningless syllables."""
    sound = np.zeros(count)
    for _ in range(N_VOICES):
        sound += _voice(rng, count, sample_rate_hz)
    return sound


def _voice(rng: np.random.Generator, count: int, sample_rate_hz: int) -> Samples:
    """One voice as a seamless loop of power 1: vowels, fricatives and pauses at random."""
    # Typical fundamental frequencies of men and of women, varied from voice to voice.
    pitch_hz = rng.choice((115.0, 205.0)) * rng.uniform(0.85, 1.2)
    sound = np.zeros(count)
    start = int(rng.integers(count))
    end = start + count
    while start < end:
        # Multiples of 256, so that few lengths occur and `_speech_gains` is cached.
        length = round(sample_rate_hz / _SYLLABLES_PER_S * rng.uniform(0.6, 1.5)) // 256 * 256
        draw = rng.random()
        if draw >= _PAUSE_SHARE:
            is_fricative = draw < _PAUSE_SHARE + _FRICATIVE_SHARE
            syllable = _syllable(rng, length, sample_rate_hz, None if is_fricative else pitch_hz)
            # A syllable is far shorter than the loop, so no index occurs twice and += adds all.
            indices = np.arange(start, start + len(syllable)) % count
            sound[indices] += syllable
        start += length
    return np.asarray(sound / np.sqrt(np.mean(sound**2)))


def _syllable(
    rng: np.random.Generator, length: int, sample_rate_hz: int, pitch_hz: float | None
) -> Samples:
    """A vowel on a gliding pitch, or a fricative if `pitch_hz` is None, faded in and out."""
    hertz = np.fft.rfftfreq(length, 1 / sample_rate_hz)
    gains = _speech_gains(length, sample_rate_hz)
    if pitch_hz is None:
        source = rng.standard_normal(length)
        # Fricatives have most of their energy above 2.5 kHz.
        gains = gains / (1 + (2500 / np.maximum(hertz, 1)) ** 2)
    else:
        steps = np.linspace(rng.uniform(-0.15, 0.15), rng.uniform(-0.15, 0.15), length)
        phase = np.cumsum(pitch_hz * (1 + steps)) / sample_rate_hz
        # The glottal source: one pulse per period, and a little breath.
        source = np.diff(np.floor(phase), prepend=0.0) + 0.02 * rng.standard_normal(length)
        for formant in _VOWELS[rng.integers(len(_VOWELS))]:
            gains = gains * (1 + 4 * np.exp(-(((hertz - formant) / 120) ** 2)))
    shaped = np.fft.irfft(np.fft.rfft(source) * gains, length)
    loudness = rng.uniform(0.5, 1.0) * (_FRICATIVE_LEVEL if pitch_hz is None else 1.0)
    envelope = np.sin(np.pi * (np.arange(length) + 0.5) / length) ** 1.5
    return np.asarray(loudness * envelope * shaped / max(float(shaped.std()), 1e-12))


@lru_cache(maxsize=64)
def _speech_gains(length: int, sample_rate_hz: int) -> Samples:
    """Amplitudes that shape white noise to the long-term spectrum of speech: (frequency,)."""
    hertz = np.fft.rfftfreq(length, 1 / sample_rate_hz)
    band_hz, band_db = np.array(SPEECH_SPECTRUM).T
    # From level per third of an octave to level per hertz: the bands widen with their frequency.
    density = band_db - 10 * np.log10(band_hz)
    gains: Samples = 10 ** (np.interp(np.log(np.maximum(hertz, 1)), np.log(band_hz), density) / 20)
    return gains
