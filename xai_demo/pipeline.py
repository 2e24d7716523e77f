"""The main job, once: read, prepare, predict, explain, and what is drawn and heard of it."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from xai_demo import explainers, networks
from xai_demo.decision import decided_index, decision
from xai_demo.engine import Engine
from xai_demo.errors import UnknownNameError, UnsuitableError
from xai_demo.files import shown_name
from xai_demo.hub import Hub
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
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from xai_demo.engine import Network
    from xai_demo.medium import Medium
    from xai_demo.records import Floats
    from xai_demo.settings import Settings

MOST_EXPLAINED = 10  # labels whose heat is made in one request
_BATCH = 32
_SLOW_WINDOWS = 2  # windows of a recording that an explainer of many forward passes is asked about


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
        progress: Progress | None = None,
    ) -> Analysis:
        """Answer for one file and explain the answer.

        `target` None explains the answer itself; other probable labels are explained in the same
        pass. Raises RequestError for a request or file at fault, WeightsError where weights cannot
        be had.
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
            answer = _answer(network, made.inputs)
            overall = made.overall(network.model, answer.probabilities)
        tell(0.75, "Asking where it looked")
        with clock("explain"):
            told = explainers.Budget(progress=lambda done, doing: tell(0.75 + 0.15 * done, doing))
            explained = _explained(network, made, answer, overall, explainer, target, told)
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
            warnings=made.warnings,
        )
        return Analysis(report=report, view=view, sounds=sounds, sample_rate_hz=made.sample_rate_hz)

    def warm_up(self) -> None:
        """Load the default model of every task, and with them the heavy libraries."""
        from xai_demo.errors import XaiDemoError

        for task in TASKS:
            try:
                network = self.engine.network(self.hub.default_model(task))
            except XaiDemoError:
                continue  # who asks for it is told why
            explainers.warm_up()
            del network

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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """What a network makes of every window."""

    activations: list[Tensor]  # each (batch, channels, rows, columns)
    probabilities: Floats  # (windows, labels)


@dataclass(slots=True)
class _Clock:
    """Milliseconds spent on each step."""

    elapsed_ms: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.elapsed_ms[step] = 1000 * (time.perf_counter() - start)


def _answer(network: Network, inputs: Floats) -> _Answer:
    import numpy as np
    import torch

    activations: list[Tensor] = []
    probabilities: list[Floats] = []
    for start in range(0, len(inputs), _BATCH):
        batch = network.features(inputs[start : start + _BATCH])
        with torch.inference_mode():
            probabilities.append(network.probabilities(network.head(batch)))
        activations.append(batch)
    return _Answer(activations=activations, probabilities=np.concatenate(probabilities))


def _explained(
    network: Network,
    made: Medium,
    answer: _Answer,
    overall: Floats,
    explainer: str,
    target: str | None,
    budget: explainers.Budget,
) -> tuple[Explanation, ...]:
    """The asked label first, then the other probable ones: all from the same activations."""
    import numpy as np

    labels = network.model.labels
    first = decided_index(network.model, overall) if target is None else labels.index(target)
    others = [int(k) for k in np.argsort(-overall) if k != first]
    method = explainers.explainer(explainer)
    targets = [first, *others][: min(MOST_EXPLAINED, len(labels)) if method.together else 1]
    heat = _heat(network, made, answer, method, targets, budget)
    return tuple(
        made.explanation(
            heat[:, i] if not made.blank else np.zeros_like(heat[:, i]),
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


def _heat(
    network: Network,
    made: Medium,
    answer: _Answer,
    method: explainers.Explainer,
    targets: Sequence[int],
    budget: explainers.Budget,
) -> Floats:
    """Raw heat of every window; of a slow explainer, that of the most probable ones."""
    import numpy as np
    import torch

    def forward(inputs: Floats) -> Floats:
        with torch.inference_mode():
            logits: Floats = network.head(network.features(inputs)).cpu().numpy()
        return logits

    activations = torch.cat(answer.activations)
    whole = network.whole and (lambda x, run=network.whole: run(x.to(activations.device)))
    order = np.argsort(-answer.probabilities[:, targets[0]], kind="stable")
    asked = np.sort(order[:_SLOW_WINDOWS]) if method.passes else np.arange(len(order))
    found = []
    for start in range(0, len(asked), _BATCH):
        batch = asked[start : start + _BATCH]
        subject = explainers.Subject(
            inputs=made.inputs[batch],
            activations=activations[torch.from_numpy(batch)],
            head=network.head,
            forward=forward,
            network=whole,
            background=float(made.inputs.min() if made.sample_rate_hz else made.inputs.mean()),
        )
        found.append(method.heat(subject, targets, budget))
    heat = np.zeros((len(order), *found[0].shape[1:]), np.float32)
    heat[asked] = np.concatenate(found)
    return heat


def _ranked(model: Model, overall: Floats) -> tuple[Prediction, ...]:
    pairs = sorted(zip(overall, model.labels, strict=True), key=lambda pair: -pair[0])
    return tuple(Prediction(label=label, probability=float(p)) for p, label in pairs)


def _decided(model: Model, overall: Floats, made: Medium) -> Decision:
    answer = decision(model, overall)
    if made.blank:
        return Decision(label=None, probability=answer.probability, reason=made.blank)
    return answer
