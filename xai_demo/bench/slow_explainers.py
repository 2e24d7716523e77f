"""How long the slow explainers take, and how soon they stop; to be run on an idle machine.

Every installed model explains the first example of its task with each of them, as for a visitor,
and once more to be stopped half-way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from xai_demo import explainers, networks
from xai_demo.analysis import Analyser
from xai_demo.analysis.request import AnalysisRequest
from xai_demo.errors import CancelledError
from xai_demo.examples import EXAMPLES, example_path

if TYPE_CHECKING:
    from xai_demo.records import Model, Progress, Report
    from xai_demo.settings import Settings

# Takes what tells whether to stop.
RunAnalysis = Callable[[Callable[[], bool]], "Report"]
# The steps before explaining.
BEFORE = ("read", "prepare", "predict")


def run(settings: Settings, *, progress: Progress | None = None) -> dict[str, Any]:
    """One row for each installed model and each slow explainer that fits it; see `measure`."""
    report = progress or (lambda done, doing: None)
    analyser = Analyser(settings)
    pairs = list(_pairs(analyser))
    rows = []
    for i, (model, name) in enumerate(pairs):
        report(i / len(pairs), f"{model.name}: {name}")
        rows.append(
            {"model": model.name, "explainer": name} | measure(_analysis(analyser, model, name))
        )
    return {"seconds": settings.explain_seconds, "rows": rows}


def measure(analyse: RunAnalysis) -> dict[str, Any]:
    """Seconds, windows sent through the network, and seconds from a request to stop to the end."""
    # The first analysis also loads the network.
    analyse(lambda: False)
    report = analyse(lambda: False)
    explain_s = report.timing_ms["explain"] / 1000
    # So that half-way lies within the explanation, not before it.
    before_s = sum(report.timing_ms.get(step, 0.0) for step in BEFORE) / 1000
    return {
        "explain_s": explain_s,
        "passes": report.explanations[0].passes,
        "backend": report.model.backend,
        "stopped_after_s": seconds_to_stop(analyse, before_s + explain_s / 2),
    }


def seconds_to_stop(analyse: RunAnalysis, at_s: float) -> float | None:
    """How long an analysis runs on after a request to stop, made `at_s` seconds after its start.

    None where it had ended before.
    """
    at = time.perf_counter() + at_s
    try:
        analyse(lambda: time.perf_counter() >= at)
    except CancelledError:
        return time.perf_counter() - at
    return None


def table(result: dict[str, Any]) -> str:
    """The rows as a Markdown table."""
    lines = ["| model | explainer | seconds | passes | on | stops within |", "| --- " * 6 + "|"]
    for each in result["rows"]:
        stopped = each["stopped_after_s"]
        lines.append(
            f"| {each['model']} | {each['explainer']} | {each['explain_s']:.1f} | "
            f"{each['passes']} | {each['backend']} | "
            f"{'-' if stopped is None else f'{stopped:.2f} s'} |"
        )
    lines.append(f"\nOne example each, with a budget of {result['seconds']:g} s; stopped half-way.")
    return "\n".join(lines)


def _pairs(analyser: Analyser) -> Iterator[tuple[Model, str]]:
    for name in analyser.hub.names():
        if not analyser.hub.is_available(name):
            continue
        model = analyser.hub.model(name)
        for each in explainers.fitting_names(networks.architecture(model).kind):
            # One pass of its own makes an explainer no slow one.
            if explainers.explainer(each).passes > 1:
                yield model, each


def _analysis(analyser: Analyser, model: Model, explainer: str) -> RunAnalysis:
    path = example_path(next(name for name, e in EXAMPLES.items() if e.task == model.task))
    request = AnalysisRequest(
        task=model.task, model=model.name, explainer=explainer, faithfulness=False
    )

    def analyse(cancelled: Callable[[], bool]) -> Report:
        return analyser.analyse(request, path, cancelled=cancelled).report

    return analyse
