"""SPRSound in its published layout: *_json annotations beside *_wav sounds (wav or flac).

One sample is one annotated event, in a window of the network's length around it. In training half
of the windows are blotted out beyond the event and labelled by it; the other half are left whole,
as the running demo sees them, and labelled by all that can be heard in them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo import audio, spectrum
from xai_demo.errors import TrainingError
from xai_demo.records import LogMel, Model
from xai_demo.training.augmentation import band_shifted, equalised, spectrogram_masked, stretched
from xai_demo.training.dataset import DataSet, one_hot, split_by_group

if TYPE_CHECKING:
    from xai_demo.records import Floats

NORMAL, CRACKLE, WHEEZE, BOTH = range(4)
CLASSES = {
    "Normal": NORMAL,
    "Fine Crackle": CRACKLE,
    "Coarse Crackle": CRACKLE,
    "Wheeze": WHEEZE,
    "Rhonchi": WHEEZE,
    "Stridor": WHEEZE,
    "Wheeze+Crackle": BOTH,
}
_AUDIBLE_S = 0.15  # an event counts in a window that holds this much of it
_BOTH_SHARE = 0.15  # of the crackles in training are laid over a wheeze


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """One event of one recording, in frames."""

    recording: int
    start: int
    end: int
    kind: int


class Windows:
    """Windows around annotated events, from log-mel spectrograms held in memory."""

    def __init__(self, mels: list[np.ndarray], events: list[Annotation], frames: int, rate: float):
        self.mels, self.events, self.frames, self.frame_rate_hz = mels, events, frames, rate
        self.by_recording: dict[int, list[Annotation]] = {}
        for event in events:
            self.by_recording.setdefault(event.recording, []).append(event)

    def load(
        self, i: int, rng: np.random.Generator | None, wheezes: np.ndarray
    ) -> tuple[Floats, Floats]:
        """The window around event `i`; with an rng varied, and perhaps with a wheeze laid over."""
        event = self.events[i]
        if rng is None:
            return self._window(event, 0, blot=True), one_hot(event.kind, 4)
        span = self.frames - (event.end - event.start)
        shift = int(rng.integers(-abs(span) // 2, abs(span) // 2 + 1))
        blot = rng.random() < 0.5
        mel, kind = self._window(event, shift, blot=blot), event.kind
        if not blot:
            kind = self._heard(event, shift)
        if kind == CRACKLE and len(wheezes) and rng.random() < _BOTH_SHARE:
            other = self._window(self.events[int(rng.choice(wheezes))], 0, blot=True)
            mel, kind = _laid_over(mel, other), BOTH
        mel = stretched(band_shifted(mel, rng, most=2), rng, most=0.1)
        mel = equalised(mel, rng, deviation=0.25) + rng.normal(0, 0.15, mel.shape).astype("f4")
        mel = spectrogram_masked(mel, rng, rows=8, columns=20, fill=0.0)
        return mel, one_hot(kind, 4)

    def _first(self, event: Annotation, shift: int) -> int:
        return (event.start + event.end) // 2 - self.frames // 2 + shift

    def _window(self, event: Annotation, shift: int, *, blot: bool) -> Floats:
        mel = self.mels[event.recording]
        first = self._first(event, shift)
        at = np.arange(first, first + self.frames)
        window = mel[:, np.clip(at, 0, mel.shape[1] - 1)].astype(np.float32)
        outside = (at < 0) | (at >= mel.shape[1])
        if blot:
            outside |= (at < event.start) | (at >= event.end)
        window[:, outside] = 0  # the recording's mean
        return window

    def _heard(self, event: Annotation, shift: int) -> int:
        first = self._first(event, shift)
        least = _AUDIBLE_S * self.frame_rate_hz
        kinds = {
            other.kind
            for other in self.by_recording[event.recording]
            if min(other.end, first + self.frames) - max(other.start, first) >= least
        } - {NORMAL}
        if not kinds:
            return NORMAL
        return kinds.pop() if len(kinds) == 1 else BOTH


def read(data: Path, model: Model) -> DataSet:
    """All events below `data`; raises TrainingError where there are none."""
    spec = model.preprocessing
    if not isinstance(spec, LogMel):
        raise TrainingError(f"{model.name} takes pictures, wanted: a model that takes sounds.")
    sounds = {p.stem: p for p in data.rglob("*") if p.suffix in {".wav", ".flac"}}
    annotations = sorted(data.rglob("*.json"))
    if not annotations or not sounds:
        raise TrainingError(
            f"{data} holds {len(annotations)} annotations and {len(sounds)} sounds, "
            "wanted: train_json/*.json and train_wav/*.wav."
        )
    rate = spec.sample_rate_hz / spec.hop_length
    mels: list[np.ndarray] = []
    events: list[Annotation] = []
    patients: list[str] = []
    silent = 0
    for path in annotations:
        found = _events(path)
        if not found or path.stem not in sounds:
            silent += 1
            continue
        recording = audio.read_audio(
            sounds[path.stem], sample_rate_hz=spec.sample_rate_hz, max_duration_s=600
        )
        for start_s, end_s, kind in found:
            start, end = round(start_s * rate), max(round(end_s * rate), round(start_s * rate) + 2)
            events.append(Annotation(recording=len(mels), start=start, end=end, kind=kind))
            patients.append(path.stem.split("_")[0])
        mels.append(spectrum.network_input(recording.samples, spec).astype(np.float16))
    splits = split_by_group(patients, seed="sprsound")
    windows = Windows(mels, events, round(spec.window_s * rate), rate)
    targets = np.array([e.kind for e in events])
    wheezes = np.flatnonzero((targets == WHEEZE) & (np.array(splits) == "train"))
    return DataSet(
        name="sprsound",
        labels=model.labels,
        targets=targets,
        groups=tuple(patients),
        splits=splits,
        load=lambda i, rng: windows.load(i, rng, wheezes),
        notes=(f"{silent} recordings have no event or no sound and are left out.",),
    )


def _events(path: Path) -> list[tuple[float, float, int]]:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        return [
            (float(e["start"]) / 1000, float(e["end"]) / 1000, CLASSES[e["type"]])
            for e in content["event_annotation"]
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"{path.name} is no SPRSound annotation ({error!r}), wanted: event_annotation with "
            f"start, end and type, one of {', '.join(CLASSES)}."
        ) from error


def _laid_over(a: Floats, b: Floats) -> Floats:
    """Two standardised decibel spectrograms heard together; 12 dB is about one deviation."""
    bels = 1.2
    power = 10 ** (bels * a) + 10 ** (bels * b)
    mixed: Floats = (np.log10(power) / bels).astype(np.float32)
    return mixed
