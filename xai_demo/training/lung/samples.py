"""Windows of all sources for lung models to learn from, varied: see `lung` for what they are."""

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
from xai_demo.training.losses import packed
from xai_demo.training.lung import windows
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

SOURCES = ("events", "windows", "cycles", "synthesised")
WITHOUT_TIMES = ("fraiwan", "folders")  # sites that label whole recordings
_SHARES = np.array([0.42, 0.2, 0.08, 0.3])  # of what training hears
_STAGE_SHARES = np.array([0.3, 0.45, 0.25])  # raw, filtered, denoised
_AUDIBLE_S = 0.15  # an event counts in a window that holds this much of it
_BANK = 600  # synthesised events of each kind
_ABNORMAL_WEIGHT = 2.0  # a whole recording with something in it is heard twice as often
_NEAR = 0.6  # share of the windows of such a recording that lie about an event


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One annotated stretch: which recording, from and to which frame, and what it is."""

    recording: int
    start: int
    end: int
    kind: int
    split: Split


@dataclass(frozen=True, slots=True, kw_only=True)
class _WindowPlan:
    """A window to be made."""

    recording: int
    first: int
    source: int
    label: Floats
    times: Floats | None
    blot: range | None = None
    added: tuple[EventOverlay, ...] = ()


class LungDataset:
    """Windows of all sources; deterministic for an rng, without one the plain event."""

    def __init__(
        self, sounds: list[RecordingSpectrograms], splits: list[Split], spec: LogMel
    ) -> None:
        self.sounds, self.splits, self.spec = sounds, splits, spec
        self.per_second = spec.sample_rate_hz / spec.hop_length
        self.frames = round(spec.window_s * self.per_second)
        self.places = [
            Segment(recording=i, start=start, end=end, kind=kind, split=splits[i])
            for i, sound in enumerate(sounds)
            for start, end, kind in sound.events
        ]
        at = {
            site: [p for p in self.places if sounds[p.recording].take.site == site]
            for site in ("sprsound", "icbhi")
        }
        # The child's events are what is validated on; without them, the cycles are; and without
        # any annotated time, recordings with one label.
        self.events = at["sprsound"] or at["icbhi"] or _labelled_segments(sounds, splits)
        self.labelled = [
            i
            for i, sound in enumerate(sounds)
            if sound.take.site in WITHOUT_TIMES
            and sound.take.kind is not None
            and splits[i] == "train"
            and self.places
        ]
        self.cycles = [p for p in at["icbhi"] if p.split == "train"] if at["sprsound"] else []
        self.whole = [
            i
            for i, sound in enumerate(sounds)
            if sound.take.site == "sprsound" and sound.events and splits[i] == "train"
        ]
        self.calm = [i for i in self.whole if all(e[2] == NORMAL for e in sounds[i].events)]
        self.normal = [
            p for p in (*self.events, *self.cycles) if p.kind == NORMAL and p.split == "train"
        ]
        self.chances = np.array(
            [_ABNORMAL_WEIGHT if any(e[2] for e in sounds[i].events) else 1.0 for i in self.whole]
        )
        self.cycle_chances = _rarity_weights([p.kind for p in self.cycles], 0.7)
        having = np.array([True, bool(self.whole), bool(self.cycles), bool(self.normal)])
        self.shares = _SHARES * having / (_SHARES * having).sum()

    @cached_property
    def bank(self) -> dict[windows.Kind, list[Floats]]:
        """Synthesised events, made when the first is asked for."""
        return windows.event_bank(_BANK, 0, self.spec)

    def load(self, i: int, rng: np.random.Generator | None) -> tuple[Floats, Floats]:
        """Event `i`; with an rng often something else, varied: (mel, frames), packed target."""
        if rng is None:
            return self.plain(self.events[i]), one_hot(self.events[i].kind, 4)
        source = int(rng.choice(len(SOURCES), p=self.shares))
        draw: _WindowPlan = (self._event, self._window, self._cycle, self._synthesised)[source](
            i, rng
        )
        sound = self.sounds[draw.recording]
        stage = int(rng.choice(3, p=_STAGE_SHARES))
        varied = windows.draw_augmentation(rng, sound, self.frames, self.spec, stage)
        change = WindowAugmentation(
            stage=stage, gain_db=varied.gain_db, noise=varied.noise, added=draw.added
        )
        window = cut_window(sound, draw.first, self.frames, change, self.spec, draw.blot)
        blank = np.zeros((2, self.frames), np.float32)
        known = draw.times is not None
        window, times = windows.augment(window, blank if draw.times is None else draw.times, rng)
        source_row = one_hot(draw.source, len(SOURCES))
        return window, packed(draw.label, source_row, times if known else None, self.frames)

    def plain(self, place: Segment, stage: int | None = None) -> Floats:
        """One stretch in the middle of a window, all else blotted out: (mel, frames)."""
        change = WindowAugmentation(stage=default_stage(self.spec) if stage is None else stage)
        blot = range(place.start, place.end)
        return cut_window(
            self.sounds[place.recording], self._middle(place), self.frames, change, self.spec, blot
        )

    def validated(self) -> list[int]:
        """The whole recordings of validation that hold events."""
        return [
            i
            for i, sound in enumerate(self.sounds)
            if self.splits[i] == "validation" and sound.take.site == "sprsound" and sound.events
        ]

    def parts(self, place: Segment) -> list[Floats]:
        """One stretch in windows that cover it, all else blotted out; a short one in one window."""
        length = place.end - place.start
        if length <= self.frames or self.sounds[place.recording].take.site == "sprsound":
            return [self.plain(place)]
        hop = round(self.spec.window_hop_s * self.per_second)
        change, blot = (
            WindowAugmentation(stage=default_stage(self.spec)),
            range(place.start, place.end),
        )
        sound = self.sounds[place.recording]
        return [
            cut_window(sound, place.start + start, self.frames, change, self.spec, blot)
            for start in spectrogram.window_starts(length, self.frames, hop)
        ]

    def heard_in(self, recording: int, first: int) -> tuple[Floats, Floats]:
        """When crackles and wheezes sound in a window, (2, frames), and its label."""
        times = np.zeros((2, self.frames), np.float32)
        for start, end, kind in self.sounds[recording].events:
            span = slice(max(start - first, 0), max(end - first, 0))
            times[0, span] = max(times[0, span].max(initial=0), kind in (CRACKLE, BOTH))
            times[1, span] = max(times[1, span].max(initial=0), kind in (WHEEZE, BOTH))
        lasts = times.sum(1)
        clear, some = lasts >= _AUDIBLE_S * self.per_second, lasts > 0
        label = one_hot(int(clear[0]) + 2 * int(clear[1]), 4)
        if (some & ~clear).any():
            also = one_hot(int(some[0]) + 2 * int(some[1]), 4)
            label = ((label + also) / 2).astype(np.float32)
        return times, label

    def sounding(self, recording: int) -> NDArray[np.int64]:
        """The kind of what sounds in every frame, by the annotated events: (frames,)."""
        sound = self.sounds[recording]
        heard = np.zeros((2, sound.frames), np.int64)
        for start, end, kind in sound.events:
            heard[0, start:end] |= kind in (CRACKLE, BOTH)
            heard[1, start:end] |= kind in (WHEEZE, BOTH)
        kinds: NDArray[np.int64] = heard[0] * CRACKLE + heard[1] * WHEEZE
        return kinds

    def _middle(self, place: Segment) -> int:
        return (place.start + place.end) // 2 - self.frames // 2

    def _event(self, i: int, rng: np.random.Generator) -> _WindowPlan:
        return self._placed(self.events[i], rng, source=0)

    def _placed(self, place: Segment, rng: np.random.Generator, source: int) -> _WindowPlan:
        slack = abs(self.frames - (place.end - place.start))
        first = self._middle(place) + int(rng.integers(-(slack // 2), slack // 2 + 1))
        times = None
        # A cycle's label holds for the whole breath, not for its every moment.
        if source == 0 and self.sounds[place.recording].events:
            times, _ = self.heard_in(place.recording, first)
            times[:, : max(0, place.start - first)] = 0
            times[:, max(0, place.end - first) :] = 0
        return _WindowPlan(
            recording=place.recording,
            first=first,
            source=source,
            label=one_hot(place.kind, 4),
            times=times,
            blot=range(place.start, place.end),
        )

    def _cycle(self, i: int, rng: np.random.Generator) -> _WindowPlan:
        chosen = self.cycles[int(rng.choice(len(self.cycles), p=self.cycle_chances))]
        return self._placed(chosen, rng, source=2)

    def _window(self, i: int, rng: np.random.Generator) -> _WindowPlan:
        recording = self.whole[int(rng.choice(len(self.whole), p=_normalise(self.chances)))]
        found = [e for e in self.sounds[recording].events if e[2] != NORMAL]
        last = max(0, self.sounds[recording].frames - self.frames)
        first = int(rng.integers(0, last + 1))
        if found and rng.random() < _NEAR:
            start, end, _ = found[int(rng.integers(len(found)))]
            reach = round(0.9 * self.per_second)
            first = (start + end - self.frames) // 2 + int(rng.integers(-reach, reach + 1))
            first = max(0, min(first, last))
        times, label = self.heard_in(recording, first)
        return _WindowPlan(recording=recording, first=first, source=1, label=label, times=times)

    def _synthesised(self, i: int, rng: np.random.Generator) -> _WindowPlan:
        """Crackles, wheezes, both or nothing, laid over real normal breathing."""
        place = self.normal[int(rng.integers(len(self.normal)))]
        recording, first, blot = place.recording, self._middle(place), None
        if self.calm and rng.random() < 0.3:
            recording = self.calm[int(rng.integers(len(self.calm)))]
            first = int(rng.integers(0, max(1, self.sounds[recording].frames - self.frames)))
        elif rng.random() < 0.6:
            blot = range(place.start, place.end)
        sound = self.sounds[recording]
        ends = (0, sound.frames) if blot is None else (blot.start, blot.stop)
        low, high = max(0, ends[0] - first), min(self.frames, ends[1] - first)
        kind = int(rng.choice(4, p=(0.3, 0.28, 0.28, 0.14)))
        times = np.zeros((2, self.frames), np.float32)
        added: list[EventOverlay] = []
        if kind in (CRACKLE, BOTH):
            for _ in range(int(rng.integers(1, 4))):
                added.append(self._added("crackle", rng, low, high, times[0]))
        if kind in (WHEEZE, BOTH):
            added.append(self._added("wheeze", rng, low, high, times[1]))
        return _WindowPlan(
            recording=recording,
            first=first,
            source=3,
            label=one_hot(kind, 4),
            times=times,
            blot=blot,
            added=tuple(added),
        )

    def _added(
        self, kind: windows.Kind, rng: np.random.Generator, low: int, high: int, times: Floats
    ) -> EventOverlay:
        power = self.bank[kind][int(rng.integers(_BANK))]
        power = power[:, : max(1, high - low)]
        at = int(rng.integers(low, max(low, high - power.shape[1]) + 1))
        times[at : at + power.shape[1]] = 1
        snr_db = rng.uniform(-4, 14) if kind == "crackle" else rng.uniform(-8, 10)
        return EventOverlay(power=power[:, : self.frames - at], at=at, snr_db=float(snr_db))


def _labelled_segments(sounds: list[RecordingSpectrograms], splits: list[Split]) -> list[Segment]:
    """Recordings with one label, from beginning to end."""
    return [
        Segment(recording=i, start=0, end=sound.frames, kind=sound.take.kind, split=splits[i])
        for i, sound in enumerate(sounds)
        if sound.take.kind is not None and sound.take.site in WITHOUT_TIMES
    ]


def _rarity_weights(kinds: list[int], power: float) -> NDArray[np.float64]:
    """Chances that draw rare kinds more often: by class size to the power of -`power`."""
    if not kinds:
        return np.zeros(0)
    sizes = np.bincount(kinds, minlength=4).astype(float)
    return _normalise(sizes[np.array(kinds)] ** -power)


def _normalise(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares
