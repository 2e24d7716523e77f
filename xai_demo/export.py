"""What a result becomes outside the page: text for a terminal, files in a folder, event tables.

`write` creates report.json, overlay.png and heatmap.npy; for a recording also explanation.wav, its
events as events.csv and events.txt, and the sound after each step of the signal path.
"""

from __future__ import annotations

import csv
import io
import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xai_demo.decision import age_phrase
from xai_demo.errors import UnsuitableError
from xai_demo.files import write_atomically
from xai_demo.records import DISCLAIMER, Analysis, Event, Explanation, Report

if TYPE_CHECKING:
    from xai_demo.records import Floats

# What is printed for a decision without a label, by its kind.
_NO_LABEL = {
    "answer": "uncertain",
    "uncertain": "uncertain",
    "nothing found": "no finding",
    "no answer": "no answer",
}
# The coordinates of a peak: the first two in a sound, the last two in an image.
_PEAK_FORMATS = {
    "time_s": "{:.2f} s",
    "frequency_hz": "{:.0f} Hz",
    "x": "{:.0%} from the left",
    "y": "{:.0%} from the top",
}
# AudioSet has 527 labels: the terminal shows the most probable only.
_MAX_PREDICTIONS = 10
_BAR_LENGTH = 30
_TABLE_METRICS = ("accuracy", "balanced_accuracy", "auroc", "sensitivity", "specificity", "ece")
_SHORT_TABLE_METRICS = ("accuracy", "auroc")
_STAGES = ("raw", "filtered", "denoised")
EVENT_COLUMNS = ("label", "start_s", "end_s", "probability")
# A spreadsheet interprets a cell that starts with one of these as a formula.
_FORMULA_STARTS = ("=", "+", "-", "@")


def model_text(row: Mapping[str, Any]) -> str:
    """A row of the list of models: what it is, on whom it was trained, for whom it is meant."""
    state = "installed" if row["available"] else "not installed"
    count = f"{len(row['labels'])} labels" if row["labels"] else "labels unknown"
    default = ", answers by default" if row.get("default") else ""
    head = f"{row['name']:<20} {row['task']:<12} {row['source']}, {state}{default}; {count}"
    data = f"Trained on: {row['data']}" if row.get("data") else ""
    texts = filter(None, (row["note"], row.get("meant_for"), data))
    indent = " " * 21
    return "\n".join(
        [
            head,
            *(
                textwrap.fill(t, 100, initial_indent=indent, subsequent_indent=indent)
                for t in texts
            ),
        ]
    )


def report_text(report: Report) -> str:
    """A report for the terminal: the answer, the probabilities as bars, the heatmap's peak."""
    decision = report.decision
    predictions = report.predictions[:_MAX_PREDICTIONS]
    width = max(len(prediction.label) for prediction in predictions)
    answer = _NO_LABEL[decision.kind] if decision.label is None else decision.label
    # The decision names the first finding; the others follow it.
    more = [label for label in decision.findings if label != decision.label]
    also = f", also {', '.join(more)}" if more else ""
    lines = [f"{report.file}: {answer} ({decision.probability:.2f}){also}"]
    lines += [decision.reason] if decision.reason else []
    known = report.input.get("age", {})
    unfit = known.get("mismatch", "")
    # Beside the answer, and not among the warnings: it takes the answer back.
    lines += [f"Warning: {unfit}"] if unfit else []
    if phrase := age_phrase(known):
        lines.append(f"Read as {phrase}.")
    for prediction in predictions:
        ends = prediction.interval
        interval = f" {ends[0]:.2f}-{ends[1]:.2f}" if ends else ""
        bar = "█" * round(_BAR_LENGTH * prediction.probability)
        line = f"  {prediction.label:<{width}} {prediction.probability:5.2f}{interval} {bar}"
        lines.append(line.rstrip())
    if report.uncertainty:
        lines.append(
            f"The ranges: lowest and highest over {report.uncertainty['passes']} slight variations "
            "of the radiograph."
        )
    # The first explanation is the target's, and the only one with a faithfulness test.
    for explanation in report.explanations[:1]:
        peak = ", ".join(
            _PEAK_FORMATS[name].format(value) for name, value in explanation.peak.items()
        )
        lines.append(f"{explanation.explainer} for {explanation.target} peaks at {peak}.")
        if explanation.faithfulness:
            lines.append(explanation.faithfulness["sentence"])
        if explanation.inside_lungs:
            lines.append(explanation.inside_lungs["sentence"])
    lines += _inside_lungs(report.explanations[1:])
    model = report.model
    lines.append(f"{model.name} ({model.source}, sha256 {model.sha256[:12]}) on {model.device}.")
    # The reason of the decision is often one of the warnings, and is printed already.
    lines += [
        f"Warning: {text}" for text in report.warnings if text not in (decision.reason, unfit)
    ]
    lines += [report.suggestion] if report.suggestion else []
    return "\n".join([*lines, DISCLAIMER])


def _inside_lungs(explanations: Sequence[Explanation]) -> list[str]:
    shares = [
        f"{each.target} {100 * each.inside_lungs['share']:.0f} %"
        for each in explanations
        if each.inside_lungs
    ]
    return [f"Of the other heatmaps, inside the lungs: {', '.join(shares)}."] if shares else []


def evaluation_text(result: Mapping[str, Any]) -> str:
    """The result of `evaluate` for the terminal: each metric with its 95 % interval."""
    lines = [f"{result['model']} on {result['data']}: n = {result['n']}, groups {result['groups']}"]
    lines += [f"  {name:<20} {_interval(metric)}" for name, metric in result["metrics"].items()]
    by_label = result.get("per_class", {})
    # Labels may have different metrics: the columns are their union, in order of appearance.
    names = list(dict.fromkeys(name for row in by_label.values() for name in row))
    if names:
        lines += ["", "| label | " + " | ".join(names) + " |", "| --- " * (len(names) + 1) + "|"]
    for label, row in by_label.items():
        cells = (_interval(row[name]) if name in row else "" for name in names)
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    for name, part in result.get("parts", {}).items():
        lines += ["", f"{name}: n = {part['n']}, groups {part['groups']}"]
        lines += [f"  {name:<20} {_interval(metric)}" for name, metric in part["metrics"].items()]
    return "\n".join(lines)


def metrics_table(rows: Sequence[Mapping[str, Any]], *, short: bool = False) -> str:
    """The models' metrics as a Markdown table, with what they were measured on.

    `short` leaves accuracy and AUROC only.
    """
    names = _SHORT_TABLE_METRICS if short else _TABLE_METRICS
    heads = ["model", *([] if short else ["measured on"]), *names]
    lines = ["| " + " | ".join(heads) + " |", "| --- " * len(heads) + "|"]
    for row in rows:
        metrics = row["metrics"]
        if not metrics:
            continue
        cells = [f"`{row['name']}`", *([] if short else [row["measured_on"]])]
        cells += [_interval(metrics[name]) if name in metrics else "" for name in names]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _interval(metric: Mapping[str, float | None]) -> str:
    value, low, high = (metric[key] for key in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return "not defined"
    return f"{value:.3f} ({low:.3f}-{high:.3f})"


def write(
    analysis: Analysis, directory: Path, more: Mapping[str, Any] | None = None
) -> tuple[Path, ...]:
    """Write the result's files, each completely or not at all, and return their paths.

    `more` is merged into report.json. Raises UnsuitableError if the directory cannot be written.
    """
    # All contents first: a failure while drawing leaves the directory as it was.
    contents = _contents(analysis, more or {})
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            # A file of an earlier result (a heatmap, a sound) would be taken for this one's.
            if content is None:
                (directory / name).unlink(missing_ok=True)
            else:
                write_atomically(directory / name, content)
    except OSError as error:
        raise UnsuitableError(
            f"{directory} cannot be written ({error.strerror}); choose a writable directory."
        ) from error
    return tuple(directory / name for name, content in contents.items() if content is not None)


def _contents(analysis: Analysis, more: Mapping[str, Any]) -> dict[str, bytes | None]:
    report = analysis.report
    # RFC 8259 has no NaN, so one is an error here rather than in the program that reads the file.
    text = json.dumps({**report.to_json(), **more}, indent=2, ensure_ascii=False, allow_nan=False)
    return {
        "report.json": f"{text}\n".encode(),
        "overlay.png": _overlay_png(analysis),
        "heatmap.npy": _heatmap_npy(analysis),
        "explanation.wav": _wav(analysis, analysis.sounds.get("explanation")),
        "events.csv": events_csv(report.events).encode() if analysis.timeline else None,
        "events.txt": audacity_labels(report.events).encode() if analysis.timeline else None,
        **{f"{name}.wav": _wav(analysis, analysis.stages.get(name)) for name in _STAGES},
    }


def _overlay_png(analysis: Analysis) -> bytes:
    from xai_demo.render import overlay_figure

    report, file = analysis.report, io.BytesIO()
    explanation = report.explanations[0] if report.explanations else None
    title = f"{explanation.target} by {explanation.explainer}" if explanation else report.file
    if explanation and explanation.inside_lungs:
        title += f", {100 * explanation.inside_lungs['share']:.0f} % of it inside the lungs"
    overlay_figure(analysis.view, explanation, events=report.events, title=title).save(file, "PNG")
    return file.getvalue()


def _heatmap_npy(analysis: Analysis) -> bytes | None:
    import numpy as np

    if not analysis.report.explanations:
        return None
    file = io.BytesIO()
    np.save(file, np.asarray(analysis.report.explanations[0].heatmap, np.float32))
    return file.getvalue()


def _wav(analysis: Analysis, samples: Floats | None) -> bytes | None:
    if samples is None or analysis.sample_rate_hz is None:
        return None
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, samples, analysis.sample_rate_hz, format="WAV", subtype="PCM_16")
    return file.getvalue()


def events_csv(events: Iterable[Event]) -> str:
    """Events as a CSV table (RFC 4180) with the columns EVENT_COLUMNS, times to the millisecond.

    >>> events_csv([Event(label="wheeze", start_s=0.8, end_s=1.4, probability=0.83)]).splitlines()
    ['label,start_s,end_s,probability', 'wheeze,0.800,1.400,0.8300']
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(EVENT_COLUMNS)
    for event in events:
        times = f"{event.start_s:.3f}", f"{event.end_s:.3f}"
        writer.writerow([_csv_cell(event.label), *times, f"{event.probability:.4f}"])
    return text.getvalue()


def audacity_labels(events: Iterable[Event]) -> str:
    """Events as an Audacity label track: start, end and label, separated by tabs, one a line."""
    lines = (
        f"{event.start_s:.6f}\t{event.end_s:.6f}\t{_one_line(event.label)}\n" for event in events
    )
    return "".join(lines)


def _csv_cell(text: str) -> str:
    """Text that a spreadsheet displays instead of running (OWASP, CSV injection)."""
    # On one line first: the check must see the first character that is displayed.
    clean = _one_line(text)
    return f"'{clean}" if clean.lstrip("' ").startswith(_FORMULA_STARTS) else clean


def _one_line(text: str) -> str:
    # Control characters become blanks first, so that tabs and line breaks collapse with them.
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
