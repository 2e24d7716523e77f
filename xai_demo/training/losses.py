"""Training objectives: a network with its loss and whatever else is only needed to train it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable

    from xai_demo.records import Floats
    from xai_demo.training.recipe import Recipe, Schedule


class Objective(nn.Module):
    """Cross-entropy of one label per sample; `weights` are those of the labels, (labels,)."""

    def __init__(self, network: nn.Module, weights: Floats | None = None) -> None:
        super().__init__()
        self.network = network
        tensor = None if weights is None else torch.from_numpy(weights)
        # Not persistent: the weights follow from the data, and checkpoints without them load.
        self.register_buffer("weights", tensor, persistent=False)

    def loss(self, inputs: Tensor, targets: Tensor, schedule: Schedule) -> Tensor:
        """Mean loss of a batch; `targets` are probabilities, (batch, labels)."""
        logits = run_in_bfloat16(self.network, inputs)
        weights: Any = self.weights
        if not schedule.focal_gamma:
            return F.cross_entropy(
                logits, targets, weights, label_smoothing=schedule.label_smoothing
            )
        # By hand, because only PyTorch's own cross-entropy smooths labels.
        smooth = (1 - schedule.label_smoothing) * targets + schedule.label_smoothing / len(
            targets[0]
        )
        rows = focal_cross_entropy(logits, smooth, schedule.focal_gamma)
        return (rows if weights is None else rows * weights).sum(1).mean()


class FindingsObjective(Objective):
    """Binary cross-entropy of independent labels, averaged over labels and batch.

    `weights`, (labels,), multiply the loss of a label where it is present.
    """

    def loss(self, inputs: Tensor, targets: Tensor, schedule: Schedule) -> Tensor:
        """Mean loss of a batch; `targets` are probabilities, (batch, labels)."""
        logits = run_in_bfloat16(self.network, inputs)
        # Towards one half, because every label is a choice of two.
        smooth = targets + schedule.label_smoothing * (0.5 - targets)
        rows = focal_binary_cross_entropy(logits, smooth, schedule.focal_gamma)
        weights: Any = self.weights
        if weights is not None:
            # 1 where a label is absent, its weight where it is present; between them for soft
            # targets.
            rows = rows * (1 + smooth * (weights - 1))
        return rows.mean()


def focal_cross_entropy(logits: Tensor, targets: Tensor, gamma: float) -> Tensor:
    """Terms of the focal loss for exclusive labels, (batch, labels); sum them over the labels.

    Lin et al. 2017, equation 4. At gamma 0 the sum is the cross-entropy.
    """
    logs = logits.log_softmax(1)
    return -targets * (1 - logs.exp()) ** gamma * logs


def focal_binary_cross_entropy(logits: Tensor, targets: Tensor, gamma: float) -> Tensor:
    """Focal loss of independent labels, (batch, labels); Lin et al. 2017, equation 4."""
    plain = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    if not gamma:
        return plain
    p = logits.sigmoid()
    return (targets * (1 - p) + (1 - targets) * p) ** gamma * plain


class BreathObjective(Objective):
    """Lung sounds of several hospitals: one classifier per source, one for all, events in time.

    Hospitals annotate differently. A classifier per source keeps these differences out of the
    features; the network's own classifier is trained on all sources without changing the features.
    A time-resolved cross-entropy trains the last stage to keep crackles and wheezes where they are
    in the window, which is what a heatmap has to show.
    """

    def __init__(self, network: Any, labels: int, sources: int) -> None:
        super().__init__(network)
        self.labels, self.sources = labels, sources
        # The names of these modules are keys of checkpoint.pt.
        # Twice the features, because the network pools by mean and by maximum.
        self.classifiers = nn.Linear(2 * network.num_features, labels * sources)
        self.in_time = nn.Conv1d(network.num_features, 2, 1)
        self.drop = nn.Dropout(0.3)

    def loss(self, inputs: Tensor, targets: Tensor, schedule: Schedule) -> Tensor:
        """Mean loss; `targets` from `pack_target`, (batch, labels + sources + 1 + 2 x columns)."""
        network: Any = self.network
        rest = targets.shape[1] - self.labels - self.sources - 1
        label, source, is_timed, times = torch.split(
            targets, [self.labels, self.sources, 1, rest], 1
        )
        label = (1 - schedule.label_smoothing) * label + schedule.label_smoothing / self.labels
        maps = run_in_bfloat16(network.forward_features, inputs)
        pooled = self.drop(network.global_pool(maps))
        # (batch, sources, labels), of which a sample counts with its own source only.
        by_source = self.classifiers(pooled).unflatten(1, (self.sources, self.labels))
        log_probabilities = by_source.log_softmax(2)
        source_loss = -((log_probabilities * label[:, None]).sum(2) * source).sum(1).mean()
        # Detached: the classifier for all sources must not change the features.
        shared_loss = F.cross_entropy(network.get_classifier()(pooled.detach()), label)
        # The maximum, so that an event shorter than a column still fills it.
        columns = F.adaptive_max_pool1d(times.unflatten(1, (2, -1)), maps.shape[3])
        column_losses = F.binary_cross_entropy_with_logits(
            # Over the bands, from (batch, channels, bands, columns).
            self.in_time(maps.mean(2)),
            columns,
            # A missed event costs twice as much as a false one.
            pos_weight=torch.full((2, 1), 2.0, device=maps.device),
            reduction="none",
        )
        # Where it is not known when events sound, there is nothing to compare with.
        time_loss = (column_losses.mean((1, 2)) * is_timed[:, 0]).mean()
        total: Tensor = source_loss + shared_loss + schedule.time_loss_weight * time_loss
        return total


def objective_for(network: Any, recipe: Recipe, weights: Floats | None = None) -> Objective:
    """The objective of a recipe; `weights` are those of its labels, (labels,)."""
    dropout = recipe.schedule.dropout
    if dropout is not None:
        set_dropout(network, dropout)
    if recipe.n_sources:
        return BreathObjective(network, len(recipe.model.labels), recipe.n_sources)
    if recipe.model.activation == "sigmoid":
        return FindingsObjective(network, weights)
    return Objective(network, weights)


def set_dropout(network: Any, rate: float) -> None:
    """Set the dropout rate of a network's pooled features."""
    layers = [m for m in network.modules() if isinstance(m, nn.Dropout)]
    for layer in layers:
        layer.p = rate
    # timm's residual networks have no dropout layer; they read this attribute.
    if hasattr(network, "drop_rate"):
        network.drop_rate = rate


def pack_target(label: Floats, source: Floats, times: Floats | None, columns: int) -> Floats:
    """One target row for `BreathObjective`.

    From the label (labels,), the source (sources,) and when crackles and wheezes sound,
    (2, columns), or None if that is not known.
    """
    is_timed = np.float32(times is not None)
    flat = np.zeros(2 * columns, np.float32) if times is None else times.reshape(-1)
    return np.concatenate([label, source, [is_timed], flat]).astype(np.float32)


def run_in_bfloat16(run: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """Run in bfloat16 if the processor supports it, four times as fast; returns float32."""
    device = inputs.device
    with torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device)):
        return run(inputs).float()


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    # Where oneDNN has to emulate it, bfloat16 is slower than float32.
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
