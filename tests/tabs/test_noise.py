"""The section on noise, and two models side by side: on the fake, and on heat made by hand."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import gradio as gr
import numpy as np
import pytest

from tests.conftest import came
from tests.support.fake_analyser import (
    MODELS,
    FakeAnalyser,
    FakeHub,
    answer,
)
from xai_demo.analysis.request import AnalysisRequest, noise_choice
from xai_demo.audio.noise import KINDS, Noise
from xai_demo.records import Analysis, View
from xai_demo.tabs import controls, noise
from xai_demo.tabs.comparison import model_agreement, resample_to_shared_grid
from xai_demo.tabs.requests import (
    MODEL_PREFIX,
    PageRequest,
    Refusal,
    run_comparison,
)
from xai_demo.tabs.result import answer_html

BIG, SMALL = MODELS[2], MODELS[3]
LUNG = MODELS[0]
PINK = Noise(kind="pink", snr_db=-5)
ASKED = AnalysisRequest(task="audioset")


def never() -> bool:
    return False


def test_without_a_noise_there_is_nothing_and_nobody_is_asked():
    analyser = FakeAnalyser()
    shown, player = noise.section_values(analyser, ASKED, "clip.wav", never)
    assert (shown, player["visible"]) == ("", False)
    shown, _ = noise.section_values(analyser, replace(ASKED, noise=PINK), None, never)
    assert shown == ""
    assert analyser.calls == []


def test_a_noise_is_shown_as_words_bars_and_two_pictures_and_heard():
    analyser = FakeAnalyser()
    request = replace(ASKED, noise=PINK, explainer="Grad-CAM")
    shown, player = noise.section_values(analyser, request, "clip.wav", never)
    assert [call.get("noise") for call in analyser.calls] == [None, PINK]
    assert {call["explainer"] for call in analyser.calls} == {"Grad-CAM"}
    assert analyser.calls[1]["target"] == SMALL.labels[0]
    assert "pink noise at a signal-to-noise ratio of \u22125 dB" in shown
    assert "With pink noise, \u22125 dB" in shown
    assert shown.count('class="xai-heat"') == 2
    assert shown.count('class="xai-base"') == 2  # each its own spectrogram
    assert shown.count("<tr><th scope='row'>") == 5
    assert "The answer stays Rain" in shown
    assert "rank correlation 1.00" in shown
    assert player["visible"]


def test_what_cannot_be_asked_with_noise_is_said():
    shown, player = noise.section_values(
        FakeAnalyser(), replace(ASKED, noise=PINK), "refuse<b>.wav", never
    )
    assert "No comparison is available" in shown
    assert "refuse&lt;b&gt;.wav is a text file" in shown
    assert player["visible"] is False


def test_the_two_widgets_say_which_noise():
    assert noise_choice("", None) is None
    assert noise_choice("babble", -3) == Noise(kind="babble", snr_db=-3)
    with gr.Blocks():
        widgets = noise.lay_out("audioset")
    assert [value for _, value in widgets.kind.choices] == ["", *KINDS]
    for snr_db in (widgets.snr_db.minimum, widgets.snr_db.maximum):
        noise_choice("white", snr_db)  # no place of the slider is refused


def test_the_endpoint_takes_a_noise(served, analyser, tone):
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    client = Client(served.local_url, verbose=False)
    given = handle_file(str(tone))
    report, *_ = client.predict(given, noise="white", snr=3, api_name="/audioset")
    assert (report["noise"]["kind"], report["noise"]["snr_db"]) == ("white", 3)
    assert [move["label"] for move in report["noise"]["moves"]] == list(SMALL.labels[:5])
    report, *_ = client.predict(given, api_name="/audioset")
    assert "noise" not in report
    with pytest.raises(AppError, match="no kind of noise named 'brown'"):
        client.predict(given, noise="brown", api_name="/audioset")
    with pytest.raises(AppError, match="expected -20 to 60 dB"):
        client.predict(given, noise="pink", snr=99, api_name="/audioset")


def tuned(model, rows_hz: tuple[float, ...], heatmap: np.ndarray, target: str) -> Analysis:
    """An answer of a model whose heat and whose frequencies are given."""
    made = answer(model, "clip.wav", "Grad-CAM++", target)
    view = View(
        pixels=np.zeros(heatmap.shape, np.uint8), duration_s=2.0, row_frequencies_hz=rows_hz
    )
    first = replace(made.report.explanations[0], heatmap=heatmap.astype(np.float32))
    return replace(made, view=view, report=replace(made.report, explanations=(first,)))


def test_heat_of_two_models_is_compared_where_both_hear():
    rising = np.arange(12, dtype=np.float32).reshape(4, 3) / 11
    one = tuned(SMALL, (100.0, 200.0, 300.0, 400.0), rising, "Rain")
    # Twice as fine in frequency, from 200 Hz on: the rows between are the means of theirs.
    fine = np.array([[3, 4, 5], [4.5, 5.5, 6.5], [6, 7, 8], [7.5, 8.5, 9.5], [9, 10, 11]]) / 11
    other = tuned(SMALL, (200.0, 250.0, 300.0, 350.0, 400.0), fine, "Rain")
    pair = resample_to_shared_grid(
        (one.view, rising), (other.view, other.report.explanations[0].heatmap)
    )
    assert pair is not None
    np.testing.assert_allclose(pair[0], rising[1:])
    np.testing.assert_allclose(pair[1], rising[1:], atol=1e-6)
    used = replace(other.report.model, name="big")
    other = replace(other, report=replace(other.report, model=used))
    assert "they agree closely (rank correlation 1.00" in model_agreement(one, other)
    assert "over the frequencies that both use" in model_agreement(one, other)
    html = answer_html(one, SMALL, other)
    assert "Two models, one file" in html
    section = re.search('<section class="xai-comparison">.*?</section>', html, re.DOTALL).group()
    assert section.count('class="xai-heat"') == 2
    assert section.count("xai-copy") == section.count('class="xai-base"') == 1

    far = tuned(SMALL, (900.0, 950.0), np.ones((2, 3)), "Rain")
    assert (
        resample_to_shared_grid((one.view, rising), (far.view, np.ones((2, 3), np.float32))) is None
    )
    far = replace(far, report=replace(far.report, model=used))
    assert "cannot be compared for rain" in model_agreement(one, far)


def test_a_model_without_the_label_is_shown_and_not_compared():
    one = tuned(SMALL, (100.0, 200.0), np.eye(2), "Rain")
    other = tuned(BIG, (100.0, 200.0), np.eye(2), BIG.labels[3])
    said = model_agreement(one, other)
    assert "big-cnn14 has no label rain" in said
    assert "is not compared" in said


def test_a_second_model_is_offered_where_it_is_here_and_asked_about_the_same_label():
    analyser = FakeAnalyser(hub=FakeHub(absent=frozenset()))
    offered = [value for _, value in controls.comparison_choices(analyser, "audioset", SMALL)]
    assert f"{MODEL_PREFIX}big-cnn14" in offered
    assert f"{MODEL_PREFIX}everyday-cnn6" not in offered
    assert "LIME" in offered
    alone = [value for _, value in controls.comparison_choices(FakeAnalyser(), "audioset", SMALL)]
    assert not [value for value in alone if value.startswith(MODEL_PREFIX)]

    request = replace(ASKED, model="everyday-cnn6", explainer="Grad-CAM")
    chosen = PageRequest(request=request, compare_with=f"{MODEL_PREFIX}big-cnn14")
    both = run_comparison(analyser, chosen, "clip.wav", lambda done, doing: None, lambda: False)
    assert not isinstance(both.second, Refusal)
    assert [call["model"] for call in analyser.calls] == ["everyday-cnn6", "big-cnn14"]
    # It has no rain, and answers for itself; the explainer fits both.
    assert [call["target"] for call in analyser.calls] == [None, None]
    assert [call["explainer"] for call in analyser.calls] == ["Grad-CAM", "Grad-CAM"]

    gone = replace(chosen, compare_with=f"{MODEL_PREFIX}nix")
    both = run_comparison(analyser, gone, "clip.wav", lambda done, doing: None, never)
    assert isinstance(both.second, Refusal)
    assert "no model named 'nix'" in both.second.message


@pytest.mark.browser
def test_a_picked_noise_is_shown_on_the_page_and_goes_again(page, tone: Path, analyser):
    page.get_by_role("tab", name="Everyday sounds").click()
    page.click("#audioset-example-dog")
    page.wait_for_selector("#audioset-result [data-state=answered]")
    page.locator("#audioset-noise-kind label", has_text="Pink").click()
    page.wait_for_selector("#audioset-noise .xai-noise")
    assert "With pink noise, 10 dB" in page.inner_text("#audioset-noise")
    page.locator("#audioset-noise-snr input[type=range]").press("End")
    page.wait_for_function(
        "() => document.querySelector('#audioset-noise').innerText.includes('pink noise, 40 dB')"
    )
    asked = len(analyser.calls)
    page.click("#audioset-example-rain")  # a new sound is asked about with the noise as well
    assert came(page, lambda: len(analyser.calls) >= asked + 3)
    assert analyser.calls[-1]["file"] == "rain.flac"
    assert analyser.calls[-1]["noise"] == Noise(kind="pink", snr_db=40)
    page.locator("#audioset-noise-kind label", has_text="None").click()
    page.wait_for_selector("#audioset-noise .xai-noise", state="detached")
