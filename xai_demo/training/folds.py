"""Cross-validation: for each fold a network is trained anew on the others and asked about it.

Folds are those that a data set's makers published or, where they published none, of persons, with
every label's share in each.
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
from xai_demo.decision import decided_index
from xai_demo.errors import TrainingError
from xai_demo.training import (
    datasets,
    findings,
    fold_metrics,
    predict,
    tracking,
    train,
)
from xai_demo.training.evaluate import check_part
from xai_demo.training.fold_metrics import (
    FILE,
    Fold,
    write,
)
from xai_demo.training.recipes import recipe_of

if TYPE_CHECKING:
    from xai_demo.records import Progress
    from xai_demo.settings import Settings
    from xai_demo.training.datasets import Dataset, Split
    from xai_demo.training.recipe import Recipe

USUAL = 5  # folds of persons, where nobody says how many
_TUNED_ON = 0.15 / 0.85  # of the other folds, so that validation is as large as in one training


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is trained, and where it is kept."""

    settings: Settings
    out: Path | None = None  # None: nothing is kept
    epochs: int | None = None  # None: as the recipe says
    folds: int | None = None  # None: the published ones, else `USUAL`
    seeds: int = 1


def cross_validate(recipe: Recipe, *, data: Path, plan: Plan, progress: Progress) -> dict[str, Any]:
    """Figures of all folds, for each seed, on average, and of every fold by itself.

    `plan.out` keeps every fold's checkpoint, from which a run that was interrupted goes on, and
    gets the figures as cross_validation.json. Raises TrainingError for the data, or where folds are
    wanted that the data do not have.
    """
    parts = list(_parts(recipe, data, plan.folds))
    epochs = plan.epochs or recipe.schedule.epochs
    recipe = dataclasses.replace(
        _apart_from_its_start(recipe), schedule=dataclasses.replace(recipe.schedule, epochs=epochs)
    )
    rounds, notes = [], {note for _, part in parts for note in part.notes}
    with ExitStack() as stack:
        where = plan.out or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for seed in range(plan.seeds):
            answered = []
            for i, part in enumerate(parts):
                place = where / f"fold-{part[0]}-seed-{seed}"
                done = seed * len(parts) + i
                tell = _share(progress, done, plan.seeds * len(parts), part[0])
                fold, said = _fold(recipe, part, place, seed, plan.settings, tell)
                answered.append(fold)
                notes |= set(said)
            rounds.append(answered)
    result = fold_metrics.result(
        recipe.model, data=parts[0][1].name, rounds=rounds, notes=sorted(notes)
    )
    if plan.out is not None:
        write(plan.out / FILE, result)
    return result


def of_persons(data: Dataset, count: int) -> Iterator[tuple[str, Dataset]]:
    """The data once for each fold, that one being the test part; a person is in one fold only.

    Of the other folds' persons so many are validation that it is as large as in one training.
    """
    fold_of = datasets.assign_folds(data.groups, data.targets, count, seed=f"folds:{data.name}")
    for fold in range(count):
        learnt = np.flatnonzero(fold_of != fold)
        tuned = datasets.assign_parts(
            [data.groups[i] for i in learnt],
            data.targets[learnt],
            (1 - _TUNED_ON, _TUNED_ON),
            seed=f"folds:{data.name}:{fold}",
        )
        splits: list[Split] = ["test"] * len(data.groups)
        for i, is_tuned in zip(learnt, tuned, strict=True):
            splits[i] = "validation" if is_tuned else "train"
        yield str(fold + 1), dataclasses.replace(data, splits=tuple(splits))


def _parts(recipe: Recipe, data: Path, count: int | None) -> Iterator[tuple[str, Dataset]]:
    if recipe.folds is None:
        yield from of_persons(recipe.read(data, recipe.model), count or USUAL)
        return
    parts = list(recipe.folds(data, recipe.model))
    if count not in (None, len(parts)):
        raise TrainingError(
            f"{count} folds are asked for and {data} has {len(parts)} published ones, wanted: "
            "those, or no number."
        )
    yield from parts


def _apart_from_its_start(recipe: Recipe) -> Recipe:
    """From nothing where it would start from a network that has met persons of every fold."""
    if recipe.start is None or recipe_of(recipe.start).read is not recipe.read:
        return recipe
    return dataclasses.replace(recipe, start=None)


def _share(progress: Progress, index: int, count: int, name: str) -> Progress:
    """How far one of several folds is, as a part of all."""
    return lambda done, doing: progress((index + done) / count, f"fold {name}: {doing}")


def _fold(
    recipe: Recipe,
    part: tuple[str, Dataset],
    out: Path,
    seed: int,
    settings: Settings,
    progress: Progress,
) -> tuple[Fold, tuple[str, ...]]:
    """What was answered about one fold, and where its network started from."""
    import torch

    name, data = part
    check_part(data, "train", 2)
    check_part(data, "validation", 2)
    check_part(data, "test", 1)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    network = networks.architecture(recipe.model).whole(recipe.model)
    said = train.started(network, recipe, settings)
    train.learnt(
        network,
        recipe,
        data,
        out=out,
        options=train.Options(seed=seed, resume=True),
        progress=progress,
        track=lambda first: tracking.opened(
            "csv",
            tracking.Tracked(
                out=out,
                name=f"{recipe.model.name}, fold {name}",
                settings=dataclasses.asdict(recipe.schedule),
                first_step=first,
            ),
        ),
    )
    model = train.tuned(network, recipe, data)
    answers, targets = predict.probabilities(network, model, data, "test")
    decided = (
        findings.decided(model, answers)
        if data.is_independent
        else np.array([decided_index(model, row) for row in answers])
    )
    return Fold(
        name=name,
        probabilities=answers,
        targets=targets,
        decided=decided,
        groups=tuple(data.groups[i] for i in data.indices("test")),
    ), said
