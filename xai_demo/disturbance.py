"""What noise does to an answer: one file asked about twice, as it is and with noise over it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xai_demo.faithfulness import rank_correlation

if TYPE_CHECKING:
    from xai_demo.audio.noise import Noise
    from xai_demo.records import Analysis, Progress, Task

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
