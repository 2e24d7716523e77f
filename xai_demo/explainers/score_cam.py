"""Score-CAM on a cut network: every channel is asked what the network sees through it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from xai_demo.explainers.cells import BATCH
from xai_demo.explainers.subject import Meter

if TYPE_CHECKING:
    from torch import Tensor

    from xai_demo.explainers.subject import Budget, Subject
    from xai_demo.records import Floats


def heat(subject: Subject, targets: Sequence[int], budget: Budget) -> Floats:
    """Channels, each weighed by the logit of the picture seen through it.

    Wang et al. 2020, equations 7-10, as pytorch-grad-cam has it, for all targets in one go, with
    two differences: what a channel hides becomes background (there: zero), and within a budget the
    channels that vary most are asked.
    """
    import torch

    laid_out = subject.maps(subject.activations).cpu()
    asked = min(budget.passes or 1, laid_out.shape[1])
    meter = Meter(budget, len(subject.inputs) * asked)
    maps = []
    with torch.inference_mode():
        for window, activations in zip(subject.inputs, laid_out, strict=True):
            spread = activations.flatten(1).std(dim=1, correction=0)
            chosen = activations[spread.topk(asked).indices]
            weights = _scores(subject, window, chosen, list(targets), meter).softmax(dim=0)
            maps.append(torch.einsum("ct,chw->thw", weights, chosen).numpy())
    result: Floats = np.maximum(np.stack(maps), 0)
    return result


def _scores(
    subject: Subject, window: Floats, channels: Tensor, columns: list[int], meter: Meter
) -> Tensor:
    """The logits of the picture through each channel: (channels, targets)."""
    import torch
    from torch.nn.functional import interpolate

    scores = []
    for batch in channels.split(BATCH):
        masks = interpolate(batch[:, None], window.shape[-2:], mode="bilinear", align_corners=True)
        least = masks.amin(dim=(2, 3), keepdim=True)
        masks = (masks - least) / (masks.amax(dim=(2, 3), keepdim=True) - least + 1e-8)
        seen = subject.background + masks.numpy() * (window - subject.background)
        logits = subject.forward(seen.astype(np.float32))
        scores.append(torch.from_numpy(np.asarray(logits, np.float32)[:, columns]))
        meter.spend(len(batch))
    return torch.cat(scores)
