"""Recordings through the pipeline: signal path, breathing cycles, doubt, bounded memory."""

from __future__ import annotations

import argparse
import dataclasses

import numpy as np
import pytest
import soundfile

from tests.support.small_models import MEL, analyser_of, model_of
from xai_demo import export, files
from xai_demo.analysis import (
    audio_input,
    heatmap,
    inference,
    inputs,
)
from xai_demo.analysis.request import AnalysisRequest
from xai_demo.audio import spectrogram
from xai_demo.audio.filters import SignalPath
from xai_demo.audio.front_ends import FRONT_ENDS
from xai_demo.audio.segments import Cycle, cycle_windows
from xai_demo.cli import analyse
from xai_demo.errors import AnnotationError, UnsuitableError
from xai_demo.examples import example_path
from xai_demo.records import Recording

RATE = MEL.sample_rate_hz
NO_PATH = SignalPath(band_hz=None, denoise=False)
TAUGHT = dataclasses.replace(MEL, band_hz=(100.0, 1800.0), denoise=True, standardise=True)
LABELS = ("normal", "crackle", "wheeze")
MODELS = (
    model_of("resnet18-fine", name="lung"),
    model_of("resnet18-fine", name="taught", preprocessing=TAUGHT),
    model_of("cnn6", name="tags", task="audioset", activation="sigmoid", normal_label=None),
)


@pytest.fixture(scope="module")
def analyser(tmp_path_factory):
    return analyser_of(tmp_path_factory.mktemp("models"), *MODELS)


@pytest.fixture
def hiss(tmp_path):
    """Five seconds of noise with a loud tone at 3 kHz, which no breath has."""
    t = np.arange(5 * RATE) / RATE
    noise = np.random.default_rng(0).normal(0, 0.05, len(t))
    path = tmp_path / "hiss.wav"
    soundfile.write(path, noise + 0.3 * np.sin(2 * np.pi * 3000 * t), RATE)
    return path


def ask(analyser, path, model="lung", task="stethoscope", **choices):
    request = AnalysisRequest(
        task=task, model=model, backend="torch", faithfulness=False, **choices
    )
    return analyser.analyse(request, path)


def recording(seconds, seed=0, **more):
    samples = np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)
    return Recording(samples=samples, sample_rate_hz=RATE, facts={"clipped_share": 0.0}, **more)


def level(samples, hertz):
    spectrum_of = np.abs(np.fft.rfft(samples))
    return spectrum_of[round(hertz * len(samples) / RATE)] / len(samples) * 2


def test_each_step_of_the_signal_path_can_be_switched_off(analyser, hiss):
    both = ask(analyser, hiss, signal_path=SignalPath())
    assert list(both.stages) == ["raw", "filtered", "denoised"]
    assert level(both.stages["raw"], 3000) == pytest.approx(0.3, abs=0.02)
    assert level(both.stages["filtered"], 3000) < 0.01
    assert both.report.input["signal_path"] == {"band_hz": [100.0, 1800.0], "denoise": True}
    one = ask(analyser, hiss, signal_path=SignalPath(denoise=False))
    assert list(one.stages) == ["raw", "filtered"]
    none = ask(analyser, hiss)
    assert list(none.stages) == ["raw"]
    assert none.report.input["signal_path"] == {"band_hz": None, "denoise": False}


def test_network_spectrogram_and_masked_sound_use_the_last_stage(analyser, hiss):
    raw, cut = ask(analyser, hiss), ask(analyser, hiss, signal_path=SignalPath(denoise=False))
    assert raw.report.predictions != cut.report.predictions
    assert not np.array_equal(raw.view.pixels, cut.view.pixels)
    parts = cut.sounds["explanation"] + cut.sounds["remainder"]
    assert parts == pytest.approx(cut.stages["filtered"], abs=1e-6)
    assert np.array_equal(cut.sounds["original"], cut.stages["raw"])


def test_a_model_gets_the_signal_path_it_was_trained_with(analyser, hiss):
    own = ask(analyser, hiss, "taught")
    assert own.report.input["signal_path"] == {"band_hz": [100.0, 1800.0], "denoise": True}
    same = ask(analyser, hiss, "taught", signal_path=SignalPath())
    assert own.report.predictions == same.report.predictions
    other = ask(analyser, hiss, "taught", signal_path=NO_PATH)
    assert other.report.predictions != own.report.predictions


def test_filters_and_cycles_are_for_the_stethoscope_only(analyser, hiss, tmp_path):
    with pytest.raises(
        UnsuitableError, match="Filters are for the task stethoscope only; the task is audioset"
    ):
        ask(analyser, hiss, "tags", "audioset", signal_path=SignalPath())
    with pytest.raises(
        UnsuitableError,
        match="Respiratory cycles are for the task stethoscope only; the task is aud",
    ):
        ask(analyser, hiss, "tags", "audioset", cycles=tmp_path / "c.txt")
    report = ask(analyser, hiss, "tags", "audioset", signal_path=NO_PATH).report
    assert "signal_path" not in report.input


def test_every_cycle_has_one_answer(analyser, hiss, tmp_path):
    cycles = tmp_path / "cycles.txt"
    cycles.write_text("0.1\t0.9\t0\t0\n0,9\t4.7\t1\t0\n")
    analysis = ask(analyser, hiss, cycles=cycles)
    line = analysis.timeline
    assert line.starts_s == (0.1, 0.9)
    assert line.ends_s == (0.9, 4.7)
    assert line.labels == LABELS
    assert line.probabilities.shape == (2, 3)
    assert line.probabilities.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert any("decimal commas" in warning for warning in analysis.report.warnings)
    assert analysis.report.explanations[0].heatmap.shape == (64, 501)
    assert all((e.start_s, e.end_s) in {(0.1, 0.9), (0.9, 4.7)} for e in analysis.report.events)


def test_the_recording_is_pooled_from_cycles_that_count_alike():
    cycles = tuple(
        Cycle(start_s=a, end_s=b, crackles=False, wheezes=False) for a, b in ((0, 1), (1, 5))
    )
    prepared = inputs.prepare(MODELS[0], recording(5), cycles=cycles)
    assert len(prepared.inputs) == 4  # one, and three over the long breath
    rows = np.array([[0.9, 0.05, 0.05]] + 3 * [[0.05, 0.9, 0.05]], np.float32)
    line = prepared.timeline(MODELS[0], rows)
    assert line.probabilities == pytest.approx(rows[[0, 1]], abs=1e-4)
    assert prepared.file_probabilities(MODELS[0], rows)[0] == pytest.approx(
        prepared.file_probabilities(MODELS[0], rows)[1], rel=1e-4
    )
    events = prepared.events(MODELS[0], rows)
    assert [(e.label, e.start_s, e.end_s) for e in events if not prepared.doubt] in (
        [],
        [("crackle", 1.0, 5.0)],
    )


def test_a_short_cycle_is_repeated_and_its_heatmap_averaged():
    cycle = Cycle(start_s=1.0, end_s=1.5, crackles=False, wheezes=False)
    prepared = inputs.prepare(MODELS[0], recording(5), cycles=(cycle,))
    window = prepared.inputs[0][0]
    assert window.shape == (64, 201)
    assert np.array_equal(window[:, :50], window[:, 50:100])
    hot = np.zeros((1, 4, 201), np.float32)
    hot[0, :, 60:70] = 1  # in the second copy: 0.1 to 0.2 s of the breath
    about = {"explainer": "x", "target": "y", "probability": 0.5, "layer": "z"}
    findings = prepared.explanation(hot, np.ones(1, np.float32), **about)
    assert 1.1 <= findings.peak["time_s"] <= 1.2
    outside = np.delete(findings.heatmap, np.arange(100, 150), axis=1)
    assert not outside.any()


def test_windows_of_cycles_stay_inside_them_and_inside_the_recording():
    cycles = [
        Cycle(start_s=a, end_s=b, crackles=False, wheezes=False)
        for a, b in ((0.0, 0.001), (0.5, 5.5), (4.999, 5.0))
    ]
    spans = cycle_windows(cycles, 201, 501, MEL)
    assert [(s.first, s.last, s.segment) for s in spans] == [
        (0, 1, 0),
        (50, 251, 1),
        (150, 351, 1),
        (250, 451, 1),
        (300, 501, 1),
        (500, 501, 2),
    ]


@pytest.mark.parametrize("text", ["", "three four five six\n", "9 12 0 0\n", "2 1 0 0\n"])
def test_an_annotation_without_a_cycle_in_the_recording_is_refused(analyser, hiss, tmp_path, text):
    cycles = tmp_path / "cycles.txt"
    cycles.write_text(text)
    with pytest.raises(AnnotationError if text else Exception, match=r"cycles\.txt.*expected"):
        ask(analyser, hiss, cycles=cycles)


def test_the_timeline_has_a_row_for_every_window(analyser, hiss):
    line = ask(analyser, hiss).timeline
    assert line.starts_s == pytest.approx((0, 1, 2, 3))
    assert line.ends_s == pytest.approx((2.01, 3.01, 4.01, 5.0))
    assert line.probabilities.shape == (4, 3)


@pytest.mark.parametrize("name", ["breathing", "wheeze", "crackles", "crackles-and-wheeze"])
def test_breath_sounds_are_not_doubtful(analyser, name):
    prepared = inputs.prepare(MODELS[0], analyser.reader.read(MODELS[0], example_path(name)))
    assert prepared.doubt == ""


def test_speech_and_clipping_make_the_answer_uncertain(analyser, tmp_path):
    path = tmp_path / "clipped.wav"
    t = np.arange(4 * RATE) / RATE
    soundfile.write(path, np.clip(2 * np.sin(2 * np.pi * 200 * t), -0.7, 0.7), RATE)
    analysis = ask(analyser, path)
    report = analysis.report
    assert report.input["clipped_share"] > 0.5
    assert report.decision.label is None
    assert "clipped" in report.decision.reason
    assert report.events == ()
    assert sum("clipped" in warning for warning in report.warnings) == 1


def test_partial_silence_is_warned_of_once_and_is_not_a_finding(analyser, tmp_path):
    path = tmp_path / "half.wav"
    sound_of = recording(6).samples.copy()
    sound_of[: 2 * RATE] = 0
    soundfile.write(path, sound_of, RATE)
    warnings = ask(analyser, path).report.warnings
    assert sum("silent" in warning for warning in warnings) == 1
    assert any(warning.startswith("33 % of the recording is silent") for warning in warnings)
    soundfile.write(path, np.zeros(3 * RATE), RATE)
    warnings = ask(analyser, path).report.warnings
    assert sum("silent" in warning for warning in warnings) == 1


def test_filtering_in_chunks_leaves_no_seams(monkeypatch):
    source = recording(30)
    path = SignalPath(denoise=False)
    whole = path.run(source.samples, RATE)[-1].samples
    monkeypatch.setattr(audio_input, "MAX_PLAYED_S", 5.0)
    monkeypatch.setattr(audio_input, "_FILTER_CHUNK_S", 7.0)
    prepared = inputs.prepare(MODELS[0], source, signal_path=path)
    assert prepared.samples == pytest.approx(whole, abs=1e-4)
    assert prepared.stages == {}


def test_a_spectrogram_in_chunks_equals_the_whole(monkeypatch):
    samples = recording(7.3).samples
    for front in FRONT_ENDS:
        spec = dataclasses.replace(TAUGHT, front_end=front, top_db=40)
        whole = spectrogram.log_mel(samples, spec)
        monkeypatch.setattr(spectrogram, "_CHUNK_FRAMES", 100)
        pieces = list(spectrogram.log_mel_chunks(samples, spec))
        assert len(pieces) > 3
        assert np.concatenate([p for _, p in pieces], axis=1) == pytest.approx(whole, abs=1e-3)
        monkeypatch.undo()
        floored = np.maximum(whole, whole.max() - 40)
        expected = (floored - floored.mean()) / floored.std()
        assert spectrogram.normalise_decibels(whole, spec) == pytest.approx(expected, abs=1e-3)
        of = spectrogram.measure_levels(whole, spec)
        part = spectrogram.normalise_decibels(whole[:, 50:90], spec, of)
        assert part == pytest.approx(expected[:, 50:90], abs=1e-3)


def test_frames_that_share_a_column_are_reduced_to_their_maximum():
    decibels = np.arange(2 * 7, dtype=np.float32).reshape(2, 7)
    assert heatmap.max_per_column(decibels, 3).tolist() == [[2, 5, 6], [9, 12, 13]]
    assert heatmap.max_per_column(decibels, 1) is decibels


def test_windows_behave_like_the_whole_array():
    prepared = inputs.prepare(MODELS[1], recording(9), signal_path=NO_PATH)
    held = np.asarray(prepared.inputs)
    assert held.shape == prepared.inputs.shape == (8, 1, 64, 201)
    assert np.array_equal(prepared.inputs[3], held[3])
    assert np.array_equal(prepared.inputs[2:5], held[2:5])
    assert np.array_equal(prepared.inputs[np.array([0, 7])], held[[0, 7]])
    assert np.array_equal(prepared.inputs[:, 0], held[:, 0])
    assert np.array_equal(prepared.inputs[..., 150:], held[..., 150:])
    assert prepared.inputs.min() == pytest.approx(held.min(), abs=1e-5)


def test_of_many_windows_the_most_probable_are_explained(analyser, monkeypatch, tmp_path):
    path = tmp_path / "twelve.wav"
    soundfile.write(path, recording(12).samples, RATE)
    whole = ask(analyser, path)
    monkeypatch.setattr(inference, "_MAX_WINDOWS", 4)
    monkeypatch.setattr(inference, "_MAX_KEPT_WINDOWS", 3)
    # Not by how fast the machine is.
    monkeypatch.setattr(inference.ModelRunner, "_batch_size", lambda self: 4)
    some = ask(analyser, path)
    assert some.report.predictions == whole.report.predictions
    assert some.report.explanations[0].passes == 4
    (said,) = [w for w in some.report.warnings if "were explained" in w]
    assert "only the 4 most probable of 11 windows" in said
    target = LABELS.index(some.report.explanations[0].target)
    best = int(some.timeline.probabilities[:, target].argmax())
    columns = some.report.explanations[0].heatmap[:, 100 * best : 100 * best + 200]
    assert columns.any()


def test_windows_are_chosen_for_all_targets_alternately():
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.1, 0.9], [0.2, 0.8]], np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inference, "_MAX_WINDOWS", 3)
        method = inference.explainers.explainer("Grad-CAM++")
        assert inference._windows_to_explain(method, p, [0, 1]).tolist() == [0, 1, 3]
        assert inference._windows_to_explain(method, p, [1]).tolist() == [2, 3, 4]


@pytest.mark.parametrize(
    ("name", "says"), [("Attention rollout", "runs the network again"), ("LIME", "many times")]
)
def test_the_warning_says_how_often_the_explainer_runs_the_network(name, says):
    (said,) = inference.skipped_windows_warning(name, 5)
    assert says in said
    assert "2 most probable of 5 windows" in said
    assert inference.skipped_windows_warning(name, 2) == ()


def test_a_large_array_is_memory_mapped_and_keeps_its_values(monkeypatch):
    import mmap

    monkeypatch.setattr(files, "_MAPPED_FROM_BYTES", 1000)
    assert files.allocate_array((10,)).base is None
    large = files.allocate_array((30, 20))
    assert isinstance(large.base, mmap.mmap)
    large[:] = np.arange(600).reshape(30, 20)
    files.release_pages(large.T[3:, :5])
    assert large.sum() == 600 * 599 / 2
    monkeypatch.setattr(files, "_CHUNK_VALUES", 70)
    assert [(s.start, s.stop) for s in files.chunks(large, 2)][:2] == [(0, 2), (2, 4)]
    assert sum(s.stop - s.start for s in files.chunks(large, 4)) == 30


def test_a_full_disk_leaves_the_array_in_memory(monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "_MAPPED_FROM_BYTES", 1000)
    monkeypatch.setattr(files.os, "posix_fallocate", full)
    assert files.allocate_array((30, 20)).base is None


def test_an_array_grows_beyond_its_expected_length():
    held, pieces = (
        files.GrowingArray(10),
        [np.full(n, n, np.float32) for n in (3, 70_000, 1, 90_000)],
    )
    for piece in pieces:
        held.append(piece)
    assert np.array_equal(held.view(), np.concatenate(pieces))


def analysed(arguments):
    parser = argparse.ArgumentParser(exit_on_error=False)
    analyse.add_analyse(parser)
    return parser.parse_args(["taught", "clip.wav", *arguments])


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        ([], None),
        (["--band", "off"], SignalPath(band_hz=None, denoise=True)),
        (["--band", "200-1000"], SignalPath(band_hz=(200, 1000), denoise=True)),
        (["--denoise", "off"], SignalPath(band_hz=(100, 1800), denoise=False)),
        (["--band", "off", "--denoise", "off"], NO_PATH),
    ],
)
def test_unset_steps_of_the_signal_path_are_the_models_own(analyser, arguments, path):
    assert analyse.signal_path(analysed(arguments), analyser.hub) == path


@pytest.mark.parametrize("text", ["100", "1800-100", "low-high", "", "100-inf", "nan-5"])
def test_an_invalid_band_is_refused(text):
    with pytest.raises(
        argparse.ArgumentError,
        match=r"is not a band; give LOW-HIGH in Hz, such as 100-1800, or off",
    ):
        analysed([f"--band={text}"])


def test_events_and_stages_are_written_beside_the_report(analyser, hiss, tmp_path):
    export.write(ask(analyser, hiss, signal_path=SignalPath()), tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"events.csv", "events.txt", "raw.wav", "filtered.wav", "denoised.wav"} <= names
    assert (tmp_path / "out" / "events.csv").read_text().startswith("label,start_s,end_s")
    export.write(ask(analyser, hiss), tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert "raw.wav" in names
    assert not {"filtered.wav", "denoised.wav"} & names
