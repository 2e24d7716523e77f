"""What the folds of a cross-validation come to: figures together, by seed and by fold.

Two runs over the same folds: is one better, or was it chance? Pure.
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

if TYPE_CHECKING:
    from xai_demo.records import Model
    from xai_demo.training.metrics import Array, Labels

FILE = "cross_validation.json"
METHOD = (
    "For each fold a network is trained from the start by the recipe on the others, tuned and "
    "calibrated on the part of them that is held back for that, and asked about the fold, which it "
    "has not met. `accuracy` is the mean over the folds; all other figures are of the folds' "
    "answers together."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """What was answered about one fold; shapes as a `DataSet` has them."""

    name: str
    probabilities: Array  # (samples, labels)
    targets: Labels
    decided: Labels
    groups: tuple[str, ...]


def result(
    model: Model, *, data: str, rounds: Sequence[Sequence[Fold]], notes: Sequence[str] = ()
) -> dict[str, Any]:
    """The figures as JSON values; a round holds the folds of one seed."""
    first = rounds[0]
    targets = np.concatenate([fold.targets for fold in first])
    groups = [group for fold in first for group in fold.groups]
    figures = [_of(model, answered) for answered in rounds]

    def mean(weights: Array) -> dict[str, float]:
        return _mean([one(weights) for one in figures])

    def json_of(one: Callable[[Array], dict[str, float]]) -> dict[str, Any]:
        return metrics.as_json(metrics.with_intervals(one, groups))

    return {
        "model": model.name,
        "data": data,
        "folds": len(first),
        "dealt": dealt(first),
        "seeds": len(rounds),
        "n": len(targets),
        "groups": len(set(groups)),
        "labels": {
            label: int((targets == i).sum() if targets.ndim == 1 else targets[:, i].sum())
            for i, label in enumerate(model.labels)
        },
        "metrics": json_of(mean),
        "per_seed": [json_of(one) for one in figures],
        "per_fold": {
            fold.name: [
                round(float((each.decided == each.targets).mean()), 4)
                for each in (answered[i] for answered in rounds)
            ]
            for i, fold in enumerate(first)
        },
        "figures_by_fold": [
            _rounded(_mean([_summary(model, answered[i]) for answered in rounds]))
            for i in range(len(first))
        ],
        "confusion": {"labels": list(model.labels), "counts": _confusion(model, rounds)},
        "method": METHOD,
        "notes": sorted(set(notes)),
    }


def dealt(folds: Sequence[Fold]) -> str:
    """Who was in which fold, as one number: runs are comparable only where it is the same."""
    told = hashlib.sha256()
    for fold in folds:
        told.update(f"{fold.name}:{','.join(sorted(fold.groups))}\n".encode())
    return told.hexdigest()[:16]


def card_section(result: dict[str, Any]) -> list[str]:
    """The figures as Markdown, for a model card."""
    who = "sources" if "per_fold" in result else "persons"
    abroad = result.get("abroad")
    return [
        f"{result['method']} {result['n']} samples of {result['groups']} {who}, "
        f"{result['folds']} folds, {result['seeds']} seeds; {_spread(result)}. In brackets 95 % "
        f"bootstrap intervals over {who}. By `python -m xai_demo cross-validate "
        f"{result['model']} --data DIR --write-card`.",
        "",
        "| figure | value |",
        "| --- | --- |",
        *(f"| {name} | {shown(row)} |" for name, row in result["metrics"].items()),
        *(_abroad(abroad) if abroad else ()),
    ]


def _abroad(found: dict[str, Any]) -> list[str]:
    """The figures of a hospital that nothing of the network has heard."""
    return [
        "",
        f"As a hospital that is new to it: {found['method']}",
        "",
        "| figure | value |",
        "| --- | --- |",
        *(f"| {name} | {shown(row)} |" for name, row in found["metrics"].items()),
    ]


def write(path: Path, result: dict[str, Any]) -> None:
    """The figures as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(result, indent=2, allow_nan=False) + "\n")


def shown(row: dict[str, float | None]) -> str:
    """A figure with its interval in brackets."""
    if row["value"] is None:
        return "not defined"
    return f"{row['value']:.3f} ({row['low']:.3f}-{row['high']:.3f})"


def _spread(result: dict[str, Any]) -> str:
    """What each fold reached or, where the folds are dealt anew for each seed, each seed."""
    if "per_fold" in result:
        each = (
            f"fold {name} {', '.join(f'{value:.3f}' for value in values)}"
            for name, values in result["per_fold"].items()
        )
        return f"accuracy of {'; '.join(each)}"
    name = next(iter(result["metrics"]))
    values = ", ".join(f"{seed[name]['value']:.3f}" for seed in result["per_seed"])
    return f"{name} of the seeds one by one {values}"


def _of(model: Model, answered: Sequence[Fold]) -> Callable[[Array], dict[str, float]]:
    """The figures of one round, for a weighting of all samples."""
    probabilities = np.concatenate([fold.probabilities for fold in answered])
    targets = np.concatenate([fold.targets for fold in answered])
    decided = np.concatenate([fold.decided for fold in answered])
    ends = np.cumsum([len(fold.targets) for fold in answered])[:-1]
    right = (decided == targets).reshape(len(targets), -1).mean(axis=1)

    def figures(weights: Array) -> dict[str, float]:
        each = [
            r.sum() / w.sum()
            for r, w in zip(np.split(right * weights, ends), np.split(weights, ends), strict=True)
            if w.sum()
        ]
        summary = _weighed(model, (probabilities, targets, decided), weights)
        return summary | {"accuracy": float(np.mean(each))}

    return figures


def _summary(model: Model, fold: Fold) -> dict[str, float]:
    answers = (fold.probabilities, fold.targets, fold.decided)
    return _weighed(model, answers, np.ones(len(fold.targets)))


def _weighed(
    model: Model, answers: tuple[Array, Labels, Labels], weights: Array
) -> dict[str, float]:
    """Figures of exclusive labels or of independent ones, as the targets are."""
    if answers[1].ndim == 2:
        return findings.summary(*answers, weights)
    normal = model.labels.index(model.normal_label) if model.normal_label else None
    return metrics.summary(*answers, weights, normal)


def _mean(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def _rounded(row: dict[str, float]) -> dict[str, float | None]:
    """A figure that is not defined, as where a fold lacks a label, is null."""
    return {name: None if np.isnan(value) else round(value, 4) for name, value in row.items()}


def _confusion(model: Model, rounds: Sequence[Sequence[Fold]]) -> list[Any]:
    """Of all folds of all rounds together, as `evaluate` has it."""
    folds = [fold for answered in rounds for fold in answered]
    targets = np.concatenate([fold.targets for fold in folds])
    decided = np.concatenate([fold.decided for fold in folds])
    if targets.ndim == 2:
        return findings.counts(targets, decided)
    ones, n = np.ones(len(targets)), len(model.labels)
    counts: list[Any] = metrics.confusion(targets, decided, ones, n).astype(int).tolist()
    return counts


def paired(first: Sequence[float], other: Sequence[float]) -> dict[str, float | None]:
    """Student's paired t-test over folds: mean difference (other - first), t and two-sided p.

    Folds share their training persons, so that p is too small rather than too large (Nadeau &
    Bengio 2003). None where it is not defined: fewer than two folds, or no spread at all.
    """
    from scipy import stats

    differences = np.asarray(other, float) - np.asarray(first, float)
    mean = float(differences.mean()) if len(differences) else float("nan")
    if len(differences) < 2 or not np.isfinite(differences).all() or np.ptp(differences) < 1e-12:
        return {"difference": finite(mean), "t": None, "p": None}
    test = stats.ttest_rel(other, first)
    return {
        "difference": finite(mean),
        "t": finite(float(test.statistic)),
        "p": finite(float(test.pvalue)),
    }


def compare(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Two runs over the same folds: the paired t-test of every figure that both have.

    A run is what `cross-validate --json` or a row of `ablate --json` gives: figures by fold. Raises
    TrainingError where they have no figure of as many folds in common, or say that other persons
    were in them.
    """
    dealt = [run.get("dealt") for run in (one, other)]
    if None not in dealt and dealt[0] != dealt[1]:
        raise TrainingError(
            f"The folds of the runs hold other persons ({dealt[0]} and {dealt[1]}), wanted: two "
            "runs on the same data in the same folds."
        )
    rows = [_by_fold(run) for run in (one, other)]
    shared = [
        name for name in rows[0] if name in rows[1] and len(rows[0][name]) == len(rows[1][name])
    ]
    if not shared:
        raise TrainingError(
            f"The runs have figures by fold named {', '.join(rows[0]) or 'none'} and "
            f"{', '.join(rows[1]) or 'none'}, wanted: one in common, over as many folds."
        )
    return {name: paired(rows[0][name], rows[1][name]) for name in shared}


def _by_fold(run: dict[str, Any]) -> dict[str, list[float]]:
    named = (run.get(name) for name in ("folds", "figures_by_fold", "per_fold"))
    folds = next((found for found in named if isinstance(found, list | dict)), None)
    if isinstance(folds, dict):  # accuracies of the seeds, by the name of the fold
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


def finite(value: float) -> float | None:
    """Rounded for reading; None for what is not defined."""
    return round(value, 4) if np.isfinite(value) else None
