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
from xai_demo.files import detect_format, display_name, write_atomically
from xai_demo.records import (
    Analysis,
    Decision,
    Model,
    Prediction,
    Progress,
    Radiograph,
    Task,
)
from xai_demo.scheduler import Result, Work
from xai_demo.service.logs import bind_request, hide_paths, log_answer, log_refusal

if TYPE_CHECKING:
    from xai_demo.records import Floats

# In the list of what to compare with, marks the name of a model rather than of an explainer.
MODEL_PREFIX = "model: "
# The name of every uploaded DICOM file in reports: its own may contain the patient's name.
DICOM_NAME = "film.dcm"

# What a file begins with that was deleted, and how long the reason after it may be.
_DELETED = b"xai_demo: deleted, because it cannot be de-identified\n"
_MAX_REASON_BYTES = 1000

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
    outcome = _run_request(analyser, request, path, progress, cancelled)
    if isinstance(outcome, Refusal):
        log_refusal("stopped" if outcome.stopped else outcome.title, task=request.task)
        # A message may name folders of the server, and quote what the visitor sent.
        return replace(outcome, message=hide_paths(outcome.message))
    return outcome


def _run_request(
    analyser: Analyser,
    request: AnalysisRequest,
    path: str | None,
    progress: Progress | None,
    cancelled: Callable[[], bool] | None,
) -> Analysis | Refusal:
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
    # Before the analysis, which may have to wait in the queue; on every tab, because a DICOM file
    # may come to any.
    remove_patient_data(path, analyser)
    raise_if_deleted(path)
    analysis = analyser.analyse(request, path, progress=progress, cancelled=cancelled)
    _log_analysis(request, analysis)
    if analysis.report.input.get("format") == "DICOM":
        return replace(analysis, report=replace(analysis.report, file=DICOM_NAME))
    return analysis


def remove_patient_data(
    path: str, analyser: Analyser | None = None, *, name: str | None = None
) -> None:
    """Overwrite an uploaded DICOM file with a copy without patient data.

    If that is impossible, the reason is all that is left of it, see `raise_if_deleted`; it calls
    the file `name`. The analyser's workers read the file; without one, this process does. Files
    outside the upload folder and other formats are left as they are.
    """
    # Resolved, so that a link out of the folder does not count as inside it.
    place = Path(path).resolve()
    if not place.is_relative_to(Path(get_upload_folder()).resolve()):
        return
    write_anew = analyser.deidentify if analyser else write_deidentified
    try:
        with place.open("rb") as file:
            # Quick enough to be done here, so that no other file has to wait for a worker.
            if detect_format(file) != "DICOM":
                return
        content = write_anew(place, name=name or display_name(path))
    except OSError:
        return
    except UnreadableFileError as error:
        log_refusal("patient data")
        content = _DELETED + _reading_error(place, analyser, name, error).encode()
    # Whoever reads the file meanwhile sees all of the old or all of the new one.
    if content is not None:
        write_atomically(place, content)


def _reading_error(
    place: Path, analyser: Analyser | None, name: str | None, error: UnreadableFileError
) -> str:
    """Return why a file cannot be read, rather than why it cannot be written, if it cannot."""
    try:
        if analyser is not None:
            analyser.radiograph(place, name=name)
    except XaiDemoError as reading_error:
        return str(reading_error)
    return str(error)


def raise_if_deleted(path: str) -> None:
    """Raise UnreadableFileError if an upload was deleted because of its patient data."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(_MAX_REASON_BYTES)
    except (OSError, ValueError):
        # The reader says what is wrong with it.
        return
    if head.startswith(_DELETED):
        reason = head.removeprefix(_DELETED).decode("utf-8", "replace")
        raise UnreadableFileError(
            f"{reason} The file was deleted at once, because it may hold a patient's data."
        )


def in_request(request_id: str | None, work: Work[Result]) -> Work[Result]:
    """Return work whose log has the id of the request that it is done for."""

    def work_in_request(is_stopped: Callable[[], bool]) -> Result:
        with bind_request(request_id):
            return work(is_stopped)

    return work_in_request


def _log_analysis(request: AnalysisRequest, analysis: Analysis) -> None:
    report = analysis.report
    log_answer(
        task=request.task,
        # The name of a visitor's own model is the visitor's affair.
        model="own model" if request.weights else report.model.name,
        revision=report.model.revision or report.model.sha256[:12],
        decision=report.decision.kind if report.decision else "answer",
        timing_ms=report.timing_ms,
    )
