"""A file as the running demo sees it, with a network's answer and the heat over the whole file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo import explainers, networks
from xai_demo.analysis import heatmap as heat
from xai_demo.analysis import inputs
from xai_demo.analysis.inference import Answer, answered, raw_heat
from xai_demo.audio import spectrogram
from xai_demo.decision import decided_index
from xai_demo.records import LogMel
from xai_demo.training import pointing

if TYPE_CHECKING:
    from xai_demo.engine import Network
    from xai_demo.records import Floats, Model, Radiograph, Recording
    from xai_demo.training.pointing import Canvas

_EVEN_ODDS = 0.5  # the operating point of an independent label that has none of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One file after the network's answer, to be explained by one explainer after another."""

    network: Network
    made: Any  # a Medium
    answer: Answer
    overall: Floats  # (labels,)

    def answers(self, label: str) -> bool:
        """Whether the demo gives this label: the one it decides for, or one of several found."""
        pooled = len(self.made.inputs) > 1
        return is_answered(self.network.model, self.overall, label, pooled=pooled)

    def heatmap(self, explainer: str, label: str, passes: int) -> Floats:
        """The heat that a visitor is shown, at the size of the network's input, 0..1."""
        method = explainers.explainer(explainer)
        target = self.network.model.labels.index(label)
        budget = explainers.Budget(passes=min(method.passes, passes) or None)
        raw = raw_heat(self.network, self.made, self.answer, method, [target], budget)
        return self._shown(raw[:, 0], self.answer.probabilities[:, target])

    def canvas(self) -> Canvas:
        """What the pixels of the heat stand for."""
        model = self.network.model
        rows, columns = networks.maps(model, self.answer.activations[0]).shape[-2:]
        given = self._shown(self.made.inputs[:, 0], np.ones(len(self.made.inputs), np.float32))
        n_rows, n_columns = given.shape
        spec = model.preprocessing
        if not isinstance(spec, LogMel):
            return pointing.Canvas(
                shape=(n_rows, n_columns),
                cell=(n_rows / rows, n_columns / columns),
                brightness=pointing.in_cells(given, (rows, columns)),
            )
        step = heat.frames_per_column(self.made.decibels.shape[1])
        wide = self.made.inputs.shape[3] / columns / step
        return pointing.Canvas(
            shape=(n_rows, n_columns),
            cell=(n_rows / rows, wide),
            brightness=pointing.in_cells(given, (rows, max(1, round(n_columns / wide)))),
            column_s=step * spec.hop_length / spec.sample_rate_hz,
            row_hz=spectrogram.mel_frequencies_hz(spec),
        )

    def _shown(self, windows: Floats, weights: Floats) -> Floats:
        """Windows put together as the demo puts heat together, 0..1."""
        whose = {"explainer": "", "target": "", "probability": 0.0, "layer": self.network.layer}
        heatmap: Floats = self.made.explanation(windows, weights, **whose).heatmap
        return heatmap


def seen(network: Network, source: Recording | Radiograph) -> Seen:
    """Prepare a file and ask the network, as the demo does."""
    made = inputs.prepare(network.model, source)
    answer = answered(network, made.inputs)
    overall = made.overall(network.model, answer.probabilities)
    return Seen(network=network, made=made, answer=answer, overall=overall)


def is_answered(model: Model, probabilities: Floats, label: str, *, pooled: bool = False) -> bool:
    """Whether these probabilities, perhaps of several windows together, mean this label."""
    target = model.labels.index(label)
    if decided_index(model, probabilities, pooled=pooled) == target:
        return True
    point = model.operating_points.get(label, _EVEN_ODDS)
    return model.activation == "sigmoid" and float(probabilities[target]) >= point
