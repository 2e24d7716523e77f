"""The page in a real Chromium, answered by a fake: what a visitor does, and what follows."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import came, visiting
from tests.support.fake_analyser import FakeAnalyser, copy_as
from xai_demo.audio.filters import SignalPath
from xai_demo.records import DISCLAIMER
from xai_demo.tabs import TABS

if TYPE_CHECKING:
    import gradio as gr
    from playwright.sync_api import Browser, Page, Route

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


def look_closer(page: Page) -> None:
    page.locator(".xai-accordion:visible button", has_text="Settings and details").click()


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
    assert "Press Analyse" in page.inner_text("#stethoscope-state")
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


STRENGTH = "#stethoscope-result [aria-label^='Heatmap opacity']"


def test_the_heat_fades_by_keyboard_and_stays_faded_for_the_next_answer(page: Page) -> None:
    show_example(page)
    page.locator(STRENGTH).press("Home")
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
    page.wait_for_function(f"({SOUND})?.readyState >= 1")
    page.click("#stethoscope-result .xai-event >> nth=1")
    page.wait_for_function(f"!({SOUND}).paused && ({SOUND}).currentTime >= 4.1")
    page.wait_for_function(f"({SOUND}).paused")
    assert 4.6 <= page.evaluate(f"({SOUND}).currentTime") < 6


SOUND = """[...document.querySelectorAll("#stethoscope-original *")]
    .map((part) => part.shadowRoot?.querySelector("audio")).find(Boolean)"""


def test_a_row_of_the_events_table_plays_its_stretch_and_can_be_taken_along(page: Page) -> None:
    show_example(page)
    page.wait_for_function(f"({SOUND})?.readyState >= 1")
    page.click("#stethoscope-result .xai-rows tbody tr >> nth=1")
    page.wait_for_function(f"!({SOUND}).paused && ({SOUND}).currentTime >= 4.1")
    page.wait_for_function(f"({SOUND}).paused")
    assert 4.6 <= page.evaluate(f"({SOUND}).currentTime") < 6
    with page.expect_download() as waiting:
        page.click(".xai-events a[download='events.txt']")
    assert Path(waiting.value.path()).read_text().startswith("0.800000\t1.400000\twheeze")


def test_a_place_on_the_timeline_plays_from_there(page: Page) -> None:
    show_example(page)
    page.wait_for_function(f"({SOUND})?.readyState >= 1")
    wave = page.locator("#stethoscope-result .xai-wave").first
    box = wave.bounding_box()
    assert box is not None
    wave.click(position={"x": box["width"] / 2, "y": box["height"] / 2})
    page.wait_for_function(f"!({SOUND}).paused && ({SOUND}).currentTime >= 3.9")


def test_the_signal_path_is_set_and_every_stage_is_seen(page: Page, analyser: FakeAnalyser) -> None:
    show_example(page)
    page.get_by_role("button", name="Signal path").locator("visible=true").click()
    page.check("#stethoscope-band input")
    page.fill("#stethoscope-low input", "200")
    page.press("#stethoscope-low input", "Tab")
    before = len(analyser.calls)
    page.click("#stethoscope-analyse")
    for _ in range(200):
        if len(analyser.calls) > before:
            break
        page.wait_for_timeout(50)
    assert analyser.calls[-1]["signal_path"] == SignalPath(band_hz=(200.0, 1800.0), denoise=False)
    for name in ("raw", "filtered", "denoised"):
        page.wait_for_selector(f"[data-stage={name}] .xai-plot img", state="visible")
        page.wait_for_selector(f"#stethoscope-{name}", state="visible")


HEARD = "Number(document.querySelector('#stethoscope-live .xai-live')?.dataset.received)"


# Tells whether Chromium gave the page its microphone, which it may refuse on a very busy machine.
WATCH_MICROPHONE = """() => {
  const devices = navigator.mediaDevices;
  const getUserMedia = devices.getUserMedia.bind(devices);
  window.microphone = null;
  devices.getUserMedia = async (...wanted) => {
    try {
      const stream = await getUserMedia(...wanted);
      window.microphone = "given";
      return stream;
    } catch (error) {
      window.microphone = `refused: ${error}`;
      throw error;
    }
  };
}"""


def record(page: Page) -> None:
    page.get_by_role("button", name="Live listening").click()
    page.evaluate(WATCH_MICROPHONE)
    for _ in range(5):
        page.locator("#stethoscope-microphone button", has_text="Record").click()
        page.wait_for_function("window.microphone !== null")
        if page.evaluate("window.microphone") == "given":
            return
        page.evaluate("window.microphone = null")
    pytest.fail("Chromium refused its fake microphone five times.")


def test_listening_live_answers_again_and_again(page: Page, analyser: FakeAnalyser) -> None:
    record(page)
    page.wait_for_function(f"{HEARD} >= 1")
    first = page.evaluate(HEARD)
    page.wait_for_function(f"{HEARD} >= {first} + 1")
    assert page.locator("#stethoscope-live .xai-bar").count() == 4
    assert page.locator("#stethoscope-live .xai-plot img").is_visible()
    page.locator("#stethoscope-microphone button", has_text="Stop").click()


@dataclass
class Encoder:
    """The scripts that encode what a microphone records: withheld until they are given."""

    asked: list[Route] = field(default_factory=list)
    given: bool = False

    def answer(self, route: Route) -> None:
        if self.given:
            route.continue_()
        else:
            self.asked.append(route)

    def give(self) -> None:
        self.given = True
        for route in self.asked:
            route.continue_()


@pytest.fixture
def encoder(page: Page) -> Encoder:
    encoder = Encoder()
    page.route(re.compile(r"/assets/module-[^/]*\.js"), encoder.answer)
    return encoder


def test_a_record_pressed_before_the_encoder_has_come_is_heard_once_it_has(
    page: Page, encoder: Encoder
) -> None:
    record(page)
    page.wait_for_timeout(1000)
    assert encoder.asked
    assert not page.locator("#stethoscope-live .xai-live").count()
    encoder.give()
    page.wait_for_function(f"{HEARD} >= 1")


# The first recording gets no sound from its microphone, as sometimes on a very busy machine.
STALL_FIRST_RECORDING = """() => {
  const start = MediaRecorder.prototype.start;
  window.stalled = 0;
  MediaRecorder.prototype.start = function (...timeslice) {
    if (window.stalled) return start.apply(this, timeslice);
    window.stalled += 1;
  };
}"""


def test_a_recording_that_delivers_nothing_is_started_anew(page: Page) -> None:
    page.add_init_script(f"({STALL_FIRST_RECORDING})()")
    page.reload()
    record(page)
    page.wait_for_function(f"{HEARD} >= 1")
    assert page.evaluate("window.stalled") == 1


def test_a_stop_before_the_encoder_has_come_is_a_stop(page: Page, encoder: Encoder) -> None:
    microphone = page.locator("#stethoscope-microphone")
    record(page)
    page.wait_for_timeout(1000)
    microphone.locator("button", has_text="Stop").click()
    encoder.give()
    page.wait_for_timeout(1500)
    # On a busy machine the recorder takes longer to start and to stop again.
    microphone.locator("button", has_text="Record").wait_for()
    assert not page.locator("#stethoscope-live .xai-live").count()


def test_a_recorder_that_starts_after_a_stop_is_stopped(page: Page) -> None:
    microphone = page.locator("#stethoscope-microphone")
    record(page)
    page.wait_for_function(f"{HEARD} >= 1")
    microphone.locator("button", has_text="Stop").click()
    recording = microphone.locator("button", has_text="Record")
    recording.wait_for()
    # As a start does that was under way: a press that is not the visitor's.
    recording.evaluate("button => button.click()")
    microphone.locator("button", has_text="Stop").wait_for()
    recording.wait_for()


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
    look_closer(page)
    picks = {"explainer": "LayerCAM", "target": "Rooster", "model": "PANNs Cnn14 (not installed"}
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
    assert "This model is not available" in page.inner_text("#audioset-result")


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
    assert "Your file is not the cause" in page.inner_text("#chest_xray-result")
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
    monkeypatch.setattr(analyser, "delay_s", 3)
    bring(page, tone)
    before = len(analyser.calls)
    page.dblclick("#stethoscope-analyse")
    page.get_by_role("progressbar").wait_for()
    page.click("#stethoscope-analyse")
    page.wait_for_selector(f"#stethoscope-result {ANSWERED}")
    page.wait_for_timeout(500)
    assert len(analyser.calls) == before + 1


def stopped(analyser: FakeAnalyser, name: str, page: Page) -> bool:
    return came(page, lambda: name in analyser.stopped)


def begun(analyser: FakeAnalyser, name: str, page: Page) -> bool:
    return came(page, lambda: any(call["file"] == name for call in analyser.calls))


def test_stop_ends_the_work_says_so_and_the_next_question_is_answered(
    page: Page, tone: Path, analyser: FakeAnalyser
) -> None:
    bring(page, copy_as(tone, "long-stopped.wav"))
    assert not page.is_visible("#stethoscope-stop")
    page.click("#stethoscope-analyse")
    page.get_by_role("progressbar").wait_for()
    assert begun(analyser, "long-stopped.wav", page)
    page.click("#stethoscope-stop")
    page.get_by_text("Stopped. Ready. Press Analyse.").wait_for()
    page.wait_for_selector("#stethoscope-stop", state="hidden")
    assert stopped(analyser, "long-stopped.wav", page)
    assert page.locator(f"#stethoscope-result {REFUSED}").count() == 0
    show_example(page)


def test_a_newer_question_takes_the_place_of_the_older(
    page: Page, tone: Path, analyser: FakeAnalyser
) -> None:
    bring(page, copy_as(tone, "long-older.wav"))
    page.click("#stethoscope-analyse")
    page.wait_for_selector("#stethoscope-stop", state="visible")
    assert begun(analyser, "long-older.wav", page)
    show_example(page)
    assert stopped(analyser, "long-older.wav", page)
    page.wait_for_selector("#stethoscope-stop", state="hidden")
    assert page.inner_text("#stethoscope-result .xai-kicker") == "wheeze.flac"


def test_a_press_while_the_last_file_is_still_worked_on_answers_for_the_file_that_is_shown(
    page: Page, tone: Path, analyser: FakeAnalyser
) -> None:
    bring(page, copy_as(tone, "long-closed.wav"))
    page.click("#stethoscope-analyse")
    assert begun(analyser, "long-closed.wav", page)
    page.click("#stethoscope-file button[aria-label=Clear]")
    page.wait_for_selector("#stethoscope-analyse:disabled")
    bring(page, copy_as(tone, "second.wav"))
    ask(page)
    assert page.inner_text("#stethoscope-result .xai-kicker") == "second.wav"
    assert stopped(analyser, "long-closed.wav", page)


@pytest.mark.parametrize("task", ["stethoscope", "chest_xray"])
def test_another_file_takes_the_answer_of_the_last_one_away(
    task: str, page: Page, tone: Path, film: Path
) -> None:
    first = tone if task == "stethoscope" else film
    open_tab(page, task)
    bring(page, first, task)
    ask(page, task)
    page.click(f"#{task}-file button[aria-label^=Clear]")
    page.wait_for_selector(f"#{task}-result [data-state=empty]")
    assert not page.is_visible("#stethoscope-original")
    bring(page, copy_as(first, f"another{first.suffix}"), task)
    page.wait_for_timeout(1000)
    assert page.locator(f"#{task}-result [data-state=empty]").is_visible()
    ask(page, task)
    assert page.inner_text(f"#{task}-result .xai-kicker").startswith(f"another{first.suffix}")


def test_a_press_right_behind_an_answer_is_not_lost(
    page: Page, tone: Path, analyser: FakeAnalyser
) -> None:
    bring(page, tone)
    before = len(analyser.calls)
    # In the very moment in which the answer appears, the event behind it has not yet ended.
    page.evaluate(
        """() => {
          const button = document.querySelector("#stethoscope-analyse");
          const answer = document.querySelector("#stethoscope-result");
          window.presses = 0;
          new MutationObserver(() => {
            if (!answer.querySelector("[data-state=answered]") || window.presses >= 3) return;
            window.presses += 1;
            button.click();
          }).observe(answer, { subtree: true, childList: true });
        }"""
    )
    page.click("#stethoscope-analyse")
    page.wait_for_function("window.presses >= 1")
    assert came(page, lambda: len(analyser.calls) >= before + 2)


def test_who_leaves_is_no_longer_worked_for(
    browser: Browser, served: gr.Blocks, page: Page, tone: Path, analyser: FakeAnalyser
) -> None:
    context = visiting(browser)
    other = context.new_page()
    with other.expect_response(re.compile("/heartbeat/")):  # by which Gradio knows who is there
        other.goto(served.local_url)
    other.wait_for_selector("#stethoscope-analyse")
    bring(other, copy_as(tone, "long-left.wav"))
    other.click("#stethoscope-analyse")
    other.wait_for_selector("#stethoscope-stop", state="visible")
    assert begun(analyser, "long-left.wav", other)
    context.close()
    assert stopped(analyser, "long-left.wav", page)


def test_two_explainers_are_compared_and_fade_together(page: Page) -> None:
    show_example(page)
    look_closer(page)
    page.click("#stethoscope-compare-with input")
    page.get_by_role("option", name="LIME (slow)").click()
    pair = page.locator("#stethoscope-result .xai-comparison")
    pair.wait_for()
    assert "agree closely" in pair.inner_text()
    assert "(slow)" not in pair.inner_text()
    page.wait_for_function(
        """() => [...document.querySelectorAll("#stethoscope-result .xai-pair .xai-copy")]
        .filter((image) => image.naturalWidth === 801).length === 2"""
    )
    page.locator(STRENGTH).press("Home")
    faded = "getComputedStyle(document.querySelector('.xai-comparison .xai-heat')).opacity"
    assert page.evaluate(faded) == "0"


def test_layers_are_to_pick_only_where_a_model_has_several(page: Page) -> None:
    open_tab(page, "audioset")
    look_closer(page)
    assert not page.is_visible("#audioset-layer")
    page.click("#audioset-model input")
    page.get_by_role("option", name=re.compile("PANNs")).click()
    page.wait_for_selector("#audioset-layer", state="visible")


def test_two_visitors_at_once_get_their_own_answers(
    browser: Browser, served: gr.Blocks, tone: Path
) -> None:
    contexts = [visiting(browser) for _ in range(2)]
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
    look_closer(page)
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
    context = visiting(browser)
    other = context.new_page()
    other.goto(page.url)
    other.wait_for_selector(f"#chest_xray-result {ANSWERED}", state="visible")
    context.close()
    page.go_back()
    page.go_back()
    page.wait_for_selector("#stethoscope-analyse", state="visible")


def test_nothing_is_fetched_from_elsewhere(browser: Browser, served: gr.Blocks) -> None:
    context = visiting(browser)
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


@pytest.mark.parametrize("task", TABS)
def test_the_console_stays_clean_while_a_file_is_sent_and_answered(
    task: str, page: Page, tone: Path, film: Path
) -> None:
    lines: list[str] = []
    page.on("console", lambda line: lines.append(f"{line.type}: {line.text}"))
    page.on("pageerror", lambda error: lines.append(f"error: {error}"))
    page.reload()
    open_tab(page, task)
    bring(page, film if task == "chest_xray" else tone, task)
    ask(page, task)
    page.wait_for_timeout(1000)
    assert [line for line in lines if line.startswith(("error", "warning"))] == []


def wide_enough(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))


@pytest.mark.parametrize("width", [360, 820, 2560])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_fits_and_reads_on_every_screen(
    width: int, dark: bool, browser: Browser, served: gr.Blocks
) -> None:
    scheme = "dark" if dark else "light"
    context = visiting(
        browser,
        viewport={"width": width, "height": 800},
        color_scheme=scheme,
        reduced_motion="reduce",
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
