"""Whether a heatmap points at the finding, where its location is known.

The ground truth is a set of time spans, of time-frequency events, or of boxes. Each of them scores
a heatmap on a canvas, which says what its pixels stand for, and returns metrics by name; `Tally`
collects these and gives means with 95 % bootstrap intervals by patient. `AnalysedFile` is a file as
the running demo analyses it, with the heatmap over the whole file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from xai_demo import explainers, networks
from xai_demo.analysis import faithfulness, inputs
from xai_demo.analysis.heatmap import frames_per_column
from xai_demo.analysis.inference import NetworkOutputs, raw_heatmaps, run_network
from xai_demo.audio import spectrogram
from xai_demo.decision import decided_label_index
from xai_demo.records import LogMel
from xai_demo.training import metrics

if TYPE_CHECKING:
    from xai_demo.analysis.faithfulness import Mask
    from xai_demo.engine.backends import Network
    from xai_demo.records import Floats, Model, Radiograph, Recording

# Share of the maximum from which a pixel belongs to the hot region.
HOT = 0.5
# Overlaps from which a finding counts as localised.
IOU_LEVELS = (0.1, 0.25, 0.5, 0.75)
# Tolerance for mixtures, in cells of the network's map.
TIME_CELLS, BAND_CELLS = 1.0, 0.5
# Operating point of an independent label without one of its own.
_DEFAULT_POINT = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Canvas:
    """What the pixels of a heatmap stand for."""

    shape: tuple[int, int]
    # Rows and columns of one cell of the explained layer.
    cell: tuple[float, float]
    # The network's input, averaged over such cells, at `shape`.
    brightness: Floats
    column_s: float = 0.0  # sound: seconds per column
    row_hz: tuple[float, ...] = ()  # sound: the centre of every row

    def during(self, spans: Sequence[tuple[float, float]], tolerance_s: float = 0.0) -> Mask:
        """Whether the centre of each column lies in a span: (columns,)."""
        middle = (np.arange(self.shape[1]) + 0.5) * self.column_s
        inside: Mask = np.any(
            [(middle >= a - tolerance_s) & (middle <= b + tolerance_s) for a, b in spans], axis=0
        )
        return inside


class Truth(Protocol):
    """Where a finding is."""

    def figures(self, heatmap: Floats, canvas: Canvas) -> dict[str, float]:
        """How well a heatmap agrees with it, and how well chance and simple rules do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeSpans:
    """Annotated events of a recording, in seconds, without tolerance."""

    spans: tuple[tuple[float, float], ...]
    labelled: tuple[tuple[float, float], ...] = ()  # all annotated spans, of any label

    def figures(self, heatmap: Floats, canvas: Canvas) -> dict[str, float]:
        """The peak, the whole heatmap, chance and the brightest cell against the spans."""
        during = canvas.during(self.spans)
        inside = np.broadcast_to(during, heatmap.shape)
        # The annotations have no frequency, so the overlap is one of times.
        over_time = heatmap.max(axis=0, keepdims=True)
        # Stretches without any label may hold events too: a peak there is neither right nor wrong.
        labelled = np.broadcast_to(canvas.during(self.labelled or self.spans), heatmap.shape)
        return _pointing_figures(
            pointing=faithfulness.pointing_hit(heatmap, inside),
            chance=faithfulness.pointing_chance(inside),
            simple={"pointing_energy": faithfulness.pointing_hit(canvas.brightness, inside)},
        ) | {
            "pointing_judged": faithfulness.pointing_hit(heatmap, labelled),
            "heat_inside": faithfulness.share_inside(heatmap, inside),
            "iou": faithfulness.iou(over_time, during[None], HOT),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeFrequencyEvents:
    """Synthetic events: (start_s, end_s, low_hz, high_hz) each."""

    events: tuple[tuple[float, float, float, float], ...]

    def figures(self, heatmap: Floats, canvas: Canvas) -> dict[str, float]:
        """Time and band of the peak, of a random point and of the brightest cell."""
        tolerance_s = TIME_CELLS * canvas.cell[1] * canvas.column_s
        during = canvas.during([event[:2] for event in self.events], tolerance_s)
        time = np.broadcast_to(during, heatmap.shape)
        band = np.broadcast_to(self._band(canvas)[:, None], heatmap.shape)
        figures: dict[str, float] = {}
        for name, truth in (("time", time), ("band", band)):
            hit = faithfulness.pointing_hit(heatmap, truth)
            chance = faithfulness.pointing_chance(truth)
            energy = faithfulness.pointing_hit(canvas.brightness, truth)
            figures |= {
                f"{name}_hit": hit,
                f"chance_{name}": chance,
                f"energy_{name}": energy,
                f"{name}_above_chance": hit - chance,
                f"{name}_above_energy": hit - energy,
            }
        return figures | {"both_hit": faithfulness.pointing_hit(heatmap, time & band)}

    def _band(self, canvas: Canvas) -> Mask:
        """Whether each row lies in the band of an event, (rows,)."""
        hertz = np.asarray(canvas.row_hz)
        rows = np.arange(len(hertz))
        tolerance = BAND_CELLS * canvas.cell[0]
        inside = np.zeros(len(hertz), bool)
        for _, _, low_hz, high_hz in self.events:
            # In rows, not hertz: the tolerance is a share of a cell, and bands differ in width.
            low, high = np.interp((low_hz, high_hz), hertz, rows)
            inside |= (rows >= low - tolerance) & (rows <= high + tolerance)
        return inside


@dataclass(frozen=True, slots=True, kw_only=True)
class Boxes:
    """Boxes that a radiologist drew for one finding, each as a mask of the heatmap's size."""

    masks: tuple[Mask, ...]

    def figures(self, heatmap: Floats, canvas: Canvas) -> dict[str, float]:
        """The peak against all boxes; the box around the hot region against the best match."""
        inside = np.any(self.masks, axis=0)
        rows, columns = heatmap.shape
        # A rule that ignores the network: the middle of the radiograph.
        centre = float(inside[rows // 2, columns // 2])
        overlap = max(_iou(hot_box(heatmap), mask) for mask in self.masks)
        return _pointing_figures(
            pointing=faithfulness.pointing_hit(heatmap, inside),
            chance=faithfulness.pointing_chance(inside),
            simple={"pointing_centre": centre},
        ) | {
            "heat_inside": faithfulness.share_inside(heatmap, inside),
            "iou": overlap,
            **{f"iou_{level:g}": float(overlap >= level) for level in IOU_LEVELS},
        }


def hot_box(heatmap: Floats, threshold: float = HOT) -> Mask:
    """The box around the hot region that contains the peak; empty for an all-zero heatmap."""
    import cv2

    box = np.zeros(heatmap.shape, bool)
    top = float(heatmap.max())
    if top <= 0:
        return box
    _, regions = cv2.connectedComponents((heatmap >= threshold * top).astype(np.uint8))
    peak = np.unravel_index(int(heatmap.argmax()), heatmap.shape)
    # The peak exceeds the threshold, so its region is never 0, the background.
    rows, columns = np.nonzero(regions == regions[peak])
    box[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
    return box


def cell_means(values: Floats, cells: tuple[int, int]) -> Floats:
    """Each pixel replaced by the mean over its cell; `cells` is (rows, columns) of cells.

    >>> cell_means(np.array([[1, 3, 5, 7]], np.float32), (1, 2)).tolist()
    [[2.0, 2.0, 6.0, 6.0]]
    """
    # The cell of every row and column; cells differ in size by at most one.
    row_of, column_of = (
        np.arange(n) * min(k, n) // n for n, k in zip(values.shape, cells, strict=True)
    )
    # One number for each cell: (rows, columns).
    place = row_of[:, None] * (column_of.max() + 1) + column_of
    total = np.bincount(place.ravel(), values.ravel().astype(np.float64))
    mean: Floats = (total / np.bincount(place.ravel())).astype(np.float32)[place]
    return mean


@dataclass(slots=True)
class Tally:
    """Metrics of many files, by name, with the patient each comes from."""

    groups: list[str] = field(default_factory=list)
    rows: list[dict[str, float]] = field(default_factory=list)

    def add(self, group: str, figures: dict[str, float]) -> None:
        """Add one file; all files of a tally must have the same metrics."""
        self.groups.append(group)
        self.rows.append(figures)

    def to_json(self) -> dict[str, Any]:
        """Means with 95 % intervals by name; {} without any file."""
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
    """Hits of the heatmap, of chance and of rules that ignore the network, with the differences."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysedFile:
    """One file with the network's predictions, to be explained by several explainers."""

    network: Network
    prepared: Any  # a Medium
    answer: NetworkOutputs
    overall: Floats  # (labels,)

    def has_answer(self, label: str) -> bool:
        """Whether the demo gives this label: as its decision, or as one of several findings."""
        pooled = len(self.prepared.inputs) > 1
        return is_answered(self.network.model, self.overall, label, pooled=pooled)

    def heatmap(self, explainer: str, label: str, passes: int) -> Floats:
        """The heatmap as the demo shows it, at the size of the network's input, 0..1."""
        method = explainers.explainer(explainer)
        target = self.network.model.labels.index(label)
        # 0 passes: the explainer runs the head alone, and needs no limit.
        budget = explainers.Budget(passes=min(method.passes, passes) or None)
        raw = raw_heatmaps(self.network, self.prepared, self.answer, method, [target], budget)
        return self._assemble(raw[:, 0], self.answer.probabilities[:, target])

    def canvas(self) -> Canvas:
        """What the pixels of the heatmap stand for."""
        model = self.network.model
        rows, columns = networks.feature_maps(model, self.answer.activations[0]).shape[-2:]
        # Equal weights: brightness knows nothing of probabilities.
        network_input = self._assemble(
            self.prepared.inputs[:, 0], np.ones(len(self.prepared.inputs), np.float32)
        )
        n_rows, n_columns = network_input.shape
        spec = model.preprocessing
        if not isinstance(spec, LogMel):
            return Canvas(
                shape=(n_rows, n_columns),
                cell=(n_rows / rows, n_columns / columns),
                brightness=cell_means(network_input, (rows, columns)),
            )
        step = frames_per_column(self.prepared.decibels.shape[1])
        # Columns of the canvas for each column of the map.
        wide = self.prepared.inputs.shape[3] / columns / step
        return Canvas(
            shape=(n_rows, n_columns),
            cell=(n_rows / rows, wide),
            brightness=cell_means(network_input, (rows, max(1, round(n_columns / wide)))),
            column_s=step * spec.hop_length / spec.sample_rate_hz,
            row_hz=spectrogram.mel_frequencies_hz(spec),
        )

    def _assemble(self, windows: Floats, weights: Floats) -> Floats:
        """Windows put together as the demo puts heatmaps together, 0..1."""
        # Only the map of the explanation is used, so what it says of its origin is left empty.
        facts = {"explainer": "", "target": "", "probability": 0.0, "layer": self.network.layer}
        heatmap: Floats = self.prepared.explanation(windows, weights, **facts).heatmap
        return heatmap


def analyse_file(network: Network, source: Recording | Radiograph) -> AnalysedFile:
    """Prepare a file and run the network on it, as the demo does."""
    prepared = inputs.prepare(network.model, source)
    answer = run_network(network, prepared.inputs)
    overall = prepared.file_probabilities(network.model, answer.probabilities)
    return AnalysedFile(network=network, prepared=prepared, answer=answer, overall=overall)


def is_answered(model: Model, probabilities: Floats, label: str, *, pooled: bool = False) -> bool:
    """Whether these probabilities, (labels,), pooled over windows or not, amount to this label."""
    target = model.labels.index(label)
    if decided_label_index(model, probabilities, pooled=pooled) == target:
        return True
    # An independent label can be found without being the decision.
    point = model.operating_points.get(label, _DEFAULT_POINT)
    return model.activation == "sigmoid" and float(probabilities[target]) >= point
