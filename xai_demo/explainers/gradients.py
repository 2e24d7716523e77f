"""Attributions that need the whole network in torch: input gradients and attention rollout.

Input gradients run backward through every layer, down to the input. Attention rollout runs forward
only, and follows how much of each patch reaches the tokens that the prediction is read from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from xai_demo.errors import UnsuitableError
from xai_demo.explainers import base
from xai_demo.explainers.base import Meter

if TYPE_CHECKING:
    from torch import Tensor

    from xai_demo.explainers.base import Budget, Subject
    from xai_demo.records import Floats


def guided_backpropagation(subject: Subject, targets: Sequence[int], budget: Budget) -> Floats:
    """The absolute guided gradient, on a coarse grid: (windows, targets, rows, columns).

    Absolute, because a region can speak for a label by being darker as well as brighter.
    """
    return base.pool_to_grid(np.abs(guided_gradients(subject, targets, budget)))


def guided_gradients(subject: Subject, targets: Sequence[int], budget: Budget) -> Floats:
    """Guided gradients of the logits with respect to the input: (windows, targets, rows, columns).

    Springenberg et al. 2015, section 3.4.
    """
    import torch

    from xai_demo.explainers.torch_hooks import GuidedReLU

    meter = Meter(budget, len(subject.inputs))
    gradients = []
    for window in subject.inputs:
        x = torch.from_numpy(window[None].copy()).requires_grad_(True)
        with torch.enable_grad(), GuidedReLU():
            gradients.append(_input_gradients(subject, x, targets, meter))
        meter.spend(1)
    return np.concatenate(gradients)


def integrated_gradients(subject: Subject, targets: Sequence[int], budget: Budget) -> Floats:
    """The positive part of `signed_integrated_gradients`, on a coarse grid."""
    return np.maximum(base.pool_to_grid(signed_integrated_gradients(subject, targets, budget)), 0)


def signed_integrated_gradients(subject: Subject, targets: Sequence[int], budget: Budget) -> Floats:
    """Integrated gradients with their signs: (windows, targets, rows, columns).

    Sundararajan et al. 2017, equation 3, by the midpoint rule. Over all pixels they sum to
    logit(input) - logit(background), which is the paper's axiom of completeness.
    """
    import torch

    steps = budget.passes or 1
    meter = Meter(budget, len(subject.inputs) * steps)
    # The midpoints of equal steps from background to input.
    positions = ((np.arange(steps) + 0.5) / steps).astype(np.float32)
    attributions = []
    for window in subject.inputs:
        difference = window - np.float32(subject.background)
        total = np.zeros((len(targets), *window.shape[-2:]), np.float32)
        # In batches, between which the meter can stop the explanation.
        for batch in np.split(positions, range(base.BATCH_SIZE, steps, base.BATCH_SIZE)):
            between = subject.background + batch[:, None, None, None] * difference
            x = torch.from_numpy(between.astype(np.float32)).requires_grad_(True)
            with torch.enable_grad():
                total += _input_gradients(subject, x, targets, meter).sum(axis=0)
            meter.spend(len(batch))
        # Mean gradient times distance: equation 3.
        attributions.append(difference * total / steps)
    return np.stack(attributions)


def _input_gradients(subject: Subject, x: Tensor, targets: Sequence[int], meter: Meter) -> Floats:
    """Gradients of each target's logit for (n, 1, rows, columns): (n, targets, rows, columns)."""
    import torch

    logits = subject.differentiable_network()(x)
    gradients = []
    for target in targets:
        meter.check()
        # Inputs do not influence each other's logits, so one backward pass serves the whole batch.
        (gradient,) = torch.autograd.grad(logits[:, target].sum(), x, retain_graph=True)
        gradients.append(gradient[:, 0].cpu().numpy())
    return np.stack(gradients, axis=1)


def rollout(subject: Subject, targets: Sequence[int], budget: Budget) -> Floats:
    """Mean attention over the heads, multiplied from block to block.

    Abnar & Zuidema 2020, section 3. The heatmap is the same for every target, because attention
    does not depend on the label. Raises UnsuitableError for a network without attention.
    """
    import torch

    from xai_demo.explainers.torch_hooks import AttentionRecorder

    network = subject.differentiable_network()
    # The grid of the patches, which the tokens themselves do not have.
    rows, columns = subject.feature_maps(subject.activations).shape[2:]
    meter = Meter(budget, len(subject.inputs))
    maps = []
    # One window at a time: the attention of AST's twelve blocks takes 70 MB a window.
    for window in subject.inputs:
        with torch.no_grad(), AttentionRecorder() as recorder:
            network(torch.from_numpy(window[None].copy()))
        if not recorder.weights:
            raise UnsuitableError(
                "Attention rollout needs a transformer; this network has no attention."
            )
        attentions = [weights[0] for weights in recorder.weights]
        reached = attention_flow(attentions, patches=rows * columns)
        maps.append(reached.reshape(rows, columns).cpu().numpy())
        meter.spend(1)
    # (windows, targets, rows, columns).
    heatmap: Floats = np.repeat(np.stack(maps)[:, None], len(targets), axis=1)
    return heatmap.astype(np.float32)


def attention_flow(attentions: Sequence[Tensor], patches: int) -> Tensor:
    """How much of each patch reaches the leading tokens, mean over them: (patches,).

    Where there are none, the prediction is read from the mean over all patches. `attentions` are
    (queries, keys) matrices whose rows sum to 1, first block first; the last one may have the
    leading tokens as its only queries. Because of the residual connections a token keeps half of
    itself in each block.
    """
    import torch

    # The first block attends from all tokens to all: its keys are leading tokens and patches.
    n_leading = attentions[0].shape[1] - patches
    n_read = n_leading or patches
    reached = torch.eye(n_read, attentions[-1].shape[0]).to(attentions[0])
    # From the last block backwards only the leading tokens' rows are needed, not whole matrices.
    for attention in reversed(attentions):
        # Not square if the last block has the leading tokens as its only queries.
        residual = torch.eye(*attention.shape).to(attention)
        step = attention + residual
        # Divided by the row sums, so that each block passes on all that reaches it.
        reached = reached @ (step / step.sum(dim=1, keepdim=True))
    return reached.mean(dim=0)[n_leading:]
