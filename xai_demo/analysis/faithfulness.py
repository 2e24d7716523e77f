"""How far a heatmap can be trusted: masking tests and comparisons of maps. Pure.

A masking test hides parts of one window and looks at the probability of one label. The network is
reached only through a `MaskingTest`, in one batched call a metric.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xai_demo.records import Floats

    Mask = NDArray[np.bool_]  # (rows, columns)

MASKED_SHARE = 0.2
# Of the baseline: each costs a forward pass.
N_RANDOM_MASKS = 4
# Points of a deletion or insertion curve, less one.
CURVE_STEPS = 20
ROAD_SHARES = (0.2, 0.4, 0.6, 0.8)
_FRACTION_WORDS = {0.1: "tenth", 0.2: "fifth", 0.25: "quarter", 0.5: "half"}


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskingTest:
    """One window and one label, for predicting again with parts of the window masked."""

    window: Floats  # (1, rows, columns)
    background: float  # the value of a masked pixel
    # (n, 1, rows, columns) -> the label's probability (n,).
    predict: Callable[[Floats], Floats]

    def apply(self, masks: Sequence[Mask]) -> Floats:
        """Copies of the window with the background under each mask: (n, 1, rows, columns)."""
        return np.where(np.stack(masks)[:, None], np.float32(self.background), self.window)


@dataclass(frozen=True, slots=True, kw_only=True)
class Faithfulness:
    """What masking the most important share of an input does to a probability.

    A random share of the same size is the baseline.
    """

    share: float
    probability: float  # nothing masked
    hidden: float  # without the most important share
    random: float  # without a random share, mean of the draws
    draws: int
    # Of a recording: the window that was tested.
    stretch_s: tuple[float, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields, rounded, as a report has them."""
        return {
            "share": self.share,
            "probability": round(self.probability, 6),
            "hidden": round(self.hidden, 6),
            "random": round(self.random, 6),
            "draws": self.draws,
            "stretch_s": None if self.stretch_s is None else [round(s, 3) for s in self.stretch_s],
        }

    def sentence(self, label: str) -> str:
        """One plain sentence; a difference that two decimals do not show counts as none."""
        result = self._result(label)
        if self.stretch_s is None:
            return result
        start, end = self.stretch_s
        return (
            f"From {start:.1f} to {end:.1f} s, where {label} is most probable: "
            f"{result[0].lower()}{result[1:]}"
        )

    def _result(self, label: str) -> str:
        share = _FRACTION_WORDS.get(self.share, f"{100 * self.share:g} %")
        # Compared as printed, so that a sentence never claims a change its figures do not show.
        before, after, baseline = (f"{p:.2f}" for p in (self.probability, self.hidden, self.random))
        if float(after) >= float(before):
            return (
                f"Masking the most important {share} does not lower the probability of {label} "
                f"({before} before, {after} after), so this heatmap does not show what the answer "
                "is based on."
            )
        drop = (
            f"Masking the most important {share} lowers the probability of {label} from {before} "
            f"to {after}"
        )
        if float(after) >= float(baseline):
            return (
                f"{drop}, but masking a random {share} lowers it at least as much, to {baseline}, "
                "so this heatmap does not show what the answer is based on."
            )
        if float(baseline) >= float(before):
            return f"{drop}; masking a random {share} does not lower it ({baseline})."
        return f"{drop}; masking a random {share} lowers it to {baseline}."


def measure_faithfulness(
    test: MaskingTest,
    heatmap: Floats,
    *,
    probability: float,
    grid: tuple[int, int] = (7, 7),
    share: float = MASKED_SHARE,
    draws: int = N_RANDOM_MASKS,
    stretch_s: tuple[float, float] | None = None,
) -> Faithfulness:
    """Mask the most important share of a window, and random ones: one call with 1 + `draws` inputs.

    `heatmap` has the window's size; `grid` is the size of the raw heatmap. The random masks are
    made of whole cells of that grid and are the same on every call.
    """
    masks = [top_share_mask(heatmap, share)]
    # Seeds from 1: seed 0 breaks the ties in `top_share_mask`.
    masks += [
        top_share_mask(_random_blocks(heatmap.shape, grid, seed), share)
        for seed in range(1, draws + 1)
    ]
    after = np.asarray(test.predict(test.apply(masks)), np.float64)
    return Faithfulness(
        share=share,
        probability=float(probability),
        hidden=float(after[0]),
        random=float(after[1:].mean()),
        draws=draws,
        stretch_s=stretch_s,
    )


def top_share_mask(heatmap: Floats, share: float) -> Mask:
    """True on the highest `share` of a map, to the pixel; ties are broken by a fixed draw.

    >>> top_share_mask(np.array([[0.1, 0.9], [0.4, 0.2]]), 0.5).tolist()
    [[False, True], [True, False]]
    """
    values = heatmap.ravel()
    count = round(share * values.size)
    # Nothing or everything: no value separates the two.
    if not 0 < count < values.size:
        return np.full(heatmap.shape, count > 0)
    # The value from which on the share is reached; ties with it may be too many.
    lowest = np.partition(values, values.size - count)[values.size - count]
    mask: Mask = values > lowest
    ties = np.flatnonzero(values == lowest)
    # In order of position, ties would always favour the bottom right of a flat map.
    draw = np.random.default_rng(0).random(values.size)[ties]
    mask[ties[np.argsort(draw)[: count - int(mask.sum())]]] = True
    return mask.reshape(heatmap.shape)


def deletion_auc(test: MaskingTest, heatmap: Floats, steps: int = CURVE_STEPS) -> float:
    """Area under the probability while the highest pixels are masked: low is good.

    Petsiuk et al. 2018.
    """
    return _area_under_curve(test.predict(test.apply(_growing_masks(heatmap, steps))))


def insertion_auc(test: MaskingTest, heatmap: Floats, steps: int = CURVE_STEPS) -> float:
    """Area under the probability while the highest pixels emerge from a blur: high is good.

    Petsiuk et al. 2018, section 4.2; the blur is theirs, 11 pixels wide with a deviation of 5.
    """
    import cv2

    blurred = cv2.GaussianBlur(test.window[0], (11, 11), 5)
    # (n, 1, rows, columns), True where the blur has cleared.
    masks = np.stack(_growing_masks(heatmap, steps))[:, None]
    return _area_under_curve(test.predict(np.where(masks, test.window, blurred[None, None])))


def probability_through_heatmap(test: MaskingTest, heatmap: Floats) -> float:
    """The probability when the window is faded into the background by a map of 0..1."""
    background = np.float32(test.background)
    # A map of 0 shows the background, a map of 1 the window.
    visible = background + heatmap.astype(np.float32) * (test.window - background)
    return float(test.predict(visible[None])[0])


def average_drop(whole: Sequence[float], through: Sequence[float]) -> float:
    """Mean share of the probability lost when seen through the heatmap, 0..1: low is good.

    Chattopadhay et al. 2018, section 4.1, as is `average_increase`. See
    `probability_through_heatmap`.

    >>> average_drop([0.8, 0.5], [0.4, 0.9])
    0.25
    """
    before, after = np.asarray(whole, float), np.asarray(through, float)
    # A gain counts as no drop; it counts in `average_increase`.
    return float(np.mean(np.maximum(before - after, 0) / np.maximum(before, 1e-12)))


def average_increase(whole: Sequence[float], through: Sequence[float]) -> float:
    """Share of inputs that are more probable when seen through the heatmap, 0..1: high is good.

    >>> average_increase([0.8, 0.5], [0.4, 0.9])
    0.5
    """
    return float(np.mean(np.asarray(through, float) > np.asarray(whole, float)))


def road(test: MaskingTest, heatmap: Floats, shares: Sequence[float] = ROAD_SHARES) -> float:
    """Half the mean gap between removing the lowest and the highest pixels: high is good.

    Rong et al. 2022, as in pytorch-grad-cam: removed pixels are imputed from their neighbours, with
    noise of a deviation of 0.01, the same on every call. Chance scores 0.
    """
    noise = np.random.default_rng(0).normal(0, 0.01, heatmap.shape).astype(np.float32)
    images = []
    # The lowest pixels first, then the highest.
    for sign in (-1, 1):
        for share in shares:
            mask = top_share_mask(sign * heatmap, share)
            images.append(impute(test.window[0], mask) + noise * mask)
    # One call for both signs and all shares.
    probabilities = np.asarray(test.predict(np.stack(images)[:, None]), float)
    lowest, highest = np.split(probabilities, 2)
    return float((lowest - highest).mean() / 2)


def impute(image: Floats, mask: Mask) -> Floats:
    """An image (rows, columns) with every masked pixel at the weighted mean of its neighbours.

    The linear system is that of pytorch-grad-cam's NoisyLinearImputer. It is sparse and symmetric,
    and is solved as such here, about twenty times faster.
    """
    from pytorch_grad_cam.metrics.road import neighbors_weights
    from scipy.sparse import csc_matrix
    from scipy.sparse.linalg import splu

    count = int(mask.sum())
    if not count:
        return image
    # Each masked pixel is one unknown, numbered row by row; -1 is a pixel that is known.
    number = np.full(mask.shape, -1)
    number[mask] = np.arange(count)
    # A frame of one pixel spares the neighbours at the edge a case of their own.
    number = np.pad(number, 1, constant_values=-1)
    exists, known = np.pad(np.ones(mask.shape), 1), np.pad(np.where(mask, 0.0, image), 1)
    diagonal, right = np.zeros(count), np.zeros(count)
    entries = []
    for (down, across), weight in neighbors_weights:
        # The padded image as seen from a neighbour on this side.
        shifted = tuple(
            slice(1 + step, 1 + step + size)
            for step, size in zip((down, across), mask.shape, strict=True)
        )
        # Neighbours outside the image have no weight; known ones go to the right-hand side.
        diagonal += weight * exists[shifted][mask]
        right += weight * known[shifted][mask]
        neighbour = number[shifted][mask]
        # A neighbour that is masked too is an unknown of its own.
        row = np.flatnonzero(neighbour >= 0)
        entries.append((np.full(len(row), -weight), row, neighbour[row]))
    entries.append((diagonal, np.arange(count), np.arange(count)))
    values, rows, columns = (np.concatenate(each) for each in zip(*entries, strict=True))
    matrix = csc_matrix((values, (rows, columns)), (count, count))
    # SuperLU's settings for symmetric matrices: this ordering, and pivots on the diagonal.
    order = {"permc_spec": "MMD_AT_PLUS_A", "diag_pivot_thresh": 0.0}
    solution = splu(matrix, options={"SymmetricMode": True}, **order).solve(right)
    imputed = image.copy()
    imputed[mask] = solution
    return imputed


def pointing_hit(heatmap: Floats, truth: Mask) -> float:
    """1 if the highest pixel lies inside the finding, else 0; of several, the share that does.

    Zhang et al. 2018, the pointing game. A flat map scores as chance would.

    >>> pointing_hit(np.array([[0.0, 1.0]]), np.array([[False, True]]))
    1.0
    """
    # The mean over ties: taking the first would favour the top left.
    return float(truth[heatmap == heatmap.max()].mean())


def pointing_chance(truth: Mask) -> float:
    """How often a random pixel lies inside the finding."""
    return float(truth.mean())


def share_inside(heatmap: Floats, truth: Mask) -> float:
    """The share of a map's sum that lies inside the finding; 0 for an empty map.

    >>> share_inside(np.array([[1.0, 3.0]]), np.array([[False, True]]))
    0.75
    """
    total = float(heatmap.sum())
    return float(heatmap[truth].sum()) / total if total > 0 else 0.0


def iou(heatmap: Floats, truth: Mask, threshold: float = 0.5) -> float:
    """Intersection over union of the finding and the pixels of at least `threshold` x the maximum.

    >>> iou(np.array([[0.6, 1.0, 0.1]]), np.array([[False, True, False]]))
    0.5
    """
    top = float(heatmap.max())
    # In an empty map every pixel equals the maximum, but none is high.
    high = heatmap >= threshold * top if top > 0 else np.zeros(heatmap.shape, bool)
    union = int((high | truth).sum())
    return int((high & truth).sum()) / union if union else 0.0


def rank_correlation(one: Floats, other: Floats) -> float:
    """Spearman's coefficient of two maps of the same size, -1..1; 0 if one of them is flat.

    >>> round(rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([1.0, 4.0, 9.0])), 6)
    1.0
    """
    from scipy.stats import rankdata

    # Of centred ranks the coefficient is the cosine.
    a, b = (rankdata(each) - (each.size + 1) / 2 for each in (one.ravel(), other.ravel()))
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 0 else 0.0


def structural_similarity(one: Floats, other: Floats) -> float:
    """Structural similarity (SSIM) of two maps of 0..1; 1 if they are equal.

    Wang et al. 2004, with their window and constants.
    """
    import cv2

    def local_mean(values: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(cv2.GaussianBlur(values.astype(np.float64), (11, 11), 1.5))

    mean_a, mean_b = local_mean(one), local_mean(other)
    # E[xy] - E[x]E[y], under their Gaussian window.
    covariance = local_mean(one * other) - mean_a * mean_b
    variances = local_mean(one * one) - mean_a**2 + local_mean(other * other) - mean_b**2
    # K1 and K2 of the paper, for a range of values of 1.
    c1, c2 = 0.01**2, 0.03**2
    upper = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    # Equation 13, averaged over the map as in equation 17.
    return float((upper / ((mean_a**2 + mean_b**2 + c1) * (variances + c2))).mean())


def randomisation_similarity(trained: Floats, randomised: Floats) -> dict[str, float]:
    """How alike the maps of a trained network and of one with random weights are: low is good.

    Adebayo et al. 2018: a heatmap that does not depend on the weights cannot explain them.
    """
    # An inverted copy depends on the weights as little as an exact one: the sign does not count.
    return {
        "rank_correlation": abs(rank_correlation(trained, randomised)),
        "similarity": structural_similarity(trained, randomised),
    }


def _random_blocks(shape: tuple[int, ...], grid: tuple[int, int], seed: int) -> Floats:
    """A map of the given shape whose grid cells have random values."""
    rows, columns = (min(cells, n) for cells, n in zip(grid, shape, strict=True))
    cells = np.random.default_rng(seed).random((rows, columns)).astype(np.float32)
    row_of, column_of = (np.arange(n) * k // n for n, k in zip(shape, cells.shape, strict=True))
    blocks: Floats = cells[row_of][:, column_of]
    return blocks


def _growing_masks(heatmap: Floats, steps: int) -> list[Mask]:
    """From nothing to everything in equal steps, the highest pixels first."""
    return [top_share_mask(heatmap, step / steps) for step in range(steps + 1)]


def _area_under_curve(probabilities: Floats) -> float:
    return float(np.trapezoid(np.asarray(probabilities, float), dx=1 / (len(probabilities) - 1)))
