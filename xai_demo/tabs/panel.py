"""What the tabs share: the order on the page, and what follows from a click."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import gradio as gr
import numpy as np

from xai_demo.errors import WeightsError
from xai_demo.explainers import DEFAULT, EXPLAINERS
from xai_demo.records import DISCLAIMER, Model, Task
from xai_demo.synthesis import EXAMPLES
from xai_demo.tabs import words
from xai_demo.tabs.answer import empty
from xai_demo.tabs.ask import BACKENDS, Analyser
from xai_demo.tabs.theme import FIGURE_JS

if TYPE_CHECKING:
    from xai_demo.records import Floats

KEEP_FILES_S = 3600  # checked as often, so that all is wiped within twice this time
_KEPT = f"Files are wiped from the server within {2 * KEEP_FILES_S // 3600} hours."
_MOST_PROBABLE = ("The most probable", "")
SOUNDS = {
    "original": "Original",
    "explanation": "What the network listened to",
    "remainder": "What it ignored",
}
# The snippet names the address that the visitor sees, which the server cannot know.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """The widgets of one tab."""

    tab: Tab
    file: gr.Audio | gr.File
    preview: gr.HTML | None
    state: gr.HTML
    analyse: gr.Button
    examples: dict[str, gr.Button]
    result: gr.HTML
    players: tuple[gr.Audio, ...]
    hear: gr.Column
    model: gr.Dropdown
    explainer: gr.Dropdown
    target: gr.Dropdown
    backend: gr.Dropdown
    details: gr.HTML

    @property
    def picks(self) -> list[gr.Dropdown]:
        """What the visitor may pick, in the order that `Picks` is filled."""
        return [self.model, self.explainer, self.target, self.backend]

    @property
    def outputs(self) -> list[Any]:
        """What an answer fills."""
        return [self.result, self.details, self.hear, *self.players]


def lay_out(tab: Tab, analyser: Analyser) -> Panel:
    """Put one tab on the page, top to bottom, and say what it is made of."""
    gr.HTML(_opening(tab, analyser), elem_classes="xai-opening")
    with gr.Row(elem_classes="xai-bring", equal_height=False):
        with gr.Column(scale=3, min_width=280):
            file, preview = _drop_zone(tab)
            analyse = gr.Button(
                "Analyse", variant="primary", interactive=False, elem_id=f"{tab.task}-analyse"
            )
            state = gr.HTML(
                state_of(tab, None), elem_classes="xai-state", elem_id=f"{tab.task}-state"
            )
            gr.HTML(f'<p class="xai-quiet">{_KEPT}</p>')
        with gr.Column(scale=2, min_width=280, elem_classes="xai-examples"):
            examples = _example_cards(tab)
    result = gr.HTML(
        empty(tab.invitation),
        js_on_load=FIGURE_JS,
        apply_default_css=False,
        elem_id=f"{tab.task}-result",
        elem_classes="xai-result-frame",
    )
    hear, players = _players(tab)
    panel = Panel(
        tab=tab,
        file=file,
        preview=preview,
        state=state,
        analyse=analyse,
        examples=examples,
        result=result,
        hear=hear,
        players=players,
        **_closer(tab, analyser),
    )
    gr.HTML(f'<div class="xai-guide"><h3>How to read the heat</h3><p>{tab.guide}</p></div>')
    return panel


def _opening(tab: Tab, analyser: Analyser) -> str:
    return (
        f'<p class="xai-sentence">{escape(tab.sentence)}</p>'
        f'<p class="xai-disclaimer">{DISCLAIMER}</p>{_stand_in(tab, analyser)}'
    )


def _stand_in(tab: Tab, analyser: Analyser) -> str:
    """A note where a smaller model answers because the first of the catalogue is not here."""
    hub = analyser.hub
    try:
        chosen = hub.describe(hub.default_model(tab.task))
    except WeightsError as error:
        return f'<p class="xai-notice xai-warning" role="note">{escape(str(error))}</p>'
    first = hub.describe(hub.names(tab.task)[0])
    if chosen["name"] == first["name"]:
        return ""
    return (
        f'<p class="xai-notice xai-stand-in" role="note"><b>{escape(first["title"])}</b> is not on '
        f"this machine. Meanwhile <b>{escape(chosen['title'])}</b> answers; it knows "
        f"{len(chosen['labels'])} labels, not {len(first['labels'])}.</p>"
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
    # Not gr.Image: it opens the picture itself, and takes no file but what browsers call a picture.
    film = gr.File(
        label="Your chest X-ray (PNG or JPEG)",
        elem_id=f"{tab.task}-file",
        height=150,
    )
    return film, gr.HTML("", elem_classes="xai-preview")


def _example_cards(tab: Tab) -> dict[str, gr.Button]:
    gr.HTML('<p class="xai-or">Or try one of these, made by this project:</p>')
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
        gr.HTML('<h3 class="xai-title">Hear it</h3>')
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
    hub = analyser.hub
    try:
        chosen: Model | None = hub.model(hub.default_model(tab.task))
    except WeightsError:
        chosen = None
    with gr.Accordion("Look closer", open=False, elem_classes="xai-closer"):
        models = [(_model_title(analyser, each), each) for each in hub.names(tab.task)]
        name = chosen.name if chosen else None
        with gr.Row():
            pickers = {
                "model": _picker(tab, "Model", "What answers", models, name),
                "explainer": _picker(
                    tab, "Explainer", "How the heat is worked out", list(EXPLAINERS), DEFAULT
                ),
                "target": _picker(tab, "Target", "The label to explain", targets_of(chosen), ""),
                "backend": _picker(
                    tab, "Backend", "What runs the network", list(BACKENDS), BACKENDS[0]
                ),
            }
        figures = gr.HTML(
            '<p class="xai-quiet">Figures, origin, timing and downloads come with the answer.</p>',
            js_on_load=_HERE_JS,
        )
    return {**pickers, "details": figures}


def _picker(
    tab: Tab, label: str, info: str, choices: Sequence[Any], value: str | None
) -> gr.Dropdown:
    name = f"{tab.task}-{label.lower()}"
    return gr.Dropdown(choices, value=value, label=label, info=info, elem_id=name)


def _model_title(analyser: Analyser, name: str) -> str:
    row = analyser.hub.describe(name)
    return f"{row['title']}{'' if row['available'] else ' (not on this machine)'}"


def targets_of(model: Model | None) -> list[tuple[str, str]]:
    """The choices of the target picker."""
    labels = model.labels if model else ()
    return [_MOST_PROBABLE, *((words.plain(label), label) for label in labels)]


def state_of(tab: Tab, path: str | None) -> str:
    """What the line under the button says."""
    if path and Path(path).name in {example.file for example in EXAMPLES.values()}:
        return "An example is in the box; press Analyse to ask again."
    if path:
        return "Ready: press Analyse."
    if tab.brings == "sound":
        return "Drop a recording, choose one, or press the microphone; then the button wakes."
    return "Drop a picture or choose one; then the button wakes."


def playable(samples: Floats, sample_rate_hz: int | None) -> tuple[int, Any]:
    """A sound as a player takes it: 16 bit, so that quiet stays quiet (floats are made louder)."""
    scaled = np.clip(np.rint(32767 * samples), -32768, 32767).astype(np.int16)
    return sample_rate_hz or 16000, scaled


_PREVIEW_JS = """(file) => {
  const one = Array.isArray(file) ? file[0] : file;
  if (!one || !one.url || !/\\.(png|jpe?g|webp|bmp|gif)$/i.test(one.path || "")) return "";
  return `<img alt="Your picture" src="${encodeURI(decodeURI(one.url)).replaceAll('"', "%22")}">`;
}"""
