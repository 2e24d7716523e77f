import numpy as np
import pytest
from pytorch_grad_cam.utils.image import scale_cam_image

from tests.support.small_models import MEL
from xai_demo.analysis import heatmap as heat


def spot(rows: int, columns: int, row: int, column: int) -> np.ndarray:
    heatmap = np.zeros((rows, columns), np.float32)
    heatmap[row, column] = 2
    return heatmap


def test_scaling_runs_from_zero_to_one():
    assert heat.normalise(np.array([[1, 3], [2, 5]], np.float32)) == pytest.approx(
        np.array([[0, 0.5], [0.25, 1]]), abs=1e-6
    )


def test_no_heat_stays_no_heat():
    assert not heat.normalise(np.zeros((4, 4), np.float32)).any()


def test_scaling_and_resizing_are_the_librarys():
    raw = np.random.default_rng(0).random((7, 5), dtype=np.float32)
    expected = scale_cam_image(raw[None], (50, 70))[0]
    assert heat.resize(heat.normalise(raw), 70, 50) == pytest.approx(expected, abs=1e-6)


def test_one_window_is_shown_as_it_is():
    windows = np.random.default_rng(1).random((1, 4, 13), dtype=np.float32)
    whole = heat.stitch_windows(windows, (0,), [0.3], 200, MEL, 200)
    assert whole == pytest.approx(heat.resize(heat.normalise(windows[0]), 64, 200), abs=1e-6)


def test_a_padded_window_is_cut_back_to_what_was_recorded():
    assert heat.stitch_windows(np.ones((1, 4, 13), np.float32), (0,), [1], 200, MEL, 120).shape == (
        64,
        120,
    )


def test_heat_of_a_window_lies_where_the_window_was():
    windows = np.zeros((3, 4, 10), np.float32)
    windows[2] = 1
    whole = heat.stitch_windows(windows, (0, 200, 400), [1, 1, 1], 200, MEL, 600)
    assert whole[:, :400].max() == 0
    assert whole[:, 400:].min() == pytest.approx(1)


def test_overlapping_windows_are_averaged_by_their_weight_and_a_hann_window():
    windows = np.ones((2, 4, 10), np.float32)
    whole = heat.stitch_windows(windows, (0, 100), [1.0, 0.5], 200, MEL, 300)
    assert whole[0, 50] == pytest.approx(1.0)
    assert whole[0, 150] == pytest.approx(0.75, abs=0.01)
    assert whole[0, 250] == pytest.approx(0.5)
    # A quarter into the overlap a Hann window of the first is at sin^2(112.5 deg), of the second at
    # sin^2(22.5 deg).
    ending, beginning = np.sin(np.radians((112.5, 22.5))) ** 2
    expected = (ending + 0.5 * beginning) / (ending + beginning)
    assert whole[0, 125] == pytest.approx(expected, abs=0.01)


def test_long_recordings_share_columns():
    assert heat.frames_per_column(6000) == 1
    assert heat.frames_per_column(6001) == 2
    whole = heat.stitch_windows(
        np.ones((2, 4, 10), np.float32), (0, 19800), [1, 1], 200, MEL, 20000
    )
    assert whole.shape == (64, 5000)


def test_a_peak_is_told_in_seconds_and_hertz():
    peak = heat.peak_in_sound(spot(64, 100, 0, 49), MEL, 1)
    assert peak["time_s"] == pytest.approx(0.495)
    assert peak["frequency_hz"] == pytest.approx(78.3, abs=0.1)


def test_a_peak_is_told_as_fractions_from_the_upper_left():
    assert heat.peak_in_image(spot(10, 20, 2, 5)) == {"x": 0.275, "y": 0.25}


def test_a_grid_averages_its_cells():
    heatmap = np.zeros((4, 4), np.float32)
    heatmap[:2, :2] = 1
    assert heat.average_to_grid(heatmap, 2, 2) == pytest.approx(
        np.array([[1, 0], [0, 0]]), abs=1e-6
    )


def test_a_plateau_at_an_edge_is_pointed_at_in_its_middle():
    heatmap = np.zeros((9, 20), np.float32)
    heatmap[0:5, 10:13] = 1.0
    assert heat.peak_in_image(heatmap) == pytest.approx({"x": 11.5 / 20, "y": 2.5 / 9})
    heatmap[7, 2] = 2.0
    assert heat.peak_in_image(heatmap) == pytest.approx({"x": 2.5 / 20, "y": 7.5 / 9})
