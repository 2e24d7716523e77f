"""ESC-10 in its published layout: '<nnn> - <name>/<fold>-<clip>-<take>.ogg'."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xai_demo import audio
from xai_demo.audio import spectrogram
from xai_demo.errors import TrainingError
from xai_demo.records import LogMel, Model
from xai_demo.training.augmentation import (
    band_shifted,
    equalised,
    spectrogram_masked,
    stretched,
)
from xai_demo.training.datasets import Dataset, Split, one_hot

if TYPE_CHECKING:
    from xai_demo.records import Floats

AUDIOSET_NAMES = {
    "Dog bark": "Dog",
    "Rain": "Rain",
    "Sea waves": "Waves, surf",
    "Baby cry": "Baby cry, infant cry",
    "Clock tick": "Tick-tock",
    "Person sneeze": "Sneeze",
    "Helicopter": "Helicopter",
    "Chainsaw": "Chainsaw",
    "Rooster": "Crowing, cock-a-doodle-doo",
    "Fire crackling": "Fire",
}
TRAINING_FOLDS = (
    "1",
    "2",
    "3",
)  # the folds that the shipped weights learn from; all others test them
_EXCERPT = 0.5  # of a clip, that training hears at once


def read(data: Path, model: Model) -> Dataset:
    """All clips below `data`, split by fold; raises TrainingError where there are none."""
    return _clip_splitter(data, model)(lambda fold: fold not in TRAINING_FOLDS, TRAINING_FOLDS[-1])


def folds(data: Path, model: Model) -> Iterator[tuple[str, Dataset]]:
    """The clips once for each fold that is there, that fold being the test part; and its name.

    Half of the sources of the fold before it, in a circle, are validation. Raises TrainingError as
    `read` does, or where there are fewer than three.
    """
    split = _clip_splitter(data, model)
    names = sorted({p.name.partition("-")[0] for p in _clips(data)})
    if len(names) < 3:
        raise TrainingError(
            f"{data} holds {len(names)} folds of clips, wanted: at least 3, to learn from, to tune "
            "on and to test on."
        )
    for i, name in enumerate(names):
        yield name, split(name.__eq__, names[i - 1])


def _clip_splitter(data: Path, model: Model) -> Callable[[Callable[[str], bool], str], Dataset]:
    """The clips in memory: (is it a fold to test on, the fold to tune on) -> a data set."""
    spec = model.preprocessing
    if not isinstance(spec, LogMel):
        raise TrainingError(f"{model.name} takes pictures, wanted: a model that takes sounds.")
    files = _clips(data)
    if not files:
        raise TrainingError(
            f"{data} holds no clips, wanted: '001 - Dog bark/1-100032-A.ogg' and so on."
        )
    frames = round(spec.window_s * spec.sample_rate_hz / spec.hop_length) + 1
    mels = np.stack([_mel(path, spec, frames) for path in files])
    names = list(AUDIOSET_NAMES)
    targets = np.array([names.index(_class_name(p)) for p in files])

    def load(i: int, rng: np.random.Generator | None) -> tuple[Floats, Floats]:
        mel = mels[i].astype(np.float32)
        return mel if rng is None else augment(mel, rng), one_hot(
            int(targets[i]), len(model.labels)
        )

    def split(tested: Callable[[str], bool], tuned: str) -> Dataset:
        return Dataset(
            name="esc10",
            labels=model.labels,
            targets=targets,
            groups=tuple("-".join(p.name.split("-")[:2]) for p in files),
            splits=_splits(files, tested, tuned),
            load=load,
        )

    return split


def augment(mel: Floats, rng: np.random.Generator) -> Floats:
    """An excerpt of a clip, at another pace, pitch, level and tone: (mel, frames / 2)."""
    mel = stretched(mel, rng, most=0.2)
    mel = draw_excerpt(mel, rng, frames=round(_EXCERPT * mel.shape[1]))
    mel = band_shifted(equalised(mel, rng, deviation=2.0), rng, most=2)
    louder = (mel + rng.uniform(-6, 6)).astype(np.float32)
    return spectrogram_masked(louder, rng, rows=10, columns=40, fill=float(mel.mean()))


def draw_excerpt(mel: Floats, rng: np.random.Generator, *, frames: int) -> Floats:
    """So many frames of a clip taken as a circle, one of which is likely to be a loud one.

    Much of a clip of one bark is silence, which says nothing of dogs.
    """
    loudness = mel.mean(axis=0) - mel.min() + 1e-3
    chosen = rng.choice(mel.shape[1], p=loudness / loudness.sum())
    start = int(chosen) - int(rng.integers(frames))
    taken: Floats = np.roll(mel, -start, axis=1)[:, :frames]
    return taken


def _clips(data: Path) -> list[Path]:
    return sorted(p for p in data.rglob("*.ogg") if _class_name(p) in AUDIOSET_NAMES)


def _class_name(path: Path) -> str:
    return path.parent.name.partition(" - ")[2]


def _splits(files: list[Path], tested: Callable[[str], bool], tuned: str) -> tuple[Split, ...]:
    """Of the fold to tune on, every second source of each label is validation."""
    sources: dict[str, list[str]] = {}
    for path in files:
        fold, clip = path.name.split("-")[:2]
        of_label = sources.setdefault(path.parent.name, [])
        if fold == tuned and clip not in of_label:
            of_label.append(clip)

    def split(path: Path) -> Split:
        fold, clip = path.name.split("-")[:2]
        if tested(fold):
            return "test"
        held = fold == tuned and sources[path.parent.name].index(clip) % 2
        return "validation" if held else "train"

    return tuple(map(split, files))


def _mel(path: Path, spec: LogMel, frames: int) -> np.ndarray:
    recording = audio.read_audio(path, sample_rate_hz=spec.sample_rate_hz, max_duration_s=60)
    least = round(spec.window_s * spec.sample_rate_hz)
    samples = spectrogram.repeated(recording.samples, least)[:least]
    return spectrogram.network_input(samples, spec)[:, :frames].astype(np.float16)
