"""NIH ChestX-ray14 in its published layout: Data_Entry_2017.csv and the pictures it names.

Wang et al. 2017. The labels were mined from radiologists' reports; one picture has several.
"""

from __future__ import annotations

import csv
from pathlib import Path

from xai_demo.errors import TrainingError
from xai_demo.training.breathing import Ledger
from xai_demo.training.films import Film

TABLE = "Data_Entry_2017.csv"
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

    Raises TrainingError for a table without NIH's columns and for a finding that NIH has not.
    """
    path = table(data)
    if path is None:
        raise TrainingError(f"{data} holds no {TABLE}, wanted: NIH's labels beside its pictures.")
    pictures = {p.stem: p for p in path.parent.rglob("*") if p.suffix in {".png", ".jpg", ".jpeg"}}
    ledger = Ledger("NIH ChestX-ray14")
    films = []
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        missing = [c for c in _COLUMNS if c not in (rows.fieldnames or ())]
        if missing:
            raise TrainingError(
                f"{path.name} has the columns {', '.join(rows.fieldnames or ()) or 'none'}, "
                f"wanted: {', '.join(missing)} as well."
            )
        for number, row in enumerate(rows, start=2):
            labels = _findings(row["Finding Labels"], path.name, number)
            picture = pictures.pop(Path(row["Image Index"]).stem, None)
            if picture is None:
                ledger.add("rows without a picture, left out", row["Image Index"])
                continue
            films.append(Film(path=picture, person=f"nih:{row['Patient ID']}", labels=labels))
    for name in sorted(p.name for p in pictures.values()):
        ledger.add("pictures without a row, left out", name)
    return films, ledger.notes()


def _findings(text: str, name: str, number: int) -> tuple[str, ...]:
    labels = tuple(part.strip() for part in (text or "").split("|"))
    unknown = [label for label in labels if label not in (*FINDINGS, NO_FINDING)]
    if unknown:
        raise TrainingError(
            f"{name}, line {number}: {unknown[0]!r} is no finding of NIH's, wanted: "
            f"{NO_FINDING} or {', '.join(FINDINGS)}, joined by '|'."
        )
    return labels
