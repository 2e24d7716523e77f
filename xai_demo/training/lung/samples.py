"""`LungDataset`: training samples of lung models, drawn from all sources and augmented.

The sources are described in `lung`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from xai_demo.audio import spectrogram
from xai_demo.training.datasets import Split, one_hot
from xai_demo.training.datasets.breathing import (
    BOTH,
    CRACKLE,
    NORMAL,
    WHEEZE,
)
from xai_demo.training.losses import pack_target
from xai_demo.training.lung import event_bank, windows
from xai_demo.training.lung.windows import (
    EventOverlay,
    RecordingSpectrograms,
    WindowAugmentation,
    cut_window,
    default_stage,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xai_demo.records import Floats, LogMel

SOURCES = ("events", "windows", "cycles", "synthesised", "manikin")
WITHOUT_TIMES = ("fraiwan", "manikin", "folders")  # sites that label whole recordings
# Shares of the training samples, by SOURCES.
_SHARES = np.array([0.35, 0.15, 0.1, 0.3, 0.1])
# Shares of the training samples, by STAGES.
_STAGE_SHARES = np.array([0.3, 0.45, 0.25])
# An event counts in a window that contains at least this much of it.
_AUDIBLE_S = 0.15
# Recordings with crackles or wheezes are drawn twice as often.
_ABNORMAL_WEIGHT = 2.0
# Share of the windows of such a recording that lie around an event.
_NEAR_EVENT = 0.6
# Share of all samples in which somebody speaks or cries, which changes no label.
_WITH_VOICE = 0.25
# How likely a window of a recording with crackles or wheezes is taken to contain them.
_CERTAINTY = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """An annotated stretch of a recording, in frames, and its class."""

    recording: int
    start: int
    end: int
    kind: int
    split: Split


@dataclass(frozen=True, slots=True, kw_only=True)
class _WindowPlan:
    """What one training window is cut from, and what is added to it."""

    recording: int
    first: int  # frame
    source: int  # index into SOURCES
    label: Floats
    # When crackles and wheezes sound, (2, frames); None: not known.
    times: Floats | None
    # All frames of the recording outside it are masked.
    keep: range | None = None
    overlays: tuple[EventOverlay, ...] = ()


class LungDataset:
    """Windows of all sources.

    `load` is deterministic for a given rng; without one it returns the event unaugmented.
    """

    def __init__(
        self, recordings: list[RecordingSpectrograms], splits: list[Split], spec: LogMel
    ) -> None:
        self.recordings, self.splits, self.spec = recordings, splits, spec
        self.frames_per_second = spec.sample_rate_hz / spec.hop_length
        self.window_frames = round(spec.window_s * self.frames_per_second)
        self.segments = [
            Segment(recording=i, start=start, end=end, kind=kind, split=splits[i])
            for i, recording in enumerate(recordings)
            for start, end, kind in recording.events
        ]
        segments_of = {
            site: [s for s in self.segments if recordings[s.recording].take.site == site]
            for site in ("sprsound", "icbhi")
        }
        # Models are validated on the children's events; without them, on the cycles; and without
        # any annotated time, on recordings with one label.
        self.events = (
            segments_of["sprsound"]
            or segments_of["icbhi"]
            or _labelled_segments(recordings, splits)
        )
        # Without any segment, these are the events already, not a source beside them.
        self.labelled_recordings = [
            i
            for i, recording in enumerate(recordings)
            if recording.take.site in ("fraiwan", "folders")
            and recording.take.kind is not None
            and splits[i] == "train"
            and self.segments
        ]
        self.manikin_recordings = [
            i
            for i, recording in enumerate(recordings)
            if recording.take.site == "manikin" and splits[i] == "train" and self.segments
        ]
        # Without SPRSound, the cycles are the events.
        self.cycles = (
            [s for s in segments_of["icbhi"] if s.split == "train"]
            if segments_of["sprsound"]
            else []
        )
        self.timed_recordings = [
            i
            for i, recording in enumerate(recordings)
            if recording.take.site == "sprsound" and recording.events and splits[i] == "train"
        ]
        self._prepare_drawing()

    def _prepare_drawing(self) -> None:
        """Set how training draws from the recordings and segments."""
        self._normal_recordings = [
            i
            for i in self.timed_recordings
            if all(event[2] == NORMAL for event in self.recordings[i].events)
        ]
        self._normal_segments = [
            s for s in (*self.events, *self.cycles) if s.kind == NORMAL and s.split == "train"
        ]
        self._recording_weights = np.array(
            [
                _ABNORMAL_WEIGHT if any(event[2] for event in self.recordings[i].events) else 1.0
                for i in self.timed_recordings
            ]
        )
        self._cycle_probabilities = _rarity_weights([s.kind for s in self.cycles], 0.7)
        kinds = [self.recordings[i].take.kind or NORMAL for i in self.manikin_recordings]
        self._manikin_probabilities = _rarity_weights(kinds, 1.0)
        # In the order of SOURCES; what is missing leaves its share to the others. There are always
        # events: `read_lung_dataset` insists on them.
        is_present = np.array(
            [
                True,
                bool(self.timed_recordings),
                bool(self.cycles),
                bool(self._normal_segments),
                bool(self.manikin_recordings),
            ]
        )
        self._source_probabilities = _normalise(_SHARES * is_present)

    @cached_property
    def event_bank(self) -> event_bank.Bank:
        """Synthetic sounds, generated when first needed."""
        return event_bank.event_bank(event_bank.SIZE, 0, self.spec)

    def load(self, i: int, rng: np.random.Generator | None) -> tuple[Floats, Floats]:
        """Event `i` as (mel, frames), and its label.

        With an rng, a sample of a random source instead, augmented, and its packed target.
        """
        if rng is None:
            return self.segment_window(self.events[i]), one_hot(self.events[i].kind, 4)
        source = int(rng.choice(len(SOURCES), p=self._source_probabilities))
        plan_sample = (
            self._plan_event,
            self._plan_window,
            self._plan_cycle,
            self._plan_synthetic,
            self._plan_manikin,
        )[source]
        plan: _WindowPlan = plan_sample(i, rng)
        overlays = plan.overlays
        if rng.random() < _WITH_VOICE:
            blank = np.zeros(self.window_frames, np.float32)
            span = (0, self.window_frames)
            overlays += (event_bank.draw_overlay(self.event_bank, "voice", rng, span, blank),)
        recording = self.recordings[plan.recording]
        stage = int(rng.choice(3, p=_STAGE_SHARES))
        drawn = windows.draw_augmentation(rng, recording, self.window_frames, self.spec, stage)
        augmentation = WindowAugmentation(
            stage=stage, device=drawn.device, noise=drawn.noise, overlays=overlays
        )
        window = cut_window(
            recording, plan.first, self.window_frames, augmentation, self.spec, plan.keep
        )
        # `augment` stretches the times too, so it needs some even where none are known.
        blank = np.zeros((2, self.window_frames), np.float32)
        has_times = plan.times is not None
        window, times = windows.augment(window, blank if plan.times is None else plan.times, rng)
        source_row = one_hot(plan.source, len(SOURCES))
        return window, pack_target(
            plan.label, source_row, times if has_times else None, self.window_frames
        )

    def segment_window(self, segment: Segment, stage: int | None = None) -> Floats:
        """One segment in the middle of a window, all else masked: (mel, frames)."""
        return cut_window(
            self.recordings[segment.recording],
            self._centred_start(segment),
            self.window_frames,
            WindowAugmentation(stage=default_stage(self.spec) if stage is None else stage),
            self.spec,
            range(segment.start, segment.end),
        )

    def validation_recordings(self) -> list[int]:
        """The whole recordings with events in the validation split."""
        return [
            i
            for i, recording in enumerate(self.recordings)
            if self.splits[i] == "validation"
            and recording.take.site == "sprsound"
            and recording.events
        ]

    def segment_windows(self, segment: Segment) -> list[Floats]:
        """The windows that cover one segment, all else masked; a short one fits in one window."""
        length = segment.end - segment.start
        recording = self.recordings[segment.recording]
        # SPRSound's events get a single window, as `load` gives them in validation.
        if length <= self.window_frames or recording.take.site == "sprsound":
            return [self.segment_window(segment)]
        hop = round(self.spec.window_hop_s * self.frames_per_second)
        plain = WindowAugmentation(stage=default_stage(self.spec))
        keep = range(segment.start, segment.end)
        return [
            cut_window(recording, segment.start + start, self.window_frames, plain, self.spec, keep)
            for start in spectrogram.window_starts(length, self.window_frames, hop)
        ]

    def window_label(self, recording: int, first: int) -> tuple[Floats, Floats]:
        """When crackles and wheezes sound in a window, (2, frames), and its label."""
        times = np.zeros((2, self.window_frames), np.float32)
        for start, end, kind in self.recordings[recording].events:
            span = slice(max(start - first, 0), max(end - first, 0))
            # An event that overlaps an earlier one takes on its sounds too, over its whole length.
            times[0, span] = max(times[0, span].max(initial=0), kind in (CRACKLE, BOTH))
            times[1, span] = max(times[1, span].max(initial=0), kind in (WHEEZE, BOTH))
        duration = times.sum(1)
        audible, present = duration >= _AUDIBLE_S * self.frames_per_second, duration > 0
        label = one_hot(int(audible[0]) + 2 * int(audible[1]), 4)
        # An event of which too little is in the window to be sure that it is audible counts half.
        if (present & ~audible).any():
            all_present = one_hot(int(present[0]) + 2 * int(present[1]), 4)
            label = ((label + all_present) / 2).astype(np.float32)
        return times, label

    def frame_kinds(self, recording: int) -> NDArray[np.int64]:
        """The class of every frame, by the annotated events: (frames,)."""
        events = self.recordings[recording].events
        sounding = np.zeros((2, self.recordings[recording].frames), np.int64)
        for start, end, kind in events:
            sounding[0, start:end] |= kind in (CRACKLE, BOTH)
            sounding[1, start:end] |= kind in (WHEEZE, BOTH)
        kinds: NDArray[np.int64] = sounding[0] * CRACKLE + sounding[1] * WHEEZE
        return kinds

    def _centred_start(self, segment: Segment) -> int:
        return (segment.start + segment.end) // 2 - self.window_frames // 2

    def _plan_event(self, i: int, rng: np.random.Generator) -> _WindowPlan:
        return self._plan_segment(self.events[i], rng, source=0)

    def _plan_segment(self, segment: Segment, rng: np.random.Generator, source: int) -> _WindowPlan:
        # A short segment moves within the window, a long one behind it.
        slack = abs(self.window_frames - (segment.end - segment.start))
        first = self._centred_start(segment) + int(rng.integers(-(slack // 2), slack // 2 + 1))
        times = None
        # A cycle's label holds for the whole breath, not for every moment of it.
        if source == 0 and self.recordings[segment.recording].events:
            times, _ = self.window_label(segment.recording, first)
            # The neighbours are masked by `keep`, so they do not sound in this window.
            times[:, : max(0, segment.start - first)] = 0
            times[:, max(0, segment.end - first) :] = 0
        return _WindowPlan(
            recording=segment.recording,
            first=first,
            source=source,
            label=one_hot(segment.kind, 4),
            times=times,
            keep=range(segment.start, segment.end),
        )

    def _plan_cycle(self, i: int, rng: np.random.Generator) -> _WindowPlan:
        cycle = self.cycles[int(rng.choice(len(self.cycles), p=self._cycle_probabilities))]
        return self._plan_segment(cycle, rng, source=2)

    def _plan_window(self, i: int, rng: np.random.Generator) -> _WindowPlan:
        probabilities = _normalise(self._recording_weights)
        recording = self.timed_recordings[
            int(rng.choice(len(self.timed_recordings), p=probabilities))
        ]
        abnormal = [e for e in self.recordings[recording].events if e[2] != NORMAL]
        last = max(0, self.recordings[recording].frames - self.window_frames)
        first = int(rng.integers(0, last + 1))
        if abnormal and rng.random() < _NEAR_EVENT:
            start, end, _ = abnormal[int(rng.integers(len(abnormal)))]
            # In a window of 2 s, the middle of the event stays inside.
            reach = round(0.9 * self.frames_per_second)
            first = (start + end - self.window_frames) // 2 + int(rng.integers(-reach, reach + 1))
            first = max(0, min(first, last))
        times, label = self.window_label(recording, first)
        return _WindowPlan(recording=recording, first=first, source=1, label=label, times=times)

    def _plan_synthetic(self, i: int, rng: np.random.Generator) -> _WindowPlan:
        """Crackles, wheezes, both or nothing, added to real normal breathing."""
        # The background: a normal segment, alone or with all around it, or any window of a normal
        # recording.
        segment = self._normal_segments[int(rng.integers(len(self._normal_segments)))]
        recording, first, keep = segment.recording, self._centred_start(segment), None
        if self._normal_recordings and rng.random() < 0.3:
            recording = self._normal_recordings[int(rng.integers(len(self._normal_recordings)))]
            last = max(1, self.recordings[recording].frames - self.window_frames)
            first = int(rng.integers(0, last))
        elif rng.random() < 0.6:
            keep = range(segment.start, segment.end)
        # The frames of the window that are not masked: events are added between them.
        ends = (0, self.recordings[recording].frames) if keep is None else (keep.start, keep.stop)
        low, high = max(0, ends[0] - first), min(self.window_frames, ends[1] - first)
        kind = int(rng.choice(4, p=(0.3, 0.28, 0.28, 0.14)))
        times = np.zeros((2, self.window_frames), np.float32)
        overlays: list[EventOverlay] = []
        if kind in (CRACKLE, BOTH):
            overlays += event_bank.draw_crackles(self.event_bank, rng, (low, high), times[0])
        if kind in (WHEEZE, BOTH):
            overlays.append(
                event_bank.draw_overlay(self.event_bank, "wheeze", rng, (low, high), times[1])
            )
        return _WindowPlan(
            recording=recording,
            first=first,
            source=3,
            label=one_hot(kind, 4),
            times=times,
            keep=keep,
            overlays=tuple(overlays),
        )

    def _plan_manikin(self, i: int, rng: np.random.Generator) -> _WindowPlan:
        recording = self.manikin_recordings[
            int(rng.choice(len(self.manikin_recordings), p=self._manikin_probabilities))
        ]
        last = max(0, self.recordings[recording].frames - self.window_frames)
        kind = self.recordings[recording].take.kind or NORMAL
        label = _CERTAINTY * one_hot(kind, 4) + (1 - _CERTAINTY) * one_hot(NORMAL, 4)
        return _WindowPlan(
            recording=recording,
            first=int(rng.integers(0, last + 1)),
            source=4,
            label=label.astype(np.float32),
            times=None,
        )


def _labelled_segments(
    recordings: list[RecordingSpectrograms], splits: list[Split]
) -> list[Segment]:
    """Recordings with one label, from beginning to end."""
    return [
        Segment(
            recording=i,
            start=0,
            end=recording.frames,
            kind=recording.take.kind,
            split=splits[i],
        )
        for i, recording in enumerate(recordings)
        if recording.take.kind is not None and recording.take.site in WITHOUT_TIMES
    ]


def _rarity_weights(kinds: list[int], power: float) -> NDArray[np.float64]:
    """Probabilities that draw rare classes more often: by class size to the power of -`power`."""
    if not kinds:
        return np.zeros(0)
    sizes = np.bincount(kinds, minlength=4).astype(float)
    return _normalise(sizes[np.array(kinds)] ** -power)


def _normalise(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    probabilities: NDArray[np.float64] = weights / weights.sum()
    return probabilities
