"""Two runs over the same folds: is one better, or was it chance? Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from xai_demo.errors import TrainingError


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
