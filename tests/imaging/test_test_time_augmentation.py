"""Slight variations of a radiograph, and the interval of the answers to them."""

from __future__ import annotations

import numpy as np
import pytest

from xai_demo.imaging.preprocess import (
    MAX_BRIGHTNESS,
    MAX_CONTRAST,
    MAX_ROTATION_DEG,
    MAX_SHIFT,
    N_VIEWS,
    augmentation_settings,
    augmented_views,
    prediction_intervals,
)


def dot() -> np.ndarray:
    """A bright disc right of the middle of a dark picture."""
    y, x = np.mgrid[0:120, 0:160]
    return (((x - 120) ** 2 + (y - 60) ** 2) < 64).astype(np.float32)


def test_the_variations_are_always_the_same_and_never_equal() -> None:
    first, again = augmented_views(dot()), augmented_views(dot())
    assert np.array_equal(first, again)
    assert first.shape == (N_VIEWS, 120, 160)
    assert first.dtype == np.float32
    assert len({each.tobytes() for each in first}) == N_VIEWS
    assert 0 <= first.min() < first.max() <= 1


def test_nothing_moves_further_than_the_limits() -> None:
    reach = np.hypot(MAX_SHIFT * 160, MAX_SHIFT * 120) + 42 * np.radians(MAX_ROTATION_DEG)
    places = []
    for each in augmented_views(dot()):
        y, x = np.argwhere(each > (each.min() + each.max()) / 2).mean(axis=0)
        places.append((x, y))
        assert np.hypot(x - 120, y - 60) <= reach + 1
    assert np.std(places, axis=0).min() > 1  # across and down


def test_an_even_grey_only_changes_its_brightness() -> None:
    grey = augmented_views(np.full((40, 40), 0.5, np.float32))
    assert np.ptp(grey, axis=(1, 2)).max() < 1e-5
    levels = grey[:, 0, 0]
    assert np.abs(levels - 0.5).max() <= MAX_BRIGHTNESS + 1e-5
    assert levels.std() > MAX_BRIGHTNESS / 4


def test_contrast_stays_within_its_limit() -> None:
    ramp = np.tile(np.linspace(0.3, 0.7, 64, dtype=np.float32), (64, 1))
    spread = np.std(augmented_views(ramp), axis=(1, 2)) / ramp.std()
    assert spread.max() <= 1 + MAX_CONTRAST + 0.05
    assert spread.min() >= 1 - MAX_CONTRAST - 0.15  # shifting repeats an edge


def test_the_interval_holds_the_answer_itself_and_the_furthest_of_the_others() -> None:
    original = np.array([0.5, 0.9], np.float32)
    augmented = np.array([[0.6, 0.3], [0.55, 0.8]], np.float32)
    assert prediction_intervals(original, augmented) == pytest.approx(
        np.array([[0.5, 0.6], [0.3, 0.9]])
    )


def test_the_method_names_its_seed_and_its_passes() -> None:
    settings = augmentation_settings()
    assert (settings["method"], settings["passes"], settings["seed"]) == (
        "test-time augmentation",
        N_VIEWS,
        0,
    )
