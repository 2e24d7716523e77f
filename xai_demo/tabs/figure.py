"""Analysis -> the interactive picture: layers, axes, legend and controls as HTML and SVG (pure)."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from xai_demo import render
from xai_demo.records import Analysis, Event, Explanation, View
from xai_demo.tabs import phrases

if TYPE_CHECKING:
    from xai_demo.records import Floats, Pixels

_NICE_STEPS_S = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600)
_NICE_HZ = (50, 100, 200, 300, 500, 1000, 2000, 3000, 4000, 6000, 8000, 12000, 16000)
_MAX_TICKS = 9  # at most: more do not fit on a phone
_MIN_TICK_GAP = 0.075  # of the height, between two frequency labels
_JPEG_PIXELS = 400_000  # pixels: from here on JPEG, a tenth of PNG's size at no visible loss
_START_OPACITY = 60  # per cent


def figure_html(analysis: Analysis) -> str:
    """The whole figure: bare and with the heat of every explained label, one of which is shown."""
    view = analysis.view
    sound = view.duration_s is not None
    explanations = analysis.report.explanations
    base = f'<img class="xai-base" alt="" src="{image_uri(view.pixels)}">'
    layers = "".join(heatmap_layer(view, e, i) for i, e in enumerate(explanations))
    alt = _alt_text(analysis, explanations[0]) if explanations else _bare_alt_text(analysis)
    # Over a timeline the events have a lane of their own.
    marks = (
        () if analysis.timeline and len(analysis.timeline.starts_s) > 1 else analysis.report.events
    )
    heat = _pane(view, base + layers, "heat", alt, marks)
    # The bare picture is filled in by the page's script from the first one: it travels once.
    bare = _pane(view, '<img class="xai-base xai-copy" alt="">', "bare", _bare_alt_text(analysis))
    kind = "sound" if sound else "film"
    return (
        f'{findings_gallery(analysis)}<figure class="xai-figure xai-{kind}" '
        f'data-view="{"heat" if sound else "both"}">'
        f"{_captions(analysis)}{_controls(view, bool(explanations))}"
        f'<div class="xai-panes">{heat}{bare}</div></figure>'
    )


def findings_gallery(analysis: Analysis) -> str:
    """Where there are several findings: the heat of each, small; one press enlarges it.

    The pictures are filled in by the page's script from the large ones: they travel once.
    """
    found = analysis.report.decision.findings
    thumbs = [
        _thumb(analysis.view, each, i)
        for i, each in enumerate(analysis.report.explanations)
        if each.target in found
    ]
    if len(thumbs) < 2:
        return ""
    return (
        '<section class="xai-gallery"><h3 class="xai-title">One heat map for each finding</h3>'
        '<p class="xai-quiet">Press one to enlarge it over the radiograph; the handle there wipes '
        f'the heat away.</p><div class="xai-thumbs">{"".join(thumbs)}</div></section>'
    )


def _thumb(view: View, explanation: Explanation, index: int) -> str:
    name = f"{phrases.display_label(explanation.target)} {phrases.percent(explanation.probability)}"
    return (
        f'<button type="button" class="xai-thumb" data-target="{index}" data-enlarge '
        f'aria-pressed="{str(index == 0).lower()}" aria-label="{escape(name)}: enlarge its heat">'
        f'<span class="xai-plot"{_aspect_ratio(view)}><img class="xai-copy" alt="">'
        f'<img class="xai-heat" data-heat="{index}" alt=""></span>'
        f"<span>{escape(name)}</span></button>"
    )


def heatmap_uri(heatmap: Floats) -> str:
    """A heatmap, row 0 at the top, as a PNG of 256 translucent colours in a data URI."""
    from PIL import Image

    scale = render.heat_rgba(np.linspace(0, 1, 256, dtype=np.float32)[None, :])[0]
    levels = np.clip(np.rint(255 * heatmap), 0, 255).astype(np.uint8)
    picture = Image.fromarray(levels)  # putpalette turns grey levels into indices as they are
    picture.putpalette(scale[:, :3].tobytes())
    return _data_uri(picture, "PNG", transparency=scale[:, 3].tobytes())


def image_uri(pixels: Pixels) -> str:
    """A grey picture in a data URI."""
    from PIL import Image

    picture = Image.fromarray(pixels)
    return (
        _data_uri(picture, "JPEG", quality=92)
        if pixels.size > _JPEG_PIXELS
        else _data_uri(picture, "PNG")
    )


def _data_uri(picture: object, kind: str, **options: object) -> str:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)  # type: ignore[attr-defined]
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode()}"


def heatmap_layer(view: View, explanation: Explanation, index: int) -> str:
    """The heat of one label and the ring round its peak; only the first is shown at first."""
    sound = view.duration_s is not None
    heatmap = explanation.heatmap[::-1] if sound else explanation.heatmap
    x, y = _peak_position(view, explanation)
    hidden = " hidden" if index else ""
    ring = f'<span class="xai-peak" style="left:{x:.2%};top:{y:.2%}"></span>'
    return (
        f'<div class="xai-layer" data-layer="{index}"{hidden}>'
        f'<img class="xai-heat" alt="" src="{heatmap_uri(heatmap)}">'
        f"{ring if float(explanation.heatmap.max()) > 0 else ''}</div>"
    )


def _peak_position(view: View, explanation: Explanation) -> tuple[float, float]:
    peak = explanation.peak
    if view.duration_s is None:
        return peak["x"], peak["y"]
    return peak["time_s"] / view.duration_s, 1 - render.height_of(view, peak["frequency_hz"])


def _pane(view: View, images: str, name: str, alt: str, events: Sequence[Event] = ()) -> str:
    title = {"heat": "With heat", "bare": "Original"}[name]
    ratio = "" if view.duration_s is not None else _aspect_ratio(view)
    plot = f'<div class="xai-plot" role="img" aria-label="{escape(alt)}"{ratio}>{images}</div>'
    if view.duration_s is not None:
        plot = (
            f'<div class="xai-axes">{frequency_axis(view)}{plot}'
            f"{time_axis(view.duration_s)}{_event_lanes(events, view.duration_s)}</div>"
        )
    elif name == "heat":
        plot = (
            f'<div class="xai-wiped"{ratio}>{plot}<input type="range" class="xai-wipe" min="0" '
            'max="100" value="50" aria-label="How much of the radiograph shows heat, from the left,'
            ' per cent"><span class="xai-handle" aria-hidden="true"></span></div>'
        )
    return (
        f'<div class="xai-pane xai-pane-{name}"><p class="xai-pane-title">{title}</p>{plot}</div>'
    )


def _aspect_ratio(view: View) -> str:
    rows, columns = view.pixels.shape
    return f' style="aspect-ratio:{columns}/{rows};--ratio:{columns / rows:.4f}"'


def time_ticks(duration_s: float, most: int = _MAX_TICKS) -> list[float]:
    """Round times from 0 to the end, few enough for a phone."""
    step = next((s for s in _NICE_STEPS_S if duration_s / s <= most), duration_s / most)
    return [step * i for i in range(math.floor(duration_s / step + 1e-9) + 1)]


def frequency_ticks(view: View) -> list[tuple[float, float]]:
    """Round frequencies with their heights (0 foot, 1 top), none too near to another."""
    low, high = view.row_frequencies_hz[0], view.row_frequencies_hz[-1]
    ticks: list[tuple[float, float]] = []
    for frequency in (f for f in _NICE_HZ if low <= f <= high):
        height = render.height_of(view, frequency)
        if not ticks or height - ticks[-1][1] >= _MIN_TICK_GAP:
            ticks.append((float(frequency), height))
    return ticks


def frequency_axis(view: View) -> str:
    """Ticks in hertz, beside the picture."""
    marks = "".join(
        f'<line x1="92%" x2="100%" y1="{1 - h:.2%}" y2="{1 - h:.2%}"/>'
        f'<text x="100%" dx="-9" y="{1 - h:.2%}" dy="0.35em" text-anchor="end">'
        f"{phrases.hertz(f)}</text>"
        for f, h in frequency_ticks(view)
    )
    return f'<svg class="xai-axis xai-axis-y" aria-hidden="true">{marks}</svg>'


def time_axis(duration_s: float, *, zoom: int = 1) -> str:
    """Ticks in seconds, or in minutes where they stand at whole minutes; more for a zoom."""
    ticks = time_ticks(duration_s, zoom * _MAX_TICKS)
    in_minutes = len(ticks) > 1 and ticks[1] % 60 == 0
    scale, name = (60, " min") if in_minutes else (1, " s")
    places = max(0, *(len(f"{t / scale:.2f}".rstrip("0").split(".")[1]) for t in ticks))
    parts = []
    for tick in ticks:
        x = f"{tick / duration_s:.2%}"
        unit = name if tick == ticks[-1] else ""  # once: on a phone there is no room for more
        anchor = "start" if tick == 0 else "end" if tick > 0.985 * duration_s else "middle"
        parts.append(
            f'<line x1="{x}" x2="{x}" y1="0" y2="5"/>'
            f'<text x="{x}" y="19" text-anchor="{anchor}">{tick / scale:.{places}f}{unit}</text>'
        )
    close = " xai-close" if zoom > 1 else ""
    return f'<svg class="xai-axis xai-axis-x{close}" aria-hidden="true">{"".join(parts)}</svg>'


def _event_lanes(events: Sequence[Event], duration_s: float) -> str:
    """One line for each label: where it was found; a press plays from there."""
    rows = []
    for label in dict.fromkeys(e.label for e in events):
        buttons = "".join(_event_button(e, duration_s) for e in events if e.label == label)
        rows.append(
            f'<span class="xai-lane-name">{escape(phrases.display_label(label))}</span>'
            f'<div class="xai-lane">{buttons}</div>'
        )
    return "".join(rows)


def _event_button(event: Event, duration_s: float) -> str:
    span = f"{event.start_s:.2f} to {phrases.seconds(event.end_s)}"
    words_ = f"{phrases.display_label(event.label)}, {span}, {phrases.percent(event.probability)}"
    return (
        f'<button type="button" class="xai-event" data-start="{event.start_s:.3f}" '
        f'data-end="{event.end_s:.3f}" aria-label="Play {escape(words_)}" '
        f'title="{escape(words_)}: press to play" '
        f'style="left:{event.start_s / duration_s:.2%};'
        f'width:{(event.end_s - event.start_s) / duration_s:.2%}"></button>'
    )


def _controls(view: View, explained: bool) -> str:
    if not explained:
        return ""
    choices = (
        ("heat", "With heat"),
        *((("slide", "Slider"),) if view.duration_s is None else ()),
        ("both", "Side by side" if view.duration_s is None else "Compare"),
        ("bare", "Original"),
    )
    chosen = "heat" if view.duration_s is not None else "both"
    buttons = "".join(
        f'<button type="button" data-show="{key}" aria-pressed="{str(key == chosen).lower()}">'
        f"{text}</button>"
        for key, text in choices
    )
    return (
        '<div class="xai-controls">'
        f'<div class="xai-switch" role="group" aria-label="What to show">{buttons}</div>'
        '<label class="xai-strength"><span>Strength of the heat</span>'
        f'<input type="range" min="0" max="100" value="{_START_OPACITY}" step="1" '
        'aria-label="Strength of the heat, per cent"></label>'
        f'<div class="xai-legends">{_legends(view)}</div></div>'
    )


def _legends(view: View) -> str:
    stops = render.HEAT_COLOURS[np.linspace(0, 255, 12).astype(int)]
    colours = ", ".join(f"rgb({r} {g} {b})" for r, g, b in stops.tolist())
    heat = _legend("Heat", "low", "high", colours)
    if view.decibels is None:
        return heat
    quiet, loud = (f"{level:.0f} dB".replace("-", "−") for level in view.decibels)
    return heat + _legend("Level", quiet, loud, "#000, #fff")


def _legend(name: str, low: str, high: str, colours: str) -> str:
    return (
        f'<span class="xai-legend"><b>{name}</b> {low}'
        f'<i style="background:linear-gradient(90deg, {colours})"></i>{high}</span>'
    )


def _captions(analysis: Analysis) -> str:
    lines = "".join(
        f'<p data-layer="{i}"{" hidden" if i else ""} '
        f'data-alt="{escape(_alt_text(analysis, e))}">'
        f"<b>{escape(phrases.display_label(e.target))}, {phrases.percent(e.probability)}.</b> "
        f"{escape(phrases.heatmap_location(analysis.view, e))}"
        f'<span class="xai-believed">{escape(phrases.faithfulness_sentence(e))}</span></p>'
        for i, e in enumerate(analysis.report.explanations)
    )
    return f'<figcaption aria-live="polite">{lines}</figcaption>'


def _alt_text(analysis: Analysis, explanation: Explanation) -> str:
    """What a screen reader says for the picture: the finding, and the region that spoke for it."""
    return (
        f"{_bare_alt_text(analysis)} with the heat of {explanation.explainer} for "
        f"{phrases.display_label(explanation.target)} ({phrases.percent(explanation.probability)}). "
        f"{phrases.heatmap_location(analysis.view, explanation)}"
    )


def _bare_alt_text(analysis: Analysis) -> str:
    if analysis.view.duration_s is None:
        return "The radiograph as the network saw it"
    return f"Spectrogram of {phrases.seconds(analysis.view.duration_s)} of sound"
