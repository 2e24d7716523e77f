"""Detection of events in a recording, such as a crackle or a wheeze, and of their times. Pure.

Overlapping windows are combined by `event_probabilities_over_time`: every window that contains part
of a short event reports it for its whole length, so the mean over the windows at a moment is
highest where most of them contain the event. `detect_events` compares that mean with operating
points of its own. How long an event lasts within the result is read from the network's last feature
maps: what each of their columns adds to the logit of the label, which is HiResCAM (Draelos and
Carin 2020) summed over frequency.
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

    Evidence = Callable[[int, int, int], Floats]

# An event lasts where the evidence is at least this share of its maximum; the value separated
# annotated events best on validation.
EVENT_SHARE = 0.2
MERGE_GAP_S = 0.3  # parts of an event with a smaller gap between them are merged
# Shorter events are only the edge of one in the neighbouring windows.
MIN_EVENT_S = 0.2


def event_probabilities_over_time(
    starts: ArrayLike, ends: ArrayLike, probabilities: Floats
) -> tuple[NDArray[np.int64], Floats]:
    """The mean probabilities over time of overlapping windows.

    From windows [start, end) in frames with probabilities, (windows, labels), to the moments
    between the frames at which any window begins or ends: edges, (moments + 1,), and
    probabilities, (moments, labels), which are zero where there is no window.

    >>> edges, rows = event_probabilities_over_time([0, 2], [4, 6], np.array([[0.25], [0.75]]))
    >>> edges.tolist(), rows.ravel().tolist()
    ([0, 2, 4, 6], [0.25, 0.5, 0.75])
    """
    edges = np.unique(np.concatenate([np.asarray(starts), np.asarray(ends)])).astype(np.int64)
    # Each window adds its probabilities at its start and subtracts them at its end; the cumulative
    # sum is the total over the windows at each moment. The last column counts the windows.
    change = np.zeros((len(edges), probabilities.shape[1] + 1))
    rows = np.column_stack([probabilities, np.ones(len(probabilities))]).astype(np.float64)
    np.add.at(change, np.searchsorted(edges, starts), rows)
    np.subtract.at(change, np.searchsorted(edges, ends), rows)
    total = change.cumsum(axis=0)[:-1]
    n_windows = np.round(total[:, -1:])
    mean = np.where(n_windows > 0, total[:, :-1] / np.maximum(n_windows, 1), 0)
    return edges, np.clip(mean, 0, 1).astype(np.float32)


def event_labels(model: Model, rows: Floats) -> NDArray[np.int64]:
    """The index of the label of each moment, (moments, labels) -> (moments,); -1 for no event.

    It is the label furthest above its event point.
    """
    points = np.array([model.event_points.get(label, np.inf) for label in model.labels])
    ratios = rows / np.maximum(points, 1e-6)
    return np.where(ratios.max(axis=1) >= 1, ratios.argmax(axis=1), -1).astype(np.int64)


def detect_events(
    model: Model,
    edges: NDArray[np.int64],
    rows: Floats,
    *,
    seconds_at: Callable[[int], float],
    evidence: Evidence | None = None,
) -> tuple[Event, ...]:
    """The events of a recording, in order of time: where a crackle or a wheeze is detected.

    Neighbouring moments with the same label are joined; the probability is their highest. `edges`
    and `rows` come from `event_probabilities_over_time`; `seconds_at` converts a frame to seconds.
    `evidence(label, first, last)` is the evidence for a label over frames. With it, an event is
    reduced to the parts with most evidence (`strongest_parts`), because windows of two seconds
    alone cannot separate two wheezes that are one second apart.
    """
    labels = event_labels(model, rows)
    # The moments at which the label changes.
    bounds = [0, *(np.flatnonzero(np.diff(labels)) + 1).tolist(), len(labels)]
    events = []
    for first, last in itertools.pairwise(bounds):
        label = int(labels[first]) if first < last else -1
        if label < 0:
            continue
        start, end = int(edges[first]), int(edges[last])
        parts = [(0, end - start)]
        if evidence is not None:
            gap = _frames_in(seconds_at, MERGE_GAP_S)
            min_length = _frames_in(seconds_at, MIN_EVENT_S)
            parts = strongest_parts(evidence(label, start, end), gap=gap, min_length=min_length)
        for a, b in parts:
            times = {
                "start_s": round(seconds_at(start + a), 3),
                "end_s": round(seconds_at(start + b), 3),
            }
            probability = round(float(rows[first:last, label].max()), 4)
            events.append(Event(label=model.labels[label], probability=probability, **times))
    return tuple(events)


def strongest_parts(curve: Floats, *, gap: int, min_length: int) -> list[tuple[int, int]]:
    """The parts [start, end) of an evidence curve, (frames,), above `EVENT_SHARE` of its maximum.

    Parts at most `gap` frames apart are merged. Parts shorter than `min_length` are left out,
    unless all are: then the longest one is returned. Of a curve without evidence, all of it is.

    >>> strongest_parts(np.array([0, 3, 5, 0, 0, 0, 4, 4.0]), gap=2, min_length=2)
    [(1, 3), (6, 8)]
    """
    if not curve.max() > 0:
        return [(0, len(curve))]
    strong = np.flatnonzero(curve >= EVENT_SHARE * curve.max())
    runs = np.split(strong, np.flatnonzero(np.diff(strong) > gap) + 1)
    parts = [(int(run[0]), int(run[-1]) + 1) for run in runs]
    # A single short burst is still an event: the detection has already passed its threshold.
    long = [(start, end) for start, end in parts if end - start >= min_length]
    return long or [max(parts, key=lambda part: part[1] - part[0])]


def evidence_over_time(
    spans: ArrayLike, columns: Floats, *, frames: int, first: int, last: int
) -> Floats:
    """The evidence of windows at their columns as a curve over the frames first to last.

    `columns` is (windows, columns) over the `frames` of each window; `spans` has [start, end) of
    each window, (windows, 2). Where windows overlap, the highest evidence counts.
    """
    curve = np.zeros(last - first, np.float32)
    # The middle of each column's receptive field, in frames of the window.
    middles = (np.arange(columns.shape[1]) + 0.5) * frames / columns.shape[1]
    starts, ends = np.asarray(spans).T
    for i in np.flatnonzero((starts < last) & (ends > first)):
        span = np.arange(max(first, starts[i]), min(last, ends[i]))
        values = np.interp(span - starts[i] + 0.5, middles, columns[i])
        curve[span - first] = np.maximum(curve[span - first], values)
    return curve


def _frames_in(seconds_at: Callable[[int], float], duration_s: float) -> int:
    return round(duration_s / max(seconds_at(1) - seconds_at(0), 1e-9))
