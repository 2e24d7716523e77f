"""What a visitor sees of a radiograph: the gate, the findings, how steady, the preview."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.dicom_files import SECRET, dicom_radiograph
from tests.support.fake_analyser import (
    FakeAnalyser,
    FakeHub,
    answer,
    gated,
)
from xai_demo.analysis.request import AnalysisRequest
from xai_demo.imaging import read_image
from xai_demo.records import Analysis, Decision, Model, Prediction, Task
from xai_demo.tabs import phrases
from xai_demo.tabs.figure import findings_gallery
from xai_demo.tabs.requests import Refusal, remove_patient_data, run_request
from xai_demo.tabs.result import answer_html, gate_notice, preview_html


def film_analysis(name: str = "film.png", film: str = "checked") -> tuple[Analysis, Model]:
    model = FakeHub().model("findings-resnet18")
    return gated(answer(model, name, "Grad-CAM++", None), film), model  # type: ignore[arg-type]


def test_every_finding_has_a_picture_in_the_gallery_and_the_others_have_none() -> None:
    analysis, _ = film_analysis()
    html = findings_gallery(analysis)
    assert analysis.report.decision.findings == ("Effusion", "Mass")
    assert re.findall(r'data-target="(\d)" data-enlarge', html) == ["0", "1"]
    assert 'aria-label="Effusion 83 %: enlarge its heatmap"' in html
    assert "Nodule" not in html


def test_one_finding_alone_needs_no_gallery() -> None:
    analysis, _ = film_analysis()
    decision = replace(analysis.report.decision, findings=("Mass",))
    alone = replace(analysis, report=replace(analysis.report, decision=decision))
    assert findings_gallery(alone) == ""


def test_findings_beside_the_first_are_named_with_their_numbers() -> None:
    html = answer_html(*film_analysis())
    assert re.search(r"Effusion <span[^>]*>83 %", html)
    assert "and Mass 18 %" in html
    assert "calibrated on radiographs held out from training (temperature 0.74)" in html


def test_no_finding_is_said_as_such() -> None:
    analysis, model = film_analysis()
    none = Decision(label=None, probability=0.1, reason="None reaches.", kind="nothing found")
    report = replace(analysis.report, decision=none)
    assert "No finding" in answer_html(replace(analysis, report=report), model)


@pytest.mark.parametrize(
    ("name", "said"),
    [("Effusion", "effusion"), ("Viral pneumonia", "viral pneumonia"), ("COVID-19", "COVID-19")],
)
def test_a_name_in_a_sentence_keeps_its_capitals_where_they_are_an_abbreviation(
    name: str, said: str
) -> None:
    assert phrases.mid_sentence(name) == said


def test_the_interval_is_drawn_and_told() -> None:
    html = answer_html(*film_analysis())
    assert 'title="75 % to 91 %"' in html
    assert "Across 12 slightly shifted, rotated and brightened copies of the image" in html
    assert "the probability of effusion ranged from 75 % to 91 %" in html


@pytest.mark.parametrize(
    ("point", "says"),
    [(0.5, "not stable"), (0.9, "not whether it is correct"), (None, "not whether it is correct")],
)
def test_an_interval_across_the_operating_point_is_not_stable(
    point: float | None, says: str
) -> None:
    prediction = Prediction(label="Mass", probability=0.55, interval=(0.4, 0.7))
    assert says in phrases.stability(prediction, point, 12)


def test_without_a_finding_the_probability_of_any_decides_how_the_marks_are_read() -> None:
    analysis, model = film_analysis()
    none = Decision(label=None, probability=0.83, reason="None.", kind="nothing found")
    report = replace(analysis.report, decision=none)
    nothing = replace(analysis, report=report)
    # A point of 0.8 lies within the interval of the label nearest to its own.
    model = replace(model, operating_points=dict.fromkeys(model.labels, 0.8))
    gated = replace(model, any_label_point=0.33)
    assert "so the answer is not stable" in answer_html(nothing, model)
    assert "the label counts as found." in answer_html(nothing, model)
    assert "so the answer is not stable" not in answer_html(nothing, gated)
    assert "counts as found, if the probability of any is at least 0.33." in (
        answer_html(nothing, gated)
    )
    # With a finding, its own point decides as ever.
    assert "so the answer is not stable" in answer_html(analysis, gated)


def test_a_film_is_told_in_one_line() -> None:
    facts = {
        "format": "DICOM",
        "modality": "DX",
        "view": "PA",
        "width": 20,
        "height": 30,
        "window": {"center": 1000.0, "width": 800.0},
        "gate": {"kind": "inverted", "corrected": False},
    }
    assert phrases.radiograph_summary(facts) == (
        "DICOM, modality DX, view PA, 20 \u00d7 30 pixels, window 600 to 1400, "
        "appears to be inverted"
    )
    corrected = {**facts, "gate": {"kind": "inverted", "corrected": True}}
    assert phrases.radiograph_summary(corrected).endswith("corrected before analysis")


@pytest.mark.parametrize("name", ["inverted.png", "cat.png"])
def test_a_stopped_film_has_no_answer_and_its_verdict_once(name: str) -> None:
    analysis, model = film_analysis(name)
    html = answer_html(analysis, model)
    assert "No answer" in html
    assert analysis.report.decision.reason not in html  # it stands above, with the buttons
    assert analysis.report.decision.reason in gate_notice(analysis)
    taken = answer_html(*film_analysis(name, "as-is"))
    assert taken.count("xai-verdict") == 1
    assert gate_notice(film_analysis("film.png")[0]) == ""


def test_an_uploaded_dicom_is_answered_without_its_name() -> None:
    analyser = FakeAnalyser()
    outcome = run_request(analyser, AnalysisRequest(task="chest_xray"), "DOE_JANE.dcm")
    assert isinstance(outcome, Analysis)
    assert outcome.report.file == "film.dcm"
    assert "DOE" not in answer_html(outcome, FakeHub().model("pneumonia-resnet18"))
    assert "DOE" not in json.dumps(outcome.report.to_json())


def test_an_upload_is_written_anew_and_a_file_elsewhere_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    content = dicom_radiograph(PatientName=SECRET)
    places = [tmp_path / "uploads" / "ab" / "film.dcm", tmp_path / "mine.dcm"]
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        preview_html(FakeAnalyser(), str(place))
        run_request(FakeAnalyser(), AnalysisRequest(task="chest_xray"), str(place))
    assert SECRET.encode() not in places[0].read_bytes()
    assert [path.name for path in places[0].parent.iterdir()] == ["film.dcm"]
    assert read_image(places[0], max_pixels=10**6).pixels.shape == (64, 48)
    assert places[1].read_bytes() == content


def test_an_upload_that_is_no_dicom_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    content = b"\x89PNG\r\n\x1a\n" + bytes(40)
    (tmp_path / "film").write_bytes(content)
    remove_patient_data(str(tmp_path / "film"))
    remove_patient_data(str(tmp_path / "absent"))
    assert (tmp_path / "film").read_bytes() == content


@pytest.mark.parametrize("task", ["chest_xray", "stethoscope", "audioset"])
def test_a_dicom_that_cannot_be_written_anew_is_deleted_on_every_tab(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    path = tmp_path / "ab12.dcm"
    path.write_bytes(dicom_radiograph(PatientName=SECRET)[:600])
    assert SECRET.encode() in path.read_bytes()
    request = AnalysisRequest(task=task, name="film.dcm")
    outcome = run_request(FakeAnalyser(), request, str(path))
    assert isinstance(outcome, Refusal)
    assert "The file was deleted at once" in outcome.message
    assert SECRET.encode() not in path.read_bytes()
    assert "deleted at once" in preview_html(FakeAnalyser(), str(path))


def test_the_preview_says_what_the_film_is_or_why_it_is_none() -> None:
    analyser = FakeAnalyser()
    assert preview_html(analyser, None) == ""
    shown = preview_html(analyser, "film.png")
    assert 'alt="Your image" src="data:image/' in shown
    assert "PNG, 512 \u00d7 512 pixels" in shown
    assert "xai-warning" not in shown
    assert "seems to be inverted" in preview_html(analyser, "inverted.png")
    assert "notes.txt is plain text" in preview_html(analyser, "notes.txt")
