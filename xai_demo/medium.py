"""What sound and pictures do differently on their way through a network, with the same verbs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from xai_demo import audio, heat, image, raster, spectrum
from xai_demo.decision import decision, over_windows
from xai_demo.errors import UnsuitableError
from xai_demo.records import Event, Explanation, LogMel, Model, Radiograph, Raster, Recording, View

if TYPE_CHECKING:
    from xai_demo.records import Floats
    from xai_demo.settings import Settings

_LONGEST_HEARD_S = 300.0  # recordings over this are not turned back into sound
_SILENT_DB = -90.0


class Medium(Protocol):
    """A file, made ready for one model: what goes in, and how to read what comes out."""

    @property
    def inputs(self) -> Floats:
        """(windows, 1, rows, columns)."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """For the report's `input`."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """For the report."""

    @property
    def blank(self) -> str:
        """Why there is nothing to explain; empty if there is."""

    @property
    def sample_rate_hz(self) -> int | None:
        """Of the sounds; None for a picture."""

    def overall(self, model: Model, probabilities: Floats) -> Floats:
        """Those of the whole file from those of its windows, (windows, labels) -> (labels,)."""

    def explanation(self, windows: Floats, weights: Floats, **about: Any) -> Explanation:
        """Heat over the whole file from that of its windows, (windows, rows, columns)."""

    def events(self, model: Model, probabilities: Floats) -> tuple[Event, ...]:
        """Stretches in which something was found."""

    def drawn(self, explanation: Explanation) -> tuple[View, Mapping[str, Floats]]:
        """The picture to lay heat over, and the sounds."""


def read(model: Model, path: Path, settings: Settings) -> Recording | Radiograph:
    """The file, as the model's task wants it."""
    spec = model.preprocessing
    if isinstance(spec, LogMel):
        return audio.read_audio(
            path, sample_rate_hz=spec.sample_rate_hz, max_duration_s=settings.max_duration_s
        )
    return image.read_image(path, max_pixels=settings.max_pixels)


def prepare(model: Model, source: Recording | Radiograph) -> Medium:
    """What was read, ready for the model's network."""
    spec = model.preprocessing
    if isinstance(spec, LogMel) and isinstance(source, Recording):
        return _sound(source, spec)
    if isinstance(spec, Raster) and isinstance(source, Radiograph):
        return _picture(source, spec)
    raise UnsuitableError(
        f"{model.name} takes a {type(spec).__name__}, which cannot be made of a "
        f"{type(source).__name__}; wanted: a sound for a LogMel, a picture for a Raster."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sound:
    """A recording in overlapping windows of log-mel spectrogram."""

    inputs: Floats
    facts: Mapping[str, Any]
    warnings: tuple[str, ...]
    blank: str
    sample_rate_hz: int | None
    spec: LogMel
    samples: Floats  # as read, not repeated
    decibels: Floats  # (mel, frames) of the samples
    starts: tuple[int, ...]  # first frame of every window
    window: int  # frames

    def overall(self, model: Model, probabilities: Floats) -> Floats:
        """See `decision.over_windows`."""
        return over_windows(model, probabilities)

    def explanation(self, windows: Floats, weights: Floats, **about: Any) -> Explanation:
        """Heat stitched over the recording."""
        n_frames = self.decibels.shape[1]
        whole = heat.stitched(
            windows, self.starts, weights.tolist(), self.window, self.spec, n_frames
        )
        heatmap = heat.scaled(whole)
        step = heat.frames_per_column(n_frames)
        cells = max(1, round(windows.shape[2] * n_frames / self.window))
        single = len(windows) == 1 and n_frames >= self.window
        return Explanation(
            values=heat.scaled(windows[0])
            if single
            else heat.gridded(heatmap, windows.shape[1], cells),
            heatmap=heatmap,
            peak=heat.peak_in_sound(heatmap, self.spec, step),
            **about,
        )

    def events(self, model: Model, probabilities: Floats) -> tuple[Event, ...]:
        """Neighbouring windows with the same answer, other than normal, joined."""
        second = self.spec.hop_length / self.spec.sample_rate_hz
        end_of_all = len(self.samples) / self.spec.sample_rate_hz
        found: list[Event] = []
        for row, start in zip(probabilities, self.starts, strict=True):
            answer = decision(model, row)
            label, p = answer.label, answer.probability
            if self.blank or label is None or label == model.normal_label:
                continue
            start_s, end_s = start * second, min((start + self.window) * second, end_of_all)
            if found and found[-1].label == label and found[-1].end_s >= start_s:
                start_s, p = found[-1].start_s, max(found[-1].probability, p)
                found.pop()
            found.append(
                Event(
                    label=label,
                    start_s=round(start_s, 3),
                    end_s=round(end_s, 3),
                    probability=round(p, 4),
                )
            )
        return tuple(found)

    def drawn(self, explanation: Explanation) -> tuple[View, Mapping[str, Floats]]:
        """The spectrogram in grey; the recording, what was listened to, and what was ignored."""
        step = heat.frames_per_column(self.decibels.shape[1])
        levels = _columns_shared(self.decibels, step)
        top = float(levels.max())
        low = max(float(levels.min()), top - 80)
        grey = np.clip((levels - low) / max(top - low, 1e-6), 0, 1)
        view = View(
            pixels=np.round(255 * grey[::-1]).astype(np.uint8),
            duration_s=len(self.samples) / self.spec.sample_rate_hz,
            row_frequencies_hz=spectrum.mel_frequencies_hz(self.spec),
            decibels=(low, top),
        )
        sounds = {"original": self.samples}
        if len(self.samples) <= _LONGEST_HEARD_S * self.spec.sample_rate_hz:
            heard = spectrum.masked(
                self.samples, np.repeat(explanation.heatmap, step, axis=1), self.spec
            )
            sounds |= {"explanation": heard, "remainder": self.samples - heard}
        return view, sounds


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A radiograph at the network's size: one window."""

    inputs: Floats
    facts: Mapping[str, Any]
    warnings: tuple[str, ...]
    blank: str
    framed: Floats
    sample_rate_hz: int | None = None

    def overall(self, model: Model, probabilities: Floats) -> Floats:
        """Those of the only window."""
        only: Floats = probabilities[0]
        return only

    def explanation(self, windows: Floats, weights: Floats, **about: Any) -> Explanation:
        """Heat at the network's size."""
        values = heat.scaled(windows[0])
        heatmap = heat.scaled(heat.resized(values, *self.framed.shape))
        return Explanation(
            values=values, heatmap=heatmap, peak=heat.peak_in_picture(heatmap), **about
        )

    def events(self, model: Model, probabilities: Floats) -> tuple[Event, ...]:
        """None: a picture does not last."""
        return ()

    def drawn(self, explanation: Explanation) -> tuple[View, Mapping[str, Floats]]:
        """The picture as the network was given it."""
        return View(pixels=np.round(255 * self.framed).astype(np.uint8)), {}


def _sound(recording: Recording, spec: LogMel) -> Sound:
    least = round(max(spec.min_s, 0) * spec.sample_rate_hz)
    warnings = recording.warnings
    if len(recording.samples) < least:
        warnings += (
            f"The sound lasts {recording.duration_s:.2f} s and was repeated to fill "
            f"{spec.min_s:g} s, the least this network takes.",
        )
    samples = spectrum.repeated(recording.samples, least)
    decibels = spectrum.log_mel(samples, spec)
    inputs = spectrum.conditioned(decibels, spec)
    rate = spec.sample_rate_hz / spec.hop_length
    window = min(round(spec.window_s * rate) + 1, inputs.shape[1])  # frames are centred
    starts = spectrum.window_starts(inputs.shape[1], window, round(spec.window_hop_s * rate))
    shown = len(recording.samples) // spec.hop_length + 1
    peak = float(np.abs(recording.samples).max())
    return Sound(
        inputs=np.stack([inputs[:, s : s + window] for s in starts])[:, None],
        facts=recording.facts,
        warnings=warnings,
        blank="The recording is silent: there is nothing to explain."
        if 20 * np.log10(max(peak, 1e-12)) < _SILENT_DB
        else "",
        sample_rate_hz=spec.sample_rate_hz,
        spec=spec,
        samples=recording.samples,
        decibels=decibels[:, :shown],
        starts=starts,
        window=window,
    )


def _picture(radiograph: Radiograph, spec: Raster) -> Picture:
    framed = raster.framed(radiograph.pixels, spec)
    return Picture(
        inputs=raster.network_input(framed, spec)[None, None],
        facts=radiograph.facts,
        warnings=radiograph.warnings,
        blank="The picture is one even tone: there is nothing to explain."
        if float(framed.max() - framed.min()) < 1 / 255
        else "",
        framed=framed,
    )


def _columns_shared(decibels: Floats, step: int) -> Floats:
    if step == 1:
        return decibels
    n = -(-decibels.shape[1] // step)
    padded = np.pad(decibels, ((0, 0), (0, n * step - decibels.shape[1])), mode="edge")
    shared: Floats = padded.reshape(len(decibels), n, step).max(axis=2)
    return shared


__all__: Sequence[str] = ["Medium", "Picture", "Sound", "prepare", "read"]
