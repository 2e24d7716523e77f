"""The trial of the heat can be left out: by picks, by programs, and by a visitor on the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import came
from tests.support.fake_analyser import FakeAnalyser
from xai_demo.tabs.requests import Picks, ask


@pytest.mark.parametrize(("picks", "asked"), [(Picks(), True), (Picks(trial=False), False)])
def test_the_trial_is_asked_for_unless_it_is_left_out(picks: Picks, asked: bool) -> None:
    analyser = FakeAnalyser()
    ask(analyser, "audioset", "clip.wav", picks)
    assert analyser.calls[0].get("faithfulness", True) is asked


@pytest.mark.parametrize(
    ("task", "brought"), [("stethoscope", "tone"), ("audioset", "tone"), ("chest_xray", "film")]
)
def test_programs_can_leave_the_trial_out(
    task: str, brought: str, served, analyser: FakeAnalyser, request: pytest.FixtureRequest
) -> None:
    from gradio_client import Client, handle_file

    client = Client(served.local_url, verbose=False)
    given: Path = request.getfixturevalue(brought)
    for asked in (None, True, False):
        more = {} if asked is None else {"faithfulness": asked}
        client.predict(handle_file(str(given)), api_name=f"/{task}", **more)
        assert analyser.calls[-1].get("faithfulness", True) is (asked is not False)


def test_a_switch_that_nobody_touches_is_neither_on_nor_off(
    served, analyser: FakeAnalyser, tone: Path
) -> None:
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    client = Client(served.local_url, verbose=False)
    given = handle_file(str(tone))
    client.predict(given, api_name="/stethoscope")
    assert analyser.calls[-1]["signal_path"] is None  # that which the model was taught with
    client.predict(given, denoise=True, api_name="/stethoscope")
    assert analyser.calls[-1]["signal_path"].denoise is True
    for name in ("denoise", "faithfulness"):
        with pytest.raises(AppError, match=f"{name} is 'nix'; wanted: true or false"):
            client.predict(given, api_name="/stethoscope", **{name: "nix"})


@pytest.mark.browser
def test_a_visitor_can_leave_the_trial_out(page, analyser: FakeAnalyser) -> None:
    page.get_by_role("tab", name="Chest X-ray").click()
    page.click("#chest_xray-example-clear-film")
    page.wait_for_selector("#chest_xray-result [data-state=answered]")
    assert "faithfulness" not in analyser.calls[-1]
    page.locator(".xai-closer:visible button", has_text="Look closer").click()
    box = page.locator("#chest_xray-trial input[type=checkbox]")
    assert box.is_checked()
    asked = len(analyser.calls)
    box.uncheck()
    page.wait_for_timeout(200)
    assert came(page, lambda: len(analyser.calls) > asked)
    assert len(analyser.calls) == asked + 1
    assert analyser.calls[-1]["faithfulness"] is False
