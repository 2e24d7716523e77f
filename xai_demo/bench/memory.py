"""Many requests in a row, then at once: does memory grow, and do the answers stay the same?"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo.analysis import Analyser
from xai_demo.analysis.request import AnalysisRequest
from xai_demo.engine.backends import resident_mb, thread_count
from xai_demo.examples import EXAMPLES, example_path

if TYPE_CHECKING:
    from xai_demo.records import Progress, Report
    from xai_demo.settings import Settings

AT_ONCE = 8
WARM = 40  # requests before memory is first looked at: libraries fill their pools
_LEVEL = 10  # the part of the samples at the end of a phase, one in so many, that is its level


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """What memory did while so many requests were answered."""

    resident_mb: Sequence[float]  # after each request
    threads: int  # of the process, at the end

    @property
    def level_mb(self) -> float:
        """Where it ended: the median over the last tenth."""
        return statistics.median(self.resident_mb[-max(1, len(self.resident_mb) // _LEVEL) :])

    @property
    def slope_mb(self) -> float:
        """How fast the last half still grows, in megabytes per 100 requests: what a leak is."""
        late = self.resident_mb[len(self.resident_mb) // 2 :]
        if len(late) < 2:
            return 0.0
        return 100 * float(np.polyfit(np.arange(len(late)), late, 1)[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What the requests showed beside memory."""

    first: Sequence[Report]  # the answers that all later ones must equal
    rest_ms: list[float] = field(default_factory=list)
    different: list[int] = field(default_factory=list)

    def look(self, i: int, report: Report) -> None:
        """Compare one answer, and note what it cost beside the network."""
        if not same(report, self.first[i % len(self.first)]):
            self.different.append(i)
        self.rest_ms.append(sum(report.timing_ms[k] for k in ("read", "prepare", "render")))


def run(settings: Settings, *, requests: int, progress: Progress | None = None) -> dict[str, Any]:
    """Ask so many times in a row, then as often from eight threads, over one example of every tab.

    Memory is the resident set of the process (Linux), in megabytes, after `WARM` requests one at a
    time and at the end of each phase; `growth` is a share of the first. The background export is
    off, so that one backend answers throughout.
    """
    tell = progress or (lambda done, doing: None)
    analyser = Analyser(dataclasses.replace(settings, background_export=False))
    asked = _one_of_every_task()
    seen = _Seen(first=[_asked(analyser, name) for name in asked])

    def ask(i: int) -> None:
        seen.look(i, _asked(analyser, asked[i % len(asked)]))

    plan = {"start": (WARM, 1), "in_a_row": (requests, 1), "at_once": (requests, AT_ONCE)}
    total, before, phases = WARM + 2 * requests, 0, {}
    for name, (count, at_once) in plan.items():

        def told(n: int, base: int = before, how: str = f"{at_once} at a time") -> None:
            tell((base + n) / total, f"request {base + n} of {total}, {how}")

        phases[name] = watched(ask, count, at_once=at_once, told=told)
        before += count
    return {"requests": requests, "at_once": AT_ONCE, "warm_up": WARM} | figures(phases, seen)


def watched(
    ask: Callable[[int], None],
    count: int,
    *,
    at_once: int,
    told: Callable[[int], None] = lambda n: None,
    look: Callable[[], float] = resident_mb,
) -> Phase:
    """Ask so many times, so many at once, and look at memory after each."""
    samples: list[float] = []

    def one(i: int) -> None:
        ask(i)
        samples.append(look())
        told(len(samples))

    if at_once == 1:
        for i in range(count):
            one(i)
    else:
        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(one, range(count)))
    return Phase(resident_mb=samples, threads=thread_count())


def figures(phases: dict[str, Phase], seen: _Seen) -> dict[str, Any]:
    """The phases in numbers; `growth` and `peak_growth` are shares of the level at the start."""
    start = phases["start"].level_mb
    later = {name: phase for name, phase in phases.items() if name != "start"}
    return {
        "resident_mb": {name: phase.level_mb for name, phase in phases.items()},
        "growth": {name: phase.level_mb / start - 1 for name, phase in later.items()},
        "peak_growth": {n: max(phase.resident_mb) / start - 1 for n, phase in later.items()},
        "slope_mb_per_100": {name: phase.slope_mb for name, phase in later.items()},
        "threads": {name: phase.threads for name, phase in phases.items()},
        "same_answers": not seen.different,
        "rest_ms": statistics.median(seen.rest_ms),
    }


def text(result: dict[str, Any]) -> str:
    """The figures in plain words."""
    said = [
        f"{result['requests']} requests in a row, then {result['at_once']} at a time, after "
        f"{result['warm_up']} one at a time to warm up: memory {result['resident_mb']['start']:.0f}"
        f" MB, {result['threads']['start']} threads; answers "
        f"{'the same' if result['same_answers'] else 'NOT the same'}."
    ]
    for name, title in (("in_a_row", "In a row"), ("at_once", f"{result['at_once']} at a time")):
        said.append(
            f"{title}: {result['resident_mb'][name]:.0f} MB ({result['growth'][name]:+.1%}, at "
            f"most {result['peak_growth'][name]:+.1%}), in the last half "
            f"{result['slope_mb_per_100'][name]:+.1f} MB per 100 requests, "
            f"{result['threads'][name]} threads."
        )
    said.append(f"Reading, preparing and drawing take {result['rest_ms']:.0f} ms (median).")
    return "\n".join(said)


def same(mine: Report, theirs: Report) -> bool:
    """The same labels, probabilities to 1e-5, and heat to 1e-3 of its range."""
    return all(
        a.label == b.label and abs(a.probability - b.probability) <= 1e-5
        for a, b in zip(mine.predictions, theirs.predictions, strict=True)
    ) and all(
        a.target == b.target and float(np.abs(a.heatmap - b.heatmap).max()) <= 1e-3
        for a, b in zip(mine.explanations, theirs.explanations, strict=True)
    )


def _one_of_every_task() -> list[str]:
    first: dict[str, str] = {}
    for name, example in EXAMPLES.items():
        first.setdefault(example.task, name)
    return list(first.values())


def _asked(analyser: Analyser, name: str) -> Report:
    path = example_path(name)
    task = EXAMPLES[name].task
    hub = analyser.hub
    # A bundled one, whatever the cache holds.
    model = next(name for name in hub.names(task) if hub.entry(name).checkpoint is None)
    return analyser.analyse(AnalysisRequest(task=task, model=model), path).report
