"""Explanations that hide parts of a picture and ask again: any backend, no gradients.

SHAP: each part's share of the difference between the picture and the background.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from xai_demo.explainers import base
from xai_demo.explainers.base import Meter

if TYPE_CHECKING:
    from torch import Tensor, nn

    from xai_demo.explainers.base import Budget, Subject
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
    rows, columns = base.grid_size(subject.inputs.shape, passes)
    hidden = _patch_masks(rows, columns)
    meter = Meter(budget, len(subject.inputs) * (1 + len(hidden)))
    heat = []
    for window in subject.inputs:
        ask = base.masked_forward(subject, window, targets, meter)
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
    rows, columns = base.grid_size(subject.inputs.shape, max(4, passes // _SAMPLES_PER_CELL))
    draws = np.random.default_rng(0).integers(0, 2, (passes, rows, columns)).astype(np.float32)
    draws[0] = 1
    meter = Meter(budget, len(subject.inputs) * passes)
    heat = []
    for window in subject.inputs:
        logits = base.masked_forward(subject, window, targets, meter)(draws)
        weights = _fit_linear_model(draws.reshape(passes, -1), logits)
        heat.append(weights.T.reshape(-1, rows, columns))
    result: Floats = np.maximum(np.stack(heat), 0).astype(np.float32)
    return result


def _patch_masks(rows: int, columns: int) -> Floats:
    """Every place of a patch of two cells by two: (places, rows, columns), 1 where it lies."""
    high, wide = min(2, rows), min(2, columns)
    places = [(i, j) for i in range(rows - high + 1) for j in range(columns - wide + 1)]
    hidden = np.zeros((len(places), rows, columns), np.float32)
    for patch, (i, j) in zip(hidden, places, strict=True):
        patch[i : i + high, j : j + wide] = 1
    return hidden


def _fit_linear_model(draws: Floats, logits: Floats) -> Floats:
    """Ridge regression weighted by nearness: (n, cells), (n, targets) -> (cells, targets)."""
    distance = 1 - np.sqrt(draws.mean(axis=1))  # cosine, from the picture with nothing hidden
    near = np.sqrt(np.exp(-(distance**2) / _KERNEL_WIDTH**2))[:, None]
    x = draws - (near * draws).sum(axis=0) / near.sum()
    y = logits - (near * logits).sum(axis=0) / near.sum()
    weights: Floats = np.linalg.solve(
        x.T @ (near * x) + _RIDGE * np.eye(x.shape[1]), x.T @ (near * y)
    )
    return weights


_MAX_CELLS = 256  # the finest parts that are told apart
_SHAP_RNG_LOCK = threading.Lock()  # shap draws from numpy's global generator, which threads share


def partition_shap(subject: Subject, targets: Sequence[int], budget: Budget) -> Floats:
    """What speaks for a label, by shap's PartitionExplainer; see `owen_values`."""
    values = owen_values(subject, targets, budget)
    return np.maximum(values, 0)


def owen_values(subject: Subject, targets: Sequence[int], budget: Budget) -> Floats:
    """Shapley values within halves of halves of the picture. Lundberg & Lee 2017; Owen 1977.

    With their signs: over all cells they sum to logit(picture) - logit(background).
    """
    import shap

    passes = max(4, budget.passes or 0)
    rows, columns = base.grid_size(subject.inputs.shape, _MAX_CELLS)
    masker = shap.maskers.Image(np.zeros((rows, columns, 1), np.float32))
    shown = np.ones((1, rows, columns, 1), np.float32)
    meter = Meter(budget, len(subject.inputs) * len(targets) * passes)
    values = []
    for window in subject.inputs:
        for target in targets:  # each alone: shap looks closer where one label's value is largest
            ask = base.masked_forward(subject, window, [target], meter)
            explain = shap.PartitionExplainer(lambda keep, ask=ask: ask(keep[..., 0])[:, 0], masker)
            found = explain(shown, max_evals=passes, batch_size=base.BATCH_SIZE, silent=True)
            values.append(found.values.reshape(rows, columns))
    result: Floats = np.stack(values).reshape(-1, len(targets), rows, columns)
    return result.astype(np.float32)


def expected_gradients(subject: Subject, targets: Sequence[int], budget: Budget) -> Floats:
    """Mean gradient at random places between background and picture. Erion et al. 2021.

    By shap's GradientExplainer.
    """
    import shap
    import torch

    samples = budget.passes or 1
    meter = Meter(budget, len(subject.inputs) * len(targets) * samples)
    background = torch.full_like(torch.from_numpy(subject.inputs[:1]), subject.background)
    explainer = shap.GradientExplainer(
        _target_module(subject, targets, meter), background, batch_size=base.BATCH_SIZE
    )
    values = []
    for window in subject.inputs:
        with _SHAP_RNG_LOCK, torch.enable_grad():
            found = explainer.shap_values(
                torch.from_numpy(window[None].copy()), nsamples=samples, rseed=0
            )
        found = np.asarray(found).reshape(*window.shape[-2:], len(targets))
        values.append(np.moveaxis(found, -1, 0))
    return np.maximum(base.pool_to_grid(np.stack(values)), 0)


def _target_module(subject: Subject, targets: Sequence[int], meter: Meter) -> nn.Module:
    """The whole network, asked for the targets alone, as the module that shap wants."""
    from torch import nn

    network = subject.differentiable()

    class Targets(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            logits = network(x)[:, list(targets)]
            meter.spend(len(x))
            return logits

    return Targets()
