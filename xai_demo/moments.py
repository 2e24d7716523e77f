"""What overlapping windows say together about every moment of a recording. Pure.

Every window that hears some of a short event answers with it, and says it of all its length. The
mean over the windows that hear a moment is highest where most of them hear the event; it is cut at
points chosen for moments, on validation.

How long the event lasts in it is told by the network's last maps: what every column of them adds to
the logit of its label, which is HiResCAM (Draelos and Carin 2020) summed over frequency.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from xai_demo.records import Event

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from xai_demo.records import Floats, Model

    # Of a label from a frame to another one: (frames,).
    Evidence = Callable[[int, int, int], Floats]

SHARE = 0.2  # of the most evidence in an event; it told annotated events apart best on validation
GAP_S = 0.3  # parts of an event that are less apart are one
LEAST_S = 0.2  # shorter ones are the edge of what the neighbouring moment hears


def over_time(
    starts: ArrayLike, ends: ArrayLike, probabilities: Floats
) -> tuple[NDArray[np.int64], Floats]:
    """Mean probabilities between the frames at which windows begin or end.

    From windows [start, end) with probabilities (windows, labels): edges (moments + 1,) and rows
    (moments, labels), zero where no window lies.
    """
    edges = np.unique(np.concatenate([np.asarray(starts), np.asarray(ends)])).astype(np.int64)
    change = np.zeros((len(edges), probabilities.shape[1] + 1))
    rows = np.column_stack([probabilities, np.ones(len(probabilities))]).astype(np.float64)
    np.add.at(change, np.searchsorted(edges, starts), rows)
    np.subtract.at(change, np.searchsorted(edges, ends), rows)
    total = change.cumsum(axis=0)[:-1]
    heard_by = np.round(total[:, -1:])
    mean = np.where(heard_by > 0, total[:, :-1] / np.maximum(heard_by, 1), 0)
    return edges, np.clip(mean, 0, 1).astype(np.float32)


def found(model: Model, rows: Floats) -> NDArray[np.int64]:
    """The label of each moment, (moments,): the one furthest above its point, -1 where none is."""
    points = np.array([model.event_points.get(label, np.inf) for label in model.labels])
    against = rows / np.maximum(points, 1e-6)
    first = against.argmax(axis=1)
    return np.where(against.max(axis=1) >= 1, first, -1).astype(np.int64)


def events(
    model: Model,
    edges: NDArray[np.int64],
    rows: Floats,
    *,
    at: Callable[[int], float],
    evidence: Evidence | None = None,
) -> tuple[Event, ...]:
    """Neighbouring moments with the same label, joined; the probability is their highest.

    `at` gives the seconds of a frame. With `evidence` an event keeps the stretches in which there
    is most of it, see `loudest`: windows of two seconds tell two wheezes a second apart only so.
    """
    labels = found(model, rows)
    bounds = [0, *(np.flatnonzero(np.diff(labels)) + 1).tolist(), len(labels)]
    made = []
    for first, last in itertools.pairwise(bounds):
        label = int(labels[first]) if first < last else -1
        if label < 0:
            continue
        start, end = int(edges[first]), int(edges[last])
        line = None if evidence is None else evidence(label, start, end)
        parts = [(0, end - start)]
        if line is not None:
            parts = loudest(line, gap=_frames(at, GAP_S), least=_frames(at, LEAST_S))
        for a, b in parts:
            times = {"start_s": round(at(start + a), 3), "end_s": round(at(start + b), 3)}
            chance = round(float(rows[first:last, label].max()), 4)
            made.append(Event(label=model.labels[label], probability=chance, **times))
    return tuple(made)


def loudest(line: Floats, *, gap: int, least: int) -> list[tuple[int, int]]:
    """Stretches [start, end) of a line that reach a share of its highest value.

    Those less than `gap` apart are one. None is shorter than `least`, or else the longest alone
    counts; of a line without anything, the whole.
    """
    reached = np.flatnonzero(line >= SHARE * line.max())
    if not line.max() > 0:
        return [(0, len(line))]
    parts = np.split(reached, np.flatnonzero(np.diff(reached) > gap) + 1)
    stretches = [(int(part[0]), int(part[-1]) + 1) for part in parts]
    long = [(start, end) for start, end in stretches if end - start >= least]
    return long or [max(stretches, key=lambda stretch: stretch[1] - stretch[0])]


def stitched(spans: ArrayLike, columns: Floats, *, frames: int, first: int, last: int) -> Floats:
    """What windows show at their columns, as a line over the frames first to last, the highest.

    `columns`: (windows, columns) over the `frames` that each window was given;
    `spans`: [start, end) of each window, (windows, 2).
    """
    line = np.zeros(last - first, np.float32)
    middles = (np.arange(columns.shape[1]) + 0.5) * frames / columns.shape[1]
    starts, ends = np.asarray(spans).T
    for i in np.flatnonzero((starts < last) & (ends > first)):
        span = np.arange(max(first, starts[i]), min(last, ends[i]))
        shown = np.interp(span - starts[i] + 0.5, middles, columns[i])
        line[span - first] = np.maximum(line[span - first], shown)
    return line


def _frames(at: Callable[[int], float], seconds: float) -> int:
    return round(seconds / max(at(1) - at(0), 1e-9))
