"""SPRSound in its published layout: *_json annotations, nested or not, and *_wav sounds.

Zhang et al. 2022, doi:10.1109/TBCAS.2022.3204910: children at one hospital in Shanghai, recordings
of about 9-15 s at 8 kHz. A file name is patient_age_sex_location_number.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xai_demo.audio import measure_duration_s
from xai_demo.training.datasets.breathing import (
    BOTH,
    CRACKLE,
    NORMAL,
    SOUND_SUFFIXES,
    WHEEZE,
    Annotation,
    Corpus,
    Ledger,
    Take,
    usable_events,
    visible_files,
)

# Rhonchi and stridor are continuous sounds as wheezes are; no model here tells them apart.
EVENT_KINDS = {
    "Normal": NORMAL,
    "Fine Crackle": CRACKLE,
    "Coarse Crackle": CRACKLE,
    "Wheeze": WHEEZE,
    "Rhonchi": WHEEZE,
    "Stridor": WHEEZE,
    "Wheeze+Crackle": BOTH,
}
# CAS and DAS: continuous and discontinuous adventitious sounds.
RECORD_KINDS = {
    "Normal": NORMAL,
    "DAS": CRACKLE,
    "CAS": WHEEZE,
    "CAS & DAS": BOTH,
    "Poor Quality": None,
}
DEVICE = "Yunting II"  # the stethoscope of all recordings
# The published files have the first key, their README describes the second.
_RECORD_KEYS = ("record_annotation", "recording_annotation")
# Levels down to, for example, sprsound/SPRSound-main/releases/BioCAS2022/train2022_json.
_DEPTH = 5


def has_layout(folder: Path) -> bool:
    """Whether `folder` contains a folder of annotations, up to five levels down."""
    return any(_annotation_folders(folder, _DEPTH))


def read(folder: Path) -> Corpus:
    """Read every recording with an annotation and a sound; the notes list the others."""
    ledger = Ledger("SPRSound")
    sounds = _sound_files(folder, ledger)
    used: set[str] = set()
    takes = []
    for path, split in _annotations(folder):
        # Of two annotations the first counts, or the recording would be used twice.
        if path.stem in used:
            ledger.add("annotations of a recording that is already annotated, left out", path.name)
            continue
        if path.stem not in sounds:
            ledger.add("annotations without a sound, left out", path.name)
            continue
        used.add(path.stem)
        take = _take(path, sounds[path.stem], split, ledger)
        if take:
            takes.append(take)
    for stem in sorted(set(sounds) - used):
        ledger.add("sounds without an annotation, left out", sounds[stem].name)
    return Corpus(takes=tuple(takes), notes=ledger.notes())


def _take(path: Path, sound: Path, split: str, ledger: Ledger) -> Take | None:
    if not path.read_bytes().strip():
        ledger.add("empty annotations, left out", path.name)
        return None
    try:
        # Some editors begin a file with a byte order mark, which json.loads refuses.
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8-sig"))
        # From 2024 on, recordings have no class of their own, only events.
        record = next((str(content[key]) for key in _RECORD_KEYS if key in content), None)
        rows = [(str(e["type"]), e["start"], e["end"]) for e in content["event_annotation"]]
    # ValueError: not JSON, or not UTF-8.
    except (ValueError, KeyError, TypeError) as error:
        problem = f"{path.name} ({type(error).__name__}: {error})"
        ledger.add("files that are not SPRSound annotations, left out", problem)
        return None
    duration_s = measure_duration_s(sound)
    if duration_s is None:
        ledger.add("sounds that cannot be read, left out", sound.name)
        return None
    if record is not None and record not in RECORD_KINDS:
        # Only the class of the whole recording is unknown; its events are still used.
        ledger.add("recordings with an unknown record_annotation", f"{path.name} ({record!r})")
    return Take(
        path=sound,
        name=path.stem,
        site="sprsound",
        patient=f"sprsound:{_patient(path.stem)}",
        kind=None if record is None else RECORD_KINDS.get(record),
        quality="poor" if record == "Poor Quality" else "",
        annotations=usable_events(
            _events(path, rows, ledger), duration_s=duration_s, ledger=ledger
        ),
        official_split=split,
        device=DEVICE,
    )


def _patient(stem: str) -> str:
    """The patient's number or, where it was removed from the name, age and sex.

    >>> _patient("65058931_3.4_1_p2_1086"), _patient("_5.3_0_p8_34877")
    ('65058931', '_5.3_0')
    """
    fields = stem.split("_")
    return fields[0] or "_".join(fields[:3])


def _events(
    path: Path, rows: list[tuple[str, Any, Any]], ledger: Ledger
) -> Iterator[tuple[str, Annotation]]:
    """The readable events, in seconds, each with its place in the file."""
    for number, (kind, start, end) in enumerate(rows, 1):
        place = f"{path.name} event {number}"
        if kind not in EVENT_KINDS:
            ledger.add("events of an unknown type, left out", f"{place} ({kind!r})")
            continue
        texts = [str(time).replace(",", ".") for time in (start, end)]
        try:
            # The published times are in milliseconds.
            start_s, end_s = (float(text) / 1000 for text in texts)
        except ValueError:
            ledger.add("events without a time, left out", f"{place} ({start!r}-{end!r})")
            continue
        if texts != [str(start), str(end)]:
            ledger.add("events with a decimal comma, repaired", place)
        yield place, Annotation(start_s=start_s, end_s=end_s, kind=EVENT_KINDS[kind])


def _annotations(folder: Path) -> Iterator[tuple[Path, str]]:
    """Every annotation file with its official split, given by the names of its folders."""
    for root in _annotation_folders(folder, _DEPTH):
        for path in visible_files(root.rglob("*.json"), {".json"}):
            # From the folder of annotations down: those above it need not name a split.
            names = " ".join(path.relative_to(root.parent).parts[:-1]).lower()
            yield path, _split_of(names)


def _split_of(names: str) -> str:
    if "train" in names:
        return "train"
    # SPRSound's "intra" test has, by design, other recordings of the children trained on.
    if "intra" in names:
        return "test of known patients"
    return "test"


def _annotation_folders(folder: Path, depth: int) -> Iterator[Path]:
    for below in sorted(p for p in folder.iterdir() if p.is_dir()):
        if below.name.endswith("_json"):
            yield below
        elif depth > 1:
            yield from _annotation_folders(below, depth - 1)


def _sound_files(folder: Path, ledger: Ledger) -> dict[str, Path]:
    sound_of: dict[str, Path] = {}
    for path in visible_files(folder.rglob("*_wav/**/*"), SOUND_SUFFIXES):
        if sound_of.setdefault(path.stem, path) != path:
            ledger.add("sounds with the same name as another one, left out", path.name)
    return sound_of
