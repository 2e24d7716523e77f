import numpy as np
import pytest

from xai_demo.imaging import preprocess
from xai_demo.records import Raster

SPEC = Raster(height=224, width=224, mean=0.5, std=0.25)


def test_a_picture_of_the_right_size_is_left_alone():
    pixels = np.random.default_rng(0).random((224, 224), dtype=np.float32)
    assert preprocess.resize_for_network(pixels, SPEC) is pixels


def test_a_constant_picture_stays_constant_at_any_size():
    framed = preprocess.resize_for_network(np.full((37, 511), 0.3, np.float32), SPEC)
    assert framed.shape == (224, 224)
    assert framed == pytest.approx(0.3, abs=1e-6)


def test_a_left_half_stays_the_left_half():
    pixels = np.zeros((500, 1000), np.float32)
    pixels[:, :500] = 1
    framed = preprocess.resize_for_network(pixels, SPEC)
    assert framed[:, :111].min() > 0.99
    assert framed[:, 113:].max() < 0.01


def test_centre_crop_drops_the_sides():
    pixels = np.zeros((100, 300), np.float32)
    pixels[:, 100:200] = 1
    spec = Raster(height=50, width=50, mean=0, std=1, crop="centre")
    assert preprocess.resize_for_network(pixels, spec) == pytest.approx(1)


def test_the_network_sees_deviations_from_the_mean():
    assert preprocess.network_input(np.array([[0.5, 1.0]], np.float32), SPEC).tolist() == [
        [0.0, 2.0]
    ]


def test_contrast_is_equalised_before_anything_else():
    flat = np.full((64, 64), 0.25, np.float32)
    equal = preprocess.equalise_contrast(flat, 2.0)
    assert equal.shape == (64, 64)
    assert np.ptp(equal) == 0  # an even picture has no contrast to raise
    # 26 of 256 greys: a tile's 1024 pixels may count for 8 a grey, twice their share of 4, and of
    # the other 816 each grey gets 3; so a step between greys grows from 4 to 11.
    faint = np.random.default_rng(0).uniform(0.45, 0.55, (256, 256)).astype(np.float32)
    spec = Raster(height=256, width=256, mean=0, std=1, contrast_limit=2.0)
    raised = preprocess.resize_for_network(faint, spec)
    assert raised.std() / faint.std() == pytest.approx(11 / 4, rel=0.1)
    assert 0 <= raised.min() <= raised.max() <= 1
    slope = np.tile(np.linspace(0.45, 0.55, 256, dtype=np.float32), (256, 1))
    assert preprocess.resize_for_network(slope, SPEC).std() == pytest.approx(slope.std(), rel=0.02)
