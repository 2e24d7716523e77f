"""The faithfulness test and the uncertainty can be switched off, by programs and on the page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gradio as gr
import pytest

from tests.conftest import came
from tests.support.fake_analyser import FakeAnalyser, FakeHub
from xai_demo.analysis.request import AnalysisRequest
from xai_demo.records import TASKS, Task
from xai_demo.tabs import controls


@pytest.mark.parametrize("task", TASKS)
def test_the_widgets_of_the_page_make_the_default_request_unless_they_are_changed(
    task: Task,
) -> None:
    with gr.Blocks():
        widgets = controls.lay_out(task, FakeAnalyser())
    values = {name: widget.value for name, widget in widgets.by_name.items()}
    request = widgets.page_request(task, list(values.values())).request
    assert request == AnalysisRequest(
        task=task,
        model=FakeHub().default_model(task),
        explainer=widgets.explainer.value,
        layer=widgets.layer.value,
    )
    assert ("uncertainty" in values) == ("film" in values) == (task == "chest_xray")
    switches = [name for name in ("faithfulness", "uncertainty") if name in values]
    for switch in switches:
        off = widgets.page_request(task, list((values | {switch: False}).values())).request
        assert off == replace(request, **{switch: False})


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
        assert analyser.calls[-1]["faithfulness"] is (asked is not False)


def test_programs_can_leave_the_uncertainty_of_a_radiograph_out(
    served, analyser: FakeAnalyser, film: Path
) -> None:
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    client = Client(served.local_url, verbose=False)
    given = handle_file(str(film))
    for more, expected in (
        ({}, True),
        ({"uncertainty": True}, True),
        ({"uncertainty": False}, False),
    ):
        client.predict(given, api_name="/chest_xray", **more)
        assert analyser.calls[-1]["uncertainty"] is expected
    with pytest.raises(AppError, match="uncertainty must be true or false, not 'nix'"):
        client.predict(given, api_name="/chest_xray", uncertainty="nix")
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    parameters = {p["parameter_name"]: p for p in endpoints["/chest_xray"]["parameters"]}
    switch = parameters["uncertainty"]
    assert (switch["parameter_has_default"], switch["parameter_default"]) == (True, None)


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
        with pytest.raises(AppError, match=f"{name} must be true or false, not 'nix'"):
            client.predict(given, api_name="/stethoscope", **{name: "nix"})


@pytest.mark.browser
def test_a_visitor_can_switch_the_faithfulness_test_and_the_uncertainty_off(
    page, analyser: FakeAnalyser
) -> None:
    page.get_by_role("tab", name="Chest X-ray").click()
    page.click("#chest_xray-example-clear-film")
    page.wait_for_selector("#chest_xray-result [data-state=answered]")
    page.locator(".xai-accordion:visible button", has_text="Settings and details").click()
    for name in ("faithfulness", "uncertainty"):
        assert analyser.calls[-1][name] is True
        box = page.locator(f"#chest_xray-{name} input[type=checkbox]")
        assert box.is_checked()
        asked = len(analyser.calls)
        box.uncheck()
        page.wait_for_timeout(200)
        assert came(page, lambda asked=asked: len(analyser.calls) > asked)
        assert len(analyser.calls) == asked + 1
        assert analyser.calls[-1][name] is False
