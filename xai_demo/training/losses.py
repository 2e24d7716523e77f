"""What training makes small: a network with all that it needs beside it while it learns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable

    from xai_demo.records import Floats
    from xai_demo.training.recipe import Recipe, Schedule


class Objective(nn.Module):
    """One label a sample: cross-entropy. `targets` are probabilities, (batch, labels)."""

    def __init__(self, network: nn.Module, weights: Floats | None = None) -> None:
        super().__init__()
        self.network = network
        given = None if weights is None else torch.from_numpy(weights)
        self.register_buffer("weights", given, persistent=False)  # (labels,), about one

    def loss(self, inputs: Tensor, targets: Tensor, schedule: Schedule) -> Tensor:
        """The mean over the batch; under autocast, summed in float32."""
        logits = narrow(self.network, inputs)
        weights: Any = self.weights
        if not schedule.focal:
            return F.cross_entropy(
                logits, targets, weights, label_smoothing=schedule.label_smoothing
            )
        smooth = (1 - schedule.label_smoothing) * targets + schedule.label_smoothing / len(
            targets[0]
        )
        rows = focal_cross_entropy(logits, smooth, schedule.focal)
        return (rows if weights is None else rows * weights).sum(1).mean()


class FindingsObjective(Objective):
    """Independent labels: binary cross-entropy, averaged over labels and batch.

    `weights` say how much a label counts where it is present.
    """

    def loss(self, inputs: Tensor, targets: Tensor, schedule: Schedule) -> Tensor:
        """`targets` are probabilities, (batch, labels)."""
        logits = narrow(self.network, inputs)
        smooth = targets + schedule.label_smoothing * (0.5 - targets)
        rows = focal_binary_cross_entropy(logits, smooth, schedule.focal)
        weights: Any = self.weights
        if weights is not None:
            rows = rows * (1 + smooth * (weights - 1))
        return rows.mean()


def focal_cross_entropy(logits: Tensor, targets: Tensor, gamma: float) -> Tensor:
    """Lin et al. 2017, equation 4, for exclusive labels: (batch, labels), to be summed over them.

    At gamma 0 that sum is the cross-entropy.
    """
    logs = logits.log_softmax(1)
    return -targets * (1 - logs.exp()) ** gamma * logs


def focal_binary_cross_entropy(logits: Tensor, targets: Tensor, gamma: float) -> Tensor:
    """Lin et al. 2017, equation 4, for independent labels: (batch, labels)."""
    plain = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    if not gamma:
        return plain
    p = logits.sigmoid()
    return (targets * (1 - p) + (1 - targets) * p) ** gamma * plain


class BreathObjective(Objective):
    """Sounds of several hospitals: a classifier for each source, events in time, and one for all.

    Hospitals annotate differently. A classifier for each source keeps that out of the features; the
    network's own classifier learns from all sources without changing them. Time-resolved
    cross-entropy teaches the last stage where in the window a crackle or wheeze is, which is what a
    heatmap will be asked for.
    """

    def __init__(self, network: Any, labels: int, sources: int) -> None:
        super().__init__(network)
        self.labels, self.sources = labels, sources
        self.classifiers = nn.Linear(2 * network.num_features, labels * sources)
        self.in_time = nn.Conv1d(network.num_features, 2, 1)
        self.drop = nn.Dropout(0.3)

    def loss(self, inputs: Tensor, targets: Tensor, schedule: Schedule) -> Tensor:
        """`targets` as `packed` makes them, (batch, labels + sources + 1 + 2 x columns)."""
        network: Any = self.network
        rest = targets.shape[1] - self.labels - self.sources - 1
        label, source, known, times = torch.split(targets, [self.labels, self.sources, 1, rest], 1)
        label = (1 - schedule.label_smoothing) * label + schedule.label_smoothing / self.labels
        maps = narrow(network.forward_features, inputs)
        pooled = self.drop(network.global_pool(maps))
        each = self.classifiers(pooled).unflatten(1, (self.sources, self.labels)).log_softmax(2)
        of_source = -((each * label[:, None]).sum(2) * source).sum(1).mean()
        of_all = F.cross_entropy(network.get_classifier()(pooled.detach()), label)
        columns = F.adaptive_max_pool1d(times.unflatten(1, (2, -1)), maps.shape[3])
        seen = F.binary_cross_entropy_with_logits(
            self.in_time(maps.mean(2)),
            columns,
            pos_weight=torch.full((2, 1), 2.0, device=maps.device),
            reduction="none",
        )
        in_time = (seen.mean((1, 2)) * known[:, 0]).mean()
        total: Tensor = of_source + of_all + schedule.in_time * in_time
        return total


def of(network: Any, recipe: Recipe, weights: Floats | None = None) -> Objective:
    """What a recipe makes small; `weights` are those of its labels, (labels,)."""
    dropout = recipe.schedule.dropout
    if dropout is not None:
        dropped(network, dropout)
    if recipe.sources:
        return BreathObjective(network, len(recipe.model.labels), recipe.sources)
    if recipe.model.activation == "sigmoid":
        return FindingsObjective(network, weights)
    return Objective(network, weights)


def dropped(network: Any, rate: float) -> None:
    """Let a network forget that share of its pooled features while it learns."""
    layers = [m for m in network.modules() if isinstance(m, nn.Dropout)]
    for layer in layers:
        layer.p = rate
    if hasattr(network, "drop_rate"):  # timm's residual networks have no layer for it
        network.drop_rate = rate


def packed(label: Floats, source: Floats, times: Floats | None, columns: int) -> Floats:
    """One target for `BreathObjective`: (labels,), (sources,), (2, columns) or None: not known."""
    import numpy as np

    known = np.float32(times is not None)
    flat = np.zeros(2 * columns, np.float32) if times is None else times.reshape(-1)
    return np.concatenate([label, source, [known], flat]).astype(np.float32)


def narrow(run: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """In bfloat16 where the processor has it, four times as fast; float32 comes out."""
    device = inputs.device
    with torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device)):
        return run(inputs).float()


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
