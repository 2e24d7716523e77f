"""One question to the analyser: picks go in, an answer or a refusal in words comes out."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from xai_demo.errors import RequestError, WeightsError, XaiDemoError
from xai_demo.explainers import DEFAULT
from xai_demo.records import Analysis, Model, Progress, Task

BACKENDS = ("auto", "torch", "onnx")

_log = logging.getLogger(__name__)


class Hub(Protocol):
    """What the page asks of the hub."""

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
        explainer: str = DEFAULT,
        target: str | None = None,
        backend: str = "auto",
        weights: str | None = None,
        progress: Progress | None = None,
    ) -> Analysis:
        """Read, predict and explain one file."""

    def warm_up(self) -> None:
        """Load what the first visitor would otherwise wait for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picks:
    """What the visitor chose beside the file; None: the default."""

    model: str | None = None
    explainer: str | None = None
    target: str | None = None
    backend: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why there is no answer, and what to try."""

    title: str
    message: str
    advice: str


def ask(
    analyser: Analyser, task: Task, path: str | None, picks: Picks, progress: Progress | None = None
) -> Analysis | Refusal:
    """Answer, or say in words a person understands why not; a fault of ours is logged."""
    try:
        if not path:
            raise RequestError("There is no file yet, wanted: one recording or picture.")
        return analyser.analyse(
            task,
            path,
            model=picks.model or None,
            explainer=picks.explainer or DEFAULT,
            target=picks.target or None,
            backend=picks.backend or "auto",
            progress=progress,
        )
    except WeightsError as error:
        return Refusal(
            title="This model is not here",
            message=str(error),
            advice="Choose another model under “Look closer”: those without a note are ready.",
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
