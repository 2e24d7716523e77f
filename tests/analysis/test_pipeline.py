"""The whole pipeline on small networks with random weights."""

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

import xai_demo
from tests.support.hostile_files import picture_bytes, radiograph
from tests.support.small_models import MEL, model_of, write_model
from xai_demo.analysis import Analyser
from xai_demo.analysis.explain import _targets
from xai_demo.analysis.inference import ModelRunner, pass_allowance
from xai_demo.analysis.request import AnalysisRequest
from xai_demo.catalog import Entry
from xai_demo.engine import Engine
from xai_demo.errors import (
    AnnotationError,
    CancelledError,
    CheckpointUnavailableError,
    UnknownNameError,
    UnreadableFileError,
    UnsuitableError,
)
from xai_demo.explainers import EXPLAINERS
from xai_demo.hub import Hub
from xai_demo.settings import Settings

RATE = MEL.sample_rate_hz
FINDINGS = tuple(f"Finding {k}" for k in range(14))
EXAMPLE = Path(xai_demo.__file__).parent / "examples"


@pytest.fixture(scope="module")
def analyser(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    models = [
        model_of("resnet18-fine", name="lung"),
        model_of("resnet18", name="film", labels=("Normal", "Pneumonia"), normal_label="Normal"),
        model_of(
            "resnet18",
            name="findings",
            labels=FINDINGS,
            activation="sigmoid",
            normal_label=None,
            operating_points=dict.fromkeys(FINDINGS, 0.01),
        ),
        model_of("cnn6", name="tags", task="audioset", activation="sigmoid", normal_label=None),
    ]
    for model in models:
        write_model(folder / "weights" / model.name, model)
    settings = dataclasses.replace(
        Settings.from_env({}),
        weights_dir=folder / "weights",
        cache_dir=folder / "cache",
        background_export=False,
        explain_seconds=1e6,  # however busy the machine is
        offline=True,
    )
    made = Analyser(settings)
    made.hub = Hub(
        settings,
        catalog={m.name: Entry(task=m.task) for m in models} | {"gone": Entry(task="stethoscope")},
    )
    made.engine = Engine(made.hub)
    return made


@pytest.fixture
def breath(tmp_path):
    path = tmp_path / "breath.wav"
    samples = np.random.default_rng(0).normal(0, 0.1, 5 * RATE)
    soundfile.write(path, samples, RATE)
    return path


@pytest.fixture
def film(tmp_path):
    path = tmp_path / "film.png"
    path.write_bytes(picture_bytes(radiograph(), "PNG"))
    return path


def ask(analyser, task, path, *, progress=None, cancelled=None, **choices):
    request = AnalysisRequest(task=task, backend="torch", **choices)
    return analyser.analyse(request, path, progress=progress, cancelled=cancelled)


def test_the_report_of_a_recording_follows_the_contract(analyser, breath):
    report = ask(analyser, "stethoscope", breath).report.to_json()
    json.dumps(report, allow_nan=False)
    assert report["task"] == "stethoscope"
    assert report["file"] == "breath.wav"
    assert {"name", "architecture", "source", "repo_id", "revision", "sha256"} <= set(
        report["model"]
    )
    assert report["model"]["backend"] == "torch"
    assert report["model"]["device"] in {"cpu", "cuda"}
    assert report["input"]["duration_s"] == pytest.approx(5)
    assert sum(p["probability"] for p in report["predictions"]) == pytest.approx(1, abs=1e-4)
    probabilities = [p["probability"] for p in report["predictions"]]
    assert probabilities == sorted(probabilities, reverse=True)
    assert {"read", "prepare", "predict", "explain", "render"} <= set(report["timing_ms"])
    first = report["explanations"][0]
    assert np.array(first["values"]).shape == tuple(first["grid"])
    assert 0 <= first["peak"]["time_s"] <= 5
    assert 50 <= first["peak"]["frequency_hz"] <= 2500


def test_every_label_is_explained_in_the_same_pass(analyser, breath):
    report = ask(analyser, "stethoscope", breath).report
    assert {e.target for e in report.explanations} == {"normal", "crackle", "wheeze"}


def test_the_target_is_explained_first(analyser, breath):
    for target in ("normal", "crackle", "wheeze"):
        assert ask(analyser, "stethoscope", breath, target=target).report.explanations[
            0
        ].target == (target)


def test_a_heatmap_has_the_size_of_the_networks_input(analyser, breath, film):
    analysis = ask(analyser, "stethoscope", breath)
    assert analysis.report.explanations[0].heatmap.shape == (64, 501)
    assert analysis.view.pixels.shape == (64, 501)
    picture = ask(analyser, "chest_xray", film)
    assert picture.report.explanations[0].heatmap.shape == (96, 96)
    for report in (analysis.report, picture.report):
        heatmap = report.explanations[0].heatmap
        assert heatmap.dtype == np.float32
        assert heatmap.min() >= 0
        assert heatmap.max() == pytest.approx(1, abs=1e-4)


def test_explanation_and_remainder_add_up_to_the_recording(analyser, breath):
    sounds = ask(analyser, "stethoscope", breath).sounds
    assert set(sounds) == {"original", "explanation", "remainder"}
    together = sounds["explanation"] + sounds["remainder"]
    assert together == pytest.approx(sounds["original"], abs=1e-6)
    assert np.abs(sounds["explanation"]).max() > 0


def test_a_spectrogram_has_low_frequencies_at_the_bottom(analyser, tmp_path):
    path = tmp_path / "low.wav"
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * 100 * np.arange(3 * RATE) / RATE), RATE)
    view = ask(analyser, "stethoscope", path).view
    assert view.pixels.mean(axis=1).argmax() > 56
    assert view.row_frequencies_hz[0] < view.row_frequencies_hz[-1]


def test_independent_labels_need_not_add_up_to_one(analyser, breath):
    report = ask(analyser, "audioset", breath).report
    assert all(0 < p.probability < 1 for p in report.predictions)


def test_silence_is_answered_with_nothing_to_explain(analyser, tmp_path):
    path = tmp_path / "silence.wav"
    soundfile.write(path, np.zeros(3 * RATE), RATE)
    report = ask(analyser, "stethoscope", path).report
    assert report.decision.label is None
    assert "silent" in report.decision.reason
    assert not any(e.heatmap.any() for e in report.explanations)
    assert report.events == ()
    assert any("silent" in w for w in report.warnings)


def test_a_uniform_image_is_answered_with_nothing_to_explain(analyser, tmp_path):
    from PIL import Image

    path = tmp_path / "grey.png"
    Image.new("L", (300, 200), 90).save(path)
    report = ask(analyser, "chest_xray", path).report
    assert report.decision.label is None
    assert not report.explanations[0].heatmap.any()
    assert report.warnings


def test_a_models_caveat_is_in_every_report(analyser, film, tmp_path):
    warned = model_of("resnet18", name="warned", caveat="It finds nothing.")
    write_model(tmp_path / "weights" / "warned", warned)
    settings = dataclasses.replace(analyser.hub.settings, weights_dir=tmp_path / "weights")
    other = Analyser(settings)
    other.hub = Hub(settings, catalog={"warned": Entry(task="chest_xray")})
    other.engine = Engine(other.hub)
    before = ask(analyser, "chest_xray", film, model="film").report
    report = ask(other, "chest_xray", film, model="warned").report
    assert report.warnings == ("It finds nothing.", *before.warnings)


def test_a_short_recording_is_repeated_with_a_warning(analyser, tmp_path):
    path = tmp_path / "short.wav"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, RATE // 2), RATE)
    analysis = ask(analyser, "stethoscope", path)
    assert any("It was repeated to fill" in w for w in analysis.report.warnings)
    assert analysis.report.explanations[0].heatmap.shape == (64, 51)
    assert analysis.report.explanations[0].peak["time_s"] <= 0.51
    assert len(analysis.sounds["original"]) == RATE // 2


def test_an_event_has_the_times_of_its_window(analyser, breath):
    report = ask(analyser, "stethoscope", breath).report
    for event in report.events:
        assert 0 <= event.start_s < event.end_s <= 5
        assert event.label in {"crackle", "wheeze"}


@pytest.mark.parametrize(
    ("choices", "error", "says"),
    [
        ({"model": "nothing"}, UnknownNameError, "'nothing'.*lung"),
        ({"model": "film"}, UnsuitableError, "film.*chest_xray.*lung"),
        ({"model": "gone"}, CheckpointUnavailableError, "gone"),
        ({"explainer": "Magic"}, UnknownNameError, r"'Magic'.*Grad-CAM\+\+"),
        ({"target": "Fever"}, UnknownNameError, "'Fever'.*normal, crackle, wheeze"),
        ({"backend": "tensorflow"}, UnknownNameError, "'tensorflow'.*torch"),
    ],
)
def test_an_unknown_or_unsuitable_name_gets_one_sentence(analyser, breath, choices, error, says):
    with pytest.raises(error, match=f"(?s){says}") as raised:
        analyser.analyse(AnalysisRequest(task="stethoscope", **choices), breath)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_a_recording_is_refused_by_name(analyser, tmp_path):
    path = tmp_path / "notes.wav"
    path.write_text("hello")
    with pytest.raises(UnreadableFileError, match=r"notes\.wav"):
        ask(analyser, "stethoscope", path)


def test_a_file_is_called_by_the_name_that_the_request_gives(analyser, breath, tmp_path):
    asked = AnalysisRequest(task="stethoscope", model="lung", name="my breath.wav")
    assert analyser.analyse(asked, breath).report.file == "my breath.wav"
    (tmp_path / "0f3a").write_text("no sound")
    with pytest.raises(UnreadableFileError, match=r"^my breath\.wav"):
        analyser.analyse(asked, tmp_path / "0f3a")
    with pytest.raises(UnreadableFileError, match=r"^my film\.png"):
        analyser.radiograph(tmp_path / "0f3a", name="my film.png")
    (tmp_path / "77ab").write_text("none")
    asked = dataclasses.replace(asked, cycles=tmp_path / "77ab", cycles_name="my cycles.txt")
    with pytest.raises(AnnotationError, match=r"my cycles\.txt"):
        analyser.analyse(asked, breath)


def test_concurrent_requests_get_the_same_answers_as_single_ones(analyser, breath, film):
    pairs = [("stethoscope", breath), ("chest_xray", film), ("audioset", breath)] * 4
    alone = {task: ask(analyser, task, path).report for task, path in pairs[:3]}
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda pair: ask(analyser, *pair).report, pairs))
    for report in together:
        expected = alone[report.task]
        assert [p.label for p in report.predictions] == [p.label for p in expected.predictions]
        for mine, theirs in zip(report.explanations, expected.explanations, strict=True):
            assert mine.heatmap == pytest.approx(theirs.heatmap, abs=1e-4)


def test_the_faithfulness_test_runs_unless_it_is_switched_off(analyser, breath, film):
    for task, path in (("stethoscope", breath), ("chest_xray", film)):
        report = ask(analyser, task, path).report
        result = report.explanations[0].faithfulness
        assert result["share"] == 0.2
        assert 0 <= result["hidden"] <= 1
        assert 0 <= result["random"] <= 1
        assert report.explanations[0].target in result["sentence"]
        assert "faithfulness" in report.timing_ms
        untried = ask(analyser, task, path, faithfulness=False).report
        assert untried.explanations[0].faithfulness is None


def test_an_analysis_stops_when_it_is_cancelled(analyser, film):
    with pytest.raises(CancelledError, match="Cancelled"):
        ask(analyser, "chest_xray", film, explainer="Occlusion", cancelled=lambda: True)


class Stop:
    """Cancels at the n-th look, and counts the looks after that in `late`."""

    def __init__(self, after: int) -> None:
        self.left, self.late = after, 0

    def __call__(self) -> bool:
        self.left -= 1
        self.late += self.left < 0
        return self.left < 0


@pytest.mark.parametrize("name", ["Score-CAM", "LIME", "SHAP", "Integrated gradients"])
def test_every_slow_explainer_stops_when_cancelled(analyser, film, name):
    stop, messages = Stop(after=12), []
    with pytest.raises(CancelledError, match="Cancelled on request") as raised:
        ask(
            analyser,
            "chest_xray",
            film,
            explainer=name,
            cancelled=stop,
            progress=lambda done, doing: messages.append(doing),
        )
    assert "\n" not in str(raised.value)
    assert stop.late == 1
    assert "Explaining the prediction" in messages
    assert not any(doing.startswith("Faithfulness") for doing in messages)


def test_windows_run_in_batches_and_can_be_cancelled_between_them(analyser, breath):
    network = analyser.engine.network("lung", backend="torch")
    inputs = np.zeros((40, 1, 64, 201), np.float32)
    stop = Stop(after=2)
    runner = ModelRunner(network, stop)
    with pytest.raises(CancelledError):
        runner.logits(inputs)
    assert 2 <= runner.passes < 40
    whole = ModelRunner(network)
    assert whole.logits(inputs).shape == (40, 3)
    assert whole.passes == 40


def test_the_backward_pass_can_be_cancelled(analyser):
    import torch

    network = analyser.engine.network("lung", backend="torch")
    messages = []
    runner = ModelRunner(network, lambda: bool(messages))
    x = torch.zeros(2, 1, 64, 201, requires_grad=True)
    logits = runner.differentiable_logits(x)
    messages.append("stop")
    with pytest.raises(CancelledError):
        logits.sum().backward()


@pytest.mark.parametrize(
    ("name", "windows", "window_s", "passes"),
    [
        ("LIME", 1, 0.01, 250),  # 800 fit, 250 are usual
        ("LIME", 1, 0.05, 160),
        ("LIME", 10, 0.05, 80),  # two windows are asked about
        ("LIME", 2, 1.0, 48),  # never fewer
        ("Integrated gradients", 1, 0.05, 53),  # back costs twice the way forward
        ("Guided backpropagation", 1, 9.0, 1),
        ("Grad-CAM", 1, 9.0, 0),
        ("LIME", 1, 0.0, 250),
    ],
)
def test_the_allowance_is_what_fits_into_the_time_limit(name, windows, window_s, passes):
    allowance = pass_allowance(EXPLAINERS[name], windows=windows, window_s=window_s, seconds=8)
    assert allowance.passes == passes
    assert allowance.is_reduced == (passes < EXPLAINERS[name].passes)


def test_a_reduced_budget_is_warned_of_and_the_passes_are_counted(analyser, film):
    hurried = Analyser(dataclasses.replace(analyser.settings, explain_seconds=1e-6))
    hurried.hub, hurried.engine = analyser.hub, analyser.engine
    report = ask(hurried, "chest_xray", film, explainer="LIME").report
    (text,) = [w for w in report.warnings if "forward passes" in w]
    assert "48 forward passes" in text
    assert "instead of 250" in text
    assert report.explanations[0].passes == 48
    patient = Analyser(dataclasses.replace(analyser.settings, explain_seconds=1e6))
    patient.hub, patient.engine = analyser.hub, analyser.engine
    report = ask(patient, "chest_xray", film, explainer="LIME").report
    assert report.explanations[0].passes == 250
    assert not any("forward passes" in w for w in report.warnings)


def test_a_fast_explainer_needs_no_further_forward_pass(analyser, film):
    report = ask(analyser, "chest_xray", film).report
    assert report.to_json()["explanations"][0]["passes"] == 0


def test_another_layer_can_be_explained_and_an_unknown_one_names_the_known(
    analyser, breath, tmp_path
):
    assert ask(analyser, "audioset", breath, layer="conv_block4").report.explanations[0].layer == (
        "conv_block4"
    )
    with pytest.raises(
        UnknownNameError, match=r"'conv_block9'; choose from: conv_block4"
    ) as raised:
        ask(analyser, "audioset", tmp_path / "not read.wav", layer="conv_block9")
    assert raised.value.exit_status == 2


def test_a_slow_explainer_warns_of_the_windows_it_skipped(analyser, breath):
    report = ask(analyser, "stethoscope", breath, explainer="Integrated gradients").report
    assert any("2 most probable of 4 windows" in w for w in report.warnings)


def test_progress_rises_from_zero_to_one(analyser, breath):
    messages = []
    ask(
        analyser, "stethoscope", breath, progress=lambda done, doing: messages.append((done, doing))
    )
    fractions = [done for done, _ in messages]
    assert fractions == sorted(set(fractions))
    assert fractions[0] >= 0
    assert fractions[-1] <= 1
    assert all(doing for _, doing in messages)


def test_custom_weights_replace_the_models_own(analyser, breath, tmp_path):
    write_model(tmp_path / "mine", model_of("resnet18-fine", name="mine"), seed=9)
    theirs = ask(analyser, "stethoscope", breath).report
    mine = ask(analyser, "stethoscope", breath, weights=str(tmp_path / "mine")).report
    assert mine.model.source == "local"
    assert mine.model.sha256 != theirs.model.sha256
    assert mine.predictions != theirs.predictions


def test_warming_up_skips_models_that_are_not_available(analyser):
    analyser.warm_up()


@pytest.mark.parametrize("name", ["Integrated gradients", "Occlusion"])
def test_a_slow_explainer_reports_its_progress(analyser, film, name):
    messages = []
    found = analyser.analyse(
        AnalysisRequest(task="chest_xray", explainer=name),
        film,
        progress=lambda done, doing: messages.append(doing),
    )
    assert sum(doing.startswith("Forward pass ") for doing in messages) >= 4
    assert found.report.explanations[0].passes >= 48
    assert found.report.model.backend == "torch"
    assert found.report.explanations[0].heatmap.shape == (96, 96)
    assert found.report.explanations[0].heatmap.max() == pytest.approx(1, abs=1e-4)


def test_input_gradients_are_refused_on_onnx(analyser, film):
    with pytest.raises(UnsuitableError, match=r"without torch; choose from: Grad-CAM\+\+"):
        analyser.analyse(
            AnalysisRequest(task="chest_xray", explainer="Integrated gradients", backend="onnx"),
            film,
        )


@pytest.fixture
def radiograph_file():
    return sorted(EXAMPLE.glob("*.png"))[0]


@pytest.fixture
def inverted(tmp_path, radiograph_file):
    from PIL import Image, ImageOps

    path = tmp_path / "inverted.png"
    ImageOps.invert(Image.open(radiograph_file).convert("L")).save(path)
    return path


def test_every_finding_has_its_heatmap_in_one_call(analyser, film):
    report = ask(analyser, "chest_xray", film, model="findings").report
    assert set(report.decision.findings) == set(FINDINGS)
    assert [e.target for e in report.explanations] == list(report.decision.findings)
    maps = [e.heatmap for e in report.explanations]
    assert not np.allclose(maps[0], maps[1], atol=1e-3)
    written = report.to_json()
    assert len(written["explanations"]) == len(written["findings"]) == 14


def test_without_findings_the_probable_labels_are_explained(analyser, film):
    model = analyser.hub.model("findings")
    high = dataclasses.replace(model, operating_points=dict.fromkeys(FINDINGS, 0.999))
    overall = np.linspace(0.1, 0.4, 14, dtype=np.float32)
    cam, shap = EXPLAINERS["Grad-CAM++"], EXPLAINERS["SHAP"]
    targets = _targets(high, overall, None, cam, pooled=False)
    assert targets == [13, 12, 11, 10, 9, 8, 7, 6, 5, 4]
    low = dataclasses.replace(model, operating_points=dict.fromkeys(FINDINGS, 0.2))
    targets = _targets(low, overall, "Finding 0", cam, pooled=False)
    assert set(targets) == {0, *range(5, 14)}
    assert _targets(low, overall, None, shap, pooled=False) == [13]


def test_every_probability_has_an_interval_unless_it_is_switched_off(analyser, film, breath):
    report = ask(analyser, "chest_xray", film).report
    assert report.timing_ms["uncertainty"] > 0
    assert report.uncertainty["passes"] == 12
    for prediction in report.predictions:
        low, high = prediction.interval
        assert 0 <= low <= prediction.probability <= high <= 1
        assert low < high
    again = ask(analyser, "chest_xray", film).report
    assert [p.interval for p in again.predictions] == [p.interval for p in report.predictions]
    for left_out in (
        ask(analyser, "chest_xray", film, uncertainty=False).report,
        ask(analyser, "stethoscope", breath).report,
    ):
        assert left_out.uncertainty is None
        assert "uncertainty" not in left_out.timing_ms
        assert all(p.interval is None for p in left_out.predictions)


def test_an_image_that_is_not_a_radiograph_gets_probabilities_but_no_answer(analyser, tmp_path):
    path = tmp_path / "noise.png"
    noise = np.random.default_rng(0).integers(0, 256, (200, 240), np.uint8)
    path.write_bytes(picture_bytes(noise, "PNG"))
    report = ask(analyser, "chest_xray", path).report
    assert (report.decision.label, report.decision.kind) == (None, "no answer")
    assert report.decision.reason.startswith("This does not look like a frontal chest X-ray")
    assert report.warnings[0] == report.decision.reason
    assert report.input["gate"]["kind"] == "not a radiograph"
    assert len(report.predictions) == 2
    assert "gate" in report.timing_ms
    taken = ask(analyser, "chest_xray", path, film="as-is").report
    assert taken.decision.kind != "no answer"


def test_an_inverted_radiograph_is_answered_once_it_is_corrected(
    analyser, radiograph_file, inverted
):
    upright = ask(analyser, "chest_xray", radiograph_file).report
    assert upright.input["gate"]["kind"] == "frontal"
    doubted = ask(analyser, "chest_xray", inverted).report
    assert "inverted" in doubted.decision.reason
    right = ask(analyser, "chest_xray", inverted, film="corrected")
    assert right.report.decision == upright.decision
    assert right.report.input["gate"]["corrected"] is True
    assert "corrected before" in right.report.warnings[0]


@pytest.mark.parametrize(
    ("task", "film", "error"),
    [("chest_xray", "upside", UnknownNameError), ("stethoscope", "corrected", UnsuitableError)],
)
def test_a_film_setting_must_be_known_and_fit_the_task(analyser, breath, task, film, error):
    with pytest.raises(error, match=film):
        ask(analyser, task, breath, film=film)


def test_an_empty_heatmap_is_not_tested_for_faithfulness(analyser, film, monkeypatch):
    usual = EXPLAINERS["Grad-CAM++"]
    cold = dataclasses.replace(usual, heatmap=lambda *arguments: 0 * usual.heatmap(*arguments))
    monkeypatch.setitem(EXPLAINERS, "Grad-CAM++", cold)
    report = ask(analyser, "chest_xray", film, explainer="Grad-CAM++").report
    assert not report.explanations[0].heatmap.any()
    assert report.explanations[0].faithfulness is None
    assert "faithfulness" not in report.timing_ms
