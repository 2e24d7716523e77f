"""A file as one model's input: prepared, and the network's outputs laid over it again.

`PreparedInput` is what recordings (`audio_input`) and radiographs (here) have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from xai_demo.analysis import audio_input, heatmap
from xai_demo.errors import UnsuitableError
from xai_demo.imaging import lungs, preprocess
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


class PreparedInput(Protocol):
    """A file prepared for one model: the network's input, and how to read its outputs."""

    @property
    def inputs(self) -> Floats | LogMelWindows:
        """The network's input, (windows, 1, rows, columns)."""

    @property
    def valid_columns(self) -> int:
        """How many columns of each window come from the file; the rest is padding."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the report says about the file, as its `input`."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the report warns about."""

    @property
    def blank(self) -> str:
        """Why there is nothing to explain; empty if there is."""

    @property
    def doubt(self) -> str:
        """Why no answer can be trusted; empty if it can."""

    @property
    def sample_rate_hz(self) -> int | None:
        """The sample rate of the sounds; None for an image."""

    @property
    def stages(self) -> Mapping[str, Floats]:
        """The sound after each step of the signal path; empty for an image."""

    def window_span_s(self, window: int) -> tuple[float, float] | None:
        """Start and end of a window in seconds; None for an image or a single window."""

    def file_probabilities(self, model: Model, probabilities: Floats) -> Floats:
        """The probabilities of the whole file: (windows, labels) -> (labels,)."""

    def explanation(self, windows: Floats, weights: Floats, **fields: Any) -> Explanation:
        """One explanation of the file from raw heatmaps of its windows, (windows, rows, columns).

        `weights` (windows,) are the label's probabilities. `fields` are the other fields of the
        `Explanation`.
        """

    def events(
        self,
        model: Model,
        probabilities: Floats,
        steps: Floats | None = None,
        evidence: Floats | None = None,
    ) -> tuple[Event, ...]:
        """Findings with their times; the arrays are those of `inference.NetworkOutputs`."""

    def timeline(
        self, model: Model, probabilities: Floats, steps: Floats | None = None
    ) -> Timeline | None:
        """The probabilities over time; None for an image."""

    def view_and_sounds(self, explanation: Explanation) -> tuple[View, Mapping[str, Floats]]:
        """The picture that heatmaps are laid over, and the sounds to play."""


def prepare(
    model: Model,
    source: Recording | Radiograph,
    *,
    signal_path: SignalPath | None = None,
    cycles: tuple[Cycle, ...] = (),
    check: Callable[[], None] = lambda: None,
) -> PreparedInput:
    """Prepare what was read for a model's network; with `cycles`, one answer for each of them.

    `check` is called between steps and may raise. Raises UnsuitableError for a recording and a
    model of images, or the other way round.
    """
    spec = model.preprocessing
    # Both are checked, because a source can be prepared for a model that it was not read for.
    if isinstance(spec, LogMel) and isinstance(source, Recording):
        return audio_input.prepare_audio(source, model, signal_path, cycles, check)
    if isinstance(spec, Raster) and isinstance(source, Radiograph):
        return prepare_image(source, spec)
    raise UnsuitableError(
        f"{model.name} needs a {'recording' if isinstance(spec, LogMel) else 'radiograph'}, not a "
        f"{type(source).__name__.lower()}."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInput:
    """A radiograph at the network's size: a single window."""

    inputs: Floats
    facts: Mapping[str, Any]
    warnings: tuple[str, ...]
    blank: str
    pixels: Floats  # (rows, columns), 0..1
    spec: Raster
    # None, by which `_decision` and `background_value` recognise an image.
    sample_rate_hz: int | None = None
    doubt: str = ""
    # At the size of `pixels`; None where there are no lungs to look for.
    lung_field: lungs.LungField | None = None

    @property
    def stages(self) -> Mapping[str, Floats]:
        """Empty: an image has no signal path."""
        return {}

    @property
    def valid_columns(self) -> int:
        """All columns: images are not padded."""
        columns: int = self.inputs.shape[3]
        return columns

    def window_span_s(self, window: int) -> None:
        """None: an image has no duration."""

    def file_probabilities(self, model: Model, probabilities: Floats) -> Floats:
        """The probabilities of the only window."""
        only: Floats = probabilities[0]
        return only

    def explanation(self, windows: Floats, weights: Floats, **fields: Any) -> Explanation:
        """The heatmap at the size of the network's input."""
        # `weights` are not needed: there is one window.
        values = heatmap.normalise(windows[0])
        # Once more after resizing: interpolation may lower the maximum.
        whole = heatmap.normalise(heatmap.resize(values, *self.pixels.shape))
        field = self.lung_field
        return Explanation(
            values=values,
            heatmap=whole,
            peak=heatmap.peak_in_image(whole),
            inside_lungs=lungs.inside(whole, field) if field else None,
            **fields,
        )

    def events(
        self,
        model: Model,
        probabilities: Floats,
        steps: Floats | None = None,
        evidence: Floats | None = None,
    ) -> tuple[Event, ...]:
        """Empty: an image has no duration."""
        return ()

    def timeline(self, model: Model, probabilities: Floats, steps: Floats | None = None) -> None:
        """None: an image has no duration."""

    def view_and_sounds(self, explanation: Explanation) -> tuple[View, Mapping[str, Floats]]:
        """The image as the network was given it; no sounds."""
        field = self.lung_field
        view = View(
            pixels=np.round(255 * self.pixels).astype(np.uint8),
            lung_outlines=lungs.outlines(field.mask) if field else (),
        )
        return view, {}


def prepare_image(radiograph: Radiograph, spec: Raster) -> ImageInput:
    """Fit a radiograph to the size and the values of a network's input."""
    pixels = preprocess.resize_for_network(radiograph.pixels, spec)
    # Less than one grey level of 8 bits: no structure is left.
    is_uniform = float(pixels.max() - pixels.min()) < 1 / 255
    has_lungs = radiograph.facts.get("gate", {}).get("kind") != "not a radiograph"
    field = lungs.find_lungs(pixels) if has_lungs and not is_uniform else None
    return ImageInput(
        # (1, 1, rows, columns): one window with one channel.
        inputs=preprocess.network_input(pixels, spec)[None, None],
        facts={**radiograph.facts, "lungs": lungs.to_json(field)},
        lung_field=field,
        warnings=radiograph.warnings,
        doubt=radiograph.doubt,
        blank="The image is uniform, so there is nothing to explain." if is_uniform else "",
        pixels=pixels,
        spec=spec,
    )
