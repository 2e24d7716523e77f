"""The records: what is written can be read, what is reported is JSON, nothing can be changed."""

from __future__ import annotations

import dataclasses
import inspect
import json
from typing import Any

import numpy as np
import pytest

from xai_demo import records
from xai_demo.records import (
    DISCLAIMER,
    Decision,
    Event,
    Explanation,
    LogMel,
    Metric,
    Model,
    ModelInUse,
    Prediction,
    Raster,
    Recording,
    Report,
)

MEL = LogMel(
    sample_rate_hz=8000,
    n_fft=512,
    win_length=512,
    hop_length=80,
    n_mels=64,
    f_min_hz=50.0,
    f_max_hz=4000.0,
    window_s=8.0,
    window_hop_s=4.0,
    min_s=0.5,
    top_db=80.0,
    standardise=True,
)
RASTER = Raster(height=224, width=224, mean=0.5, std=0.25)


def a_model(**changes: Any) -> Model:
    facts: dict[str, Any] = {
        "name": "m",
        "title": "A model",
        "task": "stethoscope",
        "architecture": "resnet18",
        "labels": ("normal", "wheeze"),
        "preprocessing": MEL,
        "activation": "softmax",
        "licence": "MIT",
        "data": "made up",
        "citation": "nobody",
        "operating_points": {"wheeze": 0.4},
        "metrics": {"f1": Metric(value=0.5, low=0.4, high=0.6)},
        "sha256": "ab",
        "normal_label": "normal",
    }
    return Model(**(facts | changes))


RECORDS = [
    kind
    for _, kind in inspect.getmembers(records, inspect.isclass)
    if dataclasses.is_dataclass(kind)
]


@pytest.mark.parametrize("kind", RECORDS)
def test_every_record_is_frozen_and_keyword_only(kind: type[Any]) -> None:
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert all(field.kw_only for field in dataclasses.fields(kind))
    assert hasattr(kind, "__slots__")


KALDI = dataclasses.replace(MEL, front_end="kaldi", frames=1024, mean_db=-18.5, deviation_db=39.7)


@pytest.mark.parametrize(
    "model",
    [
        a_model(),
        a_model(task="chest_xray", preprocessing=RASTER, metrics={}),
        a_model(preprocessing=KALDI),
        a_model(preprocessing=dataclasses.replace(MEL, band_hz=(50.0, 2000.0), denoise=True)),
    ],
)
def test_a_model_survives_its_config_file(model: Model) -> None:
    assert Model.from_config(json.loads(json.dumps(model.to_config()))) == model


@pytest.mark.parametrize("missing", ["task", "labels", "preprocessing", "name", "licence"])
def test_a_config_without_a_field_is_no_model(missing: str) -> None:
    config = a_model().to_config()
    del config[missing]
    with pytest.raises((KeyError, TypeError), match=missing):
        Model.from_config(config)


def test_a_config_from_before_front_ends_and_signal_paths_means_librosas_and_none() -> None:
    config = a_model().to_config()
    for name in ("front_end", "frames", "mean_db", "deviation_db", "band_hz", "denoise"):
        del config["preprocessing"][name]
    assert Model.from_config(config) == a_model()


def test_a_config_with_a_foreign_field_is_no_model() -> None:
    with pytest.raises(TypeError, match="hidden_size"):
        Model.from_config(a_model().to_config() | {"hidden_size": 3})


def test_a_recording_knows_its_length() -> None:
    recording = Recording(samples=np.zeros(400, np.float32), sample_rate_hz=8000, facts={})
    assert recording.duration_s == pytest.approx(0.05)


def test_a_report_is_the_contracts_json() -> None:
    explanation = Explanation(
        explainer="Grad-CAM++",
        target="wheeze",
        probability=0.123456789,
        layer="layer4",
        values=np.array([[0.0, 1 / 3]], np.float32),
        heatmap=np.zeros((2, 2), np.float32),
        peak={"time_s": 0.82004, "frequency_hz": 410.0},
    )
    report = Report(
        task="stethoscope",
        file="clip.wav",
        model=ModelInUse(
            name="m",
            architecture="resnet18",
            source="bundled",
            repo_id=None,
            revision=None,
            sha256="ab",
            backend="torch",
            device="cpu",
        ),
        input={"duration_s": 1.0},
        predictions=(Prediction(label="wheeze", probability=0.1234567),),
        decision=Decision(label=None, probability=0.12, reason="unsure"),
        explanations=(explanation,),
        events=(Event(label="wheeze", start_s=0.5, end_s=1.0, probability=0.9),),
        timing_ms={"read": 1.23456},
        warnings=("quiet",),
    )
    value = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert value["predictions"] == [{"label": "wheeze", "probability": 0.123457}]
    assert value["explanations"] == [
        {
            "explainer": "Grad-CAM++",
            "target": "wheeze",
            "probability": 0.123457,
            "layer": "layer4",
            "grid": [1, 2],
            "values": [[0.0, 0.33333]],
            "peak": {"time_s": 0.82, "frequency_hz": 410.0},
            "faithfulness": None,
            "passes": None,
            "inside_lungs": None,
        }
    ]
    assert value["events"][0] == {
        "label": "wheeze",
        "start_s": 0.5,
        "end_s": 1.0,
        "probability": 0.9,
    }
    assert value["decision"] == {"label": None, "probability": 0.12, "reason": "unsure"}
    assert (value["findings"], value["uncertainty"], value["calibration"]) == ([], None, {})
    assert value["timing_ms"] == {"read": 1.23}
    assert (value["warnings"], value["disclaimer"]) == (["quiet"], DISCLAIMER)
    assert value["model"]["source"] == "bundled"


def test_an_interval_stands_beside_its_probability() -> None:
    prediction = Prediction(label="Mass", probability=0.5, interval=(0.25, 0.7499999))
    assert prediction.to_json() == {"label": "Mass", "probability": 0.5, "interval": [0.25, 0.75]}
