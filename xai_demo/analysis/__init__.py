"""The main job, once: read, prepare, predict, explain, and what is drawn and heard of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from xai_demo import explainers, networks
from xai_demo.analysis.explain import Inference, explain, uncertainty_intervals
from xai_demo.analysis.inference import Asker, answered
from xai_demo.audio.noise import add_noise
from xai_demo.decision import decision
from xai_demo.engine import Engine
from xai_demo.errors import UnknownNameError, UnsuitableError, XaiDemoError
from xai_demo.files import display_name
from xai_demo.hub import Hub
from xai_demo.imaging import gate, preprocess
from xai_demo.records import (
    TASKS,
    Analysis,
    Decision,
    Explanation,
    Model,
    Prediction,
    Progress,
    Radiograph,
    Recording,
    Report,
    Task,
)
from xai_demo.scheduler import MonotonicProgress, StepTimer, download_progress, run_in_queue

if TYPE_CHECKING:
    from xai_demo.analysis.inputs import Medium
    from xai_demo.analysis.request import AnalysisRequest
    from xai_demo.audio.segments import Cycle
    from xai_demo.records import Floats
    from xai_demo.settings import Settings


class Analyser:
    """Analyses files with the models of one deployment; safe to call from many threads."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.hub = Hub(settings)
        self.engine = Engine(self.hub)

    @run_in_queue
    def analyse(
        self,
        request: AnalysisRequest,
        path: str | Path,
        *,
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Analysis:
        """Answer for one file and explain the answer.

        Other probable labels are explained in the same forward pass. Raises RequestError for a
        request or a file at fault, WeightsError where weights are missing, and CancelledError soon
        after `cancelled()` turns true.
        """
        from xai_demo.analysis import inputs

        is_cancelled = cancelled or (lambda: False)
        tell, clock = MonotonicProgress(progress), StepTimer()
        bringing = download_progress(tell, is_cancelled)
        named, record = self._models(request, bringing)
        explainer = request.explainer or usual_explainer(record)
        backend = _backend(record, explainer, request.backend)
        if request.weights is None:  # a typing error shows before anything is read
            networks.explained_layer(record, request.layer)
        tell(0.02, "Reading the file")
        source = self._read(record, Path(path), request, clock)
        cycles, cycle_warnings = _cycles(source, request.cycles)
        tell(0.06, "Loading the network")
        network = self.engine.network(
            named.name,
            backend=backend,
            weights=request.weights,
            layer=request.layer,
            progress=bringing,
        )
        runner = Asker(network, is_cancelled)
        with clock("prepare"):
            prepared = inputs.prepare(
                network.model, source, signal_path=request.signal_path, cycles=cycles
            )
        tell(0.32, "Predicting")
        with clock("predict"):
            answer = answered(network, prepared.inputs, runner)
            probabilities = prepared.overall(network.model, answer.probabilities)
        inference = Inference(
            request=request,
            explainer=explainer,
            network=network,
            prepared=prepared,
            answer=answer,
            probabilities=probabilities,
            runner=runner,
        )
        intervals = uncertainty_intervals(inference, tell, clock)
        limit_s = self.settings.explain_seconds
        explanations, warnings = explain(inference, tell, clock, limit_s=limit_s)
        tell(0.96, "Drawing")
        return _analysis(
            inference,
            file=display_name(path),
            explanations=explanations,
            intervals=intervals,
            warnings=cycle_warnings + warnings,
            clock=clock,
        )

    def radiograph(self, path: str | Path) -> Radiograph:
        """A radiograph as it is read and as the gate sees it, without a model."""
        from xai_demo import imaging

        return gate.screen_radiograph(imaging.read_image(path, max_pixels=self.settings.max_pixels))

    @run_in_queue
    def live(
        self, task: Task, samples: Floats, sample_rate_hz: int, *, model: str | None = None
    ) -> tuple[tuple[Prediction, ...], Decision]:
        """The answer alone, for a stretch of sound that is still being recorded.

        Raises UnsuitableError where the rate is not that of the model.
        """
        from xai_demo.analysis import inputs

        record = self._model(task, model)
        expected_hz = getattr(record.preprocessing, "sample_rate_hz", None)
        if sample_rate_hz != expected_hz:
            raise UnsuitableError(
                f"The sound has a sample rate of {sample_rate_hz} Hz; {record.name} needs "
                f"{expected_hz} Hz."
            )
        network = self.engine.network(record.name)
        recording = Recording(samples=samples, sample_rate_hz=sample_rate_hz, facts={})
        prepared = inputs.prepare(network.model, recording)
        windows = answered(network, prepared.inputs).probabilities
        probabilities = prepared.overall(network.model, windows)
        decided = _decision(network.model, probabilities, prepared)
        return _predictions(network.model, probabilities), decided

    def warm_up(self) -> None:
        """Load the default model of every task, and with them the heavy libraries."""
        for task in TASKS:
            try:
                self.engine.network(self.hub.default_model(task))
            except XaiDemoError:
                continue  # who asks for it is told why
            explainers.warm_up()

    def _read(
        self, model: Model, path: Path, request: AnalysisRequest, clock: StepTimer
    ) -> Recording | Radiograph:
        """The file as the model's task needs it: with the noise added, or through the gate."""
        from xai_demo.analysis import inputs

        with clock("read"):
            source = inputs.read(model, path, self.settings)
        if isinstance(source, Recording):
            return source if request.noise is None else add_noise(source, request.noise)
        with clock("gate"):
            return gate.screen_radiograph(source, request.film)

    def _models(self, request: AnalysisRequest, bringing: Progress) -> tuple[Model, Model]:
        """The model of the request, and the one that answers: other weights may be another."""
        named = answering = self._model(request.task, request.model)
        if request.weights is not None:
            with self.engine.queue.step_aside():  # they may have to be fetched
                answering, _ = self.hub.fetch_custom_weights(
                    request.weights, like=named, progress=bringing
                )
        if request.target is not None and request.target not in answering.labels:
            raise UnknownNameError(f"label of {answering.name}", request.target, answering.labels)
        return named, answering

    def _model(self, task: Task, name: str | None) -> Model:
        if task not in TASKS:
            raise UnknownNameError("task", task, TASKS)
        model = self.hub.model(name or self.hub.default_model(task))
        if model.task != task:
            raise UnsuitableError(
                f"{model.name} is a model for {model.task}; models for {task} are "
                f"{', '.join(self.hub.names(task))}."
            )
        return model


def _cycles(
    source: Recording | Radiograph, annotation: str | Path | None
) -> tuple[tuple[Cycle, ...], tuple[str, ...]]:
    """The annotated respiratory cycles of a recording, and warnings about them; none without."""
    from xai_demo.audio.segments import read_cycles

    if annotation is None or not isinstance(source, Recording):
        return (), ()
    return read_cycles(annotation, duration_s=round(source.duration_s, 3))


def _analysis(
    inference: Inference,
    *,
    file: str,
    explanations: tuple[Explanation, ...],
    intervals: Floats | None,
    warnings: tuple[str, ...],
    clock: StepTimer,
) -> Analysis:
    """The report, with what is drawn and played of it."""
    network, prepared, answer = inference.network, inference.prepared, inference.answer
    model, probabilities = network.model, inference.probabilities
    inference.runner.check()
    with clock("render"):
        view, sounds = prepared.drawn(explanations[0])
    report = Report(
        task=model.task,
        file=file,
        model=network.in_use,
        input=prepared.facts,
        predictions=_predictions(model, probabilities, intervals),
        decision=_decision(model, probabilities, prepared),
        explanations=explanations,
        events=prepared.events(model, answer.probabilities, answer.steps, answer.evidence),
        timing_ms=clock.elapsed_ms,
        warnings=(*filter(None, (model.caveat,)), *prepared.warnings, *warnings),
        calibration={"method": "temperature", "temperature": model.temperature},
        uncertainty=None if intervals is None else preprocess.augmentation_settings(),
    )
    return Analysis(
        report=report,
        view=view,
        sounds=sounds,
        sample_rate_hz=prepared.sample_rate_hz,
        timeline=prepared.timeline(model, answer.probabilities, answer.steps),
        stages=prepared.stages,
        model=model,
    )


def usual_explainer(model: Model) -> str:
    """The explainer of a model unless another is named."""
    return explainers.default_name(networks.architecture(model).kind, model.usual_explainer)


def _backend(model: Model, explainer: str, backend: str) -> str:
    """The backend to use, where the explainer fits the model on it; raises UnsuitableError."""
    kind = networks.architecture(model).kind
    method = explainers.explainer_for(explainer, kind, torch=backend != "onnx")
    return "torch" if backend == "auto" and method.needs_torch else backend


def _predictions(
    model: Model, probabilities: Floats, intervals: Floats | None = None
) -> tuple[Prediction, ...]:
    """Every label, the most probable first; probabilities (labels,), intervals (labels, 2)."""
    return tuple(
        Prediction(
            label=model.labels[k],
            probability=float(probabilities[k]),
            interval=None
            if intervals is None
            else (float(intervals[k, 0]), float(intervals[k, 1])),
        )
        for k in sorted(range(len(probabilities)), key=lambda k: -probabilities[k])
    )


def _decision(model: Model, probabilities: Floats, prepared: Medium) -> Decision:
    """The decision for the whole file; blank and doubtful ones get none."""
    outcome = decision(model, probabilities, pooled=len(prepared.inputs) > 1)
    if not (prepared.blank or prepared.doubt):
        return outcome
    # Only the radiograph gate refuses an answer; a doubtful recording counts as uncertain.
    is_refused = prepared.sample_rate_hz is None and not prepared.blank
    return Decision(
        label=None,
        probability=outcome.probability,
        reason=prepared.blank or prepared.doubt,
        kind="no answer" if is_refused else "uncertain",
    )
