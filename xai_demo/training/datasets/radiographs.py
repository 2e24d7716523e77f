"""Radiographs in memory, whatever their data set's layout was, and how they are varied.

Folders named after labels, with films of any origin: where no published layout is.

Case, blanks, "-" and "_" make no difference in a folder's name; "No Finding" holds films without
any of a model's independent labels. Who is on a film is told by its name where that is one of
Kermany's or NIH's; of others every picture counts as one person's, the same picture always as one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xai_demo import imaging
from xai_demo.errors import TrainingError
from xai_demo.imaging import preprocess
from xai_demo.records import Model, Raster
from xai_demo.training.datasets import Dataset, one_hot, split_groups

if TYPE_CHECKING:
    from xai_demo.records import Floats, Pixels

    Vary = Callable[[Floats, np.random.Generator], Floats]

_MOST_PIXELS = 100_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RadiographFile:
    """One radiograph of one person."""

    path: Path
    person: str  # unique over the data sets: "kermany:person12"
    labels: tuple[str, ...]  # what a data set says of it; empty: none of the model's


def spec_of(model: Model) -> Raster:
    """How pictures are made ready for a model; raises TrainingError where it takes sounds."""
    if not isinstance(model.preprocessing, Raster):
        raise TrainingError(f"{model.name} takes sounds, wanted: a model that takes pictures.")
    return model.preprocessing


def pixels(films: Sequence[RadiographFile], spec: Raster) -> Pixels:
    """All of them at the network's size: (films, height, width)."""
    return np.stack([_pixels(film.path, spec) for film in films])


def loader(
    held: Pixels, targets: Floats, spec: Raster, vary: Vary | None = None
) -> Callable[[int, np.random.Generator | None], tuple[Floats, Floats]]:
    """What a data set loads: a picture, varied if there is an rng, and its row of `targets`."""
    change = vary or augment

    def load(i: int, rng: np.random.Generator | None) -> tuple[Floats, Floats]:
        picture = held[i].astype(np.float32) / 255
        if rng is not None:
            picture = change(picture, rng)
        return preprocess.network_input(picture, spec), targets[i]

    return load


def augment(picture: Floats, rng: np.random.Generator) -> Floats:
    """A slightly turned, moved, scaled, brightened picture; mirrored half the time."""
    import cv2

    if rng.random() < 0.5:
        picture = picture[:, ::-1]
    angle = np.deg2rad(rng.uniform(-10, 10))
    scale = rng.uniform(0.88, 1.12, size=2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * scale
    centre = np.array(picture.shape) / 2
    shift = rng.uniform(-0.06, 0.06, size=2) * picture.shape
    matrix = np.column_stack([turn, centre - turn @ centre + shift])
    moved = cv2.warpAffine(np.ascontiguousarray(picture), matrix, picture.shape[::-1])
    moved = np.clip(moved, 0, 1) ** np.float32(np.exp(rng.uniform(-0.25, 0.25)))
    changed = moved * np.float32(rng.uniform(0.8, 1.2)) + np.float32(rng.uniform(-0.1, 0.1))
    grain = rng.standard_normal(changed.shape, dtype=np.float32) * np.float32(rng.uniform(0, 0.02))
    result: Floats = np.clip(changed + grain, 0, 1)
    return result


def _pixels(path: Path, spec: Raster) -> Pixels:
    picture = preprocess.framed(imaging.read_image(path, max_pixels=_MOST_PIXELS).pixels, spec)
    return np.round(picture * 255).astype(np.uint8)


SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".dcm"}
NOTHING = "No Finding"
_KERMANY = re.compile(r"(person\d+)_|((?:NORMAL2-)?IM-\d+)-")
_NIH = re.compile(r"(\d{8})_\d{3}$")


def read(
    data: Path,
    model: Model,
    *,
    vary: Vary | None = None,
    altered: Callable[[Pixels], Pixels] | None = None,
) -> Dataset | None:
    """All films below folders named after the model's labels; None where there are none.

    `altered` is done to all of them, (films, height, width), once and for all.
    """
    listed = _list_radiographs(data, model)
    if not listed:
        return None
    spec = spec_of(model)
    independent = model.activation == "sigmoid"
    each = np.array([[label in film.labels for label in model.labels] for film in listed])
    rows = each.astype(np.float32)
    if not independent:
        rows = np.stack([one_hot(int(row.argmax()), len(model.labels)) for row in each])
    held = pixels(listed, spec)
    groups = tuple(film.person for film in listed)
    known = len({group for group in groups if not group.startswith("folders:")})
    return Dataset(
        name="folders",
        labels=model.labels,
        targets=each.astype(np.int64) if independent else each.argmax(axis=1),
        groups=groups,
        splits=split_groups(groups, seed="folders"),
        load=loader(altered(held) if altered else held, rows, spec, vary),
        notes=(
            f"Folders named after labels: {len(listed)} pictures of {len(set(groups))} persons, "
            f"{known} told by their files' names, of the others each picture counted as one.",
        ),
    )


def patient_of(path: Path) -> str:
    """Who is on a film, as the published layouts name persons; else the picture itself."""
    if match := _KERMANY.match(path.name):
        return match[1] or match[2]
    if match := _NIH.match(path.stem):
        return f"nih:{int(match[1])}"
    return f"folders:{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"


def _list_radiographs(data: Path, model: Model) -> Sequence[RadiographFile]:
    meant: dict[str, tuple[str, ...]] = {_normalise_name(label): (label,) for label in model.labels}
    if model.activation == "sigmoid":
        meant[_normalise_name(NOTHING)] = ()
    places = sorted(p for p in data.rglob("*") if p.is_dir() and _normalise_name(p.name) in meant)
    return [
        RadiographFile(
            path=path, person=patient_of(path), labels=meant[_normalise_name(place.name)]
        )
        for place in places
        for path in sorted(place.iterdir())
        if path.suffix.lower() in SUFFIXES
    ]


def _normalise_name(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).lower()
