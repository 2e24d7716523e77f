"""Windows of a spectrogram, cut when the network is asked about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo import files, spectrum

if TYPE_CHECKING:
    from xai_demo.annotations import Cycle
    from xai_demo.records import Floats, LogMel


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The frames of one window, first and one past the last, and whose answer it counts to."""

    first: int
    last: int
    part: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Windows:
    """What the network is given, (windows, 1, mel, frames), as an array that is not held."""

    decibels: Floats  # (mel, frames)
    spans: tuple[Span, ...]
    seen: int  # frames of every window; a shorter span is repeated up to it
    spec: LogMel
    levels: spectrum.Levels  # of the whole recording

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """As numpy has it."""
        return len(self.spans), 1, self.spec.n_mels, self.spec.frames or self.seen

    def __len__(self) -> int:
        """How many there are."""
        return len(self.spans)

    def __getitem__(self, key: Any) -> Floats:
        """The windows of an index that numpy would take."""
        first, rest = (key[0], key[1:]) if isinstance(key, tuple) else (key, ())
        if first is Ellipsis:
            whole: Floats = self[:][key]
            return whole
        chosen = np.arange(len(self))[first]
        cut = np.stack([self._cut(self.spans[i]) for i in np.atleast_1d(chosen)])[:, None]
        files.settle(self.decibels)
        cut = spectrum.padded(spectrum.conditioned(cut, self.spec, self.levels), self.spec)
        found: Floats = cut if np.ndim(chosen) else cut[0]
        return found[(slice(None), *rest)] if rest and np.ndim(chosen) else found[rest]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Floats:
        """All of them, at once in memory."""
        return np.asarray(self[:], dtype)

    def min(self) -> float:
        """The lowest value of all."""
        lowest = np.array([[self.levels.lowest]], np.float32)
        values = spectrum.conditioned(lowest, self.spec, self.levels)
        missing = self.shape[3] > self.seen
        return float(min(values.min(), spectrum.padding(self.spec) if missing else np.inf))

    def _cut(self, span: Span) -> Floats:
        held = self.decibels[:, span.first : span.last]
        missing = self.seen - held.shape[1]
        return np.pad(held, ((0, 0), (0, missing)), mode="wrap") if missing > 0 else held


def one_after_another(n_frames: int, window: int, spec: LogMel) -> tuple[Span, ...]:
    """Overlapping windows over all frames, each with an answer of its own."""
    hop = round(spec.window_hop_s * spec.sample_rate_hz / spec.hop_length)
    starts = spectrum.window_starts(n_frames, window, hop)
    return tuple(Span(first=s, last=s + window, part=i) for i, s in enumerate(starts))


def of_cycles(
    cycles: Sequence[Cycle], window: int, n_frames: int, spec: LogMel
) -> tuple[Span, ...]:
    """The windows of every breath: one for a short breath, overlapping ones for a long one."""
    rate = spec.sample_rate_hz / spec.hop_length
    spans = []
    for i, cycle in enumerate(cycles):
        first = min(round(cycle.start_s * rate), n_frames - 1)
        last = min(max(round(cycle.end_s * rate), first + 1), n_frames)
        for inner in one_after_another(last - first, min(window, last - first), spec):
            spans.append(Span(first=first + inner.first, last=first + inner.last, part=i))
    return tuple(spans)
