"""How much of a heatmap lies inside the lungs: in the report, as text, on the picture and page."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.support.fake_analyser import FakeAnalyser, answer
from xai_demo.analysis.inputs import ImageInput, prepare_image
from xai_demo.export import report_text
from xai_demo.imaging.gate import screen_radiograph
from xai_demo.records import Analysis, Explanation, Radiograph, Raster
from xai_demo.synthesis.thorax import lung_masks, thorax_phantom
from xai_demo.tabs.comparison import comparison_html
from xai_demo.tabs.figure import figure_html

if TYPE_CHECKING:
    from xai_demo.records import Floats

SPEC = Raster(height=224, width=224, mean=0.5, std=0.25)


def prepared(pixels: Floats) -> ImageInput:
    return prepare_image(screen_radiograph(Radiograph(pixels=pixels, facts={})), SPEC)


def phantom() -> Floats:
    return np.asarray(thorax_phantom(seed=1).pixels / 255, np.float32)


def explain(image: ImageInput, values: Floats, target: str = "Mass") -> Explanation:
    fields = {"explainer": "Grad-CAM++", "target": target, "probability": 0.5, "layer": "layer4"}
    return image.explanation(values[None], np.ones(1, np.float32), **fields)


def test_the_share_and_the_area_are_in_the_report() -> None:
    image = prepared(phantom())
    assert image.facts["lungs"]["found"]
    assert image.facts["lungs"]["area"] == pytest.approx(lung_masks(224).sum() / 224**2, rel=0.25)
    values = np.zeros((7, 7), np.float32)
    # In the middle of the lung on the left of the image.
    values[3, 2] = 1
    inside = explain(image, values).to_json()["inside_lungs"]
    assert inside["share"] > 0.7
    assert inside["area"] == image.facts["lungs"]["area"]
    assert inside["sentence"] == (
        f"{100 * inside['share']:.0f} % of the heatmap lies inside the lungs, which take "
        f"{100 * inside['area']:.0f} % of the image."
    )
    # Below the diaphragm.
    values[:] = 0
    values[6, 3] = 1
    assert explain(image, values).inside_lungs["share"] < 0.05
    assert len(image.view_and_sounds(explain(image, values))[0].lung_outlines) == 2
    assert explain(image, np.zeros((7, 7), np.float32)).inside_lungs is None


@pytest.mark.parametrize("name", ["grain", "blank", "upside down"])
def test_without_lungs_no_share_is_given(name: str) -> None:
    pixels = {
        "grain": np.random.default_rng(0).random((300, 300), np.float32),
        "blank": np.full((300, 300), 0.4, np.float32),
        "upside down": phantom()[::-1].copy(),
    }[name]
    image = prepared(pixels)
    assert image.facts["lungs"]["found"] is False
    assert image.facts["lungs"]["area"] is None
    explanation = explain(image, np.eye(7, dtype=np.float32))
    assert explanation.to_json()["inside_lungs"] is None
    assert image.view_and_sounds(explanation)[0].lung_outlines == ()


def analysis_with(shares: tuple[float | None, ...]) -> Analysis:
    """An analysis of a film whose first heatmaps lie inside the lungs by these shares."""
    fake = FakeAnalyser()
    analysis = answer(fake.hub.model(fake.hub.default_model("chest_xray")), "a.png", "CAM", None)
    explanations = tuple(
        dataclasses.replace(
            each,
            inside_lungs=None
            if share is None
            else {"share": share, "area": 0.25, "sentence": f"{100 * share:.0f} % lies inside."},
        )
        for each, share in zip(analysis.report.explanations, shares, strict=False)
    )
    square = ((0.2, 0.2), (0.4, 0.2), (0.4, 0.6))
    view = dataclasses.replace(
        analysis.view, lung_outlines=(square,) if shares[0] is not None else ()
    )
    report = dataclasses.replace(analysis.report, explanations=explanations)
    return dataclasses.replace(analysis, report=report, view=view)


def test_the_terminal_tells_it_for_every_label() -> None:
    analysis = analysis_with((0.625, 0.5))
    second = analysis.report.explanations[1].target
    lines = report_text(analysis.report).splitlines()
    assert "62 % lies inside." in lines
    assert f"Of the other heatmaps, inside the lungs: {second} 50 %." in lines
    assert "inside the lungs" not in report_text(analysis_with((None, None)).report)


def test_the_page_tells_it_for_every_label_and_draws_the_outline_on_request() -> None:
    html = figure_html(analysis_with((0.625, 0.5)))
    assert "62 % lies inside." in html
    assert "50 % lies inside." in html
    # Not pressed: off until a visitor asks for it.
    assert '<button type="button" data-lungs aria-pressed="false"' in html
    assert "data-lungs-shown" not in html
    # In both panes.
    assert html.count('<polygon points="20.00,20.00 40.00,20.00 40.00,60.00"/>') == 2


def test_a_second_heatmap_has_its_own_share() -> None:
    html = comparison_html(analysis_with((0.625, 0.5)), analysis_with((0.25, 0.5)))
    assert "62 % lies inside." in html
    assert "25 % lies inside." in html


def test_a_film_without_a_field_has_no_button_and_says_so() -> None:
    html = figure_html(analysis_with((None, None)))
    assert "data-lungs" not in html
    assert "<polygon" not in html
    assert "No lung field was found" in html
