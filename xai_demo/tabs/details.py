"""What stands under "Look closer": figures, origin, timing, downloads and the snippet (pure)."""

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

_METRICS = {
    "auroc": "AUROC (area under the ROC curve; 1 is perfect, 0.5 is chance)",
    "auroc_abnormal": "AUROC, abnormal against normal",
    "accuracy": "Accuracy (share of right answers)",
    "balanced_accuracy": "Balanced accuracy (mean over the labels)",
    "precision": "Precision (share of alarms that were right)",
    "recall": "Recall (share of cases found)",
    "f1": "F1 (precision and recall in one figure)",
    "sensitivity": "Sensitivity (share of the ill that were found)",
    "specificity": "Specificity (share of the healthy that were left alone)",
    "average_score": "Average score (mean of sensitivity and specificity)",
    "harmonic_score": "Harmonic score",
    "total_score": "Total score",
    "ece": "Calibration error (0 is perfect)",
}
_STEPS = {
    "read": "Reading the file",
    "prepare": "Preparing it",
    "gate": "Looking whether it is a frontal chest X-ray",
    "predict": "Predicting",
    "uncertainty": "Asking again about slight variations",
    "explain": "Explaining",
    "faithfulness": "Hiding what is hot and asking again",
    "render": "Drawing",
}


def details_html(analysis: Analysis, model: Model) -> str:
    """Everything a careful reader wants to know about one answer."""
    return (
        '<div class="xai-details">'
        f"{_section('How good this model is', _quality(model))}"
        f"{_section('Where the weights come from', _origin(analysis.report.model, model))}"
        f"{_section('What was read, and how long it took', _facts_and_timing(analysis))}"
        f"{_section('Take it with you', _downloads(analysis))}"
        f"{_section('The same from Python', _snippet(analysis))}"
        "</div>"
    )


def _section(title: str, inside: str) -> str:
    return f"<section><h3>{title}</h3>{inside}</section>"


def _table(rows: list[tuple[str, str]]) -> str:
    cells = "".join(f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in rows)
    return f'<div class="xai-scroll"><table>{cells}</table></div>'


def _quality(model: Model) -> str:
    rows = [
        (_METRICS.get(name, name), f"{m.value:.3f} ({m.low:.3f} to {m.high:.3f})")
        for name, m in model.metrics.items()
    ]
    measured = _table(rows) if rows else "<p>Nobody has measured this model here yet.</p>"
    notes = ["In brackets: 95 % bootstrap interval, drawn by person."] if rows else []
    notes += [f"Measured on: {model.measured_on}"] if model.measured_on else []
    notes += [f"Trained on: {model.data}"]
    return measured + "".join(f'<p class="xai-quiet">{escape(note)}</p>' for note in notes)


def _origin(used: ModelInUse, model: Model) -> str:
    return _table(
        [
            ("Model", f"{model.title} ({used.name})"),
            ("Architecture", used.architecture),
            ("Source", used.source),
            ("Repository", used.repo_id or "none: the file is part of this project"),
            ("Revision", used.revision or "none"),
            ("sha256", used.sha256),
            ("Runs with", f"{used.backend} on {used.device}"),
            ("Licence", model.licence),
            ("To cite", model.citation),
        ]
    )


def _flatten(facts: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What was read, with what is grouped named after its group: "window center"."""
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from ((f"{name} {inner}", v) for inner, v in _flatten(value))
        else:
            yield name, value


def _facts_and_timing(analysis: Analysis) -> str:
    facts = [
        (k.replace("_", " "), str(v))
        for k, v in _flatten(analysis.report.input)
        if isinstance(v, str | int | float | bool) and v != ""
    ]
    steps = [
        (_STEPS.get(name, name), f"{spent:.0f} ms")
        for name, spent in analysis.report.timing_ms.items()
    ]
    explained = [
        row
        for e in analysis.report.explanations[:1]
        for row in (
            ("Explainer", e.explainer),
            ("Explained layer", e.layer),
            ("Forward passes for the heat", str(e.passes or "none beside the answer's own")),
        )
    ]
    return _table(facts + explained + steps)


def _downloads(analysis: Analysis) -> str:
    links = [
        download_link("overlay.png", "image/png", _overlay_png(analysis), "Picture with heat"),
        download_link("report.json", "application/json", report_json(analysis).encode(), "Report"),
    ]
    if analysis.report.explanations:
        links.insert(
            1,
            download_link(
                "heatmap.npy", "application/octet-stream", _heatmap_npy(analysis), "Heatmap"
            ),
        )
    if analysis.report.events:
        table = events_csv(analysis.report.events).encode()
        links.append(download_link("events.csv", "text/csv", table, "Events"))
    return f'<p class="xai-downloads">{"".join(links)}</p>'


def overlay(analysis: Analysis) -> Image:
    """The picture with the heat of the label asked for, as a finished figure."""
    first = analysis.report.explanations[0] if analysis.report.explanations else None
    title = (
        f"{phrases.display_label(first.target)} {phrases.percent(first.probability)}"
        if first
        else ""
    )
    return render.overlay(analysis.view, first, events=analysis.report.events, title=title)


def _overlay_png(analysis: Analysis) -> bytes:
    stream = io.BytesIO()
    overlay(analysis).save(stream, "PNG")
    return stream.getvalue()


def report_json(analysis: Analysis) -> str:
    """The contract's report as text."""
    return json.dumps(analysis.report.to_json(), indent=1, ensure_ascii=False)


def _heatmap_npy(analysis: Analysis) -> bytes:
    stream = io.BytesIO()
    np.save(stream, analysis.report.explanations[0].heatmap.astype(np.float32), allow_pickle=False)
    return stream.getvalue()


def _snippet(analysis: Analysis) -> str:
    report = analysis.report
    first = report.explanations[0] if report.explanations else None
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
    film = report.input.get("gate", {}).get("film", "checked")
    lines += [f"    film={escape(json.dumps(film))},"] if film != "checked" else []
    lines += [f'    api_name="/{report.task}",', ")", 'print(report["predictions"][0])']
    return f'<pre tabindex="0"><code>{chr(10).join(lines)}</code></pre>'
