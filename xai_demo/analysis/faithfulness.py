"""How much to believe a heat map: hide what is hot and see whether the answer falls. Pure.

Everything is asked through a `Trial`, in one batched call each, and told about one label.
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

SHARE = 0.2
DRAWS = 4
STEPS = 20  # of the curves
ROAD_SHARES = (0.2, 0.4, 0.6, 0.8)
_WORDS = {0.1: "tenth", 0.2: "fifth", 0.25: "quarter", 0.5: "half"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One window and one label, to be asked about again with parts of the window hidden."""

    window: Floats  # (1, rows, columns)
    background: float  # how a hidden pixel looks to the network
    answer: Callable[[Floats], Floats]  # (n, 1, rows, columns) -> the label's probability (n,)

    def hidden(self, masks: Sequence[Mask]) -> Floats:
        """The window with the background wherever a mask holds: (n, 1, rows, columns)."""
        return np.where(np.stack(masks)[:, None], np.float32(self.background), self.window)


@dataclass(frozen=True, slots=True, kw_only=True)
class Faithfulness:
    """What hiding the hottest share of a picture does to a probability, and a random share."""

    share: float
    probability: float  # nothing hidden
    hidden: float  # without the hottest share
    random: float  # without a random share, mean of the draws
    draws: int
    stretch_s: tuple[float, float] | None = None  # of a recording, the window that was asked about

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
        """In one plain sentence; differences that two decimals do not show count as none."""
        said = self._sentence(label)
        if self.stretch_s is None:
            return said
        start, end = self.stretch_s
        return (
            f"From {start:.1f} to {end:.1f} s, where {label} is most probable: "
            f"{said[0].lower()}{said[1:]}"
        )

    def _sentence(self, label: str) -> str:
        part = _WORDS.get(self.share, f"{100 * self.share:g} %")
        before, hot, chance = (f"{p:.2f}" for p in (self.probability, self.hidden, self.random))
        if float(hot) >= float(before):
            return (
                f"Hiding the hottest {part} does not lower the probability of {label} ({before} "
                f"before, {hot} after), so this heat is no reason to believe that the answer came "
                "from there."
            )
        falls = (
            f"Hiding the hottest {part} lowers the probability of {label} from {before} to {hot}"
        )
        if float(hot) >= float(chance):
            return (
                f"{falls}, but hiding a random {part} lowers it at least as much, to {chance}, so "
                "this heat is no reason to believe that the answer came from there."
            )
        if float(chance) >= float(before):
            return f"{falls}; hiding a random {part} does not lower it ({chance})."
        return f"{falls}; hiding a random {part}, to {chance}."


def measured(
    trial: Trial,
    heatmap: Floats,
    *,
    probability: float,
    grid: tuple[int, int] = (7, 7),
    share: float = SHARE,
    draws: int = DRAWS,
    stretch_s: tuple[float, float] | None = None,
) -> Faithfulness:
    """Hide the hottest share of a window, and a random one; one call with 1 + draws windows.

    `heatmap` has the window's size; `grid` is that of the heat's own cells, and what is hidden at
    random is whole cells of that grid. The draws are always the same.
    """
    masks = [hottest(heatmap, share)]
    masks += [hottest(_blocks(heatmap.shape, grid, seed), share) for seed in range(1, draws + 1)]
    after = np.asarray(trial.answer(trial.hidden(masks)), np.float64)
    return Faithfulness(
        share=share,
        probability=float(probability),
        hidden=float(after[0]),
        random=float(after[1:].mean()),
        draws=draws,
        stretch_s=stretch_s,
    )


def hottest(heatmap: Floats, share: float) -> Mask:
    """Where the hottest share of a map is, to the pixel; among equals a fixed lot decides."""
    heat = heatmap.ravel()
    count = round(share * heat.size)
    if not 0 < count < heat.size:
        return np.full(heatmap.shape, count > 0)
    least = np.partition(heat, heat.size - count)[heat.size - count]
    mask: Mask = heat > least
    equals = np.flatnonzero(heat == least)
    lot = np.random.default_rng(0).random(heat.size)[equals]
    mask[equals[np.argsort(lot)[: count - int(mask.sum())]]] = True
    return mask.reshape(heatmap.shape)


def deletion_auc(trial: Trial, heatmap: Floats, steps: int = STEPS) -> float:
    """Area under the probability while the hottest pixels go: low is good. Petsiuk et al. 2018."""
    return _area(trial.answer(trial.hidden(_growing(heatmap, steps))))


def insertion_auc(trial: Trial, heatmap: Floats, steps: int = STEPS) -> float:
    """Area under the probability while the hottest pixels come out of a blur: high is good.

    Petsiuk et al. 2018, section 4.2; the blur is theirs, 11 pixels wide with a deviation of 5.
    """
    import cv2

    blurred = cv2.GaussianBlur(trial.window[0], (11, 11), 5)
    masks = np.stack(_growing(heatmap, steps))[:, None]
    return _area(trial.answer(np.where(masks, trial.window, blurred[None, None])))


def through_heat(trial: Trial, heatmap: Floats) -> float:
    """The probability when the window shows through only as far as the map, 0..1, is hot."""
    background = np.float32(trial.background)
    seen = background + heatmap.astype(np.float32) * (trial.window - background)
    return float(trial.answer(seen[None])[0])


def average_drop(whole: Sequence[float], through: Sequence[float]) -> float:
    """Mean share of the probability lost when seen through heat, 0..1: low is good.

    Chattopadhay et al. 2018, section 4.1, as is `average_increase`; see `through_heat`.
    """
    before, after = np.asarray(whole, float), np.asarray(through, float)
    return float(np.mean(np.maximum(before - after, 0) / np.maximum(before, 1e-12)))


def average_increase(whole: Sequence[float], through: Sequence[float]) -> float:
    """Share of pictures that are more probable when seen through heat, 0..1: high is good."""
    return float(np.mean(np.asarray(through, float) > np.asarray(whole, float)))


def road(trial: Trial, heatmap: Floats, shares: Sequence[float] = ROAD_SHARES) -> float:
    """Half the mean gap between removing the coldest and the hottest pixels: high is good.

    Rong et al. 2022, as pytorch-grad-cam has it: what is removed is filled from what is around it,
    with noise of a hundredth, here always the same. Chance scores 0.
    """
    noise = np.random.default_rng(0).normal(0, 0.01, heatmap.shape).astype(np.float32)
    pictures = []
    for sign in (-1, 1):  # the coldest, then the hottest
        for share in shares:
            gone = hottest(sign * heatmap, share)
            pictures.append(filled_in(trial.window[0], gone) + noise * gone)
    answers = np.asarray(trial.answer(np.stack(pictures)[:, None]), float)
    cold, hot = np.split(answers, 2)
    return float((cold - hot).mean() / 2)


def filled_in(picture: Floats, gone: Mask) -> Floats:
    """A picture, (rows, columns), in which all that is gone is the mean of what is around it.

    The system of pytorch-grad-cam's NoisyLinearImputer, put together and solved as what it is, a
    sparse and symmetric one: there it takes some twenty times as long.
    """
    from pytorch_grad_cam.metrics.road import neighbors_weights
    from scipy.sparse import csc_matrix
    from scipy.sparse.linalg import splu

    count = int(gone.sum())
    if not count:
        return picture
    number = np.full(gone.shape, -1)
    number[gone] = np.arange(count)
    number = np.pad(number, 1, constant_values=-1)
    inside, known = np.pad(np.ones(gone.shape), 1), np.pad(np.where(gone, 0.0, picture), 1)
    own, right = np.zeros(count), np.zeros(count)
    entries = []
    for (down, across), weight in neighbors_weights:
        place = tuple(
            slice(1 + step, 1 + step + size)
            for step, size in zip((down, across), gone.shape, strict=True)
        )
        own += weight * inside[place][gone]
        right += weight * known[place][gone]
        near = number[place][gone]
        row = np.flatnonzero(near >= 0)
        entries.append((np.full(len(row), -weight), row, near[row]))
    entries.append((own, np.arange(count), np.arange(count)))
    values, rows, columns = (np.concatenate(each) for each in zip(*entries, strict=True))
    matrix = csc_matrix((values, (rows, columns)), (count, count))
    order = {"permc_spec": "MMD_AT_PLUS_A", "diag_pivot_thresh": 0.0}
    solved = splu(matrix, options={"SymmetricMode": True}, **order).solve(right)
    filled = picture.copy()
    filled[gone] = solved
    return filled


def pointing(heatmap: Floats, truth: Mask) -> float:
    """1 if the hottest pixel lies where the finding is, else 0; of several, the share that does.

    Zhang et al. 2018, the pointing game. A map without a hottest place scores what chance would.
    """
    return float(truth[heatmap == heatmap.max()].mean())


def pointing_chance(truth: Mask) -> float:
    """How often a place chosen blindly is a hit."""
    return float(truth.mean())


def inside(heatmap: Floats, truth: Mask) -> float:
    """The share of all heat that lies where the finding is; 0 for a map without heat."""
    total = float(heatmap.sum())
    return float(heatmap[truth].sum()) / total if total > 0 else 0.0


def iou(heatmap: Floats, truth: Mask, threshold: float = 0.5) -> float:
    """Intersection over union of the truth and what is at least `threshold` of the maximum."""
    top = float(heatmap.max())
    hot = heatmap >= threshold * top if top > 0 else np.zeros(heatmap.shape, bool)
    union = int((hot | truth).sum())
    return int((hot & truth).sum()) / union if union else 0.0


def rank_correlation(one: Floats, other: Floats) -> float:
    """Spearman's, -1..1, between two maps of one size; 0 where one of them is flat."""
    from scipy.stats import rankdata

    a, b = (rankdata(heat) - (heat.size + 1) / 2 for heat in (one.ravel(), other.ravel()))
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 0 else 0.0


def similarity(one: Floats, other: Floats) -> float:
    """Structural similarity of two maps in 0..1; 1 for equal ones.

    Wang et al. 2004, with their window and constants.
    """
    import cv2

    def local(values: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(cv2.GaussianBlur(values.astype(np.float64), (11, 11), 1.5))

    mean_a, mean_b = local(one), local(other)
    both = local(one * other) - mean_a * mean_b
    spread = local(one * one) - mean_a**2 + local(other * other) - mean_b**2
    c1, c2 = 0.01**2, 0.03**2
    upper = (2 * mean_a * mean_b + c1) * (2 * both + c2)
    return float((upper / ((mean_a**2 + mean_b**2 + c1) * (spread + c2))).mean())


def randomisation(trained: Floats, randomised: Floats) -> dict[str, float]:
    """How alike the maps of a trained network and of the same with random weights are: low is good.

    Adebayo et al. 2018: heat that does not change with the weights says nothing about them.
    """
    return {
        "rank_correlation": abs(rank_correlation(trained, randomised)),
        "similarity": similarity(trained, randomised),
    }


def _blocks(shape: tuple[int, ...], grid: tuple[int, int], seed: int) -> Floats:
    """A map whose cells are hot in random order."""
    rows, columns = (min(cells, n) for cells, n in zip(grid, shape, strict=True))
    cells = np.random.default_rng(seed).random((rows, columns)).astype(np.float32)
    row_of, column_of = (np.arange(n) * k // n for n, k in zip(shape, cells.shape, strict=True))
    blocks: Floats = cells[row_of][:, column_of]
    return blocks


def _growing(heatmap: Floats, steps: int) -> list[Mask]:
    return [hottest(heatmap, step / steps) for step in range(steps + 1)]


def _area(probabilities: Floats) -> float:
    return float(np.trapezoid(np.asarray(probabilities, float), dx=1 / (len(probabilities) - 1)))
