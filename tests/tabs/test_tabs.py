"""The page's words and pictures, by known answers; and the page as built on a fake analyser."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.fake_analyser import (
    MODELS,
    FakeAnalyser,
    FakeHub,
    answer,
    film,
    spectrogram,
    without_heat,
)
from xai_demo import render
from xai_demo.analysis.request import AnalysisRequest
from xai_demo.catalog import MODELS as CATALOG
from xai_demo.catalog import Entry
from xai_demo.explainers import EXPLAINERS, fitting_names
from xai_demo.hub import Hub
from xai_demo.networks import ARCHITECTURES
from xai_demo.records import DISCLAIMER, Analysis, Explanation, Model, ModelInUse, View
from xai_demo.scheduler import Jobs
from xai_demo.settings import Settings
from xai_demo.tabs import (
    TABS,
    build,
    controls,
    details,
    figure,
    phrases,
)
from xai_demo.tabs.comparison import explainer_agreement
from xai_demo.tabs.controls import playable_sound
from xai_demo.tabs.requests import (
    PageRequest,
    Refusal,
    run_comparison,
    run_request,
)
from xai_demo.tabs.result import answer_html, empty_html, refusal_html

LUNG, XRAY, _, EVERYDAY, _ = MODELS
LINEAR = View(
    pixels=np.zeros((4, 8), np.uint8),
    duration_s=8.0,
    row_frequencies_hz=(100.0, 200.0, 300.0, 400.0),
)


def heat(rows: int, columns: int, *hot: tuple[int, int], **peak: float) -> Explanation:
    values = np.zeros((rows, columns), np.float32)
    for row, column in hot:
        values[row, column] = 1
    return Explanation(
        explainer="Grad-CAM++",
        target="wheeze",
        probability=0.5,
        layer="layer4",
        values=values,
        heatmap=values,
        peak=peak,
    )


def run_apart(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine in a thread of its own: the browser tests keep a loop running in this one."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, work).result(timeout=60)


@pytest.fixture(params=[LUNG, XRAY, EVERYDAY], ids=lambda m: m.task)
def answered_model(request: pytest.FixtureRequest) -> tuple[Analysis, Model]:
    model: Model = request.param
    return answer(model, "clip.wav", "Grad-CAM++", None), model


# Words


@pytest.mark.parametrize(
    ("probability", "text"),
    [(1.0, "> 99 %"), (0.834, "83 %"), (0.1, "10 %"), (0.0654, "6.5 %"), (0.0, "< 0.1 %")],
)
def test_probabilities_have_two_significant_digits(probability: float, text: str) -> None:
    assert phrases.percent(probability) == text


@pytest.mark.parametrize(
    ("frequency", "text"),
    [(50, "50 Hz"), (412, "410 Hz"), (999.4, "1000 Hz"), (1234, "1.2 kHz"), (12000, "12 kHz")],
)
def test_frequencies_have_units_and_two_significant_digits(frequency: float, text: str) -> None:
    assert phrases.hertz(frequency) == text


@pytest.mark.parametrize(
    ("label", "text"),
    [
        ("Pleural_Thickening", "Pleural thickening"),
        ("normal", "Normal"),
        ("both", "Crackle and wheeze"),
        ("Dog", "Dog"),
        ("", ""),
    ],
)
def test_labels_read_as_words(label: str, text: str) -> None:
    assert phrases.display_label(label) == text


@pytest.mark.parametrize(
    ("x", "y", "text"),
    [
        (0.0, 0.0, "upper left"),
        (1.0, 1.0, "lower right"),
        (0.5, 0.5, "centre"),
        (0.5, 0.1, "upper centre"),
        (0.9, 0.5, "middle right"),
    ],
)
def test_regions_are_named_as_seen_in_the_picture(x: float, y: float, text: str) -> None:
    assert phrases.region(x, y) == text


def test_the_hot_span_is_the_stretch_round_the_maximum() -> None:
    profile = np.array([0.6, 0.1, 0.5, 1.0, 0.7, 0.2, 0.0, 0.9])
    assert phrases.half_maximum_span(profile) == (2 / 8, 5 / 8)


def test_where_it_listened_names_seconds_and_hertz() -> None:
    explanation = heat(4, 8, (1, 2), (1, 3), time_s=2.5, frequency_hz=200.0)
    said = phrases.heatmap_location(LINEAR, explanation)
    assert "between 2.0 and 4.0 s" in said
    assert "from 150 Hz to 250 Hz" in said
    assert "at 2.50 s, 200 Hz" in said


def test_heat_everywhere_is_said_plainly() -> None:
    everywhere = [(row, column) for row in range(4) for column in range(8)]
    said = phrases.heatmap_location(LINEAR, heat(4, 8, *everywhere, time_s=0.0, frequency_hz=100.0))
    assert "on the whole recording" in said
    assert "at all frequencies" in said


def test_no_heat_is_said_plainly() -> None:
    assert "heatmap is zero everywhere" in phrases.heatmap_location(
        LINEAR, heat(4, 8, time_s=0.0, frequency_hz=100.0)
    )


def test_where_it_looked_names_the_region_and_whose_left_it_is() -> None:
    said = phrases.heatmap_location(film(), heat(10, 10, (1, 1), x=0.15, y=0.15))
    assert "upper left" in said
    assert "1 % of the image" in said
    assert "patient's right side is on your left" in said


@pytest.mark.parametrize(("height", "frequency"), [(0.125, 100), (0.5, 250), (0.875, 400)])
def test_heights_and_frequencies_are_inverse(height: float, frequency: float) -> None:
    assert phrases.frequency_at(LINEAR, height) == pytest.approx(frequency)
    assert render.frequency_height(LINEAR, frequency) == pytest.approx(height)


def test_who_said_so_names_repository_revision_and_hash() -> None:
    used = ModelInUse(
        name="n",
        architecture="a",
        source="hub",
        repo_id="someone/model",
        revision="f" * 40,
        sha256="abc123" * 10,
        backend="onnx",
        device="cuda",
    )
    said = phrases.provenance(used, "Title")
    for part in ("Title (n)", "someone/model at ffffffffffff", "abc123abc123", "onnx", "CUDA"):
        assert part in said


# The figure


@pytest.mark.parametrize(
    ("duration", "first", "step"), [(8.0, 0.0, 1.0), (0.4, 0.0, 0.05), (65.0, 0.0, 10.0)]
)
def test_time_ticks_are_round_and_few(duration: float, first: float, step: float) -> None:
    ticks = figure.time_ticks(duration)
    assert ticks[0] == first
    assert np.allclose(np.diff(ticks), step)
    assert duration - step < ticks[-1] <= duration + 1e-6


def test_frequency_ticks_lie_where_the_rows_say() -> None:
    assert figure.frequency_ticks(LINEAR) == [
        (100.0, 0.125),
        (200.0, 0.375),
        (300.0, 0.625),
    ]


def pixels(uri: str) -> np.ndarray:
    kind, data = uri.split(",", 1)
    assert kind.startswith("data:image/")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGBA"))


def test_the_heat_layer_has_the_colours_of_the_renderer() -> None:
    heatmap = np.array([[0.0, 1.0], [0.5, 0.25]], np.float32)
    assert np.array_equal(pixels(figure.heatmap_uri(heatmap)), render.colour_heatmap(heatmap))


def test_sound_is_drawn_with_low_frequencies_at_the_foot() -> None:
    analysis = answer(LUNG, "clip.wav", "Grad-CAM++", None)
    first = replace(
        analysis.report.explanations[0],
        heatmap=np.array([[1.0], [0.0]], np.float32),  # hot in the lowest row
    )
    shown = replace(analysis, report=replace(analysis.report, explanations=(first,)))
    uri = re.search(r'class="xai-heat" alt="" src="([^"]+)"', figure.figure_html(shown)).group(1)
    assert pixels(uri)[1, 0, 3] > pixels(uri)[0, 0, 3] == 0


def test_the_peak_ring_lies_at_its_time_and_frequency() -> None:
    analysis = answer(LUNG, "clip.wav", "Grad-CAM++", None)
    view = replace(LINEAR, decibels=(-80.0, 0.0))
    peaked = heat(4, 8, (0, 2), time_s=2.0, frequency_hz=100.0)
    shown = replace(
        analysis, view=view, report=replace(analysis.report, explanations=(peaked,), events=())
    )
    assert 'class="xai-peak" style="left:25.00%;top:87.50%"' in figure.figure_html(shown)


def test_every_explained_label_has_a_layer_and_one_is_shown(
    answered_model: tuple[Analysis, Model],
) -> None:
    analysis, _ = answered_model
    html = figure.figure_html(analysis)
    layers = re.findall(r'class="xai-layer" data-layer="(\d+)"( hidden)?', html)
    count = len(analysis.report.explanations)
    assert [int(i) for i, _ in layers] == list(range(count))
    assert [hidden for _, hidden in layers] == [""] + [" hidden"] * (count - 1)


def test_the_alternative_text_states_finding_and_region() -> None:
    html = figure.figure_html(answer(XRAY, "film.png", "Grad-CAM++", None))
    alternative = re.search(r'role="img" aria-label="([^"]+)"', html).group(1)
    assert "Pneumonia (83 %)" in alternative
    assert "middle left" in alternative


def test_events_stand_at_their_times() -> None:
    html = figure.figure_html(replace(answer(LUNG, "clip.wav", "Grad-CAM++", None), timeline=None))
    assert 'data-start="0.800" data-end="1.400"' in html
    assert "left:10.00%;width:7.50%" in html  # 0.8 s and 0.6 s of 8 s


def test_a_picture_without_heat_is_still_drawn() -> None:
    html = figure.figure_html(without_heat(answer(LUNG, "clip.wav", "Grad-CAM++", None)))
    assert "xai-base" in html
    assert "xai-layer" not in html
    assert "range" not in html


# The answer and the other states


def test_the_answer_is_large_and_in_words(answered_model: tuple[Analysis, Model]) -> None:
    analysis, model = answered_model
    html = answer_html(analysis, model)
    assert phrases.display_label(analysis.report.predictions[0].label) in html
    assert "83 %" in html
    assert model.title in html
    assert phrases.short_hash(analysis.report.model.sha256) in html


def test_uncertain_says_why_and_gives_no_number() -> None:
    analysis = answer(LUNG, "uncertain.wav", "Grad-CAM++", None)
    headline = answer_html(analysis, LUNG).split('class="xai-bars"')[0]
    assert "Uncertain" in headline
    assert analysis.report.decision.reason in headline
    assert "xai-number" not in headline


def test_warnings_are_shown_before_the_answer() -> None:
    html = answer_html(answer(LUNG, "silence.wav", "Grad-CAM++", None), LUNG)
    assert html.index("silent: there is nothing to explain") < html.index("xai-label")


def test_of_many_labels_ten_are_shown_and_counted() -> None:
    big = MODELS[2]
    html = answer_html(answer(big, "clip.wav", "Grad-CAM++", None), big)
    assert html.count("<li>") == 10
    assert "The 10 most probable of 527 labels" in html


def test_a_label_asked_for_is_shown_however_improbable() -> None:
    big = MODELS[2]
    html = answer_html(answer(big, "clip.wav", "Grad-CAM++", big.labels[526]), big)
    assert f"{big.labels[526]}, &lt; 0.1 %: show its heatmap" in html
    assert html.count("<li>") == 11


def test_operating_points_are_marked_where_the_model_has_them() -> None:
    html = answer_html(answer(LUNG, "clip.wav", "Grad-CAM++", None), LUNG)
    assert html.count('class="xai-tick" style="left:40.0%"') == len(LUNG.operating_points)


@pytest.mark.parametrize(
    "build_html", [lambda text: empty_html(text), lambda text: refusal_html(text, advice=text)]
)
def test_words_of_others_cannot_become_markup(build_html) -> None:
    assert "<script>" not in build_html("<script>alert(1)</script>")


def test_file_names_and_warnings_cannot_become_markup() -> None:
    analysis = answer(LUNG, "silence<img src=x onerror=alert(1)>.wav", "Grad-CAM++", None)
    analysis = replace(analysis, report=replace(analysis.report, warnings=("<b>x</b>",)))
    html = answer_html(analysis, LUNG) + details.details_html(analysis, LUNG)
    assert "<img src=x" not in html
    assert "<b>x</b>" not in html


# Settings and details


def test_details_give_figures_with_intervals_and_the_whole_origin() -> None:
    html = details.details_html(answer(LUNG, "clip.wav", "Grad-CAM++", None), LUNG)
    for part in ("0.912 (0.890 to 0.934)", LUNG.data, LUNG.licence, LUNG.citation, LUNG.sha256):
        assert part in html


def downloads(analysis: Analysis, model: Model) -> dict[str, bytes]:
    links = re.findall(
        r'download="([^"]+)" href="data:[^,]+;base64,([^"]+)"',
        details.details_html(analysis, model),
    )
    return {name: base64.b64decode(data) for name, data in links}


def test_downloads_hold_what_they_say(answered_model: tuple[Analysis, Model]) -> None:
    analysis, model = answered_model
    files = downloads(analysis, model)
    assert Image.open(io.BytesIO(files["overlay.png"])).format == "PNG"
    assert json.loads(files["report.json"]) == json.loads(json.dumps(analysis.report.to_json()))
    heatmap = np.load(io.BytesIO(files["heatmap.npy"]))
    assert heatmap.dtype == np.float32
    assert np.array_equal(heatmap, analysis.report.explanations[0].heatmap)
    assert ("events.csv" in files) == bool(analysis.report.events)


def test_the_snippet_asks_the_same_again() -> None:
    html = details.details_html(answer(XRAY, 'fi"lm.png', "LayerCAM", "Normal"), XRAY)
    code = re.sub("<[^>]+>", "", re.search("<pre.*</pre>", html, re.DOTALL).group())
    code = code.replace("&quot;", '"')
    compile(code, "snippet", "exec")
    for part in ('explainer="LayerCAM"', 'target="Normal"', 'api_name="/chest_xray"'):
        assert part in code


# Asking


def test_an_answer_passes_the_picks_on(tmp_path: Path) -> None:
    analyser = FakeAnalyser()
    request = AnalysisRequest(
        task="audioset",
        model="everyday-cnn6",
        explainer="LayerCAM",
        target="Dog",
        layer="conv_block5",
    )
    assert isinstance(run_request(analyser, request, "clip.wav"), Analysis)
    assert analyser.calls == [
        {
            "task": "audioset",
            "file": "clip.wav",
            "name": None,
            "model": "everyday-cnn6",
            "explainer": "LayerCAM",
            "target": "Dog",
            "layer": "conv_block5",
            "weights": None,
            "signal_path": None,
            "cycles": None,
            "cycles_name": None,
            "backend": "auto",
            "film": "checked",
            "age": "auto",
            "noise": None,
            "faithfulness": True,
            "uncertainty": True,
        }
    ]


def test_empty_picks_mean_the_defaults() -> None:
    analyser = FakeAnalyser()
    choices = dict.fromkeys(("model", "explainer", "target", "layer", "film"), "")
    run_request(analyser, AnalysisRequest.from_choices("audioset", **choices), "clip.wav")
    assert (analyser.calls[0]["model"], analyser.calls[0]["target"]) == (None, None)
    assert (analyser.calls[0]["explainer"], analyser.calls[0]["layer"]) == (None, None)


@pytest.mark.parametrize("path", [None, ""])
def test_no_file_is_refused_in_words(path: str | None) -> None:
    outcome = run_request(FakeAnalyser(), AnalysisRequest(task="stethoscope"), path)
    assert isinstance(outcome, Refusal)
    assert "no file yet" in outcome.message


def test_a_refused_file_keeps_its_own_sentence() -> None:
    outcome = run_request(FakeAnalyser(), AnalysisRequest(task="stethoscope"), "refuse.wav")
    assert isinstance(outcome, Refusal)
    assert outcome.message == (
        "refuse.wav is a text file, wanted: a WAV, FLAC, Ogg or MP3 recording."
    )


def test_absent_weights_say_what_to_pick_instead() -> None:
    outcome = run_request(
        FakeAnalyser(), AnalysisRequest(task="audioset", model="big-cnn14"), "clip.wav"
    )
    assert isinstance(outcome, Refusal)
    assert outcome.title == "This model is not available"
    assert "Settings and details" in outcome.advice


def test_a_stopped_question_ends_in_one_sentence(caplog: pytest.LogCaptureFixture) -> None:
    analyser = FakeAnalyser()
    outcome = run_request(
        analyser, AnalysisRequest(task="stethoscope"), "long.wav", cancelled=lambda: True
    )
    assert isinstance(outcome, Refusal)
    assert outcome.stopped
    assert outcome.message == "Cancelled on request."
    assert not [record for record in caplog.records if record.levelname != "INFO"]


def test_comparing_asks_about_the_same_label_twice_and_tells_one_rising_progress() -> None:
    analyser, told = FakeAnalyser(), []
    both = run_comparison(
        analyser,
        PageRequest(
            request=AnalysisRequest(task="stethoscope", explainer="LayerCAM"),
            compare_with="Grad-CAM",
        ),
        "clip.wav",
        lambda done, doing: told.append(done),
        lambda: False,
    )
    assert isinstance(both.first, Analysis)
    assert isinstance(both.second, Analysis)
    asked = [(call["explainer"], call["target"]) for call in analyser.calls]
    assert asked == [("LayerCAM", None), ("Grad-CAM", "both")]
    assert told == sorted(set(told))
    assert 0 <= told[0] <= told[-1] <= 1


def test_a_refused_question_is_not_asked_again_to_compare() -> None:
    analyser = FakeAnalyser()
    chosen = PageRequest(request=AnalysisRequest(task="stethoscope"), compare_with="Grad-CAM")
    both = run_comparison(analyser, chosen, "refuse.wav", lambda done, doing: None, lambda: False)
    assert isinstance(both.first, Refusal)
    assert len(analyser.calls) == 1


# Two explainers


def pair(one: Explanation, other: Explanation) -> tuple[Explanation, Explanation]:
    return one, replace(other, explainer="LIME")


RISING = np.arange(12, dtype=np.float32).reshape(3, 4) / 11


@pytest.mark.parametrize(
    ("other", "said", "number"),
    [
        (RISING**2, "agree closely", "1.00"),  # the same order
        (1 - RISING, "contradict each other", "\u22121.00"),
        (np.zeros((3, 4), np.float32), "cannot be compared", "is empty"),
    ],
)
def test_agreement_is_said_in_words_and_as_a_number(
    other: np.ndarray, said: str, number: str
) -> None:
    one = replace(heat(3, 4, time_s=0.0, frequency_hz=100.0), heatmap=RISING)
    sentence = explainer_agreement(*pair(one, replace(one, heatmap=other)))
    assert said in sentence
    assert number in sentence
    assert "Grad-CAM++ and LIME" in sentence


def test_two_explainers_stand_side_by_side() -> None:
    first = answer(LUNG, "clip.wav", "Grad-CAM++", None)
    html = answer_html(first, LUNG, answer(LUNG, "clip.wav", "LIME (<b>)", None))
    section = re.search('<section class="xai-comparison">.*</section>', html, re.DOTALL).group()
    assert section.count('class="xai-heat"') == 2
    assert "LIME (&lt;b&gt;)" in section
    assert "agree closely" in section
    assert "xai-comparison" not in answer_html(first, LUNG)


def test_what_cannot_be_compared_says_why_and_keeps_the_answer() -> None:
    first = answer(LUNG, "clip.wav", "Grad-CAM++", None)
    html = answer_html(first, LUNG, Refusal(title="No", message="LIME was <b>ill</b>.", advice=""))
    assert "No comparison is available: LIME was &lt;b&gt;ill" in html
    assert "xai-figure" in html


# What there is to pick


def test_only_fitting_explainers_are_offered_and_the_slow_are_marked() -> None:
    choices = controls.explainer_choices(LUNG)
    assert {name for _, name in choices} == set(
        fitting_names(ARCHITECTURES[LUNG.architecture].kind)
    )
    assert choices[0] == ("Grad-CAM++", "Grad-CAM++")
    shown = {name: text for text, name in choices}
    assert (shown["LIME"], shown["LayerCAM"]) == ("LIME (slow)", "LayerCAM")
    assert shown["Guided backpropagation"] == "Guided backpropagation"


def test_a_kind_of_network_narrows_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = replace(ARCHITECTURES["resnet18"], kind="transformer")
    monkeypatch.setitem(ARCHITECTURES, "resnet18", kind)
    names = [name for _, name in controls.explainer_choices(LUNG)]
    assert set(names) == set(fitting_names("transformer"))
    unfit = next(name for name in EXPLAINERS if name not in names)
    kept, lost = (
        controls.model_dependent_updates(FakeAnalyser(), LUNG.name, name, name)
        for name in ("LIME", unfit)
    )
    assert (kept[0]["value"], kept[3]["value"]) == ("LIME", "LIME")
    assert (lost[0]["value"], lost[3]["value"]) == (names[0], "")


def test_layers_are_offered_where_there_are_several() -> None:
    assert [name for _, name in controls.layer_choices(MODELS[2])] == list(
        ARCHITECTURES["cnn14"].cuts
    )
    shown = {
        name: controls.model_dependent_updates(FakeAnalyser(), name)[2]
        for name in ("big-cnn14", LUNG.name)
    }
    assert shown["big-cnn14"]["visible"] is True
    assert shown["big-cnn14"]["value"] == "conv_block6.conv2"
    assert shown[LUNG.name]["visible"] is (len(ARCHITECTURES["resnet18"].cuts) > 1)


def test_a_model_that_nobody_knows_offers_what_there_is() -> None:
    explaining, targets, layers, second = controls.model_dependent_updates(
        FakeAnalyser(), "nix", "LIME"
    )
    assert explaining["value"] == "LIME"
    assert len(targets["choices"]) == 1
    assert layers["visible"] is False
    assert second["value"] == ""


# What is worked on


def test_stopping_reaches_one_visitor_at_one_place() -> None:
    running = Jobs()
    with (
        running.start("anna", "lungs") as lungs,
        running.start("anna", "films") as films,
        running.start("ben", "lungs") as others,
    ):
        running.stop("anna", "lungs")
        assert (lungs(), films(), others()) == (True, False, False)
        running.stop("anna")
        assert (films(), others()) == (True, False)
        assert len(running) == 3
    assert len(running) == 0
    assert others()


def test_a_new_question_at_a_place_stops_the_old_one_and_without_a_place_none() -> None:
    running = Jobs()
    with (
        running.start("anna", "lungs") as old,
        running.start("anna") as client,
        running.start("anna", "lungs") as new,
        running.start("anna") as second,
    ):
        assert (old(), new(), client(), second()) == (True, False, False, False)


def test_who_no_longer_waits_stops_the_work() -> None:
    running, begun, ended = Jobs(), threading.Event(), threading.Event()

    def work(stopped: Callable[[], bool]) -> None:
        begun.set()
        while not stopped():
            time.sleep(0.01)
        ended.set()

    async def waits() -> None:
        task = asyncio.create_task(running.run("anna", None, work))
        await asyncio.to_thread(begun.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_apart(waits())
    assert ended.wait(10)
    assert len(running) == 0


def test_a_fault_of_ours_is_logged_by_number_and_tells_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outcome = run_request(FakeAnalyser(), AnalysisRequest(task="stethoscope"), "break.wav")
    assert isinstance(outcome, Refusal)
    assert outcome.title == "Something went wrong on the server"
    assert "Your file is not the cause" in outcome.message
    assert "secret" not in outcome.message + outcome.advice
    number = re.search(r"logged as (\w{8})", outcome.message).group(1)
    assert number in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_sounds_are_played_as_loud_as_they_are() -> None:
    rate, samples = playable_sound(np.array([0.0, 0.5, -1.0, 2.0], np.float32), 8000)
    assert rate == 8000
    assert samples.dtype == np.int16
    assert samples.tolist() == [0, 16384, -32767, 32767]


# The page


@pytest.fixture(scope="module")
def config() -> dict:
    return build(FakeAnalyser()).get_config_file()


def test_the_published_endpoints_are_the_contract_and_nothing_else(config: dict) -> None:
    published = {d["api_name"] for d in config["dependencies"] if d["api_visibility"] != "private"}
    assert published == {"stethoscope", "chest_xray", "audioset", "models", "explainers"}


@pytest.mark.parametrize("task", TABS)
def test_a_tab_has_its_sentence_and_the_disclaimer(task: str, config: dict) -> None:
    said = [str(c["props"].get("value")) for c in config["components"]]
    assert any(TABS[task].sentence in text and DISCLAIMER in text for text in said)
    assert any(TABS[task].guide in text for text in said)


@pytest.mark.parametrize("task", TABS)
def test_the_button_sleeps_at_first(task: str, config: dict) -> None:
    props = {c["props"].get("elem_id"): c["props"] for c in config["components"]}
    assert props[f"{task}-analyse"]["interactive"] is False


def test_a_stand_in_is_announced(config: dict) -> None:
    said = " ".join(str(c["props"].get("value")) for c in config["components"])
    assert "<b>PANNs Cnn14</b> is not installed; using <b>everyday-cnn6</b>, which has 8" in said
    assert "has 8 labels instead of 527: Rain, Dog, Rooster, Sea waves, Chainsaw" in said


def test_a_stand_in_that_knows_as_much_is_announced_without_a_list() -> None:
    assert phrases.missing_labels(["Dog"] * 527, 527) == ""
    few = phrases.missing_labels(["dog", "Rain"], 3)
    assert few == ", which has 2 labels instead of 3: Dog and Rain"
    many = phrases.missing_labels(["Dog"] * 200, 527)
    assert many == ", which has 200 labels instead of 527"


STAND_IN_LIMITS = {
    "stethoscope": "knows 4 kinds of lung sound and assigns every input to one of them.",
    "chest_xray": "knows 6 chest X-ray findings.",
    "audioset": "knows 8 kinds of everyday sound.",
}


@pytest.mark.parametrize("task", TABS)
def test_the_answer_of_a_stand_in_says_so_in_the_words_of_its_task(
    task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {
        "stethoscope": "lung-resnet18",
        "chest_xray": "findings-resnet18",
        "audioset": "everyday-cnn6",
    }
    model = next(m for m in MODELS if m.name == names[task])
    html = answer_html(answer(model, "clip.wav", "Grad-CAM++", None), model)
    assert ("stand-in for" in html) is (task == "audioset")  # as the catalogue has it
    entry = Entry(task=model.task, stand_in_for="the-large-one")
    monkeypatch.setitem(CATALOG, model.name, entry)
    html = answer_html(answer(model, "clip.wav", "Grad-CAM++", None), model)
    said = f"Answered by {model.name}, a small stand-in for the-large-one, which "
    assert said + STAND_IN_LIMITS[task] in html


@pytest.mark.parametrize("name", [name for name, e in CATALOG.items() if e.stand_in_for])
def test_a_stand_in_of_the_catalogue_speaks_of_sound_only_where_there_is_some(name: str) -> None:
    model = Hub(Settings.from_env({"HF_HUB_OFFLINE": "1"})).model(name)
    html = answer_html(answer(model, "clip", "Grad-CAM++", None), model)
    note = re.search('<p class="xai-quiet xai-stand-in-note">(.*?)</p>', html).group(1)
    assert f"knows {len(model.labels)} " in note
    assert ("sound" in note) is (model.task != "chest_xray")


def test_a_stand_ins_answer_says_whose_it_is() -> None:
    by_name = {m.name: m for m in MODELS}
    stand_in, real = by_name["everyday-cnn6"], by_name["big-cnn14"]
    html = answer_html(answer(stand_in, "clip.wav", "Grad-CAM++", None), stand_in)
    assert "Answered by everyday-cnn6, a small stand-in for yamnet, which knows 8 kinds of" in html
    assert "assigns every input" not in html  # its labels are independent here
    one_of = replace(stand_in, activation="softmax")
    assert "assigns every input to one of them" in answer_html(
        answer(one_of, "clip.wav", "Grad-CAM++", None), one_of
    )
    assert "stand-in for" not in answer_html(answer(real, "clip.wav", "Grad-CAM++", None), real)


def test_the_answer_names_the_network_and_a_better_one_that_is_missing() -> None:
    model = next(m for m in MODELS if m.name == "big-cnn14")
    known = replace(model, name="cnn14")
    given = answer(known, "clip.wav", "Grad-CAM++", None)
    assert "Answered by cnn14, which knows 527 kinds of everyday sound. </p>" in answer_html(
        given, known
    )
    better = "A better network, <x>, is not installed: `fetch x` downloads it."
    suggested = replace(given, report=replace(given.report, suggestion=better))
    assert (
        "knows 527 kinds of everyday sound. A better network, &lt;x&gt;, is not installed:"
        " <code>fetch x</code> downloads it.</p>" in answer_html(suggested, known)
    )


def test_the_page_is_built_though_no_model_is_here() -> None:
    hub = FakeHub(absent=frozenset(m.name for m in MODELS))
    said = json.dumps(build(FakeAnalyser(hub=hub)).get_config_file()["components"], default=str)
    assert "No model for stethoscope is here" in said


def test_nothing_is_reported_and_nothing_fetched_from_elsewhere(config: dict) -> None:
    from xai_demo.tabs import theme

    assert config["analytics_enabled"] is False
    styles = theme.theme()._get_theme_css() + theme.CSS + theme.HEAD
    assert not re.search(r"https?://(?!www\.w3\.org/)", styles)


def test_building_the_page_loads_no_network_library() -> None:
    code = (
        "import sys; from tests.support.fake_analyser import FakeAnalyser;"
        "from xai_demo.tabs import build; build(FakeAnalyser());"
        "import xai_demo.tabs.server;"
        "heavy = {'torch', 'timm', 'librosa', 'transformers', 'onnxruntime', 'scipy.signal'};"
        "print(', '.join(sorted(heavy & set(sys.modules))))"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "")


def test_the_spectrogram_of_the_fake_is_what_the_tests_think() -> None:
    view = spectrogram()
    assert len(view.row_frequencies_hz) == view.pixels.shape[0] == 64


def test_who_stops_waits_until_the_work_has_ended() -> None:
    running = Jobs()
    told: list[str] = []

    def work(stopped: Callable[[], bool]) -> None:
        while not stopped():
            time.sleep(0.01)
        told.append("heard of it")

    async def both() -> None:
        piece = asyncio.create_task(running.run("visitor", "lung", work))
        await asyncio.sleep(0.05)
        assert await running.stop_and_wait("visitor", "lung")
        assert told == ["heard of it"]
        await piece

    run_apart(both())
    assert len(running) == 0


def test_a_page_opened_after_a_better_model_came_selects_it() -> None:
    analyser = FakeAnalyser()
    page = build(analyser)
    (restore,) = [f.fn for f in page.fns.values() if getattr(f.fn, "__name__", "") == "restore"]
    no_link = SimpleNamespace(query_params={})
    unchanged = restore(no_link)
    assert not any("value" in update for update in unchanged if isinstance(update, dict))
    assert not any(isinstance(update, str) for update in unchanged)

    # as where the server has fetched it in the background
    analyser.hub.absent = frozenset()
    updates = restore(no_link)
    selected = [u["value"] for u in updates if isinstance(u, dict) and u.get("value")]
    assert "big-cnn14" in selected
    (opening,) = [u for u in updates if isinstance(u, str)]
    assert "is not installed" not in opening
    # A link that names a model still has its way.
    named = restore(SimpleNamespace(query_params={"model": "everyday-cnn6"}))
    assert "everyday-cnn6" in [u.get("value") for u in named if isinstance(u, dict)]
