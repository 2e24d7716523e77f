"""Many requests in a row, then at once: does memory grow, and do the answers stay the same?"""

from __future__ import annotations

import dataclasses
import os
import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo.pipeline import Analyser
from xai_demo.synthesis import EXAMPLES, example_path

if TYPE_CHECKING:
    from xai_demo.records import Progress, Report
    from xai_demo.settings import Settings

AT_ONCE = 8
_WARM = 40  # requests before memory is first looked at: libraries fill their pools


def run(settings: Settings, *, requests: int, progress: Progress | None = None) -> dict[str, Any]:
    """Ask so many times in a row, then as often from eight threads, over one example of every tab.

    Memory is the resident set of the process (Linux), in megabytes; `growth` is a share of that
    after warming up. The background export is off, so that one backend answers throughout.
    """
    tell = progress or (lambda done, doing: None)
    analyser = Analyser(dataclasses.replace(settings, background_export=False))
    asked = _one_of_every_task()
    first = [_asked(analyser, name) for name in asked]
    for i in range(_WARM):
        _asked(analyser, asked[i % len(asked)])
    start = _resident_mb()
    same, rest = True, []
    for i in range(requests):
        report = _asked(analyser, asked[i % len(asked)])
        same &= _same(report, first[i % len(asked)])
        rest.append(sum(report.timing_ms[k] for k in ("read", "prepare", "render")))
        tell(i / requests / 2, f"request {i + 1} of {requests}, in a row")
    in_a_row = _resident_mb()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        order = [i % len(asked) for i in range(requests)]
        reports = pool.map(lambda i: (_asked(analyser, asked[i]), i), order)
        for n, (report, i) in enumerate(reports):
            same &= _same(report, first[i])
            tell(0.5 + n / requests / 2, f"request {n + 1} of {requests}, {AT_ONCE} at a time")
    return {
        "requests": requests,
        "at_once": AT_ONCE,
        "resident_mb": {"start": start, "in_a_row": in_a_row, "at_once": _resident_mb()},
        "growth": {"in_a_row": in_a_row / start - 1, "at_once": _resident_mb() / start - 1},
        "same_answers": same,
        "rest_ms": statistics.median(rest),
    }


def text(result: dict[str, Any]) -> str:
    """The figures in plain words."""
    resident, growth = result["resident_mb"], result["growth"]
    return (
        f"{result['requests']} requests in a row, then {result['at_once']} at a time: memory "
        f"{resident['start']:.0f} MB, {resident['in_a_row']:.0f} MB ({growth['in_a_row']:+.1%}), "
        f"{resident['at_once']:.0f} MB ({growth['at_once']:+.1%}); answers "
        f"{'the same' if result['same_answers'] else 'NOT the same'}. Reading, preparing and "
        f"drawing take {result['rest_ms']:.0f} ms (median)."
    )


def _one_of_every_task() -> list[str]:
    first: dict[str, str] = {}
    for name, example in EXAMPLES.items():
        first.setdefault(example.task, name)
    return list(first.values())


def _asked(analyser: Analyser, name: str) -> Report:
    path = example_path(name)
    task = EXAMPLES[name].task
    model = analyser.hub.names(task)[-1]  # the bundled one, whatever the cache holds
    return analyser.analyse(task, path, model=model).report


def _same(mine: Report, theirs: Report) -> bool:
    """The same labels, probabilities to 1e-5, and heat to 1e-3 of its range."""
    return all(
        a.label == b.label and abs(a.probability - b.probability) <= 1e-5
        for a, b in zip(mine.predictions, theirs.predictions, strict=True)
    ) and all(
        a.target == b.target and float(np.abs(a.heatmap - b.heatmap).max()) <= 1e-3
        for a, b in zip(mine.explanations, theirs.explanations, strict=True)
    )


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
