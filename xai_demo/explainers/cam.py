"""Class activation maps, computed from the activations at the cut and the head alone.

The methods by gradients are pytorch-grad-cam's own, so that their results are exactly its. What it
explains is a layer inside a network; here that layer is an identity put before the head of the cut
network. The gradients there equal those of the whole network, because everything before the cut
computes the same activations: an explanation costs a pass through the small head and back, and no
second pass through the network.

Score-CAM is ours: it predicts the input as seen through each channel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo.errors import UnsuitableError
from xai_demo.explainers.base import BATCH_SIZE, Meter

if TYPE_CHECKING:
    from torch import Tensor, nn

    from xai_demo.explainers.base import Budget, Subject
    from xai_demo.records import Floats

    AttributionMethod = Callable[[Subject, Sequence[int], Budget], Floats]

# Of Ablation-CAM: each is a copy of the activations.
_CHANNELS_PER_BATCH = 64


def gradient_cam(method: str) -> AttributionMethod:
    """An explainer by the class of that name in pytorch-grad-cam, such as `GradCAMPlusPlus`."""

    def attribute(subject: Subject, targets: Sequence[int], budget: Budget) -> Floats:
        # One row for each window and target: pytorch-grad-cam takes one target a row.
        activations = _repeat_per_target(subject.activations, targets)
        gradients = _gradients(activations, subject.head, targets)
        return _pytorch_grad_cam(
            method,
            subject.feature_maps(activations),
            subject.head,
            _to_numpy(subject.feature_maps(gradients)),
            targets,
        )

    return attribute


def class_weight_cam(subject: Subject, targets: Sequence[int], budget: Budget) -> Floats:
    """CAM: the maps weighted as the last layer weights their means. Zhou et al. 2016, equation 2.

    Raises UnsuitableError unless the head is exactly that mean and one linear layer.
    """
    import torch
    from torch import nn

    maps, head = subject.feature_maps(subject.activations), subject.head
    # Compare the outputs instead of the module types: a head can compute the mean in many ways.
    layers = [m for m in head.modules() if isinstance(m, nn.Linear)]
    with torch.inference_mode():
        # More linear layers, or one of another width, are no mere weighting of the maps.
        if len(layers) != 1 or layers[0].in_features != maps.shape[1]:
            raise _not_pooled_error()
        if not torch.allclose(
            head(subject.activations), layers[0](maps.mean((2, 3))), rtol=1e-3, atol=1e-3
        ):
            raise _not_pooled_error()
        # (windows, targets, rows, columns).
        heatmap = torch.einsum("tc,nchw->nthw", layers[0].weight[list(targets)], maps)
    return np.maximum(_to_numpy(heatmap), 0)


def _not_pooled_error() -> UnsuitableError:
    return UnsuitableError(
        "CAM needs a network that only averages its maps and weights them after the explained "
        "layer, as a ResNet does; this one does more, so use another explainer, such as Grad-CAM."
    )


def eigengrad_cam(subject: Subject, targets: Sequence[int], budget: Budget) -> Floats:
    """EigenGrad-CAM: the first principal component of activations times gradients."""
    activations = _repeat_per_target(subject.activations, targets)
    gradients = _gradients(activations, subject.head, targets)
    weighted = _to_numpy(subject.feature_maps(activations)) * _to_numpy(
        subject.feature_maps(gradients)
    )
    heatmap = np.maximum(_first_principal_component(weighted), 0)
    return heatmap.reshape(-1, len(targets), *heatmap.shape[1:])


def eigen_cam(subject: Subject, targets: Sequence[int], budget: Budget) -> Floats:
    """Eigen-CAM: the first principal component of the activations, the same for every target."""
    maps = _to_numpy(subject.feature_maps(subject.activations))
    heatmap = np.maximum(_first_principal_component(maps), 0)
    return np.repeat(heatmap[:, None], len(targets), axis=1)


def ablation_cam(subject: Subject, targets: Sequence[int], budget: Budget) -> Floats:
    """Ablation-CAM: a channel's weight is the share of the logit that is lost without it.

    Desai & Ramaswamy 2020, equation 4. pytorch-grad-cam runs one small forward pass for each
    channel; on a cut network they are a few batches.
    """
    import torch

    activations, head = subject.activations, subject.head
    with torch.inference_mode():
        columns = list(targets)
        # (samples, targets).
        intact = head(activations)[:, columns]
        losses = []
        for sample, base in zip(activations, intact, strict=True):
            ablated = []
            for channels in torch.arange(len(sample)).split(_CHANNELS_PER_BATCH):
                # Copy i of the sample has its i-th channel of this batch set to zero.
                batch = sample.repeat(len(channels), 1, 1, 1)
                batch[torch.arange(len(channels)), channels] = 0
                ablated.append(head(batch)[:, columns])
            # (channels, targets).
            losses.append((base - torch.cat(ablated)) / base)
        # (samples, channels, targets).
        weights = torch.stack(losses)
        heatmap = torch.einsum("nct,nchw->nthw", weights, activations)
    return np.maximum(_to_numpy(heatmap), 0)


def score_cam(subject: Subject, targets: Sequence[int], budget: Budget) -> Floats:
    """Score-CAM: a channel's weight is the logit of the input seen through it.

    Wang et al. 2020, equations 7-10, as in pytorch-grad-cam, for all targets at once, with two
    differences: what a channel hides becomes background instead of zero, and with a budget only
    the channels that vary most are used.
    """
    import torch

    # The masks are applied in numpy, on the input.
    maps = subject.feature_maps(subject.activations).cpu()
    n_channels = min(budget.passes or 1, maps.shape[1])
    meter = Meter(budget, len(subject.inputs) * n_channels)
    heatmaps = []
    with torch.inference_mode():
        for window, channels in zip(subject.inputs, maps, strict=True):
            # A flat channel would hide the whole input, so its logit says nothing about places.
            deviations = channels.flatten(1).std(dim=1, correction=0)
            chosen = channels[deviations.topk(n_channels).indices]
            weights = _channel_scores(subject, window, chosen, list(targets), meter).softmax(dim=0)
            heatmaps.append(torch.einsum("ct,chw->thw", weights, chosen).numpy())
    result: Floats = np.maximum(np.stack(heatmaps), 0)
    return result


def _channel_scores(
    subject: Subject, window: Floats, channels: Tensor, columns: list[int], meter: Meter
) -> Tensor:
    """The logits of the window seen through each channel: (channels, targets)."""
    import torch
    from torch.nn.functional import interpolate

    scores = []
    for batch in channels.split(BATCH_SIZE):
        # pytorch-grad-cam's UpsamplingBilinear2d aligns corners as well.
        masks = interpolate(batch[:, None], window.shape[-2:], mode="bilinear", align_corners=True)
        lowest = masks.amin(dim=(2, 3), keepdim=True)
        # Each mask from 0 to 1; the small constant is pytorch-grad-cam's and keeps a flat one at 0.
        masks = (masks - lowest) / (masks.amax(dim=(2, 3), keepdim=True) - lowest + 1e-8)
        masked = subject.background + masks.numpy() * (window - subject.background)
        logits = subject.forward(masked.astype(np.float32))
        scores.append(torch.from_numpy(np.asarray(logits, np.float32)[:, columns]))
        meter.spend(len(batch))
    return torch.cat(scores)


def _pytorch_grad_cam(
    method: str,
    activations: Tensor,
    head: nn.Module,
    gradients: Floats,
    targets: Sequence[int],
) -> Floats:
    import pytorch_grad_cam
    from torch import nn

    identity = nn.Identity()
    model = nn.Sequential(identity, head)
    cam_class: Any = getattr(pytorch_grad_cam, method)
    # Leaving the block removes the hooks that the library puts on the layer.
    with cam_class(model=model, target_layers=[identity]) as cam:
        # Not by calling `cam`, which would run passes of its own: both arrays are at hand.
        heatmap = cam.get_cam_image(
            activations, identity, list(targets), _to_numpy(activations), gradients, False
        )
    # Grad-CAM++ and XGrad-CAM divide by sums that can be zero.
    heatmap = np.maximum(np.nan_to_num(heatmap), 0).astype(np.float32)
    result: Floats = heatmap.reshape(-1, len(targets), *heatmap.shape[1:])
    return result


def _gradients(activations: Tensor, head: nn.Module, targets: Sequence[int]) -> Tensor:
    """The gradients of each row's own target with respect to that row of the activations."""
    import torch

    x = activations.clone().requires_grad_(True)
    # The order of `_repeat_per_target`.
    columns = torch.tensor(list(targets) * (len(x) // len(targets)))
    with torch.enable_grad():
        # Rows do not influence each other, so the gradient of the sum is that of each row.
        logits = head(x)[torch.arange(len(x)), columns].sum()
        gradients: Tensor = torch.autograd.grad(logits, x)[0]
    return gradients


def _first_principal_component(maps: Floats) -> Floats:
    """(n, channels, rows, columns) projected on the first component: (n, rows, columns)."""
    positions = np.nan_to_num(maps).reshape(*maps.shape[:2], -1).transpose(0, 2, 1)
    # Centred, as in pytorch-grad-cam: without it, it says, the map comes out negative.
    positions = positions - positions.mean(axis=1, keepdims=True)
    # pytorch-grad-cam computes the full decomposition, channels by channels, of which only the
    # first direction is used: that takes hundreds of times longer.
    _, _, directions = np.linalg.svd(positions, full_matrices=False)
    projected: Floats = np.einsum("npc,nc->np", positions, directions[:, 0])
    return projected.reshape(len(maps), *maps.shape[2:]).astype(np.float32)


def _repeat_per_target(activations: Tensor, targets: Sequence[int]) -> Tensor:
    """(samples, ...) -> (samples * targets, ...), the targets of a sample next to each other."""
    return activations.detach().clone().repeat_interleave(len(targets), dim=0)


def _to_numpy(tensor: Tensor) -> Floats:
    array: Floats = tensor.detach().cpu().numpy()
    return array
