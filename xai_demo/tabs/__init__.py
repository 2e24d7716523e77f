"""The page: one tab a task, and the endpoints behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from xai_demo.scheduler import Running
from xai_demo.tabs.api import publish
from xai_demo.tabs.events import INSTANT, PRIVATE, connect
from xai_demo.tabs.layout import (
    KEEP_FILES_S,
    Panel,
    Tab,
    followed,
    lay_out,
)
from xai_demo.tabs.requests import Analyser

STETHOSCOPE = Tab(
    task="stethoscope",
    title="Lung sounds",
    brings="sound",
    breath=True,
    sentence="Bring a lung sound: a network says whether it hears crackles or wheezes, and shows "
    "when and at which frequencies it listened.",
    invitation="The answer appears here: what the network hears, how sure it is, and where in "
    "time and frequency it listened.",
    guide="Warm colours mark the moments and frequencies that spoke for the chosen label, and no "
    "colour marks what the network hardly used. A wheeze should light up as a level band between "
    "100 and 1,000 Hz, a crackle as short upright marks. The heat is coarse: it cannot tell two "
    "crackles a few hundredths of a second apart. It shows what the network used, not whether it "
    "was right; heat on a silent stretch or on handling noise is a good reason not to believe the "
    "answer.",
)


CHEST_XRAY = Tab(
    task="chest_xray",
    title="Chest X-ray",
    brings="film",
    sentence="Bring a frontal chest X-ray: a network says what it finds, and shows which parts of "
    "the picture it looked at.",
    invitation="The answer appears here: what the network sees, how sure it is, and where in the "
    "picture it looked.",
    guide="Warm colours mark the parts of the picture that spoke for the chosen label, and no "
    "colour marks what the network hardly used. Heat inside the lungs is what one hopes for; heat "
    "on letters, tubes, shoulders or the edge means that the network may have learned the "
    "hospital rather than the lung. The heat is coarse, about a seventh of the picture wide, so "
    "it names a region and outlines nothing. It shows what the network used, not whether it was "
    "right.",
)


AUDIOSET = Tab(
    task="audioset",
    title="Everyday sounds",
    brings="sound",
    noise=True,
    sentence="Bring any sound: a network names what it hears, and shows when and at which "
    "frequencies it listened.",
    invitation="The answer appears here: what the network hears, how sure it is, and where in "
    "time and frequency it listened.",
    guide="Warm colours mark the moments and frequencies that spoke for the chosen label, and no "
    "colour marks what the network hardly used. Press another label to see what spoke for that "
    "one: several may be right at once, and each has its own probability. The heat is coarse, a "
    "few tenths of a second wide. It shows what the network used, not whether it was right.",
)


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
    """The page and its endpoints; nothing is loaded until somebody asks."""
    page = gr.Blocks(
        title="What did the network look at?",
        analytics_enabled=False,
        delete_cache=(KEEP_FILES_S, KEEP_FILES_S),
    )
    with page:
        gr.HTML(_HEADER)
        panels: list[Panel] = []
        running = Running()
        with gr.Tabs(elem_id="tabs", overflow_behavior="wrap"):
            for name, tab in TABS.items():
                with gr.Tab(tab.title, id=name, elem_id=f"tab-{name}", render_children=True):
                    panels.append(lay_out(tab, analyser))
                    connect(panels[-1], analyser, running)
        publish(analyser, running)
        restored = page.load(
            _make_restore(analyser, panels),
            None,
            [each for p in panels for each in (p.pickers.model, *p.following)],
            **INSTANT,
        )
        restored.then(None, None, None, js="() => { xaiRestore(); }", **PRIVATE)
        page.unload(_make_leave(running))
    return page


def _make_restore(analyser: Analyser, panels: list[Panel]) -> Callable[[gr.Request], list[Any]]:
    def restore(request: gr.Request) -> list[Any]:
        """The model that a shared link names, picked on its tab; a name nobody knows is ignored."""
        wanted = request.query_params.get("model")
        updates: list[Any] = []
        for panel in panels:
            if wanted and wanted in analyser.hub.names(panel.tab.task):
                updates += [gr.update(value=wanted), *followed(panel.tab, analyser, wanted)]
            else:
                updates += [gr.skip()] * (1 + len(panel.following))
        return updates

    return restore


def _make_leave(running: Running) -> Callable[[gr.Request], None]:
    def leave(request: gr.Request) -> None:
        """Nobody waits any more for the answers of a visitor, or a program, that has gone."""
        running.stop(request.session_hash or "")

    return leave
