"""The controls of a tab: model, explainer, target and the like, and their choices for each model.

Also how files, sounds and progress pass between Gradio and the pipeline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from html import escape
from pathlib import PurePath, PureWindowsPath
from typing import TYPE_CHECKING, Any, TypeVar

import gradio as gr
import numpy as np

from xai_demo import networks
from xai_demo.analysis.choices import default_models, fitting_model
from xai_demo.analysis.request import HUB_ADDRESS, AnalysisRequest
from xai_demo.engine.backends import BACKENDS
from xai_demo.errors import XaiDemoError
from xai_demo.explainers import DEFAULT, EXPLAINERS, default_name, fitting_names
from xai_demo.files import display_name
from xai_demo.records import AGES, AUTO_MODEL, GATE_MODES, Model, Progress, Task
from xai_demo.tabs import phrases
from xai_demo.tabs.requests import MODEL_PREFIX, Analyser, PageRequest

if TYPE_CHECKING:
    from xai_demo.records import Floats

_File = TypeVar("_File", gr.File, gr.Audio)

# As shown, and as passed on.
Choices = list[tuple[str, str]]

# An empty value leaves the default, see `AnalysisRequest.from_choices`.
_ANSWER = ("The answer", "")
_NOTHING = ("None", "")
# The values are those of GATE_MODES.
_GATE_CHOICES: Choices = [
    ("Warn, and give no answer", "checked"),
    ("Correct it, then analyse", "corrected"),
    ("Analyse as is", "as-is"),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """The widgets of a tab's choices, each named after the field of the request that it sets."""

    model: gr.Dropdown
    explainer: gr.Dropdown
    target: gr.Dropdown
    compare_with: gr.Dropdown
    layer: gr.Dropdown
    backend: gr.Dropdown
    # Hidden where the deployment does not accept visitors' own models.
    weights: gr.Textbox
    faithfulness: gr.Checkbox
    # These are for radiographs only.
    film: gr.Dropdown | None = None
    uncertainty: gr.Checkbox | None = None
    # For radiographs too, but next to the file.
    age: gr.Radio | None = None

    @property
    def by_name(self) -> dict[str, gr.Dropdown | gr.Textbox | gr.Checkbox | gr.Radio]:
        """The widgets of this tab by the names of their fields."""
        # In the order of the fields, on which `all` and `page_request` rely.
        widgets = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: widget for name, widget in widgets.items() if widget is not None}

    @property
    def all(self) -> list[gr.Dropdown | gr.Textbox | gr.Checkbox | gr.Radio]:
        """The widgets in the order in which `page_request` takes their values."""
        return list(self.by_name.values())

    @property
    def model_dependent(self) -> list[gr.Dropdown]:
        """The widgets whose choices depend on the model, as `model_dependent_updates` has them."""
        return [self.explainer, self.target, self.layer, self.compare_with]

    def page_request(self, task: Task, values: Sequence[Any]) -> PageRequest:
        """Return the request that the widgets' values describe; raises RequestError."""
        choices = dict(zip(self.by_name, values, strict=True))
        # Comparing takes a second analysis and is no part of the request for the first.
        compare_with = choices.pop("compare_with")
        choices["weights"] = (choices["weights"] or "").strip()
        request = AnalysisRequest.from_choices(task, **choices)
        return PageRequest(request=request, compare_with=compare_with or None)


def lay_out(task: Task, analyser: Analyser, age: gr.Radio | None = None) -> Controls:
    """Add the widgets to the page, with the choices of the task's default model.

    `age` is laid out already, see `age_radio`.
    """
    first = AUTO_MODEL if age else None
    # None: the page must open even where no model of the task is installed.
    chosen = selected_model(analyser, task, first)
    models = model_choices(analyser, task)
    explainers, layers = explainer_choices(chosen), [] if first else layer_choices(chosen)
    with gr.Row():
        model = _dropdown(
            task,
            "Model",
            "The network that predicts",
            models,
            first or (chosen.name if chosen else None),
        )
        explainer = _dropdown(
            task, "Explainer", "How the heatmap is computed", explainers, explainers[0][1]
        )
        targets = target_choices(chosen, *automatic_models(analyser, first))
        target = _dropdown(task, "Target", "The label to explain", targets, "")
    with gr.Row():
        compare_with = _dropdown(
            task,
            "Compare with",
            "A second explainer or model, shown side by side",
            comparison_choices(analyser, task, chosen, own=first),
            "",
        )
        layer = _dropdown(
            task, "Layer", "The layer whose activations are explained", layers, _first_value(layers)
        )
        # Hidden where there is nothing to choose, but still one of the inputs.
        layer.visible = len(layers) > 1
        backend = _dropdown(
            task,
            "Backend",
            "The library that runs the network",
            [(b, b) for b in BACKENDS],
            BACKENDS[0],
        )
        film = _gate_dropdown(task) if task == "chest_xray" else None
    with gr.Row():
        faithfulness = _faithfulness_switch(task)
        uncertainty = _uncertainty_switch(task) if task == "chest_xray" else None
    return Controls(
        model=model,
        explainer=explainer,
        target=target,
        backend=backend,
        layer=layer,
        compare_with=compare_with,
        weights=_own_model_box(task, offered=analyser.hub.own_models),
        faithfulness=faithfulness,
        film=film,
        uncertainty=uncertainty,
        age=age,
    )


def age_radio(task: Task) -> gr.Radio:
    """Add the question whose radiograph it is."""
    return gr.Radio(
        [("Automatic", "auto"), ("Adult", "adult"), ("Child", "child")],
        value=AGES[0],
        label="Whose film is it?",
        info="Automatic: as the file says, or else as the picture looks",
        elem_id=f"{task}-age",
        elem_classes="xai-age",
    )


def model_choices(analyser: Analyser, task: Task) -> Choices:
    """Return the models of a task, and which of them are not installed now."""
    models = [(_model_title(analyser, name), name) for name in analyser.hub.names(task)]
    if task != "chest_xray":
        return models
    return [("Automatic: the network that fits the patient", AUTO_MODEL), *models]


def selected_model(analyser: Analyser, task: Task, name: str | None) -> Model | None:
    """Return the record of the selected model, or of the one that adults get; None: unknown."""
    try:
        if name == AUTO_MODEL:
            name = fitting_model(analyser.hub, "adult")
        return analyser.hub.model(name or analyser.hub.default_model(task))
    except XaiDemoError:
        return None


def automatic_models(analyser: Analyser, name: str | None) -> list[Model]:
    """Return the networks that may answer where the patient decides; [] where a model is named."""
    if name != AUTO_MODEL:
        return []
    try:
        return [analyser.hub.model(m) for m in default_models(analyser.hub, "chest_xray")]
    except XaiDemoError:
        return []


def meant_for_html(analyser: Analyser, name: str | None) -> str:
    """Return for whom the selected network is meant, to be read before it answers."""
    if name != AUTO_MODEL:
        model = selected_model(analyser, "chest_xray", name)
        text = f"{model.title}. {model.meant_for}" if model and model.meant_for else ""
    else:
        models = automatic_models(analyser, name)
        parts = [f"for {each.patients} {each.name}" for each in models if each.patients]
        text = f"The network that fits answers: {', '.join(parts)}." if parts else ""
    return f'<p class="xai-quiet xai-meant-for">{escape(text)}</p>' if text else ""


def _gate_dropdown(task: Task) -> gr.Dropdown:
    info = "If the image appears inverted or rotated"
    return _dropdown(task, "Image check", info, _GATE_CHOICES, GATE_MODES[0])


def _faithfulness_switch(task: Task) -> gr.Checkbox:
    return gr.Checkbox(
        True,
        label="Faithfulness test",
        info="Mask the most important fifth of the input, then a random fifth, and compare the "
        "predictions",
        elem_id=f"{task}-faithfulness",
    )


def _uncertainty_switch(task: Task) -> gr.Checkbox:
    return gr.Checkbox(
        True,
        label="Test-time augmentation",
        info="Predict slightly shifted and rotated copies too, to see how stable the answer is",
        elem_id=f"{task}-uncertainty",
    )


def _own_model_box(task: Task, *, offered: bool) -> gr.Textbox:
    """Add the box for a visitor's own model, which replaces the one chosen above."""
    with gr.Accordion("Your own model", open=False, visible=offered):
        return gr.Textbox(
            "",
            label="Address on the Hugging Face Hub",
            info="A model directory of this project, or safetensors weights for the architecture "
            "of the model chosen above. Press Enter to analyse.",
            placeholder=HUB_ADDRESS,
            max_lines=1,
            elem_id=f"{task}-own-model",
        )


def model_dependent_updates(
    analyser: Analyser, name: str, explainer: str | None = None, second: str | None = None
) -> list[Any]:
    """Return the widgets' new choices after a change of model.

    The explainers stay selected if they fit the new model.
    """
    # None: a model whose weights are missing may have no record of its labels.
    model = selected_model(analyser, "chest_xray", name)
    explainers = explainer_choices(model)
    # The networks that may answer have no layer in common.
    layers = [] if name == AUTO_MODEL else layer_choices(model)
    known = [value for _, value in explainers]
    seconds = (
        comparison_choices(analyser, model.task, model, own=name)
        if model
        else [_NOTHING, *explainers]
    )
    targets = target_choices(model, *automatic_models(analyser, name))
    others = [value for _, value in seconds]
    return [
        gr.update(choices=explainers, value=explainer if explainer in known else known[0]),
        # Another model has other labels, so the target goes back to the answer.
        gr.update(choices=targets, value=""),
        gr.update(choices=layers, value=_first_value(layers), visible=len(layers) > 1),
        gr.update(choices=seconds, value=second if second in others else ""),
    ]


def explainer_choices(model: Model | None) -> Choices:
    """Return the explainers that fit a model, its default first; all if the model is unknown."""
    # The first choice is the one that `lay_out` and `model_dependent_updates` select.
    kind = networks.ARCHITECTURES[model.architecture].kind if model else None
    names = fitting_names(kind) if kind else tuple(EXPLAINERS)
    first = default_name(kind, model.usual_explainer) if model and kind else DEFAULT
    return [(_explainer_title(name), name) for name in (first, *(n for n in names if n != first))]


def comparison_choices(
    analyser: Analyser, task: Task, model: Model | None, *, own: str | None = None
) -> Choices:
    """Return what a heatmap can be compared with: explainers, and models other than `own`."""
    hub = analyser.hub
    own = own or (model.name if model else None)
    models = [
        (f"Model: {hub.describe(name)['title']}", f"{MODEL_PREFIX}{name}")
        for name in hub.names(task)
        # A comparison never starts a download.
        if name != own and hub.is_available(name)
    ]
    return [_NOTHING, *explainer_choices(model), *models]


def layer_choices(model: Model | None) -> Choices:
    """Return the layers at which a model can be explained, its default first."""
    if model is None:
        return []
    return [(layer, layer) for layer in networks.architecture(model).cuts]


def target_choices(model: Model | None, *others: Model) -> Choices:
    """Return the labels that can be explained, of a model and of others that may answer."""
    models = [*([model] if model else []), *others]
    labels = dict.fromkeys(label for each in models for label in each.labels)
    return [_ANSWER, *((phrases.display_label(label), label) for label in labels)]


def _first_value(choices: Choices) -> str | None:
    return choices[0][1] if choices else None


def _explainer_title(explainer: str) -> str:
    return f"{explainer} (slow)" if EXPLAINERS[explainer].passes > 1 else explainer


def _dropdown(
    task: Task, label: str, info: str, choices: Choices, value: str | None
) -> gr.Dropdown:
    name = f"{task}-{label.lower().replace(' ', '-')}"
    return gr.Dropdown(choices, value=value, label=label, info=info, elem_id=name)


def _model_title(analyser: Analyser, name: str) -> str:
    row = analyser.hub.describe(name)
    patients = str(row.get("patients"))
    # Most titles say it themselves.
    is_news = patients in ("adults", "children") and patients not in str(row["title"])
    notes = [f"for {patients}"] if is_news else []
    notes += [] if row["available"] else ["not installed"]
    note = f" ({', '.join(notes)})" if notes else ""
    return f"{row['title']}{note}"


def playable_sound(samples: Floats, sample_rate_hz: int | None) -> tuple[int, Any]:
    """Return (time,) samples, -1..1, as Gradio's player takes them: 16-bit integers."""
    # Gradio would normalise floats to full volume; integers stay as quiet as they are.
    # Clipped, because a sample beyond full scale would wrap round to the opposite sign.
    scaled = np.clip(np.rint(32767 * samples), -32768, 32767).astype(np.int16)
    return sample_rate_hz or 16000, scaled


class Upload(str):
    """The path of an upload, and the name that its visitor gave it: for messages, never on disk."""

    shown_name: str | None

    def __new__(cls, path: str, name: str | None) -> Upload:
        """Keep the base name, printable and at most 80 characters; None: there is none."""
        upload = super().__new__(cls, path)
        # Of either system: a browser may send a whole path.
        upload.shown_name = display_name(PureWindowsPath(name).name) if name else None
        return upload


def pass_upload_path(file: _File) -> _File:
    """Make a file box or a player pass on an `Upload`."""

    # A file box's own way of passing on the path also leaves an empty file on the server each time.
    def upload(payload: Any) -> Upload | None:
        return Upload(payload.path, payload.orig_name) if payload else None

    file.preprocess = upload  # type: ignore[method-assign]
    return file


def shown_name(path: object) -> str | None:
    """Return the name of an upload for messages, None if the file's own is to be shown.

    An upload has a random name, which means nothing to anybody.
    """
    if not isinstance(path, Upload):
        return None
    return path.shown_name or f"upload{PurePath(path).suffix}"


def with_shown_names(request: AnalysisRequest, path: str | None) -> AnalysisRequest:
    """Return the request with the names that the visitor gave the file and the annotation."""
    return replace(request, name=shown_name(path), cycles_name=shown_name(request.cycles))


def progress_callback(progress: gr.Progress) -> Progress:
    """Return a callback that moves Gradio's progress bar as the pipeline advances."""
    # With no request to report to, Gradio's bar returns the fraction; a `Progress` returns None.
    return lambda fraction, step: progress(fraction, desc=step) and None
