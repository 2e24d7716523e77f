"""Paediatric chest X-rays in their published layout: {train,val,test}/{NORMAL,PNEUMONIA}/*.jpeg."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xai_demo import image, raster
from xai_demo.errors import TrainingError
from xai_demo.records import Model, Raster
from xai_demo.training.dataset import DataSet, one_hot, split_by_group

if TYPE_CHECKING:
    from xai_demo.records import Floats

_FOLDERS = {"NORMAL": 0, "PNEUMONIA": 1}
_PERSON = re.compile(r"(person\d+)_|((?:NORMAL2-)?IM-\d+)-")


def read(data: Path, model: Model) -> DataSet:
    """All pictures below `data`, regrouped by person; raises TrainingError where there are none."""
    spec = model.preprocessing
    if not isinstance(spec, Raster):
        raise TrainingError(f"{model.name} takes sounds, wanted: a model that takes pictures.")
    files = sorted(p for p in data.rglob("*.jp*g") if p.parent.name in _FOLDERS)
    if not files:
        raise TrainingError(
            f"{data} holds no pictures, wanted: NORMAL/*.jpeg and PNEUMONIA/*.jpeg in it."
        )
    pixels = np.stack([_pixels(path, spec) for path in files])
    targets = np.array([_FOLDERS[p.parent.name] for p in files])
    groups = tuple(person(p.name) for p in files)

    def load(i: int, rng: np.random.Generator | None) -> tuple[Floats, Floats]:
        picture = pixels[i].astype(np.float32) / 255
        if rng is not None:
            picture = _varied(picture, rng)
        return raster.network_input(picture, spec), one_hot(int(targets[i]), len(model.labels))

    return DataSet(
        name="kermany",
        labels=model.labels,
        targets=targets,
        groups=groups,
        splits=split_by_group(groups, seed="kermany"),
        load=load,
    )


def person(file_name: str) -> str:
    """Who is in the picture, by its published file name; raises TrainingError for others."""
    match = _PERSON.match(file_name)
    if not match:
        raise TrainingError(
            f"{file_name} names no person, wanted: person<N>_..., IM-<N>-... or NORMAL2-IM-<N>-..."
        )
    return match.group(1) or match.group(2)


def _pixels(path: Path, spec: Raster) -> np.ndarray:
    picture = raster.framed(image.read_image(path, max_pixels=100_000_000).pixels, spec)
    return np.round(picture * 255).astype(np.uint8)


def _varied(picture: Floats, rng: np.random.Generator) -> Floats:
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
    varied = moved * np.float32(rng.uniform(0.8, 1.2)) + np.float32(rng.uniform(-0.1, 0.1))
    grain = rng.standard_normal(varied.shape, dtype=np.float32) * np.float32(rng.uniform(0, 0.02))
    result: Floats = np.clip(varied + grain, 0, 1)
    return result
