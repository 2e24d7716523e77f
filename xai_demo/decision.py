"""From probabilities to an answer in one word, or to "uncertain". Pure.

What overlapping windows say together about every moment of a recording. Pure.

Every window that hears some of a short event answers with it, and says it of all its length. The
mean over the windows that hear a moment is highest where most of them hear the event; it is cut at
points chosen for moments, on validation.

How long the event lasts in it is told by the network's last maps: what every column of them adds to
the logit of its label, which is HiResCAM (Draelos and Carin 2020) summed over frequency.
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


def points(model: Model, *, pooled: bool = False) -> Mapping[str, float]:
    """The operating points; of answers pooled over several windows where it has its own."""
    return model.recording_points if pooled and model.recording_points else model.operating_points


def rescaled(model: Model, probabilities: Floats) -> Floats:
    """Probabilities (batch, labels) with each point of `model.rescaled_at` moved to 0.5.

    Linear on both sides of the point t: p / 2t below it, 1 - (1 - p) / 2(1 - t) above; Cohen et al.
    2022, torchxrayvision's `op_norm`.
    """
    import numpy as np

    if not model.rescaled_at:
        return probabilities
    t = np.array([model.rescaled_at.get(label, 0.5) for label in model.labels], np.float32)
    below, above = probabilities / (2 * t), 1 - (1 - probabilities) / (2 - 2 * t)
    moved = np.where(probabilities < t, below, above)
    result: Floats = moved.astype(np.float32)
    return result


def standing(
    model: Model, probabilities: Sequence[float] | Floats, *, pooled: bool = False
) -> list[float]:
    """How each label stands against its operating point: p / point, scaled to add up to one."""
    of = points(model, pooled=pooled)
    ratios = [
        float(p) / max(of.get(label, 0.5), 1e-6)
        for label, p in zip(model.labels, probabilities, strict=True)
    ]
    total = sum(ratios) or 1.0
    return [ratio / total for ratio in ratios]


def decided_index(
    model: Model, probabilities: Sequence[float] | Floats, *, pooled: bool = False
) -> int:
    """The label furthest above its operating point; without points, the most probable one."""
    ratios = standing(model, probabilities, pooled=pooled)
    return max(range(len(ratios)), key=ratios.__getitem__)


def over_windows(model: Model, probabilities: Floats) -> Floats:
    """Probabilities of a recording from those of its windows, (windows, labels) -> (labels,).

    Independent labels: the maximum. Others: the mean (a linear opinion pool), which told normal
    from abnormal lung recordings best on validation.
    """
    if model.activation == "sigmoid":
        result: Floats = probabilities.max(axis=0)
        return result
    mean: Floats = probabilities.mean(axis=0)
    return mean


def findings(
    model: Model, probabilities: Sequence[float] | Floats, *, pooled: bool = False
) -> tuple[int, ...]:
    """Of independent labels those at or above their operating points, the furthest above first."""
    of = points(model, pooled=pooled)
    if model.activation != "sigmoid" or not of:
        return ()
    ratios = standing(model, probabilities, pooled=pooled)
    found = [k for k, label in enumerate(model.labels) if label in of]
    found = [k for k in found if float(probabilities[k]) >= of[model.labels[k]]]
    return tuple(sorted(found, key=lambda k: -ratios[k]))


def decision(
    model: Model, probabilities: Sequence[float] | Floats, *, pooled: bool = False
) -> Decision:
    """The answer; its label is None where validation showed the lead to be too small to call.

    `pooled`: the probabilities are those of several windows together.
    """
    of = points(model, pooled=pooled)
    if model.activation == "sigmoid" and of:
        return _of_findings(model, probabilities, pooled=pooled)
    margin = model.recording_margin if of is model.recording_points else model.uncertain_margin
    ratios = standing(model, probabilities, pooled=pooled)
    first, second = sorted(range(len(ratios)), key=lambda k: -ratios[k])[:2]
    label, p = model.labels[first], float(probabilities[first])
    lead = ratios[first] - ratios[second]
    if margin is not None and lead < margin:
        other = f"{model.labels[second]} ({float(probabilities[second]):.2f})"
        weighed = "; each is weighed against its operating point" if of else ""
        return Decision(
            label=None,
            probability=p,
            kind="uncertain",
            reason=f"{label} ({p:.2f}) and {other} are too close to call{weighed}.",
        )
    if model.uncertain_below is not None and p < model.uncertain_below:
        return Decision(
            label=None,
            probability=p,
            kind="uncertain",
            reason=f"The most probable label, {label}, has probability {p:.2f}; this model answers "
            f"from {model.uncertain_below:.2f} on.",
        )
    point = of.get(label)
    if point is None:
        return Decision(label=label, probability=p, reason="The most probable label.")
    return Decision(
        label=label,
        probability=p,
        reason=f"Furthest above its operating point, which is {point:.2f}.",
    )


def _of_findings(
    model: Model, probabilities: Sequence[float] | Floats, *, pooled: bool
) -> Decision:
    """Independent labels: any number of them is found, or none."""
    of = points(model, pooled=pooled)
    first = decided_index(model, probabilities, pooled=pooled)
    label, p = model.labels[first], float(probabilities[first])
    found = findings(model, probabilities, pooled=pooled)
    if not found:
        return Decision(
            label=None,
            probability=p,
            kind="nothing found",
            reason=f"None of the {len(model.labels)} labels reaches its operating point; the "
            f"nearest is {label} at {p:.2f}, whose point is {of.get(label, 0.5):.2f}.",
        )
    count = f"{len(found)} of {len(model.labels)} labels reach their operating points"
    return Decision(
        label=label,
        probability=p,
        reason=f"{count}; {label} is furthest above its own, which is {of.get(label, 0.5):.2f}.",
        findings=tuple(model.labels[k] for k in found),
    )


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
