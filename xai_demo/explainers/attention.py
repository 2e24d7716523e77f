"""Attention rollout: how much of each patch reaches the tokens that the answer is read from."""

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
    """Attention, mean over heads, followed from block to block. Abnar & Zuidema 2020, section 3.

    The same heat for every target: it knows no labels. Raises UnsuitableError.
    """
    import torch

    from xai_demo.explainers.torch_hooks import AttentionRecorder

    network = subject.differentiable()
    rows, columns = subject.maps(subject.activations).shape[2:]
    meter = Meter(budget, len(subject.inputs))
    found = []
    for window in subject.inputs:  # one by one: the attentions of twelve blocks take 70 MB
        with torch.no_grad(), AttentionRecorder() as attended:
            network(torch.from_numpy(window[None].copy()))
        if not attended.weights:
            raise UnsuitableError(
                "Attention rollout was asked about a network without attention, "
                "wanted: a transformer."
            )
        arrived = attention_flow(
            [weights[0] for weights in attended.weights], patches=rows * columns
        )
        found.append(arrived.reshape(rows, columns).cpu().numpy())
        meter.spend(1)
    heat: Floats = np.repeat(np.stack(found)[:, None], len(targets), axis=1)
    return heat.astype(np.float32)


def attention_flow(attentions: Sequence[Tensor], patches: int) -> Tensor:
    """What of each patch reaches the leading tokens, mean over them: (patches,).

    Each attention is (asking, asked), rows summing to 1, first block first. In the last one the
    leading tokens alone may ask. A token keeps half of itself on the way through a block.
    """
    import torch

    leading = attentions[0].shape[1] - patches
    arrived = torch.eye(leading, attentions[-1].shape[0]).to(attentions[0])
    for attention in reversed(attentions):
        kept = torch.eye(*attention.shape).to(attention)
        step = attention + kept
        arrived = arrived @ (step / step.sum(dim=1, keepdim=True))
    return arrived.mean(dim=0)[leading:]
