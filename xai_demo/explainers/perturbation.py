"""Explanations that hide parts of a picture and ask again: any backend, no gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from xai_demo.explainers import cells
from xai_demo.explainers.subject import Meter

if TYPE_CHECKING:
    from xai_demo.explainers.subject import Budget, Subject
    from xai_demo.records import Floats

_KERNEL_WIDTH = 0.25  # of LIME for pictures, as in its authors' code
_RIDGE = 1.0  # likewise
_SAMPLES_PER_CELL = 5


def occlusion(subject: Subject, targets: Sequence[int], budget: Budget) -> Floats:
    """What the logit loses while a patch is hidden. Zeiler & Fergus 2014, section 4.2.

    The patch is two cells wide and high and slides by one; a cell's heat is the mean over its
    patches.
    """
    passes = budget.passes or 1
    rows, columns = cells.grid(subject.inputs.shape, passes)
    hidden = _patches(rows, columns)
    meter = Meter(budget, len(subject.inputs) * (1 + len(hidden)))
    heat = []
    for window in subject.inputs:
        ask = cells.answers(subject, window, targets, meter)
        logits = ask(np.concatenate([np.ones_like(hidden[:1]), 1 - hidden]))
        drops = logits[0] - logits[1:]  # (patches, targets)
        total = np.einsum("pt,prc->trc", drops, hidden)
        heat.append(total / hidden.sum(axis=0))
    result: Floats = np.maximum(np.stack(heat), 0).astype(np.float32)
    return result


def lime(subject: Subject, targets: Sequence[int], budget: Budget) -> Floats:
    """Weights of a linear model that answers like the network near the picture.

    Ribeiro et al. 2016; kernel, distance and ridge are those of the authors' code for pictures,
    which nobody has kept since 2020. The parts are cells of a grid (time by frequency for a sound,
    where superpixels have nothing to follow), and the draws are always the same.
    """
    passes = budget.passes or 1
    rows, columns = cells.grid(subject.inputs.shape, max(4, passes // _SAMPLES_PER_CELL))
    draws = np.random.default_rng(0).integers(0, 2, (passes, rows, columns)).astype(np.float32)
    draws[0] = 1
    meter = Meter(budget, len(subject.inputs) * passes)
    heat = []
    for window in subject.inputs:
        logits = cells.answers(subject, window, targets, meter)(draws)
        weights = _local_weights(draws.reshape(passes, -1), logits)
        heat.append(weights.T.reshape(-1, rows, columns))
    result: Floats = np.maximum(np.stack(heat), 0).astype(np.float32)
    return result


def _patches(rows: int, columns: int) -> Floats:
    """Every place of a patch of two cells by two: (places, rows, columns), 1 where it lies."""
    high, wide = min(2, rows), min(2, columns)
    places = [(i, j) for i in range(rows - high + 1) for j in range(columns - wide + 1)]
    hidden = np.zeros((len(places), rows, columns), np.float32)
    for patch, (i, j) in zip(hidden, places, strict=True):
        patch[i : i + high, j : j + wide] = 1
    return hidden


def _local_weights(draws: Floats, logits: Floats) -> Floats:
    """Ridge regression weighted by nearness: (n, cells), (n, targets) -> (cells, targets)."""
    distance = 1 - np.sqrt(draws.mean(axis=1))  # cosine, from the picture with nothing hidden
    near = np.sqrt(np.exp(-(distance**2) / _KERNEL_WIDTH**2))[:, None]
    x = draws - (near * draws).sum(axis=0) / near.sum()
    y = logits - (near * logits).sum(axis=0) / near.sum()
    weights: Floats = np.linalg.solve(
        x.T @ (near * x) + _RIDGE * np.eye(x.shape[1]), x.T @ (near * y)
    )
    return weights
