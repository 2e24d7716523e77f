"""Recordings held as decibel spectrograms, and windows cut from them as the demo would see them.

Other hospitals' stethoscopes and noises are put in before the floor and the standardisation, in
decibels, so that what a change does to the whole recording's statistics is done too.

Crackles and wheezes of every kind, other stethoscopes, and noise: what training varies.
"""

from __future__ import annotations

import dataclasses
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from xai_demo import audio
from xai_demo.audio import spectrogram
from xai_demo.audio.filters import SignalPath
from xai_demo.synthesis import lung as synthesis
from xai_demo.training.augmentation import band_shifted, spectrogram_masked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from xai_demo.records import Floats, LogMel, Progress
    from xai_demo.training.datasets.breathing import Take

_LONGEST_S = 600.0
_THIN = 7  # every so many columns stand for the recording in its statistics
STAGES = ("raw", "filtered", "denoised")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingSpectrograms:
    """One recording, after every step of the signal path."""

    take: Take
    decibels: tuple[NDArray[np.float16], ...]  # one a stage, (mel, frames)
    thin: tuple[NDArray[np.float16], ...]  # some columns of each
    events: tuple[tuple[int, int, int], ...]  # first frame, end frame, kind

    @property
    def frames(self) -> int:
        """How many it has."""
        return int(self.decibels[0].shape[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class EventOverlay:
    """A synthesised event to be laid over a window."""

    power: Floats  # (mel, frames of the event)
    at: int  # first frame in the window
    snr_db: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowAugmentation:
    """How a window is varied."""

    stage: int  # of STAGES
    gain_db: Floats | None = None  # (mel,): another stethoscope
    noise: Floats | None = None  # (mel, frames), power
    added: tuple[EventOverlay, ...] = ()


def default_stage(spec: LogMel) -> int:
    """The stage that a model is given unless a visitor asks for another one."""
    return 2 if spec.denoise else 1 if spec.band_hz else 0


def read_spectrograms(
    takes: Sequence[Take], spec: LogMel, progress: Progress
) -> list[RecordingSpectrograms]:
    """Read them all, by as many processes as there are cores."""
    found = []
    with ProcessPoolExecutor() as pool:
        for i, one in enumerate(pool.map(partial(_read_recording, spec=spec), takes, chunksize=8)):
            found.append(one)
            progress(i / len(takes), f"reading sound {i + 1} of {len(takes)}")
    return found


def cut_window(
    one: RecordingSpectrograms,
    first: int,
    frames: int,
    change: WindowAugmentation,
    spec: LogMel,
    blot: range | None = None,
) -> Floats:
    """The network's input from a frame on, (mel, frames); 0, the mean, beyond `blot` or the end."""
    at = np.arange(first, first + frames)
    outside = (at < 0) | (at >= one.frames)
    whole, thin = one.decibels[change.stage], one.thin[change.stage].astype(np.float32)
    window = whole[:, np.clip(at, 0, one.frames - 1)].astype(np.float32)
    if change.added:
        window = _overlay_events(window, change, spec)
    if change.noise is not None:
        window = 10 * np.log10(10 ** (window / 10) + change.noise)
        thin = 10 * np.log10(10 ** (thin / 10) + change.noise.mean(1, keepdims=True))
    if change.gain_db is not None:
        window, thin = window + change.gain_db[:, None], thin + change.gain_db[:, None]
    if spec.top_db is not None:
        loudest = max(float(thin.max()), float(window[:, ~outside].max(initial=-np.inf)))
        window, thin = (
            np.maximum(window, loudest - spec.top_db),
            np.maximum(thin, loudest - spec.top_db),
        )
    window = (window - thin.mean()) / max(float(thin.std()), 1e-3)
    if blot is not None:
        outside |= (at < blot.start) | (at >= blot.stop)
    window[:, outside] = 0
    result: Floats = window.astype(np.float32)
    return result


@lru_cache(maxsize=4)
def stage_gain_db(spec: LogMel, stage: int) -> Floats:
    """What the signal path takes from every mel band of a steady sound, (mel,)."""
    gain = np.zeros(spec.n_mels, np.float32)
    if STAGES[stage] == "raw":
        return gain
    click = np.zeros(spec.sample_rate_hz, np.float32)
    click[len(click) // 2] = 1.0
    path = dataclasses.replace(SignalPath(), denoise=False)
    levels = [
        10 ** (spectrogram.log_mel(stage.samples, spec) / 10)
        for stage in path.run(click, spec.sample_rate_hz)
    ]
    passed: Floats = 10 * np.log10(levels[-1].sum(1) / levels[0].sum(1)).astype(np.float32)
    return passed


def _read_recording(take: Take, spec: LogMel) -> RecordingSpectrograms:
    rate = spec.sample_rate_hz
    samples = audio.read_audio(take.path, sample_rate_hz=rate, max_duration_s=_LONGEST_S).samples
    start_s = take.start_s or 0.0
    if take.end_s is not None:
        samples = samples[round(start_s * rate) : round(take.end_s * rate)]
    decibels = tuple(
        spectrogram.log_mel(stage.samples, spec).astype(np.float16)
        for stage in SignalPath().run(samples, rate)
    )
    per_second = rate / spec.hop_length
    events = []
    for event in take.annotated:
        first = round((event.start_s - start_s) * per_second)
        end = max(round((event.end_s - start_s) * per_second), first + 2)
        events.append((first, end, event.kind))
    return RecordingSpectrograms(
        take=take,
        decibels=decibels,
        thin=tuple(np.ascontiguousarray(d[:, ::_THIN]) for d in decibels),
        events=tuple(events),
    )


def _overlay_events(window: Floats, change: WindowAugmentation, spec: LogMel) -> Floats:
    power = 10 ** (window / 10)
    passed = 10 ** (stage_gain_db(spec, change.stage) / 10)
    for event in change.added:
        sound = event.power * passed[:, None]
        span = slice(event.at, event.at + sound.shape[1])
        wanted = power[:, span].sum() * 10 ** (event.snr_db / 10)
        power[:, span] += sound * (wanted / max(float(sound.sum()), 1e-12))
    louder: Floats = 10 * np.log10(power)
    return louder


Kind = Literal["crackle", "wheeze"]
_RATE_HZ = synthesis.SAMPLE_RATE_HZ
_LONGEST_CRACKLE_S = 0.025
_EDGE = 3  # frames of silence around an event


def event_bank(count: int, seed: int, spec: LogMel) -> dict[Kind, list[Floats]]:
    """So many crackle bursts and wheezes as mel power, (mel, frames) each, more varied than life.

    Ranges: Gavriely et al. 1984 for wheezes, Hoevers & Loudon 1990 and Park et al. 2023 for
    crackles, both widened.
    """
    rng = np.random.default_rng(seed)
    made: dict[Kind, list[Floats]] = {"crackle": [], "wheeze": []}
    for _ in range(count):
        made["crackle"].append(_mel_power(_crackles(rng), spec))
        made["wheeze"].append(_mel_power(_wheeze(rng), spec))
    return made


def draw_augmentation(
    rng: np.random.Generator, one: RecordingSpectrograms, frames: int, spec: LogMel, stage: int
) -> WindowAugmentation:
    """Another stethoscope four times in five, noise two times in five."""
    gain = _stethoscope(rng, spec) if rng.random() < 0.8 else None
    noise = _noise(rng, one, frames, spec, stage) if rng.random() < 0.4 else None
    return WindowAugmentation(stage=stage, gain_db=gain, noise=noise)


def augment(window: Floats, times: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
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


def _mel_power(wave: np.ndarray, spec: LogMel) -> Floats:
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


def _noise(
    rng: np.random.Generator, one: RecordingSpectrograms, frames: int, spec: LogMel, stage: int
) -> Floats:
    """Steady coloured noise below or about the recording's own level, as power: (mel, frames)."""
    level_db = float(np.percentile(one.thin[stage].astype(np.float32), 60)) + rng.uniform(-25, 3)
    hertz = np.array(spectrogram.mel_frequencies_hz(spec))
    ends = np.log([spec.f_min_hz, spec.f_max_hz])
    colour_db = np.interp(np.log(hertz), ends, rng.normal(0, 8, 2)) + stage_gain_db(spec, stage)
    uneven = rng.gamma(4, 0.25, (len(hertz), frames))
    noise: Floats = (10 ** ((level_db + colour_db) / 10)[:, None] * uneven).astype(np.float32)
    return noise
