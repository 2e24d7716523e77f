"""NIH ChestX-ray14 in its published layout: Data_Entry_2017.csv and the pictures it names.

Wang et al. 2017. The labels were mined from radiologists' reports; one picture has several.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from xai_demo.errors import TrainingError
from xai_demo.training.boxes import patient_of
from xai_demo.training.breathing import Ledger
from xai_demo.training.dataset import Split
from xai_demo.training.films import Film

TABLE = "Data_Entry_2017.csv"
LISTS: dict[str, Split] = {"train_val_list.txt": "train", "test_list.txt": "test"}  # as published
NO_FINDING = "No Finding"
FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
_COLUMNS = ("Image Index", "Finding Labels", "Patient ID")


def table(data: Path) -> Path | None:
    """Where the labels are, at or below a folder; None where they are not."""
    return next(iter(sorted(data.rglob(TABLE))), None)


def found(data: Path) -> tuple[list[Film], tuple[str, ...]]:
    """Every picture with a row, labelled by its findings or "No Finding"; and what was left out.

    Raises TrainingError for a table without NIH's columns, for a finding that NIH has not, for a
    patient whose number is none, and where no picture has a row.
    """
    path = table(data)
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
        films.append(Film(path=picture, person=f"nih:{int(patient)}", labels=labels))
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
    path = table(data)
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
    unknown = [label for label in labels if label not in (*FINDINGS, NO_FINDING)]
    if unknown:
        raise TrainingError(
            f"{name}, line {number}: {unknown[0]!r} is no finding of NIH's, wanted: "
            f"{NO_FINDING} or {', '.join(FINDINGS)}, joined by '|'."
        )
    return labels
