"""Many requests, one after another and then at once: does memory grow, do the results change?"""

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

CONCURRENT = 8
# Libraries fill their memory pools during the first requests, which is no leak.
WARM_UP = 40
# One sample in so many, at the end of a phase, makes its level.
_LEVEL_FRACTION = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """Memory over a number of requests."""

    resident_mb: Sequence[float]  # after each request
    threads: int  # of the process, at the end

    @property
    def level_mb(self) -> float:
        """Where it ended: the median of the last tenth, in megabytes."""
        return statistics.median(
            self.resident_mb[-max(1, len(self.resident_mb) // _LEVEL_FRACTION) :]
        )

    @property
    def slope_mb(self) -> float:
        """How fast the last half still grows, in megabytes per 100 requests: a leak goes on."""
        # The first half may still fill caches; two points are the least for a line.
        late = self.resident_mb[len(self.resident_mb) // 2 :]
        if len(late) < 2:
            return 0.0
        return 100 * float(np.polyfit(np.arange(len(late)), late, 1)[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Results:
    """What the reports showed, besides memory."""

    first: Sequence[Report]  # which all later ones must equal
    rest_ms: list[float] = field(default_factory=list)
    different: list[int] = field(default_factory=list)

    def add(self, i: int, report: Report) -> None:
        """Compare one report, and note the time it took besides the network's."""
        if not is_same(report, self.first[i % len(self.first)]):
            self.different.append(i)
        # `list.append` is atomic, so the eight threads need no lock.
        self.rest_ms.append(sum(report.timing_ms[k] for k in ("read", "prepare", "render")))


def run(settings: Settings, *, requests: int, progress: Progress | None = None) -> dict[str, Any]:
    """Analyse one example of every tab in turn, `requests` times in a row, then from eight threads.

    Memory is the resident set of the process (Linux), in megabytes, after `WARM_UP` requests and at
    the end of each phase; `growth` is relative to the first. The background export is off, so that
    the same backend answers throughout.
    """
    report = progress or (lambda done, doing: None)
    analyser = Analyser(dataclasses.replace(settings, background_export=False))
    names = _one_example_per_task()
    results = _Results(first=[_analyse(analyser, name) for name in names])

    def analyse(i: int) -> None:
        results.add(i, _analyse(analyser, names[i % len(names)]))

    plan = {"start": (WARM_UP, 1), "in_a_row": (requests, 1), "at_once": (requests, CONCURRENT)}
    total, before, phases = WARM_UP + 2 * requests, 0, {}
    for name, (count, concurrent) in plan.items():
        # Bound as defaults, because the loop changes both names.
        def show(n: int, base: int = before, how: str = f"{concurrent} at a time") -> None:
            report((base + n) / total, f"Request {base + n} of {total}, {how}")

        phases[name] = watch_memory(analyse, count, concurrent=concurrent, progress=show)
        before += count
    return {"requests": requests, "at_once": CONCURRENT, "warm_up": WARM_UP} | figures(
        phases, results
    )


def watch_memory(
    request: Callable[[int], None],
    count: int,
    *,
    concurrent: int,
    progress: Callable[[int], None] = lambda n: None,
    memory_mb: Callable[[], float] = resident_mb,
) -> Phase:
    """Make `count` requests, `concurrent` of them at a time, and sample memory after each."""
    samples: list[float] = []

    def request_and_sample(i: int) -> None:
        request(i)
        samples.append(memory_mb())
        progress(len(samples))

    if concurrent == 1:
        for i in range(count):
            request_and_sample(i)
    else:
        with ThreadPoolExecutor(concurrent) as pool:
            # `list` waits for all requests and raises what one of them has raised.
            list(pool.map(request_and_sample, range(count)))
    return Phase(resident_mb=samples, threads=thread_count())


def figures(phases: dict[str, Phase], results: _Results) -> dict[str, Any]:
    """The phases in numbers; `growth` and `peak_growth` are relative to the level at the start."""
    start = phases["start"].level_mb
    later = {name: phase for name, phase in phases.items() if name != "start"}
    return {
        "resident_mb": {name: phase.level_mb for name, phase in phases.items()},
        # Levels for what stays, the maximum for what a machine must have.
        "growth": {name: phase.level_mb / start - 1 for name, phase in later.items()},
        "peak_growth": {n: max(phase.resident_mb) / start - 1 for n, phase in later.items()},
        "slope_mb_per_100": {name: phase.slope_mb for name, phase in later.items()},
        "threads": {name: phase.threads for name, phase in phases.items()},
        "same_answers": not results.different,
        "rest_ms": statistics.median(results.rest_ms),
    }


def text(result: dict[str, Any]) -> str:
    """The figures in a few sentences."""
    sentences = [
        f"{result['requests']} requests in a row, then {result['at_once']} at a time, after "
        f"{result['warm_up']} to warm up: memory {result['resident_mb']['start']:.0f} MB, "
        f"{result['threads']['start']} threads; the results are "
        f"{'the same' if result['same_answers'] else 'NOT the same'}."
    ]
    for name, title in (("in_a_row", "In a row"), ("at_once", f"{result['at_once']} at a time")):
        sentences.append(
            f"{title}: {result['resident_mb'][name]:.0f} MB ({result['growth'][name]:+.1%}, at "
            f"most {result['peak_growth'][name]:+.1%}), growing in the last half by "
            f"{result['slope_mb_per_100'][name]:+.1f} MB per 100 requests, "
            f"{result['threads'][name]} threads."
        )
    sentences.append(f"Reading, preparing and drawing take {result['rest_ms']:.0f} ms (median).")
    return "\n".join(sentences)


def is_same(ours: Report, theirs: Report) -> bool:
    """Whether labels are equal, probabilities to 1e-5, and heatmaps to 1e-3 of their range."""
    return all(
        a.label == b.label and abs(a.probability - b.probability) <= 1e-5
        for a, b in zip(ours.predictions, theirs.predictions, strict=True)
    ) and all(
        a.target == b.target and float(np.abs(a.heatmap - b.heatmap).max()) <= 1e-3
        for a, b in zip(ours.explanations, theirs.explanations, strict=True)
    )


def _one_example_per_task() -> list[str]:
    first: dict[str, str] = {}
    for name, example in EXAMPLES.items():
        first.setdefault(example.task, name)
    return list(first.values())


def _analyse(analyser: Analyser, name: str) -> Report:
    path = example_path(name)
    task = EXAMPLES[name].task
    hub = analyser.hub
    # A bundled model, so that the result does not depend on what the cache holds.
    model = next(name for name in hub.names(task) if hub.entry(name).is_bundled)
    return analyser.analyse(AnalysisRequest(task=task, model=model), path).report
