"""The page: one tab a task, and the endpoints behind it."""

from __future__ import annotations

import gradio as gr

from xai_demo.tabs import audioset, chest_xray, stethoscope
from xai_demo.tabs.ask import Analyser
from xai_demo.tabs.endpoints import publish
from xai_demo.tabs.panel import lay_out

TABS = {
    "stethoscope": stethoscope.TAB,
    "chest_xray": chest_xray.TAB,
    "audioset": audioset.TAB,
}

_HEADER = (
    '<header class="xai-header"><h1>What did the network look at?</h1>'
    "<p>Explainable AI for lung sounds, chest X-rays and everyday sounds</p></header>"
)
_KEEP_FILES_S = 3600  # what visitors bring and get is wiped within two of these


def build(analyser: Analyser) -> gr.Blocks:
    """The page and its endpoints; nothing is loaded until somebody asks."""
    with gr.Blocks(
        title="What did the network look at?",
        analytics_enabled=False,
        delete_cache=(_KEEP_FILES_S, _KEEP_FILES_S),
    ) as page:
        gr.HTML(_HEADER)
        with gr.Tabs(elem_id="tabs"):
            for name, tab in TABS.items():
                with gr.Tab(tab.title, id=name, elem_id=f"tab-{name}", render_children=True):
                    lay_out(tab, analyser)
        publish(analyser)
    return page
