"""Recordings as decibel spectrograms, and augmented windows cut from them as the demo cuts them.

Training adds the events of `event_bank`, the devices of `devices`, and noise. They are applied in
decibels before the floor and the standardisation, so that they also change the statistics of the
whole recording, as a real stethoscope or noise would.
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
from xai_demo.training.augmentation import mask_spectrogram, shift_bands
from xai_demo.training.lung import devices
from xai_demo.training.lung.devices import Device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from xai_demo.records import Floats, LogMel, Progress
    from xai_demo.training.datasets.breathing import Take

STAGES = ("raw", "filtered", "denoised")
_MAX_DURATION_S = 600.0
# Every seventh column stands for the recording in its statistics: a seventh of the cost whenever an
# augmentation changes them.
_COLUMN_STRIDE = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingSpectrograms:
    """The spectrogram of one recording after every stage of the signal path."""

    take: Take
    # float16, to hold all recordings in memory; a level loses at most 1/32 dB.
    decibels: tuple[NDArray[np.float16], ...]  # one per stage, (mel, frames)
    sparse: tuple[NDArray[np.float16], ...]  # every seventh column of each
    events: tuple[tuple[int, int, int], ...]  # first frame, end frame, kind

    @property
    def frames(self) -> int:
        """How many frames the recording has."""
        return int(self.decibels[0].shape[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class EventOverlay:
    """A synthetic event to be added to a window."""

    power: Floats  # (mel, frames of the event)
    first_frame: int  # in the window
    snr_db: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowAugmentation:
    """What is done to one window."""

    stage: int  # index into STAGES
    device: Device | None = None  # another stethoscope, and what handled its sound
    noise: Floats | None = None  # (mel, frames), power
    overlays: tuple[EventOverlay, ...] = ()


def default_stage(spec: LogMel) -> int:
    """The stage that a model analyses by default, as an index into STAGES."""
    return 2 if spec.denoise else 1 if spec.band_hz else 0


def read_spectrograms(
    takes: Sequence[Take], spec: LogMel, progress: Progress
) -> list[RecordingSpectrograms]:
    """Read all takes, in as many processes as there are cores."""
    recordings = []
    with ProcessPoolExecutor() as pool:
        read = partial(_read_recording, spec=spec)
        for i, recording in enumerate(pool.map(read, takes, chunksize=8)):
            recordings.append(recording)
            progress(i / len(takes), f"reading sound {i + 1} of {len(takes)}")
    return recordings


def cut_window(
    recording: RecordingSpectrograms,
    first: int,
    frames: int,
    augmentation: WindowAugmentation,
    spec: LogMel,
    keep: range | None = None,
) -> Floats:
    """The network's input from frame `first` on, (mel, frames).

    Frames outside `keep` or beyond the recording are 0, the mean of the standardised recording.
    """
    # Frames beyond the recording repeat its edge at first, and are masked at the end.
    at = np.arange(first, first + frames)
    outside = (at < 0) | (at >= recording.frames)
    whole = recording.decibels[augmentation.stage]
    sparse = recording.sparse[augmentation.stage].astype(np.float32)
    window = whole[:, np.clip(at, 0, recording.frames - 1)].astype(np.float32)
    # In the order of the real chain: breathing with its events, noise, stethoscope.
    if augmentation.overlays:
        window = _overlay_events(window, augmentation, spec)
    noise, device = augmentation.noise, augmentation.device
    if noise is not None:
        window = 10 * np.log10(10 ** (window / 10) + noise)
        # Noise is drawn for the window alone; the rest of the recording gets its mean.
        sparse = 10 * np.log10(10 ** (sparse / 10) + noise.mean(1, keepdims=True))
    if device is not None:
        window, sparse = devices.apply(device, window, sparse, _COLUMN_STRIDE)
    if spec.top_db is not None:
        # The window counts as well: an added event may be louder than the recording.
        loudest = max(float(sparse.max()), float(window[:, ~outside].max(initial=-np.inf)))
        floor = loudest - spec.top_db
        window, sparse = np.maximum(window, floor), np.maximum(sparse, floor)
    # The deviation has the same lower limit as in `spectrogram.measure_levels`.
    window = (window - sparse.mean()) / max(float(sparse.std()), 1e-3)
    if keep is not None:
        outside |= (at < keep.start) | (at >= keep.stop)
    window[:, outside] = 0
    result: Floats = window.astype(np.float32)
    return result


@lru_cache(maxsize=4)
def stage_gain_db(spec: LogMel, stage: int) -> Floats:
    """The gain of the signal path up to a stage in every mel band, in decibels: (mel,)."""
    gain = np.zeros(spec.n_mels, np.float32)
    if STAGES[stage] == "raw":
        return gain
    # The response to a click, as an impulse has the same power at every frequency.
    click = np.zeros(spec.sample_rate_hz, np.float32)
    click[len(click) // 2] = 1.0
    # Denoising depends on the sound, so it has no gain of its own.
    path = dataclasses.replace(SignalPath(), denoise=False)
    levels = [
        10 ** (spectrogram.log_mel(stage.samples, spec) / 10)
        for stage in path.run(click, spec.sample_rate_hz)
    ]
    response: Floats = 10 * np.log10(levels[-1].sum(1) / levels[0].sum(1)).astype(np.float32)
    return response


def _read_recording(take: Take, spec: LogMel) -> RecordingSpectrograms:
    rate = spec.sample_rate_hz
    samples = audio.read_audio(
        take.path, sample_rate_hz=rate, max_duration_s=_MAX_DURATION_S
    ).samples
    start_s = take.start_s or 0.0
    if take.end_s is not None:
        samples = samples[round(start_s * rate) : round(take.end_s * rate)]
    # Every stage, whichever the model analyses: training draws from all of them.
    decibels = tuple(
        spectrogram.log_mel(stage.samples, spec).astype(np.float16)
        for stage in SignalPath().run(samples, rate)
    )
    per_second = rate / spec.hop_length
    events = []
    for event in take.annotations:
        first = round((event.start_s - start_s) * per_second)
        # At least two frames, so that the shortest event still has some.
        end = max(round((event.end_s - start_s) * per_second), first + 2)
        events.append((first, end, event.kind))
    return RecordingSpectrograms(
        take=take,
        decibels=decibels,
        sparse=tuple(np.ascontiguousarray(d[:, ::_COLUMN_STRIDE]) for d in decibels),
        events=tuple(events),
    )


def _overlay_events(window: Floats, augmentation: WindowAugmentation, spec: LogMel) -> Floats:
    """The window with the events added, each at its signal-to-noise ratio: (mel, frames), dB."""
    power = 10 ** (window / 10)
    # A real event would have gone through the same filters as the recording.
    gain = 10 ** (stage_gain_db(spec, augmentation.stage) / 10)
    for event in augmentation.overlays:
        sound = event.power * gain[:, None]
        span = slice(event.first_frame, event.first_frame + sound.shape[1])
        level = power[:, span].sum() * 10 ** (event.snr_db / 10)
        power[:, span] += sound * (level / max(float(sound.sum()), 1e-12))
    louder: Floats = 10 * np.log10(power)
    return louder


def draw_augmentation(
    rng: np.random.Generator,
    recording: RecordingSpectrograms,
    frames: int,
    spec: LogMel,
    stage: int,
) -> WindowAugmentation:
    """Another device for four windows in five, noise for two in five."""
    device = devices.draw(rng, spec) if rng.random() < 0.8 else None
    noise = _noise(rng, recording, frames, spec, stage) if rng.random() < 0.4 else None
    return WindowAugmentation(stage=stage, device=device, noise=noise)


def augment(window: Floats, times: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """The window at another pitch and tempo, with slight noise and SpecAugment (Park et al. 2019).

    `times`, (2, frames), is stretched along with it.
    """
    frames = window.shape[1]
    window = shift_bands(window, rng, max_rows=2)
    if rng.random() < 0.5:
        centre = frames / 2
        at = centre + (np.arange(frames) - centre) * rng.uniform(0.88, 1.12)
        columns = np.clip(np.round(at), 0, frames - 1).astype(int)
        window, times = window[:, columns], times[:, columns]
    # Windows are standardised by now: 0.1 deviations of noise, and 0 is the mean.
    window = window + rng.normal(0, 0.1, window.shape).astype(np.float32)
    return mask_spectrogram(window, rng, rows=8, columns=20, fill=0.0), times


def _noise(
    rng: np.random.Generator,
    recording: RecordingSpectrograms,
    frames: int,
    spec: LogMel,
    stage: int,
) -> Floats:
    """Steady coloured noise at or below the recording's own level, as power: (mel, frames)."""
    level_db = float(np.percentile(recording.sparse[stage].astype(np.float32), 60)) + rng.uniform(
        -25, 3
    )
    hertz = np.array(spectrogram.mel_frequencies_hz(spec))
    ends = np.log([spec.f_min_hz, spec.f_max_hz])
    # A random tilt over the octaves, and the filters that the recording has passed too.
    colour_db = np.interp(np.log(hertz), ends, rng.normal(0, 8, 2)) + stage_gain_db(spec, stage)
    # Gamma noise of mean 1 and deviation 1/2, so that the level stays as drawn.
    uneven = rng.gamma(4, 0.25, (len(hertz), frames))
    noise: Floats = (10 ** ((level_db + colour_db) / 10)[:, None] * uneven).astype(np.float32)
    return noise
