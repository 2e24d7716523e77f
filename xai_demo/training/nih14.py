"""Fourteen findings on one radiograph, each by itself: NIH ChestX-ray14 to learn from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xai_demo.training import class_folders, films, nih, variation
from xai_demo.training.dataset import DataSet, Split
from xai_demo.training.stratified import dealt, split_stratified

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xai_demo.records import Floats, Model
    from xai_demo.training.films import Film

SEED = "nih14"
_TUNED_ON = 0.15 / 0.85  # of the published training part, so that validation is as usual


def read(data: Path, model: Model) -> DataSet:
    """All pictures with a row, 70/15/15 by patient, stratified by finding.

    Where the published lists lie beside the table, the test part is theirs; where there is no
    table, films are taken from folders named after findings. Raises TrainingError where there is no
    such data.
    """
    if nih.table(data) is None:
        other = class_folders.read(data, model, vary=_changed)
        if other is not None:
            return other
    spec = films.spec_of(model)
    listed, notes = nih.found(data)
    targets = rows_of(listed, model)
    groups = tuple(film.person for film in listed)
    return DataSet(
        name="nih14",
        labels=model.labels,
        targets=targets,
        groups=groups,
        splits=_splits(listed, groups, targets, nih.published_parts(data)),
        load=films.loader(films.pixels(listed, spec), targets.astype(np.float32), spec, _changed),
        notes=notes,
    )


def rows_of(listed: list[Film], model: Model) -> NDArray[np.int64]:
    """Which of the model's labels each film has: (films, labels), 0 or 1."""
    return np.array([[int(label in film.labels) for label in model.labels] for film in listed])


def _splits(
    listed: list[Film],
    groups: tuple[str, ...],
    targets: NDArray[np.int64],
    published: dict[str, Split],
) -> tuple[Split, ...]:
    if not published:
        return split_stratified(groups, targets, seed=SEED)
    parts = [published.get(film.path.stem, "train") for film in listed]
    learnt = [i for i, part in enumerate(parts) if part != "test"]
    shares = (1 - _TUNED_ON, _TUNED_ON)
    tuned = dealt([groups[i] for i in learnt], targets[learnt], shares, seed=SEED)
    for i, is_tuned in zip(learnt, tuned, strict=True):
        parts[i] = "validation" if is_tuned else "train"
    return tuple(parts)


def _changed(picture: Floats, rng: np.random.Generator) -> Floats:
    return variation.varied(picture, rng, variation.NIH14)
