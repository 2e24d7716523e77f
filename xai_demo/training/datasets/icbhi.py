"""ICBHI 2017: the published database of recordings, or excerpts listed in a cycles.csv.

Rocha et al. 2019, doi:10.1088/1361-6579/ab03ea. A file name is
patient_recording_location_mode_device; a line of an annotation is: start end crackles wheezes.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from xai_demo.audio import measure_duration_s
from xai_demo.training.datasets.breathing import (
    SOUND_SUFFIXES,
    Annotation,
    Corpus,
    Ledger,
    Take,
    kind_of,
    usable_events,
    visible_files,
)

DATABASE = "ICBHI_final_database"
KAGGLE = "audio_and_txt_files"  # in the copy on Kaggle, without the official split
SPLITS = "ICBHI_challenge_train_test.txt"
CYCLES = "cycles.csv"
# The mode is sc, one place after another, or mc, several places at once.
_NAME = re.compile(r"(?P<patient>\d+)_[^_]+_[^_]+_(?:sc|mc)_(?P<device>[A-Za-z0-9]+)")
_COLUMNS = ("start_s", "end_s", "crackles", "wheezes")


def has_layout(folder: Path) -> bool:
    """Whether `folder` contains the database or a table of excerpts."""
    return _database(folder) is not None or _has_cycles(folder)


def read(folder: Path) -> Corpus:
    """Read every annotated recording and every excerpt; the notes list what was left out."""
    ledger = Ledger("ICBHI excerpts" if _database(folder) is None else "ICBHI 2017")
    database = _database(folder)
    takes = list(_recordings(folder, database, ledger)) if database else []
    if _has_cycles(folder):
        takes += _excerpts(folder, ledger)
    return Corpus(takes=tuple(takes), notes=ledger.notes())


@dataclass(frozen=True, slots=True, kw_only=True)
class _AnnotatedSound:
    """A sound file and the rows that annotate it, not yet parsed."""

    path: Path
    stem: str
    # The place in the file, and four fields.
    rows: list[tuple[str, list[str]]]
    split: str | None
    # According to the table; "": taken from the file name.
    patient: str = ""


def _recordings(folder: Path, database: Path, ledger: Ledger) -> Iterator[Take]:
    splits = _official_splits(folder, database, ledger)
    paths = sorted(database.iterdir())
    # A text with any other name is no annotation.
    texts = {p.stem: p for p in paths if p.suffix == ".txt" and _NAME.fullmatch(p.stem)}
    sounds = {p.stem: p for p in visible_files(paths, SOUND_SUFFIXES)}
    for stem in sorted(set(texts) | set(sounds)):
        if stem not in sounds:
            ledger.add("annotations without a sound, left out", texts[stem].name)
        elif stem not in texts:
            ledger.add("sounds without an annotation, left out", sounds[stem].name)
        else:
            # A byte that is not UTF-8 is replaced: it spoils one line, not the whole file.
            lines = enumerate(texts[stem].read_text("utf-8-sig", "replace").splitlines(), 1)
            rows = [(f"{stem}.txt line {n}", line.split()) for n, line in lines if line.strip()]
            split = splits.get(stem)
            yield from _take(
                _AnnotatedSound(path=sounds[stem], stem=stem, rows=rows, split=split), ledger
            )


def _excerpts(folder: Path, ledger: Ledger) -> Iterator[Take]:
    """One take per file of the table, from its first to its last row: the rest is unannotated."""
    sound_of: dict[str, _AnnotatedSound] = {}
    with (folder / CYCLES).open(encoding="utf-8-sig", newline="") as file:
        for number, row in enumerate(csv.DictReader(file), 2):
            name = (row["file"] or "").strip()
            if name not in sound_of:
                sound_of[name] = _AnnotatedSound(
                    path=folder / name,
                    stem=Path(name).stem,
                    rows=[],
                    split=row.get("official_split") or None,
                    patient=(row.get("patient") or "").strip(),
                )
            fields = [(row[column] or "").strip() for column in _COLUMNS]
            sound_of[name].rows.append((f"{CYCLES} line {number}", fields))
    sounds = {p.name for p in visible_files(folder.iterdir(), SOUND_SUFFIXES)}
    for name in sorted(sounds - set(sound_of)):
        ledger.add(f"sounds without a row in {CYCLES}, left out", name)
    for name, annotated_sound in sound_of.items():
        if name not in sounds:
            ledger.add(f"files of {CYCLES} without a sound, left out", name)
            continue
        for take in _take(annotated_sound, ledger):
            # Sorted by start, but a long cycle may end after the last one.
            first_s = take.annotations[0].start_s
            last_s = max(cycle.end_s for cycle in take.annotations)
            yield replace(take, start_s=first_s, end_s=last_s)


def _take(sound: _AnnotatedSound, ledger: Ledger) -> Iterator[Take]:
    """The take, if it has a patient and a usable cycle."""
    if not sound.rows:
        ledger.add("empty annotations, left out", f"{sound.stem}.txt")
        return
    # Excerpts are named <something>__<name of the recording>.
    # Not fullmatch, because the number of the excerpt may follow.
    match = _NAME.search(sound.stem.rpartition("__")[2])
    patient = sound.patient or (match["patient"] if match else "")
    if not patient:
        ledger.add("files whose name does not give the patient, left out", sound.path.name)
        return
    duration_s = measure_duration_s(sound.path)
    if duration_s is None:
        ledger.add("sounds that cannot be read, left out", sound.path.name)
        return
    annotations = usable_events(_cycles(sound.rows, ledger), duration_s=duration_s, ledger=ledger)
    if not annotations:
        ledger.add("recordings without a usable cycle, left out", sound.path.name)
        return
    yield Take(
        path=sound.path,
        name=sound.stem,
        site="icbhi",
        patient=f"icbhi:{patient}",
        # ICBHI labels cycles alone; `recording_kind` derives the class of a recording.
        kind=None,
        annotations=annotations,
        official_split=sound.split,
        device=match["device"] if match else "",
    )


class Cycle(NamedTuple):
    """A line of an annotation, and whether it had to be repaired."""

    event: Annotation
    repaired: bool


def parse_cycle(fields: list[str]) -> Cycle | None:
    """The cycle in a row of four fields, decimal commas repaired; None where it is malformed.

    >>> parse_cycle(["0,5", "1.5", "1", "0"])
    Cycle(event=Annotation(start_s=0.5, end_s=1.5, kind=1), repaired=True)
    """
    # A row without any tab or space has commas in their place.
    separated = fields[0].split(",") if len(fields) == 1 else fields
    points = [text.replace(",", ".") for text in separated]
    try:
        start_s, end_s, crackles, wheezes = map(float, points)
    except ValueError:
        return None
    # It also refuses NaN, which equals neither.
    if not {crackles, wheezes} <= {0.0, 1.0}:
        return None
    kind = kind_of(crackles=crackles == 1, wheezes=wheezes == 1)
    return Cycle(Annotation(start_s=start_s, end_s=end_s, kind=kind), points != fields)


def _cycles(
    rows: Iterable[tuple[str, list[str]]], ledger: Ledger
) -> Iterator[tuple[str, Annotation]]:
    for place, fields in rows:
        cycle = parse_cycle(fields)
        if cycle is None:
            problem = f"{place} ({' '.join(fields)!r})"
            ledger.add("lines that are not 'start end crackles wheezes', left out", problem)
            continue
        if cycle.repaired:
            ledger.add("cycles written with commas, repaired", place)
        yield place, cycle.event


def _official_splits(folder: Path, database: Path, ledger: Ledger) -> dict[str, str]:
    """Train or test by recording; a patient who is in both is removed from train.

    In the published file, these are the patients 156 and 218. They stay in the test split, so that
    figures on it remain comparable.
    """
    places = [p / SPLITS for p in (folder, database, folder.parent) if (p / SPLITS).is_file()]
    if not places:
        return {}
    rows = [line.split() for line in places[0].read_text("utf-8-sig").splitlines()]
    splits = {Path(row[0]).stem: row[1].lower() for row in rows if len(row) == 2}
    # Before any is deleted: those are listed, so they are not reported as unlisted below.
    split_stems = set(splits)
    tested = {name.split("_")[0] for name, split in splits.items() if split == "test"}
    for name, split in list(splits.items()):
        if split == "train" and name.split("_")[0] in tested:
            problem = f"recordings in train in {SPLITS} of a patient also in test, no split"
            ledger.add(problem, name)
            del splits[name]
    unsplit = {p.stem for p in database.glob("*.txt") if _NAME.fullmatch(p.stem)} - split_stems
    for name in sorted(unsplit):
        ledger.add(f"recordings not listed in {SPLITS}, no split", name)
    return splits


def _database(folder: Path) -> Path | None:
    """The folder of annotations: one of the published names, perhaps nested twice, or `folder`."""
    for place in (folder / DATABASE / DATABASE, folder / DATABASE, folder / KAGGLE, folder):
        if place.is_dir() and any(_NAME.fullmatch(p.stem) for p in place.glob("*.txt")):
            return place
    return None


def _has_cycles(folder: Path) -> bool:
    path = folder / CYCLES
    if not path.is_file():
        return False
    # Any file may have this name, so no byte in it may raise.
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return {"file", *_COLUMNS} <= set(file.readline().strip().split(","))
