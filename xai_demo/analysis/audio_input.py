"""A recording as a network's input: signal path, log-mel spectrogram, windows or cycles.

The windows' outputs are put together again here: probabilities and heatmaps over the recording,
events, and the sound of the explanation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo import decision, files
from xai_demo.analysis import heatmap, recording_checks
from xai_demo.audio import spectrogram
from xai_demo.audio.events import detect_events, event_probabilities_over_time, evidence_over_time
from xai_demo.audio.filters import SignalPath
from xai_demo.audio.segments import LogMelWindows, Span, cycle_windows, sliding_windows
from xai_demo.records import Event, Explanation, LogMel, Model, Recording, Timeline, View

if TYPE_CHECKING:
    from xai_demo.audio.segments import Cycle
    from xai_demo.records import Floats

# Frames of one step of a framewise network: the five pooling layers of PANNs halve them five times.
STEP_FRAMES = 32
# Longer recordings are analysed, but not turned back into sound.
MAX_PLAYED_S = 300.0

# Decibels below the loudest point at which the spectrogram is drawn black.
_DRAWN_RANGE_DB = 80
# Long recordings are filtered in chunks, each with some of the sound before and after it.
_FILTER_CHUNK_S = 300.0
_FILTER_OVERLAP_S = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioInput:
    """A recording as windows of a log-mel spectrogram: overlapping ones, or one for each cycle."""

    inputs: LogMelWindows
    facts: Mapping[str, Any]
    warnings: tuple[str, ...]
    blank: str
    sample_rate_hz: int | None
    spec: LogMel
    raw: Floats  # (time,), as read
    samples: Floats  # (time,), after the signal path
    decibels: Floats  # (mel, frames) of `samples`
    segments_s: tuple[tuple[float, float], ...]  # windows or cycles, with one answer each
    has_cycles: bool = False
    doubt: str = ""
    stages: Mapping[str, Floats] = field(default_factory=dict)

    @property
    def valid_columns(self) -> int:
        """Frames of each window that come from the recording; the rest is padding."""
        return self.inputs.window_frames

    @property
    def starts(self) -> tuple[int, ...]:
        """The first frame of each window."""
        return tuple(span.first for span in self.inputs.spans)

    @property
    def frame_s(self) -> float:
        """Seconds from one frame to the next."""
        return self.spec.hop_length / self.spec.sample_rate_hz

    @property
    def duration_s(self) -> float:
        """Seconds of the whole recording."""
        return len(self.samples) / self.spec.sample_rate_hz

    def window_span_s(self, window: int) -> tuple[float, float] | None:
        """Start and end of a window in seconds; None if it is the only one."""
        if len(self.inputs) == 1:
            return None
        return _spans_s((self.inputs.spans[window],), len(self.samples), self.spec)[0]

    def file_probabilities(self, model: Model, probabilities: Floats) -> Floats:
        """The probabilities of the recording, see `decision.pool_windows`; cycles count alike."""
        return decision.pool_windows(model, self.timeline(model, probabilities).probabilities)

    def timeline(
        self, model: Model, probabilities: Floats, steps: Floats | None = None
    ) -> Timeline:
        """Probabilities over time, with one row for each window, cycle or step.

        `steps` are those of a framewise network, (windows, labels, steps of `STEP_FRAMES`). Where
        windows overlap, the highest probability of a step counts.
        """
        if steps is not None and not self.has_cycles:
            return self._step_timeline(model, steps)
        rows = probabilities
        if self.has_cycles:
            # The windows of a cycle follow each other, and cycles are in order.
            cycles = [span.segment for span in self.inputs.spans]
            edges = np.searchsorted(cycles, range(1, len(self.segments_s)))
            parts = np.split(probabilities, edges)
            rows = np.stack([decision.pool_windows(model, part) for part in parts])
        return Timeline(
            starts_s=tuple(start for start, _ in self.segments_s),
            ends_s=tuple(end for _, end in self.segments_s),
            labels=model.labels,
            probabilities=rows,
        )

    def _step_timeline(self, model: Model, steps: Floats) -> Timeline:
        n_frames = self.decibels.shape[1]
        n_steps = max(1, round(n_frames / STEP_FRAMES))
        middles = np.minimum((np.arange(n_steps) + 0.5) * STEP_FRAMES, n_frames - 1)
        rows = np.zeros((n_steps, len(model.labels)), np.float32)
        for first, window in zip(self.starts, steps, strict=True):
            is_inside = (middles >= first) & (middles < first + self.valid_columns)
            step = np.minimum((middles[is_inside] - first) // STEP_FRAMES, window.shape[1] - 1)
            rows[is_inside] = np.maximum(rows[is_inside], window[:, step.astype(int)].T)
        edges_s = [i * STEP_FRAMES * self.frame_s for i in range(n_steps)]
        return Timeline(
            starts_s=tuple(edges_s),
            ends_s=(*edges_s[1:], self.duration_s),
            labels=model.labels,
            probabilities=rows,
        )

    def explanation(self, windows: Floats, weights: Floats, **fields: Any) -> Explanation:
        """One heatmap of the recording, stitched from those of its windows."""
        n_frames, columns = self.decibels.shape[1], self.inputs.shape[3]
        spans = self.inputs.spans
        whole = heatmap.normalise(
            heatmap.stitch_windows(
                heatmap.crop_padding(windows, columns, self.valid_columns),
                self.starts,
                weights.tolist(),
                self.valid_columns,
                self.spec,
                n_frames,
                [span.last - span.first for span in spans] if self.has_cycles else None,
            )
        )
        step = heatmap.frames_per_column(n_frames)
        # A single full window keeps the network's own grid, exactly as computed.
        if len(windows) == 1 and n_frames >= columns and not self.has_cycles:
            values = heatmap.normalise(windows[0])
        else:
            cells = max(1, round(windows.shape[2] * n_frames / columns))
            values = heatmap.average_to_grid(whole, windows.shape[1], min(cells, whole.shape[1]))
        return Explanation(
            values=values,
            heatmap=whole,
            peak=heatmap.peak_in_sound(whole, self.spec, step),
            **fields,
        )

    def events(
        self,
        model: Model,
        probabilities: Floats,
        steps: Floats | None = None,
        evidence: Floats | None = None,
    ) -> tuple[Event, ...]:
        """Findings with their times; none in a blank or doubtful recording.

        Labels that do not exclude each other (sigmoid) may overlap. Models with event points are
        searched as precisely as the windows overlap or, with `evidence` (windows, labels, columns),
        by its columns. Of all others, neighbouring windows with the same finding are joined, while
        cycles stay apart.
        """
        if self.blank or self.doubt:
            return ()
        timeline = self.timeline(model, probabilities, steps)
        if model.activation == "sigmoid":
            return independent_events(model, timeline)
        if model.event_points and len(self.inputs) > 1 and not self.has_cycles:
            return self._precise_events(model, probabilities, evidence)
        events: list[Event] = []
        rows = zip(timeline.probabilities, timeline.starts_s, timeline.ends_s, strict=True)
        for row, start_s, end_s in rows:
            answer = decision.decide(model, row)
            label, p = answer.label, answer.probability
            if label is None or label == model.normal_label:
                continue
            touches = events and events[-1].label == label and events[-1].end_s >= start_s
            if touches and not self.has_cycles:
                start_s, p = events[-1].start_s, max(events[-1].probability, p)
                events.pop()
            times = {"start_s": round(start_s, 3), "end_s": round(end_s, 3)}
            events.append(Event(label=label, probability=round(p, 4), **times))
        return tuple(events)

    def _precise_events(
        self, model: Model, probabilities: Floats, evidence: Floats | None
    ) -> tuple[Event, ...]:
        """Events between the edges of all windows, see `detect_events`."""
        spans = np.array([(span.first, span.last) for span in self.inputs.spans])
        edges, rows = event_probabilities_over_time(spans[:, 0], spans[:, 1], probabilities)
        weighted = None if evidence is None else evidence * probabilities[:, :, None]

        def curve(label: int, first: int, last: int) -> Floats:
            columns = weighted[:, label]  # type: ignore[index]
            return evidence_over_time(
                spans, columns, frames=self.inputs.shape[3], first=first, last=last
            )

        return detect_events(
            model,
            edges,
            rows,
            # The last window may reach beyond the end of the recording.
            seconds_at=lambda frame: min(frame * self.frame_s, self.duration_s),
            evidence=None if evidence is None else curve,
        )

    def view_and_sounds(self, explanation: Explanation) -> tuple[View, Mapping[str, Floats]]:
        """The spectrogram in grey, and three sounds: original, explanation and remainder."""
        step = heatmap.frames_per_column(self.decibels.shape[1])
        levels = heatmap.max_per_column(self.decibels, step)
        high = float(levels.max())
        low = max(float(levels.min()), high - _DRAWN_RANGE_DB)
        grey = np.clip((levels - low) / max(high - low, 1e-6), 0, 1)
        view = View(
            pixels=np.round(255 * grey[::-1]).astype(np.uint8),
            duration_s=self.duration_s,
            row_frequencies_hz=spectrogram.mel_frequencies_hz(self.spec),
            decibels=(low, high),
        )
        sounds = {"original": self.raw}
        if self.duration_s <= MAX_PLAYED_S:
            frames = np.repeat(explanation.heatmap, step, axis=1)
            audible = spectrogram.mask_sound(self.samples, frames, self.spec)
            sounds |= {"explanation": audible, "remainder": self.samples - audible}
        return view, sounds


def independent_events(model: Model, timeline: Timeline) -> tuple[Event, ...]:
    """Where each label reaches its operating point, or 0.5 without one; neighbours are joined."""
    points = decision.operating_points(model)
    events: list[Event] = []
    for k, label in enumerate(timeline.labels):
        if label == model.normal_label:
            continue
        probabilities = timeline.probabilities[:, k]
        above = np.flatnonzero(probabilities >= points.get(label, 0.5))
        # Windows overlap and steps touch, so a gap of one row ends an event.
        for rows in np.split(above, np.flatnonzero(np.diff(above) > 1) + 1):
            if len(rows):
                events.append(
                    Event(
                        label=label,
                        start_s=round(timeline.starts_s[rows[0]], 3),
                        end_s=round(timeline.ends_s[rows[-1]], 3),
                        probability=round(float(probabilities[rows].max()), 4),
                    )
                )
    return tuple(sorted(events, key=lambda event: (event.start_s, event.label)))


def model_signal_path(spec: LogMel) -> SignalPath:
    """The signal path that a model was trained with, used unless the request has another."""
    return SignalPath(band_hz=spec.band_hz, denoise=spec.denoise)


def prepare_audio(
    recording: Recording,
    model: Model,
    path: SignalPath | None,
    cycles: tuple[Cycle, ...],
    check: Callable[[], None] = lambda: None,
) -> AudioInput:
    """Filter a recording, compute its spectrogram and cut it into windows or cycles.

    `check` is called every few minutes of sound, and may raise. Raises TypeError for a model of
    images, and UnsuitableError for a band that the filter refuses.
    """
    spec = model.preprocessing
    if not isinstance(spec, LogMel):
        raise TypeError(f"{model.name} is not a model of sounds")
    path = model_signal_path(spec) if path is None else path
    stages, samples = _run_signal_path(recording, path, check)
    min_samples = round(max(spec.min_s, 0) * spec.sample_rate_hz)
    decibels = _decibels(spectrogram.repeat_to_length(samples, min_samples), spec, check)
    window = min(spectrogram.window_frames(spec), decibels.shape[1])
    # Repeated sound is analysed, but neither drawn nor timed.
    n_frames = spectrogram.frame_count(len(samples), spec)
    spans = cycle_windows(cycles, window, n_frames, spec)
    spans = spans or sliding_windows(decibels.shape[1], window, spec)
    doubt, warnings = (
        "",
        recording.warnings + recording_checks.padding_warning(recording, min_samples, spec),
    )
    facts = dict(recording.facts)
    if model.task == "stethoscope":
        doubt, quality_warnings = recording_checks.quality_findings(recording)
        warnings += quality_warnings
        band = None if path.band_hz is None else list(path.band_hz)
        facts["signal_path"] = {"band_hz": band, "denoise": path.denoise}
    cycles_s = tuple((cycle.start_s, cycle.end_s) for cycle in cycles)
    return AudioInput(
        inputs=LogMelWindows(
            decibels=decibels,
            spans=spans,
            window_frames=window,
            spec=spec,
            levels=spectrogram.measure_levels(decibels, spec),
        ),
        facts=facts,
        warnings=warnings,
        blank=recording_checks.blank_reason(recording),
        sample_rate_hz=spec.sample_rate_hz,
        spec=spec,
        raw=recording.samples,
        samples=samples,
        decibels=decibels[:, :n_frames],
        segments_s=cycles_s or _spans_s(spans, len(samples), spec),
        has_cycles=bool(cycles),
        doubt=doubt,
        stages=stages,
    )


def _run_signal_path(
    recording: Recording, path: SignalPath, check: Callable[[], None]
) -> tuple[Mapping[str, Floats], Floats]:
    """The sound after each step, none for a long recording; and the sound after the last step."""
    rate, raw = recording.sample_rate_hz, recording.samples
    if len(raw) <= MAX_PLAYED_S * rate:
        stages = path.run(raw, rate)
        return {stage.name: stage.samples for stage in stages}, stages[-1].samples
    if path.band_hz is None and not path.denoise:
        return {}, raw
    size, overlap = round(_FILTER_CHUNK_S * rate), round(_FILTER_OVERLAP_S * rate)
    samples = files.allocate_array(raw.shape)
    for first in range(0, len(raw), size):
        check()
        end, start = min(first + size, len(raw)), max(first - overlap, 0)
        stage = path.run(raw[start : end + overlap], rate)[-1]
        samples[first:end] = stage.samples[first - start : end - start]
        # Both may be memory-mapped: an hour must not stay in memory.
        files.release_pages(raw)
        files.release_pages(samples)
    return {}, samples


def _decibels(samples: Floats, spec: LogMel, check: Callable[[], None]) -> Floats:
    """The log-mel spectrogram, (mel, frames); memory-mapped if it is large."""
    frames = files.allocate_array((spectrogram.frame_count(len(samples), spec), spec.n_mels))
    for first, piece in spectrogram.log_mel_chunks(samples, spec):
        check()
        frames[first : first + piece.shape[1]] = piece.T
        files.release_pages(samples)
        files.release_pages(frames)
    decibels: Floats = frames.T
    return decibels


def _spans_s(
    spans: tuple[Span, ...], n_samples: int, spec: LogMel
) -> tuple[tuple[float, float], ...]:
    """Start and end of each span in seconds, none beyond the end of the recording."""
    frame_s, duration_s = spec.hop_length / spec.sample_rate_hz, n_samples / spec.sample_rate_hz
    return tuple((span.first * frame_s, min(span.last * frame_s, duration_s)) for span in spans)
