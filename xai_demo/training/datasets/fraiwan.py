"""Fraiwan et al. 2021 (KAUH): 'Audio Files', whose names tell patient, diagnosis, sound and place.

doi:10.1016/j.dib.2021.106913. Names are like 'BP1_Asthma,I E W,P L L,70,M.wav': filter (bell,
diaphragm, extended), patient, diagnosis, sound, place, age and sex. Every patient is there three
times. A labels.csv beside the folder wins over the names.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

from xai_demo.training.datasets.breathing import (
    LABELS,
    SOUND_SUFFIXES,
    Corpus,
    Ledger,
    Take,
    kind_of,
    sound_duration_s,
)

FOLDER = "Audio Files"
TABLE = "labels.csv"
_NAME = re.compile(r"(?P<filter>[BDE])P(?P<patient>\d+)_(?P<rest>.*)", re.IGNORECASE)
_CRACKLES = {"C", "CREP", "CREPITATION", "CREPITATIONS", "CRACKLE", "CRACKLES"}
_WHEEZES = {"W", "WHEEZE", "WHEEZES"}
_NORMAL = {"N", "NORMAL"}
_OTHER = {"I", "E", "B", "BRONCHIAL"}  # inspiratory, expiratory, bronchial
_UNKNOWN = -1  # no known sound; None is a known one that has no class here


def has_layout(folder: Path) -> bool:
    """Whether sounds with such names lie in `folder` or in its 'Audio Files'."""
    return any(_NAME.fullmatch(p.stem) for p in _sound_files(folder))


def read(folder: Path) -> Corpus:
    """Every recording; `other` sounds, as bronchial breathing, have no kind."""
    ledger = Ledger("Fraiwan")
    sounds = _sound_files(folder)
    labels = _labels(folder, ledger)
    takes = []
    for path in sounds:
        named = _NAME.fullmatch(path.stem)
        if named is None:
            ledger.add("files whose name tells no patient, left out", path.name)
            continue
        kind = _kind(path, named["rest"], labels, ledger)
        if kind == _UNKNOWN:
            continue
        if sound_duration_s(path) is None:
            ledger.add("sounds that cannot be read, left out", path.name)
            continue
        takes.append(
            Take(
                path=path,
                name=path.stem,
                site="fraiwan",
                patient=f"fraiwan:{named['patient']}",
                kind=kind,
                device=f"Litt3200 {named['filter'].upper()}",
            )
        )
    for stem in sorted(set(labels) - {_key(path.stem) for path in sounds}):
        ledger.add(f"rows of {TABLE} without a sound, left out", stem)
    return Corpus(takes=tuple(takes), notes=ledger.notes())


def sound_kind(sound: str) -> int | None:
    """The class of 'I E W' and its like; None for bronchial breathing, -1 for an unknown sound."""
    words = set(sound.upper().split())
    if not words or not words <= _CRACKLES | _WHEEZES | _NORMAL | _OTHER:
        return _UNKNOWN
    crackles, wheezes = bool(words & _CRACKLES), bool(words & _WHEEZES)
    if crackles or wheezes or words & _NORMAL:
        return kind_of(crackles=crackles, wheezes=wheezes)
    return None


def _kind(path: Path, rest: str, labels: dict[str, int | None], ledger: Ledger) -> int | None:
    """By the table where it has the file, by the name otherwise."""
    told = _kind_in_name(rest)
    if labels and _key(path.stem) not in labels:
        ledger.add(f"sounds without a row in {TABLE}, labelled by their names", path.name)
    kind = labels.get(_key(path.stem), told)
    if kind == _UNKNOWN:
        ledger.add("files whose name tells no known sound, left out", path.name)
    elif told != kind:
        words = f"{path.name} ({_word(told)}, not {_word(kind)})"
        ledger.add(f"names that disagree with {TABLE}, which is taken", words)
    elif kind is None:
        ledger.add("recordings of another sound than crackles and wheezes, no class", path.name)
    return kind


def _kind_in_name(rest: str) -> int | None:
    """The sound is the fourth field from the end; where that is none, the first that is one."""
    fields = rest.split(",")
    for field in (*fields[-4:-3], *fields[1:]):
        kind = sound_kind(field)
        if kind != _UNKNOWN:
            return kind
    return _UNKNOWN


def _labels(folder: Path, ledger: Ledger) -> dict[str, int | None]:
    path = (folder.parent if folder.name == FOLDER else folder) / TABLE
    if not path.is_file():
        return {}
    labels: dict[str, int | None] = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        for number, row in enumerate(csv.DictReader(file), 2):
            label = (row.get("label4") or "").strip().lower()
            if label not in (*LABELS, "other") or not row.get("file"):
                problem = f"line {number} ({label!r})"
                ledger.add(f"rows of {TABLE} without a known label4, left out", problem)
                continue
            kind = LABELS.index(label) if label in LABELS else None
            labels[_key(Path(row["file"]).stem)] = kind
    return labels


def _sound_files(folder: Path) -> list[Path]:
    place = folder / FOLDER if (folder / FOLDER).is_dir() else folder
    return sorted(p for p in place.iterdir() if p.suffix.lower() in SOUND_SUFFIXES)


def _key(stem: str) -> str:
    """Two spellings of one name: spaces around commas and at the end come and go."""
    return re.sub(r"\s*,\s*", ",", " ".join(stem.split()))


def _word(kind: int | None) -> str:
    if kind is None:
        return "other"
    return "unknown" if kind == _UNKNOWN else LABELS[kind]
