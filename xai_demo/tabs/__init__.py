"""The page: one tab a task, and the endpoints behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from xai_demo.tabs import audioset, chest_xray, stethoscope
from xai_demo.tabs.ask import Analyser
from xai_demo.tabs.clicks import INSTANT, PRIVATE, connect
from xai_demo.tabs.endpoints import publish
from xai_demo.tabs.panel import KEEP_FILES_S, lay_out

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
        panels = []
        with gr.Tabs(elem_id="tabs", overflow_behavior="wrap"):
            for name, tab in TABS.items():
                with gr.Tab(tab.title, id=name, elem_id=f"tab-{name}", render_children=True):
                    panels.append(lay_out(tab, analyser))
                    connect(panels[-1], analyser)
        publish(analyser)
        models = [panel.model for panel in panels]
        restored = page.load(_restorer(analyser), None, models, **INSTANT)
        restored.then(None, None, None, js="() => { xaiRestore(); }", **PRIVATE)
    return page


def _restorer(analyser: Analyser) -> Callable[[gr.Request], list[Any]]:
    def restore(request: gr.Request) -> list[Any]:
        """The model that a shared link names, picked on its tab; a name nobody knows is ignored."""
        wanted = request.query_params.get("model")
        known = [analyser.hub.names(tab.task) for tab in TABS.values()]
        return [gr.update(value=wanted) if wanted in names else gr.skip() for names in known]

    return restore
