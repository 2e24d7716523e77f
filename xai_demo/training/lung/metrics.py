"""Metrics of lung sounds: those of the ICBHI 2017 and SPRSound challenges, and of timelines.

Classes are normal, crackle, wheeze, both, in this order. Sensitivity is the share of abnormal
events assigned to their exact class, specificity that of normal ones called normal (Rocha et al.
2019, section 3.3; Zhang et al. 2022, section V). With two classes, any abnormal class is correct.
At the record level, "poor quality" may follow as a further class, which counts as abnormal.

`agreement` compares the events on the timeline of a recording with the annotated ones by seconds
rather than by event, so that one long event over a short one is correct only for the short one's
duration. Crackles and wheezes are counted separately; "both" counts as each of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo.training import metrics
from xai_demo.training.datasets.breathing import (
    BOTH,
    CRACKLE,
    LABELS,
    NORMAL,
    WHEEZE,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from xai_demo.records import Event, Metric
    from xai_demo.training.datasets.breathing import Annotation
    from xai_demo.training.metrics import Array, Labels

# Resolution in which timelines are compared.
_STEP_S = 0.01
# The classes that count as crackles, and as wheezes.
_KINDS = ((CRACKLE, BOTH), (WHEEZE, BOTH))


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """A model's predictions for some events or recordings, and their true classes."""

    probabilities: Array  # (samples, classes), calibrated
    targets: Labels  # (samples,)
    decided: Labels  # (samples,)
    # (samples,), "both" not being a choice.
    decided_of_three: Labels
    patients: tuple[str, ...]
    labels: tuple[str, ...] = LABELS


def decide(
    probabilities: Array,
    targets: Labels,
    patients: tuple[str, ...],
    *,
    points: Array | None = None,
    labels: tuple[str, ...] = LABELS,
) -> Predictions:
    """Add decisions: the largest probability, relative to the operating points if given."""
    relative = probabilities if points is None else probabilities / points
    return Predictions(
        probabilities=probabilities,
        targets=targets,
        decided=relative.argmax(axis=1),
        # BOTH is the last class, so the slice leaves it out.
        decided_of_three=relative[:, :BOTH].argmax(axis=1),
        patients=patients,
        labels=labels,
    )


def challenge_scores(counts: Array) -> dict[str, float]:
    """SE, SP, AS = (SE + SP) / 2, HS = 2 SE SP / (SE + SP) and (AS + HS) / 2.

    `counts` is (true class, decided class), normal first; scores are NaN where there is no normal,
    or no abnormal, sample.

    >>> round(challenge_scores(np.array([[8, 2], [4, 6]]))["average_score"], 3)
    0.7
    """
    correct, totals = counts.diagonal(), counts.sum(axis=1)
    sensitivity = share(correct[1:].sum(), totals[1:].sum())
    specificity = share(correct[0], totals[0])
    average = (sensitivity + specificity) / 2
    total = sensitivity + specificity
    # 0 / 0 counts as 0, the worst score; NaN stays NaN.
    harmonic = 0.0 if total == 0 else 2 * sensitivity * specificity / total
    return {
        "sensitivity": sensitivity,
        "specificity": specificity,
        "average_score": average,
        "harmonic_score": harmonic,
        "total_score": (average + harmonic) / 2,
    }


def two_classes(counts: Array) -> Array:
    """Counts of normal and abnormal, from those of all classes.

    >>> two_classes(np.array([[5, 1, 0], [2, 3, 1], [0, 1, 4]])).tolist()
    [[5, 1], [2, 9]]
    """
    split = [0, 1]
    merged: Array = np.add.reduceat(np.add.reduceat(counts, split, axis=0), split, axis=1)
    return merged


def balanced_accuracy_of_three(targets: Labels, decided: Labels, weights: Array) -> float:
    """Mean recall of normal, crackle and wheeze; samples of other classes are left out."""
    included = targets < BOTH
    counts = metrics.confusion(targets[included], decided[included], weights[included], BOTH)
    totals = counts.sum(axis=1)
    # A bootstrap draw may lack a class.
    present = totals > 0
    recalls = counts.diagonal()[present] / totals[present]
    return float(recalls.mean()) if present.any() else float("nan")


def figures(answers: Predictions, weights: Array) -> dict[str, float]:
    """All overall metrics for one weighting of the samples, (samples,).

    Plain names are for two classes (normal, abnormal), `..._4` for all four;
    `balanced_accuracy_3` leaves out "both".
    """
    targets, decided = answers.targets, answers.decided
    counts = metrics.confusion(targets, decided, weights, len(answers.labels))
    four_classes = challenge_scores(counts)
    return (
        metrics.summary(answers.probabilities, targets, decided, weights, NORMAL)
        | challenge_scores(two_classes(counts))
        | {f"{name}_4": value for name, value in four_classes.items()}
        | {
            "balanced_accuracy_3": balanced_accuracy_of_three(
                targets, answers.decided_of_three, weights
            ),
        }
    )


def scores(answers: Predictions, *, seed: int = 0) -> dict[str, Metric]:
    """`figures` with 95 % bootstrap intervals by patient."""
    return metrics.with_intervals(lambda w: figures(answers, w), answers.patients, seed=seed)


def class_scores(answers: Predictions, *, seed: int = 0) -> dict[str, dict[str, Metric]]:
    """Precision, recall, F1 and AUROC of each class, with the same intervals."""

    def flat(weights: Array) -> dict[str, float]:
        each = metrics.per_class(answers.probabilities, answers.targets, answers.decided, weights)
        # One flat dictionary, so that one bootstrap serves all classes. No name has a line break.
        return {f"{k}\n{name}": value for k, row in each.items() for name, value in row.items()}

    by_label: dict[str, dict[str, Metric]] = {label: {} for label in answers.labels}
    for key, metric in metrics.with_intervals(flat, answers.patients, seed=seed).items():
        number, _, name = key.partition("\n")
        by_label[answers.labels[int(number)]][name] = metric
    return by_label


def as_json(answers: Predictions, *, is_icbhi_test: bool = False, seed: int = 0) -> dict[str, Any]:
    """All metrics, as `evaluate --json` prints them for one level (event or recording).

    `is_icbhi_test`: the samples are breathing cycles of ICBHI 2017's official test split. Only
    there is the average score of four classes also called `icbhi_score`, as in Rocha et al. 2019.
    """
    overall = scores(answers, seed=seed)
    if is_icbhi_test:
        overall["icbhi_score"] = overall["average_score_4"]
    equal = np.ones(len(answers.targets))
    counts = metrics.confusion(answers.targets, answers.decided, equal, len(answers.labels))
    return {
        "n": len(answers.targets),
        "groups": len(set(answers.patients)),
        "metrics": metrics.as_json(overall),
        "per_class": {
            label: metrics.as_json(row) for label, row in class_scores(answers, seed=seed).items()
        },
        "confusion": {"labels": list(answers.labels), "counts": counts.astype(int).tolist()},
    }


def found_by_detail(
    answers: Predictions, details: Sequence[str], *, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """For each name of a sound, how many samples have it and the share that was found.

    Found is a crackle or wheeze that the decided class contains, and a normal sound called normal.
    """
    # As bits: crackle 1, wheeze 2, both 3.
    decided, targets = answers.decided, answers.targets
    is_found = np.where(targets == NORMAL, decided == NORMAL, (decided & targets) == targets)
    table: dict[str, dict[str, Any]] = {}
    for name in sorted(set(details)):
        chosen = np.array([detail == name for detail in details])

        def share_found(weights: Array, chosen: Any = chosen) -> dict[str, float]:
            inside = weights * chosen
            return {"found": share(float(inside @ is_found), float(inside.sum()))}

        figures = metrics.with_intervals(share_found, answers.patients, seed=seed)
        table[name] = {"n": int(chosen.sum()), **metrics.as_json(figures)}
    return table


def abnormal_by_device(
    answers: Predictions, devices: Sequence[str], *, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """For each device, its samples and patients and how well normal and abnormal are told apart."""
    table: dict[str, dict[str, Any]] = {}
    is_abnormal = answers.targets != NORMAL
    for name in sorted(set(devices)):
        chosen = np.array([device == name for device in devices])
        scores, truth = 1 - answers.probabilities[chosen, NORMAL], is_abnormal[chosen]
        patients = tuple(p for p, c in zip(answers.patients, chosen, strict=True) if c)

        def area(weights: Array, scores: Array = scores, truth: Any = truth) -> dict[str, float]:
            return {"auroc_abnormal": metrics.auroc(scores, truth, weights)}

        table[name] = {
            "n": int(chosen.sum()),
            "groups": len(set(patients)),
            "abnormal": int(truth.sum()),
            **metrics.as_json(metrics.with_intervals(area, patients, seed=seed)),
        }
    return table


def recording_probabilities(
    probabilities: Array, recordings: NDArray[np.int64], n_recordings: int
) -> Array:
    """The probabilities of whole recordings: (windows, 4) -> (recordings, 4).

    `recordings` has the recording of every window. The largest marginal probability over the
    windows counts, as a recording is labelled by all that can be heard in it; crackles and wheezes
    are treated as independent. Recordings without a window are normal.
    """
    crackle = np.zeros(n_recordings)
    wheeze = np.zeros(n_recordings)
    # Indexing would keep only the last window of a recording.
    np.maximum.at(crackle, recordings, probabilities[:, 1] + probabilities[:, 3])
    np.maximum.at(wheeze, recordings, probabilities[:, 2] + probabilities[:, 3])
    # In the order of LABELS.
    stacked: Array = np.stack(
        [
            (1 - crackle) * (1 - wheeze),
            crackle * (1 - wheeze),
            (1 - crackle) * wheeze,
            crackle * wheeze,
        ],
        axis=1,
    )
    return stacked


def share(part: float, whole: float) -> float:
    """`part` divided by `whole`; NaN where `whole` is not positive."""
    return float(part / whole) if whole > 0 else float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Seconds of one recording; those of crackles and of wheezes are added up."""

    duration_s: float  # of the recording
    agreed_s: float  # both detected and annotated
    detected_s: float
    annotated_s: float
    any_detected_s: float  # time with any detected event
    # Whether any annotated time was detected.
    is_hit: bool


def agreement(
    events: Iterable[Event], annotations: Iterable[Annotation], *, duration_s: float
) -> Agreement:
    """The agreement of detected events, labelled as in `breathing`, with annotated ones."""
    steps = max(1, round(duration_s / _STEP_S))
    detected = _kind_masks(((e.start_s, e.end_s, LABELS.index(e.label)) for e in events), steps)
    truth = _kind_masks(((a.start_s, a.end_s, a.kind) for a in annotations), steps)
    both = detected & truth
    return Agreement(
        duration_s=steps * _STEP_S,
        agreed_s=float(both.sum()) * _STEP_S,
        detected_s=float(detected.sum()) * _STEP_S,
        annotated_s=float(truth.sum()) * _STEP_S,
        any_detected_s=float(detected.any(axis=0).sum()) * _STEP_S,
        is_hit=bool(both.any()),
    )


def agreement_as_json(rows: Sequence[Agreement], patients: Sequence[str]) -> dict[str, Any]:
    """Metrics of many recordings with 95 % bootstrap intervals by patient."""
    # By what is annotated as crackles or wheezes, whatever the label of the recording.
    is_normal = np.array([not row.annotated_s for row in rows])

    def column(name: str) -> Array:
        return np.array([getattr(row, name) for row in rows], np.float64)

    def figures(weights: Array) -> dict[str, float]:
        # Sums before ratios, so that a recording counts by its length.
        agreed, detected, truth = (
            float(weights @ column(name)) for name in ("agreed_s", "detected_s", "annotated_s")
        )
        normal, abnormal = weights * is_normal, weights * ~is_normal
        any_detected = column("any_detected_s")
        return {
            "time_precision": share(agreed, detected),
            "time_recall": share(agreed, truth),
            "time_f1": share(2 * agreed, detected + truth),
            "abnormal_recordings_found": share(abnormal @ column("is_hit"), abnormal.sum()),
            "normal_recordings_with_events": share(normal @ (any_detected > 0), normal.sum()),
            "false_seconds_per_minute": 60
            * share(normal @ any_detected, normal @ column("duration_s")),
        }

    return {
        "n": len(rows),
        "normal": int(is_normal.sum()),
        "metrics": metrics.as_json(metrics.with_intervals(figures, tuple(patients))),
    }


def _kind_masks(spans: Iterable[tuple[float, float, int]], steps: int) -> NDArray[np.bool_]:
    """When crackles and wheezes sound, (2, steps)."""
    masks = np.zeros((len(_KINDS), steps), np.bool_)
    for start_s, end_s, kind in spans:
        span = slice(round(start_s / _STEP_S), round(end_s / _STEP_S))
        for row, kinds in enumerate(_KINDS):
            masks[row, span] |= kind in kinds
    return masks
