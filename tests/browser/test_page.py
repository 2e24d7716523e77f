"""The page in a real Chromium, answered by a fake: what a visitor does, and what follows."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fakes import FakeAnalyser, copy_as
from xai_demo.records import DISCLAIMER
from xai_demo.tabs import TABS

if TYPE_CHECKING:
    import gradio as gr
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

ANSWERED = "[data-state=answered]"
REFUSED = "[data-state=refused]"


def open_tab(page: Page, task: str) -> None:
    page.click(f"#tab-{task}-button")
    page.wait_for_selector(f"#{task}-analyse", state="visible")


def bring(page: Page, path: Path, task: str = "stethoscope") -> None:
    page.set_input_files(f"#{task}-file input[type=file]", str(path))
    page.wait_for_selector(f"#{task}-analyse:enabled")


def ask(page: Page, task: str = "stethoscope", state: str = ANSWERED) -> None:
    page.click(f"#{task}-analyse")
    page.wait_for_selector(f"#{task}-result {state}")


def show_example(page: Page, task: str = "stethoscope", name: str = "wheeze") -> None:
    page.click(f"#{task}-example-{name}")
    page.wait_for_selector(f"#{task}-result {ANSWERED}")


@pytest.mark.parametrize("task", TABS)
def test_every_tab_says_what_it_does_and_that_it_is_no_medical_device(
    task: str, page: Page
) -> None:
    open_tab(page, task)
    assert page.get_by_text(TABS[task].sentence).is_visible()
    assert page.get_by_text(DISCLAIMER).locator("visible=true").count() == 1


def test_the_button_wakes_when_the_upload_has_arrived(page: Page, tone: Path) -> None:
    assert page.is_disabled("#stethoscope-analyse")
    bring(page, tone)
    assert "press Analyse" in page.inner_text("#stethoscope-state")
    ask(page)
    assert page.inner_text("#stethoscope-result .xai-kicker") == "tone.wav"
    assert page.inner_text("#stethoscope-result .xai-number") == "83 %"


def test_the_button_sleeps_again_when_the_file_is_taken_away(page: Page, tone: Path) -> None:
    bring(page, tone)
    page.click("#stethoscope-file button[aria-label=Clear]")
    page.wait_for_selector("#stethoscope-analyse:disabled")


def test_a_picture_is_previewed_and_answered_beside_its_original(page: Page, film: Path) -> None:
    open_tab(page, "chest_xray")
    bring(page, film, "chest_xray")
    page.wait_for_function("document.querySelector('.xai-preview img')?.naturalWidth === 512")
    ask(page, "chest_xray")
    page.wait_for_function(
        """() => [...document.querySelectorAll("#chest_xray-result .xai-base")]
        .filter((image) => image.naturalWidth === 512 && image.clientWidth > 300).length === 2"""
    )


def test_an_example_answers_at_once_and_the_sounds_can_be_heard(page: Page) -> None:
    show_example(page)
    assert page.inner_text("#stethoscope-result .xai-kicker") == "wheeze.flac"
    for name in ("original", "explanation", "remainder"):
        page.wait_for_selector(f"#stethoscope-{name}", state="visible")


def test_a_label_is_pressed_and_its_heat_shown_without_asking_the_server(page: Page) -> None:
    show_example(page)
    page.wait_for_timeout(1500)
    asked: list[str] = []
    page.on("request", lambda r: asked.append(r.url) if not r.url.startswith("data:") else None)
    plot = page.locator("#stethoscope-result .xai-pane-heat .xai-plot")
    before = plot.get_attribute("aria-label")
    page.locator("#stethoscope-result [data-target='1']").press("Enter")
    assert page.is_visible("#stethoscope-result .xai-layer[data-layer='1']")
    assert not page.is_visible("#stethoscope-result .xai-layer[data-layer='0']")
    assert plot.get_attribute("aria-label") != before
    assert "Wheeze" in (plot.get_attribute("aria-label") or "")
    assert "Wheeze" in page.inner_text("#stethoscope-result figcaption")
    assert asked == []


def test_the_heat_fades_by_keyboard_and_stays_faded_for_the_next_answer(page: Page) -> None:
    show_example(page)
    page.locator("#stethoscope-result input[type=range]").press("Home")
    opacity = "getComputedStyle(document.querySelector('#stethoscope-result .xai-heat')).opacity"
    assert page.evaluate(opacity) == "0"
    page.click("#stethoscope-example-crackles")
    page.get_by_text("crackles.flac", exact=True).wait_for()
    page.wait_for_function(f"{opacity} === '0'")


def test_the_original_can_be_seen_alone_and_beside(page: Page) -> None:
    show_example(page)
    heat, bare = (page.locator(f"#stethoscope-result .xai-pane-{n}") for n in ("heat", "bare"))
    assert (heat.is_visible(), bare.is_visible()) == (True, False)
    page.click("#stethoscope-result [data-show=both]")
    assert (heat.is_visible(), bare.is_visible()) == (True, True)
    page.click("#stethoscope-result [data-show=bare]")
    assert (heat.is_visible(), bare.is_visible()) == (False, True)


def test_an_event_is_pressed_and_plays_from_its_start(page: Page) -> None:
    show_example(page)
    sound = """[...document.querySelectorAll("#stethoscope-original *")]
        .map((part) => part.shadowRoot?.querySelector("audio")).find(Boolean)"""
    page.wait_for_function(f"({sound})?.readyState >= 1")
    page.click("#stethoscope-result .xai-event >> nth=1")
    page.wait_for_function(f"!({sound}).paused && ({sound}).currentTime >= 4.1")
    page.wait_for_function(f"({sound}).paused")
    assert 4.6 <= page.evaluate(f"({sound}).currentTime") < 6


def test_a_recording_by_microphone_is_answered(page: Page) -> None:
    page.click("#stethoscope-file button[aria-label='Record audio']")
    page.click("#stethoscope-file .record-button")
    page.wait_for_timeout(1200)
    page.click("#stethoscope-file .stop-button:visible")
    page.wait_for_selector("#stethoscope-analyse:enabled")
    ask(page)
    assert page.inner_text("#stethoscope-result .xai-kicker") == "audio.wav"


def test_picking_another_label_model_or_explainer_asks_again(
    page: Page, analyser: FakeAnalyser
) -> None:
    open_tab(page, "audioset")
    show_example(page, "audioset", "dog")
    page.locator(".xai-closer:visible button").first.click()
    picks = {"explainer": "LayerCAM", "target": "Rooster", "model": "PANNs Cnn14 (not on this"}
    for picker, choice in picks.items():
        before = len(analyser.calls)
        page.click(f"#audioset-{picker} input")
        page.get_by_role("option", name=re.compile(f"^{re.escape(choice)}")).click()
        page.wait_for_timeout(1000)  # long enough for a second, unwanted question
        assert len(analyser.calls) == before + 1
    asked = analyser.calls[-1]
    assert (asked["file"], asked["explainer"]) == ("dog.flac", "LayerCAM")
    assert (asked["model"], asked["target"]) == ("big-cnn14", None)
    page.wait_for_selector(f"#audioset-result {REFUSED}")
    assert "This model is not here" in page.inner_text("#audioset-result")


def test_a_refused_file_is_told_why_and_the_next_one_is_answered(page: Page, tone: Path) -> None:
    bring(page, copy_as(tone, "refuse.wav"))
    ask(page, state=REFUSED)
    said = page.inner_text("#stethoscope-result")
    assert "refuse.wav is a text file, wanted: a WAV, FLAC, Ogg or MP3 recording." in said
    assert "Traceback" not in page.content()
    assert not page.is_visible("#stethoscope-original")
    show_example(page)


def test_a_fault_of_ours_has_a_number_and_no_detail(page: Page, film: Path) -> None:
    open_tab(page, "chest_xray")
    bring(page, copy_as(film, "break.png"), "chest_xray")
    ask(page, "chest_xray", REFUSED)
    assert "not with your file" in page.inner_text("#chest_xray-result")
    assert "secret" not in page.content()
    assert "ZeroDivision" not in page.content()


def test_a_text_file_on_the_film_tab_reaches_the_analyser(page: Page, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear colleague")
    open_tab(page, "chest_xray")
    bring(page, tmp_path / "letter.txt", "chest_xray")
    ask(page, "chest_xray", REFUSED)
    assert "letter.txt is a text file" in page.inner_text("#chest_xray-result")


def test_too_large_a_file_is_refused_and_the_button_sleeps(page: Page, tmp_path: Path) -> None:
    (tmp_path / "large.wav").write_bytes(bytes(6_000_000))
    page.set_input_files("#stethoscope-file input[type=file]", str(tmp_path / "large.wav"))
    page.get_by_text(re.compile("maximum|exceeds|too large", re.IGNORECASE)).first.wait_for()
    assert page.is_disabled("#stethoscope-analyse")


def test_a_second_click_while_working_does_nothing(
    page: Page, tone: Path, analyser: FakeAnalyser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analyser, "delay_s", 1.5)
    bring(page, tone)
    before = len(analyser.calls)
    for _ in range(3):
        page.click("#stethoscope-analyse")
    page.get_by_role("progressbar").wait_for()
    page.wait_for_selector(f"#stethoscope-result {ANSWERED}")
    page.wait_for_timeout(500)
    assert len(analyser.calls) == before + 1


def test_two_visitors_at_once_get_their_own_answers(
    browser: Browser, served: gr.Blocks, tone: Path
) -> None:
    contexts = [browser.new_context() for _ in range(2)]
    pages = [context.new_page() for context in contexts]
    for i, page in enumerate(pages):
        page.goto(served.local_url)
        page.wait_for_selector("#stethoscope-analyse")
        bring(page, copy_as(tone, f"visitor{i}.wav"))
    for page in pages:
        page.click("#stethoscope-analyse")
    for i, page in enumerate(pages):
        page.wait_for_selector(f"#stethoscope-result {ANSWERED}")
        assert page.inner_text("#stethoscope-result .xai-kicker") == f"visitor{i}.wav"
    for context in contexts:
        context.close()


def test_the_figure_can_be_taken_along(page: Page) -> None:
    show_example(page)
    page.locator(".xai-closer:visible button").first.click()
    with page.expect_download() as waiting:
        page.click("a[download='overlay.png']:visible")
    assert Path(waiting.value.path()).read_bytes().startswith(b"\x89PNG")
    assert page.inner_text("[data-here]:visible") == page.url.split("?")[0]


def test_a_shared_link_shows_tab_and_example_and_the_back_button_works(
    browser: Browser, served: gr.Blocks, page: Page
) -> None:
    open_tab(page, "chest_xray")
    show_example(page, "chest_xray", "one-opacity")
    assert page.url.endswith("?tab=chest_xray&example=one-opacity")
    context = browser.new_context()
    other = context.new_page()
    other.goto(page.url)
    other.wait_for_selector(f"#chest_xray-result {ANSWERED}", state="visible")
    context.close()
    page.go_back()
    page.go_back()
    page.wait_for_selector("#stethoscope-analyse", state="visible")


def test_nothing_is_fetched_from_elsewhere(browser: Browser, served: gr.Blocks) -> None:
    context = browser.new_context()
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(served.local_url)
    for task in TABS:
        open_tab(page, task)
    open_tab(page, "stethoscope")
    show_example(page)
    page.wait_for_timeout(1500)
    own = (served.local_url, "data:", "blob:")
    assert [url for url in asked if not url.startswith(own)] == []
    context.close()


def wide_enough(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))


@pytest.mark.parametrize("width", [360, 820, 2560])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_fits_and_reads_on_every_screen(
    width: int, dark: bool, browser: Browser, served: gr.Blocks
) -> None:
    scheme = "dark" if dark else "light"
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, reduced_motion="reduce"
    )
    page = context.new_page()
    page.goto(served.local_url)
    page.wait_for_selector("#stethoscope-analyse")
    assert wide_enough(page)
    for task, name in (("stethoscope", "wheeze"), ("chest_xray", "one-opacity")):
        open_tab(page, task)
        show_example(page, task, name)
        assert wide_enough(page)
        for part in (".xai-label", ".xai-reason", ".xai-source", "figcaption"):
            assert contrast(page, f"#{task}-result {part}") >= 4.5
    context.close()


def contrast(page: Page, selector: str) -> float:
    """The ratio of WCAG 2 between a text and what lies behind it."""
    ink, paper = page.evaluate(
        """(selector) => {
          const part = document.querySelector(selector);
          const clear = (colour) => /rgba\\(.*, 0\\)|transparent/.test(colour);
          let behind = part;
          while (behind.parentElement && clear(getComputedStyle(behind).backgroundColor))
            behind = behind.parentElement;
          return [getComputedStyle(part).color, getComputedStyle(behind).backgroundColor];
        }""",
        selector,
    )
    lights = sorted((lightness(ink), lightness(paper)))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def lightness(colour: str) -> float:
    channels = [int(c) / 255 for c in re.findall(r"\d+", colour)[:3]]
    linear: Callable[[float], float] = lambda c: (  # noqa: E731
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
    )
    red, green, blue = map(linear, channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
