"""What each choice of a recipe is worth: small training runs with one thing changed, fold by fold.

The tables are those of `ablation_tables`. All rows of a table use the same patients in the same
folds, and a paired t-test over the folds compares the first row with every other. With budgets this
small, a table says which choice is better here and at this budget, not in general.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from xai_demo import networks
from xai_demo.decision import decided_label_index
from xai_demo.errors import TrainingError, UnknownNameError
from xai_demo.records import Raster
from xai_demo.settings import Settings
from xai_demo.training import (
    datasets,
    findings,
    metrics,
    predict,
    tracking,
    train,
)
from xai_demo.training.ablation_tables import (
    ON_REQUEST,
    TABLES,
    Row,
    can_mask_lungs,
    only_source,
)
from xai_demo.training.datasets import covid
from xai_demo.training.evaluate import check_folder, check_split
from xai_demo.training.fold_metrics import paired_t_test
from xai_demo.training.initial_weights import IMAGENET, load_initial_weights
from xai_demo.training.metrics import round_finite
from xai_demo.training.recipes import chest, recipe_of

if TYPE_CHECKING:
    from xai_demo.records import Progress
    from xai_demo.training.datasets import Dataset, Split
    from xai_demo.training.recipe import Recipe

# Figures of exclusive and of independent labels alike, so that one table suits every recipe.
FIGURES = ("f1", "auroc", "accuracy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much each row may cost."""

    epochs: int = 2
    # Samples. Whole patients are drawn, once for all rows.
    most: int = 240
    folds: int = 3
    side: int = 64  # of the images, in pixels
    seed: int = 0


def ablate(
    recipe: str,
    *,
    data: Path,
    tables: Sequence[str] = (),
    budget: Budget | None = None,
    progress: Progress | None = None,
    settings: Settings | None = None,
) -> dict[str, Any]:
    """Measure the named tables, by default those that suit every recipe; returns JSON values.

    `settings` say where ImageNet weights are kept. Raises UnknownNameError for an unknown table,
    and TrainingError if the recipe, the data or the budget does not fit.
    """
    budget = budget or Budget()
    small_recipe = _shrink_recipe(recipe_of(recipe), budget)
    suitable = [
        name
        for name in TABLES
        if name not in ON_REQUEST and (name != "shortcut" or can_mask_lungs(small_recipe))
    ]
    names = tuple(tables) or tuple(suitable)
    # Before the data are read, so that a misspelt table costs no time.
    for name in names:
        if name not in TABLES:
            raise UnknownNameError("table", name, TABLES)
    check_folder(data)
    progress = progress or (lambda done, doing: None)
    settings = settings or Settings.from_env()
    progress(0.0, "reading the dataset")
    rows = {name: TABLES[name](small_recipe) for name in names}
    # One for all rows: a paired test needs the same patients in the same folds.
    fold_data = _FoldData(data, small_recipe, budget)
    total = sum(map(len, rows.values())) * budget.folds
    done = 0
    measured: dict[str, list[dict[str, Any]]] = {}
    for name, choices in rows.items():
        measured[name] = []
        for row in choices:
            folds = []
            for fold in range(budget.folds):
                progress(done / total, f"{name}: {row.name}, fold {fold + 1} of {budget.folds}")
                data_of_fold = fold_data.for_fold(row, fold)
                folds.append(_fold_figures(row, data_of_fold, budget, settings))
                done += 1
            measured[name].append({"name": row.name, "folds": folds})
    return {
        "recipe": recipe,
        "data": fold_data.name,
        "n": fold_data.n_samples,
        "groups": fold_data.n_patients,
        "budget": dataclasses.asdict(budget),
        "tables": {name: _comparison(choices) for name, choices in measured.items()},
    }


def _shrink_recipe(recipe: Recipe, budget: Budget) -> Recipe:
    """The recipe at the size of the budget, from random weights unless it starts from ImageNet."""
    spec = recipe.model.preprocessing
    if not isinstance(spec, Raster):
        raise TrainingError(
            f"{recipe.model.name} takes sounds; ablation works for recipes of radiographs only."
        )
    # All of `ARCHITECTURES` reduce a side by 32: a smaller image would leave less than one cell.
    if budget.folds < 2 or budget.epochs < 1 or budget.most < 2 * budget.folds or budget.side < 32:
        raise TrainingError(
            f"The budget has {budget.folds} folds, {budget.epochs} epochs, {budget.most} samples "
            f"and {budget.side} pixels; at least 2 folds, 1 epoch, two samples per fold and 32 "
            "pixels are needed."
        )
    return dataclasses.replace(
        recipe,
        # Bundled weights are of one architecture, which would win by them alone.
        initial_model=None,
        model=dataclasses.replace(
            recipe.model,
            preprocessing=dataclasses.replace(spec, height=budget.side, width=budget.side),
        ),
        schedule=dataclasses.replace(
            recipe.schedule,
            epochs=budget.epochs,
            # With so few epochs, these would leave hardly one at full size and of all stages.
            low_resolution_share=0.0,
            unfreeze_every=0,
            patience=0,
        ),
    )


class _FoldData:
    """The dataset of one ablation, read once, and once more with masked lungs if a row needs it."""

    def __init__(self, data: Path, recipe: Recipe, budget: Budget) -> None:
        self._data, self._recipe = data, recipe
        whole = recipe.read(data, recipe.model)
        # By `Row.has_masked_lungs`. The masked copy is read once a row asks for it.
        self._by_masking = {False: whole}
        # Whole patients in random order, until there are enough samples.
        rng = np.random.default_rng(budget.seed)
        patients = rng.permutation(sorted(set(whole.groups))).tolist()
        sizes = {patient: whole.groups.count(patient) for patient in patients}
        sampled: set[str] = set()
        for patient in patients:
            if sum(sizes[p] for p in sampled) >= budget.most:
                break
            sampled.add(patient)
        indices = [i for i, group in enumerate(whole.groups) if group in sampled]
        self.name = whole.name
        self.n_samples, self.n_patients = len(indices), len(sampled)
        # -1: samples that the budget leaves out.
        self._fold_of = np.full(len(whole.groups), -1)
        self._fold_of[indices] = datasets.assign_folds(
            [whole.groups[i] for i in indices],
            whole.targets[indices],
            budget.folds,
            seed="ablation",
        )

    def for_fold(self, row: Row, fold: int) -> Dataset:
        """The dataset with this fold as test split and a sixth of the others as validation."""
        if row.has_masked_lungs not in self._by_masking:
            self._by_masking[True] = covid.read(self._data, self._recipe.model, masked=True)
        whole = self._by_masking[row.has_masked_lungs]
        others = np.flatnonzero((self._fold_of >= 0) & (self._fold_of != fold))
        # A fixed seed: all rows of a fold have the same validation patients.
        is_validation = datasets.assign_parts(
            [whole.groups[i] for i in others],
            whole.targets[others],
            (5 / 6, 1 / 6),
            seed="ablation validation",
        )
        splits: list[Split | None] = [None] * len(whole.groups)
        for i in np.flatnonzero(self._fold_of == fold):
            splits[i] = "test"
        for i, validation in zip(others, is_validation, strict=True):
            splits[i] = "validation" if validation else "train"
        if row.covid_source is not None:
            splits = only_source(whole, splits, row)
        indices = [i for i, split in enumerate(splits) if split is not None]
        sampled = dataclasses.replace(
            whole.subset(indices), splits=tuple(split for split in splits if split is not None)
        )
        return sampled if row.has_augmentation else sampled.without_augmentation()


def _fold_figures(
    row: Row, data: Dataset, budget: Budget, settings: Settings
) -> dict[str, float | None]:
    """Train on the training split, and measure on the test split."""
    check_split(data, "train", 2)
    check_split(data, "validation", 2)
    # A small fold may hold nothing of the source that is tested.
    if not len(data.indices("test")):
        return dict.fromkeys(FIGURES)
    if row.is_linear:
        probabilities, targets = chest.fit_background_classifier(data)
        decisions = probabilities.argmax(axis=1)
        figures = metrics.summary(probabilities, targets, decisions, np.ones(len(targets)), None)
        return {name: round_finite(figures[name]) for name in FIGURES}
    # Rows of the same architecture start from the same weights.
    torch.manual_seed(budget.seed)
    network = networks.architecture(row.recipe.model).build(row.recipe.model)
    if row.recipe.model.architecture in IMAGENET:
        load_initial_weights(network, row.recipe, settings)
    # The log and the checkpoints go with the folder; only the figures are kept.
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        train.fit_network(
            network,
            row.recipe,
            data,
            out=out,
            options=train.TrainingOptions(seed=budget.seed),
            progress=lambda done, doing: None,
            track=lambda first_step: tracking.open_tracker(
                "csv",
                tracking.TrackedRun(out=out, name=row.name, settings={}, first_step=first_step),
            ),
        )
    # Calibrated, because decisions depend on the operating points.
    model = train.calibrate_network(network.cpu(), row.recipe, data)
    probabilities, targets = predict.split_probabilities(network, model, data, "test")
    weights = np.ones(len(targets))
    if data.is_independent:
        decisions = findings.decide(model, probabilities)
        figures = findings.summary(probabilities, targets, decisions, weights)
    else:
        decisions = np.array([decided_label_index(model, each) for each in probabilities])
        figures = metrics.summary(probabilities, targets, decisions, weights, None)
    return {name: round_finite(figures[name]) for name in FIGURES}


def _comparison(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The rows with their means and their tests against the first row."""

    def values(row: dict[str, Any], name: str) -> list[float]:
        # NaN where a figure is not defined: the mean skips it, and there is no test.
        return [float("nan") if f[name] is None else f[name] for f in row["folds"]]

    first = rows[0]
    return {
        "rows": [
            {
                **row,
                "mean": {
                    name: round_finite(metrics.mean_defined(np.array(values(row, name))))
                    for name in FIGURES
                },
                "against_first": None
                if row is first
                else {
                    name: paired_t_test(values(first, name), values(row, name)) for name in FIGURES
                },
            }
            for row in rows
        ]
    }


def table(result: dict[str, Any]) -> str:
    """The tables for a terminal, as Markdown."""
    budget = result["budget"]
    lines = [
        f"{result['recipe']} on {result['data']}: {result['n']} samples from {result['groups']} "
        f"patients, {budget['folds']} folds, {budget['epochs']} epochs, {budget['side']} pixels, "
        "from random weights unless said. p: paired t-test over the folds against the first row."
    ]
    for name, comparison in result["tables"].items():
        lines += ["", f"| {name} | " + " | ".join(f"{f} | p" for f in FIGURES) + " |"]
        lines.append("| --- " * (2 * len(FIGURES) + 1) + "|")
        for row in comparison["rows"]:
            cells = []
            for figure in FIGURES:
                tests = row["against_first"]
                p = tests[figure]["p"] if tests else None
                cells += [_format_value(row["mean"][figure]), "" if p is None else f"{p:.2g}"]
            lines.append(f"| {row['name']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _format_value(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"
