"""The page: one tab a task, and the endpoints behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from xai_demo.scheduler import Running
from xai_demo.tabs import audioset, chest_xray, stethoscope
from xai_demo.tabs.ask import Analyser
from xai_demo.tabs.clicks import INSTANT, PRIVATE, connect
from xai_demo.tabs.endpoints import publish
from xai_demo.tabs.panel import KEEP_FILES_S, Panel, followed, lay_out

TABS = {
    "stethoscope": stethoscope.TAB,
    "chest_xray": chest_xray.TAB,
    "audioset": audioset.TAB,
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
            _restorer(analyser, panels),
            None,
            [each for p in panels for each in (p.pickers.model, *p.following)],
            **INSTANT,
        )
        restored.then(None, None, None, js="() => { xaiRestore(); }", **PRIVATE)
        page.unload(_leaver(running))
    return page


def _restorer(analyser: Analyser, panels: list[Panel]) -> Callable[[gr.Request], list[Any]]:
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


def _leaver(running: Running) -> Callable[[gr.Request], None]:
    def leave(request: gr.Request) -> None:
        """Nobody waits any more for the answers of a visitor, or a program, that has gone."""
        running.stop(request.session_hash or "")

    return leave
