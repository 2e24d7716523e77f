"""Who is asked how often, and where the heat lay: by explainer, part of the data and label."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xai_demo import explainers
from xai_demo.decision import decided_index
from xai_demo.training.pointing import Tally
from xai_demo.training.seen import Seen, seen
from xai_demo.training.truths import REAL, Case

if TYPE_CHECKING:
    from xai_demo.engine import Network
    from xai_demo.records import Model

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
class Pointed:
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


def point(run: Run, pointed: Pointed, case: Case) -> None:
    """Ask the network about a file, and where it answers right every explainer about the heat."""
    saw = seen(run.network, case.source)
    canvas = None
    for label in _counted_labels(saw, case):
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


def _counted_labels(saw: Seen, case: Case) -> list[str]:
    """All labels of independent ones; of exclusive ones the answer if it is among them."""
    model = saw.network.model
    if model.activation == "sigmoid" or len(case.truths) == 1:
        return list(case.truths)
    pooled = len(saw.made.inputs) > 1
    answer = model.labels[decided_index(model, saw.overall, pooled=pooled)]
    return [answer if answer in case.truths else next(iter(case.truths))]
