"""Running a visitor's request: an analysis, or a refusal in words a visitor understands.

Also the protocols of what the page needs from the pipeline, so that tests can hand in a fake, and
the removal of patient data from uploaded DICOM files.
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
from xai_demo.analysis.reading import write_deidentified
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
from xai_demo.files import display_name, write_atomically
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

# In the list of what to compare with, marks the name of a model rather than of an explainer.
MODEL_PREFIX = "model: "
# The name of every uploaded DICOM file in reports: its own may contain the patient's name.
DICOM_NAME = "film.dcm"

_log = logging.getLogger(__name__)


class Hub(Protocol):
    """What the page needs from the hub."""

    @property
    def own_models(self) -> bool:
        """Whether visitors may use models of their own."""

    def names(self, task: Task | None = None) -> tuple[str, ...]:
        """Return the names of all models of the catalogue, or of one task."""

    def model(self, name: str) -> Model:
        """Return the record of one model."""

    def is_available(self, name: str) -> bool:
        """Return whether a model can be used now, without a download."""

    def default_model(self, task: Task) -> str:
        """Return the first model of a task that is available."""

    def describe(self, name: str) -> Mapping[str, Any]:
        """Return a model's row in the list of models."""

    def kinds(self) -> dict[str, str]:
        """Return the kind of network of each model."""


class Analyser(Protocol):
    """What the page needs from the pipeline."""

    @property
    def hub(self) -> Hub:
        """The hub that the models come from."""

    def analyse(
        self,
        request: AnalysisRequest,
        path: str | Path,
        *,
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Analysis:
        """Read one file, predict and explain."""

    def radiograph(self, path: str | Path, *, name: str | None = None) -> Radiograph:
        """Read a radiograph at the size of a preview and check it with the gate."""

    def deidentify(self, path: str | Path, *, name: str) -> bytes | None:
        """Return a DICOM file's content without patient data, None if there is none to remove.

        Raises UnreadableFileError if it cannot be written without.
        """

    def live(
        self, task: Task, samples: Floats, sample_rate_hz: int, *, model: str | None = None
    ) -> tuple[tuple[Prediction, ...], Decision]:
        """Predict and decide for the last seconds of a sound that is still being recorded."""

    def warm_up(self) -> None:
        """Load what the first visitor would otherwise have to wait for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRequest:
    """A visitor's request, and what to compare its explanation with."""

    request: AnalysisRequest
    compare_with: str | None = None  # an explainer, or `MODEL_PREFIX` and a model


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why there is no answer, and what to try instead."""

    title: str
    message: str
    advice: str
    stopped: bool = False  # by the visitor, or because the visitor left


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """An answer, and a second one to compare it with if the visitor chose one."""

    first: Analysis | Refusal
    second: Analysis | Refusal | None = None


def run_comparison(
    analyser: Analyser,
    page_request: PageRequest,
    path: str | None,
    progress: Progress,
    cancelled: Callable[[], bool],
) -> Comparison:
    """Run a request, and a second time with the explainer or model to compare with, if any.

    Both explain the same label; a second model without that label explains its own answer.
    """
    request, other = page_request.request, page_request.compare_with
    if not other:
        return Comparison(first=run_request(analyser, request, path, progress, cancelled))

    def half_of_progress(start: float) -> Progress:
        return lambda fraction, step: progress(start + fraction / 2, step)

    # First alone: it decides which label both explain, and a refused file is not tried twice.
    first = run_request(analyser, request, path, half_of_progress(0), cancelled)
    if isinstance(first, Refusal):
        return Comparison(first=first)
    second_request = _second_request(analyser, request, other, first)
    return Comparison(
        first=first,
        second=run_request(analyser, second_request, path, half_of_progress(0.5), cancelled),
    )


def _second_request(
    analyser: Analyser, request: AnalysisRequest, other: str, first: Analysis
) -> AnalysisRequest:
    """Return the request for another explainer, or for another model as far as it fits that one."""
    explanation = next(iter(first.report.explanations), None)
    target = explanation.target if explanation else request.target
    if not other.startswith(MODEL_PREFIX):
        return replace(request, explainer=other, target=target)
    name = other.removeprefix(MODEL_PREFIX)
    try:
        model = analyser.hub.model(name)
    except XaiDemoError:
        # Running the request raises the same error, which is then shown.
        return replace(request, model=name, weights=None)
    # Weights and layer belong to the first model; explainer and target stay where they fit.
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


def run_request(
    analyser: Analyser,
    request: AnalysisRequest,
    path: str | None,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Analysis | Refusal:
    """Run a request; return why not as a `Refusal`, and log unexpected errors by number."""
    try:
        # Each of our own errors is a XaiDemoError, so the more specific ones must come first.
        return _analyse_upload(analyser, request, path, progress, cancelled)
    except CancelledError as error:
        return Refusal(
            title="Stopped",
            message=str(error),
            advice="You can start again at any time.",
            stopped=True,
        )
    except WeightsError as error:
        return Refusal(
            title="This model is not available",
            message=str(error),
            advice="Choose a model without a note under “Settings and details”.",
        )
    except AnnotationError as error:
        return Refusal(
            title="The annotation could not be used",
            message=str(error),
            advice="Remove it under “Signal path”, or upload the one for this recording.",
        )
    except XaiDemoError as error:
        return Refusal(
            title="This could not be analysed",
            message=str(error),
            advice="Try another file, or one of the examples.",
        )
    except Exception:
        # An error of ours. The details go to the log only: they may name files of the server.
        reference = uuid.uuid4().hex[:8]
        _log.exception("Error %s while running a %s request", reference, request.task)
        return Refusal(
            title="Something went wrong on the server",
            message=f"Your file is not the cause. The error was logged as {reference}.",
            advice="Try again, or try an example. If it happens again, please report that number.",
        )


def _analyse_upload(
    analyser: Analyser,
    request: AnalysisRequest,
    path: str | None,
    progress: Progress | None,
    cancelled: Callable[[], bool] | None,
) -> Analysis:
    if not path:
        raise RequestError("There is no file yet; add a recording or an image.")
    check_visitor(request, own_models=analyser.hub.own_models)
    if request.task == "chest_xray":
        # Before the analysis, which may have to wait in the queue.
        remove_patient_data(path, analyser)
    analysis = analyser.analyse(request, path, progress=progress, cancelled=cancelled)
    if analysis.report.input.get("format") == "DICOM":
        return replace(analysis, report=replace(analysis.report, file=DICOM_NAME))
    return analysis


def remove_patient_data(path: str, analyser: Analyser | None = None) -> None:
    """Overwrite an uploaded DICOM file with a copy without patient data.

    The analyser's workers read it; without one, this process does. Files outside the upload folder,
    other formats and damaged files are left as they are.
    """
    # Resolved, so that a link out of the folder does not count as inside it.
    place = Path(path).resolve()
    if not place.is_relative_to(Path(get_upload_folder()).resolve()):
        return
    try:
        write_anew = analyser.deidentify if analyser else write_deidentified
        content = write_anew(place, name=display_name(path))
        # Whoever reads the file meanwhile sees all of the old or all of the new one.
        if content is not None:
            write_atomically(place, content)
    except (OSError, UnreadableFileError):
        return
