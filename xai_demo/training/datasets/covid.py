"""COVID-19, pneumonia or normal: three classes from three collections, each of other hospitals.

COVID-CXNet's pictures (a folder COVID-19) and children's radiographs (Kermany) are learnt from;
adults of NIH ChestX-ray14, with the one finding Pneumonia or with No Finding, are the external
test: no picture of theirs is ever learnt from. COVID-19 comes from one collection alone, so that a
network can pass the internal test by telling the collections apart. `masked` pictures, the lungs
blotted out, show how far that goes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xai_demo.errors import TrainingError
from xai_demo.training import augmentation
from xai_demo.training.datasets import (
    Dataset,
    Split,
    kermany,
    nih,
    one_hot,
    radiographs,
    split_groups,
)
from xai_demo.training.datasets.radiographs import RadiographFile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xai_demo.records import Floats, Model, Pixels

COVID, PNEUMONIA, NORMAL = "COVID-19", "Pneumonia", "Normal"
FOLDER = "COVID-19"
# What is blotted out, as shares of height and width: both lungs and all between them.
TOP, BOTTOM, LEFT, RIGHT = 0.08, 0.90, 0.08, 0.92
_SIMILAR = 0.985  # correlation of two small copies from which they count as one person's
_SIDE = 24
_PICTURES = {".jpg", ".jpeg", ".png"}


def read(data: Path, model: Model, *, masked: bool = False) -> Dataset:
    """What is learnt from and tested on internally; raises TrainingError where a class is missing.

    Of children with pneumonia only so many are taken, by a hash of their number, that there are
    about as many pictures of them as of normal ones. Films that are none of Kermany's are taken
    from folders named after labels.
    """
    spec = radiographs.spec_of(model)
    if not kermany.is_published(data):
        altered = mask_lungs if masked else None
        other = radiographs.read(data, model, vary=_augment, altered=altered)
        if other is not None and len(set(other.targets.tolist())) == len(model.labels):
            return other
    listed = _internal_radiographs(data)
    for label in model.labels:
        if not any(label in film.labels for film in listed):
            raise TrainingError(
                f"{data} holds no picture of {label}, wanted: a folder {FOLDER} (COVID-CXNet), and "
                "NORMAL and PNEUMONIA (Kermany) in it."
            )
    targets = np.array([model.labels.index(film.labels[0]) for film in listed])
    groups = tuple(film.person for film in listed)
    rows = np.stack([one_hot(int(t), len(model.labels)) for t in targets])
    held = radiographs.pixels(listed, spec)
    return Dataset(
        name="covid3",
        labels=model.labels,
        targets=targets,
        groups=groups,
        splits=_splits(groups),
        load=radiographs.loader(mask_lungs(held) if masked else held, rows, spec, _augment),
        notes=_notes(listed),
    )


def external(data: Path, model: Model) -> Dataset | None:
    """NIH's adults, all of them in the test part; None where NIH's table is not there."""
    if nih.find_table(data) is None:
        return None
    spec = radiographs.spec_of(model)
    meant: dict[tuple[str, ...], str] = {(nih.NO_FINDING,): NORMAL, ("Pneumonia",): PNEUMONIA}
    found, notes = nih.list_radiographs(data)
    listed = [film for film in found if film.labels in meant]
    if not listed:
        return None
    targets = np.array([model.labels.index(meant[film.labels]) for film in listed])
    asked: tuple[Split, ...] = tuple("test" for _ in listed)
    rows = np.stack([one_hot(int(t), len(model.labels)) for t in targets])
    return Dataset(
        name="nih",
        labels=model.labels,
        targets=targets,
        groups=tuple(film.person for film in listed),
        splits=asked,
        load=radiographs.loader(radiographs.pixels(listed, spec), rows, spec),
        notes=notes,
    )


def mask_lungs(held: Pixels) -> Pixels:
    """Pictures without lungs, (films, height, width): their frame is left, the rest is grey."""
    height, width = held.shape[1:]
    bare = held.copy()
    rows, columns = _span(height, TOP, BOTTOM), _span(width, LEFT, RIGHT)
    bare[:, rows, columns] = 128
    return bare


def _span(size: int, start: float, end: float) -> slice:
    return slice(round(size * start), round(size * end))


def _internal_radiographs(data: Path) -> list[RadiographFile]:
    pneumonia: list[RadiographFile] = []
    normal: list[RadiographFile] = []
    for film in kermany.list_radiographs(data):
        label = NORMAL if kermany.NORMAL in film.labels else PNEUMONIA
        own = RadiographFile(path=film.path, person=f"kermany:{film.person}", labels=(label,))
        (normal if label == NORMAL else pneumonia).append(own)
    taken = sorted(pneumonia, key=lambda film: _digest(f"drawn:{film.person}".encode()))
    return [*_covid_radiographs(data), *normal, *(taken[: len(normal)] if normal else taken)]


def _covid_radiographs(data: Path) -> list[RadiographFile]:
    """COVID-CXNet's pictures; who is on them is not published, so those much alike are one's."""
    paths = sorted(
        p for p in data.rglob("*") if p.parent.name == FOLDER and p.suffix.lower() in _PICTURES
    )
    names = [f"covid:{_digest(path.read_bytes())}" for path in paths]
    person = group_similar(_thumbnails(paths), names) if paths else []
    return [
        RadiographFile(path=path, person=who, labels=(COVID,))
        for path, who in zip(paths, person, strict=True)
    ]


def group_similar(small: NDArray[np.float64], names: Sequence[str]) -> list[str]:
    """For every picture the first name among those it hangs together with: (pictures, pixels)."""
    level = small - small.mean(axis=1, keepdims=True)
    level /= np.linalg.norm(level, axis=1, keepdims=True) + 1e-9
    root = list(range(len(names)))

    def top(i: int) -> int:
        while root[i] != i:
            i = root[i]
        return i

    for i, j in zip(*np.nonzero(np.triu(level @ level.T >= _SIMILAR, 1)), strict=True):
        root[top(int(j))] = top(int(i))
    clusters: dict[int, list[str]] = {}
    for i, name in enumerate(names):
        clusters.setdefault(top(i), []).append(name)
    return [min(clusters[top(i)]) for i in range(len(names))]


def _thumbnails(paths: Sequence[Path]) -> NDArray[np.float64]:
    from PIL import Image

    size = (_SIDE, _SIDE)
    rows = []
    for path in paths:
        with Image.open(path) as picture:
            small = picture.convert("L").resize(size, Image.Resampling.BILINEAR)
        rows.append(np.asarray(small, np.float64).ravel())
    return np.stack(rows)


def _splits(groups: Sequence[str]) -> tuple[Split, ...]:
    """Children as `pneumonia-resnet18` has them, so that no other model of theirs saw the test."""
    names = [group.removeprefix("kermany:") for group in groups]
    own = split_groups(names, seed="kermany")
    other = split_groups(names, seed="covid3")
    return tuple(
        a if group.startswith("kermany:") else b
        for group, a, b in zip(groups, own, other, strict=True)
    )


def _notes(listed: Sequence[RadiographFile]) -> tuple[str, ...]:
    covid = [film for film in listed if film.labels == (COVID,)]
    return (
        f"COVID-CXNet publishes no patients: its {len(covid)} pictures count as "
        f"{len({film.person for film in covid})} persons, pictures much alike as one person's.",
    )


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _augment(picture: Floats, rng: np.random.Generator) -> Floats:
    return augmentation.varied(picture, rng, augmentation.COVID3)
