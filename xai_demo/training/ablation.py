"""What each choice is worth: the same small lesson with one thing changed, fold by fold.

Tables: `folds` (the recipe as it is), `architectures`, `augmentation`, `balance` and `shortcut`
(the lungs blotted out), each on the same persons in the same folds, the first row compared with
every other by a paired t-test over the folds.
Small budgets say which choice is better here, at this budget, and no more.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from xai_demo import networks
from xai_demo.decision import decided_index
from xai_demo.errors import TrainingError, UnknownNameError
from xai_demo.records import Raster
from xai_demo.training import (
    class_imbalance,
    datasets,
    findings,
    metrics,
    predict,
    tracking,
    train,
)
from xai_demo.training.datasets import covid
from xai_demo.training.evaluate import check_folder, check_part
from xai_demo.training.fold_metrics import finite, paired
from xai_demo.training.recipes import recipe_of

if TYPE_CHECKING:
    from xai_demo.records import Progress
    from xai_demo.training.datasets import Dataset, Split
    from xai_demo.training.recipe import Recipe

ARCHITECTURES = ("resnet50", "resnet101", "densenet121")
FIGURES = ("f1", "auroc", "accuracy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much each row may cost."""

    epochs: int = 2
    most: int = 240  # samples, persons whole, chosen by chance once
    folds: int = 3
    side: int = 64  # pixels of the pictures
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One choice: a recipe with one thing changed."""

    name: str
    recipe: Recipe
    varied: bool = True
    masked: bool = False


def _folds(recipe: Recipe) -> list[Row]:
    return [Row(name="the recipe", recipe=recipe)]


def _architectures(recipe: Recipe) -> list[Row]:
    return [
        Row(
            name=name,
            recipe=dataclasses.replace(
                recipe, model=dataclasses.replace(recipe.model, architecture=name)
            ),
        )
        for name in ARCHITECTURES
    ]


def _augmentation(recipe: Recipe) -> list[Row]:
    return [
        Row(name="varied", recipe=recipe),
        Row(name="as they are", recipe=recipe, varied=False),
    ]


def _balance(recipe: Recipe) -> list[Row]:
    return [
        Row(
            name=name,
            recipe=dataclasses.replace(recipe, schedule=class_imbalance.chosen(recipe, name)),
        )
        for name in class_imbalance.BALANCES
    ]


def _shortcut(recipe: Recipe) -> list[Row]:
    if recipe.read is not covid.read:
        raise TrainingError(
            f"{recipe.model.name} has no pictures without lungs, wanted for the table shortcut: "
            "covid3-simplecnn or covid3-resnet50."
        )
    return [
        Row(name="whole pictures", recipe=recipe),
        Row(name="lungs blotted out", recipe=recipe, masked=True),
    ]


TABLES: dict[str, Callable[[Recipe], list[Row]]] = {
    "folds": _folds,
    "architectures": _architectures,
    "augmentation": _augmentation,
    "balance": _balance,
    "shortcut": _shortcut,
}


def ablate(
    recipe: str,
    *,
    data: Path,
    tables: Sequence[str] = (),
    budget: Budget | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The tables asked for, all that the recipe takes if none is named, as JSON values."""
    chosen, limits = _small(recipe_of(recipe), budget or Budget()), budget or Budget()
    usual = [name for name in TABLES if name != "folds" and (name != "shortcut" or _masks(chosen))]
    wanted = tuple(tables) or tuple(usual)
    for name in wanted:
        if name not in TABLES:
            raise UnknownNameError("table", name, TABLES)
    check_folder(data)
    tell = progress or (lambda done, doing: None)
    tell(0.0, "reading the data")
    rows = {name: TABLES[name](chosen) for name in wanted}
    sets = _Sets(data, chosen, limits)
    total = sum(map(len, rows.values())) * limits.folds
    done = 0
    found: dict[str, list[dict[str, Any]]] = {}
    for name, choices in rows.items():
        found[name] = []
        for row in choices:
            folds = []
            for fold in range(limits.folds):
                tell(done / total, f"{name}: {row.name}, fold {fold + 1} of {limits.folds}")
                folds.append(_measured(row, sets.of(row, fold), limits, fold))
                done += 1
            found[name].append({"name": row.name, "folds": folds})
    return {
        "recipe": recipe,
        "data": sets.name,
        "n": sets.count,
        "groups": sets.persons,
        "budget": dataclasses.asdict(limits),
        "tables": {name: _table(listed) for name, listed in found.items()},
    }


def _masks(recipe: Recipe) -> bool:
    return recipe.read is covid.read


def _small(recipe: Recipe, budget: Budget) -> Recipe:
    """The recipe at the budget's size, starting from nothing, as every architecture can."""
    spec = recipe.model.preprocessing
    if not isinstance(spec, Raster):
        raise TrainingError(f"{recipe.model.name} takes sounds, wanted: a recipe of pictures.")
    if budget.folds < 2 or budget.epochs < 1 or budget.most < 2 * budget.folds or budget.side < 32:
        raise TrainingError(
            f"{budget.folds} folds, {budget.epochs} epochs, {budget.most} samples and {budget.side}"
            " pixels, wanted: at least 2 folds, 1 epoch, two samples a fold and 32 pixels."
        )
    return dataclasses.replace(
        recipe,
        start=None,
        model=dataclasses.replace(
            recipe.model,
            preprocessing=dataclasses.replace(spec, height=budget.side, width=budget.side),
        ),
        schedule=dataclasses.replace(
            recipe.schedule, epochs=budget.epochs, small_until=0.0, thaw_every=0, patience=0
        ),
    )


class _Sets:
    """The data of one ablation, read once, and once more without lungs where that is asked."""

    def __init__(self, data: Path, recipe: Recipe, budget: Budget) -> None:
        self._data, self._recipe, self._budget = data, recipe, budget
        whole = recipe.read(data, recipe.model)
        self._read = {False: whole}
        rng = np.random.default_rng(budget.seed)
        persons = rng.permutation(sorted(set(whole.groups))).tolist()
        sizes = {person: whole.groups.count(person) for person in persons}
        taken: set[str] = set()
        for person in persons:
            if sum(sizes[p] for p in taken) >= budget.most:
                break
            taken.add(person)
        self.name, self._taken = whole.name, taken
        kept = [i for i, group in enumerate(whole.groups) if group in taken]
        self.count, self.persons = len(kept), len(taken)
        self._fold_of = np.full(len(whole.groups), -1)
        self._fold_of[kept] = datasets.assign_folds(
            [whole.groups[i] for i in kept], whole.targets[kept], budget.folds, seed="ablation"
        )

    def of(self, row: Row, fold: int) -> Dataset:
        """The fold is the test part; of the rest one sixth of the persons is validation."""
        if row.masked not in self._read:
            model = self._recipe.model
            self._read[row.masked] = covid.read(self._data, model, masked=row.masked)
        whole = self._read[row.masked]
        learnt = np.flatnonzero((self._fold_of >= 0) & (self._fold_of != fold))
        tuned = datasets.assign_parts(
            [whole.groups[i] for i in learnt],
            whole.targets[learnt],
            (5 / 6, 1 / 6),
            seed="ablation validation",
        )
        splits: list[Split | None] = [None] * len(whole.groups)
        for i in np.flatnonzero(self._fold_of == fold):
            splits[i] = "test"
        for i, is_tuned in zip(learnt, tuned, strict=True):
            splits[i] = "validation" if is_tuned else "train"
        kept = [i for i, split in enumerate(splits) if split is not None]
        found = dataclasses.replace(
            whole,
            targets=whole.targets[kept],
            groups=tuple(whole.groups[i] for i in kept),
            splits=tuple(split for split in splits if split is not None),
            load=lambda i, rng: whole.load(kept[i], rng),
        )
        return found if row.varied else found.unvaried()


def _measured(row: Row, data: Dataset, budget: Budget, fold: int) -> dict[str, float | None]:
    """Train on the other folds and ask about this one."""
    check_part(data, "train", 2)
    check_part(data, "validation", 2)
    torch.manual_seed(budget.seed)
    model = row.recipe.model
    network = networks.architecture(model).whole(model)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        train.learnt(
            network,
            row.recipe,
            data,
            out=out,
            options=train.Options(seed=budget.seed),
            progress=lambda done, doing: None,
            track=lambda first: tracking.opened(
                "csv", tracking.Tracked(out=out, name=row.name, settings={}, first_step=first)
            ),
        )
    tuned = train.tuned(network.cpu(), row.recipe, data)
    probabilities, targets = predict.probabilities(network, tuned, data, "test")
    weights = np.ones(len(targets))
    if data.is_independent:
        decided = findings.decided(tuned, probabilities)
        figures = findings.summary(probabilities, targets, decided, weights)
    else:
        decided = np.array([decided_index(tuned, row) for row in probabilities])
        figures = metrics.summary(probabilities, targets, decided, weights, None)
    return {name: finite(figures[name]) for name in FIGURES}


def _table(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The rows with means, and each against the first."""

    def over(row: dict[str, Any], name: str) -> list[float]:
        return [float("nan") if f[name] is None else f[name] for f in row["folds"]]

    first = rows[0]
    return {
        "rows": [
            {
                **row,
                "mean": {name: finite(float(np.nanmean(over(row, name)))) for name in FIGURES},
                "against_first": None
                if row is first
                else {name: paired(over(first, name), over(row, name)) for name in FIGURES},
            }
            for row in rows
        ]
    }


def table(result: dict[str, Any]) -> str:
    """The tables for a terminal, as Markdown."""
    budget = result["budget"]
    lines = [
        f"{result['recipe']} on {result['data']}: {result['n']} samples of {result['groups']} "
        f"persons, {budget['folds']} folds, {budget['epochs']} epochs, {budget['side']} pixels, "
        "from the start. p: paired t-test over the folds against the first row."
    ]
    for name, found in result["tables"].items():
        lines += ["", f"| {name} | " + " | ".join(f"{f} | p" for f in FIGURES) + " |"]
        lines.append("| --- " * (2 * len(FIGURES) + 1) + "|")
        for row in found["rows"]:
            cells = []
            for figure in FIGURES:
                against = row["against_first"]
                p = against[figure]["p"] if against else None
                cells += [_shown(row["mean"][figure]), "" if p is None else f"{p:.2g}"]
            lines.append(f"| {row['name']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _shown(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"
