"""NIH ChestX-ray14 in its published layout: Data_Entry_2017.csv and the pictures it names.

Wang et al. 2017. The labels were mined from radiologists' reports; one picture has several.

Fourteen findings on one radiograph, each by itself: NIH ChestX-ray14 to learn from.

NIH's `BBox_List_2017.csv`: where radiologists saw a finding (Wang et al. 2017).

Columns are Image Index, Finding Label, x, y, w and h, in pixels of pictures of 1024 x 1024, whose
header writes the last four as one field, "Bbox [x,y,w,h]", and ends in blanks.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xai_demo.catalog.hub_models import NIH_FINDINGS
from xai_demo.errors import TrainingError
from xai_demo.training import augmentation
from xai_demo.training.datasets import (
    Dataset,
    Split,
    assign_parts,
    radiographs,
    split_stratified,
)
from xai_demo.training.datasets.breathing import Ledger
from xai_demo.training.datasets.radiographs import RadiographFile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xai_demo.records import Floats, Model

TABLE = "Data_Entry_2017.csv"
LISTS: dict[str, Split] = {"train_val_list.txt": "train", "test_list.txt": "test"}  # as published
NO_FINDING = "No Finding"
_COLUMNS = ("Image Index", "Finding Labels", "Patient ID")


def find_table(data: Path) -> Path | None:
    """Where the labels are, at or below a folder; None where they are not."""
    return next(iter(sorted(data.rglob(TABLE))), None)


def list_radiographs(data: Path) -> tuple[list[RadiographFile], tuple[str, ...]]:
    """Every picture with a row, labelled by its findings or "No Finding"; and what was left out.

    Raises TrainingError for a table without NIH's columns, for a finding that NIH has not, for a
    patient whose number is none, and where no picture has a row.
    """
    path = find_table(data)
    if path is None:
        raise TrainingError(f"{data} holds no {TABLE}, wanted: NIH's labels beside its pictures.")
    pictures = {
        p.stem: p for p in path.parent.rglob("*") if p.suffix.lower() in {".png", ".jpg", ".jpeg"}
    }
    ledger = Ledger("NIH ChestX-ray14")
    films = []
    for number, row in _rows(path):
        labels = _findings(row["Finding Labels"], path.name, number)
        patient = (row["Patient ID"] or "").strip()
        if not patient.isdecimal():
            raise TrainingError(
                f"{path.name}, line {number}: the Patient ID is {patient!r}, wanted: a number."
            )
        picture = pictures.pop(Path(row["Image Index"] or "").stem, None)
        if picture is None:
            ledger.add("rows without a picture, left out", row["Image Index"] or "(no name)")
            continue
        films.append(RadiographFile(path=picture, person=f"nih:{int(patient)}", labels=labels))
    if not films:
        raise TrainingError(
            f"{path.name} names no picture that is below {path.parent}, wanted: at least one. "
            + " ".join(ledger.notes())
        )
    for name in sorted(p.name for p in pictures.values()):
        ledger.add("pictures without a row, left out", name)
    return films, ledger.notes()


def published_parts(data: Path) -> dict[str, Split]:
    """The published part of every picture, by its name without ending; {} without the lists.

    Raises TrainingError where a patient is in both lists, or one list is there alone.
    """
    path = find_table(data)
    lists = {name: path.parent / name for name in LISTS} if path else {}
    there = [name for name, at in lists.items() if at.is_file()]
    if not there:
        return {}
    if len(there) < len(LISTS):
        missing = next(name for name in LISTS if name not in there)
        raise TrainingError(f"{there[0]} is there without {missing}, wanted: both, or neither.")
    parts: dict[str, Split] = {}
    part_of: dict[str, str] = {}
    for name, at in lists.items():
        for number, line in enumerate(at.read_text(encoding="utf-8-sig").splitlines(), start=1):
            stem = Path(line.strip()).stem
            if not stem:
                continue
            patient = patient_of(stem)
            if part_of.setdefault(patient, name) != name:
                raise TrainingError(
                    f"{name}, line {number}: patient {patient} ({line.strip()}) is in "
                    f"{part_of[patient]} as well, wanted: every patient in one of the two."
                )
            parts[stem] = LISTS[name]
    return parts


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str | None]]]:
    """Line numbers and rows; raises TrainingError where the file is no such table."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = csv.DictReader(text.splitlines())
        names = rows.fieldnames or ()
        missing = [column for column in _COLUMNS if column not in names]
        if missing:
            raise TrainingError(
                f"{path.name} has the columns {', '.join(names) or 'none'}, "
                f"wanted: {', '.join(missing)} as well."
            )
        for row in rows:
            yield rows.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrainingError(
            f"{path.name} cannot be read ({type(error).__name__}), wanted: a CSV file in UTF-8."
        ) from error


def _findings(text: str | None, name: str, number: int) -> tuple[str, ...]:
    labels = tuple(part.strip() for part in (text or "").split("|"))
    unknown = [label for label in labels if label not in (*NIH_FINDINGS, NO_FINDING)]
    if unknown:
        raise TrainingError(
            f"{name}, line {number}: {unknown[0]!r} is no finding of NIH's, wanted: "
            f"{NO_FINDING} or {', '.join(NIH_FINDINGS)}, joined by '|'."
        )
    return labels


SEED = "nih14"
_TUNED_ON = 0.15 / 0.85  # of the published training part, so that validation is as usual


def read(data: Path, model: Model) -> Dataset:
    """All pictures with a row, 70/15/15 by patient, stratified by finding.

    Where the published lists lie beside the table, the test part is theirs; where there is no
    table, films are taken from folders named after findings. Raises TrainingError where there is no
    such data.
    """
    if find_table(data) is None:
        other = radiographs.read(data, model, vary=_augment)
        if other is not None:
            return other
    spec = radiographs.spec_of(model)
    listed, notes = list_radiographs(data)
    targets = label_matrix(listed, model)
    groups = tuple(film.person for film in listed)
    return Dataset(
        name="nih14",
        labels=model.labels,
        targets=targets,
        groups=groups,
        splits=_splits(listed, groups, targets, published_parts(data)),
        load=radiographs.loader(
            radiographs.pixels(listed, spec), targets.astype(np.float32), spec, _augment
        ),
        notes=notes,
    )


def label_matrix(listed: list[RadiographFile], model: Model) -> NDArray[np.int64]:
    """Which of the model's labels each film has: (films, labels), 0 or 1."""
    return np.array([[int(label in film.labels) for label in model.labels] for film in listed])


def _splits(
    listed: list[RadiographFile],
    groups: tuple[str, ...],
    targets: NDArray[np.int64],
    published: dict[str, Split],
) -> tuple[Split, ...]:
    if not published:
        return split_stratified(groups, targets, seed=SEED)
    parts = [published.get(film.path.stem, "train") for film in listed]
    learnt = [i for i, part in enumerate(parts) if part != "test"]
    shares = (1 - _TUNED_ON, _TUNED_ON)
    tuned = assign_parts([groups[i] for i in learnt], targets[learnt], shares, seed=SEED)
    for i, is_tuned in zip(learnt, tuned, strict=True):
        parts[i] = "validation" if is_tuned else "train"
    return tuple(parts)


def _augment(picture: Floats, rng: np.random.Generator) -> Floats:
    return augmentation.varied(picture, rng, augmentation.NIH14)


FILE = "BBox_List_2017.csv"
SIDE = 1024.0  # of the pictures that the boxes were drawn on
OTHER_NAMES = {"Infiltrate": "Infiltration"}  # the list's own name for it
_PICTURES = (".png", ".jpg", ".jpeg")
_BOX_COLUMNS = 6
_LEEWAY = 1.0  # pixels by which rounding may carry a box over the edge
_MOST_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """One finding on one picture, in fractions of its width and height."""

    finding: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxedRadiograph:
    """One picture and all boxes on it."""

    path: Path
    patient: str  # NIH's number of the person, without leading zeros
    boxes: tuple[Box, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxList:
    """What was read, and in words which rows were not."""

    pictures: tuple[BoxedRadiograph, ...]
    notes: tuple[str, ...]


def find_box_list(data: Path) -> Path | None:
    """The list of boxes in or below a folder."""
    return next(iter(sorted(data.rglob(FILE))), None)


def read_boxes(path: Path, data: Path) -> BoxList:
    """Every box whose picture lies below `data`; rows that will not do are named in the notes.

    Raises TrainingError where the file is no such list or no row of it can be used.
    """
    pictures = {p.stem: p for p in sorted(data.rglob("*")) if p.suffix.lower() in _PICTURES}
    faults: dict[str, list[str]] = {}
    kept: dict[str, list[Box]] = {}
    for number, row in _box_rows(path):
        fault, value = "", ""
        try:
            stem, box = Path(row[0]).stem, _parse_box(row)
        except ValueError as error:
            fault, value = error.args
        else:
            if stem not in pictures:
                fault, value = "without a picture", row[0]
        if fault:
            faults.setdefault(fault, []).append(f"line {number} ({value})")
        else:
            kept.setdefault(stem, []).append(box)
    notes = tuple(f"{path.name}: {_fault_note(fault, named)}" for fault, named in faults.items())
    if not kept:
        what = " ".join(notes) or f"{path.name} has no rows."
        raise TrainingError(f"{what} Wanted: at least one box on a picture below {data}.")
    return BoxList(
        pictures=tuple(
            BoxedRadiograph(path=pictures[stem], patient=patient_of(stem), boxes=tuple(boxes))
            for stem, boxes in kept.items()
        ),
        notes=notes,
    )


def patient_of(stem: str) -> str:
    """The person in a picture's name: "00013118_008" -> "13118"."""
    first = stem.split("_")[0]
    return str(int(first)) if first.isdecimal() else first


def _box_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and the fields of every row that is not blank."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(
            f"{path.name} cannot be read as text ({type(error).__name__}), wanted: a CSV file."
        ) from error
    lines = csv.reader(text.splitlines())
    try:
        header = [field.strip() for field in next(lines, [])]
        names = [*header, "", "", ""][:3]
        right = names[:2] == ["Image Index", "Finding Label"] and names[2].startswith("Bbox")
        if not right or len(header) < _BOX_COLUMNS:
            raise TrainingError(
                f"{path.name} has the columns {', '.join(filter(None, header)) or 'none'}, wanted: "
                "Image Index, Finding Label, Bbox [x,y,w,h]."
            )
        for row in lines:
            if any(field.strip() for field in row):
                yield lines.line_num, [field.strip() for field in row]
    except csv.Error as error:
        raise TrainingError(
            f"{path.name} line {lines.line_num} is no CSV ({error}), wanted: a row of it."
        ) from error


def _parse_box(row: list[str]) -> Box:
    """Raises ValueError of what is wrong and the value met."""
    if len(row) < _BOX_COLUMNS:
        raise ValueError("of fewer than six fields, left out", ", ".join(row))
    finding = OTHER_NAMES.get(row[1], row[1])
    if finding not in NIH_FINDINGS:
        raise ValueError("of an unknown finding, left out", row[1])
    numbers = ", ".join(row[2:_BOX_COLUMNS])
    try:
        x, y, width, height = (float(text) for text in row[2:_BOX_COLUMNS])
    except ValueError:
        raise ValueError("that are not four numbers, left out", numbers) from None
    if not all(map(math.isfinite, (x, y, width, height))):
        raise ValueError("that are not four numbers, left out", numbers)
    far = SIDE + _LEEWAY
    if min(x, y) < -_LEEWAY or min(width, height) <= 0 or x + width > far or y + height > far:
        raise ValueError("that do not lie in 1024 x 1024 pixels, left out", numbers)
    return Box(finding=finding, x=x / SIDE, y=y / SIDE, width=width / SIDE, height=height / SIDE)


def _fault_note(what: str, named: list[str]) -> str:
    more = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
    return f"{len(named)} boxes {what}: {'; '.join(named[:_MOST_NAMED])}{more}."
