"""ESC-10 in its published layout: '<nnn> - <name>/<fold>-<clip>-<take>.ogg'."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xai_demo import audio, spectrum
from xai_demo.errors import TrainingError
from xai_demo.records import LogMel, Model
from xai_demo.training.augmentation import spectrogram_masked
from xai_demo.training.dataset import DataSet, Split, one_hot

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


def read(data: Path, model: Model) -> DataSet:
    """All clips below `data`, split by fold; raises TrainingError where there are none."""
    spec = model.preprocessing
    if not isinstance(spec, LogMel):
        raise TrainingError(f"{model.name} takes pictures, wanted: a model that takes sounds.")
    files = sorted(p for p in data.rglob("*.ogg") if _class_name(p) in AUDIOSET_NAMES)
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
        if rng is not None:
            mel = np.roll(mel, rng.integers(mel.shape[1]), axis=1) + rng.uniform(-6, 6)
            mel = spectrogram_masked(mel, rng, rows=10, columns=80, fill=float(mel.mean()))
        return mel, one_hot(int(targets[i]), len(model.labels))

    return DataSet(
        name="esc10",
        labels=model.labels,
        targets=targets,
        groups=tuple("-".join(p.name.split("-")[:2]) for p in files),
        splits=tuple(_split(p.name) for p in files),
        load=load,
    )


def _class_name(path: Path) -> str:
    return path.parent.name.partition(" - ")[2]


def _split(file_name: str) -> Split:
    fold, clip = file_name.split("-")[:2]
    if fold == "4":
        return "test"
    return "validation" if fold == "3" and int(clip) % 2 else "train"


def _mel(path: Path, spec: LogMel, frames: int) -> np.ndarray:
    recording = audio.read_audio(path, sample_rate_hz=spec.sample_rate_hz, max_duration_s=60)
    least = round(spec.window_s * spec.sample_rate_hz)
    samples = spectrum.repeated(recording.samples, least)[:least]
    return spectrum.network_input(samples, spec)[:, :frames].astype(np.float16)
