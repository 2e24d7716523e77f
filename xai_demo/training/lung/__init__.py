"""The training data of lung models: annotated breathing of several hospitals, synthetic events.

A validation or test sample is one annotated event of a child that the model is not trained on,
alone in a window of the network's length. Training also uses whole windows, as the demo does, the
respiratory cycles of other hospitals, and crackles and wheezes synthesised into real normal
breathing.
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
    """Read all annotated sounds below `data`; raises TrainingError where there are none."""
    from xai_demo.training.lung import classifier_head

    dataset, notes = read_lung_dataset(data, model, progress)
    takes = [recording.take for recording in dataset.recordings]
    return Dataset(
        name=" + ".join(sorted({t.site for t in takes})),
        labels=model.labels,
        targets=np.array([segment.kind for segment in dataset.events]),
        groups=tuple(takes[segment.recording].patient for segment in dataset.events),
        splits=tuple(segment.split for segment in dataset.events),
        load=dataset.load,
        notes=notes,
        finish=partial(classifier_head.fit_classifier, dataset=dataset),
        predict_recordings=partial(classifier_head.predict_recordings, dataset=dataset)
        if dataset.validation_recordings()
        else None,
        # The samples are events alone; training also hears cycles and recordings of other patients.
        extra_groups=tuple(
            take.patient
            for take, split in zip(takes, dataset.splits, strict=True)
            if split != "test"
        ),
    )


def read_lung_dataset(
    data: Path, model: Model, progress: Progress | None = None
) -> tuple[LungDataset, tuple[str, ...]]:
    """Read all annotated sounds below `data`, and the notes on what was left out."""
    spec = sound_spec(model)
    corpus = breathing.read(data)
    # A recording of poor quality has no class; without events, nothing is left to learn.
    takes = [t for t in corpus.takes if t.annotations or t.kind is not None]
    # Before the sounds are read, which takes long: a patient in two splits is refused at once.
    splits = assign_splits(takes)
    recordings = read_spectrograms(takes, spec, progress or (lambda done, doing: None))
    dataset = LungDataset(recordings, splits, spec)
    if not dataset.events:
        raise TrainingError(
            f"{data} contains {len(takes)} sounds but no event or label; annotated sounds are "
            f"needed. {' '.join(corpus.notes)}".rstrip()
        )
    return dataset, corpus.notes


def sound_spec(model: Model) -> LogMel:
    """The model's preprocessing of sounds; raises TrainingError for a model of radiographs."""
    spec = model.preprocessing
    if not isinstance(spec, LogMel):
        raise TrainingError(
            f"{model.name} analyses radiographs; a model that analyses sounds is needed."
        )
    return spec


def assign_splits(takes: list[breathing.Take]) -> list[Split]:
    """SPRSound is split by a hash of the child, ICBHI as published, the manikin by recording.

    All others are for training.

    Without SPRSound, some of ICBHI's training patients become the validation split; without ICBHI
    as well, the others are split by a hash of the patient.
    """
    sites = {take.site for take in takes}
    # SPRSound's bare number: with the site in front, other children would be tested on.
    names = [t.patient.removeprefix("sprsound:") for t in takes]
    hashed = split_groups(names, seed="sprsound")

    def icbhi(i: int) -> Split:
        # Recordings without an official split are not trained on either.
        if takes[i].official_split != "train":
            return "test"
        validates = hashed[i] == "validation" and "sprsound" not in sites
        return "validation" if validates else "train"

    def manikin(i: int) -> Split:
        if takes[i].official_split != "train":
            return "test"
        return "validation" if hashed[i] == "validation" and not has_times else "train"

    has_times = bool(sites - set(WITHOUT_TIMES))
    by_site: dict[str, Callable[[int], Split]] = {
        "sprsound": lambda i: hashed[i],
        "icbhi": icbhi,
        "fraiwan": lambda i: "train" if has_times else hashed[i],
        "manikin": manikin,
        "folders": lambda i: "train" if has_times else hashed[i],
    }
    splits = [by_site[take.site](i) for i, take in enumerate(takes)]
    # ICBHI is split by recording, so its patients have to be checked.
    breathing.check_splits([t.patient for t in takes], splits)
    return splits
