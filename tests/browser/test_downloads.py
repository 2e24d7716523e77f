"""A download as a visitor sees it on the page: a bar that grows, then the answer; or a stop."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import visiting
from tests.support.fake_hub import HubServer
from xai_demo.analysis import Analyser
from xai_demo.tabs import build
from xai_demo.tabs.server import serve

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

TASK = "chest_xray"
WORDS = "Downloading model.safetensors: "
# What the bar says and how wide it is, whenever either changes.
WATCH = """() => {
    window.seen = [];
    const look = () => {
        const place = document.querySelector("#chest_xray-state");
        const words = place?.querySelector(".progress-level-inner")?.innerText ?? "";
        const bar = place?.querySelector(".progress-bar");
        const last = window.seen.at(-1);
        const now = [words.trim(), bar ? parseFloat(bar.style.width) : null];
        if (!last || last[0] !== now[0] || last[1] !== now[1]) window.seen.push(now);
    };
    new MutationObserver(look).observe(document.body, {
        subtree: true, childList: true, attributes: true, characterData: true,
    });
}"""


@pytest.fixture
def visitor(browser: Browser, fetching: Analyser, film: Path) -> Iterator[Page]:
    """On the page of an app that finds its Hub on this machine, a film in the box."""
    page = serve(build(fetching), fetching.settings)
    context = visiting(browser, viewport={"width": 1280, "height": 900})
    visitor = context.new_page()
    visitor.goto(page.local_url)
    visitor.click(f"#tab-{TASK}-button")
    visitor.set_input_files(f"#{TASK}-file input[type=file]", str(film))
    visitor.wait_for_selector(f"#{TASK}-analyse:enabled")
    visitor.evaluate(WATCH)
    yield visitor
    context.close()
    page.close(verbose=False)


def ask_for(visitor: Page, uri: str) -> None:
    visitor.locator(".xai-accordion:visible button", has_text="Settings and details").click()
    visitor.locator("button:visible", has_text="Your own model").click()
    box = visitor.locator(f"#{TASK}-own-model").get_by_role("textbox")
    # A box that has just come is given its own, empty value a moment later, over what was typed.
    for _ in range(100):
        box.fill(uri)
        visitor.wait_for_timeout(700)
        if box.input_value() == uri:
            break
    assert box.input_value() == uri
    box.press("Enter")


def test_the_bar_grows_and_the_answer_follows(visitor: Page, hub_server: HubServer) -> None:
    hub_server.pause_s = 0.005
    ask_for(visitor, "hf://owner/name")
    visitor.wait_for_selector(f"#{TASK}-result [data-state=answered]")
    seen = visitor.evaluate("window.seen")
    loading = [(words, width) for words, width in seen if WORDS in words]
    megabytes = [int(re.findall(r"(\d+) of 45 MB", words)[0]) for words, _ in loading]
    assert len(set(megabytes)) >= 3
    assert megabytes == sorted(megabytes)
    widths = [width for _, width in loading if width is not None]
    assert len(set(widths)) >= 3
    assert widths == sorted(widths)
    assert all(0 <= width <= 100 for width in widths)


def test_a_stop_ends_it_and_the_page_says_so(visitor: Page, hub_server: HubServer) -> None:
    hub_server.pause_s = 0.02
    ask_for(visitor, "hf://owner/name")
    visitor.wait_for_function(f"window.seen.some(([words]) => words.includes('{WORDS}'))")
    visitor.click(f"#{TASK}-stop")
    visitor.get_by_text("Stopped. Ready.").wait_for()
    assert len([r for r in hub_server.requests if r.startswith("GET") and "safetensors" in r]) == 1
    assert not visitor.locator(f"#{TASK}-result [data-state=answered]").count()


def test_a_hub_that_refuses_is_told_in_a_sentence_and_a_bundled_model_still_answers(
    visitor: Page, hub_server: HubServer
) -> None:
    hub_server.status = 503
    ask_for(visitor, "hf://owner/name")
    refused = visitor.locator(f"#{TASK}-result [data-state=refused]")
    refused.wait_for()
    assert "owner/name" in refused.inner_text()
    assert "Traceback" not in refused.inner_text()
    visitor.locator(f"#{TASK}-own-model").get_by_role("textbox").fill("")
    visitor.click(f"#{TASK}-analyse")
    visitor.wait_for_selector(f"#{TASK}-result [data-state=answered]")
