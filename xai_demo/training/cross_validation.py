"""How well a model carries over to patients it was not trained on: the command `cross-validate`.

For radiographs, and for datasets with published folds, a network is trained for each fold (see
`folds`). For lung sounds the features are tested instead: the patients of whole recordings
(Fraiwan) are split into folds, stratified by label, and for each fold only the last layer is
refitted, on all other sources and on the other folds.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo.errors import TrainingError
from xai_demo.training import class_imbalance, fold_metrics, metrics
from xai_demo.training.calibration import softmax
from xai_demo.training.datasets import assign_folds
from xai_demo.training.datasets.breathing import BOTH, LABELS, NORMAL
from xai_demo.training.evaluate import check_folder, load_trained_model
from xai_demo.training.folds import DEFAULT_FOLDS, FoldPlan, retrain_folds
from xai_demo.training.lung import classifier_head, read_lung_dataset
from xai_demo.training.lung.metrics import balanced_accuracy_of_three, challenge_scores
from xai_demo.training.lung.regression import fit_regression
from xai_demo.training.recipes import recipe_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from xai_demo.records import Floats, Progress
    from xai_demo.settings import Settings
    from xai_demo.training.lung.regression import LocalisedWindows, SourceFeatures
    from xai_demo.training.metrics import Array

METHOD = (
    "The network's features were not trained on these patients. For each fold, the last layer is "
    f"refitted on all other sources (at most {classifier_head.MAX_WINDOWS} windows of each) and "
    "on the other folds, with the classes balanced by weight. The balanced accuracy of three "
    "classes is that of the most probable of normal, crackle and wheeze; recordings with both are "
    "left out. A recording counts as abnormal if normal is not the most probable of all classes "
    "or, for `..._at_threshold`, if its log-odds are above the midpoint between the means of the "
    "normal and the abnormal recordings in the other folds."
)
NEW_HOSPITAL = (
    "the last layer is refitted on the other sources alone. No part of the network was trained on "
    "recordings of this hospital, just as none will have been trained on a visitor's."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Predictions:
    """The predictions of one seed."""

    probabilities: Array  # (recordings, classes)
    # 1 if abnormal by the threshold of the other folds, (recordings,).
    # None: no other fold of the hospital gives a threshold.
    above_threshold: NDArray[np.int64] | None


def cross_validate(
    model: str,
    *,
    settings: Settings,
    data: Path,
    folds: int | None = None,
    seeds: int | None = None,
    out: Path | None = None,
    epochs: int | None = None,
    balance: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Figures with intervals for each seed and on average, as JSON values.

    `folds` defaults to the published folds, or to 5; `seeds` to 1, or to 3 for lung models. `out`
    gets the figures as cross_validation.json and, where networks are trained, their checkpoints.
    `epochs` and `balance` only apply there, see `folds.retrain_folds`. Raises TrainingError if the
    data or the request is at fault.
    """
    recipe = recipe_of(model)
    schedule = class_imbalance.balanced_schedule(recipe, balance)
    recipe = dataclasses.replace(recipe, schedule=schedule)
    check_folder(data)
    progress = progress or (lambda done, doing: None)
    n_folds = DEFAULT_FOLDS if folds is None else folds
    # Only the folds of lung models differ from seed to seed.
    n_seeds = (3 if recipe.n_sources else 1) if seeds is None else seeds
    if n_folds < 2 or n_seeds < 1:
        raise TrainingError(
            f"Cross-validation needs at least 2 folds and 1 seed, not {n_folds} and {n_seeds}."
        )
    if not recipe.n_sources:
        plan = FoldPlan(settings=settings, out=out, epochs=epochs, folds=folds, seeds=n_seeds)
        return retrain_folds(recipe, data=data, plan=plan, progress=progress)
    if epochs is not None:
        raise TrainingError(
            f"Only the last layer of {model} is refitted, so --epochs {epochs} does not apply; "
            "leave it out."
        )
    result = _refit_folds(
        model, settings=settings, data=data, folds=n_folds, seeds=n_seeds, progress=progress
    )
    if out is not None:
        fold_metrics.write(out / fold_metrics.FILE, result)
    return result


def _refit_folds(
    model: str, *, settings: Settings, data: Path, folds: int, seeds: int, progress: Progress
) -> dict[str, Any]:
    """Balanced accuracy and AUROC of whole recordings, by folds of patients."""
    record, network = load_trained_model(model, settings=settings, data=data)
    dataset, notes = read_lung_dataset(
        data, record, lambda done, doing: progress(0.4 * done, doing)
    )
    # Fraiwan's patients have trained nothing but the last layer, which is refitted here.
    labelled = [
        i
        for i, recording in enumerate(dataset.recordings)
        if recording.take.site == "fraiwan" and recording.take.kind is not None
    ]
    if not labelled:
        raise TrainingError(
            f"{data} holds no labelled recording of the Fraiwan dataset, which the folds are made "
            "of."
        )
    progress(0.4, "computing features")
    recordings = classifier_head.recording_features(network, dataset, labelled)
    sources: dict[str, SourceFeatures] = {}
    localised, start = None, None
    if dataset.segments:
        # Recordings with one label are left out here: the folds add them.
        sources = classifier_head.training_sources(
            network, dataset, most=classifier_head.MAX_WINDOWS, recordings=False
        )
        localised = classifier_head.localised_windows(network, dataset)
    others = list(sources.values())
    if others:
        # Where the fit for each fold starts: most of its samples are the same.
        start = fit_regression(others, localised=localised)
    runs = []
    for seed in range(seeds):
        progress(0.8 + 0.2 * seed / seeds, f"folds of seed {seed + 1} of {seeds}")
        runs.append(_run_seed(recordings, others, folds, seed, start, localised))
    new_hospital: dict[str, Any] = {}
    # The starting point has seen no recording of this hospital at all.
    if start is not None:
        predictions = _Predictions(
            probabilities=_layer_probabilities(recordings, *start), above_threshold=None
        )
        figures = _figures(recordings, [predictions])
        new_hospital = {"abroad": {"method": NEW_HOSPITAL, **figures}}
    return {
        "model": model,
        "sha256": record.sha256,
        "data": "fraiwan",
        "folds": folds,
        "seeds": seeds,
        "n": len(recordings.kinds),
        "groups": len(set(recordings.groups)),
        "labels": {k: int((recordings.kinds == i).sum()) for i, k in enumerate(LABELS)},
        "others": {name: len(source.kinds) for name, source in sources.items()},
        **_figures(recordings, runs),
        **new_hospital,
        "method": METHOD,
        "notes": list(notes),
    }


def _run_seed(
    recordings: SourceFeatures,
    others: list[SourceFeatures],
    folds: int,
    seed: int,
    start: tuple[Floats, Floats] | None,
    localised: LocalisedWindows | None,
) -> _Predictions:
    """Refit the last layer for each fold; the predictions on all of them."""
    probabilities = np.zeros((len(recordings.kinds), len(LABELS)))
    above_threshold = np.zeros(len(recordings.kinds), np.int64)
    for training, held_out in _fold_indices(recordings, folds, seed):
        layer = fit_regression([*others, recordings.subset(training)], start, localised)
        # Of all recordings, as the threshold comes from those trained on.
        fold_probabilities = _layer_probabilities(recordings, *layer)
        log_odds = _abnormal_log_odds(fold_probabilities)
        abnormal = recordings.kinds[training] != NORMAL
        # A new hospital's recordings may all lean to one side. The other folds, of the same
        # hospital, show where its middle is.
        means = log_odds[training][abnormal].mean(), log_odds[training][~abnormal].mean()
        probabilities[held_out] = fold_probabilities[held_out]
        above_threshold[held_out] = log_odds[held_out] > sum(means) / 2
    return _Predictions(probabilities=probabilities, above_threshold=above_threshold)


def _layer_probabilities(recordings: SourceFeatures, weight: Floats, bias: Floats) -> Array:
    """Probabilities of a linear layer on the features, (recordings, classes)."""
    return softmax((recordings.features @ weight.T + bias).astype(np.float64))


def _fold_indices(
    recordings: SourceFeatures, folds: int, seed: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Training and held-out recordings of each fold; they share no patient."""
    # The published figures are of these folds, see `assign_folds`.
    fold_of = assign_folds(
        recordings.groups, recordings.kinds, folds, seed=str(seed), rule="group k-fold"
    )
    for fold in range(folds):
        yield np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)


def _abnormal_log_odds(probabilities: Array) -> Array:
    """The log-odds of abnormal versus normal, (recordings,)."""
    # A probability of 0 or 1 would have infinite log-odds.
    normal = np.clip(probabilities[:, NORMAL], 1e-9, 1 - 1e-9)
    log_odds: Array = np.log((1 - normal) / normal)
    return log_odds


def _figures(recordings: SourceFeatures, runs: list[_Predictions]) -> dict[str, Any]:
    """`metrics` (the mean of all runs), `per_seed` and `confusion`, as JSON values."""
    targets = recordings.kinds

    def mean(weights: Array) -> dict[str, float]:
        rows = [_run_figures(run, targets, weights) for run in runs]
        return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}

    def as_json(figures: Any) -> dict[str, Any]:
        return metrics.as_json(metrics.with_intervals(figures, recordings.groups))

    # BOTH is the last class, so the smaller ones are single labels.
    is_single = targets < BOTH
    counts = sum(
        metrics.confusion(
            targets[is_single],
            run.probabilities[is_single, :BOTH].argmax(axis=1),
            np.ones(int(is_single.sum())),
            BOTH,
        )
        for run in runs
    )
    return {
        "metrics": as_json(mean),
        "per_seed": [
            as_json(lambda weights, run=run: _run_figures(run, targets, weights)) for run in runs
        ],
        "confusion": {
            "labels": list(LABELS[:BOTH]),
            "counts": np.asarray(counts).astype(int).tolist(),
        },
    }


def _run_figures(run: _Predictions, targets: NDArray[np.int64], weights: Array) -> dict[str, float]:
    is_abnormal = (targets != NORMAL).astype(np.int64)
    of_three = run.probabilities[:, :BOTH].argmax(axis=1)
    # Any abnormal class is right for an abnormal recording.
    is_predicted = (run.probabilities.argmax(axis=1) != NORMAL).astype(np.int64)
    scores = challenge_scores(metrics.confusion(is_abnormal, is_predicted, weights, 2))
    at_threshold = {}
    if run.above_threshold is not None:
        counts = metrics.confusion(is_abnormal, run.above_threshold, weights, 2)
        average = challenge_scores(counts)["average_score"]
        at_threshold = {"balanced_accuracy_abnormal_at_threshold": average}
    return {
        "balanced_accuracy_3": balanced_accuracy_of_three(targets, of_three, weights),
        # With two classes, the average of sensitivity and specificity is the balanced accuracy.
        "balanced_accuracy_abnormal": scores["average_score"],
        **at_threshold,
        "sensitivity": scores["sensitivity"],
        "specificity": scores["specificity"],
        "auroc_abnormal": metrics.auroc(
            1 - run.probabilities[:, NORMAL], is_abnormal.astype(bool), weights
        ),
    }


def table(result: dict[str, Any]) -> str:
    """The figures as text for a terminal."""
    lines = [
        f"{result['model']} on {result['data']}: n = {result['n']}, groups {result['groups']}, "
        f"{result['folds']} folds, {result['seeds']} seeds"
    ]
    for name, row in result["metrics"].items():
        values = [figures[name]["value"] for figures in result["per_seed"]]
        by_seed = ", ".join("-" if value is None else f"{value:.3f}" for value in values)
        lines.append(f"  {name:<40} {metrics.interval_text(row)}  {by_seed}")
    for name, accuracies in result.get("per_fold", {}).items():
        by_seed = ", ".join(f"{value:.3f}" for value in accuracies)
        lines.append(f"  {f'accuracy of fold {name}':<40} {by_seed}")
    lines.append(result["method"])
    if "abroad" in result:
        lines.append(f"On a hospital that is new to the network: {result['abroad']['method']}")
        rows = result["abroad"]["metrics"].items()
        lines += [f"  {name:<40} {metrics.interval_text(row)}" for name, row in rows]
    return "\n".join(lines)
