"""The lung field: on phantoms, whose lungs are known, on what has no lungs, and its arithmetic."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pytest

from xai_demo.imaging import lungs
from xai_demo.synthesis.thorax import Opacity, lung_masks, thorax_phantom

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xai_demo.records import Floats


@cache
def phantom(seed: int = 1, opacities: tuple[Opacity, ...] = ()) -> Floats:
    pixels = thorax_phantom(seed=seed, opacities=opacities).pixels
    return np.asarray(pixels / 255, np.float32)


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


TRUTH = lung_masks(512).any(axis=0)
HIDDEN = Opacity(label="consolidation", x=0.3, y=0.6, radius_x=0.2, radius_y=0.25)


def test_the_field_of_a_phantom_is_where_its_lungs_are() -> None:
    field = lungs.find_lungs(phantom())
    assert field.is_found
    assert field.mask.shape == (512, 512)
    assert dice(field.mask, TRUTH) > 0.9
    assert field.area == pytest.approx(TRUTH.mean(), rel=0.25)
    assert (lungs.lung_field(phantom()) == field.mask).all()


def test_a_lung_that_cannot_be_seen_keeps_its_field() -> None:
    image = phantom(opacities=(HIDDEN,))
    place = np.s_[260:340, 130:190]
    # As bright as the heart: nothing dark is left there.
    assert image[place].mean() > phantom()[place].mean() + 0.1
    mask = lungs.lung_field(image)
    assert mask[place].all()
    assert dice(mask, TRUTH) > 0.85


def test_the_field_follows_the_lungs() -> None:
    image = phantom()
    mask = lungs.lung_field(image)
    moved = lungs.lung_field(np.roll(image, 20, axis=1))
    assert dice(np.roll(moved, -20, axis=1), mask) > 0.95
    mirrored = lungs.lung_field(np.ascontiguousarray(image[:, ::-1]))
    assert dice(mirrored[:, ::-1], mask) > 0.95
    for exposure in (image**0.7, image**1.4, 0.2 + 0.6 * image):
        assert dice(lungs.lung_field(exposure), mask) > 0.95


@pytest.mark.parametrize("shape", [(40, 60), (224, 224), (700, 500)])
def test_the_field_has_the_shape_of_the_image(shape: tuple[int, int]) -> None:
    import cv2

    image = np.asarray(cv2.resize(phantom(), shape[::-1], interpolation=cv2.INTER_AREA), np.float32)
    field = lungs.find_lungs(image)
    assert field.mask.shape == shape
    assert field.area == pytest.approx(TRUTH.mean(), rel=0.25)


def others() -> dict[str, Floats]:
    rng = np.random.default_rng(0)
    image = phantom()
    return {
        "black": np.zeros((300, 300), np.float32),
        "white": np.ones((300, 300), np.float32),
        "grain": rng.random((300, 300), dtype=np.float32),
        "a slope": np.tile(np.linspace(0, 1, 300, dtype=np.float32), (300, 1)),
        "upside down": np.ascontiguousarray(image[::-1]),
        "inverted": 1 - image,
        "the shoulder": image[:150, :150],
    }


@pytest.mark.parametrize("name", others())
def test_without_upright_lungs_there_is_no_field(name: str) -> None:
    field = lungs.find_lungs(others()[name])
    assert not field.is_found
    assert not field.mask.any()


def test_plausible_are_two_lungs_beside_one_another() -> None:
    def score(*boxes: tuple[int, int, int, int], probability: float = 1.0) -> float:
        masks = np.zeros((2, 64, 64), np.bool_)
        for mask, (top, bottom, left, right) in zip(masks, boxes, strict=True):
            mask[top:bottom, left:right] = True
        return lungs.plausibility(np.where(masks, probability, 0).astype(np.float32), masks)

    left, right = (12, 48, 10, 26), (12, 48, 38, 54)
    assert score(left, right) == 1
    assert score(left, right, probability=0.65) < lungs.MIN_PLAUSIBILITY
    # Missing, too small, too large, below one another, one on the other.
    for other in ((0, 0, 0, 0), (20, 26, 40, 46), (0, 64, 28, 64), (50, 64, 38, 54), left):
        assert score(left, other) < lungs.MIN_PLAUSIBILITY


def test_the_network_is_that_of_the_convolutions_it_names() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    planes = rng.standard_normal((3, 12, 12), dtype=np.float32)
    kernels = rng.standard_normal((5, 3, 3, 3), dtype=np.float32)
    biases = rng.standard_normal(5, dtype=np.float32)
    for stride in (1, 2):
        ours = lungs._convolve(planes, kernels, biases, stride=stride)
        theirs = torch.nn.functional.conv2d(
            *map(torch.from_numpy, (planes, kernels, biases)), stride=stride, padding=1
        )
        np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-4)


def test_the_weights_are_small_and_no_pickle() -> None:
    assert lungs.WEIGHTS_FILE.stat().st_size <= 200_000
    layers = lungs.read_weights(lungs.WEIGHTS_FILE)
    assert {name: kernels.shape[1::-1] for name, (kernels, _) in layers.items()} == {
        name: channels[:2] for name, channels in lungs.LAYERS.items()
    }


def test_a_share_is_of_the_sum_of_the_heatmap() -> None:
    heatmap = np.array([[0.5, 0.25], [0.25, 0.0]], np.float32)
    mask = np.array([[True, False], [False, True]])
    assert lungs.share_inside(heatmap, mask) == 0.5
    assert lungs.share_inside(np.zeros_like(heatmap), mask) is None
    # The same everywhere: as much as the area.
    assert lungs.share_inside(np.ones_like(heatmap), mask) == mask.mean()


def test_an_outline_runs_around_each_part() -> None:
    mask = np.zeros((100, 200), np.bool_)
    mask[10:50, 20:60] = mask[30:90, 120:180] = True
    parts = sorted(lungs.outlines(mask))
    assert len(parts) == 2
    xs, ys = zip(*parts[0], strict=True)
    assert (min(xs), max(xs)) == (20.5 / 200, 59.5 / 200)
    assert (min(ys), max(ys)) == (10.5 / 100, 49.5 / 100)
    assert lungs.outlines(np.zeros((5, 5), np.bool_)) == ()
