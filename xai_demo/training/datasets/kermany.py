"""Paediatric chest X-rays in their published layout: {train,val,test}/{NORMAL,PNEUMONIA}/*.jpeg.

Kermany et al. 2018. The kind of pneumonia is in the file name: person1000_bacteria_2931.jpeg. If no
file has such a name, radiographs are read from folders named after the model's labels.
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
# Radiographs of pneumonia are named person<N>, normal ones IM-<N> or NORMAL2-IM-<N>. The last two
# count as different patients.
_PATIENT = re.compile(r"(person\d+)_|((?:NORMAL2-)?IM-\d+)-")
_KIND = re.compile(r"person\d+_(bacteria|virus)_")
NORMAL, PNEUMONIA, BACTERIAL, VIRAL = (
    "Normal",
    "Pneumonia",
    "Bacterial pneumonia",
    "Viral pneumonia",
)


def read(data: Path, model: Model) -> Dataset:
    """Read all radiographs below `data`, regrouped by patient.

    A model without the label "Pneumonia" gets bacterial and viral pneumonia as two labels;
    radiographs whose names do not give the kind are then left out and counted. Raises TrainingError
    where there are no radiographs.
    """
    spec = radiographs.spec_of(model)
    # The published folders are themselves named after labels, so file names decide first.
    if not is_published(data) and (other := radiographs.read(data, model)) is not None:
        return other
    listed = list_radiographs(data)
    if not listed:
        raise TrainingError(
            f"{data} contains no radiographs; NORMAL/*.jpeg and PNEUMONIA/*.jpeg are needed."
        )
    # `_label_index` fails on a radiograph without any of the model's labels.
    kept = [each for each in listed if set(each.labels) & set(model.labels)]
    targets = np.array([_label_index(each, model) for each in kept])
    omitted = [each.path.name for each in listed if each not in set(kept)]
    notes = (
        f"Left out, no kind of pneumonia in the name ({len(omitted)}): {', '.join(omitted[:5])}.",
    )
    groups = tuple(each.patient for each in kept)
    rows = np.stack([one_hot(int(t), len(model.labels)) for t in targets])
    return Dataset(
        name="kermany",
        labels=model.labels,
        targets=targets,
        groups=groups,
        # The published train, val and test folders share patients, so they are not used.
        splits=split_groups(groups, seed="kermany"),
        load=radiographs.loader(radiographs.pixels(kept, spec), rows, spec),
        notes=notes if omitted else (),
    )


def list_radiographs(data: Path) -> list[RadiographFile]:
    """Every radiograph in a folder NORMAL or PNEUMONIA in or below `data`."""
    return [
        RadiographFile(path=p, patient=patient_of(p.name), labels=_labels(p)) for p in _paths(data)
    ]


def patient_of(file_name: str) -> str:
    """The patient in a published file name; raises TrainingError for any other name.

    >>> patient_of("person1000_bacteria_2931.jpeg")
    'person1000'
    """
    match = _PATIENT.match(file_name)
    if not match:
        raise TrainingError(
            f"{file_name} does not name a patient; expected is person<N>_..., "
            "IM-<N>-... or NORMAL2-IM-<N>-..."
        )
    return match.group(1) or match.group(2)


def _paths(data: Path) -> list[Path]:
    # Sorted, because the order of a directory differs between file systems.
    return sorted(p for p in data.rglob("*.jp*g") if p.parent.name in _FOLDERS)


def is_published(data: Path) -> bool:
    """Whether any file is named as in the published dataset."""
    return any(_PATIENT.match(path.name) for path in _paths(data))


def _labels(path: Path) -> tuple[str, ...]:
    if path.parent.name == "NORMAL":
        return (NORMAL,)
    # Both the general label and the kind: the model's labels decide which of them counts.
    kind = _KIND.match(path.name)
    return (PNEUMONIA,) + ({"bacteria": (BACTERIAL,), "virus": (VIRAL,)}[kind[1]] if kind else ())


def _label_index(radiograph: RadiographFile, model: Model) -> int:
    return next(i for i, label in enumerate(model.labels) if label in radiograph.labels)
