"""The command line: exit statuses, one line for each error, JSON alone; with fakes behind it."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from xai_demo.analysis.request import AnalysisRequest
from xai_demo.catalog import MODELS
from xai_demo.cli import main
from xai_demo.errors import UnreadableFileError
from xai_demo.explainers import EXPLAINERS
from xai_demo.hub import Hub
from xai_demo.records import (
    Analysis,
    Decision,
    Explanation,
    ModelInUse,
    Prediction,
    Report,
    View,
)
from xai_demo.settings import Settings

COMMANDS = (
    "models",
    "explainers",
    "analyse",
    "fetch",
    "selftest",
    "export",
    "train",
    "evaluate",
    "bench",
    "serve",
    "publish",
    "deploy",
    "synthesise",
    "cross-validate",
    "ablate",
    "compare",
    "refit",
    "evaluate-explainers",
    "evaluate-gate",
)
HEATMAP = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)


@pytest.fixture(autouse=True)
def an_empty_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No weights, no cache and no network, whatever this machine has."""
    monkeypatch.setenv("XAI_DEMO_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("XAI_DEMO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def an_analysis(*, explained: bool = True) -> Analysis:
    explanation = Explanation(
        explainer="Grad-CAM++",
        target="wheeze",
        probability=0.75,
        layer="layer4",
        values=np.array([[0.0, 1.0]], dtype=np.float32),
        heatmap=HEATMAP,
        peak={"time_s": 0.82, "frequency_hz": 410.0},
    )
    report = Report(
        task="stethoscope",
        file="clip.wav",
        model=ModelInUse(
            name="lung-resnet18",
            architecture="resnet18",
            source="bundled",
            repo_id=None,
            revision=None,
            sha256="ab" * 32,
            backend="torch",
            device="cpu",
        ),
        input={"duration_s": 1.0},
        predictions=(
            Prediction(label="wheeze", probability=0.75),
            Prediction(label="normal", probability=0.25),
        ),
        decision=Decision(label="wheeze", probability=0.75, reason="Above the operating point."),
        explanations=(explanation,) if explained else (),
        events=(),
        timing_ms={"read": 1.0},
        warnings=("Made up.",),
    )
    view = View(
        pixels=np.zeros((3, 4), np.uint8),
        duration_s=1.0,
        row_frequencies_hz=(100.0, 200.0, 400.0),
        decibels=(-80.0, 0.0),
    )
    sounds = {"explanation": np.full(800, 0.5, np.float32)} if explained else {}
    return Analysis(report=report, view=view, sounds=sounds, sample_rate_hz=8000)


class FakeAnalyser:
    """Answers at once, and keeps its arguments in `received`."""

    received: dict[str, Any]
    answer: Callable[[], Analysis]

    def __init__(self, settings: Settings) -> None:
        self.hub = Hub(settings)
        self.engine = SimpleNamespace(export=lambda name, out: out / f"{name}.onnx")

    def analyse(self, request: AnalysisRequest, path: str, **options: Any) -> Analysis:
        type(self).received = {"request": request, "path": path, **options}
        print("a library says hello")
        return type(self).answer()


@pytest.fixture
def analyser(monkeypatch: pytest.MonkeyPatch) -> type[FakeAnalyser]:
    kind = type("Fake", (FakeAnalyser,), {"answer": staticmethod(an_analysis), "received": {}})
    stand_in(monkeypatch, "xai_demo.analysis", Analyser=kind)
    return kind


def stand_in(monkeypatch: pytest.MonkeyPatch, module: str, **content: object) -> None:
    fake = ModuleType(module)
    vars(fake).update(content)
    monkeypatch.setitem(sys.modules, module, fake)
    parent, _, name = module.rpartition(".")
    if parent in sys.modules:
        monkeypatch.setattr(sys.modules[parent], name, fake, raising=False)


def one_line(captured: str) -> str:
    assert captured.count("\n") == 1, captured
    assert captured.endswith("\n")
    assert "Traceback" not in captured
    return captured


# Errors


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "COMMAND"),
        (["dance"], "'dance'"),
        (["analyse"], "MODEL, FILE"),
        (["analyse", "cnn14", "f.wav", "--backend", "abacus"], "'abacus' (choose from"),
        (["models", "--xml"], "--xml"),
        (["fetch"], "--all"),
        (["fetch", "--all", "cnn14"], "--all"),
        (["fetch", "nix"], "no model named 'nix'; choose from: pneumonia-resnet18"),
        (["train", "x", "--data", "d", "--out", "o", "--epochs", "many"], "'many'"),
    ],
)
def test_a_bad_request_is_status_2_and_one_line(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert says in one_line(captured.err)


def test_an_unknown_model_is_rejected_before_anything_is_read(
    analyser: type[FakeAnalyser], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["analyse", "nix", "clip.wav"]) == 2
    assert "'nix'; choose from: pneumonia-resnet18" in one_line(capsys.readouterr().err)
    assert analyser.received == {}


def test_an_unreadable_environment_is_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XAI_DEMO_MAX_MODELS", "none")
    assert main(["models"]) == 2
    assert "XAI_DEMO_MAX_MODELS is 'none'; it must be" in one_line(capsys.readouterr().err)


def test_missing_weights_are_status_3(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", "cnn14"]) == 3
    message = one_line(capsys.readouterr().err)
    assert "looked in" in message
    assert "python -m xai_demo fetch cnn14" in message


@pytest.mark.parametrize(
    ("fault", "status", "says"),
    [
        (UnreadableFileError("clip.wav is empty."), 2, "clip.wav is empty."),
        (RuntimeError("of two\nlines"), 1, "RuntimeError: of two lines"),
        (KeyboardInterrupt(), 1, "Stopped."),
    ],
)
def test_an_error_inside_is_one_line(
    analyser: type[FakeAnalyser],
    capsys: pytest.CaptureFixture[str],
    fault: BaseException,
    status: int,
    says: str,
) -> None:
    def fail() -> Analysis:
        raise fault

    analyser.answer = staticmethod(fail)  # type: ignore[assignment]
    assert main(["analyse", "lung-resnet18", "clip.wav", "--json"]) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert says in captured.err.splitlines()[-1]
    assert "Traceback" not in captured.err


# Commands


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert f"xai_demo {command}" in capsys.readouterr().out


def test_models_lists_the_catalogue(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list(MODELS)
    assert {row["available"] for row in rows} == {False}
    fields = {"name", "task", "architecture", "labels", "source"}
    fields |= {"available", "licence", "metrics", "sha256", "layers"}
    assert fields <= set.intersection(*map(set, rows))
    layers = {row["name"]: row["layers"] for row in rows}
    assert layers["cnn14"] == ["conv_block6.conv2", "conv_block5"]
    assert layers["lung-resnet18"] == []  # nobody knows before it is here

    assert main(["models"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in MODELS)
    assert "python -m xai_demo fetch cnn14" in text


def test_explainers_lists_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explainers", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list(EXPLAINERS)
    assert {"name", "needs", "fits"} <= set.intersection(*map(set, rows))
    assert main(["explainers"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in EXPLAINERS)
    assert "needs head gradients; fits convolutional" in text


def test_analyse_passes_every_option_on(
    analyser: type[FakeAnalyser], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--explainer", "LayerCAM", "--target", "wheeze"]
    options += ["--backend", "onnx", "--weights", "w.pth", "--layer", "layer4"]
    assert main(["analyse", "lung-resnet18", "clip.wav", *options]) == 0
    assert analyser.received == {
        "request": AnalysisRequest(
            task="stethoscope",
            model="lung-resnet18",
            explainer="LayerCAM",
            target="wheeze",
            layer="layer4",
            backend="onnx",
            weights="w.pth",
            signal_path=None,
            cycles=None,
            film="checked",
            noise=None,
            faithfulness=True,
            uncertainty=True,
        ),
        "path": "clip.wav",
        "progress": None,
    }
    options = ["--film", "corrected", "--no-uncertainty", "--no-faithfulness"]
    assert main(["analyse", "pneumonia-resnet18", "a.png", *options]) == 0
    request = analyser.received["request"]
    assert (request.film, request.uncertainty, request.faithfulness) == ("corrected", False, False)


def test_a_task_in_place_of_a_model_leaves_the_choice_of_the_network(
    analyser: type[FakeAnalyser], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["analyse", "audioset", "clip.wav"]) == 0
    request = analyser.received["request"]
    assert (request.task, request.model) == ("audioset", None)


def test_contradictory_options_are_rejected_before_anything_is_read(
    analyser: type[FakeAnalyser], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["analyse", "lung-resnet18", "clip.wav", "--film", "corrected"]) == 2
    assert "'corrected' is for the task chest_xray only" in one_line(capsys.readouterr().err)
    assert analyser.received == {}


def test_analyse_prints_the_report_and_nothing_else(
    analyser: type[FakeAnalyser], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["analyse", "lung-resnet18", "clip.wav", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == json.loads(json.dumps(an_analysis().report.to_json()))
    assert "a library says hello" in captured.err


def test_analyse_prints_prediction_and_location(
    analyser: type[FakeAnalyser], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["analyse", "lung-resnet18", "clip.wav"]) == 0
    text = capsys.readouterr().out
    assert "clip.wav: wheeze (0.75)" in text
    assert "peaks at 0.82 s, 410 Hz" in text
    assert "█" * 22 in text
    assert "Warning: Made up." in text
    assert "Not a medical device" in text


def test_out_holds_report_picture_heatmap_and_sound(
    analyser: type[FakeAnalyser], tmp_path: Path
) -> None:
    out = tmp_path / "new" / "out"
    assert main(["analyse", "lung-resnet18", "clip.wav", "--out", str(out)]) == 0
    names = sorted(path.name for path in out.iterdir())
    assert names == ["explanation.wav", "heatmap.npy", "overlay.png", "report.json"]
    assert json.loads((out / "report.json").read_text())["file"] == "clip.wav"
    heatmap = np.load(out / "heatmap.npy")
    assert heatmap.dtype == np.float32
    np.testing.assert_array_equal(heatmap, HEATMAP)
    with Image.open(out / "overlay.png") as picture:
        assert picture.width > 4
    assert soundfile.info(out / "explanation.wav").subtype == "PCM_16"
    samples, rate = soundfile.read(out / "explanation.wav")
    assert (rate, len(samples), samples[0]) == (8000, 800, pytest.approx(0.5, abs=1e-4))


def test_out_keeps_nothing_of_an_earlier_analysis(
    analyser: type[FakeAnalyser], tmp_path: Path
) -> None:
    command = ["analyse", "lung-resnet18", "clip.wav", "--out", str(tmp_path / "out")]
    assert main(command) == 0
    analyser.answer = staticmethod(lambda: an_analysis(explained=False))  # type: ignore[assignment]
    assert main(command) == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["overlay.png", "report.json"]


def test_a_result_that_cannot_be_written_leaves_the_earlier_one(
    analyser: type[FakeAnalyser], tmp_path: Path
) -> None:
    command = ["analyse", "lung-resnet18", "clip.wav", "--out", str(tmp_path / "out")]
    assert main(command) == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    broken = an_analysis()
    explanation = dataclasses.replace(broken.report.explanations[0], probability=float("nan"))
    report = dataclasses.replace(broken.report, explanations=(explanation,))
    broken = dataclasses.replace(broken, report=report)
    analyser.answer = staticmethod(lambda: broken)  # type: ignore[assignment]
    assert main(command) == 1
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_out_that_is_a_file_is_rejected(
    analyser: type[FakeAnalyser], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("mine")
    assert main(["analyse", "lung-resnet18", "c.wav", "--out", str(tmp_path / "out")]) == 2
    assert "cannot be written" in capsys.readouterr().err.splitlines()[-1]
    assert (tmp_path / "out").read_text() == "mine"


def test_fetch_continues_after_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = Hub.fetch_weights

    def fetch_weights(hub: Hub, name: str, **options: Any) -> Any:
        if name == "everyday-cnn6":
            file = {"path": tmp_path / "w", "source": "bundled", "sha256": "ab", "revision": None}
            return SimpleNamespace(**file)
        return real(hub, name, **options)

    monkeypatch.setattr(Hub, "fetch_weights", fetch_weights)
    assert main(["fetch", "--all"]) == 3
    captured = capsys.readouterr()
    assert "everyday-cnn6: bundled" in captured.out
    assert "cnn14" in one_line(captured.err)


def test_export_prints_its_path(
    analyser: type[FakeAnalyser], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "lung-resnet18", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"Wrote {tmp_path / 'lung-resnet18.onnx'}\n"


def test_train_passes_every_option_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    received: dict[str, Any] = {}

    def train(recipe: str, **options: Any) -> Path:
        received.update(options, recipe=recipe)
        return Path("o")

    stand_in(monkeypatch, "xai_demo.training.train", train_model=train)
    options = ["--data", "d", "--out", "o", "--resume", "--epochs", "3", "--seed", "7"]
    options += ["--patience", "4", "--track", "wandb", "--balance", "focal"]
    assert main(["train", "lung-resnet18", *options]) == 0
    received.pop("notice")("two sounds left out")
    assert isinstance(received.pop("settings"), Settings)
    assert received == {
        "balance": "focal",
        "recipe": "lung-resnet18",
        "data": Path("d"),
        "out": Path("o"),
        "epochs": 3,
        "seed": 7,
        "patience": 4,
        "track": "wandb",
        "resume": True,
        "progress": None,
    }
    captured = capsys.readouterr()
    assert captured.out == "Wrote o\n"
    assert captured.err == "Note: two sounds left out\n"


def test_evaluate_prints_figures_and_writes_the_card_on_request(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    result = {
        "model": "m",
        "data": "d",
        "n": 9,
        "groups": 3,
        "metrics": {"accuracy": {"value": 0.95, "low": 0.9, "high": 1.0}},
        "notes": ["one left out"],
    }
    cards: list[object] = []
    stand_in(
        monkeypatch,
        "xai_demo.training.evaluate",
        evaluate_model=lambda model, **options: result,
    )
    stand_in(
        monkeypatch,
        "xai_demo.training.model_card",
        write_card=lambda model, **options: cards.append((model, options["result"])),
    )
    assert main(["evaluate", "m", "--data", "d", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == result
    assert captured.err == "Note: one left out\n"
    assert cards == []
    assert main(["evaluate", "m", "--data", "d", "--write-card"]) == 0
    assert "0.950 (0.900-1.000)" in capsys.readouterr().out
    assert cards == [("m", result)]


def test_bench_prints_its_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(
        monkeypatch,
        "xai_demo.bench.explanations",
        run=lambda settings, progress: {"ratio": 1.5},
        table=lambda result: f"| {result['ratio']} |",
    )
    assert main(["bench"]) == 0
    assert capsys.readouterr().out == "| 1.5 |\n"
    assert main(["bench", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"ratio": 1.5}


@pytest.mark.parametrize(
    ("options", "module", "received"),
    [
        ([], "explanations", {}),
        (["--rounds", "2"], "explanations", {"rounds": 2}),
        (["--http", "--rounds", "2"], "http", {"rounds": 2}),
        (["--frontend", "--rounds", "2"], "front_ends", {"rounds": 2}),
        (["--start", "--rounds", "2"], "startup", {"rounds": 2}),
        (["--workers", "--rounds", "2"], "workers", {"rounds": 2}),
        (["--slow"], "slow_explainers", {}),
        (["--requests", "3"], "memory", {"requests": 3}),
        (["--minutes", "3"], "long_recordings", {"minutes": 3}),
    ],
    ids=" ".join,
)
def test_bench_runs_the_chosen_measurement(
    options: list[str],
    module: str,
    received: dict[str, int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(*settings: Settings, progress: object, **more: int) -> dict[str, Any]:
        assert len(settings) == (module != "front_ends")
        return {"received": more}

    formatter = "text" if module in {"memory", "long_recordings"} else "table"
    stand_in(
        monkeypatch,
        f"xai_demo.bench.{module}",
        **{"run": run, formatter: lambda result: f"{module}: {result['received']}"},
    )
    assert main(["bench", *options]) == 0
    assert capsys.readouterr().out == f"{module}: {received}\n"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--rounds", "0"], "--rounds is 0; it must be at least 1"),
        (["--requests", "-1"], "--requests is -1; it must be at least 1"),
        (["--minutes", "0"], "--minutes is 0; it must be at least 1"),
        (["--minutes", "1", "--rounds", "2"], "--rounds is 2, but --minutes takes no medians"),
        (["--slow", "--http"], "--http: not allowed with argument --slow"),
        (["--slow", "--rounds", "2"], "--rounds is 2, but --slow takes no medians"),
    ],
    ids=" ".join,
)
def test_bench_rejects_numbers_that_mean_nothing(
    options: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *options]) == 2
    assert why in capsys.readouterr().err


def test_serve_passes_host_and_port_on(monkeypatch: pytest.MonkeyPatch) -> None:
    received: dict[str, Any] = {}
    stand_in(monkeypatch, "xai_demo.tabs.server", launch=lambda settings, **at: received.update(at))
    assert main(["serve", "--host", "0.0.0.0", "--port", "7861"]) == 0
    assert received == {"host": "0.0.0.0", "port": 7861}


# Terminal


def test_a_progress_bar_is_drawn_in_a_terminal_only(
    analyser: type[FakeAnalyser], monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", screen)
    analyser.answer = staticmethod(  # type: ignore[assignment]
        lambda: (analyser.received["progress"](0.42, "listening"), an_analysis())[1]
    )
    assert main(["analyse", "lung-resnet18", "clip.wav", "--json"]) == 0
    assert " 42%" in screen.getvalue()
    assert "listening" in screen.getvalue()


def test_a_reader_that_stops_early_sees_no_traceback() -> None:
    command = f"'{sys.executable}' -m xai_demo models --json | head -c 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=os.environ)
    assert (done.stdout, done.stderr) == ("[", "")


def test_the_module_runs_as_a_command() -> None:
    command = [sys.executable, "-m", "xai_demo", "fetch", "nix"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "'nix'" in one_line(done.stderr)


def test_a_terminal_without_block_characters_gets_its_answer() -> None:
    command = [sys.executable, "-m", "xai_demo", "models"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "XAI_DEMO_WEIGHTS": "/höhle"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "/h?hle" in done.stdout
