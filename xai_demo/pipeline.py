"""The main job, once: read, prepare, predict, explain, and what is drawn and heard of it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from xai_demo import explainers, networks
from xai_demo.decision import decided_index, decision
from xai_demo.engine import Engine
from xai_demo.errors import UnknownNameError, UnsuitableError, XaiDemoError
from xai_demo.files import shown_name
from xai_demo.hub import Hub
from xai_demo.inference import (
    Answer,
    Asker,
    allowance,
    answered,
    cut_warning,
    partial_warning,
    raw_heat,
    trial,
)
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
from xai_demo.turns import in_turn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xai_demo.annotations import Cycle
    from xai_demo.engine import Network
    from xai_demo.filtering import SignalPath
    from xai_demo.medium import Medium
    from xai_demo.records import Floats
    from xai_demo.settings import Settings

MOST_EXPLAINED = 10  # labels whose heat is made in one request


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
        faithfulness: bool = True,
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Analysis:
        """Answer for one file and explain the answer.

        `explainer` and `layer` None are the usual ones of the model. `target` None explains the
        answer itself; other probable labels are explained in the same pass. `signal_path` None is
        what the model was taught with; `cycles` is a file that says when each breath is, to answer
        breath by breath; both are for the stethoscope only. `faithfulness` hides what is hot and
        asks again. Raises RequestError for a request or file at fault, WeightsError
        where weights cannot be had, CancelledError soon after `cancelled()`.
        """
        from xai_demo import medium

        tell = _Rising(progress)
        clock = _Clock()
        record = self._checked(task, model, target)
        _check_stethoscope(task, signal_path, cycles)
        explainer = explainer or usual_explainer(record)
        backend = _backend(record, explainer, backend)
        if weights is None:  # a typing error shows before anything is read
            networks.explained_layer(record, layer)
        tell(0.02, "Reading the file")
        with clock("read"):
            source = medium.read(record, Path(path), self.settings)
            breaths, amiss = _breaths(source, cycles)
        tell(0.06, "Waking the network")
        network = self._woken(record.name, backend, weights, layer, tell)
        asker = Asker(network, cancelled or (lambda: False))
        with clock("prepare"):
            made = medium.prepare(network.model, source, signal_path=signal_path, cycles=breaths)
        tell(0.32, "Asking the network")
        with clock("predict"):
            answer = answered(network, made.inputs, asker)
            overall = made.overall(network.model, answer.probabilities)
        asked = _Asked(explainer, target, faithfulness, self.settings.explain_seconds)
        question = _Question(network, made, answer, overall, asked, asker)
        explained, said = _explained(question, tell, clock)
        tell(0.96, "Drawing")
        asker.check()
        return _analysis(question, shown_name(path), explained, amiss + said, clock)

    @in_turn
    def live(
        self, task: Task, samples: Floats, sample_rate_hz: int, *, model: str | None = None
    ) -> tuple[tuple[Prediction, ...], Decision]:
        """The answer alone, for a stretch of sound that is still being recorded.

        Raises UnsuitableError where the rate is not that of the model.
        """
        from xai_demo import medium

        record = self._checked(task, model, None)
        wanted = getattr(record.preprocessing, "sample_rate_hz", None)
        if sample_rate_hz != wanted:
            raise UnsuitableError(
                f"The sound has {sample_rate_hz} samples a second; {record.name} wants {wanted}."
            )
        network = self.engine.network(record.name)
        sound = Recording(samples=samples, sample_rate_hz=sample_rate_hz, facts={})
        made = medium.prepare(network.model, sound)
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

    def _woken(
        self, name: str, backend: str, weights: str | None, layer: str | None, tell: Progress
    ) -> Network:
        return self.engine.network(
            name,
            backend=backend,
            weights=weights,
            layer=layer,
            progress=lambda done, doing: tell(0.06 + 0.24 * done, doing),
        )

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


def _check_stethoscope(
    task: Task, signal_path: SignalPath | None, cycles: str | Path | None
) -> None:
    """What only makes sense for breath sounds; raises UnsuitableError."""
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


def _breaths(
    source: Recording | Radiograph, cycles: str | Path | None
) -> tuple[tuple[Cycle, ...], tuple[str, ...]]:
    """The annotated cycles of a recording, none without an annotation; and what is amiss in it."""
    from xai_demo.annotations import read_cycles

    if cycles is None or not isinstance(source, Recording):
        return (), ()
    return read_cycles(cycles, duration_s=round(source.duration_s, 3))


@dataclass(slots=True)
class _Clock:
    """Milliseconds spent on each step."""

    elapsed_ms: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.elapsed_ms[step] = 1000 * (time.perf_counter() - start)


class _Rising:
    """Tells how far the work is, and nothing that is not further than what was told before."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress, self._told = progress, -1.0

    def __call__(self, done: float, doing: str) -> None:
        if self._progress and done > self._told:
            self._told = done
            self._progress(done, doing)


class _Asked(NamedTuple):
    """What of the answer is to be explained, how, and in about how many seconds."""

    explainer: str
    target: str | None
    faithfulness: bool
    seconds: float


class _Question(NamedTuple):
    """What the network answered, and what is asked about that answer."""

    network: Network
    made: Medium
    answer: Answer
    overall: Floats
    asked: _Asked
    asker: Asker


def _explained(
    question: _Question, tell: Progress, clock: _Clock
) -> tuple[tuple[Explanation, ...], tuple[str, ...]]:
    """Where the network looked, the first with its trial if that is wanted; and warnings."""
    network, made, answer, overall, asked, asker = question
    tell(0.4, "Asking where it looked")
    windows = len(made.inputs)
    method = explainers.explainer(asked.explainer)
    allowed = allowance(
        method,
        windows=windows,
        window_s=clock.elapsed_ms["predict"] / 1000 / windows,
        seconds=asked.seconds,
    )
    budget = explainers.Budget(
        passes=allowed.passes or None,
        progress=lambda done, doing: tell(0.4 + 0.48 * done, doing),
        cancelled=asker.cancelled,
    )
    targets = _targets(network.model, overall, made, asked.target, method)
    before = asker.passes
    with clock("explain"):
        raw = raw_heat(network, made, answer, method, targets, budget, asker)
        found = _explanations(question, targets, raw, asker.passes - before)
    said = partial_warning(asked.explainer, windows) + cut_warning(allowed, asked.seconds)
    if not asked.faithfulness or made.blank:
        return found, said
    tell(0.9, "Hiding what is hot, to see whether it mattered")
    with clock("faithfulness"):
        tried = trial(network, made, answer, raw[:, 0], targets[0], asker)
    told = tried.to_json() | {"sentence": tried.sentence(found[0].target)}
    return (dataclasses.replace(found[0], faithfulness=told), *found[1:]), said


def _analysis(
    question: _Question,
    file: str,
    explained: tuple[Explanation, ...],
    warnings: tuple[str, ...],
    clock: _Clock,
) -> Analysis:
    """The report, and what is drawn and heard of it."""
    network, made, answer, overall, _, _ = question
    model = network.model
    with clock("render"):
        view, sounds = made.drawn(explained[0])
    report = Report(
        task=model.task,
        file=file,
        model=network.in_use,
        input=made.facts,
        predictions=_ranked(model, overall),
        decision=_decided(model, overall, made),
        explanations=explained,
        events=made.events(model, answer.probabilities),
        timing_ms=clock.elapsed_ms,
        warnings=made.warnings + warnings,
    )
    return Analysis(
        report=report,
        view=view,
        sounds=sounds,
        sample_rate_hz=made.sample_rate_hz,
        timeline=made.timeline(model, answer.probabilities),
        stages=made.stages,
    )


def _targets(
    model: Model, overall: Floats, made: Medium, target: str | None, method: explainers.Explainer
) -> list[int]:
    """The asked label first, then the other probable ones where they cost nothing more."""
    if target is None:
        first = decided_index(model, overall, pooled=len(made.inputs) > 1)
    else:
        first = model.labels.index(target)
    others = sorted((k for k in range(len(overall)) if k != first), key=lambda k: -overall[k])
    return [first, *others][: MOST_EXPLAINED if method.together else 1]


def _explanations(
    question: _Question, targets: list[int], raw: Floats, passes: int
) -> tuple[Explanation, ...]:
    """What is hot for each target, (windows, targets, rows, columns), over the whole file."""
    network, made, answer, overall, asked, _ = question
    return tuple(
        dataclasses.replace(
            made.explanation(
                raw[:, i] * (not made.blank),
                answer.probabilities[:, k],
                explainer=asked.explainer,
                target=network.model.labels[k],
                probability=float(overall[k]),
                layer=network.layer,
            ),
            passes=passes,
        )
        for i, k in enumerate(targets)
    )


def usual_explainer(model: Model) -> str:
    """The explainer of whoever names none."""
    return explainers.usual(networks.architecture(model).kind, model.usual_explainer)


def _backend(model: Model, explainer: str, backend: str) -> str:
    """The backend to use, where the explainer fits the model on it; raises UnsuitableError."""
    kind = networks.architecture(model).kind
    method = explainers.suited(explainer, kind, torch=backend != "onnx")
    return "torch" if backend == "auto" and method.needs_torch else backend


def _ranked(model: Model, overall: Floats) -> tuple[Prediction, ...]:
    pairs = sorted(zip(overall, model.labels, strict=True), key=lambda pair: -pair[0])
    return tuple(Prediction(label=label, probability=float(p)) for p, label in pairs)


def _decided(model: Model, overall: Floats, made: Medium) -> Decision:
    answer = decision(model, overall, pooled=len(made.inputs) > 1)
    if made.blank or made.doubt:
        reason = made.blank or made.doubt
        return Decision(label=None, probability=answer.probability, reason=reason)
    return answer
