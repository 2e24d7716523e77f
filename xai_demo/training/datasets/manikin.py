"""HLS-CMDS: lung sounds of a training manikin through an electronic stethoscope.

Torabi et al. 2024 (arXiv): 4 kHz, 15 s, a labels.csv with file, kind (lung or heart),
type, location and sex. There are no patients, and the same sound lies there under several names:
what sounds the same, sample by sample, is one recording. A hash of its samples puts every second
recording into the test half, whatever else is in the folder.
"""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

from xai_demo import audio
from xai_demo.errors import UnreadableFileError
from xai_demo.training.datasets.breathing import (
    CRACKLE,
    NORMAL,
    SOUND_SUFFIXES,
    WHEEZE,
    Corpus,
    Ledger,
    Take,
    visible_files,
)

TABLE = "labels.csv"
RATE_HZ = 4000
KINDS = {
    "Normal": NORMAL,
    "Fine Crackles": CRACKLE,
    "Coarse Crackles": CRACKLE,
    "Wheezing": WHEEZE,
    # Continuous, as in `sprsound`.
    "Rhonchi": WHEEZE,
}
_COLUMNS = {"file", "kind", "type"}
_MAX_DURATION_S = 600.0


def has_layout(folder: Path) -> bool:
    """Whether `folder` contains a labels.csv with a file, kind and type in each row."""
    path = folder / TABLE
    if not path.is_file():
        return False
    # Any file may have this name, so no byte in it may raise.
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return set(file.readline().strip().split(",")) >= _COLUMNS


def read(folder: Path) -> Corpus:
    """Read every lung sound once; the notes list repetitions and sounds without a class."""
    ledger = Ledger("Manikin")
    sounds = {p.name: p for p in visible_files(folder.iterdir(), SOUND_SUFFIXES)}
    takes: dict[str, Take] = {}
    for kind, name, what in _rows(folder):
        if kind != "lung":
            ledger.add("heart sounds, left out", name)
        elif what not in KINDS:
            ledger.add("sounds other than crackles and wheezes, no class, left out", name)
        elif name not in sounds:
            ledger.add(f"rows of {TABLE} without a sound, left out", name)
        else:
            try:
                digest = content_hash(sounds[name])
            except UnreadableFileError:
                ledger.add("sounds that cannot be read, left out", name)
                continue
            if digest in takes:
                first = takes[digest]
                ledger.add("repetitions of a recording, left out", f"{name} ({first.name})")
                continue
            takes[digest] = Take(
                path=sounds[name],
                name=Path(name).stem,
                site="manikin",
                patient=f"manikin:{digest[:12]}",
                kind=KINDS[what],
                detail=what,
                official_split=split_of(digest),
                device="manikin",
            )
    return Corpus(takes=tuple(takes.values()), notes=ledger.notes())


def content_hash(path: Path) -> str:
    """SHA-256 of the samples, whatever file they are stored in."""
    sound = audio.read_audio(path, sample_rate_hz=RATE_HZ, max_duration_s=_MAX_DURATION_S)
    return hashlib.sha256(sound.samples.tobytes()).hexdigest()


def split_of(digest: str) -> str:
    """The half of a recording, train or test, by a hash of its content's hash.

    >>> split_of("0" * 64), split_of("4" * 64)
    ('train', 'test')
    """
    # Seeded, so that it is independent of other uses of the same hash.
    number = int(hashlib.sha256(f"manikin-test:{digest}".encode()).hexdigest()[:8], 16)
    return "test" if number % 2 else "train"


def _rows(folder: Path) -> list[tuple[str, str, str]]:
    """Kind, file name and type of every row of the table."""
    with (folder / TABLE).open(encoding="utf-8-sig", errors="replace", newline="") as file:
        return [
            tuple((row[column] or "").strip() for column in ("kind", "file", "type"))  # type: ignore[misc]
            for row in csv.DictReader(file)
        ]
