"""Random changes to radiographs: each does what its name says, and only that."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from xai_demo.training import augmentation
from xai_demo.training.augmentation import RadiographAugmentation, augment_radiograph


def ramp() -> np.ndarray:
    return np.linspace(0.2, 0.8, 48 * 64, dtype=np.float32).reshape(48, 64)


def augment_once(seed: int = 0, **change: float) -> np.ndarray:
    return augment_radiograph(ramp(), np.random.default_rng(seed), RadiographAugmentation(**change))


def test_limits_of_zero_change_nothing():
    np.testing.assert_allclose(augment_once(), ramp(), atol=1e-6)


# These two only show in fine detail, which a ramp has none of, and only sometimes: see below.
DETAIL = {"resolution", "jpeg_quality"}
SMOOTH = [f.name for f in dataclasses.fields(RadiographAugmentation) if f.name not in DETAIL]


@pytest.mark.parametrize("name", SMOOTH)
def test_every_change_is_visible_and_repeats_with_its_seed(name):
    size = {"rotation_deg": 15.0, "mirror_probability": 1.0}.get(name, 0.2)
    results = [augment_once(seed, **{name: size}) for seed in (1, 1, 2)]
    assert {r.shape for r in results} == {(48, 64)}
    assert {r.dtype for r in results} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(results[0], results[1])
    assert np.abs(results[0] - ramp()).max() > 0.01
    if name != "mirror_probability":
        assert np.abs(results[0] - results[2]).max() > 1e-3


def test_mirroring_swaps_left_and_right():
    np.testing.assert_allclose(augment_once(mirror_probability=1.0), ramp()[:, ::-1], atol=1e-6)


def test_brightness_is_added_and_contrast_scales_about_the_mean():
    lighter = augment_once(brightness=0.1) - ramp()
    assert np.ptp(lighter) < 1e-5
    steeper = augment_once(contrast=0.3)
    assert steeper.mean() == pytest.approx(ramp().mean(), abs=1e-4)
    ratios = (steeper - steeper.mean()) / (ramp() - ramp().mean())
    assert np.ptp(ratios[ramp() > 0.6]) < 1e-3


def test_additive_noise_does_not_depend_on_brightness_and_speckle_does():
    def spread(dark: bool, **change: float) -> float:
        picture = np.full((64, 64), 0.1 if dark else 0.6, np.float32)
        found = augment_radiograph(
            picture, np.random.default_rng(3), RadiographAugmentation(**change)
        )
        return float((found - picture).std())

    assert spread(True, gaussian=0.02) == pytest.approx(spread(False, gaussian=0.02), rel=0.02)
    assert spread(False, speckle=0.1) == pytest.approx(6 * spread(True, speckle=0.1), rel=0.02)


@pytest.mark.parametrize("change", [augmentation.NIH14, augmentation.COVID3])
def test_augmented_radiographs_stay_between_0_and_1(change):
    for seed in range(20):
        picture = augment_radiograph(ramp(), np.random.default_rng(seed), change)
        assert picture.min() >= 0
        assert picture.max() <= 1
        assert picture.flags["C_CONTIGUOUS"]


def test_half_of_the_radiographs_lose_resolution_and_a_third_are_compressed():
    noise = np.random.default_rng(0).random((64, 64)).astype(np.float32)

    def changed(**change: float) -> list[np.ndarray]:
        results = [
            augment_radiograph(noise, np.random.default_rng(seed), RadiographAugmentation(**change))
            for seed in range(60)
        ]
        return [each for each in results if np.abs(each - noise).max() > 1e-3]

    blurred, compressed = changed(resolution=0.5), changed(jpeg_quality=50)
    assert 20 < len(blurred) < 40
    assert 10 < len(compressed) < 30
    # Fine detail goes first; the mean stays.
    assert all(np.diff(each).std() < np.diff(noise).std() for each in blurred)
    assert all(abs(each.mean() - noise.mean()) < 0.02 for each in blurred + compressed)
