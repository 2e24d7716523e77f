"""Tests of heatmaps: masking what they highlight, randomising the weights, and pointing.

On test samples that the network classifies correctly, the hottest regions are masked and the
prediction is repeated; and the network's weights are randomised, which should change the heatmap
(Adebayo et al. 2018). On files with ground truth, the heatmap's peak is compared with the truth,
counted by explainer, part of the data and label.
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
from xai_demo.analysis.faithfulness import MaskingTest
from xai_demo.analysis.heatmap import normalise, resize
from xai_demo.analysis.inference import (
    ModelRunner,
    NetworkOutputs,
    raw_heatmaps,
    run_network,
)
from xai_demo.decision import decided_label_index
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
    from xai_demo.engine.backends import Network
    from xai_demo.records import Floats
    from xai_demo.training.datasets import Dataset

# Steps of the insertion and deletion curves.
STEPS = 10
# Annotated files and mixtures, for each test sample asked for.
_FILES_PER_SAMPLE = 5
# A slow explainer is tested on one sample in five, but on at least six, and on mixtures of a single
# signal-to-noise ratio.
_SLOW_SHARE = 5
_SLOW_MIN = 6
_SLOW_SNR_DB = "10"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One window that the network classifies correctly, and its patient."""

    window: Floats  # (1, rows, columns)
    target: int
    group: str
    probability: float
    # The target's probability in masked versions of the window, by their digest. The one that is
    # masked, or blurred, completely is the same for every explainer.
    cache: dict[bytes, float] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainerFigures:
    """The figures of one explainer."""

    figures: dict[str, Any]
    cost_ms: float
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Window:
    """The part of a prepared input that computing a heatmap needs."""

    inputs: Floats  # (1, 1, rows, columns)
    sample_rate_hz: int | None

    @classmethod
    def of(cls, model: Model, window: Floats) -> Any:
        """The one window of a sample, (1, rows, columns)."""
        spec = model.preprocessing
        rate = spec.sample_rate_hz if isinstance(spec, LogMel) else None
        return cls(inputs=window[None], sample_rate_hz=rate)


def select_samples(network: Network, data: Dataset, most: int) -> list[Sample]:
    """At most `most` correctly classified test samples, one per patient, none of them normal."""
    model = network.model
    normal = model.labels.index(model.normal_label) if model.normal_label else None
    sample_of: dict[str, Sample] = {}
    # Not in the order of the files, in which patients of one label often come together.
    for i in np.random.default_rng(0).permutation(data.indices("test")):
        group = data.groups[i]
        if len(sample_of) == most:
            break
        if group in sample_of or (data.targets.ndim == 1 and data.targets[i] == normal):
            continue
        window, truth = data.load(int(i), None)
        probabilities = run_network(network, window[None, None]).probabilities[0]
        correct = [
            int(k)
            for k in np.flatnonzero(truth > 0.5)
            if k != normal and is_answered(model, probabilities, model.labels[k])
        ]
        if correct:
            # Of several findings, the one that the network is most certain of.
            target = max(correct, key=lambda k: probabilities[k])
            sample_of[group] = Sample(
                window=window[None],
                target=target,
                group=group,
                probability=float(probabilities[target]),
            )
    return list(sample_of.values())


def randomise_weights(network: Network, seed: int = 0) -> Network:
    """The same architecture with random weights."""
    import torch
    from torch import nn

    from xai_demo.engine.backends import available_device, move_to_device, torch_runner

    torch.manual_seed(seed)
    model = network.model
    whole = networks.architecture(model).build(model).eval().requires_grad_(False)
    cut = move_to_device(networks.cut(model, whole, network.layer), available_device())
    # All parts: the features of `network` may run in ONNX Runtime with the trained weights.
    return dataclasses.replace(
        network,
        features=torch_runner(cut.features),
        head=cut.head,
        whole=nn.Sequential(cut.features, cut.head),
    )


def explainer_figures(
    explainer: str,
    trained: Network,
    random: Network,
    samples: Sequence[Sample],
    passes: int,
    report: Callable[[float], None],
) -> ExplainerFigures:
    """Faithfulness of one explainer over all samples, and its dependence on the weights."""
    tally, times_s = Tally(), []
    for done, sample in enumerate(samples):
        report(done / len(samples))
        start = time.perf_counter()
        heatmap = _sample_heatmap(trained, explainer, sample, passes)
        times_s.append(time.perf_counter() - start)
        # Not timed: a user asks for one heatmap, of the trained network.
        other = _sample_heatmap(random, explainer, sample, passes)
        tally.add(sample.group, _figures(trained, sample, heatmap, other))
    return ExplainerFigures(
        figures=tally.to_json(), cost_ms=round(1000 * float(np.median(times_s)), 1), n=len(samples)
    )


def _sample_heatmap(network: Network, explainer: str, sample: Sample, passes: int) -> Floats:
    """Heatmap of one sample at its own size, 0..1."""
    window = _Window.of(network.model, sample.window)
    method = explainers.explainer(explainer)
    budget = Budget(passes=min(method.passes, passes) or None)
    answer: NetworkOutputs = run_network(network, window.inputs)
    raw = raw_heatmaps(network, window, answer, method, [sample.target], budget)[0, 0]
    return normalise(resize(normalise(raw), *sample.window.shape[1:]))


def _figures(
    network: Network, sample: Sample, heatmap: Floats, randomised_heat: Floats
) -> dict[str, float]:
    # A masked sound is silent, a masked radiograph has its mean grey.
    is_sound = isinstance(network.model.preprocessing, LogMel)
    background = float(sample.window.min() if is_sound else sample.window.mean())
    trial = MaskingTest(
        window=sample.window, background=background, predict=_target_probability(network, sample)
    )
    revealed = faithfulness.probability_through_heatmap(trial, heatmap)
    similarity = faithfulness.randomisation_similarity(heatmap, randomised_heat)
    return {
        "insertion_auc": faithfulness.insertion_auc(trial, heatmap, STEPS),
        "deletion_auc": faithfulness.deletion_auc(trial, heatmap, STEPS),
        "average_drop": faithfulness.average_drop([sample.probability], [revealed]),
        "average_increase": faithfulness.average_increase([sample.probability], [revealed]),
        "road": faithfulness.road(trial, heatmap),
        "randomisation": similarity["rank_correlation"],
    }


def _target_probability(network: Network, sample: Sample) -> Callable[[Floats], Floats]:
    """A function for the target's probability that runs the network once per distinct input."""
    runner = ModelRunner(network)

    def answer(inputs: Floats) -> Floats:
        digests = [hashlib.sha256(x.tobytes()).digest() for x in inputs]
        # By digest, so that equal inputs of one batch also run once.
        new = {d: i for i, d in enumerate(digests) if d not in sample.cache}
        if new:
            logits = runner.logits(inputs[list(new.values())].astype(np.float32))
            probabilities = network.probabilities(logits)[:, sample.target]
            sample.cache.update(zip(new, probabilities.tolist(), strict=True))
        return np.array([sample.cache[d] for d in digests], np.float32)

    return answer


@dataclass(frozen=True, slots=True)
class Run:
    """What one evaluation covers, and the notes it collects."""

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
        """Whether the explainer runs the network many times."""
        return explainers.explainer(name).passes > 1

    @property
    def slow_samples(self) -> int:
        """The number of samples that a slow explainer is tested on."""
        return min(self.most, max(_SLOW_MIN, self.most // _SLOW_SHARE))

    def quota(self, name: str, part: str) -> int:
        """The number of files of a part of the data that an explainer is tested on."""
        if not self.is_slow(name):
            return _FILES_PER_SAMPLE * self.most
        return self.slow_samples if part in {REAL, _SLOW_SNR_DB} else 0


@dataclass(slots=True)
class PointingResults:
    """Where the heatmaps of every explainer point, and how often the network was correct."""

    # By explainer, part and label.
    tallies: dict[tuple[str, str, str], Tally] = field(default_factory=dict)
    # Files, and correctly classified ones, by part and label.
    files: Counter[tuple[str, str]] = field(default_factory=Counter)
    correct: Counter[tuple[str, str]] = field(default_factory=Counter)
    times_ms: dict[str, list[float]] = field(default_factory=dict)
    # Seconds and rows of the network's own map.
    cell_size: tuple[float, float] | None = None

    def tally(self, name: str, part: str, label: str | None = None) -> Tally:
        """The tally of a part, of all labels or of one."""
        total = Tally()
        for (explainer, of_part, of_label), tally in self.tallies.items():
            if (explainer, of_part) == (name, part) and label in (None, of_label):
                total.groups += tally.groups
                total.rows += tally.rows
        return total

    def count(self, name: str, part: str) -> int:
        """How many files of a part an explainer was tested on."""
        keys = (key for key in self.tallies if key[:2] == (name, part))
        return sum(len(self.tallies[key].rows) for key in keys)

    def cost_ms(self, name: str) -> float | None:
        """Median time of one file; used where no single window was timed."""
        times_ms = self.times_ms.get(name)
        return round(statistics.median(times_ms), 1) if times_ms else None

    def labels(self, part: str) -> list[str]:
        """The labels that were explained in a part."""
        return sorted({label for _, of_part, label in self.tallies if of_part == part})


def evaluate_pointing(run: Run, results: PointingResults, file: AnnotatedFile) -> None:
    """Analyse a file and, for labels predicted correctly, score the heatmap of every explainer."""
    analysed = analyse_file(run.network, file.source)
    canvas = None
    for label in _labels_to_score(analysed, file):
        results.files[file.part, label] += 1
        if not analysed.has_answer(label):
            continue
        results.correct[file.part, label] += 1
        # Not before it is needed: wrong answers are not explained.
        canvas = canvas or analysed.canvas()
        results.cell_size = (canvas.cell[1] * canvas.column_s, canvas.cell[0])
        for name in run.names:
            if results.count(name, file.part) >= run.quota(name, file.part):
                continue
            start = time.perf_counter()
            heatmap = analysed.heatmap(name, label, run.passes)
            results.times_ms.setdefault(name, []).append(1000 * (time.perf_counter() - start))
            tally = results.tallies.setdefault((name, file.part, label), Tally())
            tally.add(file.group, file.truths[label].figures(heatmap, canvas))


def _labels_to_score(analysed: AnalysedFile, file: AnnotatedFile) -> list[str]:
    """All labels that the truth has; if labels are exclusive, the answer or else the first."""
    model = analysed.network.model
    if model.activation == "sigmoid" or len(file.truths) == 1:
        return list(file.truths)
    pooled = len(analysed.prepared.inputs) > 1
    answer = model.labels[decided_label_index(model, analysed.overall, pooled=pooled)]
    return [answer if answer in file.truths else next(iter(file.truths))]
