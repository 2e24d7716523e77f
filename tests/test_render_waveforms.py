"""What is drawn of a sound, by sounds whose picture is known."""

from __future__ import annotations

import numpy as np
import pytest

from xai_demo import render


def sine(frequency_hz: float, *, seconds: float = 1.0, rate: int = 8000) -> np.ndarray:
    t = np.arange(round(seconds * rate)) / rate
    return np.sin(2 * np.pi * frequency_hz * t).astype(np.float32)


def test_an_envelope_holds_the_lowest_and_highest_of_every_column() -> None:
    samples = np.array([0, 1, -2, 3, 5, -4], np.float32)
    assert render.envelope(samples, 3).tolist() == [[0, -2, -4], [1, 3, 5]]


@pytest.mark.parametrize(("count", "columns"), [(5, 3), (1001, 10), (7, 7)])
def test_an_envelope_leaves_no_sample_out(count: int, columns: int) -> None:
    for place in range(count):
        samples = np.zeros(count, np.float32)
        samples[place] = 1
        assert render.envelope(samples, columns).max() == 1


def test_a_short_sound_has_fewer_columns_and_none_at_all_has_none() -> None:
    assert render.envelope(np.ones(2, np.float32), 600).shape == (2, 2)
    assert render.envelope(np.zeros(0, np.float32), 600).shape == (2, 0)


def test_a_tone_is_a_line_at_its_frequency_and_full_scale_is_no_decibels() -> None:
    view = render.spectrogram_view(sine(1000), 8000)
    row = view.pixels.shape[0] - 1 - int(view.pixels.mean(axis=1).argmax())  # lowest first
    assert view.row_frequencies_hz[row] == pytest.approx(1000, abs=8)
    assert view.decibels == pytest.approx((-70, 0), abs=0.3)
    assert view.duration_s == 1.0
    assert view.pixels.max() == 255


def test_rows_go_from_0_hz_to_half_the_rate() -> None:
    view = render.spectrogram_view(sine(1000), 8000)
    assert (view.row_frequencies_hz[0], view.row_frequencies_hz[-1]) == (0, 4000)
    assert len(view.row_frequencies_hz) == view.pixels.shape[0]


def test_a_click_is_seen_in_a_long_sound_where_it_is() -> None:
    samples = np.zeros(8000 * 60, np.float32)
    samples[45 * 8000 : 45 * 8000 + 40] = 1
    view = render.spectrogram_view(samples, 8000, columns=300)
    assert view.pixels.shape[1] == 300
    assert int(view.pixels.max(axis=0).argmax()) == pytest.approx(225, abs=1)


def test_white_can_be_set_so_that_silence_stays_black() -> None:
    hiss = 1e-5 * sine(1000)
    assert render.spectrogram_view(hiss, 8000).pixels.max() == 255
    assert render.spectrogram_view(hiss, 8000, loudest_db=-20.0).pixels.max() == 0
    assert render.spectrogram_view(hiss, 8000, least_loud_db=-20.0).pixels.max() == 0
    assert render.spectrogram_view(hiss, 8000, least_loud_db=-200.0).pixels.max() == 255


@pytest.mark.parametrize("count", [1, 100, 512, 513])
def test_the_shortest_sounds_are_drawn(count: int) -> None:
    view = render.spectrogram_view(np.ones(count, np.float32), 8000)
    assert view.pixels.shape[1] >= 1
    assert np.isfinite(view.decibels).all()
