"""What overlapping windows say together about every moment of a recording. Pure.

Every window that hears some of a short event answers with it, and says it of all its length. The
mean over the windows that hear a moment is highest where most of them hear the event; it is cut at
points chosen for moments, on validation.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from xai_demo.records import Event

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xai_demo.records import Floats, Model


def over_time(
    starts: Sequence[int], ends: Sequence[int], probabilities: Floats
) -> tuple[NDArray[np.int64], Floats]:
    """Mean probabilities between the frames at which windows begin or end.

    From windows [start, end) with probabilities (windows, labels): edges (moments + 1,) and rows
    (moments, labels), zero where no window lies.
    """
    edges = np.unique(np.concatenate([starts, ends])).astype(np.int64)
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


def events(model: Model, edges_s: Sequence[float], rows: Floats) -> tuple[Event, ...]:
    """Neighbouring moments with the same label, joined; the probability is their highest."""
    labels = found(model, rows)
    bounds = [0, *(np.flatnonzero(np.diff(labels)) + 1).tolist(), len(labels)]
    return tuple(
        Event(
            label=model.labels[labels[first]],
            start_s=round(float(edges_s[first]), 3),
            end_s=round(float(edges_s[last]), 3),
            probability=round(float(rows[first:last, labels[first]].max()), 4),
        )
        for first, last in itertools.pairwise(bounds)
        if first < last and labels[first] >= 0
    )
