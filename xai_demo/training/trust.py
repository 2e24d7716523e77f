"""How far each explainer can be believed, measured on the test split: `evaluate-explainers`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from xai_demo import explainers, faithfulness, heat, networks
from xai_demo.decision import decided_index
from xai_demo.engine import on_torch, read_tensors
from xai_demo.errors import TrainingError
from xai_demo.explainers import Budget, Explainer, Subject
from xai_demo.faithfulness import Trial
from xai_demo.hub import Hub
from xai_demo.records import LogMel, Model
from xai_demo.training import metrics
from xai_demo.training.recipes import recipe_of

if TYPE_CHECKING:
    from torch import nn

    from xai_demo.records import Floats, Progress
    from xai_demo.settings import Settings

MOST = 24  # samples
PASSES = 64  # forward passes that a slow explainer may spend on one sample


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    window: Floats  # (1, rows, columns)
    target: int
    group: str
    probability: float


def evaluate_explainers(
    name: str,
    *,
    settings: Settings,
    data: Path,
    most: int = MOST,
    only: Sequence[str] = (),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """One row per explainer that fits: faithfulness, dependence on the weights, and cost.

    Over at most `most` test samples, one a person, whose label the network got right; abnormal ones
    where the model has a normal label. Intervals are 95 % bootstraps by person.
    """
    tell = progress or (lambda done, doing: None)
    hub = Hub(settings)
    model = hub.model(name)
    whole = networks.architecture(model).whole(model).eval().requires_grad_(False)
    torch.manual_seed(0)
    random = networks.architecture(model).whole(model).eval().requires_grad_(False)
    whole.load_state_dict(read_tensors(hub.located(name).path))
    tell(0.0, "reading the data")
    samples = _samples(model, whole, data, most)
    names = only or explainers.fitting(networks.architecture(model).kind)
    rows = {}
    for i, each in enumerate(names):
        tell(0.1 + 0.9 * i / len(names), each)
        method = explainers.explainer(each)
        rows[each] = _row(method, _Asked(model, whole), _Asked(model, random), samples)
    return {
        "model": name,
        "data": recipe_of(name).model.data,
        "n": len(samples),
        "passes": PASSES,
        "explainers": rows,
    }


def table(result: dict[str, Any]) -> str:
    """The figures as a Markdown table; in brackets 95 % intervals."""
    columns = list(next(iter(result["explainers"].values())))
    lines = [
        "| explainer | " + " | ".join(columns) + " |",
        "| --- " * (len(columns) + 1) + "|",
    ]
    for name, row in result["explainers"].items():
        cells = [
            f"{v:.0f}"
            if isinstance(v, float)
            else f"{v['value']:.2f} ({v['low']:.2f}-{v['high']:.2f})"
            for v in row.values()
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    note = f"\n{result['model']}, {result['n']} samples, one a person, that it got right."
    return "\n".join(lines) + note


class _Asked:
    """A network as an explainer sees it."""

    def __init__(self, model: Model, whole: nn.Module) -> None:
        self.model, self.whole, self.cut = model, whole, networks.cut(model, whole)
        self.features = on_torch(self.cut.features)

    def logits(self, inputs: Floats) -> Floats:
        with torch.no_grad():
            return np.asarray(self.cut.head(self.features(inputs)))

    def probability(self, inputs: Floats, target: int) -> Floats:
        logits = torch.from_numpy(self.logits(inputs)) / self.model.temperature
        how = logits.softmax(1) if self.model.activation == "softmax" else logits.sigmoid()
        return np.asarray(how[:, target])

    def heat(self, method: Explainer, sample: _Sample) -> Floats:
        """Heat of one sample at its own size, 0..1."""
        inputs = sample.window[None]
        subject = Subject(
            inputs=inputs,
            activations=self.features(inputs),
            head=self.cut.head,
            forward=self.logits,
            network=self.whole,
            background=_background(self.model, inputs),
        )
        budget = Budget(passes=min(method.passes, PASSES) or None)
        raw = method.heat(subject, [sample.target], budget)[0, 0]
        return heat.scaled(heat.resized(heat.scaled(raw), *inputs.shape[2:]))


def _row(
    method: Explainer, trained: _Asked, random: _Asked, samples: list[_Sample]
) -> dict[str, Any]:
    found: dict[str, list[float]] = {}
    taken = []
    for sample in samples:
        start = time.perf_counter()
        heatmap = trained.heat(method, sample)
        taken.append(time.perf_counter() - start)
        for name, value in _figures(trained, random, method, sample, heatmap).items():
            found.setdefault(name, []).append(value)
    values = {name: np.array(each) for name, each in found.items()}
    intervals = metrics.with_intervals(
        lambda weights: {n: float(np.average(v, weights=weights)) for n, v in values.items()},
        [sample.group for sample in samples],
    )
    return metrics.as_json(intervals) | {"cost_ms": round(1000 * float(np.median(taken)), 1)}


def _figures(
    trained: _Asked, random: _Asked, method: Explainer, sample: _Sample, heatmap: Floats
) -> dict[str, float]:
    trial = Trial(
        window=sample.window,
        background=_background(trained.model, sample.window),
        answer=lambda inputs: trained.probability(inputs, sample.target),
    )
    through = faithfulness.through_heat(trial, heatmap)
    alike = faithfulness.randomisation(heatmap, random.heat(method, sample))
    return {
        "insertion_auc": faithfulness.insertion_auc(trial, heatmap),
        "deletion_auc": faithfulness.deletion_auc(trial, heatmap),
        "average_drop": faithfulness.average_drop([sample.probability], [through]),
        "average_increase": faithfulness.average_increase([sample.probability], [through]),
        "road": faithfulness.road(trial, heatmap),
        "randomisation": alike["rank_correlation"],
    }


def _background(model: Model, inputs: Floats) -> float:
    quiet = isinstance(model.preprocessing, LogMel)
    return float(inputs.min() if quiet else inputs.mean())


def _samples(model: Model, whole: nn.Module, data: Path, most: int) -> list[_Sample]:
    data_set = recipe_of(model.name).read(data, model)
    asked = _Asked(model, whole)
    normal = model.labels.index(model.normal_label) if model.normal_label else None
    found: dict[str, _Sample] = {}
    order = np.random.default_rng(0).permutation(data_set.indices("test"))
    for i in order:
        target, group = int(data_set.targets[i]), data_set.groups[i]
        if target == normal or group in found:
            continue
        window = data_set.load(int(i), None)[0][None]
        probabilities = [
            float(asked.probability(window[None], k)[0]) for k in range(len(model.labels))
        ]
        if decided_index(model, probabilities) == target:
            found[group] = _Sample(
                window=window, target=target, group=group, probability=probabilities[target]
            )
        if len(found) == most:
            break
    if not found:
        raise TrainingError(
            f"{data} holds no test sample that {model.name} gets right, wanted: at least one."
        )
    return list(found.values())
