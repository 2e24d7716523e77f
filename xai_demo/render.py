"""Drawing: heatmaps in colour, finished figures for reports, waveforms and spectrograms. Pure."""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from xai_demo.records import DISCLAIMER, Event, Explanation, View

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xai_demo.records import Floats, Pixels

WIDTH = 1200  # of a figure, in pixels
_PLOT_HEIGHT = 340  # of a spectrogram
_MAX_RADIOGRAPH_SIZE = (1010, 840)
_LEFT, _RIGHT = 92, 150  # margins of a spectrogram, for its axis and its legend
_LANE_HEIGHT = 22  # height of one label's event bars
_INK, _PALE, _LINE, _ACCENT = (28, 32, 38), (98, 104, 114), (150, 156, 166), (14, 116, 144)
_BEHIND_LEGEND = (96, 96, 96)

# "inferno" by Nathaniel Smith and Stéfan van der Walt (matplotlib, CC0): every fifteenth colour.
# Its lightness increases evenly, so it can be read by the colour-blind and in a greyscale print.
_INFERNO = (
    "000004 0a0722 1e0c45 380962 510e6c 69166e 801f6c 982766 b0315b c63d4d d94d3d e9612b f47918 "
    "fa9407 fcb014 f8cd37 f2ea69 fcffa4"
)


def _colour_scale() -> Pixels:
    points = np.array([list(bytes.fromhex(colour)) for colour in _INFERNO.split()])
    channels = [np.interp(np.arange(256) / 15, np.arange(18), channel) for channel in points.T]
    return np.asarray(np.rint(np.stack(channels, axis=1)), np.uint8)


HEATMAP_COLOURS: Pixels = _colour_scale()  # (256, 3), low to high

# Low values are transparent, so that the image stays readable; from two thirds on, the heatmap is
# opaque. In between the alpha follows a smooth step.
_RAMP = np.clip((np.arange(256) / 255 - 0.06) / 0.60, 0, 1)
_ALPHA = np.rint(255 * _RAMP**2 * (3 - 2 * _RAMP)).astype(np.uint8)


def colour_heatmap(heatmap: NDArray[np.floating[Any]]) -> Pixels:
    """A heatmap, (rows, columns), 0 to 1, as RGBA, (rows, columns, 4); low is transparent."""
    table = np.concatenate([HEATMAP_COLOURS, _ALPHA[:, None]], axis=1)
    return np.asarray(table[_levels(heatmap)])


def tick_values(low: float, high: float, max_count: int) -> tuple[float, ...]:
    """Round values for an axis from `low` to `high`: at most `max_count` multiples of a round step.

    The step is 1, 2 or 5 times a power of ten.

    >>> tick_values(0, 12, 8)
    (0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0)
    """
    if not (math.isfinite(low) and math.isfinite(high) and high > low and max_count > 0):
        return ()
    power = 10.0 ** math.floor(math.log10((high - low) / max_count))
    for factor in (1, 2, 5, 10, 20, 50):
        step = factor * power
        # The tolerance keeps a value that rounding puts just beyond an end of the axis.
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first + 1 <= max_count:
            break
    return tuple(round(index * step, 12) for index in range(first, last + 1))


def frequency_height(view: View, frequency_hz: float) -> float:
    """The height of a frequency on the spectrogram's axis, from 0 at the bottom to 1 at the top."""
    rows = len(view.row_frequencies_hz)
    row = float(np.interp(frequency_hz, view.row_frequencies_hz, np.arange(rows)))
    return (row + 0.5) / rows


def png_bytes(picture: Pixels | Image.Image) -> bytes:
    """An image as the bytes of a PNG file."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=4)
    return stream.getvalue()


def overlay_figure(
    view: View,
    explanation: Explanation | None,
    *,
    opacity: float = 0.55,
    events: Sequence[Event] = (),
    title: str = "",
) -> Image.Image:
    """The finished figure: the image under its heatmap, with axes, legends, peak and events.

    Without an explanation, it is the plain image with its axes.
    """
    is_sound = view.duration_s is not None
    lanes = tuple(dict.fromkeys(event.label for event in events)) if is_sound else ()
    plot, size = _layout(view, len(lanes), title)
    figure = Image.new("RGB", size, "white")
    # Options for whoever saves the figure: a PNG takes a quarter of the time of the default
    # compression and is no larger; a JPEG takes a tenth of that and has no visible loss.
    figure.encoderinfo = {"compress_type": zlib.Z_RLE, "quality": 92, "subsampling": 0}
    draw = ImageDraw.Draw(figure)
    _draw_heading(draw, plot, explanation, title)
    size_in_figure = (plot.width, plot.height)
    resized = Image.fromarray(view.pixels).resize(size_in_figure, Image.Resampling.BICUBIC)
    image = resized.convert("RGB")
    if explanation is not None:
        # Row 0 of a sound's heatmap is the lowest frequency, which belongs at the bottom.
        heatmap = explanation.heatmap[::-1] if is_sound else explanation.heatmap
        _blend_heatmap(image, heatmap, opacity)
    figure.paste(image, (plot.left, plot.top))
    draw.rectangle((plot.left - 1, plot.top - 1, plot.right, plot.bottom), outline=_LINE)
    if explanation is not None and _levels(explanation.heatmap).any():
        _circle_peak(figure, plot, view, explanation)
    if is_sound:
        _draw_frequency_axis(draw, plot, view)
        _draw_time_axis(draw, plot, view, len(lanes))
        _draw_events(draw, plot, view, lanes, events)
    _draw_legends(figure, plot, view, opacity if explanation is not None else None)
    draw.text((plot.left, size[1] - 14), DISCLAIMER, _PALE, _font(17), anchor="ls")
    return figure


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plot:
    """The position of the image in the figure, in pixels."""

    left: int
    top: int
    width: int
    height: int

    @property
    def right(self) -> int:
        return self.left + self.width

    @property
    def bottom(self) -> int:
        return self.top + self.height


def _layout(view: View, lanes: int, title: str) -> tuple[_Plot, tuple[int, int]]:
    """The position of the image and the size of the figure."""
    top = 84 if title else 50
    if view.duration_s is not None:
        plot = _Plot(left=_LEFT, top=top, width=WIDTH - _LEFT - _RIGHT, height=_PLOT_HEIGHT)
        return plot, (WIDTH, plot.bottom + _LANE_HEIGHT * lanes + 66)
    rows, columns = view.pixels.shape
    scale = min(_MAX_RADIOGRAPH_SIZE[0] / columns, _MAX_RADIOGRAPH_SIZE[1] / rows)
    width, height = max(1, round(columns * scale)), max(1, round(rows * scale))
    plot = _Plot(left=(WIDTH - 120 - width) // 2, top=top, width=width, height=height)
    return plot, (WIDTH, plot.bottom + 46)


def _blend_heatmap(image: Image.Image, heatmap: NDArray[np.floating[Any]], opacity: float) -> None:
    """Blend a heatmap, row 0 at the top, smoothly enlarged, into the image."""
    # Half a level more, because the conversion to "L" truncates.
    coarse = Image.fromarray(_levels(heatmap).astype(np.float32) + 0.5)
    levels = coarse.resize(image.size, Image.Resampling.BICUBIC).convert("L")
    mask = levels.point([round(min(max(opacity, 0), 1) * int(alpha)) for alpha in _ALPHA])
    levels.putpalette(HEATMAP_COLOURS.tobytes())
    image.paste(levels.convert("RGB"), mask=mask)


def _levels(heatmap: NDArray[np.floating[Any]]) -> Pixels:
    """A heatmap, 0 to 1, as whole numbers 0 to 255; NaN becomes 0."""
    finite = np.clip(np.nan_to_num(heatmap, nan=0, posinf=1, neginf=0), 0, 1)
    return np.asarray(np.rint(255 * finite), np.uint8)


def _draw_heading(
    draw: ImageDraw.ImageDraw, plot: _Plot, explanation: Explanation | None, title: str
) -> None:
    """The title, and under it what the heatmap shows."""
    if title:
        text = _shorten(draw, title, WIDTH - plot.left - 30, _font(28))
        draw.text((plot.left, 40), text, _INK, _font(28), anchor="ls")
    if explanation is not None:
        text = f"{explanation.explainer} for {explanation.target} ({explanation.probability:.2f})"
        text += _peak_text(explanation)
        text = _shorten(draw, text, WIDTH - plot.left - 30, _font(19))
        draw.text((plot.left, plot.top - 16), text, _PALE, _font(19), anchor="ls")


def _peak_text(explanation: Explanation) -> str:
    peak = explanation.peak
    if not _levels(explanation.heatmap).any():
        return ", zero everywhere"
    if "time_s" in peak:
        return f", peak at {peak['time_s']:.2f} s, {peak['frequency_hz']:.0f} Hz"
    return ", peak circled"


def _circle_peak(figure: Image.Image, plot: _Plot, view: View, explanation: Explanation) -> None:
    peak = explanation.peak
    x, y = peak.get("x", 0.0), peak.get("y", 0.0)
    if view.duration_s is not None:
        x, y = peak["time_s"] / view.duration_s, 1 - frequency_height(view, peak["frequency_hz"])
    # Drawn at four times the size and reduced, because Pillow draws circles without antialiasing.
    ring = Image.new("RGBA", (128, 128))
    draw = ImageDraw.Draw(ring)
    draw.ellipse((12, 12, 116, 116), outline=(0, 0, 0, 200), width=24)
    draw.ellipse((18, 18, 110, 110), outline=(255, 255, 255, 255), width=11)
    ring = ring.resize((32, 32), Image.Resampling.LANCZOS)
    centre_x = plot.left + round(min(max(x, 0), 1) * (plot.width - 1))
    centre_y = plot.top + round(min(max(y, 0), 1) * (plot.height - 1))
    figure.paste(ring, (centre_x - 16, centre_y - 16), ring)


def _draw_frequency_axis(draw: ImageDraw.ImageDraw, plot: _Plot, view: View) -> None:
    if not view.row_frequencies_hz:
        return
    low, high = view.row_frequencies_hz[0], view.row_frequencies_hz[-1]
    # The bottom is left to the event labels.
    taken = [plot.bottom + 22.0]
    # The roundest numbers come first; the others fill the remaining gaps.
    for factors in ((1,), (2, 5), (3, 4, 7), (1.5, 6, 8)):
        for frequency in (f * 10.0**power for f in factors for power in range(1, 5)):
            y = plot.bottom - frequency_height(view, frequency) * plot.height
            if low <= frequency <= high and all(abs(y - other) >= 32 for other in taken):
                taken.append(y)
                draw.line((plot.left - 7, y, plot.left - 2, y), _LINE)
                draw.text((plot.left - 12, y), f"{frequency:.0f}", _INK, _font(17), anchor="rm")
    name = _vertical_text("Frequency (Hz)")
    draw.bitmap((14, plot.top + (plot.height - name.height) // 2), name, _PALE)


def _draw_time_axis(draw: ImageDraw.ImageDraw, plot: _Plot, view: View, lanes: int) -> None:
    duration_s = view.duration_s or 0.0
    y = plot.bottom + _LANE_HEIGHT * lanes
    for time_s in tick_values(0.0, duration_s, 11):
        x = plot.left + time_s / duration_s * (plot.width - 1)
        draw.line((x, plot.bottom + 1, x, y + 6), _LINE)
        draw.text((x, y + 11), f"{time_s:g}", _INK, _font(17), anchor="mt")
    draw.text((plot.right, y + 36), "Time (s)", _PALE, _font(17), anchor="rt")


def _draw_events(
    draw: ImageDraw.ImageDraw,
    plot: _Plot,
    view: View,
    lanes: tuple[str, ...],
    events: Sequence[Event],
) -> None:
    """One row of bars for each label, between the image and the time axis."""
    duration_s = view.duration_s or math.inf
    for event in events:
        top = plot.bottom + 6 + _LANE_HEIGHT * lanes.index(event.label)
        spans = np.clip(np.array([event.start_s, event.end_s]) / duration_s, 0, 1)
        first, last = (plot.left + float(span) * (plot.width - 1) for span in spans)
        draw.rectangle((first, top, max(last, first + 3), top + 11), _ACCENT)
    for lane, label in enumerate(lanes):
        place = (plot.left - 12, plot.bottom + 11 + _LANE_HEIGHT * lane)
        text = _shorten(draw, label, _LEFT - 16, _font(17))
        draw.text(place, text, _ACCENT, _font(17), anchor="rm")


def _draw_legends(figure: Image.Image, plot: _Plot, view: View, opacity: float | None) -> None:
    """Vertical colour bars on the right: the heatmap as it looks on grey, and the level."""
    height = min(plot.height - 60, 260)
    top = plot.top + (plot.height - height) // 2
    x = plot.right + 24
    if opacity is not None:
        bar = Image.new("RGB", (16, height), _BEHIND_LEGEND)
        _blend_heatmap(bar, np.linspace(1, 0, height, dtype=np.float32)[:, None], opacity)
        _draw_bar(figure, (x, top), bar, ("Heat", "high", "low"))
        x += 62
    if view.decibels is not None:
        grey = np.linspace(255, 0, height).astype(np.uint8)
        bar = Image.fromarray(np.repeat(grey[:, None], 16, axis=1)).convert("RGB")
        quiet, loud = view.decibels
        _draw_bar(figure, (x, top), bar, ("dB", f"{loud:.0f}", f"{quiet:.0f}"))


def _draw_bar(
    figure: Image.Image, position: tuple[int, int], bar: Image.Image, texts: tuple[str, str, str]
) -> None:
    """Paste a colour bar with its name above and the texts for high and low beside it."""
    (x, y), (name, high, low) = position, texts
    draw = ImageDraw.Draw(figure)
    figure.paste(bar, position)
    draw.rectangle((x - 1, y - 1, x + bar.width, y + bar.height), outline=_LINE)
    draw.text((x + bar.width / 2, y - 10), name, _PALE, _font(17), anchor="ms")
    draw.text((x + bar.width + 5, y), high, _INK, _font(15), anchor="lt")
    draw.text((x + bar.width + 5, y + bar.height), low, _INK, _font(15), anchor="lb")


def _vertical_text(text: str) -> Image.Image:
    """Text that reads from bottom to top, as a mask."""
    font = _font(17)
    left, top, right, bottom = (round(edge) for edge in font.getbbox(text))
    mask = Image.new("L", (right - left + 2, bottom - top + 2))
    ImageDraw.Draw(mask).text((1 - left, 1 - top), text, 255, font)
    return mask.transpose(Image.Transpose.ROTATE_90)


def _shorten(
    draw: ImageDraw.ImageDraw, text: str, width: float, font: ImageFont.FreeTypeFont
) -> str:
    if draw.textlength(text, font) <= width:
        return text
    while text and draw.textlength(text + "...", font) > width:
        text = text[:-1]
    return text + "..."


def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)  # type: ignore[return-value]


DYNAMIC_RANGE_DB = 70.0  # from white down to black

# About; long enough to separate the harmonics of a wheeze.
_FRAME_S = 0.05
# At most, so that an hour costs no more than a few minutes.
_FRAMES_PER_COLUMN = 8
_BATCH_FRAMES = 512
_SILENCE = 1e-12


def envelope(samples: Floats, columns: int) -> Floats:
    """The lowest and highest sample of each column: (time,) -> (2, columns).

    There are fewer columns if there are fewer samples.

    >>> envelope(np.array([0.0, 1.0, -1.0, 0.5]), 2).tolist()
    [[0.0, -1.0], [1.0, 0.5]]
    """
    columns = min(columns, len(samples))
    if columns < 1:
        return np.zeros((2, 0), np.float32)
    starts = np.arange(columns) * len(samples) // columns
    return np.stack([np.minimum.reduceat(samples, starts), np.maximum.reduceat(samples, starts)])


def spectrogram_view(
    samples: Floats,
    sample_rate_hz: int,
    *,
    columns: int = 600,
    loudest_db: float | None = None,
    least_loud_db: float = -math.inf,
) -> View:
    """A grey spectrogram of a sound, (time,), linear from 0 Hz to half the sample rate.

    A column shows the loudest of the frames examined in it; in a long recording these are not all.
    `loudest_db`, in decibels relative to a full-scale sine, is white; None: the loudest frame, but
    at least `least_loud_db`.
    """
    size = 2 ** round(math.log2(_FRAME_S * sample_rate_hz))
    padded = np.pad(samples, (0, max(0, size - len(samples))))
    # Frames overlap by three quarters where the sound is short enough for that.
    count = 1 + (len(padded) - size) // (size // 4)
    starts = np.linspace(0, len(padded) - size, min(count, _FRAMES_PER_COLUMN * columns)).astype(
        int
    )
    powers = _column_maxima(_frame_powers(padded, starts, size), columns)
    levels = 10 * np.log10(np.maximum(powers, _SILENCE))
    high = max(float(levels.max()), least_loud_db) if loudest_db is None else loudest_db
    grey = np.clip((levels - high + DYNAMIC_RANGE_DB) / DYNAMIC_RANGE_DB, 0, 1)
    return View(
        pixels=np.rint(255 * grey[::-1]).astype(np.uint8),
        duration_s=len(samples) / sample_rate_hz,
        row_frequencies_hz=tuple((np.arange(len(levels)) * sample_rate_hz / size).tolist()),
        decibels=(high - DYNAMIC_RANGE_DB, high),
    )


def _frame_powers(samples: Floats, starts: NDArray[np.intp], size: int) -> NDArray[np.float32]:
    """The power spectrum of each frame, (frequency, frames), in which a full-scale sine has 1."""
    window = np.hanning(size + 1)[:-1].astype(np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(samples, size)
    parts = [
        np.abs(np.fft.rfft(frames[starts[i : i + _BATCH_FRAMES]] * window)) ** 2
        for i in range(0, len(starts), _BATCH_FRAMES)
    ]
    power: NDArray[Any] = np.concatenate(parts).T * (2 / window.sum()) ** 2
    return power.astype(np.float32)


def _column_maxima(powers: NDArray[np.float32], columns: int) -> NDArray[np.float32]:
    count = powers.shape[1]
    columns = min(columns, count)
    starts = np.arange(columns) * count // columns
    maxima: NDArray[np.float32] = np.maximum.reduceat(powers, starts, axis=1)
    return maxima
