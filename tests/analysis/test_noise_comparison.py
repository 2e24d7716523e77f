"""The effect of noise on an answer: by hand, and on a bundled network."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.fake_analyser import FakeAnalyser
from xai_demo.analysis.explain import NoiseComparison, ProbabilityChange, compare_with_noise
from xai_demo.analysis.request import AnalysisRequest
from xai_demo.audio.noise import Noise
from xai_demo.cli import main
from xai_demo.examples import example_path
from xai_demo.records import Analysis, Decision, Prediction

PINK = Noise(kind="pink", snr_db=-5)


def answer(ps: dict[str, float], heatmap: Any, target: str = "Dog") -> Analysis:
    made = FakeAnalyser().analyse(AnalysisRequest(task="audioset"), "clip.wav")
    explanation = dataclasses.replace(
        made.report.explanations[0],
        target=target,
        probability=ps[target],
        heatmap=np.asarray(heatmap, np.float32),
    )
    ranked = sorted(ps.items(), key=lambda pair: -pair[1])
    report = dataclasses.replace(
        made.report,
        predictions=tuple(Prediction(label=k, probability=p) for k, p in ranked),
        decision=Decision(label=ranked[0][0], probability=ranked[0][1], reason=""),
        explanations=(explanation,),
    )
    return dataclasses.replace(made, report=report)


def test_probabilities_and_heatmaps_are_compared():
    clean = answer({"Dog": 0.9, "Rain": 0.06, "Fire": 0.04}, [[0.1, 0.2], [0.5, 1]])
    noisy = answer({"Rain": 0.7, "Dog": 0.2, "Fire": 0.1}, [[1, 0.5], [0.2, 0.1]])
    both = NoiseComparison(noise=PINK, clean=clean, noisy=noisy)
    assert both.changes == (
        ProbabilityChange(label="Dog", before=0.9, after=0.2),
        ProbabilityChange(label="Rain", before=0.06, after=0.7),
        ProbabilityChange(label="Fire", before=0.04, after=0.1),
    )
    assert both.agreement == pytest.approx(-1)
    comparison = both.to_json()
    assert (comparison["answer_before"], comparison["answer_after"], comparison["target"]) == (
        "Dog",
        "Rain",
        "Dog",
    )
    assert comparison["rank_correlation"] == -1
    assert comparison["sentence"] == (
        "With pink noise at a signal-to-noise ratio of \u22125 dB, the answer changes from Dog "
        "to Rain; Dog goes from 0.90 to 0.20; the rank correlation of the heatmaps is \u22121.00."
    )
    same = NoiseComparison(noise=PINK, clean=clean, noisy=clean)
    assert same.agreement == pytest.approx(1)
    assert "the answer stays Dog" in same.sentence()
    empty = dataclasses.replace(
        both, noisy=answer({"Dog": 0.2, "Rain": 0.8, "Fire": 0}, np.zeros((2, 2)))
    )
    assert empty.agreement is None
    assert empty.to_json()["rank_correlation"] is None
    assert "one of the heatmaps is empty" in empty.sentence()


def test_only_the_most_probable_labels_of_both_are_listed():
    before = {"Dog": 0.5} | {f"a{i}": 0.4 - i / 100 for i in range(20)}
    after = dict(zip(before, reversed(before.values()), strict=True))
    heat = [[0, 1]]
    both = NoiseComparison(noise=PINK, clean=answer(before, heat), noisy=answer(after, heat))
    assert [m.label for m in both.changes] == [
        "Dog", "a0", "a1", "a2", "a3", "a19", "a18", "a17", "a16", "a15",
    ]  # fmt: skip


def test_both_analyses_explain_the_label_of_the_first():
    requests: list[AnalysisRequest] = []
    fractions: list[float] = []

    def analyse(request: AnalysisRequest, path: str | Path, /, *, progress: Any) -> Analysis:
        requests.append(request)
        progress(1.0, "done")
        return answer({"Dog": 0.9, "Rain": 0.1}, [[0, 1]])

    request = AnalysisRequest(task="audioset", noise=PINK, layer="x")
    compare_with_noise(analyse, request, "clip.wav", progress=lambda p, _: fractions.append(p))
    assert [each.noise for each in requests] == [None, PINK]
    assert [each.target for each in requests] == [None, "Dog"]
    assert [each.layer for each in requests] == ["x", "x"]
    assert fractions == [0.5, 1.0]


def test_a_comparison_needs_a_noise():
    with pytest.raises(ValueError, match="no noise"):
        compare_with_noise(FakeAnalyser().analyse, AnalysisRequest(task="audioset"), "clip.wav")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("XAI_DEMO_EXPORT", "off")
    monkeypatch.setenv("XAI_DEMO_CACHE", str(tmp_path))


def test_the_command_line_reports_what_the_noise_changes(offline, tmp_path, capsys):
    dog = str(example_path("dog"))
    command = ["analyse", "everyday-cnn6", dog, "--noise", "white", "--snr", "-10"]
    assert main([*command, "--json", "--out", str(tmp_path / "out")]) == 0
    report = json.loads(capsys.readouterr().out)
    comparison = report["noise"]
    assert (comparison["kind"], comparison["snr_db"]) == ("white", -10)
    assert report["input"]["noise"]["snr_db"] == -10
    after = {row["label"]: row["probability"] for row in report["predictions"]}
    moves = {row["label"]: row for row in comparison["moves"]}
    assert moves["Dog"]["after"] == pytest.approx(after["Dog"])
    assert moves["Dog"]["before"] > 0.5 > moves["Dog"]["after"]
    assert -1 <= comparison["rank_correlation"] < 0.99
    assert "The answer is for the recording mixed with white noise" in " ".join(report["warnings"])
    assert json.loads((tmp_path / "out" / "report.json").read_text())["noise"] == comparison
    assert main([*command[:3], "--noise", "babble", "--snr", "60"]) == 0
    assert "With babble noise at a signal-to-noise ratio of 60 dB" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "example", "options", "says"),
    [
        (
            "everyday-cnn6",
            "dog",
            ["--snr", "5"],
            "(snr) of 5 dB needs a kind of noise: white, pink or babble",
        ),
        ("everyday-cnn6", "dog", ["--noise", "pink", "--snr", "90"], "expected -20 to 60 dB"),
        ("everyday-cnn6", "dog", ["--noise", "brown"], "'brown' (choose from"),
        (
            "pneumonia-resnet18",
            "clear-film",
            ["--noise", "pink"],
            "Noise can only be added to sounds, not to the task chest_xray",
        ),
    ],
)
def test_unsuitable_noise_is_refused(offline, capsys, model, example, options, says):
    assert main(["analyse", model, str(example_path(example)), *options]) == 2
    captured = capsys.readouterr()
    assert says in captured.err
    assert captured.err.count("\n") == 1
