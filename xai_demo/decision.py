"""From probabilities to an answer: the decision, and where an event is detected. Pure.

`decide` compares the probabilities with the model's operating points, which were chosen on
validation, and answers with a label, with findings or with "uncertain".

`detect_events` finds the events of a recording, such as a crackle or a wheeze, and their times.
Overlapping windows are combined by `event_probabilities_over_time`: every window that contains part
of a short event reports it for its whole length, so the mean over the windows at a moment is
highest where most of them contain the event. That mean is thresholded at operating points of its
own. How long an event lasts within the result is read from the network's last feature maps: what
each of their columns adds to the logit of the label, which is HiResCAM (Draelos and Carin 2020)
summed over frequency.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from xai_demo.records import Decision, Event

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from xai_demo.records import Floats, Model

    Evidence = Callable[[int, int, int], Floats]


def operating_points(model: Model, *, pooled: bool = False) -> Mapping[str, float]:
    """The operating points of a model; for pooled windows, those of recordings if it has any."""
    return model.recording_points if pooled and model.recording_points else model.operating_points


def rescale_to_operating_points(model: Model, probabilities: Floats) -> Floats:
    """Probabilities, (batch, labels), with each point of `model.rescaled_at` moved to 0.5.

    Linear on both sides of the point t: p / 2t below it, 1 - (1 - p) / 2(1 - t) above it. This is
    `op_norm` of torchxrayvision (Cohen et al. 2022).
    """
    if not model.rescaled_at:
        return probabilities
    t = np.array([model.rescaled_at.get(label, 0.5) for label in model.labels], np.float32)
    below, above = probabilities / (2 * t), 1 - (1 - probabilities) / (2 - 2 * t)
    rescaled = np.where(probabilities < t, below, above)
    result: Floats = rescaled.astype(np.float32)
    return result


def operating_point_ratios(
    model: Model, probabilities: Sequence[float] | Floats, *, pooled: bool = False
) -> list[float]:
    """Each label's probability divided by its operating point, normalised to a sum of 1.

    Labels without an operating point are divided by 0.5.
    """
    thresholds = operating_points(model, pooled=pooled)
    ratios = [
        # A point of zero would divide by zero.
        float(p) / max(thresholds.get(label, 0.5), 1e-6)
        for label, p in zip(model.labels, probabilities, strict=True)
    ]
    total = sum(ratios) or 1.0
    return [ratio / total for ratio in ratios]


def decided_label_index(
    model: Model, probabilities: Sequence[float] | Floats, *, pooled: bool = False
) -> int:
    """The index of the label furthest above its operating point.

    For a model without operating points, that is the most probable label.
    """
    ratios = operating_point_ratios(model, probabilities, pooled=pooled)
    return max(range(len(ratios)), key=ratios.__getitem__)


def pool_windows(model: Model, probabilities: Floats) -> Floats:
    """Probabilities of a recording from those of its windows, (windows, labels) -> (labels,).

    The maximum for independent labels; otherwise the mean (a linear opinion pool), which separated
    normal from abnormal lung recordings best on validation.
    """
    if model.activation == "sigmoid":
        result: Floats = probabilities.max(axis=0)
        return result
    mean: Floats = probabilities.mean(axis=0)
    return mean


def findings(
    model: Model, probabilities: Sequence[float] | Floats, *, pooled: bool = False
) -> tuple[int, ...]:
    """The independent labels at or above their operating points, the furthest above first."""
    thresholds = operating_points(model, pooled=pooled)
    if model.activation != "sigmoid" or not thresholds:
        return ()
    ratios = operating_point_ratios(model, probabilities, pooled=pooled)
    with_points = [k for k, label in enumerate(model.labels) if label in thresholds]
    present = [k for k in with_points if float(probabilities[k]) >= thresholds[model.labels[k]]]
    return tuple(sorted(present, key=lambda k: -ratios[k]))


def decide(
    model: Model, probabilities: Sequence[float] | Floats, *, pooled: bool = False
) -> Decision:
    """The decision for probabilities, (labels,); its label is None if it is uncertain.

    It is uncertain if the lead of the best label is below the margin chosen on validation. `pooled`
    says that the probabilities were pooled over several windows.
    """
    thresholds = operating_points(model, pooled=pooled)
    if model.activation == "sigmoid" and thresholds:
        return _decide_independent(model, probabilities, pooled=pooled)
    is_recording = thresholds is model.recording_points
    margin = model.recording_margin if is_recording else model.uncertain_margin
    ratios = operating_point_ratios(model, probabilities, pooled=pooled)
    first, second = sorted(range(len(ratios)), key=lambda k: -ratios[k])[:2]
    label, p = model.labels[first], float(probabilities[first])
    lead = ratios[first] - ratios[second]
    if margin is not None and lead < margin:
        other = f"{model.labels[second]} ({float(probabilities[second]):.2f})"
        relative = ", relative to their operating points" if thresholds else ""
        return Decision(
            label=None,
            probability=p,
            kind="uncertain",
            reason=f"{label} ({p:.2f}) and {other} are too close to call{relative}.",
        )
    if model.uncertain_below is not None and p < model.uncertain_below:
        return Decision(
            label=None,
            probability=p,
            kind="uncertain",
            reason=f"The most probable label, {label}, has probability {p:.2f}; this model needs "
            f"at least {model.uncertain_below:.2f}.",
        )
    point = thresholds.get(label)
    if point is None:
        return Decision(label=label, probability=p, reason="The most probable label.")
    return Decision(
        label=label,
        probability=p,
        reason=f"The label furthest above its operating point, which is {point:.2f}.",
    )


def _decide_independent(
    model: Model, probabilities: Sequence[float] | Floats, *, pooled: bool
) -> Decision:
    """The decision for independent labels, of which any number may be present."""
    thresholds = operating_points(model, pooled=pooled)
    first = decided_label_index(model, probabilities, pooled=pooled)
    label, p = model.labels[first], float(probabilities[first])
    present = findings(model, probabilities, pooled=pooled)
    if not present:
        return Decision(
            label=None,
            probability=p,
            kind="nothing found",
            reason=f"None of the {len(model.labels)} labels reaches its operating point; the "
            f"nearest is {label} at {p:.2f}, whose point is {thresholds.get(label, 0.5):.2f}.",
        )
    count = f"{len(present)} of {len(model.labels)} labels reach their operating points"
    point = thresholds.get(label, 0.5)
    return Decision(
        label=label,
        probability=p,
        reason=f"{count}; {label} is furthest above its own, which is {point:.2f}.",
        findings=tuple(model.labels[k] for k in present),
    )


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
