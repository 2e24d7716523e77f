"""Explaining a prediction: heatmaps, the faithfulness test, uncertainty and the effect of noise."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from xai_demo import explainers
from xai_demo.analysis.faithfulness import rank_correlation
from xai_demo.analysis.inference import (
    ModelRunner,
    NetworkOutputs,
    fewer_passes_warning,
    pass_allowance,
    raw_heatmaps,
    run_faithfulness_test,
    skipped_windows_warning,
)
from xai_demo.analysis.inputs import ImageInput
from xai_demo.decision import decided_label_index, findings
from xai_demo.imaging import preprocess
from xai_demo.records import Explanation, Progress
from xai_demo.scheduler import StepTimer

if TYPE_CHECKING:
    from xai_demo.analysis.inputs import PreparedInput
    from xai_demo.analysis.request import AnalysisRequest
    from xai_demo.audio.noise import Noise
    from xai_demo.engine.backends import Network
    from xai_demo.records import Analysis, Floats, Model

# Labels that are explained in one request. All findings are, however many there are.
MAX_EXPLAINED = 10
# Labels of each answer that a noise comparison lists.
N_COMPARED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Inference:
    """What the network was given for a request, and what it predicted."""

    request: AnalysisRequest
    explainer: str  # that of the request, else the model's own
    network: Network
    prepared: PreparedInput
    outputs: NetworkOutputs
    probabilities: Floats  # (labels,), of the whole file
    runner: ModelRunner


def explain(
    inference: Inference, progress: Progress, timer: StepTimer, *, limit_s: float
) -> tuple[tuple[Explanation, ...], tuple[str, ...]]:
    """The explanations, the target's first, and warnings about them.

    Other labels are explained where that takes no further forward pass. The first explanation
    carries the faithfulness test unless the request leaves it out. An explainer with forward passes
    of its own gets about `limit_s` seconds. Raises CancelledError.
    """
    progress(0.4, "Explaining the prediction")
    request, network, runner = inference.request, inference.network, inference.runner
    prepared, outputs = inference.prepared, inference.outputs
    windows = len(prepared.inputs)
    method = explainers.explainer(inference.explainer)
    # The prediction has just run on the same windows, and so shows how long a pass takes here.
    allowance = pass_allowance(
        method,
        windows=windows,
        window_s=timer.elapsed_ms["predict"] / 1000 / windows,
        seconds=limit_s,
    )
    budget = explainers.Budget(
        passes=allowance.passes or None,
        # From 0.4 to 0.88 of the whole analysis: the faithfulness test follows at 0.9.
        progress=lambda done, doing: progress(0.4 + 0.48 * done, doing),
        cancelled=runner.cancelled,
    )
    model, probabilities = network.model, inference.probabilities
    targets = _targets(model, probabilities, request.target, method, pooled=windows > 1)
    # The runner has already counted the prediction, and for an image its augmented views.
    before = runner.passes
    with timer("explain"):
        raw = raw_heatmaps(network, prepared, outputs, method, targets, budget, runner)
        explanations = _explanations(inference, targets, raw, runner.passes - before)
    warnings = skipped_windows_warning(inference.explainer, windows)
    warnings += fewer_passes_warning(allowance, limit_s)
    # A heatmap of zeros has no most important region to mask.
    if not request.faithfulness or prepared.blank or not raw[:, 0].any():
        return explanations, warnings
    progress(0.9, "Faithfulness test: masking the most important region")
    # Only the target's explanation: each test costs several forward passes.
    first, *rest = explanations
    with timer("faithfulness"):
        test = run_faithfulness_test(network, prepared, outputs, raw[:, 0], targets[0], runner)
    result = test.to_json() | {"sentence": test.sentence(first.target)}
    return (dataclasses.replace(first, faithfulness=result), *rest), warnings


def uncertainty_intervals(
    inference: Inference, progress: Progress, timer: StepTimer
) -> Floats | None:
    """The interval of each probability under test-time augmentation, low and high: (labels, 2).

    None for sounds and blank images, and if the request leaves it out. Raises CancelledError.
    """
    prepared = inference.prepared
    if not (inference.request.uncertainty and isinstance(prepared, ImageInput)) or prepared.blank:
        return None
    progress(0.36, "Predicting shifted and rotated copies")
    with timer("uncertainty"):
        views = preprocess.augmented_views(prepared.pixels)
        # Each view is a window of its own, so that they run in batches and can be cancelled.
        inputs = preprocess.network_input(views, prepared.spec)[:, None]
        varied = inference.network.probabilities(inference.runner.logits(inputs))
        return preprocess.prediction_intervals(inference.probabilities, varied)


def _targets(
    model: Model,
    probabilities: Floats,
    target: str | None,
    method: explainers.Explainer,
    *,
    pooled: bool,
) -> list[int]:
    """Indices of the labels to explain: the target, then the findings, then the most probable.

    Only the target if every further label would cost forward passes. At most `MAX_EXPLAINED`, or
    all findings if there are more.
    """
    if target is None:
        # The answer, which is not always the most probable label.
        first = decided_label_index(model, probabilities, pooled=pooled)
    else:
        first = model.labels.index(target)
    if not method.labels_share_passes:
        return [first]
    positive = findings(model, probabilities, pooled=pooled)
    ranked = sorted(range(len(probabilities)), key=lambda k: -probabilities[k])
    targets = list(dict.fromkeys([first, *positive, *ranked]))
    return targets[: max(MAX_EXPLAINED, len({first, *positive}))]


def _explanations(
    inference: Inference, targets: list[int], raw: Floats, passes: int
) -> tuple[Explanation, ...]:
    """One explanation a target, from raw heatmaps (windows, targets, rows, columns)."""
    network, prepared = inference.network, inference.prepared
    explanations = []
    for i, k in enumerate(targets):
        # Joining the windows of an hour takes a while for each label.
        inference.runner.check()
        explanation = prepared.explanation(
            # A blank input explains nothing, whatever the gradients are.
            raw[:, i] * (not prepared.blank),
            # Of every window, as weights for joining their heatmaps.
            inference.outputs.probabilities[:, k],
            explainer=inference.explainer,
            target=network.model.labels[k],
            probability=float(inference.probabilities[k]),
            layer=network.layer,
        )
        explanations.append(dataclasses.replace(explanation, passes=passes))
    return tuple(explanations)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbabilityChange:
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
    def changes(self) -> tuple[ProbabilityChange, ...]:
        """The most probable labels of both answers, in the order of the first answer."""
        before = {p.label: p.probability for p in self.clean.report.predictions}
        after = {p.label: p.probability for p in self.noisy.report.predictions}
        # Predictions are sorted by probability, so the first ones are the most probable.
        top = [*list(before)[:N_COMPARED], *list(after)[:N_COMPARED]]
        return tuple(
            ProbabilityChange(label=label, before=before[label], after=after[label])
            for label in dict.fromkeys(top)
        )

    @property
    def agreement(self) -> float | None:
        """Spearman's coefficient of the two heatmaps; None if one of them is empty."""
        maps = [each.report.explanations[0].heatmap for each in (self.clean, self.noisy)]
        # An empty heatmap is flat, and ranks of equal values say nothing.
        if min(float(each.max()) for each in maps) <= 0:
            return None
        return rank_correlation(*maps)

    def to_json(self) -> dict[str, Any]:
        """What the report of the noisy sound says under `noise`."""
        rho = self.agreement
        answers = (self.clean.report.decision.label, self.noisy.report.decision.label)
        return {
            "kind": self.noise.kind,
            "snr_db": self.noise.snr_db,
            "answer_before": answers[0],
            "answer_after": answers[1],
            "moves": [
                {"label": c.label, "before": round(c.before, 6), "after": round(c.after, 6)}
                for c in self.changes
            ],
            "target": self.clean.report.explanations[0].target,
            "rank_correlation": None if rho is None else round(rho, 4),
            "sentence": self.sentence(),
        }

    def sentence(self) -> str:
        """One plain sentence on what the noise does to the answer and to the heatmap."""
        clean, noisy = (each.report.explanations[0] for each in (self.clean, self.noisy))
        before, after = (
            each.report.decision.label or "uncertain" for each in (self.clean, self.noisy)
        )
        answer = (
            f"the answer stays {after}"
            if before == after
            else f"the answer changes from {before} to {after}"
        )
        rho = self.agreement
        heatmaps = (
            "one of the heatmaps is empty"
            if rho is None
            else f"the rank correlation of the heatmaps is {rho:.2f}".replace("-", "\u2212")
        )
        return (
            f"With {self.noise.description}, {answer}; {clean.target} goes from "
            f"{clean.probability:.2f} to {noisy.probability:.2f}; {heatmaps}."
        )


class Analyse(Protocol):
    """The signature of `Analyser.analyse` that a comparison needs."""

    def __call__(
        self, request: AnalysisRequest, path: str | Path, /, *, progress: Progress | None = None
    ) -> Analysis:
        """Analyse the file at `path`."""


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
        # Each of the two analyses reports 0 to 1 for itself.
        return lambda done, doing: progress(start + done / 2, doing)

    clean = analyse(dataclasses.replace(request, noise=None), path, progress=half(0))
    # The same label in both, or the heatmaps could not be compared.
    target = clean.report.explanations[0].target
    noisy = analyse(dataclasses.replace(request, target=target), path, progress=half(0.5))
    return NoiseComparison(noise=request.noise, clean=clean, noisy=noisy)
