"""Whose film is it: the question beside the file, and the answer that can be corrected."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.support.fake_analyser import FakeAnalyser, copy_as

pytestmark = pytest.mark.browser

RESULT = "#chest_xray-result"


def checked(page: Page) -> str:
    return str(page.locator("#chest_xray-age input:checked").get_attribute("value"))


@pytest.mark.parametrize("width", [1280, 360])
def test_the_guess_is_told_and_a_click_corrects_it_until_the_next_film(
    page: Page, film: Path, analyser: FakeAnalyser, width: int
) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.click("#tab-chest_xray-button")
    page.wait_for_selector("#chest_xray-age input", state="visible")
    assert checked(page) == "auto"
    for name in ("Automatic", "Adult", "Child"):
        assert page.locator("#chest_xray-age").get_by_label(name, exact=True).is_visible()
    # Nothing sticks out of a narrow screen.
    box = page.locator("#chest_xray-age").bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width
    page.set_input_files("#chest_xray-file input[type=file]", str(film))
    page.click("#chest_xray-analyse:enabled")
    line = page.locator(f"{RESULT} .xai-patient")
    line.wait_for()
    assert "Read as an adult's film (from the picture, 97 %); change it here" in line.inner_text()
    assert analyser.calls[-1]["model"] == "auto"
    assert analyser.calls[-1]["age"] == "auto"
    line.get_by_role("button", name="Read it as a child's").click()
    page.wait_for_selector(f"{RESULT} .xai-patient:has-text('as you chose')")
    assert checked(page) == "child"
    assert analyser.calls[-1]["age"] == "child"
    page.click("#chest_xray-file button[aria-label=Clear]")
    page.wait_for_selector("#chest_xray-analyse:disabled")
    page.set_input_files("#chest_xray-file input[type=file]", str(copy_as(film, "another.png")))
    page.wait_for_selector("#chest_xray-analyse:enabled")
    page.wait_for_function("document.querySelector('#chest_xray-age input:checked').value=='auto'")
