"""A recording on its way through a network: signal path, spectrogram, windows or breaths, heat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo import (
    decision as moments,
)
from xai_demo import files
from xai_demo.analysis import heatmap as heat
from xai_demo.audio import quality, spectrogram
from xai_demo.audio.filters import SignalPath
from xai_demo.audio.segments import (
    LogMelWindows,
    Span,
    cycle_windows,
    sliding_windows,
)
from xai_demo.decision import decide, operating_points, pool_windows
from xai_demo.records import Event, Explanation, LogMel, Model, Recording, Timeline, View

if TYPE_CHECKING:
    from xai_demo.audio.segments import Cycle
    from xai_demo.records import Floats

STEP_FRAMES = 32  # of an answer for a moment: what the last block of PANNs halves five times
LONGEST_HEARD_S = 300.0  # recordings over this are not turned back into sound
# From these shares of a recording on, it is too little of a breath sound to be called anything.
DOUBTFUL: Mapping[quality.Kind, float] = {
    "silence": 0.9,
    "clipping": 0.1,
    "speech": 0.5,
    "music": 0.5,
    "noise": 0.5,
    "too short": 1.0,
}

_SILENT_DB = -90.0
_FILTERED_S, _OVERLAP_S = 300.0, 4.0  # of a long recording at once, each part with its surroundings
# What the decoder has said already, at the rate of the file.
_SAID_BY_DECODER: tuple[quality.Kind, ...] = ("clipping", "too short")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sound:
    """A recording as windows of log-mel spectrogram, overlapping ones or one breath each."""

    inputs: LogMelWindows
    facts: Mapping[str, Any]
    warnings: tuple[str, ...]
    blank: str
    sample_rate_hz: int | None
    spec: LogMel
    raw: Floats  # as read, not repeated
    samples: Floats  # after the signal path
    decibels: Floats  # (mel, frames) of the samples
    parts: tuple[tuple[float, float], ...]  # seconds: one answer each
    by_cycle: bool = False
    doubt: str = ""
    stages: Mapping[str, Floats] = field(default_factory=dict)

    @property
    def seen(self) -> int:
        """Frames of every window; what the network is given beyond them is padding."""
        return self.inputs.seen

    @property
    def starts(self) -> tuple[int, ...]:
        """First frame of every window."""
        return tuple(span.first for span in self.inputs.spans)

    def stretch(self, window: int) -> tuple[float, float] | None:
        """Seconds from when to when a window lies; None where it is the only one."""
        if len(self.inputs) == 1:
            return None
        return _seconds((self.inputs.spans[window],), len(self.samples), self.spec)[0]

    def overall(self, model: Model, probabilities: Floats) -> Floats:
        """See `decision.pool_windows`; every breath counts alike."""
        return pool_windows(model, self.timeline(model, probabilities).probabilities)

    def timeline(
        self, model: Model, probabilities: Floats, steps: Floats | None = None
    ) -> Timeline:
        """One row for every window, or for every breath.

        `steps` are the answers of a network that answers for every moment, (windows, labels, steps
        of `STEP_FRAMES`): then one row for every step, the highest of the windows that hear it.
        """
        if steps is not None and not self.by_cycle:
            return self._by_step(model, steps)
        owners = np.array([span.part for span in self.inputs.spans])
        rows = probabilities
        if self.by_cycle:
            rows = np.stack(
                [pool_windows(model, probabilities[owners == i]) for i in range(len(self.parts))]
            )
        return Timeline(
            starts_s=tuple(start for start, _ in self.parts),
            ends_s=tuple(end for _, end in self.parts),
            labels=model.labels,
            probabilities=rows,
        )

    def _by_step(self, model: Model, steps: Floats) -> Timeline:
        n_frames = self.decibels.shape[1]
        count = max(1, round(n_frames / STEP_FRAMES))
        middles = np.minimum((np.arange(count) + 0.5) * STEP_FRAMES, n_frames - 1)
        rows = np.zeros((count, len(model.labels)), np.float32)
        for first, window in zip(self.starts, steps, strict=True):
            heard = (middles >= first) & (middles < first + self.seen)
            at = np.minimum((middles[heard] - first) // STEP_FRAMES, window.shape[1] - 1)
            rows[heard] = np.maximum(rows[heard], window[:, at.astype(int)].T)
        second = self.spec.hop_length / self.spec.sample_rate_hz
        edges = [i * STEP_FRAMES * second for i in range(count)]
        end_of_all = len(self.samples) / self.spec.sample_rate_hz
        return Timeline(
            starts_s=tuple(edges),
            ends_s=(*edges[1:], end_of_all),
            labels=model.labels,
            probabilities=rows,
        )

    def explanation(self, windows: Floats, weights: Floats, **about: Any) -> Explanation:
        """Heat stitched over the recording."""
        n_frames, given = self.decibels.shape[1], self.inputs.shape[3]
        heard = heat.unpadded(windows, given, self.seen)
        widths = [span.last - span.first for span in self.inputs.spans] if self.by_cycle else None
        whole = heat.stitched(
            heard, self.starts, weights.tolist(), self.seen, self.spec, n_frames, widths
        )
        heatmap = heat.scaled(whole)
        step = heat.frames_per_column(n_frames)
        cells = max(1, round(windows.shape[2] * n_frames / given))
        single = len(windows) == 1 and n_frames >= given and not self.by_cycle
        return Explanation(
            values=heat.scaled(windows[0])
            if single
            else heat.gridded(heatmap, windows.shape[1], min(cells, heatmap.shape[1])),
            heatmap=heatmap,
            peak=heat.peak_in_sound(heatmap, self.spec, step),
            **about,
        )

    def events(
        self,
        model: Model,
        probabilities: Floats,
        steps: Floats | None = None,
        evidence: Floats | None = None,
    ) -> tuple[Event, ...]:
        """Breaths with a finding; or neighbouring moments, or steps, with the same one, joined.

        Of independent labels several may be found at once. How finely windows tell the time is
        their hop; with `evidence`, (windows, labels, columns), their columns. None where the whole
        is in doubt. A model without points for moments is asked about whole windows.
        """
        if self.blank or self.doubt:
            return ()
        line = self.timeline(model, probabilities, steps)
        if model.activation == "sigmoid":
            return independent_events(model, line)
        if model.event_points and len(self.inputs) > 1 and not self.by_cycle:
            return self._by_moment(model, probabilities, evidence)
        found: list[Event] = []
        for row, start_s, end_s in zip(line.probabilities, line.starts_s, line.ends_s, strict=True):
            answer = decide(model, row)
            label, p = answer.label, answer.probability
            if label is None or label == model.normal_label:
                continue
            joined = found and found[-1].label == label and found[-1].end_s >= start_s
            if joined and not self.by_cycle:
                start_s, p = found[-1].start_s, max(found[-1].probability, p)
                found.pop()
            times = {"start_s": round(start_s, 3), "end_s": round(end_s, 3)}
            found.append(Event(label=label, probability=round(p, 4), **times))
        return tuple(found)

    def _by_moment(
        self, model: Model, probabilities: Floats, evidence: Floats | None
    ) -> tuple[Event, ...]:
        """See `moments`; no event reaches beyond the end."""
        spans = np.array([(span.first, span.last) for span in self.inputs.spans])
        edges, rows = moments.event_probabilities_over_time(spans[:, 0], spans[:, 1], probabilities)
        weighed = None if evidence is None else evidence * probabilities[:, :, None]
        second = self.spec.hop_length / self.spec.sample_rate_hz
        end_of_all = len(self.samples) / self.spec.sample_rate_hz

        def line(label: int, first: int, last: int) -> Floats:
            columns = weighed[:, label]  # type: ignore[index]
            return moments.evidence_over_time(
                spans, columns, frames=self.inputs.shape[3], first=first, last=last
            )

        return moments.detect_events(
            model,
            edges,
            rows,
            at=lambda frame: min(frame * second, end_of_all),
            evidence=None if evidence is None else line,
        )

    def drawn(self, explanation: Explanation) -> tuple[View, Mapping[str, Floats]]:
        """The spectrogram in grey; the recording, what was listened to, and what was ignored."""
        step = heat.frames_per_column(self.decibels.shape[1])
        levels = heat.loudest(self.decibels, step)
        top = float(levels.max())
        low = max(float(levels.min()), top - 80)
        grey = np.clip((levels - low) / max(top - low, 1e-6), 0, 1)
        view = View(
            pixels=np.round(255 * grey[::-1]).astype(np.uint8),
            duration_s=len(self.samples) / self.spec.sample_rate_hz,
            row_frequencies_hz=spectrogram.mel_frequencies_hz(self.spec),
            decibels=(low, top),
        )
        sounds = {"original": self.raw}
        if len(self.samples) <= LONGEST_HEARD_S * self.spec.sample_rate_hz:
            heard = spectrogram.mask_sound(
                self.samples, np.repeat(explanation.heatmap, step, axis=1), self.spec
            )
            sounds |= {"explanation": heard, "remainder": self.samples - heard}
        return view, sounds


def independent_events(model: Model, line: Timeline) -> tuple[Event, ...]:
    """Where each label reaches its operating point, or one half; neighbours joined."""
    of = operating_points(model)
    found: list[Event] = []
    for k, label in enumerate(line.labels):
        if label == model.normal_label:
            continue
        chances = line.probabilities[:, k]
        above = np.flatnonzero(chances >= of.get(label, 0.5))
        # Windows overlap and steps meet; a gap of one row ends a stretch.
        for stretch in np.split(above, np.flatnonzero(np.diff(above) > 1) + 1):
            if len(stretch):
                found.append(
                    Event(
                        label=label,
                        start_s=round(line.starts_s[stretch[0]], 3),
                        end_s=round(line.ends_s[stretch[-1]], 3),
                        probability=round(float(chances[stretch].max()), 4),
                    )
                )
    return tuple(sorted(found, key=lambda event: (event.start_s, event.label)))


def own_path(spec: LogMel) -> SignalPath:
    """The signal path that a model was taught with, and is given unless somebody asks otherwise."""
    return SignalPath(band_hz=spec.band_hz, denoise=spec.denoise)


def prepared(
    recording: Recording, model: Model, path: SignalPath | None, cycles: tuple[Cycle, ...]
) -> Sound:
    """A recording, ready for a model of sound."""
    spec = model.preprocessing
    if not isinstance(spec, LogMel):
        raise TypeError(f"{model.name} is no model of sound")
    path = own_path(spec) if path is None else path
    stages, last = _staged(recording, path)
    least = round(max(spec.min_s, 0) * spec.sample_rate_hz)
    decibels = _decibels(spectrogram.repeat_to_length(last, least), spec)
    window = min(spectrogram.window_frames(spec), decibels.shape[1])
    shown = spectrogram.frame_count(len(last), spec)
    spans = cycle_windows(cycles, window, shown, spec)
    spans = spans or sliding_windows(decibels.shape[1], window, spec)
    blank = _blank(recording)
    doubt, warnings = _checked(recording, model) if model.task == "stethoscope" else ("", ())
    facts = dict(recording.facts)
    if model.task == "stethoscope":
        band = None if path.band_hz is None else list(path.band_hz)
        facts["signal_path"] = {"band_hz": band, "denoise": path.denoise}
    return Sound(
        inputs=LogMelWindows(
            decibels=decibels,
            spans=spans,
            seen=window,
            spec=spec,
            levels=spectrogram.measure_levels(decibels, spec),
        ),
        facts=facts,
        warnings=recording.warnings + _repeated_warning(recording, least, spec) + warnings,
        blank=blank,
        sample_rate_hz=spec.sample_rate_hz,
        spec=spec,
        raw=recording.samples,
        samples=last,
        decibels=decibels[:, :shown],
        parts=tuple((c.start_s, c.end_s) for c in cycles) or _seconds(spans, len(last), spec),
        by_cycle=bool(cycles),
        doubt=doubt,
        stages=stages,
    )


def _staged(recording: Recording, path: SignalPath) -> tuple[Mapping[str, Floats], Floats]:
    """The sound after every step, unless it is too long to be heard; and after the last."""
    rate, raw = recording.sample_rate_hz, recording.samples
    if len(raw) <= LONGEST_HEARD_S * rate:
        stages = path.run(raw, rate)
        return {stage.name: stage.samples for stage in stages}, stages[-1].samples
    if path.band_hz is None and not path.denoise:
        return {}, raw
    size, overlap = round(_FILTERED_S * rate), round(_OVERLAP_S * rate)
    last = files.allocate_array(raw.shape)
    for first in range(0, len(raw), size):
        end, start = min(first + size, len(raw)), max(first - overlap, 0)
        stage = path.run(raw[start : end + overlap], rate)[-1]
        last[first:end] = stage.samples[first - start : end - start]
        files.release_pages(raw)
        files.release_pages(last)
    return {}, last


def _decibels(samples: Floats, spec: LogMel) -> Floats:
    """(mel, frames); in a file where they are many."""
    frames = files.allocate_array((spectrogram.frame_count(len(samples), spec), spec.n_mels))
    for first, piece in spectrogram.log_mel_chunks(samples, spec):
        frames[first : first + piece.shape[1]] = piece.T
        files.release_pages(samples)
        files.release_pages(frames)
    whole: Floats = frames.T
    return whole


def _seconds(
    spans: tuple[Span, ...], samples: int, spec: LogMel
) -> tuple[tuple[float, float], ...]:
    second, end_of_all = spec.hop_length / spec.sample_rate_hz, samples / spec.sample_rate_hz
    return tuple((s.first * second, min(s.last * second, end_of_all)) for s in spans)


def _blank(recording: Recording) -> str:
    samples = recording.samples
    peak = max(float(np.abs(samples[part]).max()) for part in files.chunks(samples))
    if 20 * np.log10(max(peak, 1e-12)) < _SILENT_DB:
        return "The recording is silent: there is nothing to explain."
    return ""


def _repeated_warning(recording: Recording, least: int, spec: LogMel) -> tuple[str, ...]:
    if len(recording.samples) >= least:
        return ()
    return (
        f"The sound lasts {recording.duration_s:.2f} s and was padded to {spec.min_s:g} s, the "
        "least this network takes, by repeating it.",
    )


def _checked(recording: Recording, model: Model) -> tuple[str, tuple[str, ...]]:
    """Why nothing should be believed, empty where it may be; and what the decoder left unsaid."""
    clipped = recording.facts.get("clipped_share")  # judged at the rate it was recorded at
    findings = quality.check_quality(recording.samples, recording.sample_rate_hz, clipped=clipped)
    files.release_pages(recording.samples)
    large = [f for f in findings if f.share >= DOUBTFUL[f.kind]]
    silent = any("nothing to explain" in warning for warning in recording.warnings)
    said = (*_SAID_BY_DECODER, "silence") if silent else _SAID_BY_DECODER
    unsaid = tuple(f.sentence for f in findings if f.kind not in said)
    return (large[0].sentence if large else ""), unsaid
