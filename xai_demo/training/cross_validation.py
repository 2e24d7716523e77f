"""How well a recipe, or what it learnt, carries over to samples it never met: `cross-validate`.

Pictures, and data sets with published folds: see `folds`. Of lung models, this is asked of the
features: patients of whole recordings (Fraiwan) are dealt into folds, stratified by label. For each
fold the last layer alone is refitted, on all other sources and on the other folds, and asked about
this one.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo.errors import TrainingError
from xai_demo.training import class_imbalance as balances
from xai_demo.training import fold_metrics, metrics
from xai_demo.training import folds as anew
from xai_demo.training.calibration import softmax
from xai_demo.training.datasets.breathing import BOTH, LABELS, NORMAL
from xai_demo.training.evaluate import check_folder, trained
from xai_demo.training.lung import classifier_head, read_lung_dataset
from xai_demo.training.lung import metrics as lung_scores
from xai_demo.training.lung.regression import fit_regression
from xai_demo.training.recipes import recipe_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from xai_demo.records import Floats, Progress
    from xai_demo.settings import Settings
    from xai_demo.training.lung.regression import LocalisedWindows, SourceFeatures
    from xai_demo.training.metrics import Array

MOST = 6000  # of each other source, for speed
METHOD = (
    "The network's features have not heard these patients; the last layer is refitted for each "
    f"fold on all other sources (at most {MOST} windows of each) and the other "
    "folds, classes balanced by weight. Of three classes the most probable one of normal, crackle "
    "and wheeze is the answer, recordings with both left out. Abnormal is where normal is not the "
    "most probable of all classes; `..._at_threshold`: where the log-odds are above the middle "
    "between the means of normal and of abnormal recordings of the other folds."
)
ABROAD = (
    "the last layer refitted on all other sources alone: nothing of the network has heard this "
    "hospital, as none of it will have heard a visitor's."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Round:
    """What was answered with one way of dealing the patients."""

    probabilities: Array  # (recordings, classes)
    above: NDArray[np.int64] | None  # (recordings,), 1 where abnormal by others' threshold


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
    """Figures of merit by folds, for each seed and on average, with intervals.

    `folds` None: those that were published, else 5; `seeds` None: 1, of lung models 3. `out` gets
    the figures as cross_validation.json and, of networks that are trained anew, what can be gone on
    from; `epochs` and `balance` are for these alone: see `folds.cross_validate`. Raises
    TrainingError where the data or the request is at fault.
    """
    recipe = recipe_of(model)
    recipe = dataclasses.replace(recipe, schedule=balances.chosen(recipe, balance))
    check_folder(data)
    tell = progress or (lambda done, doing: None)
    usual = 3 if recipe.sources else 1
    asked = f"{5 if folds is None else folds} folds and {usual if seeds is None else seeds} seeds"
    if (folds is not None and folds < 2) or (seeds is not None and seeds < 1):
        raise TrainingError(f"{asked}, wanted: at least 2 and 1.")
    if not recipe.sources:
        plan = anew.Plan(settings=settings, out=out, epochs=epochs, folds=folds, seeds=seeds or 1)
        return anew.cross_validate(recipe, data=data, plan=plan, progress=tell)
    if epochs is not None:
        raise TrainingError(
            f"{epochs} epochs are asked for and of {model} the last layer alone is refitted, "
            "wanted: no number of epochs."
        )
    result = _of_patients(
        model, settings=settings, data=data, folds=folds or 5, seeds=seeds or 3, tell=tell
    )
    if out is not None:
        fold_metrics.write(out / fold_metrics.FILE, result)
    return result


def _of_patients(
    model: str, *, settings: Settings, data: Path, folds: int, seeds: int, tell: Progress
) -> dict[str, Any]:
    """Balanced accuracy and AUROC by patient-grouped folds."""
    record, network = trained(model, settings=settings, data=data)
    lessons, notes = read_lung_dataset(data, record, lambda done, doing: tell(0.4 * done, doing))
    chosen = [
        i
        for i, sound in enumerate(lessons.sounds)
        if sound.take.site == "fraiwan" and sound.take.kind is not None
    ]
    if not chosen:
        raise TrainingError(f"{data} holds no labelled recording of Fraiwan, wanted: some.")
    tell(0.4, "asking for features")
    asked = classifier_head.recording_features(network, lessons, chosen)
    others = (
        classifier_head.training_sources(network, lessons, most=MOST, recordings=False)
        if lessons.places
        else {}
    )
    rounds = []
    located = classifier_head.localised_windows(network, lessons) if lessons.places else None
    start = fit_regression(list(others.values()), located=located) if others else None
    for seed in range(seeds):
        tell(0.8 + 0.2 * seed / seeds, f"folds of seed {seed + 1} of {seeds}")
        rounds.append(_round(asked, list(others.values()), folds, seed, start, located))
    abroad: dict[str, Any] = {}
    if start is not None:
        unheard = _Round(probabilities=_answers(asked, *start), above=None)
        abroad = {"abroad": {"method": ABROAD, **_figures(asked, [unheard])}}
    return {
        "model": model,
        "sha256": record.sha256,
        "data": "fraiwan",
        "folds": folds,
        "seeds": seeds,
        "n": len(asked.kinds),
        "groups": len(set(asked.groups)),
        "labels": {k: int((asked.kinds == i).sum()) for i, k in enumerate(LABELS)},
        "others": {name: len(learnt.kinds) for name, learnt in others.items()},
        **_figures(asked, rounds),
        **abroad,
        "method": METHOD,
        "notes": list(notes),
    }


def _round(
    asked: SourceFeatures,
    others: list[SourceFeatures],
    folds: int,
    seed: int,
    start: tuple[Floats, Floats] | None,
    located: LocalisedWindows | None,
) -> _Round:
    probabilities = np.zeros((len(asked.kinds), len(LABELS)))
    above = np.zeros(len(asked.kinds), np.int64)
    for apart, held in _folds(asked, folds, seed):
        weight, bias = fit_regression([*others, asked.of(apart)], start, located)
        answers = _answers(asked, weight, bias)
        odds = _log_odds(answers)
        sick = asked.kinds[apart] != NORMAL
        middle = (odds[apart][sick].mean() + odds[apart][~sick].mean()) / 2
        probabilities[held], above[held] = answers[held], odds[held] > middle
    return _Round(probabilities=probabilities, above=above)


def _answers(asked: SourceFeatures, weight: Floats, bias: Floats) -> Array:
    """Probabilities by such a last layer, (recordings, classes)."""
    return softmax((asked.features @ weight.T + bias).astype(np.float64))


def _folds(
    asked: SourceFeatures, folds: int, seed: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Samples to learn from and samples held back; no patient is among both."""
    from sklearn.model_selection import StratifiedGroupKFold

    persons = len(set(asked.groups))
    if persons < folds:
        raise TrainingError(f"{persons} patients, wanted: at least one for each of {folds} folds.")
    split = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    yield from split.split(asked.features, asked.kinds, asked.groups)


def _log_odds(answers: Array) -> Array:
    """Of abnormal against normal."""
    normal = np.clip(answers[:, NORMAL], 1e-9, 1 - 1e-9)
    odds: Array = np.log((1 - normal) / normal)
    return odds


def _figures(asked: SourceFeatures, rounds: list[_Round]) -> dict[str, Any]:
    targets = asked.kinds
    sick = (targets != NORMAL).astype(np.int64)

    def of(one: _Round, weights: Array) -> dict[str, float]:
        decided = one.probabilities[:, :BOTH].argmax(axis=1)
        found = (one.probabilities.argmax(axis=1) != NORMAL).astype(np.int64)
        scores = lung_scores.challenge_scores(metrics.confusion(sick, found, weights, 2))
        by_threshold = {}
        if one.above is not None:
            counts = metrics.confusion(sick, one.above, weights, 2)
            average = lung_scores.challenge_scores(counts)["average_score"]
            by_threshold = {"balanced_accuracy_abnormal_at_threshold": average}
        return {
            "balanced_accuracy_3": lung_scores.balanced_accuracy_of_three(
                targets, decided, weights
            ),
            "balanced_accuracy_abnormal": scores["average_score"],
            **by_threshold,
            "sensitivity": scores["sensitivity"],
            "specificity": scores["specificity"],
            "auroc_abnormal": metrics.auroc(
                1 - one.probabilities[:, NORMAL], sick.astype(bool), weights
            ),
        }

    def mean(weights: Array) -> dict[str, float]:
        each = [of(one, weights) for one in rounds]
        return {name: float(np.mean([row[name] for row in each])) for name in each[0]}

    def json(figures: Any) -> dict[str, Any]:
        return metrics.as_json(metrics.with_intervals(figures, asked.groups))

    among = targets < BOTH
    counts = sum(
        metrics.confusion(
            targets[among],
            one.probabilities[among, :BOTH].argmax(axis=1),
            np.ones(int(among.sum())),
            BOTH,
        )
        for one in rounds
    )
    return {
        "metrics": json(mean),
        "per_seed": [json(lambda w, one=one: of(one, w)) for one in rounds],
        "confusion": {
            "labels": list(LABELS[:BOTH]),
            "counts": np.asarray(counts).astype(int).tolist(),
        },
    }


def table(result: dict[str, Any]) -> str:
    """The figures for a terminal."""
    lines = [
        f"{result['model']} on {result['data']}: n = {result['n']}, groups {result['groups']}, "
        f"{result['folds']} folds, {result['seeds']} seeds"
    ]
    for name, row in result["metrics"].items():
        values = [each[name]["value"] for each in result["per_seed"]]
        seeds = ", ".join("-" if value is None else f"{value:.3f}" for value in values)
        lines.append(f"  {name:<40} {fold_metrics.shown(row)}  {seeds}")
    for name, accuracies in result.get("per_fold", {}).items():
        each = ", ".join(f"{value:.3f}" for value in accuracies)
        lines.append(f"  {f'accuracy of fold {name}':<40} {each}")
    lines.append(result["method"])
    if "abroad" in result:
        rows = result["abroad"]["metrics"].items()
        lines += [f"  {name:<40} {fold_metrics.shown(row)}" for name, row in rows]
        lines.append(f"As a hospital that is new to it: {result['abroad']['method']}")
    return "\n".join(lines)
