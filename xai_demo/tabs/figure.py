"""The interactive figure of an analysis: image, heatmaps, axes, legend and controls as HTML.

All functions are pure and return HTML or SVG. Everything a visitor can do with the figure (select a
label, fade the heatmap, compare with the original) runs in `figure.js`, without a request.
"""

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

# From 60 on whole minutes, because `time_axis` then counts in minutes.
_NICE_STEPS_S = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600)
_NICE_HZ = (50, 100, 200, 300, 500, 1000, 2000, 3000, 4000, 6000, 8000, 12000, 16000)
# More time labels than this overlap on a phone of 360 pixels.
_MAX_TICKS = 9
# Between two frequency labels, as a share of the height.
_MIN_TICK_GAP = 0.075
# From this many pixels on, JPEG: a tenth of PNG's size without a visible loss.
_JPEG_PIXELS = 400_000
# The same as --heat in page.css, which holds until figure.js has run.
_START_OPACITY_PERCENT = 60


def figure_html(analysis: Analysis) -> str:
    """Return the figure: the original, and a heatmap for each label, the first one visible."""
    view = analysis.view
    is_sound = view.duration_s is not None
    explanations = analysis.report.explanations
    base = f'<img class="xai-base" alt="" src="{image_uri(view.pixels)}">'
    lungs = _lung_outlines(view)
    layers = "".join(heatmap_layer(view, e, i) for i, e in enumerate(explanations))
    alt = _alt_text(analysis, explanations[0]) if explanations else _bare_alt_text(analysis)
    # A timeline shows the events in a lane of its own.
    has_timeline = analysis.timeline is not None and len(analysis.timeline.starts_s) > 1
    events = () if has_timeline else analysis.report.events
    overlay = _pane(view, base + layers + lungs, "heat", alt, events)
    # figure.js copies the image into the second pane, so that it is sent only once.
    original = _pane(
        view, f'<img class="xai-base xai-copy" alt="">{lungs}', "bare", _bare_alt_text(analysis)
    )
    kind = "sound" if is_sound else "radiograph"
    return (
        f'{findings_gallery(analysis)}<figure class="xai-figure xai-{kind}" '
        f'data-view="{"heat" if is_sound else "both"}">'
        f"{_captions(analysis)}{_controls(view, bool(explanations))}"
        f'<div class="xai-panes">{overlay}{original}</div></figure>'
    )


def findings_gallery(analysis: Analysis) -> str:
    """Return thumbnails of the heatmaps of all findings; empty for fewer than two findings.

    figure.js fills the thumbnails from the large images, so that each is sent only once.
    """
    thumbs = [
        _thumb(analysis.view, explanation, i)
        for i, explanation in enumerate(analysis.report.explanations)
        if explanation.target in analysis.report.decision.findings
    ]
    if len(thumbs) < 2:
        return ""
    return (
        '<section class="xai-gallery"><h2 class="xai-title">One heatmap for each finding</h2>'
        '<p class="xai-quiet">Select one to enlarge it, then drag the handle to compare it with '
        f'the radiograph.</p><div class="xai-thumbs">{"".join(thumbs)}</div></section>'
    )


def _thumb(view: View, explanation: Explanation, index: int) -> str:
    name = f"{phrases.display_label(explanation.target)} {phrases.percent(explanation.probability)}"
    return (
        f'<button type="button" class="xai-thumb" data-target="{index}" data-enlarge '
        f'aria-pressed="{str(index == 0).lower()}" '
        f'aria-label="{escape(name)}: enlarge its heatmap">'
        f'<span class="xai-plot"{_aspect_ratio(view)}><img class="xai-copy" alt="">'
        f'<img class="xai-heat" data-heat="{index}" alt=""></span>'
        f"<span>{escape(name)}</span></button>"
    )


def heatmap_uri(heatmap: Floats) -> str:
    """Return a heatmap (rows, columns), 0..1, row 0 at the top, as a translucent PNG data URI."""
    from PIL import Image

    # (256, 4). An indexed image needs one byte a pixel, where RGBA needs four.
    palette = render.colour_heatmap(np.linspace(0, 1, 256, dtype=np.float32)[None, :])[0]
    levels = np.clip(np.rint(255 * heatmap), 0, 255).astype(np.uint8)
    image = Image.fromarray(levels)
    # On an image in grey, putpalette takes the grey levels as indices into the palette.
    image.putpalette(palette[:, :3].tobytes())
    return _data_uri(image, "PNG", transparency=palette[:, 3].tobytes())


def image_uri(pixels: Pixels) -> str:
    """Return a grey image (rows, columns), 0..255, as a PNG or, if large, a JPEG data URI."""
    from PIL import Image

    image = Image.fromarray(pixels)
    if pixels.size > _JPEG_PIXELS:
        return _data_uri(image, "JPEG", quality=92)
    return _data_uri(image, "PNG")


def _data_uri(image: object, kind: str, **options: object) -> str:
    stream = io.BytesIO()
    image.save(stream, kind, **options)  # type: ignore[attr-defined]
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode()}"


def heatmap_layer(view: View, explanation: Explanation, index: int) -> str:
    """Return the heatmap of one label and a ring around its peak; hidden unless `index` is 0."""
    # Heatmaps of sounds have the lowest frequency in row 0, images have the top row there.
    is_sound = view.duration_s is not None
    heatmap = explanation.heatmap[::-1] if is_sound else explanation.heatmap
    x, y = _peak_position(view, explanation)
    hidden = " hidden" if index else ""
    # A heatmap of zeros has no peak, so it gets no ring.
    ring = f'<span class="xai-peak" style="left:{x:.2%};top:{y:.2%}"></span>'
    return (
        f'<div class="xai-layer" data-layer="{index}"{hidden}>'
        f'<img class="xai-heat" alt="" src="{heatmap_uri(heatmap)}">'
        f"{ring if float(explanation.heatmap.max()) > 0 else ''}</div>"
    )


def _peak_position(view: View, explanation: Explanation) -> tuple[float, float]:
    """Return the peak as fractions of the image from its top left corner."""
    peak = explanation.peak
    if view.duration_s is None:
        return peak["x"], peak["y"]
    return peak["time_s"] / view.duration_s, 1 - render.frequency_height(view, peak["frequency_hz"])


def _pane(view: View, images: str, name: str, alt: str, events: Sequence[Event] = ()) -> str:
    title = {"heat": "With heatmap", "bare": "Original"}[name]
    # A spectrogram fills the width; a radiograph keeps its proportions.
    ratio = "" if view.duration_s is not None else _aspect_ratio(view)
    plot = f'<div class="xai-plot" role="img" aria-label="{escape(alt)}"{ratio}>{images}</div>'
    if view.duration_s is not None:
        plot = (
            f'<div class="xai-axes">{frequency_axis(view)}{plot}'
            f"{time_axis(view.duration_s)}{_event_lanes(events, view.duration_s)}</div>"
        )
    elif name == "heat":
        plot = (
            f'<div class="xai-wipe-frame"{ratio}>{plot}<input type="range" class="xai-wipe" '
            'min="0" max="100" value="50" aria-label="Share of the radiograph under the heatmap, '
            'from the left, per cent"><span class="xai-handle" aria-hidden="true"></span></div>'
        )
    return (
        f'<div class="xai-pane xai-pane-{name}"><p class="xai-pane-title">{title}</p>{plot}</div>'
    )


def _aspect_ratio(view: View) -> str:
    rows, columns = view.pixels.shape
    # From --ratio, page.css limits the width so that the image fits on the screen.
    return f' style="aspect-ratio:{columns}/{rows};--ratio:{columns / rows:.4f}"'


def time_ticks(duration_s: float, max_ticks: int = _MAX_TICKS) -> list[float]:
    """Return round times in seconds from 0 to the end.

    >>> time_ticks(8.0)
    [0, 1, 2, 3, 4, 5, 6, 7, 8]
    """
    step = next((s for s in _NICE_STEPS_S if duration_s / s <= max_ticks), duration_s / max_ticks)
    # The small addition keeps the last tick where rounding puts the quotient just below it.
    return [step * i for i in range(math.floor(duration_s / step + 1e-9) + 1)]


def frequency_ticks(view: View) -> list[tuple[float, float]]:
    """Return round frequencies in hertz with their heights (0 bottom, 1 top), well apart."""
    low, high = view.row_frequencies_hz[0], view.row_frequencies_hz[-1]
    ticks: list[tuple[float, float]] = []
    for frequency in (f for f in _NICE_HZ if low <= f <= high):
        # The frequencies rise, so only the last label can be too close.
        height = render.frequency_height(view, frequency)
        if not ticks or height - ticks[-1][1] >= _MIN_TICK_GAP:
            ticks.append((float(frequency), height))
    return ticks


def frequency_axis(view: View) -> str:
    """Return the axis in hertz, to the left of a spectrogram, as SVG."""
    marks = "".join(
        f'<line x1="92%" x2="100%" y1="{1 - h:.2%}" y2="{1 - h:.2%}"/>'
        f'<text x="100%" dx="-9" y="{1 - h:.2%}" dy="0.35em" text-anchor="end">'
        f"{phrases.hertz(f)}</text>"
        for f, h in frequency_ticks(view)
    )
    return f'<svg class="xai-axis xai-axis-y" aria-hidden="true">{marks}</svg>'


def time_axis(duration_s: float, *, zoom: int = 1) -> str:
    """Return the axis below a spectrogram as SVG, in seconds or, for long sounds, in minutes.

    A stretched axis has `zoom` times as many ticks.
    """
    ticks = time_ticks(duration_s, zoom * _MAX_TICKS)
    in_minutes = len(ticks) > 1 and ticks[1] % 60 == 0
    scale, name = (60, " min") if in_minutes else (1, " s")
    # As many decimals as the tick that needs most, so that all look alike.
    places = max(0, *(len(f"{t / scale:.2f}".rstrip("0").split(".")[1]) for t in ticks))
    parts = []
    for tick in ticks:
        x = f"{tick / duration_s:.2%}"
        # The unit is written once: a phone has no room for more.
        unit = name if tick == ticks[-1] else ""
        # At both ends the text stays within the plot.
        anchor = "start" if tick == 0 else "end" if tick > 0.985 * duration_s else "middle"
        parts.append(
            f'<line x1="{x}" x2="{x}" y1="0" y2="5"/>'
            f'<text x="{x}" y="19" text-anchor="{anchor}">{tick / scale:.{places}f}{unit}</text>'
        )
    close = " xai-close" if zoom > 1 else ""
    return f'<svg class="xai-axis xai-axis-x{close}" aria-hidden="true">{"".join(parts)}</svg>'


def _event_lanes(events: Sequence[Event], duration_s: float) -> str:
    """Return one lane for each label, with a button that plays each of its events."""
    rows = []
    # A dictionary keeps the labels' first appearance; a set would shuffle them.
    for label in dict.fromkeys(e.label for e in events):
        buttons = "".join(_event_button(e, duration_s) for e in events if e.label == label)
        rows.append(
            f'<span class="xai-lane-name">{escape(phrases.display_label(label))}</span>'
            f'<div class="xai-lane">{buttons}</div>'
        )
    return "".join(rows)


def _event_button(event: Event, duration_s: float) -> str:
    span = f"{event.start_s:.2f} to {phrases.seconds(event.end_s)}"
    text = f"{phrases.display_label(event.label)}, {span}, {phrases.percent(event.probability)}"
    return (
        f'<button type="button" class="xai-event" data-start="{event.start_s:.3f}" '
        f'data-end="{event.end_s:.3f}" aria-label="Play {escape(text)}" '
        f'title="Play {escape(text)}" '
        f'style="left:{event.start_s / duration_s:.2%};'
        f'width:{(event.end_s - event.start_s) / duration_s:.2%}"></button>'
    )


def _controls(view: View, has_heatmap: bool) -> str:
    if not has_heatmap:
        return ""
    choices = (
        ("heat", "With heatmap"),
        *((("slide", "Slider"),) if view.duration_s is None else ()),
        ("both", "Side by side" if view.duration_s is None else "Compare"),
        ("bare", "Original"),
    )
    # The same as the data-view of `figure_html`.
    initial = "heat" if view.duration_s is not None else "both"
    buttons = "".join(
        f'<button type="button" data-show="{key}" aria-pressed="{str(key == initial).lower()}">'
        f"{text}</button>"
        for key, text in choices
    )
    return (
        '<div class="xai-controls">'
        f'<div class="xai-switch" role="group" aria-label="View">{buttons}</div>'
        f"{_lungs_button(view)}"
        '<label class="xai-strength"><span>Heatmap opacity</span>'
        f'<input type="range" min="0" max="100" value="{_START_OPACITY_PERCENT}" step="1" '
        'aria-label="Heatmap opacity, per cent"></label>'
        f'<div class="xai-legends">{_legends(view)}</div></div>'
    )


def _lungs_button(view: View) -> str:
    """Return the button that draws the outline of the lungs on the radiograph, if there is one."""
    if not view.lung_outlines:
        return ""
    return (
        '<div class="xai-switch"><button type="button" data-lungs aria-pressed="false" '
        'title="Show the outline of the lungs that the shares are measured in">Lung field</button>'
        "</div>"
    )


def _lung_outlines(view: View) -> str:
    """Return the outline of the lungs as SVG; page.css hides it until the button is pressed."""
    if not view.lung_outlines:
        return ""
    parts = "".join(
        f'<polygon points="{" ".join(f"{100 * x:.2f},{100 * y:.2f}" for x, y in part)}"/>'
        for part in view.lung_outlines
    )
    return (
        '<svg class="xai-lungs" viewBox="0 0 100 100" preserveAspectRatio="none" '
        f'aria-hidden="true">{parts}</svg>'
    )


def _legends(view: View) -> str:
    # CSS interpolates between the stops, so twelve of the 256 colours suffice.
    stops = render.HEATMAP_COLOURS[np.linspace(0, 255, 12).astype(int)]
    colours = ", ".join(f"rgb({r} {g} {b})" for r, g, b in stops.tolist())
    legend = _legend("Heatmap", "low", "high", colours)
    if view.decibels is None:
        return legend
    quiet, loud = (f"{level:.0f} dB".replace("-", "−") for level in view.decibels)
    return legend + _legend("Level", quiet, loud, "#000, #fff")


def _legend(name: str, low: str, high: str, colours: str) -> str:
    return (
        f'<span class="xai-legend"><b>{name}</b> {low}'
        f'<i style="background:linear-gradient(90deg, {colours})"></i>{high}</span>'
    )


def _captions(analysis: Analysis) -> str:
    # figure.js shows the line of the selected label and copies data-alt to the image.
    lines = "".join(
        f'<p data-layer="{i}"{" hidden" if i else ""} '
        f'data-alt="{escape(_alt_text(analysis, e))}">'
        f"<b>{escape(phrases.display_label(e.target))}, {phrases.percent(e.probability)}.</b> "
        f"{escape(phrases.heatmap_location(analysis.view, e))}"
        f" {escape(phrases.lungs_sentence(analysis.view, e))}"
        f'<span class="xai-faithfulness">{escape(phrases.faithfulness_sentence(e))}</span></p>'
        for i, e in enumerate(analysis.report.explanations)
    )
    return f'<figcaption aria-live="polite">{lines}</figcaption>'


def _alt_text(analysis: Analysis, explanation: Explanation) -> str:
    """Return the alternative text: the label with its probability, and where its heatmap lies."""
    label = phrases.display_label(explanation.target)
    return (
        f"{_bare_alt_text(analysis)} with the {explanation.explainer} heatmap for {label} "
        f"({phrases.percent(explanation.probability)}). "
        f"{phrases.heatmap_location(analysis.view, explanation)}"
    )


def _bare_alt_text(analysis: Analysis) -> str:
    if analysis.view.duration_s is None:
        return "The radiograph as the network sees it"
    return f"Spectrogram of {phrases.seconds(analysis.view.duration_s)} of sound"
