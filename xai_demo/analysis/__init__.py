"""The pipeline from a file to its report: read, prepare, predict, explain, draw.

`Analyser.analyse` runs it for one `AnalysisRequest`. The steps are in the other modules of this
folder, in this order: `reading`, `inputs` and `audio_input`, `inference`, `explain`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xai_demo import explainers, networks
from xai_demo.analysis import choices
from xai_demo.analysis.explain import Inference, explain, uncertainty_intervals
from xai_demo.analysis.inference import ModelRunner, run_network
from xai_demo.analysis.reading import Reader, Source
from xai_demo.analysis.request import AnalysisRequest, TimeLimit
from xai_demo.audio.noise import add_noise
from xai_demo.decision import age_mismatch, decide
from xai_demo.engine import Engine
from xai_demo.errors import UnknownNameError, UnsuitableError, XaiDemoError
from xai_demo.files import display_name
from xai_demo.hub import Hub
from xai_demo.imaging import age, gate, preprocess
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
    from xai_demo.analysis.inputs import PreparedInput
    from xai_demo.engine.backends import Network
    from xai_demo.records import Floats
    from xai_demo.service.workers import WorkerPool
    from xai_demo.settings import Settings


class Analyser:
    """Analyses files with the models of one deployment; safe to call from many threads.

    A server hands in a `pool` of workers that read the files, and `request_seconds`, after which an
    analysis is given up.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        pool: WorkerPool | None = None,
        request_seconds: float | None = None,
    ) -> None:
        self.settings = settings
        self.hub = Hub(settings)
        self.engine = Engine(self.hub)
        self.reader = Reader(settings, pool)
        self._request_seconds = request_seconds

    def analyse(
        self,
        request: AnalysisRequest,
        path: str | Path,
        *,
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
        source: Source | None = None,
    ) -> Analysis:
        """Answer for one file and explain the answer.

        One forward pass serves the answer and, with most explainers, the heatmaps of the target and
        of the other probable labels. `source` is what `read` has read, None: it is read here. Only
        what follows takes a slot of the engine's queue. Raises RequestError for a faulty request or
        file, WeightsError for missing weights, DeadlineError, and CancelledError soon after
        `cancelled()` becomes true.
        """
        job = self._job(request, path, progress, cancelled)
        if source is None:
            source = self._read(job)
        fitting = choices.after_reading(request, source.content, self.hub)
        if fitting != job.request:
            downloading = download_progress(job.report, job.limit)
            job = replace(job, **self._checked_choices(fitting, downloading))
        # Waiting for others does not count.
        job.limit.pause()
        return self.engine.queue.run(
            lambda: self._answer(job, source), progress=progress, cancelled=job.limit
        )

    def read(
        self,
        request: AnalysisRequest,
        path: str | Path,
        *,
        cancelled: Callable[[], bool] | None = None,
    ) -> Source:
        """Read what a request needs, for `analyse` in another process; raises what that raises."""
        return self._read(self._job(request, path, None, cancelled))

    def _job(
        self,
        request: AnalysisRequest,
        path: str | Path,
        progress: Progress | None,
        cancelled: Callable[[], bool] | None,
    ) -> _Job:
        """A request whose names exist and fit each other; fetches the weights that it brings."""
        report = MonotonicProgress(progress)
        request = choices.before_reading(request, self.hub)
        downloading = download_progress(report, TimeLimit(None, cancelled))
        return _Job(
            **self._checked_choices(request, downloading),
            path=Path(path),
            report=report,
            limit=TimeLimit(self._request_seconds, cancelled),
        )

    def _checked_choices(self, request: AnalysisRequest, progress: Progress) -> dict[str, Any]:
        """The fields of a job that follow from the choice of the network."""
        named, model = self._models(request, progress)
        explainer = request.explainer or choices.default_explainer(model)
        # A misspelt layer is refused before the file is read. Other weights bring their own layers.
        if request.weights is None:
            networks.explained_layer(model, request.layer)
        return {
            "request": request,
            "named": named,
            "model": model,
            "explainer": explainer,
            "backend": choices.backend(model, explainer, request.backend),
        }

    def _answer(self, job: _Job, source: Source) -> Analysis:
        """Answer for what was read; runs in a slot of the engine's queue."""
        from xai_demo.analysis import inputs

        request, report, limit = job.request, job.report, job.limit
        timer = StepTimer(dict(source.timing_ms))
        report(0.06, "Loading the network")
        # The clock of the request still stands, because this may have to download.
        network = self.engine.network(
            job.named.name,
            backend=job.backend,
            weights=request.weights,
            layer=request.layer,
            progress=download_progress(report, limit),
        )
        limit.resume()
        runner = ModelRunner(network, limit)
        with timer("prepare"):
            prepared = inputs.prepare(
                network.model,
                source.content,
                signal_path=request.signal_path,
                cycles=source.cycles,
                check=limit.check,
            )
        report(0.32, "Predicting")
        with timer("predict"):
            inference = _infer(request, job.explainer, network, prepared, runner)
        intervals = uncertainty_intervals(inference, report, timer)
        limit_s = self.settings.explain_seconds
        explanations, warnings = explain(inference, report, timer, limit_s=limit_s)
        report(0.96, "Drawing")
        return _analysis(
            inference,
            file=display_name(request.name or job.path),
            explanations=explanations,
            intervals=intervals,
            warnings=source.warnings + warnings,
            suggestion="" if request.weights else self.hub.suggestion(job.named.name),
            timer=timer,
        )

    def radiograph(self, path: str | Path, *, name: str | None = None) -> Radiograph:
        """Read a radiograph for a preview and screen it with the gate; no model is involved."""
        return self.reader.preview(path, name=name)

    def deidentify(self, path: str | Path, *, name: str) -> bytes | None:
        """A DICOM file's content without patient data, see `Reader.deidentify`."""
        return self.reader.deidentify(path, name=name)

    @run_in_queue
    def live(
        self, task: Task, samples: Floats, sample_rate_hz: int, *, model: str | None = None
    ) -> tuple[tuple[Prediction, ...], Decision]:
        """The answer alone for the latest part of a recording in progress, samples (time,).

        Raises UnsuitableError for a sample rate that is not the model's.
        """
        from xai_demo.analysis import inputs

        record = self._model(task, model)
        # Models of images have no sample rate, so that every sound is refused for them.
        expected_hz = getattr(record.preprocessing, "sample_rate_hz", None)
        if sample_rate_hz != expected_hz:
            raise UnsuitableError(
                f"The sound has a sample rate of {sample_rate_hz} Hz; {record.name} needs "
                f"{expected_hz} Hz."
            )
        network = self.engine.network(record.name)
        recording = Recording(samples=samples, sample_rate_hz=sample_rate_hz, facts={})
        prepared = inputs.prepare(network.model, recording)
        windows = run_network(network, prepared.inputs).probabilities
        probabilities = prepared.file_probabilities(network.model, windows)
        decided = _decision(network.model, probabilities, prepared)
        return _predictions(network.model, probabilities), decided

    def warm_up(self) -> None:
        """Load the default models of each task, and with them the heavy libraries.

        The workers read a file first, so that a deployment where they cannot run is told at once.
        """
        self.reader.check_workers()
        for task in TASKS:
            try:
                for name in choices.default_models(self.hub, task):
                    self.engine.network(name)
            except XaiDemoError:
                # The first request for it gets the reason.
                continue
            explainers.warm_up()

    def _read(self, job: _Job) -> Source:
        """Read the file and add the noise, or screen it with the gate; read the cycles."""
        request, timer = job.request, StepTimer()
        job.report(0.02, "Reading the file")
        with timer("read"):
            content = self.reader.read(job.model, job.path, name=request.name, cancelled=job.limit)
        job.limit.check()
        if isinstance(content, Radiograph):
            with timer("gate"):
                content = gate.screen_radiograph(content, request.film)
                content = age.screen_age(content, request.age)
            return Source(content=content, timing_ms=timer.elapsed_ms)
        # Before the signal path, as noise at the stethoscope would be.
        if request.noise is not None:
            content = add_noise(content, request.noise)
        if request.cycles is None:
            return Source(content=content, timing_ms=timer.elapsed_ms)
        # To the millisecond, because messages quote the duration.
        cycles, warnings = self.reader.cycles(
            request.cycles,
            duration_s=round(content.duration_s, 3),
            name=request.cycles_name,
            cancelled=job.limit,
        )
        job.limit.check()
        return Source(content=content, cycles=cycles, warnings=warnings, timing_ms=timer.elapsed_ms)

    def _models(self, request: AnalysisRequest, progress: Progress) -> tuple[Model, Model]:
        """The model that the request names, and the model of the weights that it names, if any.

        Raises UnknownNameError for a label that the second one does not have.
        """
        named = model = self._model(request.task, request.model)
        if request.weights is not None:
            model, _ = self.hub.fetch_custom_weights(request.weights, like=named, progress=progress)
        if request.target is not None and request.target not in model.labels:
            raise UnknownNameError(f"label of {model.name}", request.target, model.labels)
        return named, model

    def _model(self, task: Task, name: str | None) -> Model:
        """The named model, else the first available one; raises RequestError if it does not fit."""
        if task not in TASKS:
            raise UnknownNameError("task", task, TASKS)
        model = self.hub.model(name or self.hub.default_model(task))
        if model.task != task:
            raise UnsuitableError(
                f"{model.name} is a model for {model.task}; models for {task} are "
                f"{', '.join(self.hub.names(task))}."
            )
        return model


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """A request on its way."""

    request: AnalysisRequest
    path: Path
    named: Model  # by the request
    model: Model  # of the weights that the request names, else the same
    explainer: str
    backend: str
    report: Progress
    limit: TimeLimit


def _infer(
    request: AnalysisRequest,
    explainer: str,
    network: Network,
    prepared: PreparedInput,
    runner: ModelRunner,
) -> Inference:
    outputs = run_network(network, prepared.inputs, runner)
    return Inference(
        request=request,
        explainer=explainer,
        network=network,
        prepared=prepared,
        outputs=outputs,
        probabilities=prepared.file_probabilities(network.model, outputs.probabilities),
        runner=runner,
    )


def _analysis(
    inference: Inference,
    *,
    file: str,
    explanations: tuple[Explanation, ...],
    intervals: Floats | None,
    warnings: tuple[str, ...],
    suggestion: str,
    timer: StepTimer,
) -> Analysis:
    """The report, with the picture and the sounds to show."""
    network, prepared, outputs = inference.network, inference.prepared, inference.outputs
    model, probabilities = network.model, inference.probabilities
    facts = dict(prepared.facts)
    # Of a network that is asked about a patient for whom it is not meant.
    if unfit := age_mismatch(model, facts):
        facts["age"] = {**facts["age"], "mismatch": unfit}
    # Drawing cannot be cancelled once it has begun.
    inference.runner.check()
    with timer("render"):
        view, sounds = prepared.view_and_sounds(explanations[0])
    report = Report(
        task=model.task,
        file=file,
        model=network.in_use,
        input=facts,
        predictions=_predictions(model, probabilities, intervals),
        decision=_decision(model, probabilities, prepared),
        explanations=explanations,
        # Of the windows, not of the file: only they have times.
        events=prepared.events(model, outputs.probabilities, outputs.steps, outputs.evidence),
        timing_ms=timer.elapsed_ms,
        warnings=(*filter(None, (unfit, model.caveat)), *prepared.warnings, *warnings),
        calibration={"method": "temperature", "temperature": model.temperature},
        uncertainty=None if intervals is None else preprocess.augmentation_settings(),
        suggestion=suggestion,
    )
    return Analysis(
        report=report,
        view=view,
        sounds=sounds,
        sample_rate_hz=prepared.sample_rate_hz,
        timeline=prepared.timeline(model, outputs.probabilities, outputs.steps),
        stages=prepared.stages,
        model=model,
    )


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
        # Stable: equal probabilities keep the order of the labels.
        for k in sorted(range(len(probabilities)), key=lambda k: -probabilities[k])
    )


def _decision(model: Model, probabilities: Floats, prepared: PreparedInput) -> Decision:
    """The decision for the whole file; blank and doubtful ones get none."""
    # A recording of one window has the operating points of windows.
    outcome = decide(model, probabilities, pooled=len(prepared.inputs) > 1)
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
