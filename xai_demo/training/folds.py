"""Cross-validation that trains a network for each fold, on the other folds.

The folds are those published with the dataset. If there are none, patients are assigned to folds so
that each holds its share of every label.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo import networks
from xai_demo.decision import decided_label_index
from xai_demo.errors import TrainingError
from xai_demo.training import datasets, findings, fold_metrics, predict, tracking, train
from xai_demo.training.evaluate import check_split
from xai_demo.training.fold_metrics import Fold
from xai_demo.training.initial_weights import load_initial_weights
from xai_demo.training.recipes import recipe_of

if TYPE_CHECKING:
    from xai_demo.records import Progress
    from xai_demo.settings import Settings
    from xai_demo.training.datasets import Dataset, Split
    from xai_demo.training.recipe import Recipe

DEFAULT_FOLDS = 5
# Of the other folds, so that the validation split is as large as in a single training run.
_VALIDATION_SHARE = 0.15 / 0.85


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldPlan:
    """How much to train, and where to keep it."""

    settings: Settings
    out: Path | None = None  # None: nothing is kept
    epochs: int | None = None  # None: as the recipe says
    folds: int | None = None  # None: the published ones, or `DEFAULT_FOLDS`
    seeds: int = 1


def retrain_folds(
    recipe: Recipe, *, data: Path, plan: FoldPlan, progress: Progress
) -> dict[str, Any]:
    """Train a network for every fold and seed; returns the figures, as JSON values.

    `plan.out` keeps the checkpoint of every fold, from which an interrupted run resumes, and gets
    the figures as cross_validation.json. Raises TrainingError if the data cannot be used, or has
    another number of published folds than `plan.folds`.
    """
    # A list: every seed trains on the same folds.
    parts = list(_fold_datasets(recipe, data, plan.folds))
    epochs = plan.epochs or recipe.schedule.epochs
    recipe = dataclasses.replace(
        _without_leaking_start(recipe), schedule=dataclasses.replace(recipe.schedule, epochs=epochs)
    )
    runs, notes = [], {note for _, part in parts for note in part.notes}
    with ExitStack() as stack:
        # Training needs a folder for its checkpoints even if nothing is kept.
        root = plan.out or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for seed in range(plan.seeds):
            folds = []
            for i, part in enumerate(parts):
                out = root / f"fold-{part[0]}-seed-{seed}"
                index = seed * len(parts) + i
                fold_progress = _fold_progress(progress, index, plan.seeds * len(parts), part[0])
                fold, fold_notes = _train_fold(
                    recipe, part, out, seed, plan.settings, fold_progress
                )
                folds.append(fold)
                notes |= set(fold_notes)
            runs.append(folds)
    result = fold_metrics.summarise_folds(
        recipe.model, data=parts[0][1].name, runs=runs, notes=sorted(notes)
    )
    if plan.out is not None:
        fold_metrics.write(plan.out / fold_metrics.FILE, result)
    return result


def patient_folds(data: Dataset, count: int) -> Iterator[tuple[str, Dataset]]:
    """The dataset once for each fold, with that fold as the test split; no fold shares a patient.

    The validation split is taken from the patients of the other folds.
    """
    # Seeded by the dataset alone, so that two runs to compare have the same folds.
    fold_of = datasets.assign_folds(data.groups, data.targets, count, seed=f"folds:{data.name}")
    for fold in range(count):
        others = np.flatnonzero(fold_of != fold)
        is_validation = datasets.assign_parts(
            [data.groups[i] for i in others],
            data.targets[others],
            (1 - _VALIDATION_SHARE, _VALIDATION_SHARE),
            seed=f"folds:{data.name}:{fold}",
        )
        splits: list[Split] = ["test"] * len(data.groups)
        for i, validation in zip(others, is_validation, strict=True):
            splits[i] = "validation" if validation else "train"
        # From 1, as published folds are numbered.
        yield str(fold + 1), dataclasses.replace(data, splits=tuple(splits))


def _fold_datasets(recipe: Recipe, data: Path, count: int | None) -> Iterator[tuple[str, Dataset]]:
    if recipe.published_folds is None:
        yield from patient_folds(recipe.read(data, recipe.model), count or DEFAULT_FOLDS)
        return
    parts = list(recipe.published_folds(data, recipe.model))
    if count not in (None, len(parts)):
        raise TrainingError(
            f"{data} has {len(parts)} published folds, not {count}; leave out --folds to use them."
        )
    yield from parts


def _without_leaking_start(recipe: Recipe) -> Recipe:
    """The recipe from random weights, if its initial model was trained on patients of the folds."""
    # The same reader means the same patients.
    if recipe.initial_model is None or recipe_of(recipe.initial_model).read is not recipe.read:
        return recipe
    return dataclasses.replace(recipe, initial_model=None)


def _fold_progress(progress: Progress, index: int, count: int, name: str) -> Progress:
    """Progress of one of several folds, as part of the whole."""
    return lambda done, doing: progress((index + done) / count, f"fold {name}: {doing}")


def _train_fold(
    recipe: Recipe,
    part: tuple[str, Dataset],
    out: Path,
    seed: int,
    settings: Settings,
    progress: Progress,
) -> tuple[Fold, tuple[str, ...]]:
    """The predictions on one fold, and notes on where its network's weights came from."""
    import torch

    name, data = part
    check_split(data, "train", 2)
    check_split(data, "validation", 2)
    check_split(data, "test", 1)
    out.mkdir(parents=True, exist_ok=True)
    # For each fold anew: a resumed run then builds the same network.
    torch.manual_seed(seed)
    network = networks.architecture(recipe.model).build(recipe.model)
    notes = load_initial_weights(network, recipe, settings)
    train.fit_network(
        network,
        recipe,
        data,
        out=out,
        # A fold that was interrupted continues; one that is complete has no epoch left.
        options=train.TrainingOptions(seed=seed, resume=True),
        progress=progress,
        track=lambda first_step: tracking.open_tracker(
            "csv",
            tracking.TrackedRun(
                out=out,
                name=f"{recipe.model.name}, fold {name}",
                settings=dataclasses.asdict(recipe.schedule),
                first_step=first_step,
            ),
        ),
    )
    model = train.calibrate_network(network, recipe, data)
    probabilities, targets = predict.split_probabilities(network, model, data, "test")
    # Decisions as the demo makes them, at the points chosen on this fold's validation part.
    decisions = (
        findings.decide(model, probabilities)
        if data.is_independent
        else np.array([decided_label_index(model, row) for row in probabilities])
    )
    fold = Fold(
        name=name,
        probabilities=probabilities,
        targets=targets,
        decisions=decisions,
        groups=tuple(data.groups[i] for i in data.indices("test")),
    )
    return fold, notes
