"""The tables of `ablation`: for each, the recipe with one choice changed in every row.

They are `folds` (the recipe as it is), `architectures`, `augmentation`, `balance`, `bodies`
(networks that start from ImageNet weights), `shortcut` (the lungs masked) and `sources` (a source
of COVID-19 left out).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xai_demo.errors import TrainingError
from xai_demo.training import class_imbalance
from xai_demo.training.datasets import covid
from xai_demo.training.initial_weights import IMAGENET

if TYPE_CHECKING:
    from xai_demo.training.datasets import Dataset, Split
    from xai_demo.training.recipe import Recipe

# The first is the baseline that the others are tested against.
ARCHITECTURES = ("resnet50", "resnet101", "densenet121")
# From ImageNet weights, where there are some.
BODIES = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2", "resnet18")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One choice: a recipe, or its data, with one thing changed."""

    name: str
    recipe: Recipe
    has_augmentation: bool = True
    has_masked_lungs: bool = False
    # Tested on the COVID-19 of this source alone, a key of `covid.SOURCES`.
    covid_source: str | None = None
    is_left_out: bool = False  # that source, of training
    # A linear classifier of thumbnails in place of the network.
    is_linear: bool = False


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
        Row(name="with augmentation", recipe=recipe),
        Row(name="without augmentation", recipe=recipe, has_augmentation=False),
    ]


def _balance(recipe: Recipe) -> list[Row]:
    return [
        Row(
            name=name,
            recipe=dataclasses.replace(
                recipe, schedule=class_imbalance.balanced_schedule(recipe, name)
            ),
        )
        for name in class_imbalance.BALANCES
    ]


def _shortcut(recipe: Recipe) -> list[Row]:
    if not can_mask_lungs(recipe):
        raise TrainingError(
            f"{recipe.model.name} cannot mask the lungs, which the table shortcut compares; use "
            "covid3-simplecnn or covid3-efficientnet-lite0."
        )
    return [
        Row(name="whole radiographs", recipe=recipe),
        Row(name="lungs masked", recipe=recipe, has_masked_lungs=True),
    ]


def _bodies(recipe: Recipe) -> list[Row]:
    if not recipe.is_from_imagenet:
        raise TrainingError(
            f"{recipe.model.name} does not start from ImageNet weights, which the table bodies "
            "compares; use nih14-efficientnet-lite0 or covid3-efficientnet-lite0."
        )
    return [
        Row(
            name=f"{name}, from {'ImageNet' if name in IMAGENET else 'random'} weights",
            recipe=dataclasses.replace(
                recipe,
                model=dataclasses.replace(recipe.model, architecture=name),
                is_from_imagenet=name in IMAGENET,
            ),
        )
        for name in BODIES
    ]


def _sources(recipe: Recipe) -> list[Row]:
    if not can_mask_lungs(recipe):
        raise TrainingError(
            f"{recipe.model.name} does not know COVID-19, whose sources the table sources leaves "
            "out; use covid3-efficientnet-lite0 or covid3-simplecnn."
        )
    return [
        Row(
            name=f"COVID-19 of {source}, {'left out' if left_out else 'trained on'}"
            f"{', linear classifier, lungs masked' if linear else ''}",
            recipe=recipe,
            covid_source=source,
            is_left_out=left_out,
            is_linear=linear,
            has_masked_lungs=linear,
        )
        for source in covid.SOURCES
        for left_out in (False, True)
        for linear in (False, True)
    ]


TABLES: dict[str, Callable[[Recipe], list[Row]]] = {
    "folds": _folds,
    "architectures": _architectures,
    "augmentation": _augmentation,
    "balance": _balance,
    "bodies": _bodies,
    "shortcut": _shortcut,
    "sources": _sources,
}
# Only made where they are named: the first compares nothing, the others are of few recipes.
ON_REQUEST = ("folds", "bodies", "sources")


def can_mask_lungs(recipe: Recipe) -> bool:
    """Whether the recipe's radiographs can be read with their lungs masked."""
    # Only this reader can mask the lungs, which `ablation` asks it for.
    return recipe.read is covid.read


def only_source(data: Dataset, splits: list[Split | None], row: Row) -> list[Split | None]:
    """The splits with nothing but the COVID-19 of the row's source in the test split.

    If the source is left out, none of it is in the others.
    """
    covid_index = data.labels.index(covid.COVID)
    beginning = covid.SOURCES[row.covid_source or ""]
    chosen: list[Split | None] = []
    for target, group, split in zip(data.targets, data.groups, splits, strict=True):
        is_source = target == covid_index and group.startswith(beginning)
        omits = not is_source if split == "test" else is_source and row.is_left_out
        chosen.append(None if omits else split)
    return chosen
