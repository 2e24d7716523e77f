"""Fraiwan et al. 2021 (KAUH): a folder 'Audio Files', labelled by its file names.

doi:10.1016/j.dib.2021.106913. A name such as 'BP1_Asthma,I E W,P L L,70,M.wav' gives the filter
(bell, diaphragm, extended), patient, diagnosis, sound, location, age and sex. Every patient was
recorded three times. Labels in a labels.csv beside the folder take precedence over the names.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

from xai_demo.audio import measure_duration_s
from xai_demo.training.datasets.breathing import (
    LABELS,
    SOUND_SUFFIXES,
    Corpus,
    Ledger,
    Take,
    kind_of,
    visible_files,
)

FOLDER = "Audio Files"
TABLE = "labels.csv"
# The filter is no part of the patient: BP1, DP1 and EP1 are one patient.
_NAME = re.compile(r"(?P<filter>[BDE])P(?P<patient>\d+)_(?P<rest>.*)", re.IGNORECASE)
# File names spell one sound in several ways.
_CRACKLES = {"C", "CREP", "CREPITATION", "CREPITATIONS", "CRACKLE", "CRACKLES"}
_WHEEZES = {"W", "WHEEZE", "WHEEZES"}
_NORMAL = {"N", "NORMAL"}
# I, E and B: inspiratory, expiratory and bronchial.
_OTHER = {"I", "E", "B", "BRONCHIAL"}
# Not a known sound; None is a known one that has no class here.
_UNKNOWN = -1


def has_layout(folder: Path) -> bool:
    """Whether `folder`, or 'Audio Files' in it, contains sounds named in this way."""
    return any(_NAME.fullmatch(p.stem) for p in _sound_files(folder))


def read(folder: Path) -> Corpus:
    """Read every recording; other sounds, such as bronchial breathing, have no class."""
    ledger = Ledger("Fraiwan")
    sounds = _sound_files(folder)
    labels = _labels(folder, ledger)
    takes = []
    for path in sounds:
        match = _NAME.fullmatch(path.stem)
        if match is None:
            ledger.add("files whose name does not give the patient, left out", path.name)
            continue
        kind = _kind(path, match["rest"], labels, ledger)
        # `_kind` has told the ledger why.
        if kind == _UNKNOWN:
            continue
        if measure_duration_s(path) is None:
            ledger.add("sounds that cannot be read, left out", path.name)
            continue
        takes.append(
            Take(
                path=path,
                name=path.stem,
                site="fraiwan",
                patient=f"fraiwan:{match['patient']}",
                kind=kind,
                # The stethoscope as ICBHI names it, and the filter, which shapes the spectrum.
                device=f"Litt3200 {match['filter'].upper()}",
            )
        )
    for stem in sorted(set(labels) - {_key(path.stem) for path in sounds}):
        ledger.add(f"rows of {TABLE} without a sound, left out", stem)
    return Corpus(takes=tuple(takes), notes=ledger.notes())


def sound_kind(sound: str) -> int | None:
    """The class of a sound such as 'I E W'.

    Returns None for a known sound without a class, and -1 for an unknown one.

    >>> LABELS[sound_kind("I E W")]
    'wheeze'
    >>> sound_kind("Bronchial") is None
    True
    """
    words = set(sound.upper().split())
    if not words or not words <= _CRACKLES | _WHEEZES | _NORMAL | _OTHER:
        return _UNKNOWN
    crackles, wheezes = bool(words & _CRACKLES), bool(words & _WHEEZES)
    if crackles or wheezes or words & _NORMAL:
        return kind_of(crackles=crackles, wheezes=wheezes)
    return None


def _kind(path: Path, rest: str, labels: dict[str, int | None], ledger: Ledger) -> int | None:
    """The class according to the table or, where it lacks the file, to the file's name."""
    kind_in_name = _kind_in_name(rest)
    if labels and _key(path.stem) not in labels:
        ledger.add(f"sounds without a row in {TABLE}, labelled by their names", path.name)
    kind = labels.get(_key(path.stem), kind_in_name)
    if kind == _UNKNOWN:
        ledger.add("files whose name does not give a known sound, left out", path.name)
    elif kind_in_name != kind:
        problem = f"{path.name} ({_word(kind_in_name)}, not {_word(kind)})"
        ledger.add(f"names that disagree with {TABLE}, which is used", problem)
    elif kind is None:
        ledger.add("recordings of sounds other than crackles and wheezes, no class", path.name)
    return kind


def _kind_in_name(rest: str) -> int | None:
    """The class of the first field that is a sound, the fourth from the end being tried first."""
    fields = rest.split(",")
    # Sound, location, age and sex come last. The first field, the diagnosis, is never tried.
    for field in (*fields[-4:-3], *fields[1:]):
        kind = sound_kind(field)
        if kind != _UNKNOWN:
            return kind
    return _UNKNOWN


def _labels(folder: Path, ledger: Ledger) -> dict[str, int | None]:
    """The classes in labels.csv by file name; {} where there is no such table."""
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
    return visible_files(place.iterdir(), SOUND_SUFFIXES)


def _key(stem: str) -> str:
    """A file name without the spaces by which the published spellings of one name differ."""
    return re.sub(r"\s*,\s*", ",", " ".join(stem.split()))


def _word(kind: int | None) -> str:
    if kind is None:
        return "other"
    return "unknown" if kind == _UNKNOWN else LABELS[kind]
