"""Figures of merit of lung sounds: those of the ICBHI 2017 and the SPRSound challenges. Pure.

Classes are normal, crackle, wheeze, both, in this order. Sensitivity is the share of abnormal
events called by their right class, specificity that of normal ones called normal (Rocha et al.
2019, section 3.3; Zhang et al. 2022, section V). With two classes any abnormal one is right. A
"poor quality" recording may follow as a further class of the record level: it counts as abnormal.

How far the events on the timeline of a recording agree with the annotated ones. Pure.

In time: an event of some seconds that covers a short one is right for its length alone. Crackles
and wheezes are counted each for themselves, and what is both counts as both.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """What a model said of some events or recordings, and what they are."""

    probabilities: Array  # (samples, classes), calibrated
    targets: Labels  # (samples,)
    decided: Labels  # (samples,)
    decided_of_three: Labels  # (samples,), where "both" is no choice
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
    """With decisions: the largest probability, relative to its operating point if one is given."""
    relative = probabilities if points is None else probabilities / points
    return Predictions(
        probabilities=probabilities,
        targets=targets,
        decided=relative.argmax(axis=1),
        decided_of_three=relative[:, :BOTH].argmax(axis=1),
        patients=patients,
        labels=labels,
    )


def challenge_scores(counts: Array) -> dict[str, float]:
    """SE, SP, AS = (SE + SP) / 2, HS = 2 SE SP / (SE + SP) and (AS + HS) / 2.

    From counts (true class, decided class), normal first; NaN where a side is absent.
    """
    right, truly = counts.diagonal(), counts.sum(axis=1)
    sensitivity = share(right[1:].sum(), truly[1:].sum())
    specificity = share(right[0], truly[0])
    average = (sensitivity + specificity) / 2
    both = sensitivity + specificity
    harmonic = 0.0 if both == 0 else 2 * sensitivity * specificity / both
    return {
        "sensitivity": sensitivity,
        "specificity": specificity,
        "average_score": average,
        "harmonic_score": harmonic,
        "total_score": (average + harmonic) / 2,
    }


def two_classes(counts: Array) -> Array:
    """Counts of normal and abnormal, from those of all classes."""
    split = [0, 1]
    merged: Array = np.add.reduceat(np.add.reduceat(counts, split, axis=0), split, axis=1)
    return merged


def balanced_accuracy_of_three(targets: Labels, decided: Labels, weights: Array) -> float:
    """Mean recall of normal, crackle and wheeze; samples of another class are left out."""
    among = targets < BOTH
    counts = metrics.confusion(targets[among], decided[among], weights[among], BOTH)
    truly = counts.sum(axis=1)
    present = truly > 0
    recalls = counts.diagonal()[present] / truly[present]
    return float(recalls.mean()) if present.any() else float("nan")


def figures(answers: Predictions, weights: Array) -> dict[str, float]:
    """Every overall figure for one weighting of the samples.

    Plain names are of two classes (normal, abnormal), `..._4` of all of them;
    `balanced_accuracy_3` is without "both".
    """
    targets, decided = answers.targets, answers.decided
    counts = metrics.confusion(targets, decided, weights, len(answers.labels))
    of_all = challenge_scores(counts)
    return (
        metrics.summary(answers.probabilities, targets, decided, weights, NORMAL)
        | challenge_scores(two_classes(counts))
        | {f"{name}_4": value for name, value in of_all.items()}
        | {
            "balanced_accuracy_3": balanced_accuracy_of_three(
                targets, answers.decided_of_three, weights
            ),
        }
    )


def scores(answers: Predictions, *, seed: int = 0) -> dict[str, Metric]:
    """`figures` with 95 % intervals over bootstrap draws of patients."""
    return metrics.with_intervals(lambda w: figures(answers, w), answers.patients, seed=seed)


def class_scores(answers: Predictions, *, seed: int = 0) -> dict[str, dict[str, Metric]]:
    """Precision, recall, F1 and AUROC of each class, with the same intervals."""

    def flat(weights: Array) -> dict[str, float]:
        each = metrics.per_class(answers.probabilities, answers.targets, answers.decided, weights)
        return {f"{k}\n{name}": value for k, row in each.items() for name, value in row.items()}

    by_label: dict[str, dict[str, Metric]] = {label: {} for label in answers.labels}
    for key, metric in metrics.with_intervals(flat, answers.patients, seed=seed).items():
        number, _, name = key.partition("\n")
        by_label[answers.labels[int(number)]][name] = metric
    return by_label


def as_json(answers: Predictions, *, is_icbhi_test: bool = False, seed: int = 0) -> dict[str, Any]:
    """All of it, as `evaluate --json` prints it for one level (event or recording).

    `is_icbhi_test`: the samples are breathing cycles of ICBHI 2017's official test split. Only
    there is the average score of four classes also called `icbhi_score`, as in Rocha et al. 2019.
    """
    overall = scores(answers, seed=seed)
    if is_icbhi_test:
        overall["icbhi_score"] = overall["average_score_4"]
    everyone = np.ones(len(answers.targets))
    counts = metrics.confusion(answers.targets, answers.decided, everyone, len(answers.labels))
    return {
        "n": len(answers.targets),
        "groups": len(set(answers.patients)),
        "metrics": metrics.as_json(overall),
        "per_class": {
            label: metrics.as_json(row) for label, row in class_scores(answers, seed=seed).items()
        },
        "confusion": {"labels": list(answers.labels), "counts": counts.astype(int).tolist()},
    }


def recording_probabilities(
    probabilities: Array, recordings: NDArray[np.int64], n_recordings: int
) -> Array:
    """One row a recording: the chance that some window of it holds a crackle, and a wheeze.

    Of the windows' marginals the largest counts, for a recording is labelled by all that can be
    heard in it; the two are taken as independent. Rows of recordings without a window are normal.
    """
    crackle = np.zeros(n_recordings)
    wheeze = np.zeros(n_recordings)
    np.maximum.at(crackle, recordings, probabilities[:, 1] + probabilities[:, 3])
    np.maximum.at(wheeze, recordings, probabilities[:, 2] + probabilities[:, 3])
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
    """`part` of `whole`; not a number where there is nothing to share."""
    return float(part / whole) if whole > 0 else float("nan")


_STEP_S = 0.01
_KINDS = ((CRACKLE, BOTH), (WHEEZE, BOTH))


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Seconds of one recording, crackles and wheezes added up."""

    lasts_s: float  # the recording
    agreed_s: float  # found and annotated
    found_s: float
    annotated_s: float
    anything_s: float  # found, of whatever kind
    agrees: bool  # some of what is annotated was found


def agreement(
    events: Iterable[Event], annotated: Iterable[Annotation], *, duration_s: float
) -> Agreement:
    """Of one recording; labels are those of `breathing`."""
    steps = max(1, round(duration_s / _STEP_S))
    found = _kind_masks(((e.start_s, e.end_s, LABELS.index(e.label)) for e in events), steps)
    truth = _kind_masks(((a.start_s, a.end_s, a.kind) for a in annotated), steps)
    both = found & truth
    return Agreement(
        lasts_s=steps * _STEP_S,
        agreed_s=float(both.sum()) * _STEP_S,
        found_s=float(found.sum()) * _STEP_S,
        annotated_s=float(truth.sum()) * _STEP_S,
        anything_s=float(found.any(axis=0).sum()) * _STEP_S,
        agrees=bool(both.any()),
    )


def agreement_as_json(rows: Sequence[Agreement], patients: Sequence[str]) -> dict[str, Any]:
    """Figures with 95 % intervals over bootstrap draws of patients."""
    calm = np.array([not row.annotated_s for row in rows])

    def column(name: str) -> Array:
        return np.array([getattr(row, name) for row in rows], np.float64)

    def figures(weights: Array) -> dict[str, float]:
        agreed, found, truth = (
            float(weights @ column(name)) for name in ("agreed_s", "found_s", "annotated_s")
        )
        quiet, loud = weights * calm, weights * ~calm
        anything = column("anything_s")
        return {
            "time_precision": share(agreed, found),
            "time_recall": share(agreed, truth),
            "time_f1": share(2 * agreed, found + truth),
            "abnormal_recordings_found": share(loud @ column("agrees"), loud.sum()),
            "normal_recordings_with_events": share(quiet @ (anything > 0), quiet.sum()),
            "false_seconds_per_minute": 60 * share(quiet @ anything, quiet @ column("lasts_s")),
        }

    return {
        "n": len(rows),
        "normal": int(calm.sum()),
        "metrics": metrics.as_json(metrics.with_intervals(figures, tuple(patients))),
    }


def _kind_masks(spans: Iterable[tuple[float, float, int]], steps: int) -> NDArray[np.bool_]:
    """When crackles and when wheezes sound, (2, steps)."""
    heard = np.zeros((len(_KINDS), steps), np.bool_)
    for start_s, end_s, kind in spans:
        span = slice(round(start_s / _STEP_S), round(end_s / _STEP_S))
        for row, kinds in enumerate(_KINDS):
            heard[row, span] |= kind in kinds
    return heard
