"""Attention rollout: how much of each patch reaches the tokens that the prediction is read from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from xai_demo.errors import UnsuitableError
from xai_demo.explainers.base import Meter

if TYPE_CHECKING:
    from torch import Tensor

    from xai_demo.explainers.base import Budget, Subject
    from xai_demo.records import Floats


def rollout(subject: Subject, targets: Sequence[int], budget: Budget) -> Floats:
    """Mean attention over the heads, multiplied from block to block.

    Abnar & Zuidema 2020, section 3. The heatmap is the same for every target, because attention
    does not depend on the label. Raises UnsuitableError for a network without attention.
    """
    import torch

    from xai_demo.explainers.torch_hooks import AttentionRecorder

    network = subject.differentiable_network()
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
    heatmap: Floats = np.repeat(np.stack(maps)[:, None], len(targets), axis=1)
    return heatmap.astype(np.float32)


def attention_flow(attentions: Sequence[Tensor], patches: int) -> Tensor:
    """How much of each patch reaches the leading tokens, mean over them: (patches,).

    `attentions` are (queries, keys) matrices whose rows sum to 1, first block first; the last one
    may have the leading tokens as its only queries. Because of the residual connections a token
    keeps half of itself in each block.
    """
    import torch

    n_leading = attentions[0].shape[1] - patches
    reached = torch.eye(n_leading, attentions[-1].shape[0]).to(attentions[0])
    # From the last block backwards only the leading tokens' rows are needed, not whole matrices.
    for attention in reversed(attentions):
        residual = torch.eye(*attention.shape).to(attention)
        step = attention + residual
        reached = reached @ (step / step.sum(dim=1, keepdim=True))
    return reached.mean(dim=0)[n_leading:]
