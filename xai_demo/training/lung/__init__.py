"""What lung models learn from: annotated breathing of several hospitals, and synthesised events.

One sample of validation and test is one annotated event of a child that training never heard, alone
in a window of the network's length. Training also hears whole windows, as the demo does, the
cycles of other hospitals, and crackles and wheezes synthesised into real normal breathing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from xai_demo.errors import TrainingError
from xai_demo.records import LogMel, Model, Progress
from xai_demo.training.datasets import (
    Dataset,
    Split,
    breathing,
    split_groups,
)
from xai_demo.training.lung.samples import WITHOUT_TIMES, LungDataset
from xai_demo.training.lung.windows import read_spectrograms


def read(data: Path, model: Model, progress: Progress | None = None) -> Dataset:
    """Everything annotated below `data`; raises TrainingError where there is nothing."""
    from xai_demo.training.lung import classifier_head

    lessons, notes = read_lung_dataset(data, model, progress)
    takes = [sound.take for sound in lessons.sounds]
    return Dataset(
        name=" + ".join(sorted({t.site for t in takes})),
        labels=model.labels,
        targets=np.array([p.kind for p in lessons.events]),
        groups=tuple(lessons.sounds[p.recording].take.patient for p in lessons.events),
        splits=tuple(p.split for p in lessons.events),
        load=lessons.load,
        notes=notes,
        finish=partial(classifier_head.fit_classifier, lessons=lessons),
        recordings=partial(classifier_head.predict_recordings, lessons=lessons)
        if any(lessons.validated())
        else None,
        heard=tuple(t.patient for t, s in zip(takes, lessons.splits, strict=True) if s != "test"),
    )


def read_lung_dataset(
    data: Path, model: Model, progress: Progress | None = None
) -> tuple[LungDataset, tuple[str, ...]]:
    """What lies below `data`, heard, and what is to be said about it."""
    spec = sound_spec(model)
    corpus = breathing.read(data)
    takes = [t for t in corpus.takes if t.annotated or t.kind is not None]
    splits = assign_splits(takes)
    sounds = read_spectrograms(takes, spec, progress or (lambda done, doing: None))
    lessons = LungDataset(sounds, splits, spec)
    if not lessons.events:
        raise TrainingError(
            f"{data} holds {len(takes)} sounds without an event or a label, wanted: annotated "
            f"ones. {' '.join(corpus.notes)}".rstrip()
        )
    return lessons, corpus.notes


def sound_spec(model: Model) -> LogMel:
    """How the model takes sounds; raises TrainingError where it takes pictures."""
    spec = model.preprocessing
    if not isinstance(spec, LogMel):
        raise TrainingError(f"{model.name} takes pictures, wanted: a model that takes sounds.")
    return spec


def assign_splits(takes: list[breathing.Take]) -> list[Split]:
    """SPRSound by a hash of the child, ICBHI by its official split, the others all for training.

    Where there is no SPRSound to validate on, some of ICBHI's patients for training are taken for
    it; where there is no ICBHI either, the others are split by a hash of the patient.
    """
    sites = {take.site for take in takes}
    names = [t.patient.removeprefix("sprsound:") for t in takes]
    hashed = split_groups(names, seed="sprsound")

    def icbhi(i: int) -> Split:
        if takes[i].official_split != "train":
            return "test"
        tuned = hashed[i] == "validation" and "sprsound" not in sites
        return "validation" if tuned else "train"

    timed = bool(sites - set(WITHOUT_TIMES))
    by_site: dict[str, Callable[[int], Split]] = {
        "sprsound": lambda i: hashed[i],
        "icbhi": icbhi,
        "fraiwan": lambda i: "train" if timed else hashed[i],
        "folders": lambda i: "train" if timed else hashed[i],
    }
    splits = [by_site[take.site](i) for i, take in enumerate(takes)]
    breathing.check_splits([t.patient for t in takes], splits)
    return splits
