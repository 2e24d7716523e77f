"""NIH ChestX-ray14: radiographs with fourteen independent findings, and boxes for some of them.

Wang et al. 2017. Data_Entry_2017.csv names the radiographs; its labels were mined from
radiologists' reports, and one radiograph may have several.

BBox_List_2017.csv has the boxes that radiologists drew. Its columns are Image Index, Finding Label,
x, y, w and h, in pixels of 1024 x 1024 radiographs; the header writes the last four as one field,
"Bbox [x,y,w,h]", and ends in empty fields.
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
    radiography,
    split_groups,
)
from xai_demo.training.datasets.breathing import Ledger
from xai_demo.training.datasets.radiographs import RadiographFile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xai_demo.records import Floats, Model

TABLE = "Data_Entry_2017.csv"
LISTS: dict[str, Split] = {"train_val_list.txt": "train", "test_list.txt": "test"}  # as published
NO_FINDING = "No Finding"
SEED = "nih14"
BOX_LIST = "BBox_List_2017.csv"
# Pixels of the radiographs that the boxes were drawn on.
BOX_IMAGE_SIDE = 1024.0
# What the list of boxes calls a finding.
OTHER_NAMES = {"Infiltrate": "Infiltration"}
_COLUMNS = ("Image Index", "Finding Labels", "Patient ID")
_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
# Validation is taken from the published training list, as large as if there were no lists: 15 % of
# the whole, where that list is 85 % of it.
_VALIDATION_SHARE = 0.15 / 0.85
_BOX_COLUMNS = 6
# Pixels by which rounding may carry a box over the edge.
_LEEWAY = 1.0
_MOST_NAMED = 3  # examples in one note


def find_table(data: Path) -> Path | None:
    """NIH's table of labels in or below a folder; None where there is none."""
    return next(iter(sorted(data.rglob(TABLE))), None)


def list_radiographs(data: Path) -> tuple[list[RadiographFile], tuple[str, ...]]:
    """Every radiograph with a row, labelled by its findings or "No Finding", and the notes.

    Raises TrainingError where there is no table, or it lacks NIH's columns, names an unknown
    finding, has a Patient ID that is not a number, or matches no radiograph.
    """
    path = find_table(data)
    if path is None:
        raise TrainingError(
            f"{data} contains no {TABLE}; NIH's labels must lie beside its radiographs."
        )
    # By stem: a radiograph that was saved in another format still has its row.
    image_of = {p.stem: p for p in path.parent.rglob("*") if p.suffix.lower() in _IMAGE_SUFFIXES}
    ledger = Ledger("NIH ChestX-ray14")
    files = []
    for number, row in _rows(path):
        labels = _findings(row["Finding Labels"], path.name, number)
        patient = (row["Patient ID"] or "").strip()
        if not patient.isdecimal():
            raise TrainingError(
                f"{path.name}, line {number}: the Patient ID is {patient!r}; it must be a number."
            )
        # Popped, so that the radiographs without a row are left at the end.
        image = image_of.pop(Path(row["Image Index"] or "").stem, None)
        if image is None:
            ledger.add("rows without a radiograph, left out", row["Image Index"] or "(no name)")
            continue
        # A number, because only file names write it with leading zeros.
        files.append(RadiographFile(path=image, patient=f"nih:{int(patient)}", labels=labels))
    if not files:
        raise TrainingError(
            f"{path.name} names no radiograph that lies in {path.parent}; at least one is needed. "
            + " ".join(ledger.notes())
        )
    for name in sorted(p.name for p in image_of.values()):
        ledger.add("radiographs without a row, left out", name)
    return files, ledger.notes()


def published_parts(data: Path) -> dict[str, Split]:
    """The published split of every radiograph, by file name without suffix; {} without the lists.

    Raises TrainingError where a patient is in both lists, or only one of the lists is there.
    """
    path = find_table(data)
    lists = {name: path.parent / name for name in LISTS} if path else {}
    there = [name for name, at in lists.items() if at.is_file()]
    if not there:
        return {}
    if len(there) < len(LISTS):
        missing = next(name for name in LISTS if name not in there)
        raise TrainingError(
            f"{there[0]} is present but {missing} is missing; both or neither are needed."
        )
    parts: dict[str, Split] = {}
    part_of: dict[str, str] = {}
    for name, at in lists.items():
        for number, line in enumerate(at.read_text(encoding="utf-8-sig").splitlines(), start=1):
            stem = Path(line.strip()).stem
            if not stem:
                continue
            # The lists hold nothing but file names.
            patient = patient_of(stem)
            if part_of.setdefault(patient, name) != name:
                raise TrainingError(
                    f"{name}, line {number}: patient {patient} ({line.strip()}) is also in "
                    f"{part_of[patient]}; every patient must be in one of the two lists."
                )
            parts[stem] = LISTS[name]
    return parts


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str | None]]]:
    """Line numbers and rows; raises TrainingError where the file is not such a table."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = csv.DictReader(text.splitlines())
        names = rows.fieldnames or ()
        missing = [column for column in _COLUMNS if column not in names]
        if missing:
            raise TrainingError(
                f"{path.name} has the columns {', '.join(names) or 'none'}; it also needs "
                f"{', '.join(missing)}."
            )
        for row in rows:
            yield rows.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrainingError(
            f"{path.name} cannot be read ({type(error).__name__}); it must be a CSV file in UTF-8."
        ) from error


def _findings(text: str | None, name: str, number: int) -> tuple[str, ...]:
    labels = tuple(part.strip() for part in (text or "").split("|"))
    unknown = [label for label in labels if label not in (*NIH_FINDINGS, NO_FINDING)]
    if unknown:
        raise TrainingError(
            f"{name}, line {number}: {unknown[0]!r} is not one of NIH's findings; expected is "
            f"{NO_FINDING} or {', '.join(NIH_FINDINGS)}, joined by '|'."
        )
    return labels


def read(data: Path, model: Model) -> Dataset:
    """Read all radiographs with a row, split 70/15/15 by patient, stratified by finding.

    Where the published lists lie beside the table, they define the test split. Where the COVID-19
    Radiography Database is in `data` as well, its normal films are added as films without findings,
    in splits of their own. Where there is no table, radiographs are read from folders named after
    findings. Raises TrainingError where there is neither.
    """
    if find_table(data) is None:
        other = radiographs.read(data, model, augmentation=_augment)
        if other is not None:
            return other
    spec = radiographs.spec_of(model)
    listed, notes = list_radiographs(data)
    own = label_matrix(listed, model)
    splits = _splits(listed, tuple(file.patient for file in listed), own, published_parts(data))
    normal = [f for f in radiography.list_radiographs(data) if f.labels == (radiography.NORMAL,)]
    listed += normal
    groups = tuple(file.patient for file in listed)
    targets = np.vstack([own, np.zeros((len(normal), len(model.labels)), np.int64)])
    return Dataset(
        name="nih14",
        labels=model.labels,
        targets=targets,
        groups=groups,
        splits=splits + radiography.splits_of([file.patient for file in normal]),
        load=radiographs.loader(
            radiographs.pixels(listed, spec), targets.astype(np.float32), spec, _augment
        ),
        notes=notes,
    )


def label_matrix(listed: list[RadiographFile], model: Model) -> NDArray[np.int64]:
    """Which of the model's labels each radiograph has: (radiographs, labels), 0 or 1."""
    return np.array([[int(label in file.labels) for label in model.labels] for file in listed])


def _splits(
    listed: list[RadiographFile],
    groups: tuple[str, ...],
    targets: NDArray[np.int64],
    published: dict[str, Split],
) -> tuple[Split, ...]:
    if not published:
        return split_groups(groups, targets=targets, seed=SEED)
    # Radiographs in neither list are trained on, which leaves the test split as published.
    parts = [published.get(file.path.stem, "train") for file in listed]
    development = [i for i, part in enumerate(parts) if part != "test"]
    # The published lists know no validation split, so the rest is divided anew.
    shares = (1 - _VALIDATION_SHARE, _VALIDATION_SHARE)
    is_validation = assign_parts(
        [groups[i] for i in development], targets[development], shares, seed=SEED
    )
    for i, in_validation in zip(development, is_validation, strict=True):
        parts[i] = "validation" if in_validation else "train"
    return tuple(parts)


def _augment(image: Floats, rng: np.random.Generator) -> Floats:
    return augmentation.augment_radiograph(image, rng, augmentation.NIH14)


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """One finding on one radiograph, in fractions of its width and height."""

    finding: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxedRadiograph:
    """One radiograph and all boxes on it."""

    path: Path
    # NIH's number of the patient, without leading zeros.
    patient: str
    boxes: tuple[Box, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxList:
    """The radiographs with boxes, and notes on the rows left out."""

    radiographs: tuple[BoxedRadiograph, ...]
    notes: tuple[str, ...]


def find_box_list(data: Path) -> Path | None:
    """The list of boxes in or below a folder; None where there is none."""
    return next(iter(sorted(data.rglob(BOX_LIST))), None)


def read_boxes(path: Path, data: Path) -> BoxList:
    """Read every box whose radiograph lies in `data`; the notes name the rows left out.

    Raises TrainingError where the file is not such a list or none of its rows can be used.
    """
    image_of = {p.stem: p for p in sorted(data.rglob("*")) if p.suffix.lower() in _IMAGE_SUFFIXES}
    faults: dict[str, list[str]] = {}
    kept: dict[str, list[Box]] = {}
    for number, row in _box_rows(path):
        fault, value = "", ""
        try:
            stem, box = Path(row[0]).stem, _parse_box(row)
        except ValueError as error:
            # `_parse_box` raises with exactly these two.
            fault, value = error.args
        else:
            if stem not in image_of:
                fault, value = "without a radiograph", row[0]
        if fault:
            faults.setdefault(fault, []).append(f"line {number} ({value})")
        else:
            kept.setdefault(stem, []).append(box)
    notes = tuple(f"{path.name}: {_fault_note(fault, rows)}" for fault, rows in faults.items())
    if not kept:
        problem = " ".join(notes) or f"{path.name} has no rows."
        raise TrainingError(f"{problem} At least one box on a radiograph in {data} is needed.")
    return BoxList(
        radiographs=tuple(
            BoxedRadiograph(path=image_of[stem], patient=patient_of(stem), boxes=tuple(boxes))
            for stem, boxes in kept.items()
        ),
        notes=notes,
    )


def patient_of(stem: str) -> str:
    """The patient's number in the file name of a radiograph.

    >>> patient_of("00013118_008")
    '13118'
    """
    first = stem.split("_")[0]
    return str(int(first)) if first.isdecimal() else first


def _box_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and fields of every row that is not blank."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(
            f"{path.name} cannot be read as text ({type(error).__name__}); it must be a CSV file."
        ) from error
    lines = csv.reader(text.splitlines())
    try:
        header = [field.strip() for field in next(lines, [])]
        # Padded, so that a shorter header is reported like any other wrong one.
        names = [*header, "", "", ""][:3]
        # The third field by its beginning only: as published, without quotes, the commas in "Bbox
        # [x,y,w,h]" split it into four.
        has_names = names[:2] == ["Image Index", "Finding Label"] and names[2].startswith("Bbox")
        if not has_names or len(header) < _BOX_COLUMNS:
            raise TrainingError(
                f"{path.name} has the columns {', '.join(filter(None, header)) or 'none'}; "
                "expected are Image Index, Finding Label, Bbox [x,y,w,h]."
            )
        for row in lines:
            if any(field.strip() for field in row):
                yield lines.line_num, [field.strip() for field in row]
    except csv.Error as error:
        raise TrainingError(
            f"{path.name}, line {lines.line_num}, is not valid CSV ({error})."
        ) from error


def _parse_box(row: list[str]) -> Box:
    """The box in a row; raises ValueError(fault, value) for a row that cannot be used."""
    if len(row) < _BOX_COLUMNS:
        raise ValueError("with fewer than six fields, left out", ", ".join(row))
    finding = OTHER_NAMES.get(row[1], row[1])
    if finding not in NIH_FINDINGS:
        raise ValueError("of an unknown finding, left out", row[1])
    numbers = ", ".join(row[2:_BOX_COLUMNS])
    try:
        x, y, width, height = (float(text) for text in row[2:_BOX_COLUMNS])
    except ValueError:
        raise ValueError("whose position is not four numbers, left out", numbers) from None
    # float() accepts "nan", which no comparison below would catch.
    if not all(map(math.isfinite, (x, y, width, height))):
        raise ValueError("whose position is not four numbers, left out", numbers)
    far = BOX_IMAGE_SIDE + _LEEWAY
    if min(x, y) < -_LEEWAY or min(width, height) <= 0 or x + width > far or y + height > far:
        raise ValueError("outside the 1024 x 1024 pixels, left out", numbers)
    return Box(
        finding=finding,
        x=x / BOX_IMAGE_SIDE,
        y=y / BOX_IMAGE_SIDE,
        width=width / BOX_IMAGE_SIDE,
        height=height / BOX_IMAGE_SIDE,
    )


def _fault_note(fault: str, rows: list[str]) -> str:
    more = f" and {len(rows) - _MOST_NAMED} more" if len(rows) > _MOST_NAMED else ""
    return f"{len(rows)} boxes {fault}: {'; '.join(rows[:_MOST_NAMED])}{more}."
