"""Folders named after labels: normal, crackle, wheeze, both, with sounds of any length.

The patient is the part of a file's name before the first "_" or "-".
"""

from __future__ import annotations

import re
from pathlib import Path

from xai_demo.training.breathing import (
    LABELS,
    SOUND_SUFFIXES,
    Corpus,
    Ledger,
    Take,
    duration_of,
)

SUFFIXES = SOUND_SUFFIXES | {".ogg", ".mp3"}
_PATIENT = re.compile(r"[^_-]+")


def found(folder: Path) -> bool:
    """Whether a folder named after a label, with a sound in it, lies in `folder`."""
    return any(_sounds(place) for place, _ in _labelled(folder))


def read(folder: Path) -> Corpus:
    """Every sound with the label of its folder."""
    ledger = Ledger("Folders named after labels")
    takes, known = [], set()
    for place, kind in _labelled(folder):
        known.add(place.name)
        for path in _sounds(place):
            named = _PATIENT.match(path.stem)
            if named is None:
                ledger.add("files whose name begins with no patient, left out", path.name)
            elif duration_of(path) is None:
                ledger.add("sounds that cannot be read, left out", path.name)
            else:
                takes.append(
                    Take(
                        path=path,
                        name=path.stem,
                        site="folders",
                        patient=f"folders:{named.group()}",
                        kind=kind,
                    )
                )
    for other in sorted(p for p in folder.iterdir() if p.is_dir() and p.name not in known):
        if _sounds(other):
            ledger.add(f"folders of sounds named after none of {', '.join(LABELS)}", other.name)
    notes = (
        f"Folders named after labels: {len({t.patient for t in takes})} patients in {len(takes)} "
        'sounds, told by the part of the file name before the first "_" or "-".',
    )
    return Corpus(takes=tuple(takes), notes=notes + ledger.notes())


def _labelled(folder: Path) -> list[tuple[Path, int]]:
    places = sorted(p for p in folder.iterdir() if p.is_dir() and p.name.lower() in LABELS)
    return [(place, LABELS.index(place.name.lower())) for place in places]


def _sounds(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
