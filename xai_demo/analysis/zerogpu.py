"""Analysing on a GPU that is available only during a call (ZeroGPU on Hugging Face Spaces).

The call runs in a forked process. Its arguments and its result are pickled, so progress and
cancelling do not reach it, and errors come back as values.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xai_demo.analysis import choices
from xai_demo.engine.backends import zerogpu_package
from xai_demo.errors import RequestError, UnknownNameError, XaiDemoError
from xai_demo.explainers import EXPLAINERS

if TYPE_CHECKING:
    from xai_demo.analysis import Analyser
    from xai_demo.analysis.reading import Source
    from xai_demo.analysis.request import AnalysisRequest
    from xai_demo.hub import Hub
    from xai_demo.records import Analysis, Decision, Floats, Prediction, Progress, Radiograph, Task

# GPU seconds of one analysis at most, by kind of network: loading its kernels and predicting once.
GPU_SECONDS = {"convolutional": 15, "pooled": 15, "transformer": 30}
# Added for an explainer with forward passes of its own.
_SLOW_EXPLAINER_S = 30


class ZeroGPUAnalyser:
    """Wraps an analyser so that each analysis runs in a call with a GPU."""

    def __init__(self, analyser: Analyser, spaces: Any) -> None:
        self._analyser = analyser
        # `spaces` calls `_max_seconds` with the arguments of each call, before it asks for a GPU.
        self._analyse_on_gpu = spaces.GPU(self._analyse, duration=self._max_seconds)
        self._live_on_gpu = spaces.GPU(self._live, duration=min(GPU_SECONDS.values()))

    @property
    def hub(self) -> Hub:
        """The hub of the wrapped analyser."""
        return self._analyser.hub

    def radiograph(self, path: str | Path, *, name: str | None = None) -> Radiograph:
        """See `Analyser.radiograph`; it runs no network and takes no GPU."""
        return self._analyser.radiograph(path, name=name)

    def deidentify(self, path: str | Path, *, name: str) -> bytes | None:
        """See `Analyser.deidentify`."""
        return self._analyser.deidentify(path, name=name)

    def warm_up(self) -> None:
        """Do nothing: `wrap_for_zerogpu` has loaded the networks."""

    def live(
        self, task: Task, samples: Floats, sample_rate_hz: int, *, model: str | None = None
    ) -> tuple[tuple[Prediction, ...], Decision]:
        """See `Analyser.live`."""
        outcome = self._live_on_gpu(task, samples, sample_rate_hz, model)
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
        """See `Analyser.analyse`; a call that has started cannot be cancelled.

        The file is read before, in the server and its workers: no GPU second is spent on it, and
        the forked process has no workers.
        """
        source = self._analyser.read(request, path, cancelled=cancelled)
        if progress:
            # The only report: callbacks cannot be pickled into the other process.
            progress(0.05, "Waiting for a GPU")
        outcome = self._analyse_on_gpu(request, str(path), source)
        if isinstance(outcome, XaiDemoError):
            raise outcome
        analysis: Analysis = outcome
        return analysis

    def _analyse(self, request: AnalysisRequest, path: str, source: Source) -> Any:
        """Runs in the forked process."""
        return _result_or_error(lambda: self._analyser.analyse(request, path, source=source))

    def _live(self, task: Task, samples: Floats, sample_rate_hz: int, model: str | None) -> Any:
        """Runs in the forked process."""
        return _result_or_error(
            lambda: self._analyser.live(task, samples, sample_rate_hz, model=model)
        )

    def _max_seconds(self, request: AnalysisRequest, path: str, source: Source) -> int:
        """The longest time that the analysis may take; ZeroGPU serves short calls first."""
        from xai_demo import networks

        try:
            # One network is as quick as another where the patient is yet to decide.
            request = choices.before_reading(request, self._analyser.hub)
            model = self._analyser.hub.model(
                request.model or self._analyser.hub.default_model(request.task)
            )
            seconds = GPU_SECONDS[networks.architecture(model).kind]
        # The call itself refuses the request.
        except XaiDemoError:
            return min(GPU_SECONDS.values())
        # An unknown name is refused later, by the call.
        method = EXPLAINERS.get(str(request.explainer))
        # A single pass of its own fits into the seconds above.
        return seconds + (_SLOW_EXPLAINER_S if method and method.passes > 1 else 0)


def wrap_for_zerogpu(analyser: Analyser) -> Analyser | ZeroGPUAnalyser:
    """The analyser itself, or wrapped on a Space with ZeroGPU."""
    spaces = zerogpu_package()
    if spaces is None:
        return analyser
    # ZeroGPU moves to the GPU only what was placed there before the first call.
    analyser.warm_up()
    return ZeroGPUAnalyser(analyser, spaces)


def _result_or_error(work: Callable[[], Any]) -> Any:
    """What `work` returns or raises, as a value that can be pickled."""
    try:
        return work()
    # Its constructor takes more than a message, so it cannot be unpickled.
    except UnknownNameError as error:
        return RequestError(str(error))
    except XaiDemoError as error:
        return error
