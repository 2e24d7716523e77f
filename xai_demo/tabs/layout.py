"""The layout of one tab, top to bottom, and the widgets it consists of."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Literal

import gradio as gr

from xai_demo.errors import WeightsError, XaiDemoError
from xai_demo.examples import EXAMPLES
from xai_demo.records import DISCLAIMER, Model, Task
from xai_demo.tabs import (
    controls,
    live,
    noise,
    phrases,
    signal_path,
)
from xai_demo.tabs.controls import Pickers, as_path
from xai_demo.tabs.live import LiveWidgets
from xai_demo.tabs.noise import NoiseWidgets
from xai_demo.tabs.requests import Analyser
from xai_demo.tabs.result import empty_html
from xai_demo.tabs.signal_path import SignalWidgets
from xai_demo.tabs.theme import FIGURE_JS

# Gradio looks for files older than this once in the same time, so that every file is deleted
# within twice this time.
KEEP_FILES_S = 3600
_RETENTION = f"Files are deleted from the server within {2 * KEEP_FILES_S // 3600} hours."
SOUNDS = {
    "original": "Original",
    "explanation": "What the network listened to",
    "remainder": "What it ignored",
}
# Fills the page's address, which the server cannot know, into the Python snippet.
_HERE_JS = """const fill = () => {
  const place = element.querySelector("[data-here]");
  if (place) place.textContent = window.location.origin + window.location.pathname;
};
watch("value", fill);
fill();"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tab:
    """What differs between the tabs: words, and the kind of file."""

    task: Task
    title: str
    brings: Literal["sound", "film"]
    sentence: str
    invitation: str
    guide: str
    breath: bool = False  # with its signal path, and live
    noise: bool = False  # with a section on what noise does


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """What a visitor can do about a radiograph that the gate stopped; hidden until one is."""

    frame: gr.Column
    verdict: gr.HTML
    correct: gr.Button
    as_is: gr.Button


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """The widgets of one tab."""

    tab: Tab
    file: gr.Audio | gr.File
    preview: gr.HTML | None
    doubt: Doubt | None
    state: gr.HTML
    analyse: gr.Button
    stop: gr.Button
    examples: dict[str, gr.Button]
    result: gr.HTML
    players: tuple[gr.Audio, ...]
    hear: gr.Column
    pickers: Pickers
    details: gr.HTML
    signal: SignalWidgets | None
    live: LiveWidgets | None
    noise: NoiseWidgets | None

    @property
    def inputs(self) -> list[Any]:
        """What is asked beside the file: the picks first, then the signal path."""
        return [*self.pickers.all, *(self.signal.inputs if self.signal else [])]

    @property
    def outputs(self) -> list[Any]:
        """What an answer fills."""
        path = self.signal.outputs if self.signal else []
        doubt = [self.doubt.frame, self.doubt.verdict, self.doubt.correct] if self.doubt else []
        return [self.result, self.details, self.hear, *self.players, *path, *doubt]

    @property
    def following(self) -> list[Any]:
        """What depends on the model, in the order of `followed`."""
        return [*self.pickers.following, *(self.signal.steps if self.signal else [])]


def lay_out(tab: Tab, analyser: Analyser) -> Panel:
    """Put one tab on the page, top to bottom, and say what it is made of."""
    gr.HTML(_opening(tab, analyser), elem_classes="xai-opening")
    with gr.Row(elem_classes="xai-bring", equal_height=False):
        with gr.Column(scale=3, min_width=280):
            file, preview = _drop_zone(tab)
            analyse = gr.Button(
                "Analyse", variant="primary", interactive=False, elem_id=f"{tab.task}-analyse"
            )
            state, stop = _state_and_stop(tab)
            gr.HTML(f'<p class="xai-quiet">{_RETENTION}</p>')
        with gr.Column(scale=2, min_width=280, elem_classes="xai-examples"):
            examples = _example_cards(tab)
    listening = live.lay_out(tab.task) if tab.breath else None
    doubt = _doubt(tab) if tab.brings == "film" else None
    result = gr.HTML(
        empty_html(tab.invitation),
        js_on_load=FIGURE_JS,
        apply_default_css=False,
        elem_id=f"{tab.task}-result",
        elem_classes="xai-result-frame",
    )
    hear, players = _players(tab)
    hiss = noise.lay_out(tab.task) if tab.noise else None
    path = signal_path.lay_out(tab.task, _default(tab, analyser)) if tab.breath else None
    panel = Panel(
        tab=tab,
        file=file,
        preview=preview,
        doubt=doubt,
        state=state,
        analyse=analyse,
        stop=stop,
        examples=examples,
        result=result,
        hear=hear,
        players=players,
        signal=path,
        live=listening,
        noise=hiss,
        **_closer(tab, analyser),
    )
    gr.HTML(f'<div class="xai-guide"><h3>How to read the heatmap</h3><p>{tab.guide}</p></div>')
    return panel


def followed(
    tab: Tab, analyser: Analyser, name: str, explainer: str | None = None, second: str | None = None
) -> list[Any]:
    """What there is to pick for another model, and its own signal path."""
    updates = controls.follow(analyser, name, explainer, second)
    if not tab.breath:
        return updates
    try:
        return [*updates, *signal_path.usual(analyser.hub.model(name))]
    except XaiDemoError:
        return [*updates, *(gr.skip() for _ in range(4))]


def _default(tab: Tab, analyser: Analyser) -> Model | None:
    try:
        return analyser.hub.model(analyser.hub.default_model(tab.task))
    except XaiDemoError:
        return None


def _opening(tab: Tab, analyser: Analyser) -> str:
    return (
        f'<p class="xai-sentence">{escape(tab.sentence)}</p>'
        f'<p class="xai-disclaimer">{DISCLAIMER}</p>{_stand_in(tab, analyser)}'
    )


def _stand_in(tab: Tab, analyser: Analyser) -> str:
    """Return a note where a smaller model stands in for the first one of the catalogue."""
    hub = analyser.hub
    try:
        chosen = hub.describe(hub.default_model(tab.task))
    except WeightsError as error:
        return f'<p class="xai-notice xai-warning" role="note">{escape(str(error))}</p>'
    first = hub.describe(hub.names(tab.task)[0])
    if chosen["name"] == first["name"]:
        return ""
    return (
        f'<p class="xai-notice xai-stand-in" role="note"><b>{escape(first["title"])}</b> is not '
        f"installed; using <b>{escape(chosen['name'])}</b>"
        f"{escape(phrases.missing_labels(chosen['labels'], len(first['labels'])))}.</p>"
    )


def _drop_zone(tab: Tab) -> tuple[gr.Audio | gr.File, gr.HTML | None]:
    if tab.brings == "sound":
        sound = gr.Audio(
            sources=["upload", "microphone"],
            type="filepath",
            label="Your recording",
            elem_id=f"{tab.task}-file",
            buttons=[],
        )
        return sound, None
    # Not gr.Image: it decodes the image itself, and accepts only what browsers call an image.
    film = gr.File(
        label="Your chest X-ray (PNG, JPEG, TIFF, WebP or DICOM)",
        elem_id=f"{tab.task}-file",
        height=150,
    )
    return as_path(film), gr.HTML("", elem_classes="xai-preview")


def _state_and_stop(tab: Tab) -> tuple[gr.HTML, gr.Button]:
    """One line that says how things stand, and beside it, while it works, the way to stop it."""
    with gr.Row(elem_classes="xai-working", equal_height=False):
        state = gr.HTML(
            state_of(tab, None),
            elem_classes="xai-state",
            elem_id=f"{tab.task}-state",
            min_width=160,
        )
        stop = gr.Button(
            "Stop",
            size="sm",
            scale=0,
            min_width=76,
            elem_id=f"{tab.task}-stop",
            elem_classes="xai-stop",
        )
    return state, stop


def _doubt(tab: Tab) -> Doubt:
    with gr.Column(visible=False, elem_id=f"{tab.task}-doubt", elem_classes="xai-doubt") as frame:
        verdict = gr.HTML("")
        with gr.Row():
            correct = gr.Button(
                "Correct the image and analyse", variant="primary", elem_id=f"{tab.task}-correct"
            )
            as_is = gr.Button("Analyse as is", elem_id=f"{tab.task}-as-is")
    return Doubt(frame=frame, verdict=verdict, correct=correct, as_is=as_is)


def _example_cards(tab: Tab) -> dict[str, gr.Button]:
    gr.HTML('<p class="xai-or">Or try a synthetic example:</p>')
    return {
        name: gr.Button(
            f"{example.title}\n{example.expectation}",
            elem_classes="xai-card",
            elem_id=f"{tab.task}-example-{name}",
        )
        for name, example in EXAMPLES.items()
        if example.task == tab.task
    }


def _players(tab: Tab) -> tuple[gr.Column, tuple[gr.Audio, ...]]:
    with gr.Column(visible=False, elem_classes="xai-hear") as hear:
        if tab.brings != "sound":
            return hear, ()
        gr.HTML('<h3 class="xai-title">Listen</h3>')
        with gr.Row():
            players = tuple(
                gr.Audio(
                    label=label,
                    interactive=False,
                    elem_id=f"{tab.task}-{name}",
                    buttons=["download"],
                    min_width=240,
                )
                for name, label in SOUNDS.items()
            )
    return hear, players


def _closer(tab: Tab, analyser: Analyser) -> dict[str, Any]:
    with gr.Accordion("Settings and details", open=False, elem_classes="xai-closer"):
        chosen = controls.lay_out(tab.task, analyser)
        figures = gr.HTML(
            '<p class="xai-quiet">Model performance, provenance, timing and downloads appear here '
            "with the result.</p>",
            js_on_load=_HERE_JS,
        )
    return {"pickers": chosen, "details": figures}


def state_of(tab: Tab, path: str | None) -> str:
    """Return the status line under the button."""
    if path and Path(path).name in {example.file for example in EXAMPLES.values()}:
        return "Example loaded. Press Analyse to run it again."
    if path:
        return "Ready. Press Analyse."
    if tab.brings == "sound":
        return "Drop a recording above, choose a file or use the microphone to start."
    return "Drop an image above or choose a file to start."
