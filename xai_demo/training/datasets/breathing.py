"""The common record of annotated breathing sounds, and how bad annotations are dealt with.

Decided once for every layout: a decimal comma is repaired; an event that is reversed, or that
reaches more than 50 ms beyond the sound, is left out; overlapping events are kept. All of it, and
every file without its counterpart, is counted and named in the notes.

Folders named after labels: normal, crackle, wheeze, both, with sounds of any length.

The patient is the part of a file's name before the first "_" or "-".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from xai_demo.errors import TrainingError

NORMAL, CRACKLE, WHEEZE, BOTH = range(4)
LABELS = ("normal", "crackle", "wheeze", "both")
SOUND_SUFFIXES = {".wav", ".flac"}
LEEWAY_S = 0.05  # how far an event may reach beyond its sound and is cut to it
_MOST_NAMED = 5

Site = Literal["sprsound", "icbhi", "fraiwan", "folders"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """One event or one respiratory cycle."""

    start_s: float
    end_s: float
    kind: int  # NORMAL, CRACKLE, WHEEZE or BOTH


@dataclass(frozen=True, slots=True, kw_only=True)
class Take:
    """One recording, or the annotated part of one file."""

    path: Path
    name: str
    site: Site
    patient: str  # unique over the sites: "icbhi:101"
    kind: int | None  # of the whole recording, where the data set gives one
    quality: Literal["", "poor"] = ""
    annotated: tuple[Annotation, ...] = ()  # in seconds of the file
    official_split: str | None = None
    device: str = ""  # as the data set names it
    start_s: float | None = None  # None: from the beginning of the file
    end_s: float | None = None  # None: to its end


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """What was read, and in words what was left out or is odd."""

    takes: tuple[Take, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ledger:
    """Oddities by kind while a layout is read."""

    where: str  # what every note begins with
    _named: dict[str, list[str]] = field(default_factory=dict)

    def add(self, what: str, name: str) -> None:
        """Enter one more of its kind, as ("sounds without an annotation, left out", "a.wav")."""
        self._named.setdefault(what, []).append(name)

    def notes(self) -> tuple[str, ...]:
        """One sentence a kind: how many, and the names of the first."""
        return tuple(f"{self.where}: {_sentence(what, n)}" for what, n in self._named.items())


def read(folder: Path) -> Corpus:
    """Every layout at or below `folder`; raises TrainingError where there is none."""
    from xai_demo.training.datasets import fraiwan, icbhi, sprsound

    if not folder.is_dir():
        raise TrainingError(f"{folder} is no directory, wanted: a folder of lung sounds.")
    corpora = []
    layouts = (
        (sprsound.has_layout, sprsound.read),
        (icbhi.has_layout, icbhi.read),
        (fraiwan.has_layout, fraiwan.read),
        (has_label_folders, read_label_folders),
    )
    for holds_layout, read_layout in layouts:
        below = (folder, *sorted(p for p in folder.iterdir() if p.is_dir()))
        corpora += [read_layout(place) for place in _outermost(filter(holds_layout, below))]
    takes = tuple(take for corpus in corpora for take in corpus.takes)
    notes = tuple(note for corpus in corpora for note in corpus.notes)
    if not takes:
        raise TrainingError(
            f"{folder} holds no annotated lung sounds, wanted in it or one folder below: SPRSound "
            "(train_wav and train_json), ICBHI 2017 (ICBHI_final_database, or cycles.csv beside "
            f"its sounds), Fraiwan (Audio Files), or folders named after labels ("
            f"{', '.join(LABELS)}). {' '.join(notes)}".rstrip()
        )
    return Corpus(takes=takes, notes=notes)


def usable_events(
    events: Iterable[tuple[str, Annotation]], *, duration_s: float, ledger: Ledger
) -> tuple[Annotation, ...]:
    """The events that lie in their sound, by time; each comes with the name of its place."""
    kept: list[Annotation] = []
    last_end_s = 0.0
    for place, event in sorted(events, key=lambda pair: (pair[1].start_s, pair[1].end_s)):
        start_s, end_s = event.start_s, event.end_s
        if not start_s < end_s:  # so that "not a number" is refused as well
            ledger.add("events that end before they start, left out", place)
            continue
        if start_s < -LEEWAY_S or end_s > duration_s + LEEWAY_S or start_s >= duration_s:
            ledger.add("events beyond the sound, left out", f"{place} ({start_s:g}-{end_s:g} s)")
            continue
        start_s, end_s = max(start_s, 0.0), min(end_s, duration_s)
        if start_s < last_end_s:
            ledger.add("events that overlap the one before, kept", place)
        kept.append(Annotation(start_s=start_s, end_s=end_s, kind=event.kind))
        last_end_s = max(last_end_s, end_s)
    return tuple(kept)


def check_splits(groups: Sequence[str], splits: Sequence[str]) -> None:
    """Refuse a person in two splits with a TrainingError that names both."""
    first: dict[str, str] = {}
    for group, split in zip(groups, splits, strict=True):
        if first.setdefault(group, split) != split:
            raise TrainingError(
                f"Patient {group} is in the splits {first[group]!r} and {split!r}, "
                "wanted: every patient in one split only."
            )


def sound_duration_s(path: Path) -> float | None:
    """Seconds by the file's header; None where it cannot be read or holds nothing."""
    import soundfile

    try:
        seconds = float(soundfile.info(path).duration)
    except soundfile.LibsndfileError:
        return None
    return seconds or None


def kind_of(*, crackles: bool, wheezes: bool) -> int:
    """The class of what is heard."""
    return (NORMAL, CRACKLE, WHEEZE, BOTH)[crackles + 2 * wheezes]


def _outermost(folders: Iterable[Path]) -> list[Path]:
    """Without those that lie in another one, whose reader looks into them anyway."""
    kept: list[Path] = []
    for folder in folders:
        if not any(outer in folder.parents for outer in kept):
            kept.append(folder)
    return kept


def _sentence(what: str, names: list[str]) -> str:
    shown = "; ".join(names[:_MOST_NAMED])
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"{what} ({len(names)}): {shown}{more}."


SUFFIXES = SOUND_SUFFIXES | {".ogg", ".mp3"}
_PATIENT_PREFIX = re.compile(r"[^_-]+")


def has_label_folders(folder: Path) -> bool:
    """Whether a folder named after a label, with a sound in it, lies in `folder`."""
    return any(_sound_files(place) for place, _ in _label_folders(folder))


def read_label_folders(folder: Path) -> Corpus:
    """Every sound with the label of its folder."""
    ledger = Ledger("Folders named after labels")
    takes, known = [], set()
    for place, kind in _label_folders(folder):
        known.add(place.name)
        for path in _sound_files(place):
            named = _PATIENT_PREFIX.match(path.stem)
            if named is None:
                ledger.add("files whose name begins with no patient, left out", path.name)
            elif sound_duration_s(path) is None:
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
        if _sound_files(other):
            ledger.add(f"folders of sounds named after none of {', '.join(LABELS)}", other.name)
    notes = (
        f"Folders named after labels: {len({t.patient for t in takes})} patients in {len(takes)} "
        'sounds, told by the part of the file name before the first "_" or "-".',
    )
    return Corpus(takes=tuple(takes), notes=notes + ledger.notes())


def _label_folders(folder: Path) -> list[tuple[Path, int]]:
    places = sorted(p for p in folder.iterdir() if p.is_dir() and p.name.lower() in LABELS)
    return [(place, LABELS.index(place.name.lower())) for place in places]


def _sound_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
