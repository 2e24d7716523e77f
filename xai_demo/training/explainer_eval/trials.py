"""Heat on trial: on test samples that a network got right, hide what is hot and ask again.

And the check of Adebayo et al. 2018: does the heat change when the weights are random?

Who is asked how often, and where the heat lay: by explainer, part of the data and label.
"""

from __future__ import annotations

import dataclasses
import hashlib
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo import explainers, networks
from xai_demo.analysis import faithfulness
from xai_demo.analysis import heatmap as heat
from xai_demo.analysis.faithfulness import Trial
from xai_demo.analysis.inference import (
    Answer,
    Asker,
    answered,
    raw_heat,
)
from xai_demo.decision import decided_index
from xai_demo.explainers import Budget
from xai_demo.records import LogMel, Model
from xai_demo.training.explainer_eval.ground_truth import REAL, AnnotatedFile
from xai_demo.training.explainer_eval.pointing import (
    AnalysedFile,
    Tally,
    analyse_file,
    is_answered,
)

if TYPE_CHECKING:
    from xai_demo.engine import Network
    from xai_demo.records import Floats
    from xai_demo.training.datasets import Dataset

STEPS = 10  # of the insertion and deletion curves


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One window, what it holds, and whose it is."""

    window: Floats  # (1, rows, columns)
    target: int
    group: str
    probability: float
    # What the network said of the target in pictures made of the window, by their digest: all of it
    # hidden, or all of it blurred, is the same picture for every explainer.
    said: dict[bytes, float] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainerFigures:
    """The figures of one explainer."""

    figures: dict[str, Any]
    cost_ms: float
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Window:
    """As much of a medium as asking for heat takes."""

    inputs: Floats  # (1, 1, rows, columns)
    sample_rate_hz: int | None

    @classmethod
    def of(cls, model: Model, window: Floats) -> Any:
        spec = model.preprocessing
        rate = spec.sample_rate_hz if isinstance(spec, LogMel) else None
        return cls(inputs=window[None], sample_rate_hz=rate)


def select_samples(network: Network, data: Dataset, most: int) -> list[Sample]:
    """At most so many test samples that the network gets right, one a person, none normal."""
    model = network.model
    normal = model.labels.index(model.normal_label) if model.normal_label else None
    found: dict[str, Sample] = {}
    for i in np.random.default_rng(0).permutation(data.indices("test")):
        group = data.groups[i]
        if len(found) == most:
            break
        if group in found or (data.targets.ndim == 1 and data.targets[i] == normal):
            continue
        window, truth = data.load(int(i), None)
        probabilities = answered(network, window[None, None]).probabilities[0]
        right = [
            int(k)
            for k in np.flatnonzero(truth > 0.5)
            if k != normal and is_answered(model, probabilities, model.labels[k])
        ]
        if right:
            target = max(right, key=lambda k: probabilities[k])
            found[group] = Sample(
                window=window[None],
                target=target,
                group=group,
                probability=float(probabilities[target]),
            )
    return list(found.values())


def randomise_weights(network: Network, seed: int = 0) -> Network:
    """The same architecture with weights that nobody trained."""
    import torch
    from torch import nn

    from xai_demo.engine.backends import device, on_torch, placed

    torch.manual_seed(seed)
    model = network.model
    whole = networks.architecture(model).whole(model).eval().requires_grad_(False)
    cut = placed(networks.cut(model, whole, network.layer), device())
    return dataclasses.replace(
        network,
        features=on_torch(cut.features),
        head=cut.head,
        whole=nn.Sequential(cut.features, cut.head),
    )


def explainer_figures(
    explainer: str,
    trained: Network,
    random: Network,
    asked: Sequence[Sample],
    passes: int,
    tell: Callable[[float], None],
) -> ExplainerFigures:
    """What hiding the heat of one explainer does, over all samples asked about."""
    tally, taken = Tally(), []
    for done, sample in enumerate(asked):
        tell(done / len(asked))
        start = time.perf_counter()
        heatmap = _sample_heatmap(trained, explainer, sample, passes)
        taken.append(time.perf_counter() - start)
        other = _sample_heatmap(random, explainer, sample, passes)
        tally.add(sample.group, _figures(trained, sample, heatmap, other))
    return ExplainerFigures(
        figures=tally.to_json(), cost_ms=round(1000 * float(np.median(taken)), 1), n=len(asked)
    )


def _sample_heatmap(network: Network, explainer: str, sample: Sample, passes: int) -> Floats:
    """Heat of one sample at its own size, 0..1."""
    made = _Window.of(network.model, sample.window)
    method = explainers.explainer(explainer)
    budget = Budget(passes=min(method.passes, passes) or None)
    answer: Answer = answered(network, made.inputs)
    raw = raw_heat(network, made, answer, method, [sample.target], budget)[0, 0]
    return heat.scaled(heat.resized(heat.scaled(raw), *sample.window.shape[1:]))


def _figures(
    network: Network, sample: Sample, heatmap: Floats, randomised_heat: Floats
) -> dict[str, float]:
    quiet = isinstance(network.model.preprocessing, LogMel)
    background = float(sample.window.min() if quiet else sample.window.mean())
    trial = Trial(
        window=sample.window, background=background, answer=_target_probability(network, sample)
    )
    through = faithfulness.through_heat(trial, heatmap)
    alike = faithfulness.randomisation(heatmap, randomised_heat)
    return {
        "insertion_auc": faithfulness.insertion_auc(trial, heatmap, STEPS),
        "deletion_auc": faithfulness.deletion_auc(trial, heatmap, STEPS),
        "average_drop": faithfulness.average_drop([sample.probability], [through]),
        "average_increase": faithfulness.average_increase([sample.probability], [through]),
        "road": faithfulness.road(trial, heatmap),
        "randomisation": alike["rank_correlation"],
    }


def _target_probability(network: Network, sample: Sample) -> Callable[[Floats], Floats]:
    """The target's probability in pictures; none of them goes through the network twice."""
    asker = Asker(network)

    def answer(inputs: Floats) -> Floats:
        digests = [hashlib.sha256(x.tobytes()).digest() for x in inputs]
        new = {d: i for i, d in enumerate(digests) if d not in sample.said}
        if new:
            logits = asker.logits(inputs[list(new.values())].astype(np.float32))
            told = network.probabilities(logits)[:, sample.target]
            sample.said.update(zip(new, told.tolist(), strict=True))
        return np.array([sample.said[d] for d in digests], np.float32)

    return answer


_MORE = 5
_SLOW_SHARE = 5  # a slow explainer is asked about one sample in so many ...
_SLOW_LEAST = 6  # ... and at least so many
_SLOW_SNR_DB = "10"  # the only ratio at which a slow explainer is asked about made sounds


@dataclass(frozen=True, slots=True)
class Run:
    """Who is asked, about how much, and what is to be said about it."""

    network: Network
    names: tuple[str, ...]
    most: int
    passes: int
    notes: list[str] = field(default_factory=list)

    @property
    def model(self) -> Model:
        """The record of the network."""
        return self.network.model

    def is_slow(self, name: str) -> bool:
        """Whether the explainer asks the network many times."""
        return explainers.explainer(name).passes > 1

    @property
    def few(self) -> int:
        """About how many samples a slow explainer is asked."""
        return min(self.most, max(_SLOW_LEAST, self.most // _SLOW_SHARE))

    def quota(self, name: str, part: str) -> int:
        """About how many files of a part, and of a label, an explainer is asked."""
        if not self.is_slow(name):
            return _MORE * self.most
        return self.few if part in {REAL, _SLOW_SNR_DB} else 0


@dataclass(slots=True)
class PointingResults:
    """Where the heat of every explainer lay, by part and label; and what was tried and right."""

    tallies: dict[tuple[str, str, str], Tally] = field(default_factory=dict)
    tried: Counter[tuple[str, str]] = field(default_factory=Counter)
    right: Counter[tuple[str, str]] = field(default_factory=Counter)
    taken_ms: dict[str, list[float]] = field(default_factory=dict)
    cell: tuple[float, float] | None = None  # seconds and rows of the network's own map

    def together(self, name: str, part: str, label: str | None = None) -> Tally:
        """The tally of a part, of all labels or of one."""
        all_of = Tally()
        for (each, of, what), tally in self.tallies.items():
            if (each, of) == (name, part) and label in (None, what):
                all_of.groups += tally.groups
                all_of.rows += tally.rows
        return all_of

    def count(self, name: str, part: str) -> int:
        """How many files of a part an explainer was asked about."""
        found = (k for k in self.tallies if k[:2] == (name, part))
        return sum(len(self.tallies[k].rows) for k in found)

    def cost_ms(self, name: str) -> float | None:
        """Of one file, where no single window was timed."""
        taken = self.taken_ms.get(name)
        return round(statistics.median(taken), 1) if taken else None

    def labels(self, part: str) -> list[str]:
        """Those whose heat was asked for in a part."""
        return sorted({label for _, of, label in self.tallies if of == part})


def evaluate_pointing(run: Run, pointed: PointingResults, case: AnnotatedFile) -> None:
    """Ask the network about a file, and where it answers right every explainer about the heat."""
    saw = analyse_file(run.network, case.source)
    canvas = None
    for label in _labels_to_score(saw, case):
        pointed.tried[case.part, label] += 1
        if not saw.answers(label):
            continue
        pointed.right[case.part, label] += 1
        canvas = canvas or saw.canvas()
        pointed.cell = (canvas.cell[1] * canvas.column_s, canvas.cell[0])
        for name in run.names:
            if pointed.count(name, case.part) >= run.quota(name, case.part):
                continue
            start = time.perf_counter()
            heatmap = saw.heatmap(name, label, run.passes)
            pointed.taken_ms.setdefault(name, []).append(1000 * (time.perf_counter() - start))
            tally = pointed.tallies.setdefault((name, case.part, label), Tally())
            tally.add(case.group, case.truths[label].figures(heatmap, canvas))


def _labels_to_score(saw: AnalysedFile, case: AnnotatedFile) -> list[str]:
    """All labels of independent ones; of exclusive ones the answer if it is among them."""
    model = saw.network.model
    if model.activation == "sigmoid" or len(case.truths) == 1:
        return list(case.truths)
    pooled = len(saw.made.inputs) > 1
    answer = model.labels[decided_index(model, saw.overall, pooled=pooled)]
    return [answer if answer in case.truths else next(iter(case.truths))]
