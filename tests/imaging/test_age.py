"""Whose radiograph it is: what the visitor, the file and the picture say, and what is doubtful."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest

from tests.support.dicom_files import dicom_radiograph
from tests.support.hostile_files import radiograph
from tests.support.small_models import model_of
from xai_demo.decision import age_mismatch, age_phrase
from xai_demo.imaging import age, gate
from xai_demo.imaging.dicom.deidentify import deidentify
from xai_demo.imaging.dicom.header import age_group, read_header
from xai_demo.records import Radiograph


def film(**facts: object) -> Radiograph:
    return Radiograph(pixels=radiograph().astype(np.float32) / 255, facts=facts)


def guessing(monkeypatch: pytest.MonkeyPatch, adult: float) -> None:
    monkeypatch.setattr(age, "adult_probability", lambda pixels: adult)


DICOM_CHILD = {"value": "child", "source": "dicom", "probability": None}


def test_a_sure_guess_is_reported_with_its_probability_and_without_a_warning(monkeypatch) -> None:
    guessing(monkeypatch, 0.03)
    known = age.screen_age(film())
    assert known.facts["age"] == {"value": "child", "source": "picture", "probability": 0.97}
    assert known.warnings == ()


def test_an_unsure_guess_says_so_and_asks(monkeypatch) -> None:
    guessing(monkeypatch, 0.63)
    known = age.screen_age(film())
    assert known.facts["age"]["value"] == "adult"
    (warning,) = known.warnings
    assert "an adult's film (from the picture, 63 %)" in warning
    assert "Choose adult or child" in warning


def test_the_file_counts_before_the_picture_and_the_visitor_before_the_file(monkeypatch) -> None:
    guessing(monkeypatch, 0.99)
    by_file = age.screen_age(film(age=DICOM_CHILD))
    adult = {"value": "adult", "source": "picture", "probability": 0.99}
    assert by_file.facts["age"] == {**DICOM_CHILD, "doubt": adult}
    assert by_file.warnings == (
        "This looks like an adult's film (from the picture, 99 %), but it is read as a child's "
        "film (from the file).",
    )
    chosen = age.screen_age(film(age=DICOM_CHILD), "adult")
    own = {"value": "adult", "source": "visitor", "probability": None}
    assert chosen.facts["age"] == {**own, "doubt": DICOM_CHILD}
    assert chosen.warnings == (
        "This is a child's film (from the file), but it is read as an adult's film (as you chose).",
    )
    assert age.screen_age(film(), "adult").warnings == ()


def test_the_childrens_network_warns_where_a_visitor_calls_an_adult_a_child(monkeypatch) -> None:
    guessing(monkeypatch, 0.97)
    model = model_of("resnet18", name="film", patients="children")
    facts = age.screen_age(film(), "child").facts
    assert "may well be an adult's film (from the picture, 97 %)" in age_mismatch(model, facts)
    guessing(monkeypatch, 0.7)
    assert age_mismatch(model, age.screen_age(film(), "child").facts) == ""
    guessing(monkeypatch, 0.97)
    # A file is believed.
    assert age_mismatch(model, age.screen_age(film(age=DICOM_CHILD)).facts) == ""


def test_nothing_is_guessed_of_what_is_no_radiograph(monkeypatch) -> None:
    guessing(monkeypatch, 0.99)
    cat = age.screen_age(film(gate={"kind": "not a radiograph", "turn_deg": 0}))
    assert cat.facts["age"]["value"] is None
    assert age_phrase(cat.facts["age"]) == ""


def test_an_inverted_film_is_guessed_as_the_upright_one() -> None:
    pixels = radiograph().astype(np.float32) / 255
    wrong = np.ascontiguousarray(1 - np.rot90(pixels, -1))
    verdict = {"kind": "inverted", "turn_deg": 90, "corrected": False}
    turned = age.screen_age(Radiograph(pixels=wrong, facts={"gate": verdict}))
    assert turned.facts["age"] == age.screen_age(film()).facts["age"]


def test_a_border_and_another_exposure_do_not_change_the_statistics() -> None:
    pixels = radiograph().astype(np.float32) / 255
    height, width = pixels.shape
    framed = np.pad(pixels, ((height // 8,) * 2, (width // 8,) * 2))
    plain, bordered = age.statistics(pixels), age.statistics(framed)
    assert np.corrcoef(plain, bordered)[0, 1] > 0.95
    np.testing.assert_allclose(age.statistics(0.2 + 0.5 * pixels), plain, atol=0.05)
    assert plain.shape == (len(age.WEIGHTS),)
    assert np.isfinite(plain).all()


def test_the_layout_is_the_one_of_the_gate() -> None:
    small = gate.thumbnail(radiograph().astype(np.float32) / 255)
    layout = gate.layout_features(small)
    np.testing.assert_array_equal(layout, gate.features(small)[0, : len(layout)])


@pytest.mark.parametrize(
    ("patients", "value", "warns"),
    [
        ("children", "adult", True),
        ("adults", "child", True),
        ("adults", "adult", False),
        ("any", "child", False),
        (None, "child", False),
        ("children", None, False),
    ],
)
def test_a_network_asked_about_a_patient_it_is_not_meant_for_warns(patients, value, warns) -> None:
    model = model_of("resnet18", name="film", patients=patients, meant_for="For some.")
    facts = {"age": {"value": value, "source": "picture", "probability": 0.97}}
    sentence = age_mismatch(model, facts)
    assert bool(sentence) is warns
    if warns:
        assert "film was trained on " in sentence
        assert "97 %" in sentence
        assert "For some." in sentence


@pytest.mark.parametrize(
    ("text", "group"),
    [
        ("018Y", "adult"),
        ("017Y", "child"),
        ("45Y", "adult"),
        ("011M", "child"),
        ("999D", "child"),
        ("000Y", "child"),
        ("130Y", "adult"),
        ("900Y", ""),
        ("-3", ""),
        ("ABC", ""),
        ("٠٤٥Y", ""),
    ],
)
def test_an_age_in_a_file_is_an_adults_a_childs_or_none(text: str, group: str) -> None:
    assert age_group(text) == group


def test_of_a_files_age_nothing_is_kept_but_the_group() -> None:
    content = dicom_radiograph(PatientAge="007Y")
    header = read_header(BytesIO(content), "film.dcm")
    assert header.facts["age"] == DICOM_CHILD
    assert "007" not in repr(header.facts)
    anew = deidentify(BytesIO(content), "film.dcm")
    assert b"007Y" not in anew
    assert read_header(BytesIO(anew), "film.dcm").facts["age"] == DICOM_CHILD


@pytest.mark.parametrize("text", ["900Y", "-3", "abc", "MUSTERMANN"])
def test_an_age_that_is_none_is_left_out_with_a_sentence_that_does_not_quote_it(text: str) -> None:
    # Read from the bytes, because pydicom would not write it.
    content = dicom_radiograph(PatientComments=text.ljust(10)).replace(
        b"\x10\x00\x00\x40LT", b"\x10\x00\x10\x10AS"
    )
    header = read_header(BytesIO(content), "film.dcm")
    assert "age" not in header.facts
    (note,) = header.notes
    assert f"{len(text)} characters" in note
    assert "045Y" in note
    assert text not in note


def test_the_own_block_of_another_writer_means_nothing() -> None:
    content = deidentify(BytesIO(dicom_radiograph(PatientAge="040Y")), "film.dcm")
    header = read_header(BytesIO(content.replace(b"ADULT", b"NOBDY")), "film.dcm")
    assert "age" not in header.facts
