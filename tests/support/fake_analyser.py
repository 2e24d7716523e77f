"""A fake analyser for the tests of the page: no network, no weights, no waiting."""

from __future__ import annotations

import shutil
import time
import wave
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from xai_demo.analysis.choices import before_reading
from xai_demo.analysis.reading import write_deidentified
from xai_demo.analysis.request import AnalysisRequest
from xai_demo.decision import age_mismatch
from xai_demo.errors import (
    AnnotationError,
    CancelledError,
    CheckpointUnavailableError,
    UnknownNameError,
    UnreadableFileError,
)
from xai_demo.networks import ARCHITECTURES
from xai_demo.records import (
    Age,
    Analysis,
    Decision,
    Event,
    Explanation,
    GateMode,
    LogMel,
    Metric,
    Model,
    ModelInUse,
    Prediction,
    Progress,
    Radiograph,
    Raster,
    Report,
    Task,
    Timeline,
    View,
)

if TYPE_CHECKING:
    from xai_demo.records import Floats

SOUND = LogMel(
    sample_rate_hz=16000,
    n_fft=1024,
    win_length=1024,
    hop_length=160,
    n_mels=64,
    f_min_hz=50,
    f_max_hz=4000,
    window_s=8,
    window_hop_s=8,
    min_s=0.5,
)
SHA = "0123456789abcdef" * 4


def model(name: str, title: str, task: Task, labels: tuple[str, ...], **more: object) -> Model:
    return Model(
        name=name,
        title=title,
        task=task,
        architecture="cnn14" if "cnn14" in name else "resnet18",
        labels=labels,
        preprocessing=Raster(height=224, width=224, mean=0.5, std=0.25)
        if task == "chest_xray"
        else SOUND,
        activation="softmax" if len(labels) < 5 else "sigmoid",
        licence="MIT",
        data="Made-up recordings of 40 persons, split by person.",
        citation="Nobody et al. 2026",
        operating_points=dict.fromkeys(labels[1:4], 0.4),
        metrics={
            "auroc": Metric(value=0.912, low=0.89, high=0.934),
            "sensitivity": Metric(value=0.81, low=0.77, high=0.85),
        },
        sha256=SHA,
        **more,  # type: ignore[arg-type]
    )


SOUNDS = tuple(f"Everyday sound {n}" for n in range(1, 528))
MODELS = (
    model(
        "lung-resnet18",
        "Lung sounds, ResNet-18",
        "stethoscope",
        ("normal", "crackle", "wheeze", "both"),
        normal_label="normal",
    ),
    model(
        "pneumonia-resnet18",
        "Pneumonia, ResNet-18",
        "chest_xray",
        ("Normal", "Pneumonia"),
        normal_label="Normal",
    ),
    model("big-cnn14", "PANNs Cnn14", "audioset", SOUNDS),
    model(
        "everyday-cnn6",
        "Everyday sounds, Cnn6",
        "audioset",
        ("Rain", "Dog", "Rooster", "Sea waves", "Chainsaw", "Fire", "Helicopter", "Sneeze"),
    ),
    model(
        "findings-resnet18",
        "Findings, ResNet-18",
        "chest_xray",
        ("Effusion", "Mass", "Nodule", "Infiltration", "Pleural_Thickening", "Hernia"),
    ),
)


@dataclass
class FakeHub:
    """The part of a hub that the page uses, with the models above; `big-cnn14` is not available."""

    absent: frozenset[str] = frozenset({"big-cnn14"})
    own_models: bool = True

    def names(self, task: Task | None = None) -> tuple[str, ...]:
        return tuple(m.name for m in MODELS if task in (None, m.task))

    def model(self, name: str) -> Model:
        for each in MODELS:
            if each.name == name:
                return each
        raise UnknownNameError("model", name, self.names())

    def is_available(self, name: str) -> bool:
        return name not in self.absent

    def default_model(self, task: Task) -> str:
        for name in self.names(task):
            if self.is_available(name):
                return name
        raise CheckpointUnavailableError(f"No model for {task} is here; wanted: weights.")

    def kinds(self) -> dict[str, str]:
        return {m.name: ARCHITECTURES[m.architecture].kind for m in MODELS}

    def describe(self, name: str) -> dict[str, object]:
        each = self.model(name)
        return {
            "name": name,
            "title": each.title,
            "task": each.task,
            "labels": list(each.labels),
            "available": self.is_available(name),
        }


@dataclass
class FakeAnalyser:
    """Answers by the name of the file: "silence", "uncertain", "refuse", "break" or any other.

    "long" works and reports progress until it is cancelled; `stopped` lists such files. `calls`
    records every request with the name of its file, and `lives` the length and rate of live sound.
    """

    hub: FakeHub = field(default_factory=FakeHub)
    calls: list[dict[str, object]] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    delay_s: float = 0.0
    lives: list[tuple[int, int]] = field(default_factory=list)

    def warm_up(self) -> None:
        """Do nothing."""

    def analyse(
        self,
        request: AnalysisRequest,
        path: str | Path,
        *,
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
        source: None = None,
    ) -> Analysis:
        name = request.name or Path(path).name
        cycles = request.cycles and (request.cycles_name or Path(request.cycles).name)
        choices = {field.name: getattr(request, field.name) for field in fields(request)}
        self.calls.append({"file": name, **choices, "cycles": cycles})
        if "long" in name:
            self.work_on(name, progress, cancelled)
        for step, words in enumerate(("Reading the file", "Predicting", "Explaining")):
            if progress:
                progress(step / 3, words)
            time.sleep(self.delay_s / 3)
        if "refuse" in name or name.endswith(".txt"):
            raise UnreadableFileError(
                f"{name} is a text file, wanted: a WAV, FLAC, Ogg or MP3 recording."
            )
        if "break" in name:
            raise ZeroDivisionError("secret detail")
        named = before_reading(request, self.hub).model
        chosen = self.hub.model(named or self.hub.default_model(request.task))
        if not self.hub.is_available(chosen.name):
            raise CheckpointUnavailableError(
                f"The weights of {chosen.name} are not here; wanted: `python -m xai_demo fetch`."
            )
        if request.target is not None and request.target not in chosen.labels:
            raise UnknownNameError("label", request.target, chosen.labels[:10])
        if cycles and "bad" in cycles:
            raise AnnotationError(f"{cycles} holds no cycle; wanted: lines of four.")
        explainer = request.explainer or "Grad-CAM++"
        answered = answer(chosen, name, explainer, request.target)
        return gated(aged(answered, chosen, request.age), request.film)

    def read(self, request: AnalysisRequest, path: str | Path, **_options: object) -> None:
        """Nothing: the answer depends on the name alone."""

    def deidentify(self, path: str | Path, *, name: str) -> bytes | None:
        """As the real one does it."""
        return write_deidentified(Path(path), name=name)

    def radiograph(self, path: str | Path, *, name: str | None = None) -> Radiograph:
        """The radiograph below; "inverted" in the name is doubtful and "refuse" is refused."""
        name = name or Path(path).name
        if "refuse" in name or name.endswith(".txt"):
            raise UnreadableFileError(f"{name} is plain text, not a picture; wanted: a picture.")
        doubt = INVERTED if "inverted" in name else ""
        facts = {"width": 512, "height": 512, "format": "PNG", "modality": "radiograph (picture)"}
        return Radiograph(pixels=film().pixels.astype(np.float32) / 255, facts=facts, doubt=doubt)

    def live(
        self, task: Task, samples: Floats, sample_rate_hz: int, *, model: str | None = None
    ) -> tuple[tuple[Prediction, ...], Decision]:
        """The louder the sound, the more probable the second label."""
        self.lives.append((len(samples), sample_rate_hz))
        time.sleep(self.delay_s)
        facts = self.hub.model(model or self.hub.default_model(task))
        loud = float(np.clip(np.abs(samples).mean() * 2, 0, 1))
        first, second, *rest = facts.labels
        chances = {second: loud, first: 1 - loud, **dict.fromkeys(rest, 0.0)}
        ranked = sorted(chances.items(), key=lambda pair: -pair[1])
        predictions = tuple(Prediction(label=k, probability=p) for k, p in ranked)
        top = predictions[0]
        reason = "It is the most probable."
        return predictions, Decision(label=top.label, probability=top.probability, reason=reason)

    def work_on(
        self, name: str, progress: Progress | None, cancelled: Callable[[], bool] | None
    ) -> None:
        for step in range(1200):  # a minute: a test that does not cancel it in time fails
            if cancelled and cancelled():
                self.stopped.append(name)
                raise CancelledError("Cancelled on request.")
            if progress:
                progress(step / 1200, f"Forward pass {step} of 1200")
            time.sleep(0.05)


def answer(model: Model, name: str, explainer: str, target: str | None) -> Analysis:
    probabilities = np.geomspace(0.83, 0.0004, len(model.labels))
    if "uncertain" in name:
        probabilities = np.full(len(model.labels), 0.3)
    order = model.labels[::-1] if len(model.labels) < 5 else model.labels
    predictions = tuple(
        Prediction(label=label, probability=float(p))
        for label, p in zip(order, probabilities, strict=True)
    )
    first = target or predictions[0].label
    targets = [first, *(p.label for p in predictions if p.label != first)][:10]
    by_label = {p.label: p.probability for p in predictions}
    sound = model.task != "chest_xray"
    view = spectrogram() if sound else film()
    explanations = tuple(
        explanation(view, label, by_label[label], i, explainer) for i, label in enumerate(targets)
    )
    top = predictions[0]
    decision = Decision(
        label=top.label,
        probability=top.probability,
        reason="It is above its operating point, 40 %.",
    )
    if "uncertain" in name:
        decision = Decision(
            label=None,
            probability=0.3,
            reason="No label reaches its operating point; the nearest is wheeze at 30 %.",
        )
    if len(model.labels) == 6 and "uncertain" not in name:
        found = tuple(p.label for p in predictions if p.probability >= 0.05)
        decision = replace(decision, findings=found)
    warnings = (
        ("The recording is silent: there is nothing to explain.",) if "silence" in name else ()
    )
    report = Report(
        task=model.task,
        file=name,
        model=ModelInUse(
            name=model.name,
            architecture=model.architecture,
            source="bundled",
            repo_id=None,
            revision=None,
            sha256=SHA,
            backend="torch",
            device="cpu",
        ),
        input={"duration_s": 8.0, "sample_rate_hz": 44100, "channels": 2}
        if sound
        else {
            "width": 1024,
            "height": 1024,
            **({"format": "DICOM", "modality": "DX", "view": "PA"} if ".dcm" in name else {}),
        },
        predictions=predictions if sound else tuple(map(with_interval, predictions)),
        uncertainty=None if sound else {"method": "test-time augmentation", "passes": 12},
        decision=decision,
        explanations=explanations,
        events=(
            Event(label="wheeze", start_s=0.8, end_s=1.4, probability=0.83),
            Event(label="crackle", start_s=4.1, end_s=4.6, probability=0.61),
        )
        if model.task == "stethoscope"
        else (),
        calibration={"method": "temperature", "temperature": 0.74},
        timing_ms={"read": 12, "prepare": 8, "predict": 55, "explain": 20, "render": 30},
        warnings=warnings,
    )
    if not sound:
        return Analysis(report=report, view=view)
    t = np.arange(8 * 16000) / 16000
    tone = (0.2 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)
    sounds = {"original": tone, "explanation": tone * 0.5, "remainder": tone * 0.1}
    heard = {}
    if model.task == "stethoscope":
        stages = {"raw": tone, "filtered": tone * 0.8, "denoised": tone * 0.6}
        heard = {"timeline": timeline(model), "stages": stages}
    return Analysis(report=report, view=view, sounds=sounds, sample_rate_hz=16000, **heard)


def with_interval(prediction: Prediction) -> Prediction:
    """Between 0.9 and 1.1 times the probability."""
    p = prediction.probability
    return replace(prediction, interval=(0.9 * p, min(1.0, 1.1 * p)))


INVERTED = "This radiograph seems to be inverted (dark where it is dense). It can be corrected."
STRANGE = "This does not look like a frontal chest X-ray. The answer is meaningless."


def gated(analysis: Analysis, film: GateMode) -> Analysis:
    """The analysis after the gate, which stops "inverted" and "cat" in the name of a file."""
    report = analysis.report
    if report.task != "chest_xray":
        return analysis
    kind, sentence = "frontal", ""
    if "inverted" in report.file:
        kind, sentence = "inverted", INVERTED
    elif "cat" in report.file:
        kind, sentence = "not a radiograph", STRANGE
    done = film == "corrected" and kind == "inverted"
    gate = {"kind": kind, "sentence": sentence, "corrected": done, "film": film}
    report = replace(report, input={**report.input, "gate": gate})
    if sentence and not done and film != "as-is":
        decision = Decision(label=None, probability=0.5, reason=sentence, kind="no answer")
        report = replace(report, decision=decision, warnings=(sentence, *report.warnings))
    return replace(analysis, report=report)


def aged(analysis: Analysis, model: Model, age: Age) -> Analysis:
    """The analysis of a film of whom the visitor says; "auto": an adult's, by the picture."""
    report = analysis.report
    if report.task != "chest_xray":
        return analysis
    known = {"value": age, "source": "visitor", "probability": None}
    if age == "auto":
        known = {"value": "adult", "source": "picture", "probability": 0.974}
    facts = {**report.input, "age": known}
    if unfit := age_mismatch(model, facts):
        facts["age"] = {**known, "mismatch": unfit}
        report = replace(report, warnings=(unfit, *report.warnings))
    return replace(analysis, report=replace(report, input=facts))


def timeline(model: Model) -> Timeline:
    """Windows of 2 s, one each second: the second label rises from 0 to 0.6, the first falls."""
    starts = tuple(float(s) for s in range(7))
    probabilities = np.zeros((7, len(model.labels)), np.float32)
    probabilities[:, 1] = np.arange(7) / 10
    probabilities[:, 0] = 1 - probabilities[:, 1]
    return Timeline(
        starts_s=starts,
        ends_s=tuple(s + 2 for s in starts),
        labels=model.labels,
        probabilities=probabilities,
    )


def spectrogram() -> View:
    rng = np.random.default_rng(7)
    rows, columns = 64, 801
    mel = np.linspace(2595 * np.log10(1 + 50 / 700), 2595 * np.log10(1 + 4000 / 700), rows)
    hz = 700 * (10 ** (mel / 2595) - 1)
    t = np.linspace(0, 8, columns)
    breath = 0.5 + 0.5 * np.sin(2 * np.pi * t / 2.6) ** 2
    level = np.exp(-np.linspace(0, 2.5, rows))[:, None] * breath * 150
    level += 25 * rng.random((rows, columns))
    wheeze = np.exp(-(((np.arange(rows)[:, None] - 24) / 1.6) ** 2)) * ((t > 0.8) & (t < 1.4))
    level = np.clip(level + 130 * wheeze, 0, 255).astype(np.uint8)[::-1]
    return View(
        pixels=level,
        duration_s=8.0,
        row_frequencies_hz=tuple(float(f) for f in hz),
        decibels=(-80.0, 0.0),
    )


def film() -> View:
    y, x = np.mgrid[-1:1:512j, -1:1:512j]
    body = 150 * np.exp(-((x / 0.85) ** 6)) + 40 * np.exp(-((x / 0.12) ** 2))
    for centre in (-0.42, 0.42):
        body -= 110 * np.exp(-((((x - centre) / 0.3) ** 2 + (y / 0.65) ** 2) ** 2))
    body += 60 * np.exp(-(((x - 0.15) / 0.25) ** 2 + ((y - 0.35) / 0.25) ** 2))
    body += 12 * np.sin(14 * y + 3 * x**2)
    return View(pixels=np.clip(body, 0, 255).astype(np.uint8))


def explanation(view: View, label: str, p: float, index: int, explainer: str) -> Explanation:
    sound = view.duration_s is not None
    rows, columns = (64, 801) if sound else (224, 224)
    y, x = np.mgrid[0 : 1 : rows * 1j, 0 : 1 : columns * 1j]
    cx, cy = ((0.14, 0.38), (0.55, 0.3), (0.8, 0.6))[index % 3] if sound else (0.3, 0.62)
    cx = (cx + 0.07 * index) % 1
    heat = np.exp(-(((x - cx) / (0.05 if sound else 0.14)) ** 2 + ((y - cy) / 0.16) ** 2))
    heat = (heat / heat.max()).astype(np.float32)
    peak = (
        {
            "time_s": cx * (view.duration_s or 0),
            "frequency_hz": view.row_frequencies_hz[int(cy * 63)],
        }
        if sound
        else {"x": cx, "y": cy}
    )
    return Explanation(
        explainer=explainer,
        target=label,
        probability=p,
        layer="layer4",
        values=heat[:: rows // 7, :: columns // 7],
        heatmap=heat,
        peak=peak,
    )


def without_heat(analysis: Analysis) -> Analysis:
    """The same analysis without explanations."""
    return replace(analysis, report=replace(analysis.report, explanations=()))


def write_tone(path: Path, *, seconds: float = 1.0, rate: int = 16000) -> Path:
    t = np.arange(int(seconds * rate)) / rate
    samples = (8000 * np.sin(2 * np.pi * 440 * t)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return path


def write_film(path: Path) -> Path:
    Image.fromarray(film().pixels).save(path)
    return path


def copy_as(source: Path, name: str) -> Path:
    return Path(shutil.copy(source, source.with_name(name)))
