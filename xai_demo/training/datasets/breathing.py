"""Annotated breathing sounds: the record that every dataset is read into, and label folders.

Bad annotations are handled in one way for all layouts: a decimal comma is repaired; an event that
ends before it starts, or that reaches more than 50 ms beyond the sound, is left out; overlapping
events are kept. The notes count and name all of these, and every file without its counterpart.

Where there is no published layout, sounds of any length are read from folders named after labels:
normal, crackle, wheeze, both. The patient is then the part of a file's name before the first "_"
or "-".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from xai_demo.audio import measure_duration_s
from xai_demo.errors import TrainingError

# BOTH is CRACKLE + WHEEZE, which `kind_of` relies on, and the last, so that figures of three
# classes can cut it off.
NORMAL, CRACKLE, WHEEZE, BOTH = range(4)
LABELS = ("normal", "crackle", "wheeze", "both")
SOUND_SUFFIXES = {".wav", ".flac"}
# An event that reaches this far beyond its sound is cut to it.
LEEWAY_S = 0.05
# Label folders hold sounds from anywhere, so compressed ones are read there too.
FOLDER_SUFFIXES = SOUND_SUFFIXES | {".ogg", ".opus", ".mp3", ".m4a", ".webm", ".amr", ".3gp"}
_PATIENT_PREFIX = re.compile(r"[^_-]+")
# An unpacked archive has a folder or two of its own around its layout.
_DEPTH = 3
_MOST_NAMED = 5  # examples in one note

Site = Literal["sprsound", "icbhi", "fraiwan", "manikin", "folders"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """One annotated event or respiratory cycle."""

    start_s: float
    end_s: float
    kind: int  # NORMAL, CRACKLE, WHEEZE or BOTH


@dataclass(frozen=True, slots=True, kw_only=True)
class Take:
    """One recording, or the annotated part of one file."""

    path: Path
    name: str
    site: Site
    patient: str  # unique across sites: "icbhi:101"
    # Class of the whole recording, where the dataset gives one.
    kind: int | None
    quality: Literal["", "poor"] = ""
    annotations: tuple[Annotation, ...] = ()  # in seconds of the file
    official_split: str | None = None
    device: str = ""  # as the dataset names it
    start_s: float | None = None  # None: the beginning of the file
    end_s: float | None = None  # None: the end of the file
    detail: str = ""  # the dataset's own name of the sound, where it tells more than `kind`


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Everything that was read, and notes on what was left out or looks odd."""

    takes: tuple[Take, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ledger:
    """Problems met while a layout is read, collected by kind."""

    where: str  # what every note begins with
    _named: dict[str, list[str]] = field(default_factory=dict)

    def add(self, what: str, name: str) -> None:
        """Record one more problem, such as ("sounds without an annotation, left out", "a.wav")."""
        self._named.setdefault(what, []).append(name)

    def notes(self) -> tuple[str, ...]:
        """One sentence per kind of problem: how many, and the first few names.

        >>> ledger = Ledger("SPRSound")
        >>> ledger.add("sounds without an annotation, left out", "a.wav")
        >>> ledger.notes()
        ('SPRSound: sounds without an annotation, left out (1): a.wav.',)
        """
        return tuple(f"{self.where}: {_sentence(what, n)}" for what, n in self._named.items())


def read(folder: Path) -> Corpus:
    """Read every layout in `folder` or up to three folders below it.

    Raises TrainingError where `folder` is no directory or holds no annotated lung sounds.
    """
    # Here, because these modules import this one.
    from xai_demo.training.datasets import fraiwan, icbhi, manikin, sprsound

    if not folder.is_dir():
        raise TrainingError(f"{folder} is not a directory; a folder of lung sounds is needed.")
    corpora = []
    # A folder may hold several layouts side by side, so each one is tried.
    layouts = (
        (sprsound.has_layout, sprsound.read),
        (icbhi.has_layout, icbhi.read),
        (fraiwan.has_layout, fraiwan.read),
        (manikin.has_layout, manikin.read),
        (has_label_folders, read_label_folders),
    )
    for has_layout, read_layout in layouts:
        # The folder itself comes first: `_outermost` must meet it before the folders in it.
        candidates = _folders(folder, 1 if has_layout is has_label_folders else _DEPTH)
        corpora += [read_layout(place) for place in _outermost(filter(has_layout, candidates))]
    takes = tuple(take for corpus in corpora for take in corpus.takes)
    notes = tuple(note for corpus in corpora for note in corpus.notes)
    if not takes:
        raise TrainingError(
            f"{folder} contains no annotated lung sounds. It, or a folder in it, should contain "
            "SPRSound (train_wav and train_json), ICBHI 2017 (ICBHI_final_database, or cycles.csv "
            "beside its sounds), Fraiwan (Audio Files), HLS-CMDS (labels.csv with file, kind and "
            "type), or folders named after labels "
            f"({', '.join(LABELS)}). {' '.join(notes)}".rstrip()
        )
    return Corpus(takes=takes, notes=notes)


def usable_events(
    events: Iterable[tuple[str, Annotation]], *, duration_s: float, ledger: Ledger
) -> tuple[Annotation, ...]:
    """The events that lie within their sound, in order; each comes with its place in a file."""
    kept: list[Annotation] = []
    last_end_s = 0.0
    for place, event in sorted(events, key=lambda pair: (pair[1].start_s, pair[1].end_s)):
        start_s, end_s = event.start_s, event.end_s
        # Written so that NaN, which compares false with everything, is left out as well.
        if not start_s < end_s:
            ledger.add("events that end before they start, left out", place)
            continue
        # An event that begins within the leeway has nothing left once it is cut.
        if start_s < -LEEWAY_S or end_s > duration_s + LEEWAY_S or start_s >= duration_s:
            ledger.add("events beyond the sound, left out", f"{place} ({start_s:g}-{end_s:g} s)")
            continue
        start_s, end_s = max(start_s, 0.0), min(end_s, duration_s)
        if start_s < last_end_s:
            ledger.add("events that overlap the one before, kept", place)
        kept.append(Annotation(start_s=start_s, end_s=end_s, kind=event.kind))
        # The latest end so far: a long event may contain the one after it.
        last_end_s = max(last_end_s, end_s)
    return tuple(kept)


def check_splits(groups: Sequence[str], splits: Sequence[str]) -> None:
    """Raise TrainingError if a patient is in two splits."""
    first: dict[str, str] = {}
    for group, split in zip(groups, splits, strict=True):
        if first.setdefault(group, split) != split:
            raise TrainingError(
                f"Patient {group} is in both the {first[group]!r} and the {split!r} split; every "
                "patient must be in one split only."
            )


def visible_files(places: Iterable[Path], suffixes: set[str]) -> list[Path]:
    """The files with one of these suffixes, in order.

    Hidden ones, such as the `._` companions in an archive made on a Mac, are left out.
    """
    return sorted(p for p in places if p.suffix.lower() in suffixes and not p.name.startswith("."))


def kind_of(*, crackles: bool, wheezes: bool) -> int:
    """The class of a sound with or without crackles and wheezes.

    >>> LABELS[kind_of(crackles=True, wheezes=False)]
    'crackle'
    """
    return (NORMAL, CRACKLE, WHEEZE, BOTH)[crackles + 2 * wheezes]


def _folders(folder: Path, depth: int) -> Iterator[Path]:
    """The folder and those in it down to a depth, each before what it contains."""
    yield folder
    if depth:
        for below in sorted(p for p in folder.iterdir() if p.is_dir()):
            # An archive made on a Mac has a folder of metadata with the names of all files.
            if not below.name.startswith((".", "__MACOSX")):
                yield from _folders(below, depth - 1)


def _outermost(folders: Iterable[Path]) -> list[Path]:
    """The folders without those inside another, whose reader looks into them anyway."""
    kept: list[Path] = []
    for folder in folders:
        if not any(outer in folder.parents for outer in kept):
            kept.append(folder)
    return kept


def _sentence(what: str, names: list[str]) -> str:
    first = "; ".join(names[:_MOST_NAMED])
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"{what} ({len(names)}): {first}{more}."


def has_label_folders(folder: Path) -> bool:
    """Whether `folder` contains a folder named after a label with a sound in it."""
    return any(_sound_files(place) for place, _ in _label_folders(folder))


def read_label_folders(folder: Path) -> Corpus:
    """Read every sound, labelled by the folder it lies in."""
    ledger = Ledger("Folders named after labels")
    takes, label_names = [], set()
    for place, kind in _label_folders(folder):
        label_names.add(place.name)
        for path in _sound_files(place):
            patient = _PATIENT_PREFIX.match(path.stem)
            if patient is None:
                ledger.add("files whose name does not begin with a patient, left out", path.name)
            elif measure_duration_s(path) is None:
                ledger.add("sounds that cannot be read, left out", path.name)
            else:
                takes.append(
                    Take(
                        path=path,
                        name=path.stem,
                        site="folders",
                        patient=f"folders:{patient.group()}",
                        kind=kind,
                    )
                )
    # A folder with a misspelt label would otherwise be missed without a word.
    for other in sorted(p for p in folder.iterdir() if p.is_dir() and p.name not in label_names):
        if _sound_files(other):
            ledger.add(f"folders of sounds not named after {', '.join(LABELS)}", other.name)
    notes = (
        f"Folders named after labels: {len(takes)} sounds of {len({t.patient for t in takes})} "
        'patients, identified by the part of the file name before the first "_" or "-".',
    )
    return Corpus(takes=tuple(takes), notes=notes + ledger.notes())


def _label_folders(folder: Path) -> list[tuple[Path, int]]:
    """Folders named after labels, and the class each stands for."""
    places = sorted(p for p in folder.iterdir() if p.is_dir() and p.name.lower() in LABELS)
    return [(place, LABELS.index(place.name.lower())) for place in places]


def _sound_files(folder: Path) -> list[Path]:
    return visible_files(folder.rglob("*"), FOLDER_SUFFIXES)
