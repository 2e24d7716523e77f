"""NIH's `BBox_List_2017.csv`: where radiologists saw a finding (Wang et al. 2017).

Columns are Image Index, Finding Label, x, y, w and h, in pixels of pictures of 1024 x 1024, whose
header writes the last four as one field, "Bbox [x,y,w,h]", and ends in blanks.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from xai_demo.errors import TrainingError

FILE = "BBox_List_2017.csv"
SIDE = 1024.0  # of the pictures that the boxes were drawn on
FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis",
    "Hernia", "Infiltration", "Mass", "Nodule", "Pleural_Thickening", "Pneumonia", "Pneumothorax",
)  # fmt: skip
OTHER_NAMES = {"Infiltrate": "Infiltration"}  # the list's own name for it
_PICTURES = (".png", ".jpg", ".jpeg")
_COLUMNS = 6
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
class Boxed:
    """One picture and all boxes on it."""

    path: Path
    patient: str  # NIH's number of the person, without leading zeros
    boxes: tuple[Box, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxList:
    """What was read, and in words which rows were not."""

    pictures: tuple[Boxed, ...]
    notes: tuple[str, ...]


def found(data: Path) -> Path | None:
    """The list of boxes in or below a folder."""
    return next(iter(sorted(data.rglob(FILE))), None)


def read(path: Path, data: Path) -> BoxList:
    """Every box whose picture lies below `data`; rows that will not do are named in the notes.

    Raises TrainingError where the file is no such list or no row of it can be used.
    """
    pictures = {p.stem: p for p in sorted(data.rglob("*")) if p.suffix.lower() in _PICTURES}
    faults: dict[str, list[str]] = {}
    kept: dict[str, list[Box]] = {}
    for number, row in _rows(path):
        fault, value = "", ""
        try:
            stem, box = Path(row[0]).stem, _box(row)
        except ValueError as error:
            fault, value = error.args
        else:
            if stem not in pictures:
                fault, value = "without a picture", row[0]
        if fault:
            faults.setdefault(fault, []).append(f"line {number} ({value})")
        else:
            kept.setdefault(stem, []).append(box)
    notes = tuple(f"{path.name}: {_counted(fault, named)}" for fault, named in faults.items())
    if not kept:
        what = " ".join(notes) or f"{path.name} has no rows."
        raise TrainingError(f"{what} Wanted: at least one box on a picture below {data}.")
    return BoxList(
        pictures=tuple(
            Boxed(path=pictures[stem], patient=patient_of(stem), boxes=tuple(boxes))
            for stem, boxes in kept.items()
        ),
        notes=notes,
    )


def patient_of(stem: str) -> str:
    """The person in a picture's name: "00013118_008" -> "13118"."""
    first = stem.split("_")[0]
    return str(int(first)) if first.isdecimal() else first


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
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
        if not right or len(header) < _COLUMNS:
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


def _box(row: list[str]) -> Box:
    """Raises ValueError of what is wrong and the value met."""
    if len(row) < _COLUMNS:
        raise ValueError("of fewer than six fields, left out", ", ".join(row))
    finding = OTHER_NAMES.get(row[1], row[1])
    if finding not in FINDINGS:
        raise ValueError("of an unknown finding, left out", row[1])
    numbers = ", ".join(row[2:_COLUMNS])
    try:
        x, y, width, height = (float(text) for text in row[2:_COLUMNS])
    except ValueError:
        raise ValueError("that are not four numbers, left out", numbers) from None
    if not all(map(math.isfinite, (x, y, width, height))):
        raise ValueError("that are not four numbers, left out", numbers)
    far = SIDE + _LEEWAY
    if min(x, y) < -_LEEWAY or min(width, height) <= 0 or x + width > far or y + height > far:
        raise ValueError("that do not lie in 1024 x 1024 pixels, left out", numbers)
    return Box(finding=finding, x=x / SIDE, y=y / SIDE, width=width / SIDE, height=height / SIDE)


def _counted(what: str, named: list[str]) -> str:
    more = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
    return f"{len(named)} boxes {what}: {'; '.join(named[:_MOST_NAMED])}{more}."
