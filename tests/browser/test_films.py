"""Radiographs on the page: what the gate stops, and the gallery of findings."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.support.fake_analyser import FakeAnalyser, copy_as

pytestmark = pytest.mark.browser

RESULT = "#chest_xray-result"


def bring(page: Page, path: Path) -> None:
    page.set_input_files("#chest_xray-file input[type=file]", str(path))
    page.wait_for_selector("#chest_xray-analyse:enabled")


def ask(page: Page) -> None:
    page.click("#chest_xray-analyse")
    page.wait_for_selector(f"{RESULT} [data-state=answered]")


def test_a_stopped_film_is_corrected_by_one_click_and_the_next_is_doubted_anew(
    page: Page, film: Path, analyser: FakeAnalyser
) -> None:
    page.click("#tab-chest_xray-button")
    page.wait_for_selector("#chest_xray-analyse", state="visible")
    bring(page, copy_as(film, "inverted.png"))
    page.wait_for_selector(".xai-preview .xai-warning")
    ask(page)
    assert "No answer" in page.inner_text(f"{RESULT} .xai-label")
    page.wait_for_selector("#chest_xray-gate .xai-verdict", state="visible")
    page.click("#chest_xray-correct")
    page.wait_for_selector(f"{RESULT} .xai-number")
    page.wait_for_selector("#chest_xray-gate", state="hidden")
    assert analyser.calls[-1]["film"] == "corrected"
    page.click("#chest_xray-file button[aria-label=Clear]")
    page.wait_for_selector("#chest_xray-analyse:disabled")
    bring(page, copy_as(film, "cat.png"))
    ask(page)
    page.wait_for_selector("#chest_xray-as-is", state="visible")
    assert analyser.calls[-1]["film"] == "checked"
    assert page.is_hidden("#chest_xray-correct")  # nothing could put that right


def test_a_finding_of_the_gallery_is_enlarged_under_a_handle_without_asking_the_server(
    page: Page, film: Path
) -> None:
    page.goto(f"{page.url}?tab=chest_xray&model=findings-resnet18")
    page.wait_for_selector("#chest_xray-analyse", state="visible")
    bring(page, film)
    ask(page)
    thumbs = page.locator(f"{RESULT} .xai-thumb")
    assert thumbs.count() == 2
    page.wait_for_function(
        """() => [...document.querySelectorAll(".xai-thumb img")]
        .every((image) => image.naturalWidth > 0)"""
    )
    asked: list[str] = []
    page.on("request", lambda r: asked.append(r.url) if not r.url.startswith("data:") else None)
    thumbs.nth(1).press("Enter")
    assert page.get_attribute(f"{RESULT} .xai-figure", "data-view") == "slide"
    assert page.is_visible(f"{RESULT} .xai-layer[data-layer='1']")
    page.wait_for_selector(f"{RESULT} .xai-handle", state="visible")
    layer = page.locator(f"{RESULT} .xai-layer[data-layer='1']")
    clip = "layer => getComputedStyle(layer).clipPath"
    assert layer.evaluate(clip) == "inset(0px 50% 0px 0px)"
    page.locator(f"{RESULT} .xai-wipe").press("ArrowRight")
    assert layer.evaluate(clip) == "inset(0px 49% 0px 0px)"
    assert asked == []
