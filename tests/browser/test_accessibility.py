"""Every tab under axe-core: empty, answered, with all sections open, light and dark."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser.test_page import open_tab, show_example
from tests.conftest import visiting
from xai_demo.tabs import TABS

if TYPE_CHECKING:
    import gradio as gr
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

EXAMPLES = {"stethoscope": "wheeze", "chest_xray": "one-opacity", "audioset": "dog"}


def violations(page: Page) -> list[str]:
    """What axe-core finds on the page as it stands, of any impact: rule, impact and place."""
    response: dict[str, Any] = Axe().run(page).response
    return [
        f"{rule['id']} ({rule['impact']}): {node['target']} {node['html'][:200]}"
        f" {' '.join(check['message'] for check in (*node['any'], *node['all'], *node['none']))}"
        for rule in response["violations"]
        for node in rule["nodes"]
    ]


def open_all_sections(page: Page) -> None:
    """Open the accordions of the tab, one after the other; an open one may hold further ones."""
    for _ in range(12):
        closed = page.locator(".xai-accordion:visible button.label-wrap:not(.open)")
        if not closed.count():
            return
        closed.first.click()
        page.wait_for_timeout(300)
    raise AssertionError("there is always another closed section")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("task", TABS)
def test_axe_finds_nothing_on_a_tab(
    task: str, scheme: str, browser: Browser, served: gr.Blocks
) -> None:
    # Without animations, or a colour that is still fading in would be measured.
    context = visiting(
        browser,
        viewport={"width": 1280, "height": 900},
        color_scheme=scheme,
        reduced_motion="reduce",
    )
    page = context.new_page()
    console: list[str] = []
    page.on("console", lambda line: console.append(f"{line.type}: {line.text}"))
    page.on("pageerror", lambda error: console.append(f"error: {error}"))
    page.goto(served.local_url)
    page.wait_for_selector("#stethoscope-analyse")
    open_tab(page, task)
    page.wait_for_timeout(500)
    found = [f"empty: {each}" for each in violations(page)]
    show_example(page, task, EXAMPLES[task])
    page.wait_for_timeout(1000)
    found += [f"answered: {each}" for each in violations(page)]
    open_all_sections(page)
    page.wait_for_timeout(500)
    found += [f"all sections open: {each}" for each in violations(page)]
    found += [f"console: {line}" for line in console if line.startswith(("error", "warning"))]
    assert not found, "\n".join(found)
    context.close()
