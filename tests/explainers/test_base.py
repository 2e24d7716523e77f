import numpy as np
import pytest

from xai_demo.explainers import base


@pytest.mark.parametrize(
    ("shape", "most", "expected"),
    [
        ((224, 224), 49, (7, 7)),
        ((1, 64, 200), 64, (4, 16)),
        ((64, 1001), 225, (3, 75)),
        ((2, 3), 100, (2, 3)),  # no cell is smaller than a pixel
        ((1, 400), 9, (1, 9)),
    ],
)
def test_a_grid_has_square_cells_and_not_too_many(shape, most, expected):
    assert base.grid_size(shape, most) == expected


def test_a_mask_hides_its_cells_behind_the_background():
    window = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    keep = np.array([[[1, 0]], [[0, 0.5]]], np.float32)
    shown = base.apply_masks(window, keep, background=-1)
    assert shown.shape == (2, 1, 3, 4)
    assert shown.dtype == np.float32
    assert shown[0, 0].tolist() == [[0, 1, -1, -1], [4, 5, -1, -1], [8, 9, -1, -1]]
    assert shown[1, 0, 0].tolist() == [-1, -1, 0.5, 1]


def test_pooling_averages_cells_of_uneven_sizes():
    values = np.arange(10, dtype=np.float32).reshape(1, 2, 5)
    # columns of 3 and 2: the cell of a mask that starts there
    pooled = base.pool_to_grid(values, max_cells=2)
    assert pooled.shape == (1, 1, 2)
    assert pooled[0, 0].tolist() == [np.mean([0, 1, 2, 5, 6, 7]), np.mean([3, 4, 8, 9])]
    assert base.pool_to_grid(values, max_cells=1000).tolist() == values.tolist()
