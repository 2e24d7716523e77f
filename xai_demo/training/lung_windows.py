"""Recordings held as decibel spectrograms, and windows cut from them as the demo would see them.

Other hospitals' stethoscopes and noises are put in before the floor and the standardisation, in
decibels, so that what a change does to the whole recording's statistics is done too.
"""

from __future__ import annotations

import dataclasses
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np

from xai_demo import audio
from xai_demo.audio import spectrogram
from xai_demo.audio.filters import SignalPath

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from xai_demo.records import Floats, LogMel, Progress
    from xai_demo.training.breathing import Take

_LONGEST_S = 600.0
_THIN = 7  # every so many columns stand for the recording in its statistics
STAGES = ("raw", "filtered", "denoised")


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
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
class Added:
    """A synthesised event to be laid over a window."""

    power: Floats  # (mel, frames of the event)
    at: int  # first frame in the window
    snr_db: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """How a window is varied."""

    stage: int  # of STAGES
    gain_db: Floats | None = None  # (mel,): another stethoscope
    noise: Floats | None = None  # (mel, frames), power
    added: tuple[Added, ...] = ()


def stage_of(spec: LogMel) -> int:
    """The stage that a model is given unless a visitor asks for another one."""
    return 2 if spec.denoise else 1 if spec.band_hz else 0


def heard(takes: Sequence[Take], spec: LogMel, progress: Progress) -> list[Heard]:
    """Read them all, by as many processes as there are cores."""
    found = []
    with ProcessPoolExecutor() as pool:
        for i, one in enumerate(pool.map(partial(_heard, spec=spec), takes, chunksize=8)):
            found.append(one)
            progress(i / len(takes), f"reading sound {i + 1} of {len(takes)}")
    return found


def cut(
    one: Heard, first: int, frames: int, change: Change, spec: LogMel, blot: range | None = None
) -> Floats:
    """The network's input from a frame on, (mel, frames); 0, the mean, beyond `blot` or the end."""
    at = np.arange(first, first + frames)
    outside = (at < 0) | (at >= one.frames)
    whole, thin = one.decibels[change.stage], one.thin[change.stage].astype(np.float32)
    window = whole[:, np.clip(at, 0, one.frames - 1)].astype(np.float32)
    if change.added:
        window = _with_events(window, change, spec)
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


def _heard(take: Take, spec: LogMel) -> Heard:
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
    return Heard(
        take=take,
        decibels=decibels,
        thin=tuple(np.ascontiguousarray(d[:, ::_THIN]) for d in decibels),
        events=tuple(events),
    )


def _with_events(window: Floats, change: Change, spec: LogMel) -> Floats:
    power = 10 ** (window / 10)
    passed = 10 ** (stage_gain_db(spec, change.stage) / 10)
    for event in change.added:
        sound = event.power * passed[:, None]
        span = slice(event.at, event.at + sound.shape[1])
        wanted = power[:, span].sum() * 10 ** (event.snr_db / 10)
        power[:, span] += sound * (wanted / max(float(sound.sum()), 1e-12))
    louder: Floats = 10 * np.log10(power)
    return louder
