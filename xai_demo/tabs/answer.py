"""What stands round the picture: the answer, the bars, warnings, and the other states (pure)."""

from __future__ import annotations

from html import escape

from xai_demo.decision import points
from xai_demo.records import Analysis, Model, Prediction
from xai_demo.tabs import words
from xai_demo.tabs.ask import Refusal
from xai_demo.tabs.comparison import side_by_side
from xai_demo.tabs.figure import figure
from xai_demo.tabs.timeline import events_table, timeline

_BARS = 10


def answered(analysis: Analysis, model: Model, second: Analysis | Refusal | None = None) -> str:
    """The answer, its bars and its picture; and beside it the heat of a second explainer."""
    return (
        f'<div class="xai-result" data-state="answered">{_warnings(analysis)}'
        f'<div class="xai-answer">{_headline(analysis, model)}{_bars(analysis, model)}</div>'
        f"{figure(analysis)}{_second(analysis, second)}{timeline(analysis)}"
        f"{_events(analysis)}{_source(analysis, model)}</div>"
    )


def _events(analysis: Analysis) -> str:
    return events_table(analysis) if analysis.report.task == "stethoscope" else ""


def _second(analysis: Analysis, second: Analysis | Refusal | None) -> str:
    if isinstance(second, Refusal):
        return (
            '<p class="xai-notice xai-warning" role="note">There is nothing to compare with: '
            f"{escape(second.message)}</p>"
        )
    if second is None or not (analysis.report.explanations and second.report.explanations):
        return ""
    return side_by_side(analysis, second)


def empty(invitation: str) -> str:
    """What is shown before anything was asked."""
    return (
        '<div class="xai-result" data-state="empty"><div class="xai-empty">'
        f"<p>{escape(invitation)}</p></div></div>"
    )


def refused(message: str, *, advice: str, title: str = "This could not be analysed") -> str:
    """What was met, what is wanted, what to try."""
    return (
        '<div class="xai-result" data-state="refused"><div class="xai-notice xai-refused" '
        f'role="alert"><h3>{escape(title)}</h3><p>{escape(message)}</p>'
        f'<p class="xai-quiet">{escape(advice)}</p></div></div>'
    )


def _headline(analysis: Analysis, model: Model) -> str:
    decision = analysis.report.decision
    uncertain = decision.label is None
    label = "Uncertain" if decision.label is None else words.plain(decision.label)
    kind = (
        "uncertain" if uncertain else "normal" if decision.label == model.normal_label else "found"
    )
    number = (
        ""
        if uncertain
        else f'<span class="xai-number">{escape(words.percent(decision.probability))}</span>'
    )
    return (
        f'<div class="xai-headline xai-{kind}" role="status">'
        f'<p class="xai-kicker">{escape(analysis.report.file)}</p>'
        f'<p class="xai-label">{escape(label)} {number}</p>'
        f'<p class="xai-reason">{escape(decision.reason)}</p></div>'
    )


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
        f'<div class="xai-bars"><ul>{rows}</ul><p class="xai-quiet">{which}.{press}{tick}</p></div>'
    )


def _bar(prediction: Prediction, operating_point: float | None, layer: int | None) -> str:
    label = escape(words.plain(prediction.label))
    number = escape(words.percent(prediction.probability))
    tick = (
        ""
        if operating_point is None
        else f'<i class="xai-tick" style="left:{operating_point:.1%}" '
        f'title="Operating point {words.percent(operating_point)}"></i>'
    )
    inside = (
        f'<span class="xai-bar-label">{label}</span><span class="xai-track">'
        f'<i class="xai-fill" style="width:{prediction.probability:.1%}"></i>{tick}</span>'
        f'<span class="xai-bar-number">{number}</span>'
    )
    if layer is None:
        return f'<li><div class="xai-bar">{inside}</div></li>'
    return (
        f'<li><button type="button" class="xai-bar" data-target="{layer}" '
        f'aria-pressed="{str(layer == 0).lower()}" aria-label="{label}, {number}: show its heat">'
        f"{inside}</button></li>"
    )


def _warnings(analysis: Analysis) -> str:
    if not analysis.report.warnings:
        return ""
    lines = "".join(f"<li>{escape(line)}</li>" for line in analysis.report.warnings)
    return f'<div class="xai-notice xai-warning" role="note"><ul>{lines}</ul></div>'


def _source(analysis: Analysis, model: Model) -> str:
    total = sum(analysis.report.timing_ms.values())
    return (
        f'<p class="xai-quiet xai-source"><b>Who said so:</b> '
        f"{escape(words.who(analysis.report.model, model.title))} It took {total / 1000:.2g} s. "
        f"<b>Learned from:</b> {escape(model.data)}</p>"
    )
