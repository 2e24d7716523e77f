"""What is asked about an answer: where the network looked, if it mattered, how steady it is.

What noise does to an answer: one file asked about twice, as it is and with noise over it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

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
from xai_demo.decision import decided_index, findings
from xai_demo.imaging import preprocess
from xai_demo.records import Explanation, Model, Progress
from xai_demo.scheduler import Clock

if TYPE_CHECKING:
    from xai_demo.analysis.inputs import Medium
    from xai_demo.audio.noise import Noise
    from xai_demo.engine import Network
    from xai_demo.records import Analysis, Floats, Task

MOST_EXPLAINED = 10  # labels whose heat is made in one request, beside those that were found


class Asked(NamedTuple):
    """What of the answer is to be explained, how, and in about how many seconds."""

    explainer: str
    target: str | None
    faithfulness: bool
    uncertainty: bool
    seconds: float


class Question(NamedTuple):
    """What the network answered, and what is asked about that answer."""

    network: Network
    made: Medium
    answer: Answer
    overall: Floats
    asked: Asked
    asker: Asker


def explained(
    question: Question, tell: Progress, clock: Clock
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
    if not asked.faithfulness or made.blank or not raw[:, 0].any():  # nothing is hottest
        return found, said
    tell(0.9, "Hiding what is hot, to see whether it mattered")
    with clock("faithfulness"):
        tried = trial(network, made, answer, raw[:, 0], targets[0], asker)
    told = tried.to_json() | {"sentence": tried.sentence(found[0].target)}
    return (dataclasses.replace(found[0], faithfulness=told), *found[1:]), said


def spread(question: Question, tell: Progress, clock: Clock) -> Floats | None:
    """How far each label's answer moves where the radiograph hardly changes: (labels, 2).

    None where nobody asked, where there is nothing to see, and of sounds.
    """
    network, made, _, overall, asked, asker = question
    if not asked.uncertainty or made.blank or not isinstance(made, Picture):
        return None
    tell(0.36, "Looking again, slightly shifted and turned")
    with clock("uncertainty"):
        inputs = preprocess.network_input(preprocess.looks(made.framed), made.spec)[:, None]
        varied = network.probabilities(asker.logits(inputs))
        return preprocess.intervals(overall, varied)


def _targets(
    model: Model, overall: Floats, made: Medium, target: str | None, method: explainers.Explainer
) -> list[int]:
    """The asked label first; where they cost nothing more, every finding and other probable ones.

    Findings are never too many: each gets its heat.
    """
    pooled = len(made.inputs) > 1
    if target is None:
        first = decided_index(model, overall, pooled=pooled)
    else:
        first = model.labels.index(target)
    if not method.together:
        return [first]
    found = findings(model, overall, pooled=pooled)
    rest = sorted((k for k in range(len(overall)) if k not in found), key=lambda k: -overall[k])
    wanted = list(dict.fromkeys([first, *found, *rest]))
    return wanted[: max(MOST_EXPLAINED, len({first, *found}))]


def _explanations(
    question: Question, targets: list[int], raw: Floats, passes: int
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


SHOWN = 5  # of the most probable labels, before and after


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """The probability of one label without noise and with it."""

    label: str
    before: float
    after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Disturbance:
    """Two answers about one file; both explain the label that the first one gave."""

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
            f"With {self.noise.named}, {kept}; {first.target} goes from {first.probability:.2f} to "
            f"{after.probability:.2f}; {heat}."
        )


def disturbed(
    analyse: Callable[..., Analysis],
    task: Task,
    path: str | Path,
    noise: Noise,
    *,
    target: str | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Disturbance:
    """Ask `analyse` twice, with `noise` the second time; `options` are its own."""

    def half(start: float) -> Progress | None:
        if progress is None:
            return None
        return lambda done, doing: progress(start + done / 2, doing)

    clean = analyse(task, path, target=target, progress=half(0), **options)
    shown = clean.report.explanations[0].target
    noisy = analyse(task, path, target=shown, noise=noise, progress=half(0.5), **options)
    return Disturbance(noise=noise, clean=clean, noisy=noisy)
