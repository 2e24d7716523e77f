"""COVID-19, pneumonia or normal: three classes from collections of different hospitals.

Networks are trained on COVID-CXNet (a folder COVID-19), on children's radiographs (Kermany) and,
where it is there, on the COVID-19 Radiography Database: a second source of COVID-19, and normal
adults. Adults of NIH ChestX-ray14, with the single finding Pneumonia or with No Finding, are the
external test and are never trained on. No hospital has all three classes, so a network can pass the
internal test by telling the collections apart; `masked` radiographs, whose lungs are hidden, show
how far that shortcut goes.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xai_demo.errors import TrainingError
from xai_demo.imaging import lungs
from xai_demo.training import augmentation
from xai_demo.training.datasets import (
    Dataset,
    Split,
    kermany,
    nih,
    one_hot,
    radiographs,
    radiography,
    split_groups,
)
from xai_demo.training.datasets.radiographs import RadiographFile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xai_demo.records import Floats, Model, Pixels

COVID, PNEUMONIA, NORMAL = "COVID-19", "Pneumonia", "Normal"
FOLDER = "COVID-19"
# The sources of COVID-19, and how the groups of their radiographs begin.
COVID_CXNET, RADIOGRAPHY = "COVID-CXNet", "the COVID-19 Radiography Database"
SOURCES = {COVID_CXNET: "covid:", RADIOGRAPHY: radiography.PREFIX}
_CHILD, _FILM = "kermany:", radiography.PREFIX
# The margin around the lung field that is masked with it, as a share of the width; and, as shares
# of height and width, the region that is masked on a film on which no field is found.
_MARGIN = 0.03
TOP, BOTTOM, LEFT, RIGHT = 0.08, 0.90, 0.08, 0.92
# Correlation of two thumbnails from which they count as one patient's.
_SIMILAR = 0.985
# Coarse, so that copies of another size or compression still correlate.
_THUMBNAIL_SIDE = 24
_IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png"}


def read(data: Path, model: Model, *, masked: bool = False) -> Dataset:
    """Read the radiographs for training and the internal test.

    Of the children's pneumonia, only as many radiographs are used as there are normal ones, chosen
    by a hash of the patient. Where no file is one of Kermany's, radiographs are read from folders
    named after labels. Raises TrainingError where a class is missing.
    """
    spec = radiographs.spec_of(model)
    notes = list[str]()

    def preprocess_all(images: Pixels) -> Pixels:
        if not masked:
            return images
        bare, note = mask_lungs(images)
        notes.append(note)
        return bare

    if not kermany.is_published(data):
        other = radiographs.read(
            data,
            model,
            augmentation=_augment,
            preprocess_all=preprocess_all,
        )
        # Where a class is missing, the error below names it.
        if other is not None and len(set(other.targets.tolist())) == len(model.labels):
            return dataclasses.replace(other, notes=(*other.notes, *notes))
    listed = _internal_radiographs(data)
    for label in model.labels:
        if not any(label in file.labels for file in listed):
            raise TrainingError(
                f"{data} contains no radiograph of {label}; it must contain a folder {FOLDER} "
                "(COVID-CXNet), and NORMAL and PNEUMONIA (Kermany)."
            )
    targets = np.array([model.labels.index(file.labels[0]) for file in listed])
    groups = tuple(file.patient for file in listed)
    rows = np.stack([one_hot(int(t), len(model.labels)) for t in targets])
    images = preprocess_all(radiographs.pixels(listed, spec))
    return Dataset(
        name="covid3",
        labels=model.labels,
        targets=targets,
        groups=groups,
        splits=_splits(groups),
        load=radiographs.loader(images, rows, spec, _augment),
        notes=(*_notes(listed), *notes),
    )


def external(data: Path, model: Model) -> Dataset | None:
    """NIH's adults, all in the test split; None where `data` has no such radiographs."""
    if nih.find_table(data) is None:
        return None
    spec = radiographs.spec_of(model)
    # Pneumonia alone: beside further findings, it is not the one label of a radiograph.
    label_of: dict[tuple[str, ...], str] = {(nih.NO_FINDING,): NORMAL, ("Pneumonia",): PNEUMONIA}
    files, notes = nih.list_radiographs(data)
    listed = [file for file in files if file.labels in label_of]
    if not listed:
        return None
    targets = np.array([model.labels.index(label_of[file.labels]) for file in listed])
    splits: tuple[Split, ...] = tuple("test" for _ in listed)
    rows = np.stack([one_hot(int(t), len(model.labels)) for t in targets])
    return Dataset(
        name="nih",
        labels=model.labels,
        targets=targets,
        groups=tuple(file.patient for file in listed),
        splits=splits,
        load=radiographs.loader(radiographs.pixels(listed, spec), rows, spec),
        notes=notes,
    )


def mask_lungs(images: Pixels) -> tuple[Pixels, str]:
    """Radiographs whose lungs are grey, (images, height, width), and a note on how they were found.

    Where `imaging.lungs` finds no field, a rectangle hides both lungs and all between them.
    """
    import cv2

    height, width = images.shape[1:]
    masked, missing = images.copy(), 0
    square = np.ones(2 * (2 * round(_MARGIN * width) + 1,), np.uint8)
    for image in masked:
        field = lungs.lung_field(image.astype(np.float32) / 255)
        if field.any():
            image[cv2.dilate(field.astype(np.uint8), square) > 0] = 128
        else:
            missing += 1
            image[_span(height, TOP, BOTTOM), _span(width, LEFT, RIGHT)] = 128
    return masked, (
        f"Lungs masked by their field; by a rectangle, because no field was found, on {missing} of "
        f"{len(images)} radiographs."
    )


def _span(size: int, start: float, end: float) -> slice:
    return slice(round(size * start), round(size * end))


def _internal_radiographs(data: Path) -> list[RadiographFile]:
    pneumonia: list[RadiographFile] = []
    normal: list[RadiographFile] = []
    for file in kermany.list_radiographs(data):
        label = NORMAL if kermany.NORMAL in file.labels else PNEUMONIA
        child = RadiographFile(path=file.path, patient=f"{_CHILD}{file.patient}", labels=(label,))
        (normal if label == NORMAL else pneumonia).append(child)
    # By the patient's hash: the same draw everywhere, and a patient's radiographs stay together.
    shuffled = sorted(pneumonia, key=lambda file: _digest(f"drawn:{file.patient}".encode()))
    # Without normal ones, a cut to their number would have pneumonia reported as missing.
    return [
        *_covid_radiographs(data),
        *radiography.list_radiographs(data),
        *normal,
        *(shuffled[: len(normal)] if normal else shuffled),
    ]


def _covid_radiographs(data: Path) -> list[RadiographFile]:
    """COVID-CXNet's radiographs. No patients are published, so similar ones count as one's."""
    table = radiography.find_table(data)
    paths = sorted(
        p
        for p in data.rglob("*")
        if p.parent.name == FOLDER
        and p.suffix.lower() in _IMAGE_SUFFIXES
        # The other source of COVID-19 calls its folder the same.
        and (table is None or p.parent.parent != table.parent)
    )
    names = [f"covid:{_digest(path.read_bytes())}" for path in paths]
    patients = group_similar(_thumbnails(paths), names) if paths else []
    return [
        RadiographFile(path=path, patient=patient, labels=(COVID,))
        for path, patient in zip(paths, patients, strict=True)
    ]


def group_similar(thumbnails: NDArray[np.float64], names: Sequence[str]) -> list[str]:
    """For every image the first name in its cluster of similar ones: (images, pixels) -> names.

    Two images are in one cluster where a chain of images correlated by at least 0.985 joins them.

    >>> ramp = np.arange(4.0)
    >>> group_similar(np.stack([ramp, -ramp, 2 * ramp]), ["c", "a", "b"])
    ['b', 'a', 'b']
    """
    # Unit vectors about their means, so that products are Pearson correlations.
    level = thumbnails - thumbnails.mean(axis=1, keepdims=True)
    level /= np.linalg.norm(level, axis=1, keepdims=True) + 1e-9
    parent = list(range(len(names)))

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    # Union-find: every similar pair, each counted once, links the roots of its clusters.
    for i, j in zip(*np.nonzero(np.triu(level @ level.T >= _SIMILAR, 1)), strict=True):
        parent[root(int(j))] = root(int(i))
    clusters: dict[int, list[str]] = {}
    for i, name in enumerate(names):
        clusters.setdefault(root(i), []).append(name)
    # By name, so that the order of the files makes no difference.
    return [min(clusters[root(i)]) for i in range(len(names))]


def _thumbnails(paths: Sequence[Path]) -> NDArray[np.float64]:
    from PIL import Image

    size = (_THUMBNAIL_SIDE, _THUMBNAIL_SIDE)
    rows = []
    for path in paths:
        with Image.open(path) as image:
            small = image.convert("L").resize(size, Image.Resampling.BILINEAR)
        rows.append(np.asarray(small, np.float64).ravel())
    return np.stack(rows)


def _splits(groups: Sequence[str]) -> tuple[Split, ...]:
    """Each collection in the splits that it has for every network.

    The test patients of one network are then never trained on by another.
    """
    children = split_groups([group.removeprefix(_CHILD) for group in groups], seed="kermany")
    films, others = radiography.splits_of(groups), split_groups(groups, seed="covid3")
    return tuple(
        child if group.startswith(_CHILD) else film if group.startswith(_FILM) else other
        for group, child, film, other in zip(groups, children, films, others, strict=True)
    )


def _notes(listed: Sequence[RadiographFile]) -> tuple[str, ...]:
    covid = [file for file in listed if file.patient.startswith(SOURCES[COVID_CXNET])]
    return (
        f"COVID-CXNet does not publish patients: its {len(covid)} radiographs count as "
        f"{len({file.patient for file in covid})} patients, similar ones as the same patient's.",
    )


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _augment(image: Floats, rng: np.random.Generator) -> Floats:
    return augmentation.augment_radiograph(image, rng, augmentation.COVID3)
