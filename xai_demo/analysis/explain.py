"""What is asked about an answer: where the network looked, if it mattered, how steady it is.

What noise does to an answer: one file asked about twice, as it is and with noise over it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from xai_demo import explainers
from xai_demo.analysis.faithfulness import rank_correlation
from xai_demo.analysis.inference import (
    Answer,
    Asker,
    allowance,
    cut_warning,
    partial_warning,
    raw_heat,
    trial,
)
from xai_demo.analysis.inputs import Picture
from xai_demo.decision import decided_label_index, findings
from xai_demo.imaging import preprocess
from xai_demo.records import Explanation, Progress
from xai_demo.scheduler import StepTimer

if TYPE_CHECKING:
    from xai_demo.analysis.inputs import Medium
    from xai_demo.analysis.request import AnalysisRequest
    from xai_demo.audio.noise import Noise
    from xai_demo.engine import Network
    from xai_demo.records import Analysis, Floats

MOST_EXPLAINED = 10  # labels whose heat is made in one request, beside those that were found


@dataclass(frozen=True, slots=True, kw_only=True)
class Inference:
    """What the network was given for a request, and what it predicted."""

    request: AnalysisRequest
    explainer: str  # that of the request, else the model's own
    network: Network
    prepared: Medium
    answer: Answer
    probabilities: Floats  # (labels,), of the whole file
    runner: Asker


def explain(
    inference: Inference, progress: Progress, clock: StepTimer, *, limit_s: float
) -> tuple[tuple[Explanation, ...], tuple[str, ...]]:
    """Explain the target and, where that costs nothing more, other labels; and give warnings.

    The first explanation carries the faithfulness test if the request has it. An explainer with
    forward passes of its own gets about `limit_s` seconds.
    """
    progress(0.4, "Explaining the prediction")
    request, network, runner = inference.request, inference.network, inference.runner
    prepared, answer = inference.prepared, inference.answer
    windows = len(prepared.inputs)
    method = explainers.explainer(inference.explainer)
    allowed = allowance(
        method,
        windows=windows,
        window_s=clock.elapsed_ms["predict"] / 1000 / windows,
        seconds=limit_s,
    )
    budget = explainers.Budget(
        passes=allowed.passes or None,
        progress=lambda done, doing: progress(0.4 + 0.48 * done, doing),
        cancelled=runner.cancelled,
    )
    targets = _targets(inference, method)
    before = runner.passes
    with clock("explain"):
        raw = raw_heat(network, prepared, answer, method, targets, budget, runner)
        explanations = _explanations(inference, targets, raw, runner.passes - before)
    warnings = partial_warning(inference.explainer, windows) + cut_warning(allowed, limit_s)
    # A heatmap of zeros has no most important region to mask.
    if not request.faithfulness or prepared.blank or not raw[:, 0].any():
        return explanations, warnings
    progress(0.9, "Faithfulness test: masking the most important region")
    first, *rest = explanations
    with clock("faithfulness"):
        test = trial(network, prepared, answer, raw[:, 0], targets[0], runner)
    result = test.to_json() | {"sentence": test.sentence(first.target)}
    return (dataclasses.replace(first, faithfulness=result), *rest), warnings


def uncertainty_intervals(
    inference: Inference, progress: Progress, clock: StepTimer
) -> Floats | None:
    """How far each probability moves under test-time augmentation, low and high: (labels, 2).

    None for sounds and blank pictures, and where the request leaves it out.
    """
    prepared = inference.prepared
    if not (inference.request.uncertainty and isinstance(prepared, Picture)) or prepared.blank:
        return None
    progress(0.36, "Predicting shifted and rotated copies")
    with clock("uncertainty"):
        copies = preprocess.network_input(
            preprocess.augmented_views(prepared.framed), prepared.spec
        )
        varied = inference.network.probabilities(inference.runner.logits(copies[:, None]))
        return preprocess.prediction_intervals(inference.probabilities, varied)


def _targets(inference: Inference, method: explainers.Explainer) -> list[int]:
    """Indices of the labels to explain: the target, then the findings, then the most probable.

    An explainer that pays for each label explains the target only. Findings count beyond
    `MOST_EXPLAINED`: each of them gets its heatmap.
    """
    model, probabilities = inference.network.model, inference.probabilities
    target, pooled = inference.request.target, len(inference.prepared.inputs) > 1
    if target is None:
        first = decided_label_index(model, probabilities, pooled=pooled)
    else:
        first = model.labels.index(target)
    if not method.labels_share_passes:
        return [first]
    positive = findings(model, probabilities, pooled=pooled)
    ranked = sorted(range(len(probabilities)), key=lambda k: -probabilities[k])
    targets = list(dict.fromkeys([first, *positive, *ranked]))
    return targets[: max(MOST_EXPLAINED, len({first, *positive}))]


def _explanations(
    inference: Inference, targets: list[int], raw: Floats, passes: int
) -> tuple[Explanation, ...]:
    """One explanation a target, from raw heatmaps (windows, targets, rows, columns)."""
    network, prepared = inference.network, inference.prepared
    return tuple(
        dataclasses.replace(
            prepared.explanation(
                raw[:, i] * (not prepared.blank),
                inference.answer.probabilities[:, k],
                explainer=inference.explainer,
                target=network.model.labels[k],
                probability=float(inference.probabilities[k]),
                layer=network.layer,
            ),
            passes=passes,
        )
        for i, k in enumerate(targets)
    )


SHOWN = 5  # of the most probable labels, before and after


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """The probability of one label without noise and with it."""

    label: str
    before: float
    after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseComparison:
    """Answers for one file without noise and with it; both explain the label of the first."""

    noise: Noise
    clean: Analysis
    noisy: Analysis

    @property
    def moves(self) -> tuple[Move, ...]:
        """The labels that are among the most probable in either, in the order of the first."""
        before = {p.label: p.probability for p in self.clean.report.predictions}
        after = {p.label: p.probability for p in self.noisy.report.predictions}
        top = [*list(before)[:SHOWN], *list(after)[:SHOWN]]
        return tuple(
            Move(label=label, before=before[label], after=after[label])
            for label in dict.fromkeys(top)
        )

    @property
    def agreement(self) -> float | None:
        """Spearman's coefficient of both heat maps; None where one has no heat."""
        maps = [each.report.explanations[0].heatmap for each in (self.clean, self.noisy)]
        if min(float(each.max()) for each in maps) <= 0:
            return None
        return rank_correlation(*maps)

    def to_json(self) -> dict[str, Any]:
        """For the report of the noisy sound, under `noise`."""
        rho = self.agreement
        answers = (self.clean.report.decision.label, self.noisy.report.decision.label)
        return {
            "kind": self.noise.kind,
            "snr_db": self.noise.snr_db,
            "answer_before": answers[0],
            "answer_after": answers[1],
            "moves": [
                {"label": m.label, "before": round(m.before, 6), "after": round(m.after, 6)}
                for m in self.moves
            ],
            "target": self.clean.report.explanations[0].target,
            "rank_correlation": None if rho is None else round(rho, 4),
            "sentence": self.sentence(),
        }

    def sentence(self) -> str:
        """In plain words: what became of the answer, and of the heat."""
        first = self.clean.report.explanations[0]
        after = self.noisy.report.explanations[0]
        before, now = (
            each.report.decision.label or "uncertain" for each in (self.clean, self.noisy)
        )
        kept = (
            f"the answer stays {now}"
            if before == now
            else f"the answer goes from {before} to {now}"
        )
        rho = self.agreement
        heat = (
            "one of the heat maps is empty"
            if rho is None
            else f"the rank correlation of the heat maps is {rho:.2f}".replace("-", "\u2212")
        )
        return (
            f"With {self.noise.description}, {kept}; {first.target} goes from "
            f"{first.probability:.2f} to {after.probability:.2f}; {heat}."
        )


class Analyse(Protocol):
    """What answers a request: `Analyser.analyse`, or something around it."""

    def __call__(
        self, request: AnalysisRequest, path: str | Path, /, *, progress: Progress | None = None
    ) -> Analysis:
        """The analysis of the file at `path`."""


def compare_with_noise(
    analyse: Analyse,
    request: AnalysisRequest,
    path: str | Path,
    *,
    progress: Progress | None = None,
) -> NoiseComparison:
    """Analyse a file twice, first without the request's noise, then with it.

    Raises ValueError for a request without noise, and whatever `analyse` raises.
    """
    if request.noise is None:
        raise ValueError("the request has no noise")

    def half(start: float) -> Progress | None:
        if progress is None:
            return None
        return lambda done, doing: progress(start + done / 2, doing)

    clean = analyse(dataclasses.replace(request, noise=None), path, progress=half(0))
    target = clean.report.explanations[0].target
    noisy = analyse(dataclasses.replace(request, target=target), path, progress=half(0.5))
    return NoiseComparison(noise=request.noise, clean=clean, noisy=noisy)
