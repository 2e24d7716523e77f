"""Answers in plain text, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xai_demo.records import DISCLAIMER, Report

_UNSAID = {
    "answer": "uncertain",
    "uncertain": "uncertain",
    "nothing found": "no finding",
    "no answer": "no answer",
}
_PEAK = {
    "time_s": "{:.2f} s",
    "frequency_hz": "{:.0f} Hz",
    "x": "{:.0%} from the left",
    "y": "{:.0%} from the top",
}


def model_text(row: Mapping[str, Any]) -> str:
    """A row of the list of models: what it is, whether it is here, what is amiss."""
    state = "here" if row["available"] else "not here"
    count = f"{len(row['labels'])} labels" if row["labels"] else "labels unknown"
    head = f"{row['name']:<20} {row['task']:<12} {row['source']}, {state}; {count}"
    return f"{head}\n{'':<20} {row['note']}" if row["note"] else head


def report_text(report: Report) -> str:
    """A report for a person at a terminal: the answer, the labels as bars, where it looked."""
    decision = report.decision
    shown = report.predictions[:10]
    width = max(len(prediction.label) for prediction in shown)
    answer = _UNSAID[decision.kind] if decision.label is None else decision.label
    more = [label for label in decision.findings if label != decision.label]
    also = f", also {', '.join(more)}" if more else ""
    lines = [f"{report.file}: {answer} ({decision.probability:.2f}){also}"]
    lines += [decision.reason] if decision.reason else []
    for prediction in shown:
        ends = prediction.interval
        between = f" {ends[0]:.2f}-{ends[1]:.2f}" if ends else ""
        bar = "█" * round(30 * prediction.probability)
        line = f"  {prediction.label:<{width}} {prediction.probability:5.2f}{between} {bar}"
        lines.append(line.rstrip())
    if report.uncertainty:
        lines.append(
            f"The second numbers: lowest and highest of {report.uncertainty['passes']} slight "
            "variations of the film."
        )
    for explanation in report.explanations[:1]:
        peak = ", ".join(_PEAK[name].format(value) for name, value in explanation.peak.items())
        lines.append(f"{explanation.explainer} for {explanation.target} peaks at {peak}.")
        if explanation.faithfulness:
            lines.append(explanation.faithfulness["sentence"])
    model = report.model
    lines.append(f"{model.name} ({model.source}, sha256 {model.sha256[:12]}) on {model.device}.")
    lines += [f"Warning: {said}" for said in report.warnings if said != decision.reason]
    return "\n".join([*lines, DISCLAIMER])


def evaluation_text(result: Mapping[str, Any]) -> str:
    """Measured figures with their intervals."""
    lines = [f"{result['model']} on {result['data']}: n = {result['n']}, groups {result['groups']}"]
    lines += [f"  {name:<20} {_figure(metric)}" for name, metric in result["metrics"].items()]
    each = result.get("per_class", {})
    names = list(dict.fromkeys(name for row in each.values() for name in row))
    if names:
        lines += ["", "| label | " + " | ".join(names) + " |", "| --- " * (len(names) + 1) + "|"]
    for label, row in each.items():
        cells = (_figure(row[name]) if name in row else "" for name in names)
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    for name, part in result.get("parts", {}).items():
        lines += ["", f"{name}: n = {part['n']}, groups {part['groups']}"]
        lines += [f"  {name:<20} {_figure(metric)}" for name, metric in part["metrics"].items()]
    return "\n".join(lines)


_TABLE = ("accuracy", "balanced_accuracy", "auroc", "sensitivity", "specificity", "ece")


def figures_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Measured figures of the models as a Markdown table, with what they were measured on."""
    lines = ["| model | measured on | " + " | ".join(_TABLE) + " |"]
    lines.append("| --- " * (len(_TABLE) + 2) + "|")
    for row in rows:
        metrics = row["metrics"]
        if not metrics:
            continue
        cells = [_figure(metrics[name]) if name in metrics else "" for name in _TABLE]
        lines.append(f"| `{row['name']}` | {row['measured_on']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _figure(metric: Mapping[str, float | None]) -> str:
    value, low, high = (metric[key] for key in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return "not defined"
    return f"{value:.3f} ({low:.3f}-{high:.3f})"
