"""What a request leaves open: the network that fits the patient, its explainer, its backend."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol

from xai_demo import explainers, networks
from xai_demo.catalog.hub_models import NIH_FINDINGS
from xai_demo.errors import XaiDemoError
from xai_demo.records import AUTO_MODEL, Model, Radiograph, Task

if TYPE_CHECKING:
    from xai_demo.analysis.request import AnalysisRequest
    from xai_demo.records import Recording

Patient = Literal["adult", "child"]


class Hub(Protocol):
    """What the choice needs from the hub."""

    def names(self, task: Task | None = None) -> tuple[str, ...]:
        """The names of a task's models, the preferred ones first."""

    def model(self, name: str) -> Model:
        """The record of a model."""

    def is_available(self, name: str) -> bool:
        """Whether it can be used now."""

    def default_model(self, task: Task) -> str:
        """The first available model of a task."""


def leaves_choice(request: AnalysisRequest) -> bool:
    """Whether the patient decides which network answers."""
    return request.task == "chest_xray" and request.model in (None, AUTO_MODEL)


def fitting_model(hub: Hub, patient: Patient) -> str:
    """The network that answers for adults, or for children: the first that is available.

    For adults, one of NIH's fourteen findings. Where there is none, the task's default.
    """
    for name in hub.names("chest_xray"):
        try:
            model = hub.model(name)
        except XaiDemoError:
            continue
        fits = (
            model.patients == "children"
            if patient == "child"
            else model.patients == "adults" and model.labels == NIH_FINDINGS
        )
        if fits and hub.is_available(name):
            return name
    return hub.default_model("chest_xray")


def default_models(hub: Hub, task: Task) -> Sequence[str]:
    """The networks that answer unless a request names one; raises WeightsError for none."""
    if task != "chest_xray":
        return (hub.default_model(task),)
    return tuple(dict.fromkeys((fitting_model(hub, "adult"), fitting_model(hub, "child"))))


def before_reading(request: AnalysisRequest, hub: Hub) -> AnalysisRequest:
    """The request with a network in place of "auto", so that it can be checked without the file.

    For radiographs that is one which knows the target and the layer, where they are named.
    """
    if request.model != AUTO_MODEL and not leaves_choice(request):
        return request
    names = default_models(hub, request.task)
    if request.age != "auto":
        names = (fitting_model(hub, request.age),)
    knowing = [name for name in names if _knows(hub.model(name), request)]
    return dataclasses.replace(request, model=(knowing or list(names))[0])


def _knows(model: Model, request: AnalysisRequest) -> bool:
    return (request.target is None or request.target in model.labels) and (
        request.layer is None or request.layer in networks.architecture(model).cuts
    )


def after_reading(
    request: AnalysisRequest, content: Recording | Radiograph, hub: Hub
) -> AnalysisRequest:
    """The request with the network that fits the patient of the radiograph that was read."""
    if not leaves_choice(request) or not isinstance(content, Radiograph):
        return before_reading(request, hub)
    # Where nobody knows, as for an image that is no radiograph, the adults' network answers.
    is_child = content.facts.get("age", {}).get("value") == "child"
    return dataclasses.replace(request, model=fitting_model(hub, "child" if is_child else "adult"))


def default_explainer(model: Model) -> str:
    """The explainer that a model uses unless the request names one."""
    return explainers.default_name(networks.architecture(model).kind, model.usual_explainer)


def backend(model: Model, explainer: str, chosen: str) -> str:
    """The backend to use; raises UnsuitableError if the explainer does not fit the model on it."""
    kind = networks.architecture(model).kind
    method = explainers.explainer_for(explainer, kind, torch=chosen != "onnx")
    # `auto` follows the explainer; only an explicit `onnx` can lack what it needs.
    return "torch" if chosen == "auto" and method.needs_torch else chosen
