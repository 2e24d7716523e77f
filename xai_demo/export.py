"""Answers in plain text, for a terminal.

An answer as files: report.json, overlay.png, heatmap.npy; of a recording also explanation.wav,
its events as events.csv and events.txt, and the sound after each step of the signal path.

Events as text to take away: a table for a spreadsheet, a label track for Audacity. Pure.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xai_demo.errors import UnsuitableError
from xai_demo.files import write_atomically
from xai_demo.records import DISCLAIMER, Analysis, Event, Report

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


def metrics_table(rows: Sequence[Mapping[str, Any]]) -> str:
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


pass  # REMOVED

if TYPE_CHECKING:
    from xai_demo.records import Floats

_STAGES = ("raw", "filtered", "denoised")


def write(
    analysis: Analysis, directory: Path, more: Mapping[str, Any] | None = None
) -> tuple[Path, ...]:
    """Write the answer's files, each whole or not at all, and return them; `more` joins the report.

    A file of an earlier answer that this one has not (no heat, no sound) is removed, lest it be
    taken for this one's.
    """
    contents = _contents(analysis, more or {})
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            if content is None:
                (directory / name).unlink(missing_ok=True)
            else:
                write_atomically(directory / name, content)
    except OSError as error:
        raise UnsuitableError(
            f"{directory} cannot be written: {error.strerror}; wanted: a directory."
        ) from error
    return tuple(directory / name for name, content in contents.items() if content is not None)


def _contents(analysis: Analysis, more: Mapping[str, Any]) -> dict[str, bytes | None]:
    report = analysis.report
    text = json.dumps({**report.to_json(), **more}, indent=2, ensure_ascii=False, allow_nan=False)
    return {
        "report.json": f"{text}\n".encode(),
        "overlay.png": _overlay(analysis),
        "heatmap.npy": _heatmap(analysis),
        "explanation.wav": _sound(analysis, analysis.sounds.get("explanation")),
        "events.csv": events_csv(report.events).encode() if analysis.timeline else None,
        "events.txt": audacity_labels(report.events).encode() if analysis.timeline else None,
        **{f"{name}.wav": _sound(analysis, analysis.stages.get(name)) for name in _STAGES},
    }


def _overlay(analysis: Analysis) -> bytes:
    from xai_demo.render import overlay_figure

    report, file = analysis.report, io.BytesIO()
    explanation = report.explanations[0] if report.explanations else None
    title = f"{explanation.target} by {explanation.explainer}" if explanation else report.file
    overlay_figure(analysis.view, explanation, events=report.events, title=title).save(file, "PNG")
    return file.getvalue()


def _heatmap(analysis: Analysis) -> bytes | None:
    import numpy as np

    if not analysis.report.explanations:
        return None
    file = io.BytesIO()
    np.save(file, np.asarray(analysis.report.explanations[0].heatmap, np.float32))
    return file.getvalue()


def _sound(analysis: Analysis, samples: Floats | None) -> bytes | None:
    if samples is None or analysis.sample_rate_hz is None:
        return None
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, samples, analysis.sample_rate_hz, format="WAV", subtype="PCM_16")
    return file.getvalue()


EVENT_COLUMNS = ("label", "start_s", "end_s", "probability")

_FORMULA = ("=", "+", "-", "@")  # a spreadsheet takes a cell that starts so for a program


def events_csv(events: Iterable[Event]) -> str:
    """A table under COLUMNS, one event a row: seconds to the millisecond, RFC 4180."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(EVENT_COLUMNS)
    for event in events:
        times = f"{event.start_s:.3f}", f"{event.end_s:.3f}"
        writer.writerow([_cell(event.label), *times, f"{event.probability:.4f}"])
    return text.getvalue()


def audacity_labels(events: Iterable[Event]) -> str:
    """A label track: start, end and label between tabs, one event a line."""
    lines = (
        f"{event.start_s:.6f}\t{event.end_s:.6f}\t{_one_line(event.label)}\n" for event in events
    )
    return "".join(lines)


def _cell(text: str) -> str:
    """Text that a spreadsheet shows and does not run (OWASP, CSV injection)."""
    clean = _one_line(text)
    return f"'{clean}" if clean.lstrip("' ").startswith(_FORMULA) else clean


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
