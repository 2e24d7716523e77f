"""A whole recording: its waveform, what the network made of it over time, its events (pure)."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from xai_demo import render
from xai_demo.export import audacity_labels, events_csv
from xai_demo.records import Analysis, Event, Timeline
from xai_demo.tabs import phrases
from xai_demo.tabs.figure import time_axis

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xai_demo.records import Floats

_COLUMNS = 1000  # of a waveform and of a band: what a wide screen shows
_SEARCH_COLUMNS = 400  # of a band that is drawn when somebody looks for it
_DATALIST_ID = "xai-labels"
_CLOSE_ZOOM = 8  # from half of this zoom on, the time axis has as many times more ticks
_MAX_LANES = 5  # labels shown over time, at most
_MAX_EVENTS = 300  # events in the lane and in the table: more are in the downloads
# Okabe & Ito 2008: told apart by the colour-blind. Every colour has its label's name beside it.
_COLOURS = {"normal": "#7a8794", "crackle": "#e69f00", "wheeze": "#0072b2", "both": "#cc79a7"}
_OTHER_COLOURS = ("#e69f00", "#0072b2", "#009e73", "#cc79a7", "#56b4e9")


def has_timeline(analysis: Analysis) -> bool:
    """Whether there is more than one moment to tell apart."""
    return analysis.timeline is not None and len(analysis.timeline.starts_s) > 1


def timeline_html(analysis: Analysis) -> str:
    """The waveform, the events and every label's probability over one time axis; a press plays."""
    if analysis.timeline is None or not has_timeline(analysis):
        return ""
    duration_s = analysis.view.duration_s or 0.0
    seek = f'data-seek="{duration_s:.3f}"'
    lanes = "".join(
        f'{_lane_name(label)}<div class="xai-lane xai-band" style="--lane:{colour}" {seek}>'
        f"{_steps_svg(probability_steps(analysis.timeline, label), duration_s)}</div>"
        for label, colour in _lane_colours(analysis).items()
    )
    return (
        '<section class="xai-timeline xai-sound"><h3 class="xai-title">Over time</h3>'
        f"{_controls(analysis.timeline, duration_s)}"
        '<div class="xai-zoomed" tabindex="0" role="group" aria-label="The recording over time">'
        f'<div class="xai-axes"><span class="xai-lane-name">Sound</span>'
        f'<button type="button" class="xai-wave" {seek} aria-label="Waveform of '
        f'{phrases.seconds(duration_s)}: press a place to play from there">'
        f"{waveform_svg(analysis.sounds.get('original'))}</button>"
        f"{_events_lane(analysis, duration_s)}{lanes}{time_axis(duration_s)}"
        f"{time_axis(duration_s, zoom=_CLOSE_ZOOM)}</div></div>"
        '<p class="xai-quiet">The higher a band, the more probable its label at that moment; full '
        "height is 100 %. Press a place to play from there, an event to play it alone.</p>"
        "</section>"
    )


def _controls(timeline: Timeline, duration_s: float) -> str:
    """A slider that stretches time; and, where not every label has a lane, a way to one's own."""
    zoom = (
        '<label class="xai-strength"><span>Zoom</span><input type="range" min="1" max="16" '
        'value="1" step="0.5" data-zoom aria-label="Zoom into time"></label>'
    )
    if len(timeline.labels) <= _MAX_LANES:
        return f'<div class="xai-controls">{zoom}</div>'
    options = "".join(
        f'<option value="{escape(phrases.display_label(label), quote=True)}">'
        for label in sorted(timeline.labels)
    )
    return (
        f'<div class="xai-controls">{zoom}<label class="xai-find"><span>Find a label</span>'
        f'<input type="search" list="{_DATALIST_ID}" data-find="{_packed_probabilities(timeline, duration_s)}" '
        f'data-names="{escape("|".join(map(phrases.display_label, timeline.labels)), quote=True)}" '
        f'placeholder="one of {len(timeline.labels)}" aria-label="Show a label over time">'
        f'</label><datalist id="{_DATALIST_ID}">{options}</datalist></div>'
    )


def _packed_probabilities(timeline: Timeline, duration_s: float) -> str:
    """Every label over time, for the page's script: first the ends of the steps, then per label
    the probabilities, all of them 0 to 255 but the ends, which are 0 to 65535; in base 64."""
    steps = probability_steps(timeline, timeline.labels[0], _SEARCH_COLUMNS)
    ends = np.array([end / duration_s for _, end, _ in steps])
    firsts = _group_starts(len(timeline.starts_s), _SEARCH_COLUMNS)
    chances = np.maximum.reduceat(timeline.probabilities, firsts, axis=0).T
    head = np.rint(65535 * np.clip(ends, 0, 1)).astype("<u2").tobytes()
    body = np.rint(255 * chances).astype(np.uint8).tobytes()
    return base64.b64encode(len(steps).to_bytes(2, "little") + head + body).decode()


def probability_steps(
    timeline: Timeline, label: str, most: int = _COLUMNS
) -> list[tuple[float, float, float]]:
    """(start, end, probability) of one label: every window up to halfway to its neighbours.

    Of a long recording several windows share a step, which is as high as the highest of them.
    """
    starts, ends = np.array(timeline.starts_s, float), np.array(timeline.ends_s, float)
    middles = (starts + ends) / 2
    halfway = (middles[1:] + middles[:-1]) / 2
    starts[1:] = np.maximum(starts[1:], halfway)
    ends[:-1] = np.minimum(ends[:-1], halfway)
    chances = timeline.probabilities[:, timeline.labels.index(label)]
    firsts = _group_starts(len(starts), most)
    lasts = [*(firsts[1:] - 1), len(starts) - 1]
    highest = np.maximum.reduceat(chances, firsts)
    return [
        (float(starts[first]), float(ends[last]), float(p))
        for first, last, p in zip(firsts, lasts, highest, strict=True)
    ]


def events_table(analysis: Analysis) -> str:
    """Every event, a press plays it; and the same to take away."""
    events = analysis.report.events
    title = '<h3 class="xai-title">Events</h3>'
    if not events:
        return (
            f'<section class="xai-events">{title}<p>No stretch of this recording stands out by '
            f"itself: nowhere was {_event_label_phrase(analysis)} sure enough to be marked.</p></section>"
        )
    more = (
        f'<p class="xai-quiet">The first {_MAX_EVENTS} of {len(events)}; all are in the downloads.</p>'
        if len(events) > _MAX_EVENTS
        else ""
    )
    heads = "".join(f"<th scope='col'>{h}</th>" for h in ("Label", "Start", "End", "Probability"))
    rows = "".join(_event_row(event) for event in events[:_MAX_EVENTS])
    return (
        f'<section class="xai-events">{title}<div class="xai-rows" tabindex="0" role="group" '
        f'aria-label="Table of events"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>{more}"
        f'<p class="xai-downloads">{_event_downloads(analysis)}</p></section>'
    )


def _event_label_phrase(analysis: Analysis) -> str:
    normal = analysis.model.normal_label if analysis.model else "normal"
    return f"a label other than {normal}" if normal else "a label"


def waveform_svg(samples: Floats | None) -> str:
    """A waveform as wide as its place, as tall as its loudest sample."""
    if samples is None or not len(samples):
        return ""
    low, high = render.envelope(samples, _COLUMNS)
    tallest = max(float(np.abs(low).max()), float(np.abs(high).max()), 1e-9)
    upper = [f"{x},{_tenths(-49 * y / tallest)}" for x, y in enumerate(high)]
    lower = [f"{x},{_tenths(1 - 49 * y / tallest)}" for x, y in enumerate(low)]
    return (
        f'<svg viewBox="0 -50 {max(len(low) - 1, 1)} 100" preserveAspectRatio="none" '
        f'aria-hidden="true"><path d="M{" ".join([*upper, *lower[::-1]])}Z"/></svg>'
    )


def _tenths(value: float) -> str:
    return f"{value:.1f}"


def _group_starts(count: int, most: int) -> NDArray[np.intp]:
    shown = min(count, most)
    return np.arange(shown) * count // shown


def _lane_colours(analysis: Analysis) -> dict[str, str]:
    """The labels that have a lane, each with its colour; those that matter where there are many."""
    assert analysis.timeline is not None  # noqa: S101
    labels = analysis.timeline.labels
    if len(labels) > _MAX_LANES:
        found = [event.label for event in analysis.report.events]
        likely = [p.label for p in analysis.report.predictions]
        labels = tuple(dict.fromkeys([*found, *likely]))[:_MAX_LANES]
    return {label: _colour(label, i) for i, label in enumerate(labels)}


def _colour(label: str, index: int) -> str:
    return _COLOURS.get(label, _OTHER_COLOURS[index % len(_OTHER_COLOURS)])


def _lane_name(label: str) -> str:
    return f'<span class="xai-lane-name">{escape(phrases.display_label(label))}</span>'


def _steps_svg(steps: Sequence[tuple[float, float, float]], duration_s: float) -> str:
    path = "".join(
        f"M{_tenths(1000 * start / duration_s)} 100V{_tenths(100 - 100 * p)}"
        f"H{_tenths(1000 * end / duration_s)}V100Z"
        for start, end, p in steps
    )
    return (
        '<svg viewBox="0 0 1000 100" preserveAspectRatio="none" aria-hidden="true">'
        f'<path d="{path}"/></svg>'
    )


def _events_lane(analysis: Analysis, duration_s: float) -> str:
    events = analysis.report.events
    if not events:
        return ""
    colours = _lane_colours(analysis)
    marked = sorted(events, key=lambda e: -e.probability)[:_MAX_EVENTS]
    spans = "".join(
        _event_button(e, colours.get(e.label, _OTHER_COLOURS[0]), duration_s)
        for e in sorted(marked, key=lambda e: e.start_s)
    )
    return f'<span class="xai-lane-name">Events</span><div class="xai-lane xai-spans">{spans}</div>'


def _event_button(event: Event, colour: str, duration_s: float) -> str:
    label = escape(phrases.display_label(event.label))
    said = f"{label}, {escape(_time_range(event))}, {phrases.percent(event.probability)}"
    return (
        f'<button type="button" class="xai-event" {_play_attributes(event)} aria-label="Play {said}" '
        f'title="{said}: press to play" style="--lane:{colour};left:'
        f"{event.start_s / duration_s:.2%};width:{(event.end_s - event.start_s) / duration_s:.2%}"
        f'"><span>{label}</span></button>'
    )


def _event_row(event: Event) -> str:
    cells = (
        phrases.clock(event.start_s),
        phrases.clock(event.end_s),
        phrases.percent(event.probability),
    )
    label = escape(phrases.display_label(event.label))
    return (
        f'<tr {_play_attributes(event)}><td><button type="button" {_play_attributes(event)} aria-label="Play {label}, '
        f'{escape(_time_range(event))}">▶ {label}</button></td>'
        f"{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
    )


def _play_attributes(event: Event) -> str:
    return f'data-start="{event.start_s:.3f}" data-end="{event.end_s:.3f}"'


def _time_range(event: Event) -> str:
    return f"{phrases.clock(event.start_s)} to {phrases.clock(event.end_s)}"


def _event_downloads(analysis: Analysis) -> str:
    events = analysis.report.events
    return download_link(
        "events.csv", "text/csv", events_csv(events).encode(), "Table"
    ) + download_link(
        "events.txt", "text/plain", audacity_labels(events).encode(), "Audacity labels"
    )


def download_link(name: str, kind: str, content: bytes, title: str) -> str:
    """A download that lies in the page itself: no file of a visitor's stays on the server."""
    uri = f"data:{kind};base64,{base64.b64encode(content).decode()}"
    size = phrases.file_size(len(content))
    return f'<a download="{name}" href="{uri}">{title} <span>{name}, {size}</span></a>'
