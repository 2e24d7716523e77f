"""One question to the analyser: picks go in, an answer or a refusal in words comes out.

What visitors uploaded, as it lies on the server until it is wiped.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gradio.utils import get_upload_folder

from xai_demo import networks
from xai_demo.analysis.request import AnalysisRequest, check_visitor
from xai_demo.errors import (
    AnnotationError,
    CancelledError,
    RequestError,
    UnreadableFileError,
    WeightsError,
    XaiDemoError,
)
from xai_demo.explainers import fitting_names
from xai_demo.files import detect_format, display_name, write_atomically
from xai_demo.imaging.dicom.deidentify import deidentify, is_deidentified
from xai_demo.imaging.dicom.tags import DamagedError
from xai_demo.records import (
    Analysis,
    Decision,
    Model,
    Prediction,
    Progress,
    Radiograph,
    Task,
)

if TYPE_CHECKING:
    from xai_demo.records import Floats

OTHER = "model: "  # before the name of a second model
DICOM_NAME = "film.dcm"  # of any such upload in an answer: its own may be that of a patient

_log = logging.getLogger(__name__)


class Hub(Protocol):
    """What the page asks of the hub."""

    @property
    def own_models(self) -> bool:
        """Whether visitors may name a model of their own."""

    def names(self, task: Task | None = None) -> tuple[str, ...]:
        """Every model of the catalogue, or those of one task."""

    def model(self, name: str) -> Model:
        """The facts of one model."""

    def is_available(self, name: str) -> bool:
        """Whether it is usable now, offline."""

    def default_model(self, task: Task) -> str:
        """The first of a task that is usable now."""

    def describe(self, name: str) -> Mapping[str, Any]:
        """A row of the list of models."""

    def kinds(self) -> dict[str, str]:
        """What kind of network each model is."""


class Analyser(Protocol):
    """What the page asks of the pipeline."""

    @property
    def hub(self) -> Hub:
        """Where models come from."""

    def analyse(
        self,
        request: AnalysisRequest,
        path: str | Path,
        *,
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Analysis:
        """Read, predict and explain one file."""

    def radiograph(self, path: str | Path) -> Radiograph:
        """A radiograph as it is read and as the gate sees it, without a model."""

    def live(
        self, task: Task, samples: Floats, sample_rate_hz: int, *, model: str | None = None
    ) -> tuple[tuple[Prediction, ...], Decision]:
        """The answer for a stretch of sound that is still being recorded."""

    def warm_up(self) -> None:
        """Load what the first visitor would otherwise wait for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRequest:
    """What a visitor chose: the request, and what to compare its explanation with."""

    request: AnalysisRequest
    compare_with: str | None = None  # another explainer, or `OTHER` and the name of a model


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why there is no answer, and what to try."""

    title: str
    message: str
    advice: str
    stopped: bool = False  # nobody waits for it any more


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """An answer, and the same explained another way if that was asked for."""

    first: Analysis | Refusal
    second: Analysis | Refusal | None = None


def compared(
    analyser: Analyser,
    page_request: PageRequest,
    path: str | None,
    progress: Progress,
    cancelled: Callable[[], bool],
) -> Compared:
    """Answer, and explain the same label by another explainer or model where one is chosen.

    A second model that has no such label explains its own answer.
    """
    request, other = page_request.request, page_request.compare_with
    if not other:
        return Compared(first=ask(analyser, request, path, progress, cancelled))

    def half(start: float) -> Progress:
        return lambda done, doing: progress(start + done / 2, doing)

    first = ask(analyser, request, path, half(0), cancelled)
    if isinstance(first, Refusal):
        return Compared(first=first)
    second_request = _second_request(analyser, request, other, first)
    return Compared(first=first, second=ask(analyser, second_request, path, half(0.5), cancelled))


def _second_request(
    analyser: Analyser, request: AnalysisRequest, other: str, first: Analysis
) -> AnalysisRequest:
    """The same request for another explainer, or for another model with what fits that one."""
    explanation = next(iter(first.report.explanations), None)
    target = explanation.target if explanation else request.target
    if not other.startswith(OTHER):
        return replace(request, explainer=other, target=target)
    name = other.removeprefix(OTHER)
    try:
        model = analyser.hub.model(name)
    except XaiDemoError:  # the analyser refuses it in words
        return replace(request, model=name, weights=None)
    used = explanation.explainer if explanation else None
    kind = networks.ARCHITECTURES.get(model.architecture)
    fits = kind is not None and used in fitting_names(kind.kind)
    return replace(
        request,
        model=name,
        weights=None,
        layer=None,
        explainer=used if fits else None,
        target=target if target in model.labels else None,
    )


def ask(
    analyser: Analyser,
    request: AnalysisRequest,
    path: str | None,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Analysis | Refusal:
    """Answer, or say in words a person understands why not; a fault of ours is logged."""
    try:
        return _analyse(analyser, request, path, progress, cancelled)
    except CancelledError as error:
        return Refusal(
            title="Stopped", message=str(error), advice="Ask again at any time.", stopped=True
        )
    except WeightsError as error:
        return Refusal(
            title="This model is not here",
            message=str(error),
            advice="Choose another model under “Look closer”: those without a note are ready.",
        )
    except AnnotationError as error:
        return Refusal(
            title="The annotation could not be used",
            message=str(error),
            advice="Take it away under “Signal path”, or bring the one of this recording.",
        )
    except XaiDemoError as error:
        return Refusal(
            title="This could not be analysed",
            message=str(error),
            advice="Try another file, or one of the examples.",
        )
    except Exception:
        reference = uuid.uuid4().hex[:8]
        _log.exception("Fault %s while answering a %s request", reference, request.task)
        return Refusal(
            title="Something went wrong here, not with your file",
            message=f"The fault was noted as {reference}.",
            advice="Try again, or try one of the examples. If it stays, report that number.",
        )


def _analyse(
    analyser: Analyser,
    request: AnalysisRequest,
    path: str | None,
    progress: Progress | None,
    cancelled: Callable[[], bool] | None,
) -> Analysis:
    if not path:
        raise RequestError("There is no file yet; add a recording or a picture.")
    check_visitor(request, own_models=analyser.hub.own_models)
    if request.task == "chest_xray":
        forget_patient(path)
    analysis = analyser.analyse(request, path, progress=progress, cancelled=cancelled)
    if analysis.report.input.get("format") == "DICOM":
        return replace(analysis, report=replace(analysis.report, file=DICOM_NAME))
    return analysis


def forget_patient(path: str) -> None:
    """Write an uploaded DICOM film anew, without what belongs to the patient, in its own place.

    What is no upload or no readable film stays as it is: nobody's file but the server's own copy.
    """
    place = Path(path).resolve()
    if not place.is_relative_to(Path(get_upload_folder()).resolve()):
        return
    try:
        with place.open("rb") as file:
            if detect_format(file) != "DICOM" or is_deidentified(file):
                return
            content = deidentify(file, display_name(path))
        write_atomically(place, content)
    except (OSError, UnreadableFileError, DamagedError):
        return
