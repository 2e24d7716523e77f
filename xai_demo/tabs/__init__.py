"""The page: one tab for each task, and the endpoints behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from xai_demo.errors import XaiDemoError
from xai_demo.records import AUTO_MODEL
from xai_demo.scheduler import Jobs
from xai_demo.tabs.api import publish
from xai_demo.tabs.controls import model_choices
from xai_demo.tabs.events import INSTANT, PRIVATE, connect
from xai_demo.tabs.layout import (
    KEEP_FILES_S,
    Panel,
    Tab,
    lay_out,
    model_dependent_updates,
    opening_html,
)
from xai_demo.tabs.requests import Analyser

STETHOSCOPE = Tab(
    task="stethoscope",
    title="Lung sounds",
    input_kind="sound",
    is_lung_sound=True,
    sentence="Upload or record a lung sound. A neural network looks for crackles and wheezes, and "
    "a heatmap shows which moments and frequencies its answer is based on.",
    invitation="The result appears here: the answer with its probability, and a heatmap of the "
    "moments and frequencies that it is based on.",
    guide="Warm colours mark the moments and frequencies that count towards the selected label; "
    "places without colour had little influence. A wheeze should appear as a horizontal band "
    "between 100 and 1,000 Hz, a crackle as a short vertical streak. The heatmap is coarse: it "
    "cannot separate two crackles a few hundredths of a second apart. It shows what the network "
    "used, not whether the network was right. If it highlights silence or handling noise, that is "
    "a good reason to distrust the answer.",
)


CHEST_XRAY = Tab(
    task="chest_xray",
    title="Chest X-ray",
    input_kind="image",
    sentence="Upload a frontal chest X-ray. A neural network looks for findings, and a heatmap "
    "shows which regions of the image its answer is based on.",
    invitation="The result appears here: the answer with its probability, and a heatmap of the "
    "regions that it is based on.",
    guide="Warm colours mark the regions that count towards the selected label; places without "
    "colour had little influence. For a lung finding, the heatmap should lie within the lungs. If "
    "it lies on text markers, tubes, shoulders or the edge of the image, the network may have "
    "learned to recognise the hospital rather than the disease. The heatmap is coarse, about a "
    "seventh of the image across, so it points to a region and does not outline anything. It shows "
    "what the network used, not whether the network was right.",
)


AUDIOSET = Tab(
    task="audioset",
    title="Everyday sounds",
    input_kind="sound",
    has_noise_test=True,
    sentence="Upload or record any sound. A neural network names what it hears, and a heatmap "
    "shows which moments and frequencies its answer is based on.",
    invitation="The result appears here: the answer with its probability, and a heatmap of the "
    "moments and frequencies that it is based on.",
    guide="Warm colours mark the moments and frequencies that count towards the selected label; "
    "places without colour had little influence. Select another label to see its own heatmap: "
    "several sounds may be present at once. The heatmap is coarse, a few tenths of a second wide. "
    "It shows what the network used, not whether the network was right.",
)


# In the order in which they stand on the page. The keys are tasks and also the tabs' ids, which
# page.js opens.
TABS = {
    "stethoscope": STETHOSCOPE,
    "chest_xray": CHEST_XRAY,
    "audioset": AUDIOSET,
}

_HEADER = (
    '<header class="xai-header"><h1>What did the network look at?</h1>'
    "<p>Explainable AI for lung sounds, chest X-rays and everyday sounds</p></header>"
)


def build(analyser: Analyser) -> gr.Blocks:
    """Return the page with its endpoints; no model is loaded before the first request."""
    page = gr.Blocks(
        title="What did the network look at?",
        analytics_enabled=False,
        delete_cache=(KEEP_FILES_S, KEEP_FILES_S),
    )
    with page:
        gr.HTML(_HEADER)
        panels: list[Panel] = []
        # One for all tabs, so that whoever leaves stops the work of each of them.
        jobs = Jobs()
        with gr.Tabs(elem_id="tabs", overflow_behavior="wrap"):
            for name, tab in TABS.items():
                with gr.Tab(tab.title, id=name, elem_id=f"tab-{name}", render_children=True):
                    panels.append(lay_out(tab, analyser))
                    connect(panels[-1], analyser, jobs)
        publish(analyser, jobs)
        # A shared link names a tab, a model and an example: first select the model ...
        restored = page.load(
            _make_restore(analyser, panels),
            None,
            [each for p in panels for each in (p.opening, p.controls.model, *p.model_dependent)],
            **INSTANT,
        )
        # ... then press the example, which is analysed with the model that is selected.
        restored.then(None, None, None, js="() => { xaiRestore(); }", **PRIVATE)
        page.unload(_make_leave(jobs))
    return page


def _make_restore(analyser: Analyser, panels: list[Panel]) -> Callable[[gr.Request], list[Any]]:
    def restore(request: gr.Request) -> list[Any]:
        """Select the model that a shared link names on its tab; ignore an unknown name.

        Without one, select the default of a task again if a better model came since the start.
        """
        named = request.query_params.get("model")
        updates: list[Any] = []
        for panel in panels:
            tab, built = panel.tab, panel.controls.model.value
            better = _better_default(analyser, tab, built)
            name = named if named in analyser.hub.names(tab.task) else better
            if name is None:
                updates += [gr.skip()] * (2 + len(panel.model_dependent))
                continue
            updates += [
                opening_html(tab, analyser) if better else gr.skip(),
                gr.update(value=name, choices=model_choices(analyser, tab.task)),
                *model_dependent_updates(tab, analyser, name),
            ]
        return updates

    return restore


def _better_default(analyser: Analyser, tab: Tab, built: object) -> str | None:
    """Return the default model of a tab if it is not the one that the page was built with."""
    try:
        name = analyser.hub.default_model(tab.task)
    except XaiDemoError:
        return None
    # Where the patient decides, that stays the default.
    return None if built in (AUTO_MODEL, name) else name


def _make_leave(jobs: Jobs) -> Callable[[gr.Request], None]:
    def leave(request: gr.Request) -> None:
        """Stop the work for a visitor, or a program, that has left."""
        jobs.forget(request.session_hash or "")

    return leave
