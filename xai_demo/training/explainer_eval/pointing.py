"""Whether heat lies where the finding is, for truths that are known: spans of time, bands, boxes.

Pure: a truth is asked with a heat map and the canvas it lies on, and gives figures by name; `Tally`
gathers them and gives means with 95 % bootstrap intervals by person.

A file as the running demo sees it, with a network's answer and the heat over the whole file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from xai_demo import explainers, networks
from xai_demo.analysis import faithfulness, inputs
from xai_demo.analysis import heatmap as heat
from xai_demo.analysis.inference import Answer, answered, raw_heat
from xai_demo.audio import spectrogram
from xai_demo.decision import decided_index
from xai_demo.records import LogMel
from xai_demo.training import metrics

if TYPE_CHECKING:
    from xai_demo.analysis.faithfulness import Mask
    from xai_demo.engine import Network
    from xai_demo.records import Floats, Model, Radiograph, Recording

HOT = 0.5  # of the maximum: what counts as hot where heat is compared with a region
IOU_LEVELS = (0.1, 0.25, 0.5, 0.75)  # the usual ones of what counts as localised
TIME_CELLS, BAND_CELLS = 1.0, 0.5  # tolerance of synthesised truths, in cells of the network's map


@dataclass(frozen=True, slots=True, kw_only=True)
class Canvas:
    """What the pixels of a heat map stand for."""

    shape: tuple[int, int]
    cell: tuple[float, float]  # rows and columns of one cell of the explained layer
    brightness: Floats  # what the network is given, averaged over such cells, at `shape`
    column_s: float = 0.0  # sound: seconds per column
    row_hz: tuple[float, ...] = ()  # sound: the centre of every row

    def during(self, spans: Sequence[tuple[float, float]], tolerance_s: float = 0.0) -> Mask:
        """The columns whose middle lies in a span: (columns,)."""
        middle = (np.arange(self.shape[1]) + 0.5) * self.column_s
        inside: Mask = np.any(
            [(middle >= a - tolerance_s) & (middle <= b + tolerance_s) for a, b in spans], axis=0
        )
        return inside


class Truth(Protocol):
    """Where a finding is."""

    def figures(self, heatmap: Floats, canvas: Canvas) -> dict[str, float]:
        """How well the heat agrees, and how well chance and simple rules do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeSpans:
    """Annotated stretches of a recording, in seconds, without tolerance."""

    spans: tuple[tuple[float, float], ...]
    judged: tuple[tuple[float, float], ...] = ()  # all that somebody put a label on, these too

    def figures(self, heatmap: Floats, canvas: Canvas) -> dict[str, float]:
        """The heat's peak, all heat, chance and the brightest cell against the stretches."""
        during = canvas.during(self.spans)
        inside = np.broadcast_to(during, heatmap.shape)
        over_time = heatmap.max(axis=0, keepdims=True)
        judged = np.broadcast_to(canvas.during(self.judged or self.spans), heatmap.shape)
        return _pointing_figures(
            pointing=faithfulness.pointing(heatmap, inside),
            chance=faithfulness.pointing_chance(inside),
            simple={"pointing_energy": faithfulness.pointing(canvas.brightness, inside)},
        ) | {
            "pointing_judged": faithfulness.pointing(heatmap, judged),
            "heat_inside": faithfulness.inside(heatmap, inside),
            "iou": faithfulness.iou(over_time, during[None], HOT),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeFrequencyEvents:
    """Synthesised events: (start_s, end_s, low_hz, high_hz) each."""

    events: tuple[tuple[float, float, float, float], ...]

    def figures(self, heatmap: Floats, canvas: Canvas) -> dict[str, float]:
        """Time and band of the heat's peak, of a random point and of the brightest cell."""
        tolerance_s = TIME_CELLS * canvas.cell[1] * canvas.column_s
        during = canvas.during([event[:2] for event in self.events], tolerance_s)
        time = np.broadcast_to(during, heatmap.shape)
        band = np.broadcast_to(self._band(canvas)[:, None], heatmap.shape)
        found: dict[str, float] = {}
        for name, truth in (("time", time), ("band", band)):
            hit = faithfulness.pointing(heatmap, truth)
            chance = faithfulness.pointing_chance(truth)
            energy = faithfulness.pointing(canvas.brightness, truth)
            found |= {
                f"{name}_hit": hit,
                f"chance_{name}": chance,
                f"energy_{name}": energy,
                f"{name}_above_chance": hit - chance,
                f"{name}_above_energy": hit - energy,
            }
        return found | {"both_hit": faithfulness.pointing(heatmap, time & band)}

    def _band(self, canvas: Canvas) -> Mask:
        """Rows in the band of an event, (rows,)."""
        hertz = np.asarray(canvas.row_hz)
        rows = np.arange(len(hertz))
        tolerance = BAND_CELLS * canvas.cell[0]
        inside = np.zeros(len(hertz), bool)
        for _, _, low_hz, high_hz in self.events:
            low, high = np.interp((low_hz, high_hz), hertz, rows)
            inside |= (rows >= low - tolerance) & (rows <= high + tolerance)
        return inside


@dataclass(frozen=True, slots=True, kw_only=True)
class Boxes:
    """Regions that a radiologist drew for one finding, each as a mask of the heat map's size."""

    masks: tuple[Mask, ...]

    def figures(self, heatmap: Floats, canvas: Canvas) -> dict[str, float]:
        """The heat's peak in any of the boxes; its own box against the one it fits best."""
        inside = np.any(self.masks, axis=0)
        rows, columns = heatmap.shape
        centre = float(inside[rows // 2, columns // 2])
        overlap = max(_iou(hot_box(heatmap), mask) for mask in self.masks)
        return _pointing_figures(
            pointing=faithfulness.pointing(heatmap, inside),
            chance=faithfulness.pointing_chance(inside),
            simple={"pointing_centre": centre},
        ) | {
            "heat_inside": faithfulness.inside(heatmap, inside),
            "iou": overlap,
            **{f"iou_{level:g}": float(overlap >= level) for level in IOU_LEVELS},
        }


def hot_box(heatmap: Floats, threshold: float = HOT) -> Mask:
    """The box around the hot region that holds the peak; empty for a map without heat."""
    import cv2

    box = np.zeros(heatmap.shape, bool)
    top = float(heatmap.max())
    if top <= 0:
        return box
    _, regions = cv2.connectedComponents((heatmap >= threshold * top).astype(np.uint8))
    peak = np.unravel_index(int(heatmap.argmax()), heatmap.shape)
    rows, columns = np.nonzero(regions == regions[peak])
    box[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
    return box


def cell_means(values: Floats, cells: tuple[int, int]) -> Floats:
    """Each pixel replaced by the mean over its cell, of so many rows and columns of cells."""
    row_of, column_of = (
        np.arange(n) * min(k, n) // n for n, k in zip(values.shape, cells, strict=True)
    )
    place = row_of[:, None] * (column_of.max() + 1) + column_of
    total = np.bincount(place.ravel(), values.ravel().astype(np.float64))
    mean: Floats = (total / np.bincount(place.ravel())).astype(np.float32)[place]
    return mean


@dataclass(slots=True)
class Tally:
    """Figures of many cases, by name, with the person each comes from."""

    groups: list[str] = field(default_factory=list)
    rows: list[dict[str, float]] = field(default_factory=list)

    def add(self, group: str, figures: dict[str, float]) -> None:
        """One more case; all of a tally have the same names."""
        self.groups.append(group)
        self.rows.append(figures)

    def to_json(self) -> dict[str, Any]:
        """Means with 95 % intervals by name; nothing where there is no case."""
        if not self.rows:
            return {}
        names = list(self.rows[0])
        values = np.array([[row[name] for name in names] for row in self.rows])

        def means(weights: np.ndarray) -> dict[str, float]:
            return dict(zip(names, (weights @ values / weights.sum()).tolist(), strict=True))

        return metrics.as_json(metrics.with_intervals(means, self.groups))


def _pointing_figures(
    *, pointing: float, chance: float, simple: dict[str, float]
) -> dict[str, float]:
    """The hit beside chance and beside rules that know nothing of the network, and by how much."""
    above = {name.replace("pointing", "pointing_above"): pointing - v for name, v in simple.items()}
    return {
        "pointing": pointing,
        "pointing_chance": chance,
        **simple,
        "pointing_above_chance": pointing - chance,
        **above,
    }


def _iou(one: Mask, other: Mask) -> float:
    union = int((one | other).sum())
    return int((one & other).sum()) / union if union else 0.0


_EVEN_ODDS = 0.5  # the operating point of an independent label that has none of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysedFile:
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
            return Canvas(
                shape=(n_rows, n_columns),
                cell=(n_rows / rows, n_columns / columns),
                brightness=cell_means(given, (rows, columns)),
            )
        step = heat.frames_per_column(self.made.decibels.shape[1])
        wide = self.made.inputs.shape[3] / columns / step
        return Canvas(
            shape=(n_rows, n_columns),
            cell=(n_rows / rows, wide),
            brightness=cell_means(given, (rows, max(1, round(n_columns / wide)))),
            column_s=step * spec.hop_length / spec.sample_rate_hz,
            row_hz=spectrogram.mel_frequencies_hz(spec),
        )

    def _shown(self, windows: Floats, weights: Floats) -> Floats:
        """Windows put together as the demo puts heat together, 0..1."""
        whose = {"explainer": "", "target": "", "probability": 0.0, "layer": self.network.layer}
        heatmap: Floats = self.made.explanation(windows, weights, **whose).heatmap
        return heatmap


def analyse_file(network: Network, source: Recording | Radiograph) -> AnalysedFile:
    """Prepare a file and ask the network, as the demo does."""
    made = inputs.prepare(network.model, source)
    answer = answered(network, made.inputs)
    overall = made.overall(network.model, answer.probabilities)
    return AnalysedFile(network=network, made=made, answer=answer, overall=overall)


def is_answered(model: Model, probabilities: Floats, label: str, *, pooled: bool = False) -> bool:
    """Whether these probabilities, perhaps of several windows together, mean this label."""
    target = model.labels.index(label)
    if decided_index(model, probabilities, pooled=pooled) == target:
        return True
    point = model.operating_points.get(label, _EVEN_ODDS)
    return model.activation == "sigmoid" and float(probabilities[target]) >= point
