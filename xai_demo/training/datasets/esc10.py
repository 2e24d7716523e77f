"""ESC-10, ten everyday sounds, in its published layout.

Piczak 2015. Files are '<nnn> - <label>/<fold>-<clip>-<take>.ogg'; clips of one source, and so one
number, are all in one fold.
"""

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
    equalise,
    mask_spectrogram,
    shift_bands,
    stretch_time,
)
from xai_demo.training.datasets import Dataset, Split, one_hot

if TYPE_CHECKING:
    from xai_demo.records import Floats

# From ESC-10's classes to the labels of the recipe, which are AudioSet's, in its order.
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
# The folds that the shipped weights are trained on; all others test them.
TRAINING_FOLDS = ("1", "2", "3")
# The share of a clip in one training sample.
_EXCERPT = 0.5


def read(data: Path, model: Model) -> Dataset:
    """Read all clips below `data`, split by fold; raises TrainingError where there are none."""
    return _clip_splitter(data, model)(lambda fold: fold not in TRAINING_FOLDS, TRAINING_FOLDS[-1])


def folds(data: Path, model: Model) -> Iterator[tuple[str, Dataset]]:
    """The name of every fold in `data`, and the clips with that fold as the test split.

    Half of the sources of the preceding fold (of the last one, for the first) are validation.
    Raises TrainingError as `read` does, or where there are fewer than three folds.
    """
    split = _clip_splitter(data, model)
    names = sorted({p.name.partition("-")[0] for p in _clips(data)})
    if len(names) < 3:
        raise TrainingError(
            f"{data} contains {len(names)} folds of clips; at least 3 are needed, to train "
            "on, to tune on and to test on."
        )
    for i, name in enumerate(names):
        yield name, split(name.__eq__, names[i - 1])


def _clip_splitter(data: Path, model: Model) -> Callable[[Callable[[str], bool], str], Dataset]:
    """Read the clips; return a function (is a fold tested on, fold to tune on) -> dataset."""
    spec = model.preprocessing
    if not isinstance(spec, LogMel):
        raise TrainingError(
            f"{model.name} analyses radiographs; a model that analyses sounds is needed."
        )
    files = _clips(data)
    if not files:
        raise TrainingError(
            f"{data} contains no clips; files such as '001 - Dog bark/1-100032-A.ogg' are needed."
        )
    # Frames are centred, so there is one more of them than hops.
    frames = round(spec.window_s * spec.sample_rate_hz / spec.hop_length) + 1
    # Read once, however many folds are made of them: (clips, mel, frames).
    mels = np.stack([_mel(path, spec, frames) for path in files])
    names = list(AUDIOSET_NAMES)
    targets = np.array([names.index(_class_name(p)) for p in files])

    def load(i: int, rng: np.random.Generator | None) -> tuple[Floats, Floats]:
        mel = mels[i].astype(np.float32)
        if rng is not None:
            mel = augment(mel, rng)
        return mel, one_hot(int(targets[i]), len(model.labels))

    def split(is_test_fold: Callable[[str], bool], tuning_fold: str) -> Dataset:
        return Dataset(
            name="esc10",
            labels=model.labels,
            targets=targets,
            # Fold and clip: takes of one source differ only in what follows.
            groups=tuple("-".join(p.name.split("-")[:2]) for p in files),
            splits=_splits(files, is_test_fold, tuning_fold),
            load=load,
        )

    return split


def augment(mel: Floats, rng: np.random.Generator) -> Floats:
    """A random excerpt of a clip at another tempo, pitch, level and tone: (mel, frames / 2)."""
    mel = stretch_time(mel, rng, max_share=0.2)
    mel = draw_excerpt(mel, rng, frames=round(_EXCERPT * mel.shape[1]))
    mel = shift_bands(equalise(mel, rng, deviation=2.0), rng, max_rows=2)
    louder = (mel + rng.uniform(-6, 6)).astype(np.float32)
    return mask_spectrogram(louder, rng, rows=10, columns=40, fill=float(mel.mean()))


def draw_excerpt(mel: Floats, rng: np.random.Generator, *, frames: int) -> Floats:
    """A random excerpt of so many frames that contains a frame drawn in proportion to loudness.

    The clip is treated as circular. Much of a clip of a single bark is silence, which says nothing
    about dogs.
    """
    # Never zero: even a clip of equal levels has frames to draw from.
    loudness = mel.mean(axis=0) - mel.min() + 1e-3
    chosen = rng.choice(mel.shape[1], p=loudness / loudness.sum())
    # The chosen frame may lie anywhere in the excerpt.
    start = int(chosen) - int(rng.integers(frames))
    window: Floats = np.roll(mel, -start, axis=1)[:, :frames]
    return window


def _clips(data: Path) -> list[Path]:
    return sorted(p for p in data.rglob("*.ogg") if _class_name(p) in AUDIOSET_NAMES)


def _class_name(path: Path) -> str:
    return path.parent.name.partition(" - ")[2]


def _splits(
    files: list[Path], is_test_fold: Callable[[str], bool], tuning_fold: str
) -> tuple[Split, ...]:
    """Every second source of each label in the fold to tune on is validation."""
    sources: dict[str, list[str]] = {}
    for path in files:
        fold, clip = path.name.split("-")[:2]
        of_label = sources.setdefault(path.parent.name, [])
        if fold == tuning_fold and clip not in of_label:
            of_label.append(clip)

    def split(path: Path) -> Split:
        fold, clip = path.name.split("-")[:2]
        if is_test_fold(fold):
            return "test"
        is_validation = fold == tuning_fold and sources[path.parent.name].index(clip) % 2
        return "validation" if is_validation else "train"

    return tuple(map(split, files))


def _mel(path: Path, spec: LogMel, frames: int) -> np.ndarray:
    recording = audio.read_audio(path, sample_rate_hz=spec.sample_rate_hz, max_duration_s=60)
    least = round(spec.window_s * spec.sample_rate_hz)
    samples = spectrogram.repeat_to_length(recording.samples, least)[:least]
    # float16 moves a level by at most 1/32 dB, for half the memory.
    return spectrogram.network_input(samples, spec)[:, :frames].astype(np.float16)
