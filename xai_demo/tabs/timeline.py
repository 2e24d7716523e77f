"""A whole recording over time: waveform, probabilities, events, and the table of events.

All functions are pure and return HTML or SVG. `figure.js` zooms, plays, and adds lanes for labels
that a visitor looks up.
"""

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

# Steps in a waveform or a lane: as many as a wide screen can show.
_COLUMNS = 1000
# Fewer for the lanes that are looked up: those of all labels travel with the page.
_SEARCH_COLUMNS = 400
_DATALIST_ID = "xai-labels"
# An axis with this many times more ticks is shown from half of this zoom on; see figure.js.
_CLOSE_ZOOM = 8
_MAX_LANES = 5
# Events in the lane and in the table; a long recording's downloads hold them all.
_MAX_EVENTS = 300
# Okabe and Ito 2008: colours that the colour-blind can tell apart.
_COLOURS = {"normal": "#7a8794", "crackle": "#e69f00", "wheeze": "#0072b2", "both": "#cc79a7"}
_OTHER_COLOURS = ("#e69f00", "#0072b2", "#009e73", "#cc79a7", "#56b4e9")


def has_timeline(analysis: Analysis) -> bool:
    """Return whether the recording was analysed in more than one window."""
    return analysis.timeline is not None and len(analysis.timeline.starts_s) > 1


def timeline_html(analysis: Analysis) -> str:
    """Return waveform, events and a lane per label over one time axis; empty for one window."""
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
        '<section class="xai-timeline xai-sound"><h2 class="xai-title">Timeline</h2>'
        f"{_controls(analysis.timeline, duration_s)}"
        '<div class="xai-zoomed" tabindex="0" role="group" aria-label="Timeline of the recording">'
        f'<div class="xai-axes"><span class="xai-lane-name">Waveform</span>'
        f'<button type="button" class="xai-wave" {seek} aria-label="Waveform of '
        f'{phrases.seconds(duration_s)}: click to play from that point">'
        f"{waveform_svg(analysis.sounds.get('original'))}</button>"
        f"{_events_lane(analysis, duration_s)}{lanes}{time_axis(duration_s)}"
        f"{time_axis(duration_s, zoom=_CLOSE_ZOOM)}</div></div>"
        '<p class="xai-quiet">The height of a band is the probability of its label at that moment; '
        "the full height is 100 %. Click anywhere to play from there, or an event to play only "
        "that event.</p></section>"
    )


def _controls(timeline: Timeline, duration_s: float) -> str:
    """Return the zoom and, where not every label has a lane, a search box that adds one."""
    zoom = (
        '<label class="xai-strength"><span>Zoom</span><input type="range" min="1" max="16" '
        'value="1" step="0.5" data-zoom aria-label="Zoom of the time axis"></label>'
    )
    if len(timeline.labels) <= _MAX_LANES:
        return f'<div class="xai-controls">{zoom}</div>'
    options = "".join(
        f'<option value="{escape(phrases.display_label(label), quote=True)}">'
        for label in sorted(timeline.labels)
    )
    # In the order of the columns of `probabilities`; no label of the catalogue has a bar.
    names = escape("|".join(map(phrases.display_label, timeline.labels)), quote=True)
    return (
        f'<div class="xai-controls">{zoom}<label class="xai-find"><span>Find a label</span>'
        f'<input type="search" list="{_DATALIST_ID}" '
        f'data-find="{_packed_probabilities(timeline, duration_s)}" data-names="{names}" '
        f'placeholder="one of {len(timeline.labels)}" aria-label="Add a label to the timeline">'
        f'</label><datalist id="{_DATALIST_ID}">{options}</datalist></div>'
    )


def _packed_probabilities(timeline: Timeline, duration_s: float) -> str:
    """Return every label's probability over time in base 64, as figure.js unpacks it.

    Little-endian: the number of steps (2 bytes), the end of each step (2 bytes each, 65535 is the
    end of the recording), then for each label the probability in each step (1 byte, 255 is 1).
    """
    # The steps end at the same times for all labels.
    steps = probability_steps(timeline, timeline.labels[0], _SEARCH_COLUMNS)
    ends = np.array([end / duration_s for _, end, _ in steps])
    starts = _group_starts(len(timeline.starts_s), _SEARCH_COLUMNS)
    # (labels, steps)
    probabilities = np.maximum.reduceat(timeline.probabilities, starts, axis=0).T
    # Clipped, because anything above 65535 would wrap round.
    head = np.rint(65535 * np.clip(ends, 0, 1)).astype("<u2").tobytes()
    body = np.rint(255 * probabilities).astype(np.uint8).tobytes()
    return base64.b64encode(len(steps).to_bytes(2, "little") + head + body).decode()


def probability_steps(
    timeline: Timeline, label: str, max_steps: int = _COLUMNS
) -> list[tuple[float, float, float]]:
    """Return (start, end, probability) of one label over time, start and end in seconds.

    Overlapping windows meet halfway between their middles. In a long recording neighbouring windows
    share a step, which takes the highest of their probabilities, so that no peak is lost.
    """
    starts, ends = np.array(timeline.starts_s, float), np.array(timeline.ends_s, float)
    # A gap between two windows stays a gap.
    middles = (starts + ends) / 2
    halfway = (middles[1:] + middles[:-1]) / 2
    starts[1:] = np.maximum(starts[1:], halfway)
    ends[:-1] = np.minimum(ends[:-1], halfway)
    probabilities = timeline.probabilities[:, timeline.labels.index(label)]
    firsts = _group_starts(len(starts), max_steps)
    lasts = [*(firsts[1:] - 1), len(starts) - 1]
    highest = np.maximum.reduceat(probabilities, firsts)
    return [
        (float(starts[first]), float(ends[last]), float(p))
        for first, last, p in zip(firsts, lasts, highest, strict=True)
    ]


def events_table(analysis: Analysis) -> str:
    """Return the table of events, each of which can be played, with its downloads."""
    events = analysis.report.events
    title = '<h2 class="xai-title">Events</h2>'
    if not events:
        return (
            f'<section class="xai-events">{title}<p>No events detected: at no point in this '
            f"recording was {_event_label_phrase(analysis)} probable enough to be marked.</p>"
            "</section>"
        )
    more = (
        f'<p class="xai-quiet">The first {_MAX_EVENTS} of {len(events)} events; the downloads '
        "contain all of them.</p>"
        if len(events) > _MAX_EVENTS
        else ""
    )
    heads = "".join(f"<th scope='col'>{h}</th>" for h in ("Label", "Start", "End", "Probability"))
    rows = "".join(_event_row(event) for event in events[:_MAX_EVENTS])
    return (
        f'<section class="xai-events">{title}<div class="xai-rows" tabindex="0" role="group" '
        f'aria-label="Table of events"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>{more}"
        f'<p class="xai-downloads">{_event_downloads(events)}</p></section>'
    )


def _event_label_phrase(analysis: Analysis) -> str:
    normal = analysis.model.normal_label if analysis.model else "normal"
    return f"a label other than {normal}" if normal else "a label"


def waveform_svg(samples: Floats | None) -> str:
    """Return the waveform of (time,) samples as SVG, scaled to its loudest sample."""
    if samples is None or not len(samples):
        return ""
    low, high = render.envelope(samples, _COLUMNS)
    # Above zero, so that silence does not divide by it.
    tallest = max(float(np.abs(low).max()), float(np.abs(high).max()), 1e-9)
    # The lower edge lies one unit deeper, so that silence is still drawn as a line.
    upper = [f"{x},{_tenths(-49 * y / tallest)}" for x, y in enumerate(high)]
    lower = [f"{x},{_tenths(1 - 49 * y / tallest)}" for x, y in enumerate(low)]
    return (
        f'<svg viewBox="0 -50 {max(len(low) - 1, 1)} 100" preserveAspectRatio="none" '
        f'aria-hidden="true"><path d="M{" ".join([*upper, *lower[::-1]])}Z"/></svg>'
    )


def _tenths(value: float) -> str:
    return f"{value:.1f}"


def _group_starts(count: int, max_groups: int) -> NDArray[np.intp]:
    """Return the first index of each of at most `max_groups` even groups of `count` items."""
    groups = min(count, max_groups)
    return np.arange(groups) * count // groups


def _lane_colours(analysis: Analysis) -> dict[str, str]:
    """Return the labels that have a lane, with their colours; of many labels, the relevant ones."""
    assert analysis.timeline is not None  # noqa: S101
    labels = analysis.timeline.labels
    if len(labels) > _MAX_LANES:
        in_events = [event.label for event in analysis.report.events]
        most_probable = [p.label for p in analysis.report.predictions]
        labels = tuple(dict.fromkeys([*in_events, *most_probable]))[:_MAX_LANES]
    return {label: _colour(label, i) for i, label in enumerate(labels)}


def _colour(label: str, index: int) -> str:
    return _COLOURS.get(label, _OTHER_COLOURS[index % len(_OTHER_COLOURS)])


def _lane_name(label: str) -> str:
    return f'<span class="xai-lane-name">{escape(phrases.display_label(label))}</span>'


def _steps_svg(steps: Sequence[tuple[float, float, float]], duration_s: float) -> str:
    # addLane in figure.js draws its lanes in the same way.
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
    # The most probable are kept, in the order of time, in which the Tab key visits them.
    marked = sorted(events, key=lambda e: -e.probability)[:_MAX_EVENTS]
    spans = "".join(
        _event_button(e, colours.get(e.label, _OTHER_COLOURS[0]), duration_s)
        for e in sorted(marked, key=lambda e: e.start_s)
    )
    return f'<span class="xai-lane-name">Events</span><div class="xai-lane xai-spans">{spans}</div>'


def _event_button(event: Event, colour: str, duration_s: float) -> str:
    label = escape(phrases.display_label(event.label))
    text = f"Play {label}, {escape(_time_range(event))}, {phrases.percent(event.probability)}"
    left, width = event.start_s / duration_s, (event.end_s - event.start_s) / duration_s
    return (
        f'<button type="button" class="xai-event" {_play_attributes(event)} aria-label="{text}" '
        f'title="{text}" style="--lane:{colour};left:{left:.2%};width:{width:.2%}">'
        f"<span>{label}</span></button>"
    )


def _event_row(event: Event) -> str:
    cells = (
        phrases.clock(event.start_s),
        phrases.clock(event.end_s),
        phrases.percent(event.probability),
    )
    label = escape(phrases.display_label(event.label))
    # A click anywhere in the row plays the event; the button is for the keyboard.
    play = _play_attributes(event)
    return (
        f'<tr {play}><td><button type="button" {play} '
        f'aria-label="Play {label}, {escape(_time_range(event))}">▶ {label}</button></td>'
        f"{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
    )


def _play_attributes(event: Event) -> str:
    return f'data-start="{event.start_s:.3f}" data-end="{event.end_s:.3f}"'


def _time_range(event: Event) -> str:
    return f"{phrases.clock(event.start_s)} to {phrases.clock(event.end_s)}"


def _event_downloads(events: Sequence[Event]) -> str:
    table, labels = events_csv(events).encode(), audacity_labels(events).encode()
    return download_link("events.csv", "text/csv", table, "Table") + download_link(
        "events.txt", "text/plain", labels, "Audacity labels"
    )


def download_link(name: str, media_type: str, content: bytes, title: str) -> str:
    """Return a link that holds the file itself, so that nothing has to stay on the server."""
    uri = f"data:{media_type};base64,{base64.b64encode(content).decode()}"
    size = phrases.file_size(len(content))
    return f'<a download="{name}" href="{uri}">{title} <span>{name}, {size}</span></a>'
