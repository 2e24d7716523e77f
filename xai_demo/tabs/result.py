"""What stands round the picture: the answer, the bars, warnings, and the other states (pure).

What was brought, before anything is asked about it: the film, small, and what it is.
"""

from __future__ import annotations

from html import escape

import numpy as np

from xai_demo.catalog import MODELS
from xai_demo.decision import points
from xai_demo.errors import XaiDemoError
from xai_demo.records import Analysis, Model, Prediction, Radiograph
from xai_demo.tabs import phrases
from xai_demo.tabs.comparison import comparison_html
from xai_demo.tabs.figure import figure_html, image_uri
from xai_demo.tabs.requests import Analyser, Refusal, forget_patient
from xai_demo.tabs.timeline import events_table, has_timeline, timeline_html

_BARS = 10
_UNSAID = {"nothing found": "No finding", "no answer": "No answer"}
_WITHHELD = (
    "The picture was stopped before the model's answer. What the network makes of it is shown all "
    "the same; it does not count as an answer."
)


def answer_html(analysis: Analysis, model: Model, second: Analysis | Refusal | None = None) -> str:
    """The answer, its bars and its picture; and beside it the heat of a second explainer."""
    return (
        f'<div class="xai-result" data-state="answered">{_gate_notice_above(analysis)}{_warnings(analysis)}'
        f'<div class="xai-answer">{_headline(analysis, model)}{_bars(analysis, model)}</div>'
        f"{figure_html(analysis)}{_comparison(analysis, second)}{timeline_html(analysis)}"
        f"{_events(analysis)}{_provenance(analysis, model)}</div>"
    )


def _events(analysis: Analysis) -> str:
    told = analysis.report.task == "stethoscope" or has_timeline(analysis)
    return events_table(analysis) if told else ""


def _comparison(analysis: Analysis, second: Analysis | Refusal | None) -> str:
    if isinstance(second, Refusal):
        return (
            '<p class="xai-notice xai-warning" role="note">There is nothing to compare with: '
            f"{escape(second.message)}</p>"
        )
    if second is None or not (analysis.report.explanations and second.report.explanations):
        return ""
    return comparison_html(analysis, second)


def empty_html(invitation: str) -> str:
    """What is shown before anything was asked."""
    return (
        '<div class="xai-result" data-state="empty"><div class="xai-empty">'
        f"<p>{escape(invitation)}</p></div></div>"
    )


def refusal_html(message: str, *, advice: str, title: str = "This could not be analysed") -> str:
    """What was met, what is wanted, what to try."""
    return (
        '<div class="xai-result" data-state="refused"><div class="xai-notice xai-refused" '
        f'role="alert"><h3>{escape(title)}</h3><p>{escape(message)}</p>'
        f'<p class="xai-quiet">{escape(advice)}</p></div></div>'
    )


def _gate_notice_above(analysis: Analysis) -> str:
    """The verdict, unless it stands above with what can be done about it."""
    return "" if analysis.report.decision.kind == "no answer" else gate_notice(analysis)


def gate_notice(analysis: Analysis) -> str:
    """What the gate says of a radiograph that is none, or that stands otherwise."""
    gate = analysis.report.input.get("gate", {})
    if not gate.get("sentence") or gate.get("corrected"):
        return ""
    stopped = analysis.report.decision.kind == "no answer"
    kind, role = ("refused", "alert") if stopped else ("warning", "note")
    return (
        f'<div class="xai-notice xai-{kind} xai-verdict" role="{role}">'
        f"<p>{escape(gate['sentence'])}</p></div>"
    )


def _headline(analysis: Analysis, model: Model) -> str:
    decision = analysis.report.decision
    uncertain = decision.label is None
    label = (
        _UNSAID.get(decision.kind, "Uncertain")
        if decision.label is None
        else phrases.display_label(decision.label)
    )
    kind = (
        "uncertain" if uncertain else "normal" if decision.label == model.normal_label else "found"
    )
    number = (
        ""
        if uncertain
        else f'<span class="xai-number">{escape(phrases.percent(decision.probability))}</span>'
    )
    return (
        f'<div class="xai-headline xai-{kind}" role="status">'
        f'<p class="xai-kicker">{escape(_file_line(analysis))}</p>'
        f'<p class="xai-label">{escape(label)} {number}</p>{_other_findings(analysis)}'
        f'<p class="xai-reason">{escape(_reason(analysis))}</p>{_stability(analysis, model)}'
        f"{_stand_in_note(analysis, model)}</div>"
    )


def _stand_in_note(analysis: Analysis, model: Model) -> str:
    """Beside the answer of a stand-in, which network that was and what it cannot know."""
    entry = MODELS.get(analysis.report.model.name)
    if entry is None or entry.stand_in_for is None:
        return ""
    bound = (
        " Whatever it is given, it knows no other names." if model.activation == "softmax" else ""
    )
    return (
        f'<p class="xai-quiet xai-in-stead">{escape(analysis.report.model.name)} said so, the '
        f"small network that stands in for {escape(entry.stand_in_for)}. It tells "
        f"{len(model.labels)} kinds of sound apart.{bound}</p>"
    )


def _file_line(analysis: Analysis) -> str:
    film = (
        phrases.radiograph_summary(analysis.report.input)
        if analysis.report.task == "chest_xray"
        else ""
    )
    return " · ".join(filter(None, (analysis.report.file, film)))


def _reason(analysis: Analysis) -> str:
    stopped = analysis.report.decision.kind == "no answer"
    return _WITHHELD if stopped else analysis.report.decision.reason


def _other_findings(analysis: Analysis) -> str:
    """The findings beside the one in large type."""
    by_label = {p.label: p.probability for p in analysis.report.predictions}
    others = [
        f"{phrases.display_label(label)} {phrases.percent(by_label[label])}"
        for label in analysis.report.decision.findings
        if label != analysis.report.decision.label
    ]
    return f'<p class="xai-others">and {escape(phrases.join_words(others))}</p>' if others else ""


def _stability(analysis: Analysis, model: Model) -> str:
    """In words, how steady the answer is; of no finding, the nearest."""
    report = analysis.report
    if report.uncertainty is None or report.decision.kind == "no answer":
        return ""
    of = points(model)
    label = report.decision.label
    if label is None:
        nearest = max(report.predictions, key=lambda p: p.probability / of.get(p.label, 0.5))
        label = nearest.label
    prediction = next(p for p in report.predictions if p.label == label)
    said = phrases.stability(prediction, of.get(label), report.uncertainty["passes"])
    return f'<p class="xai-quiet xai-steady">{escape(said)}</p>' if said else ""


def _bars(analysis: Analysis, model: Model) -> str:
    predictions = analysis.report.predictions
    layers = {e.target: i for i, e in enumerate(analysis.report.explanations)}
    shown = list(predictions[:_BARS])
    shown += [p for p in predictions[_BARS:] if p.label in layers]
    line = analysis.timeline
    at = points(model, pooled=line is not None and len(line.starts_s) > 1)
    rows = "".join(_bar(p, at.get(p.label), layers.get(p.label)) for p in shown)
    count = len(predictions)
    which = (
        f"The {len(shown)} most probable of {count} labels" if count > len(shown) else "All labels"
    )
    marks = any(p.label in at for p in shown)
    counts = (
        "above it counts as found"
        if model.activation == "sigmoid"
        else "the answer is the label that stands highest against its own"
    )
    tick = f" The line in a bar is the label's operating point: {counts}." if marks else ""
    press = " Press a label to see its heat." if len(layers) > 1 else ""
    return (
        f'<div class="xai-bars"><ul>{rows}</ul>'
        f'<p class="xai-quiet">{which}.{press}{tick}{_calibration_note(analysis)}</p></div>'
    )


def _calibration_note(analysis: Analysis) -> str:
    """What the numbers are, and what the thin lines on the bars."""
    temperature = analysis.report.calibration.get("temperature")
    said = ""
    if temperature is not None:
        said = (
            " The probabilities are as the network gives them, not calibrated."
            if temperature == 1
            else f" The probabilities are calibrated on films held back from training (temperature "
            f"{temperature:.2g})."
        )
    if any(p.interval for p in analysis.report.predictions):
        said += " The thin line shows how far a probability moves where the film hardly does."
    return said if analysis.report.task == "chest_xray" else ""


def _bar(prediction: Prediction, operating_point: float | None, layer: int | None) -> str:
    label = escape(phrases.display_label(prediction.label))
    number = escape(phrases.percent(prediction.probability))
    tick = (
        ""
        if operating_point is None
        else f'<i class="xai-tick" style="left:{operating_point:.1%}" '
        f'title="Operating point {phrases.percent(operating_point)}"></i>'
    )
    inside = (
        f'<span class="xai-bar-label">{label}</span><span class="xai-track">'
        f'<i class="xai-fill" style="width:{prediction.probability:.1%}"></i>'
        f"{_interval_mark(prediction)}{tick}</span>"
        f'<span class="xai-bar-number">{number}</span>'
    )
    if layer is None:
        return f'<li><div class="xai-bar">{inside}</div></li>'
    return (
        f'<li><button type="button" class="xai-bar" data-target="{layer}" '
        f'aria-pressed="{str(layer == 0).lower()}" aria-label="{label}, {number}: show its heat">'
        f"{inside}</button></li>"
    )


def _interval_mark(prediction: Prediction) -> str:
    if prediction.interval is None:
        return ""
    low, high = prediction.interval
    said = f"{phrases.percent(low)} to {phrases.percent(high)}"
    return f'<i class="xai-range" style="left:{low:.1%};width:{high - low:.1%}" title="{said}"></i>'


def _warnings(analysis: Analysis) -> str:
    told = analysis.report.input.get("gate", {}).get("sentence")  # stands above
    warnings = [line for line in analysis.report.warnings if line != told]
    if not warnings:
        return ""
    lines = "".join(f"<li>{escape(line)}</li>" for line in warnings)
    return f'<div class="xai-notice xai-warning" role="note"><ul>{lines}</ul></div>'


def _provenance(analysis: Analysis, model: Model) -> str:
    total = sum(analysis.report.timing_ms.values())
    return (
        f'<p class="xai-quiet xai-source"><b>Who said so:</b> '
        f"{escape(phrases.provenance(analysis.report.model, model.title))} It took {total / 1000:.2g} s. "
        f"<b>Learned from:</b> {escape(model.data)}</p>"
    )


_PREVIEW_HEIGHT = 512  # pixels: more than twice what is shown


def preview_html(analyser: Analyser, path: str | None) -> str:
    """The film in the box as the reader has it; why not, where it cannot be read."""
    if not path:
        return ""
    forget_patient(path)
    try:
        film = analyser.radiograph(path)
    except XaiDemoError as error:
        return f'<p class="xai-notice xai-refused" role="alert">{escape(str(error))}</p>'
    doubt = f'<p class="xai-notice xai-warning">{escape(film.doubt)}</p>' if film.doubt else ""
    return (
        f'<figure><img alt="Your picture" src="{_preview_uri(film)}">'
        f'<figcaption class="xai-quiet">{escape(phrases.radiograph_summary(film.facts))}</figcaption></figure>'
        f"{doubt}"
    )


def _preview_uri(film: Radiograph) -> str:
    from PIL import Image

    step = max(
        1, min(film.pixels.shape) // _PREVIEW_HEIGHT
    )  # 100 megapixels need not be made bytes of
    thin = np.rint(255 * film.pixels[::step, ::step]).astype(np.uint8)
    picture = Image.fromarray(thin)
    picture.thumbnail((2 * _PREVIEW_HEIGHT, _PREVIEW_HEIGHT))
    return image_uri(np.asarray(picture))
