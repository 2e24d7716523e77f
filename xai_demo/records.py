"""What travels between modules: frozen, keyword-only records of plain values and arrays.

What the makers of a network say that it answers for a clip of theirs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float32]
    Pixels: TypeAlias = NDArray[np.uint8]

Task = Literal["stethoscope", "chest_xray", "audioset"]
GateMode = Literal["checked", "corrected", "as-is"]  # what becomes of one that the gate doubts
GATE_MODES: tuple[GateMode, ...] = ("checked", "corrected", "as-is")
Progress = Callable[[float, str], None]  # fraction done 0..1, what is being done
TASKS: tuple[Task, ...] = ("stethoscope", "chest_xray", "audioset")
DISCLAIMER = "For education and research. Not a medical device."


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Where one weights file lives on the Hub, and how to know it is that file."""

    repo_id: str
    filename: str
    revision: str | None  # a full commit hash; None: still open, taken on the first fetch
    sha256: str | None  # None: still open
    size_bytes: int | None = None

    @property
    def is_known(self) -> bool:
        """Whether it is certain which file is wanted; a pickle is known by its bytes alone."""
        if self.sha256 is not None:
            return True
        return self.revision is not None and self.filename.endswith(".safetensors")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogMel:
    """How a recording becomes the picture a network sees: a log-mel spectrogram in decibels."""

    sample_rate_hz: int
    n_fft: int
    win_length: int
    hop_length: int
    n_mels: int
    f_min_hz: float
    f_max_hz: float
    window_s: float  # what the network sees at once
    window_hop_s: float
    min_s: float  # the shortest sound the network takes; shorter ones are repeated up to it
    top_db: float | None = None  # floor, in decibels below the recording's maximum
    standardise: bool = False  # to mean 0, deviation 1 over the recording
    front_end: Literal["librosa", "kaldi"] = "librosa"  # see `spectrum.FRONT_ENDS`
    frames: int | None = None  # of every window, padded up to it; None: as many as it has
    mean_db: float = 0.0  # what the network sees is (decibels - mean_db) / deviation_db
    deviation_db: float = 1.0
    band_hz: tuple[float, float] | None = None  # the signal path before it: see `filtering`
    denoise: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Raster:
    """How a picture becomes what a network sees: one grey channel, 0..1, then (x - mean) / std."""

    height: int
    width: int
    mean: float
    std: float
    crop: Literal["squash", "centre"] = "squash"
    contrast_limit: float | None = None  # of an adaptive histogram equalisation first; None: none


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A measured figure with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Everything about a model but its weights: what `config.json` in its directory says."""

    name: str
    title: str
    task: Task
    architecture: str
    labels: tuple[str, ...]
    preprocessing: LogMel | Raster
    activation: Literal["softmax", "sigmoid"]
    licence: str
    data: str  # on what it was trained, and how the split was made
    citation: str
    temperature: float = 1.0
    operating_points: Mapping[str, float] = field(default_factory=dict)
    # Probabilities as published: each is rescaled so that this value of it becomes 0.5.
    rescaled_at: Mapping[str, float] = field(default_factory=dict)
    uncertain_below: float | None = None  # a top probability under this is answered "uncertain"
    uncertain_margin: float | None = None  # so is a lead over the second label smaller than this
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    measured_on: str = ""  # how many samples of how many people, for `metrics`
    sha256: str | None = None  # of model.safetensors
    normal_label: str | None = None  # the label that means "nothing found"
    recording_points: Mapping[str, float] = field(default_factory=dict)  # of several windows pooled
    recording_margin: float | None = None  # as uncertain_margin, of several windows pooled
    event_points: Mapping[str, float] = field(default_factory=dict)  # of moments, see `moments`
    usual_explainer: str | None = None  # where another than the default points best
    caveat: str = ""  # what whoever gets an answer of it must know; said with every one
    notes: tuple[str, ...] = ()  # what of the data was left out of the training, counted and named

    def to_config(self) -> dict[str, Any]:
        """The content of `config.json`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Model:
        """What `to_config` wrote; raises KeyError, TypeError or ValueError on anything else."""
        values = dict(config)
        kind = Raster if values["task"] == "chest_xray" else LogMel
        spec = dict(values["preprocessing"])
        if spec.get("band_hz"):
            spec["band_hz"] = tuple(spec["band_hz"])
        values["preprocessing"] = kind(**spec)
        values["labels"] = tuple(values["labels"])
        values["notes"] = tuple(values.get("notes", ()))
        values["metrics"] = {k: Metric(**v) for k, v in values.get("metrics", {}).items()}
        return cls(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A sound as read: mono, at the rate asked for."""

    samples: Floats  # (time,), -1..1
    sample_rate_hz: int
    facts: Mapping[str, Any]  # for the report's `input`: as the file had it
    warnings: tuple[str, ...] = ()

    @property
    def duration_s(self) -> float:
        """How long it lasts."""
        return len(self.samples) / self.sample_rate_hz


@dataclass(frozen=True, slots=True, kw_only=True)
class Radiograph:
    """A picture as read: one grey channel."""

    pixels: Floats  # (height, width), 0..1, bright is dense
    facts: Mapping[str, Any]
    warnings: tuple[str, ...] = ()
    doubt: str = ""  # why no answer should be believed; empty if it may be


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a network gives one label."""

    label: str
    probability: float
    interval: tuple[float, float] | None = None  # see `uncertainty`; None: not asked

    def to_json(self) -> dict[str, Any]:
        """One of the report's `predictions`."""
        known = {"label": self.label, "probability": round(self.probability, 6)}
        if self.interval is None:
            return known
        return known | {"interval": [round(end, 6) for end in self.interval]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The answer in one word, None where there is none; `reason` says why."""

    label: str | None
    probability: float
    reason: str
    kind: Literal["answer", "uncertain", "nothing found", "no answer"] = "answer"
    findings: tuple[str, ...] = ()  # independent labels at or above their operating points


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Where the network looked for one label."""

    explainer: str
    target: str
    probability: float
    layer: str
    values: (
        Floats  # (rows, columns) of the explained layer, 0..1; sound: row 0 is the lowest frequency
    )
    heatmap: Floats  # the same at the size of the network's input, 0..1
    peak: Mapping[str, float]  # time_s and frequency_hz, or x and y as fractions of the picture
    faithfulness: Mapping[str, Any] | None = None  # what hiding the heat does; None: not asked
    passes: int | None = None  # windows sent through the network for it; None: not counted

    def to_json(self) -> dict[str, Any]:
        """One of the report's `explanations`: the grid, not the large heat map."""
        return {
            "explainer": self.explainer,
            "target": self.target,
            "probability": round(self.probability, 6),
            "layer": self.layer,
            "grid": list(self.values.shape),
            "values": [[round(float(v), 5) for v in row] for row in self.values],
            "peak": {k: round(v, 4) for k, v in self.peak.items()},
            "faithfulness": None if self.faithfulness is None else dict(self.faithfulness),
            "passes": self.passes,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A stretch of a recording in which a label was found."""

    label: str
    start_s: float
    end_s: float
    probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInUse:
    """Which weights answered, and on what."""

    name: str
    architecture: str
    source: str  # bundled, cache, hub or local
    repo_id: str | None
    revision: str | None
    sha256: str
    backend: str  # torch or onnx
    device: str  # cpu or cuda
    precision: str = "float32"  # of the features' sums


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One answer, whole; `to_json` is the contract's report."""

    task: Task
    file: str
    model: ModelInUse
    input: Mapping[str, Any]
    predictions: tuple[Prediction, ...]  # most probable first
    decision: Decision
    explanations: tuple[
        Explanation, ...
    ]  # the one asked for first, then other labels of the same pass
    events: tuple[Event, ...]
    timing_ms: Mapping[str, float]
    warnings: tuple[str, ...]
    calibration: Mapping[str, Any] = field(default_factory=dict)
    uncertainty: Mapping[str, Any] | None = None  # how the intervals were made; None: not asked

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values: finite numbers, strings, lists and dictionaries."""
        return {
            "task": self.task,
            "file": self.file,
            "model": dataclasses.asdict(self.model),
            "input": dict(self.input),
            "predictions": [p.to_json() for p in self.predictions],
            "decision": {
                "label": self.decision.label,
                "probability": self.decision.probability,
                "reason": self.decision.reason,
            },
            "findings": list(self.decision.findings),
            "calibration": dict(self.calibration),
            "uncertainty": None if self.uncertainty is None else dict(self.uncertainty),
            "explanations": [e.to_json() for e in self.explanations],
            "events": [dataclasses.asdict(e) for e in self.events],
            "timing_ms": {k: round(v, 2) for k, v in self.timing_ms.items()},
            "warnings": list(self.warnings),
            "disclaimer": DISCLAIMER,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The picture that heat is laid over, with what its axes mean."""

    pixels: Pixels  # (rows, columns) grey, row 0 at the top of the drawing
    duration_s: float | None = None  # spectrogram: the width in seconds
    row_frequencies_hz: tuple[float, ...] = ()  # spectrogram: centre of each row, lowest first
    decibels: tuple[float, float] | None = None  # spectrogram: levels drawn as black and white


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """What the network made of a recording, window by window."""

    starts_s: tuple[float, ...]
    ends_s: tuple[float, ...]
    labels: tuple[str, ...]
    probabilities: Floats  # (windows, labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """A report with the pictures and sounds that belong to it."""

    report: Report
    view: View
    sounds: Mapping[str, Floats] = field(default_factory=dict)  # original, explanation, remainder
    sample_rate_hz: int | None = None
    timeline: Timeline | None = None  # recordings only
    stages: Mapping[str, Floats] = field(default_factory=dict)  # after each step of the signal path
    model: Model | None = None  # which answered; None: the catalogue's of the report's name


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedAnswer:
    """Some probabilities of one clip, and where both are from."""

    clip: str  # file name
    where: str  # a person finds the clip there
    probabilities: Mapping[str, float]
    tolerance: float
    sha256: str | None = None  # of the clip; None: not known
    url: str | None = (
        None  # of the clip itself, where its sha256 is known; None: a person brings it
    )
