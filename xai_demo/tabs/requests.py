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
from xai_demo.audio.filters import SignalPath
from xai_demo.audio.noise import Noise
from xai_demo.errors import (
    AnnotationError,
    CancelledError,
    RequestError,
    UnreadableFileError,
    UnsuitableError,
    WeightsError,
    XaiDemoError,
)
from xai_demo.explainers import fitting
from xai_demo.files import format_of, shown_name, write_atomically
from xai_demo.imaging.dicom.deidentify import is_stripped, stripped
from xai_demo.imaging.dicom.tags import DamagedError
from xai_demo.records import (
    Analysis,
    Decision,
    Film,
    Model,
    Prediction,
    Progress,
    Radiograph,
    Task,
)

if TYPE_CHECKING:
    from xai_demo.records import Floats

BACKENDS = ("auto", "torch", "onnx")
OTHER = "model: "  # before the name of a second model
OWN = "hf://owner/name[@revision][/file.safetensors]"
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

    def available(self, name: str) -> bool:
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
        task: Task,
        path: str | Path,
        *,
        model: str | None = None,
        explainer: str | None = None,
        target: str | None = None,
        layer: str | None = None,
        backend: str = "auto",
        weights: str | None = None,
        signal_path: SignalPath | None = None,
        cycles: str | Path | None = None,
        film: Film = "checked",
        noise: Noise | None = None,
        faithfulness: bool = True,
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
class Picks:
    """What the visitor chose beside the file; None: the default."""

    model: str | None = None
    explainer: str | None = None
    target: str | None = None
    backend: str | None = None
    layer: str | None = None
    second: str | None = None  # another explainer, or `OTHER` and a model, to compare with
    signal_path: SignalPath | None = None
    cycles: str | None = None  # an annotation file
    own: str | None = None  # hf://owner/name[@revision][/file], in place of the model's weights
    film: Film | None = None  # what becomes of a radiograph that the gate doubts
    noise: Noise | None = None  # to be laid over a sound
    trial: bool = True  # hide what is hot and ask again


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
    task: Task,
    path: str | None,
    picks: Picks,
    progress: Progress,
    cancelled: Callable[[], bool],
) -> Compared:
    """Answer, and explain the same label by `picks.second` as well where one is picked.

    A second model that has no such label explains its own answer.
    """
    if not picks.second:
        return Compared(first=ask(analyser, task, path, picks, progress, cancelled))

    def halved(start: float) -> Progress:
        return lambda done, doing: progress(start + done / 2, doing)

    first = ask(analyser, task, path, picks, halved(0), cancelled)
    if isinstance(first, Refusal):
        return Compared(first=first)
    target = first.report.explanations[0].target if first.report.explanations else picks.target
    other = replace(picks, explainer=picks.second, target=target)
    if picks.second.startswith(OTHER):
        other = _of_other_model(analyser, picks, target, first)
    return Compared(first=first, second=ask(analyser, task, path, other, halved(0.5), cancelled))


def _of_other_model(analyser: Analyser, picks: Picks, target: str | None, first: Analysis) -> Picks:
    name = picks.second.removeprefix(OTHER) if picks.second else ""
    try:
        model = analyser.hub.model(name)
    except XaiDemoError:  # the analyser says it in words
        return replace(picks, model=name, own=None)
    used = first.report.explanations[0].explainer if first.report.explanations else None
    kind = networks.ARCHITECTURES.get(model.architecture)
    fits = kind is not None and used in fitting(kind.kind)
    return replace(
        picks,
        model=name,
        own=None,
        layer=None,
        explainer=used if fits else None,
        target=target if target in model.labels else None,
    )


def ask(
    analyser: Analyser,
    task: Task,
    path: str | None,
    picks: Picks,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Analysis | Refusal:
    """Answer, or say in words a person understands why not; a fault of ours is logged."""
    try:
        return _analysed(analyser, task, path, picks, progress, cancelled)
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
        _log.exception("Fault %s while answering a %s request", reference, task)
        return Refusal(
            title="Something went wrong here, not with your file",
            message=f"The fault was noted as {reference}.",
            advice="Try again, or try one of the examples. If it stays, report that number.",
        )


def _analysed(
    analyser: Analyser,
    task: Task,
    path: str | None,
    picks: Picks,
    progress: Progress | None,
    cancelled: Callable[[], bool] | None,
) -> Analysis:
    if not path:
        raise RequestError("There is no file yet, wanted: one recording or picture.")
    if task == "chest_xray":
        forget_patient(path)
    analysis = analyser.analyse(
        task,
        path,
        model=picks.model or None,
        explainer=picks.explainer or None,
        target=picks.target or None,
        layer=picks.layer or None,
        backend=picks.backend or "auto",
        weights=_own(analyser, picks.own),
        signal_path=picks.signal_path,
        cycles=picks.cycles or None,
        film=picks.film or "checked",
        **({"noise": picks.noise} if picks.noise else {}),
        faithfulness=picks.trial,
        progress=progress,
        cancelled=cancelled,
    )
    if analysis.report.input.get("format") == "DICOM":
        return replace(analysis, report=replace(analysis.report, file=DICOM_NAME))
    return analysis


def _own(analyser: Analyser, named: str | None) -> str | None:
    """The visitor's own model; a path of the server or a pickle is none that a visitor may name."""
    named = (named or "").strip()
    if not named:
        return None
    if not analyser.hub.own_models:
        raise UnsuitableError("This deployment takes no models of its visitors; wanted: none.")
    file = named.removeprefix("hf://").partition("/")[2].partition("/")[2]
    if not named.startswith("hf://") or (file and not file.endswith(".safetensors")):
        raise UnsuitableError(f"Your own model is {named!r}; wanted: {OWN}.")
    return named


def forget_patient(path: str) -> None:
    """Write an uploaded DICOM film anew, without what belongs to the patient, in its own place.

    What is no upload or no readable film stays as it is: nobody's file but the server's own copy.
    """
    place = Path(path).resolve()
    if not place.is_relative_to(Path(get_upload_folder()).resolve()):
        return
    try:
        with place.open("rb") as file:
            if format_of(file) != "DICOM" or is_stripped(file):
                return
            content = stripped(file, shown_name(path))
        write_atomically(place, content)
    except (OSError, UnreadableFileError, DamagedError):
        return
