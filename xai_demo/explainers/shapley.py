"""SHAP: each part's share of the difference between the picture and the background."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from xai_demo.explainers import cells
from xai_demo.explainers.subject import Meter

if TYPE_CHECKING:
    from torch import Tensor, nn

    from xai_demo.explainers.subject import Budget, Subject
    from xai_demo.records import Floats

_MOST_CELLS = 256  # the finest parts that are told apart
_SEEDING = threading.Lock()  # shap draws from numpy's global generator, which threads share


def partition(subject: Subject, targets: Sequence[int], budget: Budget) -> Floats:
    """What speaks for a label, by shap's PartitionExplainer; see `owen_values`."""
    values = owen_values(subject, targets, budget)
    return np.maximum(values, 0)


def owen_values(subject: Subject, targets: Sequence[int], budget: Budget) -> Floats:
    """Shapley values within halves of halves of the picture. Lundberg & Lee 2017; Owen 1977.

    With their signs: over all cells they sum to logit(picture) - logit(background).
    """
    import shap

    passes = max(4, budget.passes or 0)
    rows, columns = cells.grid(subject.inputs.shape, _MOST_CELLS)
    masker = shap.maskers.Image(np.zeros((rows, columns, 1), np.float32))
    shown = np.ones((1, rows, columns, 1), np.float32)
    meter = Meter(budget, len(subject.inputs) * len(targets) * passes)
    values = []
    for window in subject.inputs:
        for target in targets:  # each alone: shap looks closer where one label's value is largest
            ask = cells.answers(subject, window, [target], meter)
            explain = shap.PartitionExplainer(lambda keep, ask=ask: ask(keep[..., 0])[:, 0], masker)
            found = explain(shown, max_evals=passes, batch_size=cells.BATCH, silent=True)
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
        _module(subject, targets, meter), background, batch_size=cells.BATCH
    )
    values = []
    for window in subject.inputs:
        with _SEEDING, torch.enable_grad():
            found = explainer.shap_values(
                torch.from_numpy(window[None].copy()), nsamples=samples, rseed=0
            )
        found = np.asarray(found).reshape(*window.shape[-2:], len(targets))
        values.append(np.moveaxis(found, -1, 0))
    return np.maximum(cells.pooled(np.stack(values)), 0)


def _module(subject: Subject, targets: Sequence[int], meter: Meter) -> nn.Module:
    """The whole network, asked for the targets alone, as the module that shap wants."""
    from torch import nn

    network = subject.differentiable()

    class Targets(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            logits = network(x)[:, list(targets)]
            meter.spend(len(x))
            return logits

    return Targets()
