"""What the slow explainers take, and how soon they stop; to be run on a quiet machine.

Every bundled model explains the first example of its task with each of them, as a visitor would
have it, and once more to be stopped half-way.
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

Ask = Callable[[Callable[[], bool]], "Report"]  # with what says whether to stop
BEFORE = ("read", "prepare", "predict")  # the steps before explaining


def run(settings: Settings, *, progress: Progress | None = None) -> dict[str, Any]:
    """One row for each model that is here and each slow explainer that fits it; see `row`."""
    tell = progress or (lambda done, doing: None)
    analyser = Analyser(settings)
    asked = list(_pairs(analyser))
    rows = []
    for i, (model, name) in enumerate(asked):
        tell(i / len(asked), f"{model.name}: {name}")
        rows.append({"model": model.name, "explainer": name} | row(_ask(analyser, model, name)))
    return {"seconds": settings.explain_seconds, "rows": rows}


def row(ask: Ask) -> dict[str, Any]:
    """Seconds, windows sent through the network, and seconds from a request to stop to the end."""
    ask(lambda: False)  # loads what is loaded once
    report = ask(lambda: False)
    taken_s = report.timing_ms["explain"] / 1000
    before_s = sum(report.timing_ms.get(step, 0.0) for step in BEFORE) / 1000
    return {
        "explain_s": taken_s,
        "passes": report.explanations[0].passes,
        "backend": report.model.backend,
        "stopped_after_s": stopped_after_s(ask, before_s + taken_s / 2),
    }


def stopped_after_s(ask: Ask, at_s: float) -> float | None:
    """From when it is asked to stop, `at_s` after its beginning, to its end; None: it was done."""
    at = time.perf_counter() + at_s
    try:
        ask(lambda: time.perf_counter() >= at)
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
    lines.append(
        f"\nOf one example each, with {result['seconds']:g} s to explain in; stopped half-way."
    )
    return "\n".join(lines)


def _pairs(analyser: Analyser) -> Iterator[tuple[Model, str]]:
    for name in analyser.hub.names():
        if not analyser.hub.is_available(name):
            continue
        model = analyser.hub.model(name)
        for each in explainers.fitting_names(networks.architecture(model).kind):
            if explainers.explainer(each).passes > 1:
                yield model, each


def _ask(analyser: Analyser, model: Model, explainer: str) -> Ask:
    path = example_path(next(name for name, e in EXAMPLES.items() if e.task == model.task))
    request = AnalysisRequest(
        task=model.task, model=model.name, explainer=explainer, faithfulness=False
    )

    def ask(stopped: Callable[[], bool]) -> Report:
        return analyser.analyse(request, path, cancelled=stopped).report

    return ask
