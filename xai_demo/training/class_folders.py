"""Folders named after labels, with films of any origin: where no published layout is.

Case, blanks, "-" and "_" make no difference in a folder's name; "No Finding" holds films without
any of a model's independent labels. Who is on a film is told by its name where that is one of
Kermany's or NIH's; of others every picture counts as one person's, the same picture always as one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xai_demo.training import films
from xai_demo.training.dataset import DataSet, one_hot, split_by_group
from xai_demo.training.films import Film

if TYPE_CHECKING:
    from xai_demo.records import Model, Pixels
    from xai_demo.training.films import Vary

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
) -> DataSet | None:
    """All films below folders named after the model's labels; None where there are none.

    `altered` is done to all of them, (films, height, width), once and for all.
    """
    listed = _found(data, model)
    if not listed:
        return None
    spec = films.spec_of(model)
    independent = model.activation == "sigmoid"
    each = np.array([[label in film.labels for label in model.labels] for film in listed])
    rows = each.astype(np.float32)
    if not independent:
        rows = np.stack([one_hot(int(row.argmax()), len(model.labels)) for row in each])
    held = films.pixels(listed, spec)
    groups = tuple(film.person for film in listed)
    known = len({group for group in groups if not group.startswith("folders:")})
    return DataSet(
        name="folders",
        labels=model.labels,
        targets=each.astype(np.int64) if independent else each.argmax(axis=1),
        groups=groups,
        splits=split_by_group(groups, seed="folders"),
        load=films.loader(altered(held) if altered else held, rows, spec, vary),
        notes=(
            f"Folders named after labels: {len(listed)} pictures of {len(set(groups))} persons, "
            f"{known} told by their files' names, of the others each picture counted as one.",
        ),
    )


def person(path: Path) -> str:
    """Who is on a film, as the published layouts name persons; else the picture itself."""
    if match := _KERMANY.match(path.name):
        return match[1] or match[2]
    if match := _NIH.match(path.stem):
        return f"nih:{int(match[1])}"
    return f"folders:{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"


def _found(data: Path, model: Model) -> Sequence[Film]:
    meant: dict[str, tuple[str, ...]] = {_plain(label): (label,) for label in model.labels}
    if model.activation == "sigmoid":
        meant[_plain(NOTHING)] = ()
    places = sorted(p for p in data.rglob("*") if p.is_dir() and _plain(p.name) in meant)
    return [
        Film(path=path, person=person(path), labels=meant[_plain(place.name)])
        for place in places
        for path in sorted(place.iterdir())
        if path.suffix.lower() in SUFFIXES
    ]


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).lower()
