"""The details of one answer: performance, provenance, timing, downloads, Python snippet.

All functions are pure. Downloads are embedded in the page, so that nothing derived from a visitor's
file is stored on the server.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo import render
from xai_demo.export import events_csv
from xai_demo.records import Analysis, Model, ModelInUse
from xai_demo.tabs import phrases
from xai_demo.tabs.timeline import download_link

if TYPE_CHECKING:
    from PIL.Image import Image

# The keys of a model's metrics; a metric without an entry is shown by its key.
_METRICS = {
    "auroc": "AUROC (1 is perfect, 0.5 is chance)",
    "auroc_abnormal": "AUROC, abnormal against normal",
    "accuracy": "Accuracy (share of correct answers)",
    "balanced_accuracy": "Balanced accuracy (mean recall over the labels)",
    "balanced_accuracy_3": "Balanced accuracy of normal, crackle and wheeze",
    "precision": "Precision (share of positive answers that are correct)",
    "recall": "Recall (share of cases detected)",
    "f1": "F1 score (harmonic mean of precision and recall)",
    "sensitivity": "Sensitivity (share of abnormal cases detected)",
    "specificity": "Specificity (share of normal cases recognised as normal)",
    "average_score": "Average score (mean of sensitivity and specificity)",
    "harmonic_score": "Harmonic score (harmonic mean of sensitivity and specificity)",
    "total_score": "Total score (mean of average and harmonic score)",
    "sensitivity_4": "Sensitivity, exact label",
    "specificity_4": "Specificity, exact label",
    "average_score_4": "Average score, exact label",
    "harmonic_score_4": "Harmonic score, exact label",
    "total_score_4": "Total score, exact label",
    "icbhi_score": "ICBHI score (average score on ICBHI's official test)",
    "ece": "Expected calibration error (0 is perfect)",
}
# What the keys of the report's input end in, where they name a unit.
_UNITS = {
    "s": "s",
    "hz": "Hz",
    "db": "dB",
    "dbfs": "dBFS",
    "deg": "degrees",
}
# The keys of the report's timing.
_STEPS = {
    "read": "Time to read the file",
    "prepare": "Time to preprocess it",
    "gate": "Time to check that it is a frontal chest X-ray",
    "predict": "Time to predict",
    "uncertainty": "Time for test-time augmentation",
    "explain": "Time to explain",
    "faithfulness": "Time for the faithfulness test",
    "render": "Time to draw",
}


def details_html(analysis: Analysis, model: Model) -> str:
    """Return everything a careful reader may want to know about one answer."""
    return (
        '<div class="xai-details">'
        f"{_section('Model performance', _performance(model))}"
        f"{_section('Model and weights', _origin(analysis.report.model, model))}"
        f"{_section('Input and timing', _facts_and_timing(analysis))}"
        f"{_section('Downloads', _downloads(analysis))}"
        f"{_section('The same analysis from Python', _snippet(analysis))}"
        "</div>"
    )


def _section(title: str, inside: str) -> str:
    return f"<section><h2>{title}</h2>{inside}</section>"


def _table(rows: list[tuple[str, str]]) -> str:
    cells = "".join(f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in rows)
    return f'<div class="xai-scroll"><table>{cells}</table></div>'


def _performance(model: Model) -> str:
    rows = [
        (_METRICS.get(name, name), f"{m.value:.3f} ({m.low:.3f} to {m.high:.3f})")
        for name, m in model.metrics.items()
    ]
    table = _table(rows) if rows else "<p>This model has not been evaluated yet.</p>"
    notes = (
        ["In brackets: 95 % bootstrap interval, resampled by patient or source."] if rows else []
    )
    notes += [f"Evaluated on: {model.measured_on}"] if model.measured_on else []
    notes += [f"Trained on: {model.data}"]
    return table + "".join(f'<p class="xai-quiet">{escape(note)}</p>' for note in notes)


def _origin(used: ModelInUse, model: Model) -> str:
    return _table(
        [
            ("Model", f"{model.title} ({used.name})"),
            ("Architecture", used.architecture),
            ("Source", used.source),
            ("Repository", used.repo_id or "none (bundled with this project)"),
            ("Revision", used.revision or "none"),
            ("SHA-256", used.sha256),
            ("Backend", f"{used.backend} on {used.device}"),
            ("Licence", model.licence),
            ("Citation", model.citation),
        ]
    )


def _flatten(facts: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield facts one by one; nested ones are named after their group, as in "window center"."""
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from ((f"{name} {inner}", v) for inner, v in _flatten(value))
        else:
            yield name, value


def _fact_name(name: str) -> str:
    """Return a key of the report's input as a title.

    >>> _fact_name("sample_rate_hz"), _fact_name("gate turn_deg")
    ('Sample rate (Hz)', 'Gate turn (degrees)')
    """
    # The keys end in their unit, such as sample_rate_hz.
    stem, _, suffix = name.rpartition("_")
    words = f"{stem} ({_UNITS[suffix]})" if suffix in _UNITS else name
    words = words.replace("_", " ")
    return words[:1].upper() + words[1:]


def _fact_value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _facts_and_timing(analysis: Analysis) -> str:
    facts = [
        (_fact_name(name), _fact_value(value))
        for name, value in _flatten(analysis.report.input)
        if isinstance(value, str | int | float | bool) and value != ""
    ]
    explained = [
        row
        for e in analysis.report.explanations[:1]
        for row in (
            ("Explainer", e.explainer),
            ("Explained layer", e.layer),
            ("Extra forward passes for the heatmap", str(e.passes or "none")),
        )
    ]
    steps = [
        (_STEPS.get(name, name), f"{spent_ms:.0f} ms")
        for name, spent_ms in analysis.report.timing_ms.items()
    ]
    return _table(facts + explained + steps)


def _downloads(analysis: Analysis) -> str:
    report = report_json(analysis).encode()
    links = [download_link("overlay.png", "image/png", _overlay_png(analysis), "Overlay image")]
    if analysis.report.explanations:
        heatmap = _heatmap_npy(analysis)
        links.append(download_link("heatmap.npy", "application/octet-stream", heatmap, "Heatmap"))
    links.append(download_link("report.json", "application/json", report, "Report"))
    if analysis.report.events:
        table = events_csv(analysis.report.events).encode()
        links.append(download_link("events.csv", "text/csv", table, "Events"))
    return f'<p class="xai-downloads">{"".join(links)}</p>'


def overlay(analysis: Analysis) -> Image:
    """Return the input under the heatmap of the target label, as a finished figure."""
    first = analysis.report.explanations[0] if analysis.report.explanations else None
    title = (
        f"{phrases.display_label(first.target)} {phrases.percent(first.probability)}"
        if first
        else ""
    )
    return render.overlay_figure(analysis.view, first, events=analysis.report.events, title=title)


def _overlay_png(analysis: Analysis) -> bytes:
    stream = io.BytesIO()
    overlay(analysis).save(stream, "PNG")
    return stream.getvalue()


def report_json(analysis: Analysis) -> str:
    """Return the report as the command line's `--json` prints it."""
    return json.dumps(analysis.report.to_json(), indent=1, ensure_ascii=False)


def _heatmap_npy(analysis: Analysis) -> bytes:
    # At the size of the network's input; the report has the coarse values.
    heatmap = analysis.report.explanations[0].heatmap.astype(np.float32)
    stream = io.BytesIO()
    np.save(stream, heatmap, allow_pickle=False)
    return stream.getvalue()


def _snippet(analysis: Analysis) -> str:
    report = analysis.report
    first = report.explanations[0] if report.explanations else None
    # layout.py fills in the page's address, which the server cannot know.
    # JSON quotes texts as Python does; escaped, a visitor's file name cannot become markup.
    lines = [
        "from gradio_client import Client, handle_file",
        "",
        'client = Client("<span data-here>http://127.0.0.1:7860/</span>")',
        "report, *rest = client.predict(",
        f"    handle_file({escape(json.dumps(report.file))}),",
        f"    model={escape(json.dumps(report.model.name))},",
    ]
    if first:
        lines += [
            f"    explainer={escape(json.dumps(first.explainer))},",
            f"    target={escape(json.dumps(first.target))},",
            f"    layer={escape(json.dumps(first.layer))},",
        ]
    # Only radiographs have a gate, and only their endpoint knows the argument.
    film = report.input.get("gate", {}).get("film", "checked")
    lines += [f"    film={escape(json.dumps(film))},"] if film != "checked" else []
    lines += [f'    api_name="/{report.task}",', ")", 'print(report["predictions"][0])']
    # A scrolling area needs a tabindex to be scrolled by keyboard. Before Python 3.12, an f-string
    # has no backslash in its expressions, hence chr(10).
    return f'<pre tabindex="0"><code>{chr(10).join(lines)}</code></pre>'
