"""What sound and pictures do differently on their way through a network, with the same verbs.

A radiograph on its way through a network, with the same verbs as a recording.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from xai_demo import audio, imaging
from xai_demo.analysis import audio_input
from xai_demo.analysis import heatmap as heat
from xai_demo.analysis.audio_input import Sound
from xai_demo.errors import UnsuitableError
from xai_demo.imaging import preprocess
from xai_demo.records import (
    Event,
    Explanation,
    LogMel,
    Model,
    Radiograph,
    Raster,
    Recording,
    Timeline,
    View,
)

if TYPE_CHECKING:
    from xai_demo.audio.filters import SignalPath
    from xai_demo.audio.segments import Cycle, LogMelWindows
    from xai_demo.records import Floats
    from xai_demo.settings import Settings


class Medium(Protocol):
    """A file, made ready for one model: what goes in, and how to read what comes out."""

    @property
    def inputs(self) -> Floats | LogMelWindows:
        """(windows, 1, rows, columns)."""

    @property
    def seen(self) -> int:
        """How many columns of every window hold what was read; the rest is padding."""

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
    def doubt(self) -> str:
        """Why no answer should be believed; empty if it may be."""

    @property
    def sample_rate_hz(self) -> int | None:
        """Of the sounds; None for a picture."""

    @property
    def stages(self) -> Mapping[str, Floats]:
        """The sound after each step of the signal path."""

    def stretch(self, window: int) -> tuple[float, float] | None:
        """Seconds from when to when a window lies; None where it is alone, and of a picture."""

    def overall(self, model: Model, probabilities: Floats) -> Floats:
        """Those of the whole file from those of its windows, (windows, labels) -> (labels,)."""

    def explanation(self, windows: Floats, weights: Floats, **about: Any) -> Explanation:
        """Heat over the whole file from that of its windows, (windows, rows, columns)."""

    def events(
        self,
        model: Model,
        probabilities: Floats,
        steps: Floats | None = None,
        evidence: Floats | None = None,
    ) -> tuple[Event, ...]:
        """Stretches in which something was found; the rest as `inference.Answer` has it."""

    def timeline(
        self, model: Model, probabilities: Floats, steps: Floats | None = None
    ) -> Timeline | None:
        """What the network made of a recording; None for a picture."""

    def drawn(self, explanation: Explanation) -> tuple[View, Mapping[str, Floats]]:
        """The picture to lay heat over, and the sounds."""


def read(model: Model, path: Path, settings: Settings) -> Recording | Radiograph:
    """The file, as the model's task wants it."""
    spec = model.preprocessing
    if isinstance(spec, LogMel):
        return audio.read_audio(
            path, sample_rate_hz=spec.sample_rate_hz, max_duration_s=settings.max_duration_s
        )
    return imaging.read_image(path, max_pixels=settings.max_pixels)


def prepare(
    model: Model,
    source: Recording | Radiograph,
    *,
    signal_path: SignalPath | None = None,
    cycles: tuple[Cycle, ...] = (),
) -> Medium:
    """What was read, ready for the model's network; of a recording, by its breaths if given."""
    spec = model.preprocessing
    if isinstance(spec, LogMel) and isinstance(source, Recording):
        return audio_input.prepared(source, model, signal_path, cycles)
    if isinstance(spec, Raster) and isinstance(source, Radiograph):
        return prepared(source, spec)
    raise UnsuitableError(
        f"{model.name} takes a {type(spec).__name__}, which cannot be made of a "
        f"{type(source).__name__}; wanted: a sound for a LogMel, a picture for a Raster."
    )


__all__: Sequence[str] = ["Medium", "Picture", "Sound", "prepare", "read"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A radiograph at the network's size: one window."""

    inputs: Floats
    facts: Mapping[str, Any]
    warnings: tuple[str, ...]
    blank: str
    framed: Floats
    spec: Raster
    sample_rate_hz: int | None = None
    doubt: str = ""

    @property
    def stages(self) -> Mapping[str, Floats]:
        """None: a picture is no sound."""
        return {}

    @property
    def seen(self) -> int:
        """All columns: nothing is padded."""
        columns: int = self.inputs.shape[3]
        return columns

    def stretch(self, window: int) -> None:
        """None: there is but one window."""

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

    def events(
        self,
        model: Model,
        probabilities: Floats,
        steps: Floats | None = None,
        evidence: Floats | None = None,
    ) -> tuple[Event, ...]:
        """None: a picture does not last."""
        return ()

    def timeline(self, model: Model, probabilities: Floats, steps: Floats | None = None) -> None:
        """None: a picture does not last."""

    def drawn(self, explanation: Explanation) -> tuple[View, Mapping[str, Floats]]:
        """The picture as the network was given it."""
        return View(pixels=np.round(255 * self.framed).astype(np.uint8)), {}


def prepared(radiograph: Radiograph, spec: Raster) -> Picture:
    """What a network takes of a radiograph."""
    framed = preprocess.resize_for_network(radiograph.pixels, spec)
    return Picture(
        inputs=preprocess.network_input(framed, spec)[None, None],
        facts=radiograph.facts,
        warnings=radiograph.warnings,
        doubt=radiograph.doubt,
        blank="The picture is one even tone: there is nothing to explain."
        if float(framed.max() - framed.min()) < 1 / 255
        else "",
        framed=framed,
        spec=spec,
    )
