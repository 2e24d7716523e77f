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
from xai_demo.inference import Answer, answered, partial_warning, raw_heat, trial
from xai_demo.records import (
    TASKS,
    Analysis,
    Decision,
    Explanation,
    Model,
    Prediction,
    Progress,
    Report,
    Task,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xai_demo.engine import Network
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

    def analyse(
        self,
        task: Task,
        path: str | Path,
        *,
        model: str | None = None,
        explainer: str = explainers.DEFAULT,
        target: str | None = None,
        backend: str = "auto",
        weights: str | None = None,
        faithfulness: bool = True,
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Analysis:
        """Answer for one file and explain the answer.

        `target` None explains the answer itself; other probable labels are explained in the same
        pass. `faithfulness` hides what is hot and asks again. Raises RequestError for a request or
        file at fault, WeightsError where weights cannot be had, CancelledError once `cancelled()`.
        """
        from xai_demo import medium

        tell = progress or (lambda done, doing: None)
        clock = _Clock()
        record = self._checked(task, model, explainer, target)
        backend = _backend(record, explainer, backend)
        tell(0.05, "Reading the file")
        with clock("read"):
            source = medium.read(record, Path(path), self.settings)
        tell(0.15, "Waking the network")
        network = self.engine.network(
            record.name,
            backend=backend,
            weights=weights,
            progress=lambda done, doing: tell(0.15 + 0.4 * done, doing),
        )
        with clock("prepare"):
            made = medium.prepare(network.model, source)
        tell(0.6, "Asking the network")
        with clock("predict"):
            answer = answered(network, made.inputs)
            overall = made.overall(network.model, answer.probabilities)
        asked = _Asked(explainer, target, faithfulness, cancelled or (lambda: False))
        explained = _explained(network, made, answer, overall, asked, tell, clock)
        tell(0.9, "Drawing")
        with clock("render"):
            view, sounds = made.drawn(explained[0])
        report = Report(
            task=task,
            file=shown_name(path),
            model=network.in_use,
            input=made.facts,
            predictions=_ranked(network.model, overall),
            decision=_decided(network.model, overall, made),
            explanations=explained,
            events=made.events(network.model, answer.probabilities),
            timing_ms=clock.elapsed_ms,
            warnings=made.warnings + partial_warning(explainer, len(made.inputs)),
        )
        return Analysis(report=report, view=view, sounds=sounds, sample_rate_hz=made.sample_rate_hz)

    def warm_up(self) -> None:
        """Load the default model of every task, and with them the heavy libraries."""
        for task in TASKS:
            try:
                self.engine.network(self.hub.default_model(task))
            except XaiDemoError:
                continue  # who asks for it is told why
            explainers.warm_up()

    def _checked(self, task: Task, model: str | None, explainer: str, target: str | None) -> Model:
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


@dataclass(slots=True)
class _Clock:
    """Milliseconds spent on each step."""

    elapsed_ms: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.elapsed_ms[step] = 1000 * (time.perf_counter() - start)


class _Asked(NamedTuple):
    """What of the answer is to be explained, and how."""

    explainer: str
    target: str | None
    faithfulness: bool
    cancelled: Callable[[], bool]


def _explained(
    network: Network,
    made: Medium,
    answer: Answer,
    overall: Floats,
    asked: _Asked,
    tell: Progress,
    clock: _Clock,
) -> tuple[Explanation, ...]:
    """Where the network looked; the first explanation with its trial, if that is wanted."""
    tell(0.75, "Asking where it looked")
    method = explainers.explainer(asked.explainer)
    budget = explainers.Budget(
        progress=lambda done, doing: tell(0.75 + 0.1 * done, doing), cancelled=asked.cancelled
    )
    targets = _targets(network.model, overall, asked.target, method)
    with clock("explain"):
        raw = raw_heat(network, made, answer, method, targets, budget)
        found = _explanations(network, made, answer, overall, asked.explainer, targets, raw)
    if not asked.faithfulness or made.blank:
        return found
    tell(0.85, "Hiding what is hot, to see whether it mattered")
    with clock("faithfulness"):
        tried = trial(network, made, answer, raw[:, 0], targets[0])
    told = tried.to_json() | {"sentence": tried.sentence(found[0].target)}
    return (dataclasses.replace(found[0], faithfulness=told), *found[1:])


def _targets(
    model: Model, overall: Floats, target: str | None, method: explainers.Explainer
) -> list[int]:
    """The asked label first, then the other probable ones where they cost nothing more."""
    first = decided_index(model, overall) if target is None else model.labels.index(target)
    others = sorted((k for k in range(len(overall)) if k != first), key=lambda k: -overall[k])
    return [first, *others][: MOST_EXPLAINED if method.together else 1]


def _explanations(
    network: Network,
    made: Medium,
    answer: Answer,
    overall: Floats,
    explainer: str,
    targets: list[int],
    raw: Floats,
) -> tuple[Explanation, ...]:
    """What is hot for each target, (windows, targets, rows, columns), over the whole file."""
    labels = network.model.labels
    return tuple(
        made.explanation(
            raw[:, i] * (not made.blank),
            answer.probabilities[:, k],
            explainer=explainer,
            target=labels[k],
            probability=float(overall[k]),
            layer=network.layer,
        )
        for i, k in enumerate(targets)
    )


def _backend(model: Model, explainer: str, backend: str) -> str:
    """The backend to use, where the explainer fits the model on it; raises UnsuitableError."""
    kind = networks.architecture(model).kind
    method = explainers.suited(explainer, kind, torch=backend != "onnx")
    return "torch" if backend == "auto" and method.needs == "full gradients" else backend


def _ranked(model: Model, overall: Floats) -> tuple[Prediction, ...]:
    pairs = sorted(zip(overall, model.labels, strict=True), key=lambda pair: -pair[0])
    return tuple(Prediction(label=label, probability=float(p)) for p, label in pairs)


def _decided(model: Model, overall: Floats, made: Medium) -> Decision:
    answer = decision(model, overall)
    if made.blank:
        return Decision(label=None, probability=answer.probability, reason=made.blank)
    return answer
