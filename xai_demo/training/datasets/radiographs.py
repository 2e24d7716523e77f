"""Radiographs in memory, their augmentation, and folders named after labels.

Where there is no published layout, radiographs of any origin are read from folders named after a
model's labels. Case, spaces, "-" and "_" in a folder's name are ignored; "No Finding" holds
radiographs without any of a model's independent labels. The patient is taken from file names of
Kermany's and NIH's datasets; any other file counts as a patient of its own, and identical files
as the same one.
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
from xai_demo.errors import TrainingError, UnreadableFileError
from xai_demo.files import display_name
from xai_demo.imaging import preprocess
from xai_demo.records import Model, Raster
from xai_demo.training.datasets import OWN_FILES, Dataset, one_hot, split_groups

if TYPE_CHECKING:
    from xai_demo.records import Floats, Pixels

    Augment = Callable[[Floats, np.random.Generator], Floats]

SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".dcm", ".dicom"}
NO_FINDING = "No Finding"
# As in `kermany`, which cannot be imported here because it imports this module.
_KERMANY = re.compile(r"(person\d+)_|((?:NORMAL2-)?IM-\d+)-")
_NIH = re.compile(r"(\d{8})_\d{3}$")
# What a deployment allows by default: see `Settings.max_pixels`.
_MAX_PIXELS = 100_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RadiographFile:
    """One radiograph of one patient."""

    path: Path
    # Unique across datasets: "kermany:person12"
    patient: str
    # As given by the dataset; (): none of the model's labels.
    labels: tuple[str, ...]


def spec_of(model: Model) -> Raster:
    """The model's preprocessing of radiographs; raises TrainingError for a model of sounds."""
    if not isinstance(model.preprocessing, Raster):
        raise TrainingError(
            f"{model.name} analyses sounds; a model that analyses radiographs is needed."
        )
    return model.preprocessing


def pixels(files: Sequence[RadiographFile], spec: Raster) -> Pixels:
    """All radiographs at the network's input size: (files, height, width)."""
    return np.stack([_pixels(file.path, spec) for file in files])


def loader(
    images: Pixels, targets: Floats, spec: Raster, augmentation: Augment | None = None
) -> Callable[[int, np.random.Generator | None], tuple[Floats, Floats]]:
    """The `load` of a `Dataset`: an image, augmented if there is an rng, and its row of `targets`.

    `images` are (radiographs, height, width), 0..255; `augmentation` defaults to `augment`.
    """
    augmented = augmentation or augment

    def load(i: int, rng: np.random.Generator | None) -> tuple[Floats, Floats]:
        image = images[i].astype(np.float32) / 255
        if rng is not None:
            image = augmented(image, rng)
        return preprocess.network_input(image, spec), targets[i]

    return load


def augment(image: Floats, rng: np.random.Generator) -> Floats:
    """A slightly rotated, shifted, scaled and brightened image; half of them are mirrored."""
    import cv2

    if rng.random() < 0.5:
        image = image[:, ::-1]
    # An affine map that keeps the centre where it is, plus the shift. Rows come before columns
    # here, unlike in OpenCV: it makes no difference as long as inputs are square.
    angle = np.deg2rad(rng.uniform(-10, 10))
    scale = rng.uniform(0.88, 1.12, size=2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * scale
    centre = np.array(image.shape) / 2
    shift = rng.uniform(-0.06, 0.06, size=2) * image.shape
    matrix = np.column_stack([turn, centre - turn @ centre + shift])
    # A mirrored array has negative strides, which OpenCV does not accept.
    moved = cv2.warpAffine(np.ascontiguousarray(image), matrix, image.shape[::-1])
    # Exposure (gamma), contrast and brightness, then grain.
    moved = np.clip(moved, 0, 1) ** np.float32(np.exp(rng.uniform(-0.25, 0.25)))
    changed = moved * np.float32(rng.uniform(0.8, 1.2)) + np.float32(rng.uniform(-0.1, 0.1))
    grain = rng.standard_normal(changed.shape, dtype=np.float32) * np.float32(rng.uniform(0, 0.02))
    result: Floats = np.clip(changed + grain, 0, 1)
    return result


def _pixels(path: Path, spec: Raster) -> Pixels:
    radiograph = imaging.read_image(path, max_pixels=_MAX_PIXELS)
    image = preprocess.resize_for_network(radiograph.pixels, spec)
    # As bytes: all radiographs are held in memory, where float32 would take four times as much.
    return np.round(image * 255).astype(np.uint8)


def read(
    data: Path,
    model: Model,
    *,
    augmentation: Augment | None = None,
    preprocess_all: Callable[[Pixels], Pixels] | None = None,
) -> Dataset | None:
    """All radiographs in folders named after the model's labels; None where there are none.

    `preprocess_all` is applied once to all images, (radiographs, height, width).
    """
    listed, others = _list_radiographs(data, model)
    if not listed:
        return None
    spec = spec_of(model)
    listed, images, refusals = _read_all(listed, spec)
    independent = model.activation == "sigmoid"
    # (radiographs, labels); of exclusive labels, exactly one is true in each row.
    each = np.array([[label in file.labels for label in model.labels] for file in listed])
    rows = each.astype(np.float32)
    if not independent:
        rows = np.stack([one_hot(int(row.argmax()), len(model.labels)) for row in each])
    groups = tuple(file.patient for file in listed)
    identified = len({group for group in groups if not group.startswith(OWN_FILES)})
    no_images = f" Left out, no image by their names: {_sample(others)}." if others else ""
    return Dataset(
        name="folders",
        labels=model.labels,
        targets=each.astype(np.int64) if independent else each.argmax(axis=1),
        groups=groups,
        splits=split_groups(groups, seed="folders"),
        load=loader(preprocess_all(images) if preprocess_all else images, rows, spec, augmentation),
        notes=(
            f"Folders named after labels: {len(listed)} radiographs of {len(set(groups))} "
            f"patients; {identified} are identified by file names, every other file counts as "
            f"one patient.{no_images}",
            *([f"Left out, unreadable: {_sample(refusals)}."] if refusals else []),
        ),
    )


def patient_of(path: Path) -> str:
    """The patient in a file name of Kermany's or NIH's; otherwise a hash of the file's content.

    >>> patient_of(Path("00013118_008.png"))
    'nih:13118'
    """
    if match := _KERMANY.match(path.name):
        return match[1] or match[2]
    if match := _NIH.match(path.stem):
        return f"nih:{int(match[1])}"
    # The content and not the path: copies of a file must not get into two splits.
    return f"{OWN_FILES}{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"


def _read_all(
    listed: Sequence[RadiographFile], spec: Raster
) -> tuple[list[RadiographFile], Pixels, list[str]]:
    """The files that can be read, their images, and what is said of the others."""
    kept, images, refusals = list[RadiographFile](), list["Pixels"](), list[str]()
    for file in listed:
        try:
            images.append(_pixels(file.path, spec))
            kept.append(file)
        except UnreadableFileError as error:
            refusals.append(str(error).rstrip("."))
    if not kept:
        raise TrainingError(f"None of {len(listed)} radiographs can be read: {refusals[0]}.")
    return kept, np.stack(images), refusals


def _sample(texts: Sequence[str]) -> str:
    """How many there are, and the first five.

    >>> _sample(["a.txt", "b.txt"])
    '2 (a.txt; b.txt)'
    """
    more = f"; and {len(texts) - 5} more" if len(texts) > 5 else ""
    return f"{len(texts)} ({'; '.join(texts[:5])}{more})"


def _list_radiographs(data: Path, model: Model) -> tuple[list[RadiographFile], list[str]]:
    """The images in folders named after labels, and the names of the other files there."""
    labels_of: dict[str, tuple[str, ...]] = {
        _normalise_name(label): (label,) for label in model.labels
    }
    if model.activation == "sigmoid":
        labels_of[_normalise_name(NO_FINDING)] = ()
    places = sorted(
        p for p in data.rglob("*") if p.is_dir() and _normalise_name(p.name) in labels_of
    )
    listed, others = list[RadiographFile](), list[str]()
    for place in places:
        labels = labels_of[_normalise_name(place.name)]
        for path in sorted(each for each in place.iterdir() if each.is_file()):
            if path.suffix.lower() not in SUFFIXES:
                others.append(display_name(path))
                continue
            listed.append(RadiographFile(path=path, patient=patient_of(path), labels=labels))
    return listed, others


def _normalise_name(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).lower()
