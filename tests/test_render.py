import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from xai_demo import render
from xai_demo.records import Event, Explanation, View

FREQUENCIES = tuple(np.geomspace(50, 2500, 64).tolist())
SOUND = View(
    pixels=np.zeros((64, 500), np.uint8),
    duration_s=10.0,
    row_frequencies_hz=FREQUENCIES,
    decibels=(-60.0, 5.0),
)
FILM = View(pixels=np.zeros((224, 224), np.uint8))
ACCENT = (14, 116, 144)


def explanation(heatmap, **peak):
    heatmap = np.asarray(heatmap, np.float32)
    return Explanation(
        explainer="Grad-CAM++",
        target="wheeze",
        probability=0.83,
        layer="layer4",
        values=heatmap,
        heatmap=heatmap,
        peak=peak or {"x": 0.5, "y": 0.5},
    )


def sound_explanation(heatmap, time_s=5.0, frequency_hz=400.0):
    return explanation(heatmap, time_s=time_s, frequency_hz=frequency_hz)


def difference(one, other):
    return np.abs(np.asarray(one, int) - np.asarray(other, int)).sum(axis=2)


def drawn_box(view, figure):
    """Where the picture lies: what changes in the bare figure where black becomes white."""
    white = View(
        pixels=np.full_like(view.pixels, 255),
        duration_s=view.duration_s,
        row_frequencies_hz=view.row_frequencies_hz,
        decibels=view.decibels,
    )
    rows, columns = np.nonzero(
        difference(render.overlay_figure(view, None), render.overlay_figure(white, None)) > 300
    )
    assert figure.size == render.overlay_figure(view, explanation(np.zeros((2, 2)))).size
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


# Colours


def test_the_scale_is_inferno():
    assert render.HEATMAP_COLOURS.shape == (256, 3)
    assert render.HEATMAP_COLOURS.dtype == np.uint8
    assert render.HEATMAP_COLOURS[0].tolist() == [0, 0, 4]
    assert render.HEATMAP_COLOURS[120].tolist() == [176, 49, 91]
    assert render.HEATMAP_COLOURS[255].tolist() == [252, 255, 164]


def test_the_scale_grows_evenly_lighter():
    # CIE lightness from sRGB: IEC 61966-2-1, then CIE 1976.
    channel = render.HEATMAP_COLOURS / 255
    linear = np.where(channel <= 0.04045, channel / 12.92, ((channel + 0.055) / 1.055) ** 2.4)
    lightness = 116 * np.cbrt(linear @ (0.2126, 0.7152, 0.0722)) - 16
    steps = np.diff(lightness[20:])
    assert steps.min() > 0
    assert steps.max() < 3 * steps.mean()


def test_cool_is_clear_and_hot_is_solid_and_in_the_last_colour():
    rgba = render.colour_heatmap(np.array([[0.0, 0.5, 1.0]], np.float32))
    assert rgba.shape == (1, 3, 4)
    assert rgba.dtype == np.uint8
    assert rgba[0, 0, 3] == 0
    assert rgba[0, 2].tolist() == [252, 255, 164, 255]
    assert 0 < rgba[0, 1, 3] < 255


def test_alpha_never_falls_with_heat():
    alpha = render.colour_heatmap(np.linspace(0, 1, 256)[None, :])[0, :, 3].astype(int)
    assert np.diff(alpha).min() >= 0


def test_heat_keeps_its_row_order_and_tames_odd_numbers():
    rgba = render.colour_heatmap(np.array([[1.0, np.inf], [np.nan, -3.0]]))
    assert rgba[0, 0].tolist() == rgba[0, 1].tolist() == [252, 255, 164, 255]
    assert rgba[1, 0].tolist() == rgba[1, 1].tolist() == [0, 0, 4, 0]


# Ticks and axes


@pytest.mark.parametrize(
    ("low", "high", "max_count", "expected"),
    [
        (0, 9, 11, (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)),
        (0, 9, 5, (0, 2, 4, 6, 8)),
        (0, 5, 11, (0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5)),
        (0, 0.3, 4, (0, 0.1, 0.2, 0.3)),
        (0, 3600, 8, (0, 500, 1000, 1500, 2000, 2500, 3000, 3500)),
        (-60, 15, 4, (-60, -40, -20, 0)),
    ],
)
def test_ticks_are_round(low, high, max_count, expected):
    assert render.tick_values(low, high, max_count) == pytest.approx(expected)


@pytest.mark.parametrize("max_count", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("high", [0.013, 1.0, 7.77, 10_000.0])
def test_there_are_never_more_ticks_than_asked_for(high, max_count):
    found = render.tick_values(0.0, high, max_count)
    assert 1 <= len(found) <= max_count
    assert all(0 <= tick <= high for tick in found)


@pytest.mark.parametrize(("low", "high"), [(1, 1), (2, 1), (0, float("nan")), (0, float("inf"))])
def test_an_axis_without_length_has_no_ticks(low, high):
    assert render.tick_values(low, high, 5) == ()


def test_a_frequency_lies_at_the_middle_of_its_row():
    view = View(
        pixels=np.zeros((4, 2), np.uint8),
        duration_s=1.0,
        row_frequencies_hz=(100.0, 200.0, 400.0, 800.0),
    )
    heights = [render.frequency_height(view, f) for f in (100.0, 200.0, 300.0, 800.0)]
    assert heights == pytest.approx([1 / 8, 3 / 8, 4 / 8, 7 / 8])


# The figure


def test_a_spectrogram_figure_is_wide_and_a_film_keeps_its_proportions():
    sound = render.overlay_figure(SOUND, None, title="clip.wav")
    assert sound.width == 1200
    assert 420 <= sound.height <= 560
    tall = View(pixels=np.zeros((400, 200), np.uint8))
    left, top, right, bottom = drawn_box(tall, render.overlay_figure(tall, None))
    assert (bottom - top) / (right - left) == pytest.approx(2.0, rel=0.01)
    assert sound.mode == "RGB"
    assert sound.getpixel((3, 3)) == (255, 255, 255)


def test_heat_at_the_lowest_frequencies_is_drawn_at_the_foot():
    heatmap = np.zeros((64, 500))
    heatmap[:16] = 1.0  # row 0 is the lowest frequency
    figure = render.overlay_figure(SOUND, sound_explanation(heatmap, 5.0, 60.0), opacity=1.0)
    left, top, right, bottom = drawn_box(SOUND, figure)
    x = (left + right) // 4
    assert figure.getpixel((x, bottom - 10)) == (252, 255, 164)
    assert figure.getpixel((x, top + 10)) == (0, 0, 0)


def test_heat_at_the_top_of_a_film_is_drawn_at_the_top():
    heatmap = np.zeros((224, 224))
    heatmap[:56, :56] = 1.0
    figure = render.overlay_figure(FILM, explanation(heatmap, x=0.9, y=0.9), opacity=1.0)
    left, top, right, bottom = drawn_box(FILM, figure)
    assert figure.getpixel((left + 10, top + 10)) == (252, 255, 164)
    assert figure.getpixel((right - 10, top + 10)) == (0, 0, 0)
    assert figure.getpixel((left + 10, bottom - 10)) == (0, 0, 0)


def test_a_bright_row_of_the_view_stays_at_its_height():
    pixels = np.zeros((64, 500), np.uint8)
    pixels[:8] = 255  # the top of the drawing
    view = View(pixels=pixels, duration_s=10.0, row_frequencies_hz=FREQUENCIES)
    figure = render.overlay_figure(view, None)
    left, top, right, bottom = drawn_box(SOUND, render.overlay_figure(SOUND, None))
    middle = (left + right) // 2
    assert figure.getpixel((middle, top + 5)) == (255, 255, 255)
    assert figure.getpixel((middle, bottom - 5)) == (0, 0, 0)


@pytest.mark.parametrize("opacity", [0.25, 0.5, 1.0])
def test_opacity_is_the_share_of_the_heat(opacity):
    figure = render.overlay_figure(
        FILM, explanation(np.ones((8, 8)), x=0.9, y=0.9), opacity=opacity
    )
    left, top, _, _ = drawn_box(FILM, figure)
    pixel = figure.getpixel((left + 20, top + 20))
    assert pixel == pytest.approx([opacity * c for c in (252, 255, 164)], abs=2)


def test_the_peak_is_ringed_where_it_lies():
    heatmap = np.full((64, 500), 0.001)
    heatmap[0, 0] = 0.01  # enough heat for a ring, too little to be seen
    quiet = render.overlay_figure(
        SOUND, sound_explanation(np.zeros((64, 500)), 2.5, FREQUENCIES[48])
    )
    ringed = render.overlay_figure(SOUND, sound_explanation(heatmap, 2.5, FREQUENCIES[48]))
    left, top, right, bottom = drawn_box(SOUND, ringed)
    changed = difference(quiet, ringed)[top:bottom, left:right] > 60
    rows, columns = np.nonzero(changed)
    assert columns.mean() / (right - left) == pytest.approx(0.25, abs=0.005)
    assert 1 - rows.mean() / (bottom - top) == pytest.approx(48.5 / 64, abs=0.01)
    assert np.ptp(columns) < 40


def test_events_are_bars_under_their_times():
    events = (Event(label="wheeze", start_s=2.0, end_s=4.0, probability=0.9),)
    figure = np.asarray(render.overlay_figure(SOUND, None, events=events))
    left, _, right, bottom = drawn_box(SOUND, render.overlay_figure(SOUND, None))
    bar = (figure[bottom : bottom + 25] == ACCENT).all(axis=2)
    columns = np.nonzero(bar.sum(axis=0) >= 8)[0]
    columns = columns[columns >= left]  # left of it stands the label
    span = (columns[[0, -1]] - left) / (right - left)
    assert span.tolist() == pytest.approx([0.2, 0.4], abs=0.004)


def test_every_label_has_a_lane_of_its_own():
    one = (Event(label="wheeze", start_s=2.0, end_s=4.0, probability=0.9),)
    two = (*one, Event(label="crackle", start_s=2.0, end_s=99.0, probability=0.9))
    heights = [
        render.overlay_figure(SOUND, None, events=events).height for events in ((), one, two)
    ]
    assert heights[1] - heights[0] == heights[2] - heights[1] > 0


def test_words_outside_the_picture_change_with_title_and_explanation():
    bare = render.overlay_figure(SOUND, None, title="a")
    for other in (
        render.overlay_figure(SOUND, None, title="b"),
        render.overlay_figure(SOUND, sound_explanation(np.zeros((64, 500))), title="a"),
    ):
        assert difference(bare, other)[:80].any()


def test_a_title_that_is_too_long_stays_inside_the_figure():
    figure = np.asarray(render.overlay_figure(SOUND, None, title="very long name " * 40))
    assert (figure[:80, -20:] == 255).all()


def test_heat_without_a_finite_number_draws_the_bare_picture():
    nothing = sound_explanation(np.full((64, 500), np.nan))
    figure = render.overlay_figure(SOUND, nothing)
    left, top, right, bottom = drawn_box(SOUND, figure)
    assert not difference(render.overlay_figure(SOUND, None), figure)[top:bottom, left:right].any()


@pytest.mark.parametrize("shape", [(64, 1), (1, 4000), (64, 30_000)])
def test_odd_shapes_are_drawn(shape):
    view = View(
        pixels=np.zeros(shape, np.uint8),
        duration_s=0.05 * shape[1],
        row_frequencies_hz=FREQUENCIES[: shape[0]],
        decibels=(-60.0, 0.0),
    )
    figure = render.overlay_figure(view, sound_explanation(np.ones(shape), 0.01, 100.0))
    assert figure.width == 1200


def test_png_bytes_holds_the_picture():
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for picture in (pixels, Image.fromarray(pixels)):
        data = render.png_bytes(picture)
        with Image.open(io.BytesIO(data)) as image:
            assert image.format == "PNG"
            assert np.array_equal(np.asarray(image), pixels)


def test_rendering_needs_pillow_and_numpy_only():
    code = (
        "import sys, xai_demo.render; "
        "print({'matplotlib', 'scipy', 'torch', 'cv2'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
