"""The layout of one tab, top to bottom, and the widgets it consists of."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Literal

import gradio as gr

from xai_demo.errors import WeightsError, XaiDemoError
from xai_demo.examples import EXAMPLES
from xai_demo.records import AUTO_MODEL, DISCLAIMER, Model, Task
from xai_demo.tabs import (
    controls,
    live,
    noise,
    phrases,
    signal_path,
)
from xai_demo.tabs.controls import Controls, pass_upload_path
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
# The keys are those of `Analysis.sounds`.
PLAYERS = {
    "original": "Original",
    "explanation": "What the network listened to",
    "remainder": "What it ignored",
}
DETAILS_INVITATION = (
    '<p class="xai-quiet">Model performance, provenance, timing and downloads appear here with the '
    "result.</p>"
)
# Fills the page's address, which the server cannot know, into the Python snippet.
_HERE_JS = """const fill = () => {
  const place = element.querySelector("[data-here]");
  if (place) place.textContent = window.location.origin + window.location.pathname;
};
watch("value", fill);
fill();"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tab:
    """What differs between the tabs: texts, the kind of file, and optional sections."""

    task: Task
    title: str
    input_kind: Literal["sound", "image"]
    sentence: str
    invitation: str
    guide: str
    is_lung_sound: bool = False  # adds live listening and the signal path
    has_noise_test: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GateWidgets:
    """The notice and the buttons for an image that the gate stopped; hidden otherwise."""

    column: gr.Column
    notice: gr.HTML
    correct: gr.Button
    as_is: gr.Button


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """The widgets of one tab."""

    tab: Tab
    opening: gr.HTML
    file: gr.Audio | gr.File
    preview: gr.HTML | None
    gate: GateWidgets | None
    status: gr.HTML
    analyse: gr.Button
    stop: gr.Button
    examples: dict[str, gr.Button]
    result: gr.HTML
    meant_for: gr.HTML | None
    players: tuple[gr.Audio, ...]
    players_column: gr.Column
    controls: Controls
    details: gr.HTML
    signal: SignalWidgets | None
    live: LiveWidgets | None
    noise: NoiseWidgets | None

    @property
    def inputs(self) -> list[Any]:
        """The inputs in addition to the file: the controls, then the signal path."""
        return [*self.controls.all, *(self.signal.inputs if self.signal else [])]

    @property
    def outputs(self) -> list[Any]:
        """The widgets that an answer fills."""
        path = self.signal.outputs if self.signal else []
        gate = [self.gate.column, self.gate.notice, self.gate.correct] if self.gate else []
        return [self.result, self.details, self.players_column, *self.players, *path, *gate]

    @property
    def model_dependent(self) -> list[Any]:
        """The widgets that depend on the model, in the order of `model_dependent_updates`."""
        return [*self.controls.model_dependent, *(self.signal.steps if self.signal else [])]


def lay_out(tab: Tab, analyser: Analyser) -> Panel:
    """Add one tab to the page, top to bottom, and return its widgets."""
    # Gradio lays widgets out in the order in which they are created.
    opening = gr.HTML(opening_html(tab, analyser), elem_classes="xai-opening")
    with gr.Row(elem_classes="xai-input", equal_height=False):
        with gr.Column(scale=3, min_width=280):
            file, preview = _drop_zone(tab)
            is_image = tab.input_kind == "image"
            age = controls.age_radio(tab.task) if is_image else None
            analyse = gr.Button(
                "Analyse", variant="primary", interactive=False, elem_id=f"{tab.task}-analyse"
            )
            meant_for = _meant_for(analyser) if is_image else None
            status, stop = _status_and_stop(tab)
            gr.HTML(f'<p class="xai-quiet">{_RETENTION}</p>')
        with gr.Column(scale=2, min_width=280, elem_classes="xai-examples"):
            examples = _example_cards(tab)
    live_widgets = live.lay_out(tab.task) if tab.is_lung_sound else None
    gate = _gate_widgets(tab) if tab.input_kind == "image" else None
    result = gr.HTML(
        empty_html(tab.invitation),
        js_on_load=FIGURE_JS,
        apply_default_css=False,
        elem_id=f"{tab.task}-result",
        elem_classes="xai-result-frame",
    )
    players_column, players = _players(tab)
    noise_widgets = noise.lay_out(tab.task) if tab.has_noise_test else None
    signal = (
        signal_path.lay_out(tab.task, _default_model(tab, analyser)) if tab.is_lung_sound else None
    )
    panel = Panel(
        tab=tab,
        opening=opening,
        file=file,
        preview=preview,
        gate=gate,
        status=status,
        analyse=analyse,
        stop=stop,
        examples=examples,
        result=result,
        meant_for=meant_for,
        players_column=players_column,
        players=players,
        signal=signal,
        live=live_widgets,
        noise=noise_widgets,
        # Created here, between the signal path and the guide.
        **_settings_and_details(tab, analyser, age),
    )
    gr.HTML(f'<div class="xai-guide"><h2>How to read the heatmap</h2><p>{tab.guide}</p></div>')
    return panel


def model_dependent_updates(
    tab: Tab, analyser: Analyser, name: str, explainer: str | None = None, second: str | None = None
) -> list[Any]:
    """Return the new choices, and the filter settings, after a change of model."""
    updates = controls.model_dependent_updates(analyser, name, explainer, second)
    if not tab.is_lung_sound:
        return updates
    try:
        return [*updates, *signal_path.model_settings(analyser.hub.model(name))]
    except XaiDemoError:
        # One for each of `SignalWidgets.steps`.
        return [*updates, *(gr.skip() for _ in range(4))]


def _default_model(tab: Tab, analyser: Analyser) -> Model | None:
    try:
        return analyser.hub.model(analyser.hub.default_model(tab.task))
    except XaiDemoError:
        return None


def opening_html(tab: Tab, analyser: Analyser) -> str:
    """Return the tab's sentence, and whether a smaller model stands in for the first one."""
    return (
        f'<p class="xai-sentence">{escape(tab.sentence)}</p>'
        f'<p class="xai-disclaimer">{DISCLAIMER}</p>{_stand_in_notice(tab, analyser)}'
    )


def _stand_in_notice(tab: Tab, analyser: Analyser) -> str:
    """Return a note where a smaller model stands in for the first one of the catalogue."""
    hub = analyser.hub
    try:
        chosen = hub.describe(hub.default_model(tab.task))
    except WeightsError as error:
        return f'<p class="xai-notice xai-warning" role="note">{escape(str(error))}</p>'
    # The hub names the preferred model of a task first.
    first = hub.describe(hub.names(tab.task)[0])
    if chosen["name"] == first["name"]:
        return ""
    return (
        f'<p class="xai-notice xai-stand-in" role="note"><b>{escape(first["title"])}</b> is not '
        f"installed; using <b>{escape(chosen['name'])}</b>"
        f"{escape(phrases.missing_labels(chosen['labels'], len(first['labels'])))}.</p>"
    )


def _drop_zone(tab: Tab) -> tuple[gr.Audio | gr.File, gr.HTML | None]:
    if tab.input_kind == "sound":
        sound = gr.Audio(
            sources=["upload", "microphone"],
            type="filepath",
            label="Your recording",
            elem_id=f"{tab.task}-file",
            buttons=[],
        )
        return pass_upload_path(sound), None
    # Not gr.Image: it decodes the image itself, and accepts only what browsers call an image.
    image = gr.File(
        label="Your chest X-ray (PNG, JPEG, TIFF, WebP or DICOM)",
        elem_id=f"{tab.task}-file",
        height=150,
    )
    return pass_upload_path(image), gr.HTML("", elem_classes="xai-preview")


def _status_and_stop(tab: Tab) -> tuple[gr.HTML, gr.Button]:
    """Add the status line and, next to it while an analysis runs, the button that stops it."""
    with gr.Row(elem_classes="xai-working", equal_height=False):
        status = gr.HTML(
            status_text(tab, None),
            elem_classes="xai-state",
            elem_id=f"{tab.task}-state",
            min_width=160,
        )
        # page.css shows it while the status line has a progress bar.
        stop = gr.Button(
            "Stop",
            size="sm",
            scale=0,
            min_width=76,
            elem_id=f"{tab.task}-stop",
            elem_classes="xai-stop",
        )
    return status, stop


def _meant_for(analyser: Analyser) -> gr.HTML:
    return gr.HTML(controls.meant_for_html(analyser, AUTO_MODEL), elem_id="chest_xray-meant-for")


def _gate_widgets(tab: Tab) -> GateWidgets:
    with gr.Column(visible=False, elem_id=f"{tab.task}-gate", elem_classes="xai-gate") as column:
        notice = gr.HTML("")
        with gr.Row():
            correct = gr.Button(
                "Correct the image and analyse", variant="primary", elem_id=f"{tab.task}-correct"
            )
            as_is = gr.Button("Analyse as is", elem_id=f"{tab.task}-as-is")
    return GateWidgets(column=column, notice=notice, correct=correct, as_is=as_is)


def _example_cards(tab: Tab) -> dict[str, gr.Button]:
    gr.HTML('<p class="xai-examples-title">Or try a synthetic example:</p>')
    # page.js finds the cards by their ids, for shared links and for the address.
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
    # A tab for images has the column too, empty: `Panel.outputs` needs it.
    with gr.Column(visible=False, elem_classes="xai-players") as column:
        if tab.input_kind != "sound":
            return column, ()
        gr.HTML('<h2 class="xai-title">Listen</h2>')
        with gr.Row():
            players = tuple(
                gr.Audio(
                    label=label,
                    interactive=False,
                    elem_id=f"{tab.task}-{name}",
                    buttons=["download"],
                    min_width=240,
                )
                for name, label in PLAYERS.items()
            )
    return column, players


def _settings_and_details(tab: Tab, analyser: Analyser, age: gr.Radio | None) -> dict[str, Any]:
    with gr.Accordion("Settings and details", open=False, elem_classes="xai-accordion"):
        tab_controls = controls.lay_out(tab.task, analyser, age)
        details = gr.HTML(
            DETAILS_INVITATION,
            js_on_load=_HERE_JS,
        )
    return {"controls": tab_controls, "details": details}


def status_text(tab: Tab, path: str | None) -> str:
    """Return the status line under the button."""
    if path and Path(path).name in {example.file for example in EXAMPLES.values()}:
        return "Example loaded. Press Analyse to run it again."
    if path:
        return "Ready. Press Analyse."
    if tab.input_kind == "sound":
        return "Drop a recording above, choose a file or use the microphone to start."
    return "Drop an image above or choose a file to start."
