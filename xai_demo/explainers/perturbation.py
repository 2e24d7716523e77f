"""Attributions from masked inputs: occlusion, LIME and SHAP.

Occlusion, LIME and partition SHAP need forward passes only, on any backend; SHAP's expected
gradients need the whole network in torch.
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

# LIME's settings for images, as in its authors' code.
_KERNEL_WIDTH = 0.25
_RIDGE = 1.0
# A smaller budget gives a coarser grid.
_SAMPLES_PER_CELL = 5
# The finest grid of partition SHAP: 16 x 16 cells on a square input.
_MAX_CELLS = 256
# shap draws from numpy's global random generator, which all threads share.
_SHAP_RNG_LOCK = threading.Lock()


def occlusion(subject: Subject, targets: Sequence[int], budget: Budget) -> Floats:
    """Occlusion: how much the logit falls while a patch is hidden.

    Zeiler & Fergus 2014, section 4.2. The patch is two cells wide and high and moves by one cell;
    a cell's attribution is the mean over the patches that cover it.
    """
    passes = budget.passes or 1
    # There is a little less than one patch for each cell, so the grid follows from the budget.
    rows, columns = base.grid_size(subject.inputs.shape, passes)
    hidden = _patch_masks(rows, columns)
    meter = Meter(budget, len(subject.inputs) * (1 + len(hidden)))
    heatmaps = []
    for window in subject.inputs:
        predict = base.masked_forward(subject, window, targets, meter)
        # The whole input first: every drop is measured from it.
        logits = predict(np.concatenate([np.ones_like(hidden[:1]), 1 - hidden]))
        drops = logits[0] - logits[1:]  # (patches, targets)
        total = np.einsum("pt,prc->trc", drops, hidden)
        # Cells at the edges are covered by fewer patches.
        heatmaps.append(total / hidden.sum(axis=0))
    result: Floats = np.maximum(np.stack(heatmaps), 0).astype(np.float32)
    return result


def lime(subject: Subject, targets: Sequence[int], budget: Budget) -> Floats:
    """LIME: the weights of a linear model that imitates the network near the input.

    Ribeiro et al. 2016. Kernel, distance and ridge are those of the authors' code for images, which
    has not been maintained since 2020. Instead of superpixels, which follow edges that a
    spectrogram does not have, the regions are cells of a grid. The samples are the same every time.
    """
    passes = budget.passes or 1
    rows, columns = base.grid_size(subject.inputs.shape, max(4, passes // _SAMPLES_PER_CELL))
    # Each cell is hidden with probability 1/2.
    draws = np.random.default_rng(0).integers(0, 2, (passes, rows, columns)).astype(np.float32)
    # The first sample is the whole input.
    draws[0] = 1
    meter = Meter(budget, len(subject.inputs) * passes)
    heatmaps = []
    for window in subject.inputs:
        logits = base.masked_forward(subject, window, targets, meter)(draws)
        weights = _fit_linear_model(draws.reshape(passes, -1), logits)
        heatmaps.append(weights.T.reshape(-1, rows, columns))
    result: Floats = np.maximum(np.stack(heatmaps), 0).astype(np.float32)
    return result


def partition_shap(subject: Subject, targets: Sequence[int], budget: Budget) -> Floats:
    """SHAP: the positive part of `owen_values`."""
    return np.maximum(owen_values(subject, targets, budget), 0)


def owen_values(subject: Subject, targets: Sequence[int], budget: Budget) -> Floats:
    """Shapley values over nested halves of the input, by shap's PartitionExplainer.

    Lundberg & Lee 2017; Owen 1977. With their signs: over all cells they sum to
    logit(input) - logit(background). Returns (windows, targets, rows, columns).
    """
    import shap

    passes = max(4, budget.passes or 0)
    rows, columns = base.grid_size(subject.inputs.shape, _MAX_CELLS)
    # shap masks a map of ones, one value a cell; `masked_forward` enlarges it over the input.
    masker = shap.maskers.Image(np.zeros((rows, columns, 1), np.float32))
    whole = np.ones((1, rows, columns, 1), np.float32)
    meter = Meter(budget, len(subject.inputs) * len(targets) * passes)
    values = []
    for window in subject.inputs:
        # One target at a time: shap refines the partition where one label's values are largest.
        for target in targets:
            predict = base.masked_forward(subject, window, [target], meter)
            explain = shap.PartitionExplainer(
                lambda masks, predict=predict: predict(masks[..., 0])[:, 0], masker
            )
            result = explain(whole, max_evals=passes, batch_size=base.BATCH_SIZE, silent=True)
            values.append(result.values.reshape(rows, columns))
    stacked: Floats = np.stack(values).reshape(-1, len(targets), rows, columns)
    return stacked.astype(np.float32)


def expected_gradients(subject: Subject, targets: Sequence[int], budget: Budget) -> Floats:
    """SHAP by gradients: the mean gradient at random points between background and input.

    Erion et al. 2021, by shap's GradientExplainer.
    """
    import shap
    import torch

    samples = budget.passes or 1
    meter = Meter(budget, len(subject.inputs) * len(targets) * samples)
    # The baseline is one input of nothing but background.
    background = torch.full_like(torch.from_numpy(subject.inputs[:1]), subject.background)
    # Not one target at a time: shap loops over the outputs itself.
    explainer = shap.GradientExplainer(
        _target_module(subject, targets, meter), background, batch_size=base.BATCH_SIZE
    )
    values = []
    for window in subject.inputs:
        with _SHAP_RNG_LOCK, torch.enable_grad():
            attributions = explainer.shap_values(
                # With a seed, the same noise serves every target and every call.
                torch.from_numpy(window[None].copy()),
                nsamples=samples,
                rseed=0,
            )
        # shap returns the outputs last: (1, 1, rows, columns, targets).
        attributions = np.asarray(attributions).reshape(*window.shape[-2:], len(targets))
        values.append(np.moveaxis(attributions, -1, 0))
    return np.maximum(base.pool_to_grid(np.stack(values)), 0)


def _patch_masks(rows: int, columns: int) -> Floats:
    """Every position of a patch of two by two cells: (positions, rows, columns), 1 inside it."""
    # A grid may have a single row: a narrow band of mel over a long time.
    high, wide = min(2, rows), min(2, columns)
    places = [(i, j) for i in range(rows - high + 1) for j in range(columns - wide + 1)]
    hidden = np.zeros((len(places), rows, columns), np.float32)
    for patch, (i, j) in zip(hidden, places, strict=True):
        patch[i : i + high, j : j + wide] = 1
    return hidden


def _fit_linear_model(draws: Floats, logits: Floats) -> Floats:
    """Ridge regression weighted by proximity: (n, cells), (n, targets) -> (cells, targets)."""
    # The cosine distance from the input with nothing hidden.
    distance = 1 - np.sqrt(draws.mean(axis=1))
    near = np.sqrt(np.exp(-(distance**2) / _KERNEL_WIDTH**2))[:, None]
    # Centred by weighted means, which stands in for an intercept that the ridge leaves alone.
    x = draws - (near * draws).sum(axis=0) / near.sum()
    y = logits - (near * logits).sum(axis=0) / near.sum()
    weights: Floats = np.linalg.solve(
        x.T @ (near * x) + _RIDGE * np.eye(x.shape[1]), x.T @ (near * y)
    )
    return weights


def _target_module(subject: Subject, targets: Sequence[int], meter: Meter) -> nn.Module:
    """The whole network with the targets as its only outputs, as the module that shap needs."""
    from torch import nn

    network = subject.differentiable_network()

    # Defined here, because torch must not be imported with this module.
    class Targets(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            logits = network(x)[:, list(targets)]
            meter.spend(len(x))
            return logits

    return Targets()
