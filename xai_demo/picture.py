"""A radiograph on its way through a network, with the same verbs as a recording."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo import heat
from xai_demo.imaging import preprocess
from xai_demo.records import Event, Explanation, Model, Radiograph, Raster, View

if TYPE_CHECKING:
    from xai_demo.records import Floats


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
    framed = preprocess.framed(radiograph.pixels, spec)
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
