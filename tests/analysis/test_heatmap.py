"""Heatmaps normalised, stitched and reduced to a peak, against pytorch-grad-cam and by hand."""

import numpy as np
import pytest
from pytorch_grad_cam.utils.image import scale_cam_image

from tests.support.small_models import MEL
from xai_demo.analysis import heatmap


def spot(rows: int, columns: int, row: int, column: int) -> np.ndarray:
    values = np.zeros((rows, columns), np.float32)
    values[row, column] = 2
    return values


def test_normalised_maps_run_from_zero_to_one():
    assert heatmap.normalise(np.array([[1, 3], [2, 5]], np.float32)) == pytest.approx(
        np.array([[0, 0.5], [0.25, 1]]), abs=1e-6
    )


def test_an_empty_map_stays_empty():
    assert not heatmap.normalise(np.zeros((4, 4), np.float32)).any()


def test_normalising_and_resizing_equal_pytorch_grad_cam():
    raw = np.random.default_rng(0).random((7, 5), dtype=np.float32)
    expected = scale_cam_image(raw[None], (50, 70))[0]
    assert heatmap.resize(heatmap.normalise(raw), 70, 50) == pytest.approx(expected, abs=1e-6)


def test_a_single_window_is_only_resized():
    windows = np.random.default_rng(1).random((1, 4, 13), dtype=np.float32)
    whole = heatmap.stitch_windows(windows, (0,), [0.3], 200, MEL, 200)
    assert whole == pytest.approx(heatmap.resize(heatmap.normalise(windows[0]), 64, 200), abs=1e-6)


def test_a_window_beyond_the_end_is_cropped():
    assert heatmap.stitch_windows(
        np.ones((1, 4, 13), np.float32), (0,), [1], 200, MEL, 120
    ).shape == (
        64,
        120,
    )


def test_the_heatmap_of_a_window_lies_where_the_window_was():
    windows = np.zeros((3, 4, 10), np.float32)
    windows[2] = 1
    whole = heatmap.stitch_windows(windows, (0, 200, 400), [1, 1, 1], 200, MEL, 600)
    assert whole[:, :400].max() == 0
    assert whole[:, 400:].min() == pytest.approx(1)


def test_overlapping_windows_are_averaged_by_their_weight_and_a_hann_window():
    windows = np.ones((2, 4, 10), np.float32)
    whole = heatmap.stitch_windows(windows, (0, 100), [1.0, 0.5], 200, MEL, 300)
    assert whole[0, 50] == pytest.approx(1.0)
    assert whole[0, 150] == pytest.approx(0.75, abs=0.01)
    assert whole[0, 250] == pytest.approx(0.5)
    # A quarter into the overlap a Hann window of the first is at sin^2(112.5 deg), of the second at
    # sin^2(22.5 deg).
    ending, beginning = np.sin(np.radians((112.5, 22.5))) ** 2
    expected = (ending + 0.5 * beginning) / (ending + beginning)
    assert whole[0, 125] == pytest.approx(expected, abs=0.01)


def test_long_recordings_share_columns():
    assert heatmap.frames_per_column(6000) == 1
    assert heatmap.frames_per_column(6001) == 2
    whole = heatmap.stitch_windows(
        np.ones((2, 4, 10), np.float32), (0, 19800), [1, 1], 200, MEL, 20000
    )
    assert whole.shape == (64, 5000)


def test_a_peak_in_a_sound_is_in_seconds_and_hertz():
    peak = heatmap.peak_in_sound(spot(64, 100, 0, 49), MEL, 1)
    assert peak["time_s"] == pytest.approx(0.495)
    assert peak["frequency_hz"] == pytest.approx(78.3, abs=0.1)


def test_a_peak_in_an_image_is_in_fractions_from_the_top_left():
    assert heatmap.peak_in_image(spot(10, 20, 2, 5)) == {"x": 0.275, "y": 0.25}


def test_a_grid_averages_its_cells():
    values = np.zeros((4, 4), np.float32)
    values[:2, :2] = 1
    assert heatmap.average_to_grid(values, 2, 2) == pytest.approx(
        np.array([[1, 0], [0, 0]]), abs=1e-6
    )


def test_the_peak_of_a_plateau_is_its_middle():
    values = np.zeros((9, 20), np.float32)
    values[0:5, 10:13] = 1.0
    assert heatmap.peak_in_image(values) == pytest.approx({"x": 11.5 / 20, "y": 2.5 / 9})
    values[7, 2] = 2.0
    assert heatmap.peak_in_image(values) == pytest.approx({"x": 2.5 / 20, "y": 7.5 / 9})
