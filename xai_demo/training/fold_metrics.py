"""Figures of a cross-validation, over all folds, by seed and by fold; and tests between two runs.

Whether one of two runs over the same folds is better, or was lucky, is a paired t-test.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo.errors import TrainingError
from xai_demo.files import write_atomically
from xai_demo.training import findings, metrics
from xai_demo.training.metrics import interval_text, round_finite

if TYPE_CHECKING:
    from xai_demo.records import Model
    from xai_demo.training.metrics import Array, Labels

FILE = "cross_validation.json"
METHOD = (
    "For each fold, a network is trained from scratch by the recipe on the other folds, tuned and "
    "calibrated on a validation part of them, and tested on the fold, which it has not seen. "
    "`accuracy` is the mean over the folds; all other figures are computed on the predictions of "
    "all folds together."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """The predictions on one fold and the truth; shapes as a `Dataset` has them."""

    name: str
    probabilities: Array  # (samples, labels)
    targets: Labels
    decisions: Labels
    groups: tuple[str, ...]


def summarise_folds(
    model: Model, *, data: str, runs: Sequence[Sequence[Fold]], notes: Sequence[str] = ()
) -> dict[str, Any]:
    """The figures as JSON values; a run holds the folds of one seed."""
    # All runs have the same folds, and so the same targets and patients in the same order.
    first = runs[0]
    targets = np.concatenate([fold.targets for fold in first])
    groups = [group for fold in first for group in fold.groups]
    figures = [_run_figures(model, run) for run in runs]

    def mean(weights: Array) -> dict[str, float]:
        return _mean([run_figures(weights) for run_figures in figures])

    def as_json(run_figures: Callable[[Array], dict[str, float]]) -> dict[str, Any]:
        return metrics.as_json(metrics.with_intervals(run_figures, groups))

    return {
        "model": model.name,
        "data": data,
        "folds": len(first),
        "dealt": folds_digest(first),
        "seeds": len(runs),
        "n": len(targets),
        "groups": len(set(groups)),
        "labels": {
            label: int((targets == i).sum() if targets.ndim == 1 else targets[:, i].sum())
            for i, label in enumerate(model.labels)
        },
        "metrics": as_json(mean),
        "per_seed": [as_json(run_figures) for run_figures in figures],
        "per_fold": {
            fold.name: [
                round(float((each.decisions == each.targets).mean()), 4)
                for each in (run[i] for run in runs)
            ]
            for i, fold in enumerate(first)
        },
        # Means over the seeds, so that a fold counts once in a paired test.
        "figures_by_fold": [
            {
                name: round_finite(value)
                for name, value in _mean([_fold_summary(model, run[i]) for run in runs]).items()
            }
            for i in range(len(first))
        ],
        "confusion": {"labels": list(model.labels), "counts": _confusion(model, runs)},
        "method": METHOD,
        "notes": sorted(set(notes)),
    }


def folds_digest(folds: Sequence[Fold]) -> str:
    """A digest of which patient was in which fold; runs are comparable only if theirs agree."""
    digest = hashlib.sha256()
    for fold in folds:
        # Sorted, because the order of the samples within a fold makes no difference.
        digest.update(f"{fold.name}:{','.join(sorted(fold.groups))}\n".encode())
    return digest.hexdigest()[:16]


def card_section(result: dict[str, Any]) -> list[str]:
    """The figures as lines of Markdown, for a model card."""
    # Only runs that train a network for each fold have figures by fold; those that refit the last
    # layer are of patients.
    groups = "patients or sources" if "per_fold" in result else "patients"
    seeds = f"{result['seeds']} seed{'s' * (result['seeds'] != 1)}"
    new_hospital = result.get("abroad")
    return [
        f"{result['method']} {result['n']} samples from {result['groups']} {groups}, "
        f"{result['folds']} folds, {seeds}; {_spread_text(result)}. Brackets give 95 % bootstrap "
        f"intervals over {groups}. Measured by `python -m xai_demo cross-validate "
        f"{result['model']} --data DIR --write-card`.",
        "",
        "| figure | value |",
        "| --- | --- |",
        *(f"| {name} | {interval_text(row)} |" for name, row in result["metrics"].items()),
        *(_new_hospital_lines(new_hospital) if new_hospital else ()),
    ]


def _new_hospital_lines(result: dict[str, Any]) -> list[str]:
    """The figures for a hospital that no part of the network was trained on."""
    return [
        "",
        f"On a hospital that is new to the network: {result['method']}",
        "",
        "| figure | value |",
        "| --- | --- |",
        *(f"| {name} | {interval_text(row)} |" for name, row in result["metrics"].items()),
    ]


def write(path: Path, result: dict[str, Any]) -> None:
    """Write the figures as JSON, atomically; makes the folder if it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(result, indent=2, allow_nan=False) + "\n")


def _spread_text(result: dict[str, Any]) -> str:
    """Accuracy by fold or, if the folds differ from seed to seed, the first figure by seed."""
    if "per_fold" in result:
        by_fold = (
            f"fold {name} {', '.join(f'{value:.3f}' for value in values)}"
            for name, values in result["per_fold"].items()
        )
        return f"accuracy by fold: {'; '.join(by_fold)}"
    name = next(iter(result["metrics"]))
    values = ", ".join(f"{seed[name]['value']:.3f}" for seed in result["per_seed"])
    return f"{name} by seed: {values}"


def _run_figures(model: Model, folds: Sequence[Fold]) -> Callable[[Array], dict[str, float]]:
    """The figures of all folds of one seed, as a function of the weights of all samples."""
    probabilities = np.concatenate([fold.probabilities for fold in folds])
    targets = np.concatenate([fold.targets for fold in folds])
    decisions = np.concatenate([fold.decisions for fold in folds])
    ends = np.cumsum([len(fold.targets) for fold in folds])[:-1]
    # For independent labels, the share of a sample's labels that are right.
    right = (decisions == targets).reshape(len(targets), -1).mean(axis=1)

    def figures(weights: Array) -> dict[str, float]:
        # A bootstrap draw may hold no patient of a fold at all.
        accuracies = [
            r.sum() / w.sum()
            for r, w in zip(np.split(right * weights, ends), np.split(weights, ends), strict=True)
            if w.sum()
        ]
        summary = _summary(model, (probabilities, targets, decisions), weights)
        # In place of the accuracy over all samples, see METHOD.
        return summary | {"accuracy": float(np.mean(accuracies))}

    return figures


def _fold_summary(model: Model, fold: Fold) -> dict[str, float]:
    predictions = (fold.probabilities, fold.targets, fold.decisions)
    return _summary(model, predictions, np.ones(len(fold.targets)))


def _summary(
    model: Model, predictions: tuple[Array, Labels, Labels], weights: Array
) -> dict[str, float]:
    """Overall figures of exclusive or independent labels, depending on the targets' shape."""
    if predictions[1].ndim == 2:
        return findings.summary(*predictions, weights)
    normal = model.labels.index(model.normal_label) if model.normal_label else None
    return metrics.summary(*predictions, weights, normal)


def _mean(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def _confusion(model: Model, runs: Sequence[Sequence[Fold]]) -> list[Any]:
    """Counts over all folds of all runs, in the shape that `evaluate` has them."""
    folds = [fold for run in runs for fold in run]
    targets = np.concatenate([fold.targets for fold in folds])
    decisions = np.concatenate([fold.decisions for fold in folds])
    if targets.ndim == 2:
        return findings.confusion_counts(targets, decisions)
    ones, n = np.ones(len(targets)), len(model.labels)
    counts: list[Any] = metrics.confusion(targets, decisions, ones, n).astype(int).tolist()
    return counts


def paired_t_test(first: Sequence[float], second: Sequence[float]) -> dict[str, float | None]:
    """Student's paired t-test over folds: mean difference (second - first), t and two-sided p.

    Folds share their training patients, so p tends to be too small (Nadeau & Bengio 2003). t and p
    are None where they are not defined: with fewer than two folds, or if all differences are equal.
    """
    from scipy import stats

    differences = np.asarray(second, float) - np.asarray(first, float)
    mean = float(differences.mean()) if len(differences) else float("nan")
    # Differences without any spread would give an infinite t.
    if len(differences) < 2 or not np.isfinite(differences).all() or np.ptp(differences) < 1e-12:
        return {"difference": round_finite(mean), "t": None, "p": None}
    test = stats.ttest_rel(second, first)
    return {
        "difference": round_finite(mean),
        "t": round_finite(float(test.statistic)),
        "p": round_finite(float(test.pvalue)),
    }


def compare_runs(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """The paired t-test of every figure that two runs over the same folds share.

    A run is the JSON of `cross-validate` or one row of `ablate`'s: figures by fold. Raises
    TrainingError if the runs share no figure over equally many folds, or if their folds hold
    different patients.
    """
    # Rows of `ablate` have no digest; then only their number tells whether the folds agree.
    digests = [run.get("dealt") for run in (first, second)]
    if None not in digests and digests[0] != digests[1]:
        raise TrainingError(
            f"The folds of the two runs hold different patients (digests {digests[0]} and "
            f"{digests[1]}); compare runs on the same data with the same folds."
        )
    rows = [_by_fold(run) for run in (first, second)]
    shared = [
        name for name in rows[0] if name in rows[1] and len(rows[0][name]) == len(rows[1][name])
    ]
    if not shared:
        raise TrainingError(
            f"The runs have the figures by fold {', '.join(rows[0]) or 'none'} and "
            f"{', '.join(rows[1]) or 'none'}; they must share at least one, over equally many "
            "folds."
        )
    return {name: paired_t_test(rows[0][name], rows[1][name]) for name in shared}


def _by_fold(run: dict[str, Any]) -> dict[str, list[float]]:
    """The figures of a run that are numbers in every fold, by name."""
    # `ablate` calls the rows "folds"; in the JSON of `cross-validate` that is their number.
    candidates = (run.get(name) for name in ("folds", "figures_by_fold", "per_fold"))
    folds = next((each for each in candidates if isinstance(each, list | dict)), None)
    # "per_fold" holds the accuracies of all seeds, by the name of the fold.
    if isinstance(folds, dict):
        return {"accuracy": [float(np.mean(values)) for values in folds.values()]}
    if not isinstance(folds, list) or not all(isinstance(fold, dict) for fold in folds):
        return {}
    figures = [fold.get("metrics", fold) for fold in folds]
    names = set.intersection(*(set(f) for f in figures)) if figures else set()
    values = {
        name: [f[name]["value"] if isinstance(f[name], dict) else f[name] for f in figures]
        for name in sorted(names)
    }
    return {
        name: [float(v) for v in row]
        for name, row in values.items()
        if all(isinstance(v, int | float) and not isinstance(v, bool) for v in row)
    }
