"""The records that modules pass to one another: frozen, keyword-only, plain values and arrays.

`Model` is what `config.json` beside a model's weights says: its field names are that file's keys.
`Report.to_json` is the JSON report that the command line and the endpoints return. Both are read by
other people's programs, so a field that is written under its own name keeps that name.
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
# On whom a network was trained; "any": on adults and on children.
Patients = Literal["adults", "children", "any"]
# Whose radiograph it is; "auto": what the file says, else what the picture looks like.
Age = Literal["auto", "adult", "child"]
AGES: tuple[Age, ...] = ("auto", "adult", "child")
# In place of a model's name: the network that fits the patient.
AUTO_MODEL = "auto"
# What happens to a radiograph that seems inverted or rotated, or no frontal chest X-ray at all.
GateMode = Literal["checked", "corrected", "as-is"]
GATE_MODES: tuple[GateMode, ...] = ("checked", "corrected", "as-is")
# Receives the fraction done, 0..1, and the current step.
Progress = Callable[[float, str], None]
TASKS: tuple[Task, ...] = ("stethoscope", "chest_xray", "audioset")
DISCLAIMER = "For education and research. Not a medical device."


@dataclass(frozen=True, slots=True, kw_only=True)
class LogMel:
    """How a recording becomes a network's input: a log-mel spectrogram in decibels."""

    sample_rate_hz: int
    n_fft: int
    win_length: int
    hop_length: int
    n_mels: int
    f_min_hz: float
    f_max_hz: float
    window_s: float  # the length of one input
    window_hop_s: float
    # The shortest input; shorter recordings are repeated up to it.
    min_s: float
    # Floor, in decibels below the recording's maximum.
    top_db: float | None = None
    # To mean 0 and standard deviation 1 over the recording.
    standardise: bool = False
    # See `audio.front_ends.FRONT_ENDS`.
    front_end: Literal["librosa", "htk", "efficientat", "yamnet", "kaldi"] = "librosa"
    # Every window is padded to this many; None: no padding.
    frames: int | None = None
    # The network's input is (decibels - mean_db) / deviation_db.
    mean_db: float = 0.0
    deviation_db: float = 1.0
    # Band-pass filter before it: see `audio.filters`.
    band_hz: tuple[float, float] | None = None
    denoise: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Raster:
    """How an image becomes a network's input: one grey channel, 0..1, then (x - mean) / std."""

    height: int
    width: int
    mean: float
    std: float
    crop: Literal["squash", "centre"] = "squash"
    # Of adaptive histogram equalisation (CLAHE); None: off.
    contrast_limit: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A measured figure with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Everything about a model except its weights: the content of its `config.json`."""

    name: str
    title: str
    task: Task
    architecture: str
    labels: tuple[str, ...]
    preprocessing: LogMel | Raster
    activation: Literal["softmax", "sigmoid"]
    licence: str
    # What it was trained on, and how that was split.
    data: str
    citation: str
    temperature: float = 1.0
    operating_points: Mapping[str, float] = field(default_factory=dict)
    # Of independent labels: none is listed where `decision.any_label`, the probability of any, is
    # lower. None: each label has its operating point alone.
    any_label_point: float | None = None
    # Some published networks have an operating point other than 0.5 for each label: probabilities
    # are rescaled so that this value becomes 0.5.
    rescaled_at: Mapping[str, float] = field(default_factory=dict)
    # Independent labels are averaged over so many windows in a row before their maximum counts.
    averaged_windows: int = 1
    # A lower top probability gives the answer "uncertain".
    uncertain_below: float | None = None
    # So does a smaller lead over the second label.
    uncertain_margin: float | None = None
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    # For `metrics`: how many samples of how many patients.
    measured_on: str = ""
    sha256: str | None = None  # of model.safetensors
    normal_label: str | None = None  # the label that means "no finding"
    # `operating_points` and `uncertain_margin` for probabilities pooled over several windows.
    recording_points: Mapping[str, float] = field(default_factory=dict)
    recording_margin: float | None = None
    event_points: Mapping[str, float] = field(default_factory=dict)  # of frames: see `decision`
    # If another one than the default localises best.
    usual_explainer: str | None = None
    # A limitation that is shown with every answer.
    caveat: str = ""
    # On whom it was trained; None: not a matter of age.
    patients: Patients | None = None
    # One sentence: for whom and what it is meant, and for whom it is not.
    meant_for: str = ""
    # What was left out of the training data, counted and named.
    notes: tuple[str, ...] = ()

    def to_config(self) -> dict[str, Any]:
        """The content of `config.json`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Model:
        """Read what `to_config` wrote; raises KeyError, TypeError or ValueError otherwise."""
        values = dict(config)
        kind = Raster if values["task"] == "chest_xray" else LogMel
        spec = dict(values["preprocessing"])
        # JSON has no tuples.
        if spec.get("band_hz"):
            spec["band_hz"] = tuple(spec["band_hz"])
        values["preprocessing"] = kind(**spec)
        values["labels"] = tuple(values["labels"])
        values["notes"] = tuple(values.get("notes", ()))
        values["metrics"] = {k: Metric(**v) for k, v in values.get("metrics", {}).items()}
        return cls(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A recording as read from a file: mono, at the requested sample rate."""

    samples: Floats  # (time,), -1..1
    sample_rate_hz: int
    # About the file, for the report's `input`.
    facts: Mapping[str, Any]
    warnings: tuple[str, ...] = ()
    # Silence, a constant, or channels that cancel each other: there is nothing to explain.
    is_silent: bool = False

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.sample_rate_hz


@dataclass(frozen=True, slots=True, kw_only=True)
class Radiograph:
    """A chest X-ray as read from a file: one grey channel."""

    # (height, width), 0..1, dense tissue is bright.
    pixels: Floats
    facts: Mapping[str, Any]
    warnings: tuple[str, ...] = ()
    # Why an answer would not be reliable; empty if nothing is wrong.
    doubt: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The probability of one label."""

    label: str
    probability: float
    # Of test-time augmentation; None: off.
    interval: tuple[float, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """One of the report's `predictions`."""
        known = {"label": self.label, "probability": round(self.probability, 6)}
        if self.interval is None:
            return known
        return known | {"interval": [round(end, 6) for end in self.interval]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The answer: one label, or None with the reason why there is none."""

    label: str | None
    probability: float
    reason: str
    kind: Literal["answer", "uncertain", "nothing found", "no answer"] = "answer"
    # Independent labels at or above their operating points.
    findings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The heatmap of one label, with its peak."""

    explainer: str
    target: str
    probability: float
    layer: str
    # (rows, columns) of the explained layer, 0..1; row 0 of a sound is the lowest frequency.
    values: Floats
    # `values` at the size of the network's input, 0..1.
    heatmap: Floats
    # time_s and frequency_hz, or x and y as fractions of the image.
    peak: Mapping[str, float]
    # Result of the masking test; None: off.
    faithfulness: Mapping[str, Any] | None = None
    # Extra forward passes that it took; None: not counted.
    passes: int | None = None
    # Of the heatmap the share inside the lungs, and of the image; None: not a film, or not found.
    inside_lungs: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """One of the report's `explanations`: `values`, without the large heatmap."""
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
            "inside_lungs": None if self.inside_lungs is None else dict(self.inside_lungs),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An interval of a recording in which a label was detected."""

    label: str
    start_s: float
    end_s: float
    probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInUse:
    """The weights that gave the answer, and what they ran on."""

    name: str
    architecture: str
    source: str  # bundled, cache, hub, release, wheel or local
    repo_id: str | None
    revision: str | None
    sha256: str
    backend: str  # torch or onnx
    device: str  # cpu or cuda
    # In which the features are computed.
    precision: str = "float32"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The complete result of one analysis; `to_json` is the report that callers read."""

    task: Task
    file: str
    model: ModelInUse
    input: Mapping[str, Any]
    predictions: tuple[Prediction, ...]  # most probable first
    decision: Decision
    explanations: tuple[Explanation, ...]  # the requested label first
    events: tuple[Event, ...]
    timing_ms: Mapping[str, float]
    warnings: tuple[str, ...]
    calibration: Mapping[str, Any] = field(default_factory=dict)
    # How the intervals were computed; None: off.
    uncertainty: Mapping[str, Any] | None = None
    # A sentence on a better model that is not installed.
    suggestion: str = ""

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
            "suggestion": self.suggestion,
            "disclaimer": DISCLAIMER,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The image that the heatmap is drawn over, and what its axes mean."""

    # (rows, columns) grey, row 0 at the top.
    pixels: Pixels
    duration_s: float | None = None  # spectrogram: the width in seconds
    # Spectrogram: centre of each row, lowest first.
    row_frequencies_hz: tuple[float, ...] = ()
    # Spectrogram: the levels of black and white.
    decibels: tuple[float, float] | None = None
    # Of the lungs, as points (x, y) in fractions of the image; empty: not a film, or not found.
    lung_outlines: tuple[tuple[tuple[float, float], ...], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """The network's probabilities for each window of a recording."""

    starts_s: tuple[float, ...]
    ends_s: tuple[float, ...]
    labels: tuple[str, ...]
    probabilities: Floats  # (windows, labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """A report with its images and sounds."""

    report: Report
    view: View
    sounds: Mapping[str, Floats] = field(default_factory=dict)  # original, explanation, remainder
    sample_rate_hz: int | None = None
    timeline: Timeline | None = None  # recordings only
    # After each step of the signal path.
    stages: Mapping[str, Floats] = field(default_factory=dict)
    # None: the one that the catalogue has under the report's name.
    model: Model | None = None
