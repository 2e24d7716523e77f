"""What a visitor may pick beside the file, and what there is to pick for each model.

How sounds and files pass between our records and Gradio's widgets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np

from xai_demo import networks
from xai_demo.analysis.request import HUB_ADDRESS, AnalysisRequest
from xai_demo.engine.backends import BACKENDS
from xai_demo.errors import XaiDemoError
from xai_demo.explainers import DEFAULT, EXPLAINERS, default_name, fitting_names
from xai_demo.records import GATE_MODES, Model, Task
from xai_demo.tabs import phrases
from xai_demo.tabs.requests import (
    OTHER,
    Analyser,
    PageRequest,
)

if TYPE_CHECKING:
    from xai_demo.records import Floats

Choices = list[tuple[str, str]]  # as shown, and as it is called

_MOST_PROBABLE = ("The most probable", "")
_NOTHING = ("Nothing", "")
_FILMS: Choices = [
    ("Say so, and do not answer", "checked"),
    ("Put it right, then answer", "corrected"),
    ("Answer it as it is", "as-is"),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pickers:
    """The widgets of the choices, each named for the field of the request that it sets."""

    model: gr.Dropdown
    explainer: gr.Dropdown
    target: gr.Dropdown
    compare_with: gr.Dropdown
    layer: gr.Dropdown
    backend: gr.Dropdown
    weights: gr.Textbox  # out of sight where the deployment takes no models of its visitors
    faithfulness: gr.Checkbox
    film: gr.Dropdown | None = None  # this and the next are for radiographs
    uncertainty: gr.Checkbox | None = None

    @property
    def by_name(self) -> dict[str, gr.Dropdown | gr.Textbox | gr.Checkbox]:
        """The widgets that this tab has, by the name of their field."""
        widgets = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: widget for name, widget in widgets.items() if widget is not None}

    @property
    def all(self) -> list[gr.Dropdown | gr.Textbox | gr.Checkbox]:
        """In the order in which `page_request` takes their values."""
        return list(self.by_name.values())

    @property
    def following(self) -> list[gr.Dropdown]:
        """Those whose choices depend on the model, in the order of `follow`."""
        return [self.explainer, self.target, self.layer, self.compare_with]

    def page_request(self, task: Task, values: Sequence[Any]) -> PageRequest:
        """The request that the values of the widgets make."""
        choices = dict(zip(self.by_name, values, strict=True))
        compare_with = choices.pop("compare_with")
        choices["weights"] = (choices["weights"] or "").strip()
        request = AnalysisRequest.from_choices(task, **choices)
        return PageRequest(request=request, compare_with=compare_with or None)


def lay_out(task: Task, analyser: Analyser) -> Pickers:
    """Put the widgets on the page, filled for the model that answers unless another is picked."""
    hub = analyser.hub
    try:
        chosen: Model | None = hub.model(hub.default_model(task))
    except XaiDemoError:
        chosen = None
    models = [(_title(analyser, name), name) for name in hub.names(task)]
    explaining, layers = explainers_of(chosen), layers_of(chosen)
    with gr.Row():
        model = _picker(task, "Model", "What answers", models, chosen.name if chosen else None)
        explainer = _picker(
            task, "Explainer", "How the heat is worked out", explaining, explaining[0][1]
        )
        target = _picker(task, "Target", "The label to explain", targets_of(chosen), "")
    with gr.Row():
        compare_with = _picker(
            task,
            "Compare with",
            "A second explainer or model, side by side",
            seconds_of(analyser, task, chosen),
            "",
        )
        layer = _picker(
            task, "Layer", "Where the network is cut to explain it", layers, _first(layers)
        )
        layer.visible = len(layers) > 1
        backend = _picker(
            task, "Backend", "What runs the network", [(b, b) for b in BACKENDS], BACKENDS[0]
        )
        film = None
        if task == "chest_xray":
            film = _picker(task, "Film", "If it seems inverted or turned", _FILMS, GATE_MODES[0])
    with gr.Row():
        faithfulness = gr.Checkbox(
            True,
            label="Faithfulness test",
            info="Mask the most important fifth of the input, then a random fifth, and predict",
            elem_id=f"{task}-trial",
        )
        uncertainty = _uncertainty(task) if task == "chest_xray" else None
    return Pickers(
        model=model,
        explainer=explainer,
        target=target,
        backend=backend,
        layer=layer,
        compare_with=compare_with,
        weights=_own_model(task, offered=hub.own_models),
        faithfulness=faithfulness,
        film=film,
        uncertainty=uncertainty,
    )


def _uncertainty(task: Task) -> gr.Checkbox:
    return gr.Checkbox(
        True,
        label="Uncertainty",
        info="Predict slightly shifted and rotated copies too, and show how much the answer varies",
        elem_id=f"{task}-uncertainty",
    )


def _own_model(task: Task, *, offered: bool) -> gr.Textbox:
    """Where a visitor names a model of their own; it answers in place of the one picked above."""
    with gr.Accordion("Your own model", open=False, visible=offered):
        return gr.Textbox(
            "",
            label="On the Hugging Face Hub",
            info="A model directory of this project, or weights of the architecture picked above,"
            " as safetensors. Press Enter to ask it.",
            placeholder=HUB_ADDRESS,
            max_lines=1,
            elem_id=f"{task}-own-model",
        )


def follow(
    analyser: Analyser, name: str, explainer: str | None = None, second: str | None = None
) -> list[Any]:
    """What there is to pick for another model; explainers stay where they fit that one too."""
    try:
        model = analyser.hub.model(name)
    except XaiDemoError:  # one that is not here has no labels to show
        model = None
    explaining, layers = explainers_of(model), layers_of(model)
    known = [value for _, value in explaining]
    seconds = seconds_of(analyser, model.task, model) if model else [_NOTHING, *explaining]
    others = [value for _, value in seconds]
    return [
        gr.update(choices=explaining, value=explainer if explainer in known else known[0]),
        gr.update(choices=targets_of(model), value=""),
        gr.update(choices=layers, value=_first(layers), visible=len(layers) > 1),
        gr.update(choices=seconds, value=second if second in others else ""),
    ]


def explainers_of(model: Model | None) -> Choices:
    """The explainers that fit a model, the usual one first; all where it is not known."""
    kind = networks.ARCHITECTURES[model.architecture].kind if model else None
    names = fitting_names(kind) if kind else tuple(EXPLAINERS)
    first = default_name(kind, model.usual_explainer) if model and kind else DEFAULT
    return [(_shown(name), name) for name in (first, *(n for n in names if n != first))]


def seconds_of(analyser: Analyser, task: Task, model: Model | None) -> Choices:
    """What a model's heat can be compared with: other explainers, other models that are here."""
    hub = analyser.hub
    own = model.name if model else None
    models = [
        (f"Model: {hub.describe(name)['title']}", f"{OTHER}{name}")
        for name in hub.names(task)
        if name != own and hub.is_available(name)
    ]
    return [_NOTHING, *explainers_of(model), *models]


def layers_of(model: Model | None) -> Choices:
    """The layers that a model can be explained at, the usual one first."""
    if model is None:
        return []
    return [(layer, layer) for layer in networks.architecture(model).cuts]


def targets_of(model: Model | None) -> Choices:
    """The choices of the target picker."""
    labels = model.labels if model else ()
    return [_MOST_PROBABLE, *((phrases.display_label(label), label) for label in labels)]


def _first(choices: Choices) -> str | None:
    return choices[0][1] if choices else None


def _shown(explainer: str) -> str:
    return f"{explainer} (slow)" if EXPLAINERS[explainer].passes > 1 else explainer


def _picker(task: Task, label: str, info: str, choices: Choices, value: str | None) -> gr.Dropdown:
    name = f"{task}-{label.lower().replace(' ', '-')}"
    return gr.Dropdown(choices, value=value, label=label, info=info, elem_id=name)


def _title(analyser: Analyser, name: str) -> str:
    row = analyser.hub.describe(name)
    return f"{row['title']}{'' if row['available'] else ' (not on this machine)'}"


def playable(samples: Floats, sample_rate_hz: int | None) -> tuple[int, Any]:
    """A sound as a player takes it: 16 bit, so that quiet stays quiet (floats are made louder)."""
    scaled = np.clip(np.rint(32767 * samples), -32768, 32767).astype(np.int16)
    return sample_rate_hz or 16000, scaled


def as_path(file: gr.File) -> gr.File:
    """A box for files that hands on where the upload lies.

    So does Gradio's own way, which leaves an empty file on the server each time besides.
    """
    file.preprocess = lambda payload: payload.path if payload else None  # type: ignore[method-assign,union-attr]
    return file
