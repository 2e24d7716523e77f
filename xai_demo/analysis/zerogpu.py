"""Answers on a GPU that is lent for the length of a call (ZeroGPU).

The call runs in a process of its own, forked from this one: what goes in and out is copied, so that
neither progress nor a request to stop crosses over, and errors come back as what they say.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xai_demo.engine.backends import zerogpu_package
from xai_demo.errors import RequestError, UnknownNameError, XaiDemoError
from xai_demo.explainers import EXPLAINERS

if TYPE_CHECKING:
    from xai_demo.analysis import Analyser
    from xai_demo.analysis.request import AnalysisRequest
    from xai_demo.hub import Hub
    from xai_demo.records import Analysis, Decision, Floats, Prediction, Progress, Radiograph, Task

# Seconds of a GPU, by how the network is made: loading its sums, and one answer.
SECONDS = {"convolutional": 15, "pooled": 15, "transformer": 30}
_SLOW_S = 30  # more, for an explainer with forward passes of its own


class Lent:
    """An analyser whose answers are worked out while a GPU is lent; else it is that analyser."""

    def __init__(self, analyser: Analyser, spaces: Any) -> None:
        self._analyser = analyser
        self._on_gpu = spaces.GPU(self._worked, duration=self._seconds)
        self._briefly = spaces.GPU(self._heard, duration=min(SECONDS.values()))

    @property
    def hub(self) -> Hub:
        """The analyser's own."""
        return self._analyser.hub

    def radiograph(self, path: str | Path) -> Radiograph:
        """As `pipeline.Analyser.radiograph`: no network is asked."""
        return self._analyser.radiograph(path)

    def warm_up(self) -> None:
        """Nothing is left to be loaded."""

    def live(
        self, task: Task, samples: Floats, sample_rate_hz: int, *, model: str | None = None
    ) -> tuple[tuple[Prediction, ...], Decision]:
        """As `pipeline.Analyser.live`."""
        outcome = self._briefly(task, samples, sample_rate_hz, model)
        if isinstance(outcome, XaiDemoError):
            raise outcome
        answer: tuple[tuple[Prediction, ...], Decision] = outcome
        return answer

    def analyse(
        self,
        request: AnalysisRequest,
        path: str | Path,
        *,
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Analysis:
        """As `pipeline.Analyser.analyse`."""
        if progress:
            progress(0.05, "Waiting for a GPU to be lent")
        outcome = self._on_gpu(request, str(path))
        if isinstance(outcome, XaiDemoError):
            raise outcome
        analysis: Analysis = outcome
        return analysis

    def _worked(self, request: AnalysisRequest, path: str) -> Any:
        """In the other process."""
        return _said(lambda: self._analyser.analyse(request, path))

    def _heard(self, task: Task, samples: Floats, sample_rate_hz: int, model: str | None) -> Any:
        """In the other process."""
        return _said(lambda: self._analyser.live(task, samples, sample_rate_hz, model=model))

    def _seconds(self, request: AnalysisRequest, path: str) -> int:
        """How long the GPU is wanted, at most; short ones are served first."""
        from xai_demo import networks

        try:
            model = self._analyser.hub.model(
                request.model or self._analyser.hub.default_model(request.task)
            )
            seconds = SECONDS[networks.architecture(model).kind]
        except XaiDemoError:  # it is refused in the call
            return min(SECONDS.values())
        method = EXPLAINERS.get(str(request.explainer))
        return seconds + (_SLOW_S if method and method.passes > 1 else 0)


def lent(analyser: Analyser) -> Analyser | Lent:
    """The analyser, on a lent GPU where this machine lends them.

    Its networks are put in place first: a lent GPU takes only what was placed before any call.
    """
    spaces = zerogpu_package()
    if spaces is None:
        return analyser
    analyser.warm_up()
    return Lent(analyser, spaces)


def _said(work: Callable[[], Any]) -> Any:
    """What the work returns, or the error that it raises, such that either can be copied."""
    try:
        return work()
    except UnknownNameError as error:  # made of more than its sentence
        return RequestError(str(error))
    except XaiDemoError as error:
        return error
