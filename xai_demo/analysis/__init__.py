"""The main job, once: read, prepare, predict, explain, and what is drawn and heard of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from xai_demo import explainers, networks
from xai_demo.analysis.explain import (
    Asked,
    Question,
    explained,
    spread,
)
from xai_demo.analysis.inference import Asker, answered
from xai_demo.audio.noise import Noise, noisy
from xai_demo.decision import decision
from xai_demo.engine import Engine
from xai_demo.errors import UnknownNameError, UnsuitableError, XaiDemoError
from xai_demo.files import shown_name
from xai_demo.hub import Hub
from xai_demo.imaging import gate, preprocess
from xai_demo.records import (
    FILMS,
    TASKS,
    Analysis,
    Decision,
    Explanation,
    Film,
    Model,
    Prediction,
    Progress,
    Radiograph,
    Recording,
    Report,
    Task,
)
from xai_demo.scheduler import Clock, Rising, bringing_to, in_turn

if TYPE_CHECKING:
    from xai_demo.analysis.inputs import Medium
    from xai_demo.audio.filters import SignalPath
    from xai_demo.audio.segments import Cycle
    from xai_demo.engine import Network
    from xai_demo.records import Floats
    from xai_demo.settings import Settings


class Analyser:
    """Analyses files with the models of one deployment; safe to call from many threads."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.hub = Hub(settings)
        self.engine = Engine(self.hub)

    @in_turn
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
        uncertainty: bool = True,
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Analysis:
        """Answer for one file and explain the answer.

        `explainer` and `layer` None are the usual ones of the model. `target` None explains the
        answer itself; other probable labels are explained in the same pass. `signal_path` None is
        what the model was taught with; `cycles` is a file that says when each breath is, to answer
        breath by breath; both are for the stethoscope only. `film`: see `gate.admitted`. `noise` is
        laid over a sound. `faithfulness` hides what is hot and asks again; `uncertainty` varies a
        radiograph a little and asks again. Raises RequestError for a request or file at fault,
        WeightsError where weights cannot be had, CancelledError soon after `cancelled()`.
        """
        from xai_demo.analysis import inputs

        tell, clock = Rising(progress), Clock()
        record = named = self._checked(task, model, None if weights else target)
        bringing = bringing_to(tell, cancelled or (lambda: False))
        if weights is not None:
            record = self._own(named, weights, target, bringing)
        _check_fits(task, film, signal_path, cycles)
        explainer = explainer or usual_explainer(record)
        backend = _backend(record, explainer, backend)
        if weights is None:  # a typing error shows before anything is read
            networks.explained_layer(record, layer)
        tell(0.02, "Reading the file")
        source = self._read(record, Path(path), film, noise, clock)
        breaths, amiss = _breaths(source, cycles)
        tell(0.06, "Waking the network")
        network = self._woken(named.name, backend, weights, layer, bringing)
        asker = Asker(network, cancelled or (lambda: False))
        with clock("prepare"):
            made = inputs.prepare(network.model, source, signal_path=signal_path, cycles=breaths)
        tell(0.32, "Asking the network")
        with clock("predict"):
            answer = answered(network, made.inputs, asker)
            overall = made.overall(network.model, answer.probabilities)
        asked = Asked(explainer, target, faithfulness, uncertainty, self.settings.explain_seconds)
        question = Question(network, made, answer, overall, asked, asker)
        ends = spread(question, tell, clock)
        found, said = explained(question, tell, clock)
        tell(0.96, "Drawing")
        return _analysis(question, shown_name(path), found, ends, amiss + said, clock)

    def radiograph(self, path: str | Path) -> Radiograph:
        """A radiograph as it is read and as the gate sees it, without a model."""
        from xai_demo import imaging

        return gate.admitted(imaging.read_image(path, max_pixels=self.settings.max_pixels))

    @in_turn
    def live(
        self, task: Task, samples: Floats, sample_rate_hz: int, *, model: str | None = None
    ) -> tuple[tuple[Prediction, ...], Decision]:
        """The answer alone, for a stretch of sound that is still being recorded.

        Raises UnsuitableError where the rate is not that of the model.
        """
        from xai_demo.analysis import inputs

        record = self._checked(task, model, None)
        wanted = getattr(record.preprocessing, "sample_rate_hz", None)
        if sample_rate_hz != wanted:
            raise UnsuitableError(
                f"The sound has {sample_rate_hz} samples a second; {record.name} wants {wanted}."
            )
        network = self.engine.network(record.name)
        sound = Recording(samples=samples, sample_rate_hz=sample_rate_hz, facts={})
        made = inputs.prepare(network.model, sound)
        overall = made.overall(network.model, answered(network, made.inputs).probabilities)
        return _ranked(network.model, overall), _decided(network.model, overall, made)

    def warm_up(self) -> None:
        """Load the default model of every task, and with them the heavy libraries."""
        for task in TASKS:
            try:
                self.engine.network(self.hub.default_model(task))
            except XaiDemoError:
                continue  # who asks for it is told why
            explainers.warm_up()

    def _read(
        self, record: Model, path: Path, film: Film, noise: Noise | None, clock: Clock
    ) -> Recording | Radiograph:
        """The file as the model's task wants it; a radiograph as the gate lets it through."""
        from xai_demo.analysis import inputs

        with clock("read"):
            source = inputs.read(record, path, self.settings)
        if isinstance(source, Recording):
            return source if noise is None else noisy(source, noise)
        if noise is not None:
            raise UnsuitableError(
                f"The task is {record.task} and noise was to be added; wanted: a task of sounds."
            )
        with clock("gate"):
            return gate.admitted(source, film)

    def _woken(
        self, name: str, backend: str, weights: str | None, layer: str | None, bringing: Progress
    ) -> Network:
        return self.engine.network(
            name, backend=backend, weights=weights, layer=layer, progress=bringing
        )

    def _own(self, named: Model, weights: str, target: str | None, bringing: Progress) -> Model:
        """The model of weights that a person names in place of a model's own."""
        with self.engine.turns.aside():  # they may have to be fetched
            model, _ = self.hub.located_weights(weights, like=named, progress=bringing)
        if target is not None and target not in model.labels:
            raise UnknownNameError(f"label of {model.name}", target, model.labels)
        return model

    def _checked(self, task: Task, model: str | None, target: str | None) -> Model:
        if task not in TASKS:
            raise UnknownNameError("task", task, TASKS)
        record = self.hub.model(model or self.hub.default_model(task))
        if record.task != task:
            raise UnsuitableError(
                f"{record.name} is a model for {record.task}, wanted: one for {task}, that is "
                f"{', '.join(self.hub.names(task))}."
            )
        if target is not None and target not in record.labels:
            raise UnknownNameError(f"label of {record.name}", target, record.labels)
        return record


def _check_fits(
    task: Task, film: Film, signal_path: SignalPath | None, cycles: str | Path | None
) -> None:
    """What only makes sense for radiographs or for breath sounds; raises RequestError."""
    _check_film(task, film)
    if task == "stethoscope":
        return
    if cycles is not None:
        raise UnsuitableError(
            f"The task is {task} and a file of respiratory cycles came with it; wanted: none, or "
            "the task stethoscope."
        )
    if signal_path and (signal_path.band_hz or signal_path.denoise):
        raise UnsuitableError(
            f"The task is {task} and a filter was asked for; wanted: none, or the task stethoscope."
        )


def _check_film(task: Task, film: Film) -> None:
    """What only makes sense for radiographs; raises UnknownNameError, UnsuitableError."""
    if film not in FILMS:
        raise UnknownNameError("way to take a film", film, FILMS)
    if film != "checked" and task != "chest_xray":
        raise UnsuitableError(
            f"The task is {task} and the film was to be taken {film}; wanted: that of the task "
            "chest_xray alone."
        )


def _breaths(
    source: Recording | Radiograph, cycles: str | Path | None
) -> tuple[tuple[Cycle, ...], tuple[str, ...]]:
    """The annotated cycles of a recording, none without an annotation; and what is amiss in it."""
    from xai_demo.audio.segments import read_cycles

    if cycles is None or not isinstance(source, Recording):
        return (), ()
    return read_cycles(cycles, duration_s=round(source.duration_s, 3))


def _analysis(
    question: Question,
    file: str,
    explained: tuple[Explanation, ...],
    ends: Floats | None,
    warnings: tuple[str, ...],
    clock: Clock,
) -> Analysis:
    """The report, and what is drawn and heard of it."""
    network, made, answer, overall, _, asker = question
    model = network.model
    asker.check()
    with clock("render"):
        view, sounds = made.drawn(explained[0])
    report = Report(
        task=model.task,
        file=file,
        model=network.in_use,
        input=made.facts,
        predictions=_ranked(model, overall, ends),
        decision=_decided(model, overall, made),
        explanations=explained,
        events=made.events(model, answer.probabilities, answer.steps, answer.evidence),
        timing_ms=clock.elapsed_ms,
        warnings=(*filter(None, (model.caveat,)), *made.warnings, *warnings),
        calibration={"method": "temperature", "temperature": model.temperature},
        uncertainty=None if ends is None else preprocess.method(),
    )
    return Analysis(
        report=report,
        view=view,
        sounds=sounds,
        sample_rate_hz=made.sample_rate_hz,
        timeline=made.timeline(model, answer.probabilities, answer.steps),
        stages=made.stages,
        model=model,
    )


def usual_explainer(model: Model) -> str:
    """The explainer of whoever names none."""
    return explainers.usual(networks.architecture(model).kind, model.usual_explainer)


def _backend(model: Model, explainer: str, backend: str) -> str:
    """The backend to use, where the explainer fits the model on it; raises UnsuitableError."""
    kind = networks.architecture(model).kind
    method = explainers.suited(explainer, kind, torch=backend != "onnx")
    return "torch" if backend == "auto" and method.needs_torch else backend


def _ranked(model: Model, overall: Floats, ends: Floats | None = None) -> tuple[Prediction, ...]:
    return tuple(
        Prediction(
            label=model.labels[k],
            probability=float(overall[k]),
            interval=None if ends is None else (float(ends[k, 0]), float(ends[k, 1])),
        )
        for k in sorted(range(len(overall)), key=lambda k: -overall[k])
    )


def _decided(model: Model, overall: Floats, made: Medium) -> Decision:
    answer = decision(model, overall, pooled=len(made.inputs) > 1)
    if made.blank or made.doubt:
        stopped = bool(made.doubt) and made.sample_rate_hz is None and not made.blank
        return Decision(
            label=None,
            probability=answer.probability,
            reason=made.blank or made.doubt,
            kind="no answer" if stopped else "uncertain",
        )
    return answer
