"""The real app in a real Chromium, with the bundled models: every tab answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.browser.test_accessibility import violations
from tests.conftest import visiting
from xai_demo.examples import EXAMPLES
from xai_demo.tabs import TABS

if TYPE_CHECKING:
    import gradio as gr
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("task", TABS)
def test_every_tab_answers_an_example(task: str, browser: Browser, real_app: gr.Blocks) -> None:
    context = visiting(browser)
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(real_app.local_url)
    page.click(f"#tab-{task}-button")
    name = next(name for name, example in EXAMPLES.items() if example.task == task)
    page.click(f"#{task}-example-{name}")
    result = page.locator(f"#{task}-result")
    result.locator("[data-state=answered]").wait_for()
    assert result.locator(".xai-kicker").inner_text().split(" · ")[0] == EXAMPLES[name].file
    assert result.locator(".xai-heat").count() >= 1
    assert result.locator(".xai-plot").first.get_attribute("aria-label")
    assert faults == []
    page.wait_for_timeout(1000)  # a colour that still fades in would be measured
    assert violations(page) == []
    own = (real_app.local_url, "data:", "blob:")
    assert [url for url in asked if not url.startswith(own)] == []
    assert len(asked) > 10  # the watch was kept
    context.close()
