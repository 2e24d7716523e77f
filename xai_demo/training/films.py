"""Radiographs in memory, whatever their data set's layout was, and how they are varied."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xai_demo import imaging
from xai_demo.errors import TrainingError
from xai_demo.imaging import preprocess
from xai_demo.records import Model, Raster

if TYPE_CHECKING:
    from xai_demo.records import Floats, Pixels

    Vary = Callable[[Floats, np.random.Generator], Floats]

_MOST_PIXELS = 100_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """One radiograph of one person."""

    path: Path
    person: str  # unique over the data sets: "kermany:person12"
    labels: tuple[str, ...]  # what a data set says of it; empty: none of the model's


def spec_of(model: Model) -> Raster:
    """How pictures are made ready for a model; raises TrainingError where it takes sounds."""
    if not isinstance(model.preprocessing, Raster):
        raise TrainingError(f"{model.name} takes sounds, wanted: a model that takes pictures.")
    return model.preprocessing


def pixels(films: Sequence[Film], spec: Raster) -> Pixels:
    """All of them at the network's size: (films, height, width)."""
    return np.stack([_pixels(film.path, spec) for film in films])


def loader(
    held: Pixels, targets: Floats, spec: Raster, vary: Vary | None = None
) -> Callable[[int, np.random.Generator | None], tuple[Floats, Floats]]:
    """What a data set loads: a picture, varied if there is an rng, and its row of `targets`."""
    change = vary or varied

    def load(i: int, rng: np.random.Generator | None) -> tuple[Floats, Floats]:
        picture = held[i].astype(np.float32) / 255
        if rng is not None:
            picture = change(picture, rng)
        return preprocess.network_input(picture, spec), targets[i]

    return load


def varied(picture: Floats, rng: np.random.Generator) -> Floats:
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
