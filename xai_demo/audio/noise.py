"""Noise of a chosen kind, laid over a sound at a chosen signal-to-noise ratio. Pure.

All of it is made here, by a seed, so that the same question has the same answer. Noise is made in
rounds of `ROUND_S` whose end fits their beginning, so that a long recording hears no seam.
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
SNR_DB = (-20.0, 60.0)  # what may be asked for
ROUND_S = 20.0
VOICES = 8  # fewer are understood one by one, more are a steady murmur
_LOWEST_HZ = 20.0  # of pink noise: lower nobody hears, and power would have no bound
# Long-term spectrum of speech, hertz and decibels of a third of an octave: Byrne et al. 1994, men
# and women, relative to 500 Hz.
SPEECH = (
    (63, -23.5), (80, -18.6), (100, -7.7), (125, -4.4), (160, -5.3), (200, -1.9), (250, -1.8),
    (315, -3.1), (400, 0.0), (500, 0.0), (630, -1.6), (800, -5.3), (1000, -8.4), (1250, -9.1),
    (1600, -10.1), (2000, -13.4), (2500, -14.0), (3150, -15.3), (4000, -16.5), (5000, -17.6),
    (6300, -17.8), (8000, -18.4), (10000, -18.7), (16000, -26.0),
)  # fmt: skip
# Formants of vowels, hertz: after Peterson & Barney 1952, table II, the mean of men and women.
_VOWELS = (
    (290, 2540, 3160), (410, 2235, 2815), (570, 2085, 2730), (760, 1885, 2630), (790, 1155, 2525),
    (580, 880, 2560), (455, 1090, 2460), (335, 910, 2455), (700, 1295, 2590), (495, 1500, 1825),
)  # fmt: skip
_SYLLABLES_PER_S = 4.3  # modulations of speech are strongest there (Greenberg et al. 2003)
_FRICATIVES, _PAUSES = 0.25, 0.15  # shares of the syllables
_HISS = 0.2  # as loud as a vowel


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """What is laid over a sound; the ratio is that of the powers over the whole recording."""

    kind: Kind
    snr_db: float

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UnknownNameError("kind of noise", self.kind, KINDS)
        low, high = SNR_DB
        if not low <= self.snr_db <= high:
            raise UnsuitableError(
                f"The signal-to-noise ratio is {self.snr_db:g} dB; wanted: {low:g} to {high:g} dB."
            )

    @property
    def named(self) -> str:
        """As in a sentence: "pink noise at a signal-to-noise ratio of −5 dB"."""
        ratio = f"{self.snr_db:g}".replace("-", "\u2212")
        return f"{self.kind} noise at a signal-to-noise ratio of {ratio} dB"


def noisy(recording: Recording, noise: Noise) -> Recording:
    """A recording with noise over it; all is made quieter where it would clip otherwise.

    Raises UnsuitableError for a silent recording, which has no such ratio.
    """
    mixed, gain_db = added(recording.samples, recording.sample_rate_hz, noise)
    told = {"kind": noise.kind, "snr_db": noise.snr_db, "gain_db": round(gain_db, 2)}
    quieter = f", and all of it was made {-gain_db:.1f} dB quieter, not to clip" if gain_db else ""
    return dataclasses.replace(
        recording,
        samples=mixed,
        facts={**recording.facts, "noise": told},
        warnings=(
            *recording.warnings,
            f"This is the sound with {noise.named}{quieter}: the answer is for the mixture.",
        ),
    )


def added(samples: Floats, sample_rate_hz: int, noise: Noise) -> tuple[Floats, float]:
    """The mixture, (time,), and by how many decibels it was made quieter, 0 or less."""
    round_ = noise_round(noise.kind, sample_rate_hz)
    signal, hiss, peak = 0.0, 0.0, 0.0
    for part in files.stretches(samples):
        signal += float(np.square(samples[part], dtype=np.float64).sum())
        hiss += float(np.square(_cut(round_, part), dtype=np.float64).sum())
    if signal <= 0:
        raise UnsuitableError(
            "The recording is silent, so that no noise stands in a ratio to it; wanted: a sound."
        )
    gain = float(np.sqrt(signal / hiss) * 10 ** (-noise.snr_db / 20))
    for part in files.stretches(samples):
        peak = max(peak, float(np.abs(samples[part] + gain * _cut(round_, part)).max()))
    # What is beyond full scale in the file itself, as floats may be, stays so.
    scale = min(1.0, 1 / peak) if peak > 1 else 1.0
    mixed = files.empty(samples.shape)
    for part in files.stretches(samples):
        mixed[part] = scale * (samples[part] + gain * _cut(round_, part))
        files.settle(mixed)
    return mixed, float(20 * np.log10(scale))


@lru_cache(maxsize=6)
def noise_round(kind: Kind, sample_rate_hz: int) -> Floats:
    """`ROUND_S` of noise, power 1 and mean 0, whose end fits its beginning: (time,)."""
    rng = np.random.default_rng([KINDS.index(kind), sample_rate_hz])
    count = round(ROUND_S * sample_rate_hz)
    made = {"white": _white, "pink": _pink, "babble": _babble}[kind](rng, count, sample_rate_hz)
    made = made - made.mean()
    result: Floats = (made / np.sqrt(np.mean(made**2))).astype(np.float32)
    result.setflags(write=False)  # everybody gets the same one
    return result


def _cut(round_: Floats, part: slice) -> Floats:
    """What lies over a stretch of the recording, going round."""
    found: Floats = np.take(round_, range(part.start, part.stop), mode="wrap")
    return found


def _white(rng: np.random.Generator, count: int, sample_rate_hz: int) -> Samples:
    return rng.standard_normal(count)


def _pink(rng: np.random.Generator, count: int, sample_rate_hz: int) -> Samples:
    """Power in proportion to 1 / frequency: 3 dB less an octave, as much in each of them."""
    hertz = np.fft.rfftfreq(count, 1 / sample_rate_hz)
    gains = np.zeros(len(hertz))
    heard = hertz >= _LOWEST_HZ
    gains[heard] = hertz[heard] ** -0.5
    return np.asarray(np.fft.irfft(np.fft.rfft(rng.standard_normal(count)) * gains, count))


def _babble(rng: np.random.Generator, count: int, sample_rate_hz: int) -> Samples:
    """Several voices at once, none of which says anything: syllables of vowels and of hiss."""
    sound = np.zeros(count)
    for _ in range(VOICES):
        sound += _voice(rng, count, sample_rate_hz)
    return sound


def _voice(rng: np.random.Generator, count: int, sample_rate_hz: int) -> Samples:
    """One voice going round, of power 1."""
    pitch_hz = rng.choice((115.0, 205.0)) * rng.uniform(0.85, 1.2)  # of a man or a woman
    sound = np.zeros(count)
    start = int(rng.integers(count))
    end = start + count
    while start < end:
        length = round(sample_rate_hz / _SYLLABLES_PER_S * rng.uniform(0.6, 1.5)) // 256 * 256
        drawn = rng.random()
        if drawn >= _PAUSES:
            hissing = drawn < _PAUSES + _FRICATIVES
            syllable = _syllable(rng, length, sample_rate_hz, None if hissing else pitch_hz)
            at = np.arange(start, start + len(syllable)) % count
            sound[at] += syllable  # one syllable is far shorter than a round: no place comes twice
        start += length
    return np.asarray(sound / np.sqrt(np.mean(sound**2)))


def _syllable(
    rng: np.random.Generator, length: int, sample_rate_hz: int, pitch_hz: float | None
) -> Samples:
    """A vowel on a falling or rising pitch, or hiss where there is none, coming and going."""
    hertz = np.fft.rfftfreq(length, 1 / sample_rate_hz)
    gains = _speech_gains(length, sample_rate_hz)
    if pitch_hz is None:
        source = rng.standard_normal(length)
        gains = gains / (1 + (2500 / np.maximum(hertz, 1)) ** 2)
    else:
        steps = np.linspace(rng.uniform(-0.15, 0.15), rng.uniform(-0.15, 0.15), length)
        phase = np.cumsum(pitch_hz * (1 + steps)) / sample_rate_hz
        source = np.diff(np.floor(phase), prepend=0.0) + 0.02 * rng.standard_normal(length)
        for formant in _VOWELS[rng.integers(len(_VOWELS))]:
            gains = gains * (1 + 4 * np.exp(-(((hertz - formant) / 120) ** 2)))
    shaped = np.fft.irfft(np.fft.rfft(source) * gains, length)
    loudness = rng.uniform(0.5, 1.0) * (_HISS if pitch_hz is None else 1.0)
    envelope = np.sin(np.pi * (np.arange(length) + 0.5) / length) ** 1.5
    return np.asarray(loudness * envelope * shaped / max(float(shaped.std()), 1e-12))


@lru_cache(maxsize=64)
def _speech_gains(length: int, sample_rate_hz: int) -> Samples:
    """Amplitudes that give flat noise the long-term spectrum of speech: (frequency,)."""
    hertz = np.fft.rfftfreq(length, 1 / sample_rate_hz)
    places, thirds = np.array(SPEECH).T
    density = thirds - 10 * np.log10(places)  # a third of an octave is wider the higher it is
    gains: Samples = 10 ** (np.interp(np.log(np.maximum(hertz, 1)), np.log(places), density) / 20)
    return gains
