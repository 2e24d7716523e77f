"""Paediatric chest X-rays in their published layout: {train,val,test}/{NORMAL,PNEUMONIA}/*.jpeg.

The kind of pneumonia is in the file's name: person1000_bacteria_2931.jpeg. Films of another origin
are taken from folders named after labels.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xai_demo.errors import TrainingError
from xai_demo.training.datasets import (
    Dataset,
    one_hot,
    radiographs,
    split_groups,
)
from xai_demo.training.datasets.radiographs import RadiographFile

if TYPE_CHECKING:
    from xai_demo.records import Model

_FOLDERS = ("NORMAL", "PNEUMONIA")
_PERSON = re.compile(r"(person\d+)_|((?:NORMAL2-)?IM-\d+)-")
_KIND = re.compile(r"person\d+_(bacteria|virus)_")
NORMAL, PNEUMONIA, BACTERIAL, VIRAL = (
    "Normal",
    "Pneumonia",
    "Bacterial pneumonia",
    "Viral pneumonia",
)


def read(data: Path, model: Model) -> Dataset:
    """All pictures below `data`, regrouped by person; raises TrainingError where there are none.

    A model that does not know "Pneumonia" is told bacterial from viral, and pictures whose names
    do not say which are left out and counted.
    """
    spec = radiographs.spec_of(model)
    if not is_published(data) and (other := radiographs.read(data, model)) is not None:
        return other
    listed = list_radiographs(data)
    if not listed:
        raise TrainingError(
            f"{data} holds no pictures, wanted: NORMAL/*.jpeg and PNEUMONIA/*.jpeg in it."
        )
    kept = [film for film in listed if set(film.labels) & set(model.labels)]
    targets = np.array([_label_index(film, model) for film in kept])
    left = [film.path.name for film in listed if film not in set(kept)]
    notes = (f"Left out, no kind of pneumonia in the name ({len(left)}): {', '.join(left[:5])}.",)
    groups = tuple(film.person for film in kept)
    rows = np.stack([one_hot(int(t), len(model.labels)) for t in targets])
    return Dataset(
        name="kermany",
        labels=model.labels,
        targets=targets,
        groups=groups,
        splits=split_groups(groups, seed="kermany"),
        load=radiographs.loader(radiographs.pixels(kept, spec), rows, spec),
        notes=notes if left else (),
    )


def list_radiographs(data: Path) -> list[RadiographFile]:
    """Every picture in a folder NORMAL or PNEUMONIA at or below `data`."""
    return [
        RadiographFile(path=p, person=patient_of(p.name), labels=_labels(p)) for p in _paths(data)
    ]


def patient_of(file_name: str) -> str:
    """Who is in the picture, by its published file name; raises TrainingError for others."""
    match = _PERSON.match(file_name)
    if not match:
        raise TrainingError(
            f"{file_name} names no person, wanted: person<N>_..., IM-<N>-... or NORMAL2-IM-<N>-..."
        )
    return match.group(1) or match.group(2)


def _paths(data: Path) -> list[Path]:
    return sorted(p for p in data.rglob("*.jp*g") if p.parent.name in _FOLDERS)


def is_published(data: Path) -> bool:
    """Whether some file is named as Kermany et al. name theirs."""
    return any(_PERSON.match(path.name) for path in _paths(data))


def _labels(path: Path) -> tuple[str, ...]:
    if path.parent.name == "NORMAL":
        return (NORMAL,)
    kind = _KIND.match(path.name)
    return (PNEUMONIA,) + ({"bacteria": (BACTERIAL,), "virus": (VIRAL,)}[kind[1]] if kind else ())


def _label_index(film: RadiographFile, model: Model) -> int:
    return next(i for i, label in enumerate(model.labels) if label in film.labels)
