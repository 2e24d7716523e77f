"""The result area: the answer, its bars, its figure and warnings; and the page's other states.

All functions return HTML. Only `preview_html` has effects: it reads the uploaded file, after
removing what identifies the patient.
"""

from __future__ import annotations

import re
from html import escape

import numpy as np

from xai_demo.catalog import MODELS
from xai_demo.decision import age_phrase, operating_points
from xai_demo.errors import XaiDemoError
from xai_demo.records import Analysis, Model, Prediction, Radiograph
from xai_demo.service.logs import hide_paths
from xai_demo.tabs import phrases
from xai_demo.tabs.comparison import comparison_html
from xai_demo.tabs.controls import shown_name
from xai_demo.tabs.figure import figure_html, image_uri
from xai_demo.tabs.requests import Analyser, Refusal, raise_if_deleted, remove_patient_data
from xai_demo.tabs.timeline import events_table, has_timeline, timeline_html

# AudioSet has hundreds of labels, most of them near zero.
_MAX_BARS = 10
_NO_LABEL = {"nothing found": "No finding", "no answer": "No answer"}
_RAW_OUTPUT = (
    "No answer is given for this image. The raw model output is shown below for reference only."
)
# What the labels of a task are, for the note on a stand-in.
_LABEL_KINDS = {
    "stethoscope": "kinds of lung sound",
    "chest_xray": "chest X-ray findings",
    "audioset": "kinds of everyday sound",
}


def answer_html(analysis: Analysis, model: Model, second: Analysis | Refusal | None = None) -> str:
    """Return the answer with its bars and its figure, and a second heatmap to compare it with."""
    return (
        '<div class="xai-result" data-state="answered">'
        f"{_gate_notice_above(analysis)}{_mismatch(analysis)}{_warnings(analysis)}"
        f'<div class="xai-answer">{_headline(analysis, model)}{_bars(analysis, model)}</div>'
        f"{figure_html(analysis)}{_comparison(analysis, second)}{timeline_html(analysis)}"
        f"{_events(analysis)}{_provenance(analysis, model)}</div>"
    )


def _events(analysis: Analysis) -> str:
    # A lung sound without events is a result too, so its table says that there are none.
    has_table = analysis.report.task == "stethoscope" or has_timeline(analysis)
    return events_table(analysis) if has_table else ""


def _comparison(analysis: Analysis, second: Analysis | Refusal | None) -> str:
    if isinstance(second, Refusal):
        return (
            '<p class="xai-notice xai-warning" role="note">No comparison is available: '
            f"{escape(second.message)}</p>"
        )
    if second is None or not (analysis.report.explanations and second.report.explanations):
        return ""
    return _mismatch(second, "note") + comparison_html(analysis, second)


def empty_html(invitation: str) -> str:
    """Return the result area as it is before the first analysis."""
    return (
        '<div class="xai-result" data-state="empty"><div class="xai-empty">'
        f"<p>{escape(invitation)}</p></div></div>"
    )


def refusal_html(message: str, *, advice: str, title: str = "This could not be analysed") -> str:
    """Return why there is no answer, and what to try instead."""
    return (
        '<div class="xai-result" data-state="refused"><div class="xai-notice xai-refused" '
        f'role="alert"><h2>{escape(title)}</h2><p>{escape(message)}</p>'
        f'<p class="xai-quiet">{escape(advice)}</p></div></div>'
    )


def _gate_notice_above(analysis: Analysis) -> str:
    # Where the gate stopped an image, its notice stands above the result, next to two buttons.
    return "" if analysis.report.decision.kind == "no answer" else gate_notice(analysis)


def gate_notice(analysis: Analysis) -> str:
    """Return what the gate says about an image that is no upright frontal chest X-ray."""
    gate = analysis.report.input.get("gate", {})
    if not gate.get("sentence") or gate.get("corrected"):
        return ""
    stopped = analysis.report.decision.kind == "no answer"
    # An alert interrupts a screen reader: only where there is no answer.
    kind, role = ("refused", "alert") if stopped else ("warning", "note")
    return (
        f'<div class="xai-notice xai-{kind} xai-verdict" role="{role}">'
        f"<p>{escape(gate['sentence'])}</p></div>"
    )


def _mismatch(analysis: Analysis, role: str = "alert") -> str:
    """Return that the network is not meant for this patient: above the answer, which it undoes."""
    sentence = analysis.report.input.get("age", {}).get("mismatch", "")
    if not sentence:
        return ""
    return (
        f'<div class="xai-notice xai-warning xai-mismatch" role="{role}"><p>{escape(sentence)}</p>'
        "</div>"
    )


def _patient_line(analysis: Analysis) -> str:
    """Return whose radiograph it was read as, and a button that reads it as the other's."""
    known = analysis.report.input.get("age", {})
    phrase = age_phrase(known)
    if not phrase:
        return ""
    other, words = {
        "adult": ("child", "Read it as a child's"),
        "child": ("adult", "Read it as an adult's"),
    }[known["value"]]
    return (
        f'<p class="xai-quiet xai-patient">Read as {escape(phrase)}; change it here: '
        f'<button type="button" class="xai-link" data-age="{other}">{words}</button></p>'
    )


def _headline(analysis: Analysis, model: Model) -> str:
    decision = analysis.report.decision
    # Without an answer no number either: it would read as the answer's probability.
    if decision.label is None:
        kind, number = "uncertain", ""
        label = _NO_LABEL.get(decision.kind, "Uncertain")
    else:
        kind = "normal" if decision.label == model.normal_label else "found"
        label = phrases.display_label(decision.label)
        percent = phrases.percent(decision.probability)
        number = f'<span class="xai-number">{escape(percent)}</span>'
    return (
        f'<div class="xai-headline xai-{kind}" role="status">'
        f'<p class="xai-kicker">{escape(_file_line(analysis))}</p>'
        f'<p class="xai-label">{escape(label)} {number}</p>{_other_findings(analysis)}'
        f"{_patient_line(analysis)}"
        f'<p class="xai-reason">{escape(_reason(analysis))}</p>{_stability(analysis, model)}'
        f"{_stand_in_note(analysis, model)}</div>"
    )


def _stand_in_note(analysis: Analysis, model: Model) -> str:
    """Return which model answered, what it cannot know, and which better one is missing."""
    entry = MODELS.get(analysis.report.model.name)
    if entry is None or (entry.stand_in_for, entry.published_map) == (None, None):
        return ""
    role = f", a small stand-in for {entry.stand_in_for}" if entry.stand_in_for else ""
    limits = f"which knows {len(model.labels)} {_LABEL_KINDS[analysis.report.task]}"
    if model.activation == "softmax":
        # Its probabilities add up to one, so no input can be "none of them".
        limits += " and assigns every input to one of them"
    return (
        '<p class="xai-quiet xai-stand-in-note">Answered by '
        f"{escape(analysis.report.model.name)}{escape(role)}, {limits}."
        f" {_marked_code(analysis.report.suggestion)}</p>"
    )


def _marked_code(text: str) -> str:
    """Return a text as HTML, with what stands between backticks as code."""
    return re.sub("`(.+?)`", r"<code>\1</code>", escape(text))


def _file_line(analysis: Analysis) -> str:
    report = analysis.report
    summary = phrases.radiograph_summary(report.input) if report.task == "chest_xray" else ""
    return " · ".join(filter(None, (report.file, summary)))


def _reason(analysis: Analysis) -> str:
    stopped = analysis.report.decision.kind == "no answer"
    return _RAW_OUTPUT if stopped else analysis.report.decision.reason


def _other_findings(analysis: Analysis) -> str:
    """Return the findings other than the one in large type."""
    by_label = {p.label: p.probability for p in analysis.report.predictions}
    others = [
        f"{phrases.display_label(label)} {phrases.percent(by_label[label])}"
        for label in analysis.report.decision.findings
        if label != analysis.report.decision.label
    ]
    return (
        f'<p class="xai-other-findings">and {escape(phrases.join_words(others))}</p>'
        if others
        else ""
    )


def _stability(analysis: Analysis, model: Model) -> str:
    """Return how stable the answer is under test-time augmentation.

    Without a finding, that is the stability of the label nearest to its operating point.
    """
    report = analysis.report
    if report.uncertainty is None or report.decision.kind == "no answer":
        return ""
    by_label = operating_points(model)
    label = report.decision.label
    if label is None:
        # 0.5 where a label has no operating point, as in decision.py.
        nearest = max(report.predictions, key=lambda p: p.probability / by_label.get(p.label, 0.5))
        label = nearest.label
    prediction = next(p for p in report.predictions if p.label == label)
    # Without a finding, the probability of any label decides in such a model, not that of one.
    decides = report.decision.label is not None or model.any_label_point is None
    point = by_label.get(label) if decides else None
    text = phrases.stability(prediction, point, report.uncertainty["passes"])
    return f'<p class="xai-quiet xai-stability">{escape(text)}</p>' if text else ""


def _bars(analysis: Analysis, model: Model) -> str:
    predictions = analysis.report.predictions
    # figure.js finds the heatmap of a bar by this number.
    layers = {e.target: i for i, e in enumerate(analysis.report.explanations)}
    bars = list(predictions[:_MAX_BARS])
    # A label that was asked for is shown however improbable it is.
    bars += [p for p in predictions[_MAX_BARS:] if p.label in layers]
    line = analysis.timeline
    # Pooled probabilities of several windows may have operating points of their own.
    by_label = operating_points(model, pooled=line is not None and len(line.starts_s) > 1)
    rows = "".join(_bar(p, by_label.get(p.label), layers.get(p.label)) for p in bars)
    count = len(predictions)
    parts = [f"The {len(bars)} most probable of {count} labels."] if count > len(bars) else []
    if len(layers) > 1:
        parts.append("Select a label to see its heatmap.")
    if any(p.label in by_label for p in bars):
        parts.append(_operating_point_note(model))
    parts += _calibration_note(analysis)
    return f'<div class="xai-bars"><ul>{rows}</ul><p class="xai-quiet">{" ".join(parts)}</p></div>'


def _operating_point_note(model: Model) -> str:
    meaning = (
        "from there on, the label counts as found"
        if model.activation == "sigmoid"
        else "the answer is the label furthest above its own"
    )
    if model.any_label_point is not None:
        meaning += f", if the probability of any is at least {model.any_label_point:.2f}"
    return f"The mark on a bar is the label's operating point: {meaning}."


def _calibration_note(analysis: Analysis) -> list[str]:
    """Return, for radiographs, what the probabilities and the thin lines on the bars are."""
    if analysis.report.task != "chest_xray":
        return []
    sentences = []
    temperature = analysis.report.calibration.get("temperature")
    # Dividing the logits by 1 changes nothing.
    if temperature == 1:
        sentences.append("The probabilities are the network's own and not calibrated.")
    elif temperature is not None:
        sentences.append(
            "The probabilities are calibrated on radiographs held out from training "
            f"(temperature {temperature:.2g})."
        )
    if any(p.interval for p in analysis.report.predictions):
        sentences.append(
            "The thin line on a bar is the range of the probability under small changes to the "
            "image."
        )
    return sentences


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
    # Without a heatmap there is nothing to select, so the bar is no button.
    if layer is None:
        return f'<li><div class="xai-bar">{inside}</div></li>'
    return (
        f'<li><button type="button" class="xai-bar" data-target="{layer}" '
        f'aria-pressed="{str(layer == 0).lower()}" '
        f'aria-label="{label}, {number}: show its heatmap">'
        f"{inside}</button></li>"
    )


def _interval_mark(prediction: Prediction) -> str:
    if prediction.interval is None:
        return ""
    low, high = prediction.interval
    title = f"{phrases.percent(low)} to {phrases.percent(high)}"
    return (
        f'<i class="xai-range" style="left:{low:.1%};width:{high - low:.1%}" title="{title}"></i>'
    )


def _warnings(analysis: Analysis) -> str:
    # What the gate says has a notice of its own.
    notice = analysis.report.input.get("gate", {}).get("sentence")
    unfit = analysis.report.input.get("age", {}).get("mismatch")
    warnings = [line for line in analysis.report.warnings if line not in (notice, unfit)]
    if not warnings:
        return ""
    lines = "".join(f"<li>{escape(line)}</li>" for line in warnings)
    return f'<div class="xai-notice xai-warning" role="note"><ul>{lines}</ul></div>'


def _provenance(analysis: Analysis, model: Model) -> str:
    total_s = sum(analysis.report.timing_ms.values()) / 1000
    return (
        '<p class="xai-quiet xai-source"><b>Model:</b> '
        f"{escape(phrases.provenance(analysis.report.model, model.title))} "
        f"Analysis time: {total_s:.2g} s. <b>Trained on:</b> {escape(model.data)}</p>"
    )


# Pixels: more than twice the height at which the preview is shown.
_PREVIEW_HEIGHT = 512


def preview_html(analyser: Analyser, path: str | None) -> str:
    """Return the uploaded radiograph as the reader sees it, or why it cannot be read."""
    if not path:
        return ""
    # The preview is the first to read an upload.
    remove_patient_data(path, analyser)
    try:
        raise_if_deleted(path)
        radiograph = analyser.radiograph(path, name=shown_name(path))
    except XaiDemoError as error:
        message = escape(hide_paths(str(error)))
        return f'<p class="xai-notice xai-refused" role="alert">{message}</p>'
    summary = escape(phrases.radiograph_summary(radiograph.facts))
    doubt = (
        f'<p class="xai-notice xai-warning">{escape(radiograph.doubt)}</p>'
        if radiograph.doubt
        else ""
    )
    return (
        f'<figure><img alt="Your image" src="{_preview_uri(radiograph)}">'
        f'<figcaption class="xai-quiet">{summary}</figcaption></figure>{doubt}'
    )


def _preview_uri(radiograph: Radiograph) -> str:
    from PIL import Image

    # Skipping rows and columns first keeps 100 megapixels from being copied only to be shrunk.
    step = max(1, min(radiograph.pixels.shape) // _PREVIEW_HEIGHT)
    grey = np.rint(255 * radiograph.pixels[::step, ::step]).astype(np.uint8)
    image = Image.fromarray(grey)
    image.thumbnail((2 * _PREVIEW_HEIGHT, _PREVIEW_HEIGHT))
    return image_uri(np.asarray(image))
